"""Popularity: the same best-liked items for everybody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.cooldown import CooldownConfig, RecentItems
from recsim_llm.agents.common.item_stats import EventReward, Floats64, ItemCounts, credited, seen_slots
from recsim_llm.agents.common.sampling import mixture_propensity, uniform_slates
from recsim_llm.agents.common.top_k import top_k
from recsim_llm.agents.core.base import Agent
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Flags, Floats, Slates, Transition
from recsim_llm.errors import ConfigError

GAINS = ("like", "reward", "click")
"""What makes an item popular."""


@dataclass(frozen=True)
class PopularityConfig(CooldownConfig):
    """Settings of :class:`PopularityAgent`.

    Attributes:
        explore: Share of lanes and steps that get a uniform random slate while learning; counts come from them alone.
        strength: Looks by which an item's rate is drawn towards the mean of all.
        gain: What makes an item popular: "like", how often it is liked by those who look at it, "reward", what a look
            at it is worth to the platform, or "click", how often it is clicked. Where slots earn less with a like (a
            click) than without one, items are popular that are liked (clicked) least.
    """

    explore: float = 1.0
    strength: float = 5.0
    gain: str = "like"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gain not in GAINS:
            raise ConfigError(f"setting gain must be one of {', '.join(GAINS)}, got {self.gain!r}")
        self._within(0.0, 1.0, "explore")
        self._within(1e-6, 1e9, "strength")


class PopularityAgent(Agent):
    """Shows the items that are liked most by those who look at them, letting what was just shown rest.

    Equation: score_i = (gains_i + m c) / (looks_i + m), c the mean gain of a look at any item; a gain is a like, by
    ``gain`` also a click or the reward. Likes are what all scenarios have and what no title can promise: what is
    clicked most, or watched most in a step, is clickbait in Video, of which users have had enough sooner than of a
    random choice. Where clicks or sales are paid for (Ads, Music, Social) ``gain="reward"`` earns more.

    Paper: the non-personalised baseline of Cremonesi, Koren and Turrin (2010), "Performance of recommender algorithms
    on top-N recommendation tasks".

    Exploration: while it learns, a share ``explore`` of steps shows uniform random slates, and only these are counted,
    so that the rates are of the average user and not of whoever was shown what was popular before. By default all of
    them are: what is scored is the recommender that comes out, not the traffic spent on it.

    Deviation: what was just shown rests.

    Origin of the defaults: strength 5 is about the looks at which the spread of rates between items equals their
    sampling error in the built-in worlds; rests were found on the built-in worlds. Likes were compared with clicks,
    rewards, ratings, shares and minutes for each click on training users: of what is above random in all six scenarios
    they earn most.
    """

    State: ClassVar[type | None] = RecentItems
    name: ClassVar[str] = "popularity"
    Config: ClassVar[type[Config]] = PopularityConfig
    config: PopularityConfig

    def setup(self, rng: np.random.Generator) -> None:
        """Counts at zero; ties are broken in an order drawn once."""
        self.counts = ItemCounts(self.env_spec.items)
        self.ties = rng.random(self.env_spec.items) * 1e-9
        self._explored: Flags = np.zeros(self.runner.count, np.bool_)
        self.event_reward = EventReward()

    def act(
        self,
        obs: Floats,
        state: Any,
        episode_start: Flags,
        deterministic: bool,
        action_mask: Flags,
        rng: np.random.Generator,
    ) -> tuple[Slates, Any]:
        """The best rates."""
        memory = self.cooldown.recall(obs, state, episode_start)
        slates = self._popular(self.cooldown.eligible(memory, action_mask))
        return slates, memory.noting(slates)

    def interact(self) -> Transition:
        """One step of every lane, a share of them exploring."""
        lanes = self.runner
        action_mask = lanes.available()
        memory = self.cooldown.recall(lanes.observation, self.state, lanes.fresh)
        self._explored = self.rng.random(lanes.count) < self.config.explore
        drawn, served = (
            uniform_slates(action_mask, self.env_spec.slate_size, self.rng),
            self._popular(self.cooldown.eligible(memory, action_mask)),
        )
        slates = np.where(self._explored[:, None], drawn, served)
        self.propensity = mixture_propensity(slates, served, action_mask, self.config.explore)
        self.state = memory.noting(slates)
        return lanes.step(slates, self.state, self.propensity)

    def _popular(self, action_mask: Flags) -> Slates:
        return top_k(self.rate() + self.ties, action_mask, self.env_spec.slate_size)

    def rate(self) -> Floats64:
        """How popular each item is, [I]."""
        return self.event_reward.sign * self.counts.rate(self.config.strength)

    def relevance(self, obs: Floats, state: Any, episode_start: Flags, action_mask: Flags) -> NDArray[np.floating]:
        """The same rates for everybody."""
        return np.broadcast_to(self.rate(), action_mask.shape)

    def update(self, transition: Transition) -> None:
        """Counts gains of the lanes that explored."""
        credit, gain = credited(transition), self.config.gain
        if gain == "reward":
            self.counts.add(transition, credit, self._explored)
            return
        self.counts.add(transition, transition.info[gain], self._explored)
        seen = seen_slots(transition)[1] & self._explored[:, None]
        self.event_reward.add(np.asarray(transition.info[gain])[seen] > 0, credit[seen])

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Counts, what likes or clicks earn, and the order of ties."""
        return {**self.counts.arrays(), **self.event_reward.arrays(), "ties": self.ties}
