"""Reads people's own CSV and Parquet files into tables of text, exactly as written.

Identifiers are text: ``007`` is not ``7``, ``1e5`` is not a number, ``NA`` is a name. Nothing is guessed from a value's
look. Rows are counted as a reader counts them: in a CSV file the header is row 1, in a Parquet file the first row is 1.

CSV is comma, tab or semicolon, UTF-8 with or without a byte order mark, any line ends. The parser is Arrow's, told to
read text and nothing else. It is silent about a quotation mark that is never closed, so a row of our own is put behind
the file: if it does not come back as the last row, a quotation swallowed it. Of a Parquet file rows, columns and bytes
are checked in the metadata before anything is allocated.
"""

from __future__ import annotations

import codecs
import csv
import io
import secrets
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from recsim_llm.datasets.tables import Limits, Table, check_names, quoted, refuse_over_limit
from recsim_llm.errors import DataError

SEPARATORS = {",": "comma", "\t": "tab", ";": "semicolon"}
_HEADER_BYTES = 1 << 18
_CHUNK = 1 << 20
_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip", b"BZh": "bzip2"}


def read_table(path: str | Path, limits: Limits | None = None, separator: str | None = None) -> Table:
    """Reads a CSV file (comma, tab or semicolon; UTF-8) or, where the name ends in ``.parquet``, a Parquet file.

    Args:
        path: The file. Addresses on the network are not opened.
        limits: Most rows, columns and bytes.
        separator: Separator of a CSV file; None finds it in the header.

    Raises:
        DataError: If the file cannot be read, breaks a limit, is not UTF-8, or its rows differ in length. The message
            names the file, the row and the column.
    """
    file, bounds = Path(path), limits or Limits()
    _check_file(file, bounds)
    try:
        if file.suffix.lower() in (".parquet", ".pq"):
            return read_parquet(file, bounds)
        return read_csv(file, bounds, separator)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error}); check the path and its rights") from error
    except (MemoryError, pa.ArrowMemoryError) as error:
        raise DataError(f"{file.name}: does not fit into this machine's memory; split the file") from error


def _check_file(path: Path, limits: Limits) -> None:
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: no such file, or it may not be read; check the path") from error
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path}: is not a file; name a CSV or Parquet file")
    if status.st_size > limits.total_bytes:
        refuse_over_limit(path, f"{status.st_size:,} bytes", "total_bytes", limits.total_bytes)
    if status.st_size == 0:
        raise DataError(f"{path.name}: is empty; the first row must be a header with the names of the columns")


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
            refuse_over_limit(path, f"more than {limits.rows:,} rows", "rows", limits.rows)
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
            refuse_over_limit(
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


def read_parquet(path: Path, limits: Limits) -> Table:
    """Reads the columns of text and numbers as text; see :func:`recsim_llm.datasets.read_table`."""
    try:
        with pq.ParquetFile(path, arrow_extensions_enabled=False) as file:
            schema = file.schema_arrow
            _check_metadata(path, file.metadata, schema.names, limits)
        usable = [field.name for field in schema if _is_plain(field.type)]
        if not usable:
            raise DataError(f"{path.name}: no column holds text or numbers; columns: {', '.join(schema.names)}")
        worded = [name for name in usable if _is_text(schema.field(name).type)]
        # Text is read as a dictionary, so that a megabyte repeated a million times is measured before it is unpacked.
        with pq.ParquetFile(path, arrow_extensions_enabled=False, read_dictionary=worded) as file:
            parts: dict[str, list[Any]] = {name: [] for name in usable}
            held = row = 0
            for batch in file.iter_batches(batch_size=1 << 16, columns=usable, use_threads=False):
                for name in usable:
                    held += _checked_size(path, name, batch.column(name), limits, row)
                    if held > limits.total_bytes:
                        refuse_over_limit(
                            path, f"more than {limits.total_bytes:,} bytes unpacked", "total_bytes", limits.total_bytes
                        )
                    parts[name].append(_as_text(path, name, batch.column(name)))
                row += len(batch)
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path.name}: cannot be read as Parquet ({_first_line(error)})") from error
    columns = {name: pa.chunked_array(own, pa.large_string()).combine_chunks() for name, own in parts.items()}
    floats = frozenset(name for name in usable if pa.types.is_floating(_value_type(schema.field(name).type)))
    return Table(path, columns, pa.array(np.arange(1, row + 1)), floats)


def _check_metadata(path: Path, meta: Any, names: list[str], limits: Limits) -> None:
    if meta.num_rows > limits.rows:
        refuse_over_limit(path, f"{meta.num_rows:,} rows", "rows", limits.rows)
    if meta.num_columns > limits.columns:
        refuse_over_limit(path, f"{meta.num_columns:,} columns", "columns", limits.columns)
    declared = sum(meta.row_group(k).total_byte_size for k in range(meta.num_row_groups))
    if declared > limits.total_bytes:
        refuse_over_limit(path, f"{declared:,} bytes unpacked", "total_bytes", limits.total_bytes)
    check_names(path, names, limits)


def _checked_size(path: Path, name: str, column: Any, limits: Limits, row: int) -> int:
    """Bytes that a column of a batch takes as text; refuses a value that is too long."""
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    lengths = pc.fill_null(pc.take(pc.binary_length(column.dictionary), column.indices), 0)
    longest = pc.max(lengths).as_py() or 0
    if longest > limits.field_bytes:
        at = row + pc.index(lengths, longest).as_py() + 1
        refuse_over_limit(
            path, f"a value of {longest:,} bytes in row {at}, column {quoted(name)}", "field_bytes", limits.field_bytes
        )
    return int(pc.sum(pc.cast(lengths, pa.int64())).as_py() or 0) + 8 * len(lengths)


def _is_text(kind: Any) -> bool:
    value = _value_type(kind)
    return bool(pa.types.is_string(value) or pa.types.is_large_string(value))


def _value_type(kind: Any) -> Any:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_plain(kind: Any) -> bool:
    value = _value_type(kind)
    tests = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_integer,
        pa.types.is_floating,
        pa.types.is_boolean,
        pa.types.is_decimal,
        pa.types.is_timestamp,
        pa.types.is_date,
        pa.types.is_null,
    )
    return any(test(value) for test in tests)


def _as_text(path: Path, name: str, column: Any) -> Any:
    try:
        if pa.types.is_dictionary(column.type):
            kind = pa.types.is_large_string(column.type.value_type) or pa.types.is_string(column.type.value_type)
            column = pc.take(column.dictionary.cast(pa.large_string()) if kind else column.dictionary, column.indices)
        text = pc.fill_null(column.cast(pa.large_string()), "")
        text.validate(full=True)
    except (pa.ArrowException, ValueError) as error:
        raise DataError(f"{path.name}, column {quoted(name)}: cannot be read as text ({_first_line(error)})") from error
    return text


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
