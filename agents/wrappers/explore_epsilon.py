"""Epsilon-greedy exploration around any agent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.sampling import epsilon_at, epsilon_greedy
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Flags, Floats, Slates
from recsim_llm.agents.wrappers.base import Wrapper, WrapperConfig


@dataclass(frozen=True)
class ExploreEpsilonConfig(WrapperConfig):
    """Settings of :class:`ExploreEpsilonAgent`.

    Attributes:
        epsilon: Probability that a slot explores, in the long run.
        epsilon_start: The same at the first step.
        decay: Steps of users in which what lies between the two falls by the factor e [steps].
    """

    epsilon: float = 0.1
    epsilon_start: float = 0.1
    decay: float = 10_000.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(0.0, 1.0, "epsilon", "epsilon_start")
        self._within(1e-6, 1e12, "decay")


class ExploreEpsilonAgent(Wrapper):
    """With probability epsilon a random item, else the inner agent's best.

    Equation: slot k holds what the inner agent shows there without exploration with probability 1 - epsilon_t, else a
    uniform one of m items: that one, and the allowed ones not in the inner agent's slate nor shown before; epsilon_t =
    epsilon + (epsilon_start - epsilon) exp(-t / decay). The probability of a slot is 1 - epsilon_t + epsilon_t / m for
    the inner agent's item, epsilon_t / m for another.

    Paper: Sutton and Barto (2018), "Reinforcement learning", section 2.2; as a logging policy: Langford, Strehl
    and Wortman (2008), "Exploration scavenging".

    Origin of the defaults: epsilon 0.1 is Sutton and Barto's, constant, so that logs have one policy. Deviations: each
    slot of a slate explores for itself; what the inner agent lets rest is not shown by exploration either.
    """

    name: ClassVar[str] = "explore_epsilon"
    Config: ClassVar[type[Config]] = ExploreEpsilonConfig
    config: ExploreEpsilonConfig

    @property
    def epsilon(self) -> float:
        """Probability that a slot explores now."""
        config = self.config
        return epsilon_at(self.num_timesteps, config.epsilon_start, config.epsilon, config.decay)

    def act(
        self,
        obs: Floats,
        state: Any,
        episode_start: Flags,
        deterministic: bool,
        action_mask: Flags,
        rng: np.random.Generator,
    ) -> tuple[Slates, Any]:
        """The inner agent's choice without its own exploration, each slot exploring with probability epsilon."""
        greedy, after, self.propensity = self.ask(obs, state, episode_start, True, action_mask, rng)
        if deterministic:
            return greedy, after
        certain = bool((self.propensity == 1.0).all())
        slates, chances = epsilon_greedy(greedy, self.usable(after, action_mask), self.epsilon, rng)
        self.propensity = chances if certain else np.full(slates.shape, np.nan)
        return slates, self.note_shown(after, slates)

    def relevance(
        self, obs: Floats, state: Any, episode_start: Flags, action_mask: Flags
    ) -> NDArray[np.floating] | None:
        """The inner agent's."""
        return self.scores(obs, state, episode_start, action_mask)
