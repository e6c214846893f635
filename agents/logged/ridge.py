"""Ridge regression of reward on encodings, fitted to the logs of a random policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from recsim_llm.agents.common.sampling import epsilon_greedy, uniform_propensity, uniform_slates
from recsim_llm.agents.contextual.base import ContextualAgent, ContextualConfig, RidgeRegression
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Flags, Floats, Slates, Transition


@dataclass(frozen=True)
class RidgeConfig(ContextualConfig):
    """Settings of :class:`RidgeAgent`.

    Attributes:
        growth: Share by which the data must have grown before theta is computed again; 0 is at every step.
        online: Serve what was learnt so far while learning, instead of gathering uniform random slates.
        epsilon: Probability that a slot explores while learning online.
    """

    growth: float = 0.05
    online: bool = False
    epsilon: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(0.0, 1e6, "growth")
        self._within(0.0, 1.0, "epsilon")


class RidgeAgent(ContextualAgent):
    """Fits a linear model of reward to uniform random slates, and serves its highest predictions.

    Equation: theta = argmin sum (r - theta . phi(u, i))^2 + ridge |theta|^2 = A^-1 b, with A = ridge I + sum phi phi^T
    and b = sum r phi; phi is described in :class:`~recsim_llm.agents.common.features.Features`.

    Paper: Hoerl and Kennard (1970), "Ridge regression: biased estimation for nonorthogonal problems".

    With ``online`` it serves while it learns, each slot exploring with probability epsilon: the same sums, of what it
    chose to show.

    Origin of the defaults: ridge and growth are those of the agent linucb, epsilon Sutton and Barto's. Deviations:
    theta is computed anew when the data have grown by ``growth``; the intercept is shrunk like the rest.
    """

    name: ClassVar[str] = "ridge"
    Config: ClassVar[type[Config]] = RidgeConfig
    config: RidgeConfig
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
        """The highest predictions."""
        situation, rested = self.situate(obs, state, episode_start, action_mask)
        slates, _ = self.features.top(situation, self.model.theta, rested, self.env_spec.slate_size)
        return slates, self.after(situation, slates)

    def interact(self) -> Transition:
        """One step of every lane: uniform random slates, or with ``online`` mostly the highest predictions."""
        lanes, slate_size = self.runner, self.env_spec.slate_size
        action_mask = lanes.available()
        situation, rested = self.situate(lanes.observation, self.state, lanes.fresh, action_mask)
        if self.config.online:
            greedy, _ = self.features.top(situation, self.model.theta, rested, slate_size)
            slates, self.propensity = epsilon_greedy(greedy, rested, self.config.epsilon, self.rng)
        else:
            slates, self.propensity = (
                uniform_slates(action_mask, slate_size, self.rng),
                uniform_propensity(action_mask, slate_size),
            )
        self.state = self.after(situation, slates)
        return lanes.step(slates, self.state, self.propensity)
