"""Uniform random slates: the zero of every score."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from recsim_llm.agents.common.slates import uniform, uniform_propensity
from recsim_llm.agents.core.base import Agent
from recsim_llm.agents.core.env_runner import Flags, Floats, Slates


class RandomAgent(Agent):
    """Shows K items of the shelf, drawn uniformly without replacement.

    Equation: P(slate) = (n - K)! / n! for each of the ordered slates of the n items on the shelf. Nothing is learnt,
    and ``deterministic`` changes nothing: the policy *is* the distribution.
    """

    name: ClassVar[str] = "random"
    learns: ClassVar[bool] = False

    def act(
        self,
        rows: Floats,
        state: Any,
        starts: Flags,
        deterministic: bool,
        allowed: Flags,
        rng: np.random.Generator,
    ) -> tuple[Slates, Any]:
        """Draws."""
        self.propensity = uniform_propensity(allowed, self.setting.slots)
        return uniform(allowed, self.setting.slots, rng), state
