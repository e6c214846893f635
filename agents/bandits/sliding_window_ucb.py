"""Sliding-window UCB."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.bandits.base import BanditAgent, BanditConfig, with_bonus
from recsim_llm.agents.common.item_stats import Floats64, seen_slots
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Transition


@dataclass(frozen=True)
class SlidingWindowUCBConfig(BanditConfig):
    """Settings of :class:`SlidingWindowUCBAgent`.

    Attributes:
        strength: Looks by which an item's mean gain is drawn towards the mean of all when it is served without
            exploration.
        window: The last window K looks count, K the slots of a slate: those of that many steps of users who look at
            all of them [steps].
        xi: Width of the bound; the theorem asks for more than 1/2.
    """

    strength: float = 5.0
    window: int = 10_000
    xi: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(1e-6, 1e12, "strength")
        self._within(1, 10_000_000, "window")
        self._within(0.0, 1e6, "xi")


class SlidingWindowUCBAgent(BanditAgent):
    """Shows the items with the highest upper bound, judged by the last looks alone, for tastes that change abruptly.

    Equation: index_i = mean_i + sqrt(xi ln min(t, W) / n_i), where n_i and mean_i are looks at item i and their
    mean gain, on a scale from 0 to 1, among the last W = window K looks at any item, t the looks so far.

    Paper: Garivier and Moulines (2011), "On upper-confidence bound policies for switching bandit problems", section 2.

    Origin of the defaults: xi for the reason given for :class:`UCB1Agent`; a window of half the
    steps of an experiment forgets what is older than a change and still knows a thousand items.

    Deviations: xi below 1/2 has no guarantee; gains are scaled, see :class:`BanditAgent`;
    slots of a slate are plays of their own, and users are served B at a time; items just shown rest.
    """

    name: ClassVar[str] = "sliding_window_ucb"
    Config: ClassVar[type[Config]] = SlidingWindowUCBConfig
    config: SlidingWindowUCBConfig

    def setup(self, rng: np.random.Generator) -> None:
        """An empty window."""
        super().setup(rng)
        self._item: NDArray[np.int64] = np.full(self.config.window * self.env_spec.slate_size, -1)
        self._gain: Floats64 = np.zeros(len(self._item))
        self._seen: NDArray[np.int64] = np.zeros(1, np.int64)

    def scores(self) -> Floats64:
        """Smoothed mean gains."""
        return self.counts.rate(self.config.strength)

    def index(self) -> Floats64:
        """The equation."""
        total = max(float(min(self._seen[0], len(self._item))), 1.0)
        return with_bonus(self.means(), self.counts.looks, float(self.config.xi * np.log(total)))

    def update(self, transition: Transition) -> None:
        """Looks enter the window in the order of lanes and slots, and push the oldest out."""
        gains = self.gains(transition)
        shown, seen = seen_slots(transition)
        self.push(shown[seen], gains[seen])

    def push(self, items: NDArray[np.int64], gains: Floats64) -> None:
        """Adds looks [N] to the window."""
        window, counts = len(self._item), self.counts
        self._seen[0] += len(items)
        items, gains = items[-window:], gains[-window:]
        places = (self._seen[0] - np.arange(len(items), 0, -1)) % window
        old, count = self._item[places], len(counts.looks)
        left = old >= 0
        counts.looks += np.bincount(items, minlength=count) - np.bincount(old[left], minlength=count)
        lost = np.bincount(old[left], weights=self._gain[places][left], minlength=count)
        counts.gains += np.bincount(items, weights=gains, minlength=count) - lost
        counts.gains[counts.looks == 0.0] = 0.0  # nothing is left of rounding
        self._item[places], self._gain[places] = items, gains

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The window, what it adds up to, and the looks so far."""
        return {**super().arrays(), "item": self._item, "gain": self._gain, "seen": self._seen}
