"""How far the rewards of slots that infos tell explain the reward that an agent is given, and what events earn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats64 = NDArray[np.float64]

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
