"""Held-out ratings: a fixed split of each user's log, and how well a score orders what she liked before the rest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Mask = NDArray[np.bool_]

TRAIN, VALIDATION, TEST = 0, 1, 2


def split_log(
    user: Index, item: Index, *, seed: int = 0, validation: float = 0.1, test: float = 0.2
) -> NDArray[np.int8]:
    """Marks each row of a log as TRAIN, VALIDATION or TEST.

    Of each user's n rows, floor(n * test) go to the test and floor(n * validation) to the validation part, chosen by a
    hash of (seed, user, item, occurrence): the same on every machine, whatever the order of the file.

    Args:
        user: [N] index of the user.
        item: [N] index of the item.
        seed: Another seed gives another split.
        validation: Share of rows for choosing strengths.
        test: Share of rows for the numbers that are reported.

    Returns:
        [N] int8.
    """
    repeat = _occurrence(user, item)
    key = _mixed(_mixed(_mixed(np.uint64(seed) + user.astype(np.uint64)) + item.astype(np.uint64)) + repeat)
    order = np.lexsort((key, user))
    starts = np.searchsorted(user[order], user[order], "left")
    rank = np.arange(len(user)) - starts
    count = np.searchsorted(user[order], user[order], "right") - starts
    tests, checks = np.floor(count * test + 1e-9), np.floor(count * validation + 1e-9)
    out = np.empty(len(user), np.int8)
    out[order] = np.where(rank < tests, TEST, np.where(rank < tests + checks, VALIDATION, TRAIN))
    return out


def _occurrence(user: Index, item: Index) -> NDArray[np.uint64]:
    """How many earlier rows have the same user and item."""
    order = np.lexsort((np.arange(len(user)), item, user))
    new = np.ones(len(user), bool)
    new[1:] = (np.diff(user[order]) != 0) | (np.diff(item[order]) != 0)
    place = np.arange(len(user))
    out = np.empty(len(user), np.uint64)
    out[order] = place - np.maximum.accumulate(np.where(new, place, 0))
    return out


def _mixed(word: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014), elementwise."""
    word = np.atleast_1d(word) + np.uint64(0x9E3779B97F4A7C15)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(word ^ (word >> np.uint64(31)))


@dataclass(frozen=True)
class Ranking:
    """How well a score orders held-out rows, averaged over the users who have both kinds.

    Attributes:
        auc: Chance that a liked item stands before one that was not liked; ties count half.
        ndcg: Normalised discounted cumulative gain of the best five, gain 1 for a liked item.
        users: How many users have both kinds.
    """

    auc: float
    ndcg: float
    users: int


def ranking(user: Index, liked: Mask, score: Array, *, depth: int = 5) -> Ranking:
    """Measures a score on held-out rows.

    Args:
        user: [N] index of the user.
        liked: [N] whether she liked the item.
        score: [N] higher is recommended first. Ties share their ranks (AUC) and gains (NDCG).
        depth: How many places count for NDCG.
    """
    if not len(user):
        return Ranking(float("nan"), float("nan"), 0)
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
        return Ranking(float("nan"), float("nan"), 0)
    above = np.bincount(of_user, middle[of_tie] * good) - positives * (positives + 1) / 2
    auc = above[both] / (positives * (size - positives))[both]
    from_top = size[of_user] - rank
    weight = np.where(from_top < depth, 1 / np.log2(from_top + 2), 0.0)
    shared = np.bincount(of_tie, good) / np.bincount(of_tie)
    gained = np.bincount(of_user, weight * shared[of_tie])
    ideal = np.cumsum(1 / np.log2(np.arange(depth) + 2))[np.minimum(positives[both], depth).astype(np.int64) - 1]
    return Ranking(float(auc.mean()), float((gained[both] / ideal).mean()), users)
