"""Leaderboards and reports: for the terminal, and as Markdown, CSV, JSON and one HTML page."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from recsim_llm.benchmarks.analysis.leaderboard import REFERENCES, Leaderboard, Line, leaderboard, short
from recsim_llm.benchmarks.analysis.report_page import PageTable, page
from recsim_llm.benchmarks.analysis.scores import Estimate
from recsim_llm.benchmarks.harness.results import Results, csv_text, safe_cell
from recsim_llm.errors import unknown
from recsim_llm.files import write_file

__all__ = [
    "FORMATS",
    "leaderboard",
    "markdown_report",
    "summary",
    "to_csv",
    "to_format",
    "to_json",
    "to_markdown",
    "to_rich",
    "write_report",
]

FORMATS = ("md", "csv", "json")
MOST_RETURNS = 3
"""More scenarios than this are shown by their scores, without intervals; those are in the CSV and JSON files."""
_RIVAL_FOOTNOTE = (
    "P: probability that a run of the best agent scores higher than one of the other (Mann-Whitney), 0.5 is a tie. "
    "Difference: mean return of the best less that of the other, paired by held-out user under common random numbers. "
    "Both with 95 % bootstrap intervals, not corrected for the number of comparisons."
)
_FOOTNOTE = (
    "Score: (agent - random) / (oracle - random) for each seed and scenario, interquartile mean with 95 % stratified "
    "bootstrap interval. Return: mean over held-out episodes with 95 % two-level bootstrap interval (seeds, then "
    "episodes). Train s: processor time of learning, wall-clock time if a run lacks that. '= agent': exactly the same "
    "results as that one."
)
_WIDE_FOOTNOTE = (
    "Score: (agent - random) / (oracle - random) for each seed and scenario, interquartile mean with 95 % stratified "
    "bootstrap interval. Columns of scenarios: interquartile mean of the scores there; returns and all intervals are "
    "in leaderboard.csv and summary.json. Train s: processor time of learning, wall-clock time if a run lacks that. "
    "'= agent': exactly the same results as that one there."
)


def _is_wide(board: Leaderboard) -> bool:
    """Whether there are so many scenarios that a column shows the score alone."""
    return len(board.scenarios) > MOST_RETURNS


def _columns(board: Leaderboard, line: Line) -> list[str]:
    """What is shown of each scenario."""
    if _is_wide(board):
        texts = [_number(one.value, 2) for one in line.scores]
    else:
        texts = [one.text() for one in line.returns]
    same = line.same or ("",) * len(texts)
    return [f"= {other}" if other else text for text, other in zip(texts, same, strict=True)]


def _best(board: Leaderboard) -> dict[str, set[str]]:
    """Agents with the highest value, by column; the references, which know the truth or nothing, do not compete."""
    able = [line for line in board.lines if line.agent not in REFERENCES]
    columns = {"score": [line.score.value for line in able]}
    for k, scenario in enumerate(board.scenarios):
        columns[scenario] = [np.nan if any(line.same[k : k + 1]) else line.returns[k].value for line in able]
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
            (line.label, line.agent in best.get("score", ())),
            (line.score.text(), line.agent in best.get("score", ())),
        ]
        for scenario, text in zip(board.scenarios, _columns(board, line), strict=True):
            row.append((text, line.agent in best.get(scenario, ())))
        if len(board.scenarios) == 1:
            row.append((line.online[0].text(3), False))
        row += [(_number(line.ctr, 3), False), (_number(line.coverage, 2), False), (_number(line.train_s, 1), False)]
        rows.append(row)
    return rows


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else "–"


def _headers(board: Leaderboard) -> list[str]:
    names = [short(scenario) if _is_wide(board) else f"{_plain(scenario)} return" for scenario in board.scenarios]
    online = ["reward while learning"] if len(board.scenarios) == 1 else []
    return ["agent", "score [95% CI]", *names, *online, "ctr", "coverage", "train s"]


def _plain(scenario: str) -> str:
    return scenario.removeprefix("recsim_llm/")


def _rival_cells(board: Leaderboard) -> list[list[str]]:
    return [[r.agent, r.chance.text(), *(d.text() for d in r.differences)] for r in board.rivals]


def _rival_headers(board: Leaderboard) -> list[str]:
    differences = [f"{_plain(scenario)} difference" for scenario in board.scenarios]
    return [f"{board.best} against", "P(better run)", *differences]


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
    return _markdown_table(_headers(board), _cells(board))


def _markdown_table(headers: Sequence[str], rows: Sequence[Sequence[tuple[str, bool]]]) -> str:
    lines = ["| " + " | ".join(map(_markdown, headers)) + " |", "|:--|" + "--:|" * (len(headers) - 1)]
    for row in rows:
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
        columns += [f"{scenario} return", f"{scenario} low", f"{scenario} high", f"{scenario} score"]
    lines: list[tuple[object, ...]] = []
    for line in board.lines:
        values: list[object] = [safe_cell(line.agent), line.score.value, line.score.low, line.score.high, line.score.n]
        for one, score in zip(line.returns, line.scores, strict=True):
            values += [one.value, one.low, one.high, score.value]
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
            "also": list(line.also),
            "same": {s: other for s, other in zip(board.scenarios, line.same, strict=False) if other},
            "score": estimate(line.score),
            "returns": {s: estimate(r) for s, r in zip(board.scenarios, line.returns, strict=True)},
            "online": {s: estimate(r) for s, r in zip(board.scenarios, line.online, strict=True)},
            "scores": {s: estimate(r) for s, r in zip(board.scenarios, line.scores, strict=True)},
            "ctr": known(line.ctr),
            "coverage": known(line.coverage),
            "train_s": known(line.train_s),
            "runs": line.runs,
        }
        for line in board.lines
    ]
    rivals = [
        {
            "agent": rival.agent,
            "chance": estimate(rival.chance),
            "differences": {s: estimate(d) for s, d in zip(board.scenarios, rival.differences, strict=True)},
        }
        for rival in board.rivals
    ]
    return {
        "headline": board.headline,
        "warnings": list(board.warnings),
        "agents": agents,
        "best": board.best,
        "best_against": rivals,
    }


def _tables(board: Leaderboard) -> list[PageTable]:
    footnote = _WIDE_FOOTNOTE if _is_wide(board) else _FOOTNOTE
    tables = [PageTable("Leaderboard", _headers(board), _cells(board), footnote)]
    if board.rivals:
        rows = [[(text, False) for text in row] for row in _rival_cells(board)]
        tables.append(PageTable("The best against the others", _rival_headers(board), rows, _RIVAL_FOOTNOTE))
    return tables


def extra_tables(results: Results, seed: int = 0) -> list[PageTable]:
    """A leaderboard for each scenario that asks a question of its own."""
    boards = [leaderboard(extra, seed) for extra in results.extras]
    return [PageTable(short(board.scenarios[0]), _headers(board), _cells(board), _FOOTNOTE) for board in boards]


def write_report(results: Results, folder: Path | str, seed: int = 0) -> list[Path]:
    """Writes ``report.md``, ``summary.json``, ``leaderboard.csv``, ``report.html`` and the figures.

    Figures need the extra ``benchmarks``.

    Returns:
        The files written, the report first.
    """
    from recsim_llm.benchmarks.analysis.figures import write_figures

    folder = Path(folder)
    figures = write_figures(results, folder, seed)
    board = leaderboard(results, seed)
    contents = {
        "report.md": markdown_report(results, board, [figure.name for figure in figures if figure.suffix == ".png"]),
        "summary.json": _json(summary(results, board)),
        "leaderboard.csv": to_format(board, "csv"),
        "report.html": page(results, board, [*_tables(board), *extra_tables(results, seed)], figures),
    }
    for name, content in contents.items():
        write_file(folder / name, content.encode("utf-8"))
    return [*(folder / name for name in contents), *figures]


def markdown_report(results: Results, board: Leaderboard, figures: list[str]) -> str:
    """The whole report as Markdown."""
    experiment = results.experiment
    facts = [
        f"{len(results.main.experiment.scenarios)} scenarios x {len(experiment.agents)} agents x "
        f"{len(experiment.seeds)} seeds",
        f"{experiment.budget:,} interactions for learning, over {experiment.lanes} users side by side",
        f"{experiment.episodes} held-out users per evaluation, the same for every agent (common random numbers)",
    ]
    parts = [
        f"# {_markdown(experiment.name)}",
        _markdown(board.headline),
        *(f"> **Note:** {_markdown(w)}" for w in board.warnings),
    ]
    parts.append("\n".join(f"* {fact}" for fact in facts))
    for table in [*_tables(board), *extra_tables(results)]:
        parts += [f"## {table.title}", _markdown_table(table.headers, table.rows).rstrip(), table.footnote]
    parts += [f"![{name.removesuffix('.png').replace('_', ' ')}]({name})" for name in figures]
    return "\n\n".join(parts) + "\n"
