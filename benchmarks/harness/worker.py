"""A worker process: it takes cells as JSON, runs them and answers with JSON, which becomes a row.

Nothing is pickled in either direction, so no result and no exception can fail on its way: an exception becomes its
type's name, its message and the last lines of its traceback, here, in the worker.
"""

from __future__ import annotations

import ctypes
import faulthandler
import importlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import util
from multiprocessing.connection import Connection
from typing import Any

from recsim_llm.benchmarks.harness import codec
from recsim_llm.benchmarks.harness.experiment import Cell
from recsim_llm.benchmarks.harness.records import DONE, FAILED, REFUSED, Row
from recsim_llm.errors import ConfigError, RefusedError, unknown

CELL_FUNCTIONS: Mapping[str, tuple[str, str]] = {
    "train_and_evaluate": ("recsim_llm.benchmarks.harness.cell", "run_cell"),
    "fake": ("recsim_llm.benchmarks.harness.testing_cells", "fake_cell"),
}
"""What a cell can be run by. Files and command lines name a key of this table, never a module."""
READY = b"ready"
LAST_LINES = 20
_PARENT_CHECK = 0.5  # [s]
_PR_SET_PDEATHSIG = 1


def cell_function(name: str) -> Callable[[Cell], Mapping[str, Any]]:
    """The function of that name in :data:`CELL_FUNCTIONS`."""
    if name not in CELL_FUNCTIONS:
        raise unknown("cell function", name, CELL_FUNCTIONS)
    module, attribute = CELL_FUNCTIONS[name]
    function: Callable[[Cell], Mapping[str, Any]] = getattr(importlib.import_module(module), attribute)
    return function


def import_modules(names: Sequence[str]) -> None:
    """Imports modules of the user, which register agents, rules or scenarios as they are imported.

    The names come from a command line or a Python script, never from a stored file.

    Raises:
        ConfigError: If one cannot be imported.
    """
    if isinstance(names, str):
        raise ConfigError(f"modules is {names!r}; it must be a list of names, such as [{names!r}]")
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:
            raise ConfigError(
                f"the module {name!r} cannot be imported ({type(error).__name__}: {error}); it must be installed, or "
                "lie in a folder on the PYTHONPATH"
            ) from error


def execute(function: str, cell: str, modules: Sequence[str] = ()) -> str:
    """Runs one cell.

    Args:
        function: Name in :data:`CELL_FUNCTIONS`.
        cell: The cell as JSON.
        modules: What to import first, see :func:`import_modules`; a module is imported once in a process.

    Returns:
        JSON of ``{"state": "done", "result": ...}`` or of a failure or refusal with ``error_type``, ``error`` and
        ``last_lines``; :func:`row_from_answer` reads it.
    """
    try:
        import_modules(modules)
        result = cell_function(function)(Cell.from_json(cell))
        return codec.dumps({"state": DONE, "result": dict(result)})
    except KeyboardInterrupt:
        raise
    except RefusedError as error:
        return json.dumps({"state": REFUSED, "result": describe(error)})
    except BaseException as error:
        return json.dumps({"state": FAILED, "result": describe(error)})


def row_from_answer(cell: Cell, answer: str | bytes) -> Row:
    """The row of a cell from what :func:`execute` returned."""
    try:
        content = codec.loads(answer)
        state, result = content["state"], content["result"]
        if state in (DONE, FAILED, REFUSED) and isinstance(result, dict):
            return Row(cell, state, result)
    except (ValueError, KeyError, TypeError):
        pass
    unreadable = {"error_type": "ValueError", "error": "the worker's answer cannot be read", "last_lines": []}
    return Row(cell, FAILED, unreadable)


def describe(error: BaseException) -> dict[str, Any]:
    """An exception as text."""
    try:
        message = str(error)
    except BaseException:
        message = "(its message cannot be shown)"
    try:
        lines = "".join(traceback.format_exception(error)).splitlines()
    except BaseException:
        lines = []
    return {
        "error_type": type(error).__name__,
        "error": message[:2_000],
        "last_lines": [line[:500] for line in lines[-LAST_LINES:]],
    }


def main(control: Connection, output: Connection, *, function: str, modules: Sequence[str], parent: int) -> None:
    """Serves cells until the pipe closes.

    Args:
        control: Cells come in and answers go out here.
        output: Standard output and standard error go here, for the record of a crash.
        function: Name in :data:`CELL_FUNCTIONS`.
        modules: What cells need imported, see :func:`import_modules`.
        parent: Process id of the driver, without which this process ends.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver decides what Ctrl-C means
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    die_with(parent)
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    output.close()
    faulthandler.enable(file=sys.__stderr__ or 2)
    control.send_bytes(READY)
    while True:
        try:
            cell = control.recv_bytes().decode("ascii")
        except (EOFError, OSError):
            break
        answer = execute(function, cell, modules)
        sys.stdout.flush()
        sys.stderr.flush()
        control.send_bytes(answer.encode("utf-8", "surrogatepass"))
    util._run_finalizers(0)  # type: ignore[attr-defined]  # gives back semaphores, such as those of progress bars
    os._exit(0)  # a stray thread of a cell must not keep the process


def die_with(parent: int) -> None:
    """Ends this process when its parent ends, however that ends: by the kernel on Linux, and by a watching thread."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_CHECK)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()
