"""A progress bar, where one is wanted."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType


class Progress:
    """A progress bar, or nothing."""

    def __init__(self, total: int, title: str, shown: bool) -> None:
        self.total, self.title, self.shown = total, title, shown

    def __enter__(self) -> Callable[[int], None]:
        if not self.shown:
            return lambda steps: None
        from rich.progress import Progress

        self.bar = Progress()
        self.bar.start()
        task = self.bar.add_task(self.title, total=self.total)
        return lambda steps: self.bar.advance(task, steps)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.shown:
            self.bar.stop()
