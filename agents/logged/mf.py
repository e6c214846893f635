"""Matrix factorisation by stochastic gradient descent, fitted to a log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.cooldown import CLICK, SKIP
from recsim_llm.agents.common.interaction_log import Log
from recsim_llm.agents.common.item_stats import looked_at
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Flags, Floats, Slates
from recsim_llm.agents.logged.base import EpisodeHistory, LoggedAgent, LoggedConfig
from recsim_llm.agents.logged.sgd_factorisation import Factors, Floats64, fit, fit_more

LEAST_VARIANCE = 1e-6


@dataclass(frozen=True)
class MFConfig(LoggedConfig):
    """Settings of :class:`MFAgent`.

    Attributes:
        factors: F, width of the factors.
        epochs: Passes over the log in each fit.
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
class FoldIn(EpisodeHistory):
    """State between two calls of ``predict``: the session, and what is known of the users by it.

    Attributes:
        gram: [B, 1 + F, 1 + F] sum of x x^T over the slots looked at, x = (1, lambda * i).
        moment: [B, 1 + F] sum of x (click - mu - b_i).
        user: [B] rows of the model for users of the log, -1 for others.
    """

    gram: Floats64
    moment: Floats64
    user: NDArray[np.int64]


class MFAgent(LoggedAgent):
    """Factorises clicks by gradient descent, with a weight for each factor, and serves the highest predictions.

    Equation: r = mu + b_u + b_i + sum_k lambda_k u_k i_k, r a click; squared error with L2 penalties, by SGD.

    Paper: Koren, Bell and Volinsky (2009), "Matrix factorization techniques for recommender systems"; the weights
    lambda are those of a factorisation in the form of a singular value decomposition.

    An observation does not tell who a user is; the infos do (``user_id``), where the loop shows them to
    :meth:`observe`. A user of the log starts as the model has her; any other as the mean of the users in the log.
    Then (b_u, u) is the ridge solution over the slots that she has looked at in this episode,

        (sum x x^T + s^2 V^-1)^-1 (sum x (r - mu - b_i) + s^2 V^-1 m),  x = (1, lambda * i),

    m and V the mean and variances over the users in the log, s^2 the error of the fit; for a user of the log m is her
    own vector, and s^2 V^-1 has n E[x x^T] added for her n slots in the log. The sums are kept in
    ``predict``'s state. Texts and encodings are not used. Online, one pass of SGD takes in the new rows, users that
    are new starting as the mean of the others, and all is fitted anew whenever the log has doubled.

    Origin of the defaults: Koren et al. recommend biases, a step size of the order of 0.01 and penalties of the
    order of 0.1. Deviations: (1) the log is gathered under uniform random slates and the model fitted anew to all of it
    at the end of each call of ``learn``; (2) what was just shown rests; (3) online, the sums of a session keep the
    factors of the time at which they were added.
    """

    name: ClassVar[str] = "mf"
    Config: ClassVar[type[Config]] = MFConfig
    State: ClassVar[type | None] = FoldIn
    config: MFConfig

    def setup(self, rng: np.random.Generator) -> None:
        """No log; an unfitted model."""
        super().setup(rng)

    def blank(self, users: int) -> None:
        """Item factors of zero."""
        factors, items = self.config.factors, self.env_spec.items
        self.model = Factors.start(max(users, 1), items, factors, self.fit_rng())
        self.model.items[...] = 0.0
        self._known, self._anew = np.zeros(users, np.int64), np.zeros(1, np.int64)
        self._summarise(np.zeros(max(users, 1)))

    def fit(self, log: Log) -> None:
        """By SGD from small random factors."""
        rng, config = self.fit_rng(), self.config
        self._anew[0] = len(log)
        self._known, user = np.unique(log.user, return_inverse=True)
        self.model = Factors.start(len(self._known), self.env_spec.items, config.factors, rng)
        fit(
            self.model, user.astype(np.int64), log.item, log.click.astype(np.float64), epochs=config.epochs,
            rate=config.rate, shrink_bias=config.shrink_bias, shrink=config.shrink, rng=rng,
        )  # fmt: skip
        self._summarise(np.bincount(user, minlength=len(self._known)).astype(np.float64))

    def absorb(self, log: Log, start: int) -> None:
        """One pass over the new rows; all is fitted anew whenever the log has doubled."""
        if len(log) >= 2 * self._anew[0]:
            self.fit(log)
            return
        config, old = self.config, self._known
        self._known, user = np.unique(log.user, return_inverse=True)
        self.model.widen(np.searchsorted(self._known, old), len(self._known))
        fit_more(
            self.model, user[start:].astype(np.int64), log.item[start:], log.click[start:].astype(np.float64),
            rate=config.rate, shrink_bias=config.shrink_bias, shrink=config.shrink, rng=self.fit_rng(start),
        )  # fmt: skip
        self._summarise(np.bincount(user, minlength=len(self._known)).astype(np.float64))

    def _summarise(self, looks: Floats64) -> None:
        """What folding in needs: users as vectors with their slots in the log [N], their spread and their mean."""
        model = self.model
        people = np.concatenate([model.user_bias[:, None], model.users], 1)  # [N, 1 + F]
        variance = np.maximum(people.var(0), LEAST_VARIANCE)
        self._people, self._looks = people, looks
        x = np.concatenate([np.ones((self.env_spec.items, 1)), model.weights * model.items], 1)
        self._spread = x.T @ x / len(x)
        self._prior, self._precision = people.mean(0), np.diag(model.noise[0] / variance)

    def scores(self, obs: Floats, session: Any) -> NDArray[np.floating]:
        """Predictions for the users folded in so far; there is nothing to explore when serving."""
        user = session.user
        prior = np.where((user >= 0)[:, None], self._people[user], self._prior)
        count = np.where(user >= 0, self._looks[user], 0.0)
        precision = self._precision + count[:, None, None] * self._spread
        wanted = session.moment[:, :, None] + precision @ prior[:, :, None]
        users = np.linalg.solve(session.gram + precision, wanted)[:, 1:, 0]
        model = self.model
        predicted: Floats64 = model.item_bias + users @ (model.weights * model.items).T
        return predicted

    def session(self, obs: Floats, state: Any, episode_start: Flags) -> Any:
        """The session with the feedback to the last slate in its sums; they are zero where an episode begins."""
        before = super().session(obs, state, episode_start)
        lanes, size = len(obs), 1 + self.config.factors
        user = self._who(state, episode_start)
        if not isinstance(state, FoldIn):
            return FoldIn(before.memory, before.history, np.zeros((lanes, size, size)), np.zeros((lanes, size)), user)
        signals = self.env_spec.feedback(obs)
        seen = looked_at(signals[:, :, CLICK], signals[:, :, SKIP]) & (before.memory.last >= 0)
        x, moment = self._added(np.maximum(before.memory.last, 0), signals[:, :, CLICK], seen)
        kept = ~episode_start[:, None]
        gram = np.where(kept[:, :, None], state.gram + x, 0.0)
        return FoldIn(before.memory, before.history, gram, np.where(kept, state.moment + moment, 0.0), user)

    def session_of(self, history: Slates) -> Any:
        """Users who clicked a history and looked at nothing else."""
        session = super().session_of(history)
        items = session.history
        gram, moment = self._added(np.maximum(items, 0), np.ones(items.shape, np.float32), items >= 0)
        return FoldIn(session.memory, items, gram, moment, np.full(len(items), -1, np.int64))

    def _added(self, items: Slates, clicks: Floats, seen: Flags) -> tuple[Floats64, Floats64]:
        """What items [B, N] that were looked at add to the sums [B, 1 + F, 1 + F] and [B, 1 + F]."""
        model = self.model
        x = np.concatenate([np.ones((*items.shape, 1)), model.weights * model.items[items]], 2) * seen[:, :, None]
        left = clicks - model.mu[0] - model.item_bias[items]  # [B, N]
        return x.transpose(0, 2, 1) @ x, (left[:, None] @ x)[:, 0]

    def _who(self, state: Any, episode_start: Flags) -> NDArray[np.int64]:
        """[B] rows of the model, where infos named them when the episode began; -1 for others."""
        before = state.user if isinstance(state, FoldIn) else np.full(len(episode_start), -1, np.int64)
        met = self.met()
        if met is None or len(met) != len(episode_start) or not len(self._known):
            return np.where(episode_start, -1, before)
        row = np.minimum(np.searchsorted(self._known, met), len(self._known) - 1)
        found = np.where(self._known[row] == met, row, -1)
        return np.where(episode_start | (before < 0), found, before)

    def learnt(self) -> dict[str, NDArray[Any]]:
        """The model and what folding in needs."""
        model = self.model
        return {
            "mu": model.mu, "user_bias": model.user_bias, "item_bias": model.item_bias, "users": model.users,
            "items": model.items, "weights": model.weights, "noise": model.noise, "known": self._known,
            "people": self._people, "looks": self._looks, "spread": self._spread, "prior": self._prior,
            "precision": self._precision, "anew": self._anew,
        }  # fmt: skip
