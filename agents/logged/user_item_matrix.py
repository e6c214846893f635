"""Sparse user-item matrix of clicks and skips, which item-based recommenders are fitted to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.interaction_log import Log, Numbers

Floats64 = NDArray[np.float64]

CALM = 10.0
"""Looks by which a user's mean is drawn towards 0."""

BLOCK = 512


@dataclass(frozen=True, eq=False)
class UserItemMatrix:
    """Items that each of N users looked at, none twice, in the form of compressed sparse rows.

    Attributes:
        start: [N + 1] where the items of each user begin.
        item: [M] the items, rising for each user.
        clicks: [M] clicks on each.
        lefts: [M] looks without a click.
        value: [M] what users thought of them: entry of the matrix X [N, I]. With ``looks``, the sum over the looks of
            click - (rate of the item) - (mean of the user), means taken of what is left of the clicks; otherwise 1 for
            what was clicked.
        users: [N] public numbers of the users.
        items: I.
    """

    start: Numbers
    item: Numbers
    clicks: Floats64
    lefts: Floats64
    value: Floats64
    users: Numbers
    items: int

    @classmethod
    def of(cls, log: Log, rate: Floats64, looks: bool) -> UserItemMatrix:
        """From a log; users without any item have an empty row.

        Args:
            log: The log.
            rate: [I] click rate of each item.
            looks: Keep what was looked at and left, and let looks that come to nothing count against items.
        """
        items = len(rate)
        users, row = np.unique(log.user, return_inverse=True)
        clicked = log.click > 0
        kept = np.ones(len(log), np.bool_) if looks else clicked
        cells, place = np.unique(row[kept] * items + log.item[kept], return_inverse=True)
        clicks = np.bincount(place, clicked[kept], len(cells)).astype(np.float64)
        lefts = np.bincount(place, ~clicked[kept], len(cells)).astype(np.float64)
        value: Floats64 = np.ones(len(cells))
        if looks:
            rest = centred(clicked - rate[log.item], row, len(users))
            value = np.bincount(place, rest, len(cells)).astype(np.float64)
        start = np.searchsorted(cells, np.arange(len(users) + 1) * items)
        return cls(start.astype(np.int64), cells % items, clicks, lefts, value, users, items)

    @property
    def size(self) -> float:
        """Mean square of the entries, by which penalties are scaled; 1 for clicks alone."""
        return float(np.square(self.value).mean()) if len(self.value) else 1.0

    def rows(self) -> Numbers:
        """[M] row of each entry."""
        return np.repeat(np.arange(len(self.users)), np.diff(self.start))

    def transposed(self) -> tuple[Numbers, Numbers, Floats64]:
        """Users by item: where those of each item begin [I + 1], their rows [M] and entries [M]."""
        order = np.argsort(self.item, kind="stable")
        start = np.searchsorted(self.item[order], np.arange(self.items + 1))
        return start.astype(np.int64), self.rows()[order].astype(np.int64), self.value[order]

    def gram(self) -> Floats64:
        """X^T X, [I, I]."""
        together = np.zeros((self.items, self.items))
        row = self.rows()
        for first in range(0, len(self.users), BLOCK):
            low, high = self.start[first], self.start[min(first + BLOCK, len(self.users))]
            block = np.zeros((BLOCK, self.items))
            block[row[low:high] - first, self.item[low:high]] = self.value[low:high]
            together += block.T @ block
        return together


def centred(rest: Floats64, row: NDArray[np.int64], users: int) -> Floats64:
    """What is left of clicks [N] after the means of their users, drawn towards 0, are taken off."""
    mean = np.bincount(row, rest, users) / (np.bincount(row, minlength=users) + CALM)
    less: Floats64 = rest - mean[row]
    return less
