"""Tiny worlds whose optimum can be computed: nothing happens by itself, every term is set by the test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike, NDArray

import recsim_llm  # noqa: F401  (registers the environments)
from recsim_llm.worlds.catalog import FACTORS, Catalog
from recsim_llm.worlds.population import Population
from recsim_llm.worlds.preference_model import PreferenceModel
from recsim_llm.worlds.world import World

STILL: dict[str, Any] = {
    "no_click": 0.0, "position_bias": 0.0, "clickbait_pull": 0.0, "clickbait_regret": 0.0, "quality_gain": 1.0,
    "freshness": 0.0, "shelf_life": 0.0, "satiation": 0.0, "repeat": 0.0, "price_weight": 0.0, "drift": 0.0,
    "diffusion": 0.0, "interest_rate": 1.0, "leave": -60.0, "leave_mood": 0.0, "churn": -60.0, "churn_mood": 0.0,
    "session_time": 1e12, "session_spread": 0.0, "dwell_spread": 0.0,
}  # fmt: skip
"""Rules under which users never change, tire or leave, and interest is the encoding of the last consumed item."""


def tiny_world(
    embedding: ArrayLike,
    appeal: ArrayLike,
    *,
    taste: ArrayLike | None = None,
    profile: ArrayLike | None = None,
    quality: float = 0.0,
) -> World:
    """Items [I, D] with their appeal [I] [logit]; users [U, D] with taste [logit] and profile.

    Without noise and other terms the utility of an item is appeal + taste . embedding.
    """
    items = np.asarray(embedding, np.float32)
    likes = np.zeros((1, items.shape[1])) if taste is None else np.asarray(taste)
    said = np.zeros_like(likes) if profile is None else np.asarray(profile)
    count, users = len(items), len(likes)
    names = [f"item {n}" for n in range(count)]
    catalog = Catalog(
        item_id=names, title=names, text=names, category=names, provider=names, embedding=items,
        price=np.zeros(count, np.float32), released_at=np.full(count, -1.0, np.float32),
        appeal=np.asarray(appeal, np.float32), factors=np.zeros((count, FACTORS), np.float32),
        quality=np.full(count, quality, np.float32), clickbait=np.zeros(count, np.float32),
    )  # fmt: skip
    population = Population(
        user_id=[f"user {n}" for n in range(users)], persona=[""] * users, profile=said.astype(np.float32),
        taste=likes.astype(np.float32), factors=np.zeros((users, FACTORS), np.float32),
        bias=np.zeros(users, np.float32), price_sensitivity=np.zeros(users, np.float32),
    )  # fmt: skip
    return World("tiny", catalog, population, PreferenceModel(mu=0.0, noise=0.0))


def tiny_env(
    world: World, folder: Path, *, lanes: int = 32, rules: dict[str, Any] | None = None, **arguments: Any
) -> gym.vector.VectorEnv[Any, Any, Any]:
    """The music environment on a tiny world, still but for ``rules``."""
    place = folder / "world"
    if not place.exists():
        world.save(place)
    return gym.make_vec(
        "recsim_llm/Music-v0", num_envs=lanes, world=str(place), rules={**STILL, **(rules or {})}, **arguments
    )


def sigmoid(x: ArrayLike) -> NDArray[np.float64]:
    """1 / (1 + exp(-x))."""
    return 1.0 / (1.0 + np.exp(-np.asarray(x, np.float64)))
