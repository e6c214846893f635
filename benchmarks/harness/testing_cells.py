"""Fake cells for testing the store and the runner: arithmetic in place of learning, and every kind of failure."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from recsim_llm.benchmarks.harness import codec
from recsim_llm.benchmarks.harness.experiment import Cell, Experiment
from recsim_llm.benchmarks.harness.records import DONE, Row
from recsim_llm.benchmarks.harness.store import Store
from recsim_llm.errors import unknown

TRACE = "RECSIM_LLM_FAKE_TRACE"
"""Environment variable naming a file to which every started fake cell adds its key."""


class _Unpicklable(Exception):
    def __init__(self, first: str, second: str) -> None:
        super().__init__(first)

    def __reduce__(self) -> Any:
        raise TypeError("this exception cannot be pickled")


def fake_cell(cell: Cell) -> Mapping[str, Any]:
    """A row that depends on nothing but the cell.

    The agent's setting ``sleep`` [s] makes it last, and ``fault`` makes it fail in the way named in :data:`FAULTS`;
    with ``faulty_seeds``, only for these seeds; with ``marker``, only until that file exists.
    """
    if trace := os.environ.get(TRACE):
        with open(trace, "a", encoding="ascii") as file:
            file.write(f"{cell.key}\n")
    time.sleep(float(cell.agent_config.get("sleep", 0.0)))
    fault = cell.agent_config.get("fault")
    if fault and cell.seed in cell.agent_config.get("faulty_seeds", [cell.seed]) and _first_time(cell):
        if fault not in FAULTS:
            raise unknown("fault", fault, FAULTS)
        failed: Mapping[str, Any] = FAULTS[fault](cell)
        return failed
    return fake_result(cell)


def _first_time(cell: Cell) -> bool:
    marker = cell.agent_config.get("marker")
    if not marker:
        return True
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


SKILL = {"random": 0.0, "popularity": 0.35, "epsilon_greedy": 0.5, "thompson": 0.6, "linucb": 0.7, "oracle": 1.0}


def fake_result(cell: Cell) -> dict[str, Any]:
    """A row of the form that real cells return: learning curves that rise to a level set by the agent's name."""
    rng = np.random.default_rng([int(cell.key[:8], 16), 1])
    users = np.random.default_rng([cell.evaluation_seed, 2]).gamma(4.0, 1.0, cell.episodes)  # the same for all agents
    skill = SKILL.get(cell.agent, 0.2 + 0.5 * (sum(cell.agent.encode()) % 13) / 13)
    constant = cell.agent in ("random", "popularity", "oracle")
    steps = np.asarray(cell.checkpoints, dtype=np.float64)
    progress = np.ones_like(steps) if constant else 1.0 - np.exp(-4.0 * steps / max(cell.budget, 1))
    level = 4.0 + 6.0 * skill * progress
    noise = np.zeros_like(steps) if constant else rng.normal(0.0, 0.2, steps.size)
    episodes = users + level[-1] + noise[-1] + rng.normal(0.0, 1.0, cell.episodes)
    returns = users.mean() + level + noise
    returns[-1] = episodes.mean()
    points = len(cell.checkpoints)
    return {
        "steps": list(cell.checkpoints),
        "trained_steps": list(cell.checkpoints),
        "return": returns,
        "ctr": 0.05 + 0.03 * level / 10,
        "episode_length": np.full(points, 40.0),
        "coverage": np.full(points, 0.2 + 0.5 * (1 - skill)),
        "diversity": np.full(points, 0.5),
        "terminated": np.full(points, 0.25),
        "online": level / 40.0,
        "episode_returns": episodes,
        "items": 1000,
        "wall_train_s": time.perf_counter(),
        "wall_evaluate_s": 0.1,
        "cpu_train_s": time.process_time(),
        "cpu_evaluate_s": 0.1,
    }


def _exception(cell: Cell) -> Any:
    raise ValueError(f"seed {cell.seed} does not please me")


def _unpicklable_exception(cell: Cell) -> Any:
    raise _Unpicklable("first", "second")


def _unpicklable_result(cell: Cell) -> Any:
    return {"function": lambda: None}


def _kill(number: int) -> Any:
    def fault(cell: Cell) -> Any:
        print("last words before the signal", flush=True)
        os.kill(os.getpid(), number)
        time.sleep(60)

    return fault


def _endless_loop(cell: Cell) -> Any:
    while True:
        time.sleep(0.01)


def _endless_output(cell: Cell) -> Any:
    while True:
        sys.stdout.write("words, words, words\n" * 100)


def _recursion(cell: Cell) -> Any:
    return _recursion(cell)


def _memory(cell: Cell) -> Any:
    raise MemoryError


def _import_error(cell: Cell) -> Any:
    import recsim_llm.no_such_module  # type: ignore[import-not-found]  # noqa: F401


def _thread(cell: Cell) -> Any:
    """Leaves a thread behind that never ends; the worker must end all the same."""
    threading.Thread(target=threading.Event().wait).start()
    return fake_result(cell)


def _semaphore(cell: Cell) -> Any:
    """Keeps a lock of processes, as progress bars do; the worker must give it back."""
    vars(sys)["_recsim_llm_lock"] = multiprocessing.get_context("spawn").RLock()
    return fake_result(cell)


FAULTS: Mapping[str, Any] = {
    "exception": _exception,
    "unpicklable exception": _unpicklable_exception,
    "unpicklable result": _unpicklable_result,
    "SIGKILL": _kill(signal.SIGKILL),
    "SIGSEGV": _kill(signal.SIGSEGV),
    "exit 0": lambda cell: os._exit(0),
    "exit 1": lambda cell: os._exit(1),
    "sys.exit": lambda cell: sys.exit(3),
    "memory": _memory,
    "recursion": _recursion,
    "import": _import_error,
    "endless loop": _endless_loop,
    "endless output": _endless_output,
    "thread": _thread,
    "semaphore": _semaphore,
}


def fake_experiment(**changes: Any) -> Experiment:
    """A small experiment over fake cells; `changes` replace its values."""
    settings: dict[str, Any] = {
        "scenarios": ("Fake/A-v0", "Fake/B-v0"),
        "agents": ("random", "linucb", "oracle"),
        "seeds": (0, 1, 2),
        "budget": 1_000,
        "checkpoints": (0, 500, 1_000),
        "lanes": 4,
        "episodes": 8,
        "name": "fake",
    }
    return Experiment(**{**settings, **changes})


def prepare(experiment: Experiment) -> Mapping[str, str]:
    """Fake cells have no names to check and no worlds."""
    return {}


def kill_experiment(cells: int) -> Experiment:
    """An experiment of so many cells of 20 ms, a multiple of four."""
    agents = ("random", "linucb", "oracle", "thompson")
    return fake_experiment(
        agents=agents,
        scenarios=("Fake/A-v0",),
        seeds=tuple(range(cells // len(agents))),
        agent_configs={agent: {"sleep": 0.02} for agent in agents},
    )


def fake_row(cell: Cell) -> Row:
    """The row of a fake cell, with a text that is more than ASCII and without measured times."""
    result = {
        **codec.loads(codec.dumps(fake_result(cell))),
        "wall_train_s": 0.0,
        "cpu_train_s": 0.0,
        "note": "été ✓ \u2028",
    }
    return Row(cell, DONE, result)


def fill_store(experiment: Experiment, folder: Path, count: int = 6) -> Path:
    """Writes the rows of the first cells into a new store; returns its file."""
    with Store(folder, experiment) as opened:
        for cell in list(experiment.cells())[:count]:
            opened.append(fake_row(cell))
    return opened.path


if (
    __name__ == "__main__"
):  # python -m recsim_llm.benchmarks.harness.testing_cells FOLDER CELLS: the driver that tests kill
    from recsim_llm.benchmarks.harness.runner import run

    run(kill_experiment(int(sys.argv[2])), sys.argv[1], jobs=2, retry_failed=True, function="fake")
