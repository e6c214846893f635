"""Adds generated items and users to a world, with latent columns drawn from the distribution of its own.

Positions of items and users, providers and themes stay as they are, and no latent number goes beyond the world's
largest. So agents, logs and snapshots of the old world still name the same things in the new one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.errors import ConfigError
from recsim_llm.worlds.catalog import UNRELEASED, Catalog, Floats
from recsim_llm.worlds.world import World

RIDGE = 1e-3
"""Penalty of the fits of appeal and taste, in units of the mean variance of the encodings."""

Floats64 = NDArray[np.float64]


def add_items(
    world: World,
    entries: Sequence[Mapping[str, str]],
    embedding: Floats,
    *,
    item_id: Sequence[str],
    seed: int = 0,
    released_at: float = UNRELEASED,
) -> World:
    """Returns a world with more items behind its own.

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


def add_users(
    world: World,
    personas: Sequence[str],
    statements: Sequence[Sequence[tuple[str, float]]],
    profile: Floats,
    *,
    user_id: Sequence[str],
    seed: int = 0,
) -> World:
    """Returns a world with more users behind its own.

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
    foretold, spread = _foretold(
        people.profile, people.taste, profile, alone=world.preference_model.kind == "zero_shot"
    )
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
        alone: Fit one factor for all columns, as a zero-shot model has (A = alpha I), instead of a ridge regression.

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
