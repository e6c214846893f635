"""LinUCB on encodings of personas, histories and items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from recsim_llm.agents.contextual.base import LinearAgent, LinearConfig
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Flags, Floats, Slates


@dataclass(frozen=True)
class LinUCBConfig(LinearConfig):
    """Settings of :class:`LinUCBAgent`.

    Attributes:
        alpha: Weight of the confidence width.
        shortlist: Items of highest estimate, beyond the K of a slate, for which the width is computed too.
    """

    alpha: float = 0.2
    shortlist: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(0.0, 1e6, "alpha")
        self._within(0, 1_000_000, "shortlist")


class LinUCBAgent(LinearAgent):
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
        model, slate_size, alpha = self.model, self.env_spec.slate_size, self.config.alpha
        if deterministic or alpha == 0.0:
            slates, _ = self.features.top(situation, model.theta, rested, slate_size)
            return slates, self.after(situation, slates)
        theta = model.theta if model.known else None
        listed, estimates = self.listed(situation, theta, rested, slate_size + self.config.shortlist, rng)
        widths = model.widths(self.features.of(situation, listed).reshape(-1, self.features.count))
        bounds = estimates + np.float32(alpha) * widths.reshape(listed.shape)
        picked = np.argsort(-bounds, axis=1, kind="stable")[:, :slate_size]
        slates = np.take_along_axis(listed, picked, 1)
        return slates, self.after(situation, slates)
