"""Snapshots of environments in the middle of episodes, with the wrappers around them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray


def environment_state(env: Any) -> dict[str, Any]:
    """A snapshot of an environment, with the clocks of the time limits around it."""
    return {**env.unwrapped.get_state(), "clocks": [int(clock._elapsed_steps or 0) for clock in _clocks(env)]}


def restore_environment(env: Any, arrays: Mapping[str, NDArray[Any]], rest: Mapping[str, Any]) -> None:
    """Takes an environment to a snapshot that was taken apart; it was made with the same arguments and reset."""
    own = env.unwrapped.get_state()
    snapshot: dict[str, Any] = {}
    for name, value in own.items():
        if not isinstance(value, np.ndarray):
            snapshot[name] = rest[name]
        elif value.dtype.names:
            if arrays[name].shape != (*value.shape, value.dtype.itemsize):
                raise ValueError(
                    f"{name} has shape {arrays[name].shape}, expected {(*value.shape, value.dtype.itemsize)}"
                )
            snapshot[name] = np.ascontiguousarray(arrays[name]).view(value.dtype).reshape(value.shape)
        else:
            snapshot[name] = arrays[name]
    env.unwrapped.set_state(snapshot)
    for clock, steps in zip(_clocks(env), rest["clocks"], strict=True):
        clock._elapsed_steps = int(steps)


def _clocks(env: Any) -> list[Any]:
    """Gymnasium's time limits around a scalar environment, the outermost first."""
    found = []
    while isinstance(env, gym.Wrapper):
        if isinstance(env, gym.wrappers.TimeLimit):
            found.append(env)
        env = env.env
    return found
