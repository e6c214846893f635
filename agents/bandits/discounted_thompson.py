"""Thompson sampling with discounted counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from recsim_llm.agents.bandits.base import BanditAgent, BanditConfig
from recsim_llm.agents.common.item_stats import Floats64
from recsim_llm.agents.common.sampling import top_k_of_beta_samples
from recsim_llm.agents.common.top_k import Chances
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Flags, Slates, Transition


@dataclass(frozen=True)
class DiscountedThompsonConfig(BanditConfig):
    """Settings of :class:`DiscountedThompsonAgent`.

    Attributes:
        prior: Looks that the prior is worth.
        mean: Mean of the prior; 0 takes the mean gain of all items so far.
        draws: Samples of the posterior in one vector step, shared by the lanes.
        memory: Steps of users in which a look loses the factor e of its weight [steps].
    """

    prior: float = 2.0
    mean: float = 0.0
    draws: int = 32
    memory: float = 10_000.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(1e-3, 1e9, "prior")
        self._within(0.0, 1.0, "mean")
        self._within(1, 1_000_000, "draws")
        self._within(1.0, 1e12, "memory")


class DiscountedThompsonAgent(BanditAgent):
    """Thompson sampling where old looks count less and less, for tastes that change.

    Equation: theta_i ~ Beta(m c + S_i, m (1 - c) + F_i); at each step of a user S_i <- gamma S_i + gains of i and F_i
    <- gamma F_i + looks at i - gains of i, for every item; gamma = exp(-1 / memory).

    Paper: Raj and Kalyani (2017), "Taming non-stationary bandits: a Bayesian approach", algorithm 2.

    Origin of the defaults: a memory of half the steps of an experiment forgets what is older than a change and still
    knows a thousand items; the rest is as for :class:`~recsim_llm.agents.bandits.thompson.ThompsonAgent`.

    Deviations: B steps of users discount by gamma^B at once, before their looks are added; the rest is as for
    :class:`~recsim_llm.agents.bandits.thompson.ThompsonAgent`.
    """

    name: ClassVar[str] = "discounted_thompson"
    Config: ClassVar[type[Config]] = DiscountedThompsonConfig
    config: DiscountedThompsonConfig

    def scores(self) -> Floats64:
        """Posterior means."""
        wins, losses = self.beta_posterior(self.config.prior, self.config.mean)
        return wins / (wins + losses)

    def explore(self, action_mask: Flags, rng: np.random.Generator) -> tuple[Slates, Chances]:
        """The best of posterior draws."""
        wins, losses = self.beta_posterior(self.config.prior, self.config.mean)
        return top_k_of_beta_samples(wins, losses, self.config.draws, action_mask, self.env_spec.slate_size, rng)

    def update(self, transition: Transition) -> None:
        """Forgets a little, then counts."""
        self.counts.fade(float(np.exp(-transition.valid.sum() / self.config.memory)))
        super().update(transition)
