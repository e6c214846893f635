"""Ratings as CSV or Parquet: user_id, item_id, rating."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from recsim_llm.errors import ConfigError, DataError
from recsim_llm.files import write_file
from recsim_llm.judges.base import HIGHEST, LOWEST

COLUMNS = ("user_id", "item_id", "rating")


def write_ratings(path: Path | str, rows: Sequence[tuple[str, str, float]]) -> Path:
    """Writes ratings, the whole file or nothing.

    Args:
        path: Its name ends in ``.csv`` or ``.parquet``.
        rows: User's id, item's id and rating of each.

    Raises:
        ConfigError: If the name ends otherwise, or the folder is not there.
    """
    target = Path(path)
    check_name(target)
    if target.suffix.lower() == ".csv":
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((user, item, repr(float(rating))) for user, item, rating in rows)
        content = text.getvalue().encode()
    else:
        content = _parquet(rows)
    write_file(target, content)
    return target


def check_name(path: Path) -> None:
    """Refuses a file that :func:`write_ratings` could not write; better before the work than after it."""
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise ConfigError(f"{path}: ratings are written as .csv or .parquet; give the file such a name")
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent} is no folder; make it first")
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; name a file")


def read_ratings(path: Path | str, users: Sequence[str], items: Sequence[str]) -> list[tuple[str, str, float]]:
    """Reads a CSV or Parquet file of ratings.

    Args:
        path: The file, with columns user_id, item_id and rating.
        users: Ids of the known users.
        items: Ids of the known items.

    Raises:
        DataError: If it is not of that form, names anybody else, or has a rating beyond 1 to 5.
    """
    from recsim_llm.datasets.interactions import read_interactions

    log, _ = read_interactions(path, items, users)
    if log.kind != "rating":
        raise DataError(f"{Path(path).name}: has no column of ratings; it needs user_id, item_id and rating")
    wrong = np.flatnonzero(~((log.value >= LOWEST) & (log.value <= HIGHEST)))
    if len(wrong):
        row = int(wrong[0])
        raise DataError(
            f"{Path(path).name}: {len(wrong):,} ratings lie beyond 1 to 5, the first is {log.value[row]:g} of user "
            f"{users[log.user[row]]!r} on item {items[log.item[row]]!r}; bring them to that scale"
        )
    found = zip(log.user.tolist(), log.item.tolist(), log.value.tolist(), strict=True)
    return [(users[user], items[item], float(value)) for user, item, value in found]


def _parquet(rows: Sequence[tuple[str, str, float]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = (pa.string(), pa.string(), pa.float64())
    columns = {
        name: pa.array([row[place] for row in rows], kind)
        for place, (name, kind) in enumerate(zip(COLUMNS, kinds, strict=True))
    }
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    content: bytes = sink.getvalue().to_pybytes()
    return content
