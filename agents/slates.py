"""Slates from scores: the best K, random ones, and a mixture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.lanes import Flags, Slates
from recsim_llm.agents.selection import select

Scores = NDArray[np.floating]


def best(scores: Scores, allowed: Flags, slots: int) -> Slates:
    """The K allowed items of highest score, best first, none twice.

    Args:
        scores: [B, I] or [I].
        allowed: [B, I]; where fewer than K items are, the slate is filled up with others.
        slots: K.
    """
    rows = np.ascontiguousarray(np.broadcast_to(scores, allowed.shape), np.float64)
    slates = np.empty((len(rows), slots), np.int64)
    select(rows, np.ascontiguousarray(allowed), np.empty(slots), slates)
    return slates


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
