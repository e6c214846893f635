"""KL-UCB: upper bounds by the Kullback-Leibler divergence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from recsim_llm.agents.bandits.base import BanditAgent, BanditConfig
from recsim_llm.agents.common.item_stats import Floats64
from recsim_llm.agents.core.config import Config
from recsim_llm.simulator.jit import jit

STEPS = 60
CLOSE = 1e-13


@dataclass(frozen=True)
class KLUCBConfig(BanditConfig):
    """Settings of :class:`KLUCBAgent`.

    Attributes:
        strength: Looks by which an item's mean gain is drawn towards the mean of all when it is served without
            exploration.
        c: Factor of ln ln t; 3 is that of the theorem, 0 that of practice.
    """

    strength: float = 5.0
    c: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(1e-6, 1e12, "strength")
        self._within(0.0, 1e3, "c")


class KLUCBAgent(BanditAgent):
    """Shows the items whose mean gain could, by Chernoff's bound, be the highest.

    Equation: index_i = max {q: n_i d(mean_i, q) <= ln t + c ln ln t}, d(p, q) = p ln(p/q) + (1-p) ln((1-p)/(1-q)), t
    the looks at all items so far, n_i those at item i, mean_i the mean gain on a scale from 0 to 1. The bound is much
    tighter than UCB1's where gains are rare, as clicks are, and holds for any gains in [0, 1].

    Paper: Garivier and Cappe (2011), "The KL-UCB algorithm for bounded stochastic bandits and beyond", algorithm 1.

    Origin of the defaults: c = 0 is what the paper recommends in practice (section 2).

    Deviations: gains are scaled, see :class:`~recsim_llm.agents.bandits.base.BanditAgent`; slots of a
    slate are plays of their own, and users are served B at a time; items just shown rest.
    """

    name: ClassVar[str] = "kl_ucb"
    Config: ClassVar[type[Config]] = KLUCBConfig
    config: KLUCBConfig

    def scores(self) -> Floats64:
        """Smoothed mean gains."""
        return self.counts.rate(self.config.strength)

    def index(self) -> Floats64:
        """The equation."""
        looks = self.counts.looks
        log = np.log(max(looks.sum(), 1.0))
        budget = log + self.config.c * np.log(max(log, 1.0))
        bounds = np.full(len(looks), np.inf)
        tried = np.flatnonzero(looks > 0.0)
        bounds[tried] = upper(self.means()[tried], budget / looks[tried])
        return bounds


def upper(means: Floats64, budgets: Floats64) -> Floats64:
    """The largest q in [p, 1] with d(p, q) <= budget, of each p in [0, 1] and budget >= 0."""
    bounds = np.empty(len(means))
    _upper(np.ascontiguousarray(means), np.ascontiguousarray(budgets), bounds)
    return bounds


@jit
def _upper(means: Floats64, budgets: Floats64, bounds: Floats64) -> None:
    """Newton's method from above: d(p, .) is convex beyond p, so it falls to the root without crossing it.

    It starts at the smaller of two bounds: Pinsker's, 2 (q - p)^2 <= d, and -h(p) - (1 - p) ln(1 - q) <= d with h
    the entropy.
    """
    for i in range(len(means)):
        p, budget = means[i], budgets[i]
        if p >= 1.0 or budget <= 0.0:
            bounds[i] = p
            continue
        entropy = -(1.0 - p) * np.log1p(-p)
        if p > 0.0:
            entropy -= p * np.log(p)
        q = -np.expm1(-(budget + entropy) / (1.0 - p))
        q = min(q, p + np.sqrt(0.5 * budget))
        for _ in range(STEPS):
            if p <= 0.0 or q <= p or q >= 1.0:
                break
            over = -entropy - p * np.log(q) - (1.0 - p) * np.log1p(-q) - budget
            step = over * q * (1.0 - q) / (q - p)
            q = max(q - step, p)
            if step < CLOSE:
                break
        bounds[i] = q
