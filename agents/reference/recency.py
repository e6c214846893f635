"""Recency: the newest items first."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.cooldown import CooldownConfig, RecentItems
from recsim_llm.agents.common.top_k import top_k
from recsim_llm.agents.core.base import Agent
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import EnvironmentSpec, Flags, Floats, Slates


class RecencyAgent(Agent):
    """Shows the newest items on the shelf, letting what was just shown rest.

    Equation: score_i = the day on which item i was released; items of the same day come in the order of the catalogue.
    Nothing is learnt.

    Paper: none; news sites' "latest" page, and the baseline of evaluations of news recommenders.

    Origin of the defaults: rests are those of :class:`PopularityAgent`. Deviations: none.
    """

    Config: ClassVar[type[Config]] = CooldownConfig
    State: ClassVar[type | None] = RecentItems
    config: CooldownConfig
    name: ClassVar[str] = "recency"
    learns: ClassVar[bool] = False

    @classmethod
    def refusal(cls, env_spec: EnvironmentSpec, config: Any) -> str | None:
        """Kinds of documents have no day of release."""
        if env_spec.kinds:
            return "recency shows what came out last, and here documents have no day of release; use popularity"
        return None

    def act(
        self,
        obs: Floats,
        state: Any,
        episode_start: Flags,
        deterministic: bool,
        action_mask: Flags,
        rng: np.random.Generator,
    ) -> tuple[Slates, Any]:
        """The newest first."""
        memory = self.cooldown.recall(obs, state, episode_start)
        slates = top_k(
            self.env_spec.catalog.released_at, self.cooldown.eligible(memory, action_mask), self.env_spec.slate_size
        )
        return slates, memory.noting(slates)

    def relevance(self, obs: Floats, state: Any, episode_start: Flags, action_mask: Flags) -> NDArray[np.floating]:
        """The day of release [day]."""
        return np.broadcast_to(self.env_spec.catalog.released_at, action_mask.shape)
