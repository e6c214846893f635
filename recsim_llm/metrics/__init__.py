"""Metrics of recommenders beside reward: ranking quality, rank correlation, filter bubbles."""

from __future__ import annotations

from recsim_llm.metrics.filter_bubbles import effective_shown, effective_themes, narrowing
from recsim_llm.metrics.rank_correlation import auc, kendall_tau, ranks, spearman
from recsim_llm.metrics.ranking import (
    UserRanking,
    hit,
    mrr,
    ndcg,
    precision,
    ranking_metrics,
    recall,
    recall_at,
    top_k,
    user_ranking,
)

__all__ = [
    "UserRanking",
    "auc",
    "effective_shown",
    "effective_themes",
    "hit",
    "kendall_tau",
    "mrr",
    "narrowing",
    "ndcg",
    "precision",
    "ranking_metrics",
    "ranks",
    "recall",
    "recall_at",
    "spearman",
    "top_k",
    "user_ranking",
]
