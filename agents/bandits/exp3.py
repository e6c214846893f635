"""EXP3: exponential weights for adversarial bandits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from recsim_llm.agents.bandits.base import BanditAgent, BanditConfig
from recsim_llm.agents.common.item_stats import Floats64, seen_slots
from recsim_llm.agents.common.sampling import plackett_luce
from recsim_llm.agents.common.top_k import Chances
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Flags, Slates, Transition


@dataclass(frozen=True)
class Exp3Config(BanditConfig):
    """Settings of :class:`Exp3Agent`.

    Attributes:
        gamma: Share of uniform exploration; also the step size, which is gamma / I.
    """

    gamma: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(1e-6, 1.0, "gamma")


class Exp3Agent(BanditAgent):
    """Draws items by exponential weights of what they would have gained, without a thought that gains are random.

    Equation: P(i_k | i_1 .. i_k-1) = (1 - gamma) w_i / sum of w over the m items left + gamma / m; after a look at
    item i, w_i <- w_i exp(gamma x / (I p)), x its gain on a scale from 0 to 1 and p the probability with which it was
    shown in this slot.

    Paper: Auer, Cesa-Bianchi, Freund and Schapire (2002), "The nonstochastic multiarmed bandit problem", section 3.

    Origin of the defaults: gamma 0.3 is the sqrt(I ln I / ((e - 1) g)) of corollary 3.2 for 1,000 items and a total
    gain g of 45,000.

    Deviations: each slot of a slate draws in turn from the items that are left, and is a play of its own with the
    probability given the slots before it, so that K plays raise the weights in one step; of slots that nobody looked at
    nothing is learnt; weights of B users are raised together; the weights' exponents are kept as sums of x / p, which
    are scaled, see :class:`~recsim_llm.agents.bandits.base.BanditAgent`; items off the shelf and
    those that rest are left out of the draw and keep their weights. With ``deterministic`` the largest weights are
    served.
    """

    name: ClassVar[str] = "exp3"
    Config: ClassVar[type[Config]] = Exp3Config
    config: Exp3Config

    def scores(self) -> Floats64:
        """Logarithms of the weights."""
        counts, config = self.counts, self.config
        return config.gamma / len(counts.looks) * self.unit(counts.gains, counts.looks)

    def explore(self, action_mask: Flags, rng: np.random.Generator) -> tuple[Slates, Chances]:
        """Draws by the equation."""
        return plackett_luce(self.scores(), action_mask, self.env_spec.slate_size, rng, uniform=self.config.gamma)

    def update(self, transition: Transition) -> None:
        """Adds 1 / p to the looks and x / p to the gains of each slot that was looked at; without p, nothing."""
        gains = self.gains(transition)
        shown, seen = seen_slots(transition)
        chances = np.broadcast_to(transition.propensity, shown.shape)
        seen &= chances > 0.0
        items, weights, count = shown[seen], 1.0 / chances[seen], len(self.counts.looks)
        self.counts.looks += np.bincount(items, weights=weights, minlength=count)
        self.counts.gains += np.bincount(items, weights=weights * gains[seen], minlength=count)
