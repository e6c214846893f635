"""Weights of EfficientNet-Lite0, read from its package's file without unpickling.

The file is of torch's oldest form: five pickles one behind the other (a magic number, a version, the machine, the
tensors' names and storages, the storages' order), then each storage as its length and its numbers. Here the pickles are
only looked through (:mod:`pickletools` lists their steps and runs none), for names, storage keys and strides; shapes
and types come from the network.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.errors import DataError

__all__ = ["numbers_of"]

_BEFORE = 3  # pickles before the one that names the tensors


def numbers_of(data: bytes, expected: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]) -> dict[str, NDArray[Any]]:
    """Tensors of a file of weights.

    Args:
        data: The file.
        expected: Shape and type of each tensor, by name.

    Raises:
        DataError: If the file is of another form, or the network is another one.
    """
    stream = io.BytesIO(data)
    try:
        for _ in range(_BEFORE):
            _steps(stream)
        place = dict(_places(_steps(stream)))
        keys = [str(given) for step, given in _steps(stream) if step == "BINUNICODE"]
        out = {}
        for key in keys:
            name, strides = place[key]
            shape, kind = expected[name]
            count = int(np.frombuffer(stream.read(8), "<i8")[0])
            if count != int(np.prod(shape)) or len(strides) != len(shape):
                raise ValueError(f"{name} has {count} numbers, expected the shape {shape}")
            raw = stream.read(count * kind.itemsize)
            out[name] = np.ndarray(shape, kind, raw, strides=[step * kind.itemsize for step in strides]).copy("C")
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise DataError(f"the file of weights is of another form than expected: {error}") from error
    if set(out) != set(expected) or stream.read(1):
        raise DataError(f"the file of weights holds {len(out)} tensors, the network has {len(expected)}")
    return out


def _steps(stream: io.BytesIO) -> list[tuple[str, Any]]:
    """The steps of the next pickle, with what is written in each; none is run."""
    return [(step.name, given) for step, given, _ in pickletools.genops(stream)]


def _places(steps: list[tuple[str, Any]]) -> Iterator[tuple[str, tuple[str, tuple[int, ...]]]]:
    """For each tensor its storage key, and its name and strides: its storage, then offset, shape and strides follow."""
    words: list[str] = []
    for at, (step, given) in enumerate(steps):
        if step == "BINUNICODE" and given not in ("storage", "cpu"):
            words.append(str(given))
        if step != "BINPERSID":
            continue
        tuples: list[tuple[int, ...]] = []
        numbers: list[int] = []
        for follows, number in steps[at + 2 :]:  # behind the offset, which is 0
            if follows.startswith("BININT"):
                numbers.append(int(number))
            elif follows in ("TUPLE", "TUPLE1", "TUPLE2", "EMPTY_TUPLE"):
                tuples.append(tuple(numbers))
                numbers = []
            if len(tuples) == 2:
                break
        yield words[-1], (words[-2], tuples[1])
