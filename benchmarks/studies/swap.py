"""Does the order of agents depend on the encoder that made the world?

    python -m recsim_llm.benchmarks.studies.swap --out benchmarks/stored/swap

The same texts and personas are encoded by three models: a sentence encoder, the averaged hidden states of a causal
language model, and hashed words, which know no meaning. Each makes a world of its own, in which the same agents
learn and are scored. The report gives Kendall's tau between the orders, with intervals over seeds. Killed at any
moment, the same command continues.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.benchmarks.analysis.scores import CONFIDENCE, Estimate, interval, pooled_iqm
from recsim_llm.benchmarks.harness.experiment import Experiment
from recsim_llm.benchmarks.harness.results import Results
from recsim_llm.benchmarks.harness.runner import run
from recsim_llm.benchmarks.presets import MUSIC, NEWS
from recsim_llm.encoders import DEFAULT_ENCODER, Encoder, load_text_encoder
from recsim_llm.errors import RecsimError
from recsim_llm.files import write_file
from recsim_llm.metrics.rank_correlation import kendall_tau
from recsim_llm.synthesis.build import build_builtin_world
from recsim_llm.worlds.world import load_world

Floats = NDArray[np.float64]
Say = Callable[[str], None]

CAUSAL = "SmolLM2-135M-Instruct"
ENCODERS = (DEFAULT_ENCODER, CAUSAL, "hashing")
DOMAINS = {"music": MUSIC, "news": NEWS}
AGENTS = (
    "random", "recency", "popularity", "epsilon_greedy", "ucb1", "thompson", "linucb", "lints", "ridge", "nearest",
    "item_knn", "mf", "ease", "sarsa_lambda", "lspi", "oracle",
)  # fmt: skip
COMPARED = tuple(name for name in AGENTS if name not in ("random", "oracle"))
"""Random and the oracle are at the ends in every world, and would flatter the agreement."""
RESAMPLES = 2_000


@dataclass(frozen=True)
class Study:
    """What is run.

    Attributes:
        encoders: Names of encoders.
        domains: Built-in worlds that are made again, and their scenarios.
        agents: Agent names, "random" and "oracle" among them.
        seeds: Seeds.
        budget: Interactions for learning.
        lanes: Users side by side.
        episodes: Held-out users.
    """

    encoders: Sequence[str] = ENCODERS
    domains: Mapping[str, str] = field(default_factory=lambda: dict(DOMAINS))
    agents: Sequence[str] = AGENTS
    seeds: Sequence[int] = tuple(range(10))
    budget: int = 20_480
    lanes: int = 64
    episodes: int = 64

    def experiment(self, domain: str, world: str) -> Experiment:
        """The experiment in one world."""
        return Experiment(
            name=f"swap-{domain}", scenarios=(self.domains[domain],), agents=tuple(self.agents),
            seeds=tuple(self.seeds), budget=self.budget, checkpoints=(0, self.budget), lanes=self.lanes,
            episodes=self.episodes, world=world,
        )  # fmt: skip


def encoder_named(name: str) -> Encoder:
    """A text encoder; the causal language model's hidden states are averaged like those of any other.

    Args:
        name: As for :func:`recsim_llm.encoders.load_text_encoder`, or :data:`CAUSAL`.
    """
    if name != CAUSAL:
        return load_text_encoder(name)
    from recsim_llm.judges.smollm2 import smollm2_folder

    return replace(load_text_encoder(str(smollm2_folder())), name=CAUSAL)  # type: ignore[type-var]


def world_of(domain: str, encoder: str, out: Path, say: Say) -> str:
    """Name or folder of a built-in world made with an encoder; it is made if it is not there."""
    if encoder == DEFAULT_ENCODER:
        return domain
    folder = out / "worlds" / f"{domain}-{encoder}"
    if not (folder / "world.json").is_file():
        say(f"encoding {domain} with {encoder}")
        folder.parent.mkdir(parents=True, exist_ok=True)
        build_builtin_world(domain, encoder_named(encoder), plain_sample=0).save(folder, overwrite=True, half=True)
    return str(folder)


def study(plan: Study, out: Path, *, jobs: int | None = None, say: Say = print) -> dict[str, Any]:
    """Runs what is missing and writes results.json and report.md.

    Args:
        plan: What to run.
        out: Folder of the stores, the worlds and the report.
        jobs: Worker processes; None for one per usable core, 0 for this process.
        say: Is told what is being done.

    Returns:
        What results.json holds: scores by encoder and agent, fidelity of the worlds, tau of each pair of encoders.
    """
    scores: dict[str, dict[str, Floats]] = {}
    fidelity: dict[str, dict[str, Any]] = {}
    for encoder in plan.encoders:
        columns = []
        for domain in plan.domains:
            world = world_of(domain, encoder, out, say)
            fidelity.setdefault(encoder, {})[domain] = dict(load_world(world).metrics["built_in_personas"])
            say(f"agents in {domain} by {encoder}")
            columns.append(run(plan.experiment(domain, world), out / f"{domain}-{encoder}", jobs=jobs))
        scores[encoder] = {agent: _columns(columns, agent) for agent in plan.agents}
    found = _found(plan, scores, fidelity)
    write_file(out / "results.json", (json.dumps(found, indent=1) + "\n").encode())
    write_file(out / "report.md", report(found).encode())
    return found


def _columns(results: Sequence[Results], agent: str) -> Floats:
    """Scores [S, N] of an agent, a column for each world."""
    return np.concatenate([result.scores(agent) for result in results], axis=1)


def _found(plan: Study, scores: Mapping[str, Mapping[str, Floats]], fidelity: Mapping[str, Any]) -> dict[str, Any]:
    compared = [agent for agent in plan.agents if agent in COMPARED]
    table = {
        encoder: {agent: _as_list(interval(scores[encoder][agent], seed=0)) for agent in compared}
        for encoder in plan.encoders
    }
    stacked = {encoder: np.stack([scores[encoder][agent] for agent in compared]) for encoder in plan.encoders}
    tau = {f"{a} / {b}": _as_list(agreement(stacked[a], stacked[b])) for a, b in combinations(plan.encoders, 2)}
    same = {encoder: _as_list(self_agreement(stacked[encoder])) for encoder in plan.encoders}
    return {
        "encoders": list(plan.encoders), "domains": dict(plan.domains), "seeds": len(plan.seeds), "budget": plan.budget,
        "scores": table, "kendall_tau": tau, "kendall_tau_of_halves": same, "fidelity": dict(fidelity),
    }  # fmt: skip


def _as_list(estimate: Estimate) -> list[float]:
    return [round(float(value), 4) for value in (estimate.value, estimate.low, estimate.high)]


def agreement(x: Floats, y: Floats, seed: int = 0) -> Estimate:
    """Kendall's tau of the orders of agents under two encoders, with a bootstrap interval over seeds.

    Args:
        x: [A, S, N] scores of A agents under one encoder.
        y: The same under the other.
        seed: Seed of the resampling; runs of all agents with the same seed are drawn together.
    """
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(RESAMPLES):
        first, second = (v[:, rng.integers(0, v.shape[1], v.shape[1])] for v in (x, y))
        drawn.append(kendall_tau(pooled_iqm(first), pooled_iqm(second)))
    half = 50 * (1 - CONFIDENCE)
    low, high = np.nanpercentile(drawn, [half, 100 - half])
    return Estimate(kendall_tau(pooled_iqm(x), pooled_iqm(y)), float(low), float(high), x.shape[1])


def self_agreement(x: Floats, seed: int = 0, splits: int = 200) -> Estimate:
    """Kendall's tau between halves of the seeds under one encoder: what chance alone leaves of 1.

    Args:
        x: [A, S, N] scores.
        seed: Seed of the splits.
        splits: Random divisions of the seeds.
    """
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(splits):
        order = rng.permutation(x.shape[1])
        middle = len(order) // 2
        if middle:
            found.append(kendall_tau(pooled_iqm(x[:, order[:middle]]), pooled_iqm(x[:, order[middle:]])))
    if not found:
        return Estimate(np.nan, np.nan, np.nan, x.shape[1])
    half = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(found, [half, 100 - half])
    return Estimate(float(np.mean(found)), float(low), float(high), x.shape[1])


def report(found: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    encoders = found["encoders"]
    first = found["scores"][encoders[0]]
    lines = [
        "# The order of agents under other encoders", "",
        f"{', '.join(found['domains'])}; {found['seeds']} seeds, {found['budget']:,} steps of learning. "
        "Score = (agent - random) / (oracle - random), interquartile mean with 95 % bootstrap interval.", "",
        "| agent | " + " | ".join(encoders) + " |", "|:--|" + "--:|" * len(encoders),
    ]  # fmt: skip
    for agent in sorted(first, key=lambda name: -first[name][0]):
        cells = (_cell(found["scores"][encoder][agent]) for encoder in encoders)
        lines.append(f"| {agent} | " + " | ".join(cells) + " |")
    lines += ["", "| encoders | Kendall's tau of the order of agents |", "|:--|--:|"]
    lines += [f"| {pair} | {_cell(value)} |" for pair, value in found["kendall_tau"].items()]
    lines += [f"| {name}, half of the seeds / the other | {_cell(value)} |"
              for name, value in found["kendall_tau_of_halves"].items()]  # fmt: skip
    lines += [
        "", "How well the encodings of personas tell what they like (AUC of liked and of disliked themes against "
        "neutral ones; 1 and 0 are best):", "", "| encoder | world | liked | disliked |", "|:--|:--|--:|--:|",
    ]  # fmt: skip
    for encoder, worlds in found["fidelity"].items():
        for domain, auc in worlds.items():
            lines.append(f"| {encoder} | {domain} | {auc['auc_liked']:.3f} | {auc['auc_disliked']:.3f} |")
    return "\n".join(lines) + "\n"


def _cell(value: Sequence[float]) -> str:
    middle, low, high = value
    return Estimate(middle, low, high, 0).text()


def small(say: Say) -> dict[str, Any]:
    """The whole part at small size: two encoders, one world, four agents, two seeds."""
    import tempfile

    agents = ("random", "popularity", "thompson", "linucb", "oracle")
    plan = Study((DEFAULT_ENCODER, "hashing"), {"music": MUSIC}, agents, (0, 1), 2_560, 32, 32)
    with tempfile.TemporaryDirectory() as folder:
        found = study(plan, Path(folder), jobs=0, say=say)
    for pair, value in found["kendall_tau"].items():
        say(f"Kendall's tau of {pair}: {value[0]:.2f}")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m recsim_llm.benchmarks.studies.swap", description=str(__doc__).split("\n")[0]
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the results; a run in it is continued")
    parser.add_argument("--seeds", type=int, default=10, help="number of seeds")
    parser.add_argument("--jobs", type=int, default=None, help="worker processes")
    parser.add_argument("--small", action="store_true", help="a small run that takes seconds, kept nowhere")
    options = parser.parse_args(arguments)
    try:
        if options.small:
            small(print)
        else:
            study(Study(seeds=tuple(range(options.seeds))), options.out, jobs=options.jobs)
    except RecsimError as error:
        parser.exit(2, f"error: {error}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
