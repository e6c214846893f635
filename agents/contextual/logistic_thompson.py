"""Thompson sampling with Bayesian logistic regression of clicks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.item_stats import EventReward, credited
from recsim_llm.agents.contextual.base import ContextualAgent, ContextualConfig
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Flags, Floats, Slates, Transition
from recsim_llm.errors import ConfigError

Floats64 = NDArray[np.float64]

COVARIANCES = ("diagonal", "full")
MOST_STEPS = 30
"""Newton steps for one batch; a handful are enough, as each batch starts from the mode before."""
CLOSE = 1e-8
"""A Newton step shorter than this ends the search."""


@dataclass(frozen=True)
class LogisticThompsonConfig(ContextualConfig):
    """Settings of :class:`LogisticThompsonAgent`.

    Attributes:
        scale: Factor of the posterior's standard deviation in draws; below 1 explores less.
        covariance: What is kept of the posterior's precision: "diagonal", as the paper does, or "full".
    """

    scale: float = 0.5
    covariance: str = "full"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(0.0, 1e6, "scale")
        if self.covariance not in COVARIANCES:
            raise ConfigError(f"setting covariance must be one of {', '.join(COVARIANCES)}, got {self.covariance!r}")


class LogisticThompsonAgent(ContextualAgent):
    """Draws a logistic model of clicks from its posterior for each user, and shows what is clicked most under it.

    Equation: with the posterior N(m, Q^-1) of the steps before as prior, the batch of a step gives

        m' = argmin 1/2 (w - m)^T Q (w - m) + sum_n log(1 + exp(-y_n w . phi_n)),  y_n = 1 for a click, else -1
        Q' = Q + sum_n p_n (1 - p_n) phi_n phi_n^T,  p_n = 1 / (1 + exp(-m' . phi_n))

    (Laplace's approximation; of the sum only the diagonal with ``covariance`` "diagonal"), w ~ N(m', scale^2 Q'^-1) for
    every user and step, and the slate is the K highest w . phi(u, i); phi is described in
    :class:`~recsim_llm.agents.common.features.Features`. With ``deterministic`` w is the mode.

    Paper: Chapelle and Li (2011), "An empirical evaluation of Thompson sampling", algorithm 3; ``scale`` is the factor
    alpha by which its section on display advertising widens or narrows the posterior.

    Origin of the defaults: scale lies among the values that the paper compares. Deviations: (1) a full precision matrix
    by default, as the features are strongly correlated; (2) each of B users served at a time has a draw of her own,
    and her slate comes from one draw; (3) what is predicted is the click, however much a click is worth; where
    looks earn more without one, what is clicked least is shown; (4) each slot is
    credited for itself, with a feature for its position; (5) the probability of a slate has no closed form, and is
    left open.
    """

    name: ClassVar[str] = "logistic_thompson"
    knows_propensity: ClassVar[bool] = False
    Config: ClassVar[type[Config]] = LogisticThompsonConfig
    config: LogisticThompsonConfig
    model: LogisticPosterior

    def setup(self, rng: np.random.Generator) -> None:
        """The prior."""
        super().setup(rng)
        self.event_reward = EventReward()

    def prior(self) -> LogisticPosterior:
        """The posterior of no clicks."""
        return LogisticPosterior(self.features.count, self.config.ridge, self.config.covariance)

    def act(
        self,
        obs: Floats,
        state: Any,
        episode_start: Flags,
        deterministic: bool,
        action_mask: Flags,
        rng: np.random.Generator,
    ) -> tuple[Slates, Any]:
        """The best under a draw for each user, or under the mode."""
        situation, rested = self.situate(obs, state, episode_start, action_mask)
        weights = self.model.theta
        if not deterministic and self.config.scale > 0.0:
            weights = self.model.draws(len(obs), self.config.scale, rng)
            self.propensity = np.full((len(obs), self.env_spec.slate_size), np.nan)
        slates, _ = self.features.top(situation, self._sign() * weights, rested, self.env_spec.slate_size)
        return slates, self.after(situation, slates)

    def relevance(self, obs: Floats, state: Any, episode_start: Flags, action_mask: Flags) -> Floats:
        """The log-odds of a click under the mode, less what is the same for all items, or what is against one."""
        situation, _ = self.situate(obs, state, episode_start, action_mask)
        return self.features.scores(situation, self._sign() * self.model.theta)

    def _sign(self) -> np.float32:
        return np.float32(self.event_reward.sign)

    def update(self, transition: Transition) -> None:
        """Takes the clicks of one step into the posterior."""
        seen = self.seen(transition)
        click = np.asarray(transition.info["click"])[seen.lane, seen.slot] > 0
        if len(click):
            self.model.add(seen.phi, click)
        self.event_reward.add(click, seen.reward)
        self.counts.add(transition, credited(transition))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The posterior, what clicks earn, and counts."""
        return {**self.event_reward.arrays(), **super().arrays()}


class LogisticPosterior:
    """Normal approximation N(mode, precision^-1) of the posterior of a logistic regression, kept up batch by batch.

    Args:
        count: d, length of phi.
        ridge: Precision of the prior of each weight.
        covariance: What is kept of the precision of a batch: "diagonal" or "full".

    Attributes:
        mode: m [d].
        precision: Q [d, d].
        root: L^-1 [d, d] with Q = L L^T, so that Q^-1 = root^T root.
    """

    def __init__(self, count: int, ridge: float, covariance: str) -> None:
        self.covariance = covariance
        self.mode: Floats64 = np.zeros(count)
        self.precision: Floats64 = ridge * np.eye(count)
        self.root: Floats64 = np.eye(count) / np.sqrt(ridge)

    @property
    def theta(self) -> Floats:
        """The mode, as it serves."""
        return self.mode.astype(np.float32)

    def add(self, phi: Floats, click: Flags) -> None:
        """Takes rows phi [N, d] with their clicks [N] into the posterior."""
        wide = phi.astype(np.float64)
        self.mode[...] = mode_of(self.mode, self.precision, wide, click)
        curved = curvature(wide, self.mode)
        self.precision += np.diag(np.diag(curved)) if self.covariance == "diagonal" else curved
        self.root[...] = np.linalg.inv(np.linalg.cholesky(self.precision))

    def draws(self, count: int, scale: float, rng: np.random.Generator) -> Floats:
        """Weights [count, d] drawn from N(mode, scale^2 precision^-1)."""
        noise = rng.standard_normal((count, len(self.mode)), np.float32)
        drawn: Floats = self.theta + np.float32(scale) * (noise @ self.root.astype(np.float32))
        return drawn

    def arrays(self) -> dict[str, NDArray[Any]]:
        """By name."""
        return {"mode": self.mode, "precision": self.precision, "root": self.root}


def mode_of(mean: Floats64, precision: Floats64, phi: Floats64, click: Flags) -> Floats64:
    """The mode of the posterior of a logistic regression with prior N(mean [d], precision^-1), by Newton's method.

    Args:
        mean: [d].
        precision: [d, d].
        phi: [N, d].
        click: [N].
    """
    weights = mean.copy()
    loss = _loss(weights, mean, precision, phi, click)
    for _ in range(MOST_STEPS):
        slope = precision @ (weights - mean) + (_chance(phi @ weights) - click) @ phi
        step = np.linalg.solve(precision + curvature(phi, weights), slope)
        reach = 1.0
        while True:  # the loss is convex: a step that is short enough lowers it
            tried = weights - reach * step
            value = _loss(tried, mean, precision, phi, click)
            if value <= loss or reach < CLOSE:
                break
            reach /= 2.0
        if value > loss:
            break
        weights, loss = tried, value
        if reach * np.abs(step).max() < CLOSE:
            break
    return weights


def curvature(phi: Floats64, weights: Floats64) -> Floats64:
    """Sum of p (1 - p) phi phi^T over rows phi [N, d], [d, d]."""
    p = _chance(phi @ weights)
    spread = phi * np.sqrt(p * (1.0 - p))[:, None]
    curved: Floats64 = spread.T @ spread
    return curved


def _chance(odds: Floats64) -> Floats64:
    return 0.5 * (1.0 + np.tanh(0.5 * odds))


def _loss(weights: Floats64, mean: Floats64, precision: Floats64, phi: Floats64, click: Flags) -> float:
    away = weights - mean
    return float(0.5 * away @ precision @ away + np.logaddexp(0.0, np.where(click, -1.0, 1.0) * (phi @ weights)).sum())
