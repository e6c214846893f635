"""What all users like, blended with what this one did: sensible before the first click, personal after a few."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.config import Config
from recsim_llm.agents.lanes import Floats, Slates
from recsim_llm.agents.logged import LoggedAgent, LoggedConfig
from recsim_llm.rules.jit import jit

Scores = NDArray[np.floating]
LEAST_SPREAD = 1e-9


@dataclass(frozen=True)
class BlendedConfig(LoggedConfig):
    """Settings of agents that blend.

    Attributes:
        personal: w, weight of the personal score against popularity, both in standard deviations over items.
        halfway: m, clicks in this episode after which the personal score has half its weight.
    """

    personal: float = 1.0
    halfway: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(0.0, 1e6, "personal", "halfway")


class BlendedAgent(LoggedAgent):
    """Base of agents whose score is popularity plus a personal part that grows with the clicks of a session.

    score = z(popularity) + w n / (n + m) z(personal), n the clicks of this episode, z the standard score over items.
    Subclasses write :meth:`personal` in place of :meth:`scores`.
    """

    Config: ClassVar[type[Config]] = BlendedConfig
    config: BlendedConfig

    @abc.abstractmethod
    def personal(self, rows: Floats, session: Any) -> Scores:
        """The personal part [B, I], on any scale; rows that are all alike say nothing."""

    def trust(self, rows: Floats, session: Any) -> NDArray[np.floating]:
        """[B] weight of the personal part, 0 to 1."""
        clicks = session.clicks()
        share: NDArray[np.float64] = clicks / np.maximum(clicks + self.config.halfway, LEAST_SPREAD)
        return share

    def scores(self, rows: Floats, session: Any) -> Scores:
        """Popularity and the personal part."""
        weight = self.config.personal * self.trust(rows, session)
        blend = standardised(self.personal(rows, session), weight)
        blend += standardised(self.popularity()[None], np.ones(1))
        return blend


def standardised(scores: Scores, weight: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rows [B, I] less their mean, divided by their standard deviation, times ``weight`` [B]; rows alike are 0."""
    out = np.empty(scores.shape)
    _standardise(scores, np.asarray(weight, np.float64), out)
    return out


@jit
def _standardise(scores: Scores, weight: NDArray[np.float64], out: NDArray[np.float64]) -> None:
    items = scores.shape[1]
    for b in range(scores.shape[0]):
        mean, spread = 0.0, 0.0
        for i in range(items):
            mean += scores[b, i]
        mean /= items
        for i in range(items):
            spread += (scores[b, i] - mean) ** 2
        spread = np.sqrt(spread / items)
        scale = weight[b] / spread if spread > LEAST_SPREAD else 0.0
        for i in range(items):
            out[b, i] = (scores[b, i] - mean) * scale


@jit
def sum_rows(history: Slates, matrix: Floats, out: Floats) -> None:
    """Writes the sums [B, I] of the rows of a matrix [I, I] that histories [B, H] name; -1 names none."""
    for b in range(history.shape[0]):
        out[b, :] = 0.0
        for h in range(history.shape[1]):
            j = history[b, h]
            if j >= 0:
                for i in range(matrix.shape[1]):
                    out[b, i] += matrix[j, i]
