"""Cells on Ray: one task each, on this machine or a cluster; rows are the same as in local processes."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Any

from recsim_llm.benchmarks.harness import worker
from recsim_llm.benchmarks.harness.experiment import Cell
from recsim_llm.benchmarks.harness.pool import ONE_THREAD, Pool
from recsim_llm.benchmarks.harness.records import KILLED, Row
from recsim_llm.errors import MissingExtraError


def run_on_ray(cells: Iterable[Cell], jobs: int | None, pool: Pool) -> Generator[Row]:
    """Yields rows as tasks finish.

    Args:
        cells: What to run.
        jobs: At most so many tasks at once; None leaves it to Ray.
        pool: Says what runs a cell, which modules it needs and when to stop; is told of started cells.

    Raises:
        MissingExtraError: If Ray is not installed.
    """
    try:
        import ray  # type: ignore[import-not-found,unused-ignore]
    except ModuleNotFoundError as error:
        raise MissingExtraError('backend "ray" needs Ray, which is not installed: pip install ray') from error
    variables = {"env_vars": dict.fromkeys(ONE_THREAD, "1")}
    ray.init(ignore_reinit_error=True, log_to_driver=False, runtime_env=variables)
    task = ray.remote(num_cpus=1, max_retries=1)(worker.execute)
    pending, running = list(cells)[::-1], dict[Any, Cell]()
    while (pending and not pool.draining) or running:
        while pending and not pool.draining and len(running) < (jobs or len(pending) + len(running)):
            cell = pending.pop()
            running[task.remote(pool.function, cell.to_json(), list(pool.modules))] = cell
            pool.started(cell)
        finished, _ = ray.wait(list(running), num_returns=1, timeout=0.5)
        for reference in finished:
            yield _row(ray, running.pop(reference), reference)


def _row(ray: Any, cell: Cell, reference: Any) -> Row:
    try:
        return worker.row_from_answer(cell, ray.get(reference))
    except Exception as error:
        return Row(cell, KILLED, worker.describe(error))
