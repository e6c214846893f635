"""What agents share that score items by a linear model of features of user and item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.cooldown import CooldownConfig, RecentItems
from recsim_llm.agents.common.features import Features, Situation
from recsim_llm.agents.common.item_stats import ItemCounts, credited, seen_slots
from recsim_llm.agents.common.ridge_regression import RidgeRegression
from recsim_llm.agents.common.sampling import uniform_slates
from recsim_llm.agents.core.base import Agent
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Flags, Floats, Slates, Transition
from recsim_llm.errors import ConfigError


@dataclass(frozen=True)
class ContextualConfig(CooldownConfig):
    """Settings of agents on features.

    Attributes:
        width: Principal components of the encodings in the elementwise products.
        strength: Looks by which an item's mean reward, one of the features, is drawn towards the mean of all.
    """

    width: int = 16
    strength: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(1, 256, "width")
        self._within(1e-9, 1e9, "strength")


@dataclass(frozen=True)
class Recall:
    """State between two calls of ``predict``: the memory, and what else the last decision was made from.

    Attributes:
        memory: Looks and clicks.
        newest: [B] [day] release of the newest item on the shelf.
    """

    memory: RecentItems
    newest: Floats


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


class ContextualAgent(Agent):
    """Base of agents on :class:`~recsim_llm.agents.common.features.Features`."""

    Config: ClassVar[type[Config]] = ContextualConfig
    State: ClassVar[type | None] = Recall
    config: ContextualConfig

    def setup(self, rng: np.random.Generator) -> None:
        """Features; counts at zero."""
        self.features = Features(self.env_spec, self.config.width)
        self.counts = ItemCounts(self.env_spec.items)

    def situate(self, obs: Floats, state: Any, episode_start: Flags, action_mask: Flags) -> tuple[Situation, Flags]:
        """The users at the moment of a decision, and what they can be shown [B, I]."""
        if isinstance(state, Recall):
            if state.newest.shape != episode_start.shape:
                raise ConfigError(f"state is of {len(state.newest)} lanes, the observation of {len(episode_start)}")
            state = state.memory
        memory = self.cooldown.recall(obs, state, episode_start)
        return self.situation(obs, Recall(memory, self.features.newest(action_mask))), self.cooldown.eligible(
            memory, action_mask
        )

    def situation(self, obs: Floats, recall: Recall) -> Situation:
        """The users of observations [B, P] with what is remembered of them."""
        env_spec = self.env_spec
        rate = (self.counts.rate(self.config.strength) - self.counts.mean()).astype(np.float32)
        profile, interest, context = (env_spec.part(name, obs) for name in ("profile", "interest", "context"))
        return Situation(profile, interest, context, recall.memory, recall.newest, rate)

    def after(self, situation: Situation, slates: Slates) -> Recall:
        """The state to hand on once slates [B, K] were chosen."""
        return Recall(situation.memory.noting(slates), situation.newest)

    def listed(
        self, situation: Situation, theta: Floats | None, action_mask: Flags, count: int, rng: np.random.Generator
    ) -> tuple[Slates, Floats]:
        """The items of highest estimate and the estimates, [B, count] each; random ones if theta is None.

        Where fewer are allowed, others fill up, of estimate -inf.
        """
        count = min(max(count, self.env_spec.slate_size), self.env_spec.items)
        if theta is None:  # nothing is known, all are equal
            listed = uniform_slates(action_mask, count, rng)
            return listed, np.where(np.take_along_axis(action_mask, listed, 1), np.float32(0.0), np.float32(-np.inf))
        return self.features.top(situation, theta, action_mask, count)

    def seen(self, transition: Transition) -> Seen:
        """The slots to learn from. What is remembered is taken from the transition's state, or is nothing."""
        shown, seen = seen_slots(transition)
        state, obs = transition.state, transition.observation
        if not isinstance(state, Recall):
            newest = np.full(len(obs), self.features.released.max(), np.float32)
            state = Recall(RecentItems.empty(len(obs), self.env_spec), newest)
        lane, slot = np.nonzero(seen)
        item = shown[seen]
        phi = self.features.rows(self.situation(obs, state), lane, item, slot)
        return Seen(phi, credited(transition)[seen].astype(np.float32), item, lane, slot)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Counts."""
        return dict(self.counts.arrays())


@dataclass(frozen=True)
class LinearConfig(ContextualConfig):
    """Settings of agents whose model is linear in the features.

    Attributes:
        ridge: Precision of the prior of theta.
        growth: Share by which the data must have grown before theta is computed again; 0 is at every step.
    """

    ridge: float = 1.0
    growth: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(1e-9, 1e9, "ridge")
        self._within(0.0, 1e6, "growth")


class LinearAgent(ContextualAgent):
    """Base of agents that fit theta . phi(u, i) to the rewards of the slots that were looked at."""

    Config: ClassVar[type[Config]] = LinearConfig
    config: LinearConfig

    def setup(self, rng: np.random.Generator) -> None:
        """A = ridge I, everything else zero."""
        super().setup(rng)
        self.model = RidgeRegression(self.features.count, self.config.ridge, self.config.growth)

    def relevance(self, obs: Floats, state: Any, episode_start: Flags, action_mask: Flags) -> Floats:
        """The estimates of reward, less what is the same for all items."""
        situation, _ = self.situate(obs, state, episode_start, action_mask)
        return self.features.scores(situation, self.model.theta)

    def update(self, transition: Transition) -> None:
        """Adds the slots that were looked at; now and then computes theta again."""
        seen = self.seen(transition)
        self.model.add(seen.phi, seen.reward)
        self.counts.add(transition, credited(transition))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Sums, theta and counts."""
        return {**self.model.arrays(), **super().arrays()}
