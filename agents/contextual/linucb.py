"""LinUCB on encodings of personas, histories and items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from recsim_llm.agents.contextual.base import ContextualAgent, ContextualConfig, RidgeRegression
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Flags, Floats, Slates


@dataclass(frozen=True)
class LinUCBConfig(ContextualConfig):
    """Settings of :class:`LinUCBAgent`.

    Attributes:
        growth: Share by which the data must have grown before theta is computed again; 0 is at every step.
        alpha: Weight of the confidence width.
        shortlist: Items of highest estimate, beyond the K of a slate, for which the width is computed too.
    """

    growth: float = 0.05
    alpha: float = 0.2
    shortlist: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(0.0, 1e6, "growth")
        self._within(0.0, 1e6, "alpha")
        self._within(0, 1_000_000, "shortlist")


class LinUCBAgent(ContextualAgent):
    """Shows the items with the highest upper confidence bound on a linear estimate of reward.

    Equation: with one parameter vector for all users and items, A = ridge I + sum phi phi^T, b = sum r phi, theta =
    A^-1 b,

        score(u, i) = theta . phi(u, i) + alpha sqrt(phi(u, i)^T A^-1 phi(u, i))

    and the slate is the K highest. phi is described in :class:`Features`: products of the
    encodings of persona, recent interest and item, so that theta is the diagonal of a bilinear form, next to
    freshness, wear of the topic, price and the item's own mean reward. With ``deterministic`` alpha is 0.

    Paper: Li, Chu, Langford and Schapire (2010), "A contextual-bandit approach to personalized news article
    recommendation", algorithm 1; one theta for all arms as in Chu, Li, Reyzin and Schapire (2011).

    Origin of the defaults: ridge 1 is Li et al.'s; their best alpha in experiments was 0.2 to 0.4. Deviations: (1) the
    width is computed for the K + ``shortlist`` items of highest estimate only: all B x I widths would take a hundred
    times the rest of the step; while nothing is known these are random ones; (2) theta and A^-1 are recomputed when the
    data have grown by ``growth`` (Abbasi-Yadkori, Pal and Szepesvari 2011, section 5.1, switch as rarely and lose a
    constant factor); (3) users are served B at a time; (4) each slot is credited with its own reward, with a feature
    for its position, as if slots did not compete; (5) today's date is not public, the release of the newest item on
    the shelf stands for it.
    """

    name: ClassVar[str] = "linucb"
    Config: ClassVar[type[Config]] = LinUCBConfig
    config: LinUCBConfig
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
