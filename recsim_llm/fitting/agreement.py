"""Agreement of scores with held-out ratings: Spearman and AUC, with bootstrap intervals over users."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.metrics.rank_correlation import ranks, spearman
from recsim_llm.metrics.ranking import user_ranking

Array = NDArray[np.float64]
Index = NDArray[np.int64]

RESAMPLES = 400
FEWEST = 3
"""Ratings of a user that a rank correlation of her own needs."""


def agreement(
    user: Index,
    value: Array,
    scores: Mapping[str, Array],
    threshold: float,
    *,
    bar: str = "item_means",
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """Spearman correlation and AUC of scores on held-out ratings, with bootstrap intervals.

    Args:
        user: [N] positions of the users.
        value: [N] what was held out.
        scores: [N] of each score by name.
        threshold: Ratings from here on are positive, for the AUC.
        bar: The score that the others are compared with.
        seed: Seed of the bootstrap.
        resamples: Draws of users with replacement.

    Returns:
        For each score ``spearman`` (over pairs), ``spearman_per_user`` (mean over users) and ``auc`` (mean over users),
        the first with its 95 % interval over users and that of its difference to the bar; and the numbers of pairs
        and users. None where nothing could be measured.
    """
    order = np.argsort(user, kind="stable")
    user, value = user[order], value[order]
    ordered = {name: np.asarray(score, np.float64)[order] for name, score in scores.items()}
    _, starts = np.unique(user, return_index=True)
    groups = np.split(np.arange(len(user)), starts[1:])
    drawn = _draws({**ordered, "": value}, groups, seed, resamples)
    out: dict[str, Any] = {"pairs": len(user), "users": len(groups) if len(user) else 0}
    for name, score in ordered.items():
        whole = spearman(score, value)
        own = [spearman(score[rows], value[rows]) for rows in groups if len(rows) >= FEWEST]
        own = [number for number in own if np.isfinite(number)]
        out[name] = {
            "spearman": rounded(whole),
            "interval": limits(drawn[name]),
            "ahead": None if name == bar or bar not in ordered else rounded(whole - spearman(ordered[bar], value)),
            "ahead_interval": None if name == bar or bar not in ordered else limits(drawn[name] - drawn[bar]),
            "spearman_per_user": rounded(float(np.mean(own)) if own else float("nan")),
            "auc": rounded(user_ranking(user, value >= threshold, score).auc),
        }
    return out


def _draws(scores: Mapping[str, Array], groups: list[Index], seed: int, resamples: int) -> dict[str, Array]:
    """Rank correlations with the values (the score named "") over users drawn with replacement.

    Ranks are those among all pairs; of a draw only the correlation of these is computed anew.
    """
    value = ranks(scores[""])
    out = {name: np.full(resamples, np.nan) for name in scores if name}
    if len(groups) < 2 or not len(value):
        return out
    rng = np.random.Generator(np.random.PCG64(seed))
    weight = np.stack([np.bincount(rng.integers(0, len(groups), len(groups)), minlength=len(groups))
                       for _ in range(resamples)]).astype(np.float64)  # fmt: skip
    for name in out:
        rank = ranks(scores[name])
        sums = np.array([
            [len(g), rank[g].sum(), value[g].sum(), rank[g] @ rank[g], value[g] @ value[g], rank[g] @ value[g]]
            for g in groups
        ])  # fmt: skip
        n, a, b, aa, bb, ab = (weight @ sums).T
        with np.errstate(invalid="ignore", divide="ignore"):
            out[name] = (ab / n - a * b / n**2) / np.sqrt((aa / n - (a / n) ** 2) * (bb / n - (b / n) ** 2))
    return out


def limits(drawn: Array) -> list[float | None]:
    """Ends of the 95 % interval of bootstrap draws."""
    finite = drawn[np.isfinite(drawn)]
    if not len(finite):
        return [None, None]
    low, high = np.quantile(finite, [0.025, 0.975])
    return [rounded(float(low)), rounded(float(high))]


def rounded(value: float) -> float | None:
    """Four digits, None (null in JSON) where there was nothing to measure."""
    return round(float(value), 4) if np.isfinite(value) else None
