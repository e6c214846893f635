"""The K best of many, compiled: NumPy's partition takes ten times as long for slates."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.rules.jit import kernel

BLOCK = 32
"""Columns that are looked at together; most blocks have none that is among the best."""


@kernel
def select(scores: NDArray[Any], allowed: NDArray[np.bool_], values: NDArray[Any], out: NDArray[np.int64]) -> None:
    """Writes the K allowed columns of highest score of each row, best first, the lower one of equals.

    Args:
        scores: [B, I] float64 or float32, no NaN.
        allowed: [B, I]; where fewer than K are, the first of the others fill up.
        values: [K] of the same type, working space.
        out: [B, K], written.
    """
    slots, items = out.shape[1], scores.shape[1]
    for b in range(scores.shape[0]):
        filled = 0
        for k in range(slots):
            values[k] = -np.inf
            out[b, k] = -1
        for start in range(0, items, BLOCK):
            row, shelf = scores[b, start : min(start + BLOCK, items)], allowed[b, start : min(start + BLOCK, items)]
            least, better = values[slots - 1], 0
            for i in range(row.shape[0]):  # without branches: the processor compares several at a time
                better += (row[i] > least) & shelf[i]
            if filled == slots and better == 0:
                continue
            for i in range(row.shape[0]):
                value = row[i]
                if not shelf[i] or (filled == slots and value <= values[slots - 1]):
                    continue
                k = min(filled, slots - 1)
                while k > 0 and values[k - 1] < value:
                    values[k] = values[k - 1]
                    out[b, k] = out[b, k - 1]
                    k -= 1
                values[k] = value
                out[b, k] = start + i
                filled = min(filled + 1, slots)
        candidate = 0
        while filled < slots and candidate < items:
            if not allowed[b, candidate]:
                out[b, filled] = candidate
                filled += 1
            candidate += 1


@kernel
def add_remembered(
    item: NDArray[np.int32], looks: NDArray[np.float32], takes: NDArray[np.float32], weights: NDArray[np.float32],
    scores: NDArray[np.float32],
) -> None:  # fmt: skip
    """Adds to scores [B, I] what is remembered of the items looked at.

    Args:
        item: [B, H], -1 for an empty place.
        looks: [B, H].
        takes: [B, H].
        weights: [B, 2] or [1, 2] of looks and takes.
        scores: [B, I], changed.
    """
    for b in range(item.shape[0]):
        row = min(b, weights.shape[0] - 1)
        for h in range(item.shape[1]):
            i = item[b, h]
            if 0 <= i < scores.shape[1]:
                scores[b, i] += weights[row, 0] * looks[b, h] + weights[row, 1] * takes[b, h]
