"""Whole slates as actions, for agents that know one discrete action only."""

from __future__ import annotations

import itertools
import math
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorWrapper
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from recsim_llm.envs.wrappers.common import core_of
from recsim_llm.errors import ConfigError

MOST_SLATES = 100_000
Table = NDArray[np.int64]


class SlateEnumeration(gym.Wrapper, RecordConstructorArgs):
    """The action is the number of a slate: Discrete(n) over all slates of K different items, in lexical order.

    n = I! / (I - K)! ordered slates, or I! / (K! (I - K)!) with ``ordered=False``, whose items stand in the order of
    the catalogue; with ``num_candidates=C``, C in place of I. Items off the shelf make their slates unavailable:
    ``action_masks()``, bool [n], and ``info["action_mask"]`` where the environment gives one.

    Args:
        env: A scalar environment of this package with a small catalogue or candidate list.
        ordered: Whether the order of the items matters.
        limit: Most slates; above it nothing is allocated.

    Raises:
        ConfigError: If there are more slates than ``limit``.
    """

    def __init__(self, env: gym.Env[Any, Any], *, ordered: bool = True, limit: int = MOST_SLATES) -> None:
        RecordConstructorArgs.__init__(self, ordered=ordered, limit=limit)
        gym.Wrapper.__init__(self, env)
        self._core = core_of(env, "SlateEnumeration")
        self.slates = enumerated(self._core.choices, self._core.slate_size, ordered, limit)
        self.action_space = spaces.Discrete(len(self.slates))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As the environment inside."""
        observation, info = self.env.reset(seed=seed, options=options)
        return observation, _with_mask(info, self.slates, self._core.choices)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Shows the slate of that number."""
        slate = self.slates[_checked(action, len(self.slates), ())]
        *result, info = self.env.step(slate[0] if self._core.slate_size == 1 else slate)
        return *result, _with_mask(info, self.slates, self._core.choices)

    def action_masks(self) -> NDArray[np.bool_]:
        """Slates all of whose items can be shown, [n]."""
        return _possible(self._core.available()[0], self.slates)


class VectorSlateEnumeration(VectorWrapper, RecordConstructorArgs):
    """The same for vector environments: actions [B].

    Args:
        env: The vector environment of ``gym.make_vec``.
        ordered: Whether the order of the items matters.
        limit: Most slates.

    Raises:
        ConfigError: If there are more slates than ``limit``.
    """

    def __init__(
        self, env: gym.vector.VectorEnv[Any, Any, Any], *, ordered: bool = True, limit: int = MOST_SLATES
    ) -> None:
        RecordConstructorArgs.__init__(self, ordered=ordered, limit=limit)
        VectorWrapper.__init__(self, env)
        self._core = core_of(env, "SlateEnumeration")
        self.slates = enumerated(self._core.choices, self._core.slate_size, ordered, limit)
        self.single_action_space = spaces.Discrete(len(self.slates))
        self.action_space = batch_space(self.single_action_space, env.num_envs)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As the environment inside."""
        observation, infos = self.env.reset(seed=seed, options=options)
        return observation, _with_mask(infos, self.slates, self._core.choices)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Shows the slates of these numbers [B]."""
        slates = self.slates[_checked(actions, len(self.slates), (self.num_envs,))]
        *result, infos = self.env.step(slates[:, 0] if self._core.slate_size == 1 else slates)
        infos = _with_mask(infos, self.slates, self._core.choices)
        if "final_info" in infos:
            infos["final_info"] = _with_mask(infos["final_info"], self.slates, self._core.choices)
        return *result, infos

    def action_masks(self) -> NDArray[np.bool_]:
        """Slates all of whose items can be shown, [B, n]."""
        return _possible(self._core.available(), self.slates)


def enumerated(choices: int, slate_size: int, ordered: bool, limit: int) -> Table:
    """All slates of different numbers below ``choices``, [n, K], in lexical order.

    Raises:
        ConfigError: If there are more than ``limit``.
    """
    count = math.perm(choices, slate_size) if ordered else math.comb(choices, slate_size)
    if count > limit:
        raise ConfigError(
            f"{choices} items make {count:,} {'ordered slates' if ordered else 'slates'} of {slate_size}, more than "
            f"limit={limit:,}; take candidates (num_candidates=), a smaller slate_size, ordered=False, or raise limit"
        )
    every = itertools.permutations if ordered else itertools.combinations
    return np.fromiter(itertools.chain.from_iterable(every(range(choices), slate_size)), np.int64).reshape(
        count, slate_size
    )


def _checked(actions: Any, count: int, shape: tuple[int, ...]) -> NDArray[np.integer]:
    given = np.asarray(actions)
    if given.dtype.kind not in "iu" or given.size != math.prod(shape):
        raise ConfigError(f"actions must be integers of shape {shape}, got {given.dtype} of shape {given.shape}")
    if given.min() < 0 or given.max() >= count:
        raise ConfigError(f"action {given.min() if given.min() < 0 else given.max()} is no slate; there are {count:,}")
    return given.reshape(shape)


def _possible(available: NDArray[np.bool_], slates: Table) -> NDArray[np.bool_]:
    """Which slates can be shown, [..., n], from which items can be, [..., I]."""
    possible: NDArray[np.bool_] = available[..., slates[:, 0]]
    for slot in range(1, slates.shape[1]):
        possible &= available[..., slates[:, slot]]
    return possible


def _with_mask(infos: dict[str, Any], slates: Table, choices: int) -> dict[str, Any]:
    """Infos whose mask of actions is that of the slates."""
    if "action_mask" not in infos:
        return infos
    items = infos["action_mask"][..., :choices].astype(np.bool_)
    return {**infos, "action_mask": _possible(items, slates).astype(np.int8)}
