"""A causal language model that puts a short-list in order, zero-shot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.top_k import top_k
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Flags, Floats, Slates
from recsim_llm.agents.llm.embedding_ranker import EmbeddingRankerAgent, EmbeddingRankerConfig
from recsim_llm.agents.llm.llm_scores import Scorer, scorer
from recsim_llm.agents.llm.texts import profile_text
from recsim_llm.errors import ConfigError


@dataclass(frozen=True)
class LLMRankerConfig(EmbeddingRankerConfig):
    """Settings of :class:`LLMRankerAgent`.

    Attributes:
        model: "hashing" (no model: words in common), "smollm2", a folder or Hugging Face id of a causal language model,
            or the address of a server, see :func:`recsim_llm.judges.load_judge`.
        by: "likelihood" of the title after the profile, or "rating", what the model as a judge gives; "hashing" and
            servers rate whatever is set.
        pool: M, items of the short-list.
        weight: Weight of the model's scores against the cosine, both in standard deviations over the short-list.
    """

    packaged: ClassVar[Mapping[str, tuple[str, ...]]] = {"model": ("hashing", "smollm2")}

    model: str = "hashing"
    by: str = "likelihood"
    pool: int = 10
    weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(1, 1_000, "pool")
        self._within(0.0, 1e6, "weight")
        if self.by not in ("likelihood", "rating"):
            raise ConfigError(f"setting by must be likelihood or rating, got {self.by!r}")
        if not self.model:
            raise ConfigError("setting model is empty; name a model, or 'hashing' for none")


class LLMRankerAgent(EmbeddingRankerAgent):
    """Lets a causal language model put the short-list of the embedding ranker in order, zero-shot.

    Equation: the short-list S(u) holds the M items of highest cosine (agent embedding_ranker). The user in words, h(u),
    names titles and themes that she took and titles that she left in this episode, and with L the mean logarithm of the
    probability of a title's tokens,

        score_i = z(cos_i) + weight z(L(title_i | h(u)) - L(title_i | nobody)),  i in S(u)

    with z the standard score over the short-list; what any title has by itself is taken off (the second L). Before the
    first click there are no words, and the order is that of the cosine.

    Paper: Hou et al. (2024), "Large language models are zero-shot rankers for recommender systems" (arXiv:2305.08845);
    the correction for what is probable anyway is that of Holtzman et al. (2021), "Surface form competition".

    Safety: texts come to the model as data, see :mod:`recsim_llm.judges.prompts`; the model says nothing, it only gives
    numbers to the items of the short-list, so no text can have another item shown.

    Origin of the defaults: not tuned. "hashing" needs no model, so that the agent works anywhere; a language model is a
    setting. Deviations: likelihoods of titles in place of a ranking that the model writes and that may be none.

    Speed: with "hashing" 2,100 user-steps/s, with "smollm2" and a pool of 5 about 0.3 (News-v0, one thread of a busy
    machine; answers are remembered). So the benchmark's standard study leaves this agent out.
    """

    name: ClassVar[str] = "llm_ranker"
    Config: ClassVar[type[Config]] = LLMRankerConfig
    config: LLMRankerConfig

    def setup(self, rng: np.random.Generator) -> None:
        """The model is loaded when it is first asked."""
        super().setup(rng)
        self._scorer: Scorer | None = None

    def act(
        self,
        obs: Floats,
        state: Any,
        episode_start: Flags,
        deterministic: bool,
        action_mask: Flags,
        rng: np.random.Generator,
    ) -> tuple[Slates, Any]:
        """The best of each short-list."""
        memory = self.cooldown.recall(obs, state, episode_start)
        slate_size, usable = self.env_spec.slate_size, self.cooldown.eligible(memory, action_mask)
        cosines = self.scores(obs)
        listed = top_k(cosines, usable, min(max(self.config.pool, slate_size), self.env_spec.items))
        good = np.take_along_axis(usable, listed, 1)
        values = np.take_along_axis(cosines, listed, 1)
        for lane in range(len(obs) if self.config.weight > 0 else 0):
            few = listed[lane, good[lane]]
            text = profile_text(memory, lane, self.env_spec.catalog) if len(few) > 1 else ""
            if text:
                said = self._asked().scores(text, tuple(sorted(few.tolist())))
                model = np.array([said[item] for item in few.tolist()])
                values[lane, good[lane]] = _standard(values[lane, good[lane]]) + self.config.weight * _standard(model)
        values = np.where(good, values, -np.inf)
        order = np.argsort(-values, axis=1, kind="stable")[:, :slate_size]
        slates = np.take_along_axis(listed, order, 1)
        return slates, memory.noting(slates)

    def relevance(
        self, obs: Floats, state: Any, episode_start: Flags, action_mask: Flags
    ) -> NDArray[np.floating] | None:
        """None: the model gives numbers to short-lists alone."""
        return None

    def _asked(self) -> Scorer:
        if self._scorer is None:
            self._scorer = scorer(self.config.model, self.config.by, self.env_spec.catalog)
        return self._scorer


def _standard(values: NDArray[np.float64]) -> NDArray[np.float64]:
    spread = float(values.std())
    return (values - values.mean()) / spread if spread > 1e-9 else np.zeros_like(values)
