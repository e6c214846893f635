"""Ranking metrics of held-out items: recall, precision, hit rate, NDCG and MRR at k; AUC and NDCG within users."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsim_llm.errors import ConfigError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def top_k(scores: ArrayLike, k: int, allowed: ArrayLike | None = None) -> NDArray[np.int64]:
    """The k items of highest score [N, k], best first, of equals the lower number first.

    Args:
        scores: [N, I].
        k: 1 to I.
        allowed: [N, I] items that may be ranked, for example those not consumed before; None for all.

    Raises:
        ConfigError: If shapes do not agree or k is out of range.
    """
    rows = np.array(scores, np.float64, ndmin=2)
    if not 1 <= k <= rows.shape[1]:
        raise ConfigError(f"k must lie in [1, {rows.shape[1]}], the number of items; got {k}")
    if allowed is not None:
        mask = np.asarray(allowed, np.bool_)
        if mask.shape != rows.shape:
            raise ConfigError(f"allowed has shape {mask.shape}, expected that of scores, {rows.shape}")
        rows[~mask] = -np.inf
    order: NDArray[np.int64] = np.argsort(-rows, axis=1, kind="stable")[:, :k]
    return order


def hits(ranked: ArrayLike, relevant: ArrayLike) -> NDArray[np.bool_]:
    """Which of the ranked items [N, k] are relevant, [N, k].

    Args:
        ranked: [N, k] items, best first.
        relevant: Items [N] where each row has one, or flags [N, I].
    """
    lists, wanted = np.asarray(ranked, np.int64), np.asarray(relevant)
    if lists.ndim != 2 or len(wanted) != len(lists):
        raise ConfigError(f"ranked {lists.shape} must be [N, k] and relevant {wanted.shape} of as many rows")
    if wanted.ndim == 1:
        found: NDArray[np.bool_] = lists == wanted[:, None]
        return found
    flags: NDArray[np.bool_] = np.take_along_axis(wanted.astype(np.bool_), lists, 1)
    return flags


def _counts(relevant: ArrayLike) -> Floats:
    wanted = np.asarray(relevant)
    if wanted.ndim == 1:
        return np.ones(len(wanted))
    counts: Floats = np.asarray(np.count_nonzero(wanted, axis=1), np.float64)
    if (counts == 0).any():
        raise ConfigError("each row must have something relevant; leave out the rows that have nothing")
    return counts


def recall(ranked: ArrayLike, relevant: ArrayLike) -> Floats:
    """Recall: share of the relevant items that are in the list, [N]."""
    share: Floats = hits(ranked, relevant).sum(1) / _counts(relevant)
    return share


def precision(ranked: ArrayLike, relevant: ArrayLike) -> Floats:
    """Precision: share of the list that is relevant, [N]."""
    found = hits(ranked, relevant)
    share: Floats = found.sum(1) / found.shape[1]
    return share


def hit(ranked: ArrayLike, relevant: ArrayLike) -> Floats:
    """Hit rate: 1 where something in the list is relevant, else 0, [N]."""
    return np.asarray(hits(ranked, relevant).any(1), np.float64)


def mrr(ranked: ArrayLike, relevant: ArrayLike) -> Floats:
    """Reciprocal rank of the first relevant item, 0 where none is in the list, [N]."""
    found = hits(ranked, relevant)
    place: Floats = np.where(found.any(1), 1.0 / (1.0 + found.argmax(1)), 0.0)
    return place


def ndcg(ranked: ArrayLike, relevant: ArrayLike) -> Floats:
    """Normalised discounted cumulative gain: sum of 1 / log2(1 + place) over relevant items, over its maximum, [N].

    Järvelin and Kekäläinen (2002), with relevance 0 or 1.
    """
    found = hits(ranked, relevant)
    discount = 1.0 / np.log2(2.0 + np.arange(found.shape[1]))
    most = np.cumsum(discount)[np.minimum(_counts(relevant).astype(int), found.shape[1]) - 1]
    share: Floats = (found * discount).sum(1) / most
    return share


METRICS: dict[str, Callable[[ArrayLike, ArrayLike], Floats]] = {
    "recall": recall, "precision": precision, "hit": hit, "mrr": mrr, "ndcg": ndcg,
}  # fmt: skip


def ranking_metrics(
    scores: ArrayLike, relevant: ArrayLike, ks: tuple[int, ...] = (10,), allowed: ArrayLike | None = None
) -> dict[str, float]:
    """Means over rows of all ranking metrics, by names as "recall@10".

    Args:
        scores: [N, I].
        relevant: Items [N] where each row has one, or flags [N, I].
        ks: Lengths of lists.
        allowed: [N, I] items that may be ranked; None for all.
    """
    ranked = top_k(scores, max(ks), allowed)
    return {
        f"{name}@{k}": float(measure(ranked[:, :k], relevant).mean()) for k in ks for name, measure in METRICS.items()
    }


def recall_at(scores: ArrayLike, relevant: ArrayLike, k: int, allowed: ArrayLike | None = None) -> float:
    """Mean recall@k; arguments as for :func:`ranking_metrics`."""
    return float(recall(top_k(scores, k, allowed), relevant).mean())


@dataclass(frozen=True)
class UserRanking:
    """AUC and NDCG of a score within each user, averaged over the users who liked some items and others not.

    Attributes:
        auc: Chance that a liked item stands before one that was not liked; ties count half.
        ndcg: Normalised discounted cumulative gain of the best five, gain 1 for a liked item.
        users: How many users have both kinds.
    """

    auc: float
    ndcg: float
    users: int


def user_ranking(user: Ints, liked: NDArray[np.bool_], score: Floats, *, depth: int = 5) -> UserRanking:
    """AUC and NDCG of a score on the rows of a log, within each user.

    Args:
        user: [N] index of the user.
        liked: [N] whether she liked the item.
        score: [N] higher is recommended first. Ties share their ranks (AUC) and gains (NDCG).
        depth: How many places count for NDCG.
    """
    if not len(user):
        return UserRanking(float("nan"), float("nan"), 0)
    order = np.lexsort((score, user))
    person, good, value = user[order], liked[order].astype(np.float64), score[order]
    new_user = np.r_[True, np.diff(person) != 0]
    new_tie = new_user | np.r_[True, np.diff(value) != 0]
    of_user, of_tie = np.cumsum(new_user) - 1, np.cumsum(new_tie) - 1
    rank = np.arange(len(order)) - np.flatnonzero(new_user)[of_user] + 1.0  # 1 is the lowest score of a user
    size = np.bincount(of_user).astype(np.float64)
    middle = np.bincount(of_tie, rank) / np.bincount(of_tie)
    positives = np.bincount(of_user, good)
    both = (positives > 0) & (positives < size)
    users = int(both.sum())
    if users == 0:
        return UserRanking(float("nan"), float("nan"), 0)
    above = np.bincount(of_user, middle[of_tie] * good) - positives * (positives + 1) / 2
    auc = above[both] / (positives * (size - positives))[both]
    from_top = size[of_user] - rank
    weight = np.where(from_top < depth, 1 / np.log2(from_top + 2), 0.0)
    shared = np.bincount(of_tie, good) / np.bincount(of_tie)
    gained = np.bincount(of_user, weight * shared[of_tie])
    ideal = np.cumsum(1 / np.log2(np.arange(depth) + 2))[np.minimum(positives[both], depth).astype(np.int64) - 1]
    return UserRanking(float(auc.mean()), float((gained[both] / ideal).mean()), users)
