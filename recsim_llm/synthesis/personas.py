"""Generates the personas of a built-in world: likes and dislikes as data, and a paragraph that says so."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsim_llm.synthesis import demographics as tables
from recsim_llm.synthesis.domains import Domain
from recsim_llm.synthesis.grammar import TemplateWriter, Theme, Words, polish, read_themes, read_words
from recsim_llm.synthesis.visual_attributes import ATTRIBUTES, PHRASES

_VERB = re.compile(r"<([\w']+)>")
_IRREGULAR = {"am": ("am", "is", "are"), "have": ("have", "has", "have"), "do": ("do", "does", "do")}
_PRONOUNS = {
    "first": ("I", "me", "my"),
    "woman": ("she", "her", "her"),
    "man": ("he", "him", "his"),
    "nonbinary": ("they", "them", "their"),
}
FIRM, MILD = 1.0, 0.6
_SPLIT_FAMILY = 0.15  # relative odds of disliking a theme of the same family as a liked one


@dataclass(frozen=True)
class Statement:
    """One statement of taste in a persona, with its valence.

    Attributes:
        object: What it is about, without like or dislike; this is what is encoded.
        sentence: The words that stand in the paragraph.
        valence: From -1 (firm dislike) to 1 (firm like).
        theme: The theme of the object.
        facet: Its facet.
    """

    object: str
    sentence: str
    valence: float
    theme: str
    facet: str


@dataclass(frozen=True)
class Persona:
    """One synthetic persona.

    Attributes:
        user_id: Unique name.
        text: A paragraph in the first or third person.
        statements: What it says of tastes.
        gender: As in :data:`people_tables.GENDERS`.
        age_band: As in :data:`people_tables.AGE_BANDS`.
        region: As in :data:`people_tables.REGIONS`.
        name: First name.
        age: [years].
        job: With its article.
        place: Town.
        liked: Themes with a statement above zero.
        disliked: Themes with a statement below zero.
        visual_statements: What it says of how things look, where items have covers; theme and facet are attribute and
            value.
        person: In which person the text is written: "first", or the gender of the third.
    """

    user_id: str
    text: str
    statements: tuple[Statement, ...]
    gender: str
    age_band: str
    region: str
    name: str
    age: int
    job: str
    place: str
    liked: tuple[str, ...]
    disliked: tuple[str, ...]
    visual_statements: tuple[Statement, ...] = ()
    person: str = "first"

    @property
    def all_statements(self) -> list[tuple[str, float]]:
        """Everything it says as (statement, valence), of themes first."""
        return [(statement.object, statement.valence) for statement in (*self.statements, *self.visual_statements)]

    def neutral(self, themes: Sequence[str]) -> list[str]:
        """The themes that the persona does not mention."""
        return [theme for theme in themes if theme not in self.liked and theme not in self.disliked]


@dataclass(frozen=True)
class Voice:
    """Grammatical person of a text, with conjugation and pronouns.

    Attributes:
        person: "first", or the gender of the third person.
        name: First name, used instead of the first pronoun of a text.
    """

    person: str
    name: str

    def speak(self, frame: str, named: bool = False) -> str:
        """Puts pronouns and conjugated verbs into a frame."""
        subject, indirect, own = _PRONOUNS[self.person]
        column = {"first": 0, "nonbinary": 2}.get(self.person, 1)
        if named and self.person != "first" and frame.startswith("{I}"):
            subject, column = self.name, 1
        text = frame.replace("{I}", subject).replace("{me}", indirect).replace("{my}", own)
        return _VERB.sub(lambda found: _conjugated(found.group(1), column), text)


def _conjugated(verb: str, column: int) -> str:
    if verb in _IRREGULAR:
        return _IRREGULAR[verb][column]
    if column != 1:
        return verb
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ies"
    return verb + ("es" if verb.endswith(("s", "sh", "ch", "x", "z", "o")) else "s")


def make_personas(domain: Domain, seed: int = 0, count: int | None = None) -> list[Persona]:
    """Generates the personas of a built-in world.

    Args:
        domain: Which world.
        seed: Seed of everything.
        count: How many; the domain's own number if not given.
    """
    rng = np.random.Generator(np.random.PCG64([seed, 1]))
    themes = read_themes(domain.file)
    popularity = rng.normal(0.0, 0.35, len(themes))
    people: list[Persona] = []
    texts: set[str] = set()
    while len(people) < (domain.users if count is None else count):
        person = _persona(domain, themes, popularity, rng, len(people))
        if person.text not in texts:
            texts.add(person.text)
            people.append(person)
    return [_with_looks(person, seed, number) for number, person in enumerate(people)] if domain.covers else people


def _with_looks(person: Persona, seed: int, number: int) -> Persona:
    """The same persona with one or two looks that it likes and one or two that it does not, of different attributes."""
    rng = np.random.Generator(np.random.PCG64([seed, 13, number]))
    voice = Voice(person.person, person.name)
    frames = TemplateWriter((read_words("people.txt"),), rng)
    attributes = [list(ATTRIBUTES)[int(i)] for i in rng.permutation(len(ATTRIBUTES))]
    liked, disliked = (int(rng.choice([1, 2])) for _ in range(2))
    made = []
    for place, attribute in enumerate(attributes[: liked + disliked]):
        likes, first = place < liked, place in (0, liked)
        value = str(rng.choice(ATTRIBUTES[attribute]))
        thing = str(rng.choice(PHRASES[attribute, value]))
        sentence = voice.speak(frames.phrase("look_like" if likes else "look_dislike")).replace("{o}", thing)
        valence = (1 if likes else -1) * (FIRM if first else MILD)
        made.append(Statement(thing, sentence, valence, attribute, value))
    more = polish(" ".join(f"{statement.sentence}." for statement in made))
    return dataclasses.replace(person, text=f"{person.text} {more}", visual_statements=tuple(made))


def _persona(
    domain: Domain, themes: Sequence[Theme], popularity: NDArray[np.float64], rng: np.random.Generator, number: int
) -> Persona:
    gender, band, region = (_drawn(rng, table) for table in (tables.GENDERS, tables.AGE_BANDS, tables.REGIONS))
    name = str(rng.choice(tables.NAMES[region][gender]))
    low, high = tables.AGES[band]
    age = int(rng.integers(low, high + 1))
    words = read_words("people.txt")
    job = str(rng.choice(words["job_young" if band == "18-24" and rng.random() < 0.7 else "job"]))
    place = str(rng.choice(tables.PLACES[region]))
    voice = Voice("first" if rng.random() < 0.6 else gender, name)
    liked, disliked = _tastes(themes, popularity, (gender, band, region), rng)
    statements = _statements(liked, disliked, voice, rng)
    facts = {"age": (str(age),), "job": (job,), "place": (place,)}
    text = _paragraph(domain, statements, voice, facts, age >= 66, rng)
    return Persona(
        user_id=f"{domain.name}-user-{number:04d}",
        text=text,
        statements=tuple(statements),
        gender=gender,
        age_band=band,
        region=region,
        name=name,
        age=age,
        job=job,
        place=place,
        liked=tuple(theme.name for theme in liked),
        disliked=tuple(theme.name for theme in disliked),
        person=voice.person,
    )


def _drawn(rng: np.random.Generator, table: dict[str, float]) -> str:
    return str(rng.choice(list(table), p=list(table.values())))


def _tastes(
    themes: Sequence[Theme],
    popularity: NDArray[np.float64],
    groups: tuple[str, ...],
    rng: np.random.Generator,
) -> tuple[list[Theme], list[Theme]]:
    """Two to four themes liked, one to three disliked; seldom two of one family on opposite sides."""
    leaning = popularity.copy()
    for group in groups:
        favoured = tables.LEANINGS.get(group, "").split(", ")
        leaning += tables.LEANING * np.array([theme.name in favoured for theme in themes])
    wanted = np.exp(leaning)
    number = int(rng.choice([2, 3, 4], p=[0.5, 0.4, 0.1]))
    liked = rng.choice(len(themes), number, replace=False, p=wanted / wanted.sum())
    families = {themes[int(i)].group for i in liked}
    unwanted = np.exp(-leaning) * np.array([_SPLIT_FAMILY if theme.group in families else 1.0 for theme in themes])
    unwanted[liked] = 0.0
    number = int(rng.choice([1, 2, 3], p=[0.5, 0.4, 0.1]))
    disliked = rng.choice(len(themes), number, replace=False, p=unwanted / unwanted.sum())
    return [themes[int(i)] for i in liked], [themes[int(i)] for i in disliked]


def _statements(
    liked: Sequence[Theme], disliked: Sequence[Theme], voice: Voice, rng: np.random.Generator
) -> list[Statement]:
    frames = TemplateWriter((read_words("people.txt"),), rng)
    made: list[Statement] = []
    for theme, likes in [(t, True) for t in liked] + [(t, False) for t in disliked]:
        facets = rng.permutation(len(theme.facets))[: 2 if rng.random() < 0.3 else 1]
        firm = True if likes and theme is liked[0] else bool(rng.random() < 0.7)
        for position, facet in enumerate(theme.facets[int(i)] for i in facets):
            kind = ("like" if likes else "dislike") + ("" if firm and position == 0 else "_mild")
            thing = facet.objects[int(rng.integers(len(facet.objects)))]
            sentence = voice.speak(frames.phrase(kind)).replace("{o}", thing)
            valence = (1 if likes else -1) * (FIRM if kind in ("like", "dislike") else MILD)
            made.append(Statement(thing, sentence, valence, theme.name, facet.name))
    return made


def _paragraph(
    domain: Domain,
    statements: Sequence[Statement],
    voice: Voice,
    facts: Words,
    retired: bool,
    rng: np.random.Generator,
) -> str:
    words = read_words("people.txt")
    writer = TemplateWriter((facts, words), rng)
    intro = writer.expand(voice.speak(writer.phrase("intro_old" if retired else "intro"), named=True))
    kinds = ["life", f"also_{domain.name}"]
    asides = [writer.expand(voice.speak(writer.phrase(kind))) for kind in kinds if rng.random() < 0.7]
    likes = _joined([s.sentence for s in statements if s.valence > 0], "and", rng)
    dislikes = _joined([s.sentence for s in statements if s.valence < 0], "and", rng)
    if rng.random() < 0.35 and likes and dislikes:  # the last like and the first dislike in one sentence
        contrast = f"{likes.pop()}, [but|though|while|yet] {dislikes.pop(0)}"
        likes.append(writer.expand(contrast))
    blocks = [[intro], likes, dislikes]
    if voice.person == "first" and rng.random() < 0.3:
        blocks = [likes, [intro], dislikes]
    elif rng.random() < 0.2:
        blocks = [[intro], dislikes, likes]
    sentences = [sentence for block in blocks for sentence in block]
    for aside in asides:
        sentences.insert(int(rng.integers(1, len(sentences) + 1)), aside)
    return polish(" ".join(f"{sentence}." for sentence in sentences))


def _joined(clauses: list[str], word: str, rng: np.random.Generator) -> list[str]:
    """Some neighbours become one sentence."""
    sentences: list[str] = []
    for clause in clauses:
        if sentences and rng.random() < 0.3 and f", {word} " not in sentences[-1]:
            sentences[-1] = f"{sentences[-1]}, {word} {clause}"
        else:
            sentences.append(clause)
    return sentences
