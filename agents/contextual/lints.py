"""LinTS: linear Thompson sampling on encodings of personas, histories and items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from recsim_llm.agents.contextual.base import ContextualAgent, ContextualConfig, RidgeRegression
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Flags, Floats, Slates


@dataclass(frozen=True)
class LinTSConfig(ContextualConfig):
    """Settings of :class:`LinTSAgent`.

    Attributes:
        growth: Share by which the data must have grown before theta is computed again; 0 is at every step.
        scale: v, the posterior's standard deviation relative to A^-1/2.
    """

    growth: float = 0.05
    scale: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(0.0, 1e6, "growth")
        self._within(0.0, 1e6, "scale")


class LinTSAgent(ContextualAgent):
    """Draws a linear model of reward from its posterior for each user, and shows what is best under it.

    Equation: A = ridge I + sum phi phi^T, b = sum r phi,

        theta ~ N(A^-1 b, v^2 A^-1)

    for every user and step, and the slate is the K highest theta . phi(u, i); phi is described in
    :class:`~recsim_llm.agents.common.features.Features`. With ``deterministic`` theta is the posterior's mean.

    Paper: Agrawal and Goyal (2013), "Thompson sampling for contextual bandits with linear payoffs", algorithm 1.

    Origin of the defaults: the paper's v = R sqrt(9 d ln(t / delta)) is for its bound and far larger than what works; v
    was found on training users. Deviations: (1) each of B users served at a time has a draw of her own, and
    her slate comes from one draw; (2) the posterior is computed anew when the data have grown by ``growth``; (3) each
    slot is credited with its own reward, with a feature for its position; (4) the probability of a slate has no closed
    form, and is left open.
    """

    name: ClassVar[str] = "lints"
    knows_propensity: ClassVar[bool] = False
    Config: ClassVar[type[Config]] = LinTSConfig
    config: LinTSConfig
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
        """The best under a draw for each user, or under the mean."""
        situation, rested = self.situate(obs, state, episode_start, action_mask)
        theta = self.model.theta
        if not deterministic and self.config.scale > 0.0:
            theta = self.model.draws(len(obs), self.config.scale, rng)
            self.propensity = np.full((len(obs), self.env_spec.slate_size), np.nan)
        slates, _ = self.features.top(situation, theta, rested, self.env_spec.slate_size)
        return slates, self.after(situation, slates)
