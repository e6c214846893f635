"""Quality checks of generated texts: length, language, novelty, boilerplate."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from recsim_llm.synthesis.authoring.requests import SYSTEM

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_BOILERPLATE = re.compile(
    r"\bas an? (ai|assistant|language model)\b|\blanguage model\b|\bi('m| am) (sorry|unable)\b"
    r"|\bi can(not|'t) (help|assist|provide|write|generate|fulfil|comply)"
    r"|\blorem ipsum\b|\b(sure|certainly|of course)[,!:]|\bhere (is|are) (the|a|an|your|some)\b|\bjson\b"
    r"|\bplaceholder\b"
    r"|\bin the style of\b|\b(the|these|following) examples?\b|\binsert \w+ here\b|\bexample (title|text|entry)\b"
    r"|https?://|```|\bcategory:|\btitle:|\btext:",
    re.IGNORECASE,
)
_UNSEEN = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"}
_ECHO = 6
"""So many words of the instructions in a row are an echo of the prompt."""
FREQUENT = 200
"""How many of the commonest words of a world make its language."""


@dataclass(frozen=True)
class TextLimits:
    """Thresholds of the quality checks.

    Attributes:
        title: Fewest and most characters of a title.
        text: Of the text of an item.
        persona: Of a persona.
        jaccard: Largest share of common three-word sequences with any other text.
        cosine: Largest cosine with the encoding of any other entry of the world, in the world's space.
        variety: Smallest share of different three-word sequences within a text.
        valence: Smallest that the strongest statement of a persona must have, whatever its sign.
    """

    title: tuple[int, int] = (8, 120)
    text: tuple[int, int] = (40, 600)
    persona: tuple[int, int] = (60, 700)
    jaccard: float = 0.5
    cosine: float = 0.97
    variety: float = 0.7
    valence: float = 0.3


def lowercase_words(text: str) -> list[str]:
    """The words of a text in lower case, without digits and punctuation."""
    return _WORD.findall(text.lower())


def normalised(text: str) -> str:
    """Normalises a text for comparison: Unicode compatibility forms, lower case, words and numbers only."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).lower()))


@dataclass(frozen=True)
class Language:
    """Language check: the letters and the most frequent words of a world's texts.

    A text is in it if its letters are the world's (all but one in fifty) and it has at least half as many of the
    commonest words as the world's texts at their tenth percentile. No list of a language is needed, and none is hidden
    in the package; a world in several languages accepts all of them.

    Attributes:
        letters: Letters that the world's texts have.
        common: The commonest words.
        share: Least share of them in a text.
    """

    letters: frozenset[str]
    common: frozenset[str]
    share: float

    @classmethod
    def of(cls, texts: Sequence[str]) -> Language:
        """Learns the letters and frequent words of some texts."""
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(set(lowercase_words(text)))
        common = frozenset(word for word, _ in counts.most_common(FREQUENT))
        letters = frozenset(letter for text in texts for letter in text.lower() if letter.isalpha())
        shares = [_share(lowercase_words(text), common) for text in texts]
        return cls(letters, common, 0.5 * float(np.percentile(shares, 10)) if shares else 0.0)

    def holds(self, text: str) -> bool:
        """Whether a text is in this language."""
        own = [letter for letter in text.lower() if letter.isalpha()]
        strange = sum(letter not in self.letters for letter in own)
        return bool(own) and strange <= len(own) / 50 and _share(lowercase_words(text), self.common) >= self.share


def _share(found: Sequence[str], common: frozenset[str]) -> float:
    return sum(word in common for word in found) / len(found) if found else 0.0


def text_fault(text: str, bounds: tuple[int, int]) -> str | None:
    """Names what is wrong with a generated text, or returns None."""
    if not text.strip():
        return "empty"
    if any(unicodedata.category(letter) in _UNSEEN for letter in text) or "\N{REPLACEMENT CHARACTER}" in text:
        return "characters"
    if len(text) < bounds[0]:
        return "too short"
    if len(text) > bounds[1]:
        return "too long"
    if _BOILERPLATE.search(text):
        return "boilerplate"
    if _shingles(lowercase_words(text), _ECHO) & _TRUSTED:
        return "echo of the prompt"
    if len(lowercase_words(text)) < 2:
        return "no words"
    return None


def repeats(text: str, variety: float) -> bool:
    """Whether a text repeats itself: too few distinct three-word sequences."""
    found = lowercase_words(text)
    count = len(found) - 2
    return count >= 4 and len(_shingles(found, 3)) < variety * count


def _shingles(found: Sequence[str], size: int) -> frozenset[tuple[str, ...]]:
    return frozenset(tuple(found[start : start + size]) for start in range(len(found) - size + 1))


_TRUSTED = _shingles(lowercase_words(SYSTEM), _ECHO)


@dataclass(eq=False)
class NoveltyCheck:
    """Duplicate detection against the world and what was accepted since, by words and by embeddings.

    Attributes:
        limits: Bounds of likeness.
    """

    limits: TextLimits
    _exact: set[str] = field(default_factory=set)
    _shingles: list[frozenset[tuple[str, ...]]] = field(default_factory=list)
    _where: dict[tuple[str, ...], list[int]] = field(default_factory=dict)
    _units: list[NDArray[np.float32]] = field(default_factory=list)

    def add(self, texts: Iterable[str], vector: NDArray[np.float32] | None = None) -> None:
        """Adds an entry: its texts (title, text), and its embedding [D] or those of many [N, D]."""
        for text in texts:
            self._exact.add(normalised(text))
            own = _shingles(lowercase_words(text), 3)
            for shingle in own:
                self._where.setdefault(shingle, []).append(len(self._shingles))
            self._shingles.append(own)
        if vector is not None:
            self._units.append(_units(np.atleast_2d(vector)))

    def alike(self, texts: Iterable[str], vector: NDArray[np.float32]) -> str | None:
        """Names the kind of duplicate that an entry is; None if it is new."""
        for text in texts:
            if normalised(text) in self._exact:
                return "duplicate"
            own = _shingles(lowercase_words(text), 3)
            shared = Counter(place for shingle in own for place in self._where.get(shingle, ()))
            for place, common in shared.items():
                if common / (len(own) + len(self._shingles[place]) - common) > self.limits.jaccard:
                    return "near duplicate (words)"
        if self._units:
            known = self._units[0] if len(self._units) == 1 else np.concatenate(self._units)
            self._units = [known]
            if float((known @ _units(vector[None])[0]).max()) > self.limits.cosine:
                return "near duplicate (encoding)"
        return None


def _units(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    units: NDArray[np.float32] = np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
    return units
