"""Softmax exploration around any agent: a Plackett-Luce model over its best items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.top_k import top_k
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Flags, Floats, Slates
from recsim_llm.agents.wrappers.base import Wrapper
from recsim_llm.agents.wrappers.reranking import RerankingConfig, Values, best_items


@dataclass(frozen=True)
class ExploreSoftmaxConfig(RerankingConfig):
    """Settings of :class:`ExploreSoftmaxAgent`.

    Attributes:
        temperature: Difference of relevance, whose range is [0, 1], that makes an item e times as likely.
    """

    temperature: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(1e-3, 1e6, "temperature")


class ExploreSoftmaxAgent(Wrapper):
    """Draws the slate from the inner agent's best items, better ones more often.

    Equation: over the pool R without the slots before,

        P(i_k = i) = exp(rel(i) / temperature) / sum over j in R of exp(rel(j) / temperature)

    which is Plackett and Luce's model; rel is the inner agent's score scaled to [0, 1] over the pool, or where it has
    none 1 - rank / M. Drawn as the K largest of rel / temperature plus Gumbel noise.

    Paper: Plackett (1975), "The analysis of permutations"; Luce (1959), "Individual choice behavior"; as a logging
    policy for slates: Swaminathan et al. (2017), "Off-policy evaluation for slate recommendation".

    Origin of the defaults: with temperature 0.2 the last of 20 items is 1 / e^5 as likely as the first. Deviations:
    items outside the pool are never shown, so off-policy estimates speak of policies within it; ``pool`` widens it.
    """

    name: ClassVar[str] = "explore_softmax"
    Config: ClassVar[type[Config]] = ExploreSoftmaxConfig
    config: ExploreSoftmaxConfig

    def act(
        self,
        obs: Floats,
        state: Any,
        episode_start: Flags,
        deterministic: bool,
        action_mask: Flags,
        rng: np.random.Generator,
    ) -> tuple[Slates, Any]:
        """A draw, or with ``deterministic`` the inner agent's own choice."""
        if deterministic:
            return super().act(obs, state, episode_start, True, action_mask, rng)
        pool = best_items(self, self.config.pool, obs, state, episode_start, True, action_mask, rng)
        logits = np.where(pool.usable, pool.relevance / self.config.temperature, -np.inf)
        places = top_k(logits + rng.gumbel(size=logits.shape), pool.usable, self.env_spec.slate_size)
        slates = pool.slates_at(places)
        drawn = np.count_nonzero(pool.usable, axis=1) >= self.env_spec.slate_size
        self.propensity = np.where(drawn[:, None], plackett_luce_propensity(logits, places), 1.0)
        if not pool.certain:
            self.propensity = np.full(slates.shape, np.nan)
        return slates, self.note_shown(pool.state, slates)

    def relevance(
        self, obs: Floats, state: Any, episode_start: Flags, action_mask: Flags
    ) -> NDArray[np.floating] | None:
        """The inner agent's."""
        return self.scores(obs, state, episode_start, action_mask)


def plackett_luce_propensity(logits: Values, places: Slates) -> Values:
    """Probability of each place [B, K] given those before it, under Plackett and Luce's model.

    Args:
        logits: [B, M], -inf for what is never drawn.
        places: [B, K] what was drawn, in order.
    """
    top = logits.max(1, keepdims=True)
    weight = np.exp(logits - np.where(np.isfinite(top), top, 0.0))
    chances = np.empty(places.shape)
    lanes = np.arange(len(places))
    for k in range(places.shape[1]):
        total = weight.sum(1)
        chosen = weight[lanes, places[:, k]]
        chances[:, k] = np.divide(chosen, total, out=np.ones_like(total), where=total > 0.0)
        weight[lanes, places[:, k]] = 0.0
    return chances
