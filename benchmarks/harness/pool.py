"""A pool of worker processes: one cell at a time each, so that a crash names its cell without guessing.

A shared queue would leave open which cell killed a worker, and break for all of them. Here the driver hands a worker
one cell, waits for all workers at once, and sees three things: an answer, a death, a time limit. It runs in one
thread. A worker's output is kept, the last lines of it, for the record of a crash.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from recsim_llm.benchmarks.harness import worker
from recsim_llm.benchmarks.harness.experiment import Cell
from recsim_llm.benchmarks.harness.records import KILLED, TIMEOUT, Row
from recsim_llm.errors import RecsimError

ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_OUTPUT_KEPT = 20_000  # [bytes]
_MAX_FAILED_STARTS = 3
_CONTEXT = multiprocessing.get_context("spawn")  # fork hangs once numba or torch have started threads

_log = logging.getLogger(__name__)


class WorkerError(RecsimError):
    """Worker processes cannot be started."""


@dataclass(eq=False)
class _Worker:
    process: SpawnProcess
    control: Connection
    output: Connection
    cell: Cell | None = None
    ready: bool = False
    deadline: float = float("inf")
    kept: bytearray = field(default_factory=bytearray)

    @classmethod
    def start(cls, function: str, modules: Sequence[str]) -> _Worker:
        control, control_child = _CONTEXT.Pipe()
        output, output_child = _CONTEXT.Pipe(duplex=False)
        process = _CONTEXT.Process(
            target=worker.main,
            args=(control_child, output_child),
            kwargs={"function": function, "modules": list(modules), "parent": os.getpid()},
            daemon=True,
        )
        with one_thread(), no_interrupt():
            process.start()
        control_child.close()
        output_child.close()
        os.set_blocking(output.fileno(), False)
        return cls(process, control, output)

    def give(self, cell: Cell, timeout: float | None) -> bool:
        """Hands over a cell; False if the worker has died meanwhile."""
        try:
            self.control.send_bytes(cell.to_json().encode("ascii"))
        except OSError:
            return False
        self.cell = cell
        self.deadline = time.monotonic() + timeout if timeout else float("inf")
        self.kept.clear()
        return True

    def receive(self) -> bytes | None:
        """A message, if one is there; None otherwise or if the worker is gone."""
        try:
            return self.control.recv_bytes() if self.control.poll() else None
        except (EOFError, OSError):
            return None

    def keep_output(self) -> None:
        """Takes what the worker has printed, keeping the end of it."""
        try:
            while chunk := os.read(self.output.fileno(), 65_536):
                self.kept += chunk
                del self.kept[:-_OUTPUT_KEPT]
                if len(chunk) < 65_536:
                    return
        except OSError:
            pass

    def last_lines(self) -> list[str]:
        """The last lines that the worker printed."""
        self.keep_output()
        lines = bytes(self.kept).decode("utf-8", "replace").splitlines()
        return [line[:500] for line in lines[-worker.LAST_LINES :]]

    def end(self, kill: bool) -> None:
        """Ends the process and frees what belongs to it."""
        if kill:
            self.process.kill()
        self.control.close()
        self.process.join(2.0)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.output.close()


class Pool:
    """Runs cells in worker processes.

    Args:
        function: Name in :data:`recsim_llm.benchmarks.harness.worker.CELL_FUNCTIONS`.
        jobs: Number of processes.
        timeout: Time limit of a cell [s]; None for none.
        retries: How often a cell runs again after its worker died.
        modules: What the workers import, see :func:`recsim_llm.benchmarks.harness.worker.import_modules`.
        started: Called with every cell that is handed out.
    """

    def __init__(
        self,
        function: str,
        jobs: int,
        timeout: float | None = None,
        retries: int = 1,
        modules: Sequence[str] = (),
        started: Callable[[Cell], None] = lambda cell: None,
    ) -> None:
        self.function, self.modules = function, modules
        self._jobs, self._timeout, self._retries = jobs, timeout, retries
        self.started = started
        self._workers: list[_Worker] = []
        self._deaths: Counter[str] = Counter()
        self._failed_starts = 0
        self.draining = False

    def run(self, cells: Iterable[Cell]) -> Generator[Row]:
        """Yields rows as they come; stops handing out cells once `draining` is set."""
        self._pending = deque(cells)
        try:
            while self._hand_out():
                yield from self._wait()
        finally:
            for one in self._workers:
                one.end(kill=one.cell is not None or not one.ready)
            self._workers.clear()

    def busy(self) -> list[Cell]:
        """The cells that run now."""
        return [one.cell for one in self._workers if one.cell]

    def _hand_out(self) -> bool:
        """Gives every idle worker a cell; False if there is nothing left to wait for."""
        if self.draining:
            self._pending.clear()
        idle = [one for one in self._workers if one.cell is None]
        for _ in range(min(self._jobs - len(self._workers), len(self._pending) - len(idle))):
            self._workers.append(_Worker.start(self.function, self.modules))
        for one in idle:
            if one.ready and self._pending and one.give(self._pending[0], self._timeout):
                self.started(self._pending.popleft())
        return bool(self._pending or self.busy())

    def _wait(self) -> Iterator[Row]:
        nearest = min(one.deadline for one in self._workers)
        watched: list[object] = []
        for one in self._workers:
            watched += [one.process.sentinel, one.control, one.output]
        seen = wait(watched, min(max(nearest - time.monotonic(), 0.0), 0.5))  # type: ignore[arg-type]
        for one in list(self._workers):
            if one.output in seen:
                one.keep_output()
            if one.control in seen or one.process.sentinel in seen:
                yield from self._answers(one)
            if one.process.sentinel in seen or not one.process.is_alive():
                yield from self._death(one)
            elif one.deadline < time.monotonic():
                yield self._overdue(one)

    def _answers(self, one: _Worker) -> Iterator[Row]:
        while (message := one.receive()) is not None:
            if message == worker.READY:
                one.ready, self._failed_starts = True, 0
            elif one.cell is not None:
                cell, one.cell, one.deadline = one.cell, None, float("inf")
                yield worker.row_from_answer(cell, message)

    def _death(self, one: _Worker) -> Iterator[Row]:
        yield from self._answers(one)  # what it said before it died still counts
        one.process.join()
        self._workers.remove(one)
        code, lines, cell = one.process.exitcode or 0, one.last_lines(), one.cell
        one.end(kill=False)
        if not one.ready:
            self._failed_start(code, lines)
        if cell is None:
            return
        self._deaths[cell.key] += 1
        _log.warning("the worker running %s died: %s", cell.label, _cause(code)[1])
        if self._deaths[cell.key] <= self._retries and not self.draining:
            self._pending.appendleft(cell)
            return
        name, message = _cause(code)
        yield Row(cell, KILLED, {"error_type": name, "error": message, "last_lines": lines})

    def _failed_start(self, code: int, lines: list[str]) -> None:
        self._failed_starts += 1
        if self._failed_starts > _MAX_FAILED_STARTS:
            said = "\n  ".join(["", *lines[-5:]])
            raise WorkerError(
                f"worker processes do not start ({_cause(code)[1]}).{said}\nA script that runs experiments needs the "
                'line `if __name__ == "__main__":` before it does so; jobs=0 runs without processes'
            )

    def _overdue(self, one: _Worker) -> Row:
        cell, lines = one.cell, one.last_lines()
        assert cell is not None
        self._workers.remove(one)
        one.end(kill=True)
        message = f"it took longer than the limit of {self._timeout:g} s"
        return Row(cell, TIMEOUT, {"error_type": "TimeoutError", "error": message, "last_lines": lines})


def _cause(code: int) -> tuple[str, str]:
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        hint = " (the system does this when memory runs out)" if name == "SIGKILL" else ""
        return name, f"its process was ended by {name}{hint}"
    return f"exit {code}", f"its process ended itself with exit code {code}"


@contextmanager
def one_thread() -> Iterator[None]:
    """Sets the thread variables to 1 for processes started inside; libraries read them when they are imported."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def no_interrupt() -> Iterator[None]:
    """Holds Ctrl-C back, also in processes started inside, until they can say what it means to them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
