"""Slates from scores: the best K, random ones, and a mixture; and the probabilities of what was drawn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.top_k import select
from recsim_llm.agents.core.env_runner import Flags, Slates
from recsim_llm.simulator.jit import jit

Scores = NDArray[np.floating]
Chances = NDArray[np.float64]


def best(scores: Scores, action_mask: Flags, slate_size: int) -> Slates:
    """The K allowed items of highest score, best first, none twice.

    Args:
        scores: [B, I] or [I].
        action_mask: [B, I]; where fewer than K items are, the slate is filled up with others.
        slate_size: K.
    """
    kind = np.float32 if scores.dtype == np.float32 else np.float64
    rows = np.ascontiguousarray(np.broadcast_to(scores, action_mask.shape), kind)
    return select(rows, np.ascontiguousarray(action_mask), slate_size)[0]


def uniform(action_mask: Flags, slate_size: int, rng: np.random.Generator) -> Slates:
    """K allowed items drawn uniformly without replacement, [B, K]."""
    return best(rng.random(action_mask.shape, np.float32), action_mask, slate_size)


def uniform_propensity(action_mask: Flags, slate_size: int) -> Chances:
    """Probability of each slot of a :func:`uniform` slate, given the slots before it, [B, K].

    Slot k is one of the n - k items that are left of the n allowed; a slot that had to be filled up left no choice.
    """
    left = np.count_nonzero(action_mask, axis=1)[:, None] - np.arange(slate_size)
    chances: Chances = 1.0 / np.maximum(left, 1)
    return chances


def either(slates: Slates, served: Slates, action_mask: Flags, explore: float) -> Chances:
    """Probability of each slot, given the slots before it, where a whole slate is uniform or the one served, [B, K].

    Args:
        slates: [B, K] what was shown.
        served: [B, K] what is shown with probability 1 - explore.
        action_mask: [B, I] what uniform slates are drawn from.
        explore: Probability of a uniform slate.
    """
    drawn = np.cumprod(uniform_propensity(action_mask, slates.shape[1]), axis=1)
    drawn[~np.take_along_axis(action_mask, slates, 1)] = 0.0
    together = explore * drawn + (1.0 - explore) * np.logical_and.accumulate(slates == served, axis=1)
    before = np.concatenate([np.ones((len(slates), 1)), together[:, :-1]], 1)
    chances: Chances = np.divide(together, before, where=before > 0.0, out=np.zeros(together.shape))
    return chances


def mixed(greedy: Slates, action_mask: Flags, epsilon: float, rng: np.random.Generator) -> tuple[Slates, Chances]:
    """Each slot explores with probability epsilon.

    A slot that explores holds a uniform one of m items: its greedy one, and the allowed ones that are neither in the
    greedy slate nor shown by an earlier slot.

    Args:
        greedy: [B, K], none twice.
        action_mask: [B, I].
        epsilon: Probability that a slot explores.
        rng: Where to draw from.

    Returns:
        Slates [B, K], and the probability of each slot given the slots before it [B, K]: 1 - epsilon + epsilon / m for
        the greedy item, epsilon / m for another.
    """
    slates, chances = np.empty_like(greedy), np.empty(greedy.shape)
    wanted, draws = rng.random((2, *greedy.shape))
    items = action_mask.shape[1]
    _explore(greedy, action_mask, wanted < epsilon, draws, epsilon, np.zeros(items, np.int64),
             np.zeros(items, np.bool_), slates, chances)  # fmt: skip
    return slates, chances


@jit
def _explore(
    greedy: Slates,
    action_mask: Flags,
    wanted: Flags,
    draws: Chances,
    epsilon: float,
    others: Slates,
    listed: Flags,
    slates: Slates,
    chances: Chances,
) -> None:
    """The loop of :func:`mixed`; ``others`` [I] and ``listed`` [I], all false, are working space."""
    for b in range(greedy.shape[0]):
        for item in greedy[b]:
            listed[item] = True
        left = 0
        for i in range(action_mask.shape[1]):
            if action_mask[b, i] and not listed[i]:
                others[left] = i
                left += 1
        for k in range(greedy.shape[1]):
            pick, share = left, epsilon / (left + 1)
            if wanted[b, k]:
                pick = int(draws[b, k] * (left + 1))
            if pick < left:
                left -= 1
                slates[b, k], chances[b, k] = others[pick], share
                others[pick] = others[left]
            else:
                slates[b, k], chances[b, k] = greedy[b, k], 1.0 - epsilon + share
        for item in greedy[b]:
            listed[item] = False


def looked_at(click: NDArray[np.floating], skip: NDArray[np.floating]) -> Flags:
    """Slots that the user saw: she clicked or skipped them."""
    return (click > 0) | (skip > 0)
