"""Pairs of a world's users and items, for a judge to rate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recsim_llm.errors import ConfigError
from recsim_llm.judges.base import Pair
from recsim_llm.worlds.world import World

Index = NDArray[np.int64]


def item_text(world: World, item: int) -> str:
    """What a judge reads about an item: its title and its description."""
    title, text = world.catalog.title[item], world.catalog.text[item]
    return text if not title or text.startswith(title) else f"{title}. {text}"


def pairs_of(world: World, users: Sequence[int] | Index, items: Sequence[int] | Index) -> list[Pair]:
    """Pairs of users and items.

    Args:
        world: The world.
        users: [N] positions in the population.
        items: [N] positions in the catalogue.
    """
    persona = world.population.persona
    return [Pair(persona[user], item_text(world, item)) for user, item in zip(users, items, strict=True)]


def sample_pairs(
    world: World, count: int, *, seed: int = 0, per_user: int = 10, users: str = "train"
) -> tuple[Index, Index]:
    """Draws different pairs of a user and an item, evenly over users and over items.

    Args:
        world: The world.
        count: N, the number of pairs.
        seed: Another seed gives other pairs.
        per_user: Items for each user drawn; a judge with a model shares its work on a persona between them. More than
            this where the users are too few for ``count``.
        users: Split of the users: "train", "test" or "all".

    Returns:
        Positions [N] of users and of items, a user's pairs together.

    Raises:
        ConfigError: If there are not so many pairs.
    """
    pool, items = world.population.split(users), len(world.catalog)
    most = len(pool) * items
    if not 1 <= count <= most:
        raise ConfigError(f"{count:,} pairs of {users} users and items: the world {world.name!r} has 1 to {most:,}")
    if per_user < 1:
        raise ConfigError(f"{per_user} items for each user: take at least 1")
    rng = np.random.Generator(np.random.PCG64(seed))
    each = min(max(per_user, -(-count // len(pool))), items)
    chosen = rng.permutation(pool)[: -(-count // each)]
    shown = np.concatenate([rng.choice(items, each, replace=False) for _ in chosen])
    return np.repeat(chosen, each)[:count].astype(np.int64), shown[:count].astype(np.int64)
