"""A table of text with the place of each row in its file, and the limits that a file must keep."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from recsim_llm.errors import DataError


@dataclass(frozen=True)
class Limits:
    """What a file may ask of this machine; raise a limit by passing ``Limits(rows=...)``.

    Attributes:
        rows: Most rows.
        columns: Most columns.
        field_bytes: Longest single value [byte].
        total_bytes: Largest file, and largest table in memory [byte].
    """

    rows: int = 50_000_000
    columns: int = 1_000
    field_bytes: int = 1 << 20
    total_bytes: int = 4 << 30


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of text and the place where each row stands in its file.

    Attributes:
        path: The file.
        columns: For each name an Arrow array of strings, without nulls (a missing value is empty text).
        row_numbers: [N] number of each row in the file, int64.
        from_float: Columns that a Parquet file stores as floating point; such a column cannot hold identifiers.
    """

    path: Path
    columns: dict[str, Any]
    row_numbers: Any
    from_float: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.row_numbers)

    def text(self, name: str) -> list[str]:
        """A column as a list of strings."""
        values: list[str] = self.columns[name].to_pylist()
        return values

    def value(self, row: int, name: str) -> str:
        """One cell, shortened for a message."""
        return shortened(self.columns[name][row].as_py())

    def fail(self, row: int, column: str, problem: str) -> NoReturn:
        """Raises the DataError for a cell; ``row`` is an index into this table."""
        raise DataError(f"{self.path.name}, row {self.row_numbers[row].as_py()}, column {quoted(column)}: {problem}")


def quoted(name: str) -> str:
    """A column's name between double quotation marks, on one line."""
    return json.dumps(name, ensure_ascii=False)


def shortened(value: str, width: int = 60) -> str:
    """A value as Python would quote it, cut to a length that fits a message."""
    return repr(value if len(value) <= width else value[: width - 3] + "...")


def over(path: Path, seen: str, limit: str, value: int) -> NoReturn:
    """Raises the DataError for a file that goes beyond a limit."""
    raise DataError(f"{path.name}: has {seen}, the limit is {value:,}; if you trust it, pass Limits({limit}=...)")


def check_names(path: Path, names: Sequence[str], limits: Limits) -> None:
    """Refuses a header that is blank, too wide, or names two columns alike."""
    if len(names) > limits.columns:
        over(path, f"{len(names):,} columns", "columns", limits.columns)
    if not any(name.strip() for name in names):
        raise DataError(f"{path.name}, row 1: is blank; the first row must hold the names of the columns")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DataError(f"{path.name}, row 1: two columns are named {shortened(name)}; rename one of them")
        seen.add(name)


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a path, with every link followed, lies in a folder."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
