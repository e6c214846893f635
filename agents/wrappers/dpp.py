"""DPP: re-ranking by a determinantal point process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Flags, Floats, Slates
from recsim_llm.agents.wrappers.base import Wrapper
from recsim_llm.agents.wrappers.reranking import Pool, RerankingConfig, Values, best_items, reranked, unit_rows

LEAST = 1e-10
"""Squared distance below which an item counts as a combination of those chosen."""


@dataclass(frozen=True)
class DPPConfig(RerankingConfig):
    """Settings of :class:`DPPAgent`.

    Attributes:
        weight: Weight of relevance against diversity, theta; near 1 it is relevance alone.
    """

    weight: float = 0.7

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(0.0, 0.99, "weight")


class DPPAgent(Wrapper):
    """Shows the slate that is most probable under a determinantal point process on the inner agent's items.

    Equation: greedily, i_k = argmax over i of log det L(S + i) - log det L(S), where

        L_ij = q_i S_ij q_j,  q_i = exp(alpha rel(i)),  alpha = theta / (2 (1 - theta)),  S_ij = (1 + cos(x_i, x_j)) / 2

    so that log det L(S) = 2 alpha sum of rel + log det S(S).

    Paper: Chen, Zhang and Zhou (2018), "Fast greedy MAP inference for determinantal point process to improve
    recommendation diversity", algorithm 1 (a Cholesky factor grows by one row for each slot) and section 4.

    Origin of the defaults: theta 0.7, where relevance outweighs; Chen et al. vary it between 0 and 1. Deviations: when
    the items left are combinations of those chosen, the slate is filled up by relevance instead of ending; a slate of
    one item is the inner agent's.
    """

    name: ClassVar[str] = "dpp"
    Config: ClassVar[type[Config]] = DPPConfig
    config: DPPConfig

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
        alike = (1.0 + units @ units.transpose(0, 2, 1)) / 2.0
        theta = self.config.weight
        quality = np.exp(theta / (2.0 * (1.0 - theta)) * (pool.relevance - 1.0))  # a common factor decides nothing
        return greedy_map(quality[:, :, None] * alike * quality[:, None, :], pool.usable, self.env_spec.slate_size)


def greedy_map(kernel: Values, usable: Flags, slate_size: int) -> Slates:
    """Places [B, K] that greedily maximise the determinant.

    Args:
        kernel: Positive semidefinite matrices, [B, M, M].
        usable: [B, M]; the others come last.
        slate_size: K.
    """
    lanes, count = np.arange(len(kernel)), kernel.shape[1]
    places = np.empty((len(kernel), slate_size), np.int64)
    gain = np.diagonal(kernel, axis1=1, axis2=2).copy()  # d_i^2: by how much item i would multiply the determinant
    first = gain.copy()
    factor = np.zeros((len(kernel), slate_size, count))  # c_i, one column for each item
    left = np.ones(gain.shape, np.bool_)
    for k in range(slate_size):
        rank = np.where(gain > LEAST * first, gain, LEAST * first * 1e-3)
        pick = np.where(left, np.where(usable, rank, -1.0), -np.inf).argmax(1)
        places[:, k] = pick
        left[lanes, pick] = False
        root = np.sqrt(np.maximum(gain[lanes, pick], LEAST * first[lanes, pick]))
        seen = np.einsum("bk,bkm->bm", factor[lanes, :k, pick], factor[:, :k])
        row = (kernel[lanes, pick] - seen) / root[:, None]
        factor[:, k] = row
        gain = gain - np.square(row)
    return places
