"""LinUCB with a discount."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from recsim_llm.agents.contextual.base import ContextualAgent, ContextualConfig, RidgeRegression
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Flags, Floats, Slates, Transition


@dataclass(frozen=True)
class DiscountedLinUCBConfig(ContextualConfig):
    """Settings of :class:`DiscountedLinUCBAgent`.

    Attributes:
        growth: Share by which the data must have grown before theta is computed again; 0 is at every step.
        alpha: Weight of the confidence width.
        shortlist: Items of highest estimate, beyond the K of a slate, for which the width is computed too.
        memory: Steps of users in which a look loses the factor e of its weight [steps].
    """

    growth: float = 0.05
    alpha: float = 0.2
    shortlist: int = 3
    memory: float = 2_000.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(0.0, 1e6, "growth", "alpha")
        self._within(0, 1_000_000, "shortlist")
        self._within(1.0, 1e12, "memory")


class DiscountedLinUCBAgent(ContextualAgent):
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
    model: RidgeRegression

    def prior(self) -> RidgeRegression:
        """The regression on no data."""
        return RidgeRegression(self.features.count, self.config.ridge, self.config.growth)

    def act(
        self,
        obs: Floats,
        state: Any,
        episode_start: Flags,
        deterministic: bool,
        action_mask: Flags,
        rng: np.random.Generator,
    ) -> tuple[Slates, Any]:
        """The best upper bounds, or the best estimates."""
        situation, rested = self.situate(obs, state, episode_start, action_mask)
        alpha = 0.0 if deterministic else self.config.alpha
        slates = self.highest_bounds(self.model, situation, rested, alpha, self.config.shortlist, rng)
        return slates, self.after(situation, slates)

    def update(self, transition: Transition) -> None:
        """Forgets a little, then adds the slots that were looked at."""
        left = float(np.exp(-transition.valid.sum() / self.config.memory))
        self.model.fade(left, self.config.ridge)
        self.counts.fade(left)
        super().update(transition)
