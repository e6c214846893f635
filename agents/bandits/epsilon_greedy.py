"""Epsilon-greedy bandit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from recsim_llm.agents.bandits.base import BanditAgent, BanditConfig
from recsim_llm.agents.common.item_stats import Floats64
from recsim_llm.agents.common.sampling import epsilon_at, epsilon_greedy
from recsim_llm.agents.common.top_k import Chances, top_k
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Flags, Slates


@dataclass(frozen=True)
class EpsilonGreedyConfig(BanditConfig):
    """Settings of :class:`EpsilonGreedyAgent`.

    Attributes:
        epsilon: Probability that a slot explores, in the long run.
        epsilon_start: The same at the first step.
        decay: Steps of users in which what lies between the two falls by the factor e [steps].
        strength: Looks by which an item's mean reward is drawn towards the mean of all.
    """

    epsilon: float = 0.1
    epsilon_start: float = 1.0
    decay: float = 10_000.0
    strength: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(0.0, 1.0, "epsilon", "epsilon_start")
        self._within(1e-6, 1e12, "decay")
        self._within(1e-6, 1e12, "strength")


class EpsilonGreedyAgent(BanditAgent):
    """With probability epsilon a random item, else the one with the highest mean reward.

    Equation: Q_i = (sum of rewards of i + m c) / (looks_i + m); slot k holds the k-th best item with probability 1 -
    epsilon_t, else a uniform one; epsilon_t = epsilon + (epsilon_start - epsilon) exp(-t / decay).

    Paper: Sutton and Barto (2018), "Reinforcement learning", sections 2.2 to 2.4.

    Origin of the defaults: epsilon 0.1 is Sutton and Barto's; the decay lets each of about 1,000 items be looked at
    some times before it is judged. Deviations: means are drawn towards the overall mean (m > 0) instead of starting
    at 0; each slot of a slate explores for itself and is credited with its own reward; items just shown rest. ``span``
    is not used: nothing here depends on the scale of rewards.
    """

    name: ClassVar[str] = "epsilon_greedy"
    Config: ClassVar[type[Config]] = EpsilonGreedyConfig
    config: EpsilonGreedyConfig

    @property
    def epsilon(self) -> float:
        """Probability that a slot explores now."""
        config = self.config
        return epsilon_at(self.num_timesteps, config.epsilon_start, config.epsilon, config.decay)

    def scores(self) -> Floats64:
        """Smoothed mean rewards."""
        return self.counts.rate(self.config.strength)

    def explore(self, action_mask: Flags, rng: np.random.Generator) -> tuple[Slates, Chances]:
        """The best, each slot exploring with probability epsilon."""
        greedy = top_k(self.scores() + self.ties, action_mask, self.env_spec.slate_size)
        return epsilon_greedy(greedy, action_mask, self.epsilon, rng)
