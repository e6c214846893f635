"""Bayesian personalised ranking: factors that put what was clicked before what was not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.baskets import Baskets
from recsim_llm.agents.blending import Scores, TunedAgent, TunedConfig
from recsim_llm.agents.config import Config
from recsim_llm.agents.lanes import Floats
from recsim_llm.agents.log import Log, Numbers
from recsim_llm.rules.jit import jit

Floats64 = NDArray[np.float64]
SPREAD = 0.1


@dataclass(frozen=True)
class BPRConfig(TunedConfig):
    """Settings of :class:`BPRAgent`.

    Attributes:
        factors: F, width of the factors.
        epochs: Draws of pairs in each fit, in multiples of the clicks in the log.
        rate: Step size.
        shrink: L2 penalty of factors and biases.
    """

    factors: int = 16
    epochs: int = 30
    rate: float = 0.05
    shrink: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(1, 256, "factors")
        self._within(1, 10_000, "epochs")
        self._within(1e-9, 1.0, "rate")
        self._within(0.0, 1e6, "shrink")


class BPRAgent(TunedAgent):
    """Learns factors by which users' clicked items rank before those they did not click.

    Equation: maximise the sum of ln sigma(x_ui - x_uj) - shrink |theta|^2 / 2 over users u, items i that they clicked
    and items j that they did not, drawn at random; x_ui = b_i + u . q_i; by stochastic gradient ascent.

    Paper: Rendle, Freudenthaler, Gantner and Schmidt-Thieme (2009), "BPR: Bayesian personalized ranking from implicit
    feedback".

    A user of an episode is folded in by her clicks i: her vector is the sum of q_i - mean(q), the direction of the
    first step of ascent from a vector of zero. Online, new clicks are taken in by as many steps as an epoch has.

    Origin of the defaults: step sizes and penalties of the order of 0.05 and 0.01 are those of Rendle's MyMediaLite.
    Deviations: (1) the score is blended with popularity by click rates in place of b_i, whose looks are known here;
    (2) new users are folded in without gradient steps; (3) the log is gathered under uniform random slates; (4) what
    was just shown rests.
    """

    name: ClassVar[str] = "bpr"
    Config: ClassVar[type[Config]] = BPRConfig
    config: BPRConfig

    def blank_model(self, users: int) -> None:
        """Factors of zero."""
        factors, items = self.config.factors, self.setting.items
        self.users: Floats64 = np.zeros((users, factors))
        self.items: Floats64 = np.zeros((items, factors))
        self.bias: Floats64 = np.zeros(items)
        self._known: Numbers = np.zeros(users, np.int64)

    def fit_model(self, log: Log) -> None:
        """From small random factors."""
        rng, factors, baskets = self.fit_rng(), self.config.factors, Baskets.of(log, self.setting.items)
        self.blank_model(len(baskets.users))
        self._known = baskets.users
        self.users[...] = rng.normal(0.0, SPREAD, self.users.shape)
        self.items[...] = rng.normal(0.0, SPREAD, (self.setting.items, factors))
        self._ascend(baskets, np.arange(len(baskets.item)), self.config.epochs, rng)

    def absorb_model(self, log: Log, start: int) -> None:
        """Steps for the new clicks; users that are new start as vectors of zero."""
        baskets, rng = Baskets.of(log, self.setting.items), self.fit_rng(start)
        users = np.zeros((len(baskets.users), self.config.factors))
        users[np.searchsorted(baskets.users, self._known)] = self.users
        self.users, self._known = users, baskets.users
        clicked = start + np.flatnonzero(log.click[start:] > 0)
        row = np.searchsorted(baskets.users, log.user[clicked])
        cells = np.repeat(np.arange(len(users)), np.diff(baskets.start)) * self.setting.items + baskets.item
        self._ascend(baskets, np.searchsorted(cells, row * self.setting.items + log.item[clicked]), 1, rng)

    def _ascend(self, baskets: Baskets, cells: Numbers, epochs: int, rng: np.random.Generator) -> None:
        """``epochs`` passes over clicks, cells of the baskets, each against an item drawn at random."""
        user = np.repeat(np.arange(len(baskets.users)), np.diff(baskets.start))
        for _ in range(epochs):
            order = cells[rng.permutation(len(cells))]
            against = rng.integers(self.setting.items, size=len(order))
            ascend(
                user[order], baskets.item[order], against, baskets.start, baskets.item, self.users, self.items,
                self.bias, self.config.rate, self.config.shrink,
            )  # fmt: skip

    def personal(self, rows: Floats, session: Any) -> Scores:
        """Products of the users folded in and the items."""
        centred = np.vstack([self.items - self.items.mean(0), np.zeros((1, self.config.factors))])  # [I + 1, F]
        history = session.history[:, session.history.shape[1] - max(int(session.clicks().max(initial=0)), 1) :]
        users = centred[history].sum(1)  # [B, F]; an empty place, -1, is the last row
        scores: Scores = users @ self.items.T
        return scores

    def model_arrays(self) -> dict[str, NDArray[Any]]:
        """Factors and biases."""
        return {"users": self.users, "items": self.items, "bias": self.bias, "known": self._known}


@jit
def ascend(
    user: Numbers, item: Numbers, against: Numbers, start: Numbers, basket: Numbers, users: Floats64, items: Floats64,
    bias: Floats64, rate: float, shrink: float,
) -> None:  # fmt: skip
    """One step for each clicked item and one drawn against it; nothing where the user clicked that one too.

    With g = sigma(x_uj - x_ui): u <- u + rate (g (q_i - q_j) - shrink u), q_i <- q_i + rate (g u - shrink q_i), q_j <-
    q_j + rate (-g u - shrink q_j), and b_i and b_j likewise.
    """
    for n in range(len(user)):
        u, i, j = user[n], item[n], against[n]
        low, high = start[u], start[u + 1]
        place = low + np.searchsorted(basket[low:high], j)
        if place < high and basket[place] == j:
            continue
        margin = bias[i] - bias[j]
        for k in range(users.shape[1]):
            margin += users[u, k] * (items[i, k] - items[j, k])
        gain = 1.0 / (1.0 + np.exp(margin))
        bias[i] += rate * (gain - shrink * bias[i])
        bias[j] += rate * (-gain - shrink * bias[j])
        for k in range(users.shape[1]):
            a, b, c = users[u, k], items[i, k], items[j, k]
            users[u, k] += rate * (gain * (b - c) - shrink * a)
            items[i, k] += rate * (gain * a - shrink * b)
            items[j, k] += rate * (-gain * a - shrink * c)
