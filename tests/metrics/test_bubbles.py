"""How narrow tastes and slates are, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import entropy

from recsim_llm.errors import ConfigError
from recsim_llm.metrics.filter_bubbles import effective_shown, effective_themes, narrowing


@pytest.mark.parametrize("themes", [1, 2, 7, 40])
def test_uniform_and_one_hot(themes: int) -> None:
    assert effective_themes(np.full(themes, 3.5)) == pytest.approx(themes)
    assert effective_shown(np.full(themes, 12)) == pytest.approx(themes)
    alone = np.eye(themes)[0]
    assert effective_shown(5 * alone) == pytest.approx(1.0)
    assert effective_themes(1000.0 * alone) == pytest.approx(1.0)


def test_two_themes() -> None:
    """Shares p and 1 - p: p^-p (1 - p)^-(1 - p)."""
    for p in (0.1, 0.3, 0.5):
        expected = p**-p * (1 - p) ** -(1 - p)
        assert effective_shown(np.array([100 * p, 100 * (1 - p)])) == pytest.approx(expected)
        assert effective_themes(np.log([p, 1 - p])) == pytest.approx(expected)


def test_against_scipy_with_leading_axes() -> None:
    logits = np.random.default_rng(0).normal(0, 2, (3, 4, 9)).astype(np.float32)
    shares = np.exp(logits.astype(float)) / np.exp(logits.astype(float)).sum(-1, keepdims=True)
    expected = np.exp(entropy(shares, axis=-1))
    found = effective_themes(logits)
    assert found.shape == (3, 4)
    np.testing.assert_allclose(found, expected)
    np.testing.assert_allclose(effective_themes(logits + 500.0), expected, rtol=1e-4)  # only differences matter
    np.testing.assert_allclose(effective_shown(shares * 77), expected)


def test_narrowing() -> None:
    even, two, one = np.zeros(8), np.array([0.0, 0.0, *[-1e3] * 6]), np.array([0.0, *[-1e3] * 7])
    assert narrowing(even, even) == 0.0
    assert narrowing(even, two) == pytest.approx(0.75)
    assert narrowing(even, one) == pytest.approx(1 - 1 / 8)
    assert narrowing(one, even) == pytest.approx(-7.0)
    np.testing.assert_allclose(narrowing(np.stack([even, two]), np.stack([two, two])), [0.75, 0.0], atol=1e-12)


@pytest.mark.parametrize("counts", [[0, 0], [[1, 2], [0, 0]], [3, -1]])
def test_nothing_shown(counts: list[int]) -> None:
    with pytest.raises(ConfigError, match="must have something in each row"):
        effective_shown(np.array(counts))
