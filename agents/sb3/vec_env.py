"""The lanes of an agent as Stable-Baselines3's ``VecEnv``, so that its algorithms learn where all other agents do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices

from recsim_llm.agents.common.item_stats import credited, seen_slots
from recsim_llm.agents.core.env_runner import EnvRunner, Flags, Floats, Transition
from recsim_llm.errors import ConfigError


@dataclass(frozen=True)
class Step:
    """One step of all lanes.

    Attributes:
        transition: What happened.
        inputs: [B, W] what the algorithm sees next.
        ended: [B, W] what it would see next had no episode ended; None where none did.
        scale: What it is to multiply rewards with.
        episodes: Return and length of the last episodes that ended, the latest last.
    """

    transition: Transition
    inputs: Floats
    ended: Floats | None
    scale: float
    episodes: Sequence[tuple[float, int]]


class LanesVecEnv(VecEnv):
    """Steps lanes by an agent's own hand.

    A lane whose episode ended begins the next one within the same step.

    Args:
        lanes: The lanes.
        width: W, numbers that the algorithm sees of each lane.
        action_space: What the algorithm believes that it chooses from.
        play: Shows what the algorithm chose to the users.
        masks: Items that may be shown next, [B, I].
    """

    def __init__(
        self,
        lanes: EnvRunner,
        width: int,
        action_space: spaces.Space[Any],
        play: Callable[[NDArray[Any]], Step],
        masks: Callable[[], Flags],
    ) -> None:
        if lanes.mode is AutoresetMode.NEXT_STEP:
            lanes.mode = AutoresetMode.DISABLED  # the lanes reset what has ended, before the environment would
        self.lanes, self._play, self._masks = lanes, play, masks
        self._given: Any = None
        super().__init__(lanes.count, spaces.Box(-np.inf, np.inf, (width,), np.float32), action_space)

    def reset(self) -> NDArray[np.float32]:
        """Not possible.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError("the users of these lanes are the agent's, in the middle of their episodes: use agent.learn")

    def step_async(self, actions: NDArray[Any]) -> None:
        """Remembers the actions."""
        self._given = actions

    def step_wait(self) -> tuple[NDArray[np.float32], NDArray[np.float32], Flags, list[dict[str, Any]]]:
        """Steps all lanes.

        The info of a lane tells the reward of each slot and whether it was looked at, and at the end of an episode
        what the algorithms look for.
        """
        step = self._play(self._given)
        transition = step.transition
        done = transition.terminated | transition.truncated
        clock = transition.truncated & ~transition.terminated
        rows: list[dict[str, Any]] = [
            {"TimeLimit.truncated": cut, "slot_reward": row, "seen": looked}
            for cut, row, looked in zip(clock.tolist(), credited(transition), seen_slots(transition)[1], strict=True)
        ]
        ended = np.flatnonzero(done)
        if step.ended is not None:
            for lane in ended.tolist():
                rows[lane]["terminal_observation"] = step.ended[lane]
        for lane, (total, length) in zip(ended[::-1].tolist(), reversed(step.episodes), strict=False):
            rows[lane]["episode"] = {"r": total, "l": length}
        return step.inputs, (step.scale * transition.reward).astype(np.float32), done, rows

    def close(self) -> None:
        """Nothing to do: the environment is the agent's."""

    def has_attr(self, attr_name: str) -> bool:
        """Whether the environment has an attribute."""
        return attr_name == "action_masks" or hasattr(self.lanes.env.unwrapped, attr_name)

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute, once for each lane."""
        return [getattr(self.lanes.env.unwrapped, attr_name) for _ in self._chosen(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Not possible: all lanes share one environment.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(f"attribute {attr_name!r} cannot be set through the algorithm; set it on the agent's env")

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Calls a method: masks give each lane its row, other results are the same for all."""
        if method_name == "action_masks":
            masks = self._masks()
            return [masks[lane] for lane in self._chosen(indices)]
        result = getattr(self.lanes.env.unwrapped, method_name)(*method_args, **method_kwargs)
        return [result for _ in self._chosen(indices)]

    def env_is_wrapped(self, wrapper_class: type[Any], indices: VecEnvIndices = None) -> list[bool]:
        """No scalar wrappers here."""
        return [False for _ in self._chosen(indices)]

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """Does not render."""
        return [None] * self.num_envs

    def _chosen(self, indices: VecEnvIndices) -> Iterable[int]:
        return list(super()._get_indices(indices))
