"""Evidence for checks of agents: pickles inside files, and frequencies against probabilities."""

from __future__ import annotations

import io
import math
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.testing.subject import Actions, require

ALPHA = 1e-5
"""Probability that right probabilities are called wrong."""

LEAST_EXPECTED = 5.0


def pickles(name: str, source: Any) -> Iterator[str]:
    """Names of pickles in a file, or in the zips inside it."""
    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            for info in archive.infolist():
                with archive.open(info) as member:
                    content = member.read()
                yield from _pickles_in(f"{name}/{info.filename}", content)
        return
    yield from _pickles_in(name, Path(source).read_bytes())


def _pickles_in(name: str, content: bytes) -> Iterator[str]:
    if content[:2] == b"PK":
        yield from pickles(name, io.BytesIO(content))
    elif content[:1] == b"\x80" and _is_pickle(content):
        yield name


def _is_pickle(content: bytes) -> bool:
    try:
        for _ in pickletools.genops(content):
            pass
    except (ValueError, IndexError, KeyError, OverflowError, UnicodeError):
        return False
    return True


def require_frequencies(slates: Actions, chances: NDArray[np.float64]) -> None:
    """Slots of draws from one policy in one state [N, K] against the probabilities given with them."""
    rows = np.arange(len(slates))
    for slot in range(slates.shape[1]):
        items, given = slates[rows, slot], chances[rows, slot]
        if np.isnan(given).any():
            return
        names, first, counts = np.unique(items, return_index=True, return_counts=True)
        p = given[first]
        place = np.searchsorted(names, items)
        require(bool(np.allclose(given, p[place])), f"slot {slot}: one item in one situation has several probabilities")
        require(
            p.sum() <= 1.0 + 1e-6, f"slot {slot}: probabilities of the items shown sum to {p.sum():.4f}, more than 1"
        )
        chance = _chi_square_tail(counts, p, len(rows))
        require(chance > ALPHA, f"slot {slot}: frequencies differ from the probabilities given, p-value {chance:.1e}")
        rows = rows[items == names[counts.argmax()]]  # the next slot, given the most frequent item here


def _chi_square_tail(counts: NDArray[np.int64], p: NDArray[np.float64], total: int) -> float:
    """P-value of counts under probabilities; what was never seen, and rare items, make one cell."""
    common = p * total >= LEAST_EXPECTED
    seen = np.append(counts[common], total - counts[common].sum())
    expected = np.append(p[common], max(1.0 - p[common].sum(), 0.0)) * total
    if expected[-1] < 1e-6 * total:
        if seen[-1] > 0:
            return 0.0
        seen, expected = seen[:-1], expected[:-1]
    freedom = len(seen) - 1
    if freedom < 1:
        return 1.0
    statistic = float((np.square(seen - expected) / expected).sum())
    spread = 2.0 / (9.0 * freedom)  # Wilson and Hilferty's cube root, good to a few per cent out here
    normal = ((statistic / freedom) ** (1.0 / 3.0) - (1.0 - spread)) / math.sqrt(spread)
    return 0.5 * math.erfc(normal / math.sqrt(2.0))
