"""The K items nearest to a vector, exactly or by an index; of items that can be shown only.

Vectors and encodings are compared as integers of 12 bits, as the rules hold them: their products are sums of integers
below 2^53, which float64 holds exactly, so that the order of items is the same on every machine, for one lane as for a
thousand, and ties are ties.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from recsim_llm.envs.world_core import WorldCore
from recsim_llm.errors import ConfigError, require, unknown
from recsim_llm.simulator.observation_parts import on_shelf_of
from recsim_llm.simulator.state import STEPS

SIMILARITIES = ("inner", "cosine")
INDICES = ("exact", "faiss")
BLOCK = 1 << 22
"""Scores that are held at once."""

TRAINING = 64
"""Items for each cell from which the cells of an index are found; fewer than 39 are too few for FAISS."""

PROBED = 8
"""One in so many cells is searched at first: a tenth of the time of the exact search at 100,000 items."""

SEED = 1234
Floats64 = NDArray[np.float64]
Slates = NDArray[np.int64]


class Nearest(Protocol):
    """Finds the K nearest items for each lane."""

    def __call__(self, vectors: NDArray[np.float32]) -> Slates:
        """Positions [B, K] for vectors [B, D] in [-1, 1], nearest first."""


def nearest(core: WorldCore, similarity: str, index: str) -> Nearest:
    """The search that was asked for.

    Raises:
        ConfigError: If a name is not known, or an index is asked for candidates.
        MissingExtraError: If FAISS is not installed.
    """
    if similarity not in SIMILARITIES:
        raise unknown("similarity", similarity, SIMILARITIES)
    if index not in INDICES:
        raise unknown("index", index, INDICES)
    if index == "exact":
        return Exact(core, similarity)
    if core.candidates is not None:
        raise ConfigError('index="faiss" searches the whole catalogue; with num_candidates use index="exact"')
    return Indexed(core, similarity)


class _Codes:
    """Encodings as integers, and how near vectors are to them."""

    def __init__(self, core: WorldCore, similarity: str) -> None:
        self.core = core
        width = core.world.catalog.width
        self.codes = core.simulator.tables.item_code[:, :width]
        # Lengths of integers: exact under the root, and the root is rounded in the same way everywhere.
        squares = np.square(self.codes.astype(np.int64)).sum(1).astype(np.float64)
        self.lengths = np.sqrt(squares) if similarity == "cosine" else None

    def scores(self, vectors: Floats64, items: Slates) -> Floats64:
        """Nearness of vectors [B, D] of integers to items [B, N], [B, N]."""
        found: Floats64 = (self.codes[items].astype(np.float64) @ vectors[:, :, None])[:, :, 0]
        if self.lengths is not None:
            found /= np.maximum(self.lengths[items], 1.0)
        return found


class Exact(_Codes):
    """Looks at every item, or at every candidate.

    Args:
        core: Whose items.
        similarity: "inner" product or "cosine".
    """

    def __init__(self, core: WorldCore, similarity: str) -> None:
        super().__init__(core, similarity)
        self._matrix = np.ascontiguousarray(self.codes.T, np.float64) if core.candidates is None else None

    def __call__(self, vectors: NDArray[np.float32]) -> Slates:
        """Positions [B, K] in the catalogue, or in the candidate lists."""
        queries, slate_size = _integers(vectors), self.core.slate_size
        allowed = self.core.available()
        if self._matrix is None:
            assert self.core.candidates is not None
            scores = self.scores(queries, np.maximum(self.core.candidates, 0))
            return best(np.where(allowed, scores, -np.inf), slate_size)
        out = np.empty((len(queries), slate_size), np.int64)
        rows = max(BLOCK // self._matrix.shape[1], 1)
        for start in range(0, len(queries), rows):
            part = slice(start, start + rows)
            scores = queries[part] @ self._matrix
            if self.lengths is not None:
                scores /= np.maximum(self.lengths, 1.0)
            scores[~allowed[part]] = -np.inf
            out[part] = best(scores, slate_size)
        return out


class Indexed(_Codes):
    """Asks a FAISS index: items in sqrt(I) cells by k-means, of which the nearest are searched.

    More items than K are fetched, and more cells searched, until K of them can be shown; they are then ordered as the
    exact search orders them. An item in a cell that was not searched is missed.

    Args:
        core: Whose items.
        similarity: "inner" product or "cosine".

    Raises:
        MissingExtraError: If FAISS is not installed.
    """

    def __init__(self, core: WorldCore, similarity: str) -> None:
        super().__init__(core, similarity)
        self._faiss: Any = require("faiss", "ann")
        points = self._points(slice(None))
        count, width = points.shape
        cells = max(min(math.isqrt(count), count // TRAINING), 1)
        quantizer = self._faiss.IndexFlatIP(width)
        self._index = self._faiss.IndexIVFFlat(quantizer, width, cells, self._faiss.METRIC_INNER_PRODUCT)
        self._index.cp.seed, self._index.cp.max_points_per_centroid = SEED, TRAINING
        self._index.cp.min_points_per_centroid = 1
        self._index.train(points)
        self._index.add(points)
        self._cells = cells

    def _points(self, part: slice) -> NDArray[np.float32]:
        rows = self.codes[part].astype(np.float32) / STEPS
        if self.lengths is not None:
            rows /= np.maximum(self.lengths[part, None] / STEPS, 1e-12).astype(np.float32)
        return np.ascontiguousarray(rows)

    def __call__(self, vectors: NDArray[np.float32]) -> Slates:
        """Positions [B, K] in the catalogue; item 0 where too few items can be shown."""
        queries, slate_size, items = _integers(vectors), self.core.slate_size, self.core.items
        asked = np.ascontiguousarray(queries / STEPS, np.float32)
        wanted, probes = min(4 * slate_size + 16, items), min(max(self._cells // PROBED, 4), self._cells)
        while True:
            settings = self._faiss.SearchParametersIVF(nprobe=probes)
            _, found = self._index.search(asked, wanted, params=settings)
            allowed = on_shelf_of(self.core.simulator, found)
            if allowed.sum(1).min() >= slate_size or (wanted == items and probes == self._cells):
                break
            wanted, probes = min(4 * wanted, items), min(4 * probes, self._cells)
        found = np.sort(np.where(allowed, found, items))  # by position, so that ties are broken by it
        scores = self.scores(queries, np.minimum(found, items - 1))
        places = best(np.where(found < items, scores, -np.inf), slate_size)
        slates = np.take_along_axis(found, places, 1)
        return np.where(slates < items, slates, 0)


def best(scores: Floats64, slate_size: int) -> Slates:
    """Columns [B, K] of the highest scores [B, N], the first of equals; changes the scores."""
    out = np.empty((len(scores), slate_size), np.int64)
    lanes = np.arange(len(scores))
    for slot in range(slate_size):
        out[:, slot] = scores.argmax(1)
        scores[lanes, out[:, slot]] = -np.inf
    return out


def _integers(vectors: NDArray[np.float32]) -> Floats64:
    """Vectors in [-1, 1] as integers of 12 bits, in float64."""
    return np.rint(np.clip(vectors, -1.0, 1.0).astype(np.float64) * STEPS)
