"""Distillation: fits the preference model to a judge's ratings of sampled (persona, item) pairs.

    sampled (persona, item) pairs -> a judge's ratings -> preference model, kind "distilled" -> a world at full speed

A language model is asked some thousand times, not at every step. What the model has learnt is measured on ratings that
it has not seen: by number of pairs, for personas that were in the fit and for personas that were not, beside the bar
that every recommender has to beat, the items' mean ratings.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from recsim_llm.datasets import Interactions
from recsim_llm.errors import ConfigError, DataError
from recsim_llm.fitting.agreement import rounded
from recsim_llm.fitting.calibration import fit_log_odds, positive_threshold
from recsim_llm.fitting.distillation_curve import PairSplit, learning_curve, split_pairs
from recsim_llm.fitting.distillation_model import RatingModel, fit_rating_model
from recsim_llm.fitting.mixed_model import MixedModelFit
from recsim_llm.judges.base import Judge
from recsim_llm.judges.pairs import pairs_of, sample_pairs
from recsim_llm.judges.ratings import rate_all
from recsim_llm.worlds.catalog import FACTORS
from recsim_llm.worlds.preference_model import PreferenceModel, Preferences
from recsim_llm.worlds.world import World

Array = NDArray[np.float64]
Say = Callable[[str], None]

SIZES = (250, 1_000, 4_000)
"""Numbers of pairs of the learning curve; the whole of the training rows comes last."""
FEWEST_RATINGS, FEWEST_USERS = 20, 4
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Distilled:
    """A preference model fitted to a judge's ratings, and its held-out metrics.

    Attributes:
        preferences: The arrays of users and items in units of utility [logit].
        metrics: What was asked, what was missing, held-out agreement by number of pairs; plain JSON values.
        fitted: The model on the judge's own scale, fitted to all ratings.
    """

    preferences: Preferences
    metrics: dict[str, Any]
    fitted: RatingModel


def distill(
    world: World,
    judge: Judge | Interactions,
    pairs: int = 4_000,
    seed: int = 0,
    unseen: float = 0.25,
    *,
    per_user: int = 10,
    sizes: Sequence[int] = SIZES,
    folder: str | None = None,
    draw_unknown: bool = True,
    progress: bool = False,
    say: Say | None = None,
) -> Distilled:
    """Fits the preference model of a world to a judge's ratings.

    Args:
        world: The world whose personas and items are rated.
        judge: Who rates; or ratings that are there already, by positions in the world.
        pairs: How many pairs of a training user and an item the judge is asked about.
        seed: Seed of the sample, of the division and of the draws.
        unseen: Share of the rated users who are held out whole while the model is measured.
        per_user: Items for each user in the sample.
        sizes: Numbers of pairs at which the model is measured.
        folder: Where ratings are stored; the cache folder if left out.
        draw_unknown: Users whom the judge was not asked about get their residual from the population's spread; else
            they stay at what their persona predicts.
        progress: Whether to show a progress bar.
        say: Is told what is being done.

    Returns:
        The model that is fitted to all ratings, and what a model that saw a part of them was measured to be.

    Raises:
        ConfigError: If an argument does not fit.
        DataError: If too few ratings came back, or all are alike.
    """
    if not 0 < unseen < 1:
        raise ConfigError(f"unseen={unseen:g}: is the share of users held out, above 0 and below 1")
    if any(size < 1 for size in sizes):
        raise ConfigError(f"sizes={list(sizes)}: numbers of pairs are at least 1")
    tell = say or (lambda text: _LOG.info("%s", text))
    if isinstance(judge, Interactions):
        log, asked = _checked(world, judge), {"judge": "ratings of a file", "asked": len(judge)}
    else:
        log, asked = _rated(world, judge, pairs, seed, per_user, folder, progress, tell)
    _refuse_poor(log)
    x, p = world.catalog.embedding, world.population.profile
    threshold = _middle(log.value)
    parts = split_pairs(log.user, unseen, seed)
    tell(f"measuring on {len(parts.seen):,} pairs of seen and {len(parts.unseen):,} of unseen personas")
    learning, part = learning_curve(log, x, p, parts, threshold, sizes, seed)
    odds = _odds(part, log, parts, np.asarray(x, np.float64), threshold)
    tell(f"fitting to all {len(log):,} ratings")
    model = fit_rating_model(log.user, log.item, log.value, x, p)
    metrics: dict[str, Any] = {
        **asked, "ratings": len(log), "users": int(model.known.sum()), "seed": seed,
        "positive_from": rounded(threshold),
        "split": f"{unseen:.0%} of the users unseen, 20 % of the others' ratings held out; the world is fitted to all",
        "curve": learning, "shares": shares(part, log, parts.unseen, np.asarray(x, np.float64)),
        "logits_per_point": rounded(odds[1]),
        "utility_spread": rounded(odds[1] * float(np.std(model.score(log.user, log.item, np.asarray(x, np.float64))))),
    }  # fmt: skip
    return Distilled(_in_logits(model, odds, metrics["shares"], seed if draw_unknown else None), metrics, model)


def distilled_world(world: World, distilled: Distilled, name: str | None = None) -> World:
    """Returns the world with the distilled preferences in place of its own.

    Collaborative factors become zero: a judge knows users by their texts. What it was not asked about (quality,
    clickbait, prices and the sensitivity to them, wallets, rules) stays as it was.
    """
    found = distilled.preferences
    catalog = dataclasses.replace(world.catalog, appeal=found.appeal, factors=found.item_factors)
    population = dataclasses.replace(world.population, taste=found.taste, factors=found.user_factors, bias=found.bias)
    return dataclasses.replace(
        world,
        name=name or f"{world.name}-distilled",
        catalog=catalog,
        population=population,
        preference_model=found.preference_model,
        metrics={"distilled": {"from": world.name, "from_hash": world.hash, **distilled.metrics}},
    )


def shares(model: RatingModel, log: Interactions, rows: NDArray[np.int64], x: Array) -> dict[str, float]:
    """Share of the variance of unseen personas' ratings that each term adds to those before it."""
    value, user, item = log.value[rows], log.user[rows], log.item[rows]
    if len(value) < 2 or value.var() == 0:
        return {}
    terms = {
        "user": model.bias[user],
        "item": model.appeal[item],
        "text": np.einsum("nd,nd->n", model.taste[user], x[item]),
    }
    predicted = np.full(len(value), model.mu)
    whole = error = float(np.mean((value - predicted) ** 2))
    out = {}
    for name, term in terms.items():
        predicted = predicted + term
        left = float(np.mean((value - predicted) ** 2))
        out[name], error = round((error - left) / whole, 4), left
    return out | {"noise": round(error / whole, 4)}


def _rated(
    world: World, judge: Judge, pairs: int, seed: int, per_user: int, folder: str | None, progress: bool, tell: Say
) -> tuple[Interactions, dict[str, Any]]:
    """Asks the judge about a sample; what it did not rate is left out and counted."""
    if not any(world.population.persona):
        raise ConfigError(f"the world {world.name!r} has no personas; a judge knows users by their texts alone")
    user, item = sample_pairs(world, pairs, seed=seed, per_user=per_user)
    verdicts = rate_all(judge, pairs_of(world, user, item), folder, tell, progress)
    value = np.array([verdict.rating for verdict in verdicts], np.float64)
    there = np.isfinite(value)
    reasons = Counter(verdict.reason or "unknown" for verdict in verdicts if verdict.missing)
    log = Interactions(user[there], item[there], value[there], "rating", np.zeros(int(there.sum())))
    return log, {
        "judge": judge.name,
        "judge_digest": judge.digest,
        "asked": len(verdicts),
        "missing": round(float(1 - there.mean()), 4),
        "missing_reasons": dict(reasons.most_common()),
    }


def _checked(world: World, log: Interactions) -> Interactions:
    for name, seen, known in (("user", log.user, len(world.population)), ("item", log.item, len(world.catalog))):
        if len(seen) and not (0 <= seen.min() and seen.max() < known):
            raise ConfigError(f"the ratings have {name} number {seen.max()}, but the world has {known} of them")
    finite = np.isfinite(log.value)
    return Interactions(log.user[finite], log.item[finite], log.value[finite], "rating", log.time[finite])


def _refuse_poor(log: Interactions) -> None:
    users = len(np.unique(log.user))
    if len(log) < FEWEST_RATINGS or users < FEWEST_USERS:
        raise DataError(
            f"{len(log)} ratings of {users} users came back; it takes at least {FEWEST_RATINGS} of {FEWEST_USERS}. "
            "Ask about more pairs, or look at why they are missing"
        )
    if np.ptp(log.value) == 0:
        raise DataError(f"all {len(log)} ratings are {log.value[0]:g}; nothing can be learnt from them")


def _middle(value: Array) -> float:
    """Ratings from here on are positive: judges keep to a part of their scale, so this is about their median."""
    log = Interactions(np.zeros(1, np.int64), np.zeros(1, np.int64), value, "rating", np.zeros(1))
    levels = np.unique(value)
    return positive_threshold(log) if len(levels) <= 20 else float(np.median(value))


def _odds(model: RatingModel, log: Interactions, parts: PairSplit, x: Array, threshold: float) -> tuple[float, float]:
    """The line from scores to log-odds of a positive rating, on held-out rows."""
    rows = np.concatenate([parts.seen[model.known[log.user[parts.seen]]], parts.unseen])
    score = model.score(log.user[rows], log.item[rows], x)
    return fit_log_odds(
        score, log.value[rows] >= threshold, cast(MixedModelFit, model), threshold
    )  # only its noise is read


def _in_logits(model: RatingModel, odds: tuple[float, float], parts: dict[str, float], seed: int | None) -> Preferences:
    """Arrays in units of utility; who was not asked about gets a draw from the spread around the persona."""
    intercept, slope = odds
    bias, taste, appeal = model.bias.copy(), model.taste.copy(), model.appeal.copy()
    if seed is not None:
        rng = np.random.Generator(np.random.PCG64([seed, 13]))
        users, items = int((~model.known).sum()), int((~model.rated).sum())
        bias[~model.known] += rng.standard_normal(users) * np.sqrt(model.bias_variance)
        taste[~model.known] += rng.standard_normal((users, taste.shape[1])) * np.sqrt(model.taste_variance)
        appeal[~model.rated] += rng.standard_normal(items) * np.sqrt(model.item_variance)
    return Preferences(
        preference_model=PreferenceModel(
            "distilled", intercept + slope * model.mu, slope * float(np.sqrt(model.noise)), parts
        ),
        appeal=(slope * appeal).astype(np.float32),
        item_factors=np.zeros((len(appeal), FACTORS), np.float32),
        taste=(slope * taste).astype(np.float32),
        user_factors=np.zeros((len(bias), FACTORS), np.float32),
        bias=(slope * bias).astype(np.float32),
    )
