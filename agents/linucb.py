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
from recsim_llm.agents.slates import best


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
    width: int = 48
    shortlist: int = 12
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
        memory = self.recall(rows, state.memory if isinstance(state, Recall) else state, starts)
        newest = self.features.newest(allowed)
        situation = self._situation(rows, memory, newest)
        scores = self.features.scores(situation, self.theta)
        rested, slots = self.rested(memory, allowed), self.setting.slots
        if deterministic or self.config.alpha == 0.0:
            slates = best(scores, rested, slots)
        else:
            scores += rng.random(scores.shape, np.float32) * np.float32(1e-6)
            slates = self._optimistic(situation, scores, rested)
        return slates, Recall(memory.noting(slates), newest)

    def _optimistic(self, situation: Situation, scores: Floats, allowed: Flags) -> Slates:
        listed = best(scores, allowed, min(max(self.config.shortlist, self.setting.slots), scores.shape[1]))
        phi = self.features.of(situation, listed)
        width = np.sqrt(np.square(phi @ self.root.T).sum(2))
        bounds = np.take_along_axis(scores, listed, 1) + self.config.alpha * width
        picked = best(bounds, np.take_along_axis(allowed, listed, 1), self.setting.slots)
        return np.take_along_axis(listed, picked, 1)

    def update(self, transition: Transition) -> None:
        """Adds the slots that were looked at; now and then computes theta again."""
        shown, seen = seen_slots(transition)
        state, rows = transition.state, transition.observation
        if not isinstance(state, Recall):
            state = Recall(Memory.empty(len(rows), self.setting), np.full(len(rows), self.features.released.max()))
        situation = self._situation(rows, state.memory, state.newest)
        phi = self.features.of(situation, np.maximum(shown, 0), np.arange(self.setting.slots))[seen].astype(np.float64)
        reward = np.asarray(transition.info["slot_reward"], np.float64)
        self.gram += phi.T @ phi
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

    def finish(self) -> None:
        """Takes in what is left."""
        if self.samples[0] > self.samples[1]:
            self._solve()

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
