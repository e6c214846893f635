"""Epsilon-greedy bandit whose means have a constant step size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.bandits.base import BanditAgent, BanditConfig
from recsim_llm.agents.common.item_stats import Floats64, seen_slots
from recsim_llm.agents.common.sampling import epsilon_at, epsilon_greedy
from recsim_llm.agents.common.top_k import Chances, top_k
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Flags, Slates, Transition
from recsim_llm.simulator.jit import jit


@dataclass(frozen=True)
class ConstantStepConfig(BanditConfig):
    """Settings of :class:`ConstantStepAgent`.

    Attributes:
        epsilon: Probability that a slot explores, in the long run.
        epsilon_start: The same at the first step.
        decay: Steps of users in which what lies between the two falls by the factor e [steps].
        alpha: Step size.
        initial: What an item is worth before anybody has looked at it; high values make it try everything.
    """

    epsilon: float = 0.1
    epsilon_start: float = 1.0
    decay: float = 10_000.0
    alpha: float = 0.02
    initial: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(0.0, 1.0, "epsilon", "epsilon_start")
        self._within(1e-6, 1e12, "decay")
        self._within(0.0, 1.0, "alpha")
        self._within(-1e12, 1e12, "initial")


class ConstantStepAgent(BanditAgent):
    """Moves what an item is worth a constant step towards what was observed, so that the past fades.

    Equation: r_i <- r_i + alpha (observed - r_i) for each look at item i; slot k holds the k-th best item with
    probability 1 - epsilon_t, else a uniform one, epsilon_t as for
    :class:`~recsim_llm.agents.bandits.epsilon_greedy.EpsilonGreedyAgent`.

    Paper: Sutton and Barto (2018), "Reinforcement learning", section 2.5; the same update estimates what users like
    in recommenders that keep one number for each item.

    Origin of the defaults: alpha was found on training users (seed 100) of the six scenarios, among 0.02, 0.05 and 0.1;
    exploration is that of :class:`~recsim_llm.agents.bandits.epsilon_greedy.EpsilonGreedyAgent`.

    Deviations: looks of one batch of users move the estimate one after the other, in the order of lanes and slots;
    each slot explores for itself; items just shown rest. ``span`` is not used: nothing here depends on the scale.
    """

    name: ClassVar[str] = "constant_step"
    Config: ClassVar[type[Config]] = ConstantStepConfig
    config: ConstantStepConfig

    def setup(self, rng: np.random.Generator) -> None:
        """Everything is worth the initial value."""
        super().setup(rng)
        self.worth: Floats64 = np.full(self.env_spec.items, self.config.initial)

    @property
    def epsilon(self) -> float:
        """Probability that a slot explores now."""
        config = self.config
        return epsilon_at(self.num_timesteps, config.epsilon_start, config.epsilon, config.decay)

    def scores(self) -> Floats64:
        """What each item is worth."""
        return self.worth

    def explore(self, action_mask: Flags, rng: np.random.Generator) -> tuple[Slates, Chances]:
        """The best, each slot exploring with probability epsilon."""
        greedy = top_k(self.scores() + self.ties, action_mask, self.env_spec.slate_size)
        return epsilon_greedy(greedy, action_mask, self.epsilon, rng)

    def update(self, transition: Transition) -> None:
        """The equation for each slot that was looked at."""
        gains = self.gains(transition)
        shown, seen = seen_slots(transition)
        _step_towards(self.worth, shown[seen], gains[seen], self.config.alpha)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What items are worth, and the order of ties."""
        return {"worth": self.worth, "ties": self.ties}


@jit
def _step_towards(worth: Floats64, items: NDArray[np.int64], observed: Floats64, alpha: float) -> None:
    for look in range(len(items)):
        worth[items[look]] += alpha * (observed[look] - worth[items[look]])
