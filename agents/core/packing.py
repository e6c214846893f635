"""Nested values as flat arrays and JSON, and back: how the middle of an episode is written to a file."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, get_type_hints

import numpy as np
from numpy.typing import NDArray

from recsim_llm.errors import DataError

Arrays = dict[str, NDArray[Any]]
SEPARATOR = "/"


def pack(value: Any, name: str = "") -> tuple[Arrays, dict[str, Any]]:
    """Takes nested mappings and frozen dataclasses apart.

    Args:
        value: Arrays, numbers, texts, lists of numbers, None, and mappings or dataclasses of them.
        name: Name of the value; names of what is inside follow after a "/".

    Returns:
        Arrays by name, structured ones as bytes, and everything else by name. Arrays of objects are left out.
    """
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            return {}, {}
        if value.dtype.names:
            return {name: value.view(np.uint8).reshape(*value.shape, value.dtype.itemsize)}, {}
        return {name: value}, {}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif not isinstance(value, Mapping) or name.endswith("np_random"):  # a generator's state is one piece of JSON
        return {}, {name: value}
    arrays: Arrays = {}
    rest: dict[str, Any] = {}
    for key, inner in value.items():
        more, others = pack(inner, f"{name}{SEPARATOR}{key}" if name else key)
        arrays |= more
        rest |= others
    return arrays, rest


def inside(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What :func:`pack` put under a name, without that name."""
    start = name + SEPARATOR
    return {key.removeprefix(start): value for key, value in values.items() if key.startswith(start)}


def unpack(kind: Any, arrays: Mapping[str, Any], rest: Mapping[str, Any], name: str) -> Any:
    """Puts a dataclass of arrays and dataclasses together again; None where there was none.

    Args:
        kind: The class, also as ``Class | None``.
        arrays: Arrays as :func:`pack` gave them.
        rest: The other values.
        name: Name of the value.

    Raises:
        DataError: If a part is missing.
    """
    if isinstance(kind, types.UnionType):
        kind = next(one for one in typing.get_args(kind) if one is not type(None))
    if name in arrays:
        return arrays[name]
    if name in rest:
        return rest[name]
    if not dataclasses.is_dataclass(kind):
        raise DataError(f"part {name} is missing")
    hints = get_type_hints(kind)
    parts = {
        field.name: unpack(hints[field.name], arrays, rest, f"{name}{SEPARATOR}{field.name}")
        for field in dataclasses.fields(kind)
    }
    return typing.cast("type[Any]", kind)(**parts)
