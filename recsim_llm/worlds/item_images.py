"""Item images: PNG files of a world in one Parquet file, read on first use.

A picture is decoded only if its header says that it is small; nothing but PNG is understood.
"""

from __future__ import annotations

import functools
import hashlib
import io
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.errors import ConfigError, DataError, require

__all__ = ["FILE", "ItemImages", "decode_png"]

FILE = "images.parquet"
"""Name of the file in the folder of a world; worlds without images have none."""
LARGEST_FILE = 256 * 2**20
"""Largest file of images [byte]."""
LARGEST_PICTURE = 2**20
"""Largest PNG of one image [byte]."""
MOST_PIXELS = 2**20
"""Most pixels of one image."""
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = 24  # bytes up to the end of width and height


class ItemImages:
    """The images of a world's items: PNG files by name.

    Args:
        source: The images, or the Parquet file that holds them, which is read when the first one is asked for.
        expected: Size and SHA-256 of that file as ``world.json`` gives them.
    """

    def __init__(self, source: Mapping[str, bytes] | Path, expected: Mapping[str, Any] | None = None) -> None:
        self._source = source
        self._expected = expected

    @functools.cached_property
    def files(self) -> Mapping[str, bytes]:
        """PNG bytes by name.

        Raises:
            DataError: If the file was altered since the world was loaded or is not a table of images.
        """
        if isinstance(self._source, Path):
            return _read(self._source, self._expected)
        return dict(self._source)

    def png(self, name: str) -> bytes:
        """The PNG file of one image.

        Raises:
            ConfigError: If there is no picture of that name.
        """
        if name not in self.files:
            raise ConfigError(f"the world holds no picture {name!r}; it has {len(self.files)}")
        return self.files[name]

    def packed(self) -> bytes:
        """All images as the bytes of a Parquet file."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = {"name": pa.array(list(self.files), pa.string()), "png": pa.array(self.files.values(), pa.binary())}
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(columns), sink, compression="none", use_dictionary=False)
        return bytes(sink.getvalue().to_pybytes())


def decode_png(png: bytes) -> NDArray[np.uint8]:
    """The pixels of a PNG file, uint8 [H, W, 3].

    Raises:
        DataError: If it is no PNG, is too large, or is damaged.
        MissingExtraError: If Pillow is not installed.
    """
    if len(png) < _HEADER or not png.startswith(_SIGNATURE):
        raise DataError("the picture is no PNG file; other formats are not read")
    width, height = struct.unpack(">II", png[16:_HEADER])
    if len(png) > LARGEST_PICTURE or width * height > MOST_PIXELS:
        raise DataError(
            f"the picture has {width} x {height} pixels in {len(png):,} bytes; at most {MOST_PIXELS:,} pixels in "
            f"{LARGEST_PICTURE:,} bytes are read"
        )
    image = require("PIL.Image", "llm")
    try:
        with image.open(io.BytesIO(png), formats=["PNG"]) as opened:
            return np.array(opened.convert("RGB"), dtype=np.uint8)
    except (OSError, ValueError, SyntaxError, struct.error) as error:
        raise DataError(f"the picture is a damaged PNG file: {error}") from error


def _read(path: Path, expected: Mapping[str, Any] | None) -> dict[str, bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if path.is_symlink() or path.stat().st_size > LARGEST_FILE:
            raise DataError(f"{path} is a link or larger than {LARGEST_FILE:,} bytes; it is not read")
        data = path.read_bytes()
        found = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        if expected is not None and found != dict(expected):
            raise DataError(f"{path} was altered: size or SHA-256 differ from world.json; build the world again")
        table = pq.ParquetFile(pa.BufferReader(data)).read()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}") from error
    if table.schema.names != ["name", "png"] or table.schema.types != [pa.string(), pa.binary()]:
        raise DataError(f"{path} has columns {table.schema.names}, expected name (text) and png (bytes)")
    if any(column.null_count for column in table.columns):
        raise DataError(f"{path} has gaps; every picture needs a name and a file")
    return dict(zip(table["name"].to_pylist(), table["png"].to_pylist(), strict=True))
