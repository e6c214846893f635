"""Reference numbers from RecSim 0.2.4 for the classic environments; runs in an interpreter that has RecSim.

    python3.11 -m venv recsim-venv
    recsim-venv/bin/pip install "numpy<2" gym==0.26.2 absl-py six
    recsim-venv/bin/pip install --no-deps recsim==0.2.4
    recsim-venv/bin/python benchmarks/studies/classics_reference.py --out benchmarks/stored/recsim_classics.json

RecSim needs TensorFlow and Dopamine for its runner and agents only; its simulator runs with the stand-ins below. For
each environment and policy the script plays thousands of episodes and stores the mean, the standard deviation and the
counts in bins of about equal mass of every metric of an episode. ``benchmarks/studies/classics_parity.py`` plays the
same
policies here.
"""

from __future__ import annotations

import argparse
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

EPISODES = 3000
EXPLORATION_STEPS = 100
"""Length of an episode of interest exploration, whose users never leave."""
BINS = 20
SEED = 20191
Policy = Callable[[list[Any], int, np.random.Generator], list[int]]


def install_stand_ins() -> None:
    """Empty modules in place of those that RecSim imports and its simulator does not use."""

    def configurable(*arguments: Any, **_: Any) -> Any:
        return arguments[0] if arguments and callable(arguments[0]) else lambda thing: thing

    for name in ("gin", "gin.tf", "recsim.simulator.runner_lib"):
        module: Any = types.ModuleType(name)
        module.configurable = configurable
        sys.modules.setdefault(name, module)
    sys.modules["gin"].tf = sys.modules["gin.tf"]  # type: ignore[attr-defined]


def shuffled(documents: list[Any], slots: int, rng: np.random.Generator) -> list[int]:
    """A random slate without repetition."""
    return [int(c) for c in rng.permutation(len(documents))[:slots]]


def highest(score: Callable[[Any], float]) -> Policy:
    """The candidates with the highest score first, those earlier in the list before others as good."""

    def policy(documents: list[Any], slots: int, _: np.random.Generator) -> list[int]:
        order = sorted(range(len(documents)), key=lambda c: (-score(documents[c]), c))
        return order[:slots]

    return policy


def evolution_metrics(env: Any, history: list[tuple[float, Any]]) -> dict[str, float]:
    """Metrics of an episode of interest evolution."""
    interests = env.environment.user_model._user_state.user_interests
    clicked = [slot for _, slots in history for slot in slots if slot["click"]]
    return {
        "return": sum(reward for reward, _ in history),
        "length": len(history),
        "clicks": len(clicked),
        "interest": float(np.mean(interests)),
        "extremity": float(np.mean(np.abs(interests))),
        "topic": float(np.mean([slot["cluster_id"] for slot in clicked])) if clicked else -1.0,
        "quality": float(np.mean([slot["quality"] for slot in clicked])) if clicked else 0.0,
    }


def exploration_metrics(_: Any, history: list[tuple[float, Any]]) -> dict[str, float]:
    """Metrics of an episode of interest exploration."""
    clicked = [slot for _, slots in history for slot in slots if slot["click"]]
    return {
        "return": sum(reward for reward, _ in history),
        "rare": sum(slot["cluster_id"] == 0 for slot in clicked),
        "quality": float(np.mean([slot["quality"] for _, slots in history for slot in slots])),
        "first": history[0][0],
    }


def satisfaction_metrics(env: Any, history: list[tuple[float, Any]]) -> dict[str, float]:
    """Metrics of an episode of long-term satisfaction."""
    logs = np.log([reward for reward, _ in history])
    return {
        "return": sum(reward for reward, _ in history),
        "length": len(history),
        "first": float(logs[0]),
        "last": float(logs[-1]),
        "spread": float(logs.std()),
        "exposure": float(env.environment.user_model._user_state.net_positive_exposure),
    }


CASES: dict[str, tuple[str, dict[str, int], dict[str, Policy], Callable[..., dict[str, float]]]] = {
    "InterestEvolution": (
        "interest_evolution", {"num_candidates": 10, "slate_size": 2},
        {"random": shuffled, "best": highest(lambda document: float(np.argmax(document)))}, evolution_metrics,
    ),
    "InterestEvolution, slate 5 of 20": (
        "interest_evolution", {"num_candidates": 20, "slate_size": 5},
        {"random": shuffled, "best": highest(lambda document: float(np.argmax(document)))}, evolution_metrics,
    ),
    "InterestExploration": (
        "interest_exploration", {"num_candidates": 10, "slate_size": 2},
        {"random": shuffled, "best": highest(lambda document: float(document["quality"]))}, exploration_metrics,
    ),
    "LongTermSatisfaction": (
        "long_term_satisfaction", {"num_candidates": 10, "slate_size": 1},
        {
            "random": shuffled,
            "choc": highest(lambda document: float(document[0])),
            "kale": highest(lambda document: -float(document[0])),
        },
        satisfaction_metrics,
    ),
}  # fmt: skip


def play(env: Any, policy: Policy, slots: int, episodes: int, metrics: Any, limit: int) -> dict[str, list[float]]:
    """The metrics of each episode."""
    rng = np.random.Generator(np.random.PCG64(SEED))
    found: dict[str, list[float]] = {}
    for _ in range(episodes):
        observation, done = env.reset(), False
        history: list[tuple[float, Any]] = []
        while not done and len(history) < limit:
            slate = policy(list(observation["doc"].values()), slots, rng)
            observation, reward, done, _ = env.step(slate)
            history.append((float(reward), observation["response"]))
        for name, value in metrics(env, history).items():
            found.setdefault(name, []).append(float(value))
    return found


def summary(values: list[float]) -> dict[str, Any]:
    """Mean, standard deviation, and counts in bins (edge, next edge] of about equal mass, open at the ends."""
    array = np.array(values)
    edges = np.unique(np.round(np.quantile(array, np.linspace(0, 1, BINS + 1)[1:-1]), 6))
    edges = edges[edges < array.max()]
    counts = np.bincount(np.searchsorted(edges, array, side="left"), minlength=len(edges) + 1)
    return {
        "n": len(values), "mean": round(float(array.mean()), 6), "std": round(float(array.std(ddof=1)), 6),
        "edges": edges.tolist(), "counts": counts.tolist(),
    }  # fmt: skip


def main() -> None:
    """Plays every case and writes the file."""
    parser = argparse.ArgumentParser(description="Reference numbers of RecSim's environments")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--episodes", type=int, default=EPISODES)
    chosen = parser.parse_args()
    install_stand_ins()
    import importlib

    cases = []
    for name, (module, sizes, policies, metrics) in CASES.items():
        build = importlib.import_module(f"recsim.environments.{module}").create_environment
        for policy_name, policy in policies.items():
            env = build({**sizes, "seed": SEED, "resample_documents": True})
            env.seed(SEED)  # the generator of NumPy that RecSim's users share
            limit = EXPLORATION_STEPS if module == "interest_exploration" else 10**9
            found = play(env, policy, sizes["slate_size"], chosen.episodes, metrics, limit)
            metrics_found = {metric: summary(values) for metric, values in found.items()}
            cases.append(
                {
                    "case": name,
                    "environment": name.split(",")[0],
                    **sizes,
                    "policy": policy_name,
                    "metrics": metrics_found,
                }
            )
    document = {
        "made by": "benchmarks/studies/classics_reference.py",
        "recsim": "0.2.4",
        "episodes": chosen.episodes,
        "cases": cases,
    }
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(document, indent=None, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
