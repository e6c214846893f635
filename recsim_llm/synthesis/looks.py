"""The looks of products: four attributes that only their covers show, and the taste for them.

They are drawn independently of the text and of each other, each value about equally often, and take the first
:data:`VISUAL` of the items' factors, so that half of the taste that no text explains is taste for looks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.catalog import Floats

__all__ = ["COLOURS", "PATTERNS", "SILHOUETTES", "STYLES", "VISUAL", "Look", "draw_looks", "look_code", "with_looks"]

COLOURS = ("red", "yellow", "green", "blue", "purple", "grey")
SILHOUETTES = ("disc", "square", "diamond", "arch", "pill")
PATTERNS = ("plain", "stripes", "dots", "checks")
STYLES = ("flat", "outlined", "shaded")
VISUAL = 8
"""How many of the factors are the code of a look."""


@dataclass(frozen=True)
class Look:
    """What a cover shows beside the pictogram of its category."""

    colour: str
    silhouette: str
    pattern: str
    style: str


def draw_looks(count: int, rng: np.random.Generator) -> list[Look]:
    """Draws looks, every value of an attribute as often as the others."""
    columns = [
        [names[int(i)] for i in rng.permutation(np.arange(count) % len(names))]
        for names in (COLOURS, SILHOUETTES, PATTERNS, STYLES)
    ]
    return [Look(*values) for values in zip(*columns, strict=True)]


def look_code(looks: list[Look]) -> NDArray[Any]:
    """The code of each look, [I, 8]: uncorrelated columns of mean 0 and variance 1.

    Six colours are the corners of an octahedron, five silhouettes those of a pentagon, four patterns those of a square,
    and three styles lie on a line: no value of an attribute is preferred to another on the whole.
    """
    octahedron = np.sqrt(3) * np.vstack([np.eye(3), -np.eye(3)])
    turns = [2 * np.pi * np.arange(corners) / corners for corners in (5, 4)]
    pentagon, square = (np.sqrt(2) * np.stack([np.cos(turn), np.sin(turn)], axis=1) for turn in turns)
    line = np.sqrt(1.5) * np.array([[-1.0], [0.0], [1.0]])
    parts = [
        corners[[names.index(getattr(look, attribute)) for look in looks]]
        for attribute, names, corners in (
            ("colour", COLOURS, octahedron),
            ("silhouette", SILHOUETTES, pentagon),
            ("pattern", PATTERNS, square),
            ("style", STYLES, line),
        )
    ]
    return np.hstack(parts)


def with_looks(factors: Floats, looks: list[Look]) -> Floats:
    """The items' factors [I, 16] with the code of their looks in the first half, at the variance of the others."""
    deviation = np.sqrt(np.square(factors[:, VISUAL:].astype(np.float64)).mean())
    return np.hstack([look_code(looks) * deviation, factors[:, VISUAL:]]).astype(np.float32)
