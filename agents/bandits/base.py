"""Multi-armed bandits over items: counts of what each item gained, the scale of gains, and how slates are served."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.cooldown import CooldownConfig, RecentItems
from recsim_llm.agents.common.item_stats import Floats64, ItemCounts, credited, seen_slots
from recsim_llm.agents.common.sampling import top_k_random_ties
from recsim_llm.agents.common.top_k import Chances, top_k
from recsim_llm.agents.core.base import Agent
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Flags, Floats, Slates, Transition
from recsim_llm.errors import ConfigError

GAINS = ("reward", "click")
RARE = 1e-4
"""The mean of a prior stays that far from 0 and 1."""


@dataclass(frozen=True)
class BanditConfig(CooldownConfig):
    """Settings of :class:`BanditAgent`.

    Attributes:
        gain: What is gained by an item that was looked at: "reward", the reward of its slot, or "click", 1 or 0.
        span: Gain of one slot that counts as 1; 0 takes what makes gains vary as those of 0 or 1 do.
    """

    gain: str = "reward"
    span: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gain not in GAINS:
            raise ConfigError(f"setting gain must be one of {', '.join(GAINS)}, got {self.gain!r}")
        self._within(0.0, 1e12, "span")


class BanditAgent(Agent, abc.ABC):
    """Multi-armed bandit over items: counts what each item gains, whoever looks at it.

    Subclasses write :meth:`scores`, by which items are served, and :meth:`index`, by which they are explored, or
    :meth:`explore` in its place.

    Bounds and posteriors of the literature are of gains in [0, 1]; clicks are, revenue and minutes are not. Gains are
    divided by s = sum g^2 / sum g over all looks so far, at which their second moment equals their mean, as for gains
    of 0 and 1, for which s = 1. (Divided by the largest gain they would all be close to 0, far below what bounds that
    allow for any distribution can tell apart.) Negative gains are first shifted by the most negative. The scale is
    applied to sums whenever they are used, so that it may change without making wrong what was learnt before. Theorems
    hold where ``span`` is set to the largest gain there can be.

    Every slot is a play of its own: it is credited with its own gain, if it was looked at. Items just shown rest. With
    ``deterministic`` the items of highest mean gain are served. Users are served B at a time: what is learnt from them
    arrives together.
    """

    State: ClassVar[type | None] = RecentItems
    Config: ClassVar[type[Config]] = BanditConfig
    config: BanditConfig

    def setup(self, rng: np.random.Generator) -> None:
        """Counts at zero; ties between means are broken in an order drawn once."""
        self.counts = ItemCounts(self.env_spec.items)
        self.ties = rng.random(self.env_spec.items) * 1e-9
        self.scale: Floats64 = np.zeros(4)  # the most negative gain, looks, sum of gains, sum of squares

    @abc.abstractmethod
    def scores(self) -> Floats64:
        """How good each item is known to be, [I]."""

    def index(self) -> Floats64:
        """What a slate holds the K highest of while learning, [I]; infinite for items that nobody has looked at."""
        return self.scores()

    def explore(self, action_mask: Flags, rng: np.random.Generator) -> tuple[Slates, Chances]:
        """Slates [B, K] of the allowed items [B, I], exploration included, and the probability of each slot.

        The highest indices. Equals come in an order that is drawn for each user and step, so that at the start B users
        try B items; nothing else is left to chance.
        """
        return top_k_random_ties(self.index(), action_mask, self.env_spec.slate_size, rng)

    def act(
        self,
        obs: Floats,
        state: Any,
        episode_start: Flags,
        deterministic: bool,
        action_mask: Flags,
        rng: np.random.Generator,
    ) -> tuple[Slates, Any]:
        """The best items known, or what the algorithm tries."""
        memory = self.cooldown.recall(obs, state, episode_start)
        rested = self.cooldown.eligible(memory, action_mask)
        if deterministic:
            slates = top_k(self.scores() + self.ties, rested, self.env_spec.slate_size)
        else:
            slates, self.propensity = self.explore(rested, rng)
        return slates, memory.noting(slates)

    def relevance(self, obs: Floats, state: Any, episode_start: Flags, action_mask: Flags) -> NDArray[np.floating]:
        """The same scores for everybody."""
        return np.broadcast_to(self.scores(), action_mask.shape)

    def update(self, transition: Transition) -> None:
        """Credits each slot that was looked at with its gain."""
        self.counts.add(transition, self.gains(transition))

    def gains(self, transition: Transition) -> Floats64:
        """Gain of each slot [B, K]; notes on which scale they are."""
        gains = credited(transition)
        if self.config.gain == "click":
            gains = np.asarray(transition.info["click"], np.float64)
        _, seen = seen_slots(transition)
        looked = gains[seen]
        self.scale[0] = min(self.scale[0], looked.min(initial=0.0))
        self.scale[1:] += len(looked), looked.sum(), np.square(looked).sum()
        return gains

    def span(self) -> tuple[float, float]:
        """What counts as 0, and how much more as 1."""
        low, looks, total, squares = self.scale.tolist()
        if self.config.span > 0.0:
            return low, self.config.span - low
        above = total - looks * low
        return low, ((squares - 2.0 * low * total + looks * low**2) / above if above > 0.0 else 1.0)

    def unit(self, gains: Floats64, looks: Floats64) -> Floats64:
        """Sums of gains over so many looks on the scale from 0 to 1 for each look."""
        low, width = self.span()
        scaled: Floats64 = np.clip((gains - low * looks) / width, 0.0, looks)
        return scaled

    def means(self) -> Floats64:
        """Mean gain of each item on the scale from 0 to 1, 0 where nobody looked, [I]."""
        counts = self.counts
        return np.divide(self.unit(counts.gains, counts.looks), counts.looks, where=counts.looks > 0.0,
                         out=np.zeros(len(counts.looks)))  # fmt: skip

    def beta_posterior(self, prior: float, mean: float) -> tuple[Floats64, Floats64]:
        """Parameters of the Beta posterior of each item's gain, [I] and [I].

        Args:
            prior: Looks that the prior is worth.
            mean: Mean of the prior; 0 takes the mean gain of all items so far.
        """
        counts = self.counts
        wins = self.unit(counts.gains, counts.looks)
        looks = float(counts.looks.sum())
        seen = float(wins.sum()) / looks if looks > 0.0 else 0.5
        centre = mean or min(max(seen, RARE), 1.0 - RARE)
        return prior * centre + wins, prior * (1.0 - centre) + counts.looks - wins

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Counts, the order of ties and the scale of gains."""
        return {**self.counts.arrays(), "ties": self.ties, "scale": self.scale}


def with_bonus(means: Floats64, looks: Floats64, width: float) -> Floats64:
    """Upper bounds means + sqrt(width / looks), infinite where nobody looked, [I]."""
    tried = looks > 0.0
    index = np.full(len(looks), np.inf)
    index[tried] = means[tried] + np.sqrt(max(width, 0.0) / looks[tried])
    return index
