"""Benchmarks: experiments as data, a resumable runner, scores with intervals, figures and reports.

from recsim_llm import benchmarks

results = benchmarks.run(benchmarks.preset("demo"), "runs/demo")
print(benchmarks.to_markdown(benchmarks.leaderboard(results)))
benchmarks.write_report(results, "runs/demo")
"""

from recsim_llm.benchmarks.analysis.leaderboard import Leaderboard, leaderboard
from recsim_llm.benchmarks.analysis.report import to_format, to_markdown, to_rich, write_report
from recsim_llm.benchmarks.harness.cell import Evaluation, evaluate
from recsim_llm.benchmarks.harness.experiment import Cell, Experiment
from recsim_llm.benchmarks.harness.results import METRICS, Results, load, results_csv
from recsim_llm.benchmarks.harness.runner import run
from recsim_llm.benchmarks.presets import PRESETS, preset

__all__ = [
    "METRICS",
    "PRESETS",
    "Cell",
    "Evaluation",
    "Experiment",
    "Leaderboard",
    "Results",
    "evaluate",
    "leaderboard",
    "load",
    "preset",
    "results_csv",
    "run",
    "to_format",
    "to_markdown",
    "to_rich",
    "write_report",
]
