"""A ridge regression of clicks on encodings: how likely an item that is shown is taken."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.lanes import Flags, Floats, Slates
from recsim_llm.agents.pairs import Pairs

Values = NDArray[np.float64]
LEAST = 0.01
"""Smallest probability: a linear estimate can fall below zero."""
STRENGTH = 10.0
"""Looks by which an item's share of clicks is drawn towards the mean."""
RIDGE = 1.0
GROWTH = 0.05


class ClickModel:
    """P(click i | s) = theta . (psi(s, i), rate_i), rate_i the item's share of clicks.

    Args:
        pairs: The features psi.
        items: I.
    """

    def __init__(self, pairs: Pairs, items: int) -> None:
        self.pairs = pairs
        count = pairs.count + 1
        self.gram: Values = np.zeros((count, count))
        self.moment: Values = np.zeros(count)
        self.theta: Values = np.zeros(count)
        self.looks: Values = np.zeros(items)
        self.hits: Values = np.zeros(items)
        self.samples: Values = np.zeros(2)

    def rate(self) -> Values:
        """Share of clicks of each item, drawn to the mean of all, less that mean, [I]."""
        mean = float(self.hits.sum()) / max(float(self.looks.sum()), 1.0)
        rate: Values = (self.hits + STRENGTH * mean) / (self.looks + STRENGTH) - mean
        return rate

    def scores(self, rows: Floats) -> Values:
        """Probabilities [B, I]."""
        theta = self.theta.astype(np.float32)
        scores: Values = self.pairs.scores(rows, theta[:-1]) + self.theta[-1] * self.rate()
        return np.maximum(scores, LEAST)

    def add(self, rows: Floats, shown: Slates, clicked: Flags, seen: Flags) -> None:
        """Learns from slots [B, K]."""
        items = np.maximum(shown, 0)
        phi = np.concatenate([self.pairs.of(rows, items), self.rate()[items][:, :, None]], 2)[seen].astype(np.float64)
        self.gram += phi.T @ phi
        self.moment += clicked[seen] @ phi
        size = len(self.looks)
        self.looks += np.bincount(items[seen], minlength=size)
        self.hits += np.bincount(items[seen], weights=clicked[seen].astype(np.float64), minlength=size)
        self.samples[0] += len(phi)
        if self.samples[0] > self.samples[1] * (1.0 + GROWTH):
            self.theta[...] = np.linalg.solve(self.gram + RIDGE * np.eye(len(self.gram)), self.moment)
            self.samples[1] = self.samples[0]

    def arrays(self) -> dict[str, Values]:
        """Sums and theta."""
        return {
            "click_gram": self.gram, "click_moment": self.moment, "click_theta": self.theta,
            "click_looks": self.looks, "click_hits": self.hits, "click_samples": self.samples,
        }  # fmt: skip
