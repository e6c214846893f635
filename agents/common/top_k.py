"""Top-k selection: the K allowed items of highest score, compiled, as NumPy's partition takes ten times as long."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.cooldown import MemoryTables
from recsim_llm.simulator.jit import jit, kernel, loaded

GROUPS = 64
"""Columns are taken in so many groups, every 64th in one: of those without a high score nothing more is looked at."""
NOTHING = np.float32(-np.inf)

Flags = NDArray[np.bool_]
Slates = NDArray[np.int64]

Scores = NDArray[np.floating]
Chances = NDArray[np.float64]


def top_k(scores: Scores, action_mask: Flags, slate_size: int) -> Slates:
    """The K allowed items of highest score, best first, none twice.

    Args:
        scores: [B, I] or [I].
        action_mask: [B, I]; where fewer than K items are, the slate is filled up with others.
        slate_size: K.
    """
    kind = np.float32 if scores.dtype == np.float32 else np.float64
    rows = np.ascontiguousarray(np.broadcast_to(scores, action_mask.shape), kind)
    return select(rows, np.ascontiguousarray(action_mask), slate_size)[0]


def select(
    scores: NDArray[Any], action_mask: NDArray[np.bool_], slate_size: int
) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """The K allowed columns of highest score of each row, best first, the lower one of equals.

    Args:
        scores: [B, I] float64 or float32, contiguous, no NaN.
        action_mask: [B, I], contiguous; where fewer than K are, the first of the others fill up.
        slate_size: K.

    Returns:
        Columns [B, K] and their scores [B, K], -inf for what fills up.
    """
    found = np.empty((len(scores), slate_size), np.int64)
    values = np.empty((len(scores), slate_size), scores.dtype)
    loaded(_select, scores, action_mask, np.empty(GROUPS, scores.dtype), values, found)
    return found, values


@kernel
def _select(
    scores: NDArray[Any], action_mask: NDArray[np.bool_], highest: NDArray[Any], values: NDArray[Any],
    found: NDArray[np.int64],
) -> None:  # fmt: skip
    """Writes what :func:`select` returns; ``highest`` is working space for the highest score of each group."""
    slate_size, items = found.shape[1], scores.shape[1]
    for b in range(scores.shape[0]):
        _summarise(scores[b], action_mask[b], highest)
        best, columns, filled = values[b], found[b], 0
        least = _least(highest, best)
        for k in range(slate_size):
            best[k] = NOTHING
            columns[k] = -1
        for group in range(min(GROUPS, items)):
            if highest[group] < least:
                continue
            for i in range(group, items, GROUPS):
                value = scores[b, i]
                if not action_mask[b, i] or value < least:
                    continue
                last = min(filled, slate_size - 1)
                if filled == slate_size and (value < best[last] or (value == best[last] and columns[last] < i)):
                    continue
                k = last
                while k > 0 and (best[k - 1] < value or (best[k - 1] == value and columns[k - 1] > i)):
                    best[k] = best[k - 1]
                    columns[k] = columns[k - 1]
                    k -= 1
                best[k] = value
                columns[k] = i
                filled = min(filled + 1, slate_size)
        candidate = 0
        while filled < slate_size and candidate < items:
            if not action_mask[b, candidate]:
                columns[filled] = candidate
                filled += 1
            candidate += 1


@kernel
def write_highest(
    values: NDArray[Any], action_mask: NDArray[np.bool_], highest: NDArray[Any], out: NDArray[Any]
) -> None:
    """Writes the highest value [I] among those of each row of ``action_mask`` [B, I] to out [B], -inf for none.

    ``highest`` [GROUPS] is working space.
    """
    for b in range(action_mask.shape[0]):
        _summarise(values, action_mask[b], highest)
        out[b] = NOTHING
        for group in range(GROUPS):
            out[b] = max(out[b], highest[group])


@jit
def _summarise(scores: NDArray[Any], action_mask: NDArray[np.bool_], highest: NDArray[Any]) -> None:
    """Writes the highest allowed score of each group; without branches, so that several are compared at a time."""
    for group in range(GROUPS):
        highest[group] = NOTHING
    for start in range(0, scores.shape[0], GROUPS):
        end = min(start + GROUPS, scores.shape[0])
        row, shelf = scores[start:end], action_mask[start:end]
        for n in range(row.shape[0]):
            value, before = row[n], highest[n]
            here = value if shelf[n] else NOTHING
            highest[n] = here if here > before else before


@jit
def _least(highest: NDArray[Any], best: NDArray[Any]) -> Any:
    """The K-th highest of the groups' highest scores: K scores or more are as high. ``best`` [K] is working space."""
    slate_size = best.shape[0]
    if slate_size > GROUPS:
        return NOTHING
    for k in range(slate_size):
        best[k] = NOTHING
    for group in range(GROUPS):
        value = highest[group]
        if value > best[slate_size - 1]:
            k = slate_size - 1
            while k > 0 and best[k - 1] < value:
                best[k] = best[k - 1]
                k -= 1
            best[k] = value
    return best[slate_size - 1]


def by_topic(topic: NDArray[np.integer], topics: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Items [I] in the order of their topics [I], and where those of each of T topics end among them [T]."""
    members = np.argsort(topic, kind="stable").astype(np.int64)
    return members, np.cumsum(np.bincount(topic, minlength=topics))


@kernel
def add_remembered(
    memory: MemoryTables, weights: NDArray[np.float32], members: NDArray[np.int64], ends: NDArray[np.int64],
    scores: NDArray[np.float32],
) -> None:  # fmt: skip
    """Adds to scores [B, I] what is remembered of items and topics; of most of them nothing is.

    Args:
        memory: Items [B, H], -1 for an empty place, looks and clicks [B, H], wear [B, T].
        weights: [B, 3] or [1, 3] of wear, looks and clicks.
        members: [I] items in the order of their topics.
        ends: [T] where the items of each topic end among them.
        scores: [B, I], changed.
    """
    item, looks, takes, wear = memory
    for b in range(item.shape[0]):
        row = min(b, weights.shape[0] - 1)
        start = 0
        for t in range(wear.shape[1]):
            if wear[b, t] != np.float32(0.0):
                worn = weights[row, 0] * wear[b, t]
                for n in range(start, ends[t]):
                    scores[b, members[n]] += worn
            start = ends[t]
        for h in range(item.shape[1]):
            i = item[b, h]
            if 0 <= i < scores.shape[1]:
                scores[b, i] += weights[row, 1] * looks[b, h] + weights[row, 2] * takes[b, h]
