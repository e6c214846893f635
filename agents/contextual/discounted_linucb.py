"""LinUCB that forgets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from recsim_llm.agents.contextual.linucb import LinUCBAgent, LinUCBConfig
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Transition


@dataclass(frozen=True)
class DiscountedLinUCBConfig(LinUCBConfig):
    """Settings of :class:`DiscountedLinUCBAgent`.

    Attributes:
        memory: Steps of users in which a look loses the factor e of its weight [steps].
    """

    memory: float = 2_000.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(1.0, 1e12, "memory")


class DiscountedLinUCBAgent(LinUCBAgent):
    """LinUCB where old looks count less and less, for tastes that change.

    Equation: at each step of a user A <- gamma A + (1 - gamma) ridge I + phi phi^T and b <- gamma b + r phi, gamma =
    exp(-1 / memory); the items' mean rewards among the features forget in the same way. Everything else is as for
    :class:`~recsim_llm.agents.contextual.linucb.LinUCBAgent`.

    Paper: Russac, Vernade and Cappe (2019), "Weighted linear bandits for non-stationary environments", algorithm 1.

    Origin of the defaults: the memory of those tried (2,000, 5,000 and 20,000 steps) that gained most on training users
    in Music with a common drift of tastes. Deviations: B steps of users discount by gamma^B at once; the width is that
    of A alone, without the second matrix of squared weights, as is usual where alpha is tuned anyway.
    """

    name: ClassVar[str] = "discounted_linucb"
    Config: ClassVar[type[Config]] = DiscountedLinUCBConfig
    config: DiscountedLinUCBConfig

    def update(self, transition: Transition) -> None:
        """Forgets a little, then adds the slots that were looked at."""
        left = float(np.exp(-transition.valid.sum() / self.config.memory))
        self.model.fade(left, self.config.ridge)
        self.counts.fade(left)
        super().update(transition)
