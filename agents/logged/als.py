"""Factorisation of implicit feedback by alternating least squares, through the library ``implicit``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.interaction_log import Log, Numbers
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Floats, Slates
from recsim_llm.agents.logged.popularity_blend import HeldOutBlendAgent, HeldOutBlendConfig, Scores, newest
from recsim_llm.agents.logged.user_item_matrix import UserItemMatrix
from recsim_llm.errors import require

SPREAD = 0.1


@dataclass(frozen=True)
class ALSConfig(HeldOutBlendConfig):
    """Settings of :class:`ALSAgent`.

    Attributes:
        factors: F, width of the factors.
        iterations: Rounds in which users and items are solved for in turn.
        more_iterations: The same when a model is updated online, from where it stood.
        alpha: Confidence of one click; that of what was not looked at is 1.
        left: Confidence of one look without a click, where looks count.
        shrink: L2 penalty of the factors.
    """

    factors: int = 16
    iterations: int = 15
    more_iterations: int = 2
    alpha: float = 10.0
    left: float = 10.0
    shrink: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(1, 256, "factors")
        self._within(1, 1_000, "iterations", "more_iterations")
        self._within(1e-6, 1e6, "alpha", "left")
        self._within(1e-9, 1e6, "shrink")


class ALSAgent(HeldOutBlendAgent):
    """Factorises clicks as implicit feedback: what was not clicked is a weak sign of dislike, a click a strong one.

    Equation: minimise the sum over all users u and items i of c_ui (p_ui - u . q_i)^2 + shrink (|u|^2 + |q_i|^2), p_ui
    1 if u clicked i and else 0; c_ui = alpha times the clicks, ``left`` times the looks where none was a click, or 1
    for what was not looked at (without ``looks``: not clicked); users and items are solved for in turn. A user of an
    episode is folded in by the same closed form, from what she did in it:

        u = (Q^T Q + shrink I + sum (c_ui - 1) q_i q_i^T)^-1 sum c_ui p_ui q_i.

    Paper: Hu, Koren and Volinsky (2008), "Collaborative filtering for implicit feedback datasets". The factors are
    fitted by ``implicit`` (Frederickson), its exact solver on one thread.

    Origin of the defaults: 15 rounds are implicit's; Hu et al. found alpha 40 for 10^5 users and hours of viewing;
    the others were found by the clicks of held-out training users of the six scenarios. Deviations: (1) the confidence
    of clicks is alpha n instead of 1 + alpha n, as implicit has it; (2) what was looked at and left has a confidence
    of its own; (3) the score is blended with popularity; (4) the log is gathered under uniform random slates; (5) what
    was just shown rests.
    """

    name: ClassVar[str] = "als"
    Config: ClassVar[type[Config]] = ALSConfig
    libraries: ClassVar[tuple[str, ...]] = ("implicit",)
    config: ALSConfig

    def setup(self, rng: np.random.Generator) -> None:
        """No log; an unfitted model. Says here already if ``implicit`` is missing."""
        require("implicit", "agents")
        super().setup(rng)

    def blank_model(self, users: int) -> None:
        """Factors of zero."""
        factors = self.config.factors
        self.users: Floats = np.zeros((users, factors), np.float32)
        self.items: Floats = np.zeros((self.env_spec.items, factors), np.float32)
        self._known: Numbers = np.zeros(users, np.int64)

    def fit_model(self, log: Log) -> None:
        """From small random factors."""
        user_item, rng = self.user_item(log), self.fit_rng()
        self.blank_model(len(user_item.users))
        for start in (self.users, self.items):
            start[...] = SPREAD * rng.random(start.shape, np.float32)
        self._alternate(user_item, self.config.iterations)

    def absorb_model(self, log: Log, start: int) -> None:
        """A few rounds from where the items' factors stood; those of users follow from them."""
        user_item = self.user_item(log)
        self.users = np.zeros((len(user_item.users), self.config.factors), np.float32)
        self._alternate(user_item, self.config.more_iterations)

    def _alternate(self, user_item: UserItemMatrix, iterations: int) -> None:
        model, matrix = self.model(iterations), self.matrix(user_item)
        model.user_factors, model.item_factors = self.users, self.items
        with require("threadpoolctl", "agents").threadpool_limits(1, "blas"):
            model.fit(matrix, show_progress=False)
        self.users, self.items, self._known = model.user_factors, model.item_factors, user_item.users

    def model(self, iterations: int = 0) -> Any:
        """The library's model with these settings."""
        config = self.config
        with require("threadpoolctl", "agents").threadpool_limits(1, "blas"):
            return require("implicit.cpu.als", "agents").AlternatingLeastSquares(
                factors=config.factors, regularization=config.shrink, alpha=1.0, iterations=iterations,
                use_native=True, use_cg=False, num_threads=1, random_state=self.fit_seed % 2**32,
            )  # fmt: skip

    def matrix(self, user_item: UserItemMatrix) -> Any:
        """Users by items: confidences, those in dislike negative as the library wants it; a sparse matrix."""
        confidence = np.where(
            user_item.clicks > 0, self.config.alpha * user_item.clicks, -self.config.left * user_item.lefts
        )
        cells = confidence.astype(np.float32), user_item.item.astype(np.int32), user_item.start.astype(np.int32)
        shape = (len(user_item.users), user_item.items)
        return require("scipy.sparse", "agents").csr_matrix(cells, shape=shape)

    def personal(self, rows: Floats, session: Any) -> Scores:
        """Products of the users folded in and the items."""
        users = self.folded(session.history, session.left if self.looked[0] else None)
        scores: Scores = users @ self.items.T
        return scores

    def folded(self, history: Slates, left: Slates | None = None) -> NDArray[np.float64]:
        """Factors [B, F] of users who clicked the items of ``history`` [B, H] and left those of ``left`` [B, H].

        One that is there twice counts twice; what was clicked was not left.
        """
        config, items = self.config, np.vstack([self.items, np.zeros((1, self.config.factors))]).astype(np.float64)
        clicked = newest(history)
        q = items[clicked]  # [B, H, F]; an empty place, -1, is the last row
        weight = config.alpha - 1.0 / repeats(clicked)
        gram = (q * weight[:, :, None]).transpose(0, 2, 1) @ q
        if left is not None:
            passed = newest(left)
            weight = config.left - 1.0 / repeats(passed)
            weight[(passed[:, :, None] == clicked[:, None, :]).any(2)] = 0.0
            p = items[passed]
            gram += (p * weight[:, :, None]).transpose(0, 2, 1) @ p
        gram += items.T @ items + config.shrink * np.eye(config.factors)
        users: NDArray[np.float64] = np.linalg.solve(gram, config.alpha * q.sum(1)[:, :, None])[:, :, 0]
        return users

    def model_arrays(self) -> dict[str, NDArray[Any]]:
        """Factors."""
        return {"users": self.users, "items": self.items, "known": self._known}


def repeats(items: Slates) -> NDArray[np.int64]:
    """[B, N] how often each of the items [B, N] is in its row: n weights c - 1 / n sum to c n - 1."""
    count: NDArray[np.int64] = (items[:, :, None] == items[:, None, :]).sum(2)
    return count
