"""Judge without a model: words that persona and item share.

It hears words, not meaning, and no negation. It is for tests, for machines without torch, and as a baseline that a
language model must beat.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from recsim_llm.encoders.progress import advance
from recsim_llm.judges.base import HIGHEST, LOWEST, Pair, Verdict

_WORD = re.compile(r"[^\W\d_]{4,}")  # shorter words are mostly grammar
_STEM = 6  # letters that two words must share to be one: "guitars" is "guitar"
_STEEP = 6.0  # a cosine of 1/6 takes 63 % of the scale
_SCHEME = "hashing-judge-1: cosine of sets of 6-letter stems; 1 + 4 (1 - exp(-6 c))"


@dataclass(frozen=True)
class HashingJudge:
    """Rates by the cosine of the two sets of word stems; a pair without words in common gets the lowest rating.

    Attributes:
        name: Always ``"hashing"``.
    """

    name: str = "hashing"

    @property
    def digest(self) -> str:
        """SHA-256 of the scheme's description."""
        return hashlib.sha256(_SCHEME.encode()).hexdigest()

    def rate(self, pairs: Sequence[Pair], progress: bool = False) -> list[Verdict]:
        """Rates each pair by itself."""
        verdicts = []
        with advance("rating pairs", len(pairs), progress) as step:
            for pair in pairs:
                persona, item = _stems(pair.persona), _stems(pair.item)
                shared = len(persona & item) / math.sqrt(max(len(persona) * len(item), 1))
                verdicts.append(Verdict(LOWEST + (HIGHEST - LOWEST) * (1.0 - math.exp(-_STEEP * shared))))
                step(1)
        return verdicts


@lru_cache(maxsize=1 << 14)
def _stems(text: str) -> frozenset[str]:
    return frozenset(word[:_STEM] for word in _WORD.findall(text.lower()))
