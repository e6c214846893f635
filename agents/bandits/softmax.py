"""Softmax (Boltzmann) exploration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from recsim_llm.agents.bandits.base import BanditAgent, BanditConfig
from recsim_llm.agents.common.item_stats import Floats64
from recsim_llm.agents.common.sampling import plackett_luce
from recsim_llm.agents.common.top_k import Chances
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Flags, Slates


@dataclass(frozen=True)
class SoftmaxConfig(BanditConfig):
    """Settings of :class:`SoftmaxAgent`.

    Attributes:
        temperature: Difference of mean gains, on a scale from 0 to 1, at which the better item is e times as likely.
        strength: Looks by which an item's mean gain is drawn towards the mean of all.
    """

    temperature: float = 0.05
    strength: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(1e-6, 1e6, "temperature")
        self._within(1e-9, 1e12, "strength")


class SoftmaxAgent(BanditAgent):
    """Draws items with probability proportional to the exponential of their mean gain.

    Equation: P(i_k | i_1 .. i_k-1) = exp(Q_{i_k} / temperature) / sum over the items left of exp(Q_j / temperature),
    Q_i = (sum of gains of i + m c) / (looks_i + m), c the mean over all items, gains on a scale from 0 to 1: a
    Plackett-Luce model of slates, as the K largest of Q / temperature with Gumbel noise.

    Paper: Luce (1959), "Individual choice behavior"; Sutton and Barto (1998), "Reinforcement learning", section 2.3.

    Origin of the defaults: the temperature was found on training users (seed 100) of the six scenarios, among 0.02,
    0.05 and 0.1; strength as for :class:`~recsim_llm.agents.reference.popularity.PopularityAgent`.

    Deviations: means are drawn towards that of all items, so that new ones start as average ones; the temperature is
    constant; gains are scaled, see :class:`~recsim_llm.agents.bandits.base.BanditAgent`; items just shown
    rest.
    """

    name: ClassVar[str] = "softmax"
    Config: ClassVar[type[Config]] = SoftmaxConfig
    config: SoftmaxConfig

    def scores(self) -> Floats64:
        """Smoothed mean gains on the scale from 0 to 1."""
        low, width = self.span()
        scaled: Floats64 = (self.counts.rate(self.config.strength) - low) / width
        return scaled

    def explore(self, action_mask: Flags, rng: np.random.Generator) -> tuple[Slates, Chances]:
        """Draws by the equation."""
        return plackett_luce(self.scores() / self.config.temperature, action_mask, self.env_spec.slate_size, rng)
