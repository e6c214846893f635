"""Eligibility traces of linear values, and the gains that take the place of a step size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.core.env_runner import Flags, Slates

Values = NDArray[np.float64]
GROWTH = 0.05
"""Share by which the data must have grown before the gain is computed again."""


@dataclass(frozen=True)
class Traces:
    """Dutch traces of B lanes, as in true online TD(lambda).

    Attributes:
        trace: [B, d].
        before: [B] value of the coming state and action, as it was before the last update.
    """

    trace: Values
    before: Values

    @classmethod
    def empty(cls, lanes: int, width: int) -> Traces:
        """Nothing traced."""
        return cls(np.zeros((lanes, width)), np.zeros(lanes))

    def step(
        self,
        lanes: NDArray[np.int64],
        phi: Values,
        gain: Values,
        values: Values,
        targets: Values,
        after: Values,
        decay: Values | float,
    ) -> Values:
        """Moves the traces of some lanes on, and returns the change of the weights [d], summed over them.

            e <- decay e + a - decay (e . phi) a
            dw = (target - Q_old) e - (Q - Q_old) a

        Args:
            lanes: [n] which lanes.
            phi: [n, d] features.
            gain: [n, d] the gain a: step size times phi, or a matrix times phi.
            values: [n] Q = w . phi.
            targets: [n] r + gamma Q'.
            after: [n] Q', kept for the next step.
            decay: gamma lambda, one for all weights or [d].
        """
        old = np.where(self.trace[lanes].any(1), self.before[lanes], values)
        trace = self.trace[lanes] * decay
        trace += (1.0 - np.einsum("bd,bd->b", trace, phi))[:, None] * gain
        self.trace[lanes], self.before[lanes] = trace, after
        change: Values = (targets - old) @ trace - (values - old) @ gain
        return change


class Gains:
    """The matrix P of a = P phi: (ridge I + sum phi phi^T)^-1 for dense features, 1 / (strength + count) for items.

    Sums forget: after ``window`` steps of users a share 1 / e is left.

    Args:
        dense: Number of dense features.
        items: I; each has a feature of its own.
        ridge: Precision of the prior of dense weights.
        strength: The same for those of items.
        window: Steps in which what was counted falls by the factor e.
    """

    def __init__(self, dense: int, items: int, ridge: float, strength: float, window: float) -> None:
        self.ridge, self.strength, self.window = ridge, strength, window
        self.gram: Values = np.zeros((dense, dense))
        self.inverse: Values = np.eye(dense) / ridge
        self.times: Values = np.zeros(items)
        self.samples: Values = np.zeros(2)  # counted; counted when the inverse was computed

    def add(self, phi: Values, items: Slates, counted: Flags) -> None:
        """Counts features [B, d] and taken items [B, K], -1 for none."""
        dense, taken = phi[counted], items[counted]
        kept = float(np.exp(-len(dense) / self.window))
        self.gram *= kept
        self.gram += dense.T @ dense
        self.times *= kept
        self.times += np.bincount(taken[taken >= 0], minlength=len(self.times))
        self.samples[0] += len(dense)
        grown = self.samples[0] - self.samples[1]
        if grown > GROWTH * min(self.samples[1], self.window):
            self.inverse[...] = np.linalg.inv(self.gram + self.ridge * np.eye(len(self.gram)))
            self.samples[1] = self.samples[0]

    def of(self, phi: Values, least: float = 0.0) -> Values:
        """The gain [n, d + I] of features [n, d + I].

        Args:
            phi: Features.
            least: Samples for as many of which the first ones count together: several users who learn at once with
                long traces would otherwise overshoot while little has been counted.
        """
        width = len(self.inverse)
        early = min(1.0, self.samples[0] / max(least, 1.0))
        dense = early * (phi[:, :width] @ self.inverse)
        gain: Values = np.concatenate([dense, phi[:, width:] * (early / (self.strength + self.times))], 1)
        return gain

    def arrays(self) -> dict[str, Values]:
        """Sums and the inverse."""
        return {"gram": self.gram, "inverse": self.inverse, "times": self.times, "samples": self.samples}
