"""What linear agents share that learn what it does to all that is to come when a user takes an item."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.click_model import ClickModel
from recsim_llm.agents.common.cooldown import Memory
from recsim_llm.agents.common.item_feedback import ItemSigns
from recsim_llm.agents.common.item_stats import seen_slots
from recsim_llm.agents.common.remembering import RememberingAgent, RememberingConfig
from recsim_llm.agents.common.slates import best, mixed
from recsim_llm.agents.common.user_item_features import Pairs
from recsim_llm.agents.common.user_state import Habits, Trail
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Flags, Floats, Slates, Transition

Values = NDArray[np.float64]


@dataclass(frozen=True)
class TakenConfig(RememberingConfig):
    """Settings of :class:`TakenAgent`.

    Attributes:
        gamma: Discount of the future, per step.
        trace: lambda of the value of states: share of a trace that is left after a step beside the discount.
        width: Principal components of the encodings in the features of user and item.
        width_state: The same of recent interest and of profile in those of the state, where what is to come depends
            on who the user is beyond what her feedback shows.
        ridge: Precision of the prior of the weights.
        strength: Times an item must have been taken for half of its own effect to be believed.
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
    """One step of B lanes as these agents see it.

    Attributes:
        state: [B, n] features f(s) of the states acted in.
        after: [B, n] those of the states reached, 0 where the user left for good.
        items: [B, K] what was taken, -1 for nothing.
        psi: [B, m] sum of psi(s, i) over what was taken.
        begins: [B] whether an episode began with it.
    """

    state: Values
    after: Values
    items: Slates
    psi: Values
    begins: Flags


class TakenAgent(RememberingAgent):
    """Base: Q(s, c) = u . f(s) + sum over what was taken, i in c, of (v . psi(s, i) + b_i).

    f(s) holds the context and the signals of the last steps (and encodings of the user), so that a like or a bad rating
    tells at once what an item has done to what is to come; psi(s, i) products of the encodings of profile, recent
    interest and item and what users did with the item on average; b_i is the item's own. A slate holds the K items of
    largest

        P(click i | s) (v . psi(s, i) + b_i - R)

    with a logistic regression of clicks for P. Where a user takes at most one item of a slate, R is the mean effect of
    a step: a click on one item is no click on another, and one that is worth less than R does harm (the fractional
    programme of the best assortment at its current value); else R = 0.
    """

    Config: ClassVar[type[Config]] = TakenConfig
    State: ClassVar[type | None] = Trail
    config: TakenConfig

    def setup(self, rng: np.random.Generator) -> None:
        """Nothing is known."""
        config, items = self.config, self.env_spec.items
        self.habits = Habits(self.env_spec)
        self.signs = ItemSigns(items, config.strength_signs)
        self.pairs = Pairs(self.env_spec, config.width, self.signs)
        self.clicks = ClickModel(Pairs(self.env_spec, config.width))
        self.state_count = self.habits.count + 2 * min(config.width_state, self.env_spec.catalog.width)
        self.taken: Values = np.zeros(3)  # decayed sums of effects and of steps; whether two were taken at once
        self.ties = rng.random(items) * 1e-9

    @property
    def epsilon(self) -> float:
        """Probability that a slot explores now."""
        config = self.config
        left = float(np.exp(-self.num_timesteps / config.decay))
        return config.epsilon + (config.epsilon_start - config.epsilon) * left

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
        before = state if isinstance(state, Trail) else None
        memory = self.recall(obs, before.memory if before else state, episode_start)
        decayed = self.habits.decayed(obs, before.signs if before else None, episode_start)
        rested = self.rested(memory, action_mask)
        slates = best(self._scores(obs, memory), rested, self.env_spec.slate_size)
        if not deterministic:
            slates, self.propensity = mixed(slates, rested, self.epsilon, rng)
        return slates, Trail(memory.noting(slates), decayed, self.habits.of(obs, decayed))

    def relevance(
        self, obs: Floats, state: Any, episode_start: Flags, action_mask: Flags
    ) -> NDArray[np.floating] | None:
        """Expected effect of showing each item, [B, I]."""
        before = state if isinstance(state, Trail) else None
        return self._scores(obs, self.recall(obs, before.memory if before else state, episode_start))

    def _scores(self, obs: Floats, memory: Memory) -> Values:
        shared, own = self.effects()
        effects = self.pairs.scores(obs, shared.astype(np.float32)) + (own - self.level())
        scores: Values = self.clicks.scores(obs, memory) * effects + self.ties
        return scores

    def level(self) -> float:
        """R: what an item has to surpass."""
        return 0.0 if self.taken[2] else self.mean_effect()

    def mean_effect(self) -> float:
        """Mean effect of what was taken, per step."""
        return float(self.taken[0] / max(self.taken[1], 1.0))

    def event(self, transition: Transition) -> Event:
        """Takes in what was clicked and what users did with it."""
        obs, after = transition.observation, transition.next_observation
        never = np.zeros(len(obs), np.bool_)
        trail = transition.state
        if not isinstance(trail, Trail):
            signs = self.habits.decayed(obs, None, never)
            trail = Trail(Memory.empty(len(obs), self.env_spec), signs, self.habits.of(obs, signs))
        shown, seen = seen_slots(transition)
        clicked = (np.asarray(transition.info["click"]) > 0.0) & seen
        self.clicks.add(obs, trail.memory, shown, clicked, seen)
        items = np.where(clicked, shown, -1)
        self.signs.add(transition, items)
        psi = (self.pairs.of(obs, np.maximum(items, 0)) * (items >= 0)[:, :, None]).sum(1, dtype=np.float64)
        reached = self._state_features(after, self.habits.of(after, self.habits.decayed(after, trail.signs, never)))
        reached[transition.terminated] = 0.0
        begins = self.env_spec.context("start", obs) > 0.0
        return Event(self._state_features(obs, trail.features), reached, items, psi, begins)

    def _state_features(self, rows: Floats, features: Floats) -> Values:
        people = [one[:, : self.config.width_state] for one in self.pairs.people(rows)]
        return np.concatenate([features, *people], 1).astype(np.float64)

    def worth(self, event: Event) -> Values:
        """Effects of what was taken, [B]."""
        shared, own = self.effects()
        worth: Values = event.psi @ shared + np.where(event.items >= 0, own[np.maximum(event.items, 0)], 0.0).sum(1)
        return worth

    def note_worth(self, event: Event, valid: Flags) -> None:
        """Takes the effects of a step into their mean."""
        worth = self.worth(event)[valid]
        kept = float(np.exp(-len(worth) / self.config.window))
        self.taken[:2] = kept * self.taken[:2] + (worth.sum(), len(worth))
        self.taken[2] = max(self.taken[2], float((event.items >= 0).sum(1).max(initial=0) > 1))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What is known of clicks and signals."""
        return {**self.clicks.arrays(), **self.signs.arrays(), "taken": self.taken, "ties": self.ties}
