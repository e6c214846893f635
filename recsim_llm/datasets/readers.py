"""People's own files in: CSV or Parquet to columns of text, exactly as written, or one DataError.

Identifiers are text: ``007`` is not ``7``, ``1e5`` is not a number, ``NA`` is a name. Nothing is guessed from a value's
look. Rows are counted as a reader counts them: in a CSV file the header is row 1, in a Parquet file the first row is 1.
"""

from __future__ import annotations

import stat
from pathlib import Path

import pyarrow as pa

from recsim_llm.datasets.delimited import read_csv
from recsim_llm.datasets.parquet import read_parquet
from recsim_llm.datasets.text_table import Limits, Table, over
from recsim_llm.errors import DataError


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
        over(path, f"{status.st_size:,} bytes", "total_bytes", limits.total_bytes)
    if status.st_size == 0:
        raise DataError(f"{path.name}: is empty; the first row must be a header with the names of the columns")
