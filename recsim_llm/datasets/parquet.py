"""Parquet files: rows, columns and bytes are checked in the metadata before anything is allocated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsim_llm.errors import DataError

from .table import Limits, Table, check_names, over


def read_parquet(path: Path, limits: Limits) -> Table:
    """Reads the columns of text and numbers as text; see :func:`recsim_llm.datasets.read_table`."""
    try:
        with pq.ParquetFile(path, arrow_extensions_enabled=False) as file:
            meta = file.metadata
            if meta.num_rows > limits.rows:
                over(path, f"{meta.num_rows:,} rows", "rows", limits.rows)
            if meta.num_columns > limits.columns:
                over(path, f"{meta.num_columns:,} columns", "columns", limits.columns)
            declared = sum(meta.row_group(k).total_byte_size for k in range(meta.num_row_groups))
            if declared > limits.total_bytes:
                over(path, f"{declared:,} bytes unpacked", "total_bytes", limits.total_bytes)
            schema = file.schema_arrow
            check_names(path, schema.names, limits)
            usable = [field.name for field in schema if _is_plain(field.type)]
            batches, held = [], 0
            for batch in file.iter_batches(batch_size=1 << 16, columns=usable, use_threads=False):
                held += batch.nbytes
                if held > limits.total_bytes:
                    over(path, f"more than {limits.total_bytes:,} bytes unpacked", "total_bytes", limits.total_bytes)
                batches.append(batch)
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path.name}: cannot be read as Parquet ({_first_line(error)})") from error
    if not usable:
        raise DataError(f"{path.name}: no column holds text or numbers; columns: {', '.join(schema.names)}")
    table = pa.Table.from_batches(batches, pa.schema([schema.field(name) for name in usable]))
    columns = {name: _as_text(path, name, table.column(name), limits) for name in usable}
    floats = frozenset(name for name in usable if pa.types.is_floating(_value_type(schema.field(name).type)))
    return Table(path, columns, pa.array(np.arange(1, len(table) + 1)), floats)


def _value_type(kind: Any) -> Any:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_plain(kind: Any) -> bool:
    value = _value_type(kind)
    tests = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_string_view,
        pa.types.is_integer,
        pa.types.is_floating,
        pa.types.is_boolean,
        pa.types.is_decimal,
        pa.types.is_timestamp,
        pa.types.is_date,
        pa.types.is_null,
    )
    return any(test(value) for test in tests)


def _as_text(path: Path, name: str, column: Any, limits: Limits) -> Any:
    try:
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        text = pc.fill_null(column.cast(pa.large_string()), "").combine_chunks()
        text.validate(full=True)
    except (pa.ArrowException, ValueError) as error:
        raise DataError(f'{path.name}, column "{name}": cannot be read as text ({_first_line(error)})') from error
    longest = pc.max(pc.binary_length(text)).as_py() or 0
    if longest > limits.field_bytes:
        row = pc.index(pc.binary_length(text), longest).as_py() + 1
        over(path, f'a value of {longest:,} bytes in row {row}, column "{name}"', "field_bytes", limits.field_bytes)
    return text


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
