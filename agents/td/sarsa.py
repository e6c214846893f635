"""Tabular SARSA."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.core.env_runner import Flags, Transition
from recsim_llm.agents.td.tabular import Indices, TabularAgent, Values


class SarsaAgent(TabularAgent):
    """Learns the value of what it does itself, exploration included.

    Equation: Q(s_t, a_t) <- Q(s_t, a_t) + step (r_t + gamma Q(s_tp1, a_tp1) - Q(s_t, a_t)), where a_tp1 is what the
    same slot shows next; r_t alone where the user has left for good (terminated). Where only the clock ended the
    episode (truncated) there is no next action, and its expected value under the policy takes its place.

    Paper: Rummery and Niranjan (1994), "On-line Q-learning using connectionist systems"; the name is Sutton's (1996);
    expected value: van Seijen et al. (2009).

    Origin of the defaults, Deviations: as for :class:`~recsim_llm.agents.td.q_learning.QLearningAgent`.
    """

    name: ClassVar[str] = "sarsa"

    def setup(self, rng: np.random.Generator) -> None:
        """Nothing waits for the action that comes next."""
        super().setup(rng)
        self._prepare(self.runner.count)

    def update(self, transition: Transition) -> None:
        """One step of the equation for the slots of the step before, and at the end of an episode for this one."""
        rewards, seen = self.gains(transition)
        now, clusters = self.states(transition.observation), self.clusters(transition)
        gamma = self.config.gamma
        if len(seen) != len(self._waits):  # transitions of other lanes than its own, which nothing waits for
            self._prepare(len(seen))
        begins = self.env_spec.context("start", transition.observation) > 0.0
        goes_on = (transition.valid & ~begins)[:, None]
        targets = self._rewards + gamma * self.table[now[:, None], clusters]
        self.learn_towards(self._states, self._clusters, targets, self._waits & goes_on)
        done = (transition.terminated | transition.truncated)[:, None]
        future = np.where(transition.terminated, 0.0, self.expected(self.states(transition.next_observation)))
        self.learn_towards(now, clusters, rewards + gamma * future[:, None], seen & done)
        self._states[...], self._clusters[...], self._rewards[...] = now, clusters, rewards
        self._waits[...] = seen & ~done

    def _prepare(self, lanes: int) -> None:
        slate_size = self.env_spec.slate_size
        self._states: Indices = np.zeros(lanes, np.int64)
        self._clusters: Indices = np.zeros((lanes, slate_size), np.int64)
        self._rewards: Values = np.zeros((lanes, slate_size))
        self._waits: Flags = np.zeros((lanes, slate_size), np.bool_)

    def of_lanes(self) -> dict[str, NDArray[Any]]:
        """The steps that wait for the action that comes next."""
        return {"states": self._states, "clusters": self._clusters, "rewards": self._rewards, "waits": self._waits}
