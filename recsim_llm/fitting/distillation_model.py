"""The model of a judge's ratings: bias and taste predicted from personas, with residuals for rated users.

The mixed model of :mod:`mixed_model` without collaborative factors (a judge knows users by their texts, so
there is nothing that no text explains), with one thing more: a persona also predicts how generous its owner is. To
that end encodings get a constant in front, ``x' = (c, x)`` and ``p' = (0, p)``, and the model's own taste
``w'_u = A' p'_u + r'_u`` holds ``b_u = c w'_u0`` and ``w_u``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.fitting.mixed_model import MixedModelFit, ModelTerms, Observations, fit_mixed_model, paired_dots

Array = NDArray[np.float64]
Index = NDArray[np.int64]

SWEEPS = 15


@dataclass(frozen=True, eq=False)
class RatingModel:
    """A preference model on the judge's own rating scale.

    Attributes:
        mu: Mean of the ratings.
        appeal: [I] b_i.
        bias: [U] b_u: fitted for users with ratings, else what the persona predicts.
        taste: [U, D] w_u, likewise.
        known: [U] which users had ratings.
        noise: Variance of the ratings around the model.
        bias_variance: Of b_u around what the persona predicts.
        taste_variance: [D] of w_u around what the persona predicts.
        persona_map: [D, D] A.
        item_variance: Of b_i around what the text predicts.
        rated: [I] which items had ratings.
    """

    mu: float
    appeal: Array
    bias: Array
    taste: Array
    known: NDArray[np.bool_]
    noise: float
    bias_variance: float
    taste_variance: Array
    persona_map: Array
    item_variance: float
    rated: NDArray[np.bool_]

    def score(self, user: Index, item: Index, x: Array) -> Array:
        """Expected rating of pairs, [N]."""
        return self.mu + self.bias[user] + self.appeal[item] + paired_dots(self.taste, x, user, item)


def fit_rating_model(
    user: Index, item: Index, value: Array, x: NDArray[Any], p: NDArray[Any], *, sweeps: int = SWEEPS
) -> RatingModel:
    """Fits the rating model to a judge's ratings.

    Args:
        user: [N] positions of the users.
        item: [N] positions of the items.
        value: [N] ratings.
        x: [I, D] encodings of the items.
        p: [U, D] encodings of all personas; zeros where there is none.
        sweeps: Passes over the model's blocks.
    """
    things, people = np.asarray(x, np.float64), np.asarray(p, np.float64)
    constant = max(float(np.sqrt(np.mean(things * things))), 1e-6) * np.sqrt(things.shape[1])
    features = np.concatenate([np.full((len(things), 1), constant), things], axis=1)
    personas = np.concatenate([np.zeros((len(people), 1)), people], axis=1)
    asked = np.unique(user)  # the model need not go through the others
    sample = Observations(np.searchsorted(asked, user), item, value, len(asked), len(things))
    state = fit_mixed_model(sample, features, ModelTerms(item_text=True, taste=True, sweeps=sweeps), p=personas[asked])
    return _opened(state, features, personas, asked, constant, np.bincount(item, minlength=len(things)) > 0)


def _opened(
    state: MixedModelFit, features: Array, personas: Array, asked: Index, constant: float, rated: NDArray[np.bool_]
) -> RatingModel:
    """The model of encodings with a constant in front, written as bias and taste."""
    expected = personas @ state.persona_map.T
    bias, taste = constant * expected[:, 0], expected[:, 1:].copy()
    bias[asked] = state.bias + constant * state.taste[:, 0]
    taste[asked] = state.taste[:, 1:]
    known = np.zeros(len(personas), np.bool_)
    known[asked] = True
    return RatingModel(
        mu=state.mu,
        appeal=state.appeal(features),
        bias=bias,
        taste=taste,
        known=known,
        noise=state.noise,
        bias_variance=state.bias_variance + constant**2 * float(state.taste_variance[0]),
        taste_variance=state.taste_variance[1:],
        persona_map=state.persona_map[1:, 1:],
        item_variance=state.item_variance,
        rated=rated,
    )


def item_means(item: Index, value: Array, items: int, prior: float = 5.0) -> Array:
    """Shrunk mean ratings of items less the overall mean, [I]: the baseline of every model."""
    centred = value - value.mean()
    return np.asarray(np.bincount(item, centred, items) / (np.bincount(item, minlength=items) + prior))
