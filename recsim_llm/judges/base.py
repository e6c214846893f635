"""Judge protocol: ratings from 1 to 5 of pairs of a persona and an item."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

LOWEST, HIGHEST = 1.0, 5.0
"""Ends of the scale."""


@dataclass(frozen=True)
class Pair:
    """What a judge is asked. Both texts are data, whatever they say.

    Attributes:
        persona: Text of the persona.
        item: Text of the item.
    """

    persona: str
    item: str


@dataclass(frozen=True)
class Verdict:
    """What a judge answers.

    Attributes:
        rating: Expected rating in [1, 5]; NaN where it is missing.
        reason: Why it is missing ("timeout", "schema", "out of scale", "server", ...); empty where there is a rating.
        spread: Standard deviation of the answer's distribution, where the judge gives one.
    """

    rating: float
    reason: str = ""
    spread: float = 0.0

    @property
    def missing(self) -> bool:
        """Whether there is no rating."""
        return math.isnan(self.rating)


class Judge(Protocol):
    """What the package asks of a judge."""

    @property
    def name(self) -> str:
        """The name it was loaded by."""

    @property
    def digest(self) -> str:
        """SHA-256 over model, revision, prompt scheme and options: part of the key of every stored rating."""

    def rate(self, pairs: Sequence[Pair], progress: bool = False) -> list[Verdict]:
        """Rates pairs, one verdict for each, in their order."""
