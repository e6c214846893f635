"""Reads files of items: a text for each, everything else optional."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsim_llm.datasets.readers import read_table
from recsim_llm.datasets.tables import (
    SECONDS_A_DAY,
    ColumnFinder,
    Limits,
    Table,
    identifiers,
    is_inside,
    numbers,
    require_column,
    times,
    unique_identifiers,
)
from recsim_llm.errors import DataError

ALIASES: dict[str, tuple[str, ...]] = {
    "item_id": ("item_id", "movieId", "itemId", "asin", "product_id", "item", "news_id", "track_id", "video_id", "id"),
    "text": ("text", "description", "overview", "abstract", "summary", "plot", "synopsis", "content", "body"),
    "title": ("title", "name", "headline"),
    "category": ("category", "genres", "genre", "categories", "topic", "theme"),
    "provider": ("provider", "artist", "brand", "publisher", "outlet", "creator", "author", "advertiser", "seller"),
    "price": ("price",),
    "released_at": ("released_at", "release_date", "published_at", "released"),
    "image": ("image", "image_path", "cover"),
}
NOTHING = "(no genres listed)"
"""What MovieLens writes for a film without a genre; read as empty."""
_TITLE_WORDS = 8


@dataclass(frozen=True, eq=False)
class Items:
    """Items as read from a file, one row for each of I items.

    Attributes:
        item_id: Unique text.
        text: What is encoded; never empty.
        title: One line each.
        category: Theme, or empty text.
        provider: Maker or seller, or empty text.
        price: [I], 0 where the file has none.
        released_at: [I] [day]; dates are counted back from the newest one, which is day 0.
        image: Path as written, inside the folder of the file; or None.
    """

    item_id: list[str]
    text: list[str]
    title: list[str]
    category: list[str]
    provider: list[str]
    price: NDArray[np.float64]
    released_at: NDArray[np.float64]
    image: list[str | None]

    def __len__(self) -> int:
        return len(self.item_id)


def read_items(
    path: str | Path,
    *,
    text_columns: Sequence[str] | None = None,
    columns: Mapping[str, str | None] | None = None,
    tags: str | Path | None = None,
    limits: Limits | None = None,
    separator: str | None = None,
) -> Items:
    """Reads a CSV or Parquet file of items.

    Args:
        path: The file.
        text_columns: Columns that are joined to the text, such as ``["title", "genres"]``; None takes the column
            "text" (or "description", "overview", ...).
        columns: Names of columns by role (the keys of :data:`ALIASES`), where they are not found by themselves.
        tags: A second file of notes on items (columns item and tag, one note a row), put behind the texts.
        limits: Most rows, columns and bytes.
        separator: Separator of CSV files; None finds it.

    Raises:
        DataError: With file, row and column, at the first thing that is wrong.
    """
    table = read_table(path, limits, separator)
    if not len(table):
        raise DataError(f"{table.path.name}: has a header and no rows; a world needs at least one item")
    found = ColumnFinder(table, ALIASES, columns or {})
    item_id = unique_identifiers(table, found.get("item_id"))
    text = _texts(table, found, text_columns)
    if tags is not None:
        text = _with_tags(item_id, text, read_table(tags, limits, separator))
    title = [
        " ".join((own.strip() or " ".join(words.split()[:_TITLE_WORDS])).split())
        for own, words in zip(found.text("title"), text, strict=True)
    ]
    return Items(
        item_id=item_id,
        text=text,
        title=title,
        category=[_first_of(value) for value in found.text("category")],
        provider=[value.strip() for value in found.text("provider")],
        price=_numbers(table, found.get("price"), 0.0),
        released_at=_days(table, found.get("released_at")),
        image=_images(table, found.get("image")),
    )


def _texts(table: Table, found: ColumnFinder, names: Sequence[str] | None) -> list[str]:
    if names is None:
        column = found.need("text", f"Name it text, or join others: text_columns {','.join(_guess(table))}")
        joined, blamed = [value.strip() for value in table.text(column)], column
    else:
        if not names:
            raise DataError("text_columns is empty; name at least one column")
        parts = [[_spoken(value) for value in table.text(require_column(table, name))] for name in names]
        joined, blamed = [_sentences(row) for row in zip(*parts, strict=True)], names[0]
    for row, value in enumerate(joined):
        if not value:
            table.fail(row, blamed, f"{table.value(row, blamed)} is empty text; every item needs a text to be encoded")
    return joined


def _guess(table: Table) -> list[str]:
    likely = [name for name in table.columns if name.casefold() in (*ALIASES["title"], *ALIASES["category"])]
    return likely or [" ".join(name.split())[:40] for name in table.columns][:2]


def _spoken(value: str) -> str:
    """A cell as words: lists written with bars become lists with commas."""
    value = value.strip()
    return "" if value == NOTHING else ", ".join(part.strip() for part in value.split("|") if part.strip())


def _sentences(parts: Sequence[str]) -> str:
    ended = [part if part[-1] in ".!?" else part + "." for part in parts if part]
    return " ".join(ended)


def _with_tags(item_id: list[str], text: list[str], table: Table) -> list[str]:
    found = ColumnFinder(table, {"item": ALIASES["item_id"], "tag": ("tag", "note", "label", "keyword")}, {})
    item = found.need("item", "Call the column that names the item item_id")
    tag = found.need("tag", "Call the column of notes tag")
    notes: dict[str, dict[str, None]] = {name: {} for name in item_id}
    for row, (name, note) in enumerate(zip(identifiers(table, item).to_pylist(), table.text(tag), strict=True)):
        if name not in notes:
            table.fail(row, item, f"{table.value(row, item)} is no item of the file of items; take the row out")
        if note.strip():
            notes[name][note.strip().lower()] = None
    return [
        _sentences([words, ", ".join(notes[name])]) if notes[name] else words
        for name, words in zip(item_id, text, strict=True)
    ]


def _first_of(value: str) -> str:
    value = value.strip()
    return "" if value == NOTHING else value.split("|")[0].strip()


def _numbers(table: Table, name: str | None, minimum: float) -> NDArray[np.float64]:
    return np.zeros(len(table)) if name is None else numbers(table, name, default=0.0, minimum=minimum)


def _days(table: Table, name: str | None) -> NDArray[np.float64]:
    if name is None:
        return np.zeros(len(table))
    values, dated = times(table, name, default=np.nan)
    if dated:
        values = (values - np.nanmax(values)) / SECONDS_A_DAY
    return np.nan_to_num(values)


def _images(table: Table, name: str | None) -> list[str | None]:
    if name is None:
        return [None] * len(table)
    folder = table.path.parent
    out: list[str | None] = []
    for row, value in enumerate(table.text(name)):
        if not value.strip():
            out.append(None)
            continue
        seen = table.value(row, name)
        try:
            inside = is_inside(folder / value, folder)
            there = (folder / value).is_file()
        except (OSError, ValueError):
            table.fail(row, name, f"{seen} is not a path; write one relative to the folder of this file")
        if not inside:
            table.fail(row, name, f"{seen} leads outside the folder of this file; copy the picture into that folder")
        if not there:
            table.fail(row, name, f"{seen} is not there; write a path relative to the folder of this file")
        out.append(value)
    return out
