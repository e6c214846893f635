"""Speed of agents that act and learn: user-steps per second, the environment included, on one thread.

Written to stored/speed_agents.json by

    recsim-llm speed --agents --json > benchmarks/stored/speed_agents.json
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym

import recsim_llm
from recsim_llm import agents
from recsim_llm.benchmarks.harness.cell import unavailable
from recsim_llm.benchmarks.speed.steps import random_world
from recsim_llm.errors import RefusedError
from recsim_llm.worlds.world import World, load_world

ITEMS, LANES, TURNS, STEPS = 1_000, 1_024, 3, 20
PATIENCE = 2.0  # [s]
SLATES = (1, 5)
TEXTS = "news"
"""Built-in world that lends its texts."""


def measure_agents(names: Sequence[str] = (), *, lanes: int = LANES, items: int = ITEMS) -> dict[str, Any]:
    """Measures agents on random encodings, 64 wide, with the rules of News and, for agents that read, its texts.

    A turn is one call of ``learn`` over 20 steps of every lane, so that what an agent does at the end of learning, such
    as a fit to all it has seen, is in it. The best of three turns counts, of fewer where they take long: noise of other
    programs only slows.

    Args:
        names: Agents; all if empty. Those whose libraries are missing are left out.
        lanes: Lanes B.
        items: Size of the catalogue.

    Returns:
        "tables" with a row for each agent, and a "note" that says how to read them.
    """
    assert recsim_llm.__version__
    wanted = list(names or agents.names())
    left_out = unavailable(wanted)
    rows = []
    with tempfile.TemporaryDirectory() as folder, one_thread():
        world = str(readable_world(items).save(Path(folder) / "world"))
        for name in (name for name in wanted if name not in left_out):
            rates = {f"slate {slate_size}": _rate(name, world, slate_size, lanes) for slate_size in SLATES}
            rows.append({"agent": name, **rates})
    note = (
        f"user-steps/s of acting and learning, environment included, {lanes:,} lanes, {items:,} items, one thread; "
        "0 where an agent cannot work"
    )
    return {"tables": {"agents": rows}, "note": note}


def readable_world(items: int) -> World:
    """A random world whose items have texts as long as real ones, those of News from the first on."""
    world, texts = random_world(items), load_world(TEXTS).catalog.text
    named = [texts[item % len(texts)] for item in range(items)]
    return replace(world, catalog=replace(world.catalog, text=named))


def _rate(name: str, world: str, slate_size: int, lanes: int) -> float:
    truth = agents.get(name).needs_truth
    env = gym.make_vec(
        "recsim_llm/News-v0", num_envs=lanes, threads=1, copy=False, world=world, slate_size=slate_size, truth=truth
    )
    try:
        agent = agents.make(name, env, seed=0)
    except RefusedError:
        return 0.0
    agent.learn(lanes * STEPS)  # compiles
    best, spent = 0.0, 0.0
    for _ in range(TURNS):
        before, started = agent.num_timesteps, time.perf_counter()
        agent.learn(lanes * STEPS)
        passed = time.perf_counter() - started
        best, spent = max(best, (agent.num_timesteps - before) / passed), spent + passed
        if spent > PATIENCE:
            break
    env.close()
    return float(f"{best:.3g}")


@contextmanager
def one_thread() -> Iterator[None]:
    """Linear algebra on one thread."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:  # comes with scikit-learn
        yield
        return
    with threadpool_limits(1):
        yield
