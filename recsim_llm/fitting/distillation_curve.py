"""The learning curve of distillation: agreement by number of pairs, for personas seen and unseen in fitting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.datasets import Interactions
from recsim_llm.fitting.agreement import agreement
from recsim_llm.fitting.distillation_model import RatingModel, fit_rating_model, item_means

Array = NDArray[np.float64]
Index = NDArray[np.int64]

TEST_SHARE = 0.2
"""Share of the seen personas' ratings that is held out."""


@dataclass(frozen=True, eq=False)
class PairSplit:
    """The rows for training, for held-out ratings of seen personas, and for unseen personas.

    Attributes:
        train: Rows of seen personas that a model may be fitted to, in random order.
        seen: Held-out rows of seen personas.
        unseen: All rows of unseen personas.
    """

    train: Index
    seen: Index
    unseen: Index


def split_pairs(user: Index, unseen: float, seed: int) -> PairSplit:
    """Holds out whole personas and, of the others, a share of their ratings.

    Args:
        user: [N] the user of each rating.
        unseen: Share of the users who are held out whole; at least one user is on either side where there are two.
        seed: Another seed gives another division.
    """
    rng = np.random.Generator(np.random.PCG64([seed, 5]))
    people = rng.permutation(np.unique(user))
    away = people[: int(np.clip(round(unseen * len(people)), min(1, len(people) - 1), len(people) - 1))]
    outside = np.isin(user, away)
    rows = rng.permutation(np.flatnonzero(~outside))
    held = max(round(TEST_SHARE * len(rows)), 1) if len(rows) > 1 else 0
    return PairSplit(rows[held:], np.sort(rows[:held]), np.flatnonzero(outside))


def learning_curve(
    log: Interactions,
    x: NDArray[Any],
    p: NDArray[Any],
    parts: PairSplit,
    threshold: float,
    sizes: Sequence[int],
    seed: int = 0,
) -> tuple[list[dict[str, Any]], RatingModel]:
    """Fits models to more and more of the training rows and measures each on the held-out ones.

    Returns:
        One entry for each size (``pairs``, ``users``, ``seen``, ``unseen``), and the model of the largest.
    """
    wanted = sorted({min(size, len(parts.train)) for size in (*sizes, len(parts.train))})
    found = []
    for size in wanted:
        rows = parts.train[:size]
        model = fit_rating_model(log.user[rows], log.item[rows], log.value[rows], x, p)
        means = item_means(log.item[rows], log.value[rows], len(x))
        told = parts.seen[model.known[log.user[parts.seen]]]
        entry: dict[str, Any] = {"pairs": size, "users": int(model.known.sum())}
        for name, held in (("seen", told), ("unseen", parts.unseen)):
            scores = compared_scores(model, means, log, held, x)
            entry[name] = agreement(log.user[held], log.value[held], scores, threshold, seed=seed)
        found.append(entry)
    return found, model


def compared_scores(
    model: RatingModel, means: Array, log: Interactions, rows: Index, x: NDArray[Any]
) -> dict[str, Array]:
    """Scores to compare: the model, its item appeal alone, and the items' mean ratings."""
    user, item = log.user[rows], log.item[rows]
    return {
        "distilled": model.score(user, item, np.asarray(x, np.float64)),
        "appeal_alone": model.appeal[item],
        "item_means": means[item],
    }


def curve_table(learning: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The curve as rows of a table: Spearman over pairs by number of pairs, model beside the items' means."""
    return [
        {
            "pairs": entry["pairs"],
            **{
                f"{kind}: {label}": entry[kind][name]["spearman"]
                for kind in ("unseen", "seen")
                for name, label in (("distilled", "distilled"), ("item_means", "item means"))
            },
            "unseen: ahead, 95 %": str(entry["unseen"]["distilled"]["ahead_interval"]),
        }
        for entry in learning
    ]
