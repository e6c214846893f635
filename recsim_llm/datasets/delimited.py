"""CSV files: comma, tab or semicolon, UTF-8 with or without a byte order mark, any line ends.

The parser is Arrow's, told to read text and nothing else. It is silent about a quotation mark that is never closed, so
a row of our own is put behind the file: if it does not come back as the last row, a quotation swallowed it.
"""

from __future__ import annotations

import codecs
import csv
import io
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from recsim_llm.datasets.text_table import Limits, Table, check_names, over, quoted
from recsim_llm.errors import DataError

SEPARATORS = {",": "comma", "\t": "tab", ";": "semicolon"}
_HEADER_BYTES = 1 << 18
_CHUNK = 1 << 20
_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip", b"BZh": "bzip2"}


def read_csv(path: Path, limits: Limits, separator: str | None) -> Table:
    """Reads a CSV file as text; see :func:`recsim_llm.datasets.read_table`."""
    _check_encoding(path)
    names, separator = _header(path, limits, separator)
    token = secrets.token_hex(16)
    batches, row = [], 1  # the header comes as the first row
    for batch in _csv_batches(path, limits, names, separator, token):
        _check_fields(path, batch, names, limits, row)
        row += len(batch)
        if row - 4 > limits.rows:
            over(path, f"more than {limits.rows:,} rows", "rows", limits.rows)
        batches.append(batch)
    table = pa.Table.from_batches(batches).combine_chunks()
    if not len(table) or table.column(0)[len(table) - 1].as_py() != token:
        raise DataError(
            f'{path.name}: a quotation mark is opened and never closed; look for a single " in the last rows '
            f'and write it twice ("")'
        )
    return _without_blank_rows(path, table.slice(0, len(table) - 1), names)


def _check_encoding(path: Path) -> None:
    """Reads the file once to see that it is UTF-8 without NUL; the error names row and byte."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset, row, pending = 0, 1, 0
    with path.open("rb") as stream:
        head = stream.read(6)
        for magic, name in _COMPRESSED.items():
            if head.startswith(magic):
                raise DataError(f"{path.name}: is compressed ({name}); unpack it first")
        stream.seek(0)
        while True:
            chunk = stream.read(_CHUNK)
            try:
                decoder.decode(chunk, final=not chunk)
                bad = chunk.find(b"\0")
            except UnicodeDecodeError as error:
                bad = max(error.start - pending, 0)
            if bad >= 0:
                seen = f"0x{chunk[bad]:02x}" if bad < len(chunk) else "the end of the file"
                raise DataError(
                    f"{path.name}, row {row + chunk[:bad].count(10)}: byte {offset + bad} ({seen}) is not text in "
                    f"UTF-8; save the file with the encoding UTF-8 (now Latin-1? UTF-16?)"
                )
            if not chunk:
                return
            pending = len(decoder.getstate()[0])
            offset += len(chunk)
            row += chunk.count(10)


def _header(path: Path, limits: Limits, separator: str | None) -> tuple[list[str], str]:
    with path.open("rb") as stream:
        head = stream.read(_HEADER_BYTES).decode("utf-8", "ignore").removeprefix("\ufeff")
    if separator is None:
        first = head.split("\n", 1)[0]
        outside = "".join(first.split('"')[::2])  # what stands between quotation marks does not separate
        separator = max(SEPARATORS, key=lambda mark: (outside.count(mark), mark == ","))
    elif len(separator) != 1 or separator in '"\r\n':
        raise DataError(f"separator {separator!r}: must be one character, such as a comma, tab or semicolon")
    try:
        names = next(csv.reader(io.StringIO(head, newline=""), delimiter=separator), [])
    except csv.Error as error:
        raise DataError(f"{path.name}, row 1: the header cannot be read ({error}); write names of columns") from error
    check_names(path, names, limits)
    return names, separator


def _csv_batches(path: Path, limits: Limits, names: list[str], separator: str, token: str) -> Iterator[Any]:
    """Record batches of strings; the last row is ``token``, unless a quotation mark was left open."""
    ragged: list[Any] = []

    def refuse(row: Any) -> str:
        ragged.append(row)
        return "error"

    tail = f"\n{token}{separator * (len(names) - 1)}\n".encode()
    block = max(_CHUNK, 2 * limits.field_bytes)
    try:
        with path.open("rb") as stream:
            yield from pacsv.open_csv(
                pa.PythonFile(_Followed(stream, tail), mode="r"),
                read_options=pacsv.ReadOptions(use_threads=False, block_size=block, column_names=names, skip_rows=0),
                parse_options=pacsv.ParseOptions(
                    delimiter=separator,
                    newlines_in_values=True,
                    ignore_empty_lines=False,
                    invalid_row_handler=refuse,
                ),
                convert_options=pacsv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.large_string()), null_values=[], strings_can_be_null=False
                ),
            )
    except pa.ArrowInvalid as error:
        if ragged:
            at = f"{path.name}, row {ragged[0].number}" if ragged[0].number else path.name
            raise DataError(
                f"{at}: has {ragged[0].actual_columns} values, the header {ragged[0].expected_columns}; put a value "
                f"that holds a {SEPARATORS.get(separator, 'separator')} between quotation marks"
            ) from error
        if "straddling" in str(error):
            raise DataError(
                f"{path.name}: a row is longer than {block:,} bytes; close the open quotation mark, or pass "
                f"Limits(field_bytes=...)"
            ) from error
        raise DataError(f"{path.name}: cannot be read as CSV ({error})") from error


class _Followed(io.RawIOBase):
    """A file with some bytes after its end."""

    def __init__(self, stream: Any, tail: bytes) -> None:
        self._stream, self._tail = stream, io.BytesIO(tail)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._stream.read(size) or self._tail.read(size)
        return data


def _check_fields(path: Path, batch: Any, names: Sequence[str], limits: Limits, row: int) -> None:
    for name, column in zip(names, batch.columns, strict=True):
        longest = pc.max(pc.binary_length(column)).as_py() or 0
        if longest > limits.field_bytes:
            at = row + pc.index(pc.binary_length(column), longest).as_py()
            over(
                path,
                f"a value of {longest:,} bytes in row {at}, column {quoted(name)}",
                "field_bytes",
                limits.field_bytes,
            )


def _without_blank_rows(path: Path, table: Any, names: Sequence[str]) -> Table:
    """Takes the header away, and rows in which nothing stands; row numbers stay those of the file."""
    table = table.slice(1)
    numbers = pa.array(np.arange(2, len(table) + 2))
    filled = pa.array(np.zeros(len(table), bool))
    for column in table.columns:
        filled = pc.or_(filled, pc.not_equal(column.combine_chunks(), ""))
    kept = table.filter(filled)
    columns = {name: kept.column(k).combine_chunks() for k, name in enumerate(names)}
    return Table(path, columns, numbers.filter(filled))
