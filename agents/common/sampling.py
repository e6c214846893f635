"""Slates drawn by chance, with the probability of each slot given the slots before it.

All of them hold K items of the shelf, none twice; where fewer than K are there, the first of the others fill up.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.slates import Chances, Scores
from recsim_llm.agents.core.env_runner import Flags, Slates
from recsim_llm.simulator.jit import jit

Indices = NDArray[np.int64]
LEAST = 1e-200
"""A sum of weights below this is taken anew, relative to the largest of them."""


def tied(scores: Scores, action_mask: Flags, slate_size: int, rng: np.random.Generator) -> tuple[Slates, Chances]:
    """The K allowed items of highest score, best first; each user's equals come in an order of her own.

    So at the start, when nothing is known, B users do not all see the same items.

    Args:
        scores: [I], no NaN.
        action_mask: [B, I].
        slate_size: K.
        rng: Where to draw from.

    Returns:
        Slates [B, K] and probabilities [B, K]: 1 / m where m equals were left.
    """
    slates, chances = np.empty((len(action_mask), slate_size), np.int64), np.empty((len(action_mask), slate_size))
    values = np.asarray(scores, np.float64)
    order = np.argsort(-values, kind="stable")
    _tied(order, values[order], np.ascontiguousarray(action_mask), rng.random(slates.shape),
          np.empty_like(order), slates, chances)  # fmt: skip
    return slates, chances


def softmax(
    logits: Scores, action_mask: Flags, slate_size: int, rng: np.random.Generator, uniform: float = 0.0
) -> tuple[Slates, Chances]:
    """Items drawn one after the other with probability proportional to exp(logit): the Plackett-Luce model.

    The K largest of logits with Gumbel noise have the same distribution (Yellott, 1977; Kool et al., 2019); drawing
    in turn needs K numbers of a user instead of I, and gives the probabilities.

    Args:
        logits: [I] or [B, I], finite.
        action_mask: [B, I].
        slate_size: K.
        rng: Where to draw from.
        uniform: Probability with which a slot holds a uniform one of the m items that are left instead.

    Returns:
        Slates [B, K] and probabilities [B, K]: (1 - uniform) exp(logit) / sum of those left + uniform / m.
    """
    slates, chances = np.empty((len(action_mask), slate_size), np.int64), np.empty((len(action_mask), slate_size))
    rows = np.atleast_2d(np.asarray(logits, np.float64))
    weights = np.exp(rows - rows.max(1, keepdims=True))
    turns, draws = rng.random((2, *slates.shape))
    _softmax(np.ascontiguousarray(rows), weights, np.ascontiguousarray(action_mask), turns < uniform, draws, uniform,
             np.zeros(action_mask.shape[1], np.bool_), slates, chances)  # fmt: skip
    return slates, chances


def agreeing(samples: Scores, picks: Indices, action_mask: Flags, slate_size: int) -> tuple[Slates, Chances]:
    """The K allowed items of highest score under the sample that each user got.

    Args:
        samples: [S, I] scores, all samples equally likely for every user.
        picks: [B] which one each user got.
        action_mask: [B, I].
        slate_size: K.

    Returns:
        Slates [B, K] and probabilities [B, K] given the samples: of those that agree with the slate up to slot k - 1,
        the share that agrees on slot k.
    """
    slates, chances = np.empty((len(action_mask), slate_size), np.int64), np.empty((len(action_mask), slate_size))
    orders = np.argsort(-samples, axis=1)
    _agreeing(orders, picks, np.ascontiguousarray(action_mask), np.empty(slate_size, np.int64), slates, chances)
    return slates, chances


@jit
def _filled(slate: Indices, filled: int, action_mask: NDArray[np.bool_]) -> None:
    """Fills a slate up with the first items that are not allowed."""
    candidate = 0
    while filled < len(slate) and candidate < len(action_mask):
        if not action_mask[candidate]:
            slate[filled] = candidate
            filled += 1
        candidate += 1


@jit
def _tied(
    order: Indices,
    values: Chances,
    action_mask: Flags,
    draws: Chances,
    equals: Indices,
    slates: Slates,
    chances: Chances,
) -> None:
    """The loop of :func:`tied`; ``values`` are sorted as ``order``, ``equals`` [I] is working space."""
    slate_size = slates.shape[1]
    for b in range(slates.shape[0]):
        filled, place = 0, 0
        while filled < slate_size and place < len(order):
            value, count = values[place], 0
            while place < len(order) and values[place] == value:
                if action_mask[b, order[place]]:
                    equals[count] = order[place]
                    count += 1
                place += 1
            while filled < slate_size and count > 0:
                pick = int(draws[b, filled] * count)
                slates[b, filled], chances[b, filled] = equals[pick], 1.0 / count
                count -= 1
                equals[pick] = equals[count]
                filled += 1
        chances[b, filled:] = 1.0
        _filled(slates[b], filled, action_mask[b])


@jit
def _softmax(
    logits: Chances,
    weights: Chances,
    action_mask: Flags,
    uniform: Flags,
    draws: Chances,
    share: float,
    left: NDArray[np.bool_],
    slates: Slates,
    chances: Chances,
) -> None:
    """The loop of :func:`softmax`; ``left`` [I] is working space."""
    items, slate_size = action_mask.shape[1], slates.shape[1]
    for b in range(slates.shape[0]):
        row = b if len(logits) > 1 else 0
        count = 0
        for i in range(items):
            left[i] = action_mask[b, i]
            count += action_mask[b, i]
        filled = min(slate_size, count)
        for k in range(filled):
            total, peak = 0.0, 0.0
            for i in range(items):
                if left[i]:
                    total += weights[row, i]
            small = total < LEAST
            if small:
                total, peak = 0.0, -np.inf
                for i in range(items):
                    if left[i]:
                        peak = max(peak, logits[row, i])
                for i in range(items):
                    if left[i]:
                        total += np.exp(logits[row, i] - peak)
            rest, pick, weight = draws[b, k] * (count if uniform[b, k] else total), -1, 0.0
            for i in range(items):
                if left[i]:
                    mass = np.exp(logits[row, i] - peak) if small else weights[row, i]
                    step = 1.0 if uniform[b, k] else mass
                    if step > 0.0:
                        pick, weight = i, mass
                        rest -= step
                        if rest < 0.0:
                            break
            slates[b, k], chances[b, k] = pick, (1.0 - share) * weight / total + share / count
            left[pick] = False
            count -= 1
        chances[b, filled:] = 1.0
        _filled(slates[b], filled, action_mask[b])


@jit
def _agreeing(
    orders: Indices, picks: Indices, action_mask: Flags, agreed: Indices, slates: Slates, chances: Chances
) -> None:
    """The loop of :func:`agreeing`; ``agreed`` [K] is working space."""
    slate_size, items = slates.shape[1], action_mask.shape[1]
    for b in range(slates.shape[0]):
        order = orders[picks[b]]
        filled = 0
        for place in range(items):
            if action_mask[b, order[place]]:
                slates[b, filled] = order[place]
                agreed[filled] = 0
                filled += 1
                if filled == slate_size:
                    break
        for sample in range(len(orders)):
            k = 0
            for place in range(items):
                item = orders[sample, place]
                if not action_mask[b, item]:
                    continue
                if k == filled or item != slates[b, k]:
                    break
                agreed[k] += 1
                k += 1
        before = len(orders)
        for k in range(filled):
            chances[b, k] = agreed[k] / before
            before = agreed[k]
        chances[b, filled:] = 1.0
        _filled(slates[b], filled, action_mask[b])
