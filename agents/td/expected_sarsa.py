"""Tabular expected SARSA."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from recsim_llm.agents.core.env_runner import Transition
from recsim_llm.agents.td.tabular import TabularAgent


class ExpectedSarsaAgent(TabularAgent):
    """Learns the value of what it does itself, from the mean over its next action in place of a drawn one.

    Equation: Q(s_t, a_t) <- Q(s_t, a_t) + step (r_t + gamma sum_a pi(a | s_tp1) Q(s_tp1, a) - Q(s_t, a_t)), where pi
    shows an item of the best cluster with probability 1 - epsilon_t and a uniform one otherwise; r_t alone where the
    user has left for good (terminated).

    Paper: van Seijen, van Hasselt, Whiteson and Wiering (2009), "A theoretical and empirical analysis of expected
    Sarsa".

    Origin of the defaults, Deviations: as for :class:`QLearningAgent`. pi leaves out of
    account which items rest and which are known to be better than their cluster.
    """

    name: ClassVar[str] = "expected_sarsa"

    def update(self, transition: Transition) -> None:
        """One step of the equation for every slot that was looked at."""
        rewards, seen = self.gains(transition)
        future = np.where(transition.terminated, 0.0, self.expected(self.states(transition.next_observation)))
        targets = rewards + self.config.gamma * future[:, None]
        self.learn_towards(self.states(transition.observation), self.clusters(transition), targets, seen)
