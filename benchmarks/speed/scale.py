"""Scaling of the simulator: memory and time of one step from a thousand to a million items and users.

Each size has a process of its own, so that its peak of memory is its own too. Worlds are random: made block by block,
with latent preferences scaled from the first block, as nothing here depends on their exact variances.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.benchmarks.speed.steps import ALL_RULES, SLATE, TOPICS, WIDTH
from recsim_llm.envs.news import NEWS
from recsim_llm.simulator.simulator import Simulator
from recsim_llm.worlds.catalog import FACTORS, Catalog
from recsim_llm.worlds.population import Population
from recsim_llm.worlds.preference_model import PreferenceModel
from recsim_llm.worlds.world import World

SIZES = (1_000, 10_000, 100_000, 1_000_000)
LANES, STEPS = 1024, 1000
BLOCK = 1 << 14
ACTIONS = 8
MEGABYTE = 1e6


def large_world(items: int, users: int, *, width: int = WIDTH, seed: int = 0) -> World:
    """A random world whose making takes little more memory than the world itself.

    Args:
        items: I.
        users: U.
        width: D.
        seed: Seed of everything in it.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    centres = rng.standard_normal((TOPICS, width), np.float32)
    topic = np.arange(items) % TOPICS

    def texts(some: NDArray[np.int64]) -> NDArray[Any]:
        return (centres[topic[some]] + np.float32(0.7) * rng.standard_normal((len(some), width), np.float32)) / 8

    def likes(some: NDArray[np.int64]) -> NDArray[Any]:
        liked: NDArray[Any] = centres[rng.integers(TOPICS, size=(len(some), 3))].sum(1)
        return liked / 16

    names = [f"item {number}" for number in range(items)]
    people = [f"user {number}" for number in range(users)]
    topics = [f"topic {number}" for number in range(TOPICS)]
    embedding, profile = _blocks(items, width, texts), _blocks(users, width, likes)
    spread = float((profile[:BLOCK] @ embedding[:BLOCK].T[:, :512]).std())
    taste = _given(profile * np.float32(1.2 / spread))
    catalog = Catalog(
        item_id=names, title=names, text=names, category=[topics[t] for t in topic], provider=["provider"] * items,
        embedding=embedding, price=_given(rng.random(items, np.float32) * 19 + 1),
        released_at=_given(rng.random(items, np.float32) * 90), clickbait=_given(rng.random(items, np.float32)),
        factors=_given(rng.standard_normal((items, FACTORS), np.float32) / 2),
        appeal=_given(rng.standard_normal(items, np.float32)), quality=_given(rng.standard_normal(items, np.float32)),
    )  # fmt: skip
    population = Population(
        user_id=people, persona=[""] * users, profile=profile, taste=taste,
        factors=_given(rng.standard_normal((users, FACTORS), np.float32) / 2),
        bias=_given(rng.standard_normal(users, np.float32) / 2),
        price_sensitivity=_given(rng.random(users, np.float32) / 10),
    )  # fmt: skip
    return World(f"random-{items}-{users}", catalog, population, PreferenceModel(mu=-1.0, noise=1.0))


def _blocks(count: int, width: int, make: Callable[[NDArray[np.int64]], NDArray[Any]]) -> NDArray[np.float32]:
    out = np.empty((count, width), np.float32)
    for first in range(0, count, BLOCK):
        out[first : first + BLOCK] = make(np.arange(first, min(first + BLOCK, count)))
    return _given(np.clip(out, -1, 1, out=out))


def _given(array: NDArray[Any]) -> NDArray[np.float32]:
    """Hands a float32 array over for good: read-only ones are not copied."""
    array.flags.writeable = False
    return array


def run(items: int, users: int, *, lanes: int = LANES, steps: int = STEPS) -> dict[str, Any]:
    """Builds a world and takes steps in it, on one thread.

    Returns:
        Sizes; "peak [MB]" of this process; "tables [MB]", the integers that the rules read; the rest of the peak,
        "beyond [MB]"; seconds for the world, its tables and a reset of all lanes; and time of one user's step [ns].
    """
    import resource  # not on every system

    times = [time.perf_counter()]
    world = large_world(items, users)
    times.append(time.perf_counter())
    rules = NEWS.rules.replace(**ALL_RULES)
    simulator = Simulator(world, rules, lanes=lanes, slate_size=SLATE, threads=1)
    simulator.seed(np.arange(lanes, dtype=np.uint64))
    times.append(time.perf_counter())
    simulator.reset(np.ones(lanes, np.bool_))
    times.append(time.perf_counter())
    rng = np.random.Generator(np.random.PCG64(0))
    actions = [rng.integers(0, items, (lanes, SLATE)) for _ in range(ACTIONS)]
    blocks: list[float] = []
    for first in range(0, steps, ACTIONS):
        started = time.perf_counter()
        for action in actions[: steps - first]:
            simulator.step(action)
        blocks.append((time.perf_counter() - started) / min(ACTIONS, steps - first))
        if (left := simulator.outcome.terminated.copy()).any():
            simulator.reset(left)
    tables = simulator.tables
    held = tables.item_code.nbytes + tables.user_code.nbytes + tables.profile_code.nbytes
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        "items": items,
        "users": users,
        "peak [MB]": round(peak / MEGABYTE),
        "tables [MB]": round(held / MEGABYTE, 1),
        "beyond [MB]": round((peak - held) / MEGABYTE),
        "world [s]": round(times[1] - times[0], 2),
        "tables and rules [s]": round(times[2] - times[1], 2),
        "reset [ms]": round((times[3] - times[2]) * 1e3, 2),
        "step, median [ns]": round(float(np.median(blocks)) / lanes * 1e9),
        "step, best [ns]": round(min(blocks) / lanes * 1e9),
    }


def measure_scale(sizes: Sequence[int] = SIZES, *, lanes: int = LANES, steps: int = STEPS) -> list[dict[str, Any]]:
    """Rows of :func:`run` for as many items as users, each in a process of its own.

    Raises:
        subprocess.CalledProcessError: If a process ends with an error, such as too little memory.
    """
    rows = []
    for size in sizes:
        command = [sys.executable, "-m", "recsim_llm.benchmarks.speed.scale", *map(str, (size, size, lanes, steps))]
        rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))  # noqa: S603 - this very module
    return rows


if __name__ == "__main__":
    number = [int(word) for word in sys.argv[1:]]
    sys.stdout.write(json.dumps(run(number[0], number[1], lanes=number[2], steps=number[3])))
