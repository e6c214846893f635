"""B users as agents see them, whatever kind of environment runs them."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from recsim_llm.errors import ConfigError
from recsim_llm.serving import Served, whole
from recsim_llm.worlds.catalog import Catalog, occurrences

Flags = NDArray[np.bool_]
Floats = NDArray[np.float32]
Slates = NDArray[np.int64]
Infos = dict[str, Any]

DEFAULT_LANES = 64
"""Lanes of the environment that is made when an agent is given only an id."""


@dataclass(frozen=True)
class Transition:
    """What just happened to B users.

    Attributes:
        observation: [B, P] before the step.
        action: [B, K] items that were asked for.
        reward: [B].
        next_observation: [B, P] after the step; where an episode ended, its last observation and not the next
            episode's first.
        terminated: [B] she left for good: there is no future to bootstrap from.
        truncated: [B] the clock ended it: where it was not terminated too, bootstrap from ``next_observation``.
        info: Infos of the step, arrays [B, ...]; in the mode "SameStep" those of the episode that ended.
        valid: [B]; False where the step only reset the lane and nothing is to be learnt.
        state: What ``predict`` returned beside the action: the agent's memory when it chose.
        propensity: [B, K] probability with which the policy shows this item in this slot, given the slots before it:
            their product is that of the slate. NaN where it is not known.
        slot_weight: How much the infos' rewards of slots count in ``reward``; see
            :class:`~recsim_llm.agents.common.item_stats.SlotWeight`.
    """

    observation: Floats
    action: Slates
    reward: NDArray[np.float64]
    next_observation: Floats
    terminated: Flags
    truncated: Flags
    info: Mapping[str, Any]
    valid: Flags
    state: Any = None
    propensity: NDArray[np.float64] = field(default_factory=lambda: np.full((1, 1), np.nan))
    slot_weight: float = 1.0


@dataclass(frozen=True, eq=False)
class EnvironmentSpec:
    """What an agent may know of an environment beforehand: the public catalogue and the form of observations.

    Attributes:
        catalog: The public catalogue; latent columns are zero.
        layout: Where each part of a flat observation stands.
        slate_size: K, items shown at each step.
        context_names: Names of the numbers of the context part.
        view: What turns the environment's own observations and infos into those of this setting; None where they are.
    """

    catalog: Catalog
    layout: Mapping[str, slice]
    slate_size: int
    context_names: tuple[str, ...]
    view: Any = None
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        parts = hashlib.sha256("\n".join(self.catalog.item_id).encode())
        parts.update(self.catalog.embedding.tobytes())
        object.__setattr__(self, "digest", parts.hexdigest())

    @property
    def items(self) -> int:
        """I, the size of the catalogue."""
        return len(self.catalog)

    @property
    def candidates(self) -> int:
        """C, items to choose from at each step; 0 where that is the catalogue."""
        part = self.layout.get("candidates", slice(0, 0))
        return int(part.stop - part.start) // self.catalog.width

    @property
    def kinds(self) -> bool:
        """Whether items are kinds of documents of which others come at each step, so that none needs to rest."""
        return self.view is not None

    @functools.cached_property
    def _by_encoding(self) -> dict[bytes, int]:
        """The first item of each encoding as it stands in observations; an empty place is -1."""
        rows = np.clip(self.catalog.embedding, -1.0, 1.0).astype(np.float32)
        table = {row.tobytes(): index for index, row in reversed(list(enumerate(rows)))}
        return table | {bytes(rows[0].nbytes): -1}

    @functools.cached_property
    def _alike(self) -> Slates:
        """[I, N] the items with the encoding of each, in order; -1 behind the last."""
        rows = np.clip(self.catalog.embedding, -1.0, 1.0).astype(np.float32)
        first = np.array([max(self._by_encoding[row.tobytes()], 0) for row in rows], np.int64)
        rank = occurrences(first[None])[0]
        table = np.full((self.items, int(rank.max()) + 1), -1, np.int64)
        table[first, rank] = np.arange(self.items)
        return table

    def listed(self, obs: Floats) -> Slates:
        """Items [B, C] of the candidate lists in observations [B, P], -1 for an empty place.

        They are told by their encodings, so that an agent can serve any environment with this catalogue. Of items with
        the same encoding, the first in the list is the first in the catalogue, and so on.

        Raises:
            ConfigError: If there is an encoding that no item has.
        """
        cells = np.ascontiguousarray(self.part("candidates", obs)).view(np.dtype((np.void, 4 * self.catalog.width)))
        try:
            first = np.array([[self._by_encoding[cell] for cell in row] for row in cells.tolist()], np.int64)
        except KeyError:
            raise ConfigError("the observation has candidates that are not in the catalogue the agent knows") from None
        if self._alike.shape[1] == 1:
            return first
        rank = np.minimum(occurrences(first), self._alike.shape[1] - 1)
        return np.where(first >= 0, self._alike[np.maximum(first, 0), rank], -1)

    def infos(self, infos: Infos, obs: Floats, listed: Slates | None) -> Infos:
        """Infos [B, ...] in terms of the catalogue.

        Args:
            infos: Infos of a step or reset, as the environment gives them.
            obs: Observations [B, P] after it.
            listed: The candidates [B, C] that the slates were chosen from; None at a reset.
        """
        if self.view is None:
            return infos
        return {**self.view.infos(infos, listed), "candidates": self.listed(obs)}

    @property
    def width(self) -> int:
        """P, the width of a flat observation."""
        return max(int(part.stop) for part in self.layout.values())

    def part(self, name: str, obs: Floats) -> Floats:
        """The named part of flat observations [B, P]."""
        return obs[:, self.layout[name]]

    def context(self, name: str, obs: Floats) -> Floats:
        """One number of the context part, [B]."""
        return obs[:, self.layout["context"].start + self.context_names.index(name)]

    def feedback(self, obs: Floats) -> Floats:
        """Signals of the last step, scaled to [0, 1], [B, K, S]."""
        return self.part("feedback", obs).reshape(len(obs), self.slate_size, -1)

    @property
    def choices(self) -> int:
        """Items that the environment itself knows: I, or where items are kinds of documents the C documents."""
        return self.items if self.view is None else int(self.view.listed)

    def handed_out(self, observation: Any) -> Floats:
        """Flat observations [B, P] as the environment itself has them, without the view."""
        if isinstance(observation, Mapping):
            parts = self.layout if self.view is None else self.view.raw
            observation = np.concatenate([observation[name] for name in parts], axis=-1)
        return np.atleast_2d(np.asarray(observation, np.float32))

    def flat(self, observation: Any) -> Floats:
        """A flat observation [P] or [B, P] from either form."""
        if self.view is not None:
            observation = self.view.rows(observation)
        elif isinstance(observation, Mapping):
            observation = np.concatenate([observation[name] for name in self.layout], axis=-1)
        obs = np.asarray(observation, np.float32)
        if obs.ndim not in (1, 2) or obs.shape[-1] != self.width:
            raise ConfigError(f"observation has shape {obs.shape}, expected (B, {self.width}) or ({self.width},)")
        return obs

    @classmethod
    def of(cls, env: Any) -> EnvironmentSpec:
        """Reads the setting of an environment.

        Raises:
            ConfigError: If it is no environment of this package.
        """
        view = getattr(env.unwrapped, "agent_view", None)
        bare = env.unwrapped if view is None else view
        if not all(hasattr(bare, name) for name in ("catalog", "layout", "slate_size", "context_names")):
            raise ConfigError(
                f"{type(bare).__name__} has no public catalogue and layout; agents need an environment of recsim_llm"
            )
        return cls(bare.catalog, dict(bare.layout), int(bare.slate_size), tuple(bare.context_names), view)


def make_env(env: Any) -> Any:
    """The environment itself, or 64 lanes of the training users for an id."""
    return gym.make_vec(env, num_envs=DEFAULT_LANES, users="train") if isinstance(env, str) else env


class EnvRunner:
    """Runs an environment, scalar or vector, in any autoreset mode, and hands out transitions.

    Args:
        env: A scalar or vector environment of this package.
        env_spec: Its setting.
    """

    def __init__(self, env: Any, env_spec: EnvironmentSpec) -> None:
        self.env = env
        self.env_spec = env_spec
        self.vector = isinstance(env, VectorEnv)
        if not self.vector and not isinstance(env, gym.Env):
            raise ConfigError(f"env must be an id, a gymnasium Env or a VectorEnv, got {type(env).__name__}")
        self.count = int(env.num_envs) if self.vector else 1
        self.mode = env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP) if self.vector else None
        self.served: Served = whole(env)
        self.started = False
        self.observation: Floats = np.zeros((self.count, env_spec.width), np.float32)
        self.info: Infos = {}
        self.fresh: Flags = np.ones(self.count, np.bool_)
        self._over: Flags = np.zeros(self.count, np.bool_)
        from recsim_llm.agents.common.item_stats import SlotWeight

        self.slot_weight = SlotWeight()

    def reset(self, seed: int | None = None) -> None:
        """Begins episodes in all lanes."""
        observation, info = self.env.reset(seed=seed)
        self.observation = self._rows(observation)
        self.info = self.env_spec.infos(self._batched(info), self.observation, None)
        self.fresh, self._over = np.ones(self.count, np.bool_), np.zeros(self.count, np.bool_)
        self.started = True

    def available(self) -> Flags:
        """Which items can be shown, [B, I]: those on the shelf, or the candidates."""
        if self.env_spec.candidates:
            return chosen_from(self.info["candidates"], self.env_spec.items)
        return np.atleast_2d(self.env.unwrapped.available())

    def step(self, slates: Slates, state: Any = None, propensity: NDArray[np.float64] | None = None) -> Transition:
        """Shows slates [B, K]; afterwards ``observation``, ``info`` and ``fresh`` are those to act on next."""
        before, over, listed = self.observation, self._over, self.info.get("candidates")
        numbers = places(self.info["candidates"], slates) if self.env_spec.candidates else slates
        actions: Any = numbers[:, 0] if self.env_spec.slate_size == 1 else numbers
        observation, reward, terminated, truncated, info = self.env.step(actions if self.vector else actions[0])
        after, info = self._rows(observation), self._batched(info)
        flags = (np.atleast_1d(np.asarray(flag, np.bool_)) for flag in (terminated, truncated))
        terminated, truncated = (flag & ~over for flag in flags)
        done = terminated | truncated
        self.observation, self.info, last = after, info, info
        self.fresh = over if self.mode is AutoresetMode.NEXT_STEP else done
        if self.mode is AutoresetMode.NEXT_STEP:
            self._over = done
        elif done.any():
            after, last = self._ended(after, info, done)
        same, last = last is self.info, self.env_spec.infos(last, after, listed)
        self.info = last if same else self.env_spec.infos(self.info, self.observation, listed)
        rewards = np.atleast_1d(np.asarray(reward, np.float64))
        if propensity is None:
            propensity = np.full(slates.shape, np.nan)
        weight = 1.0
        if "slot_reward" in last and rewards.shape == over.shape:  # not where it is a vector
            weight = self.slot_weight.add(np.asarray(last["slot_reward"], np.float64)[~over], rewards[~over])
        return Transition(before, slates, rewards, after, terminated, truncated, last, ~over, state, propensity, weight)

    def snapshot(self) -> dict[str, Any]:
        """Where the lanes stand, the environment's own state included; {} before the first reset."""
        from recsim_llm.agents.core.env_snapshot import environment_state

        if not self.started:
            return {}
        info = {name: value for name, value in self.info.items() if name not in ("final_obs", "final_info")}
        return {
            "env": environment_state(self.env), "observation": self.observation, "info": info, "fresh": self.fresh,
            "over": self._over, "slot_weight": self.slot_weight.sums,
        }  # fmt: skip

    def resume(self, arrays: Mapping[str, NDArray[Any]], rest: Mapping[str, Any]) -> None:
        """Goes on from a snapshot that :func:`recsim_llm.agents.core.packing.pack` has taken apart.

        Raises:
            ValueError: If an array has another shape or type than here.
        """
        from recsim_llm.agents.core.env_snapshot import restore_environment
        from recsim_llm.agents.core.packing import inside

        self.reset(seed=0)
        restore_environment(self.env, inside(arrays, "env"), inside(rest, "env"))
        own, given = self.snapshot(), dict(arrays)
        for name in ("observation", "fresh", "over", "slot_weight"):
            own[name][...] = like(own[name], given[name], name)
        info = inside(given, "info")
        self.info = {name: like(value, info[name], name).copy() for name, value in own["info"].items()}

    def _ended(self, after: Floats, info: Infos, done: Flags) -> tuple[Floats, Infos]:
        """Last observations and infos of finished episodes; begins new ones where the environment did not."""
        if self.mode is AutoresetMode.SAME_STEP:
            last = after.copy()
            last[done] = self._rows([row for row in info["final_obs"] if row is not None])
            return last, _merged(info, info["final_info"], done)
        if self.mode is None:
            observation, first = self.env.reset()
            self.observation, self.info = self._rows(observation), self._batched(first)
        else:
            observation, first = self.env.reset(options={"reset_mask": done})
            self.observation, self.info = self._rows(observation), _merged(info, first, done)
        return after, info

    def _rows(self, observation: Any) -> Floats:
        if isinstance(observation, list):
            return np.stack([self.env_spec.flat(row) for row in observation])
        return np.atleast_2d(self.env_spec.flat(observation))

    def _batched(self, info: Mapping[str, Any]) -> Infos:
        return dict(info) if self.vector else {name: np.asarray(value)[None] for name, value in info.items()}


def chosen_from(listed: Slates, items: int) -> Flags:
    """Which of I items are in the lists [B, C], [B, I]."""
    action_mask = np.zeros((len(listed), items + 1), np.bool_)
    np.put_along_axis(action_mask, listed, True, 1)  # an empty place, -1, is the last column
    return action_mask[:, :-1]


def places(listed: Slates, slates: Slates) -> Slates:
    """Positions [B, K] of items [B, K] in the lists [B, C]; for those that are not there an empty place, or a free one.

    Agents fill slates up with other items where there are too few: the environment counts an empty place as wasted.
    """
    same = listed[:, None, :] == slates[:, :, None]  # [B, K, C]
    there = same.any(2)
    found: Slates = same.argmax(2)
    if there.all():
        return found
    lanes, empty = np.arange(len(listed)), listed < 0
    rank = same.any(1) * 2 - empty  # [B, C]: an empty place first, what the slate shows already last
    for slot in range(slates.shape[1]):
        place = np.where(there[:, slot], found[:, slot], rank.argmin(1))
        rank[lanes, place] = np.where(empty[lanes, place], -1, 2)
        found[:, slot] = place
    return found


def like(own: NDArray[Any], given: NDArray[Any], name: str) -> NDArray[Any]:
    """The given array, if it is of the same form as the own one; ValueError otherwise."""
    if own.shape != given.shape or own.dtype != given.dtype:
        raise ValueError(f"{name} is {given.dtype} {given.shape}, expected {own.dtype} {own.shape}")
    return given


def _merged(old: Mapping[str, Any], new: Mapping[str, Any], mask: Flags) -> Infos:
    """Infos with the rows of the mask taken from ``new``."""
    merged = dict(old)
    for name, value in new.items():
        if name in merged and isinstance(value, np.ndarray):
            merged[name] = merged[name].copy()
            merged[name][mask] = value[mask]
    return merged


def normalised(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Encodings [N, D] of length 1; zeros stay zeros."""
    length = np.sqrt(np.square(points).sum(1, keepdims=True))
    units: NDArray[np.float64] = np.divide(points, length, out=np.zeros_like(points), where=length > 0)
    return units
