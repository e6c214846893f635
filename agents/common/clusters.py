"""Spherical k-means: clusters of encodings by direction."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.core.env_runner import Floats

ROUNDS = 50


class Clusters:
    """k-means on the unit sphere (Dhillon and Modha 2001), seeded as k-means++ does.

    Args:
        points: [N, D] encodings to be grouped.
        count: Number of clusters; at most one for each distinct direction.
        rng: Where the seeds are drawn from.

    Attributes:
        centres: [n, D] unit vectors.
        labels: [N] cluster of each point.
    """

    def __init__(self, points: Floats, count: int, rng: np.random.Generator) -> None:
        units = normalised(points.astype(np.float64))
        self.centres = _seeds(units, count, rng)
        self.labels = self.nearest(units)
        for _ in range(ROUNDS):
            sums = np.zeros_like(self.centres)
            np.add.at(sums, self.labels, units)
            empty = ~sums.any(1)
            sums[empty] = self.centres[empty]
            self.centres = normalised(sums)
            labels = self.nearest(units)
            if (labels == self.labels).all():
                break
            self.labels = labels

    def __len__(self) -> int:
        return len(self.centres)

    def nearest(self, points: NDArray[np.floating]) -> NDArray[np.int64]:
        """Cluster of the smallest angle to each point [N, D]."""
        nearest: NDArray[np.int64] = (points @ self.centres.T).argmax(1)
        return nearest


def normalised(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of length 1; zeros stay zeros."""
    length = np.sqrt(np.square(points).sum(1, keepdims=True))
    units: NDArray[np.float64] = np.divide(points, length, out=np.zeros_like(points), where=length > 0)
    return units


def _seeds(units: NDArray[np.float64], count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Points drawn one by one with probability as the squared distance to those before."""
    chosen = [int(rng.integers(len(units)))]
    distance = np.full(len(units), np.inf)
    while len(chosen) < count:
        distance = np.minimum(distance, np.square(units - units[chosen[-1]]).sum(1))
        distance[distance < 1e-12] = 0.0
        total = distance.sum()
        if total == 0.0:
            break
        chosen.append(int(np.searchsorted(np.cumsum(distance), rng.random() * total, side="right")))
    return units[chosen]
