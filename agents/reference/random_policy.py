"""Random policy: uniform slates. It is the zero of every score."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from recsim_llm.agents.common.sampling import uniform_propensity, uniform_slates
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
        obs: Floats,
        state: Any,
        episode_start: Flags,
        deterministic: bool,
        action_mask: Flags,
        rng: np.random.Generator,
    ) -> tuple[Slates, Any]:
        """Draws."""
        self.propensity = uniform_propensity(action_mask, self.env_spec.slate_size)
        return uniform_slates(action_mask, self.env_spec.slate_size, rng), state
