"""Linear value functions with eligibility traces: features, a model of clicks, and how slates come from them."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.cooldown import CooldownConfig, RecentItems
from recsim_llm.agents.common.feedback_features import COLUMNS, ItemFeedback, UserState, UserStateFeatures
from recsim_llm.agents.common.item_stats import seen_slots
from recsim_llm.agents.common.sampling import epsilon_at, epsilon_greedy
from recsim_llm.agents.common.top_k import add_remembered, by_topic, top_k
from recsim_llm.agents.core.base import Agent
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import EnvironmentSpec, Flags, Floats, Slates, Transition
from recsim_llm.simulator.jit import loaded

Values = NDArray[np.float64]

CLICK_RIDGE = 4.0
"""Precision of the prior of the click model's weights."""
CLICK_STRENGTH = 2.0
"""The same for items' own weights, in looks at probability one half times four."""
CLICK_GROWTH = 0.05
"""Share by which the information must have grown before the inverse is computed again."""
LARGEST = 15.0
REMEMBERED = 3
"""Features of what is remembered: wear of the topic, looks at the item, clicks on it."""


@dataclass(frozen=True)
class LinearValueConfig(CooldownConfig):
    """Settings of :class:`LinearValueAgent`.

    Attributes:
        gamma: Discount of the future, per step.
        trace: lambda of the value of states: share of a trace that is left after a step beside the discount.
        width: Principal components of the encodings in the features of user and item.
        width_state: The same of recent interest and of profile in those of the state, where what is to come depends
            on who the user is beyond what her feedback shows.
        ridge: Precision of the prior of the weights.
        strength: Clicks an item must have had for half of its own effect to be believed.
        strength_signs: The same for what users did with it.
        window: Steps of users in which what was learnt is forgotten by the factor e [steps].
        epsilon: Probability that a slot explores, in the long run.
        epsilon_start: The same at the first step.
        decay: Steps of users in which what lies between the two falls by the factor e [steps].
    """

    gamma: float = 0.995
    trace: float = 0.9
    width: int = 32
    width_state: int = 0
    ridge: float = 10.0
    strength: float = 2.0
    strength_signs: float = 4.0
    window: float = 20_000.0
    epsilon: float = 0.02
    epsilon_start: float = 0.5
    decay: float = 4_000.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(0.0, 1.0, "gamma", "trace", "epsilon", "epsilon_start")
        self._within(1, 256, "width")
        self._within(0, 256, "width_state")
        self._within(1e-9, 1e12, "ridge", "strength", "strength_signs", "window", "decay")


@dataclass(frozen=True)
class Event:
    """One step of B lanes: features of states and of what was clicked.

    Attributes:
        state: [B, n] features f(s) of the states acted in.
        after: [B, n] those of the states reached, 0 where the user left for good.
        items: [B, K] what was clicked, -1 for nothing.
        psi: [B, m] sum of psi(s, i) over what was clicked.
        begins: [B] whether an episode began with it.
    """

    state: Values
    after: Values
    items: Slates
    psi: Values
    begins: Flags


class LinearValueAgent(Agent):
    """Linear values of states and of what is clicked in them.

    Equation: Q(s, c) = u . f(s) + sum over what was clicked, i in c, of (v . psi(s, i) + b_i).

    f(s) holds the context and the feedback of the last steps (and encodings of the user), so that a like or a bad
    rating tells at once what an item has done to what is to come. psi(s, i) are products of the encodings of profile,
    recent interest and item, and what users did with the item on average. b_i is the item's own. A slate holds the K
    items of largest

        P(click i | s) (v . psi(s, i) + b_i - R)

    with a logistic regression of clicks for P. Where a user clicks at most one item of a slate, R is the mean effect of
    a step: a click on one item is no click on another, and one that is worth less than R does harm (the fractional
    programme of the best assortment at its current value); else R = 0.
    """

    Config: ClassVar[type[Config]] = LinearValueConfig
    State: ClassVar[type | None] = UserState
    config: LinearValueConfig

    def setup(self, rng: np.random.Generator) -> None:
        """Nothing is known."""
        config, items = self.config, self.env_spec.items
        self.user_features = UserStateFeatures(self.env_spec)
        self.item_feedback = ItemFeedback(items, config.strength_signs)
        self.features = UserItemFeatures(self.env_spec, config.width, self.item_feedback)
        self.clicks = ClickModel(UserItemFeatures(self.env_spec, config.width))
        self.state_count = self.user_features.count + 2 * min(config.width_state, self.env_spec.catalog.width)
        self.effect_sums: Values = np.zeros(3)  # decayed sums of effects and of steps; whether two were clicked at once
        self.ties = rng.random(items) * 1e-9

    @property
    def epsilon(self) -> float:
        """Probability that a slot explores now."""
        config = self.config
        return epsilon_at(self.num_timesteps, config.epsilon_start, config.epsilon, config.decay)

    @abc.abstractmethod
    def effects(self) -> tuple[Values, Values]:
        """The weights v [m] and b [I]."""

    def act(
        self,
        obs: Floats,
        state: Any,
        episode_start: Flags,
        deterministic: bool,
        action_mask: Flags,
        rng: np.random.Generator,
    ) -> tuple[Slates, Any]:
        """The items of the best expected effect on what is to come, each slot exploring with probability epsilon."""
        before = state if isinstance(state, UserState) else None
        memory = self.cooldown.recall(obs, before.memory if before else state, episode_start)
        decayed = self.user_features.decayed(obs, before.feedback if before else None, episode_start)
        rested = self.cooldown.eligible(memory, action_mask)
        slates = top_k(self._scores(obs, memory), rested, self.env_spec.slate_size)
        if not deterministic:
            slates, self.propensity = epsilon_greedy(slates, rested, self.epsilon, rng)
        return slates, UserState(memory.noting(slates), decayed, self.user_features.of(obs, decayed))

    def relevance(
        self, obs: Floats, state: Any, episode_start: Flags, action_mask: Flags
    ) -> NDArray[np.floating] | None:
        """Expected effect of showing each item, [B, I]."""
        before = state if isinstance(state, UserState) else None
        return self._scores(obs, self.cooldown.recall(obs, before.memory if before else state, episode_start))

    def _scores(self, obs: Floats, memory: RecentItems) -> Values:
        shared, own = self.effects()
        effects = self.features.scores(obs, shared.astype(np.float32)) + (own - self.level())
        scores: Values = self.clicks.scores(obs, memory) * effects + self.ties
        return scores

    def level(self) -> float:
        """R: what an item has to surpass."""
        return 0.0 if self.effect_sums[2] else self.mean_effect()

    def mean_effect(self) -> float:
        """Mean effect of what was clicked, per step."""
        return float(self.effect_sums[0] / max(self.effect_sums[1], 1.0))

    def event(self, transition: Transition) -> Event:
        """Takes in what was clicked and what users did with it."""
        obs, after = transition.observation, transition.next_observation
        never = np.zeros(len(obs), np.bool_)
        user_state = transition.state
        if not isinstance(user_state, UserState):
            feedback = self.user_features.decayed(obs, None, never)
            memory = RecentItems.empty(len(obs), self.env_spec)
            user_state = UserState(memory, feedback, self.user_features.of(obs, feedback))
        shown, seen = seen_slots(transition)
        clicked = (np.asarray(transition.info["click"]) > 0.0) & seen
        self.clicks.add(obs, user_state.memory, shown, clicked, seen)
        items = np.where(clicked, shown, -1)
        self.item_feedback.add(transition, items)
        psi = (self.features.of(obs, np.maximum(items, 0)) * (items >= 0)[:, :, None]).sum(1, dtype=np.float64)
        reached = self._state_features(
            after, self.user_features.of(after, self.user_features.decayed(after, user_state.feedback, never))
        )
        reached[transition.terminated] = 0.0
        begins = self.env_spec.context("start", obs) > 0.0
        return Event(self._state_features(obs, user_state.features), reached, items, psi, begins)

    def _state_features(self, rows: Floats, features: Floats) -> Values:
        people = [one[:, : self.config.width_state] for one in self.features.people(rows)]
        return np.concatenate([features, *people], 1).astype(np.float64)

    def worth(self, event: Event) -> Values:
        """Effects of what was clicked, [B]."""
        shared, own = self.effects()
        worth: Values = event.psi @ shared + np.where(event.items >= 0, own[np.maximum(event.items, 0)], 0.0).sum(1)
        return worth

    def note_worth(self, event: Event, valid: Flags) -> None:
        """Takes the effects of a step into their mean."""
        worth = self.worth(event)[valid]
        kept = float(np.exp(-len(worth) / self.config.window))
        self.effect_sums[:2] = kept * self.effect_sums[:2] + (worth.sum(), len(worth))
        self.effect_sums[2] = max(self.effect_sums[2], float((event.items >= 0).sum(1).max(initial=0) > 1))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The models of clicks and feedback, and the effects so far."""
        return {**self.clicks.arrays(), **self.item_feedback.arrays(), "taken": self.effect_sums, "ties": self.ties}


class UserItemFeatures:
    """Features of a user and an item: psi(u, i) = [1, x, p * x, z * x, p.x, z.x, m].

    x is the item's encoding, p the profile's and z recent interest's, m what users did with the item on average.

    * is elementwise over the leading principal components, the dot products are over all. Linear in x for a given user,
    so that B x I products theta . psi are one product of matrices.

    Args:
        env_spec: The public catalogue.
        width: Principal components in the elementwise products.
        item_feedback: Where m is from; None for none.
    """

    def __init__(self, env_spec: EnvironmentSpec, width: int, item_feedback: ItemFeedback | None = None) -> None:
        self.env_spec, self.item_feedback = env_spec, item_feedback
        embedding = env_spec.catalog.embedding
        self.width = min(width, embedding.shape[1])
        self.scale = np.float32(1.0 / (float(np.sqrt(np.square(embedding).sum(1).mean())) or 1.0))
        self.items: Floats = embedding * self.scale
        self.text = 1 + 3 * self.width + 2
        self.count = self.text + (0 if item_feedback is None else COLUMNS)

    def people(self, obs: Floats) -> tuple[Floats, Floats]:
        """Encodings of profile and interest [B, D], scaled as the items'."""
        env_spec = self.env_spec
        return env_spec.part("profile", obs) * self.scale, env_spec.part("interest", obs) * self.scale

    def of(self, obs: Floats, items: Slates) -> Floats:
        """Vectors of users [B, P] and their items [B, N], as [B, N, d]."""
        p, z = self.people(obs)
        x, w = self.items[items], self.width
        lead = x[:, :, :w]
        parts = [np.ones((*items.shape, 1), np.float32), lead, lead * p[:, None, :w], lead * z[:, None, :w]]
        parts += [np.einsum("bnd,bd->bn", x, one)[:, :, None] for one in (p, z)]
        if self.item_feedback is not None:
            parts.append(self.item_feedback.table[items])
        psi: Floats = np.concatenate(parts, 2)
        return psi

    def scores(self, obs: Floats, theta: Floats) -> Floats:
        """The product theta . psi of every user and item, [B, I]."""
        p, z = self.people(obs)
        w = self.width
        plain, with_profile, with_interest = (theta[1 + n * w : 1 + (n + 1) * w] for n in range(3))
        direction = theta[self.text - 2] * p + theta[self.text - 1] * z
        direction[:, :w] += plain + with_profile * p[:, :w] + with_interest * z[:, :w]
        scores: Floats = direction @ self.items.T + theta[0]
        if self.item_feedback is not None:
            scores += self.item_feedback.table @ theta[self.text :]
        return scores


class ClickModel:
    """Logistic regression of clicks, learnt by online Newton steps.

    P(click i | s) = sigma(theta . (psi(s, i), wear, looks, clicks) + c_i).

    theta <- theta + H^-1 sum (click - P) phi with H = ridge + sum P (1 - P) phi phi^T over all slots so far, and each
    c_i likewise with its own sum. Wear is how often the user clicked the item's topic lately, looks and clicks how
    often the item itself, as in :class:`~recsim_llm.agents.common.features.Features`. Items that were shown beside it,
    and took its clicks, are left out of account: P is that among slates as they were.

    Args:
        features: The features psi.
    """

    def __init__(self, features: UserItemFeatures) -> None:
        self.features = features
        self.topic = features.env_spec.catalog.topic
        count, items = features.count + REMEMBERED, features.env_spec.items
        self.members, self.ends = by_topic(self.topic, len(features.env_spec.catalog.topics))
        self.information: Values = np.zeros((count, count))
        self.inverse: Values = np.eye(count) / CLICK_RIDGE
        self.theta: Values = np.zeros(count)
        self.own: Values = np.zeros(items)
        self.known: Values = np.zeros(items)  # sum of P (1 - P) of each item
        self.samples: Values = np.zeros(2)

    def logits(self, obs: Floats, memory: RecentItems) -> Values:
        """Logits [B, I]."""
        theta = self.theta.astype(np.float32)
        scores = np.ascontiguousarray(self.features.scores(obs, theta[:-REMEMBERED]))
        loaded(add_remembered, memory.tables, theta[None, -REMEMBERED:], self.members, self.ends, scores)
        logits: Values = scores + self.own
        return logits

    def scores(self, obs: Floats, memory: RecentItems) -> Values:
        """Probabilities [B, I]."""
        return _sigmoid(self.logits(obs, memory))

    def add(self, obs: Floats, memory: RecentItems, shown: Slates, clicked: Flags, seen: Flags) -> None:
        """Learns from slots [B, K]."""
        items = np.maximum(shown, 0)
        wear = np.take_along_axis(memory.wear, self.topic[items].astype(np.int64), 1)
        known = np.stack([wear, *memory.of(items)], 2)
        phi = np.concatenate([self.features.of(obs, items), known], 2)[seen].astype(np.float64)
        items = items[seen]
        chance = _sigmoid(phi @ self.theta + self.own[items])
        wrong, spread = clicked[seen] - chance, chance * (1.0 - chance)
        self.information += phi.T @ (phi * spread[:, None])
        size = len(self.own)
        self.known += np.bincount(items, weights=spread, minlength=size)
        self.samples[0] += len(phi)
        if self.samples[0] > self.samples[1] * (1.0 + CLICK_GROWTH):
            self.inverse[...] = np.linalg.inv(self.information + CLICK_RIDGE * np.eye(len(self.theta)))
            self.samples[1] = self.samples[0]
        self.theta += self.inverse @ (wrong @ phi)
        self.own += np.bincount(items, weights=wrong, minlength=size) / (CLICK_STRENGTH + self.known)

    def arrays(self) -> dict[str, Values]:
        """Weights and what is known of them."""
        return {
            "click_information": self.information, "click_inverse": self.inverse, "click_theta": self.theta,
            "click_own": self.own, "click_known": self.known, "click_samples": self.samples,
        }  # fmt: skip


def _sigmoid(logits: Values) -> Values:
    chance: Values = 1.0 / (1.0 + np.exp(-np.clip(logits, -LARGEST, LARGEST)))
    return chance
