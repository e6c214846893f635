"""Parameters of the classics: checks, and the record that the compiled rules read."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.errors import ConfigError, unknown


def check_numbers(parameters: Any, *, positive: Iterable[str] = (), not_negative: Iterable[str] = ()) -> None:
    """Checks the numbers among the fields of a dataclass.

    Raises:
        ConfigError: If one is no finite number, or of the wrong sign.
    """
    for name, value in vars(parameters).items():
        if isinstance(value, tuple | list):
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ConfigError(f"{name} must be a finite number, got {value!r}")
    for name in positive:
        if getattr(parameters, name) <= 0:
            raise ConfigError(f"{name} must be above 0, got {getattr(parameters, name)}")
    for name in not_negative:
        if getattr(parameters, name) < 0:
            raise ConfigError(f"{name} must not be negative, got {getattr(parameters, name)}")


def packed(parameters: Any, *, resample: bool, **more: float) -> NDArray[np.void]:
    """One record of every number among the fields, of ``more``, and whether candidates change with every step."""
    numbers = {
        field.name: getattr(parameters, field.name)
        for field in dataclasses.fields(parameters)
        if not isinstance(getattr(parameters, field.name), tuple | list)
    } | more
    record = np.zeros(1, np.dtype([*((name, np.float32) for name in numbers), ("resample", np.int32)], align=True))
    for name, value in numbers.items():
        record[name] = value
    record["resample"] = resample
    return record


def cumulative(name: str, shares: Iterable[float]) -> NDArray[np.float32]:
    """Cumulative probabilities.

    Raises:
        ConfigError: If they are no distribution.
    """
    array = np.asarray(list(shares), np.float64)
    if array.ndim != 1 or not len(array) or not np.isfinite(array).all() or (array < 0).any():
        raise ConfigError(f"{name} must be a list of probabilities, got {shares!r}")
    if abs(math.fsum(array.tolist()) - 1.0) > 1e-6:
        raise ConfigError(f"{name} must add up to 1, got {shares!r} with the sum {math.fsum(array.tolist()):g}")
    return np.array([math.fsum(array[: n + 1].tolist()) for n in range(len(array))], np.float32)


def table(name: str, values: Any, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """An array of finite numbers of a given shape.

    Raises:
        ConfigError: If it is not.
    """
    try:
        array = np.asarray(values, np.float32)
    except (TypeError, ValueError):
        array = np.full(1, np.nan, np.float32)
    if array.shape != shape or not np.isfinite(array).all():
        raise ConfigError(f"{name} must be finite numbers of shape {shape}, got {values!r}")
    return np.ascontiguousarray(array)


def term_weights(weights: Mapping[str, float], terms: tuple[str, ...]) -> NDArray[np.float32]:
    """Weights of reward terms, in their order.

    Raises:
        ConfigError: If a key is no term or a weight no finite number.
    """
    array = np.zeros(len(terms), np.float32)
    for name, weight in weights.items():
        if name not in terms:
            raise unknown("reward term", name, terms)
        if not math.isfinite(weight):
            raise ConfigError(f"weight of reward term {name} must be a finite number, got {weight}")
        array[terms.index(name)] = weight
    return array
