"""Speed of the simulator: user-steps per second, and as a ratio to what the machine can do at best.

The bare lower bound is a compiled loop that only gathers the slate's encodings and takes their dot products with the
user's taste: no recommender simulator on these encodings can do less. Both are measured in the same run, in turns, so
that the ratio holds on a busy machine too.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

import recsim_llm
from recsim_llm.envs import scenarios
from recsim_llm.simulator.jit import kernel
from recsim_llm.simulator.scoring import dot
from recsim_llm.worlds.catalog import Catalog
from recsim_llm.worlds.population import Population
from recsim_llm.worlds.preference_model import zero_shot_preferences
from recsim_llm.worlds.world import World

WIDTH, SLATE, USERS, TOPICS = 64, 10, 2000, 20
ALL_RULES = {"freshness": 1.0, "shelf_life": 1000.0, "price_weight": 1.0, "start_day": 100.0, "diffusion": 0.05}
ACTIONS = 8  # different random actions, made beforehand
SCALAR_STEPS = 2000


@kernel
def bare_loop(tastes, encodings, slates, out):  # type: ignore[no-untyped-def]
    """Gathers and dot products of B slates, nothing else."""
    for b in range(slates.shape[0]):
        for k in range(slates.shape[1]):
            out[b, k] = dot(tastes[b], encodings[slates[b, k]])


def random_world(items: int, users: int = USERS, width: int = WIDTH, seed: int = 0) -> World:
    """A world of random encodings around topics, for measuring at any size."""
    rng = np.random.Generator(np.random.PCG64(seed))
    topic = np.arange(items) % TOPICS
    centres = rng.standard_normal((TOPICS, width))
    texts = centres[topic] + 0.7 * rng.standard_normal((items, width))
    texts -= texts.mean(0)
    likes = centres[rng.integers(TOPICS, size=(users, 3))].sum(1)
    embedding = (texts / np.abs(texts).max()).astype(np.float32)
    profile = (likes / np.abs(likes).max()).astype(np.float32)
    drawn = zero_shot_preferences(profile, embedding, mu=-1.0, seed=seed)
    names = [f"item {number}" for number in range(items)]
    catalog = Catalog(
        item_id=names, title=names, text=names, category=[f"topic {t}" for t in topic], provider=["provider"] * items,
        embedding=embedding, price=rng.uniform(1, 20, items).astype(np.float32),
        released_at=rng.uniform(0, 90, items).astype(np.float32), appeal=drawn.appeal, factors=drawn.item_factors,
        quality=rng.standard_normal(items).astype(np.float32), clickbait=rng.exponential(0.3, items).astype(np.float32),
    )  # fmt: skip
    people = Population(
        user_id=[f"user {number}" for number in range(users)], persona=[""] * users, profile=profile, taste=drawn.taste,
        factors=drawn.user_factors, bias=drawn.bias, price_sensitivity=rng.uniform(0, 0.1, users).astype(np.float32),
    )  # fmt: skip
    return World(f"random-{items}", catalog, people, drawn.preference_model)


def measure(
    *, lanes: Sequence[int] = (1, 64, 1024, 8192), threads: int | None = None, seconds: float = 0.5
) -> dict[str, Any]:
    """Measures every environment, the scalar step, and the reference worlds of 1,000 and 100,000 items.

    Args:
        lanes: Numbers of lanes B.
        threads: Threads of the simulator; None is the machine's cores. The bare loop has one.
        seconds: Time for each measurement [s].

    Returns:
        "tables" with rows for people and programs, and a "note" that says how to read them.
    """
    assert recsim_llm.__version__
    tables: dict[str, list[dict[str, Any]]] = {"environments": [], "scalar": [], "reference": []}
    for name in scenarios():
        for count in lanes:
            row = _vector(name, count, seconds, threads, {})
            tables["environments"].append({"environment": name, **row})
        tables["scalar"].append({"environment": name, "steps/s": _scalar(name, seconds)})
    with tempfile.TemporaryDirectory() as folder:
        for items in (1_000, 100_000):
            path = str(random_world(items).save(Path(folder) / str(items)))
            for count in lanes:
                options = {"world": path, "slate_size": SLATE, "rules": ALL_RULES}
                row = _vector("recsim_llm/News-v0", count, seconds, threads, options)
                tables["reference"].append({"items": items, **row})
    note = (
        "user-steps/s are one user's reaction to one slate, observation included; bare is the loop of gathers and dot "
        f"products alone, one thread. Reference: {WIDTH}-wide encodings, slate {SLATE}, all rules on."
    )
    return {"tables": tables, "note": note, "threads": threads}


def _vector(name: str, lanes: int, seconds: float, threads: int | None, options: dict[str, Any]) -> dict[str, Any]:
    env = gym.make_vec(name, num_envs=lanes, threads=threads, copy=False, **options)
    core = env.unwrapped.core  # type: ignore[attr-defined]
    items, slate_size = core.items, core.slate_size
    rng = np.random.Generator(np.random.PCG64(0))
    shape = (lanes,) if slate_size == 1 else (lanes, slate_size)
    actions = [rng.integers(0, items, shape) for _ in range(ACTIONS)]
    env.reset(seed=0)
    bare = _bare(core, [action.reshape(lanes, slate_size) for action in actions], rng)
    rates = _in_turns([_alone(name, lanes, threads, options), env.step, bare], actions, lanes, seconds)
    env.close()
    return {
        "lanes": lanes,
        "user-steps/s": rates[0],
        "through step()": rates[1],
        "bare loop/s": rates[2],
        "ratio to bare": round(rates[0] / rates[2], 4),
    }


def _alone(name: str, lanes: int, threads: int | None, options: dict[str, Any]) -> Callable[[Any], Any]:
    """The simulator without its shell, with lanes of its own: one whose user left begins anew, none stands still."""
    env = gym.make_vec(name, num_envs=lanes, threads=threads, copy=False, **options)
    env.reset(seed=0)
    core = env.unwrapped.core  # type: ignore[attr-defined]

    def step(action: Any) -> None:
        left = core.simulator.step(core.actions(action)).terminated
        if left.any():
            core.simulator.reset(left.copy())

    return step


def _bare(core: Any, slates: list[NDArray[np.int64]], rng: np.random.Generator) -> Callable[[Any], Any]:
    width = core.world.catalog.width
    encodings = np.ascontiguousarray(core.simulator.tables.item_code[:, :width])
    chosen = rng.integers(0, len(core.simulator.tables.user_code), core.lanes)
    tastes = np.ascontiguousarray(core.simulator.tables.user_code[chosen][:, :width])
    out = np.zeros((core.lanes, core.slate_size), np.int32)
    return lambda action: bare_loop(tastes, encodings, action.reshape(out.shape), out)


def _in_turns(calls: Sequence[Callable[[Any], Any]], actions: Sequence[Any], lanes: int, seconds: float) -> list[float]:
    """Best rate of each call in turns of a tenth of the time [user-steps/s]: noise of other programs only slows."""
    best = [0.0] * len(calls)
    for call in calls:
        call(actions[0])  # compiles
    for _ in range(10):
        for number, call in enumerate(calls):
            repeats, started = 0, time.perf_counter()
            while (passed := time.perf_counter() - started) < seconds / 10:
                for action in actions:
                    call(action)
                repeats += len(actions)
            best[number] = max(best[number], repeats * lanes / passed)
    return [float(f"{rate:.4g}") for rate in best]


def _scalar(name: str, seconds: float) -> float:
    """Steps per second of ``gym.make(...).step`` with everything that gym.make wraps around it, resets included."""
    env = gym.make(name)
    env.reset(seed=0)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(100)]
    best = 0.0
    for _ in range(max(int(seconds / 0.1), 3)):
        started = time.perf_counter()
        for number in range(SCALAR_STEPS):
            _, _, terminated, truncated, _ = env.step(actions[number % 100])
            if terminated or truncated:
                env.reset()
        best = max(best, SCALAR_STEPS / (time.perf_counter() - started))
    env.close()
    return float(f"{best:.4g}")
