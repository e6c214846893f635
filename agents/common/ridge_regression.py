"""Ridge regression by sums: what LinUCB, LinTS, ridge and the head of neural-linear have in common."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.core.env_runner import Floats

Floats64 = NDArray[np.float64]


class RidgeRegression:
    """A = ridge I + sum phi phi^T and b = sum r phi, with theta = A^-1 b computed now and then.

    Sums are float64; products of the rows of one step and what is solved for serve as float32.

    Args:
        count: d, length of phi.
        ridge: Precision of the prior of theta.
        growth: Share by which the rows must have grown before theta is computed again; 0 computes it at every step.

    Attributes:
        gram: A [d, d].
        moment: b [d].
        theta: [d].
        root: L^-1 [d, d] with A = L L^T, so that A^-1 = root^T root.
        samples: [2] rows added; rows when theta was computed.
    """

    def __init__(self, count: int, ridge: float, growth: float) -> None:
        self.growth = growth
        self.gram: Floats64 = ridge * np.eye(count)
        self.moment: Floats64 = np.zeros(count)
        self.theta: Floats = np.zeros(count, np.float32)
        self.root: Floats = (np.eye(count) / np.sqrt(ridge)).astype(np.float32)
        self.samples: Floats64 = np.zeros(2)

    @property
    def known(self) -> bool:
        """Whether anything was learnt yet."""
        return bool(self.samples[1] > 0.0)

    def add(self, phi: Floats, reward: Floats) -> None:
        """Adds rows phi [N, d] with their rewards [N]; computes theta if it is time."""
        self.gram += phi.T @ phi
        self.moment += reward @ phi
        self.samples[0] += len(phi)
        if self.samples[0] > self.samples[1] * (1.0 + self.growth):
            self.solve()

    def solve(self) -> None:
        """Computes theta and the root."""
        inverse = np.linalg.inv(np.linalg.cholesky(self.gram))
        self.root[...] = inverse
        self.theta[...] = inverse.T @ (inverse @ self.moment)
        self.samples[1] = self.samples[0]

    def widths(self, phi: Floats) -> Floats:
        """sqrt(phi^T A^-1 phi) of rows [N, d], [N]."""
        half = len(self.root) // 2  # the root is a lower triangle: rows above have nothing in the columns beyond
        squares: Floats = np.zeros(len(phi), np.float32)
        for columns, rows in ((phi[:, :half], self.root[:half, :half]), (phi, self.root[half:])):
            turned = columns @ rows.T
            squares += np.einsum("nd,nd->n", turned, turned)
        return np.sqrt(squares, out=squares)

    def draws(self, count: int, scale: float | Floats64, rng: np.random.Generator) -> Floats:
        """Parameters [count, d] drawn from N(theta, scale^2 A^-1), with one ``scale`` or one for each draw."""
        noise = rng.standard_normal((count, len(self.theta)), np.float32)
        wide = np.broadcast_to(np.asarray(scale, np.float32), (count,))
        return self.theta + wide[:, None] * (noise @ self.root)

    def fade(self, left: float, ridge: float) -> None:
        """Leaves a share of all rows; the prior stays whole."""
        self.gram *= left
        self.gram[np.diag_indices_from(self.gram)] += (1.0 - left) * ridge
        self.moment *= left
        self.samples *= left

    def reset(self, ridge: float) -> None:
        """Forgets all rows."""
        self.gram[...] = ridge * np.eye(len(self.gram))
        self.moment[...] = 0.0
        self.samples[...] = 0.0

    def arrays(self) -> dict[str, NDArray[np.floating]]:
        """Sums and what was solved for, by name."""
        return {
            "gram": self.gram, "moment": self.moment, "theta": self.theta, "root": self.root, "samples": self.samples,
        }  # fmt: skip
