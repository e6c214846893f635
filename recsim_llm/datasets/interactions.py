"""Reads interaction logs: ratings or clicks of users on items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsim_llm.datasets.items import ALIASES as ITEM_ALIASES
from recsim_llm.datasets.readers import read_table
from recsim_llm.datasets.tables import ColumnFinder, Limits, Table, first_true, identifiers, numbers, times
from recsim_llm.datasets.users import ALIASES as USER_ALIASES
from recsim_llm.errors import DataError

ALIASES: dict[str, tuple[str, ...]] = {
    "user": ("user_id", *USER_ALIASES["user_id"][1:-1]),
    "item": ITEM_ALIASES["item_id"][:-1],
    "rating": ("rating", "stars", "score"),
    "click": ("click", "clicked", "clicks"),
    "time": ("timestamp", "time", "date", "datetime"),
}
_TRUTH = {"true": "1", "false": "0", "True": "1", "False": "0", "TRUE": "1", "FALSE": "0"}


@dataclass(frozen=True, eq=False)
class Interactions:
    """A log of N interactions of users with items.

    Attributes:
        user: [N] int64, index into the users.
        item: [N] int64, index into the items.
        value: [N] ratings as written, or clicks 0 and 1.
        kind: "rating" or "click".
        time: [N] as written (dates: seconds since 1970); zeros where the file has no time.
        dropped: Rows left out because their user or item is unknown, or rated again later.
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    value: NDArray[np.float64]
    kind: str
    time: NDArray[np.float64]
    dropped: int = 0

    def __len__(self) -> int:
        return len(self.user)


def read_interactions(
    path: str | Path,
    item_id: Sequence[str],
    user_id: Sequence[str] | None = None,
    *,
    columns: Mapping[str, str | None] | None = None,
    drop_unknown: bool = False,
    limits: Limits | None = None,
    separator: str | None = None,
) -> tuple[Interactions, list[str]]:
    """Reads a CSV or Parquet file of ratings or clicks.

    Args:
        path: The file. Columns: user, item, rating or click (neither: every row is a click), optional time.
        item_id: The known items.
        user_id: The known users; None takes those of the log, in the order in which they appear.
        columns: Names of columns by role (the keys of :data:`ALIASES`), where they are not found by themselves.
        drop_unknown: Leave out rows whose item or user is not known, instead of refusing them.
        limits: Most rows, columns and bytes.
        separator: Separator of a CSV file; None finds it.

    Returns:
        The meetings, and the users' ids that ``user`` points into. Of several ratings of one item by one user the
        latest counts; several clicks all count.

    Raises:
        DataError: With file, row and column, at the first thing that is wrong.
    """
    table = read_table(path, limits, separator)
    if not len(table):
        raise DataError(f"{table.path.name}: has a header and no rows; leave the file of interactions out instead")
    found = ColumnFinder(table, ALIASES, columns or {})
    user_column = found.need("user", "Name the column of users: user=...")
    item_column = found.need("item", "Name the column of items: item=...")
    users = identifiers(table, user_column)
    known = list(user_id) if user_id is not None else pc.unique(users).to_pylist()
    item = _positions(table, item_column, identifiers(table, item_column), item_id, "items", drop_unknown)
    user = _positions(table, user_column, users, known, "users", drop_unknown)
    kind, value = _values(table, found)
    when = found.get("time")
    time = times(table, when, default=0.0)[0] if when is not None else np.zeros(len(table))
    keep = np.flatnonzero((item >= 0) & (user >= 0))
    if kind == "rating":
        keep = keep[_latest(user[keep], item[keep], time[keep])]
    if not len(keep):
        raise DataError(f"{table.path.name}: no row names a known user and a known item; do the ids belong together?")
    log = Interactions(user[keep], item[keep], value[keep], kind, time[keep], len(table) - len(keep))
    return (log, known) if user_id is not None else _only_present(log, known)


def _positions(
    table: Table, column: str, values: object, known: Sequence[str], what: str, drop: bool
) -> NDArray[np.int64]:
    found = pc.index_in(values, pa.array(known, pa.large_string()))
    row = first_true(pc.is_null(found))
    if row >= 0 and not drop:
        table.fail(
            row,
            column,
            f"{table.value(row, column)} is not in the file of {what}; add it there, or drop such rows (drop_unknown)",
        )
    return np.asarray(pc.fill_null(found, -1).to_numpy(zero_copy_only=False), dtype=np.int64)


def _values(table: Table, found: ColumnFinder) -> tuple[str, NDArray[np.float64]]:
    rating, click = found.get("rating"), found.get("click")
    if rating is not None:
        return "rating", numbers(table, rating)
    if click is None:
        return "click", np.ones(len(table))
    text = table.columns[click]
    for word, digit in _TRUTH.items():
        text = pc.if_else(pc.equal(text, word), digit, text)
    value = numbers(Table(table.path, {click: text}, table.row_numbers), click)
    wrong = (value != 0) & (value != 1)
    if wrong.any():
        row = int(np.argmax(wrong))
        table.fail(row, click, f"{table.value(row, click)} is not a click; write 0 or 1, or call the column rating")
    return "click", value


def _latest(user: NDArray[np.int64], item: NDArray[np.int64], time: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rows that are the latest of their (user, item), the later row where times are equal; in the file's order."""
    order = np.lexsort((np.arange(len(user)), time, item, user))
    last = np.ones(len(user), bool)
    last[:-1] = (np.diff(user[order]) != 0) | (np.diff(item[order]) != 0)
    return np.sort(order[last])


def _only_present(log: Interactions, known: list[str]) -> tuple[Interactions, list[str]]:
    """Takes users out of whom every row was dropped."""
    present, index = np.unique(log.user, return_inverse=True)
    names = [known[row] for row in present]
    return Interactions(index.astype(np.int64), log.item, log.value, log.kind, log.time, log.dropped), names
