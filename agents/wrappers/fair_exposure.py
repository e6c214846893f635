"""Fair exposure: re-ranking that gives providers what they are owed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from types import NoneType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Flags, Floats, Slates
from recsim_llm.agents.wrappers.base import Wrapper
from recsim_llm.agents.wrappers.reranking import Pool, RerankingConfig, Values, best_items, reranked
from recsim_llm.errors import ConfigError, unknown

TARGETS = ("merit", "equal")


@dataclass(frozen=True)
class FairExposureConfig(RerankingConfig):
    """Settings of :class:`FairExposureAgent`.

    Attributes:
        target: What a provider is owed: "merit", a share as its items' relevance; "equal", the same for all
            that have something on the shelf.
        strength: Relevance that one slate's whole exposure of debt outweighs.
    """

    target: str = "merit"
    strength: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(0.0, 1e6, "strength")
        if self.target not in TARGETS:
            raise unknown("target", self.target, TARGETS)


class FairExposureAgent(Wrapper):
    """Gives each provider, over time, the exposure that it is owed.

    Equation: with attention v_k as 1 / log2(k + 1), slots k = 1 to K, of sum 1, and p(i) the provider of item i, the
    debt

        D_p(t + 1) = D_p(t) + share_p(t) - sum over k with p(i_k) = p of v_k

    is what provider p was owed and did not get in this episode so far. Slot by slot, from the first,

        i_k = argmax over i in the pool of  rel(i) + strength D_p(i)

    where the debt already counts this slate's share and the slots before. share is proportional to the relevance of a
    provider's items in the pool, or equal.

    Paper: Biega, Gummadi and Weikum (2018), "Equity of attention", for exposure amortised over a sequence of rankings;
    Singh and Joachims (2018), "Fairness of exposure in rankings", for v_k and for exposure as merit; Morik, Singh, Hong
    and Joachims (2020), "Controlling fairness and bias in dynamic learning-to-rank", for the controller in place of an
    integer programme.

    Origin of the defaults: strength 0.5, a slate's whole exposure owed moves an item by half the range of relevance.
    Deviations: debts are kept for each lane, in ``predict``'s state, so that serving is as fair as learning and users
    served at the same time do not depend on each other; the best items of the provider that is owed most join the pool,
    with relevance 0, as a pool of the best items of all could leave it out for ever.
    """

    name: ClassVar[str] = "fair_exposure"
    Config: ClassVar[type[Config]] = FairExposureConfig
    config: FairExposureConfig

    def setup(self, rng: np.random.Generator) -> None:
        """The inner agent, and who provides what."""
        super().setup(rng)
        names, provider = np.unique(np.asarray(self.env_spec.catalog.provider, np.str_), return_inverse=True)
        self.provider: NDArray[np.int64] = provider.astype(np.int64)
        self.offers = np.zeros((self.env_spec.items, len(names)), np.float32)
        self.offers[np.arange(self.env_spec.items), self.provider] = 1.0
        attention = 1.0 / np.log2(np.arange(self.env_spec.slate_size) + 2.0)
        self.attention: Values = attention / attention.sum()
        inner = NoneType if self.inner.State is None else self.inner.State | None
        state = dataclasses.make_dataclass("Owed", [("inner", inner), ("debt", np.ndarray)], frozen=True)
        vars(self).update(State=state)

    def inner_state(self, state: Any) -> Any:
        """The inner agent's part of the state."""
        return getattr(state, "inner", state)

    def note_shown(self, state: Any, slates: Slates) -> Any:
        """The inner agent notes what is shown; debts stay those of the slates chosen here."""
        return dataclasses.replace(state, inner=self.inner.note_shown(state.inner, slates))

    def act(
        self,
        obs: Floats,
        state: Any,
        episode_start: Flags,
        deterministic: bool,
        action_mask: Flags,
        rng: np.random.Generator,
    ) -> tuple[Slates, Any]:
        """The pool, ranked by relevance and debt."""
        lanes = len(obs)
        debt = np.zeros((lanes, self.offers.shape[1])) if state is None else getattr(state, "debt", np.zeros((0, 0)))
        if debt.shape != (lanes, self.offers.shape[1]):
            raise ConfigError(f"state must be what predict() returned for the same {lanes} lanes, got {type(state)}")
        debt = np.where(episode_start[:, None], 0.0, debt)
        inner = self.inner_state(state)
        pool = best_items(self, self.config.pool, obs, inner, episode_start, deterministic, action_mask, rng)
        present = action_mask.astype(np.float32) @ self.offers > 0.0  # [B, P]
        neediest = np.where(present, debt, -np.inf).argmax(1)
        others = action_mask & (self.provider == neediest[:, None])
        np.put_along_axis(others, pool.items, False, 1)
        named, _, _ = self.ask(obs, inner, episode_start, deterministic, others, rng)
        pool = _joined(pool, named, np.take_along_axis(others, named, 1))
        debt = debt + self._shares(pool, present)
        slates, inner = reranked(self, pool, self._ranked(pool, debt))
        given = np.broadcast_to(self.attention, slates.shape)  # NumPy 2.4 reads beyond what it must broadcast itself
        np.subtract.at(debt, (np.arange(lanes)[:, None], self.provider[slates]), given)
        return slates, self.State(inner, debt)  # type: ignore[misc]

    def _shares(self, pool: Pool, present: Flags) -> Values:
        """Share of this slate's exposure that each provider is owed, [B, P], rows of sum 1."""
        weight = present.astype(np.float64)
        if self.config.target == "merit":
            merit = np.zeros_like(weight)
            lanes = np.arange(len(merit))[:, None]
            np.add.at(merit, (lanes, self.provider[pool.items]), np.where(pool.usable, pool.relevance, 0.0))
            weight = np.where(merit.sum(1, keepdims=True) > 0.0, merit, weight)
        total = weight.sum(1, keepdims=True)
        shares: Values = np.divide(weight, total, out=np.zeros_like(weight), where=total > 0.0)
        return shares

    def _ranked(self, pool: Pool, debt: Values) -> Slates:
        """Places [B, K] in the pool; ``debt`` [B, P] counts this slate's share."""
        lanes, owed = np.arange(len(debt)), debt.copy()
        provider = self.provider[pool.items]
        left = np.ones(pool.items.shape, np.bool_)
        places = np.empty((len(debt), self.env_spec.slate_size), np.int64)
        for k, attention in enumerate(self.attention):
            value = pool.relevance + self.config.strength * np.take_along_axis(owed, provider, 1)
            pick = np.where(left, np.where(pool.usable, value, -1e300), -np.inf).argmax(1)
            places[:, k] = pick
            left[lanes, pick] = False
            owed[lanes, provider[lanes, pick]] -= attention
        return places


def _joined(pool: Pool, named: Slates, usable: Flags) -> Pool:
    """The pool with more items at its end, of relevance 0."""
    return dataclasses.replace(
        pool,
        items=np.concatenate([pool.items, named], 1),
        relevance=np.concatenate([pool.relevance, np.zeros(named.shape)], 1),
        usable=np.concatenate([pool.usable, usable], 1),
    )
