"""What the scalar and the vector environment share: options, spaces, actions, observations, infos."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from recsim_llm.envs.options import Options, reward_of
from recsim_llm.envs.reward_terms import check_terms, counted
from recsim_llm.envs.scenario import Scenario
from recsim_llm.envs.scenario_infos import extra_infos, truth_infos
from recsim_llm.envs.slot_rewards import differences
from recsim_llm.envs.vector_reward.objectives import vector_rewards
from recsim_llm.errors import ConfigError, unknown
from recsim_llm.serving import MOMENTS
from recsim_llm.simulator import SIGNALS
from recsim_llm.simulator.live_judge import LiveSimulator
from recsim_llm.simulator.observation import CONTEXT
from recsim_llm.simulator.observation_parts import Parts
from recsim_llm.simulator.simulator import Outcome, Simulator
from recsim_llm.simulator.task_variant import Protocol
from recsim_llm.worlds.catalog import Catalog
from recsim_llm.worlds.world import World, load_world

Infos = dict[str, Any]


class Core:
    """B users of one scenario, with spaces and infos as Gymnasium wants them.

    Args:
        scenario: What is simulated.
        options: The keyword arguments.
        lanes: B.
    """

    protocol = Protocol()
    rewarded: Sequence[str] = ()
    """Terms of the reward that count; none are known where the reward is a function."""
    parts: Parts | None = None
    """Parts of the observation that were asked for beside those that are always there."""
    objectives: tuple[str, ...] = ()
    """Where rewards are vectors: what their numbers are."""
    moment: int = 0
    """When it was last reset or stepped, in the order of all environments of this process."""

    def __init__(self, scenario: Scenario, options: Options, lanes: int) -> None:
        self.scenario = scenario
        self.options = options
        self.protocol = options.protocol
        self.world: World = load_world(options.world or scenario.world)
        slate_size = scenario.slate_size if options.slate_size is None else options.slate_size
        rules = scenario.rules.replace(**self.world.parameters).replace(**(options.rules or {}))
        if options.choice is not None:
            rules = rules.replace(choice=options.choice)
        self.reward_function, weights = reward_of(options.reward, scenario.reward)
        self.reward_weights = weights
        settings: dict[str, Any] = {
            "lanes": lanes, "slate_size": slate_size, "users": options.users, "weights": weights,
            "dynamics": options.dynamics,
            "protocol": options.protocol, "threads": options.threads,
        }  # fmt: skip
        if options.judge is None:
            self.simulator = Simulator(self.world, rules, **settings)
        else:
            from recsim_llm.judges.judge_utilities import load_judge_utilities

            judge_utilities = load_judge_utilities(self.world, options.judge_model, options.judge_options)
            self.simulator = LiveSimulator(self.world, rules, judge_utilities=judge_utilities, **settings)
        self.rewarded = counted(weights) if self.reward_function is None else []
        self.lanes, self.slate_size = lanes, slate_size
        self.success_step = options.horizon or scenario.horizon  # a user who is still there then has stayed to the end
        self.layout = self.simulator.layout
        if options.num_candidates is not None or options.history or options.group:
            self.parts = Parts(
                self.simulator, candidates=options.num_candidates or 0, history=options.history, group=options.group
            )
            self.layout = self.parts.layout
        self.everyone = np.ones(lanes, np.bool_)
        self._actions = np.zeros((lanes, slate_size), np.int64)

    def check_reward(self, terms: Sequence[str], argument: str = "reward") -> None:
        """Says which terms of the reward can never occur; ``argument`` is the keyword argument that names them.

        Raises:
            ConfigError: If none of them can.
        """
        if terms:
            check_terms(
                terms, self.world, self.simulator.rules, self.protocol, scenario=self.scenario.id, argument=argument,
                chosen=self.options.reward is not None or argument != "reward",
            )  # fmt: skip

    @functools.cached_property
    def catalog(self) -> Catalog:
        """The public catalogue, with the release times of this environment."""
        public = self.world.catalog.public()
        if self.protocol.cold_items > 0 or self.simulator.waiting.any():
            return dataclasses.replace(public, released_at=self.simulator.released_at)
        return public

    def release(self, items: NDArray[np.integer], day: float) -> None:
        """Puts items that wait on the shelf from a day on; see :meth:`PublicFacts.release`."""
        self.simulator.release(items, day)
        self._note_release_days()

    def _note_release_days(self) -> None:
        """Renews the days in the public catalogue in place: agents that were made before read it, as a platform's."""
        if self.simulator.waiting.any():
            days = self.catalog.released_at
            days.flags.writeable = True
            days[...] = self.simulator.released_at
            days.flags.writeable = False

    @property
    def items(self) -> int:
        """I, the size of the catalogue."""
        return len(self.world.catalog)

    @property
    def candidates(self) -> NDArray[np.int64] | None:
        """Items of the present lists [B, C], -1 for an empty place; None where actions name items themselves."""
        return self.parts.candidates if self.parts is not None and self.parts.candidates.shape[1] else None

    @property
    def choices(self) -> int:
        """Numbers that an action may take for each slot: C, or I."""
        return self.items if self.candidates is None else self.candidates.shape[1]

    def action_space(self) -> spaces.Space[Any]:
        """Discrete(I) for one slot, MultiDiscrete([I] * K) for a slate; C in place of I where there are candidates."""
        return (
            spaces.Discrete(self.choices)
            if self.slate_size == 1
            else spaces.MultiDiscrete([self.choices] * self.slate_size)
        )

    def observation_space(self) -> spaces.Space[Any]:
        """One Box, or a Dict of the same parts."""
        if self.options.observation == "flat":
            return spaces.Box(-1.0, 1.0, self.simulator.outcome.observation.shape[1:], np.float32)
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
        """Checks actions [B] or [B, K] and gives the items [B, K] that they stand for, -1 for an empty candidate.

        Raises:
            ConfigError: If the shape is wrong or a number is no item or candidate.
        """
        given = np.asarray(actions)
        kept = self._actions
        if given.shape != kept.shape:
            expected = (self.lanes,) if self.slate_size == 1 else (self.lanes, self.slate_size)
            if given.shape != expected and not (self.lanes == 1 and given.size == self.slate_size):
                raise ConfigError(f"actions have shape {given.shape}, expected {expected}")
            given = given.reshape(kept.shape)
        if given.dtype.kind not in "iu":
            raise ConfigError(f"actions must be integers (positions in the catalogue), got dtype {given.dtype}")
        kept[...] = given
        # As unsigned numbers, negative ones are too large: one look for both. A few are looked at faster as a list.
        unsigned = kept.view(np.uint64)
        if (max(unsigned[0].tolist()) if kept.size == self.slate_size else unsigned.max()) >= self.choices:
            wrong = int(next(number for number in kept.ravel() if not 0 <= number < self.choices))
            what = "item; the catalogue has items" if self.candidates is None else "candidate; the list has places"
            raise ConfigError(f"action {wrong} is no {what} 0..{self.choices - 1}")
        return kept if self.candidates is None else self._looked_up()

    def _looked_up(self) -> NDArray[np.int64]:
        """The items at the positions of the actions."""
        assert self.candidates is not None
        self._actions[...] = np.take_along_axis(self.candidates, self._actions, 1)
        return self._actions

    def step(self, actions: Any) -> Outcome:
        """Shows slates [B] or [B, K] to all users who are in an episode.

        Raises:
            ConfigError: If the actions are not valid, or with strict=True where slots are wasted.
        """
        outcome: Outcome = self.simulator.step(self.actions(actions))
        self.moment = next(MOMENTS)
        if self.parts is not None:
            self.parts.renew()
        if self.options.strict:
            self.check_strict()
        return outcome

    def reset(self, mask: NDArray[np.bool_], wishes: NDArray[np.int32] | None = None) -> Outcome:
        """Begins an episode in every lane of the mask [B]; ``wishes`` [B] names users, -1 draws one."""
        outcome: Outcome = self.simulator.reset(mask, wishes)
        self.moment = next(MOMENTS)
        if self.parts is not None:
            self.parts.begin(mask)
        return outcome

    def get_state(self) -> dict[str, Any]:
        """A snapshot: every array that changes, copied."""
        return {**self.simulator.get_state(), **({} if self.parts is None else self.parts.get_state())}

    def set_state(self, snapshot: Mapping[str, Any]) -> None:
        """Restores a snapshot.

        Raises:
            ConfigError: If a part is missing or of another shape.
        """
        self.simulator.set_state(snapshot)
        self.moment = next(MOMENTS)
        self._note_release_days()
        if self.parts is not None:
            self.parts.set_state(snapshot)

    def check_strict(self) -> None:
        """Raises on wasted slots.

        Raises:
            ConfigError: If a slot holds an item twice or one that is not on the shelf.
        """
        wasted = self.simulator.state.lane["wasted"]
        if wasted.any():
            lane = int(np.argmax(wasted > 0))
            raise ConfigError(
                f"slate {self._actions[lane].tolist()} wastes {int(wasted[lane])} slots: an item is in it twice or "
                "not on the shelf (see action_masks()); strict=False leaves such slots empty"
            )

    def infos(self) -> Infos:
        """Infos of all lanes as arrays [B, ...], every key at every step."""
        state = self.simulator.state
        lane = state.lane
        feedback = self.simulator.feedback.copy()
        shown = np.maximum(lane["total_examined"], 1)
        users = lane["user"].astype(np.int64)
        if self.protocol.opt_out > 0:
            users[lane["opted_out"]] = -1
        infos: Infos = {
            "user_id": users,
            "clicks": lane["clicks"].astype(np.int64),
            "ctr": lane["total_clicks"] / shown,
            "wasted": lane["wasted"].astype(np.int64),
            "session": lane["session"].astype(np.int64),
            "day": self.simulator.days(),
            "diversity": lane["diversity"].astype(np.float64),
            "is_success": np.zeros(self.lanes, np.bool_),
            "slate": self.simulator.slate.copy(),
            "slot_reward": self.simulator.outcome.slot_reward.copy(),
        }
        for number, name in enumerate(SIGNALS):
            infos[name] = feedback[:, :, number]
        infos |= extra_infos(self.simulator)
        if self.parts is not None:
            infos |= self.parts.infos()
        if self.options.action_mask:
            infos["action_mask"] = self.masks().astype(np.int8)
        if self.options.truth:
            infos["truth_appeal"], infos["truth_value"] = self.truth()
            infos["truth_mood"] = lane["mood"].astype(np.float64)
            infos["truth_satisfaction"] = lane["satisfaction"].astype(np.float64)
            infos |= truth_infos(self.simulator)
        return infos

    def rewards(self, infos: Infos) -> NDArray[np.floating]:
        """Rewards [B] of the last step as the recommender sees them, or float32 [B, m] of m objectives.

        Where the reward is a function, ``infos["slot_reward"]`` is replaced by what each slot contributed to it; see
        :func:`~recsim_llm.envs.slot_rewards.differences`.
        """
        if self.objectives:
            return vector_rewards(self.simulator, self.objectives)
        reported = self.protocol.reports
        rewards = self.simulator.state.lane["reported"].astype(np.float64) if reported else self.true_rewards()
        if self.reward_function is None:
            return rewards
        values = np.asarray(self.reward_function({**infos, "reward": rewards.copy()}), np.float64)
        if values.shape != rewards.shape:
            raise ConfigError(f"the reward function returned shape {values.shape}, expected {rewards.shape}")
        if "slot_reward" in infos:
            price = self.world.catalog.price
            infos["slot_reward"] = differences(self.reward_function, infos, rewards, values, self.reward_weights, price)
        return values

    def true_rewards(self) -> NDArray[np.float64]:
        """Rewards [B] of the last step, whatever was reported of it; what a policy is worth."""
        return self.simulator.outcome.reward.copy()

    def true_counts(self) -> Infos:
        """The infos "slate" [B, K] and "clicks" [B] of the last step as they were, whatever was reported."""
        state = self.simulator.state
        clicks = state.feedback[:, :, SIGNALS.index("click")].sum(1).astype(np.int64)
        return {"slate": state.slate.copy(), "clicks": clicks}

    def past_retention(self) -> NDArray[np.bool_]:
        """Lanes whose episode has come to the protocol's horizon in days, [B]."""
        if self.protocol.retention > 0:
            return self.simulator.past_retention()
        return np.zeros(self.lanes, np.bool_)

    def truth(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Attraction (-inf for what cannot be shown) and expected reward of a click, [B, I] each, or [B, C]."""
        appeal, value = self.simulator.truth()
        if self.candidates is None:
            return appeal, value
        appeal, value = (np.take_along_axis(of_all, self.candidates, 1) for of_all in (appeal, value))
        return np.where(self.candidates >= 0, appeal, -np.inf).astype(np.float32), value

    def available(self) -> NDArray[np.bool_]:
        """Which items are on the shelf, [B, I], or which places of the candidate lists are filled, [B, C]."""
        return self.simulator.available() if self.candidates is None else self.candidates >= 0

    def masks(self) -> NDArray[np.bool_]:
        """The same for each slot of the slate, [B, K * I] or [B, K * C]."""
        return np.tile(self.available(), (1, self.slate_size))

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

    def _check_reward(self) -> None:
        """Says when an environment is made that its reward, or a part of it, can never be anything but 0."""
        self.core.check_reward(self.core.rewarded)

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
        return self.core.slate_size

    def release(self, items: Sequence[int] | NDArray[np.integer], day: float | None = None) -> None:
        """Puts items that wait (release day ``UNRELEASED`` in the world) on the shelf of the running environment.

        Release days are on the catalogue's clock, on which every episode begins at the same day; they stay as they are
        set when episodes end, and snapshots hold them.

        Args:
            items: Positions in the catalogue.
            day: From when on; None is the present of the user whose clock is furthest behind, so that all users find
                the items at once.

        Raises:
            ConfigError: If an item does not wait, or the day is no possible one.
        """
        if day is None:
            lane = self.core.simulator.state.lane
            running = lane["clock"][(lane["episode"] >= 0) & ~lane["ended"]]
            start = self.core.simulator.rules.start_day
            day = start if not running.size else float(np.float32(start + np.float32(running.min()) / 86400.0))
        self.core.release(np.asarray(items, np.int64).reshape(-1), day)

    @property
    def judging(self) -> dict[str, Any] | None:
        """With judge="live": the judge, the line from ratings to utilities, how much was asked; else None."""
        simulator = self.core.simulator
        return simulator.judge_utilities.facts() if isinstance(simulator, LiveSimulator) else None

    @property
    def context_names(self) -> tuple[str, ...]:
        """Names of the numbers of the context part."""
        return CONTEXT
