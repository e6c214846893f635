"""Agents around agents: what each computes, held against definitions written out slowly."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray

from recsim_llm import agents
from recsim_llm.agents.common.cooldown import RecentItems
from recsim_llm.agents.core.base import Agent
from recsim_llm.agents.wrappers.base import Wrapper
from recsim_llm.agents.wrappers.dpp import greedy_map
from recsim_llm.agents.wrappers.explore_softmax import plackett_luce_propensity
from recsim_llm.agents.wrappers.mmr import marginal
from recsim_llm.agents.wrappers.reranking import best_items
from recsim_llm.errors import ConfigError, DataError
from recsim_llm.simulator import SIGNALS

# Made-up observations come from no environment, which agents say (tests/agents/test_evaluation.py).
pytestmark = pytest.mark.filterwarnings("ignore::recsim_llm.agents.core.serving_session.UnknownEnvironmentWarning")

NAMES = agents.families()["wrapper"]
INNER = ["linucb", "epsilon_greedy", "thompson", "random", "mf", "ppo", "oracle", "mmr"]
SMALL: dict[str, dict[str, Any]] = {"ppo": {"rollout": 64, "batch": 64, "epochs": 1}, "mf": {"epochs": 2}}
Make = Callable[..., Any]


@pytest.fixture(scope="module")
def build(world_folder: str) -> Make:
    """Makes a wrapper around an agent, on the synthetic world."""

    def made(
        name: str, inner: str = "linucb", *, slate_size: int = 4, lanes: int = 4, seed: int = 0, **config: Any
    ) -> Any:
        if agents.get(inner).needs_torch:
            pytest.importorskip("stable_baselines3")
        env = gym.make_vec(
            "recsim_llm/News-v0", num_envs=lanes, world=world_folder, slate_size=slate_size, users="train", horizon=25,
            truth=agents.get(inner).needs_truth,
        )  # fmt: skip
        return agents.make(name, env, seed, agent=inner, agent_config=SMALL.get(inner, {}), **config)

    return made


def rows(agent: Agent, count: int = 8, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.Generator(np.random.PCG64(seed))
    return rng.uniform(-1, 1, (count, agent.env_spec.width)).astype(np.float32)


def choice(agent: Agent, count: int = 8, seed: int = 0, deterministic: bool = True) -> tuple[NDArray[np.int64], Any]:
    """A choice for users in their first step, every item on the shelf."""
    rng = np.random.Generator(np.random.PCG64(seed))
    action_mask = np.ones((count, agent.env_spec.items), np.bool_)
    return agent.choose(rows(agent, count, seed), None, np.ones(count, np.bool_), deterministic, action_mask, rng)


class TestAroundAny:
    """Every wrapper works around every kind of agent."""

    @pytest.mark.parametrize("inner", INNER)
    @pytest.mark.parametrize("name", NAMES)
    def test_it_learns_serves_and_survives_a_file(self, name: str, inner: str, build: Make, tmp_path: Path) -> None:
        agent = build(name, inner).learn(96)
        slates, _ = agent.predict(agent.runner.observation, action_masks=np.ones((4, agent.env_spec.items), bool))
        assert all(len(set(slate)) == 4 for slate in slates.tolist())
        again = agents.load(agent.save(tmp_path / "agent"), env=build(name, inner).env)
        assert json.loads(json.dumps(again.config.to_dict())) == agent.config.to_dict()
        for one in (agent, again):
            one.learn(96)
        assert agent.num_timesteps == again.num_timesteps
        for key, array in agent.arrays().items():
            assert (array == again.arrays()[key]).all(), key

    @pytest.mark.parametrize("name", NAMES)
    def test_what_the_inner_agent_needs_it_needs(self, name: str, build: Make) -> None:
        agent = build(name, "oracle")
        assert agent.needs_truth
        assert not agent.learns
        assert not type(agent).needs_truth
        assert build(name, "thompson").State is not None

    @pytest.mark.parametrize("name", NAMES)
    def test_the_inner_agent_remembers_what_was_shown(self, name: str, build: Make) -> None:
        agent = build(name, "epsilon_greedy").learn(200)
        slates, state = choice(agent, deterministic=False)
        memory = agent.inner_state(state)
        assert isinstance(memory, RecentItems)
        assert (memory.last == slates).all()

    def test_the_inner_agent_learns_from_what_was_shown(self, build: Make) -> None:
        agent = build("mmr", "thompson", weight=0.0)
        shown = np.zeros(agent.env_spec.items)

        def noted(names: dict[str, Any], _: Any) -> None:
            info = names["transition"].info
            seen = ((info["click"] > 0) | (info["skip"] > 0)) & names["transition"].valid[:, None]
            np.add.at(shown, info["slate"][seen], 1)

        agent.learn(200, callback=noted)
        assert (agent.inner.counts.looks == shown).all()
        assert agent.inner.num_timesteps == agent.num_timesteps

    @pytest.mark.parametrize("inner", ["linucb", "sarsa_lambda", "mf", "ease", "explore_epsilon", "fair_exposure"])
    def test_whatever_its_state_the_inner_agent_notes_what_was_shown(self, inner: str, build: Make) -> None:
        agent = build("explore_epsilon", inner, epsilon=1.0, epsilon_start=1.0).learn(64)
        slates, state = choice(agent, deterministic=False)
        assert (slates != choice(agent)[0]).any()
        while not hasattr(state, "memory") and hasattr(state, "inner"):
            state = state.inner
        memory = getattr(state, "memory", state)
        assert isinstance(memory, RecentItems)
        assert (memory.last == slates).all()

    def test_separate_agents_note_what_was_shown(self, build: Make) -> None:
        agent = build("scalarised", "linucb", weights={"click": 1.0, "dwell": 1.0}, separate=True, epsilon=1.0)
        slates, state = choice(agent, deterministic=False)
        assert all((getattr(state, name).memory.last == slates).all() for name in ("click", "dwell"))

    def test_what_rests_for_the_inner_agent_is_not_explored(self, build: Make) -> None:
        agent = build("explore_epsilon", "popularity", epsilon=1.0, epsilon_start=1.0)
        memory = RecentItems.empty(1, agent.env_spec).noting(np.array([[1, 2, 3, 4]]))
        observation = np.zeros((1, agent.env_spec.width), np.float32)
        feedback = observation[:, agent.env_spec.layout["feedback"]].reshape(1, 4, -1)
        feedback[:, :, SIGNALS.index("click")] = 1.0
        observation[:, agent.env_spec.layout["feedback"]] = feedback.reshape(1, -1)
        action_mask = np.ones((1, agent.env_spec.items), np.bool_)
        for seed in range(40):
            rng = np.random.Generator(np.random.PCG64(seed))
            slates, _ = agent.act(observation, memory, np.zeros(1, np.bool_), False, action_mask, rng)
            assert not set(slates[0].tolist()) & {1, 2, 3, 4}

    def test_refusals_and_wrong_settings_are_named(self, build: Make, world_folder: str) -> None:
        with pytest.raises(ConfigError, match=r"no agent 'linucbb'\. Did you mean 'linucb'\?"):
            agents.get("mmr").Config(agent="linucbb")
        with pytest.raises(ConfigError, match=r"no setting 'alhpa'\. Did you mean 'alpha'\?"):
            agents.get("mmr").Config(agent_config={"alhpa": 1.0})
        with pytest.raises(ConfigError, match="setting alpha must be"):
            agents.get("mmr").Config(agent_config={"alpha": "much"})
        with pytest.raises(ConfigError, match="agent_config must be a mapping"):
            agents.get("mmr").Config(agent_config=[1])
        with pytest.raises(ConfigError, match="weight must lie in"):
            build("mmr", weight=1.5)

    @pytest.mark.parametrize("change", ["streams", "part", "extra"])
    def test_files_with_other_inner_parts_are_refused(self, change: str, build: Make) -> None:
        agent: Wrapper = build("mmr", "thompson")
        arrays, extra = agent.arrays(), json.loads(json.dumps(agent.extra()))
        if change == "streams":
            extra["inner"]["streams"] = [{}, {}]
        elif change == "part":
            arrays["other/looks"] = np.zeros(3)
        else:
            extra = {}
        with pytest.raises(DataError):
            agent.restore(arrays, extra, "file")


class TestPool:
    """The best M of any agent."""

    @pytest.mark.parametrize("inner", ["popularity", "linucb", "q_learning", "thompson"])
    def test_it_has_the_best_first_and_none_twice(self, inner: str, build: Make) -> None:
        agent = build("mmr", inner, pool=12, seed=3).learn(100)
        action_mask = np.ones((6, agent.env_spec.items), np.bool_)
        action_mask[:, ::3] = False
        for deterministic in (True, False):
            rng = np.random.Generator(np.random.PCG64(0))
            pool = best_items(
                agent, agent.config.pool, rows(agent, 6), None, np.ones(6, np.bool_), deterministic, action_mask, rng
            )
            assert pool.usable.all()
            assert np.take_along_axis(action_mask, pool.items, 1).all()
            assert all(len(set(items)) == 12 for items in pool.items.tolist())
            assert (np.diff(pool.relevance) <= 0).all()
            assert pool.relevance[:, 0] == pytest.approx(np.ones(6))

    def test_asking_again_and_again_gives_the_order_of_its_scores(
        self, build: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        agent = build("mmr", "linucb", pool=12).learn(200)
        action_mask, episode_start = np.ones((6, agent.env_spec.items), np.bool_), np.ones(6, np.bool_)
        rng = np.random.Generator(np.random.PCG64(0))
        scored = best_items(agent, agent.config.pool, rows(agent, 6), None, episode_start, True, action_mask, rng)
        monkeypatch.setattr(agent, "scores", lambda *_: None)
        asked = best_items(agent, agent.config.pool, rows(agent, 6), None, episode_start, True, action_mask, rng)
        assert (scored.items == asked.items).all()

    def test_a_short_shelf_is_marked(self, build: Make) -> None:
        agent = build("mmr", "popularity", pool=12)
        action_mask = np.zeros((2, agent.env_spec.items), np.bool_)
        action_mask[:, [5, 9, 11, 20, 33, 41]] = True
        rng = np.random.Generator(np.random.PCG64(0))
        pool = best_items(agent, agent.config.pool, rows(agent, 2), None, np.ones(2, np.bool_), True, action_mask, rng)
        for items, usable in zip(pool.items, pool.usable, strict=True):
            assert sorted(items[usable].tolist()) == [5, 9, 11, 20, 33, 41]
        action_mask[:, [5, 9, 11]] = False
        slates, _ = agent.act(rows(agent, 2), None, np.ones(2, np.bool_), True, action_mask, rng)
        assert all({20, 33, 41} < set(slate) and len(set(slate)) == 4 for slate in slates.tolist())


class TestMMR:
    """Maximal marginal relevance, written out."""

    @pytest.mark.parametrize("seed", range(10))
    def test_slates_are_those_of_the_definition(self, seed: int) -> None:
        rng = np.random.Generator(np.random.PCG64(seed))
        relevance, x = rng.random((3, 9)), rng.normal(size=(3, 9, 4))
        x /= np.linalg.norm(x, axis=2, keepdims=True)
        alike, usable, weight = x @ x.transpose(0, 2, 1), rng.random((3, 9)) < 0.8, rng.random()
        usable[:, :4] = True
        found = marginal(relevance, alike, usable, 4, weight)
        for lane in range(3):
            slate: list[int] = []
            for _ in range(4):
                left = [i for i in range(9) if usable[lane, i] and i not in slate]
                value = {
                    i: weight * relevance[lane, i] - (1 - weight) * max((alike[lane, i, j] for j in slate), default=0.0)
                    for i in left
                }
                slate.append(max(left, key=lambda i: value[i]))
            assert found[lane].tolist() == slate

    def test_weight_one_is_the_inner_agent_and_zero_is_more_diverse(self, build: Make) -> None:
        def closeness(agent: Agent) -> float:
            x = agent.env_spec.catalog.embedding[choice(agent)[0]].astype(float)
            x /= np.linalg.norm(x, axis=2, keepdims=True)
            return float((x @ x.transpose(0, 2, 1))[:, *np.triu_indices(4, 1)].mean())

        same, diverse = (build("mmr", "linucb", weight=weight).learn(200) for weight in (1.0, 0.0))
        action_mask, rng = np.ones((8, 60), np.bool_), np.random.Generator(np.random.PCG64(0))
        plain, _ = same.inner.act(rows(same), None, np.ones(8, np.bool_), True, action_mask, rng)
        assert (choice(same)[0] == plain).all()
        assert closeness(diverse) < closeness(same) - 0.1


class TestDPP:
    """Greedy maximisation of the determinant, by determinants."""

    @pytest.mark.parametrize("seed", range(10))
    def test_slates_are_those_of_the_definition(self, seed: int) -> None:
        rng = np.random.Generator(np.random.PCG64(seed))
        x = rng.normal(size=(2, 8, 6))
        kernel, usable = x @ x.transpose(0, 2, 1), np.ones((2, 8), np.bool_)
        usable[:, seed % 8] = False
        found = greedy_map(kernel, usable, 4)
        for lane in range(2):
            slate: list[int] = []
            for _ in range(4):
                left = [i for i in range(8) if usable[lane, i] and i not in slate]
                volume = {i: np.linalg.det(kernel[lane][np.ix_([*slate, i], [*slate, i])]) for i in left}
                slate.append(max(left, key=lambda i: volume[i]))
            assert found[lane].tolist() == slate

    def test_greedy_is_near_the_best(self) -> None:
        rng = np.random.Generator(np.random.PCG64(0))
        ratios = []
        for _ in range(20):
            x = rng.normal(size=(7, 7))
            kernel = x @ x.T
            best = max(np.linalg.det(kernel[np.ix_(s, s)]) for s in itertools.combinations(range(7), 3))
            slate = greedy_map(kernel[None], np.ones((1, 7), np.bool_), 3)[0]
            ratios.append(np.linalg.det(kernel[np.ix_(slate, slate)]) / best)
        assert max(ratios) <= 1.0 + 1e-9
        assert np.mean(ratios) > 0.8

    def test_twins_come_last_and_slates_are_filled_up(self) -> None:
        x = np.array([[2.0, 0.0], [1.9, 0.0], [0.0, 1.0], [1.8, 0.0]])
        slate = greedy_map((x @ x.T)[None], np.ones((1, 4), np.bool_), 4)[0]
        assert slate.tolist() == [0, 2, 1, 3]


class TestFairExposure:
    """Providers get what they are owed."""

    @staticmethod
    def shares(agent: Any, steps: int = 200) -> NDArray[np.float64]:
        """Share of exposure of each provider, [P], over many steps of the same users."""
        state: Any = None
        given = np.zeros(agent.offers.shape[1])
        rng = np.random.Generator(np.random.PCG64(0))
        observation = np.zeros((4, agent.env_spec.width), np.float32)
        for _ in range(steps):
            slates, state = agent.act(
                observation, state, np.zeros(4, np.bool_), True, np.ones((4, agent.env_spec.items), np.bool_), rng
            )
            given += np.bincount(agent.provider[slates].ravel(), np.tile(agent.attention, 4), minlength=len(given))
        return given / given.sum()

    def test_equal_shares_are_reached(self, build: Make) -> None:
        fair, careless = (
            build("fair_exposure", "popularity", target="equal", strength=strength).learn(200)
            for strength in (5.0, 0.0)
        )
        assert np.abs(self.shares(fair) - 1 / 7).max() < 0.02
        assert np.abs(self.shares(careless) - 1 / 7).max() > 0.05

    def test_debts_stay_bounded_and_add_up(self, build: Make) -> None:
        agent = build("fair_exposure", "linucb", strength=2.0)
        agent.learn(400)
        debt = agent.state.debt
        assert debt.sum(1) == pytest.approx(np.zeros(4), abs=1e-9)
        assert np.abs(debt).max() < 3.0

    def test_merit_owes_the_better_provider_more(self, build: Make) -> None:
        agent = build("fair_exposure", "linucb", target="merit", pool=12)
        action_mask = np.ones((3, agent.env_spec.items), np.bool_)
        rng = np.random.Generator(np.random.PCG64(0))
        pool = best_items(agent, agent.config.pool, rows(agent, 3), None, np.ones(3, np.bool_), True, action_mask, rng)
        shares = agent._shares(pool, np.ones((3, 7), np.bool_))
        for lane in range(3):
            merit = np.bincount(agent.provider[pool.items[lane]], pool.relevance[lane], minlength=7)
            assert shares[lane] == pytest.approx(merit / merit.sum())

    def test_states_of_others_are_refused(self, build: Make) -> None:
        agent = build("fair_exposure")
        _, state = choice(agent, 3)
        with pytest.raises(ConfigError, match="state must be what predict"):
            agent.predict(rows(agent, 4), state)


class TestExploration:
    """Exploration with known probabilities."""

    @pytest.mark.parametrize("name", ["explore_epsilon", "explore_softmax"])
    def test_deterministic_is_the_inner_agent(self, name: str, build: Make) -> None:
        agent = build(name, "linucb").learn(200)
        slates, _ = choice(agent)
        action_mask, rng = np.ones((8, 60), np.bool_), np.random.Generator(np.random.PCG64(0))
        plain, _ = agent.inner.act(rows(agent), None, np.ones(8, np.bool_), True, action_mask, rng)
        assert (slates == plain).all()
        assert (agent.propensity == 1.0).all()

    def test_plackett_and_luce_by_enumeration(self) -> None:
        logits = np.array([[0.3, -1.0, 2.0, 0.0, -np.inf]])
        total = 0.0
        for slate in itertools.permutations(range(4), 3):
            weight, expected = np.exp(logits[0]), 1.0
            for place in slate:
                expected *= weight[place] / weight.sum()
                weight[place] = 0.0
            chance = plackett_luce_propensity(logits, np.array([slate])).prod()
            assert chance == pytest.approx(expected)
            total += chance
        assert total == pytest.approx(1.0)

    def test_a_low_temperature_is_the_inner_agent_and_a_high_one_is_uniform(self, build: Make) -> None:
        cold, hot = (build("explore_softmax", "linucb", temperature=t, pool=10).learn(100) for t in (1e-3, 1e6))
        agreed = choice(cold, 200, deterministic=False)[0] == choice(cold, 200)[0]
        assert agreed.mean() > 0.9
        choice(hot, deterministic=False)
        assert hot.propensity == pytest.approx(np.tile(1.0 / np.array([10, 9, 8, 7]), (8, 1)), rel=1e-4)

    def test_epsilon_falls(self, build: Make) -> None:
        agent = build("explore_epsilon", epsilon=0.1, epsilon_start=0.9, decay=50.0)
        assert agent.epsilon == pytest.approx(0.9)
        agent.learn(400)
        assert agent.epsilon == pytest.approx(0.1, abs=1e-3)

    def test_inner_agents_of_unknown_probability_leave_it_unknown(self, build: Make) -> None:
        agent = build("mmr", "thompson")
        choice(agent, deterministic=False)
        assert np.isnan(agent.propensity).all()
        agent.propensity_samples = 50
        choice(agent, deterministic=False)
        assert ((agent.propensity > 0) & (agent.propensity <= 1)).all()


class TestScalarised:
    """Several signals, one reward."""

    def test_linear_rewards_are_weighted_sums(self, build: Make) -> None:
        weights = {"click": 2.0, "dwell": 0.5, "skip": -1.0}
        agent = build("scalarised", "thompson", weights=weights)
        told: list[Any] = []
        agent.inner.update = told.append
        kept: list[Any] = []
        agent.learn(80, callback=lambda names, _: kept.append(names["transition"]))
        for inner, outer in zip(told, kept, strict=True):
            signals = agent.env_spec.feedback(outer.next_observation)
            expected = sum(weight * signals[:, :, SIGNALS.index(name)] for name, weight in weights.items())
            assert inner.info["slot_reward"] == pytest.approx(expected, abs=1e-6)
            assert inner.reward == pytest.approx(expected.sum(1), abs=1e-5)
            assert (outer.info["click"] == inner.info["click"]).all()

    def test_chebyshev_prefers_the_balanced(self, build: Make) -> None:
        linear, chebyshev = (
            build("scalarised", weights={"click": 1.0, "like": 1.0}, method=method)
            for method in ("linear", "chebyshev")
        )
        extreme, balanced, nothing = np.array([1.0, 0.0]), np.array([0.45, 0.45]), np.zeros(2)
        assert linear.utility(extreme) > linear.utility(balanced)
        assert chebyshev.utility(extreme) < chebyshev.utility(balanced)
        assert chebyshev.utility(nothing) == 0.0
        assert chebyshev.utility(np.ones(2)) == pytest.approx(1.0)

    def test_separate_agents_learn_their_own_objective(self, build: Make) -> None:
        agent = build("scalarised", "linucb", weights={"click": 1.0, "dwell": 1.0}, separate=True)
        if agent is None:
            pytest.skip("linucb gives no scores")
        agent.learn(200)
        click, dwell = agent.parts["click"], agent.parts["dwell"]
        assert click is agent.inner
        assert (click.counts.looks == dwell.counts.looks).all()
        assert (click.counts.gains != dwell.counts.gains).any()
        alone = build("scalarised", "linucb", weights={"click": 1.0, "dwell": 1e-9}, separate=True, epsilon=0.0).learn(
            200
        )
        action_mask, rng = np.ones((8, 60), np.bool_), np.random.Generator(np.random.PCG64(0))
        plain, _ = alone.parts["click"].act(rows(alone), None, np.ones(8, np.bool_), True, action_mask, rng)
        assert (choice(alone)[0] == plain).all()

    def test_agents_without_scores_cannot_be_kept_separate(self, build: Make) -> None:
        with pytest.raises(ConfigError, match="random gives no scores"):
            build("scalarised", "random", separate=True)

    @pytest.mark.parametrize("vector", [False, True])
    def test_vector_rewards_become_one_number(self, vector: bool, world_folder: str) -> None:
        pytest.importorskip("mo_gymnasium")
        arguments = {"world": world_folder, "users": "train"}
        env: Any = (
            gym.make_vec("recsim_llm/mo-News-v0", num_envs=3, **arguments)
            if vector
            else gym.make("recsim_llm/mo-News-v0", **arguments)
        )
        agent = agents.make("scalarised", env, agent="linucb", weights={"click": 1.0})
        clicks: list[float] = []
        agent.learn(120, callback=lambda names, _: clicks.append(names["transition"].info["click"].sum()))
        assert sum(clicks) == pytest.approx(agent.inner.counts.gains.sum())
        assert sum(clicks) > 0

    @pytest.mark.parametrize(
        ("weights", "message"),
        [
            ({"clicks": 1.0}, "Did you mean 'click'"),
            ({"click": 0.0}, "must name a signal"),
            ({"click": "much"}, "must be a finite number"),
            ({"click": -1.0}, "with chebyshev >= 0"),
        ],
    )
    def test_wrong_weights_are_refused(self, weights: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            agents.get("scalarised").Config(weights=weights, method="chebyshev")
