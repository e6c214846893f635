"""Worlds: items, users and their latent preferences; loading the built-in ones, and building your own.

    from recsim_llm.worlds import build_world, load_world

    world = load_world("music")
    own = build_world("items.csv", "users.csv", out="my_world")

Names are imported on first use, so that importing one module of this package does not import them all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from recsim_llm.lazy import lazy_exports

if TYPE_CHECKING:
    from recsim_llm.worlds.build import build_world
    from recsim_llm.worlds.catalog import Catalog
    from recsim_llm.worlds.embedding_space import EmbeddingSpace, WorldEncoder
    from recsim_llm.worlds.population import Population
    from recsim_llm.worlds.preference_model import PreferenceModel
    from recsim_llm.worlds.world import World, built_in_worlds, load_world

__all__ = [
    "Catalog",
    "EmbeddingSpace",
    "Population",
    "PreferenceModel",
    "World",
    "WorldEncoder",
    "build_world",
    "built_in_worlds",
    "load_world",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "build": ("build_world",),
        "catalog": ("Catalog",),
        "embedding_space": ("EmbeddingSpace", "WorldEncoder"),
        "population": ("Population",),
        "preference_model": ("PreferenceModel",),
        "world": ("World", "built_in_worlds", "load_world"),
    },
)
