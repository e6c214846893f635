"""Stable-Baselines3's ``VecEnv`` over the native vector environment.

Stable-Baselines3 does not take Gymnasium's ``VectorEnv``. This adapter steps the compiled simulator directly and builds
a full info dictionary only for lanes whose episode ended; the others get the one key that its algorithms read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv, VecMonitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices

from recsim_llm.envs.infos import Infos, row
from recsim_llm.envs.vector_env import RecVectorEnv
from recsim_llm.errors import ConfigError

LANEWISE = ("action_masks", "available")
"""Methods whose result has one row for each lane."""


class Sb3VecEnv(VecEnv):
    """Takes over a vector environment.

    Args:
        env: The native vector environment; from now on stepped by this adapter alone.
        full_infos: Give every lane its whole info at every step, not only at the end of an episode.
    """

    def __init__(self, env: RecVectorEnv, *, full_infos: bool = False) -> None:
        if not isinstance(env, RecVectorEnv):
            raise ConfigError(f"Sb3VecEnv adapts the environment of gym.make_vec, got {type(env).__name__}")
        env.autoreset_mode = AutoresetMode.DISABLED
        env.metadata = {**env.metadata, "autoreset_mode": AutoresetMode.DISABLED}
        self.env = env
        self._core = env.core
        self._full_infos = full_infos
        self._given: Any = None
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> Any:
        """Begins an episode in every lane, with the seeds and options given before."""
        seeds = [None if seed is None else int(seed) for seed in self._seeds]
        users = [options.get("user") for options in self._options]
        options = {"user": users} if any(user is not None for user in users) else None
        observation, infos = self.env.reset(seed=seeds if any(s is not None for s in seeds) else None, options=options)
        self.reset_infos = [row(infos, lane) for lane in range(self.num_envs)]
        self._reset_seeds()
        self._reset_options()
        return observation

    def step_async(self, actions: NDArray[Any]) -> None:
        """Remembers the actions [B] or [B, K]."""
        self._given = actions

    def step_wait(self) -> tuple[Any, NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Steps all lanes; those that ended begin their next episode at once."""
        core = self._core
        outcome = core.step(self._given)
        terminated = outcome.terminated.copy()
        truncated = self.env.at_horizon() & ~terminated
        done = terminated | truncated
        infos = None
        if self._full_infos or core.reward_function is not None or done.any():
            infos = core.infos()
            infos["is_success"] = truncated
        rewards = (core.rewards({}) if infos is None else core.rewards(infos)).astype(np.float32)
        rows = self._info_rows(infos, done, truncated)
        if done.any():
            self._begin_next(done, rows)
        return core.observed(outcome.observation), rewards, done, rows

    def _info_rows(
        self, infos: Infos | None, done: NDArray[np.bool_], truncated: NDArray[np.bool_]
    ) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = [{"TimeLimit.truncated": False} for _ in range(self.num_envs)]
        if infos is not None:
            for lane in range(self.num_envs) if self._full_infos else np.flatnonzero(done).tolist():
                rows[lane] = {**row(infos, lane), "TimeLimit.truncated": bool(truncated[lane])}
        return rows

    def _begin_next(self, done: NDArray[np.bool_], rows: list[dict[str, Any]]) -> None:
        simulator = self._core.simulator
        for lane in np.flatnonzero(done).tolist():
            rows[lane]["terminal_observation"] = self._core.observed(simulator.outcome.observation[lane])
        self._core.reset(done)
        infos = self._core.infos()
        for lane in np.flatnonzero(done).tolist():
            self.reset_infos[lane] = row(infos, lane)

    def close(self) -> None:
        """Closes the environment."""
        self.env.close()

    def has_attr(self, attr_name: str) -> bool:
        """Whether the environment has an attribute."""
        return hasattr(self.env, attr_name)

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute, once for each lane."""
        return [getattr(self.env, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Sets an attribute of all lanes; they share one simulator.

        Raises:
            ConfigError: If only some lanes are named.
        """
        if len(list(self._get_indices(indices))) != self.num_envs:
            raise ConfigError(f"attribute {attr_name!r} is shared by all lanes; set it for all of them (indices=None)")
        setattr(self.env, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Calls a method: masks give each lane its row, other results are the same for all."""
        chosen = self._get_indices(indices)
        result = getattr(self.env, method_name)(*method_args, **method_kwargs)
        return [result[lane] if method_name in LANEWISE else result for lane in chosen]

    def env_is_wrapped(self, wrapper_class: type[Any], indices: VecEnvIndices = None) -> list[bool]:
        """No scalar wrappers here."""
        return [False for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """The vector environment does not render."""
        return [None] * self.num_envs

    def _get_indices(self, indices: VecEnvIndices) -> Iterable[int]:
        return list(super()._get_indices(indices))


def monitored(env: RecVectorEnv, *, full_infos: bool = False) -> VecMonitor:
    """The adapter inside Stable-Baselines3's VecMonitor, without which ``rollout/ep_rew_mean`` is missing from logs."""
    return VecMonitor(Sb3VecEnv(env, full_infos=full_infos), info_keywords=("is_success",))
