"""Parity of the classic environments with RecSim: the same policies on both, mean and distribution of every metric.

    python -m recsim_llm.benchmarks.studies.classics_parity

plays the policies of ``benchmarks/studies/classics_reference.py`` here, compares them with its stored numbers, and
stores the
means of both side by side.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from recsim_llm.files import write_file

STORED = Path(__file__).resolve().parents[1] / "stored"
EVOLUTION, EXPLORATION, SATISFACTION = (
    f"recsim_llm/{name}-v0" for name in ("InterestEvolution", "InterestExploration", "LongTermSatisfaction")
)
EPISODES = 4000
POLICY_SEED, FIRST_SEED = 7, 1_000_000


def reference() -> list[dict[str, Any]]:
    """RecSim's stored numbers, one entry for each environment, size and policy."""
    cases: list[dict[str, Any]] = json.loads((STORED / "recsim_classics.json").read_text(encoding="utf-8"))["cases"]
    return cases


def documents(envs: Any, observation: NDArray[np.float32]) -> NDArray[np.float32]:
    """The candidates as the policies see them, [B, C, F]."""
    lanes, candidates = len(observation), envs.unwrapped.core.items
    return observation[:, envs.unwrapped.layout["doc"]].reshape(lanes, candidates, -1)


SCORES: dict[tuple[str, str], Callable[[NDArray[np.float32]], NDArray[Any]]] = {
    (EVOLUTION, "best"): lambda docs: docs.argmax(2),
    (EXPLORATION, "best"): lambda docs: docs[:, :, 0],
    (SATISFACTION, "choc"): lambda docs: docs[:, :, 0],
    (SATISFACTION, "kale"): lambda docs: -docs[:, :, 0],
}
"""By what the policies that are not random order the candidates [B, C]; the first of equals comes first."""


def slates(env_id: str, policy: str, docs: NDArray[np.float32], slots: int, rng: np.random.Generator) -> NDArray[Any]:
    """The policy's slates [B, K]."""
    score = rng.random(docs.shape[:2]) if policy == "random" else SCORES[env_id, policy](docs)
    return np.argsort(-score, axis=1, kind="stable")[:, :slots]


class _Tally:
    """Sums over the steps of each episode."""

    def __init__(self) -> None:
        self.sums: dict[str, Any] = {}

    def add(self, name: str, values: NDArray[Any]) -> None:
        self.sums[name] = self.sums.get(name, 0.0) + values

    def mean(self, name: str, count: str, empty: float) -> NDArray[np.float64]:
        number = self.sums[count]
        return np.where(number > 0, self.sums[name] / np.maximum(number, 1), empty)


def play(case: dict[str, Any], episodes: int = EPISODES, **options: Any) -> dict[str, NDArray[np.float64]]:
    """The metrics of a case here, each [episodes]; ``options`` are further arguments of the environment."""
    env_id = f"recsim_llm/{case['environment']}-v0"
    options |= {name: case[name] for name in ("num_candidates", "slate_size")}
    envs = gym.make_vec(env_id, num_envs=episodes, autoreset_mode="Disabled", copy=False, truth=True, **options)
    rng = np.random.Generator(np.random.PCG64(POLICY_SEED))
    seen, _ = envs.reset(seed=FIRST_SEED)
    alive, tally, rewarded = np.ones(episodes, bool), _Tally(), []
    while alive.any():
        slate = slates(env_id, case["policy"], documents(envs, seen), case["slate_size"], rng)
        seen, rewards, terminated, truncated, infos = envs.step(slate[:, 0] if case["slate_size"] == 1 else slate)
        _add(tally, alive, rewards, infos)
        rewarded.append(rewards)
        alive &= ~(terminated | truncated)
    found = {name: tally.sums[name] for name in ("return", "length", "clicks", "rare")}
    if env_id == EVOLUTION:
        interests = seen[:, envs.unwrapped.layout["user"]].astype(np.float64)  # type: ignore[attr-defined]
        found |= {"interest": interests.mean(1), "extremity": np.abs(interests).mean(1)}
        found |= {"topic": tally.mean("topic", "clicks", -1.0), "quality": tally.mean("clicked quality", "clicks", 0.0)}
    elif env_id == EXPLORATION:
        found |= {"quality": tally.mean("shown quality", "length", 0.0), "first": rewarded[0]}
    else:
        logs = np.log(rewarded)
        found |= {"first": logs[0], "last": logs[-1], "spread": logs.std(0), "exposure": infos["truth_exposure"]}
    return found


def _add(tally: _Tally, alive: NDArray[np.bool_], rewards: NDArray[np.float64], infos: dict[str, Any]) -> None:
    clicked = infos["click"] * alive[:, None]
    tally.add("return", rewards * alive)
    tally.add("length", alive.astype(float))
    tally.add("clicks", clicked.sum(1))
    tally.add("topic", (clicked * infos["cluster_id"]).sum(1))
    tally.add("rare", (clicked * (infos["cluster_id"] == 0)).sum(1))
    if "quality" in infos:
        tally.add("clicked quality", (clicked * infos["quality"]).sum(1))
        tally.add("shown quality", infos["quality"].mean(1) * alive)


def z_score(ours: NDArray[np.float64], theirs: dict[str, Any]) -> float:
    """How many standard errors the two means are apart."""
    error = np.hypot(theirs["std"] / np.sqrt(theirs["n"]), ours.std(ddof=1) / np.sqrt(len(ours)))
    return float((ours.mean() - theirs["mean"]) / error) if error > 0 else 0.0


def counts(ours: NDArray[np.float64], theirs: dict[str, Any]) -> NDArray[np.int64]:
    """Episodes in RecSim's bins, there and here, [2, bins]; bins with fewer than 10 are left out."""
    bins = np.searchsorted(theirs["edges"], np.round(ours, 6), side="left")
    table = np.array([theirs["counts"], np.bincount(bins, minlength=len(theirs["counts"]))])
    return table[:, table.sum(0) >= 10]


def to_markdown(content: dict[str, Any]) -> str:
    """The stored returns as a table."""
    lines = ["| environment | policy | return in RecSim | return here | z |", "|:--|:--|--:|--:|--:|"]
    for row in content["rows"]:
        if row["metric"] == "return":
            lines.append(
                f"| {row['case']} | {row['policy']} | {row['recsim']:.1f} | {row['here']:.1f} | {row['z']:+.1f} |"
            )
    most = max(abs(row["z"]) for row in content["rows"])
    number = sum(row["z"] != 0 for row in content["rows"])
    episodes = content["episodes"]
    return "\n".join(
        [
            *lines,
            "",
            f"{episodes['recsim']:,} episodes there, {episodes['here']:,} here; z is the difference in standard "
            f"errors. Over all {number} metrics (lengths, clicks, final interests, topics, qualities, exposure, ...) "
            f"the largest |z| is {most:.1f}.",
        ]
    )


def main() -> None:
    """Writes the means of both side by side."""
    rows = []
    for case in reference():
        found = play(case)
        for name, theirs in case["metrics"].items():
            ours = found[name]
            rows.append(
                {
                    "case": case["case"], "policy": case["policy"], "metric": name, "recsim": theirs["mean"],
                    "here": float(f"{ours.mean():.6g}"), "z": round(z_score(ours, theirs), 2),
                }
            )  # fmt: skip
    content = {"episodes": {"recsim": reference()[0]["metrics"]["return"]["n"], "here": EPISODES}, "rows": rows}
    write_file(STORED / "parity.json", (json.dumps(content, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
