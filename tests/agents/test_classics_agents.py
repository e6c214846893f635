"""Agents on RecSim's three environments: what they see, what they learn from, the oracles, benchmarks."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from recsim_llm import agents
from recsim_llm.agents.core.env_runner import EnvironmentSpec, EnvRunner, places
from recsim_llm.benchmarks import presets
from recsim_llm.benchmarks.harness import cell
from recsim_llm.envs import ids, scenarios
from recsim_llm.errors import ConfigError, RefusedError
from recsim_llm.simulator import SIGNALS
from recsim_llm.testing import check_agent

IDS = [env_id for env_id in ids() if env_id not in scenarios()]
EVOLUTION, EXPLORATION, SATISFACTION = IDS
TEXT = {"tuned", "embedding_ranker", "llm_profile", "llm_ranker"}
REFUSING = {**dict.fromkeys(TEXT, "reads texts and this catalogue has none; use"), "recency": "no day of release; use"}

each_id = pytest.mark.parametrize("env_id", IDS)


def made(env_id: str, lanes: int = 16, **options: Any) -> Any:
    return gym.make_vec(env_id, num_envs=lanes, **options)


def played(name: str, env_id: str, steps: int = 0, users: int = 100, **config: Any) -> np.ndarray:
    """Returns of held-out users."""
    options = {"truth": True} if agents.get(name).needs_truth else {}
    agent = agents.make(name, made(env_id, 32, users="train", **options), **config)
    if steps:
        agent.learn(steps)
    return cell.evaluate(agent, made(env_id, users, users="test", autoreset_mode="Disabled", **options), 7).returns


@pytest.mark.parametrize("name", agents.names())
def test_every_agent_learns_or_says_why_not(name: str) -> None:
    kind = agents.get(name)
    if kind.needs_torch and name not in REFUSING:
        pytest.importorskip("torch")
        pytest.importorskip("stable_baselines3")
    for env_id in IDS:
        env = made(env_id, users="train", **({"truth": True} if kind.needs_truth else {}))
        if name in REFUSING:
            with pytest.raises(RefusedError, match=REFUSING[name]) as refusal:
                agents.make(name, env)
            assert "\n" not in str(refusal.value)
            assert name in str(refusal.value)
            continue
        agent = agents.make(name, env).learn(128)
        assert agent.num_timesteps >= 128
        observation, info = env.reset(seed=1)
        agent.observe(info)
        actions, _ = agent.predict(observation, action_masks=env.unwrapped.available())
        slates = actions.reshape(16, -1)
        assert slates.shape[1] == env.unwrapped.slate_size
        assert (np.sort(slates, 1)[:, 1:] != np.sort(slates, 1)[:, :-1]).all()
        assert env.action_space.contains(actions)


@each_id
@pytest.mark.parametrize("name", ["linucb", "q_learning", "oracle"])
def test_the_contract_of_agents(env_id: str, name: str) -> None:
    failed = [check for check in check_agent(name, env_id, steps=64) if check.passed is False]
    assert not failed


@each_id
def test_a_saved_agent_serves_the_same(env_id: str, tmp_path: Path) -> None:
    for name in ("thompson", "sarsa", "mf"):
        agent = agents.make(name, made(env_id)).learn(128)
        agent.save(tmp_path / "agent.zip")
        again = agents.load(tmp_path / "agent.zip")
        observation = made(env_id).reset(seed=3)[0]
        mask = np.ones((16, 10), np.bool_)
        one, other = (a.predict(observation, deterministic=True, action_masks=mask)[0] for a in (agent, again))
        assert (one == other).all()


# What agents see


@each_id
@pytest.mark.parametrize(
    "options", [{}, {"slate_size": 3, "num_candidates": 30}, {"resample_documents": False}], ids=str
)
def test_items_are_kinds_of_candidates(env_id: str, options: dict[str, Any]) -> None:
    flat, dictionary = made(env_id, **options), made(env_id, observation="dict", **options)
    env_spec, stream = EnvironmentSpec.of(flat), np.random.default_rng(0)
    space = np.zeros((16, 1), np.int64)
    for step in range(5):
        observation = flat.reset(seed=0)[0] if step == 0 else flat.step(space)[0]
        parts = dictionary.reset(seed=0)[0] if step == 0 else dictionary.step(space)[0]
        rows = env_spec.flat(observation)
        assert (EnvironmentSpec.of(dictionary).flat(parts) == rows).all()
        assert (env_spec.flat(observation[0]) == rows[0]).all()
        assert np.abs(rows).max() <= 1.0
        listed = env_spec.listed(rows)
        assert (listed >= 0).all()
        assert all(len(set(row)) == len(row) for row in listed.tolist())
        assert (env_spec.context("start", rows) == (step == 0)).all()
        docs = parts["doc"].reshape(16, env_spec.candidates, -1)
        codes = env_spec.catalog.embedding[listed]
        topic = docs[:, :, -2:] if env_id == EXPLORATION else docs
        if env_id != SATISFACTION:
            assert (codes[:, :, : topic.shape[2]] == topic).all()
        if env_id != EVOLUTION:  # the middle of a grade of 1/20
            assert np.abs(codes[:, :, -1] - docs[:, :, 0]).max() <= 0.5 / 20 + 1e-6
        slate_size = env_spec.slate_size
        where = np.argsort(stream.random((16, env_spec.candidates)), 1)[:, :slate_size]
        assert (places(listed, np.take_along_axis(listed, where, 1)) == where).all()
        space = where[:, 0] if slate_size == 1 else where


@each_id
@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled", None])
def test_agents_are_told_what_they_showed(env_id: str, mode: str | None) -> None:
    """Through ends of episodes in every mode: the items of the slate, signals, and the reward of each slot."""
    env = (
        gym.make(env_id, max_episode_steps=7)
        if mode is None
        else made(env_id, max_episode_steps=7, autoreset_mode=mode)
    )
    env_spec = EnvironmentSpec.of(env)
    lanes, stream = EnvRunner(env, env_spec), np.random.default_rng(0)
    lanes.reset(seed=0)
    ended = 0
    for _ in range(30):
        listed = lanes.info["candidates"]
        assert (listed == env_spec.listed(lanes.observation)).all()
        slates = np.take_along_axis(listed, np.argsort(stream.random(listed.shape), 1)[:, : env_spec.slate_size], 1)
        made_ = lanes.step(slates)
        info, valid = made_.info, made_.valid
        ended += int((made_.terminated | made_.truncated).sum())
        assert (info["slate"][valid] == slates[valid]).all()
        assert np.allclose(info["slot_reward"].sum(1)[valid], made_.reward[valid], rtol=1e-6)
        told = env_spec.feedback(made_.next_observation)
        for signal in ("click", "skip"):
            assert (told[valid][:, :, SIGNALS.index(signal)] == info[signal][valid]).all()
        looked = (info["click"] > 0) | (info["skip"] > 0)
        assert looked[valid].all()  # with one slot where only the first counts
        assert set(SIGNALS) <= set(info)
    assert ended >= lanes.count


def test_nothing_but_the_first_slot_is_looked_at_in_long_term_satisfaction() -> None:
    lanes = EnvRunner(made(SATISFACTION, slate_size=3), EnvironmentSpec.of(made(SATISFACTION, slate_size=3)))
    lanes.reset(seed=0)
    info = lanes.step(lanes.info["candidates"][:, :3]).info
    assert (info["click"] == [1, 0, 0]).all()
    assert (info["skip"] == 0).all()


def test_uniform_slates_of_items_are_uniform_slates_of_documents() -> None:
    """As in RecSim, whose mean return is 23.0 in 3,000 episodes; leaving documents of a kind out gave 25.5."""
    assert abs(played("random", EXPLORATION, users=400).mean() - 23.0) < 1.0


def test_users_are_split_in_two() -> None:
    drawn = {
        users: np.concatenate([made(EXPLORATION, 64, users=users).reset(seed=seed)[1]["user_id"] for seed in range(3)])
        for users in ("all", "train", "test")
    }
    assert (drawn["train"] % 2 == 0).all()
    assert (drawn["test"] % 2 == 1).all()
    assert (drawn["all"] // 2 == drawn["train"] // 2).all()
    assert len(set((drawn["all"] % 2).tolist())) == 2
    assert gym.make(EXPLORATION, users="test").reset(seed=0)[1]["user_id"] % 2 == 1
    with pytest.raises(ConfigError, match="no split 'tset'"):
        made(EXPLORATION, users="tset")


def test_what_agents_cannot_see_is_said() -> None:
    with pytest.raises(ConfigError, match="at most 255 topics apart and InterestEvolution has 300; make it with fewer"):
        agents.make("random", made(EVOLUTION, num_topics=300))
    env_spec = EnvironmentSpec.of(made(EVOLUTION))
    with pytest.raises(ConfigError, match=r"observation has shape \(2, 7\), expected \(B, 266\)"):
        env_spec.flat(np.zeros((2, 7), np.float32))


# Oracles


@pytest.mark.parametrize("env_id", [EVOLUTION, EXPLORATION])
def test_the_truth_is_the_share_of_clicks(env_id: str) -> None:
    """One user and list of documents, the same slate with 20,000 different dice: 4 standard errors."""
    count = 20_000
    env = made(env_id, count, truth=True, resample_documents=False)
    info = env.reset(seed=0, options={"user": 5})[1]
    slate = np.array([3, 8])
    appeal = info["truth_appeal"][:, slate].astype(np.float64)
    rules = env.unwrapped.core.simulator.rules
    weight = np.exp(appeal - rules.no_click)
    chance = (weight / (1.0 + weight.sum(1, keepdims=True)))[0]
    _, reward, _, _, after = env.step(np.tile(slate, (count, 1)))
    share = after["click"].mean(0)
    assert (np.abs(share - chance) < 4.0 * np.sqrt(chance * (1.0 - chance) / count)).all()
    expected = (chance * info["truth_value"][0, slate]).sum()
    assert abs(reward.mean() - expected) < 4.0 * reward.std() / np.sqrt(count)


def test_the_truth_is_the_mean_engagement() -> None:
    count = 200_000
    env = made(SATISFACTION, count, truth=True, resample_documents=False)
    info = env.reset(seed=0, options={"user": 5})[1]
    _, reward, _, _, _ = env.step(np.full(count, 4))
    assert abs(reward.mean() - info["truth_value"][0, 4]) < 4.0 * reward.std() / np.sqrt(count)


@each_id
def test_the_oracle_shows_the_best_of_all_slates(env_id: str) -> None:
    env = made(env_id, truth=True, slate_size=2)
    agent = agents.make("oracle", env)
    core, (observation, info) = env.unwrapped.core, env.reset(seed=4)
    agent.observe(info)
    slates = agent.predict(observation, action_masks=env.unwrapped.available())[0]
    value = info["truth_value"].astype(np.float64)
    if env_id == SATISFACTION:  # the first slot is consumed
        assert (value[np.arange(16), slates[:, 0]] == value.max(1)).all()
        return
    if env_id == EVOLUTION:
        interest = np.take_along_axis(core.simulator.state.traits, core.simulator.state.documents["topic"], 1)
        weight, nothing = interest.astype(np.float64) + 1.0, 2.0
    else:
        documents = core.simulator.state.documents
        affinity = np.take_along_axis(core.simulator.state.traits, documents["topic"], 1)
        weight, nothing = np.exp(affinity.astype(np.float64) + documents["value"]), np.exp(5.0)

    def worth(slate: Any) -> np.ndarray:
        some = weight[:, list(slate)]
        return (some * value[:, list(slate)]).sum(1) / (nothing + some.sum(1))

    best = np.max([worth(slate) for slate in itertools.combinations(range(10), 2)], axis=0)
    found = np.array([worth(slate)[lane] for lane, slate in enumerate(slates.tolist())])
    assert np.allclose(found, best, rtol=1e-5)


@each_id
def test_the_oracle_is_above_random_and_so_is_linucb(env_id: str) -> None:
    random, oracle, linucb = (
        played(name, env_id, steps) for name, steps in (("random", 0), ("oracle", 0), ("linucb", 4096))
    )
    for better in (oracle, linucb):
        error = np.sqrt(better.var(ddof=1) / len(better) + random.var(ddof=1) / len(random))
        assert better.mean() - random.mean() > 4.0 * error


def test_looking_ahead_pays_where_trash_shortens_sessions() -> None:
    gain = played("lookahead", EVOLUTION) - played("oracle", EVOLUTION)
    assert gain.mean() > 4.0 * gain.std(ddof=1) / np.sqrt(len(gain))


@pytest.mark.parametrize("lanes", [1, 4])
def test_planning_with_documents_that_all_share(lanes: int) -> None:
    env = made(EVOLUTION, lanes, truth=True, resample_documents=False, users="test", autoreset_mode="Disabled")
    alone = cell.evaluate(agents.make("lookahead", env, weights="0"), env, 3).returns
    assert (alone == cell.evaluate(agents.make("oracle", env), env, 3).returns).all()
    assert cell.evaluate(agents.make("lookahead", env, depth=3), env, 3).returns.shape == (lanes,)


# Benchmarks


def test_the_preset() -> None:
    experiment = presets.preset("classics")
    assert list(experiment.scenarios) == IDS
    assert {"random", "oracle"} <= set(experiment.agents)
    small = experiment.replace(budget=64, lanes=8, episodes=4, seeds=(0,), agents=("random", "linucb", "oracle"))
    assert cell.prepare(small) == {}
    for one in small.cells():
        row = cell.run_cell(one)
        assert len(row["episode_returns"]) == 4
        assert row["items"] > 10
        assert 0.0 < row["coverage"][-1] <= 1.0
        assert 0.0 <= row["diversity"][-1] <= 1.0
