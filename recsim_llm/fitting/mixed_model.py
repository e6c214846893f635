"""The mixed model behind calibration: biases, text and latent factors by variational empirical Bayes.

    y(u, i) = mu + b_u + b_i + w_u . x_i + l_u . m_i + e        e ~ N(0, s2)
    b_i = v . x_i + q_i        q_i ~ N(0, t2), v ~ N(0, .)      item: what its text predicts, and a residual
    b_u ~ N(0, .)                                               user's general level
    w_u = A p_u + r_u          r_u ~ N(0, S), S diagonal        taste: what the persona predicts, and a residual
    l_u ~ N(0, f), m_i ~ N(0, 1) in R^F                         what no text explains

Fitted by coordinate-wise variational Bayes: each block's posterior is Gaussian (ridge regression given the others), and
the variances are set to what the posteriors say they are (empirical Bayes), except f, which the caller chooses on
held-out data. The posterior covariances of the factors enter each other's equations; without them factors fit noise
(Lim and Teh 2007, Variational Bayesian approach to movie rating prediction; the ridge part is Henderson's mixed model).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsim_llm.worlds.catalog import FACTORS

Array = NDArray[np.float64]
Index = NDArray[np.int64]

_FLOOR = 1e-9
_CHUNK = 2048


@dataclass(frozen=True)
class ModelTerms:
    """Which terms of the mixed model are fitted.

    Attributes:
        item_text: Whether an item's text predicts its appeal (v).
        taste: Whether users have taste in the space of encodings (w_u).
        factors: Variance of l_u . m_i as a share of the noise's; 0 leaves factors out.
        sweeps: Passes over all blocks.
    """

    item_text: bool = False
    taste: bool = False
    factors: float = 0.0
    sweeps: int = 10


@dataclass(frozen=True, eq=False)
class Observations:
    """N ratings sorted by user, with the bounds of each user's and each item's rows.

    Attributes:
        user: [N] index of the user.
        item: [N] index of the item.
        value: [N] what was observed.
        users: U.
        items: I.
    """

    user: Index
    item: Index
    value: Array
    users: int
    items: int
    user_bounds: Index = field(init=False)
    by_item: Index = field(init=False)
    item_bounds: Index = field(init=False)

    def __post_init__(self) -> None:
        order = np.lexsort((self.item, self.user))
        for name in ("user", "item", "value"):
            object.__setattr__(self, name, getattr(self, name)[order])
        by_item = np.argsort(self.item, kind="stable")
        object.__setattr__(self, "user_bounds", np.searchsorted(self.user, np.arange(self.users + 1)))
        object.__setattr__(self, "by_item", by_item)
        object.__setattr__(self, "item_bounds", np.searchsorted(self.item[by_item], np.arange(self.items + 1)))

    def __len__(self) -> int:
        return len(self.value)


@dataclass(eq=False)
class MixedModelFit:
    """A fitted mixed model: posterior means and covariances of its terms, and the variances.

    Attributes:
        mu: Mean of the observations.
        bias: [U] b_u.
        taste: [U, D] w_u.
        text_weight: [D] v.
        item_residual: [I] q_i.
        user_factors: [U, F] l_u.
        item_factors: [I, F] m_i.
        persona_map: [D, D] A; zero without personas.
        noise: s2.
        item_variance: t2.
        bias_variance: Variance of b_u.
        taste_variance: [D] diagonal of S.
        factor_variance: f, variance of each coordinate of l_u.
    """

    mu: float
    bias: Array
    taste: Array
    text_weight: Array
    item_residual: Array
    user_factors: Array
    item_factors: Array
    persona_map: Array
    noise: float
    item_variance: float
    bias_variance: float
    taste_variance: Array
    factor_variance: float = 0.0
    user_covariance: Array | None = None  # [U, F, F]
    item_covariance: Array | None = None  # [I, F, F]
    text_variance: float = 1.0
    map_variance: float = 1.0

    def appeal(self, x: Array) -> Array:
        """Item appeal b_i, [I]."""
        return np.asarray(x @ self.text_weight + self.item_residual)

    def predict(self, user: Index, item: Index, x: Array) -> Array:
        """Expected value of each (user, item), [N]."""
        return np.asarray(sum(self.terms(user, item, x).values()) + self.mu)

    def terms(self, user: Index, item: Index, x: Array) -> dict[str, Array]:
        """The four terms of each (user, item), [N] each."""
        return {
            "user": self.bias[user],
            "item": self.appeal(x)[item],
            "text": paired_dots(self.taste, x, user, item),
            "factors": paired_dots(self.user_factors, self.item_factors, user, item),
        }


def paired_dots(left: Array, right: Array, rows: Index, columns: Index) -> Array:
    """Dot products left[rows[n]] . right[columns[n]] for each n, in chunks."""
    out = np.empty(len(rows))
    for start in range(0, len(rows), 1 << 16):
        part = slice(start, start + (1 << 16))
        out[part] = np.einsum("nd,nd->n", left[rows[part]], right[columns[part]])
    return out


def fit_mixed_model(
    sample: Observations, x: Array, terms: ModelTerms, *, p: Array | None = None, start: MixedModelFit | None = None
) -> MixedModelFit:
    """Fits the mixed model to ratings.

    Args:
        sample: The observations.
        x: [I, D] encodings of the items.
        terms: Which terms to fit.
        p: [U, D] encodings of the personas; zeros for a user without.
        start: A fit with fewer terms to start from; it is not changed.
    """
    state = dataclasses.replace(start) if start is not None else _begin(sample, x)
    if terms.factors:
        _begin_factors(state, sample, terms.factors)
    people = p if p is not None and np.any(p) else None
    other = paired_dots(state.user_factors, state.item_factors, sample.user, sample.item)
    for _ in range(terms.sweeps):
        by_text = paired_dots(state.taste, x, sample.user, sample.item)
        uncertain = _items(state, sample, x, terms, sample.value - state.mu - state.bias[sample.user] - by_text - other)
        appeal = state.appeal(x)[sample.item]
        if terms.taste:
            uncertain += _tastes(state, sample, x, people, sample.value - state.mu - appeal - other)
        else:
            uncertain += _biases(state, sample, sample.value - state.mu - appeal - other)
        rest = sample.value - state.mu - appeal - state.bias[sample.user]
        rest -= paired_dots(state.taste, x, sample.user, sample.item)
        if terms.factors:
            uncertain += _factors(state, sample, rest)
            other = paired_dots(state.user_factors, state.item_factors, sample.user, sample.item)
        state.noise = max(float(np.sum((rest - other) ** 2) + uncertain) / len(sample), _FLOOR)
    return state


def _begin(sample: Observations, x: Array) -> MixedModelFit:
    width = x.shape[1]
    length = max(float(np.sum(x * x)) / len(x), _FLOOR)
    variance = max(float(sample.value.var()), _FLOOR)
    return MixedModelFit(
        mu=float(sample.value.mean()),
        bias=np.zeros(sample.users),
        taste=np.zeros((sample.users, width)),
        text_weight=np.zeros(width),
        item_residual=np.zeros(sample.items),
        user_factors=np.zeros((sample.users, FACTORS)),
        item_factors=np.zeros((sample.items, FACTORS)),
        persona_map=np.zeros((width, width)),
        noise=0.7 * variance,
        item_variance=0.2 * variance,
        bias_variance=0.2 * variance,
        taste_variance=np.full(width, 0.15 * variance / length),
        text_variance=variance,
        map_variance=variance,
    )


def _begin_factors(state: MixedModelFit, sample: Observations, share: float) -> None:
    rng = np.random.Generator(np.random.PCG64(0))  # a start off the saddle at zero; any start does
    state.factor_variance = share * state.noise / FACTORS
    state.item_factors = 0.5 * rng.standard_normal((sample.items, FACTORS))
    state.item_factors[np.diff(sample.item_bounds) == 0] = 0.0
    state.item_covariance = np.broadcast_to(np.eye(FACTORS), (sample.items, FACTORS, FACTORS))


def _items(state: MixedModelFit, sample: Observations, x: Array, terms: ModelTerms, rest: Array) -> float:
    """Updates v, q and their variances; returns the posterior variance summed over observations."""
    count = np.diff(sample.item_bounds).astype(np.float64)
    total = np.bincount(sample.item, rest, sample.items)
    met = count > 0
    if terms.item_text:
        weight = np.where(met, 1 / (state.item_variance + state.noise / np.maximum(count, 1)), 0.0)
        scaled = x * weight[:, None]
        precision = scaled.T @ x + np.eye(x.shape[1]) / state.text_variance
        state.text_weight = np.asarray(
            np.linalg.solve(precision, scaled.T @ (total / np.maximum(count, 1))), np.float64
        )
        spread = state.text_weight @ state.text_weight + np.trace(np.linalg.inv(precision))
        state.text_variance = max(float(spread) / x.shape[1], _FLOOR)
    predicted = x @ state.text_weight
    variance = 1 / (count / state.noise + 1 / state.item_variance)
    state.item_residual = variance * (total - count * predicted) / state.noise
    state.item_variance = max(float(np.mean((state.item_residual**2 + variance)[met])), _FLOOR)
    return float(variance @ count)


def _biases(state: MixedModelFit, sample: Observations, rest: Array) -> float:
    count = np.diff(sample.user_bounds).astype(np.float64)
    variance = 1 / (count / state.noise + 1 / state.bias_variance)
    state.bias = variance * np.bincount(sample.user, rest, sample.users) / state.noise
    state.bias_variance = max(float(np.mean((state.bias**2 + variance)[count > 0])), _FLOOR)
    return float(variance @ count)


def _tastes(state: MixedModelFit, sample: Observations, x: Array, p: Array | None, rest: Array) -> float:
    """Updates b_u and w_u jointly, their variances and A."""
    width = x.shape[1]
    prior = 1 / np.concatenate([[state.bias_variance], state.taste_variance])  # precision
    expected = np.zeros((sample.users, 1 + width))
    if p is not None:
        expected[:, 1:] = p @ state.persona_map.T
    features = np.concatenate([np.ones((sample.items, 1)), x], axis=1)
    posterior, square, uncertain = np.empty_like(expected), np.zeros(1 + width), 0.0
    met = np.diff(sample.user_bounds) > 0
    for first in range(0, sample.users, _CHUNK):
        chunk = range(first, min(first + _CHUNK, sample.users))
        gram = np.empty((len(chunk), 1 + width, 1 + width))
        moment = np.empty((len(chunk), 1 + width))
        for row, user in enumerate(chunk):
            rows = slice(sample.user_bounds[user], sample.user_bounds[user + 1])
            seen = features[sample.item[rows]]
            gram[row], moment[row] = seen.T @ seen, seen.T @ rest[rows]
        part = slice(chunk.start, chunk.stop)
        covariance = np.linalg.inv(gram / state.noise + np.diag(prior))
        mean = np.einsum("upq,uq->up", covariance, moment / state.noise + expected[part] * prior)
        posterior[part] = mean
        own = (mean - expected[part]) ** 2 + np.einsum("upp->up", covariance)
        square += own[met[part]].sum(0)
        uncertain += float(np.einsum("upq,upq->", covariance, gram))
    state.bias, state.taste = posterior[:, 0], posterior[:, 1:]
    variance = np.maximum(square / max(int(met.sum()), 1), _FLOOR)
    state.bias_variance, state.taste_variance = float(variance[0]), np.asarray(variance[1:], np.float64)
    if p is not None:
        _persona_map(state, p[met], state.taste[met])
    return uncertain


def _persona_map(state: MixedModelFit, p: Array, taste: Array) -> None:
    """A, a ridge regression of tastes on personas that shrinks towards alpha I."""
    width = p.shape[1]
    centre = np.eye(width) * float(np.sum(taste * p) / max(np.sum(p * p), _FLOOR))
    gram = p.T @ p
    precision = gram[None] / state.taste_variance[:, None, None] + np.eye(width) / state.map_variance
    right = (taste - p @ centre.T).T @ p / state.taste_variance[:, None]  # [D, D], a row for each row of A
    deviation = np.linalg.solve(precision, right[:, :, None])[:, :, 0]
    spread = np.sum(deviation**2) + np.einsum("dee->", np.linalg.inv(precision))
    state.map_variance = max(float(spread) / width**2, _FLOOR)
    state.persona_map = centre + deviation


def _factors(state: MixedModelFit, sample: Observations, rest: Array) -> float:
    """Updates l_u given m_i, then m_i given l_u, each with its covariance."""
    users = _Groups(sample.user_bounds, np.arange(len(sample)), sample.item)
    items = _Groups(sample.item_bounds, sample.by_item, sample.user)
    state.user_factors, state.user_covariance, _ = _half(
        users, rest, state.item_factors, state.item_covariance, noise=state.noise, prior=1 / state.factor_variance
    )
    state.item_factors, state.item_covariance, square = _half(
        items, rest, state.user_factors, state.user_covariance, noise=state.noise, prior=1.0
    )
    means = paired_dots(state.user_factors, state.item_factors, sample.user, sample.item)
    return square - float(means @ means)


def _outer(rows: Array) -> Array:
    return np.asarray(rows[:, :, None] * rows[:, None, :])


class _Groups(NamedTuple):
    """The rows of each user, or of each item."""

    bounds: Index  # [groups + 1] where the rows of each group begin in ``order``
    order: Index  # [N] rows by group
    partner: Index  # [N] the item of each row, or the user


def _half(
    groups: _Groups, rest: Array, mean: Array, covariance: Any, *, noise: float, prior: float
) -> tuple[Array, Array, float]:
    """Ridge regression of every group's rows on its partners' factors, whose uncertainty counts too.

    Returns:
        Means [groups, F], covariances [groups, F, F], and the expected squares of l . m summed over all rows.
    """
    bounds, order, partner = groups
    count, width = len(bounds) - 1, mean.shape[1]
    upper = np.triu_indices(width)
    # Second moments of the partners, upper triangle, in single precision: this loop is bound by memory.
    second = np.asarray((covariance + _outer(mean))[:, upper[0], upper[1]], dtype=np.float32)
    out, spread, square = np.zeros((count, width)), np.empty((count, width, width)), 0.0
    first = 0
    while first < count:
        last = max(int(np.searchsorted(bounds, bounds[first] + _CHUNK, "right")) - 1, first + 1)
        rows = order[bounds[first] : bounds[last]]
        gram, moment = np.zeros((last - first, width, width)), np.zeros((last - first, width))
        filled = np.flatnonzero(np.diff(bounds[first : last + 1]))
        if len(rows):
            starts = (bounds[first:last] - bounds[first])[filled]
            sums = np.add.reduceat(second[partner[rows]], starts, axis=0)
            gram[filled[:, None], upper[0], upper[1]] = sums
            gram[filled[:, None], upper[1], upper[0]] = sums
            moment[filled] = np.add.reduceat(mean[partner[rows]] * rest[rows][:, None], starts, axis=0)
        part = slice(first, last)
        spread[part] = np.linalg.inv(gram / noise + prior * np.eye(width))
        out[part] = np.einsum("gfh,gh->gf", spread[part], moment / noise)
        square += float(np.sum(gram * (spread[part] + _outer(out[part]))))
        first = last
    return out, spread, square
