"""Scores and intervals against other implementations, formulas and frequencies."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy import stats

from recsim_llm.benchmarks.analysis import scores
from recsim_llm.errors import ConfigError

ALPHA = 1e-4  # a frequency test fails by chance once in ten thousand seeds; the seeds are fixed


def numbers(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape)


class TestIqm:
    @pytest.mark.parametrize("n", range(1, 30))
    def test_equals_scipy_trim_mean(self, n: int) -> None:
        values = numbers(n, seed=n)
        assert scores.iqm(values) == pytest.approx(stats.trim_mean(values, 0.25), abs=1e-14)

    def test_along_an_axis(self) -> None:
        values = numbers(3, 9, 4)
        np.testing.assert_allclose(scores.iqm(values, axis=1), stats.trim_mean(values, 0.25, axis=1), atol=1e-14)

    def test_outliers_do_not_move_it(self) -> None:
        assert scores.iqm([1.0, 2.0, 3.0, 1e9]) == 2.5

    def test_missing_values_are_not_counted(self) -> None:
        values = np.array([np.nan, 1.0, 2.0, np.nan, 3.0, 10.0])
        assert scores.iqm(values) == 2.5
        assert np.isnan(scores.iqm([np.nan, np.nan]))
        assert np.isnan(scores.iqm([]))


class TestNormalised:
    def test_random_is_zero_and_oracle_one_for_every_run(self) -> None:
        random, oracle = numbers(5, 3), 4 + numbers(5, 3, seed=1)
        np.testing.assert_array_equal(scores.normalised(random, random, oracle), 0.0)
        np.testing.assert_array_equal(scores.normalised(oracle, random, oracle), 1.0)
        np.testing.assert_allclose(scores.normalised((random + oracle) / 2, random, oracle), 0.5)
        assert scores.iqm(scores.normalised(oracle, random, oracle)) == 1.0

    def test_curves_use_the_references_of_their_run(self) -> None:
        curves = np.arange(12.0).reshape(2, 2, 3)
        result = scores.normalised(curves, curves[..., 0], curves[..., 2])
        np.testing.assert_allclose(result, np.broadcast_to([0.0, 0.5, 1.0], (2, 2, 3)))

    def test_no_scale_where_the_oracle_is_not_above_random(self) -> None:
        result = scores.normalised([[1.0, 1.0, 1.0]], [[2.0, 0.0, 2.0]], [[2.0, 1.0, 1.0]])
        np.testing.assert_array_equal(result, [[np.nan, 1.0, np.nan]])


class TestInterval:
    def test_coverage_on_a_known_distribution(self) -> None:
        """The interval of the mean of 30 uniform draws holds the true mean about as often as it says."""
        rng, trials, n = np.random.default_rng(11), 600, 30
        hits = 0
        for trial in range(trials):
            estimate = scores.interval(rng.uniform(size=(n, 1)), trial, lambda s: s.mean(axis=(-2, -1)), resamples=400)
            hits += estimate.low <= 0.5 <= estimate.high
        # the percentile interval is a little short for n = 30 (normal approximation: factor sqrt(29 / 30), t quantile)
        expected = 2 * stats.t.cdf(1.96 * np.sqrt((n - 1) / n), n - 1) - 1
        assert stats.binomtest(hits, trials, expected).pvalue > ALPHA
        assert hits / trials > 0.90

    def test_coverage_test_can_fail(self) -> None:
        """The same test notices intervals that are two thirds as wide."""
        assert stats.binomtest(round(600 * 0.80), 600, 0.94).pvalue < ALPHA

    def test_agrees_with_scipy_for_one_scenario(self) -> None:
        values = numbers(40, 1)
        ours = scores.interval(values, 0, lambda s: s.mean(axis=(-2, -1)), resamples=20_000)
        theirs = stats.bootstrap(
            (values[:, 0],), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
        ).confidence_interval
        assert ours.low == pytest.approx(theirs.low, abs=0.02)
        assert ours.high == pytest.approx(theirs.high, abs=0.02)
        assert ours.n == 40

    def test_resamples_keep_to_their_scenario(self) -> None:
        values = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, np.nan]])
        drawn = scores.stratified(values, 500, np.random.default_rng(0))
        assert set(np.unique(drawn[:, :, 0])) == {1.0, 2.0, 3.0}
        assert set(np.unique(drawn[:, :2, 1])) == {10.0, 20.0}
        assert np.isnan(drawn[:, 2, 1]).all()

    def test_seeded_and_only_by_its_argument(self) -> None:
        values = numbers(6, 2)
        np.random.default_rng(0)
        assert scores.interval(values, 3) == scores.interval(values, 3)
        assert scores.interval(values, 3) != scores.interval(values, 4)

    def test_nothing_to_estimate(self) -> None:
        estimate = scores.interval([[np.nan], [np.nan]], 0)
        assert estimate.n == 0
        assert estimate.text() == "–"

    def test_bad_arguments(self) -> None:
        with pytest.raises(ConfigError, match="must be"):
            scores.interval(np.zeros((2, 2, 2)), 0)
        with pytest.raises(ConfigError, match="confidence"):
            scores.interval(np.zeros((2, 2)), 0, confidence=1.0)

    def test_curve_bands_enclose_the_curve(self) -> None:
        value, low, high = scores.curve_interval(numbers(8, 5), 0)
        assert (low <= value).all()
        assert (value <= high).all()
        np.testing.assert_allclose(value, stats.trim_mean(numbers(8, 5), 0.25, axis=0))
        gap = np.vstack([numbers(8, 5), np.full((1, 5), np.nan)])
        np.testing.assert_allclose(scores.curve_interval(gap, 0)[0], value)


class TestImprovement:
    def test_equals_brute_force_and_mann_whitney(self) -> None:
        rng = np.random.default_rng(5)
        x, y = rng.integers(0, 6, (7, 3)).astype(float), rng.integers(0, 6, (4, 3)).astype(float)
        brute = np.mean(
            [
                np.mean([(a > b) + 0.5 * (a == b) for a, b in itertools.product(x[:, n], y[:, n])])
                for n in range(x.shape[1])
            ]
        )
        mann_whitney = np.mean([stats.mannwhitneyu(x[:, n], y[:, n]).statistic / 28 for n in range(3)])
        assert scores.improvement(x, y) == pytest.approx(brute, abs=1e-14)
        assert scores.improvement(x, y) == pytest.approx(mann_whitney, abs=1e-14)
        assert scores.improvement(x, y) + scores.improvement(y, x) == pytest.approx(1.0)

    def test_extremes_and_missing_runs(self) -> None:
        assert scores.improvement(np.ones((3, 2)), np.zeros((3, 2))) == 1.0
        assert scores.improvement(np.ones((3, 2)), np.ones((3, 2))) == 0.5
        assert scores.improvement([[1.0, np.nan]], [[0.0, 5.0]]) == 1.0
        assert np.isnan(scores.improvement([[np.nan]], [[1.0]]))

    def test_interval(self) -> None:
        estimate = scores.improvement_interval(0.5 + numbers(10, 2), numbers(10, 2, seed=1), 0)
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
        same = scores.improvement_interval(np.ones((3, 2)), np.zeros((3, 2)), 0)
        assert (same.low, same.high) == (1.0, 1.0)


class TestPairs:
    def test_pairing_removes_what_users_share(self) -> None:
        rng = np.random.default_rng(2)
        users = rng.normal(0, 10, (4, 200))
        x, y = users + 0.5 + rng.normal(0, 0.1, users.shape), users
        paired = scores.paired_difference(x, y, 0)
        assert paired.low < 0.5 < paired.high
        assert paired.high - paired.low < 0.05
        apart = scores.paired_difference(x, rng.permuted(y, axis=1), 0)
        assert apart.high - apart.low > 0.5

    def test_value_and_runs(self) -> None:
        x = np.array([[1.0, 2.0], [3.0, 4.0], [np.nan, np.nan]])
        estimate = scores.paired_difference(x, np.zeros((3, 2)), 0)
        assert estimate.value == 2.5
        assert estimate.n == 2
        assert scores.mean_of_episodes(x, 0).value == 2.5

    def test_shapes_must_match(self) -> None:
        with pytest.raises(ConfigError, match="equal shapes"):
            scores.paired_difference(np.zeros((2, 3)), np.zeros((3, 3)), 0)

    def test_coverage_of_the_two_level_interval(self) -> None:
        rng, hits, trials = np.random.default_rng(8), 0, 300
        for trial in range(trials):
            runs = rng.normal(1.0, 1.0, (12, 1)) + rng.normal(0.0, 2.0, (12, 20))
            estimate = scores.paired_difference(runs, np.zeros_like(runs), trial, resamples=300)
            hits += estimate.low <= 1.0 <= estimate.high
        assert stats.binomtest(hits, trials, 0.93).pvalue > ALPHA


class TestProfile:
    def test_shares_above_thresholds(self) -> None:
        values = np.array([[0.1, 0.5], [0.9, np.nan]])
        np.testing.assert_allclose(scores.profile(values, [-1.0, 0.1, 0.5, 1.0]), [1.0, 2 / 3, 1 / 3, 0.0])

    def test_falls(self) -> None:
        shares = scores.profile(numbers(9, 4), np.linspace(-3, 3, 50))
        assert (np.diff(shares) <= 0).all()
