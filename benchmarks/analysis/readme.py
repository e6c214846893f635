"""Writes stored results into the README and the pages of docs: ``python -m recsim_llm.benchmarks.analysis.readme``.

Sections between ``<!-- name:begin -->`` and ``<!-- name:end -->`` are made from what is stored; no number is typed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from recsim_llm import agents
from recsim_llm.agents.docs import FAMILIES, abilities, built_in, summary
from recsim_llm.benchmarks import load
from recsim_llm.benchmarks.analysis import report as reports
from recsim_llm.benchmarks.analysis.leaderboard import REFERENCES, Leaderboard, short
from recsim_llm.benchmarks.analysis.readme_language import language
from recsim_llm.benchmarks.harness.results import Results
from recsim_llm.benchmarks.presets import ABRUPT_DRIFT, COLD_ITEMS, RETENTION
from recsim_llm.benchmarks.speed import ablation, compare
from recsim_llm.benchmarks.speed.steps import ALL_RULES, SLATE, random_world
from recsim_llm.benchmarks.studies import classics_parity as parity
from recsim_llm.errors import DataError
from recsim_llm.files import write_file
from recsim_llm.simulator import SIGNALS, Rules
from recsim_llm.simulator.state import ITEM, TRADE, USER, new_state, tables
from recsim_llm.simulator.task_variant import TaskVariant
from recsim_llm.worlds.world import World, built_in_worlds

ROOT = Path(__file__).resolve().parents[2]
STORED = ROOT / "benchmarks" / "stored"
QUESTIONS = {
    RETENTION: "A month with each user, who may leave for good: does looking ahead pay?",
    COLD_ITEMS: "A third of the tracks is released on the way: who can recommend what nobody has heard?",
    ABRUPT_DRIFT: "Every 80 steps all users take to the taste of one, another each time: who follows?",
}
"""What the scenarios beside the score ask."""


TEN = (
    "linucb", "neural_linear", "thompson", "ridge", "two_tower", "ease", "sarsa_lambda", "dqn", "masked_ppo", "mmr",
)  # fmt: skip
"""Agents of the README: well-known ones of every family."""
RIVALS = ("oracle", "popularity", "random")
"""Beside them: what knows the truth, and the simplest two."""


def pages(stored: Path = STORED) -> dict[str, dict[str, str]]:
    """The generated sections by page, as its path from the root, and by name; from the folder of stored results."""
    made: dict[str, dict[str, str]] = {
        "docs/worlds.md": {"worlds": _worlds()},
        "docs/agents-guide.md": {"agents": _agents(stored / "speed_agents.json")},
        "docs/language-models.md": {"language": language(stored)},
        "docs/performance.md": {"memory": _memory()},
    }
    if (stored / "standard").is_dir():
        results = load(stored / "standard")
        board = reports.leaderboard(results)
        made["README.md"] = {"shelf": shelf(results, board)}
        made["docs/results.md"] = {
            "table": _table(results, board), "findings": findings(results, board), "questions": _questions(results),
        }  # fmt: skip
    for page, name, file, write in _WRITERS:
        if (stored / file).is_file():
            content = json.loads((stored / file).read_text(encoding="utf-8"))
            made.setdefault(page, {})[name] = write(content)
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


def shelf(results: Results, board: Leaderboard) -> str:
    """Ten agents with what they are and their score, and the simplest rivals beside them, best first."""
    family = {name: FAMILIES[key] for key, names in agents.families().items() if key in FAMILIES for name in names}
    rows = ["| agent | family | what it does | score [95% CI] |", "|:--|:--|:--|--:|"]
    for line in board.lines:
        if line.agent in TEN or line.agent in RIVALS:
            name = line.agent if line.agent in TEN else f"*{line.agent}*"
            rows.append(
                f"| [{name}](docs/agents.md#{line.agent}) | {family[line.agent].lower()} "
                f"| {summary(agents.get(line.agent))} | {line.score.text()} |"
            )
    experiment = results.experiment
    runs = sorted({line.runs // len(board.scenarios) for line in board.lines if line.agent in (*TEN, *RIVALS)})
    return "\n".join(
        [*rows, "", f"Ten of {len(built_in())} agents; in italics what they are measured by. Score = (agent - random) "
         f"/ (oracle - random) over {len(board.scenarios)} scenarios, {experiment.budget:,} steps of learning, "
         f"{' or '.join(map(str, runs))} seeds."]
    )  # fmt: skip


def _table(results: Results, board: Leaderboard) -> str:
    experiment = results.experiment
    note = (
        f"{experiment.budget:,} steps of learning, {experiment.episodes} held-out users, "
        f"{len(experiment.seeds)} seeds; score = (agent - random) / (oracle - random), interquartile mean with 95% "
        "bootstrap interval, on the right of it by scenario."
    )
    return "\n".join([reports.to_markdown(board), note, "", board.headline, *(f"\n{line}" for line in board.warnings)])


def findings(results: Results, board: Leaderboard) -> str:
    """What the table says, computed from it: who is above popularity where, and what clicks alone lead to.

    An agent is above another if its 95 % interval of the score lies wholly above the other's.
    """
    able = [line for line in board.lines if line.agent not in REFERENCES and line.runs]
    popular = next(line for line in board.lines if line.agent == "popularity")
    rows = ["| scenario | above popularity | the best of them | not above random |", "|:--|--:|:--|:--|"]
    for k, scenario in enumerate(board.scenarios):
        ranked = sorted(able, key=lambda line, k=k: -np.nan_to_num(line.scores[k].value, nan=-np.inf))  # type: ignore[misc]
        above = [line.agent for line in ranked if line.scores[k].low > popular.scores[k].high]
        rest = [line.agent for line in ranked if not line.scores[k].low > 0]
        rows.append(
            f"| {short(scenario)} | {len(above)} of {len(able) - 1} | {', '.join(above[:3]) or 'none'} "
            f"| {', '.join(rest) or 'none'} |"
        )
    median = {
        FAMILIES[family].lower(): float(np.median(values))
        for family, names in agents.families().items()
        if (values := [line.score.value for line in able if line.agent in names]) and family in FAMILIES
    }
    listed = ", ".join(f"{family} {value:.2f}" for family, value in sorted(median.items(), key=lambda pair: -pair[1]))
    return "\n".join([*rows, "", f"Median score by family: {listed}.", *_clickbait(results)])


def _clickbait(results: Results) -> list[str]:
    """Reward of a step and length of an episode of bandits without context in Video, against random slates."""
    video = "recsim_llm/Video-v0"
    bandits = [name for name in agents.families()["bandit"] if name in results.experiment.agents]
    if video not in results.experiment.scenarios or not bandits:
        return []
    one = results.part([video])

    def measured(agent: str) -> tuple[float, float]:
        length = float(np.nanmean(one.final(agent, "episode_length")))
        return float(np.nanmean(one.final(agent))) / length, length

    step, length = measured("random")
    gains, stays = zip(*((rate / step, time / length) for rate, time in map(measured, bandits)), strict=True)
    return [
        "",
        f"In Video bandits without context earn {min(gains):.1f} to {max(gains):.1f} times as much in a step as random "
        f"slates, in episodes {min(stays):.2f} to {max(stays):.2f} times as long.",
    ]


def _questions(results: Results) -> str:
    """The scenarios that ask something of their own: returns, and rewards while learning."""
    parts = []
    for extra in results.extras:
        board = reports.leaderboard(extra)
        parts += [f"**{short(board.scenarios[0])}.** {QUESTIONS.get(board.scenarios[0], '')}".rstrip(), ""]
        parts += ["| agent | return [95% CI] | reward of a step while learning |", "|:--|--:|--:|"]
        for line in sorted(board.lines, key=lambda line: -np.nan_to_num(line.returns[0].value, nan=-np.inf)):
            parts.append(f"| {line.label} | {line.returns[0].text(1)} | {line.online[0].text(3)} |")
        parts.append("")
    return "\n".join(parts)


def _agents(speeds: Path) -> str:
    rows = ["| family | agents |", "|:--|:--|"]
    for family, names in agents.families().items():
        if family in FAMILIES:
            links = ", ".join(f"[{name}](agents.md#{name})" for name in names)
            rows.append(f"| {FAMILIES[family].lower()} | {links} |")
    rows += ["", abilities()]
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


def _memory() -> str:
    """Bytes of an item, a user and a lane, counted over the arrays themselves."""
    world = random_world(1_000)
    packed = tables(world)
    item = packed.item_code.nbytes / len(world.catalog)
    user = (packed.user_code.nbytes + packed.profile_code.nbytes) / len(world.population)
    lanes = 64
    state = new_state(lanes, SLATE, len(SIGNALS), packed, Rules().replace(**ALL_RULES), TaskVariant())
    arrays = [array for array in vars(state).values() if isinstance(array, np.ndarray) and len(array) == lanes]
    return (
        f"Memory is linear: for each item {item:.0f} bytes of encodings and factors as 12-bit integers and "
        f"{ITEM.itemsize + TRADE.itemsize} of price, release, quality and provider; for each user {user:.0f} bytes of "
        f"codes and {USER.itemsize} of numbers. The state of a lane has "
        f"{sum(array.nbytes for array in arrays) / lanes / 1000:.1f} kB, whatever the catalogue, and its observation "
        "comes on top."
    )


def _ablation(content: dict[str, dict[str, float]]) -> str:
    """What the ablation of a step found: time [ns] by catalogue size and part left out."""
    return ablation.to_markdown({int(items): found for items, found in content.items()})


def _scale(content: dict[str, Any]) -> str:
    """What ``recsim-llm speed --scale --json`` found."""
    rows = content["tables"]["scale"]
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "--:|" * len(names)]
    lines += ["| " + " | ".join(f"{row[name]:,}" for name in names) + " |" for row in rows]
    return "\n".join(lines)


def _speeds(content: dict[str, Any]) -> str:
    rates = {row["agent"]: row for row in content["tables"]["agents"]}
    rows = ["| agent | slate 1 | slate 5 |", "|:--|--:|--:|"]
    for name, row in sorted(rates.items(), key=lambda entry: -entry[1]["slate 5"]):
        rows.append(f"| {name} | " + " | ".join(f"{row[key]:,.0f}" for key in ("slate 1", "slate 5")) + " |")
    return "\n".join([*rows, "", content["note"][0].upper() + content["note"][1:] + "."])


_WRITERS: tuple[tuple[str, str, str, Callable[[Any], str]], ...] = (
    ("docs/worlds.md", "movielens", "movielens.json", _movielens),
    ("docs/classics.md", "parity", "parity.json", parity.to_markdown),
    ("docs/classics.md", "compare", "compare.json", compare.to_markdown),
    ("docs/performance.md", "speed", "speed.json", _speed),
    ("docs/performance.md", "agents", "speed_agents.json", _speeds),
    ("docs/performance.md", "ablation", "ablation.json", _ablation),
    ("docs/performance.md", "scale", "scale.json", _scale),
)
"""Page, section, stored file and what writes it."""


def main() -> None:
    """Rewrites the README and the pages of this checkout."""
    for page, made in pages().items():
        write_file(ROOT / page, filled((ROOT / page).read_text(encoding="utf-8"), made).encode())


if __name__ == "__main__":
    main()
