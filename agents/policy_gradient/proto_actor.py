"""What SAC and TD3 have in common: the action is a vector for each slot, in whose place the nearest item is shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.cooldown import RecentItems
from recsim_llm.agents.common.top_k import top_k
from recsim_llm.agents.core.env_runner import Flags, Floats, Slates
from recsim_llm.agents.sb3.off_policy import OffPolicyAgent, OffPolicyConfig
from recsim_llm.errors import unknown

Vectors = NDArray[np.float32]
SIMILARITIES = ("cosine", "inner")
FAR = 1e9
"""How much farther an item is that cannot be shown."""


@dataclass(frozen=True)
class ProtoConfig(OffPolicyConfig):
    """Settings of agents on proto-items.

    Attributes:
        similarity: What near means: a large "cosine", or a large "inner" product.
        tau: Share of the weights that the target networks take over in each update.
    """

    learning_rate: float = 3e-3
    period: int = 64
    updates: int = 1
    batch: int = 128
    similarity: str = "cosine"
    tau: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(0.0, 1.0, "tau")
        if self.similarity not in SIMILARITIES:
            raise unknown("similarity", self.similarity, SIMILARITIES)


class ProtoAgent(OffPolicyAgent):
    """Base of agents whose actor makes K vectors of width D.

    Each slot shows the item nearest to its vector among those on the shelf that need no rest and that no slot before it
    shows.
    """

    Config: ClassVar[type[ProtoConfig]] = ProtoConfig
    config: ProtoConfig

    def setup(self, rng: np.random.Generator) -> None:
        """The encodings, and the algorithm."""
        embedding = np.asarray(self.env_spec.catalog.embedding, np.float32)
        lengths = np.linalg.norm(embedding, axis=1, keepdims=True)
        if self.config.similarity == "inner":
            lengths = np.full_like(lengths, lengths.max())
        self.codes: Vectors = embedding / np.maximum(lengths, 1e-12)  # [I, D], none longer than 1
        super().setup(rng)

    def space(self) -> Any:
        """Box(-1, 1, (K * D,), float32)."""
        from gymnasium import spaces

        return spaces.Box(-1.0, 1.0, (self.env_spec.slate_size * self.codes.shape[1],), np.float32)

    def coded(self, items: Slates) -> Vectors:
        """The vectors [N, K * D] that items [N, K] are."""
        return self.codes[items].reshape(len(items), -1)

    def vectors(self, inputs: Floats, noise: NDArray[np.float32] | None) -> Vectors:
        """What the actor wants to show, [B, K, D].

        Args:
            inputs: [B, P + T + 1].
            noise: [B, K, D] standard normal numbers to explore with; None for none.
        """
        flat: Vectors = self.model.policy.vectors(inputs, None if noise is None else noise.reshape(len(inputs), -1))
        return flat.reshape(len(inputs), self.env_spec.slate_size, -1)

    def noise(self, lanes: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """Standard normal numbers [B, K, D]."""
        return rng.standard_normal((lanes, self.env_spec.slate_size, self.codes.shape[1]), np.float32)

    def tried(self) -> Slates:
        """The items nearest to the actor's vectors with noise."""
        return nearest(self.vectors(self.now()[0], self.noise(self.runner.count, self.rng)), self.codes, self.open())

    def scores(self, obs: Floats, memory: RecentItems, action_mask: Flags) -> NDArray[np.float64]:
        """Nearness of items to the nearest of the actor's vectors, [B, I]."""
        closeness = self.vectors(self.inputs(obs, memory, action_mask), None) @ self.codes.T
        scores: NDArray[np.float64] = closeness.max(1).astype(np.float64)
        return scores

    def served(
        self, obs: Floats, state: Any, episode_start: Flags, action_mask: Flags, noise: NDArray[np.float32] | None
    ) -> tuple[Slates, Any]:
        """The items nearest to the actor's vectors, and the memory of them."""
        memory = self.cooldown.recall(obs, state, episode_start)
        vectors = self.vectors(self.inputs(obs, memory, action_mask), noise)
        slates = nearest(vectors, self.codes, self.cooldown.eligible(memory, action_mask))
        return slates, memory.noting(slates)


def nearest(vectors: Vectors, codes: Vectors, action_mask: Flags) -> Slates:
    """The item nearest to each vector by inner product, for one slot after another, none twice, [B, K].

    Args:
        vectors: [B, K, D].
        codes: [I, D].
        action_mask: [B, I]; where fewer than K items are, the nearest of the others fill up.
    """
    lanes, slate_size, _ = vectors.shape
    scores = (vectors.reshape(lanes * slate_size, -1) @ codes.T).reshape(lanes, slate_size, -1).astype(np.float64)
    free = np.ones_like(action_mask)
    far = np.where(action_mask, 0.0, -FAR)
    slates = np.empty((lanes, slate_size), np.int64)
    for slot in range(slate_size):
        slates[:, slot] = top_k(scores[:, slot] + far, free, 1)[:, 0]
        free[np.arange(lanes), slates[:, slot]] = False
    return slates
