"""Runs an experiment: cells in parallel into a store, resumable at any moment.

The same command, given again, runs what is missing. Rows do not depend on the number of processes nor on the order of
cells, since a cell holds everything its result depends on.
"""

from __future__ import annotations

import importlib
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from rich.console import Console

from recsim_llm.benchmarks.harness import worker
from recsim_llm.benchmarks.harness.experiment import Cell, Experiment
from recsim_llm.benchmarks.harness.pool import Pool
from recsim_llm.benchmarks.harness.progress import Display
from recsim_llm.benchmarks.harness.records import DONE, REFUSED, Row
from recsim_llm.benchmarks.harness.results import Results, load
from recsim_llm.benchmarks.harness.store import Store
from recsim_llm.errors import ConfigError, unknown

BACKENDS = ("local", "ray")


def run(
    experiment: Experiment,
    out: Path | str,
    *,
    jobs: int | None = None,
    timeout: float | None = None,
    retries: int = 1,
    retry_failed: bool = False,
    backend: str = "local",
    function: str = "train_and_evaluate",
    modules: Sequence[str] = (),
    order: Callable[[Sequence[Cell]], Sequence[Cell]] = lambda cells: cells,
    console: Console | None = None,
) -> Results:
    """Runs what is missing of an experiment and returns all its results.

    Args:
        experiment: What to run.
        out: Folder of the store; an interrupted run in it is continued, also by a larger experiment: with more agents,
            scenarios or seeds, only what is new runs.
        jobs: Worker processes; None for one per usable core, 0 to run in this process (for debugging).
        timeout: Time limit of a cell [s]; its row then says "timeout". Not with ``jobs=0`` or Ray.
        retries: How often a cell runs again when its worker process dies, before its row says "killed".
        retry_failed: Also run the cells again whose rows say "failed", "timeout" or "killed".
        backend: "local" or "ray".
        function: What runs a cell; a name in :data:`recsim_llm.benchmarks.harness.worker.CELL_FUNCTIONS`.
        modules: Names of modules that every process imports first, so that the agents, rules and scenarios which they
            register are known there. Only give modules that you trust: importing runs their code. The store keeps the
            names for people and never reads them; results are told apart by an agent's name and settings, so give an
            agent another name once its code has changed.
        order: Reorders the cells that are to run; results do not depend on it.
        console: Where progress is shown, if it is a terminal; None for standard error.

    Raises:
        ConfigError: If an argument, or a name in the experiment, is not valid, or a module cannot be imported.
        StoreError: If the folder holds an experiment with cells that this one has not, or another runner is writing
            there.
        KeyboardInterrupt: After Ctrl-C; once lets running cells finish, twice stops them. The store is intact.
    """
    if backend not in BACKENDS:
        raise unknown("backend", backend, BACKENDS)
    if jobs is not None and (isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 0):
        raise ConfigError(f"jobs is {jobs!r}; it must be a whole number of at least 0, or None")
    if timeout is not None and not timeout > 0:
        raise ConfigError(f"timeout is {timeout!r}; it must be above 0 [s], or None")
    worker.import_modules(modules)
    worlds = prepare(experiment, function)
    with Store(out, experiment, worlds, modules) as store:
        cells = list(experiment.cells(worlds))
        rows = store.contents.rows
        todo = [cell for cell in cells if _wanted(rows.get(cell.key), retry_failed)]
        pool = Pool(function, jobs if jobs is not None else usable_cores(), timeout, retries, modules)
        with (
            Display(len(cells), len(cells) - len(todo), console or Console(stderr=True)) as display,
            _interrupts(pool, display),
        ):
            pool.started = display.started
            with closing(_source(backend, pool, jobs)(order(todo))) as source:
                for row in source:
                    store.append(row)
                    display.finished(row)
        if pool.draining:
            missing = len(todo) - sum(cell.key in store.contents.rows for cell in todo)
            raise KeyboardInterrupt(f"stopped with {missing} cells missing; the same command continues")
    return load(out)


def prepare(experiment: Experiment, function: str) -> Mapping[str, str]:
    """Checks the names in an experiment and returns the content hash of each scenario's world."""
    worker.cell_function(function)
    module = importlib.import_module(worker.CELL_FUNCTIONS[function][0])
    worlds: Mapping[str, str] = module.prepare(experiment)
    return worlds


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _wanted(row: Row | None, retry_failed: bool) -> bool:
    return row is None or (row.state not in (DONE, REFUSED) and retry_failed)


Source = Callable[[Iterable[Cell]], Generator[Row]]


def _source(backend: str, pool: Pool, jobs: int | None) -> Source:
    if backend == "ray":
        from recsim_llm.benchmarks.harness.ray_backend import run_on_ray

        return lambda cells: run_on_ray(cells, jobs, pool)
    if jobs == 0:
        return lambda cells: _run_here(cells, pool)
    return pool.run


def _run_here(cells: Iterable[Cell], pool: Pool) -> Generator[Row]:
    for cell in cells:
        if pool.draining:
            return
        pool.started(cell)
        yield worker.row_from_answer(cell, worker.execute(pool.function, cell.to_json(), pool.modules))


@contextmanager
def _interrupts(pool: Pool, display: Display) -> Iterator[None]:
    """First Ctrl-C: hand out no more cells. Second: stop. Only the main thread can take signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_interrupt(number: int, frame: object) -> None:
        if pool.draining:
            raise KeyboardInterrupt("stopped; the same command continues")
        pool.draining = True
        display.note("Finishing the cells that are running. Ctrl-C again stops them now.")

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
