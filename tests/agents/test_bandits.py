"""Bandits without context and simple references against independent sources and the theory of their papers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from recsim_llm import agents
from recsim_llm.agents.bandits.cascade_ucb import down_to_click
from recsim_llm.agents.bandits.kl_ucb import upper
from recsim_llm.agents.common.sampling import (
    epsilon_greedy,
    mixture_propensity,
    plackett_luce,
    top_k_of_samples,
    top_k_random_ties,
    uniform_propensity,
    uniform_slates,
)
from recsim_llm.agents.common.top_k import top_k
from recsim_llm.agents.core.base import Agent, Transition
from recsim_llm.errors import ConfigError
from tests.tiny import tiny_env, tiny_world

# Made-up observations come from no environment, which agents say (tests/agents/test_evaluation.py).
pytestmark = pytest.mark.filterwarnings("ignore::recsim_llm.agents.core.serving_session.UnknownEnvironmentWarning")

ALPHA = 1e-4
FREE: dict[str, Any] = {"after_click": 0, "after_look": 0}
UNIT: dict[str, Any] = {"span": 1.0, **FREE}
"""Gains are from 0 to 1 and nothing rests, as in the papers."""
BANDITS = [
    "epsilon_greedy", "constant_step", "softmax", "ucb1", "kl_ucb", "thompson", "exp3", "sliding_window_ucb",
    "discounted_ucb", "discounted_thompson", "cascade_ucb",
]  # fmt: skip
Floats = NDArray[np.float64]


def rng_of(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def bandit(
    name: str, folder: Path, items: int = 5, slate_size: int = 1, seed: int = 0, lanes: int = 2, **config: Any
) -> Any:
    """An agent that knows of so many items; nothing happens in its environment."""
    place = folder / f"{items} items"
    place.mkdir(exist_ok=True)
    env = tiny_env(tiny_world(np.eye(items), np.linspace(-1, 1, items)), place, lanes=lanes, slate_size=slate_size)
    return agents.make(name, env, seed=seed, **config)


def happened(
    agent: Agent, slates: ArrayLike, gains: ArrayLike, chances: ArrayLike = 1.0, clicks: ArrayLike | None = None
) -> Transition:
    """What the agent sees when users look at all slots of slates [B, K] and these gain so much [B, K]."""
    shown, won = np.asarray(slates, np.int64), np.asarray(gains, np.float64)
    click = (won > 0).astype(np.float32) if clicks is None else np.asarray(clicks, np.float32)
    lanes = len(shown)
    rows, flags = np.zeros((lanes, agent.env_spec.width), np.float32), np.zeros(lanes, np.bool_)
    info = {"slate": shown, "click": click, "skip": 1.0 - click, "slot_reward": won.astype(np.float32)}
    chance = np.broadcast_to(np.asarray(chances, np.float64), shown.shape)
    return Transition(rows, shown, won.sum(1), rows, flags, flags, info, ~flags, propensity=chance)


def play(agent: Any, means: Floats, seed: int) -> Floats:
    """Regret [T] of one user after another on Bernoulli gains with means [T, I]."""
    rng, everything = rng_of(seed), np.ones((1, means.shape[1]), np.bool_)
    draws, regret = rng.random(len(means)), np.empty(len(means))
    for step, mean in enumerate(means):
        slates, chances = agent.explore(everything, rng)
        item = slates[0, 0]
        agent.update(happened(agent, slates, [[draws[step] < mean[item]]], chances))
        agent.num_timesteps += 1
        regret[step] = mean.max() - mean[item]
    total: Floats = np.cumsum(regret)
    return total


def regrets(name: str, folder: Path, means: Floats, runs: int, **config: Any) -> Floats:
    """Regret [T], the mean of some runs."""
    agent = [bandit(name, folder, means.shape[1], seed=run, **UNIT, **config) for run in range(runs)]
    mean: Floats = np.mean([play(one, means, seed=run) for run, one in enumerate(agent)], axis=0)
    return mean


@pytest.fixture
def log() -> list[tuple[int, float]]:
    """Every arm once, then 250 plays of five arms, whose gains are 0 or 1."""
    rng = rng_of(5)
    arms = [*range(5), *rng.integers(5, size=250).tolist()]
    return [(arm, float(rng.random() < 0.1 + 0.15 * arm)) for arm in arms]


class TestAgainstMABWiser:
    """The same log, step by step, in MABWiser."""

    def follow(self, agent: Any, policy: Any, log: list[tuple[int, float]]) -> Any:
        """Feeds both with the log; yields MABWiser's learner after every step at which it knows all arms."""
        mabwiser = pytest.importorskip("mabwiser.mab")
        other = mabwiser.MAB(list(range(5)), policy(mabwiser.LearningPolicy), seed=1)
        for step, (arm, gain) in enumerate(log):
            agent.update(happened(agent, [[arm]], [[gain]]))
            learn = other.partial_fit if step else other.fit
            learn([arm], [gain])
            if step >= 4:
                yield other

    @pytest.mark.parametrize("alpha", [0.05, 1.0])
    def test_ucb1(self, alpha: float, tmp_path: Path, log: list[tuple[int, float]]) -> None:
        agent = bandit("ucb1", tmp_path, alpha=alpha, **UNIT)
        everything = np.ones((1, 5), np.bool_)
        steps = 0
        for other in self.follow(agent, lambda kinds: kinds.UCB1(alpha), log):
            expected = other.predict_expectations()
            np.testing.assert_allclose(agent.index(), [expected[arm] for arm in range(5)], rtol=1e-12)
            if len(set(expected.values())) == 5:  # MABWiser takes the first of equals
                assert agent.explore(everything, agent.rng)[0] == other.predict()
                steps += 1
        assert steps > 200

    def test_epsilon_greedy(self, tmp_path: Path, log: list[tuple[int, float]]) -> None:
        # With hardly any shrinkage (m = 1e-6) the means are the plain ones.
        agent = bandit("epsilon_greedy", tmp_path, epsilon=0.0, epsilon_start=0.0, strength=1e-6, **FREE)
        everything = np.ones((1, 5), np.bool_)
        steps = 0
        for other in self.follow(agent, lambda kinds: kinds.EpsilonGreedy(0.0), log):
            expected = other.predict_expectations()
            np.testing.assert_allclose(agent.scores(), [expected[arm] for arm in range(5)], atol=2e-6)
            if sum(value == max(expected.values()) for value in expected.values()) == 1:
                assert agent.explore(everything, agent.rng)[0] == other.predict()
                steps += 1
        assert steps > 200

    def test_softmax(self, tmp_path: Path, log: list[tuple[int, float]]) -> None:
        agent = bandit("softmax", tmp_path, temperature=0.3, strength=1e-9, **UNIT)
        everything = np.ones((60, 5), np.bool_)
        for other in self.follow(agent, lambda kinds: kinds.Softmax(0.3), log):
            slates, chances = agent.explore(everything, agent.rng)
            expected = np.array([other._imp.arm_to_expectation[arm] for arm in range(5)])
            np.testing.assert_allclose(chances, expected[slates], rtol=1e-6)

    def test_thompson(self, tmp_path: Path, log: list[tuple[int, float]]) -> None:
        # The uniform prior Beta(1, 1): worth two looks, mean 1/2.
        agent = bandit("thompson", tmp_path, prior=2.0, mean=0.5, **UNIT)
        for other in self.follow(agent, lambda kinds: kinds.ThompsonSampling(), log):
            wins, losses = agent.beta_posterior(agent.config.prior, agent.config.mean)
            assert wins.tolist() == list(other._imp.arm_to_success_count.values())
            assert losses.tolist() == list(other._imp.arm_to_fail_count.values())


class TestArithmetic:
    """Updates against the formulas of the papers, written plainly."""

    def test_kl_bounds_are_the_roots(self) -> None:
        optimize = pytest.importorskip("scipy.optimize")
        special = pytest.importorskip("scipy.special")
        means = np.concatenate([[0.0, 1.0, 1e-12, 1e-6, 1 - 1e-9], np.linspace(0.001, 0.999, 41)])
        budgets = np.array([0.0, 1e-9, 1e-4, 0.01, 0.3, 2.0, 12.0])
        p, budget = (grid.ravel() for grid in np.meshgrid(means, budgets))

        def over(q: float, p: float, budget: float) -> float:
            return float(special.rel_entr(p, q) + special.rel_entr(1 - p, 1 - q)) - budget

        top = 1.0 - 1e-16
        expected = [
            top if over(top, *case) <= 0 else optimize.brentq(over, case[0], top, args=case, xtol=1e-14)
            for case in zip(p.tolist(), budget.tolist(), strict=True)
        ]
        np.testing.assert_allclose(upper(p, budget), expected, atol=2e-9)

    @pytest.mark.parametrize("c", [0.0, 3.0])
    def test_kl_ucb_spends_its_budget(self, c: float, tmp_path: Path, log: list[tuple[int, float]]) -> None:
        special = pytest.importorskip("scipy.special")
        agent = bandit("kl_ucb", tmp_path, c=c, **UNIT)
        for step, (arm, gain) in enumerate(log, start=1):
            agent.update(happened(agent, [[arm]], [[gain]]))
            if step > 20:
                looks, p, q = agent.counts.looks, agent.means(), agent.index()
                spent = looks * (special.rel_entr(p, q) + special.rel_entr(1 - p, 1 - q))
                action_mask = np.log(step) + c * np.log(np.log(step))
                np.testing.assert_allclose(spent[p < 1], action_mask, rtol=1e-6)

    def test_exp3_by_hand(self, tmp_path: Path) -> None:
        gamma, weights = 0.3, np.ones(5)
        agent = bandit("exp3", tmp_path, gamma=gamma, **UNIT)
        everything, rng = np.ones((1, 5), np.bool_), rng_of(3)
        for _ in range(200):
            chances = (1 - gamma) * weights / weights.sum() + gamma / 5
            slates, recorded = agent.explore(everything, rng)
            item, gain = int(slates[0, 0]), float(rng.random())
            assert recorded[0, 0] == pytest.approx(chances[item], rel=1e-6)
            agent.update(happened(agent, slates, [[gain]], recorded))
            weights[item] *= np.exp(gamma * (gain / chances[item]) / 5)
        assert weights.max() / weights.min() > 2

    def test_exp3_learns_nothing_without_probabilities(self, tmp_path: Path) -> None:
        agent = bandit("exp3", tmp_path)
        agent.update(happened(agent, [[1], [2]], [[1.0], [1.0]], np.nan))
        assert not agent.scores().any()
        agent.update(happened(agent, [[1], [2]], [[1.0], [1.0]], 0.2))
        assert np.flatnonzero(agent.scores()).tolist() == [1, 2]

    @pytest.mark.parametrize("batch", [1, 4, 50])
    def test_a_window_holds_the_last_looks(self, batch: int, tmp_path: Path) -> None:
        agent = bandit("sliding_window_ucb", tmp_path, window=10, xi=0.6, slate_size=2, **UNIT)  # 20 looks
        rng, looks = rng_of(0), np.zeros((0, 2))
        for _ in range(30):
            slates, gains = (
                rng.permuted(np.tile(np.arange(5), (batch, 1)), axis=1)[:, :2],
                rng.random((batch, 2)).round(2),
            )
            agent.update(happened(agent, slates, gains))
            looks = np.concatenate([looks, np.stack([slates.ravel(), gains.ravel()], 1)])
            items, last = looks[-20:, 0].astype(int), looks[-20:, 1]
            count = np.bincount(items, minlength=5)
            mean = np.bincount(items, weights=last, minlength=5) / np.maximum(count, 1)
            with np.errstate(divide="ignore"):
                expected = mean + np.sqrt(0.6 * np.log(min(len(looks), 20)) / count)
            np.testing.assert_allclose(agent.index(), np.where(count > 0, expected, np.inf), rtol=1e-6)

    def test_discounted_counts_are_sums_over_the_past(self, tmp_path: Path) -> None:
        bound, sampler = (
            bandit("discounted_ucb", tmp_path, memory=20.0, xi=0.6, **UNIT),
            bandit("discounted_thompson", tmp_path, memory=20.0, mean=0.5, **UNIT),
        )
        rng, past = rng_of(1), []
        for step in range(60):
            items, gains = rng.integers(5, size=(3, 1)), rng.random((3, 1)).round(2)
            for agent in (bound, sampler):
                agent.update(happened(agent, items, gains))
            past += [(step, item, gain) for item, gain in zip(items.ravel(), gains.ravel(), strict=True)]
            looks, wins = np.zeros(5), np.zeros(5)
            for then, item, gain in past:
                left = np.exp(-3 * (step - then) / 20.0)  # three users a step
                looks[item] += left
                wins[item] += left * gain
            some = looks > 0
            expected = wins[some] / looks[some] + 2 * np.sqrt(0.6 * np.log(looks.sum()) / looks[some])
            np.testing.assert_allclose(bound.index()[some], expected, rtol=1e-6)
            np.testing.assert_allclose(
                sampler.beta_posterior(sampler.config.prior, sampler.config.mean),
                [1 + wins, 1 + looks - wins],
                rtol=1e-6,
            )

    def test_cascades_are_read_down_to_the_click(self, tmp_path: Path) -> None:
        agent = bandit("cascade_ucb", tmp_path, slate_size=3, width=1.5, **UNIT)
        clicks = np.array([[0, 1, 0], [0, 0, 0], [1, 0, 0], [1, 0, 1]])
        slates = np.array([[0, 1, 2], [3, 4, 0], [1, 0, 2], [2, 3, 4]])
        step = happened(agent, slates, clicks)
        assert down_to_click(step).astype(int).tolist() == [[1, 1, 0], [1, 1, 1], [1, 0, 0], [1, 1, 1]]
        agent.update(step)
        looks, wins = np.array([2, 2, 1, 2, 2]), np.array([0, 2, 1, 0, 1])
        np.testing.assert_allclose(agent.index(), wins / looks + np.sqrt(1.5 * np.log(4) / looks))

    def test_constant_steps_come_one_after_the_other(self, tmp_path: Path) -> None:
        agent = bandit("constant_step", tmp_path, alpha=0.25, initial=0.5, slate_size=2, **FREE)
        rng, worth = rng_of(2), [0.5] * 5
        for _ in range(20):
            slates, gains = rng.permuted(np.tile(np.arange(5), (6, 1)), axis=1)[:, :2], rng.integers(0, 9, (6, 2))
            agent.update(happened(agent, slates, gains))
            for item, gain in zip(slates.ravel(), gains.ravel(), strict=True):
                worth[item] += 0.25 * (gain - worth[item])
        np.testing.assert_allclose(agent.scores(), worth)


class TestScale:
    """Gains that are not 0 or 1."""

    def test_clicks_are_left_as_they_are(self, tmp_path: Path) -> None:
        agent = bandit("ucb1", tmp_path)
        assert agent.span() == (0.0, 1.0)
        agent.update(happened(agent, [[0], [1], [2]], [[1.0], [0.0], [1.0]]))
        assert agent.span() == (0.0, 1.0)

    @pytest.mark.parametrize("shift", [0.0, -3.0])
    def test_the_second_moment_equals_the_mean(self, shift: float, tmp_path: Path) -> None:
        agent = bandit("ucb1", tmp_path)
        gains = shift + rng_of(0).exponential(20.0, (500, 1)).round() * (rng_of(1).random((500, 1)) < 0.2)
        agent.update(happened(agent, rng_of(2).integers(5, size=(500, 1)), gains))
        low, width = agent.span()
        unit = (gains - low) / width
        assert low == shift
        assert np.square(unit).mean() == pytest.approx(unit.mean())
        sums = agent.unit(agent.counts.gains, agent.counts.looks)
        assert sums.sum() == pytest.approx(unit.sum())

    @pytest.mark.parametrize("name", BANDITS)
    def test_reward_or_clicks(self, name: str, tmp_path: Path) -> None:
        # Item 1 is clicked more often, item 3 earns more.
        slates, clicks = np.tile([[1], [3]], (100, 1)), np.zeros((200, 1))
        clicks[0:160:2] = clicks[1:101:2] = 1.0
        worth = np.where(slates == 3, 9.0, 1.0) * clicks
        for gain, item in (("reward", 3), ("click", 1)):
            agent = bandit(name, tmp_path, gain=gain)
            agent.update(happened(agent, slates, worth, 0.2, clicks))
            rows = np.zeros((1, agent.env_spec.width), np.float32)
            action_mask = np.isin(np.arange(5), (1, 3))
            assert agent.predict(rows, deterministic=True, action_masks=action_mask)[0] == item, gain

    def test_other_gains_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="gain must be one of reward, click, got 'money'"):
            bandit("ucb1", tmp_path, gain="money")


class TestRegret:
    """Growth of regret on Bernoulli gains, the mean of some runs."""

    MEANS = np.tile([0.1, 0.3, 0.7], (6_000, 1))
    GAPS = np.array([0.6, 0.4])

    @staticmethod
    def power(regret: Floats) -> float:
        """Exponent of t over the last factor of eight: 0 for a constant, about 0.12 for log t, 0.5, 1."""
        return float(np.log(regret[-1] / regret[len(regret) // 8 - 1]) / np.log(8))

    @pytest.mark.parametrize(
        ("name", "config"), [("ucb1", {"alpha": 1.0}), ("thompson", {"mean": 0.5, "draws": 1}), ("kl_ucb", {})]
    )
    def test_bounds_and_samples_pay_a_logarithm(self, name: str, config: dict[str, Any], tmp_path: Path) -> None:
        regret = regrets(name, tmp_path, self.MEANS, 3, **config)
        steps = len(regret)
        # Auer et al. (2002), theorem 1; it also holds for the two that do better.
        bound = 8 * (np.log(steps) / self.GAPS).sum() + (1 + np.pi**2 / 3) * self.GAPS.sum()
        assert 0.0 < regret[-1] < bound
        assert self.power(regret) < 0.4
        # Lai and Robbins (1985): nobody who is right in the long run pays much less.
        divergence = [p * np.log(p / 0.7) + (1 - p) * np.log((1 - p) / 0.3) for p in (0.1, 0.3)]
        least = float((self.GAPS / divergence).sum() * np.log(steps))
        assert regret[-1] > 0.3 * least
        if name != "ucb1":
            assert regret[-1] < 2.5 * least

    def test_exp3_pays_a_square_root(self, tmp_path: Path) -> None:
        paid = []
        for steps in (400, 1_600, 6_000):
            means = self.MEANS[:steps]
            gamma = min(1.0, np.sqrt(3 * np.log(3) / ((np.e - 1) * 0.7 * steps)))  # corollary 3.2, the best gains 0.7 t
            paid.append(regrets("exp3", tmp_path, means, 4, gamma=float(gamma))[-1])
            assert paid[-1] < 2.63 * np.sqrt(0.7 * steps * 3 * np.log(3))
        power = np.log(paid[-1] / paid[0]) / np.log(15)
        assert 0.35 < power < 0.7

    def test_constant_epsilon_pays_for_ever(self, tmp_path: Path) -> None:
        regret = regrets("epsilon_greedy", tmp_path, self.MEANS, 4, epsilon=0.2, epsilon_start=0.2)
        slope = (regret[-1] - regret[len(regret) // 2 - 1]) / (len(regret) / 2)
        expected = 0.2 * self.GAPS.sum() / 3
        assert slope == pytest.approx(expected, rel=0.1)  # about four standard errors
        assert self.power(regret) > 0.9

    @pytest.mark.parametrize(
        ("forgets", "remembers", "config", "other"),
        [
            ("sliding_window_ucb", "ucb1", {"window": 300, "xi": 0.6}, {"alpha": 0.55}),  # 2 alpha^2 = xi
            ("discounted_ucb", "ucb1", {"memory": 300.0, "xi": 0.15}, {"alpha": 0.55}),  # 2 alpha^2 = 4 xi
            ("discounted_thompson", "thompson", {"memory": 300.0, "draws": 1}, {"draws": 1}),
            ("constant_step", "epsilon_greedy", {"alpha": 0.05, "epsilon_start": 0.1}, {"epsilon_start": 0.1}),
        ],
    )  # fmt: skip
    def test_who_forgets_wins_after_a_change(
        self, forgets: str, remembers: str, config: dict[str, Any], other: dict[str, Any], tmp_path: Path
    ) -> None:
        # The best item falls behind another that stays as it is: a long good past must be outweighed. (An item that
        # rises is found by everybody who still tries it now and then.)
        means = np.repeat([[0.9, 0.5], [0.1, 0.5]], 1_000, axis=0)
        after = [
            regret[-1] - regret[999]
            for regret in (
                regrets(forgets, tmp_path, means, 2, **config),
                regrets(remembers, tmp_path, means, 2, **other),
            )
        ]
        assert after[0] < 0.5 * after[1]


def frequencies(slates: NDArray[np.int64], chances: Floats) -> tuple[list[int], list[float]]:
    """How often each slate was drawn, and its probability, which must be the same whenever it is."""
    known: dict[tuple[int, ...], float] = {}
    for slate, chance in zip(map(tuple, slates.tolist()), chances.prod(1).tolist(), strict=True):
        assert known.setdefault(slate, chance) == pytest.approx(chance, rel=1e-9)
    counts = Counter(map(tuple, slates.tolist()))
    return [counts[slate] for slate in known], list(known.values())


class TestPropensity:
    """What is drawn has the probability that is recorded."""

    def agrees(self, slates: NDArray[np.int64], chances: Floats) -> None:
        stats = pytest.importorskip("scipy.stats")
        drawn, probable = frequencies(slates, chances)
        missing = 1.0 - sum(probable)  # slates that were never drawn
        assert -1e-9 < missing < 10 / len(slates)
        kept = np.array(probable) * len(slates) > 5
        expected = np.append(np.array(probable)[kept], 1.0 - np.array(probable)[kept].sum()) * len(slates)
        seen = np.append(np.array(drawn)[kept], len(slates) - np.array(drawn)[kept].sum())
        if expected[-1] < 5:
            seen, expected = seen[:-1], expected[:-1] * seen[:-1].sum() / expected[:-1].sum()
        assert len(seen) == 1 or stats.chisquare(seen, expected).pvalue > ALPHA

    @pytest.mark.parametrize(
        "name", ["random", "epsilon_greedy", "constant_step", "softmax", "ucb1", "thompson", "exp3"]
    )
    def test_slates_are_as_frequent_as_recorded(self, name: str, tmp_path: Path) -> None:
        agent = bandit(name, tmp_path, items=6, slate_size=2)
        if name != "ucb1":  # there only equals are drawn
            agent.update(happened(agent, np.arange(6).reshape(3, 2), [[1, 0], [1, 1], [0, 0]], 0.01))
        action_mask = np.arange(6) != 4
        rows = np.zeros((20_000, agent.env_spec.width), np.float32)
        slates, _ = agent.predict(rows, action_masks=action_mask)
        assert not (slates == 4).any()
        assert agent.propensity.shape == slates.shape
        self.agrees(slates, agent.propensity)
        assert len(np.unique(agent.propensity)) > 1

    def test_sure_choices_have_probability_one(self, tmp_path: Path) -> None:
        for name in ("recency", "best_static", "thompson"):
            agent = bandit(name, tmp_path, slate_size=2)
            agent.predict(np.zeros((3, agent.env_spec.width), np.float32), deterministic=True)
            assert agent.propensity.tolist() == [[1.0, 1.0]] * 3

    @pytest.mark.parametrize("explore", [0.0, 0.3, 1.0])
    def test_slates_that_are_uniform_or_served(self, explore: float) -> None:
        rng, action_mask = rng_of(0), np.tile(np.arange(5) != 1, (20_000, 1))
        served = np.tile([3, 0], (20_000, 1))
        slates = np.where(rng.random((20_000, 1)) < explore, uniform_slates(action_mask, 2, rng), served)
        self.agrees(slates, mixture_propensity(slates, served, action_mask, explore))

    @pytest.mark.parametrize("epsilon", [0.0, 0.4, 1.0])
    def test_slots_that_explore(self, epsilon: float) -> None:
        action_mask = np.tile(np.arange(6) != 1, (20_000, 1))
        self.agrees(*epsilon_greedy(np.tile([3, 0], (20_000, 1)), action_mask, epsilon, rng_of(0)))

    def test_slots_that_explore_on_an_empty_shelf(self) -> None:
        greedy = np.array([[2, 0, 1]])  # only 2 is allowed: nothing else can be shown
        slates, chances = epsilon_greedy(greedy, np.arange(4)[None] == 2, 1.0, rng_of(0))
        assert slates.tolist() == greedy.tolist()
        assert chances.tolist() == [[1.0, 1.0, 1.0]]

    def test_popularity_records_what_traffic_did(self, tmp_path: Path) -> None:
        agent = bandit("popularity", tmp_path, slate_size=2, explore=0.5, lanes=4_000, **FREE)
        agent.learn(4_000)
        transition = agent.interact()
        self.agrees(transition.action, transition.propensity)

    def test_uniform_slots(self) -> None:
        action_mask = np.array([[1, 1, 0, 1], [0, 0, 0, 1]], np.bool_)
        assert uniform_propensity(action_mask, 3).tolist() == [[1 / 3, 1 / 2, 1.0], [1.0, 1.0, 1.0]]


class TestDrawing:
    """Slates drawn by chance."""

    def test_softmax_is_plackett_luce_for_each_user(self) -> None:
        logits = np.array([[0.0, 1.0, 2.0, 9.0], [3.0, 1.0, 0.0, -5.0]])
        action_mask = np.array([[1, 1, 1, 0], [1, 1, 1, 1]], np.bool_)
        for seed in range(50):
            slates, chances = plackett_luce(logits, action_mask, 2, rng_of(seed))
            for row, mask, slate, chance in zip(logits, action_mask, slates, chances, strict=True):
                weights = np.exp(row) * mask
                first, second = slate
                assert chance[0] == pytest.approx(weights[first] / weights.sum())
                assert chance[1] == pytest.approx(weights[second] / (weights.sum() - weights[first]))

    def test_softmax_without_underflow(self) -> None:
        action_mask = np.tile([False, True, True], (4_000, 1))
        slates, chances = plackett_luce(np.array([0.0, -2_000.0, -2_001.0]), action_mask, 1, rng_of(0))
        likely = 1 / (1 + np.exp(-1))
        assert np.unique(chances).tolist() == pytest.approx([1 - likely, likely])
        assert (slates == 1).mean() == pytest.approx(likely, abs=0.03)

    def test_too_few_items_are_filled_up_as_everywhere(self) -> None:
        action_mask = np.arange(5)[None] == 3
        expected = top_k(np.zeros(5), action_mask, 3).tolist()
        for slates, chances in (
            top_k_random_ties(np.zeros(5), action_mask, 3, rng_of(0)),
            plackett_luce(np.zeros(5), action_mask, 3, rng_of(0)),
            top_k_of_samples(np.zeros((2, 5)), np.array([0]), action_mask, 3),
        ):
            assert slates.tolist() == expected == [[3, 0, 1]]
            assert chances.tolist() == [[1.0, 1.0, 1.0]]

    def test_ties_are_broken_for_each_user(self, tmp_path: Path) -> None:
        for name in ("ucb1", "kl_ucb", "sliding_window_ucb", "discounted_ucb", "cascade_ucb"):
            agent = bandit(name, tmp_path, items=8)
            slates, _ = agent.predict(np.zeros((500, agent.env_spec.width), np.float32))
            assert len(np.unique(slates)) == 8
            assert (agent.propensity == 1 / 8).all()

    @pytest.mark.parametrize("seed", range(5))
    def test_the_best_come_first_unless_equal(self, seed: int) -> None:
        rng = rng_of(seed)
        scores, action_mask = rng.integers(4, size=9).astype(float), rng.random((200, 9)) < 0.7
        slates, _ = top_k_random_ties(scores, action_mask, 4, rng)
        expected = top_k(scores, action_mask, 4)
        full = action_mask.sum(1) >= 4
        assert (scores[slates] == scores[expected])[full].all()
        assert all(len(set(slate)) == 4 for slate in slates.tolist())

    def test_shares_of_samples_that_agree(self) -> None:
        samples = np.array([[3, 2, 1, 0], [3, 1, 2, 0], [0, 2, 3, 1], [3, 2, 1, 0]], float)
        slates, chances = top_k_of_samples(samples, np.array([0, 1, 2]), np.ones((3, 4), np.bool_), 2)
        assert slates.tolist() == [[0, 1], [0, 2], [2, 1]]
        assert chances == pytest.approx(np.array([[3 / 4, 2 / 3], [3 / 4, 1 / 3], [1 / 4, 1.0]]))


class TestServing:
    """In environments."""

    APPEAL = np.array([-1.0, -2.0, 0.2, -0.5, -3.0, 1.5, -1.5, 0.6, -0.8, -2.5])

    @pytest.mark.parametrize("name", [*BANDITS, "best_static", "popularity"])
    def test_the_best_item_is_found(self, name: str, tmp_path: Path) -> None:
        env = tiny_env(tiny_world(np.eye(10), self.APPEAL), tmp_path)
        config = {} if name == "best_static" else FREE
        agent = agents.make(name, env, seed=1, **config).learn(6_000)
        observation, _ = env.reset(seed=99)
        assert (agent.predict(observation, deterministic=True)[0] == int(self.APPEAL.argmax())).all()

    def test_the_newest_comes_first(self, tmp_path: Path) -> None:
        agent: Any = bandit("recency", tmp_path, slate_size=2)
        released = np.array([3.0, 9.0, -1.0, 5.0, 4.0], np.float32)
        object.__setattr__(agent.env_spec.catalog, "released_at", released)
        rows = np.zeros((1, agent.env_spec.width), np.float32)
        assert agent.predict(rows, action_masks=np.arange(5) != 1)[0].tolist() == [[3, 4]]

    def test_the_static_slate_never_rests_and_popularity_does(self, tmp_path: Path) -> None:
        # Item 1 is clicked and liked more often, item 3 earns more.
        slates, clicks = np.tile([[1], [3]], (100, 1)), np.zeros((200, 1))
        clicks[0:160:2] = clicks[1:101:2] = 1.0
        shown = {}
        for name, config in (("best_static", {}), ("popularity", {"gain": "reward"}), ("popularity", {})):
            agent = bandit(name, tmp_path, **config)
            if name == "popularity":
                agent._explored = np.ones(200, np.bool_)
            happening = happened(agent, slates, np.where(slates == 3, 9.0, 1.0) * clicks, 0.2, clicks)
            happening.info["like"] = clicks.astype(np.float32)
            agent.update(happening)
            rows = np.zeros((1, agent.env_spec.width), np.float32)
            action_mask = np.isin(np.arange(5), (1, 3))
            first, state = agent.predict(rows, deterministic=True, action_masks=action_mask)
            agent.env_spec.feedback(rows)[0, 0, 0] = 1.0  # it was clicked
            rows[:, agent.env_spec.layout["context"]] = 0.5
            again, _ = agent.predict(rows, state, np.zeros(1, np.bool_), True, action_mask)
            shown[name, config.get("gain")] = [int(first[0]), int(again[0])]
        liked = shown.pop(("popularity", None))
        assert shown == {("best_static", None): [3, 3], ("popularity", "reward"): [3, 1]}
        assert liked == [1, 3]
