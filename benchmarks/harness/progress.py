"""Progress of a run: a bar in a terminal, log records elsewhere."""

from __future__ import annotations

import logging

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from recsim_llm.benchmarks.harness.experiment import Cell
from recsim_llm.benchmarks.harness.records import DONE, REFUSED, Row

_log = logging.getLogger(__name__)


class Display:
    """Shows the progress of a run.

    Args:
        total: Number of cells of the experiment.
        before: How many of them were finished earlier.
        console: Where the bar goes; drawn only on a terminal.
    """

    def __init__(self, total: int, before: int, console: Console) -> None:
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[now]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("cells", total=total, completed=before, now="")
        self._total, self._finished, self._failed = total, before, 0

    def __enter__(self) -> Display:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def started(self, cell: Cell) -> None:
        """A cell was handed to a worker."""
        _log.info("started %s", cell.label)
        self._bar.update(self._task, now=_plain(cell.label))

    def finished(self, row: Row) -> None:
        """A row was stored."""
        self._finished += 1
        if row.state not in (DONE, REFUSED):
            self._failed += 1
            _log.warning("%s %s: %s", row.cell.label, row.state, row.result.get("error"))
        _log.info("%d of %d: %s is %s", self._finished, self._total, row.cell.label, row.state)
        title = f"cells ({self._failed} failed)" if self._failed else "cells"
        self._bar.update(self._task, advance=1, description=title)

    def note(self, text: str) -> None:
        """Says something without disturbing the bar."""
        if self._bar.disable:
            _log.warning("%s", text)
        else:
            self._bar.console.print(text, markup=False, highlight=False)


def _plain(text: str) -> str:
    return text.replace("[", "(").replace("]", ")")
