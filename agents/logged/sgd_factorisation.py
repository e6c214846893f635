"""The model r = mu + b_u + b_i + sum_k lambda_k u_k i_k, and its fit by stochastic gradient descent."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from recsim_llm.simulator.jit import jit

Floats64 = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(eq=False)
class Factors:
    """Parameters of the model for N users and I items.

    Attributes:
        mu: [1] mean.
        user_bias: [N].
        item_bias: [I].
        users: [N, F].
        items: [I, F].
        weights: [F] lambda.
        noise: [1] mean squared error on the data it was fitted to.
    """

    mu: Floats64
    user_bias: Floats64
    item_bias: Floats64
    users: Floats64
    items: Floats64
    weights: Floats64
    noise: Floats64 = field(default_factory=lambda: np.ones(1))

    @classmethod
    def start(cls, users: int, items: int, factors: int, rng: np.random.Generator) -> Factors:
        """Small random factors, no biases, weights 1."""
        spread = 0.1
        return cls(
            np.zeros(1),
            np.zeros(users),
            np.zeros(items),
            rng.normal(0.0, spread, (users, factors)),
            rng.normal(0.0, spread, (items, factors)),
            np.ones(factors),
        )

    def widen(self, rows: Indices, count: int) -> None:
        """Makes room for ``count`` users: those known move to ``rows``, the new ones are the mean of them."""
        bias, users = np.full(count, self.user_bias.mean()), np.tile(self.users.mean(0), (count, 1))
        bias[rows], users[rows] = self.user_bias, self.users
        self.user_bias, self.users = bias, users


@jit
def descend(
    order: Indices, user: Indices, item: Indices, rating: Floats64, mu: Floats64, user_bias: Floats64,
    item_bias: Floats64, users: Floats64, items: Floats64, weights: Floats64, rate: float, shrink_bias: float,
    shrink: float,
) -> float:  # fmt: skip
    """One pass over the ratings in the given order, parameters changed in place. Returns the sum of squared errors.

    For e = r - prediction: b <- b + rate (e - shrink_bias b), u_k <- u_k + rate (e lambda_k i_k - shrink u_k), likewise
    i_k, and lambda_k <- lambda_k + rate (e u_k i_k - shrink (lambda_k - 1)).
    """
    total = 0.0
    for n in order:
        u, i = user[n], item[n]
        error = rating[n] - mu[0] - user_bias[u] - item_bias[i]
        for k in range(weights.shape[0]):
            error -= weights[k] * users[u, k] * items[i, k]
        total += error * error
        mu[0] += 0.1 * rate * error
        user_bias[u] += rate * (error - shrink_bias * user_bias[u])
        item_bias[i] += rate * (error - shrink_bias * item_bias[i])
        for k in range(weights.shape[0]):
            a, b, w = users[u, k], items[i, k], weights[k]
            users[u, k] += rate * (error * w * b - shrink * a)
            items[i, k] += rate * (error * w * a - shrink * b)
            weights[k] += 0.01 * rate * (error * a * b - shrink * (w - 1.0))
    return total


def fit(
    model: Factors,
    user: NDArray[np.int64],
    item: NDArray[np.int64],
    rating: Floats64,
    *,
    epochs: int,
    rate: float,
    shrink_bias: float,
    shrink: float,
    rng: np.random.Generator,
) -> None:
    """Fits the model in place; the rate falls to a tenth over the epochs."""
    model.mu[0] = rating.mean()
    for epoch in range(epochs):
        now = rate * 0.1 ** (epoch / max(epochs - 1, 1))
        squares = descend(
            rng.permutation(len(rating)), user, item, rating, model.mu, model.user_bias, model.item_bias, model.users,
            model.items, model.weights, now, shrink_bias, shrink,
        )  # fmt: skip
        model.noise[0] = squares / len(rating)


def fit_more(
    model: Factors,
    user: NDArray[np.int64],
    item: NDArray[np.int64],
    rating: Floats64,
    *,
    rate: float,
    shrink_bias: float,
    shrink: float,
    rng: np.random.Generator,
) -> None:
    """One pass over new ratings in random order, the model changed in place; its mean and its noise stay."""
    mu = model.mu.copy()
    descend(
        rng.permutation(len(rating)), user, item, rating, mu, model.user_bias, model.item_bias, model.users,
        model.items, model.weights, rate, shrink_bias, shrink,
    )  # fmt: skip
