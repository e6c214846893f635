"""A template language for synthetic texts, and the reader of the files that hold their themes.

In a template

    {club}        one of the phrases of the list "club", none twice in one text
    {club#a}      the same phrase wherever the mark "a" stands on "club" in this text (title and body share marks)
    {person#a.last}  its last word
    {3-40}        a whole number; {1,200-9,800} with thousands separated; {0.4-3.9} one decimal
    [calm|loud]   one of the alternatives, which may be nested and may be empty
    [#x rose|fell]   the alternative at the same position wherever the mark "x" stands

The same range of numbers and the same brackets give the same result in title and body.

Phrases may hold templates themselves. Afterwards a/an is made to agree and sentences begin with a capital letter.

A file of themes is read line by line; ``theme NAME (GROUP)`` begins a theme, ``word LIST: a; b`` is a list of
phrases, ``facet NAME: a; b | c`` begins a facet with what people say they like (after the bar: reserved for tests),
``t:`` are titles (several after ``//``), ``s:`` first sentences, paired with titles where there are as many, ``d:``
details that may follow (``1)`` only after the first pair), ``x:`` sentences that suit the whole theme.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources

import numpy as np

from recsim_llm.errors import DataError

Words = Mapping[str, Sequence[str]]

_SLOT = re.compile(r"\{([^{}]*)\}")
_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_NUMBER = re.compile(r"([\d.,]+)-([\d.,]+)")
_ARTICLE = re.compile(r"(?:(?<=\s)|(?<=[(\"“'—])|^)(an?|An?)(?= [\"“'‘]?\w)")
_DEEPEST = 30  # phrases within phrases
_ORDINAL = re.compile(r"\b(\d+|three|four|five|six|seven|eight)th\b")
_ORDINALS = {
    "three": "third",
    "four": "fourth",
    "five": "fifth",
    "six": "sixth",
    "seven": "seventh",
    "eight": "eighth",
}
_SENTENCE = re.compile(r"(^|[.!?][”\"]? )([\"“]?)([a-z])")
_AS_VOWEL = re.compile(
    r"[\"“'‘]?(?:8|11(?!\d)|18(?!\d)|18,|11,|hour|honest|heir|honou?r|[FHLMNRSX](?:[A-Z]|-|\b)|[aeioAEIOuU])"
)
_AS_CONSONANT = re.compile(
    r"[\"“'‘]?(?:[uU]ni(?!n|m)|us[aeu]|util|ubiq|U[A-Z]|U-|U\.|[eE]u[rc]|one\b|once\b|one-|ukulele|Ukr|Uru|[eE]we|Uga)"
)


@dataclass(frozen=True)
class Story:
    """Templates of one kind of text: titles, first sentences and details that belong together."""

    titles: tuple[str, ...]
    leads: tuple[str, ...]
    details: tuple[str, ...]


@dataclass(frozen=True)
class Facet:
    """A subtopic of a theme, with its texts and the phrases that personas use for it.

    Attributes:
        name: Short name.
        objects: Phrases that personas use for it.
        reserved: Phrases that only the renderings for tests use.
        stories: Its texts.
    """

    name: str
    objects: tuple[str, ...]
    reserved: tuple[str, ...]
    stories: tuple[Story, ...]


@dataclass(frozen=True)
class Theme:
    """A topic of a world's catalogue: phrase lists, subtopics, and sentences that suit all of them."""

    name: str
    group: str
    words: dict[str, tuple[str, ...]]
    facets: tuple[Facet, ...]
    extras: tuple[str, ...]


@dataclass
class TemplateWriter:
    """Expands the templates of one text, with memory of marks and used phrases.

    Attributes:
        words: Lists of phrases, the first mapping that has a list wins.
        rng: Source of all choices.
    """

    words: Sequence[Words]
    rng: np.random.Generator
    _marks: dict[str, str] = field(default_factory=dict)
    _used: set[str] = field(default_factory=set)
    _depth: int = 0

    def write(self, template: str) -> str:
        """Expands one template to finished text."""
        return polish(self.expand(template))

    def expand(self, template: str) -> str:
        """Expands alternatives and slots, innermost first.

        Raises:
            DataError: If a slot names no list, or lists refer to each other without end.
        """
        if self._depth > _DEEPEST:
            raise DataError(f"template {template!r} does not end: a list of phrases refers to itself")
        self._depth += 1
        text = template
        while choice := _CHOICE.search(text):
            text = text[: choice.start()] + self._choose(choice.group(1)) + text[choice.end() :]
        text = _SLOT.sub(lambda slot: self._fill(slot.group(1)), text)
        self._depth -= 1
        return text

    def knows(self, mark: str) -> bool:
        """Whether a marked slot such as ``person#a`` was used in this text already."""
        return mark in self._marks

    def _choose(self, inside: str) -> str:
        """One alternative; the same one wherever the same brackets stand, the same position under one mark."""
        mark, _, listed = inside.partition(" ") if inside.startswith("#") else (f"[{inside}]", "", inside)
        options = listed.split("|")
        if mark not in self._marks:
            self._marks[mark] = str(int(self.rng.integers(len(options))))
        return options[int(self._marks[mark]) % len(options)]

    def _pick(self, options: Sequence[str]) -> str:
        return options[int(self.rng.integers(len(options)))]

    def _fill(self, slot: str) -> str:
        number = _NUMBER.fullmatch(slot)
        if number:  # the same range is the same number in title and body
            return self._marks.setdefault(slot, self._number(number.group(1), number.group(2)))
        name, _, form = slot.partition(".")
        if "#" in name:
            if name not in self._marks:
                self._marks[name] = self.expand(self.phrase(name.split("#")[0]))
            text = self._marks[name]
        else:
            text = self.expand(self.phrase(name))
        if form == "last":
            return text.split()[-1]
        if form:
            raise DataError(f"slot {{{slot}}}: no form {form!r}, known: last")
        return text

    def phrase(self, name: str) -> str:
        """One phrase of a list, not expanded; none twice as long as there are others."""
        for words in self.words:
            if name in words:
                fresh = [phrase for phrase in words[name] if f"{name}={phrase}" not in self._used]
                phrase = self._pick(fresh or words[name])
                self._used.add(f"{name}={phrase}")
                return phrase
        raise DataError(f"slot {{{name}}}: no list of phrases of that name")

    def _number(self, low: str, high: str) -> str:
        if "." in low:
            return f"{self.rng.uniform(float(low), float(high)):.1f}"
        value = int(self.rng.integers(int(low.replace(",", "")), int(high.replace(",", "")) + 1))
        if value == 1 and int(high.replace(",", "")) > 1:
            value = 2  # the noun that follows is written in the plural
        return f"{value:,}" if "," in low + high else str(value)


def polish(text: str) -> str:
    """Fixes spaces, a/an, ordinals and capital letters of an expanded template."""
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r" ([.,;:!?])", r"\1", text)
    text = text.replace("s's ", "s' ")
    text = _ORDINAL.sub(_ordinal, text)
    text = _ARTICLE.sub(lambda found: _article(found, text), text)
    return _SENTENCE.sub(lambda found: found.group(1) + found.group(2) + found.group(3).upper(), text)


def _ordinal(found: re.Match[str]) -> str:
    number = found.group(1)
    if number in _ORDINALS:
        return _ORDINALS[number]
    suffix = "th" if number[-2:] in ("11", "12", "13") else {"1": "st", "2": "nd", "3": "rd"}.get(number[-1], "th")
    return number + suffix


def _article(found: re.Match[str], text: str) -> str:
    word = found.group(1)
    if word == "A" and found.start() > 0 and text[found.start() - 2] not in ".!?:":
        return word  # a name: Serie A, A minor
    rest = text[found.end() + 1 :]
    vowel = bool(_AS_VOWEL.match(rest)) and not _AS_CONSONANT.match(rest)
    return word[0] + ("n" if vowel else "")


@lru_cache(maxsize=8)
def read_themes(file: str) -> tuple[Theme, ...]:
    """Reads a file of themes that lies beside this module; see the module's text for its form."""
    lines = resources.files(__package__).joinpath(file).read_text(encoding="utf-8").splitlines()
    themes: list[_Draft] = []
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.startswith("#"):
            try:
                _take(themes, line.strip())
            except (ValueError, IndexError) as error:
                raise DataError(f"{file} line {number}: cannot be read as a line of themes: {line[:60]!r}") from error
    return tuple(theme.finished() for theme in themes)


@lru_cache(maxsize=8)
def read_words(file: str) -> dict[str, tuple[str, ...]]:
    """Reads a file of ``word LIST: a; b`` lines that lies beside this module."""
    lines = resources.files(__package__).joinpath(file).read_text(encoding="utf-8").splitlines()
    pairs = (line.removeprefix("word ").split(":", 1) for line in lines if line.startswith("word "))
    return {name.strip(): _split(rest, ";") for name, rest in pairs}


@dataclass
class _Draft:
    name: str
    group: str
    words: dict[str, tuple[str, ...]] = field(default_factory=dict)
    facets: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = field(default_factory=list)
    stories: list[list[tuple[list[str], list[str], list[str]]]] = field(default_factory=list)
    extras: list[str] = field(default_factory=list)

    def finished(self) -> Theme:
        facets = [
            Facet(*facet, tuple(Story(tuple(t), tuple(s), tuple(d)) for t, s, d in stories))
            for facet, stories in zip(self.facets, self.stories, strict=True)
        ]
        return Theme(self.name, self.group, dict(self.words), tuple(facets), tuple(self.extras))


def _take(themes: list[_Draft], line: str) -> None:
    key, _, rest = line.partition(" ")
    if key == "theme":
        name, group = rest.rstrip(")").split(" (")
        themes.append(_Draft(name, group))
        return
    theme = themes[-1]
    if key == "word":
        name, phrases = rest.split(":", 1)
        theme.words[name.strip()] = _split(phrases, ";")
    elif key == "facet":
        name, phrases = rest.split(":", 1)
        public, _, reserved = phrases.partition("|")
        theme.facets.append((name.strip(), _split(public, ";"), _split(reserved, ";")))
        theme.stories.append([])
    elif key == "x:":
        theme.extras.append(rest)
    elif key == "t:":
        theme.stories[-1].append(([*_split(rest, "//")], [], []))
    else:
        theme.stories[-1][-1][{"s:": 1, "d:": 2}[key]].extend(_split(rest, "//"))


def _split(text: str, by: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(by) if part.strip())
