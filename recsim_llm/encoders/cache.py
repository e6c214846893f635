"""Encodings on disk, found again by what was encoded and by which encoder.

One folder for each encoder (named by its digest) holds shards; a shard is a safetensors file with the SHA-256 of the
texts and their encodings, named by the SHA-256 of its own bytes. So a file is either whole and right or not used, any
number of processes may write at the same time, and what a killed run had written is found by the next.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from .progress import advance
from .text import Encoder

Array = NDArray[np.float32]

logger = logging.getLogger(__name__)

SHARD = 2_048  # texts written at a time
CHUNK = 256  # texts encoded between two moves of the progress bar
_SCHEME = "1"  # part of the folder's name: moves when pooling or batching change what an encoder returns
_STALE = 86_400.0  # [s] after which a temporary file of a killed run is swept
_warned: set[str] = set()


def home() -> Path:
    """The folder of all caches: ``RECSIM_LLM_HOME``, else the user's cache folder."""
    named = os.environ.get("RECSIM_LLM_HOME")
    if named:
        return Path(named).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("recsim_llm", appauthor=False))


def encode_cached(encoder: Encoder, texts: Sequence[str], progress: bool = False) -> Array:
    """Encodes texts, each different one once, and remembers the encodings on disk.

    Args:
        encoder: Any encoder; its digest decides which encodings count as its own.
        texts: ``N`` texts, repetitions allowed.
        progress: Whether to show a progress bar.

    Returns:
        ``[N, E] float32`` in the order of ``texts``. Without a usable cache folder the result is the same, and one
        warning is logged.
    """
    if not texts:
        return np.zeros((0, encoder.width), dtype=np.float32)
    keys = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]
    text_of = dict(zip(keys, texts, strict=True))
    folder = home() / "encodings" / f"{encoder.digest[:32]}-{encoder.width}-{_SCHEME}"
    known = _read(folder, encoder.width, set(text_of))
    # shortest first: then a batch of the encoder holds texts of about one length, and shards do not break that
    missing = sorted((key for key in text_of if key not in known), key=lambda key: (len(text_of[key]), key))
    with advance(f"encoding with {encoder.name}", len(missing), progress and bool(missing)) as step:
        for start in range(0, len(missing), SHARD):
            part = missing[start : start + SHARD]
            encodings = np.zeros((len(part), encoder.width), dtype=np.float32)
            for first in range(0, len(part), CHUNK):
                rows = part[first : first + CHUNK]
                encodings[first : first + CHUNK] = encoder.encode([text_of[key] for key in rows])
                step(len(rows))
            known.update(zip(part, encodings, strict=True))
            _write(folder, part, encodings)
    return np.stack([known[key] for key in keys]).astype(np.float32, copy=False)


def _read(folder: Path, width: int, wanted: set[bytes]) -> dict[bytes, Array]:
    """The wanted encodings that the folder holds; damaged files are passed over."""
    found: dict[bytes, Array] = {}
    try:
        shards = sorted(folder.glob("*.safetensors"))
    except OSError:
        return found
    for path in shards:
        shard = _read_shard(path, width)
        if shard is None:
            continue
        keys, encodings = shard
        for row, key in enumerate(keys):
            if key in wanted:
                found[key] = encodings[row]
    return found


def _read_shard(path: Path, width: int) -> tuple[list[bytes], Array] | None:
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
    return [bytes(key) for key in keys], encodings


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
