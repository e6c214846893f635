"""Geometry of a timeline's small charts: numbers in, coordinates out; who draws them decides on ink.

Coordinates are in a box of WIDTH x HEIGHT that is stretched to the page; y points down.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsim_llm.envs.rendering.recorder import Moment

WIDTH, HEIGHT = 1000.0, 100.0
MOST_POINTS = 300
"""Points of a line; longer records are thinned out."""

LIKED, MOVED, DISLIKED, BACKGROUND = 3, 2, 2, 40
STRIPS, COLUMNS, LEVELS = 10, 200, 10
FAINT = 0.05
"""Satiation below this is not shown."""


@dataclass(frozen=True)
class Line:
    """One line: its name, its points as SVG wants them, and its first and last value."""

    name: str
    points: str
    first: float
    last: float


@dataclass(frozen=True)
class Chart:
    """Lines over steps.

    Attributes:
        low, high: Ends of the vertical axis.
        zero: y of the value 0, or None if it is outside.
        lines: Lines with names, in the order of their last values.
        others: Points of the lines behind them.
        breaks: x of each gap between sessions.
    """

    low: float
    high: float
    zero: float | None
    lines: list[Line]
    others: list[str]
    breaks: list[float]


@dataclass(frozen=True)
class Strip:
    """Satiation of one theme: runs of (x, width, level in (0, 1]), and its peak."""

    name: str
    peak: float
    runs: list[tuple[float, float, float]]


def moods(moments: Iterable[Moment]) -> NDArray[np.float32] | None:
    """Mood over the steps, [N]; None where users have none."""
    values = np.array([moment.mood for moment in moments], np.float32)
    return values if np.isfinite(values).all() and values.any() else None


def chosen_themes(leaning: NDArray[np.float32]) -> list[int]:
    """Themes worth a line: those liked most, those that moved most, those liked least; by last value, best first.

    Args:
        leaning: [N, T] over the steps.
    """
    last = leaning[-1]
    order = np.argsort(-last, kind="stable").tolist()
    moved = np.argsort(-np.ptp(leaning, axis=0), kind="stable").tolist()
    chosen = order[:LIKED]
    chosen += [theme for theme in moved if theme not in chosen][:MOVED]
    chosen += [theme for theme in reversed(order) if theme not in chosen][:DISLIKED]
    return sorted(chosen, key=order.index)


def chart(
    moments: Sequence[Moment],
    values: NDArray[np.float32],
    names: Sequence[str],
    shown: Sequence[int],
    *,
    with_zero: bool = True,
) -> Chart:
    """Lines of some columns of ``values`` [N, L]; the others stand faint behind them.

    Args:
        moments: [N] the steps.
        values: [N, L] finite.
        names: [L] names of the columns.
        shown: Columns that get a line with a name.
        with_zero: The vertical axis has the value 0, and is not shorter than 0.5.
    """
    low, high, shortest = float(values.min()), float(values.max()), 0.02
    if with_zero:
        low, high, shortest = min(low, 0.0), max(high, 0.0), 0.5
    if high - low < shortest:
        low, high = low - shortest / 2, high + shortest / 2
    steps = np.array([moment.step for moment in moments])
    kept = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), MOST_POINTS)).round().astype(int))
    x = places(steps)[kept]
    drawn = (HEIGHT * (high - values[kept]) / (high - low)).astype(float)

    def points(column: int) -> str:
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, drawn[:, column], strict=True))

    others = [column for column in range(values.shape[1]) if column not in set(shown)]
    spread = np.unique(np.linspace(0, len(others) - 1, min(len(others), BACKGROUND)).round().astype(int))
    return Chart(
        low, high, HEIGHT * high / (high - low) if low <= 0 <= high else None,
        [Line(names[c], points(c), float(values[0, c]), float(values[-1, c])) for c in shown],
        [points(others[n]) for n in spread], breaks(moments),
    )  # fmt: skip


def places(steps: NDArray[np.int64]) -> NDArray[np.float64]:
    """Gives x of each step."""
    length = max(int(steps[-1] - steps[0]), 1)
    x: NDArray[np.float64] = WIDTH * (steps - steps[0]) / length
    return x


def breaks(moments: Sequence[Moment]) -> list[float]:
    """Gives x of each gap between sessions."""
    x = places(np.array([moment.step for moment in moments]))
    return [float(x[n]) for n, moment in enumerate(moments) if moment.gap is not None]


def strips(moments: Sequence[Moment], names: Sequence[str]) -> list[Strip]:
    """Satiation over the steps, for the themes that wore out most.

    With more than COLUMNS steps a column is the highest of several. Equal neighbours are one run.
    """
    values = np.stack([moment.satiation for moment in moments])  # [N, T]
    peaks = values.max(axis=0)
    order = [t for t in np.argsort(-peaks, kind="stable").tolist()[:STRIPS] if peaks[t] >= FAINT]
    starts = np.unique(np.linspace(0, len(values), min(len(values), COLUMNS) + 1).astype(int))[:-1]
    edges = WIDTH * np.append(starts, len(values)) / len(values)
    found = []
    for theme in order:
        level = np.maximum.reduceat(values[:, theme], starts)
        tenth = np.where(level < FAINT, 0, np.ceil(np.minimum(level, 1.0) * LEVELS - 1e-6)).astype(int)
        changes = [0, *(np.flatnonzero(np.diff(tenth)) + 1).tolist(), len(tenth)]
        runs = [
            (float(edges[a]), float(edges[b] - edges[a]), float(tenth[a]) / LEVELS)
            for a, b in itertools.pairwise(changes)
            if tenth[a] > 0
        ]
        found.append(Strip(names[theme], float(peaks[theme]), runs))
    return found
