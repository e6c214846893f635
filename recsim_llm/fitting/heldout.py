"""Splits a log into training, validation and test rows by a hash, the same on every machine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]

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
