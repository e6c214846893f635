"""How well scores rank held-out items: recall, precision, hit rate, NDCG and MRR, each at k."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsim_llm.errors import ConfigError

Floats = NDArray[np.float64]


def top(scores: ArrayLike, k: int, allowed: ArrayLike | None = None) -> NDArray[np.int64]:
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
    """Share of the relevant items that are in the list, [N]."""
    share: Floats = hits(ranked, relevant).sum(1) / _counts(relevant)
    return share


def precision(ranked: ArrayLike, relevant: ArrayLike) -> Floats:
    """Share of the list that is relevant, [N]."""
    found = hits(ranked, relevant)
    share: Floats = found.sum(1) / found.shape[1]
    return share


def hit(ranked: ArrayLike, relevant: ArrayLike) -> Floats:
    """1 where something in the list is relevant, else 0, [N]."""
    return np.asarray(hits(ranked, relevant).any(1), np.float64)


def mrr(ranked: ArrayLike, relevant: ArrayLike) -> Floats:
    """Reciprocal of the place of the first relevant item, 0 where none is in the list, [N]."""
    found = hits(ranked, relevant)
    place: Floats = np.where(found.any(1), 1.0 / (1.0 + found.argmax(1)), 0.0)
    return place


def ndcg(ranked: ArrayLike, relevant: ArrayLike) -> Floats:
    """Discounted cumulative gain, sum of 1 / log2(1 + place) over the relevant items, over its highest value, [N].

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
    """Means over rows of all measures, by names as "recall@10".

    Args:
        scores: [N, I].
        relevant: Items [N] where each row has one, or flags [N, I].
        ks: Lengths of lists.
        allowed: [N, I] items that may be ranked; None for all.
    """
    ranked = top(scores, max(ks), allowed)
    return {
        f"{name}@{k}": float(measure(ranked[:, :k], relevant).mean()) for k in ks for name, measure in METRICS.items()
    }


def recall_at(scores: ArrayLike, relevant: ArrayLike, k: int, allowed: ArrayLike | None = None) -> float:
    """Mean recall@k; arguments as for :func:`ranking_metrics`."""
    return float(recall(top(scores, k, allowed), relevant).mean())
