"""Tabular SARSA."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from recsim_llm.agents.lanes import Flags, Transition
from recsim_llm.agents.tabular import Indices, TabularAgent, Values


@dataclass(frozen=True)
class Pending:
    """Steps that wait for the action that comes next, B lanes."""

    states: Indices  # [B]
    clusters: Indices  # [B, K]
    rewards: Values  # [B, K]
    seen: Flags  # [B, K], False where nothing waits


class SarsaAgent(TabularAgent):
    """Learns the value of what it does itself, exploration included.

    Equation: Q(s_t, a_t) <- Q(s_t, a_t) + step (r_t + gamma Q(s_tp1, a_tp1) - Q(s_t, a_t)), where a_tp1 is what the
    same slot shows next; r_t alone where the user has left for good (terminated). Where only the clock ended the
    episode (truncated) there is no next action, and its expected value under the policy takes its place.

    Paper: Rummery and Niranjan (1994), "On-line Q-learning using connectionist systems"; the name is Sutton's (1996);
    expected value: van Seijen et al. (2009).

    Origin of the defaults, Deviations: as for :class:`~recsim_llm.agents.q_learning.QLearningAgent`. The step that
    waits for the next action is not saved with the agent.
    """

    name: ClassVar[str] = "sarsa"

    def setup(self, rng: np.random.Generator) -> None:
        """Nothing waits."""
        super().setup(rng)
        self._pending: Pending | None = None

    def update(self, transition: Transition) -> None:
        """One step of the equation for the slots of the step before, and at the end of an episode for this one."""
        rewards, seen = self.gains(transition)
        now, clusters = self.states(transition.observation), self.clusters(transition)
        gamma = self.config.gamma
        if self._pending is not None and len(self._pending.seen) == len(seen):
            before = self._pending
            targets = before.rewards + gamma * self.table[now[:, None], clusters]
            self.learn_towards(before.states, before.clusters, targets, before.seen & transition.valid[:, None])
        done = (transition.terminated | transition.truncated)[:, None]
        values = self.table[self.states(transition.next_observation)]
        expected = (1.0 - self.epsilon) * values.max(1) + self.epsilon * values.mean(1)
        future = np.where(transition.terminated, 0.0, expected)
        self.learn_towards(now, clusters, rewards + gamma * future[:, None], seen & done)
        self._pending = Pending(now, clusters, rewards, seen & ~done)
