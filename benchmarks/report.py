"""Leaderboards and reports: for the terminal, and as Markdown, CSV, JSON and one HTML page."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from recsim_llm.benchmarks import scores
from recsim_llm.benchmarks.results import ORACLE, RANDOM, Results, csv_text, safe_cell
from recsim_llm.benchmarks.scores import Estimate
from recsim_llm.errors import unknown
from recsim_llm.files import write_file

FEW_SEEDS = 5
FORMATS = ("md", "csv", "json")
_FOOTNOTE = (
    "Score: (agent - random) / (oracle - random) for each seed and scenario, interquartile mean with 95 % stratified "
    "bootstrap interval. Return: mean over held-out episodes with 95 % two-level bootstrap interval (seeds, then "
    "episodes)."
)


@dataclass(frozen=True)
class Line:
    """One agent in the leaderboard.

    Attributes:
        agent: Its name.
        score: Normalised score over all scenarios.
        returns: Return per episode, by scenario.
        ctr: Clicks per item shown, mean over runs.
        coverage: Share of the catalogue shown, mean over runs.
        train_s: Time for learning, mean over runs [s].
        runs: Runs that are done.
    """

    agent: str
    score: Estimate
    returns: tuple[Estimate, ...]
    ctr: float
    coverage: float
    train_s: float
    runs: int


@dataclass(frozen=True)
class Leaderboard:
    """A comparison, best agent first.

    Attributes:
        scenarios: Names of the columns of returns.
        lines: One for each agent.
        warnings: Sentences about what weakens the comparison.
        headline: What it says, in one sentence.
    """

    scenarios: tuple[str, ...]
    lines: tuple[Line, ...]
    warnings: tuple[str, ...]
    headline: str


def leaderboard(results: Results, seed: int = 0) -> Leaderboard:
    """Computes the leaderboard of an experiment; `seed` is that of the bootstrap."""
    lines = [_line(results, agent, seed) for agent in results.experiment.agents]
    lines.sort(key=lambda line: (-np.nan_to_num(line.score.value, nan=-np.inf), -_mean_return(line), line.agent))
    scenarios = results.experiment.scenarios
    return Leaderboard(scenarios, tuple(lines), tuple(warnings(results)), _headline(results, lines, seed))


def _line(results: Results, agent: str, seed: int) -> Line:
    return Line(
        agent=agent,
        score=scores.interval(results.scores(agent), seed),
        returns=tuple(
            scores.mean_of_episodes(results.episodes(agent, scenario), seed)
            for scenario in results.experiment.scenarios
        ),
        ctr=_mean(results.final(agent, "ctr")),
        coverage=_mean(results.final(agent, "coverage")),
        train_s=results.wall(agent, "train_s"),
        runs=int(np.sum(~np.isnan(results.final(agent)))),
    )


def _mean(values: Any) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def _mean_return(line: Line) -> float:
    return float(np.nan_to_num(_mean(np.array([one.value for one in line.returns])), nan=-np.inf))


def warnings(results: Results) -> list[str]:
    """What a reader has to know before believing the numbers."""
    found = []
    seeds = len(results.experiment.seeds)
    if seeds < FEW_SEEDS:
        found.append(f"Only {seeds} seed{'s' * (seeds != 1)}: intervals from fewer than {FEW_SEEDS} are rough.")
    if results.failed:
        names = sorted({f"{row.cell.agent} ({row.state})" for row in results.failed})
        found.append(f"{len(results.failed)} runs failed: {', '.join(names)}. They are left out.")
    if results.missing:
        found.append(f"{results.missing} runs are missing; the same command continues.")
    if not results.has_scores:
        found.append("No scores: they need the agents random and oracle.")
    elif bad := int(np.sum(results.final(ORACLE) <= results.final(RANDOM))):
        found.append(f"In {bad} runs the oracle is not above random; these have no score.")
    return [*found, *results.problems]


def _headline(results: Results, lines: list[Line], seed: int) -> str:
    able = [line for line in lines if line.agent not in (RANDOM, ORACLE) and line.runs]
    if not able:
        return "No agents to compare besides random and oracle."
    best = able[0]
    n = len(results.experiment.seeds)
    if len(able) == 1 or not results.has_scores:
        return f"{best.agent}: score {best.score.text()}, n = {n} seeds."
    second = able[1]
    chance = scores.improvement_interval(results.scores(best.agent), results.scores(second.agent), seed)
    return (
        f"{best.agent} is best with a score of {best.score.text()}; a run of it beats one of {second.agent} with "
        f"P = {chance.text()}, n = {n} seeds x {len(results.experiment.scenarios)} scenarios."
    )


def _best(board: Leaderboard) -> dict[str, set[str]]:
    """Agents with the highest value, by column; the references random and oracle do not compete."""
    able = [line for line in board.lines if line.agent not in (RANDOM, ORACLE)]
    columns = {"score": [line.score.value for line in able]}
    for k, scenario in enumerate(board.scenarios):
        columns[scenario] = [line.returns[k].value for line in able]
    return {
        name: {line.agent for line, value in zip(able, values, strict=True) if value == np.nanmax(values)}
        for name, values in columns.items()
        if np.isfinite(values).any()
    }


def _cells(board: Leaderboard) -> list[list[tuple[str, bool]]]:
    """The table's texts, each with whether it is the best of its column."""
    best = _best(board)
    rows = []
    for line in board.lines:
        row = [
            (line.agent, line.agent in best.get("score", ())),
            (line.score.text(), line.agent in best.get("score", ())),
        ]
        for scenario, value in zip(board.scenarios, line.returns, strict=True):
            row.append((value.text(), line.agent in best.get(scenario, ())))
        row += [(_number(line.ctr, 3), False), (_number(line.coverage, 2), False), (_number(line.train_s, 1), False)]
        rows.append(row)
    return rows


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else "–"


def _headers(board: Leaderboard) -> list[str]:
    returns = [f"{scenario.removeprefix('recsim_llm/')} return" for scenario in board.scenarios]
    return ["agent", "score [95% CI]", *returns, "ctr", "coverage", "train s"]


def to_rich(board: Leaderboard) -> Table:
    """The leaderboard for a terminal."""
    table = Table(caption=Text("\n".join([board.headline, *board.warnings])), caption_justify="left")
    for k, header in enumerate(_headers(board)):
        table.add_column(Text(header), justify="left" if k == 0 else "right", no_wrap=k == 0)
    for row in _cells(board):
        table.add_row(*(Text(text, style="bold" if best else "") for text, best in row))
    return table


def to_markdown(board: Leaderboard) -> str:
    """The leaderboard as a Markdown table."""
    headers = [_markdown(header) for header in _headers(board)]
    lines = ["| " + " | ".join(headers) + " |", "|:--|" + "--:|" * (len(headers) - 1)]
    for row in _cells(board):
        cells = (f"**{_markdown(text)}**" if best else _markdown(text) for text, best in row)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


_SPECIAL = re.compile(r"[\\`*<>|&#!~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|\](?=[(\[:])")


def _markdown(text: str) -> str:
    """Text that Markdown shows as it is."""
    return _SPECIAL.sub(r"\\\g<0>", " ".join(text.split()))


def to_format(board: Leaderboard, form: str) -> str:
    """The leaderboard as "md", "csv" or "json"."""
    if form not in FORMATS:
        raise unknown("format", form, FORMATS)
    if form == "md":
        return to_markdown(board)
    return to_json(board) if form == "json" else to_csv(board)


def to_csv(board: Leaderboard) -> str:
    """The leaderboard as CSV, all digits, with the ends of the intervals in columns of their own."""
    columns = ["agent", "score", "score_low", "score_high", "n"]
    for scenario in board.scenarios:
        columns += [f"{scenario} return", f"{scenario} low", f"{scenario} high"]
    lines: list[tuple[object, ...]] = []
    for line in board.lines:
        values: list[object] = [safe_cell(line.agent), line.score.value, line.score.low, line.score.high, line.score.n]
        for one in line.returns:
            values += [one.value, one.low, one.high]
        lines.append((*values, line.ctr, line.coverage, line.train_s))
    return csv_text(tuple(safe_cell(name) for name in (*columns, "ctr", "coverage", "train_s")), lines)


def to_json(board: Leaderboard) -> str:
    """The leaderboard as JSON."""
    return _json(_content(board))


def summary(results: Results, board: Leaderboard) -> dict[str, Any]:
    """The leaderboard with the experiment, the versions it was run with and the runs that failed, fit for JSON."""
    failed = [
        {"scenario": r.cell.scenario, "agent": r.cell.agent, "seed": r.cell.seed, "state": r.state, **r.result}
        for r in results.failed
    ]
    about = {name: results.header.get(name) for name in ("digest", "versions", "machine", "threads", "created")}
    experiment = json.loads(results.experiment.to_json())
    return {"experiment": experiment, **about, "missing": results.missing, "failed": failed, **_content(board)}


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n"


def _content(board: Leaderboard) -> dict[str, Any]:
    """The leaderboard as JSON holds it; what is not known is null."""

    def known(value: float) -> float | None:
        return value if np.isfinite(value) else None

    def estimate(one: Estimate) -> dict[str, float | None]:
        return {"value": known(one.value), "low": known(one.low), "high": known(one.high), "n": one.n}

    agents = [
        {
            "agent": line.agent,
            "score": estimate(line.score),
            "returns": {s: estimate(r) for s, r in zip(board.scenarios, line.returns, strict=True)},
            "ctr": known(line.ctr),
            "coverage": known(line.coverage),
            "train_s": known(line.train_s),
            "runs": line.runs,
        }
        for line in board.lines
    ]
    return {"headline": board.headline, "warnings": list(board.warnings), "agents": agents}


def write_report(results: Results, folder: Path | str, seed: int = 0) -> list[Path]:
    """Writes ``report.md``, ``summary.json``, ``leaderboard.csv``, ``report.html`` and the figures.

    Figures need the extra ``benchmarks``.

    Returns:
        The files written, the report first.
    """
    from recsim_llm.benchmarks.figures import write_figures
    from recsim_llm.benchmarks.report_page import page

    folder = Path(folder)
    figures = write_figures(results, folder, seed)
    board = leaderboard(results, seed)
    contents = {
        "report.md": markdown_report(results, board, [figure.name for figure in figures if figure.suffix == ".png"]),
        "summary.json": _json(summary(results, board)),
        "leaderboard.csv": to_format(board, "csv"),
        "report.html": page(results, board, _headers(board), _cells(board), figures, _FOOTNOTE),
    }
    for name, content in contents.items():
        write_file(folder / name, content.encode("utf-8"))
    return [*(folder / name for name in contents), *figures]


def markdown_report(results: Results, board: Leaderboard, figures: list[str]) -> str:
    """The whole report as Markdown."""
    experiment = results.experiment
    facts = [
        f"{len(experiment.scenarios)} scenarios x {len(experiment.agents)} agents x {len(experiment.seeds)} seeds",
        f"{experiment.budget:,} interactions for learning, over {experiment.lanes} users side by side",
        f"{experiment.episodes} held-out users per evaluation, the same for every agent (common random numbers)",
    ]
    parts = [
        f"# {_markdown(experiment.name)}",
        _markdown(board.headline),
        *(f"> **Note:** {_markdown(w)}" for w in board.warnings),
    ]
    parts += ["\n".join(f"* {fact}" for fact in facts), to_markdown(board).rstrip(), _FOOTNOTE]
    parts += [f"![{name.removesuffix('.png').replace('_', ' ')}]({name})" for name in figures]
    return "\n\n".join(parts) + "\n"
