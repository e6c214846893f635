"""Rank statistics: ranks with ties, Spearman's and Kendall's rank correlation, and the area under the ROC curve."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["auc", "kendall_tau", "ranks", "spearman"]

Floats = NDArray[np.float64]


def ranks(values: ArrayLike) -> Floats:
    """Ranks of values [N] from 1, the smallest first; ties share the mean of theirs."""
    _, place, count = np.unique(np.asarray(values, np.float64), return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return np.asarray((last - (count - 1) / 2.0)[place], np.float64)


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Spearman's rank correlation of values [N] and [N]: Pearson's correlation of their ranks.

    Returns:
        A number in [-1, 1]; NaN with fewer than two values or where one side is constant.
    """
    left, right = ranks(x), ranks(y)
    if len(left) < 2:
        return math.nan
    left, right = left - left.mean(), right - right.mean()
    scale = float(np.sqrt(np.sum(left**2) * np.sum(right**2)))
    return float(left @ right) / scale if scale > 0 else math.nan


def kendall_tau(x: ArrayLike, y: ArrayLike) -> float:
    """Kendall's tau-b of values [N] and [N]: how far two measures put the same things in the same order.

    tau = (C - D) / sqrt((C + D + ties in x) (C + D + ties in y)) over all pairs, C of them in the same order in both
    and D in the opposite one (Kendall, "The treatment of ties in ranking problems", Biometrika 1945).

    Returns:
        A number in [-1, 1]; NaN where one of the two says nothing.
    """
    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    upper = np.triu_indices(len(a), 1)
    first, second = (np.sign(v[:, None] - v[None])[upper] for v in (a, b))
    scale = np.sqrt((first != 0).sum() * float((second != 0).sum()))
    return float((first * second).sum() / scale) if scale > 0 else math.nan


def auc(scores: ArrayLike, positive: NDArray[Any]) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative; ties count half.

    Args:
        scores: [N].
        positive: [N] truth values.

    Returns:
        A number in [0, 1]; NaN where all or none are positive.
    """
    chosen = np.asarray(positive, np.bool_)
    count, others = int(chosen.sum()), int((~chosen).sum())
    if not count or not others:
        return math.nan
    return float(ranks(scores)[chosen].sum() - count * (count + 1) / 2) / (count * others)
