"""Bayesian personalised ranking: factors that put what was clicked before what was not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.interaction_log import Log, Numbers
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Floats
from recsim_llm.agents.logged.popularity_blend import HeldOutBlendAgent, HeldOutBlendConfig, Scores, newest
from recsim_llm.agents.logged.user_item_matrix import CALM, UserItemMatrix
from recsim_llm.simulator.jit import jit

Floats64 = NDArray[np.float64]
SPREAD = 0.1


@dataclass(frozen=True)
class BPRConfig(HeldOutBlendConfig):
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


class BPRAgent(HeldOutBlendAgent):
    """Learns factors by which users' clicked items rank before those they did not click.

    Equation: maximise the sum of ln sigma(x_ui - x_uj) - shrink |theta|^2 / 2 over users u, items i that they clicked
    and items j, drawn at random from those that they looked at and left, or, without any or without ``looks``, from
    those that they did not click; x_ui = b_i + u . q_i; by stochastic gradient ascent.

    Paper: Rendle, Freudenthaler, Gantner and Schmidt-Thieme (2009), "BPR: Bayesian personalized ranking from implicit
    feedback".

    A user of an episode is folded in by her clicks i: her vector is the sum of q_i less as many times the mean of what
    she left (drawn towards that of all items), the direction of the first step of ascent from a vector of zero. Online,
    new clicks are taken in by as many steps as an epoch has.

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
        factors, items = self.config.factors, self.env_spec.items
        self.users: Floats64 = np.zeros((users, factors))
        self.items: Floats64 = np.zeros((items, factors))
        self.bias: Floats64 = np.zeros(items)
        self._known: Numbers = np.zeros(users, np.int64)

    def fit_model(self, log: Log) -> None:
        """From small random factors."""
        rng, factors, user_item = self.fit_rng(), self.config.factors, self.user_item(log)
        self.blank_model(len(user_item.users))
        self._known = user_item.users
        self.users[...] = rng.normal(0.0, SPREAD, self.users.shape)
        self.items[...] = rng.normal(0.0, SPREAD, (self.env_spec.items, factors))
        self._ascend(user_item, np.flatnonzero(user_item.clicks > 0), self.config.epochs, rng)

    def absorb_model(self, log: Log, start: int) -> None:
        """Steps for the new clicks; users that are new start as vectors of zero."""
        user_item, rng = self.user_item(log), self.fit_rng(start)
        users = np.zeros((len(user_item.users), self.config.factors))
        users[np.searchsorted(user_item.users, self._known)] = self.users
        self.users, self._known = users, user_item.users
        clicked = start + np.flatnonzero(log.click[start:] > 0)
        row = np.searchsorted(user_item.users, log.user[clicked])
        cells = user_item.rows() * self.env_spec.items + user_item.item
        self._ascend(user_item, np.searchsorted(cells, row * self.env_spec.items + log.item[clicked]), 1, rng)

    def _ascend(self, user_item: UserItemMatrix, cells: Numbers, epochs: int, rng: np.random.Generator) -> None:
        """``epochs`` passes over clicks, cells of the baskets, each against an item drawn at random."""
        user, wanted = user_item.rows(), Wanted.of(user_item)
        for _ in range(epochs):
            order = cells[rng.permutation(len(cells))]
            against = wanted.against(user[order], rng)
            ascend(
                user[order], user_item.item[order], against, self.users, self.items, self.bias, self.config.rate,
                self.config.shrink,
            )  # fmt: skip

    def personal(self, rows: Floats, session: Any) -> Scores:
        """Products of the users folded in and the items."""
        padded = np.vstack([self.items, np.zeros((1, self.config.factors))])  # an empty place, -1, is the last row
        against = self.items.mean(0)[None]
        if self.looked[0]:
            left = newest(session.left)
            count = (left >= 0).sum(1, keepdims=True)
            against = (padded[left].sum(1) + CALM * against) / (count + CALM)
        users = padded[newest(session.history)].sum(1) - session.clicks()[:, None] * against  # [B, F]
        scores: Scores = users @ self.items.T
        return scores

    def model_arrays(self) -> dict[str, NDArray[Any]]:
        """Factors and biases."""
        return {"users": self.users, "items": self.items, "bias": self.bias, "known": self._known}


@dataclass(frozen=True, eq=False)
class Wanted:
    """What items can be drawn against clicked ones: those each user left, or, without any, those she did not click.

    Attributes:
        start: [N + 1] where the left items of each user begin.
        left: [L] items looked at and never clicked.
        clicked: Cells (user * I + item) that were clicked, rising.
        items: I.
    """

    start: Numbers
    left: Numbers
    clicked: Numbers
    items: int

    @classmethod
    def of(cls, user_item: UserItemMatrix) -> Wanted:
        """From what users did."""
        row, clicked = user_item.rows(), user_item.clicks > 0
        start = np.searchsorted(row[~clicked], np.arange(len(user_item.users) + 1))
        cells = row[clicked] * user_item.items + user_item.item[clicked]
        return cls(start.astype(np.int64), user_item.item[~clicked], cells, user_item.items)

    def against(self, user: Numbers, rng: np.random.Generator) -> Numbers:
        """One item for each user [N]; -1 where a random one was clicked."""
        draws, count = rng.random(len(user)), np.diff(self.start)[user]
        drawn: Numbers = (draws * self.items).astype(np.int64)
        cells = user * self.items + drawn
        place = np.minimum(np.searchsorted(self.clicked, cells), len(self.clicked) - 1)
        drawn = np.where(self.clicked[place] == cells, -1, drawn)
        some = count > 0
        drawn[some] = self.left[self.start[user[some]] + (draws[some] * count[some]).astype(np.int64)]
        return drawn


@jit
def ascend(
    user: Numbers, item: Numbers, against: Numbers, users: Floats64, items: Floats64, bias: Floats64, rate: float,
    shrink: float,
) -> None:  # fmt: skip
    """One step for each clicked item and the one drawn against it; none where that is -1.

    With g = sigma(x_uj - x_ui): u <- u + rate (g (q_i - q_j) - shrink u), q_i <- q_i + rate (g u - shrink q_i), q_j <-
    q_j + rate (-g u - shrink q_j), and b_i and b_j likewise.
    """
    for n in range(len(user)):
        u, i, j = user[n], item[n], against[n]
        if j < 0:
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
