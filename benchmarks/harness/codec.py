"""Strict JSON for stored rows: exact round trip, one line each, sealed by a checksum.

JSON has no NaN and no infinity, and Python's default writer emits them as bare words that other readers refuse. They
are written here as ``{"$float": "nan"}``. A key that begins with ``$`` gets a second one, so that data can never be
mistaken for such a marker. Every other float is written with the fewest digits that read back to the same bits.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from recsim_llm.errors import StoreError

MARK = "$float"
_SPECIAL = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_CRC_TAIL = len(',"crc":"00000000"}')


def plain(value: Any) -> Any:
    """Turns a value into what strict JSON can hold.

    Args:
        value: None, bool, int, float, str, NumPy scalar or array, or lists, tuples and dicts (text keys) of these.

    Returns:
        The same data in lists and dicts; tuples and arrays have become lists.

    Raises:
        StoreError: If a value or a key is of another type.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        value = float(value)
        return value if math.isfinite(value) else {MARK: repr(value)}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {_escape(key): plain(item) for key, item in value.items()}
    raise StoreError(f"a value of type {type(value).__name__} cannot be stored: {value!r:.80}. Use numbers or text")


def _escape(key: Any) -> str:
    if not isinstance(key, str):
        raise StoreError(f"a key of type {type(key).__name__} cannot be stored: {key!r:.80}. Keys are text")
    return f"${key}" if key.startswith("$") else key


def _restore(pairs: list[tuple[str, Any]]) -> Any:
    if len(pairs) == 1 and pairs[0][0] == MARK and pairs[0][1] in _SPECIAL:
        return _SPECIAL[pairs[0][1]]
    restored = {key[1:] if key.startswith("$$") else key: value for key, value in pairs}
    if len(restored) != len(pairs):
        raise ValueError("a key occurs twice")
    return restored


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is not strict JSON")


def dumps(value: Any) -> str:
    """Writes a value as canonical JSON: sorted keys, no spaces, ASCII only, one line."""
    try:
        return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    except (RecursionError, ValueError) as error:
        raise StoreError(f"the value cannot be stored: {error}") from error


def loads(text: str | bytes) -> Any:
    """Reads what :func:`dumps` wrote.

    Raises:
        ValueError: If the text is not strict JSON, or nested too deeply.
    """
    try:
        return json.loads(text, object_pairs_hook=_restore, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON of a value, in hexadecimal. The order of keys does not matter."""
    return hashlib.sha256(dumps(value).encode("ascii")).hexdigest()


def seal(record: Mapping[str, Any]) -> bytes:
    """One line for the store: canonical JSON whose last member ``crc`` is the CRC-32 of everything before it."""
    body = dumps(record).encode("ascii")
    return body[:-1] + b',"crc":"%08x"}\n' % zlib.crc32(body[:-1])


def unseal(line: bytes) -> dict[str, Any]:
    """Reads one line back.

    Raises:
        ValueError: Saying what is wrong, if the line was cut or altered.
    """
    if not line.endswith(b"\n"):
        raise ValueError("the line has no end")
    if not line.strip(b"\0\r\n\t "):
        raise ValueError("the line is blank")
    head, tail = line[:-1][:-_CRC_TAIL], line[:-1][-_CRC_TAIL:]
    if tail != b',"crc":"%08x"}' % zlib.crc32(head):
        raise ValueError("the checksum does not match")
    record = loads(head + b"}")
    if not isinstance(record, dict):
        raise ValueError("the line is not an object")
    return record
