"""Writes stored results into the README and docs/performance.md: ``python -m recsim_llm.benchmarks.analysis.readme``.

Sections between ``<!-- name:begin -->`` and ``<!-- name:end -->`` are made from what is stored; no number is typed.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from recsim_llm import agents
from recsim_llm.agents.docs import FAMILIES
from recsim_llm.benchmarks import load
from recsim_llm.benchmarks.analysis import report as reports
from recsim_llm.benchmarks.analysis.leaderboard import short
from recsim_llm.benchmarks.analysis.readme_language import language
from recsim_llm.benchmarks.harness.experiment import COLD, FASHION, MONTH
from recsim_llm.benchmarks.harness.results import Results
from recsim_llm.benchmarks.speed import compare
from recsim_llm.benchmarks.studies import classics_parity as parity
from recsim_llm.errors import DataError
from recsim_llm.files import write_file
from recsim_llm.worlds.world import World, built_in_worlds

ROOT = Path(__file__).resolve().parents[2]
STORED = ROOT / "benchmarks" / "stored"
QUESTIONS = {
    MONTH: "A month with each user, who may leave for good: does looking ahead pay?",
    COLD: "A third of the tracks is released on the way: who can recommend what nobody has heard?",
    FASHION: "Every 80 steps all users take to the taste of one, another each time: who follows?",
}
"""What the scenarios beside the score ask."""


def sections(stored: Path = STORED) -> dict[str, str]:
    """The generated sections by name, from the folder of stored results."""
    made = {
        "worlds": _worlds(), "agents": _agents(stored / "speed_agents.json"), "language": language(stored),
    }  # fmt: skip
    if (stored / "standard").is_dir():
        results = load(stored / "standard")
        made["table"], made["questions"] = _table(results), _questions(results)
    writers = {"movielens": _movielens, "speed": _speed, "parity": parity.to_markdown, "compare": compare.to_markdown}
    for name, write in writers.items():
        if (stored / f"{name}.json").is_file():
            made[name] = write(json.loads((stored / f"{name}.json").read_text(encoding="utf-8")))
    return made


def filled(text: str, made: dict[str, str]) -> str:
    """A text with its sections filled in.

    Raises:
        DataError: If it has no place for one of them.
    """
    for name, content in made.items():
        pattern = re.compile(rf"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)", re.DOTALL)
        if not pattern.search(text):
            raise DataError(f"the text has no place for {name!r}: add <!-- {name}:begin --> and <!-- {name}:end -->")
        text = pattern.sub(lambda match, new=content: f"{match[1]}{new.rstrip()}\n{match[2]}", text)  # type: ignore[misc]
    return text


def _table(results: Results) -> str:
    board = reports.leaderboard(results)
    experiment = results.experiment
    note = (
        f"{experiment.budget:,} steps of learning, {experiment.episodes} held-out users, "
        f"{len(experiment.seeds)} seeds; score = (agent - random) / (oracle - random), interquartile mean with 95% "
        "bootstrap interval, on the right of it by scenario."
    )
    return "\n".join([reports.to_markdown(board), note, "", board.headline, *(f"\n{line}" for line in board.warnings)])


def _questions(results: Results) -> str:
    """The scenarios that ask something of their own: returns, and rewards while learning."""
    parts = []
    for extra in results.extras:
        board = reports.leaderboard(extra)
        parts += [f"**{short(board.scenarios[0])}.** {QUESTIONS.get(board.scenarios[0], '')}".rstrip(), ""]
        parts += ["| agent | return [95% CI] | reward of a step while learning |", "|:--|--:|--:|"]
        for line in sorted(board.lines, key=lambda line: -np.nan_to_num(line.returns[0].value, nan=-np.inf)):
            parts.append(f"| {line.agent} | {line.returns[0].text(1)} | {line.online[0].text(3)} |")
        parts.append("")
    return "\n".join(parts)


def _agents(speeds: Path) -> str:
    rows = ["| family | agents |", "|:--|:--|"]
    for family, names in agents.families().items():
        if family in FAMILIES:
            links = ", ".join(f"[{name}](docs/agents.md#{name})" for name in names)
            rows.append(f"| {FAMILIES[family].lower()} | {links} |")
    if speeds.is_file():
        rows += ["", _rates(json.loads(speeds.read_text(encoding="utf-8")))]
    return "\n".join(rows)


def _rates(content: dict[str, Any]) -> str:
    rates = {row["agent"]: row for row in content["tables"]["agents"]}
    slowest = min(rates, key=lambda name: rates[name]["slate 5"] or np.inf)
    shown = [name for name in ("linucb", "thompson", "two_tower", "ppo") if name in rates]
    where = content["note"].split(", ", 1)[1].split(";")[0]
    listed = ", ".join(f"{name} {rates[name]['slate 1']:,.0f}" for name in shown)
    return (
        f"User-steps per second of acting and learning, {where}, slates of 1: {listed}. The slowest with slates of 5: "
        f"{slowest}, {rates[slowest]['slate 5']:,.0f}."
    )


def _worlds() -> str:
    rows = [
        "| world | items | users | themes | AUC liked : neutral | AUC disliked : neutral | shares of variance |",
        "|:--|--:|--:|--:|--:|--:|:--|",
    ]
    for name in built_in_worlds():
        world = World.load(name)
        liked, disliked = _pairs(world.metrics)
        shares = ", ".join(f"{part} {share:.2f}" for part, share in world.preference_model.shares.items())
        sizes = f"{len(world.catalog):,} | {len(world.population):,} | {len(world.catalog.topics)}"
        rows.append(f"| {name} | {sizes} | {liked} | {disliked} | {shares} |")
    return (
        "\n".join(rows)
        + "\n\nIn brackets: the same personas as plain paragraphs in other phrasings, split by the stance classifier.\n"
    )


def _pairs(metrics: Any) -> tuple[str, str]:
    built, plain = metrics["built_in_personas"], metrics["plain_paragraphs"]
    return tuple(f"{built[f'auc_{kind}']:.2f} ({plain[f'auc_{kind}']:.2f})" for kind in ("liked", "disliked"))  # type: ignore[return-value]


def _movielens(content: dict[str, Any]) -> str:
    aucs = ", ".join(f"{value:.3f} for {name.replace('_', ' ')}" for name, value in content["auc"].items())
    rows = [
        "| recommender | AUC on held-out ratings | return in the world | ahead of the next, 95% CI |",
        "|:--|--:|--:|--:|",
    ]
    for row in content["transfer"]:
        ahead = "–" if row["ahead"] is None else f"{row['ahead']:.1f} ± {row['margin']:.1f}"
        rows.append(f"| {row['name']} | {row['auc']:.3f} | {row['mean_return']:.1f} | {ahead} |")
    return "\n".join(
        [
            "On MovieLens (ml-latest-small: 610 people, 9,742 films, 100,836 ratings) the AUC per user on held-out "
            f"ratings is {aucs}. Recommenders fitted to the training ratings and served in the world that was "
            "calibrated on them come out in the order of the held-out ratings (`recsim-llm world compare`):",
            "",
            *rows,
        ]
    )


def _speed(content: dict[str, Any]) -> str:
    rows = ["| items | lanes | user-steps/s | bare loop/s | ratio |", "|--:|--:|--:|--:|--:|"]
    for row in content["tables"]["reference"]:
        rows.append(
            f"| {row['items']:,} | {row['lanes']:,} | {row['user-steps/s']:,.0f} | {row['bare loop/s']:,.0f} "
            f"| {row['ratio to bare']:.3f} |"
        )
    scalar = ", ".join(f"{row['steps/s']:,.0f} in {row['environment']}" for row in content["tables"]["scalar"])
    return "\n".join([*rows, "", content["note"], f"Scalar `env.step` through `gym.make`: {scalar} steps/s.", ""])


def performance(stored: Path = STORED) -> dict[str, str]:
    """The generated sections of docs/performance.md by name."""
    path = stored / "speed_agents.json"
    return {"agents": _speeds(json.loads(path.read_text(encoding="utf-8")))} if path.is_file() else {}


def _speeds(content: dict[str, Any]) -> str:
    rates = {row["agent"]: row for row in content["tables"]["agents"]}
    rows = ["| agent | slate 1 | slate 5 |", "|:--|--:|--:|"]
    for name, row in sorted(rates.items(), key=lambda entry: -entry[1]["slate 5"]):
        rows.append(f"| {name} | " + " | ".join(f"{row[key]:,.0f}" for key in ("slate 1", "slate 5")) + " |")
    return "\n".join([*rows, "", content["note"][0].upper() + content["note"][1:] + "."])


def main() -> None:
    """Rewrites the README and the page on performance of this checkout."""
    for path, made in ((ROOT / "README.md", sections()), (ROOT / "docs" / "performance.md", performance())):
        write_file(path, filled(path.read_text(encoding="utf-8"), made).encode())


if __name__ == "__main__":
    main()
