"""Contextual bandits against MABWiser, scikit-learn and closed forms; the memory they share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray

from recsim_llm import agents
from recsim_llm.agents.common.cooldown import LEFT, PLACES, PLACES_PER_SLOT, RecentItems
from recsim_llm.agents.contextual import linucb_items
from recsim_llm.agents.contextual.base import RidgeRegression, Seen
from recsim_llm.agents.contextual.logistic_thompson import curvature, mode_of
from recsim_llm.agents.core.env_runner import EnvironmentSpec, Transition
from recsim_llm.errors import ConfigError, DataError

# Made-up observations come from no environment, which agents say (tests/agents/test_evaluation.py).
pytestmark = pytest.mark.filterwarnings("ignore::recsim_llm.agents.core.serving_session.UnknownEnvironmentWarning")

ALPHA = 1e-4
NAMES = ["linucb", "linucb_items", "lints", "logistic_thompson", "neural_linear", "ridge", "shortlist"]
SMALL: dict[str, dict[str, Any]] = {
    "neural_linear": {"period": 150, "rank": 4, "hidden": 8},
    "shortlist": {"warmup": 200, "shortlist": 6},
}
Build = Callable[..., Any]


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


@pytest.fixture(scope="session")
def build(world_folder: str) -> Build:
    """Makes an agent and its environment on the synthetic world, whose items come and go."""

    def made(name: str, *, slate_size: int = 3, lanes: int = 4, seed: int = 0, **env: Any) -> Any:
        if agents.get(name).needs_torch:
            pytest.importorskip("torch")
        arguments = {"world": world_folder, "slate_size": slate_size, "users": "train", "horizon": 25, **env}
        config = {**SMALL.get(name, {}), **arguments.pop("config", {})}
        return agents.make(name, gym.make_vec("recsim_llm/News-v0", num_envs=lanes, **arguments), seed=seed, **config)

    return made


def rows(agent: Any, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Observations [B, P] with something in every part."""
    return rng.uniform(-1, 1, (count, agent.env_spec.width)).astype(np.float32)


def looked(agent: Any, observation: NDArray[np.float32], items: NDArray[np.int64], reward: Any) -> Transition:
    """Slates of one [B] that everybody looked at, and what they gained [B]."""
    lanes, gained = len(items), np.asarray(reward, np.float64)
    none = np.zeros(lanes, bool)
    info = {
        "slate": items[:, None], "click": (gained[:, None] > 0).astype(np.float32), "slot_reward": gained[:, None],
        "skip": (gained[:, None] <= 0).astype(np.float32),
    }  # fmt: skip
    return Transition(observation, items[:, None], gained, observation, none, none, info, ~none)


def recorded(agent: Any, steps: int) -> list[Seen]:
    """What the agent learnt from in so many steps of users."""
    kept: list[Seen] = []
    plain = agent.seen

    def seen(transition: Transition) -> Seen:
        kept.append(plain(transition))
        return kept[-1]

    agent.seen = seen
    agent.learn(steps)
    del agent.seen
    return kept


class TestLinUCBItems:
    """One ridge regression for each item."""

    def test_it_is_mabwisers_step_by_step(self, build: Build) -> None:
        mab = pytest.importorskip("mabwiser.mab")
        agent = build("linucb_items", slate_size=1, config={"ridge": 2.0, "alpha": 0.7})
        rng, arms = generator(0), list(range(6))
        policy = mab.LearningPolicy.LinUCB(alpha=0.7, l2_lambda=2.0)
        other = mab.MAB(arms, policy)
        for step in range(60):
            observation = rows(agent, 3, rng)
            items, reward = rng.integers(0, 6, 3), rng.normal(size=3).round(2)
            agent.update(looked(agent, observation, items, reward))
            x = agent.users(observation).astype(np.float64)
            (other.fit if step == 0 else other.partial_fit)(items.tolist(), reward, x)
            if step < 10:
                continue  # MABWiser's inverse for an arm without data is the matrix itself
            for arm in arms:
                model = other._imp.arm_to_model[arm]
                assert agent.inverse[arm] == pytest.approx(model.A_inv, abs=1e-9)
                assert agent.theta[arm] == pytest.approx(model.beta, abs=1e-9)
            if step % 10:
                continue
            bounds = agent.bounds(agent.users(observation), 0.7)
            expected = [[row[arm] for arm in arms] for row in other.predict_expectations(x)]
            assert bounds[:, :6] == pytest.approx(np.array(expected), abs=1e-5)

    def test_it_shows_the_highest_bounds(self, build: Build) -> None:
        agent = build("linucb_items", slate_size=2, config={"after_click": 0, "after_look": 0})
        agent.learn(400)
        observation = rows(agent, 5, generator(1))
        everything = np.ones((5, agent.env_spec.items), bool)
        for deterministic, alpha in ((True, 0.0), (False, agent.config.alpha)):
            slates, _ = agent.predict(observation, deterministic=deterministic, action_masks=everything)
            scores = agent.bounds(agent.users(observation), alpha) + agent.ties
            assert (slates == np.argsort(-scores, axis=1)[:, :2]).all()

    def test_too_many_numbers_are_refused(self, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(linucb_items, "MOST_NUMBERS", 10_000)
        with pytest.raises(ConfigError, match="take linucb, which shares one model"):
            build("linucb_items")
        assert build("linucb_items", config={"width": 0}).theta.shape[1] == 11


class TestRidgeRegression:
    """The algebra of the shared model."""

    @staticmethod
    def log(seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        rng = generator(seed)
        phi = rng.normal(size=(120, 7)).astype(np.float32)
        return phi, (phi @ rng.normal(size=7) + rng.normal(size=120)).astype(np.float32)

    def test_linucb_is_mabwisers_step_by_step(self) -> None:
        mab = pytest.importorskip("mabwiser.mab")
        phi, reward = self.log(0)
        model, other = RidgeRegression(7, 1.5, 0.0), mab.MAB([0], mab.LearningPolicy.LinUCB(alpha=0.4, l2_lambda=1.5))
        for start in range(0, 120, 5):
            part = slice(start, start + 5)
            model.add(phi[part], reward[part])
            (other.fit if start == 0 else other.partial_fit)([0] * 5, reward[part], phi[part].astype(np.float64))
            theirs = other._imp.arm_to_model[0]
            assert model.root.T @ model.root == pytest.approx(theirs.A_inv, abs=1e-5)
            assert model.theta == pytest.approx(theirs.beta, abs=1e-5)
            bounds = phi @ model.theta + 0.4 * model.widths(phi)
            expected = [row[0] for row in other.predict_expectations(phi.astype(np.float64))]
            assert bounds == pytest.approx(np.array(expected), abs=1e-4)

    def test_draws_are_those_of_mabwisers_lints(self) -> None:
        mab, stats = pytest.importorskip("mabwiser.mab"), pytest.importorskip("scipy.stats")
        phi, reward = self.log(1)
        model, other = (
            RidgeRegression(7, 1.5, 0.0),
            mab.MAB([0], mab.LearningPolicy.LinTS(alpha=0.6, l2_lambda=1.5), seed=3),
        )
        model.add(phi, reward)
        other.fit([0] * 120, reward, phi.astype(np.float64))
        theirs = other._imp.arm_to_model[0]
        draws = model.draws(4_000, 0.6, generator(2)).astype(np.float64)
        away = draws - theirs.beta
        squares = np.einsum("nd,de,ne->n", away, np.linalg.inv(0.36 * theirs.A_inv), away)
        assert stats.kstest(squares, stats.chi2(7).cdf).pvalue > ALPHA
        context = np.tile(phi[:1].astype(np.float64), (4_000, 1))
        expectations = [row[0] for row in other.predict_expectations(context)]
        assert stats.ks_2samp(draws @ context[0], expectations).pvalue > ALPHA

    def test_the_same_normals_give_the_same_draws(self) -> None:
        phi, reward = self.log(2)
        model = RidgeRegression(7, 1.5, 0.0)
        model.add(phi, reward)
        noise = generator(5).standard_normal((10, 7), np.float32)
        lower = np.linalg.cholesky(model.gram)  # A^-1 = (L^-1)^T L^-1
        expected = np.linalg.solve(model.gram, model.moment) + 0.3 * np.linalg.solve(lower.T, noise.T).T
        assert model.draws(10, 0.3, generator(5)) == pytest.approx(expected, abs=1e-5)

    def test_theta_waits_until_the_data_have_grown(self) -> None:
        phi, reward = self.log(3)
        model = RidgeRegression(7, 1.0, 0.5)
        kept = []
        for row in range(60):
            model.add(phi[row : row + 1], reward[row : row + 1])
            kept.append(model.samples[1])
        assert sorted(set(kept)) == [1, 2, 4, 7, 11, 17, 26, 40]


class TestLinTS:
    """One draw of the parameters for each user."""

    def test_every_user_is_served_by_a_draw_of_her_own(self, build: Build) -> None:
        agent = build("lints", slate_size=1, config={"scale": 0.5})
        agent.learn(400)
        observation = np.repeat(rows(agent, 1, generator(0)), 3_000, axis=0)
        everything = np.ones((3_000, agent.env_spec.items), bool)
        shown, _ = agent.predict(observation, action_masks=everything)
        assert np.isnan(agent.propensity).all()
        episode_start = np.ones(3_000, bool)
        every = np.arange(agent.env_spec.items)[None]
        phi = agent.features.of(agent.situate(observation[:1], None, episode_start[:1], everything[:1])[0], every)[0]
        mean, covariance = agent.model.theta, 0.25 * agent.model.root.T @ agent.model.root
        expected = (phi @ generator(1).multivariate_normal(mean, covariance, 3_000).T).argmax(0)
        stats = pytest.importorskip("scipy.stats")
        counts = np.array([np.bincount(items, minlength=len(phi)) for items in (shown, expected)])
        often = counts.sum(0) >= 20
        table = np.concatenate([counts[:, often], counts[:, ~often].sum(1, keepdims=True)], 1)
        assert often.sum() >= 3
        assert stats.chi2_contingency(table[:, table.sum(0) > 0]).pvalue > ALPHA


class TestRidge:
    """Supervised: uniform slates first, predictions after."""

    def test_theta_is_scikit_learns(self, build: Build) -> None:
        sklearn = pytest.importorskip("sklearn.linear_model")
        agent = build("ridge", config={"growth": 0.0, "ridge": 3.0})
        seen = recorded(agent, 600)
        phi, reward = (np.concatenate([getattr(one, name) for one in seen]) for name in ("phi", "reward"))
        other = sklearn.Ridge(alpha=3.0, fit_intercept=False, solver="cholesky")
        other.fit(phi.astype(np.float64), reward)
        assert agent.model.theta == pytest.approx(other.coef_, abs=1e-4)

    def test_what_it_gathers_is_uniform(self, build: Build) -> None:
        stats = pytest.importorskip("scipy.stats")
        agent = build("ridge", lanes=16)
        counts, chances = np.zeros(agent.env_spec.items), np.zeros(agent.env_spec.items)
        for _ in range(200):
            if not agent.runner.started:
                agent.runner.reset(seed=0)
            action_mask = agent.runner.available()
            chances += (action_mask / action_mask.sum(1, keepdims=True)).sum(0)
            transition = agent.interact()
            agent.update(transition)
            counts += np.bincount(transition.action[:, 0], minlength=len(counts))
            assert transition.propensity[:, 0] == pytest.approx(1.0 / action_mask.sum(1))
        often = chances > 5
        assert counts[chances == 0].sum() == 0
        total = counts[often].sum()
        assert stats.chisquare(counts[often], chances[often] * total / chances[often].sum()).pvalue > ALPHA

    def test_online_it_serves_while_it_learns(self, build: Build) -> None:
        agent = build("ridge", lanes=64, config={"online": True, "epsilon": 0.2})
        agent.learn(64 * 12)
        agent.config = agent.Config(online=True, epsilon=0.0)
        action_mask, before = agent.runner.available(), agent.state
        greedy, _ = agent.act(agent.runner.observation, before, agent.runner.fresh, True, action_mask, generator(0))
        transition = agent.interact()
        assert (transition.action == greedy).all()
        assert (transition.propensity == 1.0).all()


class TestLogisticThompson:
    """Laplace's approximation of a logistic regression."""

    @staticmethod
    def log(seed: int, count: int = 300) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        rng = generator(seed)
        phi = rng.normal(size=(count, 6))
        return phi, rng.random(count) < 1.0 / (1.0 + np.exp(-phi @ np.array([2.0, -1.0, 0.5, 0.0, 1.0, -3.0])))

    @pytest.mark.parametrize("ridge", [0.1, 1.0, 20.0])
    def test_the_mode_is_scikit_learns(self, ridge: float) -> None:
        sklearn = pytest.importorskip("sklearn.linear_model")
        phi, click = self.log(0)
        other = sklearn.LogisticRegression(C=1.0 / ridge, fit_intercept=False, tol=1e-10, max_iter=10_000)
        other.fit(phi, click)
        assert mode_of(np.zeros(6), ridge * np.eye(6), phi, click) == pytest.approx(other.coef_[0], abs=1e-4)

    def test_separable_clicks_do_not_break_it(self) -> None:
        phi = np.array([[1.0], [2.0], [-1.0], [-3.0]])
        mode = mode_of(np.zeros(1), 1e-6 * np.eye(1), phi, phi[:, 0] > 0)
        slope = 1e-6 * mode - ((1.0 - 1.0 / (1.0 + np.exp(-np.abs(phi @ mode)))) * np.abs(phi[:, 0])).sum()
        assert mode[0] > 5.0
        assert abs(slope[0]) < 1e-6

    @pytest.mark.parametrize("covariance", ["diagonal", "full"])
    def test_a_second_batch_starts_from_the_first(self, covariance: str, build: Build) -> None:
        optimize = pytest.importorskip("scipy.optimize")
        agent = build("logistic_thompson", config={"covariance": covariance, "ridge": 2.0})
        count, rng = agent.features.count, generator(1)
        phi, click = rng.normal(size=(80, count)).astype(np.float32), rng.random(80) < 0.4
        agent.model.add(phi[:50], click[:50])
        mean, precision = agent.model.mode.copy(), agent.model.precision.copy()
        p = 1.0 / (1.0 + np.exp(-phi[:50].astype(np.float64) @ mean))
        added = (phi[:50].T * (p * (1.0 - p))) @ phi[:50]
        kept = np.diag(np.diag(added)) if covariance == "diagonal" else added
        assert precision == pytest.approx(2.0 * np.eye(count) + kept, abs=1e-4)
        agent.model.add(phi[50:], click[50:])

        def loss(w: NDArray[np.float64]) -> float:
            odds = np.where(click[50:], 1.0, -1.0) * (phi[50:] @ w)
            return float(0.5 * (w - mean) @ precision @ (w - mean) + np.logaddexp(0.0, -odds).sum())

        found = optimize.minimize(loss, mean, method="BFGS", options={"gtol": 1e-7})
        assert agent.model.mode == pytest.approx(found.x, abs=1e-3)
        assert agent.model.root.T @ agent.model.root == pytest.approx(np.linalg.inv(agent.model.precision), abs=1e-9)
        draws = agent.model.draws(20_000, 0.5, generator(2))
        assert draws.std(0) == pytest.approx(0.5 * np.sqrt(np.diag(np.linalg.inv(agent.model.precision))), rel=0.05)

    def test_it_learns_from_clicks(self, build: Build) -> None:
        agent = build("logistic_thompson", slate_size=1)
        rng, items = generator(3), np.arange(8)
        observation = rows(agent, 8, rng)
        agent.update(looked(agent, observation, items, np.where(items < 4, 0.3, 0.0)))
        shelf = np.ones((8, agent.env_spec.items), bool)
        scores = agent.relevance(observation, None, np.ones(8, bool), shelf)
        assert scores[:, :4].mean() > scores[:, 4:8].mean()

    def test_bad_settings_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="covariance must be one of diagonal, full"):
            agents.get("logistic_thompson").Config.from_dict({"covariance": "some"})

    def test_curvature_is_the_second_derivative(self) -> None:
        phi, _ = self.log(4, 20)
        weights, step = np.full(6, 0.3), 1e-5
        slopes = [((1.0 / (1.0 + np.exp(-phi @ (weights + sign * step * np.eye(6)[2])))) @ phi) for sign in (1, -1)]
        assert curvature(phi, weights)[2] == pytest.approx((slopes[0] - slopes[1]) / (2 * step), rel=1e-5)


class TestNeuralLinear:
    """The Bayesian head on what the network learnt."""

    @pytest.fixture
    def agent(self, build: Build) -> Any:
        agent = build("neural_linear", config={"growth": 0.0, "ridge": 0.5})
        agent.learn(160)
        assert agent.waited[0] < 20  # trained once
        return agent

    def phi(self, agent: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The regression's rows and targets, by PyTorch."""
        import torch

        buffer, fixed = agent._gathered(), agent.features.fixed
        with torch.no_grad():
            net = agent.trainer.net
            x, user = net.encodings[torch.from_numpy(buffer.item)], torch.from_numpy(buffer.user)
            learnt = net.joined(net.items(x), net.users(user), x, user)
            others = torch.from_numpy(buffer.others)
            parts = torch.cat([others[:, :fixed], learnt, others[:, fixed:]], 1)
        return parts.numpy().astype(np.float64), buffer.reward.astype(np.float64)

    def test_the_posterior_is_the_closed_form(self, agent: Any) -> None:
        phi, reward = self.phi(agent)
        precision = 0.5 * np.eye(phi.shape[1]) + phi.T @ phi
        mean = np.linalg.solve(precision, phi.T @ reward)
        assert agent.model.gram == pytest.approx(precision, rel=1e-4, abs=1e-3)
        assert agent.model.theta == pytest.approx(mean, abs=1e-3)
        shape, rate = agent.noise()
        config = agent.config
        assert shape == config.shape + len(reward) / 2
        exact = config.shape * config.spread + (reward @ reward - mean @ precision @ mean) / 2
        assert rate == pytest.approx(exact, rel=1e-3)

    def test_rewards_under_draws_are_student_t(self, agent: Any) -> None:
        stats = pytest.importorskip("scipy.stats")
        agent.config = agent.Config.from_dict({**agent.config.to_dict(), "scale": 1.0})
        kept: list[NDArray[np.float32]] = []
        plain = agent.features.top

        def top(situation: Any, theta: NDArray[np.float32], *rest: Any) -> Any:
            kept.append(theta)
            return plain(situation, theta, *rest)

        agent.features.top = top
        agent.predict(np.repeat(rows(agent, 1, generator(0)), 3_000, axis=0))
        del agent.features.top
        phi = self.phi(agent)[0][5]
        shape, rate = agent.noise()
        width = np.sqrt(rate / shape * phi @ np.linalg.solve(agent.model.gram, phi))
        centred = (kept[0] @ phi - agent.model.theta @ phi) / width
        assert stats.kstest(centred, stats.t(2 * shape).cdf).pvalue > ALPHA

    def test_training_lowers_the_error(self, build: Build) -> None:
        import torch

        agent = build("neural_linear", lanes=16, config={"period": 10_000, "epochs": 10})
        agent.learn(480)
        batch = {name: torch.from_numpy(part) for name, part in agent._gathered().batch(np.arange(400)).items()}
        with torch.no_grad():
            before = float(agent.trainer.net.loss(batch))
        agent._train()
        with torch.no_grad():
            assert float(agent.trainer.net.loss(batch)) < 0.9 * before

    def test_the_buffer_keeps_the_last(self, build: Build) -> None:
        agent = build("neural_linear", config={"buffer": 50, "period": 100})
        seen = recorded(agent, 400)
        items = np.concatenate([one.item for one in seen])
        assert (agent._gathered().item == items[-50:]).all()

    def test_bad_files_are_refused(self, build: Build, tmp_path: Path) -> None:
        agent = build("neural_linear")
        agent.learn(40)
        arrays = {name: array.copy() for name, array in agent.arrays().items()}
        arrays["buffer/item"][0] = agent.env_spec.items
        with pytest.raises(DataError, match="items that the catalogue does not have"):
            agent.restore(arrays, {}, "file")


class TestShortlist:
    """Candidates from the model, exploration on top."""

    def settings(self, agent: Any) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.int64]]:
        """One user many times, and her short-list."""
        observation = np.repeat(rows(agent, 1, generator(0)), 6_000, axis=0)
        everything = np.ones((6_000, agent.env_spec.items), bool)
        scores = agent.relevance(observation[:1], None, np.ones(1, bool), everything[:1])
        return observation, everything, np.argsort(-scores[0])[: agent.config.shortlist]

    def test_only_the_short_list_is_shown(self, build: Build) -> None:
        agent = build("shortlist", config={"prior": 5.0})
        agent.learn(400)
        observation, everything, listed = self.settings(agent)
        shown, _ = agent.predict(observation, action_masks=everything)
        assert set(np.unique(shown).tolist()) == set(listed.tolist())
        assert np.isnan(agent.propensity).all()

    def test_thompson_draws_what_is_left_of_each_item(self, build: Build) -> None:
        stats = pytest.importorskip("scipy.stats")
        agent = build("shortlist", slate_size=1, config={"prior": 0.3, "noise": 0.5})
        agent.learn(600)
        observation, everything, listed = self.settings(agent)
        shown, _ = agent.predict(observation, action_masks=everything)
        worth = agent.tries[listed] + (0.5 / 0.3) ** 2
        mean = agent.relevance(observation[:1], None, np.ones(1, bool), everything[:1])[0, listed]
        mean = mean + agent.surplus[listed] / worth
        draws = mean + 0.5 / np.sqrt(worth) * generator(1).standard_normal((200_000, len(listed)))
        expected = np.bincount(draws.argmax(1), minlength=len(listed)) / 200_000
        counts = (shown[:, None] == listed).sum(0)
        often = expected > 1e-3
        assert often.sum() > 2
        shares = expected[often] / expected[often].sum()
        assert stats.chisquare(counts[often], shares * counts[often].sum()).pvalue > ALPHA

    def test_epsilons_probabilities_are_recorded(self, build: Build) -> None:
        stats = pytest.importorskip("scipy.stats")
        agent = build("shortlist", slate_size=1, config={"explore": "epsilon", "epsilon": 0.3})
        agent.learn(400)
        observation, everything, listed = self.settings(agent)
        shown, _ = agent.predict(observation, action_masks=everything)
        counts = (shown[:, None] == listed).sum(0)
        chances = np.array([agent.propensity[shown == item, 0].mean() for item in listed])
        assert chances.sum() == pytest.approx(1.0)
        assert stats.chisquare(counts, chances * len(shown)).pvalue > ALPHA

    def test_items_are_credited_beyond_the_prediction(self, build: Build) -> None:
        agent = build("shortlist", slate_size=1, config={"warmup": 0})
        rng = generator(4)
        observation, items = rows(agent, 5, rng), np.array([1, 2, 2, 3, 3])
        agent.model.theta[...] = rng.normal(size=agent.features.count)
        transition, reward = looked(agent, observation, items, [1.0, 0.0, 1.0, 0.5, 0.0]), [1.0, 0.0, 1.0, 0.5, 0.0]
        over = reward - agent.seen(transition).phi @ agent.model.theta
        agent.update(transition)
        assert agent.tries[:5].tolist() == [0, 1, 2, 2, 0]
        assert agent.surplus[1:4] == pytest.approx([over[0], over[1] + over[2], over[3] + over[4]], abs=1e-5)

    def test_warm_up_is_uniform(self, build: Build) -> None:
        agent = build("shortlist", lanes=16, config={"warmup": 320})
        agent.learn(320)
        assert not agent.tries.any()
        assert agent.model.samples[0] > 0
        agent.learn(160)
        assert agent.tries.sum() > 0


class TestServing:
    """Serving leaves what was learnt and remembered alone."""

    @pytest.mark.parametrize("name", NAMES)
    def test_act_changes_nothing(self, name: str, build: Build) -> None:
        agent = build(name).learn(200)
        lanes, state = agent.runner, agent.state
        before = {key: array.copy() for key, array in agent.arrays().items()}
        memory = getattr(state, "memory", state)
        kept = {key: getattr(memory, key).copy() for key in ("item", "looks", "takes", "wear", "last")}
        arguments = lanes.observation, state, lanes.fresh, False, lanes.available()
        first, second = (agent.act(*arguments, generator(7))[0] for _ in range(2))
        assert (first == second).all()
        assert all(np.array_equal(array, before[key]) for key, array in agent.arrays().items())
        assert all(np.array_equal(getattr(memory, key), array) for key, array in kept.items())


class TestMemory:
    """The items looked at, instead of a table of all."""

    def reference(self, tables: Any, last: Any, signals: Any, episode_start: Any, away: Any, topic: Any) -> Any:
        """One step of dense tables [B, I], [B, I], [B, T]."""
        looks, takes, wear = tables[0] * LEFT, tables[1] * LEFT, tables[2] * np.float32(0.95)
        for b in range(len(last)):
            for item, click, skip in zip(last[b], signals[b, :, 0], signals[b, :, 7], strict=True):
                if item >= 0 and (click > 0 or skip > 0):
                    looks[b, item] += 1
                    takes[b, item] += click > 0
                    wear[b, topic[item]] += click > 0
        wear[away] = 0
        for table in (looks, takes, wear):
            table[episode_start] = 0
        return looks, takes, wear

    def test_it_remembers_what_dense_tables_do(self, build: Build) -> None:
        env_spec, rng = build("linucb").env_spec, generator(0)
        memory, topic = RecentItems.empty(5, env_spec), env_spec.catalog.topic
        items, topics = env_spec.items, len(env_spec.catalog.topics)
        tables: Any = tuple(np.zeros((5, size), np.float32) for size in (items, items, topics))
        every, step = np.tile(np.arange(items), (5, 1)), env_spec.layout["context"].start
        for _ in range(60):
            observation = np.zeros((5, env_spec.width), np.float32)
            signals = (rng.random((5, 3, 8)) < 0.4).astype(np.float32)
            observation[:, env_spec.layout["feedback"]] = signals.reshape(5, -1)
            episode_start, away = rng.random(5) < 0.05, rng.random(5) < 0.1
            observation[:, step + env_spec.context_names.index("session_step")] = ~away
            tables = self.reference(tables, memory.last, signals, episode_start, away, topic)
            memory = memory.renewed(observation, episode_start, env_spec)
            for own, table in zip((*memory.of(every), memory.wear), tables, strict=True):
                assert own == pytest.approx(table, abs=1e-6)
            action_mask = rng.random((5, items)) < 0.7
            rest = action_mask & (tables[1] < LEFT**9.5) & (tables[0] < LEFT**4.5)
            rest = np.where(rest.sum(1, keepdims=True) < 3, action_mask, rest)
            assert (memory.eligible(action_mask, after_click=9, after_look=4) == rest).all()
            memory = memory.noting(rng.permuted(every, axis=1)[:, :3])

    def test_when_it_is_full_the_faintest_goes(self) -> None:
        env_spec = EnvironmentSpec.of(gym.make_vec("recsim_llm/Music-v0", num_envs=1, users="train"))
        places = PLACES + PLACES_PER_SLOT
        memory = RecentItems.empty(1, env_spec)
        assert memory.item.shape == (1, places)
        observation = np.zeros((1, env_spec.width), np.float32)
        feedback = observation[:, env_spec.layout["feedback"]].reshape(1, 1, 8)
        for item in range(places + 2):
            feedback[...] = 0.0
            feedback[0, 0, 0 if item == 0 else 7] = 1.0  # the first is clicked
            observation[:, env_spec.layout["feedback"]] = feedback.reshape(1, -1)
            memory = memory.noting(np.array([[item]])).renewed(observation, np.zeros(1, bool), env_spec)
        assert sorted(set(range(places + 2)) - set(memory.item[0].tolist())) == [1, 2]
        assert memory.of(np.array([[0, 1, places + 1]]))[0][0] == pytest.approx(
            [float(LEFT) ** (places + 1), 0.0, 1.0], rel=1e-4
        )

    def test_states_of_other_lanes_are_refused(self, build: Build) -> None:
        agent = build("linucb")
        _, state = agent.predict(rows(agent, 4, generator(0)))
        with pytest.raises(ConfigError, match="4 lanes"):
            agent.predict(rows(agent, 5, generator(0)), state, np.zeros(5, bool))
