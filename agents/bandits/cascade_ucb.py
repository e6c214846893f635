"""CascadeUCB1: UCB for users who read a slate from the top."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.bandits.base import BanditAgent, BanditConfig, with_bonus
from recsim_llm.agents.common.item_stats import Floats64
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Flags, Transition


@dataclass(frozen=True)
class CascadeUCBConfig(BanditConfig):
    """Settings of :class:`CascadeUCBAgent`.

    Attributes:
        strength: Looks by which an item's mean gain is drawn towards the mean of all when it is served without
            exploration.
        width: Factor of the logarithm in the bound; 1.5 is the paper's.
    """

    strength: float = 5.0
    width: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(1e-6, 1e12, "strength")
        self._within(0.0, 1e6, "width")


class CascadeUCBAgent(BanditAgent):
    """Takes users to read a slate from the top until something is clicked, and shows the highest upper bounds.

    Equation: index_i = mean_i + sqrt(width ln t / n_i), t the steps of users so far, n_i the times that item i stood at
    or above a click or in a slate without one, mean_i the mean gain of these times on a scale from 0 to 1.

    Paper: Kveton, Szepesvari, Wen and Ashkan (2015), "Cascading bandits: learning to rank in the cascade model",
    algorithm 1 with UCB1.

    Origin of the defaults: width 0.1 and not 1.5 for the reason given for :class:`UCB1Agent`.

    Deviations: a width below 1.5 has no guarantee; where a user clicks more than once, everything above the last click
    counts as read (Katariya et al., 2016, "DCM bandits"); with a gain other than clicks an item's own gain takes the
    click's place; gains are scaled, see :class:`BanditAgent`; users are served B at a time;
    items just shown rest. What a user did not read although the cascade says so counts as if she had.
    """

    name: ClassVar[str] = "cascade_ucb"
    Config: ClassVar[type[Config]] = CascadeUCBConfig
    config: CascadeUCBConfig

    def setup(self, rng: np.random.Generator) -> None:
        """No steps."""
        super().setup(rng)
        self.steps = np.zeros(1)

    def scores(self) -> Floats64:
        """Smoothed mean gains."""
        return self.counts.rate(self.config.strength)

    def index(self) -> Floats64:
        """The equation."""
        width = self.config.width * np.log(max(self.steps[0], 1.0))
        return with_bonus(self.means(), self.counts.looks, float(width))

    def update(self, transition: Transition) -> None:
        """Counts the slots down to the click."""
        shown = np.asarray(transition.info["slate"], np.int64)
        read = down_to_click(transition) & (shown >= 0) & transition.valid[:, None]
        gains, count = self.gains(transition), len(self.counts.looks)
        self.counts.looks += np.bincount(shown[read], minlength=count)
        self.counts.gains += np.bincount(shown[read], weights=gains[read], minlength=count)
        self.steps[0] += transition.valid.sum()

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Counts and steps."""
        return {**super().arrays(), "steps": self.steps}


def down_to_click(transition: Transition) -> Flags:
    """Slots [B, K] that a user has read who starts at the top and stops at her last click."""
    clicked = np.asarray(transition.info["click"]) > 0
    below = np.flip(np.logical_or.accumulate(np.flip(clicked, 1), axis=1), 1)  # a click here or further down
    read: Flags = below | ~clicked.any(1, keepdims=True)
    return read
