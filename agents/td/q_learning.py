"""Tabular Q-learning."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from recsim_llm.agents.core.env_runner import Transition
from recsim_llm.agents.td.tabular import TabularAgent


class QLearningAgent(TabularAgent):
    """Learns the value of the best that can be done, whatever it does itself.

    Equation: Q(s_t, a_t) <- Q(s_t, a_t) + step (r_t + gamma max_a Q(s_tp1, a) - Q(s_t, a_t)), without the maximum where
    the user has left for good (terminated), with it where only the clock ended the episode (truncated).

    Paper: Watkins and Dayan (1992), "Q-learning".

    Origin of the defaults: the exponent 0.77 of the step size is Even-Dar and Mansour's (2003, "Learning rates for
    Q-learning", about 0.77 is best at gamma near 1); numbers of clusters so that each cell is visited tens of times in
    20,000 steps. Deviations: see :class:`TabularAgent` for states and actions; the step size
    does not fall below ``smallest_step``, as items and users change; slots share one table.
    """

    name: ClassVar[str] = "q_learning"

    def update(self, transition: Transition) -> None:
        """One step of the equation for every slot that was looked at."""
        rewards, seen = self.gains(transition)
        future = self.table[self.states(transition.next_observation)].max(1)
        future = np.where(transition.terminated, 0.0, future)
        targets = rewards + self.config.gamma * future[:, None]
        self.learn_towards(self.states(transition.observation), self.clusters(transition), targets, seen)
