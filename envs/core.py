"""What every environment here is made of: B users with spaces, actions, observations, rewards and infos.

:class:`Core` is abstract. :class:`recsim_llm.envs.world_core.WorldCore` simulates the users and items of a world,
:class:`recsim_llm.envs.classics.core.ClassicCore` RecSim's three environments. The scalar and the vector environment
are shells around a core.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from numpy.typing import NDArray

from recsim_llm.envs.infos import ALL, FIRST, Infos, RecordFields, row
from recsim_llm.errors import ConfigError, unknown
from recsim_llm.serving import MOMENTS
from recsim_llm.simulator.simulator import Outcome
from recsim_llm.simulator.task_variant import TaskVariant

RESET_NEEDED = "step() before the first reset(), or after the user left for good; call reset()"


class Core(ABC):
    """B users of one environment, as Gymnasium wants them.

    Args:
        scenario: What is simulated.
        options: The keyword arguments.
        simulator: The compiled rules.
        reward_function: The reward, where it is a function of the infos.
        reward_weights: Weights of the reward terms.
    """

    variant = TaskVariant()
    moment: int = 0
    """When it was last reset or stepped, in the order of all environments of this process."""
    chosen_from: ClassVar[str]
    """What an action is a position in: "catalogue" or "list"; for messages."""
    user_fields: ClassVar[Sequence[str]]
    """Fields of a user's record that ``user_infos`` takes."""
    user_infos: ClassVar[Any]
    """Infos from the simulator and ``user_fields``, of all users as arrays [B] or of one as plain numbers."""
    add_slot_infos: ClassVar[Any]
    """Adds to infos what was shown and done in each slot: [B, K] for all lanes, [K] for one."""

    def __init__(
        self,
        scenario: Any,
        options: Any,
        simulator: Any,
        reward_function: Callable[[Infos], Any] | None,
        reward_weights: Mapping[str, float],
    ) -> None:
        self.scenario, self.options, self.simulator = scenario, options, simulator
        self.reward_function, self.reward_weights = reward_function, reward_weights
        self.lanes, self.slate_size = int(simulator.lanes), int(simulator.slate_size)
        self.layout: dict[str, slice] = simulator.layout
        self.success_step: int = options.horizon or scenario.horizon  # who is still there then has stayed to the end
        self.everyone = np.ones(self.lanes, np.bool_)
        self._actions = np.zeros((self.lanes, self.slate_size), np.int64)
        self._fields = RecordFields(simulator.state.lane.dtype, self.user_fields)
        self._begun = False
        self._has_further = True

    @property
    @abstractmethod
    def items(self) -> int:
        """I, how many items can be chosen from, whether or not they are on the shelf."""

    @property
    def candidates(self) -> NDArray[np.int64] | None:
        """Items of the present lists [B, C], -1 for an empty place; None where actions name items themselves."""
        return None

    @property
    def choices(self) -> int:
        """Numbers that an action may take for each slot: C, or I."""
        return self.items if self.candidates is None else self.candidates.shape[1]

    @abstractmethod
    def observation_space(self) -> spaces.Space[Any]:
        """One Box, or a Dict of the same parts."""

    @abstractmethod
    def truth(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Attraction (-inf for what cannot be shown) and expected reward of a click, [B, I] each, or [B, C]."""

    def further_infos(self) -> Infos:
        """Infos [B, ...] that are there by scenario, task variant or option."""
        return {"action_mask": self.masks().astype(np.int8)} if self.options.action_mask else {}

    @abstractmethod
    def find_user(self, user: Any) -> int:
        """The position of a user whom reset's options name.

        Raises:
            ConfigError: If there is no such user.
        """

    def infos(self) -> Infos:
        """Infos of all users as arrays [B, ...], every key at every step."""
        simulator = self.simulator
        infos: Infos = self.user_infos(simulator, *self._fields.of_all(simulator.state.lane))
        infos["is_success"] = np.zeros(self.lanes, np.bool_)
        self.add_slot_infos(infos, simulator, ALL)
        infos.update(self.further_infos())
        return infos

    def info(self) -> Infos:
        """The first row of :meth:`infos`: Python's numbers and arrays without the users' axis."""
        simulator = self.simulator
        info: Infos = self.user_infos(simulator, *self._fields.of_first(simulator.state.lane))
        info["is_success"] = False
        self.add_slot_infos(info, simulator, FIRST)
        if self._has_further:
            further = self.further_infos()
            self._has_further = bool(further)  # the keys are the same at every step: nothing once is nothing for good
            info.update(row(further))
        return info

    def action_space(self) -> spaces.Space[Any]:
        """Discrete(I) for one slot, MultiDiscrete([I] * K) for a slate; C in place of I where there are candidates."""
        if self.slate_size == 1:
            return spaces.Discrete(self.choices)
        return spaces.MultiDiscrete([self.choices] * self.slate_size)

    def observed(self, rows: NDArray[np.float32]) -> Any:
        """Copies rows [B, P] or [P] into the form of the observation space."""
        if self.options.observation == "flat":
            return rows.copy()
        return {name: rows[..., part].copy() for name, part in self.layout.items()}

    def actions(self, actions: Any) -> NDArray[np.int64]:
        """Checks actions [B] or [B, K] and copies them to [B, K]; they are overwritten by the next call.

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
            raise ConfigError(
                f"actions must be integers (positions in the {self.chosen_from}), got dtype {given.dtype}"
            )
        kept[...] = given
        # As unsigned numbers, negative ones are too large: one look for both. A few are looked at faster as a list.
        unsigned = kept.view(np.uint64)
        if (max(unsigned[0].tolist()) if kept.size == self.slate_size else unsigned.max()) >= self.choices:
            wrong = int(next(number for number in kept.ravel() if not 0 <= number < self.choices))
            where = self.chosen_from if self.candidates is None else "list"
            what = "item" if where == "catalogue" else "candidate"
            raise ConfigError(f"action {wrong} is no {what}; the {where} has {what}s 0..{self.choices - 1}")
        return kept

    def step(self, actions: Any) -> Outcome:
        """Shows slates [B] or [B, K] to all users who are in an episode.

        Raises:
            ResetNeeded: If a user was never in one.
            ConfigError: If the actions are not valid, or with strict=True where slots are wasted.
        """
        if not self._begun:
            raise ResetNeeded(RESET_NEEDED)
        outcome: Outcome = self.simulator.step(self.actions(actions))
        self.after_step()
        if self.options.strict:
            self.check_strict()
        return outcome

    def after_step(self) -> None:
        """Renews what follows from the step; here the note of when it was."""
        self.moment = next(MOMENTS)

    def reset(self, mask: NDArray[np.bool_], wishes: NDArray[np.int32] | None = None) -> Outcome:
        """Begins an episode in every lane of the mask [B]; ``wishes`` [B] names users, -1 draws one."""
        outcome: Outcome = self.simulator.reset(mask, wishes)
        self._note_begun()
        return outcome

    def _note_begun(self) -> None:
        """Notes that something was begun or restored, and whether all lanes are in an episode now."""
        self.moment = next(MOMENTS)
        self._begun = self._begun or bool((self.simulator.state.lane["episode"] >= 0).all())

    def get_state(self) -> dict[str, Any]:
        """A snapshot: every array that changes, copied."""
        state: dict[str, Any] = self.simulator.get_state()
        return state

    def set_state(self, snapshot: Mapping[str, Any]) -> None:
        """Restores a snapshot.

        Raises:
            ConfigError: If a part is missing or of another shape.
        """
        self.simulator.set_state(snapshot)
        self._begun = False  # it may be from before the first reset
        self._note_begun()

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

    def rewards(self, infos: Infos) -> NDArray[np.floating]:
        """Rewards [B] of the last step as the recommender sees them."""
        rewards = self.reported_rewards()
        return rewards if self.reward_function is None else self.evaluate(rewards, infos)

    def reported_rewards(self) -> NDArray[np.float64]:
        """Weighted rewards [B] of the last step, from what was reported of it."""
        return self.true_rewards()

    def evaluate(self, rewards: NDArray[np.float64], infos: Infos) -> NDArray[np.float64]:
        """What the reward function gives for the infos [B, ...] and the weighted rewards [B].

        Raises:
            ConfigError: If it is not of shape [B].
        """
        assert self.reward_function is not None
        values = np.asarray(self.reward_function({**infos, "reward": rewards.copy()}), np.float64)
        if values.shape != rewards.shape:
            raise ConfigError(f"the reward function returned shape {values.shape}, expected {rewards.shape}")
        return values

    def true_rewards(self) -> NDArray[np.float64]:
        """Rewards [B] of the last step, whatever was reported of it; what a policy is worth."""
        rewards: NDArray[np.float64] = self.simulator.outcome.reward.copy()
        return rewards

    def past_retention(self) -> NDArray[np.bool_]:
        """Lanes whose episode has come to the task variant's horizon in days, [B]."""
        return np.zeros(self.lanes, np.bool_)

    def available(self) -> NDArray[np.bool_]:
        """Which items are on the shelf, [B, I], or which places of the candidate lists are filled, [B, C]."""
        shelf: NDArray[np.bool_] = self.simulator.available()
        return shelf

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
        return np.array([self.find_user(user) for user in listed], np.int32)
