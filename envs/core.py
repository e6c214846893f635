"""What the scalar and the vector environment share: options, spaces, actions, observations, infos."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from recsim_llm.catalog import Catalog
from recsim_llm.envs.options import Options, reward_of
from recsim_llm.envs.scenario import Scenario
from recsim_llm.errors import ConfigError, unknown
from recsim_llm.rules import SIGNALS
from recsim_llm.rules.observe import CONTEXT
from recsim_llm.rules.simulator import Simulator
from recsim_llm.world import World, load_world

Infos = dict[str, Any]


class Core:
    """B users of one scenario, with spaces and infos as Gymnasium wants them.

    Args:
        scenario: What is simulated.
        options: The keyword arguments.
        lanes: B.
    """

    def __init__(self, scenario: Scenario, options: Options, lanes: int) -> None:
        self.scenario = scenario
        self.options = options
        self.world: World = load_world(options.world or scenario.world)
        slots = scenario.slate_size if options.slate_size is None else options.slate_size
        rules = scenario.rules.replace(**self.world.parameters).replace(**(options.rules or {}))
        if options.choice is not None:
            rules = rules.replace(choice=options.choice)
        self.reward_function, weights = reward_of(options.reward, scenario.reward)
        self.simulator = Simulator(
            self.world, rules, lanes=lanes, slots=slots, users=options.users, weights=weights,
            dynamics=options.dynamics, threads=options.threads,
        )  # fmt: skip
        self.lanes, self.slots = lanes, slots
        self.success_step = options.horizon or scenario.horizon  # a user who is still there then has stayed to the end
        self.layout = self.simulator.layout
        self.everyone = np.ones(lanes, np.bool_)
        self._actions = np.zeros((lanes, slots), np.int64)

    @functools.cached_property
    def catalog(self) -> Catalog:
        """The public catalogue."""
        return self.world.catalog.public()

    @property
    def items(self) -> int:
        """I, the size of the catalogue."""
        return len(self.world.catalog)

    def action_space(self) -> spaces.Space[Any]:
        """Discrete(I) for one slot, MultiDiscrete([I] * K) for a slate."""
        return spaces.Discrete(self.items) if self.slots == 1 else spaces.MultiDiscrete([self.items] * self.slots)

    def observation_space(self) -> spaces.Space[Any]:
        """One Box, or a Dict of the same parts."""
        if self.options.observation == "flat":
            return spaces.Box(-1.0, 1.0, (self.simulator.observation_width,), np.float32)
        parts: dict[str, spaces.Space[Any]] = {
            name: spaces.Box(-1.0, 1.0, (part.stop - part.start,), np.float32) for name, part in self.layout.items()
        }
        return spaces.Dict(parts)

    def observed(self, rows: NDArray[np.float32]) -> Any:
        """Copies rows [B, P] or [P] into the form of the observation space."""
        if self.options.observation == "flat":
            return rows.copy()
        return {name: rows[..., part].copy() for name, part in self.layout.items()}

    def actions(self, actions: Any) -> NDArray[np.int64]:
        """Checks actions [B] or [B, K] and copies them to [B, K].

        Raises:
            ConfigError: If the shape is wrong or a number is no item.
        """
        given = np.asarray(actions)
        expected = (self.lanes,) if self.slots == 1 else (self.lanes, self.slots)
        if given.shape not in (expected, self._actions.shape) and not (self.lanes == 1 and given.size == self.slots):
            raise ConfigError(f"actions have shape {given.shape}, expected {expected}")
        if given.dtype.kind not in "iu":
            raise ConfigError(f"actions must be integers (positions in the catalogue), got dtype {given.dtype}")
        self._actions[...] = given.reshape(self._actions.shape)
        low, high = int(self._actions.min()), int(self._actions.max())
        if low < 0 or high >= self.items:
            raise ConfigError(
                f"action {low if low < 0 else high} is no item; the catalogue has items 0..{self.items - 1}"
            )
        return self._actions

    def check_strict(self) -> None:
        """Raises on wasted slots.

        Raises:
            ConfigError: If a slot holds an item twice or one that is not on the shelf.
        """
        wasted = self.simulator.state.lane["wasted"]
        if self.options.strict and wasted.any():
            lane = int(np.argmax(wasted > 0))
            raise ConfigError(
                f"slate {self._actions[lane].tolist()} wastes {int(wasted[lane])} slots: an item is in it twice or "
                "not on the shelf (see action_masks()); strict=False leaves such slots empty"
            )

    def infos(self) -> Infos:
        """Infos of all lanes as arrays [B, ...], every key at every step."""
        state = self.simulator.state
        lane = state.lane
        feedback = state.feedback.copy()
        shown = np.maximum(lane["total_examined"], 1)
        infos: Infos = {
            "user_id": lane["user"].astype(np.int64),
            "clicks": lane["clicks"].astype(np.int64),
            "ctr": lane["total_clicks"] / shown,
            "wasted": lane["wasted"].astype(np.int64),
            "session": lane["session"].astype(np.int64),
            "day": self.simulator.days(),
            "diversity": lane["diversity"].astype(np.float64),
            "is_success": np.zeros(self.lanes, np.bool_),
            "slate": state.slate.copy(),
            "slot_reward": self.simulator.outcome.slot_reward.copy(),
        }
        for number, name in enumerate(SIGNALS):
            infos[name] = feedback[:, :, number]
        if self.options.action_mask:
            infos["action_mask"] = self.masks().astype(np.int8)
        if self.options.truth:
            infos["truth_appeal"], infos["truth_value"] = self.simulator.truth()
            infos["truth_mood"] = lane["mood"].astype(np.float64)
            infos["truth_satisfaction"] = lane["satisfaction"].astype(np.float64)
        return infos

    def rewards(self, infos: Infos) -> NDArray[np.float64]:
        """Rewards [B] of the last step."""
        rewards = self.simulator.outcome.reward
        if self.reward_function is None:
            return rewards.copy()
        values = np.asarray(self.reward_function({**infos, "reward": rewards.copy()}), np.float64)
        if values.shape != rewards.shape:
            raise ConfigError(f"the reward function returned shape {values.shape}, expected {rewards.shape}")
        return values

    def masks(self) -> NDArray[np.bool_]:
        """Which items are on the shelf for each lane and slot, [B, K * I]."""
        return np.tile(self.simulator.available(), (1, self.slots))

    def wishes(self, options: Mapping[str, Any] | None) -> NDArray[np.int32] | None:
        """Users named in reset's options under "user": an index or id, or one for each lane.

        Raises:
            ConfigError: If an option is not known or there is no such user.
        """
        named = dict(options or {})
        named.pop("minari_autoseed", None)
        named.pop("reset_mask", None)  # the vector environment has read it; libraries hand it to scalar ones too
        users = named.pop("user", None)
        if named:
            raise unknown("reset option", next(iter(named)), ["user", "reset_mask", "minari_autoseed"])
        if users is None:
            return None
        listed = list(users) if isinstance(users, list | tuple | np.ndarray) else [users] * self.lanes
        if len(listed) != self.lanes:
            raise ConfigError(f'reset option "user" names {len(listed)} users for {self.lanes} lanes')
        return np.array([self._user(user) for user in listed], np.int32)

    def _user(self, user: Any) -> int:
        people = self.world.population
        index = people.user_id.index(user) if isinstance(user, str) and user in people.user_id else user
        if isinstance(index, str) or not 0 <= int(index) < len(people):
            raise ConfigError(f"no user {user!r}; name one of the {len(people)} ids or a position from 0")
        return int(index)


class PublicFacts:
    """What agents may ask of an environment, scalar or vector, beside its spaces."""

    core: Core

    @property
    def catalog(self) -> Catalog:
        """The public catalogue: texts, categories, prices, encodings."""
        return self.core.catalog

    @property
    def layout(self) -> dict[str, slice]:
        """Where each part of a flat observation stands."""
        return self.core.layout

    @property
    def slate_size(self) -> int:
        """K, items shown at each step."""
        return self.core.slots

    @property
    def context_names(self) -> tuple[str, ...]:
        """Names of the numbers of the context part."""
        return CONTEXT
