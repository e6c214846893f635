"""Optional progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def advance(title: str, total: int, shown: bool = True) -> Iterator[Callable[[int], None]]:
    """Shows a bar on standard error while the block runs.

    Args:
        title: What is being done.
        total: How many units there are.
        shown: Without it nothing is displayed and rich is not imported.

    Yields:
        A function that moves the bar by so many units.
    """
    if not shown:
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total)
        yield lambda done: bar.advance(task, done)
