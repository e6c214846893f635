"""Epsilon-greedy over items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.config import Config
from recsim_llm.agents.counts import ItemCounts
from recsim_llm.agents.lanes import Flags, Floats, Slates, Transition
from recsim_llm.agents.remembering import RememberingAgent, RememberingConfig
from recsim_llm.agents.slates import best, mixed


@dataclass(frozen=True)
class EpsilonGreedyConfig(RememberingConfig):
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
        self._within(1e-6, 1e12, "decay", "strength")


class EpsilonGreedyAgent(RememberingAgent):
    """With probability epsilon a random item, else the one with the highest mean reward.

    Equation: Q_i = (sum of rewards of i + m c) / (looks_i + m); slot k holds the k-th best item with probability 1 -
    epsilon_t, else a uniform one; epsilon_t = epsilon + (epsilon_start - epsilon) exp(-t / decay).

    Paper: Sutton and Barto (2018), "Reinforcement learning", sections 2.2 to 2.4.

    Origin of the defaults: epsilon 0.1 is Sutton and Barto's; the decay lets each of about 1,000 items be looked at
    some times before it is judged. Deviations: means are drawn towards the overall mean (m > 0) instead of starting
    at 0; each slot of a slate explores for itself and is credited with its own reward; items just shown rest.
    """

    name: ClassVar[str] = "epsilon_greedy"
    Config: ClassVar[type[Config]] = EpsilonGreedyConfig
    config: EpsilonGreedyConfig

    def setup(self, rng: np.random.Generator) -> None:
        """Counts at zero; ties are broken in an order drawn once."""
        self.counts = ItemCounts(self.setting.items)
        self.ties = rng.random(self.setting.items) * 1e-9

    @property
    def epsilon(self) -> float:
        """Probability that a slot explores now."""
        config = self.config
        left = float(np.exp(-self.num_timesteps / config.decay))
        return config.epsilon + (config.epsilon_start - config.epsilon) * left

    def act(
        self,
        rows: Floats,
        state: Any,
        starts: Flags,
        deterministic: bool,
        allowed: Flags,
        rng: np.random.Generator,
    ) -> tuple[Slates, Any]:
        """The best means, each slot exploring with probability epsilon."""
        memory = self.recall(rows, state, starts)
        rested = self.rested(memory, allowed)
        slates = best(self.counts.rate(self.config.strength) + self.ties, rested, self.setting.slots)
        if not deterministic:
            slates, self.propensity = mixed(slates, rested, self.epsilon, rng)
        return slates, memory.noting(slates)

    def update(self, transition: Transition) -> None:
        """Credits each slot with its reward."""
        self.counts.add(transition, transition.info["slot_reward"])

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Counts and the order of ties."""
        return {**self.counts.arrays(), "ties": self.ties}
