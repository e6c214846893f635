"""Who clicked what, as sparse rows: the matrix that item-based recommenders are fitted to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.log import Log, Numbers
from recsim_llm.rules.jit import jit


@dataclass(frozen=True, eq=False)
class Baskets:
    """Items that each of N users clicked, none twice, in the form of compressed sparse rows.

    Attributes:
        start: [N + 1] where the items of each user begin.
        item: [M] the items, rising for each user.
        count: [M] clicks on each.
        users: [N] public numbers of the users.
        items: I.
    """

    start: Numbers
    item: Numbers
    count: NDArray[np.float64]
    users: Numbers
    items: int

    @classmethod
    def of(cls, log: Log, items: int) -> Baskets:
        """From the clicks of a log; users without any have an empty row."""
        users, row = np.unique(log.user, return_inverse=True)
        clicked = log.click > 0
        cells, count = np.unique(row[clicked] * items + log.item[clicked], return_counts=True)
        start = np.searchsorted(cells, np.arange(len(users) + 1) * items)
        return cls(start.astype(np.int64), cells % items, count.astype(np.float64), users, items)

    def transposed(self) -> tuple[Numbers, Numbers]:
        """Users by item: where those of each item begin [I + 1], and their rows [M]."""
        row = np.repeat(np.arange(len(self.users)), np.diff(self.start))
        order = np.argsort(self.item, kind="stable")
        start = np.searchsorted(self.item[order], np.arange(self.items + 1))
        return start.astype(np.int64), row[order].astype(np.int64)

    def gram(self) -> NDArray[np.float64]:
        """X^T X of the binary matrix X [N, I]: how many users clicked both items, [I, I]."""
        together = np.zeros((self.items, self.items))
        _together(self.start, self.item, together)
        return together


@jit
def _together(start: Numbers, item: Numbers, out: NDArray[np.float64]) -> None:
    for u in range(len(start) - 1):
        for a in range(start[u], start[u + 1]):
            for b in range(start[u], start[u + 1]):
                out[item[a], item[b]] += 1.0
