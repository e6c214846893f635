"""What the bandits without context share: what they gain by an item, on which scale, and how they serve."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.config import Config
from recsim_llm.agents.counts import Floats64, ItemCounts, seen_slots
from recsim_llm.agents.drawing import tied
from recsim_llm.agents.lanes import Flags, Floats, Slates, Transition
from recsim_llm.agents.remembering import RememberingAgent, RememberingConfig
from recsim_llm.agents.slates import Chances, best
from recsim_llm.errors import ConfigError

GAINS = ("reward", "click")


@dataclass(frozen=True)
class BanditConfig(RememberingConfig):
    """Settings of :class:`BanditAgent`.

    Attributes:
        gain: What is gained by an item that was looked at: "reward", the reward of its slot, or "click", 1 or 0.
        span: Largest gain of one slot; 0 takes the largest that was seen so far.
    """

    gain: str = "reward"
    span: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gain not in GAINS:
            raise ConfigError(f"setting gain must be one of {', '.join(GAINS)}, got {self.gain!r}")
        self._within(0.0, 1e12, "span")


class BanditAgent(RememberingAgent, abc.ABC):
    """Counts what each item gains, whoever looks at it.

    Bounds and posteriors of the literature are of gains in [0, 1]. Revenue and minutes are not: gains are divided by
    the largest that was seen (negative ones are first shifted by the most negative). The scale is applied to the sums
    whenever they are used, so that it may grow without making what was learnt before wrong.

    Every slot is a play of its own: it is credited with its own gain, if it was looked at. Items just shown rest. With
    ``deterministic`` the items of highest mean gain are served. Users are served B at a time: what is learnt from them
    arrives together.
    """

    Config: ClassVar[type[Config]] = BanditConfig
    config: BanditConfig

    def setup(self, rng: np.random.Generator) -> None:
        """Counts at zero; ties between means are broken in an order drawn once."""
        self.counts = ItemCounts(self.setting.items)
        self.ties = rng.random(self.setting.items) * 1e-9
        self.range: Floats64 = np.array([0.0, self.config.span])

    @abc.abstractmethod
    def scores(self) -> Floats64:
        """How good each item is known to be, [I]."""

    @abc.abstractmethod
    def explore(self, allowed: Flags, rng: np.random.Generator) -> tuple[Slates, Chances]:
        """Slates [B, K] of the allowed items [B, I], exploration included, and the probability of each slot."""

    def act(
        self,
        rows: Floats,
        state: Any,
        starts: Flags,
        deterministic: bool,
        allowed: Flags,
        rng: np.random.Generator,
    ) -> tuple[Slates, Any]:
        """The best items known, or what the algorithm tries."""
        memory = self.recall(rows, state, starts)
        rested = self.rested(memory, allowed)
        if deterministic:
            slates = best(self.scores() + self.ties, rested, self.setting.slots)
        else:
            slates, self.propensity = self.explore(rested, rng)
        return slates, memory.noting(slates)

    def relevance(self, rows: Floats, state: Any, starts: Flags, allowed: Flags) -> NDArray[np.floating]:
        """The same scores for everybody."""
        return np.broadcast_to(self.scores(), allowed.shape)

    def update(self, transition: Transition) -> None:
        """Credits each slot that was looked at with its gain."""
        self.counts.add(transition, self.gains(transition))

    def gains(self, transition: Transition) -> Floats64:
        """Gain of each slot [B, K]; widens the range that was seen."""
        name = "click" if self.config.gain == "click" else "slot_reward"
        gains = np.asarray(transition.info[name], np.float64)
        _, seen = seen_slots(transition)
        if seen.any():
            self.range[0] = min(self.range[0], gains[seen].min())
            if self.config.span == 0.0:
                self.range[1] = max(self.range[1], gains[seen].max())
        return gains

    def unit(self, gains: Floats64, looks: Floats64) -> Floats64:
        """Sums of gains over so many looks on the scale from 0 to 1 for each look."""
        low, high = self.range
        width = high - low if high > low else 1.0
        scaled: Floats64 = np.clip((gains - low * looks) / width, 0.0, looks)
        return scaled

    def means(self) -> Floats64:
        """Mean gain of each item on the scale from 0 to 1, 0 where nobody looked, [I]."""
        counts = self.counts
        return np.divide(self.unit(counts.gains, counts.looks), counts.looks, where=counts.looks > 0.0,
                         out=np.zeros(len(counts.looks)))  # fmt: skip

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Counts, the order of ties and the range of gains."""
        return {**self.counts.arrays(), "ties": self.ties, "range": self.range}


@dataclass(frozen=True)
class IndexConfig(BanditConfig):
    """Settings of :class:`IndexAgent`.

    Attributes:
        strength: Looks by which an item's mean gain is drawn towards the mean of all when it is served without
            exploration.
    """

    strength: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(1e-6, 1e12, "strength")


class IndexAgent(BanditAgent):
    """Shows the items of the highest index, an upper bound of what they gain on average.

    Items that nobody has looked at come first. Equals come in an order that is drawn for each user and step, so that
    at the start B users try B items; nothing else is left to chance.
    """

    Config: ClassVar[type[Config]] = IndexConfig
    config: IndexConfig

    @abc.abstractmethod
    def index(self) -> Floats64:
        """The index of each item on the scale of gains from 0 to 1, infinite for those not looked at, [I]."""

    def scores(self) -> Floats64:
        """Smoothed mean gains."""
        return self.counts.rate(self.config.strength)

    def explore(self, allowed: Flags, rng: np.random.Generator) -> tuple[Slates, Chances]:
        """The highest indices."""
        return tied(self.index(), allowed, self.setting.slots, rng)


def with_bonus(means: Floats64, looks: Floats64, width: float) -> Floats64:
    """Upper bounds means + sqrt(width / looks), infinite where nobody looked, [I]."""
    tried = looks > 0.0
    index = np.full(len(looks), np.inf)
    index[tried] = means[tried] + np.sqrt(max(width, 0.0) / looks[tried])
    return index
