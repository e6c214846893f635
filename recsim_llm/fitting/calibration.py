"""Calibration: fits the preference model to ratings or clicks and measures it on held-out ones.

The model is that of :mod:`mixed_model`, on the log's own scale. Its strengths are chosen on a validation part
of each user's log; the numbers that are reported come from a test part that neither saw. Then the whole is brought to
units of utility: utility is the log-odds that this user's rating of this item is a positive one, fitted by logistic
regression of held-out ratings on the model's score.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.datasets import Interactions
from recsim_llm.errors import ConfigError, DataError
from recsim_llm.fitting.heldout import TEST, TRAIN, VALIDATION, split_log
from recsim_llm.fitting.mixed_model import MixedModelFit, ModelTerms, Observations, fit_mixed_model
from recsim_llm.metrics.ranking import user_ranking
from recsim_llm.worlds.catalog import FACTORS
from recsim_llm.worlds.preference_model import PreferenceModel, Preferences

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Say = Callable[[str], None]

FACTOR_SHARES = (0.2, 0.35, 0.7)
"""Strengths that are tried: variance of l_u . m_i as a share of the noise's."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Calibration:
    """A fitted preference model and its held-out metrics.

    Attributes:
        preferences: The arrays of users and items in units of utility [logit].
        metrics: Held-out numbers, shares of variance, strengths; plain JSON values.
        fitted: The model on the log's own scale.
    """

    preferences: Preferences
    metrics: dict[str, Any]
    fitted: MixedModelFit


def fit_preferences(
    interactions: Interactions,
    embedding: NDArray[Any],
    profile: NDArray[Any] | None = None,
    *,
    users: int | None = None,
    positive: float | None = None,
    use: str = "train",
    seed: int = 0,
    draw_unknown: bool = True,
    say: Say | None = None,
) -> Calibration:
    """Fits item appeal, users' tastes and collaborative factors to a log.

    Args:
        interactions: The log.
        embedding: [I, D] encodings of the items, in the space of the world.
        profile: [U, D] encodings of the personas in the same space; None or zeros where there are none.
        users: U, where ``profile`` is None and there are users without a row in the log.
        positive: Ratings from here on are positive; None takes 4 on scales that end at 5, else the value that divides
            the log most evenly.
        use: "train" fits the world to all but the test part of the log, so that its order can be compared with ratings
            it has not seen; "all" measures in the same way and then fits it to the whole log.
        seed: Seed of the split and of the draws.
        draw_unknown: Users without a rating get their residual from the population's spread, and items likewise; else
            they stay at what their text predicts.
        say: Is told what is being done.

    Raises:
        DataError: If the log cannot be fitted (all values alike).
        ConfigError: If an argument does not fit.
    """
    if use not in ("train", "all"):
        raise ConfigError(f'use={use!r}: is neither "train" (keep the test part unseen) nor "all"')
    x = np.asarray(embedding, dtype=np.float64)
    p = None if profile is None else np.asarray(profile, dtype=np.float64)
    people = _count_of_users(interactions, p, users)
    tell = say or (lambda text: _LOG.info("%s", text))
    log = _with_negatives(interactions, len(x), seed)
    if np.ptp(log.value) == 0:
        raise DataError(
            f"all {len(log)} values of the interactions are {log.value[0]:g}; nothing can be learnt from them"
        )
    threshold = positive_threshold(log) if positive is None else float(positive)
    if not 0 < np.mean(log.value >= threshold) < 1:
        raise ConfigError(f"positive={threshold:g}: no rating, or every rating, is that high; choose one in between")
    part = split_log(log.user, log.item, seed=seed)
    task = _Task(log, part, x, p, people, threshold)
    chosen, odds = _choose(task, tell)
    tell("fitting to all but the test part")
    fits = {name: task.fit(terms, TRAIN, VALIDATION) for name, terms in chosen.items()}
    metrics = _metrics(task, fits, chosen, odds)
    final = fits["full"]
    if use == "all":
        tell("fitting to the whole log")
        final = task.fit(chosen["full"], TRAIN, VALIDATION, TEST)
    metrics["fitted_to"] = use
    preferences = _in_logits(task, final, odds, metrics, seed if draw_unknown else None)
    return Calibration(preferences, metrics, final)


@dataclass(frozen=True, eq=False)
class _Task:
    """The log, its split and the encodings."""

    log: Interactions
    part: NDArray[np.int8]
    x: Array
    p: Array | None
    users: int
    threshold: float

    def rows(self, *parts: int) -> Index:
        return np.flatnonzero(np.isin(self.part, parts))

    def sample(self, *parts: int) -> Observations:
        rows = self.rows(*parts)
        log = self.log
        return Observations(log.user[rows], log.item[rows], log.value[rows], self.users, len(self.x))

    def fit(self, terms: ModelTerms, *parts: int) -> MixedModelFit:
        sample = self.sample(*parts)
        start = None
        if terms.factors:  # factors explain what the others leave
            first = ModelTerms(terms.item_text, terms.taste, 0.0, 15 if terms.taste else 8)
            start = fit_mixed_model(sample, self.x, first, p=self.p)
        return fit_mixed_model(sample, self.x, terms, p=self.p, start=start)

    def score(self, fitted: MixedModelFit, *parts: int) -> Array:
        rows = self.rows(*parts)
        return fitted.predict(self.log.user[rows], self.log.item[rows], self.x)

    def error(self, fitted: MixedModelFit, *parts: int) -> float:
        rows = self.rows(*parts)
        return float(np.mean((self.score(fitted, *parts) - self.log.value[rows]) ** 2)) if len(rows) else float("nan")


def _count_of_users(log: Interactions, p: Array | None, users: int | None) -> int:
    count = len(p) if p is not None else int(users or log.user.max() + 1)
    if log.user.max() >= count:
        raise ConfigError(f"the log has user number {log.user.max()}, but there are {count} users")
    return count


def _with_negatives(log: Interactions, items: int, seed: int) -> Interactions:
    """Clicks alone say nothing of what was passed over: as many items that were not met stand in for it."""
    if log.kind != "click" or np.any(log.value != 1) or len(log) == 0:
        return log
    rng = np.random.Generator(np.random.PCG64(seed))
    met = np.unique(log.user * items + log.item)
    user, item = log.user, rng.integers(0, items, len(log))
    fresh = ~np.isin(user * items + item, met)
    return Interactions(
        np.concatenate([user, user[fresh]]),
        np.concatenate([log.item, item[fresh]]),
        np.concatenate([log.value, np.zeros(int(fresh.sum()))]),
        "click",
        np.concatenate([log.time, log.time[fresh]]),
        log.dropped,
    )


def positive_threshold(log: Interactions) -> float:
    """The rating from which on an item counts as liked: 4 of 5 stars, else about the median."""
    if log.kind == "click":
        return 0.5
    values = np.unique(log.value)
    if values[-1] == 5 and values[0] < 4:
        return 4.0
    share = np.array([np.mean(log.value >= value) for value in values[1:]])
    return float(values[1:][np.argmin(np.abs(share - 0.5))])


def _choose(task: _Task, tell: Say) -> tuple[dict[str, ModelTerms], tuple[float, float]]:
    """Strengths by squared error on the validation part, and the line from scores to log-odds there."""
    train = task.sample(TRAIN)
    tell("choosing strengths: bias and text")
    bias = fit_mixed_model(train, task.x, ModelTerms(sweeps=8))
    text = fit_mixed_model(train, task.x, ModelTerms(item_text=True, taste=True, sweeps=15), p=task.p)
    use_text = not task.error(text, VALIDATION) > task.error(bias, VALIDATION)
    tell("choosing strengths: factors")
    mf, _ = _best_factors(task, train, bias, ModelTerms(sweeps=8))
    full, best = _best_factors(task, train, text if use_text else bias, ModelTerms(use_text, use_text, 0.0, 8))
    chosen = {
        "bias": ModelTerms(sweeps=8),
        "text": ModelTerms(item_text=True, taste=True, sweeps=15),
        "factors": mf,
        "full": full,
    }
    rows = task.rows(VALIDATION)
    return chosen, fit_log_odds(
        task.score(best, VALIDATION), task.log.value[rows] >= task.threshold, best, task.threshold
    )


def _best_factors(
    task: _Task, train: Observations, start: MixedModelFit, terms: ModelTerms
) -> tuple[ModelTerms, MixedModelFit]:
    best, error, fitted = terms, task.error(start, VALIDATION), start
    for share in FACTOR_SHARES:
        tried = ModelTerms(terms.item_text, terms.taste, share, 8)
        candidate = fit_mixed_model(train, task.x, tried, p=task.p, start=start)
        if task.error(candidate, VALIDATION) < error:
            best, error, fitted = tried, task.error(candidate, VALIDATION), candidate
    longer = ModelTerms(best.item_text, best.taste, best.factors, 12) if best.factors else _alone(best)
    return longer, fitted


def _alone(terms: ModelTerms) -> ModelTerms:
    return ModelTerms(terms.item_text, terms.taste, 0.0, 15 if terms.taste else 8)


def fit_log_odds(
    score: Array, liked: NDArray[np.bool_], fitted: MixedModelFit, threshold: float
) -> tuple[float, float]:
    """Logistic regression of ``liked`` on a score (Newton's method): intercept and slope.

    With too few rows the model's own noise gives them: log-odds of N(score, noise) being above the threshold, in the
    usual logistic approximation of the normal distribution.
    """
    slope = 1.702 / np.sqrt(fitted.noise)
    assumed = (float(-slope * threshold), float(slope))
    if min(liked.sum(), (~liked).sum()) < 20:
        return assumed
    centre, design = score.mean(), np.stack([np.ones(len(score)), score - score.mean()], 1)
    weight = np.array([0.0, slope])
    for _ in range(50):
        chance = 1 / (1 + np.exp(-np.clip(design @ weight, -30, 30)))
        curvature = (design * (chance * (1 - chance))[:, None]).T @ design + 1e-6 * np.eye(2)
        step = np.linalg.solve(curvature, design.T @ (liked - chance))
        weight = weight + np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-10:
            break
    if not np.isfinite(weight).all() or weight[1] <= 0:
        return assumed
    return float(weight[0] - weight[1] * centre), float(weight[1])


def _metrics(
    task: _Task, fits: dict[str, MixedModelFit], chosen: dict[str, ModelTerms], odds: tuple[float, float]
) -> dict[str, Any]:
    rows, log = task.rows(TEST), task.log
    user, item, value = log.user[rows], log.item[rows], log.value[rows]
    liked = value >= task.threshold
    scores = {name: task.score(fitted, TEST) for name, fitted in fits.items()}
    known = task.rows(TRAIN, VALIDATION)
    count = np.bincount(log.item[known], log.value[known] >= task.threshold, len(task.x))
    scores["popularity"] = count[item].astype(np.float64)
    scores["item_means"] = _item_means(task, known)[item]
    scores["random"] = np.random.Generator(np.random.PCG64(1)).random(len(rows))
    ranked = {name: user_ranking(user, liked, score) for name, score in scores.items()}
    return {
        "split": "of each user's ratings 20 % test by hash; strengths chosen on 10 %, fitted to 80 % for these numbers",
        "ratings": {"train": len(known), "test": len(rows)},
        "positive_from": task.threshold,
        "users_measured": ranked["full"].users,
        "auc": {name: _rounded(result.auc) for name, result in ranked.items()},
        "ndcg5": {name: _rounded(result.ndcg) for name, result in ranked.items()},
        "rmse": {name: _rounded(task.error(fitted, TEST) ** 0.5) for name, fitted in fits.items()},
        "shares": _shares(task, fits["full"], value),
        "strengths": {"text": chosen["full"].taste, "factors": chosen["full"].factors},
        "logits_per_point": _rounded(odds[1]),
    }


def _item_means(task: _Task, rows: Index) -> Array:
    """Means of the items' ratings, shrunk towards the overall mean by five ratings' worth."""
    log = task.log
    count = np.bincount(log.item[rows], minlength=len(task.x))
    return np.asarray(
        np.bincount(log.item[rows], log.value[rows] - log.value[rows].mean(), len(task.x)) / (count + 5.0)
    )


def _shares(task: _Task, fitted: MixedModelFit, value: Array) -> dict[str, float]:
    """Share of the held-out variance that each term explains when it joins those before it; noise is the rest."""
    if len(value) < 2 or value.var() == 0:
        return {}
    rows = task.rows(TEST)
    predicted = np.full(len(value), fitted.mu)
    out, error = {}, float(np.mean((value - predicted) ** 2))
    whole = error
    for name, term in fitted.terms(task.log.user[rows], task.log.item[rows], task.x).items():
        predicted = predicted + term
        left = float(np.mean((value - predicted) ** 2))
        out[name], error = round((error - left) / whole, 4), left
    return out | {"noise": round(error / whole, 4)}


def _rounded(value: float) -> float | None:
    """Four digits, None (null in JSON) where there was nothing to measure."""
    return round(float(value), 4) if np.isfinite(value) else None


def _in_logits(
    task: _Task, fitted: MixedModelFit, odds: tuple[float, float], metrics: dict[str, Any], seed: int | None
) -> Preferences:
    """Arrays in units of utility; who has no rating gets a draw from the population's spread (or its mean)."""
    intercept, slope = odds
    parts = (TRAIN, VALIDATION, TEST) if metrics["fitted_to"] == "all" else (TRAIN, VALIDATION)
    rows = task.rows(*parts)
    new_user = np.bincount(task.log.user[rows], minlength=task.users) == 0
    new_item = np.bincount(task.log.item[rows], minlength=len(task.x)) == 0
    bias, taste, appeal = fitted.bias.copy(), fitted.taste.copy(), fitted.appeal(task.x)
    left, right = fitted.user_factors.copy(), fitted.item_factors.copy()
    if task.p is not None:
        taste[new_user] = task.p[new_user] @ fitted.persona_map.T
    if seed is not None:
        rng = np.random.Generator(np.random.PCG64([seed, 7]))
        users, items = int(new_user.sum()), int(new_item.sum())
        bias[new_user] = rng.standard_normal(users) * np.sqrt(fitted.bias_variance)
        if metrics["strengths"]["text"]:
            taste[new_user] += rng.standard_normal((users, task.x.shape[1])) * np.sqrt(fitted.taste_variance)
        left[new_user] = rng.standard_normal((users, FACTORS)) @ _root(left[~new_user])
        right[new_item] = rng.standard_normal((items, FACTORS)) @ _root(right[~new_item])
        appeal[new_item] += rng.standard_normal(items) * np.sqrt(fitted.item_variance)
    balance = np.sqrt(slope)
    spread = slope * float(np.std(task.score(fitted, *parts)))
    metrics["utility_spread"] = _rounded(spread)
    # The choice rule brings its own logistic noise; this one is of what she thinks of the item afterwards.
    noise = slope * float(np.sqrt(fitted.noise))
    model = PreferenceModel("calibrated", intercept + slope * fitted.mu, noise, metrics["shares"])
    return Preferences(
        preference_model=model,
        appeal=(slope * appeal).astype(np.float32),
        item_factors=(balance * right).astype(np.float32),
        taste=(slope * taste).astype(np.float32),
        user_factors=(balance * left).astype(np.float32),
        bias=(slope * bias).astype(np.float32),
    )


def _root(known: Array) -> Array:
    """A square root of the second moments of known factors, for draws that are spread like them."""
    moments = known.T @ known / max(len(known), 1)
    values, vectors = np.linalg.eigh(moments)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)) @ vectors.T)
