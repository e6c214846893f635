"""Short-list bandit: a regression finds candidates, and a bandit explores among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.item_stats import credited
from recsim_llm.agents.common.sampling import epsilon_greedy, uniform_propensity, uniform_slates
from recsim_llm.agents.contextual.base import ContextualAgent, ContextualConfig, RidgeRegression
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Flags, Floats, Slates, Transition
from recsim_llm.errors import ConfigError

Floats64 = NDArray[np.float64]

WAYS = ("thompson", "epsilon")


@dataclass(frozen=True)
class ShortlistConfig(ContextualConfig):
    """Settings of :class:`ShortlistAgent`.

    Attributes:
        growth: Share by which the data must have grown before theta is computed again; 0 is at every step.
        warmup: Steps of users for which uniform random slates are gathered before the model serves [steps].
        shortlist: L, items of highest prediction that the bandit chooses from.
        explore: How it does: "thompson" or "epsilon".
        epsilon: Probability that a slot explores, for "epsilon".
        noise: Standard deviation of a reward about its prediction.
        prior: Standard deviation of items about their predictions.
    """

    growth: float = 0.05
    warmup: int = 5_000
    shortlist: int = 30
    explore: str = "thompson"
    epsilon: float = 0.1
    noise: float = 0.4
    prior: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(0.0, 1e6, "growth")
        self._within(0, 1_000_000_000, "warmup")
        self._within(1, 1_000_000, "shortlist")
        self._within(0.0, 1.0, "epsilon")
        self._within(1e-9, 1e9, "noise", "prior")
        if self.explore not in WAYS:
            raise ConfigError(f"setting explore must be one of {', '.join(WAYS)}, got {self.explore!r}")


class ShortlistAgent(ContextualAgent):
    """Lets a ridge regression choose candidates for each user, and a bandit the slate from them.

    Equation: the model is theta . phi(u, i) as in the agent ridge, trained on uniform random slates first and on what
    is shown after. The short-list S(u) holds the L items of highest prediction. The bandit knows of each item how far
    its rewards are from what was predicted when it was shown: with n_i looks and sum e_i of these differences,

        q_i ~ N(e_i / (n_i + m), noise^2 / (n_i + m)),  m = noise^2 / prior^2

    and the slate is the K highest theta . phi(u, i) + q_i among S(u). With ``explore`` "epsilon" it is those of highest
    theta . phi(u, i) + e_i / (n_i + m), each slot exploring with probability epsilon: a uniform item of S(u). With
    ``deterministic`` nothing explores.

    Paper: Covington, Adams and Sargin (2016), "Deep neural networks for YouTube recommendations", for candidates and
    ranking in two stages; Chapelle and Li (2011), "An empirical evaluation of Thompson sampling", for the bandit.

    Origin of the defaults: noise is about that of a click; prior lets about sixty looks count as much as the model.
    Deviations: the model goes on learning while the bandit does; the difference is from the prediction at the time.
    """

    name: ClassVar[str] = "shortlist"
    knows_propensity: ClassVar[bool] = False
    Config: ClassVar[type[Config]] = ShortlistConfig
    config: ShortlistConfig
    model: RidgeRegression

    def setup(self, rng: np.random.Generator) -> None:
        """Nothing known."""
        super().setup(rng)
        self.tries: Floats64 = np.zeros(self.env_spec.items)
        self.surplus: Floats64 = np.zeros(self.env_spec.items)

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
        """The bandit's choice from each user's short-list."""
        config, slate_size = self.config, self.env_spec.slate_size
        situation, rested = self.situate(obs, state, episode_start, action_mask)
        theta = self.model.theta if deterministic or self.model.known else None
        listed, estimates = self.listed(situation, theta, rested, config.shortlist, rng)
        worth = self.tries + (config.noise / config.prior) ** 2
        values = estimates + (self.surplus / worth)[listed]
        if not deterministic and config.explore == "thompson":
            values += (config.noise / np.sqrt(worth))[listed] * rng.standard_normal(listed.shape)
            self.propensity = np.full((len(obs), slate_size), np.nan)
        picked = np.argsort(-values, axis=1, kind="stable")[:, :slate_size]
        slates = np.take_along_axis(listed, picked, 1)
        if not deterministic and config.explore == "epsilon":
            among = np.zeros_like(rested)
            np.put_along_axis(among, listed, np.isfinite(estimates), 1)
            slates, self.propensity = epsilon_greedy(slates, among, config.epsilon, rng)
        return slates, self.after(situation, slates)

    def interact(self) -> Transition:
        """One step of every lane; uniform random slates until the model is trained."""
        if self.num_timesteps >= self.config.warmup:
            return super().interact()
        lanes = self.runner
        action_mask = lanes.available()
        situation, _ = self.situate(lanes.observation, self.state, lanes.fresh, action_mask)
        slates = uniform_slates(action_mask, self.env_spec.slate_size, self.rng)
        self.propensity = uniform_propensity(action_mask, self.env_spec.slate_size)
        self.state = self.after(situation, slates)
        return lanes.step(slates, self.state, self.propensity)

    def update(self, transition: Transition) -> None:
        """Credits items with what their slots gained beyond the prediction; teaches the model."""
        seen = self.seen(transition)
        if self.num_timesteps >= self.config.warmup:
            surplus = seen.reward - seen.phi @ self.model.theta
            self.tries += np.bincount(seen.item, minlength=len(self.tries))
            self.surplus += np.bincount(seen.item, weights=surplus, minlength=len(self.tries))
        self.model.add(seen.phi, seen.reward)
        self.counts.add(transition, credited(transition))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The model, its counts, and what the bandit knows of the items."""
        return {"tries": self.tries, "surplus": self.surplus, **super().arrays()}
