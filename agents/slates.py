"""Slates from scores: the best K, random ones, and ones without what was shown just before."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.lanes import Flags, Setting, Slates

Scores = NDArray[np.floating]
CLICK, SKIP = 0, 7
"""Columns of the feedback part."""


def best(scores: Scores, allowed: Flags, slots: int) -> Slates:
    """The K allowed items of highest score, best first, none twice.

    Args:
        scores: [B, I] or [I].
        allowed: [B, I]; where fewer than K items are, the slate is filled up with others.
        slots: K.
    """
    masked = np.where(allowed, scores, -np.inf)
    if slots == 1:
        return masked.argmax(1)[:, None].astype(np.int64)
    if slots < masked.shape[1]:
        top = np.argpartition(masked, -slots, axis=1)[:, -slots:]
    else:
        top = np.tile(np.arange(masked.shape[1]), (len(masked), 1))
    order = np.argsort(-np.take_along_axis(masked, top, 1), axis=1, kind="stable")
    return np.take_along_axis(top, order, 1).astype(np.int64)


def uniform(allowed: Flags, slots: int, rng: np.random.Generator) -> Slates:
    """K allowed items drawn uniformly without replacement, [B, K]."""
    return best(rng.random(allowed.shape, np.float32), allowed, slots)


def mixed(greedy: Slates, allowed: Flags, epsilon: float, rng: np.random.Generator) -> Slates:
    """Each slot explores with probability epsilon: a uniform item, unless it is in the slate already."""
    explored = uniform(allowed, greedy.shape[1], rng)
    wanted = rng.random(greedy.shape) < epsilon
    known = (explored[:, :, None] == greedy[:, None, :]).any(2)
    usable = np.take_along_axis(allowed, explored, 1)
    return np.where(wanted & ~known & usable, explored, greedy)


def looked_at(click: NDArray[np.floating], skip: NDArray[np.floating]) -> Flags:
    """Slots that the user saw: she clicked or skipped them."""
    return (click > 0) | (skip > 0)


@dataclass(frozen=True)
class Memory:
    """What an agent remembers of each lane's episode; handed on as ``predict``'s state, never changed in place.

    Attributes:
        recent: [B, M] items shown lately, -1 for none.
        last: [B, K] the last slate.
        wear: [B, T] per topic, decayed count of consumed items: how tired of it the user may be.
    """

    recent: NDArray[np.int64]
    last: Slates
    wear: NDArray[np.float32]

    @classmethod
    def empty(cls, lanes: int, steps: int, setting: Setting) -> Memory:
        """Nothing remembered; ``steps`` slates will be."""
        return cls(
            np.full((lanes, steps * setting.slots), -1, np.int64),
            np.full((lanes, setting.slots), -1, np.int64),
            np.zeros((lanes, len(setting.catalog.topics)), np.float32),
        )

    def renewed(
        self, starts: Flags, rested: Flags, clicks: NDArray[np.floating], topics: NDArray[np.int32], left: float
    ) -> Memory:
        """With the feedback to the last slate taken in.

        Args:
            starts: [B] lanes that begin an episode: nothing is left of the one before.
            rested: [B] lanes that begin a session: no topic is worn out.
            clicks: [B, K] clicks on the last slate.
            topics: [I] topic of each item.
            left: Share of the wear that is left after a step.
        """
        wear = self.wear * np.float32(left)
        lane, slot = np.nonzero((clicks > 0) & (self.last >= 0))
        np.add.at(wear, (lane, topics[self.last[lane, slot]]), np.float32(1.0))
        wear[rested | starts] = 0.0
        recent, last = self.recent, self.last
        if starts.any():
            recent, last = recent.copy(), last.copy()
            recent[starts], last[starts] = -1, -1
        return Memory(recent, last, wear)

    def noting(self, slates: Slates) -> Memory:
        """With a new slate [B, K] shown."""
        kept = self.recent.shape[1] - slates.shape[1]
        recent = np.concatenate([slates, self.recent[:, :kept]], 1) if kept >= 0 else self.recent
        return replace(self, recent=recent, last=slates)

    def unseen(self, allowed: Flags) -> Flags:
        """Allowed items not shown lately; all allowed ones in lanes where fewer than K would be left."""
        rest = allowed.copy()
        lane, place = np.nonzero(self.recent >= 0)
        rest[lane, self.recent[lane, place]] = False
        short = np.count_nonzero(rest, axis=1) < self.last.shape[1]
        rest[short] = allowed[short]
        return rest
