"""Generates items and personas for a world with a language model, and checks each draft.

    writer = Writer(world, load_author("smollm2"), seed=7)
    written = writer.items(20)
    larger = written.added_to(world)

Prompts show entries of the world itself. What comes back is checked (:mod:`recsim_llm.synthesis.authoring.checks`),
counted by reason where it is refused, and put in with where it came from. The same seed, model and world give the same
entries on one thread.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recsim_llm.encoders import Encoder, split_personas
from recsim_llm.errors import ConfigError, unknown
from recsim_llm.synthesis.authoring.checks import Language, NoveltyCheck, TextLimits, repeats, text_fault
from recsim_llm.synthesis.authoring.models import Author
from recsim_llm.synthesis.authoring.requests import SCHEME, Draft, Request
from recsim_llm.synthesis.authoring.world_extension import add_items, add_users
from recsim_llm.worlds.catalog import UNRELEASED, Floats
from recsim_llm.worlds.embedding_space import WorldEncoder
from recsim_llm.worlds.world import World

logger = logging.getLogger(__name__)

ITEMS, PERSONAS = "items", "personas"
EXAMPLES = 3
"""Entries of the world that a prompt shows."""
BATCH = 8
"""Drafts that are written side by side at most."""
TRIES = 12
"""Drafts for each entry that is wanted, at most."""
TOKENS = {"title": 28, "text": 72, "person": 80, "price": 8}
"""Longest fields [tokens]."""
POOL = 200
FROM_RUN = ("model", "digest", "scheme", "seed", "world")
"""What the provenance of a row says of its run."""


@dataclass(frozen=True, eq=False)
class WrittenEntry:
    """One accepted entry and its provenance.

    Attributes:
        fields: Its texts.
        vector: [D] its encoding, of an item or of a profile.
        statements: What a persona says, with valences; empty for items.
        batch: Number of the batch that it was written in; with the seed it names the random stream.
        attempt: Number of the draft among all of the run.
    """

    fields: Mapping[str, str]
    vector: Floats
    statements: tuple[tuple[str, float], ...] = ()
    batch: int = 0
    attempt: int = 0


@dataclass(frozen=True, eq=False)
class WrittenEntries:
    """The accepted entries of one run, and counts of what was refused.

    Attributes:
        kind: "items" or "personas".
        rows: What was accepted.
        rejected: How many drafts were refused, by reason.
        attempts: Drafts in all.
        about: Model, digest, prompt scheme, seed, hash of the world.
    """

    kind: str
    rows: tuple[WrittenEntry, ...]
    rejected: Mapping[str, int]
    attempts: int
    about: Mapping[str, Any]

    def ids(self) -> list[str]:
        """Identifiers of the entries, made from their texts."""
        word = "item" if self.kind == ITEMS else "user"
        return [f"written-{word}-{_digest(row.fields)[:12]}" for row in self.rows]

    def added_to(self, world: World, released_at: float = UNRELEASED) -> World:
        """Returns the world with these entries behind its own.

        Args:
            world: The world that they were written for.
            released_at: [day] when items go on the shelf; by default not before ``release`` of a running environment.
        """
        seed, names = int(self.about["seed"]), self.ids()
        vectors = (
            np.stack([row.vector for row in self.rows]) if self.rows else np.zeros((0, world.catalog.width), np.float32)
        )
        if self.kind == ITEMS:
            entries = [row.fields for row in self.rows]
            return add_items(world, entries, vectors, item_id=names, seed=seed, released_at=released_at)
        texts, said = [row.fields["person"] for row in self.rows], [row.statements for row in self.rows]
        return add_users(world, texts, said, vectors, user_id=names, seed=seed)

    def provenance(self) -> list[dict[str, Any]]:
        """Provenance of each entry; without times, so that the same run gives the same rows."""
        return [
            {
                "id": name, "kind": self.kind, **{key: self.about[key] for key in FROM_RUN}, "batch": row.batch,
                "attempt": row.attempt, "sha256": _digest(row.fields),
            }
            for name, row in zip(self.ids(), self.rows, strict=True)
        ]  # fmt: skip


def _digest(fields: Mapping[str, str]) -> str:
    text = "\n".join(f"{name}\t{value}" for name, value in sorted(fields.items()))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class Writer:
    """Generates items and personas for a world until enough drafts are accepted.

    Args:
        world: The world, with some entries of the kind that is wanted.
        author: The model, see :func:`recsim_llm.synthesis.authoring.models.load_author`.
        encoder: The world's text encoder; loaded if not given.
        seed: Seed of examples, subjects and words.
        limits: Bounds of what is accepted.
        say: Is told how far the work is.
    """

    def __init__(
        self,
        world: World,
        author: Author,
        *,
        encoder: Encoder | None = None,
        seed: int = 0,
        limits: TextLimits | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.world, self.author, self.seed = world, author, int(seed)
        self.limits = limits or TextLimits()
        self.encoder = WorldEncoder.of(world, encoder)
        self._say = say or (lambda text: logger.info("%s", text))

    def items(self, count: int, categories: Sequence[str] = ()) -> WrittenEntries:
        """Generates items.

        Args:
            count: How many are wanted.
            categories: Their categories; all of the world's in turn if none are named.

        Returns:
            ``count`` of them, or fewer if after ``TRIES`` drafts for each no more were accepted.

        Raises:
            ConfigError: If the count or a category is not valid.
        """
        catalog = self.world.catalog
        for name in categories:
            if name not in catalog.topics:
                raise unknown("category of this world", name, catalog.topics)
        known = NoveltyCheck(self.limits)
        for title, text in zip(catalog.title, catalog.text, strict=True):
            known.add((title, text))
        known.add((), catalog.embedding)
        language = Language.of([f"{title}. {text}" for title, text in zip(catalog.title, catalog.text, strict=True)])
        rng = np.random.Generator(np.random.PCG64([self.seed, 31]))
        names = list(categories) or catalog.topics
        subjects = (names[int(place)] for _ in iter(int, 1) for place in rng.permutation(len(names)))

        def accepted(request: Request, draft: Draft) -> WrittenEntry | str:
            return self._item(request, draft, language, known)

        return self._run(ITEMS, count, (self._item_request(name, rng) for name in subjects), accepted)

    def personas(self, count: int) -> WrittenEntries:
        """Generates personas: a text, and the statements that the stance splitter finds in it.

        Raises:
            ConfigError: If the count is not valid or the world has no personas to learn from.
        """
        people = self.world.population
        rows = [row for row, text in enumerate(people.persona) if text.strip()]
        if not rows:
            raise ConfigError(f"the world {self.world.name!r} has no personas; a writer needs some as examples")
        known = NoveltyCheck(self.limits)
        for row in rows:
            known.add((people.persona[row],))
        known.add((), people.profile)
        language = Language.of([people.persona[row] for row in rows])
        rng = np.random.Generator(np.random.PCG64([self.seed, 32]))

        def accepted(request: Request, draft: Draft) -> WrittenEntry | str:
            return self._persona(draft, language, known)

        return self._run(PERSONAS, count, (self._persona_request(rows, rng) for _ in iter(int, 1)), accepted)

    def _run(
        self,
        kind: str,
        count: int,
        requests: Iterator[Request],
        accepted: Callable[[Request, Draft], WrittenEntry | str],
    ) -> WrittenEntries:
        """Batches of drafts until enough are accepted."""
        if count < 1:
            raise ConfigError(f"count={count}: at least one of the {kind} has to be wanted")
        rows: list[WrittenEntry] = []
        rejected: Counter[str] = Counter()
        attempts, batch = 0, 0
        while len(rows) < count and attempts < TRIES * count:
            wanted = [next(requests) for _ in range(min(BATCH, 2 * (count - len(rows)), TRIES * count - attempts))]
            stream = np.random.SeedSequence([self.seed, 0 if kind == ITEMS else 1, batch])
            drafts = self.author.write(wanted, int(stream.generate_state(1, np.uint64)[0] >> np.uint64(1)))
            for request, draft in zip(wanted, drafts, strict=True):
                if len(rows) == count:
                    break
                found = draft.reason or accepted(request, draft)
                if isinstance(found, str):
                    rejected[found] += 1
                else:
                    rows.append(dataclasses.replace(found, batch=batch, attempt=attempts))
                attempts += 1
            batch += 1
            self._say(f"{len(rows)} of {count} {kind} written, {rejected.total()} of {attempts} drafts refused")
        about = {
            "model": self.author.name, "digest": self.author.digest, "scheme": SCHEME, "seed": self.seed,
            "world": self.world.hash, "limits": dataclasses.asdict(self.limits),
        }  # fmt: skip
        return WrittenEntries(kind, tuple(rows), dict(sorted(rejected.items())), attempts, about)

    def _item_request(self, category: str, rng: np.random.Generator) -> Request:
        catalog = self.world.catalog
        priced = float(np.median(catalog.price)) > 0
        rows = np.flatnonzero(catalog.topic == catalog.topics.index(category))
        shown = rng.permutation(rows)[:EXAMPLES].tolist()
        price = {row: {"price": f"{catalog.price[row]:.2f}"} if priced else {} for row in shown}
        examples = tuple(
            {"category": category, "title": catalog.title[row], **price[row], "text": catalog.text[row]}
            for row in shown
        )
        wanted = ("title", "price", "text") if priced else ("title", "text")
        pool = {
            "title": [catalog.title[row] for row in rows[:POOL]],
            "text": [catalog.text[row] for row in rows[:POOL]],
            "price": [f"{catalog.price[row]:.2f}" for row in rows[:POOL]],
        }
        return Request(examples, {"category": category}, wanted, TOKENS, pool)

    def _persona_request(self, rows: Sequence[int], rng: np.random.Generator) -> Request:
        people = self.world.population
        one, other, *shown = (rows[int(place)] for place in rng.integers(len(rows), size=EXAMPLES + 2))
        examples = tuple({**_tastes(people.statements[row]), "person": people.persona[row]} for row in shown)
        likes, dislikes = _tastes(people.statements[one]), _tastes(people.statements[other])  # of two: a new person
        fixed = {k: v for k, v in (("likes", likes.get("likes")), ("dislikes", dislikes.get("dislikes"))) if v}
        pool = {"person": [people.persona[row] for row in rows[:POOL]]}
        return Request(examples, fixed, ("person",), TOKENS, pool)

    def _item(self, request: Request, draft: Draft, language: Language, known: NoveltyCheck) -> WrittenEntry | str:
        """A draft as a row, or why it is refused."""
        fields = {**request.fixed, **{name: draft.fields[name].strip() for name in request.wanted}}
        for name, bounds in (("title", self.limits.title), ("text", self.limits.text)):
            fault = text_fault(fields[name], bounds)
            if fault:
                return f"{name}: {fault}"
        if not language.holds(f"{fields['title']}. {fields['text']}"):
            return "language"
        if repeats(fields["text"], self.limits.variety) or repeats(fields["title"], self.limits.variety):
            return "repeats itself"
        if "price" in request.wanted and not self._possible_price(fields):
            return "price"
        vector = self.encoder.items([fields["category"]], [fields["text"]])[0]
        alike = known.alike((fields["title"], fields["text"]), vector)
        if alike:
            return alike
        known.add((fields["title"], fields["text"]), vector)
        return WrittenEntry(fields, vector)

    def _possible_price(self, fields: dict[str, str]) -> bool:
        """Whether the price is a number, between half the least and twice the largest of the category."""
        catalog = self.world.catalog
        own = catalog.price[catalog.topic == catalog.topics.index(fields["category"])]
        try:
            price = float(fields["price"].lstrip("$€£ "))
        except ValueError:
            return False
        fields["price"] = f"{price:.2f}"
        return bool(0.5 * own.min() <= price <= 2.0 * own.max())  # false for what is no number

    def _persona(self, draft: Draft, language: Language, known: NoveltyCheck) -> WrittenEntry | str:
        text = draft.fields["person"].strip()
        fault = text_fault(text, self.limits.persona)
        if fault:
            return f"person: {fault}"
        if not language.holds(text):
            return "language"
        if repeats(text, self.limits.variety):
            return "repeats itself"
        said = tuple(split_personas([text], self.encoder.encoder)[0])
        if max((abs(valence) for _, valence in said), default=0.0) < self.limits.valence:
            return "says nothing of taste"
        vector = self.encoder.profiles([said])[0]
        alike = known.alike((text,), vector)
        if alike:
            return alike
        known.add((text,), vector)
        return WrittenEntry({"person": text}, vector, said)


def _tastes(statements: Sequence[tuple[str, float]]) -> dict[str, str]:
    """What is liked and what is not, as two lines."""
    likes = "; ".join(text for text, valence in statements if valence > 0)
    dislikes = "; ".join(text for text, valence in statements if valence < 0)
    return {name: text for name, text in (("likes", likes), ("dislikes", dislikes)) if text}
