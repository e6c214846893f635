"""Re-ranking: the best M items of an agent, and a slate chosen among them.

Any agent gives its best M: it is asked again and again, with what it named already taken off the shelf.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.top_k import top_k
from recsim_llm.agents.core.env_runner import Flags, Floats, Slates, normalised
from recsim_llm.agents.wrappers.base import Wrapper, WrapperConfig

Values = NDArray[np.float64]


@dataclass(frozen=True)
class RerankingConfig(WrapperConfig):
    """Settings of wrappers that choose a slate from a pool.

    Attributes:
        pool: Items of the inner agent to choose from, M.
    """

    pool: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(1, 10_000, "pool")


@dataclass(frozen=True)
class Pool:
    """The best M items of the inner agent for B lanes.

    Attributes:
        slates: [B, K] what it would have shown.
        items: [B, M], the best first, none twice.
        relevance: [B, M] in [0, 1]: its scores, the range over the pool made [0, 1], or where it has none 1 - rank / M.
        usable: [B, M] items that may be shown.
        state: Its state after it was asked.
        certain: Whether it chose without chance.
    """

    slates: Slates
    items: Slates
    relevance: Values
    usable: Flags
    state: Any
    certain: bool

    def slates_at(self, places: Slates) -> Slates:
        """Items [B, K] at places [B, K]; the inner agent's own slate in lanes with fewer than K usable items."""
        enough = np.count_nonzero(self.usable, axis=1) >= places.shape[1]
        slates: Slates = np.where(enough[:, None], np.take_along_axis(self.items, places, 1), self.slates)
        return slates


def best_items(
    wrapper: Wrapper,
    size: int,
    obs: Floats,
    state: Any,
    episode_start: Flags,
    deterministic: bool,
    action_mask: Flags,
    rng: np.random.Generator,
) -> Pool:
    """The best M items of a wrapper's inner agent.

    They come from its scores where it has them and does not explore, else from its slates.

    Args:
        wrapper: The wrapper.
        size: M; at least K are given.
        obs: As for :meth:`~recsim_llm.agents.core.base.Agent.act`, as what follows.
        state: The inner agent's.
        episode_start: [B].
        deterministic: Whether the inner agent leaves exploration out.
        action_mask: [B, I].
        rng: Where to draw from.
    """
    slate_size = wrapper.env_spec.slate_size
    size = min(max(size, slate_size), wrapper.env_spec.items)
    slates, after, chances = wrapper.ask(obs, state, episode_start, deterministic, action_mask, rng)
    certain = bool((chances == 1.0).all())
    scores = wrapper.scores(obs, state, episode_start, action_mask) if deterministic or certain else None
    if scores is not None:
        usable = wrapper.usable(after, action_mask)
        items = top_k(scores, usable, size)
        good = np.take_along_axis(usable, items, 1)
        relevance = _scaled(np.take_along_axis(np.asarray(scores, np.float64), items, 1), good)
        return Pool(slates, items, relevance, good, after, certain)
    left = np.array(action_mask, np.bool_)
    batches = [slates]
    fresh = [np.take_along_axis(left, slates, 1)]
    for _ in range(slate_size, size, slate_size):
        np.put_along_axis(left, batches[-1], False, 1)
        named, _, chances = wrapper.ask(obs, state, episode_start, deterministic, left, rng)
        certain = certain and bool((chances == 1.0).all())
        batches.append(named)
        fresh.append(np.take_along_axis(left, named, 1))  # what fills up where nothing is left was named before
    listed = np.concatenate(batches, 1)[:, :size]
    ranks = np.broadcast_to(1.0 - np.arange(size) / size, listed.shape)
    return Pool(slates, listed, ranks, np.concatenate(fresh, 1)[:, :size], after, certain)


def reranked(wrapper: Wrapper, pool: Pool, places: Slates) -> tuple[Slates, Any]:
    """The slates [B, K] at places of a pool, and the state of the inner agent that notes them.

    The wrapper's propensity becomes NaN where the pool came about by chance.
    """
    slates = pool.slates_at(places)
    if not pool.certain:
        wrapper.propensity = np.full(slates.shape, np.nan)
    return slates, wrapper.inner.note_shown(pool.state, slates)


def unit_rows(embedding: Floats) -> Floats:
    """Encodings of length 1, [I, D]; zeros stay zeros."""
    units: Floats = normalised(embedding.astype(np.float64)).astype(np.float32)
    return units


def _scaled(values: Values, usable: Flags) -> Values:
    """Values [B, M] with the range of the usable ones made [0, 1]; 1 where they are all the same."""
    low = np.where(usable, values, np.inf).min(1, keepdims=True)
    high = np.where(usable, values, -np.inf).max(1, keepdims=True)
    span = np.where(high > low, high - low, 1.0)
    scaled: Values = np.where(usable & (high > low), (values - low) / span, np.where(usable, 1.0, 0.0))
    return scaled
