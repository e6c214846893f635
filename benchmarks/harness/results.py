"""Results of an experiment as arrays and as CSV, for tables and figures."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsim_llm.benchmarks.analysis import scores
from recsim_llm.benchmarks.harness import codec
from recsim_llm.benchmarks.harness.experiment import Experiment
from recsim_llm.benchmarks.harness.records import DONE, REFUSED, Row, read
from recsim_llm.errors import StoreError, unknown

Floats = NDArray[np.float64]
METRICS: Mapping[str, str] = {
    "return": "sum of rewards of an episode",
    "ctr": "clicks per item shown",
    "episode_length": "steps of an episode",
    "coverage": "share of the catalogue that was shown",
    "diversity": "diversity within a slate, as the environment measures it",
    "terminated": "share of episodes that the user ended",
    "online": "reward of a step while learning, since the checkpoint before; unknown before anything was learnt",
}
"""What is measured at every checkpoint, each a mean over the evaluation episodes but the last."""
RANDOM, ORACLE = "random", "oracle"
ONLINE = "online"
_FORMULA_STARTS = tuple("=+-@\t\r＝＋－＠")
_INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff"


@dataclass(frozen=True)
class Results:
    """All rows of an experiment.

    Attributes:
        experiment: What was run.
        rows: The last valid row of each cell, in the order of the store.
        header: The store's header: versions, machine, threads.
        problems: What is wrong with the store, in sentences.
    """

    experiment: Experiment
    rows: tuple[Row, ...]
    header: Mapping[str, object]
    problems: tuple[str, ...] = ()

    @cached_property
    def _done(self) -> dict[tuple[str, str, int], Row]:
        return {(row.cell.scenario, row.cell.agent, row.cell.seed): row for row in self.rows if row.state == DONE}

    @property
    def failed(self) -> tuple[Row, ...]:
        """Rows of cells that failed."""
        return tuple(row for row in self.rows if row.state not in (DONE, REFUSED))

    @cached_property
    def refused(self) -> Mapping[tuple[str, str], str]:
        """Why agents cannot work in scenarios, by scenario and agent."""
        return {(r.cell.scenario, r.cell.agent): str(r.result.get("error")) for r in self.rows if r.state == REFUSED}

    @cached_property
    def main(self) -> Results:
        """The scenarios that make up the score."""
        return self.part([name for name in self.experiment.scenarios if name not in self.experiment.only])

    @property
    def extras(self) -> tuple[Results, ...]:
        """The scenarios that ask a question of their own, one by one."""
        return tuple(self.part([name]) for name in self.experiment.scenarios if name in self.experiment.only)

    def part(self, scenarios: Sequence[str]) -> Results:
        """The results of some scenarios; all of them where these are none."""
        if not scenarios or (tuple(scenarios) == self.experiment.scenarios and not self.experiment.only):
            return self
        rows = tuple(row for row in self.rows if row.cell.scenario in scenarios)
        return replace(self, experiment=self.experiment.part(scenarios), rows=rows)

    @property
    def missing(self) -> int:
        """Number of cells without a row."""
        return self.experiment.size - len(self.rows)

    def curves(self, agent: str, metric: str = "return") -> Floats:
        """A metric at every checkpoint [S, N, points]; NaN where a run is missing."""
        if metric not in METRICS:
            raise unknown("metric", metric, METRICS)
        shape = (len(self.experiment.seeds), len(self.experiment.scenarios), len(self.experiment.checkpoints))
        values = np.full(shape, np.nan)
        for s, seed in enumerate(self.experiment.seeds):
            for n, scenario in enumerate(self.experiment.scenarios):
                row = self._done.get((scenario, agent, seed))
                if row is not None:
                    values[s, n] = row.result.get(metric, np.nan)  # measures may be younger than the store
                    if metric == ONLINE:  # rows say 0 where nobody learnt: at the first checkpoint, of fixed policies
                        values[s, n][np.asarray(row.result["trained_steps"]) == 0] = np.nan
        return values

    def final(self, agent: str, metric: str = "return") -> Floats:
        """A metric at the last checkpoint [S, N]; NaN where a run is missing."""
        return self.curves(agent, metric)[:, :, -1]

    def episodes(self, agent: str, scenario: str) -> Floats:
        """Returns of the single evaluation episodes at the last checkpoint [S, E]; NaN where a run is missing."""
        values = np.full((len(self.experiment.seeds), self.experiment.episodes), np.nan)
        for s, seed in enumerate(self.experiment.seeds):
            row = self._done.get((scenario, agent, seed))
            if row is not None:
                values[s] = row.result["episode_returns"]
        return values

    def train_seconds(self, agent: str) -> float:
        """Mean over runs of the time for learning [s]; NaN if there is none.

        It is processor time, which hardly depends on what else the machine did. Where one of the experiment's rows is
        older than that measure it is wall-clock time for all agents, so that like is compared with like.
        """
        key = "cpu_train_s" if all("cpu_train_s" in row.result for row in self._done.values()) else "wall_train_s"
        values = [row.result[key] for (_, who, _), row in self._done.items() if who == agent and key in row.result]
        return float(np.mean(values)) if values else float("nan")

    @property
    def has_scores(self) -> bool:
        """Whether random and oracle are there to normalise with."""
        return {RANDOM, ORACLE} <= set(self.experiment.agents)

    def scores(self, agent: str) -> Floats:
        """Normalised final scores [S, N]; all NaN without random and oracle, or if it refused one of the scenarios.

        A mean over other scenarios than those of the other agents would be no score.
        """
        if any(refused == agent for _, refused in self.refused):
            return np.full((len(self.experiment.seeds), len(self.experiment.scenarios)), np.nan)
        return self.scenario_scores(agent)

    def scenario_scores(self, agent: str) -> Floats:
        """Normalised final scores [S, N] wherever it ran."""
        if not self.has_scores:
            return np.full((len(self.experiment.seeds), len(self.experiment.scenarios)), np.nan)
        return scores.normalised(self.final(agent), self.final(RANDOM), self.final(ORACLE))

    def score_curves(self, agent: str) -> Floats:
        """Normalised learning curves [S, N, points]; the references are the final random and oracle returns."""
        return scores.normalised(self.curves(agent), self.final(RANDOM), self.final(ORACLE))

    def records(self) -> list[dict[str, str | int | float | None]]:
        """One record per run and checkpoint, sorted; a run that failed has one, without values."""
        found: list[dict[str, str | int | float | None]] = []
        for row in sorted(self.rows, key=lambda row: (row.cell.scenario, row.cell.agent, row.cell.seed)):
            cell, result, done = row.cell, row.result, row.state == DONE
            for k, step in enumerate(cell.checkpoints if done else (None,)):
                values = {name: float(result[name][k]) if done and name in result else None for name in METRICS}
                if done and int(result["trained_steps"][k]) == 0:
                    values[ONLINE] = None
                found.append(
                    {
                        "scenario": cell.scenario,
                        "agent": cell.agent,
                        "seed": cell.seed,
                        "state": row.state,
                        "step": step,
                        "trained_steps": int(result["trained_steps"][k]) if done else None,
                        **values,
                        "error": None if done else str(result.get("error_type", "")),
                    }
                )
        return found

    def to_rliable(self) -> dict[str, Floats]:
        """Scores by agent, each [S, N], as the rliable library takes them."""
        return {agent: self.scores(agent) for agent in self.experiment.agents}


def load(out: Path | str) -> Results:
    """Reads the results in a folder; never changes anything there.

    Raises:
        StoreError: If there are none, or the header does not hold an experiment.
    """
    contents = read(out)
    assert contents.header is not None
    try:
        experiment = Experiment.from_json(codec.dumps(contents.header["definition"]))
    except (KeyError, ValueError) as error:
        raise StoreError(f"{out}: the header does not hold a valid experiment: {error}") from error
    return Results(experiment, tuple(contents.rows.values()), contents.header, tuple(contents.problems))


CSV_COLUMNS = ("scenario", "agent", "seed", "state", "step", "trained_steps", *METRICS, "error")


def results_csv(out: Path | str) -> str:
    """The rows in a folder as CSV, one line per run and checkpoint, sorted, without wall-clock columns."""
    lines: list[tuple[object, ...]] = []
    for record in load(out).records():
        values = (record[name] for name in CSV_COLUMNS)
        lines.append(tuple(safe_cell(value) if isinstance(value, str) else _shown(value) for value in values))
    return csv_text(CSV_COLUMNS, lines)


def _shown(value: object) -> object:
    return "" if value is None else value


def csv_text(columns: tuple[str, ...], lines: list[tuple[object, ...]]) -> str:
    """Lines as CSV text with a header."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(lines)
    return text.getvalue()


def safe_cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula: a leading ``= + - @ TAB CR`` gets an apostrophe before it."""
    return f"'{text}" if text.lstrip(_INVISIBLE + " ").startswith(_FORMULA_STARTS) else text
