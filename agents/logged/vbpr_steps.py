"""Gradient steps of VBPR."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from recsim_llm.simulator.jit import jit

Floats64 = NDArray[np.float64]
Numbers = NDArray[np.int64]


@dataclass(eq=False)
class VisualFactors:
    """Parameters of the model for N users and I items of C visual features.

    Attributes:
        users: [N, F] gamma_u.
        items: [I, F] gamma_i.
        bias: [I] beta_i.
        tastes: [N, V] theta_u.
        projection: [V, C] E.
        visual_bias: [C] beta'.
    """

    users: Floats64
    items: Floats64
    bias: Floats64
    tastes: Floats64
    projection: Floats64
    visual_bias: Floats64

    @classmethod
    def blank(cls, users: int, items: int, factors: int, visual: int, features: int) -> Self:
        """Zeros."""
        return cls(
            np.zeros((users, factors)), np.zeros((items, factors)), np.zeros(items), np.zeros((users, visual)),
            np.zeros((visual, features)), np.zeros(features),
        )  # fmt: skip

    def begin(self, rng: np.random.Generator, spread: float) -> None:
        """Small random factors; a projection that keeps the lengths of features on average; biases stay."""
        for table in (self.users, self.items, self.tastes):
            table[...] = rng.normal(0.0, spread, table.shape)
        features = max(self.projection.shape[1], 1)
        self.projection[...] = rng.normal(0.0, 1.0 / np.sqrt(features), self.projection.shape)

    def scores(self, contents: Floats64, user: Numbers) -> Floats64:
        """beta_i + gamma_u . gamma_i + theta_u . (E f_i) + beta' . f_i for users [B] and all items, [B, I]."""
        found: Floats64 = self.users[user] @ self.items.T + self.tastes[user] @ (contents @ self.projection.T).T
        return found + self.bias + contents @ self.visual_bias


@jit
def ascend_visual(
    user: Numbers, item: Numbers, against: Numbers, contents: Floats64, users: Floats64, items: Floats64,
    bias: Floats64, tastes: Floats64, projection: Floats64, visual_bias: Floats64, difference: Floats64, seen: Floats64,
    rate: float, shrink: float, shrink_visual: float,
) -> None:  # fmt: skip
    """One step for each clicked item and the one drawn against it; none where that is -1.

    With g = sigma(x_uj - x_ui) and d = f_i - f_j: theta_u <- theta_u + rate (g E d - shrink theta_u), E <- E + rate (g
    theta_u d^T - shrink_visual E), beta' <- beta' + rate (g d - shrink_visual beta'), and the rest as in BPR.

    Args:
        user: [N].
        item: [N].
        against: [N].
        contents: [I, C] f.
        users: [U, F], changed, as all parameters.
        items: [I, F].
        bias: [I].
        tastes: [U, V].
        projection: [V, C].
        visual_bias: [C].
        difference: [C] room for d.
        seen: [V] room for E d.
        rate: Step size.
        shrink: L2 penalty of factors and biases.
        shrink_visual: L2 penalty of E and beta'.
    """
    for n in range(len(user)):
        u, i, j = user[n], item[n], against[n]
        if j < 0:
            continue
        margin = bias[i] - bias[j]
        for k in range(users.shape[1]):
            margin += users[u, k] * (items[i, k] - items[j, k])
        for c in range(contents.shape[1]):
            difference[c] = contents[i, c] - contents[j, c]
            margin += visual_bias[c] * difference[c]
        for v in range(projection.shape[0]):
            seen[v] = 0.0
            for c in range(contents.shape[1]):
                seen[v] += projection[v, c] * difference[c]
            margin += tastes[u, v] * seen[v]
        gain = 1.0 / (1.0 + np.exp(margin))
        bias[i] += rate * (gain - shrink * bias[i])
        bias[j] += rate * (-gain - shrink * bias[j])
        for k in range(users.shape[1]):
            a, b, c = users[u, k], items[i, k], items[j, k]
            users[u, k] += rate * (gain * (b - c) - shrink * a)
            items[i, k] += rate * (gain * a - shrink * b)
            items[j, k] += rate * (-gain * a - shrink * c)
        for v in range(projection.shape[0]):
            taste = tastes[u, v]
            tastes[u, v] += rate * (gain * seen[v] - shrink * taste)
            for c in range(contents.shape[1]):
                projection[v, c] += rate * (gain * taste * difference[c] - shrink_visual * projection[v, c])
        for c in range(contents.shape[1]):
            visual_bias[c] += rate * (gain * difference[c] - shrink_visual * visual_bias[c])
