"""Parquet files: rows, columns and bytes are checked in the metadata before anything is allocated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsim_llm.datasets.text_table import Limits, Table, check_names, over, quoted
from recsim_llm.errors import DataError


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
                        over(
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
        over(path, f"{meta.num_rows:,} rows", "rows", limits.rows)
    if meta.num_columns > limits.columns:
        over(path, f"{meta.num_columns:,} columns", "columns", limits.columns)
    declared = sum(meta.row_group(k).total_byte_size for k in range(meta.num_row_groups))
    if declared > limits.total_bytes:
        over(path, f"{declared:,} bytes unpacked", "total_bytes", limits.total_bytes)
    check_names(path, names, limits)


def _checked_size(path: Path, name: str, column: Any, limits: Limits, row: int) -> int:
    """Bytes that a column of a batch takes as text; refuses a value that is too long."""
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    lengths = pc.fill_null(pc.take(pc.binary_length(column.dictionary), column.indices), 0)
    longest = pc.max(lengths).as_py() or 0
    if longest > limits.field_bytes:
        at = row + pc.index(lengths, longest).as_py() + 1
        over(
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
