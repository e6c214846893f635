"""RecSim's three environments: parity with RecSim 0.2.4, closed forms, the contract, bad input."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import scipy.stats
from gymnasium.envs.registration import load_env_creator
from numpy.typing import NDArray

from recsim_llm.benchmarks.studies import classics_parity as parity
from recsim_llm.benchmarks.studies.classics_parity import documents
from recsim_llm.envs import ids, scenarios
from recsim_llm.envs.options import register_reward
from recsim_llm.errors import ConfigError
from recsim_llm.simulator.classics.interest_evolution import InterestEvolution
from recsim_llm.testing import actions, check_env, difference

ALPHA = 1e-4
"""Of each test. There are some 110 of them against RecSim, so a false alarm has a chance of 1 % over all seeds; with
these seeds there is none. With 3,000 episodes there and 4,000 here, a mean that is off by 0.13 standard deviations is
noticed with a probability of 90 %: 1 % of the return of interest evolution under random slates, 2 % of the best
policy's, 2 to 3 % of that of the other two; of a median that the same share of all episodes crosses, 6 %."""

IDS = [env_id for env_id in ids() if env_id not in scenarios()]
EVOLUTION, EXPLORATION, SATISFACTION = IDS
REFERENCE = parity.reference()

each_id = pytest.mark.parametrize("env_id", IDS)


# Parity with RecSim: the policies and metrics of benchmarks/studies/classics_reference.py


@pytest.mark.parametrize("case", REFERENCE, ids=lambda case: f"{case['case']}, {case['policy']}")
def test_episodes_are_distributed_as_in_recsim(case: dict[str, Any]) -> None:
    found = parity.play(case)
    wrong = []
    for name, theirs in case["metrics"].items():
        ours = found[name]
        if theirs["std"] == 0.0:
            assert (ours == theirs["mean"]).all(), name
            continue
        if 2 * scipy.stats.norm.sf(abs(parity.z_score(ours, theirs))) < ALPHA:
            wrong.append(f"{name}: mean {ours.mean():.4g}, RecSim's {theirs['mean']:.4g}")
        table = parity.counts(ours, theirs)
        if table.shape[1] > 1 and (p := scipy.stats.chi2_contingency(table).pvalue) < ALPHA:
            wrong.append(f"{name}: distribution differs, p = {p:.1e}: {table.tolist()}")
    assert not wrong, "\n".join(wrong)


@each_id
def test_threshold_lies_between_the_random_and_the_better_policy(env_id: str) -> None:
    returns = {
        case["policy"]: case["metrics"]["return"]["mean"]
        for case in REFERENCE
        if f"recsim_llm/{case['case']}-v0" == env_id
    }
    threshold = gym.spec(env_id).reward_threshold
    assert threshold == pytest.approx((returns["random"] + max(returns.values())) / 2, rel=0.01)


# Closed forms


def first_steps(env_id: str, lanes: int, **options: Any) -> tuple[Any, ...]:
    """Everything about the first step of many lanes under one slate: before, slate, after."""
    envs = gym.make_vec(env_id, num_envs=lanes, truth=True, autoreset_mode="Disabled", **options)
    before, known = envs.reset(seed=5)
    rng = np.random.Generator(np.random.PCG64(3))
    slate = np.argsort(rng.random((lanes, envs.unwrapped.core.items)), axis=1)[:, : envs.unwrapped.slate_size]
    return envs, before, known, slate, envs.step(slate)


def too_far(clicks: NDArray[Any], p: NDArray[Any]) -> bool:
    """Whether independent clicks of given probabilities are improbable."""
    z = (clicks - p).sum() / np.sqrt((p * (1 - p)).sum())
    return bool(2 * scipy.stats.norm.sf(abs(z)) < ALPHA)


def test_evolution_choice_is_proportional_to_interest() -> None:
    """P(slot k) = (x_k + 1) / (sum of x + 1 over the slate + 2), for each slot and each quarter of probability."""
    envs, before, _, slate, after = first_steps(EVOLUTION, 20_000, slate_size=3)
    lane = np.arange(20_000)[:, None]
    topics = documents(envs, before).argmax(2)[lane, slate]
    mass = before[lane, envs.unwrapped.layout["user"].start + topics] + 1.0
    p = mass / (mass.sum(1, keepdims=True) + 2.0)
    clicks = after[4]["click"]
    for k in range(3):
        order = np.argsort(p[:, k])
        for part in np.array_split(order, 4):
            assert not too_far(clicks[part, k], p[part, k])
    assert set(clicks.sum(1)) == {0.0, 1.0}


def test_evolution_interest_moves_as_published() -> None:
    envs, before, known, _, after = first_steps(EVOLUTION, 20_000, slate_size=5)
    user = envs.unwrapped.layout["user"]
    old, new = before[:, user].astype(float), after[0][:, user].astype(float)
    clicked = after[4]["click"] > 0
    lanes = np.flatnonzero(clicked.any(1))
    topic = after[4]["cluster_id"][clicked]
    x, y = old[lanes, topic], new[lanes, topic]
    step = 0.3 * (1 - np.abs(x)) * (1 - x)
    up = np.abs(y - np.clip(x + step, -1, 1)) < 1e-6
    down = np.abs(y - np.clip(x - step, -1, 1)) < 1e-6
    assert (up | down).all()
    told = step > 1e-4
    for part in np.array_split(np.argsort(x[told]), 4):
        assert not too_far(up[told][part], ((x[told] + 1) / 2)[part])
    same = np.ones(old.shape, bool)
    same[lanes, topic] = False
    np.testing.assert_array_equal(old[same], new[same])
    left = known["truth_budget"] - 0.5
    quality = after[4]["quality"][clicked]
    left[lanes] = 200.0 - 4.0 + 4.0 * quality * 0.9 / 3.4
    np.testing.assert_allclose(after[4]["truth_budget"], left, rtol=1e-6)
    np.testing.assert_array_equal(after[1], 4.0 * clicked.any(1))


def test_evolution_last_video_is_cut_to_the_time_left() -> None:
    envs = gym.make_vec(EVOLUTION, num_envs=2000, truth=True, time_budget=6.0, min_utility=0.0, max_utility=0.0)
    envs.reset(seed=0)
    stream = actions(envs.action_space, 0)
    _, rewards, _, _, first = envs.step(next(stream))
    _, more, terminated, _, second = envs.step(next(stream))
    again = (rewards > 0) & (more > 0)
    np.testing.assert_allclose(more[again], np.minimum(first["truth_budget"][again], 4.0), rtol=1e-6)
    np.testing.assert_array_equal(terminated, second["truth_budget"] <= 0)
    assert again.sum() > 200
    assert terminated[again].any()
    assert not terminated[again].all()


def test_evolution_quality_rises_with_the_topic() -> None:
    envs, before, known, _, _ = first_steps(EVOLUTION, 5000)
    topics, quality = documents(envs, before).argmax(2).ravel(), known["truth_quality"].ravel()
    means = np.concatenate([np.linspace(-3, 0, 14), np.linspace(0, 3, 6)])
    np.testing.assert_array_equal(means, InterestEvolution().topic_means())
    assert scipy.stats.chisquare(np.bincount(topics, minlength=20)).pvalue > ALPHA
    assert scipy.stats.kstest((quality - means[topics]) / 0.1, "norm").pvalue > ALPHA
    assert scipy.stats.kstest(before[:, envs.unwrapped.layout["user"]].ravel(), "uniform", (-1, 2)).pvalue > ALPHA


def test_exploration_choice_is_a_logit() -> None:
    _, _, known, _, after = first_steps(EXPLORATION, 40_000, slate_size=2)
    infos = after[4]
    score = known["truth_affinity"][np.arange(40_000)[:, None], infos["cluster_id"]] + infos["quality"]
    mass = np.exp(score)
    p = mass / (mass.sum(1, keepdims=True) + np.exp(5.0))
    for k in range(2):
        for part in np.array_split(np.argsort(p[:, k]), 4):
            assert not too_far(infos["click"][part, k], p[part, k])


def test_exploration_users_and_documents_follow_their_distributions() -> None:
    envs, before, known, _, _ = first_steps(EXPLORATION, 5000)
    logs = np.log(known["truth_affinity"])
    second = logs[:, 0] > 0.4  # the types' means 0.1 and 0.7 lie six standard deviations apart
    assert scipy.stats.binomtest(int(second.sum()), 5000, 0.7).pvalue > ALPHA
    for kind, means in ((False, (0.1, 0.7)), (True, (0.7, 0.1))):
        for topic in range(2):
            assert scipy.stats.kstest((logs[second == kind, topic] - means[topic]) / 0.1, "norm").pvalue > ALPHA
    docs = documents(envs, before).reshape(-1, 3)
    limit = envs.unwrapped.core.simulator.model.parameters["quality_limit"][0]
    rare = docs[:, 1] == 1
    assert scipy.stats.binomtest(int(rare.sum()), len(rare), 0.2).pvalue > ALPHA
    for kind, mean in ((rare, 0.8), (~rare, 0.2)):
        assert scipy.stats.kstest((np.log(docs[kind, 0] * limit) - mean) / 0.1, "norm").pvalue > ALPHA
    np.testing.assert_array_equal(docs[:, 1] + docs[:, 2], 1.0)


def test_satisfaction_exposure_follows_the_code_of_recsim() -> None:
    """Without noise: x' = 0.7 x - 2 (c - 1/2), s = sigmoid(x / 100), engagement = exp((5 c + 4 (1 - c)) s)."""
    quiet = {"innovation_stddev": 0.0, "choc_stddev": 0.0, "kale_stddev": 0.0}
    envs = gym.make_vec(SATISFACTION, num_envs=50, truth=True, autoreset_mode="Disabled", **quiet)
    seen, infos = envs.reset(seed=0)
    exposure = infos["truth_exposure"]
    assert (np.abs(exposure) < 0.5 / 0.3).all()
    stream = actions(envs.action_space, 0)
    for step in range(60):
        action = next(stream)
        clickbait = documents(envs, seen)[np.arange(50), action, 0].astype(float)
        satisfaction = 1 / (1 + np.exp(-0.01 * exposure))
        seen, rewards, terminated, _, infos = envs.step(action)
        np.testing.assert_allclose(rewards, np.exp((5 * clickbait + 4 * (1 - clickbait)) * satisfaction), rtol=1e-5)
        exposure = 0.7 * exposure - 2 * (clickbait - 0.5)
        np.testing.assert_allclose(infos["truth_exposure"], exposure, atol=1e-5)
        assert terminated.all() == (step == 59)


def test_satisfaction_noise_and_first_slot() -> None:
    envs, before, known, slate, after = first_steps(SATISFACTION, 20_000, slate_size=3, choc_stddev=0.5)
    clickbait = documents(envs, before)[np.arange(20_000), slate[:, 0], 0].astype(float)
    location = (4 + clickbait) * known["truth_satisfaction"]
    noise = (np.log(after[1]) - location) / (1 - 0.5 * clickbait)
    assert scipy.stats.kstest(noise, "norm").pvalue > ALPHA
    moved = after[4]["truth_exposure"] - 0.7 * known["truth_exposure"] + 2 * (clickbait - 0.5)
    assert scipy.stats.kstest(moved / 0.05, "norm").pvalue > ALPHA
    assert abs(np.corrcoef(noise, moved)[0, 1]) < 0.03  # two draws, not one
    np.testing.assert_array_equal(after[4]["click"], np.tile([1.0, 0.0, 0.0], (20_000, 1)))
    start = known["truth_exposure"] * 0.3 + 0.5
    assert scipy.stats.kstest(start, "uniform").pvalue > ALPHA
    assert scipy.stats.kstest(documents(envs, before).ravel(), "uniform").pvalue > ALPHA


# The contract

VARIANTS: list[dict[str, Any]] = [
    {},
    {"observation": "dict", "truth": True, "action_mask": True},
    {"resample_documents": False, "slate_size": 3, "num_candidates": 30},
    {"resample_documents": False, "observation": "dict"},
    {"slate_size": 1},
    {"slate_size": 10, "horizon": 7},
]


@each_id
@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_contract(env_id: str, options: dict[str, Any]) -> None:
    """Gymnasium's and Stable-Baselines3's checkers, spaces, infos, seeds, copies, JSON, vector against scalar."""
    checks = check_env(env_id, steps=200, **options)
    assert len(checks) >= 10
    assert [str(check) for check in checks if check.passed is False] == []


@each_id
def test_signature_names_every_argument(env_id: str) -> None:
    spec = gym.spec(env_id)
    for entry, extra in ((spec.entry_point, set()), (spec.vector_entry_point, {"threads", "num_envs", "copy"})):
        creator = load_env_creator(str(entry))
        parameters = inspect.signature(creator).parameters
        assert inspect.Parameter.VAR_KEYWORD not in [parameter.kind for parameter in parameters.values()]
        assert {"slate_size", "num_candidates", "resample_documents", "documents_seed", *extra} <= set(parameters)
        assert "world" not in parameters
        for name, parameter in parameters.items():
            if name != "autoreset_mode":
                json.dumps(parameter.default)
        if "threads" not in extra:
            assert "threads" not in parameters
            page = inspect.getdoc(creator)
            assert page is not None
            missing = [name for name in parameters if name != "render_mode" and f"| {name} |" not in page]
            assert not missing


WRONG: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    (EVOLUTION, {"slate": 3}, TypeError, "Did you mean 'slate_size'"),
    (EVOLUTION, {"time_budge": 3.0}, TypeError, "Did you mean 'time_budget'"),
    (EVOLUTION, {"slate_size": 11}, ConfigError, r"slate_size must lie in 1\.\.10"),
    (EVOLUTION, {"slate_size": 0}, ConfigError, r"slate_size must lie in 1\.\.10"),
    (EVOLUTION, {"num_candidates": 0}, ConfigError, "num_candidates must lie in"),
    (EVOLUTION, {"observation": "flatt"}, ConfigError, "Did you mean 'flat'"),
    (EVOLUTION, {"reward": {"clik": 1.0}}, ConfigError, "Did you mean 'click'"),
    (EVOLUTION, {"reward": {"click": float("nan")}}, ConfigError, "finite"),
    (EVOLUTION, {"reward": "no such"}, ConfigError, "no reward 'no such'"),
    (EVOLUTION, {"horizon": 0}, ConfigError, "horizon must be at least 1"),
    (EVOLUTION, {"num_topics": 1}, ConfigError, "num_topics"),
    (EVOLUTION, {"time_budget": -1.0}, ConfigError, "time_budget must be above 0, got -1"),
    (EVOLUTION, {"min_normalizer": -0.5}, ConfigError, "min_normalizer must be at most -1"),
    (EVOLUTION, {"no_click_mass": -2.0}, ConfigError, "no_click_mass"),
    (EVOLUTION, {"step_penalty": float("inf")}, ConfigError, "step_penalty must be a finite number"),
    (EXPLORATION, {"topic_distribution": (0.5, 0.6)}, ConfigError, "add up to 1"),
    (EXPLORATION, {"topic_distribution": (1.5, -0.5)}, ConfigError, "probabilities"),
    (EXPLORATION, {"topic_quality_mean": (0.1,)}, ConfigError, "topic_quality_mean must be finite numbers of shape"),
    (EXPLORATION, {"topic_quality_mean": (90.0, 0.0)}, ConfigError, "allow a quality of"),
    (EXPLORATION, {"topic_quality_stddev": (-0.1, 0.1)}, ConfigError, "must not be negative"),
    (SATISFACTION, {"memory_discount": 1.0}, ConfigError, r"\[0, 1\)"),
    (SATISFACTION, {"kale_stddev": -1.0}, ConfigError, "must not be negative"),
]


@pytest.mark.parametrize(("env_id", "options", "kind", "words"), WRONG, ids=lambda value: str(value)[:40])
def test_wrong_arguments_are_named(env_id: str, options: dict[str, Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        gym.make(env_id, **options)


@each_id
def test_wrong_actions_and_options(env_id: str) -> None:
    env = gym.make(env_id, slate_size=2).unwrapped
    env.reset(seed=0)
    for bad in ([0, 10], [-1, 0]):
        with pytest.raises(ConfigError, match=r"is no candidate; the list has candidates 0\.\.9"):
            env.step(np.array(bad))
    with pytest.raises(ConfigError, match="actions have shape"):
        env.step(np.zeros(3, int))
    with pytest.raises(ConfigError, match="actions must be integers"):
        env.step(np.zeros(2))
    assert env.reset(options={"user": 12345})[1]["user_id"] == 12345
    for user in (-1, 2**31, "anna", True):
        with pytest.raises(ConfigError, match="no user"):
            env.reset(options={"user": user})
    assert not hasattr(env, "catalog")
    envs = gym.make_vec(env_id, num_envs=100, slate_size=2)
    envs.reset(seed=0)
    with pytest.raises(ConfigError, match="action 10 is no candidate"):
        envs.step(np.full((100, 2), 10))


@each_id
def test_a_document_twice_is_a_wasted_slot(env_id: str) -> None:
    env = gym.make(env_id, slate_size=4)
    env.reset(seed=0)
    _, _, _, _, info = env.step(np.array([3, 3, 5, 3]))
    assert info["slate"].tolist() == [3, -1, 5, -1]
    assert info["wasted"] == 2
    assert (info["cluster_id"] >= 0).tolist() == [True, False, True, False]
    assert not info["click"][[1, 3]].any()
    strict = gym.make(env_id, slate_size=2, strict=True)
    strict.reset(seed=0)
    with pytest.raises(ConfigError, match="wastes 1 slots"):
        strict.step(np.array([3, 3]))


def test_the_user_named_is_the_same_person_everywhere() -> None:
    envs = gym.make_vec(EVOLUTION, num_envs=3)
    user = envs.unwrapped.layout["user"]
    named = envs.reset(seed=0, options={"user": [7, 7, 8]})[0][:, user]
    np.testing.assert_array_equal(named[0], named[1])
    assert (named[0] != named[2]).any()
    np.testing.assert_array_equal(gym.make(EVOLUTION).reset(seed=99, options={"user": 7})[0][user], named[0])
    rows = envs.reset(seed=0, options={"user": 7})[0]
    rest = rows[:, user.stop :]
    assert (rest[0] != rest[1]).any(), "the same user must not have the same luck in every lane"


@each_id
def test_fixed_documents(env_id: str) -> None:
    options = {"resample_documents": False, "num_candidates": 40}
    envs = gym.make_vec(env_id, num_envs=3, **options)
    part = envs.unwrapped.layout["doc"]
    listed = envs.reset(seed=0)[0][0, part]
    stream = actions(envs.action_space, 0)
    for _ in range(70):
        assert (envs.step(next(stream))[0][:, part] == listed).all()
    np.testing.assert_array_equal(gym.make(env_id, **options).reset(seed=5)[0][part], listed)
    assert (gym.make(env_id, documents_seed=1, **options).reset(seed=5)[0][part] != listed).any()
    moving = gym.make(env_id, num_candidates=40)
    before = moving.reset(seed=0)[0][part]
    assert (before != moving.step(moving.action_space.sample())[0][part]).any()


@pytest.mark.parametrize("resample", [False, True])
def test_copies_of_observations(resample: bool) -> None:
    options = {"num_envs": 4, "observation": "dict", "resample_documents": resample}
    kept, shared = gym.make_vec(EVOLUTION, **options), gym.make_vec(EVOLUTION, copy=False, **options)
    first, _ = kept.reset(seed=0)
    before = copy.deepcopy(first)
    viewed, _ = shared.reset(seed=0)
    assert difference(first, {name: np.array(part) for name, part in viewed.items()}) is None
    stream = actions(kept.action_space, 0)
    for _ in range(10):
        action = next(stream)
        seen = kept.step(action)[0]
        viewed = shared.step(action)[0]
        assert difference(seen, {name: np.array(part) for name, part in viewed.items()}) is None
    assert difference(first, before) is None
    assert np.shares_memory(viewed["user"], shared.unwrapped.core.simulator.outcome.observation)
    if not resample:
        assert not viewed["doc"].flags.writeable
        assert seen["doc"].flags.writeable


@each_id
def test_snapshots_and_copies(env_id: str) -> None:
    envs = gym.make_vec(env_id, num_envs=3, truth=True, observation="dict", copy=False)
    envs.reset(seed=0)
    stream = actions(envs.action_space, 0)
    for _ in range(5):
        envs.step(next(stream))
    snapshot, twins = envs.unwrapped.get_state(), [copy.deepcopy(envs), pickle.loads(pickle.dumps(envs))]
    later = [next(stream) for _ in range(20)]
    history = [copy.deepcopy(envs.step(action)) for action in later]
    envs.unwrapped.set_state(snapshot)
    for other in (envs, *twins):
        assert difference(history, [copy.deepcopy(other.step(action)) for action in later]) is None
    with pytest.raises(ConfigError, match="snapshot does not fit"):
        gym.make_vec(env_id, num_envs=4).unwrapped.set_state(snapshot)


@each_id
@pytest.mark.parametrize("options", [{}, {"resample_documents": False, "slate_size": 5}], ids=str)
def test_threads_do_not_matter(env_id: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsim_llm.simulator.simulator.LANES_PER_THREAD", 1)
    results = []
    for threads in (1, 2, 5):
        envs = gym.make_vec(env_id, num_envs=23, threads=threads, truth=True, **options)
        envs.reset(seed=3)
        stream = actions(envs.action_space, 0)
        results.append([envs.step(next(stream)) for _ in range(70)])
    assert difference(results[0], results[1]) is None
    assert difference(results[0], results[2]) is None


def test_rewards() -> None:
    def run(env_id: str, reward: Any) -> list[float]:
        env = gym.make(env_id, reward=reward)
        env.reset(seed=0)
        return [float(env.step(action)[1]) for action, _ in zip(actions(env.action_space, 0), range(40), strict=False)]

    clicks = run(EVOLUTION, {"click": 1.0})
    assert set(clicks) == {0.0, 1.0}
    np.testing.assert_allclose(run(EVOLUTION, None), 4.0 * np.array(clicks))
    np.testing.assert_allclose(run(EVOLUTION, {"click": 1.0, "watch_time": -0.5}), -np.array(clicks))
    register_reward("clicked quality", lambda infos: (infos["click"] * infos["quality"]).sum(1))
    by_name = run(EXPLORATION, "clicked quality")
    np.testing.assert_array_equal(np.array(by_name) > 0, np.array(run(EXPLORATION, None)) == 1.0)
    assert run(SATISFACTION, lambda infos: 2.0 * infos["reward"]) == [2.0 * r for r in run(SATISFACTION, None)]


@each_id
def test_stable_baselines3_trains(env_id: str) -> None:
    pytest.importorskip("stable_baselines3")
    from stable_baselines3 import PPO

    envs = gym.make_vec(env_id, num_envs=4).unwrapped.sb3()
    model = PPO("MlpPolicy", envs, n_steps=32, batch_size=32, n_epochs=1, seed=0, device="cpu").learn(256)
    assert model.num_timesteps == 256
    assert len(model.ep_info_buffer or []) == (4 if env_id == SATISFACTION else 0)  # 64 steps of 4 lanes
