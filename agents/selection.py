"""The K best of many, compiled: NumPy's partition takes ten times as long for slates."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsim_llm.rules.jit import jit


@jit
def select(
    scores: NDArray[np.float64], allowed: NDArray[np.bool_], values: NDArray[np.float64], out: NDArray[np.int64]
) -> None:
    """Writes the K allowed columns of highest score of each row, best first, the lower one of equals.

    Args:
        scores: [B, I] float64, no NaN.
        allowed: [B, I]; where fewer than K are, the first of the others fill up.
        values: [K] float64, working space.
        out: [B, K], written.
    """
    slots = out.shape[1]
    for b in range(scores.shape[0]):
        filled = 0
        for k in range(slots):
            values[k] = -np.inf
            out[b, k] = -1
        for i in range(scores.shape[1]):
            value = scores[b, i]
            if not allowed[b, i] or (filled == slots and value <= values[slots - 1]):
                continue
            k = min(filled, slots - 1)
            while k > 0 and values[k - 1] < value:
                values[k] = values[k - 1]
                out[b, k] = out[b, k - 1]
                k -= 1
            values[k] = value
            out[b, k] = i
            filled = min(filled + 1, slots)
        candidate = 0
        while filled < slots and candidate < scores.shape[1]:
            if not allowed[b, candidate]:
                out[b, filled] = candidate
                filled += 1
            candidate += 1
