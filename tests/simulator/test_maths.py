"""exp, log, sigmoid and the normal quantile against NumPy and SciPy, in units in the last place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.special
from numpy.typing import NDArray

from recsim_llm.simulator import maths

ULP = 2.0
EPSILON = 2.0**-23
SMALLEST_NORMAL = 2.0**-126


def values(function: Callable[[Any], Any], points: Any) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """float32 points and what a compiled function gives for each."""
    xs = np.asarray(points, np.float64).astype(np.float32)
    return xs, np.array([function(x) for x in xs], np.float64)


def ulps(seen: NDArray[np.float64], exact: NDArray[np.float64]) -> float:
    return float((np.abs(seen - exact) / np.spacing(np.abs(exact).astype(np.float32))).max())


@pytest.fixture(scope="module")
def scatter() -> NDArray[np.float64]:
    rng = np.random.Generator(np.random.PCG64(0))
    return np.concatenate([rng.uniform(-87, 87, 20_000), rng.normal(size=20_000), 0.001 * rng.normal(size=5_000)])


def test_exp(scatter: NDArray[np.float64]) -> None:
    halves = (np.arange(-4000, 4001) + 0.5) * np.log(2) / 32  # where the reduction changes its table entry
    edges = [0.0, -0.0, 1e-45, -1e-30, 87.0, -87.0, 1.0, -1.0, np.nextafter(np.float32(87), np.float32(0))]
    xs, seen = values(maths.exp, np.concatenate([scatter, halves[np.abs(halves) <= 87], edges]))
    assert ulps(seen, np.exp(xs.astype(np.float64))) <= ULP
    assert maths.exp(np.float32(0)) == 1.0


def test_exp_beyond_its_limits_is_clipped() -> None:
    _, seen = values(maths.exp, [88.0, 1e10, np.inf, -88.0, -1e10, -np.inf])
    limit = np.array([np.exp(87.0)] * 3 + [np.exp(-87.0)] * 3)
    np.testing.assert_allclose(seen, limit, rtol=EPSILON)
    assert (seen >= SMALLEST_NORMAL).all()
    assert np.isfinite(seen).all()


def test_log() -> None:
    rng = np.random.Generator(np.random.PCG64(1))
    one = np.float32(1)
    edges = [1.0, np.nextafter(one, np.float32(2)), np.nextafter(one, np.float32(0)), 2.0**-24, SMALLEST_NORMAL, 1e-45]
    edges += [3.4e38, 0.70710677, 0.70710678, 2.0, 0.5, np.e]
    near = 1 + 1e-3 * rng.normal(size=10_000)
    xs, seen = values(maths.log, np.concatenate([np.exp(rng.uniform(-87, 88, 30_000)), near, edges]))
    exact = np.log(xs.astype(np.float64))
    assert ulps(seen[exact != 0], exact[exact != 0]) <= ULP
    assert (seen[exact == 0] == 0).all()


def test_sigmoid(scatter: NDArray[np.float64]) -> None:
    xs, seen = values(maths.sigmoid, np.concatenate([scatter, [0.0, -0.0, 87.0, -87.0, 16.6, 17.4, -1e-30]]))
    assert ulps(seen, scipy.special.expit(xs.astype(np.float64))) <= ULP
    _, beyond = values(maths.sigmoid, [-np.inf, -1e9, 1e9, np.inf])
    np.testing.assert_array_less(beyond[:2], 1e-37)
    assert (beyond[2:] == 1).all()
    order = np.sort(xs)
    _, rising = values(maths.sigmoid, order)
    assert (np.diff(rising) >= 0).all()


def test_normal_quantile() -> None:
    grid = (np.arange(2**23) + 0.5) / 2**23  # every number that a uniform draw can give
    seams = [int(s * 2**23) for s in (0.075, 0.925, np.exp(-25.0))]
    chosen = np.concatenate(
        [np.arange(20_000), np.arange(0, 2**23, 211), np.arange(2**23 - 20_000, 2**23)]
        + [np.arange(max(s - 2_000, 0), s + 2_000) for s in seams]
    )
    xs, seen = values(maths.normal_quantile, grid[chosen])
    exact = scipy.special.ndtri(xs.astype(np.float64))
    large = np.abs(exact) > 0.01
    relative = np.abs(seen - exact)[large] / np.abs(exact)[large]
    assert relative.max() <= ULP * EPSILON
    middle = 2**22 + np.arange(-50_000, 50_000)
    xs, seen = values(maths.normal_quantile, grid[middle])
    assert np.abs(seen - scipy.special.ndtri(xs.astype(np.float64))).max() <= ULP * EPSILON * 0.02
    assert maths.normal_quantile(np.float32(0.5)) == 0.0
    extremes = [maths.normal_quantile(np.float32(grid[0])), maths.normal_quantile(np.float32(grid[-1]))]
    np.testing.assert_allclose(extremes, [-5.2947, 5.2947], atol=1e-3)


def test_normal_quantile_is_odd() -> None:
    points = (np.arange(0, 2**22, 4093) + 0.5) / 2**23
    _, low = values(maths.normal_quantile, points)
    _, high = values(maths.normal_quantile, 1 - points)
    np.testing.assert_array_equal(low, -high)


def test_tables_are_correctly_rounded() -> None:
    import fractions

    for j, root in enumerate(maths.ROOTS_OF_TWO):
        power = fractions.Fraction(2) ** j
        below, above = (fractions.Fraction(float(np.nextafter(root, to))) for to in (0.0, 4.0))
        middle_low = (fractions.Fraction(float(root)) + below) / 2
        middle_high = (fractions.Fraction(float(root)) + above) / 2
        assert middle_low**32 <= power <= middle_high**32
