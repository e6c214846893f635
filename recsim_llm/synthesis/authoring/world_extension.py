"""Puts written entries into a world: encoded as its own are, with latent numbers drawn from the spread of its own.

Positions of items and users, providers and themes stay as they are, and no latent number goes beyond the world's
largest. So agents, logs and snapshots of the old world still name the same things in the new one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.encoders import Encoder, Projection, encode_cached, load_text_encoder, profile_of
from recsim_llm.encoders.text import may_be_named
from recsim_llm.errors import ConfigError
from recsim_llm.worlds.catalog import UNRELEASED, Catalog, Floats
from recsim_llm.worlds.population import Population
from recsim_llm.worlds.world import World

RIDGE = 1e-3
"""Penalty of the fits of appeal and taste, in units of the mean variance of the encodings."""

SAMPLE = 8
"""Entries of a world that are encoded again to find out in which form and scale it keeps them."""

Floats64 = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, eq=False)
class Space:
    """How a world encodes texts.

    Attributes:
        encoder: Its text encoder.
        projection: Into its space.
        block: First and last column (exclusive) of text in its encodings.
        width: D, of whole encodings.
        named: Whether items are encoded with their category before the text.
        scale: What multiplies signed sums of statements to give profiles.
    """

    encoder: Encoder
    projection: Projection
    block: tuple[int, int]
    width: int
    named: bool
    scale: float

    @classmethod
    def of(cls, world: World, encoder: Encoder | None = None) -> Space:
        """Reads the space of a world.

        Raises:
            ConfigError: If the world does not say how it was encoded, or the encoder is another one.
        """
        if not world.projection or not world.encoder:
            raise ConfigError(f"the world {world.name!r} names no text encoder; new texts cannot be brought into it")
        name = str(world.encoder["id"])
        if encoder is None and not may_be_named(name):
            raise ConfigError(
                f"the world {world.name!r} names the text encoder {name!r}, which is neither the model of a package "
                "nor an id that was loaded on this machine before; if you trust it, pass "
                "encoder=load_text_encoder(...)"
            )
        model = encoder or load_text_encoder(name)
        if model.digest != world.encoder.get("digest", model.digest):
            raise ConfigError(
                f"the world {world.name!r} was encoded by {world.encoder['id']!r} with other weights than those of "
                f"{model.name!r}; encodings would not be comparable"
            )
        arrays = world.projection
        projection = Projection(arrays["mean"], arrays["components"], float(arrays["scale"][0]))
        start, stop = world.catalog.blocks["text"]
        kept = len(projection.components)
        if kept not in (stop - start, world.catalog.width):
            raise ConfigError(
                f"the world's projection is {kept} wide, its block of text {stop - start}; build it again"
            )
        space = cls(model, projection, (start, start + kept), world.catalog.width, False, 1.0)
        space = dataclasses.replace(space, named=space._finds_names(world.catalog))
        return dataclasses.replace(space, scale=space._finds_scale(world.population))

    def items(self, categories: Sequence[str], texts: Sequence[str]) -> Floats:
        """Encodings of items [N, D], columns of pictures zero (the middle of the catalogue)."""
        said = [f"{name}: {text}" if self.named else text for name, text in zip(categories, texts, strict=True)]
        return self._whole(np.clip(self.projection.apply(encode_cached(self.encoder, said)), -1.0, 1.0))

    def profiles(self, people: Sequence[Sequence[tuple[str, float]]]) -> Floats:
        """Profiles of people from their statements [N, D]."""
        rows = [self._raw(statements) for statements in people]
        whole: Floats = np.array(rows, np.float32).reshape(len(rows), self.width)
        return np.asarray(np.clip(self.scale * whole, -1.0, 1.0), np.float32)

    def _raw(self, statements: Sequence[tuple[str, float]]) -> Floats:
        vectors = self.projection.apply(encode_cached(self.encoder, [text for text, _ in statements]))
        row: Floats = self._whole(profile_of(vectors, [valence for _, valence in statements])[None])[0]
        return row

    def _whole(self, part: Floats) -> Floats:
        rows = np.zeros((len(part), self.width), np.float32)
        rows[:, slice(*self.block)] = part
        return rows

    def _finds_names(self, catalog: Catalog) -> bool:
        """Which form of a few items gives the encodings that the world has of them."""
        some = slice(0, SAMPLE)
        own = catalog.embedding[some, slice(*self.block)]
        errors = []
        for named in (False, True):
            form = dataclasses.replace(self, named=named)
            found = form.items(catalog.category[some], catalog.text[some])[:, slice(*self.block)]
            errors.append(float(np.square(found - own).sum()))
        return errors[1] < errors[0]

    def _finds_scale(self, people: Population) -> float:
        """The factor between signed sums of statements and the profiles of the world."""
        rows = [row for row, said in enumerate(people.statements) if said][:SAMPLE]
        raw = np.concatenate(
            [self._raw(people.statements[row])[slice(*self.block)] for row in rows] or [np.zeros(1, np.float32)]
        )
        own = np.concatenate([people.profile[row, slice(*self.block)] for row in rows] or [np.zeros(1, np.float32)])
        length = float(raw.astype(np.float64) @ raw)
        return float(raw.astype(np.float64) @ own) / length if length > 0 else 1.0


def with_items(
    world: World,
    entries: Sequence[Mapping[str, str]],
    embedding: Floats,
    *,
    item_id: Sequence[str],
    seed: int = 0,
    released_at: float = UNRELEASED,
) -> World:
    """A world with more items behind its own.

    Args:
        world: The world.
        entries: Fields "title", "text" and "category" of each, "price" where they have one.
        embedding: [N, D] their encodings.
        item_id: Their names.
        seed: Seed of what is drawn: provider (of an item of the same category), appeal (what the encoding foretells of
            it in this world, and a residual), factors, quality, clickbait, and bids.
        released_at: [day] when they go on the shelf; by default not before ``release`` of a running environment.

    Raises:
        ConfigError: If a category is none of the world's.
    """
    catalog, rng = world.catalog, np.random.Generator(np.random.PCG64([seed, 21]))
    count = len(entries)
    if count == 0:
        return world
    for entry in entries:
        if entry["category"] not in catalog.topics:
            raise ConfigError(f"category {entry['category']!r} is none of the world's: {', '.join(catalog.topics)}")
    peers = [_peer(catalog, entry["category"], rng) for entry in entries]
    foretold, spread = _foretold(catalog.embedding, catalog.appeal, embedding)
    latent: dict[str, Any] = {
        "appeal": foretold + spread * rng.standard_normal(count),
        "factors": catalog.factors.std(0) * rng.standard_normal((count, catalog.factors.shape[1])),
        "quality": catalog.quality.mean() + catalog.quality.std() * rng.standard_normal(count),
        "clickbait": catalog.clickbait[rng.integers(len(catalog), size=count)],
        "bid": catalog.bid[peers],
        "bid_event": catalog.bid_event[peers],
        "price": [float(entry.get("price", catalog.price[peer])) for entry, peer in zip(entries, peers, strict=True)],
        "released_at": np.full(count, released_at),
        "embedding": embedding,
    }
    latent = {name: _within(getattr(catalog, name), values) for name, values in latent.items()} | {
        "released_at": np.full(count, released_at, np.float32)
    }
    arrays: dict[str, Any] = {name: np.concatenate([getattr(catalog, name), values]) for name, values in latent.items()}
    texts: dict[str, Any] = {
        "item_id": [*catalog.item_id, *item_id],
        "title": [*catalog.title, *(entry["title"] for entry in entries)],
        "text": [*catalog.text, *(entry["text"] for entry in entries)],
        "category": [*catalog.category, *(entry["category"] for entry in entries)],
        "provider": [*catalog.provider, *(catalog.provider[peer] for peer in peers)],
        "image": [*catalog.image, *[None] * count],
    }
    return dataclasses.replace(world, catalog=dataclasses.replace(catalog, **texts, **arrays))


def with_personas(
    world: World,
    personas: Sequence[str],
    statements: Sequence[Sequence[tuple[str, float]]],
    profile: Floats,
    *,
    user_id: Sequence[str],
    seed: int = 0,
) -> World:
    """A world with more users behind its own.

    Args:
        world: The world.
        personas: Their texts.
        statements: What they say, with valences.
        profile: [N, D] encodings of that.
        user_id: Their names.
        seed: Seed of what is drawn: the part of taste that no profile foretells, factors, bias, price sensitivity and
            wallet.
    """
    people, rng = world.population, np.random.Generator(np.random.PCG64([seed, 22]))
    count = len(personas)
    if count == 0:
        return world
    foretold, spread = _foretold(people.profile, people.taste, profile, alone=world.head.kind == "zero_shot")
    someone = rng.integers(len(people), size=count)
    latent: dict[str, Any] = {
        "profile": profile,
        "taste": foretold + spread * rng.standard_normal(foretold.shape),
        "factors": people.factors.std(0) * rng.standard_normal((count, people.factors.shape[1])),
        "bias": people.bias.mean() + people.bias.std() * rng.standard_normal(count),
        "price_sensitivity": people.price_sensitivity[someone],
        "wallet": people.wallet[someone],
    }
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(people, name), _within(getattr(people, name), values)])
        for name, values in latent.items()
    }
    unknown = [""] * count
    texts: dict[str, Any] = {
        "user_id": [*people.user_id, *user_id],
        "persona": [*people.persona, *personas],
        "statements": [*people.statements, *([*said] for said in statements)],
        "gender": [*people.gender, *unknown],
        "age_band": [*people.age_band, *unknown],
        "region": [*people.region, *unknown],
    }
    return dataclasses.replace(world, population=dataclasses.replace(people, **texts, **arrays))


def _peer(catalog: Catalog, category: str, rng: np.random.Generator) -> int:
    rows = np.flatnonzero(catalog.topic == catalog.topics.index(category))
    return int(rows[rng.integers(len(rows))])


def _within(own: Floats, values: Any) -> Floats:
    """Values within the world's extremes: its integer tables keep their units, and so its users their tastes."""
    largest = float(np.abs(own).max(initial=0.0))
    return np.clip(np.asarray(values, np.float64), -largest, largest).astype(np.float32)


def _foretold(known: Floats, target: Floats, new: Floats, alone: bool = False) -> tuple[Floats64, Floats64]:
    """What encodings [N, D] foretell of a latent number or vector by the world's own rows, and what they leave open.

    Args:
        known: [M, D] encodings that the world has.
        target: [M] or [M, D] what belongs to them.
        new: [N, D].
        alone: Fit one factor for all columns, as a zero-shot head has (A = alpha I), instead of a ridge regression.

    Returns:
        The forecast [N] or [N, D], and the standard deviation of the residual, of each column.
    """
    x, y = known.astype(np.float64), target.astype(np.float64)
    middle, level = x.mean(0), y.mean(0)
    x, z = x - middle, new.astype(np.float64) - middle
    y = y - level
    if alone:
        size = float(np.square(x).sum())
        factor = float((x * y).sum()) / size if size > 0 else 0.0
        return level + factor * z, (y - factor * x).std(0)
    penalty = RIDGE * max(float(np.square(x).mean()), 1e-12) * len(x)
    weights = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y)
    return level + z @ weights, (y - x @ weights).std(0)
