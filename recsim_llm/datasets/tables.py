"""Tables of text: their limits, finding columns by their usual names, and reading numbers and dates out of text."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsim_llm.errors import ConfigError, DataError

_NUMBER = r"^\s*[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?\s*$"
SECONDS_A_DAY = 86_400.0


@dataclass(frozen=True)
class Limits:
    """Size limits of files that are read; raise one by passing ``Limits(rows=...)``.

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
    """A table of text columns that remembers each row's number in its file.

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


def refuse_over_limit(path: Path, seen: str, limit: str, value: int) -> NoReturn:
    """Raises the DataError for a file that goes beyond a limit."""
    raise DataError(f"{path.name}: has {seen}, the limit is {value:,}; if you trust it, pass Limits({limit}=...)")


def check_names(path: Path, names: Sequence[str], limits: Limits) -> None:
    """Refuses a header that is blank, too wide, or names two columns alike."""
    if len(names) > limits.columns:
        refuse_over_limit(path, f"{len(names):,} columns", "columns", limits.columns)
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


def _plain(name: str) -> str:
    return re.sub(r"[^0-9a-z]", "", name.casefold())


@dataclass(frozen=True)
class ColumnNames:
    """Columns that the user names, by role; see the ``ALIASES`` of the modules of :mod:`recsim_llm.datasets`."""

    items: Mapping[str, str | None] | None = None
    users: Mapping[str, str | None] | None = None
    interactions: Mapping[str, str | None] | None = None


class ColumnFinder:
    """Finds the columns of a table by role: the name that was given, else the first known alias.

    Args:
        table: The table.
        aliases: For each role the names it goes by, best first; case, blanks and underscores do not matter.
        named: Columns named by the user, by role.
    """

    def __init__(self, table: Table, aliases: Mapping[str, Sequence[str]], named: Mapping[str, str | None]) -> None:
        self.table = table
        self._found: dict[str, str] = {}
        for role in named:
            if role not in aliases:
                raise ConfigError(f"no column role {role!r}; known: {', '.join(aliases)}")
        spelled: dict[str, str] = {}
        for name in table.columns:
            spelled.setdefault(_plain(name), name)
        for role, names in aliases.items():
            wanted = named.get(role)
            if wanted is not None:
                self._found[role] = require_column(table, wanted)
            else:
                match = next((spelled[_plain(name)] for name in names if _plain(name) in spelled), None)
                if match is not None and match not in self._found.values():
                    self._found[role] = match

    def get(self, role: str) -> str | None:
        """Name of the column with a role, or None."""
        return self._found.get(role)

    def need(self, role: str, advice: str) -> str:
        """Name of the column with a role; DataError with the columns seen and the advice if there is none."""
        if role not in self._found:
            seen = ", ".join(shortened(name) for name in list(self.table.columns)[:20])
            raise DataError(f'{self.table.path.name}, row 1: no column "{role}"; the columns are {seen}. {advice}')
        return self._found[role]

    def text(self, role: str) -> list[str]:
        """A column of text, or empty text in every row."""
        name = self.get(role)
        return self.table.text(name) if name is not None else [""] * len(self.table)


def require_column(table: Table, name: str) -> str:
    """The name itself if the table has that column; DataError with the closest name otherwise."""
    if name in table.columns:
        return name
    close = difflib.get_close_matches(name, list(table.columns), n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    seen = ", ".join(shortened(column) for column in list(table.columns)[:20])
    raise DataError(f"{table.path.name}, row 1: no column {shortened(name)}.{hint} The columns are {seen}")


def first_true(mask: Any) -> int:
    """Index of the first true value of an Arrow array of truth values, -1 if there is none."""
    return int(pc.index(mask, pa.scalar(True)).as_py())


def identifiers(table: Table, name: str) -> Any:
    """A column of identifiers, exactly as written; none may be empty or come from floating point."""
    if name in table.from_float:
        table.fail(0, name, f"{table.value(0, name)} is a floating-point number; store identifiers as text or integers")
    row = first_true(pc.equal(table.columns[name], ""))
    if row >= 0:
        table.fail(row, name, "'' is empty; every row needs an identifier")
    return table.columns[name]


def unique_identifiers(table: Table, name: str | None) -> list[str]:
    """Identifiers of a table with one row for each; row numbers counted from 1 where there is no such column."""
    if name is None:
        return [str(row + 1) for row in range(len(table))]
    names: list[str] = identifiers(table, name).to_pylist()
    first: dict[str, int] = {}
    for row, value in enumerate(names):
        if first.setdefault(value, row) != row:
            before = table.row_numbers[first[value]].as_py()
            table.fail(row, name, f"{shortened(value)} is in row {before} already; every row needs its own identifier")
    return names


def numbers(table: Table, name: str, *, default: float | None = None, minimum: float = -np.inf) -> NDArray[np.float64]:
    """A column of finite numbers.

    Args:
        table: The table.
        name: The column.
        default: Value for empty cells; None refuses them.
        minimum: Smallest value allowed.

    Raises:
        DataError: At the first cell that is empty, not a number, NaN, infinite or too small.
    """
    text = pc.utf8_trim_whitespace(table.columns[name])
    empty = pc.equal(text, "")
    if default is not None:
        text = pc.if_else(empty, "0", text)
    row = first_true(pc.invert(pc.match_substring_regex(text, _NUMBER)))
    if row >= 0:
        table.fail(row, name, f"{table.value(row, name)} is not a number; write one such as 4.5 (a point, no comma)")
    values = np.asarray(pc.cast(text, pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)
    bad = ~np.isfinite(values) | (values < minimum) | (np.abs(values) > 1e30)
    if bad.any():
        row = int(np.argmax(bad))
        rule = f"must be at least {minimum:g}" if values[row] < minimum else "is too large for a number"
        table.fail(row, name, f"{table.value(row, name)} {rule}")
    if default is not None:
        values = np.where(empty.to_numpy(zero_copy_only=False), default, values)
    return values


def times(table: Table, name: str, *, default: float | None = None) -> tuple[NDArray[np.float64], bool]:
    """A column of numbers, or of dates such as 2018-09-26 or 2018-09-26T12:00:00 (UTC).

    Returns:
        The numbers as they are, or seconds since 1970; and whether they were dates.
    """
    text = pc.utf8_trim_whitespace(table.columns[name])
    filled = text.filter(pc.not_equal(text, ""))
    if len(filled) and pc.match_substring_regex(filled[:1], r"^\d{4}-\d\d-\d\d")[0].as_py():
        return _dates(table, name, text, default), True
    return numbers(table, name, default=default), False


def _dates(table: Table, name: str, text: Any, default: float | None) -> NDArray[np.float64]:
    out = np.zeros(len(table))
    for row, value in enumerate(text.to_pylist()):
        try:
            if not value and default is not None:
                out[row] = default
                continue
            if not re.match(r"^\d{4}-\d\d-\d\d", value):
                raise ValueError(value)
            moment = np.datetime64(value.removesuffix("Z").replace(" ", "T"), "us")
            out[row] = float(moment.astype(np.int64)) / 1e6
        except ValueError:
            table.fail(row, name, f"{table.value(row, name)} is not a date; write 2018-09-26 or 2018-09-26T12:00:00")
    return out


def statements(table: Table, name: str) -> list[list[tuple[str, float]]]:
    """A column of JSON lists of [statement, valence] pairs, valence in [-1, 1]; an empty cell is an empty list."""
    out: list[list[tuple[str, float]]] = []
    for row, text in enumerate(table.text(name)):
        try:
            pairs = json.loads(text, parse_constant=float) if text.strip() else []
            out.append([_pair(pair) for pair in _listed(pairs)])
        except (ValueError, RecursionError) as error:
            advice = 'write a list of [statement, valence in -1..1], such as [["old jazz", 1], ["metal", -0.5]]'
            table.fail(row, name, f"{table.value(row, name)} cannot be read ({str(error)[:80]}); {advice}")
    return out


def _listed(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"a list was expected, not {type(value).__name__}")
    return value


def _pair(pair: object) -> tuple[str, float]:
    if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[0], str) or not pair[0].strip():
        raise ValueError(f"{str(pair)[:40]} is not a pair of text and number")
    valence = pair[1]
    if isinstance(valence, bool) or not isinstance(valence, int | float) or not -1 <= valence <= 1:
        raise ValueError(f"valence {str(valence)[:40]} is not a number in -1..1")
    return pair[0], float(valence)
