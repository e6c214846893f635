"""Draws are hashes of (seed, user, episode, step, channel): uniform, independent, in any order (RELIABILITY T10)."""

from __future__ import annotations

import itertools
import random
from typing import Any

import numba
import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray

from recsim_llm.simulator import Rules
from recsim_llm.simulator import streams as rng
from recsim_llm.simulator.simulator import Simulator
from recsim_llm.worlds.world import World

ALPHA = 1e-4
"""A correct generator fails a test of this file with this probability; seeds are fixed, so it fails always or never."""

USERS, STEPS = 1000, 1000
bits, uniform, normal, triangular, chain = rng.bits, rng.uniform, rng.normal, rng.triangular, rng.chain


@numba.njit
def stream_of(seed, episode, user):
    """The key of an episode, as the simulator makes it."""
    return chain(chain(chain(seed, 0), episode), user + 1)


@numba.njit
def table(seed, users, steps, channel, out):
    """out [users, steps]: one uniform draw for each user and step."""
    for u in range(users):
        stream = stream_of(seed, 0, u)
        for t in range(steps):
            out[u, t] = uniform(chain(stream, t + 1), channel)


@numba.njit
def words(key, count, out):
    """out [count, 64]: the bits of consecutive channels of one key."""
    for c in range(count):
        word = bits(key, c)
        for b in range(64):
            out[c, b] = (word >> np.uint64(b)) & np.uint64(1)


@pytest.fixture(scope="module")
def draws() -> NDArray[np.float32]:
    """[users, steps], a million draws of one channel."""
    out = np.empty((USERS, STEPS), np.float32)
    table(np.uint64(2024), USERS, STEPS, rng.CHOICE, out)
    return out


def uncorrelated(left: NDArray[Any], right: NDArray[Any]) -> None:
    """Correlation of two samples of independent uniforms is normal with deviation 1 / sqrt(n)."""
    a, b = left.astype(np.float64).ravel() - 0.5, right.astype(np.float64).ravel() - 0.5
    z = (a * b).sum() / (np.sqrt(len(a)) / 12)
    assert 2 * scipy.stats.norm.sf(abs(z)) > ALPHA, f"correlation {12 * (a * b).mean():+.5f}, z = {z:+.2f}"


def test_uniform(draws: NDArray[np.float32]) -> None:
    assert draws.min() > 0
    assert draws.max() < 1
    for cells in (10, 256, 4096):
        counts = np.bincount((draws.ravel().astype(np.float64) * cells).astype(int), minlength=cells)
        assert scipy.stats.chisquare(counts).pvalue > ALPHA
    assert scipy.stats.kstest(draws.ravel()[:200_000], "uniform").pvalue > ALPHA


def test_uniform_in_pairs(draws: NDArray[np.float32]) -> None:
    """Neighbouring steps and neighbouring users fill the square evenly."""
    coded = (draws.astype(np.float64) * 32).astype(int)
    for left, right in ((coded[:, :-1], coded[:, 1:]), (coded[:-1], coded[1:])):
        counts = np.bincount((32 * left + right).ravel(), minlength=1024)
        assert scipy.stats.chisquare(counts).pvalue > ALPHA


def test_the_test_sees_a_bad_generator(draws: NDArray[np.float32]) -> None:
    coded = (draws * 0.999).astype(np.float64)
    counts = np.bincount((coded.ravel() * 256).astype(int), minlength=256)
    assert scipy.stats.chisquare(counts).pvalue < ALPHA
    with pytest.raises(AssertionError, match="correlation"):
        uncorrelated(draws[:, 1:], draws[:, 1:] * np.float32(0.02) + draws[:, :-1] * np.float32(0.98))


def test_neighbours_are_uncorrelated(draws: NDArray[np.float32]) -> None:
    for lag in (1, 2, 3, 64):
        uncorrelated(draws[:, :-lag], draws[:, lag:])  # steps
        uncorrelated(draws[:-lag], draws[lag:])  # users
    others = np.empty_like(draws)
    for seed, channel in (
        (2025, rng.CHOICE),
        (2024 + 2**32, rng.CHOICE),
        (2024, rng.LEAVE),
        (2024, rng.SLOT + rng.CLICK),
    ):
        table(np.uint64(seed), USERS, STEPS, channel, others)
        uncorrelated(draws, others)


def test_slots_and_purposes_have_channels_of_their_own() -> None:
    purposes = [
        rng.CHOICE,
        rng.START,
        rng.BUDGET,
        rng.LEAVE,
        rng.CHURN,
        rng.GAP,
        rng.NOISE,
        rng.DWELL,
        rng.LIKE,
        rng.SHARE,
    ]
    purposes += [rng.CART, rng.PURCHASE, rng.RATING, rng.EXAMINE, rng.CLICK, *range(rng.CUSTOM, 32)]
    assert len(set(purposes)) == len(purposes)
    channels = [*purposes, *(rng.slot_channel(purpose, slot) for purpose in purposes for slot in range(500))]
    channels += [rng.DIFFUSE + d for d in range(256)]
    assert len(set(channels)) == len(channels)


def test_bits_are_balanced_and_independent() -> None:
    count = 100_000
    ones = np.zeros((count, 64), np.int8)
    words(np.uint64(7), count, ones)
    z = (ones.mean(0) - 0.5) * 2 * np.sqrt(count)
    assert 2 * scipy.stats.norm.sf(np.abs(z).max()) > ALPHA / 64
    signs = 2.0 * ones - 1
    correlation = signs.T @ signs / np.sqrt(count)
    np.fill_diagonal(correlation, 0)
    assert 2 * scipy.stats.norm.sf(np.abs(correlation).max()) > ALPHA / (64 * 63 / 2)


@pytest.mark.parametrize("what", ["key", "channel", "seed", "counter"])
def test_avalanche(what: str) -> None:
    """One flipped input bit flips each output bit with probability one half."""
    source = random.Random(5)
    width = {"key": 64, "seed": 64, "channel": 20, "counter": 31}[what]
    flips = np.zeros(64)
    pairs = 0
    for _ in range(200):
        key, small = source.getrandbits(64), source.getrandbits(width)
        for bit in range(width):
            if what == "key":
                words_of = [bits(np.uint64(k), 5) for k in (key, key ^ (1 << bit))]
            elif what == "seed":
                words_of = [bits(np.uint64(chain(np.uint64(k), 0)), 5) for k in (key, key ^ (1 << bit))]
            elif what == "channel":
                words_of = [bits(np.uint64(key), c) for c in (small, small ^ (1 << bit))]
            else:
                words_of = [chain(np.uint64(key), c) for c in (small, small ^ (1 << bit))]
            changed = int(words_of[0]) ^ int(words_of[1])
            flips += [(changed >> b) & 1 for b in range(64)]
            pairs += 1
    z = (flips / pairs - 0.5) * 2 * np.sqrt(pairs)
    assert 2 * scipy.stats.norm.sf(np.abs(z).max()) > ALPHA / 64


def test_keys_are_distinct() -> None:
    seeds, users, episodes, steps = (0, 1, 2, 2**32, 2**63, 2**64 - 1, 12345, 54321, 99, 100), 20, 25, 20
    keys = set()
    for seed, user, episode in itertools.product(seeds, range(users), range(episodes)):
        stream = np.uint64(stream_of(np.uint64(seed), episode, user))
        keys.update(int(chain(stream, step)) for step in range(1, steps + 1))
    assert len(keys) == len(seeds) * users * episodes * steps == 100_000


def test_order_of_visits_does_not_matter(draws: NDArray[np.float32]) -> None:
    source = random.Random(3)
    places = [(source.randrange(USERS), source.randrange(STEPS)) for _ in range(5_000)]
    for u, t in places:
        stream = np.uint64(stream_of(np.uint64(2024), 0, u))
        assert uniform(np.uint64(chain(stream, t + 1)), rng.CHOICE) == draws[u, t]


def test_normal_and_triangular() -> None:
    keys = [np.uint64(chain(np.uint64(11), n)) for n in range(100_000)]
    gauss = np.array([normal(key, 3) for key in keys])
    assert scipy.stats.kstest(gauss, "norm").pvalue > ALPHA
    assert abs(gauss.mean()) * np.sqrt(len(keys)) < scipy.stats.norm.isf(ALPHA / 2)
    flat = np.array([triangular(key, 4) for key in keys])
    shape = scipy.stats.triang(0.5, loc=-np.sqrt(6), scale=2 * np.sqrt(6))  # mean 0, variance 1
    assert scipy.stats.kstest(flat, shape.cdf).pvalue > ALPHA
    assert shape.var() == pytest.approx(1.0)


def test_lanes_have_streams_of_their_own(world: World) -> None:
    lanes = 20_000
    simulator = Simulator(world, Rules(), lanes=lanes, slate_size=1, threads=1)
    simulator.seed(np.arange(lanes, dtype=np.uint64))
    seen: set[int] = set()
    for _ in range(5):
        simulator.reset(np.ones(lanes, bool))
        seen.update(simulator.state.lane["stream"].tolist())
    assert len(seen) == 5 * lanes
    users = np.bincount(simulator.state.lane["user"], minlength=len(world.population))
    assert scipy.stats.chisquare(users).pvalue > ALPHA
    hours = simulator.state.lane["clock"] / 86400
    assert scipy.stats.kstest(hours, "uniform").pvalue > ALPHA


def test_streams_match_the_simulator(world: World) -> None:
    simulator = Simulator(world, Rules(), lanes=3, slate_size=1, threads=1)
    simulator.seed(np.array([5, 2**40, 2**64 - 1], np.uint64))
    for episode in range(3):
        simulator.reset(np.ones(3, bool))
        lane = simulator.state.lane
        expected = [int(stream_of(row["seed"], episode, int(row["user"]))) for row in lane]
        assert lane["stream"].tolist() == expected
