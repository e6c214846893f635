"""Thompson sampling over items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from recsim_llm.agents.bandits.base import BanditAgent, BanditConfig
from recsim_llm.agents.common.item_stats import Floats64
from recsim_llm.agents.common.sampling import top_k_of_beta_samples
from recsim_llm.agents.common.top_k import Chances
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Flags, Slates


@dataclass(frozen=True)
class ThompsonConfig(BanditConfig):
    """Settings of :class:`ThompsonAgent`.

    Attributes:
        prior: Looks that the prior is worth.
        mean: Mean of the prior; 0 takes the mean gain of all items so far.
        draws: Samples of the posterior in one vector step, shared by the lanes.
    """

    prior: float = 2.0
    mean: float = 0.0
    draws: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(1e-3, 1e9, "prior")
        self._within(0.0, 1.0, "mean")
        self._within(1, 1_000_000, "draws")


class ThompsonAgent(BanditAgent):
    """Shows the items that are best under mean gains drawn from their posterior.

    Equation: theta_i ~ Beta(m c + g_i, m (1 - c) + looks_i - g_i), g_i the sum of gains on a scale from 0 to 1 (clicks,
    where the reward is a click); the slate is the K largest theta_i. c is the mean gain, 1/2 before the first look.
    With ``deterministic`` the posterior means take the place of draws.

    Paper: Thompson (1933); Chapelle and Li (2011), "An empirical evaluation of Thompson sampling". Gains that are not 0
    or 1: Agrawal and Goyal (2012), "Analysis of Thompson sampling for the multi-armed bandit problem".

    Propensity: each user gets one of ``draws`` samples of the whole posterior, all equally likely. The probability is
    given these samples: the share of those that agree, see
    :func:`~recsim_llm.agents.common.sampling.top_k_of_samples`. Averaged over samples it is that of the posterior.

    Origin of the defaults: m = 2 with c = 1/2 is the uniform prior of Chapelle and Li. Deviations: the prior's mean
    follows the data (empirical Bayes), as a thousand arms with rates far from 1/2 would each have to be tried first
    (``mean`` = 0.5 gives the uniform prior); gains between 0 and 1 are added to the posterior as they are, where
    Agrawal and Goyal toss a coin; users are served B at a time from ``draws`` samples, since a Beta draw for every lane
    and item would take most of the time (the delay of feedback is what Chapelle and Li study in section 4); gains are
    scaled, see :class:`~recsim_llm.agents.bandits.base.BanditAgent`; items just shown rest.
    """

    name: ClassVar[str] = "thompson"
    Config: ClassVar[type[Config]] = ThompsonConfig
    config: ThompsonConfig

    def scores(self) -> Floats64:
        """Posterior means."""
        wins, losses = self.beta_posterior(self.config.prior, self.config.mean)
        return wins / (wins + losses)

    def explore(self, action_mask: Flags, rng: np.random.Generator) -> tuple[Slates, Chances]:
        """The best of posterior draws."""
        wins, losses = self.beta_posterior(self.config.prior, self.config.mean)
        return top_k_of_beta_samples(wins, losses, self.config.draws, action_mask, self.env_spec.slate_size, rng)
