"""Feature-hashing text encoder: word and character n-grams, without a model.

It hears words, not meaning. It is for tests, for machines without torch, and as a baseline that a language model must
beat. Method: feature hashing with signs (Weinberger et al. 2009, arXiv:0902.2206).
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from recsim_llm.encoders.progress import advance

_WORD = re.compile(r"[\w']+")
_SCHEME = "hashing-1: words, word pairs, character 3- to 5-grams; square-root counts; blake2b"


@dataclass(frozen=True)
class HashingEncoder:
    """Text encoder by feature hashing: signed square-rooted counts of n-grams, scaled to length one.

    Attributes:
        name: Always ``"hashing"``.
        width: Number E of buckets.
    """

    name: str = "hashing"
    width: int = 256

    @property
    def digest(self) -> str:
        """SHA-256 of the scheme's description and the width."""
        return hashlib.sha256(f"{_SCHEME}; {self.width}".encode()).hexdigest()

    def encode(self, texts: Sequence[str], progress: bool = False) -> NDArray[np.float32]:
        """Encodes each text by itself, ``[N, E] float32``; texts without a word are zero."""
        out = np.zeros((len(texts), self.width), dtype=np.float32)
        with advance("hashing texts", len(texts), progress) as step:
            for row, text in enumerate(texts):
                out[row] = self._one(text)
                step(1)
        return out

    def _one(self, text: str) -> NDArray[np.float64]:
        vector = np.zeros(self.width)
        for gram, count in sorted(Counter(_grams(text)).items()):
            word = _hash(gram)
            sign = 1.0 if word >> 63 else -1.0
            vector[word % self.width] += sign * np.sqrt(count)
        length = np.sqrt(np.sum(vector * vector))
        return vector / length if length > 0 else vector


def _grams(text: str) -> Iterator[str]:
    words = _WORD.findall(text.lower())
    yield from words
    for left, right in pairwise(words):
        yield f"{left} {right}"
    for word in words:
        framed = f"<{word}>"
        for size in (3, 4, 5):
            for start in range(len(framed) - size + 1):
                yield framed[start : start + size]


@lru_cache(maxsize=1 << 16)
def _hash(gram: str) -> int:
    """A stable 64-bit hash: the same on every machine and in every process, unlike ``hash``."""
    return int.from_bytes(hashlib.blake2b(gram.encode(), digest_size=8).digest(), "little")
