"""A language model's encodings as a recommender, zero-shot: no log, no training, no model at serving."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.cooldown import CooldownConfig, RecentItems
from recsim_llm.agents.common.top_k import top_k
from recsim_llm.agents.core.base import Agent
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import EnvironmentSpec, Flags, Floats, Slates, normalised

Scores = NDArray[np.float64]
DIGITS = 6
"""Scores are rounded so that sums in another order, as in another batch, rank alike."""


@dataclass(frozen=True)
class EmbeddingRankerConfig(CooldownConfig):
    """Settings of :class:`EmbeddingRankerAgent`.

    Attributes:
        profile: Weight of the persona in the query beside a recent interest, 0 to 1; without interest it is all.
    """

    profile: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(0.0, 1.0, "profile")


class EmbeddingRankerAgent(Agent):
    """Ranks items by the cosine of their encoding with what a user says about herself and took lately, zero-shot.

    Equation: score_i = cos(q, x_i), q = (1 - profile) z / |z| + profile p / |p|, with z the recent interest and p the
    encoding of the persona as the observation has them; the one that is there where the other is not. Nothing is
    learnt: what it knows of items is what the text encoder made of their texts.

    Paper: Reimers and Gurevych (2019), "Sentence-BERT", for retrieval by encodings; used zero-shot for recommendation
    by Hou et al. (2024), "Large language models are zero-shot rankers for recommender systems".

    Origin of the defaults: persona and behaviour count alike; not tuned. Deviations from the agent nearest: no
    popularity, no log; where nothing is known of a user the order is that of the catalogue. What was just shown rests.
    """

    State: ClassVar[type | None] = RecentItems
    name: ClassVar[str] = "embedding_ranker"
    Config: ClassVar[type[Config]] = EmbeddingRankerConfig
    learns: ClassVar[bool] = False
    config: EmbeddingRankerConfig

    @classmethod
    def refusal(cls, env_spec: EnvironmentSpec, config: Any) -> str | None:
        """What it knows, it knows from texts."""
        if not any(text.strip() for text in env_spec.catalog.text):
            return f"{cls.name} reads texts and this catalogue has none; use nearest, which learns from clicks"
        return None

    def setup(self, rng: np.random.Generator) -> None:
        """Encodings of length one."""
        self._units = normalised(self.env_spec.catalog.embedding.astype(np.float64))

    def act(
        self,
        obs: Floats,
        state: Any,
        episode_start: Flags,
        deterministic: bool,
        action_mask: Flags,
        rng: np.random.Generator,
    ) -> tuple[Slates, Any]:
        """The nearest first."""
        memory = self.cooldown.recall(obs, state, episode_start)
        slates = top_k(self.scores(obs), self.cooldown.eligible(memory, action_mask), self.env_spec.slate_size)
        return slates, memory.noting(slates)

    def scores(self, obs: Floats) -> Scores:
        """Cosines [B, I]."""
        interest, profile = (
            normalised(self.env_spec.part(name, obs).astype(np.float64)) for name in ("interest", "profile")
        )
        share = np.where(interest.any(1, keepdims=True), self.config.profile, 1.0)
        share = np.where(profile.any(1, keepdims=True), share, 0.0)
        query = normalised((1.0 - share) * interest + share * profile)
        return np.round(query @ self._units.T, DIGITS)

    def relevance(
        self, obs: Floats, state: Any, episode_start: Flags, action_mask: Flags
    ) -> NDArray[np.floating] | None:
        """The same cosines."""
        return self.scores(obs)
