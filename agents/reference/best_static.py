"""Best static slate: the same items for everybody at every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.item_stats import ItemCounts, credited
from recsim_llm.agents.common.sampling import uniform_propensity, uniform_slates
from recsim_llm.agents.common.top_k import top_k
from recsim_llm.agents.core.base import Agent
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Flags, Floats, Slates, Transition


@dataclass(frozen=True)
class BestStaticConfig(Config):
    """Settings of :class:`BestStaticAgent`.

    Attributes:
        strength: Looks by which an item's mean reward is drawn towards the mean of all.
    """

    strength: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(1e-6, 1e9, "strength")


class BestStaticAgent(Agent):
    """Shows the items with the highest mean reward, the same ones to everybody at every step.

    Equation: score_i = (sum of rewards of i + m c) / (looks_i + m), c the mean reward of all items.

    Paper: none; the best fixed action in hindsight is what regret is measured against (Auer et al., 2002).

    It differs from :class:`PopularityAgent` in that it is static, where popularity lets
    items rest that a user has just seen. What popularity gains over it is what not repeating oneself is
    worth. Where an item is not on the shelf, the next one moves up.

    Exploration: while it learns, all slates are uniform, so that means are of the average user.

    Origin of the defaults: strength as for popularity. Deviations: items are judged one by one; a slate is best for the
    average user only as far as its items do not compete.
    """

    name: ClassVar[str] = "best_static"
    Config: ClassVar[type[Config]] = BestStaticConfig
    config: BestStaticConfig

    def setup(self, rng: np.random.Generator) -> None:
        """Counts at zero; ties are broken in an order drawn once."""
        self.counts = ItemCounts(self.env_spec.items)
        self.ties = rng.random(self.env_spec.items) * 1e-9

    def act(
        self,
        obs: Floats,
        state: Any,
        episode_start: Flags,
        deterministic: bool,
        action_mask: Flags,
        rng: np.random.Generator,
    ) -> tuple[Slates, Any]:
        """The highest means."""
        return top_k(self.counts.rate(self.config.strength) + self.ties, action_mask, self.env_spec.slate_size), state

    def relevance(self, obs: Floats, state: Any, episode_start: Flags, action_mask: Flags) -> NDArray[np.floating]:
        """The same means for everybody."""
        return np.broadcast_to(self.counts.rate(self.config.strength), action_mask.shape)

    def interact(self) -> Transition:
        """One step of every lane under the uniform random policy."""
        action_mask, slate_size = self.runner.available(), self.env_spec.slate_size
        self.propensity = uniform_propensity(action_mask, slate_size)
        return self.runner.step(uniform_slates(action_mask, slate_size, self.rng), propensity=self.propensity)

    def update(self, transition: Transition) -> None:
        """Credits each slot that was looked at with its reward."""
        self.counts.add(transition, credited(transition))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Counts and the order of ties."""
        return {**self.counts.arrays(), "ties": self.ties}
