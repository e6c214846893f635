"""LinUCB on encodings of personas, histories and items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.config import Config
from recsim_llm.agents.counts import ItemCounts, seen_slots
from recsim_llm.agents.features import Features, Situation
from recsim_llm.agents.lanes import Flags, Floats, Slates, Transition
from recsim_llm.agents.memory import Memory
from recsim_llm.agents.remembering import RememberingAgent, RememberingConfig
from recsim_llm.agents.slates import best, uniform
from recsim_llm.errors import ConfigError


@dataclass(frozen=True)
class LinUCBConfig(RememberingConfig):
    """Settings of :class:`LinUCBAgent`.

    Attributes:
        after_click: As for others, but 0: what was looked at and clicked lately is among the features.
        after_look: The same.
        alpha: Weight of the confidence width.
        ridge: Regularisation, the precision of the prior of theta.
        width: Principal components of the encodings in the elementwise products.
        shortlist: Items of highest score for which the width is computed.
        strength: Looks by which an item's mean reward, one of the features, is drawn towards the mean of all.
        growth: Share by which the data must have grown before theta is computed again.
    """

    after_click: int = 0
    after_look: int = 0
    alpha: float = 0.2
    ridge: float = 1.0
    width: int = 16
    shortlist: int = 8
    strength: float = 10.0
    growth: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(0.0, 1e6, "alpha", "growth")
        self._within(1e-9, 1e9, "ridge", "strength")
        self._within(1, 256, "width")
        self._within(1, 1_000_000, "shortlist")


@dataclass(frozen=True)
class Recall:
    """State between two calls of ``predict``: the memory, and what else the last decision was made from."""

    memory: Memory
    newest: Floats


class LinUCBAgent(RememberingAgent):
    """Shows the items with the highest upper confidence bound on a linear estimate of reward.

    Equation: with one parameter vector for all users and items, A = ridge I + sum phi phi^T, b = sum r phi, theta =
    A^-1 b,

        score(u, i) = theta . phi(u, i) + alpha sqrt(phi(u, i)^T A^-1 phi(u, i))

    and the slate is the K highest. phi is described in :class:`~recsim_llm.agents.features.Features`: products of the
    encodings of persona, recent interest and item, so that theta is the diagonal of a bilinear form, next to
    freshness, wear of the topic, price and the item's own mean reward. With ``deterministic`` alpha is 0.

    Paper: Li, Chu, Langford and Schapire (2010), "A contextual-bandit approach to personalized news article
    recommendation", algorithm 1; one theta for all arms as in Chu, Li, Reyzin and Schapire (2011).

    Origin of the defaults: ridge 1 is Li et al.'s; their best alpha in experiments was 0.2 to 0.4. Deviations: (1) the
    width is computed for the ``shortlist`` items of highest estimate only, ties among them in random order: all B x I
    widths would take a hundred times the rest of the step; (2) theta and A^-1 are recomputed when the data have
    grown by ``growth`` (Abbasi-Yadkori, Pal and Szepesvari 2011, section 5.1, switch as rarely and lose a constant
    factor); (3) users are served B at a time; (4) each slot is credited with its own reward, with a feature for its
    position, as if slots did not compete; (5) today's date is not public, the release of the newest item on the
    shelf stands for it.
    """

    name: ClassVar[str] = "linucb"
    Config: ClassVar[type[Config]] = LinUCBConfig
    State: ClassVar[type | None] = Recall
    config: LinUCBConfig

    def setup(self, rng: np.random.Generator) -> None:
        """A = ridge I, everything else zero."""
        self.features = Features(self.setting, self.config.width)
        count = self.features.count
        self.gram = self.config.ridge * np.eye(count)
        self.moment = np.zeros(count)
        self.theta = np.zeros(count, np.float32)
        self.root = (np.eye(count) / np.sqrt(self.config.ridge)).astype(np.float32)  # L^-1 with A = L L^T
        self.samples = np.zeros(2)  # seen; seen when theta was computed
        self.counts = ItemCounts(self.setting.items)

    def act(
        self,
        rows: Floats,
        state: Any,
        starts: Flags,
        deterministic: bool,
        allowed: Flags,
        rng: np.random.Generator,
    ) -> tuple[Slates, Any]:
        """The best upper bounds, or the best estimates."""
        if isinstance(state, Recall) and state.newest.shape != starts.shape:
            raise ConfigError(f"state is of {state.newest.shape} lanes, the observation of {starts.shape}")
        memory = self.recall(rows, state.memory if isinstance(state, Recall) else state, starts)
        newest = self.features.newest(allowed)
        situation = self._situation(rows, memory, newest)
        rested, slots = self.rested(memory, allowed), self.setting.slots
        if deterministic or self.config.alpha == 0.0:
            slates, _ = self.features.top(situation, self.theta, rested, slots)
        else:
            slates = self._optimistic(situation, rested, rng)
        return slates, Recall(memory.noting(slates), newest)

    def _optimistic(self, situation: Situation, allowed: Flags, rng: np.random.Generator) -> Slates:
        slots = self.setting.slots
        count = min(max(self.config.shortlist, slots), allowed.shape[1])
        if self.samples[1]:
            listed, estimates = self.features.top(situation, self.theta, allowed, count)
        else:  # nothing is known, all are equal
            listed, estimates = uniform(allowed, count, rng), np.zeros((len(allowed), count), np.float32)
        turned = self.features.of(situation, listed).reshape(-1, self.features.count) @ self.root.T
        width = np.sqrt(np.einsum("nd,nd->n", turned, turned)).reshape(listed.shape)
        picked = best(estimates + self.config.alpha * width, np.take_along_axis(allowed, listed, 1), slots)
        return np.take_along_axis(listed, picked, 1)

    def update(self, transition: Transition) -> None:
        """Adds the slots that were looked at; now and then computes theta again."""
        shown, seen = seen_slots(transition)
        state, rows = transition.state, transition.observation
        if not isinstance(state, Recall):
            state = Recall(Memory.empty(len(rows), self.setting), np.full(len(rows), self.features.released.max()))
        lane, slot = np.nonzero(seen)
        phi = self.features.rows(self._situation(rows, state.memory, state.newest), lane, shown[seen], slot)
        reward = np.asarray(transition.info["slot_reward"], np.float32)
        self.gram += phi.T @ phi  # products in single precision, sums over steps in double
        self.moment += reward[seen] @ phi
        self.counts.add(transition, reward)
        self.samples[0] += len(phi)
        if self.samples[0] > self.samples[1] * (1.0 + self.config.growth):
            self._solve()

    def _solve(self) -> None:
        lower = np.linalg.cholesky(self.gram)
        inverse = np.linalg.inv(lower)
        self.root[...] = inverse
        self.theta[...] = inverse.T @ (inverse @ self.moment)
        self.samples[1] = self.samples[0]

    def _situation(self, rows: Floats, memory: Memory, newest: Floats) -> Situation:
        setting = self.setting
        rate = (self.counts.rate(self.config.strength) - self.counts.mean()).astype(np.float32)
        profile, interest, context = (setting.part(name, rows) for name in ("profile", "interest", "context"))
        return Situation(profile, interest, context, memory, newest, rate)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Sums, theta and counts."""
        return {
            "gram": self.gram, "moment": self.moment, "theta": self.theta, "root": self.root, "samples": self.samples,
            **self.counts.arrays(),
        }  # fmt: skip
