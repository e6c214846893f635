"""Text generation at small size; a part of the tour.

A language model writes items and personas, they enter a running environment, and recommenders that read serve users.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

import recsim_llm  # noqa: F401  (registers the environments)
from recsim_llm import agents
from recsim_llm.synthesis.authoring.files import save_written
from recsim_llm.synthesis.authoring.item_release import measure_reception, release_items
from recsim_llm.synthesis.authoring.models import load_author
from recsim_llm.synthesis.authoring.writer import Writer
from recsim_llm.worlds.world import load_world

NEWS = "recsim_llm/News-v0"
SEED = 4
SERVED: tuple[tuple[str, dict[str, Any], int, int], ...] = (
    ("random", {}, 64, 40),
    ("embedding_ranker", {}, 64, 40),
    ("llm_profile", {"model": "all-MiniLM-L6-v2"}, 64, 40),
    ("llm_ranker", {"model": "hashing"}, 64, 40),
    ("llm_ranker", {"model": "smollm2", "pool": 5}, 2, 4),
)
"""Agent, settings, users, steps."""


def small(say: Callable[[str], None], model: str = "smollm2", wanted: tuple[int, int] = (3, 2)) -> dict[str, Any]:
    """Three items and two personas by a real model, their reception, and three recommenders that read.

    Args:
        say: Is told what is found.
        model: The writer's model, see :func:`recsim_llm.synthesis.authoring.models.load_author`.
        wanted: How many items and personas.
    """
    started = time.perf_counter()
    world = load_world("news")
    writer = Writer(world, load_author(model), seed=SEED, say=say)
    items = writer.items(wanted[0])
    people = writer.personas(wanted[1])
    for row in (*items.rows, *people.rows):
        say(" | ".join(row.fields.values()))
    seconds = time.perf_counter() - started
    found: dict[str, Any] = {
        "items": len(items.rows), "personas": len(people.rows), "attempts": items.attempts + people.attempts,
        "refused": {"items": dict(items.rejected), "personas": dict(people.rejected)}, "writing_s": round(seconds, 1),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        if people.rows:
            world = people.added_to(world)
        if items.rows:
            save_written(world, items, Path(place) / "world")
            found["reception"] = _received(str(Path(place) / "world"), say)
        found["served"] = [
            _served(*each, say) for each in SERVED if each[1].get("model") != "smollm2" or model != "markov"
        ]
    return found


def _received(folder: str, say: Callable[[str], None]) -> dict[str, Any]:
    """Written items enter while users are in the middle of their episodes."""
    env = gym.make_vec(NEWS, num_envs=1024, world=folder)
    before = measure_reception(env, steps=20, seed=SEED)
    release_items(env)
    after = measure_reception(env, steps=60, seed=-1)
    say(str(after))
    return {
        "looks_before": before.groups["generated"].looks,
        "ctr": {name: (m.ctr, m.ctr_interval) for name, m in after.groups.items()},
        "ranks": [row.rank for row in after.rows], "ranked": after.ranked,
    }  # fmt: skip


def _served(name: str, settings: dict[str, Any], lanes: int, steps: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Clicks for each page of users who are served by an agent."""
    env = gym.make_vec(NEWS, num_envs=lanes, users="test")
    agent = agents.make(name, env, seed=0, **settings)
    observation, _ = env.reset(seed=SEED)
    state, starts, total = None, np.ones(lanes, np.bool_), 0.0
    started = time.process_time()  # other programs on the machine do not count
    for _ in range(steps):
        actions, state = agent.predict(observation, state, starts, True)
        observation, reward, terminated, truncated, _ = env.step(actions)
        starts, total = terminated | truncated, total + float(reward.sum())
    speed = lanes * steps / (time.process_time() - started)
    model = settings.get("model", "")
    say(f"{name} {model}: {total / (lanes * steps):.3f} clicks a page, {speed:,.1f} user-steps a second of one thread")
    return {"agent": name, "model": model, "clicks": total / (lanes * steps), "user_steps_per_s": round(speed, 1)}


if __name__ == "__main__":
    small(lambda text: print(text))
