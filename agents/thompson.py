"""Thompson sampling over items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.config import Config
from recsim_llm.agents.counts import ItemCounts
from recsim_llm.agents.lanes import Flags, Floats, Slates, Transition
from recsim_llm.agents.remembering import RememberingAgent, RememberingConfig
from recsim_llm.agents.slates import best


@dataclass(frozen=True)
class ThompsonConfig(RememberingConfig):
    """Settings of :class:`ThompsonAgent`.

    Attributes:
        prior: Looks that the prior is worth; its mean is the click rate of all items so far.
        draws: Samples of the posterior in one vector step, shared by the lanes.
    """

    prior: float = 2.0
    draws: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(1e-3, 1e9, "prior")
        self._within(1, 1_000_000, "draws")


class ThompsonAgent(RememberingAgent):
    """Shows the items that are best under click rates drawn from their posterior.

    Equation: theta_i ~ Beta(m c + clicks_i, m (1 - c) + looks_i - clicks_i); the slate is the K largest theta_i. c
    is the mean click rate, 1/2 before the first look. With ``deterministic`` the posterior means take the place of
    draws.

    Paper: Thompson (1933); Chapelle and Li (2011), "An empirical evaluation of Thompson sampling".

    Origin of the defaults: m = 2 with c = 1/2 is the uniform prior of Chapelle and Li. Deviations: the prior's mean
    follows the data (empirical Bayes), as a thousand arms with rates far from 1/2 would each have to be tried first; B
    users are served at once from ``draws`` samples, since a Beta draw for every lane and item would take most of the
    time; clicks come in batches of B (their delay is what Chapelle and Li study in section 4); items just shown rest.
    """

    name: ClassVar[str] = "thompson"
    Config: ClassVar[type[Config]] = ThompsonConfig
    config: ThompsonConfig

    def setup(self, rng: np.random.Generator) -> None:
        """Counts at zero; ties between means are broken in an order drawn once."""
        self.counts = ItemCounts(self.setting.items)
        self.ties = rng.random(self.setting.items) * 1e-9

    def posterior(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Parameters of the Beta posterior of each item, [I] and [I]."""
        counts, prior = self.counts, self.config.prior
        rate = counts.mean() if counts.looks.any() else 0.5
        rate = float(np.clip(rate, 0.01, 0.99))
        return prior * rate + counts.gains, prior * (1.0 - rate) + counts.looks - counts.gains

    def act(
        self,
        rows: Floats,
        state: Any,
        starts: Flags,
        deterministic: bool,
        allowed: Flags,
        rng: np.random.Generator,
    ) -> tuple[Slates, Any]:
        """The best of posterior draws, or of posterior means."""
        memory = self.recall(rows, state, starts)
        wins, losses = self.posterior()
        if deterministic:
            scores = wins / (wins + losses) + self.ties
        else:
            draws = min(self.config.draws, len(rows))
            samples = rng.beta(wins, losses, size=(draws, len(wins)))
            scores = samples[rng.permutation(len(rows)) % draws]
        slates = best(scores, self.rested(memory, allowed), self.setting.slots)
        return slates, memory.noting(slates)

    def update(self, transition: Transition) -> None:
        """Counts clicks."""
        self.counts.add(transition, transition.info["click"])

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Counts and the order of ties."""
        return {**self.counts.arrays(), "ties": self.ties}
