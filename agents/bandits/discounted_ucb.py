"""Discounted UCB."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from recsim_llm.agents.bandits.base import BanditAgent, BanditConfig, with_bonus
from recsim_llm.agents.common.item_stats import Floats64
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Transition


@dataclass(frozen=True)
class DiscountedUCBConfig(BanditConfig):
    """Settings of :class:`DiscountedUCBAgent`.

    Attributes:
        strength: Looks by which an item's mean gain is drawn towards the mean of all when it is served without
            exploration.
        memory: Steps of users in which a look loses the factor e of its weight [steps].
        xi: Width of the bound; the theorem asks for more than 1/2.
    """

    strength: float = 5.0
    memory: float = 10_000.0
    xi: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(1e-6, 1e12, "strength")
        self._within(1.0, 1e12, "memory")
        self._within(0.0, 1e6, "xi")


class DiscountedUCBAgent(BanditAgent):
    """Shows the items with the highest upper bound, where old looks count less and less, for tastes that change.

    Equation: index_i = mean_i + 2 sqrt(xi ln n / n_i), n_i the sum over looks at item i of gamma^(steps since then), n
    the sum of n_i over items, mean_i the mean gain with the same weights on a scale from 0 to 1; gamma = exp(-1 /
    memory).

    Paper: Kocsis and Szepesvari (2006); Garivier and Moulines (2011), "On upper-confidence bound policies for switching
    bandit problems", section 2.

    Origin of the defaults: xi for the reason given for :class:`UCB1Agent`; a memory of half the
    steps of an experiment forgets what is older than a change and still knows a thousand items.

    Deviations: xi below 1/2 has no guarantee; gamma is per step of a user, whatever the number of her slots; gains are
    scaled, see :class:`BanditAgent`; slots of a slate are plays of their own, and users are
    served B at a time; items just shown rest.
    """

    name: ClassVar[str] = "discounted_ucb"
    Config: ClassVar[type[Config]] = DiscountedUCBConfig
    config: DiscountedUCBConfig

    def scores(self) -> Floats64:
        """Smoothed mean gains."""
        return self.counts.rate(self.config.strength)

    def index(self) -> Floats64:
        """The equation."""
        looks = self.counts.looks
        width = 4.0 * self.config.xi * np.log(max(looks.sum(), 1.0))
        return with_bonus(self.means(), looks, float(width))

    def update(self, transition: Transition) -> None:
        """Forgets a little, then counts."""
        self.counts.fade(float(np.exp(-transition.valid.sum() / self.config.memory)))
        super().update(transition)
