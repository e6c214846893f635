"""MMR: re-ranking by maximal marginal relevance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Flags, Floats, Slates
from recsim_llm.agents.wrappers.base import Wrapper
from recsim_llm.agents.wrappers.reranking import Pool, RerankingConfig, Values, best_items, reranked, unit_rows


@dataclass(frozen=True)
class MMRConfig(RerankingConfig):
    """Settings of :class:`MMRAgent`.

    Attributes:
        weight: Weight of relevance against novelty, lambda; 1 leaves the inner agent's order.
    """

    weight: float = 0.7

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(0.0, 1.0, "weight")


class MMRAgent(Wrapper):
    """Shows the inner agent's best items that are unlike those already in the slate.

    Equation: of the pool R, with S what the slots before hold,

        i_k = argmax over i in R without S of  lambda rel(i) - (1 - lambda) max over j in S of cos(x_i, x_j)

    rel is the inner agent's relevance, scaled to [0, 1] over the pool, x the items' encodings.

    Paper: Carbonell and Goldstein (1998), "The use of MMR, diversity-based reranking for reordering documents and
    producing summaries".

    Origin of the defaults: lambda 0.7 is Carbonell and Goldstein's for a user who wants the best answers. Deviations:
    none in the criterion; a slate of one item is the inner agent's.
    """

    name: ClassVar[str] = "mmr"
    Config: ClassVar[type[Config]] = MMRConfig
    config: MMRConfig

    def setup(self, rng: np.random.Generator) -> None:
        """The inner agent, and encodings of length 1."""
        super().setup(rng)
        self.units = unit_rows(self.env_spec.catalog.embedding)

    def act(
        self,
        obs: Floats,
        state: Any,
        episode_start: Flags,
        deterministic: bool,
        action_mask: Flags,
        rng: np.random.Generator,
    ) -> tuple[Slates, Any]:
        """The inner agent's best items, ranked anew."""
        given = obs, state, episode_start, deterministic, action_mask, rng
        if self.env_spec.slate_size == 1:  # nothing to arrange
            return super().act(*given)
        pool = best_items(self, self.config.pool, *given)
        return reranked(self, pool, self.picked(pool))

    def picked(self, pool: Pool) -> Slates:
        """Places [B, K] of the greedy slate in the pool, the first slot's first; usable ones as long as there are."""
        units = self.units[pool.items].astype(np.float64)
        return marginal(
            pool.relevance, units @ units.transpose(0, 2, 1), pool.usable, self.env_spec.slate_size, self.config.weight
        )


def marginal(relevance: Values, alike: Values, usable: Flags, slate_size: int, weight: float) -> Slates:
    """Places [B, K] in the order of maximal marginal relevance.

    Args:
        relevance: [B, M].
        alike: Similarities, [B, M, M].
        usable: [B, M]; the others come last.
        slate_size: K.
        weight: Of relevance, lambda.
    """
    lanes = np.arange(len(relevance))
    places = np.empty((len(relevance), slate_size), np.int64)
    value = np.where(usable, weight * relevance, -np.inf)
    closest = np.full(relevance.shape, -np.inf)
    left = np.ones(relevance.shape, np.bool_)
    for k in range(slate_size):
        gain = value if k == 0 else value - (1.0 - weight) * closest
        places[:, k] = np.where(left, np.where(usable, gain, -1e300), -np.inf).argmax(1)
        left[lanes, places[:, k]] = False
        closest = np.maximum(closest, alike[lanes, places[:, k]])
    return places
