"""Speed of the classic environments beside RecSim and RecSim NG, as ratios inside one run.

    python -m recsim_llm.benchmarks.speed.compare --python-recsim PATH --python-ng PATH [--out FILE]

``--python-recsim`` is an interpreter that has RecSim 0.2.4 (see ``benchmarks/studies/classics_reference.py``),
``--python-ng``
one with RecSim NG:

    python3.11 -m venv ng-venv
    ng-venv/bin/pip install "numpy<2" "scipy<1.11" tensorflow-cpu==2.15.1 tensorflow-probability==0.23 edward2 \
        recsim-ng==0.1.2

Either may be left out. Each simulator runs in an interpreter of its own, on one thread, and they measure in turns, so
that other load on the machine hits all alike. A rate is user-steps per second of processor time; a ratio is the median
over the rounds of the ratio within a round.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsim_llm.errors import ConfigError
from recsim_llm.files import write_file

WORKERS = Path(__file__).with_name("compare_workers.py")
ROUNDS, SECONDS = 9, 0.7

RATIOS = {
    "RecSim NG, graph, 1,024 users": (("ours", "1024 users, dict"), ("ng", "graph, 1024 users"), 3.0),
    "RecSim NG, graph, 8,192 users": (("ours", "8192 users, dict"), ("ng", "graph, 8192 users"), 3.0),
    "RecSim NG, stepwise, 1,024 users": (("ours", "1024 users, dict"), ("ng", "stepwise, 1024 users"), 3.0),
    "RecSim NG, stepwise, 8,192 users": (("ours", "8192 users, dict"), ("ng", "stepwise, 8192 users"), 3.0),
    "RecSim, many users": (("ours", "1024 users, dict"), ("recsim", "100 users"), 500.0),
    "RecSim, one user": (("ours", "one user"), ("recsim", "one user"), 20.0),
}
"""What is compared: (case of ours, case of theirs, the ratio aimed at)."""

WHAT = {
    "setting": (
        "Interest evolution: 1,000 documents that do not change, 20 topics, slates of 5. Each side draws its slates "
        "evenly, and this counts. One thread each. A user-step is one user's reaction to one slate with the update of "
        "her state."
    ),
    "ours": (
        "step() of gym.make_vec(..., resample_documents=False, copy=False) and of gym.make: rewards, observations, "
        "infos, resets of ended sessions. 'dict' gives the 1,000 documents as one array for all users, 'flat' keeps a "
        "row of 20,135 numbers for each; one user is flat and copied. A document has one topic, as in RecSim, so a "
        "score is one look-up."
    ),
    "recsim": "step() of a RecSimGymEnv: create_environment's, and one over a MultiUserEnvironment of 100 users.",
    "ng": (
        "simplified_recs_story with InterestEvolutionUser and random slates from a frozen corpus; no metrics, no "
        "neural recommender, sessions never end, observations of users are empty. Documents are dense, so a score is a "
        "distance in 20 dimensions. 'graph' runs 60 steps in one call and returns the last state; 'stepwise' calls a "
        "compiled step and reads choice and time consumed."
    ),
}


LABELS = {"ours": "Here", "recsim": "RecSim 0.2.4", "ng": "RecSim NG 0.1.2"}


@dataclass
class Worker:
    """A simulator in an interpreter of its own."""

    name: str
    process: subprocess.Popen[str]
    cases: list[str]

    @classmethod
    def start(cls, name: str, python: str) -> Worker:
        """Starts the interpreter and waits until it has compiled.

        Raises:
            ConfigError: If it does not come up; the message has the last lines of what it said.
        """
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        with tempfile.TemporaryFile("w+") as complaints:
            process = subprocess.Popen(  # noqa: S603  (interpreters that the caller named)
                [python, str(WORKERS), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints,
                text=True, env={**os.environ, **threads},
            )  # fmt: skip
            assert process.stdout is not None
            first = process.stdout.readline()
            if not first:
                process.communicate()
                complaints.seek(0)
                said = " / ".join(complaints.read().splitlines()[-5:])
                raise ConfigError(f"the interpreter {python} cannot run {name}: {said}")
        return cls(name, process, json.loads(first))

    def rate(self, case: str, seconds: float) -> float:
        """User-steps per second of processor time."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{case} {seconds}\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return float(answer["user_steps"] / answer["cpu_seconds"])

    def stop(self) -> None:
        """Ends the interpreter."""
        self.process.communicate()


def measure(pythons: dict[str, str], *, rounds: int = ROUNDS, seconds: float = SECONDS) -> dict[str, Any]:
    """Measures every case of the simulators in turns.

    Args:
        pythons: Interpreter of each: "ours", "recsim", "ng".
        rounds: How often each case is measured.
        seconds: Processor time of each measurement [s].

    Returns:
        "rates" (median of each case), "ratios" (median, lowest and highest over rounds, target), and what was done.
    """
    workers = [Worker.start(name, python) for name, python in pythons.items()]
    found: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for worker in workers:
            for case in worker.cases:
                found.setdefault((worker.name, case), []).append(worker.rate(case, seconds))
    for worker in workers:
        worker.stop()
    return {
        "what": {name: text for name, text in WHAT.items() if name == "setting" or name in pythons},
        "rounds": rounds,
        "seconds": seconds,
        "rates": [
            {"simulator": name, "case": case, "user-steps per CPU-second": _rounded(statistics.median(rates))}
            for (name, case), rates in found.items()
        ],
        "ratios": _ratios(found),
    }


def _ratios(found: dict[tuple[str, str], list[float]]) -> list[dict[str, Any]]:
    rows = []
    for name, (mine, theirs, target) in RATIOS.items():
        if theirs in found:
            ratios = [a / b for a, b in zip(found[mine], found[theirs], strict=True)]
            rows.append(
                {
                    "beside": name, "ours": mine[1], "ratio": _rounded(statistics.median(ratios)),
                    "lowest": _rounded(min(ratios)), "highest": _rounded(max(ratios)), "target": target,
                }
            )  # fmt: skip
    return rows


def to_markdown(result: dict[str, Any]) -> str:
    """The stored rates and ratios as a table."""
    rates = {(row["simulator"], row["case"]): row["user-steps per CPU-second"] for row in result["rates"]}
    lines = ["| beside | user-steps/s there | here | ratio | lowest, highest |", "|:--|--:|--:|--:|--:|"]
    for row in result["ratios"]:
        mine, theirs, _ = RATIOS[row["beside"]]
        lines.append(
            f"| {row['beside']} | {rates[theirs]:,.0f} | {rates[mine]:,.0f} | {row['ratio']:.4g} "
            f"| {row['lowest']:.4g}, {row['highest']:.4g} |"
        )
    flat = [f"{rates['ours', f'{lanes} users, flat']:,.0f} at {lanes:,} users" for lanes in (1024, 8192)]
    told = [f"* {label}: {result['what'][key]}" for key, label in LABELS.items() if key in result["what"]]
    setting = f"{result['what']['setting']} Rates are per second of processor time."
    return "\n".join([*lines, "", setting, "", *told, f"* Flat rows here: {' and '.join(flat)}."])


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def main() -> None:
    """Measures and writes the file."""
    parser = argparse.ArgumentParser(description="Speed beside RecSim and RecSim NG")
    parser.add_argument("--python-recsim", help="interpreter that has RecSim 0.2.4")
    parser.add_argument("--python-ng", help="interpreter that has RecSim NG 0.1.2")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--out", type=Path, default=WORKERS.parents[1] / "stored" / "compare.json")
    chosen = parser.parse_args()
    named = {"ours": sys.executable, "recsim": chosen.python_recsim, "ng": chosen.python_ng}
    pythons = {name: python for name, python in named.items() if python is not None}
    result = measure(pythons, rounds=chosen.rounds, seconds=chosen.seconds)
    write_file(chosen.out, (json.dumps(result, indent=1) + "\n").encode())
    for row in result["ratios"]:
        sys.stdout.write(f"{row['ratio']:8.1f} times {row['beside']} ({row['lowest']}..{row['highest']})\n")


if __name__ == "__main__":
    main()
