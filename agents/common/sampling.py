"""Sampling of slates, with the probability of each slot given the slots before it.

All of them hold K items of the shelf, none twice; where fewer than K are there, the first of the others fill up.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.top_k import Chances, Scores, top_k
from recsim_llm.agents.core.env_runner import Flags, Slates
from recsim_llm.simulator.jit import jit

Indices = NDArray[np.int64]
LEAST = 1e-200
"""A sum of weights below this is taken anew, relative to the largest of them."""


def uniform_slates(action_mask: Flags, slate_size: int, rng: np.random.Generator) -> Slates:
    """K allowed items drawn uniformly without replacement, [B, K]."""
    return top_k(rng.random(action_mask.shape, np.float32), action_mask, slate_size)


def uniform_propensity(action_mask: Flags, slate_size: int) -> Chances:
    """Probability of each slot of a uniform random slate, given the slots before it, [B, K].

    Slot k is one of the n - k items that are left of the n allowed; a slot that had to be filled up left no choice.
    """
    left = np.count_nonzero(action_mask, axis=1)[:, None] - np.arange(slate_size)
    chances: Chances = 1.0 / np.maximum(left, 1)
    return chances


def mixture_propensity(slates: Slates, served: Slates, action_mask: Flags, explore: float) -> Chances:
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


def epsilon_at(steps: int, start: float, end: float, decay: float) -> float:
    """Probability of exploring after some steps: from ``start`` to ``end``, what is between falls exponentially.

    Args:
        steps: Steps of users so far.
        start: At the first step.
        end: In the long run.
        decay: Steps in which what lies between the two falls by the factor e [steps].
    """
    return end + (start - end) * float(np.exp(-steps / decay))


def epsilon_greedy(
    greedy: Slates, action_mask: Flags, epsilon: float, rng: np.random.Generator
) -> tuple[Slates, Chances]:
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
    _write_epsilon_greedy(greedy, action_mask, wanted < epsilon, draws, epsilon, np.zeros(items, np.int64),
             np.zeros(items, np.bool_), slates, chances)  # fmt: skip
    return slates, chances


def top_k_random_ties(
    scores: Scores, action_mask: Flags, slate_size: int, rng: np.random.Generator
) -> tuple[Slates, Chances]:
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
    _write_random_ties(order, values[order], np.ascontiguousarray(action_mask), rng.random(slates.shape),
          np.empty_like(order), slates, chances)  # fmt: skip
    return slates, chances


def plackett_luce(
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
    left = np.zeros(action_mask.shape[1], np.bool_)
    _write_plackett_luce(np.ascontiguousarray(rows), weights, np.ascontiguousarray(action_mask), turns < uniform, draws,
                         uniform, left, slates, chances)  # fmt: skip
    return slates, chances


def top_k_of_samples(samples: Scores, picks: Indices, action_mask: Flags, slate_size: int) -> tuple[Slates, Chances]:
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
    _write_top_of_samples(
        orders, picks, np.ascontiguousarray(action_mask), np.empty(slate_size, np.int64), slates, chances
    )
    return slates, chances


def top_k_of_beta_samples(
    wins: Chances, losses: Chances, draws: int, action_mask: Flags, slate_size: int, rng: np.random.Generator
) -> tuple[Slates, Chances]:
    """The K allowed items of highest value under a draw from Beta distributions, as Thompson sampling shows them.

    Args:
        wins: [I] first parameter of each item.
        losses: [I] second parameter.
        draws: Samples of all items; each user gets one of them.
        action_mask: [B, I].
        slate_size: K.
        rng: Where to draw from.

    Returns:
        As :func:`top_k_of_samples`.
    """
    some = np.flatnonzero(action_mask.any(0))  # a draw costs more than a comparison
    samples = np.zeros((draws, len(wins)))
    samples[:, some] = rng.beta(wins[some], losses[some], size=(draws, len(some)))
    return top_k_of_samples(samples, rng.integers(draws, size=len(action_mask)), action_mask, slate_size)


@jit
def _fill_up(slate: Indices, filled: int, action_mask: NDArray[np.bool_]) -> None:
    """Fills a slate up with the first items that are not allowed."""
    candidate = 0
    while filled < len(slate) and candidate < len(action_mask):
        if not action_mask[candidate]:
            slate[filled] = candidate
            filled += 1
        candidate += 1


@jit
def _write_random_ties(
    order: Indices,
    values: Chances,
    action_mask: Flags,
    draws: Chances,
    equals: Indices,
    slates: Slates,
    chances: Chances,
) -> None:
    """The loop of :func:`top_k_random_ties`; ``values`` are sorted as ``order``, ``equals`` [I] is working space."""
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
        _fill_up(slates[b], filled, action_mask[b])


@jit
def _write_plackett_luce(
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
    """The loop of :func:`plackett_luce`; ``left`` [I] is working space."""
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
        _fill_up(slates[b], filled, action_mask[b])


@jit
def _write_top_of_samples(
    orders: Indices, picks: Indices, action_mask: Flags, agreed: Indices, slates: Slates, chances: Chances
) -> None:
    """The loop of :func:`top_k_of_samples`; ``agreed`` [K] is working space."""
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
        _fill_up(slates[b], filled, action_mask[b])


@jit
def _write_epsilon_greedy(
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
    """The loop of :func:`epsilon_greedy`; ``others`` [I] and ``listed`` [I], all false, are working space."""
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
