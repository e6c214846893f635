"""What users did with each item that they took, on average: what an item is worth beside its text."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.item_stats import credited
from recsim_llm.agents.core.env_runner import Floats, Transition

Values = NDArray[np.float64]
TOLD = ("dwell", "like", "share", "cart", "purchase", "rating")
COLUMNS = len(TOLD) + 1  # and the reward
RATING = TOLD.index("rating")


class ItemSigns:
    """Mean signals of each item, drawn towards the mean of all.

    Args:
        items: I.
        strength: Times an item must have been taken for half of its own mean to be believed.

    Attributes:
        table: [I, COLUMNS] means of dwell, like .. rating and reward, less those of all items, in units of the
            standard deviation of a single signal; 0 for an item that nobody took.
    """

    def __init__(self, items: int, strength: float) -> None:
        self.strength = strength
        self.times: Values = np.zeros((items, COLUMNS))
        self.sums: Values = np.zeros((items, COLUMNS))
        self.squares: Values = np.zeros(COLUMNS)
        self.table: Floats = np.zeros((items, COLUMNS), np.float32)

    def add(self, transition: Transition, items: NDArray[np.int64]) -> None:
        """Counts what was taken, [B, K], -1 for none."""
        where = items >= 0
        taken = items[where]
        if not len(taken):
            return
        info = transition.info
        signals = [np.asarray(info[name], np.float64)[where] for name in TOLD]
        values = np.stack([*signals, credited(transition)[where]], 1)
        counted = np.ones_like(values)
        counted[:, RATING] = values[:, RATING] > 0.0
        np.add.at(self.times, taken, counted)
        np.add.at(self.sums, taken, values)
        self.squares += np.square(values).sum(0)
        self.refresh()

    def refresh(self) -> None:
        """Computes the table from the sums."""
        number = np.maximum(self.times.sum(0), 1.0)
        mean = self.sums.sum(0) / number
        spread = np.sqrt(np.maximum(self.squares / number - np.square(mean), 0.0))
        apart = (self.sums - mean * self.times) / (self.times + self.strength)
        self.table[...] = np.divide(apart, spread, out=np.zeros_like(apart), where=spread > 0.0)

    def arrays(self) -> dict[str, NDArray[np.floating]]:
        """Sums and the table."""
        return {
            "signs_times": self.times, "signs_sums": self.sums, "signs_squares": self.squares, "signs_table": self.table
        }  # fmt: skip
