"""Visual attributes of products: four that only covers show, and the phrases that personas use for them.

They are drawn independently of the text and of each other, each value about equally often.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = [
    "ATTRIBUTES",
    "ATTRIBUTE_OF_PHRASE",
    "COLOURS",
    "PATTERNS",
    "PHRASES",
    "SILHOUETTES",
    "STYLES",
    "VisualAttributes",
    "draw_visual_attributes",
]

COLOURS = ("red", "yellow", "green", "blue", "purple", "grey")
SILHOUETTES = ("disc", "square", "diamond", "arch", "pill")
PATTERNS = ("plain", "stripes", "dots", "checks")
STYLES = ("flat", "outlined", "shaded")
ATTRIBUTES = {"colour": COLOURS, "silhouette": SILHOUETTES, "pattern": PATTERNS, "style": STYLES}
PHRASES = {
    ("colour", "red"): ("things in red", "a strong red"),
    ("colour", "yellow"): ("things in yellow", "a sunny yellow"),
    ("colour", "green"): ("things in green", "a leafy green"),
    ("colour", "blue"): ("things in blue", "a clear blue"),
    ("colour", "purple"): ("things in purple", "a deep purple"),
    ("colour", "grey"): ("things in grey", "a quiet grey"),
    ("silhouette", "disc"): ("round shapes", "circles"),
    ("silhouette", "square"): ("square shapes", "squares with soft corners"),
    ("silhouette", "diamond"): ("diamond shapes", "shapes that stand on a corner"),
    ("silhouette", "arch"): ("arched shapes", "arches"),
    ("silhouette", "pill"): ("long rounded shapes", "pill shapes"),
    ("pattern", "plain"): ("plain surfaces", "surfaces without a pattern"),
    ("pattern", "stripes"): ("stripes", "striped surfaces"),
    ("pattern", "dots"): ("dots", "dotted surfaces"),
    ("pattern", "checks"): ("checks", "chequered surfaces"),
    ("style", "flat"): ("flat drawings", "simple flat colour"),
    ("style", "outlined"): ("bold outlines", "dark lines around everything"),
    ("style", "shaded"): ("soft shading", "shadows that give depth"),
}
"""What a value of an attribute is called in what people say."""
ATTRIBUTE_OF_PHRASE = {phrase: value for value, phrases in PHRASES.items() for phrase in phrases}
"""The attribute and value that a phrase is about."""


@dataclass(frozen=True)
class VisualAttributes:
    """The visual attributes of one cover."""

    colour: str
    silhouette: str
    pattern: str
    style: str


def draw_visual_attributes(count: int, rng: np.random.Generator) -> list[VisualAttributes]:
    """Draws visual attributes, every value of an attribute equally often."""
    columns = [
        [names[int(i)] for i in rng.permutation(np.arange(count) % len(names))]
        for names in (COLOURS, SILHOUETTES, PATTERNS, STYLES)
    ]
    return [VisualAttributes(*values) for values in zip(*columns, strict=True)]
