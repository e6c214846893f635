"""However an agent is evaluated, it is worth the same: the ways that README, commands and libraries take agree."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv
from numpy.typing import NDArray

from recsim_llm import agents
from recsim_llm.agents.core.base import Agent
from recsim_llm.agents.core.callbacks import EvaluationCallback
from recsim_llm.agents.core.serving_session import UnknownEnvironmentWarning
from recsim_llm.benchmarks.harness.cell import evaluate
from recsim_llm.commands.timeline import play_episode
from recsim_llm.errors import ConfigError

Returns = NDArray[np.float64]

LANES, HORIZON, STEPS, SEED = 6, 8, 256, 50
ROLLOUT = {"rollout": 128, "batch": 64, "epochs": 1}
SMALL: dict[str, dict[str, Any]] = {
    "ppo": ROLLOUT, "masked_ppo": ROLLOUT, "a2c": {"rollout": 64}, "sac": {"warmup": 64}, "td3": {"warmup": 64},
    "lookahead": {"depth": 2, "rollouts": 1, "replan": 4},
}  # fmt: skip
DRAWS = {"random"}
"""Agents that draw what they serve whether they are to explore or not."""

ELSEWHERE = ["random", "oracle", "lookahead", "thompson", "linucb", "sarsa", "ppo", "mf", "mmr", "fair_exposure"]
"""One or two of each family, for other environments than the first."""


def unless_missing(name: str) -> None:
    """Skips an agent whose libraries are not installed."""
    kind = agents.get(name)
    for module in (*(["torch", "stable_baselines3"] if kind.needs_torch else []), *kind.libraries):
        pytest.importorskip(module)


def stepped_alone(agent: Agent, env_id: str, options: dict[str, Any]) -> Returns:
    """The README's ten lines, one user after the other."""
    env = gym.make(env_id, **options)
    returns = []
    for lane in range(2):
        observation, _ = env.reset(seed=SEED + lane)
        total, over = 0.0, False
        while not over:
            action, _ = agent.predict(observation, deterministic=True)
            observation, reward, terminated, truncated, _ = env.step(action)
            total, over = total + float(reward), terminated or truncated
        returns.append(total)
    return np.array(returns)


def stepped(agent: Agent, envs: Any) -> Returns:
    """The README's ten lines, all users side by side."""
    observation, _ = envs.reset(seed=SEED)
    total, running = np.zeros(LANES), np.ones(LANES, bool)
    while running.any():
        action, _ = agent.predict(observation, deterministic=True)
        observation, reward, terminated, truncated, _ = envs.step(action)
        total += np.where(running, reward, 0.0)
        running &= ~(terminated | truncated)
    return total


def by_stable_baselines3(agent: Agent, env: Any) -> Returns:
    """``evaluate_policy``, lane by lane."""
    evaluation = pytest.importorskip("stable_baselines3.common.evaluation")
    found: list[tuple[int, float]] = []

    def note(names: dict[str, Any], _: dict[str, Any]) -> None:
        if names["done"] and len(found) < LANES:
            found.append((names["i"], names["info"]["episode"]["r"]))

    env.seed(SEED)
    evaluation.evaluate_policy(agent, env, n_eval_episodes=LANES, deterministic=True, callback=note)
    return np.array([total for _, total in sorted(found)])


def by_callback(agent: Agent, envs: Any) -> Returns:
    """The callback that evaluates while an agent learns; mean alone."""
    return np.array([EvaluationCallback(envs, n_eval_episodes=LANES, seed=SEED).evaluate(agent)])


def all_ways(name: str, env_id: str, options: dict[str, Any], config: dict[str, Any], folder: Path) -> None:
    """Trains an agent, loads it, and compares every way of evaluation with the benchmark's."""
    unless_missing(name)
    if agents.get(name).needs_truth:
        options = {**options, "truth": True}
    train = gym.make_vec(env_id, num_envs=8, **{**options, "users": "train"})
    agent = agents.make(name, train, seed=3, **config)
    if agent.learns:
        agent.learn(STEPS)
    agent.serving_rng = np.random.Generator(np.random.PCG64(SEED))  # the callback's own, for agents that draw
    file = agent.save(folder / "agent.zip")

    def envs(mode: str = "Disabled") -> Any:
        return gym.make_vec(env_id, num_envs=LANES, autoreset_mode=mode, **options)

    def loaded() -> Agent:
        return agents.load(file, gym.make_vec(env_id, num_envs=8, **{**options, "users": "train"}))

    expected = evaluate(loaded(), envs(), SEED).returns
    ways = {
        "ten lines": stepped(loaded(), envs("NextStep")),
        "ten lines, same step": stepped(loaded(), envs("SameStep")),
        "evaluate_policy": by_stable_baselines3(loaded(), envs().unwrapped.sb3()),
        "callback": by_callback(loaded(), envs("NextStep")),
        "ten lines, one by one": stepped_alone(loaded(), env_id, options),
    }
    if "num_candidates" not in options:  # the command has no option for them, nor for the truth beside a file
        who = name if agent.needs_truth else str(file)
        play = {"mode": "ansi", "steps": HORIZON, "seed": SEED, "user": None, "world": options.get("world")}
        ways["play"] = np.array([play_episode(env_id, who, **play).total])
    for way, returns in ways.items():
        wanted = np.array([expected.mean()]) if way == "callback" else expected[: len(returns)]
        if len(returns) < LANES and way != "callback" and name in DRAWS:
            wanted = ways["ten lines, one by one"][: len(returns)]  # one user's draws are not those of many
        if agent.elementwise:
            np.testing.assert_allclose(returns, wanted, rtol=1e-5, atol=1e-5, err_msg=way)
        else:
            spread = max(returns.std(), expected.std()) * np.sqrt(1 / LANES + 1 / len(returns))
            assert abs(returns.mean() - expected.mean()) <= 4.0 * spread + 1e-9, way


@pytest.mark.parametrize("name", agents.names())
def test_all_ways_to_evaluate_agree(name: str, world_folder: str, tmp_path: Path) -> None:
    options = {"world": world_folder, "max_episode_steps": HORIZON}
    all_ways(name, "recsim_llm/News-v0", options, SMALL.get(name, {}), tmp_path)


OTHERS: dict[str, dict[str, Any]] = {
    "recsim_llm/Music-v0": {},
    "recsim_llm/Ads-v0": {},
    "recsim_llm/News-v0": {"num_candidates": 40, "slate_size": 3},
}
"""Single items, budgets that run out, and lists of candidates."""


@pytest.mark.parametrize("env_id", OTHERS)
@pytest.mark.parametrize("name", ELSEWHERE)
def test_they_agree_in_other_environments(name: str, env_id: str, tmp_path: Path) -> None:
    if name == "lookahead" and "num_candidates" in OTHERS[env_id]:
        pytest.skip("it refuses candidates")
    all_ways(name, env_id, {"max_episode_steps": HORIZON, **OTHERS[env_id]}, SMALL.get(name, {}), tmp_path)


@pytest.fixture
def linucb(world_folder: str) -> Agent:
    """A trained agent that remembers, in an environment whose items come and go."""
    envs = gym.make_vec("recsim_llm/News-v0", num_envs=8, world=world_folder, users="train", slate_size=3)
    return agents.make("linucb", envs, seed=3).learn(STEPS)


def news(world: str, lanes: int = LANES, **options: Any) -> Any:
    """Users in the same world: [lanes] of them, or one where lanes are 0."""
    arguments = {"world": world, "slate_size": 3, "max_episode_steps": HORIZON, **options}
    if lanes == 0:
        return gym.make("recsim_llm/News-v0", **arguments)
    return gym.make_vec("recsim_llm/News-v0", num_envs=lanes, **arguments)


def shelf_of(env: Any) -> NDArray[np.bool_]:
    """What is on the shelf of an environment now, [B, I]."""
    return np.atleast_2d(env.unwrapped.available())


def stand_in_sb3(world: str) -> Any:
    """Stable-Baselines3's own vector of scalar environments, each in wrappers."""
    vec_env = pytest.importorskip("stable_baselines3.common.vec_env")
    monitor = pytest.importorskip("stable_baselines3.common.monitor")
    makers = [lambda: monitor.Monitor(gym.wrappers.FlattenObservation(news(world, 0))) for _ in range(LANES)]
    return vec_env.DummyVecEnv(makers)


class TestWhereObservationsComeFrom:
    """The environment is found, whatever is around it, and whatever others are there."""

    @pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
    def test_through_resets_and_among_others(self, mode: str, linucb: Agent, world_folder: str) -> None:
        one, other = (news(world_folder, autoreset_mode=mode, users=users) for users in ("test", "train"))
        seen = {env: env.reset(seed=seed)[0] for seed, env in enumerate((one, other))}
        for _ in range(3 * HORIZON):
            for env in (one, other, one):
                linucb.where = None
                found = linucb.service.find(seen[env])
                assert found is not None
                assert [part.env for part in found.parts] == [env.unwrapped]
                assert (found.available() == shelf_of(env)).all()
                slates, _ = linucb.predict(seen[env])
                assert np.take_along_axis(shelf_of(env), slates, 1).all()
                seen[env] = env.step(slates)[0]

    def test_the_training_environment_is_not_asked_for_others(self, world_folder: str) -> None:
        agent = agents.make("random", news(world_folder, users="train"), seed=0).learn(200)
        test = news(world_folder, users="test")
        observation, _ = test.reset(seed=5)
        for _ in range(HORIZON - 1):
            slates, _ = agent.predict(observation)
            assert np.take_along_axis(shelf_of(test), slates, 1).all()
            observation, *_ = test.step(slates)
        assert (shelf_of(test) != shelf_of(agent.env)).any()

    def test_one_of_many_users(self, linucb: Agent, world_folder: str) -> None:
        envs = news(world_folder)
        observation, _ = envs.reset(seed=5)
        for _ in range(4):
            alone = np.stack([linucb.predict(row, deterministic=True)[0] for row in observation])
            together, _ = linucb.predict(observation, deterministic=True)
            backwards, _ = linucb.predict(observation[::-1], deterministic=True)
            assert (alone == together).all()
            assert (backwards[::-1] == together).all()
            observation, *_ = envs.step(together)

    def test_lists_of_scalar_environments(self, linucb: Agent, world_folder: str) -> None:
        expected = evaluate(linucb, news(world_folder, autoreset_mode="Disabled"), SEED).returns
        several = SyncVectorEnv([lambda: news(world_folder, 0) for _ in range(LANES)])
        np.testing.assert_allclose(stepped(linucb, several), expected)
        np.testing.assert_allclose(by_stable_baselines3(linucb, stand_in_sb3(world_folder)), expected, rtol=1e-5)

    def test_users_who_look_alike_are_dealt_out_in_order(self, world_folder: str) -> None:
        agent = agents.make("random", news(world_folder), seed=0)
        others = [news(world_folder, 0) for _ in range(8)]
        observation = np.stack([env.reset(seed=7)[0] for env in others])
        assert (observation == observation[0]).all()
        found = agent.service.find(observation)
        assert found is not None
        assert [part.env for part in found.parts] == [env.unwrapped for env in others]
        latest = agent.service.find(observation[:1])
        assert latest is not None
        assert latest.parts[0].env is others[-1].unwrapped

    def test_dict_observations(self, linucb: Agent, world_folder: str) -> None:
        expected = evaluate(linucb, news(world_folder, autoreset_mode="Disabled"), SEED).returns
        np.testing.assert_allclose(stepped(linucb, news(world_folder, observation="dict")), expected)

    def test_environments_are_not_kept_alive(self, linucb: Agent, world_folder: str) -> None:
        envs = news(world_folder)
        observation, _ = envs.reset(seed=1)
        linucb.predict(observation)
        alive = weakref.ref(envs.unwrapped)
        del envs
        gc.collect()
        assert alive() is None
        assert not any(isinstance(env, type(None)) for env in linucb.service._visits)


class TestWhatCannotBeKnown:
    """An agent says once that it does not know the shelf, and how that is mended."""

    def test_it_is_said_once(self, linucb: Agent, world_folder: str) -> None:
        envs = news(world_folder)
        altered = envs.reset(seed=1)[0] * np.float32(0.5)
        with pytest.warns(UnknownEnvironmentWarning, match=r"allows every item.*action_masks=.*agent\.serve\(env\)"):
            linucb.predict(altered)
        linucb.predict(altered)  # warnings are errors here

    @pytest.mark.parametrize("given", ["masks", "served"])
    def test_what_mends_it(self, given: str, linucb: Agent, world_folder: str) -> None:
        envs = stand_in_sb3(world_folder) if given == "served" else news(world_folder)
        if given == "served":
            linucb.serve(envs)
            envs.seed(1)
            observation = envs.reset()
            shelf = np.stack(envs.env_method("available"))
            slates, _ = linucb.predict(observation * np.float32(0.5))
        else:
            observation, _ = envs.reset(seed=1)
            shelf = shelf_of(envs)
            slates, _ = linucb.predict(observation * np.float32(0.5), action_masks=shelf)
        assert np.take_along_axis(shelf, slates, 1).all()

    def test_only_environments_of_this_process_can_be_served(self, linucb: Agent) -> None:
        with pytest.raises(ConfigError, match="no environment of recsim_llm is in this CartPole"):
            linucb.serve(gym.make("CartPole-v1").unwrapped)
        with pytest.raises(ConfigError, match="knows 60 items and slates of 3, the environment to serve has"):
            linucb.serve(gym.make("recsim_llm/Music-v0"))


class TestMemory:
    """What is remembered between calls without a state."""

    def test_it_is_that_of_calls_with_a_state(self, linucb: Agent, world_folder: str) -> None:
        envs, state = news(world_folder), None
        fresh, over = np.ones(LANES, bool), np.zeros(LANES, bool)
        observation, _ = envs.reset(seed=2)
        for _ in range(3 * HORIZON):
            own, _ = linucb.predict(observation, deterministic=True)
            again, _ = linucb.predict(observation, deterministic=True)  # nothing is counted twice
            given, state = linucb.predict(observation, state, fresh, deterministic=True)
            assert (own == given).all()
            assert (own == again).all()
            observation, _, terminated, truncated, _ = envs.step(own)
            fresh, over = over, terminated | truncated  # the step after an end resets the lane

    def test_each_environment_has_its_own(self, linucb: Agent, world_folder: str) -> None:
        expected = [evaluate(linucb, news(world_folder, autoreset_mode="Disabled"), seed).returns for seed in (1, 2)]
        both = [news(world_folder), news(world_folder)]
        seen = [envs.reset(seed=seed)[0] for envs, seed in zip(both, (1, 2), strict=True)]
        totals, running = np.zeros((2, LANES)), np.ones((2, LANES), bool)
        while running.any():
            for n, envs in enumerate(both):
                action, _ = linucb.predict(seen[n], deterministic=True)
                seen[n], reward, terminated, truncated, _ = envs.step(action)
                totals[n] += np.where(running[n], reward, 0.0)
                running[n] &= ~(terminated | truncated)
        np.testing.assert_allclose(totals, expected)

    def test_what_others_chose_is_not_taken_for_ones_own(self, linucb: Agent, world_folder: str) -> None:
        envs = news(world_folder)
        observation, _ = envs.reset(seed=2)
        linucb.predict(observation)
        for _ in range(2):
            observation, *_ = envs.step(envs.action_space.sample())
        missed, after = linucb.predict(observation, deterministic=True)
        fresh, _ = linucb.predict(observation, after, np.ones(LANES, bool), deterministic=True)
        assert (missed == fresh).all()

    def test_more_episodes_than_lanes(self, linucb: Agent, world_folder: str) -> None:
        evaluation = pytest.importorskip("stable_baselines3.common.evaluation")
        callback = EvaluationCallback(news(world_folder), n_eval_episodes=3 * LANES, seed=SEED)
        env = news(world_folder).unwrapped.sb3()
        env.seed(SEED)
        found, _ = evaluation.evaluate_policy(linucb, env, n_eval_episodes=3 * LANES)
        assert found == pytest.approx(callback.evaluate(linucb), rel=1e-5)

    def test_learning_goes_on_as_if_nobody_had_been_served(self, world_folder: str) -> None:
        quiet, busy = (agents.make("linucb", news(world_folder, users="train"), seed=0).learn(90) for _ in range(2))
        envs = news(world_folder)
        observation, _ = envs.reset(seed=0)
        for _ in range(5):
            observation, *_ = envs.step(busy.predict(observation)[0])
            busy.predict(busy.runner.observation)  # its own users, in the middle of their episodes
        learnt = busy.learn(90).arrays()
        assert all((array == learnt[name]).all() for name, array in quiet.learn(90).arrays().items())

    def test_without_it_the_agent_would_do_otherwise(self, linucb: Agent, world_folder: str) -> None:
        envs = news(world_folder)
        observation, _ = envs.reset(seed=2)
        differs = False
        for _ in range(HORIZON - 1):
            own, _ = linucb.predict(observation, deterministic=True)
            forgetful, _ = linucb.predict(observation, episode_start=np.ones(LANES, bool), deterministic=True)
            differs = differs or bool((own != forgetful).any())
            linucb.predict(observation, deterministic=True)
            observation, *_ = envs.step(own)
        assert differs
