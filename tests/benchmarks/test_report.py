"""Tables, figures and the report: right, readable, stable to the byte, and safe with any text (RELIABILITY T26)."""

from __future__ import annotations

import csv
import html
import html.parser
import io
import itertools
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from rich.console import Console

from recsim_llm import benchmarks
from recsim_llm.benchmarks.analysis import figures, report
from recsim_llm.benchmarks.harness.experiment import Experiment
from recsim_llm.benchmarks.harness.records import DONE, FAILED, Row
from recsim_llm.benchmarks.harness.results import Results, safe_cell
from recsim_llm.benchmarks.harness.testing_cells import fake_experiment, fake_result
from recsim_llm.benchmarks.presets import DEMO_AGENTS, MUSIC, NEWS
from recsim_llm.errors import ConfigError

TEN = Experiment(scenarios=(MUSIC, NEWS), agents=DEMO_AGENTS, budget=10_000, episodes=20, name="ten agents")
HEADER = {"digest": "abc", "versions": {"numpy": "2"}, "machine": {"cores": 2}}


def results_of(experiment: Experiment, leave_out: int = 0) -> Results:
    rows = [Row(cell, DONE, fake_result(cell)) for cell in experiment.cells()]
    return Results(experiment, tuple(rows[leave_out:]), HEADER)


class TestLeaderboard:
    def test_oracle_is_one_and_random_zero(self) -> None:
        board = report.leaderboard(results_of(TEN))
        by_agent = {line.agent: line for line in board.lines}
        assert by_agent["oracle"].score.text() == "1.00 [1.00, 1.00]"
        assert by_agent["random"].score.text() == "0.00 [0.00, 0.00]"
        assert by_agent["linucb"].score.low > by_agent["popularity"].score.high
        assert board.lines[0].agent == "oracle"
        assert board.headline.startswith("linucb is best")
        assert "n = 5 seeds x 2 scenarios" in board.headline

    def test_agents_that_did_the_same_are_listed_once(self) -> None:
        """Of rows as a store holds them: the same in one scenario is said there, the same everywhere has one line."""
        names = ("random", "linucb", "mmr", "dpp", "fair_exposure", "oracle")
        experiment = Experiment(
            scenarios=(MUSIC, NEWS), agents=names, budget=10_000, episodes=20, fewer_seeds={"dpp": 2}
        )
        rows = {(row.cell.agent, row.cell.scenario, row.cell.seed): row for row in results_of(experiment).rows}
        for (agent, scenario, seed), row in rows.items():
            if agent == "dpp" or (agent == "mmr" and scenario == MUSIC):
                rows[agent, scenario, seed] = Row(row.cell, DONE, rows["linucb", scenario, seed].result)
        board = report.leaderboard(Results(experiment, tuple(rows.values()), HEADER))
        lines = {line.agent: line for line in board.lines}
        assert set(lines) == {"random", "linucb", "mmr", "fair_exposure", "oracle"}
        assert lines["linucb"].also == ("dpp",)
        assert lines["linucb"].same == ("", "")
        assert lines["mmr"].same == ("linucb", "")
        assert lines["fair_exposure"].same == ("", "")
        assert "dpp" not in {rival.agent for rival in board.rivals}
        table = report.to_markdown(board)
        assert "linucb (= dpp)" in table
        (mmr,) = (line.split("|") for line in table.splitlines() if "| mmr |" in line)
        assert mmr[3].strip() == "= linucb"
        assert "= " not in mmr[4]
        written = json.loads(report.to_json(board))["agents"]
        assert next(line["same"] for line in written if line["agent"] == "mmr") == {MUSIC: "linucb"}

    def test_the_same_as_two_others_is_still_listed(self) -> None:
        """As one agent here and as another there: it has done what none of them did."""
        names = ("random", "linucb", "thompson", "mmr", "oracle")
        experiment = Experiment(scenarios=(MUSIC, NEWS), agents=names, budget=10_000, episodes=20)
        rows = {(row.cell.agent, row.cell.scenario, row.cell.seed): row for row in results_of(experiment).rows}
        for (agent, scenario, seed), row in rows.items():
            if agent == "mmr":
                twin = "linucb" if scenario == MUSIC else "thompson"
                rows[agent, scenario, seed] = Row(row.cell, DONE, rows[twin, scenario, seed].result)
        lines = {
            line.agent: line for line in report.leaderboard(Results(experiment, tuple(rows.values()), HEADER)).lines
        }
        assert lines["mmr"].same == ("linucb", "thompson")
        assert all(not line.also for line in lines.values())

    def test_values_are_those_of_the_rows(self) -> None:
        results = results_of(TEN)
        board = report.leaderboard(results)
        line = next(line for line in board.lines if line.agent == "thompson")
        rows = [row for row in results.rows if row.cell.agent == "thompson"]
        music = [row.result["episode_returns"] for row in rows if row.cell.scenario == MUSIC]
        assert line.returns[0].value == pytest.approx(np.mean(music))
        assert line.ctr == pytest.approx(np.mean([row.result["ctr"][-1] for row in rows]))
        assert line.runs == 10

    def test_warnings(self) -> None:
        few = results_of(TEN.replace(seeds=(0, 1)), leave_out=1)
        bad = Row(few.rows[0].cell, FAILED, {"error_type": "ValueError", "error": "x", "last_lines": []})
        board = report.leaderboard(replace(few, rows=(bad, *few.rows[1:])))
        text = " ".join(board.warnings)
        assert "Only 2 seeds" in text
        assert "1 runs failed: popularity (failed)" in text
        assert "1 runs are missing" in text

    def test_an_oracle_that_is_not_above_random_is_said(self) -> None:
        """In the scenarios of the score and in those that ask something of their own."""
        results = results_of(TEN.replace(seeds=(0, 1), only={NEWS: ("random", "oracle")}))
        assert "not above random" not in " ".join(report.leaderboard(results).warnings)
        rows = tuple(
            replace(row, result={**row.result, "return": np.asarray(row.result["return"]) - 99.0})
            if row.cell.agent == "oracle" and (row.cell.seed or row.cell.scenario == NEWS)
            else row
            for row in results.rows
        )
        text = " ".join(report.leaderboard(replace(results, rows=rows)).warnings)
        assert "The oracle is not above random in 1 of 2 runs of Music; these runs have no score." in text
        assert "The oracle is not above random in 2 of 2 runs of News." in text

    def test_reward_while_learning_is_blank_where_nobody_learnt(self) -> None:
        results = results_of(TEN.replace(scenarios=(MUSIC,)))
        rows = tuple(
            replace(row, result={**row.result, "online": np.zeros(9), "trained_steps": np.zeros(9, int)})
            if row.cell.agent == "oracle"
            else row
            for row in results.rows
        )
        results = replace(results, rows=rows)
        board = report.leaderboard(results)
        online = {line.agent: line.online[0].text(3) for line in board.lines}
        assert online["oracle"] == "–"
        assert online["thompson"].startswith("0.")
        assert "0.000" not in report.to_markdown(board)
        assert {row["online"] for row in results.records() if row["agent"] == "oracle"} == {None}
        assert None not in {row["online"] for row in results.records() if row["agent"] == "thompson" and row["step"]}

    def test_arrays_have_the_form_that_rliable_takes(self) -> None:
        results = results_of(TEN, leave_out=1)
        matrix = results.to_rliable()
        assert list(matrix) == list(DEMO_AGENTS)
        assert {scores.shape for scores in matrix.values()} == {(5, 2)}
        assert results.score_curves("linucb").shape == (5, 2, 9)
        assert np.isnan(matrix["linucb"][0, 0])  # the run of random with that seed is missing
        assert np.isfinite(matrix["linucb"][1:]).all()
        with pytest.raises(ConfigError, match="Did you mean 'ctr'"):
            results.final("linucb", "ctrr")

    def test_records(self) -> None:
        records = results_of(TEN).records()
        assert len(records) == 100 * 9
        assert records[0]["scenario"] == MUSIC
        assert records[0]["step"] == 0
        assert records == sorted(records, key=lambda r: (r["scenario"], r["agent"], r["seed"], r["step"]))

    def test_the_best_is_compared_with_the_others(self) -> None:
        board = report.leaderboard(results_of(TEN))
        assert board.best == "linucb"
        assert {rival.agent for rival in board.rivals} == set(DEMO_AGENTS) - {"linucb", "oracle"}
        random = next(rival for rival in board.rivals if rival.agent == "random")
        assert random.chance.value == 1.0
        assert all(difference.low > 0 for difference in random.differences)

    def test_without_references_there_are_returns_but_no_scores(self, tmp_path: Path) -> None:
        results = results_of(TEN.replace(agents=("linucb", "thompson")))
        board = report.leaderboard(results)
        assert "No scores" in " ".join(board.warnings)
        assert board.lines[0].score.text() == "–"
        assert np.isfinite(board.lines[0].returns[0].value)
        assert "–" in report.to_markdown(board)
        names = [path.name for path in report.write_report(results, tmp_path)]
        assert "reward_curves.png" in names
        assert "scores.png" not in names

    def test_no_rows_at_all(self, tmp_path: Path) -> None:
        results = Results(TEN, (), HEADER)
        assert "100 runs are missing" in " ".join(report.leaderboard(results).warnings)
        report.write_report(results, tmp_path)
        content = json.loads((tmp_path / "summary.json").read_text(), parse_constant=pytest.fail)
        assert content["missing"] == 100
        assert content["experiment"]["name"] == "ten agents"


class TestForms:
    board = report.leaderboard(results_of(TEN))

    def test_markdown(self) -> None:
        lines = report.to_markdown(self.board).splitlines()
        assert len(lines) == 12
        assert len({line.count("|") for line in lines}) == 1
        assert "**linucb**" in lines[3]
        assert "**" not in lines[2]  # references do not compete
        assert "epsilon_greedy" in "\n".join(lines)

    def test_markdown_shows_any_text_as_it_is(self) -> None:
        shown = report._markdown("a|b <script> [x](javascript:1) _c_ `d`\n# e q_learning 0.5 [0.1, 0.9]")
        assert "\n" not in shown
        assert r"a\|b \<script\>" in shown
        assert r"[x\](" in shown
        assert r"\_c\_" in shown
        assert "q_learning 0.5 [0.1, 0.9]" in shown

    def test_csv_and_json_agree(self) -> None:
        table = list(csv.DictReader(io.StringIO(report.to_format(self.board, "csv"))))
        content = json.loads(report.to_format(self.board, "json"), parse_constant=pytest.fail)
        assert [line["agent"] for line in table] == [agent["agent"] for agent in content["agents"]]
        for line, agent in zip(table, content["agents"], strict=True):
            assert float(line["score"]) == agent["score"]["value"]
            assert float(line[f"{NEWS} return"]) == agent["returns"][NEWS]["value"]

    def test_terminal(self) -> None:
        console = Console(width=140, file=io.StringIO())
        console.print(report.to_rich(self.board))
        output = console.file.getvalue()  # type: ignore[attr-defined]
        assert "linucb" in output
        assert "1.00 [1.00, 1.00]" in output
        assert "linucb is best" in output

    def test_unknown_form(self) -> None:
        with pytest.raises(ConfigError, match="Did you mean 'json'"):
            report.to_format(self.board, "jsn")

    @pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "\u200b=1", " =1", "＝1"])
    def test_cells_that_a_spreadsheet_would_compute_are_neutralised(self, text: str) -> None:
        assert safe_cell(text) == f"'{text}"

    @pytest.mark.parametrize("text", ["linucb", "recsim_llm/Music-v0", "a=b", ""])
    def test_other_cells_stay(self, text: str) -> None:
        assert safe_cell(text) == text


class TestFigures:
    def test_bytes_are_the_same_every_time(self, tmp_path: Path) -> None:
        results = results_of(TEN)
        first, second = (figures.write_figures(results, tmp_path / name) for name in "ab")
        assert [path.name for path in first] == ["reward_curves.png", "reward_curves.svg", "scores.png", "scores.svg"]
        for one, two in zip(first, second, strict=True):
            assert one.read_bytes() == two.read_bytes()
            assert one.stat().st_size > 5_000
        assert b"<dc:date>" not in first[1].read_bytes()

    @pytest.mark.parametrize("count", [1, 2, 3, 5])
    def test_labels_do_not_overlap_and_lie_inside(self, count: int) -> None:
        scenarios = tuple(f"{MUSIC}{k}" for k in range(count))
        results = results_of(TEN.replace(scenarios=scenarios))
        with mpl.rc_context(dict[Any, Any](figures._RC)):
            figure = figures.reward_curves(results)
            canvas: Any = FigureCanvasAgg(figure)
            canvas.draw()
            renderer = canvas.get_renderer()
            panels = [axes for axes in figure.axes if axes.get_visible()]
            taken: list[Any] = [box for axes in panels for box in (axes.bbox, axes.yaxis.get_tightbbox(renderer))]
            names = [text for axes in panels for text in axes.texts]
            boxes: list[Any] = [
                Text.get_window_extent(name, renderer) for name in names
            ]  # without the line that leads there
            assert len(boxes) == 10 * count
            assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
            assert not any(box.overlaps(other) for box in boxes for other in taken)
            caption = figure.texts[0].get_window_extent(renderer)
            assert all(0 <= box.x0 < box.x1 <= figure.bbox.x1 for box in [*boxes, caption])
            assert not any(caption.overlaps(box) for axes in panels if (box := axes.xaxis.get_tightbbox(renderer)))

    def test_n_is_printed(self) -> None:
        figure = figures.reward_curves(results_of(TEN, leave_out=3))
        assert any("n = 5 seeds, 20 held-out users" in text.get_text() for text in figure.texts)
        assert any("3 are missing" in text.get_text() for text in figure.texts)

    def test_a_bad_start_does_not_squeeze_the_rest(self) -> None:
        good, bad = np.array([40.0, 50.0, 60.0, 62.0]), np.array([2.0, 70.0, 80.0, 81.0])
        bands = [(curve, curve - 1, curve + 1) for curve in (good, bad, good - 5)]
        bottom, top = figures._limits(bands)
        assert 25 < bottom < 34
        assert 82 < top < 86
        assert figures._limits(bands[1:2])[0] < 1  # nothing to be far below of
        flat = np.full(4, 3.0)
        assert figures._limits([(flat, flat, flat)]) == (2.0, 4.0)

    def test_an_agent_keeps_its_colour(self) -> None:
        few, many = figures.colours(("linucb", "ppo")), figures.colours(DEMO_AGENTS)
        assert few["linucb"] == many["linucb"]
        assert len({many[agent] for agent in DEMO_AGENTS}) == 10
        assert figures.colours(("mine", "linucb"))["mine"] not in figures.COLOURS.values()

    def test_no_global_state_is_left(self, tmp_path: Path) -> None:
        before = dict(mpl.rcParams)
        figures.write_figures(results_of(TEN.replace(seeds=(0,))), tmp_path)
        assert dict(mpl.rcParams) == before

    def test_spread_moves_labels_as_little_as_needed(self) -> None:
        np.testing.assert_allclose(figures.spread(np.array([0.0, 50.0]), 10.0), [0.0, 50.0])
        np.testing.assert_allclose(figures.spread(np.array([5.0, 5.0, 5.0]), 10.0), [-5.0, 5.0, 15.0])
        moved = figures.spread(np.sort(np.random.default_rng(0).uniform(0, 100, 12)), 9.0)
        assert (np.diff(moved) >= 9.0 - 1e-9).all()
        assert len(figures.spread(np.array([]), 9.0)) == 0


class Outline(html.parser.HTMLParser):
    """Elements and attributes of a page, without their texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.links: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(name for name, _ in attrs)))
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "action")]


PAYLOADS = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "<!-- --> ]]> <![CDATA[",
    "</title></style><iframe src=javascript:alert(1)>",
    "{{ 7 * 7 }} {% raw %} ${x} {0.__class__}",
    "\u2028\u2029\u202e &lt;b&gt; &#60;",
    "$\\frac{1}{2}$ -->",
    "javascript:alert(1)",
    "x" * 5_000,
]


class TestPage:
    def page(self, tmp_path: Path, text: str) -> str:
        experiment = fake_experiment(name=text, scenarios=(text,), agents=("random", "oracle", text[:300] + "."))
        results = results_of(experiment)
        bad = Row(results.rows[0].cell, FAILED, {"error_type": text, "error": text, "last_lines": [text, text]})
        results = replace(results, rows=(bad, *results.rows[1:]), problems=(text,))
        report.write_report(results, tmp_path)
        return (tmp_path / "report.html").read_text(encoding="utf-8")

    @pytest.mark.parametrize("number", range(len(PAYLOADS)))
    def test_text_never_becomes_markup(self, tmp_path: Path, number: int) -> None:
        def without_figures(page: str) -> list[tuple[str, tuple[str, ...]]]:
            inside = ("path", "use", "g", "defs", "clippath", "rect", "svg", "style")
            return [element for element in Outline(page).elements if element[0] not in inside]

        plain, hostile = self.page(tmp_path / "a", "plain"), self.page(tmp_path / "b", PAYLOADS[number])
        assert without_figures(hostile) == without_figures(plain)
        names = {name for _, attributes in Outline(hostile).elements for name in attributes}
        assert not [name for name in names if name.startswith("on")]

    def test_policy_and_no_network(self, tmp_path: Path) -> None:
        page = self.page(tmp_path, "plain")
        outline = Outline(page)
        assert "default-src 'none'" in html.unescape(page)
        assert "script" not in {tag for tag, _ in outline.elements}
        assert all(link.startswith("#") for link in outline.links)
        assert page.count("<svg") == 2
        identifiers = [part.split('"')[0] for part in page.split(' id="')[1:]]
        assert len(identifiers) == len(set(identifiers))

    def test_report_files(self, tmp_path: Path) -> None:
        results = results_of(TEN)
        written = benchmarks.write_report(results, tmp_path)
        assert {path.name for path in written} >= {"report.md", "summary.json", "leaderboard.csv", "report.html"}
        text = (tmp_path / "report.md").read_text()
        assert "![reward curves](reward_curves.png)" in text
        assert "common random numbers" in text
        again = {path: path.read_bytes() for path in written}
        benchmarks.write_report(results, tmp_path)
        assert {path: path.read_bytes() for path in written} == again


def test_importing_benchmarks_is_light() -> None:
    script = (
        "import sys; import recsim_llm.benchmarks;"
        "print([m for m in ('torch', 'matplotlib', 'scipy', 'pandas', 'jinja2', 'ray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
