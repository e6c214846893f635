"""The preference model finds a planted world again, shrinks what it does not know, and is measured held out."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from recsim_llm.datasets import Interactions, read_interactions, read_items
from recsim_llm.errors import ConfigError, DataError
from recsim_llm.fitting import mixed_model as mixedmodel
from recsim_llm.fitting.calibration import Calibration, fit_preferences
from recsim_llm.fitting.heldout import TEST, TRAIN, VALIDATION, split_log
from recsim_llm.fitting.mixed_model import ModelTerms, Observations, fit_mixed_model
from recsim_llm.metrics.ranking import user_ranking

MOVIELENS = os.environ.get("RECSIM_LLM_MOVIELENS")
USERS, ITEMS, WIDTH, EACH = 240, 160, 8, 36
COLD = np.arange(200, 240)
"""Users who rate nothing."""
SHY = np.arange(190, 200)
"""Users who rate twice."""


class Planted:
    """A world of known preferences and a log of it; personas tell three quarters of the variance of taste."""

    def __init__(self, seed: int = 3, noise: float = 0.7) -> None:
        rng = np.random.Generator(np.random.PCG64(seed))
        self.x = rng.standard_normal((ITEMS, WIDTH)) * np.linspace(1, 0.4, WIDTH)
        self.x /= np.abs(self.x).max()
        self.p = rng.standard_normal((USERS, WIDTH)) * 0.3
        self.persona_map = 1.5 * np.eye(WIDTH) + 0.5 * rng.standard_normal((WIDTH, WIDTH))
        self.taste = self.p @ self.persona_map.T + 0.3 * rng.standard_normal((USERS, WIDTH))
        self.appeal = self.x @ (rng.standard_normal(WIDTH) * 0.5) + 0.3 * rng.standard_normal(ITEMS)
        self.bias = 0.4 * rng.standard_normal(USERS)
        rows = []
        for user in range(USERS):
            count = 0 if user in COLD else 2 if user in SHY else EACH
            rows += [(user, item) for item in rng.permutation(ITEMS)[:count]]
        user, item = np.array(rows, np.int64).T
        exact = 3.4 + self.bias[user] + self.appeal[item] + np.sum(self.taste[user] * self.x[item], 1)
        value = np.clip(np.round(2 * (exact + noise * rng.standard_normal(len(user)))) / 2, 0.5, 5)
        self.log = Interactions(user, item, value, "rating", np.zeros(len(user)))

    def utility(self) -> np.ndarray:
        return self.bias[:, None] + self.appeal + self.taste @ self.x.T


@pytest.fixture(scope="module")
def planted() -> Planted:
    return Planted()


@pytest.fixture(scope="module")
def fitted(planted: Planted) -> Calibration:
    return fit_preferences(planted.log, planted.x, planted.p, draw_unknown=False)


def utility(calibration: Calibration, x: np.ndarray) -> np.ndarray:
    part = calibration.preferences
    return np.asarray(
        part.preference_model.mu
        + part.bias[:, None]
        + part.appeal
        + part.taste @ x.T
        + part.user_factors @ part.item_factors.T
    )


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(np.ravel(a), np.ravel(b))[0, 1])


# ------------------------------------------------------------------------------------------------------ planted worlds


def test_a_planted_world_is_recovered_better_than_by_item_means(planted: Planted, fitted: Calibration) -> None:
    auc = fitted.metrics["auc"]
    assert auc["full"] > auc["item_means"] + 0.05
    assert auc["text"] > auc["bias"] + 0.05
    assert abs(auc["random"] - 0.5) < 0.05
    warm = np.arange(190)
    assert correlation(fitted.preferences.appeal, planted.appeal) > 0.95
    assert correlation(fitted.preferences.bias[warm], planted.bias[warm]) > 0.9
    assert correlation(fitted.preferences.taste[warm], planted.taste[warm]) > 0.85
    assert correlation(utility(fitted, planted.x)[warm], planted.utility()[warm]) > 0.9


def test_personas_tell_the_taste_of_users_who_rated_nothing(planted: Planted, fitted: Calibration) -> None:
    assert correlation(fitted.fitted.persona_map, planted.persona_map) > 0.9
    assert correlation(fitted.preferences.taste[COLD], planted.taste[COLD]) > 0.75
    without = fit_preferences(planted.log, planted.x, users=USERS, draw_unknown=False)
    assert not without.preferences.taste[COLD].any()
    assert not without.preferences.bias[COLD].any()


def test_utility_is_the_log_odds_of_a_positive_rating(planted: Planted, fitted: Calibration) -> None:
    log = planted.log
    value = utility(fitted, planted.x)[log.user, log.item]
    chance = 1 / (1 + np.exp(-value))
    liked = log.value >= fitted.metrics["positive_from"]
    unseen = split_log(log.user, log.item) == TEST
    assert abs(chance[unseen].mean() - liked[unseen].mean()) < 0.03
    for low, high in ((0.1, 0.35), (0.35, 0.65), (0.65, 0.9)):
        inside = unseen & (chance > low) & (chance < high)
        assert abs(chance[inside].mean() - liked[inside].mean()) < 0.08


def test_users_with_two_ratings_stay_near_the_prior(planted: Planted, fitted: Calibration) -> None:
    state = fitted.fitted
    away = np.linalg.norm(state.taste - planted.p @ state.persona_map.T, axis=1)
    assert away[SHY].mean() < 0.35 * away[:190].mean()
    truth = np.linalg.norm(planted.taste - planted.p @ planted.persona_map.T, axis=1)
    assert away[SHY].mean() < 0.5 * truth[SHY].mean()


def test_unknown_users_and_items_are_drawn_from_the_spread_of_the_known(planted: Planted) -> None:
    keep = planted.log.item < 120
    log = Interactions(
        planted.log.user[keep], planted.log.item[keep], planted.log.value[keep], "rating", planted.log.time[keep]
    )
    drawn = fit_preferences(log, planted.x, users=USERS).preferences
    for name, rows in (("taste", COLD), ("bias", COLD)):
        values = getattr(drawn, name)
        assert 0.5 < values[rows].std() / values[:190].std() < 2
    mean = fit_preferences(log, planted.x, users=USERS, draw_unknown=False).preferences
    assert correlation(mean.appeal[120:], planted.appeal[120:]) > 0.6  # what the text predicts
    assert np.abs(drawn.appeal - mean.appeal)[:120].max() < 1e-6
    assert np.abs(drawn.appeal - mean.appeal)[120:].min() > 0


def test_factors_find_taste_that_no_text_explains() -> None:
    rng = np.random.Generator(np.random.PCG64(8))
    users, items = 150, 120
    left, right = rng.standard_normal((users, 2)), rng.standard_normal((items, 2))
    user, item = (part.astype(np.int64) for part in np.nonzero(rng.random((users, items)) < 0.35))
    value = 3 + 0.8 * np.sum(left[user] * right[item], 1) + 0.5 * rng.standard_normal(len(user))
    log = Interactions(user, item, value, "rating", np.zeros(len(user)))
    blind = rng.standard_normal((items, 4)) * 0.3  # encodings that have nothing to do with it
    metrics = fit_preferences(log, blind).metrics
    assert metrics["auc"]["full"] > metrics["auc"]["text"] + 0.15
    assert metrics["shares"]["factors"] > 0.3
    assert abs(metrics["shares"]["text"]) < 0.05
    assert sum(metrics["shares"].values()) == pytest.approx(1, abs=1e-3)


def test_clicks_alone_are_told_from_items_passed_over() -> None:
    rng = np.random.Generator(np.random.PCG64(1))
    x = rng.standard_normal((80, 4)) / 3
    taste = 6 * rng.standard_normal((60, 4))
    score = taste @ x.T + rng.logistic(size=(60, 80))
    user, item = (part.astype(np.int64) for part in np.nonzero(score > 1.5))
    log = Interactions(user, item, np.ones(len(user)), "click", np.zeros(len(user)))
    metrics = fit_preferences(log, x).metrics
    assert metrics["positive_from"] == 0.5
    assert metrics["auc"]["full"] > metrics["auc"]["popularity"] + 0.1


def test_the_same_call_gives_the_same_bits_and_the_order_of_rows_does_not_matter(planted: Planted) -> None:
    log = planted.log
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(log))
    shuffled = Interactions(log.user[order], log.item[order], log.value[order], "rating", log.time[order])
    first, again, other = (fit_preferences(each, planted.x, planted.p) for each in (log, log, shuffled))
    for name in ("appeal", "taste", "bias", "user_factors", "item_factors"):
        values = getattr(first.preferences, name)
        np.testing.assert_array_equal(values, getattr(again.preferences, name))
        np.testing.assert_allclose(values, getattr(other.preferences, name), atol=2e-3)
    assert first.metrics == again.metrics


def test_use_all_reads_the_test_part_and_reports_the_same_numbers(planted: Planted, fitted: Calibration) -> None:
    whole = fit_preferences(planted.log, planted.x, planted.p, use="all", draw_unknown=False)
    assert whole.metrics["auc"] == fitted.metrics["auc"]
    assert whole.metrics["fitted_to"] == "all"
    assert np.abs(whole.preferences.taste - fitted.preferences.taste).max() > 0.01


def test_the_test_part_is_never_read(planted: Planted, fitted: Calibration) -> None:
    log = planted.log
    unseen = split_log(log.user, log.item) == TEST
    value = np.where(unseen, 5.5 - log.value, log.value)
    upside_down = Interactions(log.user, log.item, value, "rating", log.time)
    other = fit_preferences(upside_down, planted.x, planted.p, draw_unknown=False, positive=4.0)
    np.testing.assert_array_equal(other.preferences.taste, fitted.preferences.taste)
    np.testing.assert_array_equal(other.preferences.appeal, fitted.preferences.appeal)
    assert other.metrics["auc"]["full"] < 0.5


def test_what_cannot_be_fitted_is_refused(planted: Planted) -> None:
    log = planted.log
    flat = Interactions(log.user, log.item, np.full(len(log), 3.0), "rating", log.time)
    with pytest.raises(DataError, match="are 3; nothing"):
        fit_preferences(flat, planted.x)
    with pytest.raises(ConfigError, match="positive=9"):
        fit_preferences(log, planted.x, positive=9.0)
    with pytest.raises(ConfigError, match="use='some'"):
        fit_preferences(log, planted.x, use="some")
    with pytest.raises(ConfigError, match="user number"):
        fit_preferences(log, planted.x, users=5)


def test_a_handful_of_ratings_still_makes_a_world() -> None:
    log = Interactions(np.array([0, 0, 1]), np.array([0, 1, 1]), np.array([1.0, 5.0, 4.0]), "rating", np.zeros(3))
    result = fit_preferences(log, np.eye(3, 4))
    assert result.metrics["auc"]["full"] is None
    for name in ("appeal", "taste", "bias", "user_factors", "item_factors"):
        assert np.isfinite(getattr(result.preferences, name)).all()


# ------------------------------------------------------------------------------------------------------- against others


def test_a_users_taste_is_the_ridge_solution(planted: Planted) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    log = planted.log
    sample = Observations(log.user, log.item, log.value, USERS, ITEMS)
    state = fit_mixed_model(sample, planted.x, ModelTerms(item_text=True, taste=True, sweeps=3))
    rest = sample.value - state.mu - state.appeal(planted.x)[sample.item]
    prior = np.sqrt(np.concatenate([[state.bias_variance], state.taste_variance]))
    noise = state.noise
    mixedmodel._tastes(state, sample, planted.x, None, rest)
    for user in (0, 57, int(SHY[0])):
        rows = slice(sample.user_bounds[user], sample.user_bounds[user + 1])
        design = np.c_[np.ones(len(rest[rows])), planted.x[sample.item[rows]]] * prior
        ridge = linear.Ridge(alpha=noise, fit_intercept=False).fit(design, rest[rows])
        np.testing.assert_allclose(state.taste[user], ridge.coef_[1:] * prior[1:], atol=1e-8)
        np.testing.assert_allclose(state.bias[user], ridge.coef_[0] * prior[0], atol=1e-8)


def test_an_items_residual_is_its_shrunk_mean(planted: Planted) -> None:
    log = planted.log
    sample = Observations(log.user, log.item, log.value, USERS, ITEMS)
    state = fit_mixed_model(sample, planted.x, ModelTerms(sweeps=1))
    count = np.bincount(log.item, minlength=ITEMS)
    total = np.bincount(log.item, log.value - log.value.mean(), ITEMS)
    variance = log.value.var()
    np.testing.assert_allclose(state.item_residual, total / (count + 0.7 * variance / (0.2 * variance)), atol=1e-10)


def test_ranking_against_scikit_learn_and_by_hand() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.Generator(np.random.PCG64(2))
    user, liked = rng.integers(0, 30, 600), rng.random(600) < 0.4
    score = rng.integers(0, 8, 600).astype(float)  # many ties
    aucs, gains = [], []
    for person in range(30):
        mine = user == person
        if liked[mine].all() or not liked[mine].any():
            continue
        aucs.append(metrics.roc_auc_score(liked[mine], score[mine]))
        gains.append(metrics.ndcg_score([liked[mine].astype(int)], [score[mine]], k=5))
    found = user_ranking(user, liked, score)
    assert found.auc == pytest.approx(np.mean(aucs))
    assert found.ndcg == pytest.approx(np.mean(gains))
    assert found.users == len(aucs)


def test_ranking_without_users_of_both_kinds_is_not_a_number() -> None:
    assert np.isnan(user_ranking(np.array([0, 1]), np.array([True, False]), np.array([1.0, 2.0])).auc)
    assert user_ranking(np.empty(0, np.int64), np.empty(0, bool), np.empty(0)).users == 0


# ---------------------------------------------------------------------------------------------------------------- split


def test_the_split_is_by_user_fixed_and_free_of_the_order_of_rows(planted: Planted) -> None:
    user, item = planted.log.user, planted.log.item
    part = split_log(user, item)
    for person in (0, 100, 189):
        assert np.bincount(part[user == person], minlength=3).tolist() == [26, 3, 7]
    assert (part[np.isin(user, SHY)] == TRAIN).all()
    order = np.random.Generator(np.random.PCG64(1)).permutation(len(user))
    np.testing.assert_array_equal(split_log(user[order], item[order]), part[order])
    assert (split_log(user, item, seed=1) != part).any()
    assert split_log(np.zeros(10, np.int64), np.arange(10)).tolist() == GOLDEN_SPLIT
    assert sorted(split_log(np.zeros(10, np.int64), np.zeros(10, np.int64))) == [0] * 7 + [VALIDATION] + [TEST] * 2


GOLDEN_SPLIT = [1, 0, 2, 0, 0, 2, 0, 0, 0, 0]


# ------------------------------------------------------------------------------------------------------------ MovieLens


@pytest.mark.skipif(MOVIELENS is None, reason="RECSIM_LLM_MOVIELENS names no folder of ml-latest-small")
def test_movielens_beats_item_means_on_held_out_ratings() -> None:
    from recsim_llm.encoders import encode_cached, load_text_encoder
    from recsim_llm.worlds.embedding_space import fit_projection

    folder = Path(str(MOVIELENS))
    items = read_items(folder / "movies.csv", text_columns=["title", "genres"])
    log, users = read_interactions(folder / "ratings.csv", items.item_id)
    assert (len(items), len(log), len(users)) == (9742, 100836, 610)
    encodings = encode_cached(load_text_encoder(), items.text)
    start = time.perf_counter()
    metrics = fit_preferences(log, fit_projection(encodings).apply(encodings)).metrics
    assert time.perf_counter() - start < 120
    auc = metrics["auc"]
    assert auc["full"] > auc["item_means"] + 0.03
    assert auc["text"] > auc["bias"] + 0.02
    assert auc["full"] > auc["factors"] > auc["popularity"] > auc["random"]
