"""Environments of a world: users and items with texts, under the rules of a scenario."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from recsim_llm.envs.core import Core
from recsim_llm.envs.infos import USER_FIELDS, Infos, add_slot_infos, scenario_infos, truth_infos, user_infos
from recsim_llm.envs.options import Options, reward_of
from recsim_llm.envs.reward_terms import check_terms, counted
from recsim_llm.envs.scenario import Scenario
from recsim_llm.envs.slot_rewards import differences
from recsim_llm.envs.vector_reward.objectives import vector_rewards
from recsim_llm.errors import ConfigError
from recsim_llm.simulator import SIGNALS
from recsim_llm.simulator.live_judge import LiveSimulator
from recsim_llm.simulator.observation_parts import Parts
from recsim_llm.simulator.simulator import Outcome, Simulator
from recsim_llm.worlds.catalog import Catalog
from recsim_llm.worlds.world import World, load_world


class WorldCore(Core):
    """B users of a scenario with a world.

    Args:
        scenario: What is simulated.
        options: The keyword arguments.
        lanes: B.
    """

    user_fields = USER_FIELDS
    user_infos = staticmethod(user_infos)
    add_slot_infos = staticmethod(add_slot_infos)
    chosen_from = "catalogue"
    rewarded: Sequence[str] = ()
    """Terms of the reward that count; none are known where the reward is a function."""
    objectives: tuple[str, ...] = ()
    """Where rewards are vectors: what their numbers are."""
    observation_parts: Parts | None = None
    """Parts of the observation that were asked for beside those that are always there."""

    def __init__(self, scenario: Scenario, options: Options, lanes: int) -> None:
        self.variant = options.variant
        self.world: World = load_world(options.world or scenario.world)
        rules = scenario.rules.replace(**self.world.parameters).replace(**(options.rules or {}))
        if options.choice is not None:
            rules = rules.replace(choice=options.choice)
        reward_function, weights = reward_of(options.reward, scenario.reward)
        settings: dict[str, Any] = {
            "lanes": lanes, "slate_size": scenario.slate_size if options.slate_size is None else options.slate_size,
            "users": options.users, "weights": weights, "dynamics": options.dynamics, "variant": options.variant,
            "threads": options.threads,
        }  # fmt: skip
        if options.judge is None:
            simulator = Simulator(self.world, rules, **settings)
        else:
            from recsim_llm.judges.judge_utilities import load_judge_utilities

            judge_utilities = load_judge_utilities(self.world, options.judge_model, options.judge_options)
            simulator = LiveSimulator(self.world, rules, judge_utilities=judge_utilities, **settings)
        super().__init__(scenario, options, simulator, reward_function, weights)
        self.rewarded = counted(weights) if reward_function is None else []
        if options.num_candidates is not None or options.history or options.group:
            self.observation_parts = Parts(
                simulator, candidates=options.num_candidates or 0, history=options.history, group=options.group
            )
            self.layout = self.observation_parts.layout

    def check_reward(self, terms: Sequence[str], argument: str = "reward") -> None:
        """Says which terms of the reward can never occur; ``argument`` is the keyword argument that names them.

        Raises:
            ConfigError: If none of them can.
        """
        if terms:
            check_terms(
                terms, self.world, self.simulator.rules, self.variant, scenario=self.scenario.id, argument=argument,
                chosen=self.options.reward is not None or argument != "reward",
            )  # fmt: skip

    @functools.cached_property
    def catalog(self) -> Catalog:
        """The public catalogue, with the release times of this environment."""
        public = self.world.catalog.public()
        if self.variant.cold_items > 0 or self.simulator.waiting.any():
            return dataclasses.replace(public, released_at=self.simulator.released_at)
        return public

    def release(self, items: NDArray[np.integer], day: float) -> None:
        """Puts items that wait on the shelf from a day on; see :meth:`AgentInterface.release`."""
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
        parts = self.observation_parts
        return parts.candidates if parts is not None and parts.candidates.shape[1] else None

    def observation_space(self) -> spaces.Space[Any]:
        """One Box, or a Dict of the same parts."""
        if self.options.observation == "flat":
            return spaces.Box(-1.0, 1.0, self.simulator.outcome.observation.shape[1:], np.float32)
        parts: dict[str, spaces.Space[Any]] = {
            name: spaces.Box(-1.0, 1.0, (part.stop - part.start,), np.float32) for name, part in self.layout.items()
        }
        return spaces.Dict(parts)

    def actions(self, actions: Any) -> NDArray[np.int64]:
        """Checks actions [B] or [B, K] and gives the items [B, K] that they stand for, -1 for an empty candidate.

        Raises:
            ConfigError: If the shape is wrong or a number is no item or candidate.
        """
        chosen = super().actions(actions)
        if self.candidates is not None:
            chosen[...] = np.take_along_axis(self.candidates, chosen, 1)
        return chosen

    def after_step(self) -> None:
        """Renews the parts of the observation that were asked for."""
        super().after_step()
        if self.observation_parts is not None:
            self.observation_parts.renew()

    def reset(self, mask: NDArray[np.bool_], wishes: NDArray[np.int32] | None = None) -> Outcome:
        """Begins an episode in every lane of the mask [B]; ``wishes`` [B] names users, -1 draws one."""
        outcome = super().reset(mask, wishes)
        if self.observation_parts is not None:
            self.observation_parts.begin(mask)
        return outcome

    def get_state(self) -> dict[str, Any]:
        """A snapshot: every array that changes, copied."""
        parts = self.observation_parts
        return super().get_state() | ({} if parts is None else parts.get_state())

    def set_state(self, snapshot: Mapping[str, Any]) -> None:
        """Restores a snapshot.

        Raises:
            ConfigError: If a part is missing or of another shape.
        """
        super().set_state(snapshot)
        self._note_release_days()
        if self.observation_parts is not None:
            self.observation_parts.set_state(snapshot)

    def further_infos(self) -> Infos:
        """Money, providers, candidates, history, mask and truth, where they are there."""
        infos = scenario_infos(self.simulator)
        if self.observation_parts is not None:
            infos |= self.observation_parts.infos()
        infos |= super().further_infos()
        if self.options.truth:
            infos["truth_appeal"], infos["truth_value"] = self.truth()
            infos |= truth_infos(self.simulator)
        return infos

    def rewards(self, infos: Infos) -> NDArray[np.floating]:
        """Rewards [B] of the last step as the recommender sees them, or float32 [B, m] of m objectives.

        Where the reward is a function, ``infos["slot_reward"]`` is replaced by what each slot contributed to it; see
        :func:`~recsim_llm.envs.slot_rewards.differences`.
        """
        return vector_rewards(self.simulator, self.objectives) if self.objectives else super().rewards(infos)

    def reported_rewards(self) -> NDArray[np.float64]:
        """Weighted rewards [B] of the last step, from what was reported of it."""
        if not self.variant.reports:
            return self.true_rewards()
        rewards: NDArray[np.float64] = self.simulator.state.lane["reported"].astype(np.float64)
        return rewards

    def evaluate(self, rewards: NDArray[np.float64], infos: Infos) -> NDArray[np.float64]:
        """What the reward function gives; what each slot contributed to it goes into the infos."""
        values = super().evaluate(rewards, infos)
        if "slot_reward" in infos:
            assert self.reward_function is not None
            price = self.world.catalog.price
            infos["slot_reward"] = differences(self.reward_function, infos, rewards, values, self.reward_weights, price)
        return values

    def true_counts(self) -> Infos:
        """The infos "slate" [B, K] and "clicks" [B] of the last step as they were, whatever was reported."""
        state = self.simulator.state
        clicks = state.feedback[:, :, SIGNALS.index("click")].sum(1).astype(np.int64)
        return {"slate": state.slate.copy(), "clicks": clicks}

    def past_retention(self) -> NDArray[np.bool_]:
        """Lanes whose episode has come to the task variant's horizon in days, [B]."""
        past: NDArray[np.bool_] = self.simulator.past_retention() if self.variant.retention > 0 else ~self.everyone
        return past

    def truth(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Attraction (-inf for what cannot be shown) and expected reward of a click, [B, I] each, or [B, C]."""
        appeal, value = self.simulator.truth()
        if self.candidates is None:
            return appeal, value
        appeal, value = (np.take_along_axis(of_all, self.candidates, 1) for of_all in (appeal, value))
        return np.where(self.candidates >= 0, appeal, -np.inf).astype(np.float32), value

    def available(self) -> NDArray[np.bool_]:
        """Which items are on the shelf, [B, I], or which places of the candidate lists are filled, [B, C]."""
        listed = self.candidates
        return super().available() if listed is None else listed >= 0

    def find_user(self, user: Any) -> int:
        """The position of a user, named by it or by id.

        Raises:
            ConfigError: If there is no such user.
        """
        people = self.world.population
        index = people.user_id.index(user) if isinstance(user, str) and user in people.user_id else user
        if isinstance(index, str) or not 0 <= int(index) < len(people):
            raise ConfigError(f"no user {user!r}; name one of the {len(people)} ids or a position from 0")
        return int(index)
