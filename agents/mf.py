"""Matrix factorisation, fitted to the logs of a random policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.config import Config
from recsim_llm.agents.counts import seen_slots
from recsim_llm.agents.factorisation import Factors, Floats64, fit
from recsim_llm.agents.lanes import Flags, Floats, Slates, Transition
from recsim_llm.agents.memory import CLICK, SKIP, Memory
from recsim_llm.agents.remembering import RememberingAgent, RememberingConfig
from recsim_llm.agents.slates import best, looked_at, uniform
from recsim_llm.errors import DataError

LEAST_VARIANCE = 1e-6


@dataclass(frozen=True)
class MFConfig(RememberingConfig):
    """Settings of :class:`MFAgent`.

    Attributes:
        factors: F, width of the factors.
        epochs: Passes over the logs in each fit.
        rate: Step size of the first pass; it falls to a tenth.
        shrink_bias: L2 penalty of the biases, per rating.
        shrink: L2 penalty of the factors, per rating; that of lambda is towards 1.
    """

    factors: int = 16
    epochs: int = 20
    rate: float = 0.02
    shrink_bias: float = 0.1
    shrink: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(1, 256, "factors")
        self._within(1, 10_000, "epochs")
        self._within(1e-9, 1.0, "rate")
        self._within(0.0, 1e6, "shrink_bias", "shrink")


@dataclass(frozen=True)
class FoldIn:
    """State between two calls of ``predict``: the memory, and what the users of the lanes did in this episode.

    Attributes:
        memory: Looks and clicks.
        gram: [B, 1 + F, 1 + F] sum of x x^T over the slots looked at, x = (1, lambda * i).
        moment: [B, 1 + F] sum of x (click - mu - b_i).
        user: [B] rows of the model for users of the logs, -1 for others.
    """

    memory: Memory
    gram: Floats64
    moment: Floats64
    user: NDArray[np.int64]


class MFAgent(RememberingAgent):
    """Gathers clicks under uniform random slates, factorises them, and serves the highest predictions.

    Equation: r = mu + b_u + b_i + sum_k lambda_k u_k i_k, r a click; squared error with L2 penalties, by SGD.

    Paper: Koren, Bell and Volinsky (2009), "Matrix factorization techniques for recommender systems"; the weights
    lambda are those of a factorisation in the form of a singular value decomposition.

    An observation does not tell who a user is; the infos do (``user_id``), where the loop shows them to
    :meth:`observe`. A user of the logs starts as the model has her; any other as the mean of the users in the logs.
    Then (b_u, u) is the ridge solution over the slots that she has looked at in this episode,

        (sum x x^T + s^2 V^-1)^-1 (sum x (r - mu - b_i) + s^2 V^-1 m),  x = (1, lambda * i),

    m and V the mean and variances over the users in the logs, s^2 the error of the fit; for a user of the logs m is her
    own vector, and s^2 V^-1 has n E[x x^T] added for her n slots in the logs. The sums are kept in
    ``predict``'s state. Texts and encodings are not used.

    Origin of the defaults: Koren et al. recommend biases, a step size of the order of 0.01 and penalties of the
    order of 0.1. Deviations: the model is fitted anew to all logs at the end of each call of ``learn``; what was
    just shown rests.
    """

    name: ClassVar[str] = "mf"
    Config: ClassVar[type[Config]] = MFConfig
    config: MFConfig

    def setup(self, rng: np.random.Generator) -> None:
        """No logs; an unfitted model."""
        self.ties = rng.random(self.setting.items) * 1e-9
        self._fit_seed = int(rng.integers(2**62))
        self._user = np.zeros(0, np.int64)
        self._item = np.zeros(0, np.int64)
        self._click = np.zeros(0, np.float64)
        self._met: NDArray[np.int64] | None = None
        self._new: list[tuple[NDArray[np.int64], NDArray[np.int64], Floats64]] = []
        self._fit()

    def act(
        self,
        rows: Floats,
        state: Any,
        starts: Flags,
        deterministic: bool,
        allowed: Flags,
        rng: np.random.Generator,
    ) -> tuple[Slates, Any]:
        """The highest predictions for the users folded in so far; there is nothing to explore when serving."""
        memory = self.recall(rows, state.memory if isinstance(state, FoldIn) else state, starts)
        gram, moment = self._sums(rows, state, starts, memory)
        user = self._who(state, starts)
        prior = np.where((user >= 0)[:, None], self._people[user], self._prior)
        count = np.where(user >= 0, self._looks[user], 0.0)
        precision = self._precision + count[:, None, None] * self._spread
        wanted = moment[:, :, None] + precision @ prior[:, :, None]
        users = np.linalg.solve(gram + precision, wanted)[:, 1:, 0]
        model = self.model
        scores = model.item_bias + self.ties + users @ (model.weights * model.items).T
        slates = best(scores, self.rested(memory, allowed), self.setting.slots)
        return slates, FoldIn(memory.noting(slates), gram, moment, user)

    def observe(self, info: dict[str, Any]) -> None:
        """Notes who the users of the next ``predict`` are."""
        self._met = np.atleast_1d(np.asarray(info["user_id"], np.int64)) if "user_id" in info else None

    def _who(self, state: Any, starts: Flags) -> NDArray[np.int64]:
        """[B] rows of the model; what was observed counts once, so that it is never mistaken for other users'."""
        before = state.user if isinstance(state, FoldIn) else np.full(len(starts), -1, np.int64)
        met, self._met = self._met, None
        if met is None or len(met) != len(starts) or not len(self._known):
            return np.where(starts, -1, before)
        row = np.minimum(np.searchsorted(self._known, met), len(self._known) - 1)
        found = np.where(self._known[row] == met, row, -1)
        return np.where(starts | (before < 0), found, before)

    def interact(self) -> Transition:
        """One step of every lane under the uniform random policy."""
        slates = uniform(self.lanes.available(), self.setting.slots, self.rng)
        return self.lanes.step(slates)

    def update(self, transition: Transition) -> None:
        """Adds the slots that were looked at to the logs; nothing of users who opted out, whose number is -1."""
        shown, seen = seen_slots(transition)
        users = np.broadcast_to(np.asarray(transition.info["user_id"], np.int64)[:, None], shown.shape)
        seen = seen & (users >= 0)
        self._new.append((users[seen], shown[seen], np.asarray(transition.info["click"], np.float64)[seen]))

    def finish(self) -> None:
        """Fits the model to all logs."""
        self._met = None
        if self._new:
            old = (self._user, self._item, self._click)
            users, items, clicks = zip(old, *self._new, strict=True)
            self._user, self._item = np.concatenate(users), np.concatenate(items)
            self._click = np.concatenate(clicks)
            self._new = []
            self._fit()

    def _fit(self) -> None:
        rng = np.random.Generator(np.random.PCG64(self._fit_seed))
        config = self.config
        self._known, user = np.unique(self._user, return_inverse=True)
        self.model = Factors.start(max(len(self._known), 1), self.setting.items, config.factors, rng)
        if len(self._user):
            fit(
                self.model, user.astype(np.int64), self._item, self._click, epochs=config.epochs, rate=config.rate,
                shrink_bias=config.shrink_bias, shrink=config.shrink, rng=rng,
            )  # fmt: skip
        else:
            self.model.items[...] = 0.0
        people = np.concatenate([self.model.user_bias[:, None], self.model.users], 1)  # [N, 1 + F]
        variance = np.maximum(people.var(0), LEAST_VARIANCE)
        self._people, self._looks = people, np.bincount(user, minlength=len(people)).astype(np.float64)
        x = np.concatenate([np.ones((self.setting.items, 1)), self.model.weights * self.model.items], 1)
        self._spread = x.T @ x / len(x)
        self._prior, self._precision = people.mean(0), np.diag(self.model.noise[0] / variance)

    def _sums(self, rows: Floats, state: Any, starts: Flags, memory: Memory) -> tuple[Floats64, Floats64]:
        """The state's sums with the feedback to the last slate added, and zero in lanes that begin an episode."""
        lanes, size, model = len(rows), 1 + self.config.factors, self.model
        if not isinstance(state, FoldIn):
            return np.zeros((lanes, size, size)), np.zeros((lanes, size))
        signals = self.setting.feedback(rows)
        seen = looked_at(signals[:, :, CLICK], signals[:, :, SKIP]) & (memory.last >= 0)
        items = np.maximum(memory.last, 0)
        x = np.concatenate([np.ones((*items.shape, 1)), model.weights * model.items[items]], 2) * seen[:, :, None]
        left = signals[:, :, CLICK] - model.mu[0] - model.item_bias[items]  # [B, K]
        kept = ~starts[:, None]
        gram = np.where(kept[:, :, None], state.gram + x.transpose(0, 2, 1) @ x, 0.0)
        moment = np.where(kept, state.moment + (left[:, None] @ x)[:, 0], 0.0)
        return gram, moment

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The logs; the model is fitted to them again when they are loaded."""
        return {"user": self._user, "item": self._item, "click": self._click, "ties": self.ties}

    def restore(self, arrays: dict[str, NDArray[Any]], extra: dict[str, Any], source: object) -> None:
        """Takes over the logs and fits the model, the same bits on the same machine."""
        given = {name: arrays.get(name, np.zeros(0)) for name in ("user", "item", "click")}
        if len({array.shape for array in given.values()}) != 1 or given["user"].ndim != 1:
            raise DataError(f"{source}: the logs' columns differ in length")
        item = given["item"]
        if item.dtype != np.int64 or (len(item) and not 0 <= item.min() <= item.max() < self.setting.items):
            raise DataError(f"{source}: the logs name items that the catalogue does not have")
        self._user, self._item = np.zeros(item.shape, np.int64), np.zeros(item.shape, np.int64)
        self._click = np.zeros(item.shape, np.float64)
        super().restore(arrays, extra, source)
        self._fit()
