"""Benchmarks: experiments as data, runner, store, statistics, figures and report.

from recsim_llm import benchmarks

results = benchmarks.run(benchmarks.preset("demo"), "runs/demo")
print(benchmarks.to_markdown(benchmarks.leaderboard(results)))
benchmarks.write_report(results, "runs/demo")
"""

from recsim_llm.benchmarks.analysis.leaderboard import Leaderboard, leaderboard
from recsim_llm.benchmarks.analysis.report import to_format, to_markdown, to_rich, write_report
from recsim_llm.benchmarks.harness.experiment import PRESETS, Cell, Experiment, preset
from recsim_llm.benchmarks.harness.results import METRICS, Results, load, results_csv
from recsim_llm.benchmarks.harness.runner import run

__all__ = [
    "METRICS",
    "PRESETS",
    "Cell",
    "Experiment",
    "Leaderboard",
    "Results",
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
