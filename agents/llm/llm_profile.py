"""A profile in words for each user, kept up to date from what she does and read by a text encoder."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.cooldown import RecentItems
from recsim_llm.agents.common.top_k import top_k
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Flags, Floats, Slates, normalised
from recsim_llm.agents.llm.embedding_ranker import DIGITS, EmbeddingRankerAgent, EmbeddingRankerConfig
from recsim_llm.agents.llm.texts import profile_text
from recsim_llm.encoders import DEFAULT_ENCODER, Encoder, encode_cached, load_text_encoder
from recsim_llm.errors import ConfigError

Scores = NDArray[np.float64]
FORMS = ("statements", "paragraph")
KEPT = 4_096
"""Encodings of paragraphs that are remembered."""


@dataclass(frozen=True)
class LLMProfileConfig(EmbeddingRankerConfig):
    """Settings of :class:`LLMProfileAgent`.

    Attributes:
        model: Text encoder: "hashing" (no model), "all-MiniLM-L6-v2", a folder or Hugging Face id.
        form: How the profile is read: "statements", each with its valence, or "paragraph", the whole text at once.
        likes: Valence of a title that was taken.
        dislikes: Minus the valence of a title that was looked at and left.
        themes: Valence of a title's theme as a part of that of the title.
        persona: Weight of the cosine with persona and recent interest, as the agent embedding_ranker has it.
    """

    packaged: ClassVar[Mapping[str, tuple[str, ...]]] = {"model": ("hashing", DEFAULT_ENCODER)}

    model: str = "hashing"
    form: str = "statements"
    likes: float = 1.0
    dislikes: float = 0.1
    themes: float = 1.0
    persona: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(0.0, 100.0, "likes", "dislikes", "themes", "persona")
        if self.form not in FORMS:
            raise ConfigError(f"setting form must be one of {', '.join(FORMS)}, got {self.form!r}")
        if not self.model:
            raise ConfigError("setting model is empty; name a text encoder, or 'hashing' for none")


class LLMProfileAgent(EmbeddingRankerAgent):
    """Keeps a profile of each user in words, has a text encoder read it, and ranks items by what it reads.

    Equation: the profile says which titles were taken and which were looked at and left in this episode, and their
    themes, each a statement s with a valence v_s (that of a title times what is left of it in memory). With t(.) the
    encoder's output, less its mean over the catalogue's titles,

        p = sum_s v_s t(s),   score_i = cos(p, t(title_i)) + persona cos(q, x_i)

    and q the query of the agent embedding_ranker. With ``form`` "paragraph" p = t(the profile as one text).

    Paper: Zhou et al. (2024), "Language-based user profiles for recommendation" (arXiv:2402.15623), for a profile in
    words that is kept up to date.

    Origin of the defaults: not tuned; "hashing" needs no model, so that the agent works anywhere. A left title says
    little, since most that is left would be taken at another time. Deviations: (1) statements are encoded one by one
    with their valences, because sentence encoders do not hear negation; the titles' encodings come from the cache on
    disk, so nothing is encoded while it serves; (2) the profile is composed of titles and themes, no model phrases it.

    Speed: 6,900 user-steps/s with statements by all-MiniLM-L6-v2 (64 users of News-v0, one thread of a busy machine);
    with "paragraph" the encoder reads each new profile while it serves, which is far slower.
    """

    name: ClassVar[str] = "llm_profile"
    Config: ClassVar[type[Config]] = LLMProfileConfig
    config: LLMProfileConfig

    def setup(self, rng: np.random.Generator) -> None:
        """Encodes titles and themes, or finds them in the cache."""
        super().setup(rng)
        catalog = self.env_spec.catalog
        self._encoder = text_encoder(self.config.model)
        encoded = encode_cached(self._encoder, [*catalog.title, *catalog.topics]).astype(np.float64)
        self._mean = encoded[: len(catalog)].mean(0)
        titles, themes = encoded[: len(catalog)] - self._mean, encoded[len(catalog) :] - self._mean
        self._titles = normalised(titles)
        self._said = titles + self.config.themes * themes[catalog.topic]  # [I, E], what a title and its theme add
        self._read = functools.lru_cache(KEPT)(self._reading)

    def act(
        self,
        obs: Floats,
        state: Any,
        episode_start: Flags,
        deterministic: bool,
        action_mask: Flags,
        rng: np.random.Generator,
    ) -> tuple[Slates, Any]:
        """What the profile reads like."""
        memory = self.cooldown.recall(obs, state, episode_start)
        slates = top_k(self._scores(obs, memory), self.cooldown.eligible(memory, action_mask), self.env_spec.slate_size)
        return slates, memory.noting(slates)

    def relevance(
        self, obs: Floats, state: Any, episode_start: Flags, action_mask: Flags
    ) -> NDArray[np.floating] | None:
        """The same scores."""
        return self._scores(obs, self.cooldown.recall(obs, state, episode_start))

    def profiles(self, state: RecentItems) -> list[str]:
        """The profiles of the lanes of a state that ``predict`` returned, in words; empty where nothing was taken."""
        return [profile_text(state, lane, self.env_spec.catalog) for lane in range(len(state.item))]

    def _scores(self, obs: Floats, memory: RecentItems) -> Scores:
        said = self._statements(memory) if self.config.form == "statements" else self._paragraphs(memory)
        scores = normalised(said) @ self._titles.T + self.config.persona * self.scores(obs)
        return np.round(scores, DIGITS)

    def _statements(self, memory: RecentItems) -> Scores:
        """Sums of statements times valences [B, E]."""
        valence = np.where(memory.takes > 0, self.config.likes * memory.takes, -self.config.dislikes * memory.looks)
        weights = np.zeros((len(memory.item), self.env_spec.items))
        lanes, places = np.nonzero(memory.item >= 0)
        weights[lanes, memory.item[lanes, places]] = valence[lanes, places]
        total: Scores = weights @ self._said
        return total

    def _paragraphs(self, memory: RecentItems) -> Scores:
        """Encodings of whole profiles [B, E]; zeros for empty ones."""
        texts = self.profiles(memory)
        return np.stack([self._read(text) if text else np.zeros_like(self._mean) for text in texts])

    def _reading(self, text: str) -> Scores:
        """One text at a time: the same encoding whoever is served beside."""
        read: Scores = self._encoder.encode([text])[0].astype(np.float64) - self._mean
        return read


@functools.lru_cache(maxsize=4)
def text_encoder(name: str) -> Encoder:
    """A text encoder, loaded once."""
    return load_text_encoder(name)
