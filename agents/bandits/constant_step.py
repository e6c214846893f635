"""Means with a constant step size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.bandits.epsilon_greedy import ExploringAgent, ExploringConfig
from recsim_llm.agents.common.item_stats import Floats64, seen_slots
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Transition
from recsim_llm.simulator.jit import jit


@dataclass(frozen=True)
class ConstantStepConfig(ExploringConfig):
    """Settings of :class:`ConstantStepAgent`.

    Attributes:
        alpha: Step size.
        initial: What an item is worth before anybody has looked at it; high values make it try everything.
    """

    alpha: float = 0.02
    initial: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(0.0, 1.0, "alpha")
        self._within(-1e12, 1e12, "initial")


class ConstantStepAgent(ExploringAgent):
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

    def scores(self) -> Floats64:
        """What each item is worth."""
        return self.worth

    def update(self, transition: Transition) -> None:
        """The equation for each slot that was looked at."""
        gains = self.gains(transition)
        shown, seen = seen_slots(transition)
        _towards(self.worth, shown[seen], gains[seen], self.config.alpha)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What items are worth, and the order of ties."""
        return {"worth": self.worth, "ties": self.ties}


@jit
def _towards(worth: Floats64, items: NDArray[np.int64], observed: Floats64, alpha: float) -> None:
    for look in range(len(items)):
        worth[items[look]] += alpha * (observed[look] - worth[items[look]])
