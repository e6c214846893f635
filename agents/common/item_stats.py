"""Statistics of items, and the reward that each slot is credited with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.core.env_runner import Flags, Transition

Floats64 = NDArray[np.float64]


def looked_at(click: NDArray[np.floating], skip: NDArray[np.floating]) -> Flags:
    """Slots that the user saw: she clicked or skipped them."""
    return (click > 0) | (skip > 0)


class ItemCounts:
    """Looks and gains of I items.

    A slot counts as looked at when the user clicked or skipped it, so that slots she never saw do not count against
    their items.

    Attributes:
        looks: [I] times that an item was looked at.
        gains: [I] sum of what was gained by it.
    """

    def __init__(self, items: int) -> None:
        self.looks: Floats64 = np.zeros(items)
        self.gains: Floats64 = np.zeros(items)

    def add(self, transition: Transition, gains: NDArray[np.floating], counted: Flags | None = None) -> None:
        """Counts slots [B, K] with what each gained; ``counted`` [B] leaves lanes out."""
        shown, seen = seen_slots(transition)
        if counted is not None:
            seen &= counted[:, None]
        count = len(self.looks)
        self.looks += np.bincount(shown[seen], minlength=count)
        self.gains += np.bincount(shown[seen], weights=gains[seen], minlength=count)

    def fade(self, left: float) -> None:
        """Leaves the share ``left`` of everything counted."""
        self.looks *= left
        self.gains *= left

    def rate(self, strength: float) -> Floats64:
        """Gain per look, drawn towards the mean of all items as by ``strength`` looks more, [I]."""
        return (self.gains + strength * self.mean()) / (self.looks + strength)

    def mean(self) -> float:
        """Gain per look over all items; 0 before the first."""
        looks = float(self.looks.sum())
        return float(self.gains.sum()) / looks if looks else 0.0

    def arrays(self) -> dict[str, Floats64]:
        """The counts by name."""
        return {"looks": self.looks, "gains": self.gains}


def seen_slots(transition: Transition) -> tuple[NDArray[np.int64], Flags]:
    """Items shown [B, K] and which of the slots were looked at and count for learning [B, K]."""
    info = transition.info
    shown = np.asarray(info["slate"], np.int64)
    seen = looked_at(info["click"], info["skip"]) & (shown >= 0) & transition.valid[:, None]
    return shown, seen


def credited(transition: Transition) -> Floats64:
    """The reward that each slot is credited with, [B, K]; the slots of a step add up to its reward.

    A slot is credited with its own reward, as infos tell it, times the weight that these have in the reward. What no
    slot earned (by a wrapper around the environment, for staying, by reports that are wrong) is shared by the slots
    that were looked at, and by all of them where none was.
    """
    info = transition.info
    _, seen = seen_slots(transition)
    told = info.get("slot_reward")
    own = np.zeros(seen.shape) if told is None else transition.slot_weight * np.asarray(told, np.float64)
    rest = without_rounding(transition.reward - own.sum(1), own)
    sharing = np.where(seen.any(1, keepdims=True), seen, True)
    credit: Floats64 = own + sharing * (rest / sharing.sum(1))[:, None]
    return credit


FAR = 0.5
"""A slope this far from 1 is another one."""
ERRORS = 4.0
"""Standard errors by which it must be away from 1."""
LEAST_STEPS = 3
ROUNDING = 1e-6
"""Part of a reward below which a difference is rounding."""


class SlotWeight:
    """How much the rewards of slots, as infos tell them, count in the reward: the slope of one on the other.

    It is 1 where the reward is their sum, whatever else is in it that has nothing to do with them. A wrapper around
    the environment that scales rewards or turns their sign changes the reward and not the infos: then the slope of a
    least-squares line tells by how much. One that differs from 1 by less than one half, or less clearly than by four
    standard errors, counts as 1.

    Attributes:
        sums: [6] steps; sums of x and of y; of x^2, x y and y^2, with x the sum of a step's slots and y the reward
            less x.
    """

    def __init__(self) -> None:
        self.sums: Floats64 = np.zeros(6)

    def add(self, slots: Floats64, reward: Floats64) -> float:
        """Takes in steps, rewards of slots [N, K] and rewards [N], and gives the weight."""
        x = slots.sum(1)
        y = without_rounding(reward - x, slots)
        self.sums += np.array([len(x), x.sum(), y.sum(), x @ x, x @ y, y @ y])
        return self.weight

    @property
    def weight(self) -> float:
        """The slope, or 1."""
        n, x, y, xx, xy, yy = self.sums.tolist()
        if n < LEAST_STEPS:
            return 1.0
        xx, xy, yy = xx - x * x / n, xy - x * y / n, yy - y * y / n
        if xx <= ROUNDING * n:
            return 1.0
        slope = xy / xx
        left = max(yy - slope * xy, 0.0)
        error = np.sqrt(left / (n - 2) / xx)
        return 1.0 + slope if abs(slope) > max(FAR, ERRORS * error) else 1.0


def without_rounding(rest: Floats64, slots: Floats64) -> Floats64:
    """What is left of rewards [N] beside slots [N, K], 0 where it is no more than rounding of these."""
    size = 1.0 + np.abs(slots).sum(1)
    kept: Floats64 = np.where(np.abs(rest) > ROUNDING * size, rest, 0.0)
    return kept


class EventReward:
    """Whether slots earn more with an event than without it: a click, a like.

    An agent that foretells events, and not rewards, serves what makes them likely where they earn more than what is
    looked at without them, and else what makes them unlikely.

    Attributes:
        sums: [4] looks with the event and without, and what these earned.
    """

    def __init__(self) -> None:
        self.sums: Floats64 = np.zeros(4)

    def add(self, happened: NDArray[np.bool_], reward: NDArray[np.floating]) -> None:
        """Counts slots [N] that were looked at."""
        earned = np.asarray(reward, np.float64)
        self.sums += happened.sum(), (~happened).sum(), earned[happened].sum(), earned[~happened].sum()

    @property
    def sign(self) -> float:
        """1 where events earn as much as their absence or more, or either was never seen; else -1."""
        with_it, without, earned, earned_without = self.sums.tolist()
        if not with_it or not without:
            return 1.0
        return 1.0 if earned / with_it >= earned_without / without else -1.0

    def arrays(self) -> dict[str, Floats64]:
        """The sums by name."""
        return {"event_reward": self.sums}
