"""Rank statistics agree with SciPy, also with ties, and say NaN where there is nothing to compare."""

from __future__ import annotations

import math

import numpy as np
import pytest

from recsim_llm.metrics.rank_correlation import auc, kendall_tau, ranks, spearman


@pytest.mark.parametrize("levels", [3, 1_000])
def test_all_equal_scipy(levels: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.Generator(np.random.PCG64(5))
    for _ in range(20):
        x, y = rng.integers(0, levels, (2, 14))
        np.testing.assert_array_equal(ranks(x), stats.rankdata(x))
        assert kendall_tau(x, y) == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)
        assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
        chosen = np.arange(14) < 5
        above = stats.mannwhitneyu(x[chosen], x[~chosen]).statistic
        assert auc(x, chosen) == pytest.approx(above / (5 * 9), abs=1e-12)


def test_order_alone_counts() -> None:
    x = np.random.Generator(np.random.PCG64(6)).normal(size=9)
    for measure in (kendall_tau, spearman):
        assert measure(x, np.exp(x)) == pytest.approx(1.0)
        assert measure(x, -x) == pytest.approx(-1.0)
    assert auc(x, x > np.median(x)) == 1.0


def test_ranks_by_hand() -> None:
    assert ranks([3.0, 1.0, 3.0, 7.0, 2.0]).tolist() == [3.5, 1.0, 3.5, 5.0, 2.0]


def test_a_measure_that_says_nothing_agrees_with_nothing() -> None:
    for measure in (kendall_tau, spearman):
        assert math.isnan(measure([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]))
        assert math.isnan(measure([1.0], [2.0]))
        assert math.isnan(measure([], []))
    assert math.isnan(auc([1.0, 2.0], np.array([True, True])))
