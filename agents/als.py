"""Factorisation of implicit feedback by alternating least squares, through the library ``implicit``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.baskets import Baskets
from recsim_llm.agents.blending import Scores, TunedAgent, TunedConfig
from recsim_llm.agents.config import Config
from recsim_llm.agents.lanes import Floats, Slates
from recsim_llm.agents.log import Log, Numbers
from recsim_llm.errors import require

SPREAD = 0.1


@dataclass(frozen=True)
class ALSConfig(TunedConfig):
    """Settings of :class:`ALSAgent`.

    Attributes:
        factors: F, width of the factors.
        iterations: Rounds in which users and items are solved for in turn.
        more_iterations: The same when a model is updated online, from where it stood.
        alpha: Confidence of one click; that of what was not clicked is 1.
        shrink: L2 penalty of the factors.
    """

    factors: int = 16
    iterations: int = 15
    more_iterations: int = 2
    alpha: float = 10.0
    shrink: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(1, 256, "factors")
        self._within(1, 1_000, "iterations", "more_iterations")
        self._within(1e-6, 1e6, "alpha")
        self._within(1e-9, 1e6, "shrink")


class ALSAgent(TunedAgent):
    """Factorises clicks as implicit feedback: what was not clicked is a weak sign of dislike, a click a strong one.

    Equation: minimise the sum over all users u and items i of c_ui (p_ui - u . q_i)^2 + shrink (|u|^2 + |q_i|^2), p_ui
    1 if u clicked i and else 0, c_ui = alpha times the clicks, or 1 without any; users and items are solved for in
    turn. A user of an episode is folded in by the same closed form, her clicks n_i being those of the episode:

        u = (Q^T Q + shrink I + sum (alpha n_i - 1) q_i q_i^T)^-1 sum alpha n_i q_i.

    Paper: Hu, Koren and Volinsky (2008), "Collaborative filtering for implicit feedback datasets". The factors are
    fitted by ``implicit`` (Frederickson), its exact solver on one thread.

    Origin of the defaults: 15 rounds are implicit's; Hu et al. found alpha 40 for 10^5 users and hours of viewing.
    Deviations: (1) the confidence of clicks is alpha n instead of 1 + alpha n, as implicit has it; (2) the score is
    blended with popularity; (3) the log is gathered under uniform random slates; (4) what was just shown rests.
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
        self.items: Floats = np.zeros((self.setting.items, factors), np.float32)
        self._known: Numbers = np.zeros(users, np.int64)

    def fit_model(self, log: Log) -> None:
        """From small random factors."""
        baskets, rng = Baskets.of(log, self.setting.items), self.fit_rng()
        self.blank_model(len(baskets.users))
        for start in (self.users, self.items):
            start[...] = SPREAD * rng.random(start.shape, np.float32)
        self._alternate(baskets, self.config.iterations)

    def absorb_model(self, log: Log, start: int) -> None:
        """A few rounds from where the items' factors stood; those of users follow from them."""
        baskets = Baskets.of(log, self.setting.items)
        self.users = np.zeros((len(baskets.users), self.config.factors), np.float32)
        self._alternate(baskets, self.config.more_iterations)

    def _alternate(self, baskets: Baskets, iterations: int) -> None:
        model, matrix = self.model(iterations), self.matrix(baskets)
        model.user_factors, model.item_factors = self.users, self.items
        with require("threadpoolctl", "agents").threadpool_limits(1, "blas"):
            model.fit(matrix, show_progress=False)
        self.users, self.items, self._known = model.user_factors, model.item_factors, baskets.users

    def model(self, iterations: int = 0) -> Any:
        """The library's model with these settings."""
        config = self.config
        with require("threadpoolctl", "agents").threadpool_limits(1, "blas"):
            return require("implicit.cpu.als", "agents").AlternatingLeastSquares(
                factors=config.factors, regularization=config.shrink, alpha=config.alpha, iterations=iterations,
                use_native=True, use_cg=False, num_threads=1, random_state=self.fit_seed % 2**32,
            )  # fmt: skip

    def matrix(self, baskets: Baskets) -> Any:
        """Users by items with the number of clicks, a sparse matrix."""
        cells = baskets.count.astype(np.float32), baskets.item.astype(np.int32), baskets.start.astype(np.int32)
        shape = (len(baskets.users), baskets.items)
        return require("scipy.sparse", "agents").csr_matrix(cells, shape=shape)

    def personal(self, rows: Floats, session: Any) -> Scores:
        """Products of the users folded in and the items."""
        scores: Scores = self.folded(session.history) @ self.items.T
        return scores

    def folded(self, history: Slates) -> NDArray[np.float64]:
        """Factors [B, F] of users who clicked the items of histories [B, H]; one that is there twice counts twice."""
        config, items = self.config, self.items.astype(np.float64)
        width = max(int((history >= 0).sum(1).max(initial=0)), 1)
        newest = history[:, history.shape[1] - width :]
        there = newest >= 0
        q = items[np.where(there, newest, 0)] * there[:, :, None]  # [B, H, F]
        # of an item clicked n times each click carries alpha - 1 / n, so that they sum to alpha n - 1
        times = (newest[:, :, None] == newest[:, None, :]).sum(2)
        carried = np.where(there, config.alpha - 1.0 / times, 0.0)
        gram = (q * carried[:, :, None]).transpose(0, 2, 1) @ q
        gram += items.T @ items + config.shrink * np.eye(config.factors)
        users: NDArray[np.float64] = np.linalg.solve(gram, config.alpha * q.sum(1)[:, :, None])[:, :, 0]
        return users

    def model_arrays(self) -> dict[str, NDArray[Any]]:
        """Factors."""
        return {"users": self.users, "items": self.items, "known": self._known}
