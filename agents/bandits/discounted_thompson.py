"""Thompson sampling with a posterior that forgets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from recsim_llm.agents.bandits.thompson import ThompsonAgent, ThompsonConfig
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Transition


@dataclass(frozen=True)
class DiscountedThompsonConfig(ThompsonConfig):
    """Settings of :class:`DiscountedThompsonAgent`.

    Attributes:
        memory: Steps of users in which a look loses the factor e of its weight [steps].
    """

    memory: float = 10_000.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(1.0, 1e12, "memory")


class DiscountedThompsonAgent(ThompsonAgent):
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

    def update(self, transition: Transition) -> None:
        """Forgets a little, then counts."""
        self.counts.fade(float(np.exp(-transition.valid.sum() / self.config.memory)))
        super().update(transition)
