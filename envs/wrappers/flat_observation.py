"""Dict observations as one array."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorWrapper
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from recsim_llm.errors import ConfigError


class FlatObservation(gym.ObservationWrapper, RecordConstructorArgs):
    """One float32 array in place of a dict, its parts in the order of the environment's ``layout``.

    The result is bit for bit that of ``observation="flat"``; the wrapper is for environments that others made, and for
    parts that other wrappers have changed or added (these stand at the end, in the order of the dict).

    Args:
        env: A scalar environment whose observation is a dict of 1-D boxes.

    Raises:
        ConfigError: If its observation has another form.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        gym.ObservationWrapper.__init__(self, env)
        self._names = _names(env.observation_space, env.unwrapped)
        self.observation_space = _joined(env.observation_space, self._names)

    def observation(self, observation: Any) -> NDArray[np.float32]:
        """The array [P]."""
        return _flat(observation, self._names)


class VectorFlatObservation(VectorWrapper, RecordConstructorArgs):
    """The same for vector environments, in any autoreset mode; arrays [B, P].

    Args:
        env: A vector environment whose observation is a dict of 1-D boxes.

    Raises:
        ConfigError: If its observation has another form.
    """

    def __init__(self, env: gym.vector.VectorEnv[Any, Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        VectorWrapper.__init__(self, env)
        self._names = _names(env.single_observation_space, env.unwrapped)
        self.single_observation_space = _joined(env.single_observation_space, self._names)
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As the environment inside."""
        observation, infos = self.env.reset(seed=seed, options=options)
        return _flat(observation, self._names), infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """As the environment inside; last observations of finished episodes are arrays as well."""
        observation, rewards, terminated, truncated, infos = self.env.step(actions)
        if "final_obs" in infos:
            final = np.full(self.num_envs, None, dtype=object)
            for lane, last in enumerate(infos["final_obs"]):
                final[lane] = None if last is None else _flat(last, self._names)
            infos = {**infos, "final_obs": final}
        return _flat(observation, self._names), rewards, terminated, truncated, infos


def _names(space: spaces.Space[Any], bare: Any) -> list[str]:
    if not isinstance(space, spaces.Dict) or not all(
        isinstance(part, spaces.Box) and part.shape is not None and len(part.shape) == 1 for part in space.values()
    ):
        raise ConfigError(
            f'FlatObservation needs a dict of 1-D boxes (observation="dict"), got {type(space).__name__}; observations '
            "are flat without it"
        )
    known = [name for name in getattr(bare, "layout", {}) if name in space.spaces]
    return known + [name for name in space.spaces if name not in known]


def _joined(space: Any, names: list[str]) -> spaces.Box:
    low, high = (np.concatenate([getattr(space[name], side) for name in names]) for side in ("low", "high"))
    return spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)


def _flat(observation: Mapping[str, Any], names: list[str]) -> NDArray[np.float32]:
    return np.concatenate([observation[name] for name in names], axis=-1).astype(np.float32, copy=False)
