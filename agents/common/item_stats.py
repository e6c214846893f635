"""What is known of each item on average: how often it was looked at, and how often with success."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.slates import looked_at
from recsim_llm.agents.core.credit import without_rounding
from recsim_llm.agents.core.env_runner import Flags, Transition

Floats64 = NDArray[np.float64]


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
