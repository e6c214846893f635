"""Statistics of a comparison: normalised scores, interquartile means, intervals, probability of improvement.

Sources: R. Agarwal, M. Schwarzer, P. S. Castro, A. Courville, M. Bellemare, "Deep Reinforcement Learning at the Edge of
the Statistical Precipice", NeurIPS 2021, arXiv 2108.13264 (interquartile mean, stratified bootstrap, probability of
improvement, performance profiles); B. Efron, R. Tibshirani, "An Introduction to the Bootstrap", 1993 (percentile
interval). Everything here is a pure function of arrays; randomness comes from an explicit seed.

Arrays of scores are [S, N]: S seeds (independent runs) by N scenarios. NaN marks a run that is missing or failed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsim_llm.errors import ConfigError

Floats = NDArray[np.float64]
CONFIDENCE = 0.95
RESAMPLES = 2_000


@dataclass(frozen=True)
class Estimate:
    """A value with its interval.

    Attributes:
        value: The estimate from the data itself.
        low: Lower end of the interval.
        high: Upper end.
        n: Number of runs behind it.
    """

    value: float
    low: float
    high: float
    n: int

    def text(self, digits: int = 2) -> str:
        """As ``0.71 [0.65, 0.78]``; a dash if there is no value."""
        if not np.isfinite(self.value):
            return "–"
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def normalised(returns: ArrayLike, random: ArrayLike, oracle: ArrayLike) -> Floats:
    """Score = (agent - random) / (oracle - random): random is 0.0 and the oracle 1.0 by construction.

    The references are those of the same scenario and the same seed, which all agents share their held-out users with;
    so what a seed's users happen to be like cancels out.

    Args:
        returns: Returns of the agent [S, N] or learning curves [S, N, points].
        random: Final returns of the random agent [S, N].
        oracle: Final returns of the oracle [S, N].

    Returns:
        Scores in the shape of `returns`; NaN where the oracle is not above random: there is no scale.
    """
    values = np.asarray(returns, dtype=np.float64)
    zero, one = np.asarray(random, dtype=np.float64), np.asarray(oracle, dtype=np.float64)
    span = np.where(one > zero, one - zero, np.nan)
    extra = (...,) + (None,) * (values.ndim - zero.ndim)
    return (values - zero[extra]) / span[extra]


def iqm(values: ArrayLike, axis: int | None = None) -> Floats:
    """Interquartile mean: the mean of what is left when a quarter is cut off from either end.

    With n values, floor(n / 4) of them go at each end, as in ``scipy.stats.trim_mean(values, 0.25)``. It is steadier
    than the mean and, unlike the median, uses half of the data (Agarwal et al., section 4.3). NaN is not counted.

    Args:
        values: Numbers of any shape.
        axis: Axis to reduce; None for all.

    Returns:
        The means; NaN where nothing is left.
    """
    array = np.asarray(values, dtype=np.float64)
    array = array.reshape(-1) if axis is None else np.moveaxis(array, axis, -1)
    array = np.sort(array, axis=-1)  # NaN goes last
    count = np.sum(~np.isnan(array), axis=-1, keepdims=True)
    cut = count // 4
    place = np.arange(array.shape[-1])
    inside = (place >= cut) & (place < count - cut)
    kept = np.maximum(inside.sum(axis=-1), 1)
    total = np.where(inside, array, 0.0).sum(axis=-1)
    return np.asarray(np.where(count[..., 0] > 0, total / kept, np.nan))


def pooled_iqm(scores: Floats) -> Floats:
    """IQM over the last two axes, runs and scenarios together [..., S, N] -> [...]."""
    return iqm(scores.reshape(*scores.shape[:-2], -1), axis=-1)


def stratified(scores: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    """Resamples runs with replacement within each scenario [S, N] -> [resamples, S, N].

    Scenarios are strata: every resample holds each of them as often as the data do. NaN rows of a scenario are left
    out of the draw.
    """
    runs, scenarios = scores.shape
    drawn = np.full((resamples, runs, scenarios), np.nan)
    for column in range(scenarios):
        present = scores[~np.isnan(scores[:, column]), column]
        if present.size:
            drawn[:, : present.size, column] = rng.choice(present, size=(resamples, present.size))
    return drawn


def interval(
    scores: ArrayLike,
    seed: int,
    statistic: Callable[[Floats], Floats] = pooled_iqm,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """A statistic of scores with its percentile interval from the stratified bootstrap.

    Args:
        scores: Scores [S, N].
        seed: Seed of the resampling.
        statistic: Maps [..., S, N] to [...].
        resamples: Number of bootstrap resamples.
        confidence: Coverage of the interval.

    Raises:
        ConfigError: If the arguments are out of range.
    """
    array = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    _check(array, resamples, confidence)
    runs = int(np.max(np.sum(~np.isnan(array), axis=0), initial=0))
    if runs == 0:
        return Estimate(np.nan, np.nan, np.nan, 0)
    drawn = statistic(stratified(array, resamples, np.random.default_rng(seed)))
    low, high = _percentiles(drawn, confidence)
    return Estimate(float(statistic(array)), low, high, runs)


def curve_interval(curves: ArrayLike, seed: int, resamples: int = RESAMPLES) -> tuple[Floats, Floats, Floats]:
    """IQM of learning curves over runs with a pointwise 95 % band.

    Args:
        curves: Values [S, points] of one scenario.
        seed: Seed of the resampling; whole curves are resampled.
        resamples: Number of bootstrap resamples.

    Returns:
        Value, lower end and upper end, each [points].
    """
    array = np.asarray(curves, dtype=np.float64)
    array = array[~np.isnan(array).all(axis=1)]
    if not len(array):
        empty = np.full(np.shape(curves)[1], np.nan)
        return empty, empty, empty
    draw = np.random.default_rng(seed).integers(len(array), size=(resamples, len(array)))
    means = iqm(array[draw], axis=1)  # [resamples, points]
    half = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(means, [half, 100 - half], axis=0)
    return iqm(array, axis=0), low, high


def improvement(x: ArrayLike, y: ArrayLike) -> float:
    """Probability that a run of x beats one of y: the mean over scenarios of P(X > Y) + P(X = Y) / 2.

    Per scenario this is the Mann-Whitney U statistic over the number of pairs (Agarwal et al., section 4.3).

    Args:
        x: Scores [S, N].
        y: Scores [S', N].

    Returns:
        A number in [0, 1]; NaN if no scenario has both.
    """
    return float(_improvement(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)))


def _improvement(x: Floats, y: Floats) -> Floats:
    a, b = x[..., :, None, :], y[..., None, :, :]  # [..., S, S', N]
    wins = np.where(np.isnan(a) | np.isnan(b), np.nan, (a > b) + 0.5 * (a == b))
    count = np.sum(~np.isnan(wins), axis=(-3, -2))
    share = np.nansum(wins, axis=(-3, -2)) / np.where(count > 0, count, np.nan)
    used = np.sum(~np.isnan(share), axis=-1)
    return np.asarray(np.nansum(share, axis=-1) / np.where(used > 0, used, np.nan))


def improvement_interval(x: ArrayLike, y: ArrayLike, seed: int, resamples: int = RESAMPLES) -> Estimate:
    """Probability of improvement with its interval; x and y [S, N] are resampled independently by scenario."""
    a, b = np.atleast_2d(np.asarray(x, dtype=np.float64)), np.atleast_2d(np.asarray(y, dtype=np.float64))
    value = improvement(a, b)
    if np.isnan(value):
        return Estimate(np.nan, np.nan, np.nan, 0)
    rng = np.random.default_rng(seed)
    drawn = _improvement(stratified(a, resamples, rng), stratified(b, resamples, rng))
    return Estimate(value, *_percentiles(drawn, CONFIDENCE), min(len(a), len(b)))


def profile(scores: ArrayLike, thresholds: ArrayLike) -> Floats:
    """Performance profile: the share of all runs, over seeds and scenarios, whose score is above each threshold.

    Args:
        scores: Scores [S, N].
        thresholds: Thresholds [T].

    Returns:
        Shares [T], falling from at most 1 to at least 0.
    """
    values = np.asarray(scores, dtype=np.float64)
    values = values[~np.isnan(values)]
    if not values.size:
        return np.full(np.shape(thresholds), np.nan)
    return np.asarray(np.mean(values[:, None] > np.asarray(thresholds)[None, :], axis=0))


def paired_difference(x: ArrayLike, y: ArrayLike, seed: int, resamples: int = RESAMPLES) -> Estimate:
    """Mean difference x - y between episodes of the same users under common random numbers, with its interval.

    The bootstrap has two levels: runs are resampled, then episode pairs within each run; with one run, only episodes.

    Args:
        x: Episode returns [S, E] of one agent in one scenario.
        y: Episode returns [S, E] of another, row and column for the same seed and user.
        seed: Seed of the resampling.
        resamples: Number of bootstrap resamples.

    Raises:
        ConfigError: If the shapes differ, so that there are no pairs.
    """
    a, b = np.atleast_2d(np.asarray(x, dtype=np.float64)), np.atleast_2d(np.asarray(y, dtype=np.float64))
    if a.shape != b.shape:
        raise ConfigError(f"paired differences need equal shapes; these are {a.shape} and {b.shape}")
    pairs = a - b
    pairs = pairs[~np.isnan(pairs).any(axis=1)]
    runs = len(pairs)
    if not pairs.size:
        return Estimate(np.nan, np.nan, np.nan, 0)
    return Estimate(float(pairs.mean()), *_percentiles(_two_levels(pairs, seed, resamples), CONFIDENCE), runs)


def mean_of_episodes(episodes: ArrayLike, seed: int, resamples: int = RESAMPLES) -> Estimate:
    """Mean return over runs and their episodes [S, E], with a two-level bootstrap interval."""
    array = np.atleast_2d(np.asarray(episodes, dtype=np.float64))
    return paired_difference(array, np.zeros_like(array), seed, resamples)


def _two_levels(values: Floats, seed: int, resamples: int) -> Floats:
    """Means of resamples of rows, then of entries within each drawn row: [S, E] -> [resamples]."""
    rng = np.random.default_rng(seed)
    runs, episodes = values.shape
    means = np.empty(resamples)
    for start in range(0, resamples, 100):  # in blocks, for the sake of memory
        block = min(100, resamples - start)
        rows = rng.integers(runs, size=(block, runs))
        columns = rng.integers(episodes, size=(block, runs, episodes))
        means[start : start + block] = values[rows[:, :, None], columns].mean(axis=(1, 2))
    return means


def _percentiles(drawn: Floats, confidence: float) -> tuple[float, float]:
    half = 50 * (1 - confidence)
    low, high = np.nanpercentile(drawn, [half, 100 - half])
    return float(low), float(high)


def _check(scores: Floats, resamples: int, confidence: float) -> None:
    if scores.ndim != 2:
        raise ConfigError(f"scores have shape {scores.shape}; they must be [seeds, scenarios]")
    if resamples < 1 or not 0 < confidence < 1:
        raise ConfigError(f"resamples is {resamples} and confidence {confidence}; they must be above 0, and in (0, 1)")
