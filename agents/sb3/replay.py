"""Replay buffers of slates, drawn from with the agent's own stream. Needs PyTorch and Stable-Baselines3."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples

from recsim_llm.errors import DataError

Arrays = dict[str, NDArray[Any]]
KEPT = ("observations", "next_observations", "actions", "rewards", "seen", "dones", "timeouts")


class SlateReplay(ReplayBuffer):
    """Transitions of slates: which items were shown, and what each slot or all of them earned.

    Args:
        rng: The agent's stream.
        slate_size: K.
        scale: What rewards are to be multiplied with when they are drawn.
        by_slot: Keep the reward of each slot, [B, K], and not their sum, [B, 1]. Then of each step K of its slots are
            drawn, with replacement, from those that the user looked at: a slot that she never saw tells nothing of its
            item.
        coded: Turns items [N, K] into what the algorithm calls an action; None leaves them as they are.
        *args: As for Stable-Baselines3.
        **kwargs: As for Stable-Baselines3.
    """

    def __init__(
        self,
        *args: Any,
        rng: np.random.Generator,
        slate_size: int,
        scale: Callable[[], float],
        by_slot: bool = False,
        coded: Callable[[NDArray[np.int64]], NDArray[np.float32]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.rng, self.scale, self.by_slot, self.coded = rng, scale, by_slot, coded
        self.actions = np.zeros((self.buffer_size, self.n_envs, slate_size), np.int64)
        self.rewards = np.zeros((self.buffer_size, self.n_envs, slate_size if by_slot else 1), np.float32)
        self.seen = np.ones((self.buffer_size, self.n_envs, slate_size if by_slot else 1), np.bool_)

    def add(
        self,
        obs: NDArray[Any],
        next_obs: NDArray[Any],
        action: NDArray[Any],
        reward: NDArray[Any],
        done: NDArray[Any],
        infos: list[dict[str, Any]],
    ) -> None:
        """One step of every lane."""
        at = self.pos
        self.observations[at], self.next_observations[at], self.actions[at] = obs, next_obs, action
        if self.by_slot:
            self.rewards[at], self.seen[at] = ([info[name] for info in infos] for name in ("slot_reward", "seen"))
        else:
            self.rewards[at] = reward[:, None]
        self.dones[at], self.timeouts[at] = done, [info["TimeLimit.truncated"] for info in infos]
        self.pos = (at + 1) % self.buffer_size
        self.full = self.full or self.pos == 0

    def sample(self, batch_size: int, env: Any = None) -> ReplayBufferSamples:
        """Steps drawn uniformly, with replacement."""
        steps = self.rng.integers(self.filled, size=batch_size)
        lanes = self.rng.integers(self.n_envs, size=batch_size)
        items, rewards = self.actions[steps, lanes], self.rewards[steps, lanes]
        if self.by_slot:
            slate_size = drawn(self.seen[steps, lanes], self.rng)
            items, rewards = (np.take_along_axis(array, slate_size, 1) for array in (items, rewards))
        parts = (
            self.observations[steps, lanes],
            items if self.coded is None else self.coded(items),
            self.next_observations[steps, lanes],
            (self.dones[steps, lanes] * (np.float32(1.0) - self.timeouts[steps, lanes]))[:, None],
            rewards * np.float32(self.scale()),
        )
        return ReplayBufferSamples(*map(self.to_torch, parts))

    @property
    def filled(self) -> int:
        """Steps of each lane that it holds."""
        return self.buffer_size if self.full else self.pos

    def arrays(self) -> Arrays:
        """The filled part."""
        return {name: getattr(self, name)[: self.filled] for name in KEPT}

    def restore(self, given: Arrays, position: int, items: int, source: object) -> None:
        """Takes over what :meth:`arrays` gave.

        Args:
            given: The arrays.
            position: Where the next step was to be written.
            items: I.
            source: Where they come from, for messages.
        """
        if set(given) != set(KEPT):
            raise DataError(f"{source}: arrays of the replay buffer differ: {sorted(set(given) ^ set(KEPT))}")
        filled = len(given["dones"])
        for name in KEPT:
            own = getattr(self, name)
            if given[name].shape != (filled, *own.shape[1:]) or given[name].dtype != own.dtype:
                raise DataError(f"{source}: array replay/{name} is {given[name].dtype} {given[name].shape}, "
                                f"expected {own.dtype} {(filled, *own.shape[1:])}")  # fmt: skip
        if filled > self.buffer_size or not 0 <= position < self.buffer_size:
            raise DataError(f"{source}: the replay buffer has {filled} steps at {position}, room is {self.buffer_size}")
        if position != (filled % self.buffer_size) and filled < self.buffer_size:
            raise DataError(f"{source}: the replay buffer has {filled} steps and goes on at {position}")
        if not ((given["actions"] >= 0) & (given["actions"] < items)).all():
            raise DataError(f"{source}: the replay buffer names items that the catalogue does not have")
        for name in KEPT:
            getattr(self, name)[:filled] = given[name]
        self.pos, self.full = position, filled == self.buffer_size


def drawn(seen: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.int64]:
    """K of the slots that were looked at for each step, with replacement; of all slots where none was.

    Args:
        seen: [N, K].
        rng: Where to draw from.

    Returns:
        Positions of slots [N, K].
    """
    ranks = np.cumsum(np.where(seen.any(1, keepdims=True), seen, True), 1)  # [N, K]
    wanted = np.floor(rng.random(seen.shape) * ranks[:, -1:]) + 1.0
    slate_size: NDArray[np.int64] = (ranks[:, None, :] >= wanted[:, :, None]).argmax(2)
    return slate_size
