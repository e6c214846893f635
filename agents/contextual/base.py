"""Contextual bandits on features of user and item, and the ridge regression that most of them learn by."""

from __future__ import annotations

import abc
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.cooldown import CooldownConfig, RecentItems
from recsim_llm.agents.common.features import Features, Situation
from recsim_llm.agents.common.item_stats import ItemCounts, credited, seen_slots
from recsim_llm.agents.common.top_k import top_k
from recsim_llm.agents.core.base import Agent
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Flags, Floats, Slates, Transition
from recsim_llm.errors import ConfigError

Floats64 = NDArray[np.float64]


@dataclass(frozen=True)
class ContextualConfig(CooldownConfig):
    """Settings of :class:`ContextualAgent`.

    Attributes:
        width: Principal components of the encodings in the elementwise products.
        strength: Looks by which an item's mean reward, one of the features, is drawn towards the mean of all.
        ridge: Precision of the prior of each weight.
    """

    width: int = 16
    strength: float = 10.0
    ridge: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(1, 256, "width")
        self._within(1e-9, 1e9, "strength", "ridge")


@dataclass(frozen=True)
class ContextualState:
    """State between two calls of ``predict``: the memory, and what else the last decision was made from.

    Attributes:
        memory: Looks and clicks.
        newest: [B] [day] release of the newest item on the shelf.
    """

    memory: RecentItems
    newest: Floats

    def noting(self, slates: Slates) -> Self:
        """With a new slate [B, K] shown."""
        return replace(self, memory=self.memory.noting(slates))


@dataclass(frozen=True)
class Seen:
    """N slots that users looked at.

    Attributes:
        phi: [N, d] features.
        reward: [N] what each gained.
        item: [N].
        lane: [N].
        slot: [N].
    """

    phi: Floats
    reward: Floats
    item: Slates
    lane: Slates
    slot: Slates


class LinearModel(Protocol):
    """A model that is linear in the features."""

    @property
    def theta(self) -> Floats:
        """The weights [d]."""

    def add(self, phi: Floats, target: NDArray[Any], /) -> None:
        """Learns from rows phi [N, d] and what came of them [N]."""

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything learnt, by name."""


class ContextualAgent(Agent):
    """Contextual bandit: items are scored by :class:`~recsim_llm.agents.common.features.Features` of user and item.

    Subclasses write :meth:`act` and :meth:`prior`, the model of what slots gain.

    Attributes:
        model: Weights of the features, learnt from the slots that were looked at.
    """

    Config: ClassVar[type[Config]] = ContextualConfig
    State: ClassVar[type | None] = ContextualState
    config: ContextualConfig
    model: LinearModel

    def setup(self, rng: np.random.Generator) -> None:
        """Features; nothing is counted or learnt."""
        self.features = Features(self.env_spec, self.config.width)
        self.counts = ItemCounts(self.env_spec.items)
        self.model = self.prior()

    def situate(self, obs: Floats, state: Any, episode_start: Flags, action_mask: Flags) -> tuple[Situation, Flags]:
        """The users at the moment of a decision, and what they can be shown [B, I]."""
        if isinstance(state, ContextualState):
            if state.newest.shape != episode_start.shape:
                raise ConfigError(f"state is of {len(state.newest)} lanes, the observation of {len(episode_start)}")
            state = state.memory
        memory = self.cooldown.recall(obs, state, episode_start)
        return self.situation(obs, ContextualState(memory, self.features.newest(action_mask))), self.cooldown.eligible(
            memory, action_mask
        )

    def situation(self, obs: Floats, recall: ContextualState) -> Situation:
        """The users of observations [B, P] with what is remembered of them."""
        env_spec = self.env_spec
        rate = (self.counts.rate(self.config.strength) - self.counts.mean()).astype(np.float32)
        profile, interest, context = (env_spec.part(name, obs) for name in ("profile", "interest", "context"))
        return Situation(profile, interest, context, recall.memory, recall.newest, rate)

    def after(self, situation: Situation, slates: Slates) -> ContextualState:
        """The state to hand on once slates [B, K] were chosen."""
        return ContextualState(situation.memory.noting(slates), situation.newest)

    def listed(
        self, situation: Situation, theta: Floats | None, action_mask: Flags, count: int, rng: np.random.Generator
    ) -> tuple[Slates, Floats]:
        """The items of highest estimate and the estimates, [B, count] each; random ones if theta is None.

        Where fewer are allowed, others fill up, of estimate -inf.
        """
        count = min(max(count, self.env_spec.slate_size), self.env_spec.items)
        if theta is None:  # nothing is known, all are equal
            listed = top_k(rng.random(action_mask.shape, np.float32), action_mask, count)
            return listed, np.where(np.take_along_axis(action_mask, listed, 1), np.float32(0.0), np.float32(-np.inf))
        return self.features.top(situation, theta, action_mask, count)

    def highest_bounds(
        self, model: RidgeRegression, situation: Situation, action_mask: Flags, alpha: float, shortlist: int,
        rng: np.random.Generator,
    ) -> Slates:  # fmt: skip
        """The K items [B, K] of highest upper confidence bound theta . phi + alpha sqrt(phi^T A^-1 phi).

        Args:
            model: Theta and A.
            situation: The users.
            action_mask: [B, I].
            alpha: Weight of the confidence width.
            shortlist: Items of highest estimate, beyond the K of a slate, for which the width is computed too.
            rng: Where random items come from while nothing is known.
        """
        slate_size = self.env_spec.slate_size
        if alpha == 0.0:
            return self.features.top(situation, model.theta, action_mask, slate_size)[0]
        theta = model.theta if model.known else None
        listed, estimates = self.listed(situation, theta, action_mask, slate_size + shortlist, rng)
        widths = model.widths(self.features.of(situation, listed).reshape(-1, self.features.count))
        bounds = estimates + np.float32(alpha) * widths.reshape(listed.shape)
        picked = np.argsort(-bounds, axis=1, kind="stable")[:, :slate_size]
        return np.take_along_axis(listed, picked, 1)

    def seen(self, transition: Transition) -> Seen:
        """The slots to learn from. What is remembered is taken from the transition's state, or is nothing."""
        shown, seen = seen_slots(transition)
        state, obs = transition.state, transition.observation
        if not isinstance(state, ContextualState):
            newest = np.full(len(obs), self.features.released.max(), np.float32)
            state = ContextualState(RecentItems.empty(len(obs), self.env_spec), newest)
        lane, slot = np.nonzero(seen)
        item = shown[seen]
        phi = self.features.rows(self.situation(obs, state), lane, item, slot)
        return Seen(phi, credited(transition)[seen].astype(np.float32), item, lane, slot)

    @abc.abstractmethod
    def prior(self) -> LinearModel:
        """The model before anything is learnt."""

    def relevance(self, obs: Floats, state: Any, episode_start: Flags, action_mask: Flags) -> Floats:
        """The estimates theta . phi, less what is the same for all items."""
        situation, _ = self.situate(obs, state, episode_start, action_mask)
        return self.features.scores(situation, self.model.theta)

    def update(self, transition: Transition) -> None:
        """Adds the slots that were looked at; now and then computes theta again."""
        seen = self.seen(transition)
        self.model.add(seen.phi, seen.reward)
        self.counts.add(transition, credited(transition))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The model and counts."""
        return {**self.model.arrays(), **self.counts.arrays()}


class RidgeRegression:
    """A = ridge I + sum phi phi^T and b = sum r phi, with theta = A^-1 b computed now and then.

    Sums are float64; products of the rows of one step and what is solved for serve as float32.

    Args:
        count: d, length of phi.
        ridge: Precision of the prior of theta.
        growth: Share by which the rows must have grown before theta is computed again; 0 computes it at every step.

    Attributes:
        gram: A [d, d].
        moment: b [d].
        theta: [d].
        root: L^-1 [d, d] with A = L L^T, so that A^-1 = root^T root.
        samples: [2] rows added; rows when theta was computed.
    """

    def __init__(self, count: int, ridge: float, growth: float) -> None:
        self.growth = growth
        self.gram: Floats64 = ridge * np.eye(count)
        self.moment: Floats64 = np.zeros(count)
        self.theta: Floats = np.zeros(count, np.float32)
        self.root: Floats = (np.eye(count) / np.sqrt(ridge)).astype(np.float32)
        self.samples: Floats64 = np.zeros(2)

    @property
    def known(self) -> bool:
        """Whether anything was learnt yet."""
        return bool(self.samples[1] > 0.0)

    def add(self, phi: Floats, reward: Floats) -> None:
        """Adds rows phi [N, d] with their rewards [N]; computes theta if it is time."""
        self.gram += phi.T @ phi
        self.moment += reward @ phi
        self.samples[0] += len(phi)
        if self.samples[0] > self.samples[1] * (1.0 + self.growth):
            self.solve()

    def solve(self) -> None:
        """Computes theta and the root."""
        inverse = np.linalg.inv(np.linalg.cholesky(self.gram))
        self.root[...] = inverse
        self.theta[...] = inverse.T @ (inverse @ self.moment)
        self.samples[1] = self.samples[0]

    def widths(self, phi: Floats) -> Floats:
        """sqrt(phi^T A^-1 phi) of rows [N, d], [N]."""
        half = len(self.root) // 2  # the root is a lower triangle: rows above have nothing in the columns beyond
        squares: Floats = np.zeros(len(phi), np.float32)
        for columns, rows in ((phi[:, :half], self.root[:half, :half]), (phi, self.root[half:])):
            turned = columns @ rows.T
            squares += np.einsum("nd,nd->n", turned, turned)
        return np.sqrt(squares, out=squares)

    def draws(self, count: int, scale: float | Floats64, rng: np.random.Generator) -> Floats:
        """Parameters [count, d] drawn from N(theta, scale^2 A^-1), with one ``scale`` or one for each draw."""
        noise = rng.standard_normal((count, len(self.theta)), np.float32)
        wide = np.broadcast_to(np.asarray(scale, np.float32), (count,))
        return self.theta + wide[:, None] * (noise @ self.root)

    def fade(self, left: float, ridge: float) -> None:
        """Leaves a share of all rows; the prior stays whole."""
        self.gram *= left
        self.gram[np.diag_indices_from(self.gram)] += (1.0 - left) * ridge
        self.moment *= left
        self.samples *= left

    def reset(self, ridge: float) -> None:
        """Forgets all rows."""
        self.gram[...] = ridge * np.eye(len(self.gram))
        self.moment[...] = 0.0
        self.samples[...] = 0.0

    def arrays(self) -> dict[str, NDArray[np.floating]]:
        """Sums and what was solved for, by name."""
        return {
            "gram": self.gram, "moment": self.moment, "theta": self.theta, "root": self.root, "samples": self.samples,
        }  # fmt: skip
