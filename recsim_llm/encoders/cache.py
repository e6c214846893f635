"""Encoding cache on disk, keyed by the encoder's digest and the text's.

One folder for each encoder (named by its digest) holds shards; a shard is a safetensors file with the SHA-256 of the
texts or pictures and their encodings, named by the SHA-256 of its own bytes. So a file is either whole and right or not
used, any number of processes may write at the same time, and what a killed run had written is found by the next. A
process reads a shard whole and checks it once; later it reads the rows that it needs.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from recsim_llm.encoders.progress import advance
from recsim_llm.paths import home

Array = NDArray[np.float32]
Item = TypeVar("Item", str, bytes)
Given = TypeVar("Given", str, bytes, contravariant=True)

logger = logging.getLogger(__name__)

SHARD = 2_048  # texts written at a time
CHUNK = 256  # texts encoded between two moves of the progress bar
_SCHEME = "1"  # part of the folder's name: moves when pooling or batching change what an encoder returns
_STALE = 86_400.0  # [s] after which a temporary file of a killed run is swept
_warned: set[str] = set()


class Encoding(Protocol[Given]):
    """What the cache asks of an encoder of texts or of pictures."""

    @property
    def name(self) -> str:
        """The id it was loaded by."""

    @property
    def width(self) -> int:
        """Length E of one encoding."""

    @property
    def digest(self) -> str:
        """SHA-256 that changes when the encodings do."""

    def encode(self, items: Sequence[Given], /, progress: bool = False) -> Array:
        """Returns one unit vector for each item, ``[N, E] float32``."""


def encode_cached(encoder: Encoding[Item], items: Sequence[Item], progress: bool = False) -> Array:
    """Encodes texts or files of pictures, each different one once, and remembers the encodings on disk.

    Args:
        encoder: Any encoder; its digest decides which encodings count as its own.
        items: ``N`` texts, or as many files as bytes; repetitions allowed.
        progress: Whether to show a progress bar.

    Returns:
        ``[N, E] float32`` in the order of ``items``. Without a usable cache folder the result is the same, and one
        warning is logged.
    """
    if not items:
        return np.zeros((0, encoder.width), dtype=np.float32)
    keys = [hashlib.sha256(_bytes(item)).digest() for item in items]
    item_of = dict(zip(keys, items, strict=True))
    row_of = {key: row for row, key in enumerate(item_of)}
    out = np.zeros((len(row_of), encoder.width), dtype=np.float32)
    folder = home() / "encodings" / f"{encoder.digest[:32]}-{encoder.width}-{_SCHEME}"
    found = _index(folder, encoder.width).fill(out, row_of)
    # shortest first: then a batch of the encoder holds texts of about one length, and shards do not break that
    missing = sorted((key for key in row_of if key not in found), key=lambda key: (len(item_of[key]), key))
    with advance(f"encoding with {encoder.name}", len(missing), progress and bool(missing)) as step:
        for start in range(0, len(missing), SHARD):
            part = missing[start : start + SHARD]
            encodings = np.zeros((len(part), encoder.width), dtype=np.float32)
            for first in range(0, len(part), CHUNK):
                rows = part[first : first + CHUNK]
                encodings[first : first + CHUNK] = encoder.encode([item_of[key] for key in rows])
                step(len(rows))
            out[[row_of[key] for key in part]] = encodings
            _write(folder, part, encodings)
    return out[[row_of[key] for key in keys]]


def _bytes(item: str | bytes) -> bytes:
    return item.encode("utf-8", "surrogatepass") if isinstance(item, str) else item


class _Index:
    """Where in a folder's shards each encoding lies. A shard is read and checked once by a process.

    Args:
        folder: Folder of the shards.
        width: Length E of one encoding.
    """

    def __init__(self, folder: Path, width: int) -> None:
        self.folder = folder
        self.width = width
        self.stamps: dict[str, tuple[int, int, int]] = {}
        self.places: dict[bytes, tuple[str, int]] = {}  # by key: name of a shard and row in it
        self.starts: dict[str, tuple[int, int]] = {}  # by shard: byte at which its encodings begin, and how many

    def fill(self, out: Array, row_of: Mapping[bytes, int]) -> set[bytes]:
        """Writes the encodings that the folder holds into ``out`` and returns their keys."""
        self._refresh()
        wanted: dict[str, list[bytes]] = {}
        for key in row_of:
            if key in self.places:
                wanted.setdefault(self.places[key][0], []).append(key)
        found: set[bytes] = set()
        for name, keys in wanted.items():
            try:
                rows = self._rows(name, [self.places[key][1] for key in keys])
            except (OSError, ValueError):  # it has just been taken away
                continue
            out[[row_of[key] for key in keys]] = rows
            found.update(keys)
        return found

    def _rows(self, name: str, rows: list[int]) -> Array:
        """Some rows of a shard: one by one where they are few, else the whole of it at once."""
        start, count = self.starts[name]
        with (self.folder / name).open("rb") as file:
            if len(rows) * 8 > count:
                whole = np.fromfile(file, "<f4", count * self.width, offset=start).reshape(count, self.width)
                return np.asarray(whole[rows], dtype=np.float32)
            out = np.zeros((len(rows), self.width), dtype=np.float32)
            for at, row in enumerate(rows):
                file.seek(start + 4 * self.width * row)
                out[at] = np.frombuffer(file.read(4 * self.width), "<f4", self.width)
        return out

    def _refresh(self) -> None:
        """Reads shards that are new or were touched, and forgets those that are gone."""
        there: dict[str, tuple[int, int, int]] = {}
        try:
            for entry in os.scandir(self.folder):
                if entry.name.endswith(".safetensors"):
                    seen = entry.stat()
                    there[entry.name] = (seen.st_mtime_ns, seen.st_size, seen.st_ino)
        except OSError:
            there = {}
        if any(there.get(name) != stamp for name, stamp in self.stamps.items()):
            self.stamps, self.places, self.starts = (
                {},
                {},
                {},
            )  # seldom: somebody cleared the cache or a file was damaged
        for name in sorted(there.keys() - self.stamps.keys()):
            shard = _read_shard(self.folder / name, self.width)
            if shard is not None:
                keys, start = shard
                self.stamps[name], self.starts[name] = there[name], (start, len(keys))
                self.places.update((key, (name, row)) for row, key in enumerate(keys))


_indices: dict[tuple[Path, int], _Index] = {}


def _index(folder: Path, width: int) -> _Index:
    return _indices.setdefault((folder, width), _Index(folder, width))


def _read_shard(path: Path, width: int) -> tuple[list[bytes], int] | None:
    """The keys of a shard and the byte at which its encodings begin; a damaged file is passed over."""
    try:
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != path.stem:
            raise ValueError("its content is not what its name says")
        arrays = load(data)
        keys, encodings = arrays["keys"], arrays["encodings"]
        if keys.shape != (len(encodings), 32) or encodings.shape[1:] != (width,) or encodings.dtype != np.float32:
            raise ValueError("its arrays have other shapes")
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        logger.warning("passing over the damaged cache file %s: %s", path.name, error)
        _discard(path)
        return None
    flat = keys.tobytes()
    header = 8 + int.from_bytes(data[:8], "little")
    begins = header + json.loads(data[8:header])["encodings"]["data_offsets"][0]
    return [flat[at : at + 32] for at in range(0, len(flat), 32)], begins


def _write(folder: Path, keys: Sequence[bytes], encodings: Array) -> None:
    """Writes one shard: unique temporary name, fsync, rename. A folder that cannot be written is no error."""
    rows = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(len(keys), 32)
    data = save({"keys": rows.copy(), "encodings": np.ascontiguousarray(encodings, dtype=np.float32)})
    temporary = folder / f".{os.getpid()}-{uuid.uuid4().hex}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(folder / f"{hashlib.sha256(data).hexdigest()}.safetensors")
    except OSError as error:
        _discard(temporary)
        if str(folder) not in _warned:
            _warned.add(str(folder))
            logger.warning(
                "encodings are not cached: %s cannot be written (%s); set RECSIM_LLM_HOME to a folder that can",
                folder,
                error.strerror or error,
            )


def _sweep(folder: Path) -> None:
    """Removes temporary files that killed runs left behind."""
    for path in folder.glob(".*.tmp"):
        try:
            if time.time() - path.stat().st_mtime > _STALE:
                path.unlink()
        except OSError:  # another process was faster
            continue


def _discard(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return
