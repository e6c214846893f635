"""EASE: a linear auto-encoder of users' clicks in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.interaction_log import Log
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import EnvironmentSpec, Floats
from recsim_llm.agents.logged.popularity_blend import HeldOutBlendAgent, HeldOutBlendConfig, Scores, sum_rows

MOST_ITEMS = 20_000


@dataclass(frozen=True)
class EASEConfig(HeldOutBlendConfig):
    """Settings of :class:`EASEAgent`.

    Attributes:
        ridge: lambda, L2 penalty of the weights.
    """

    ridge: float = 500.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(1e-6, 1e9, "ridge")


class EASEAgent(HeldOutBlendAgent):
    """Predicts each click from the user's other clicks, by weights between items that have a closed form.

    Equation: B minimises |X - X B|^2 + lambda v |B|^2 with a zero diagonal, X the matrix of users and items:

        P = (X^T X + lambda v I)^-1,  B_ij = -P_ij / P_jj for i != j,  B_jj = 0,

    and the personal score of item j is the sum of x_ui B_ij over the items i that the user of the episode saw. Entries
    of X are what is left of clicks after the means of the item and the user are taken off, 0 for what was not looked
    at; or, without ``looks``, 1 for a click as in the paper. v is the mean square of the entries (1 for clicks alone).

    Paper: Steck (2019), "Embarrassingly shallow autoencoders for sparse data".

    Items that nobody looked at have zero weights. Users need not be known: what they did in the episode is all that
    counts. Online, the weights are computed anew: the inverse, not the sums, is what takes time.

    Origin of the defaults: Steck found 200 to 1,000, and so did the clicks of held-out training users of the six
    scenarios. Deviations: (1) entries take account of looks; (2) the score is blended with popularity; (3) the log is
    gathered under uniform random slates; (4) what was just shown rests.
    """

    name: ClassVar[str] = "ease"
    Config: ClassVar[type[Config]] = EASEConfig
    config: EASEConfig

    @classmethod
    def refusal(cls, env_spec: EnvironmentSpec, config: Any) -> str | None:
        """It holds a weight for every pair of items."""
        if env_spec.items <= MOST_ITEMS:
            return None
        return (
            f"ease inverts a matrix of all pairs of items, at most {MOST_ITEMS:,} items, and this catalogue has "
            f"{env_spec.items:,}; use item_knn, which keeps the nearest ones only"
        )

    def blank_model(self, users: int) -> None:
        """Weights of zero."""
        self.weights: Floats = np.zeros((self.env_spec.items, self.env_spec.items), np.float32)

    def fit_model(self, log: Log) -> None:
        """In closed form."""
        user_item = self.user_item(log)
        self.weights = weights(user_item.gram(), self.config.ridge * user_item.size).astype(np.float32)

    def personal(self, rows: Floats, session: Any) -> Scores:
        """Sums of weights from the clicks of the episode."""
        scores = np.empty((len(rows), self.env_spec.items), np.float32)
        sum_rows(*self.opinions(session), self.weights, scores)
        return scores

    def model_arrays(self) -> dict[str, NDArray[Any]]:
        """The weights."""
        return {"weights": self.weights}


def weights(gram: NDArray[np.float64], ridge: float) -> NDArray[np.float64]:
    """The weights B [I, I] from X^T X [I, I].

    Items without clicks are left out of the inverse: their weights are zero.
    """
    used = np.flatnonzero(np.diag(gram) > 0)
    inverse = np.linalg.inv(gram[np.ix_(used, used)] + ridge * np.eye(len(used)))
    inner = -inverse / np.diag(inverse)
    np.fill_diagonal(inner, 0.0)
    found = np.zeros_like(gram)
    found[np.ix_(used, used)] = inner
    return found
