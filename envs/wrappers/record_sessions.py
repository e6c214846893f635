"""What was shown and done, as rows of interactions in a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AutoresetMode, VectorWrapper
from numpy.typing import NDArray

from recsim_llm.envs.wrappers.common import world_core_of
from recsim_llm.envs.wrappers.session_file import Rows

Infos = dict[str, Any]


class RecordSessions(gym.Wrapper, RecordConstructorArgs):
    """Writes one row for each item that was shown.

    Columns: user_id, episode, session, step, day [day], timestamp [s], slot, item_id; the signals, dwell in [s] and the
    rating as "stars_given" (0 = none); reward (of the slot) and step_reward; propensity where it is asked for. Session
    and time are those in which the slate was shown. :func:`recsim_llm.datasets.interactions.read_interactions` reads
    the file as a log of clicks, and ``recsim-llm world build --interactions`` fits a world to it. Of users who opted
    out nothing is written.

    The file has its name when ``close()`` returns, whole; until then the rows stand in a hidden file beside it.

    Args:
        env: A scalar environment of this package with a world.
        path: ``.parquet`` (in row groups) or ``.csv``.
        propensities: Write a column of the probabilities with which items were shown. The policy tells them before each
            step: :meth:`propose`. It is empty for steps before which it did not.
        row_group: Rows that are written at once.
        overwrite: Replace a file that is there.

    Raises:
        ConfigError: If the path has another suffix or is taken.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        path: str | Path,
        *,
        propensities: bool = False,
        row_group: int = 50_000,
        overwrite: bool = False,
    ) -> None:
        RecordConstructorArgs.__init__(
            self, path=str(path), propensities=propensities, row_group=row_group, overwrite=overwrite
        )
        gym.Wrapper.__init__(self, env)
        core = world_core_of(env, "RecordSessions")
        self._rows = Rows(core, path, propensities=propensities, row_group=row_group, overwrite=overwrite)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Infos]:
        """As the environment inside."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._rows.begin(_batched(info))
        return observation, info

    def propose(self, propensities: Any) -> None:
        """Tells the probabilities [K] with which the items of the next slate were chosen."""
        self._rows.propose(np.atleast_2d(np.asarray(propensities, np.float64)))

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, Infos]:
        """As the environment inside."""
        self._rows.look()
        observation, reward, terminated, truncated, info = self.env.step(action)
        batched = _batched(info)
        self._rows.add(np.ones(1, np.bool_), np.array([reward]), batched)
        self._rows.begin(batched)
        return observation, reward, terminated, truncated, info

    def close(self) -> None:
        """Gives the file its name and closes the environment."""
        self._rows.close()
        super().close()


class VectorRecordSessions(VectorWrapper, RecordConstructorArgs):
    """The same for vector environments, in any autoreset mode.

    Args:
        env: The vector environment of ``gym.make_vec``.
        path: ``.parquet`` or ``.csv``.
        propensities: Write a column of propensities, told before each step.
        row_group: Rows that are written at once.
        overwrite: Replace a file that is there.

    Raises:
        ConfigError: If the path has another suffix or is taken.
    """

    def __init__(
        self,
        env: gym.vector.VectorEnv[Any, Any, Any],
        path: str | Path,
        *,
        propensities: bool = False,
        row_group: int = 50_000,
        overwrite: bool = False,
    ) -> None:
        RecordConstructorArgs.__init__(
            self, path=str(path), propensities=propensities, row_group=row_group, overwrite=overwrite
        )
        VectorWrapper.__init__(self, env)
        core = world_core_of(env, "RecordSessions")
        self._rows = Rows(core, path, propensities=propensities, row_group=row_group, overwrite=overwrite)
        self._over = np.zeros(env.num_envs, np.bool_)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, Infos]:
        """As the environment inside, all lanes or those of the "reset_mask"."""
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, np.bool_))
        observation, infos = self.env.reset(seed=seed, options=options)
        self._over[mask] = False
        self._rows.begin(infos, mask)
        return observation, infos

    def propose(self, propensities: Any) -> None:
        """Tells the probabilities [B, K] with which the items of the next slates were chosen."""
        self._rows.propose(np.asarray(propensities, np.float64).reshape(self.num_envs, -1))

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, Infos]:
        """As the environment inside."""
        mode, over = self.env.metadata["autoreset_mode"], self._over
        self._rows.look()
        observation, rewards, terminated, truncated, infos = self.env.step(actions)
        done = terminated | truncated
        shown = dict(infos)
        if "final_info" in infos:
            last = infos["final_info"]
            for name in [name for name in last if not name.startswith("_")]:
                flags = done.reshape(-1, *[1] * (infos[name].ndim - 1))
                shown[name] = np.where(flags, last[name], infos[name])
        self._rows.add(~over, rewards, shown)
        self._rows.begin(infos)
        self._over = {AutoresetMode.NEXT_STEP: done, AutoresetMode.SAME_STEP: np.zeros_like(done)}.get(
            mode, over | done
        )
        return observation, rewards, terminated, truncated, infos

    def close(self, **kwargs: Any) -> None:
        """Gives the file its name and closes the environment."""
        self._rows.close()
        super().close(**kwargs)


def _batched(info: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    return {name: np.asarray(value)[None] for name, value in info.items()}
