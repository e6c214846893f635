"""Text and images against text, images and ids alone, on products that nobody has been shown yet.

    python -m recsim_llm.benchmarks.studies.crossmodal --out benchmarks/stored/crossmodal --seeds 10

Each seed withholds three in ten products, drawn at random, from the log of training users under uniform random slates;
then they are released. Agents that read text and images, text, images or neither learn from the same log, and are
judged by held-out users, on the released products ("cold") and on the others ("warm"), in two ways:

* by a log of uniform random slates of the held-out users: how often what was clicked scores above what was looked at
  and left on the same page ("auc"), and how often it is among the 20 that score highest on the shelf ("recall");
* by serving them from that part of the shelf alone: mean revenue ("return") and clicks of an episode.

All agents of a seed meet the same users with the same luck, so that differences between them are paired. Products are
drawn anew for each seed, where the axis ``cold_items`` of the environments withholds the same ones always. Each row is
on disk when it is done, and the same command goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

import recsim_llm
from recsim_llm import agents
from recsim_llm.agents.common.sampling import uniform_slates
from recsim_llm.agents.core.env_runner import EnvironmentSpec, EnvRunner
from recsim_llm.benchmarks.studies.crossmodal_report import MODALITIES, results, to_markdown
from recsim_llm.errors import DataError
from recsim_llm.files import write_file

Flags = NDArray[np.bool_]
Say = Callable[[str], None]
AGENTS = ("siamese", "joint", "vbpr")
ROWS = "rows.jsonl"
BEST = 20
"""Length of the list in which what was clicked is looked for."""


@dataclass(frozen=True)
class Plan:
    """What is run.

    Attributes:
        env_id: The scenario.
        world: Another world than its own, a folder; "" for its own.
        steps: Steps of training users in the log.
        judged: Steps of held-out users in the log by which agents are judged.
        served: Held-out users who are served.
        cold: Share of the products that is withheld.
        lanes: Users side by side.
    """

    env_id: str = "recsim_llm/Ecommerce-v0"
    world: str = ""
    steps: int = 15_360
    judged: int = 4_800
    served: int = 64
    cold: float = 0.3
    lanes: int = 64

    def env(self, users: str, lanes: int, autoreset: AutoresetMode = AutoresetMode.NEXT_STEP) -> Any:
        """The environment for a split of the users."""
        options: dict[str, Any] = {"users": users, "threads": 1, **({"world": self.world} if self.world else {})}
        return gym.make_vec(self.env_id, num_envs=lanes, autoreset_mode=autoreset, **options)


class Withheld(EnvRunner):
    """Lanes on whose shelf some items are missing.

    Args:
        env: The environment.
        env_spec: Its setting.
        out: [I] the items.
    """

    def __init__(self, env: Any, env_spec: EnvironmentSpec, out: Flags) -> None:
        super().__init__(env, env_spec)
        self.out = out

    def available(self) -> Flags:
        """[B, I]."""
        return super().available() & ~self.out


def cold_items(plan: Plan, items: int, seed: int) -> Flags:
    """[I] products that are withheld."""
    rng = np.random.Generator(np.random.PCG64([seed, 1]))
    cold = np.zeros(items, np.bool_)
    cold[rng.permutation(items)[: round(plan.cold * items)]] = True
    return cold


def run(plan: Plan, name: str, modalities: str, seed: int) -> dict[str, Any]:
    """One row: an agent learns, and is judged on cold and warm products."""
    started, env = time.perf_counter(), plan.env("train", plan.lanes)
    agent = agents.make(name, env, seed=seed, modalities=modalities)
    cold = cold_items(plan, agent.env_spec.items, seed)
    agent.runner = Withheld(env, agent.env_spec, cold)
    agent.learn(plan.steps)
    learnt = time.perf_counter()
    row: dict[str, Any] = {"agent": name, "modalities": modalities, "seed": seed}
    for part, shelf in (("cold", cold), ("warm", ~cold)):
        found = {**ranking_quality(plan, agent, shelf, seed), **served_rewards(plan, agent, shelf, seed)}
        row |= {f"{part} {measure}": value for measure, value in found.items()}
    env.close()
    return {**row, "learn_s": learnt - started, "judge_s": time.perf_counter() - learnt}


def ranking_quality(plan: Plan, agent: Any, shelf: Flags, seed: int) -> dict[str, float]:
    """AUC and recall on clicks of held-out users under uniform slates of ``shelf`` [I]."""
    env = plan.env("test", plan.lanes)
    lanes = EnvRunner(env, agent.env_spec)
    lanes.reset(seed=100_000 + 1_000 * seed)
    rng = np.random.Generator(np.random.PCG64([seed, 2]))
    state, wins, found = None, [], []
    for _ in range(-(-plan.judged // plan.lanes)):
        rows, whole = lanes.observation, lanes.available()
        scores = agent.relevance(rows, state, lanes.fresh, whole) - item_values(agent)
        session = agent.session(rows, state, lanes.fresh)
        slates = uniform_slates(whole & shelf, agent.env_spec.slate_size, rng)
        state = session.noting(slates)
        step = lanes.step(slates)
        clicked = (np.asarray(step.info["click"]) > 0) & step.valid[:, None]
        left = (np.asarray(step.info["skip"]) > 0) & ~clicked
        shown = np.take_along_axis(scores, slates, 1)
        ranked = np.where(whole & shelf, scores, -np.inf)
        for lane, slot in np.argwhere(clicked):
            score, others = shown[lane, slot], shown[lane, left[lane]]
            if len(others):
                wins.append(np.mean((score > others) + 0.5 * (score == others)))
            above, tied = (ranked[lane] > score).sum(), max((ranked[lane] == score).sum(), 1)
            found.append(float(np.clip((BEST - above) / tied, 0.0, 1.0)))  # the chance, where scores are tied
    env.close()
    return {"auc": float(np.mean(wins)), "recall": float(np.mean(found)), "clicks judged": float(len(found))}


def item_values(agent: Any) -> Any:
    """What scores have in them for the reward of a click, not for its probability: [I], or 0."""
    return agent.config.value * np.log(agent.value) if hasattr(agent, "value") else 0.0


def served_rewards(plan: Plan, agent: Any, shelf: Flags, seed: int) -> dict[str, float]:
    """Mean return and clicks of an episode of held-out users who are served from ``shelf`` [I] alone."""
    lanes = plan.served
    env = plan.env("test", lanes, AutoresetMode.DISABLED)
    observation, info = env.reset(seed=200_000 + 1_000 * seed)
    running, fresh, state = np.ones(lanes, bool), np.ones(lanes, bool), None
    returns, clicks = np.zeros(lanes), np.zeros(lanes)
    while running.any():
        agent.observe(info)
        mask = np.atleast_2d(env.unwrapped.available()) & shelf
        action, state = agent.predict(observation, state, fresh, deterministic=True, action_masks=mask)
        observation, reward, terminated, truncated, info = env.step(action)
        returns += np.where(running, reward, 0.0)
        clicks += np.where(running, info["clicks"], 0)
        running, fresh = running & ~(terminated | truncated), np.zeros(lanes, bool)
    env.close()
    return {"return": float(returns.mean()), "clicks": float(clicks.mean())}


def study(plan: Plan, out: Path, seeds: int, say: Say) -> dict[str, Any]:
    """All rows that are not in ``out`` yet, seed after seed, with a report after each.

    Raises:
        DataError: If ``out`` holds rows of another study.
    """
    env = plan.env("train", 1)
    world = str(env.unwrapped.core.world.hash)
    env.close()
    key = hashlib.sha256(json.dumps([asdict(plan), world], sort_keys=True).encode()).hexdigest()
    out.mkdir(parents=True, exist_ok=True)
    rows = _read(out / ROWS, key)
    done = {(row["agent"], row["modalities"], row["seed"]) for row in rows}
    about = {"plan": asdict(plan), "world": world, "machine": machine()}
    found = results(rows, about)
    for seed in range(seeds):
        for name, modalities in ((name, modalities) for name in AGENTS for modalities in MODALITIES):
            if (name, modalities, seed) not in done:
                rows.append(run(plan, name, modalities, seed))
                with (out / ROWS).open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"key": key, **rows[-1]}) + "\n")
                say(f"seed {seed}, {name} by {modalities}: AUC on cold products {rows[-1]['cold auc']:.3f}")
        found = results(rows, about)
        write_file(out / "results.json", json.dumps(found, indent=1, sort_keys=True).encode() + b"\n")
        write_file(out / "report.md", to_markdown(found).encode())
    return found


def machine() -> dict[str, str]:
    """What it ran on."""
    versions = {name: metadata.version(name) for name in ("numpy", "numba", "torch")}
    system = {"python": platform.python_version(), "processor": platform.machine(), "system": platform.system()}
    return {**system, "recsim_llm": recsim_llm.__version__, **versions}


def _read(path: Path, key: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:  # cut off when the process was killed: that row runs again
            continue
        if row.pop("key", None) != key:
            raise DataError(f"{path} holds rows of another world or plan; give another folder with --out")
        rows.append(row)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the study."""
    parser = argparse.ArgumentParser(
        prog="python -m recsim_llm.benchmarks.studies.crossmodal", description="Text and images"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "stored" / "crossmodal")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--small", action="store_true", help="one seed of short logs")
    options = parser.parse_args(arguments)
    plan = Plan(steps=3_840, judged=1_920, served=16) if options.small else Plan()
    study(plan, options.out, 1 if options.small else options.seeds, lambda text: print(text, flush=True))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
