"""A lane of the vector environment is the scalar environment, bit for bit; snapshots and copies go on alike."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import numpy as np
import pytest

from recsim_llm.envs import scenarios
from recsim_llm.errors import ConfigError
from recsim_llm.simulator import Rules
from recsim_llm.simulator.simulator import Simulator
from recsim_llm.testing import actions, check_env, difference
from recsim_llm.testing.environments import FORK_STEP
from recsim_llm.worlds.world import World

IDS = scenarios()
STEPS = 150
KEYS = ("user_id", "clicks", "ctr", "day", "session", "dwell", "rating", "slate", "slot_reward", "truth_mood")

each_id = pytest.mark.parametrize("env_id", IDS)


def same(left: Any, right: Any, where: str = "") -> None:
    found = difference(left, right, where)
    assert found is None, found


def lane_actions(env: Any, lanes: int) -> list[Any]:
    """Each lane has a stream of its own, the same whatever the number of lanes."""
    return [actions(env.action_space, 100 + lane) for lane in range(lanes)]


@pytest.fixture(scope="module")
def scalar_histories(make: Any) -> dict[str, list[list[Any]]]:
    """Trajectories of seven scalar environments of each id, seeded 0..6."""
    histories = {}
    for env_id in IDS:
        histories[env_id] = []
        for lane in range(7):
            env = make(env_id, truth=True, max_episode_steps=40, rules={"leave": -2.0, "churn": -1.0})
            stream = actions(env.action_space, 100 + lane)
            history: list[Any] = [env.reset(seed=lane)]
            for _ in range(STEPS):
                action = next(stream)
                if len(history[-1]) == 5 and (history[-1][2] or history[-1][3]):
                    history.append(env.reset())
                else:
                    history.append(env.step(action))
            histories[env_id].append(history)
    return histories


@each_id
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("lanes", [1, 2, 7])
def test_lanes_are_scalar_environments(
    env_id: str, lanes: int, threads: int, scalar_histories: Any, make: Any, make_vec: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr("recsim_llm.simulator.simulator.LANES_PER_THREAD", 1)  # let even two lanes be shared out
    rules = {"leave": -2.0, "churn": -1.0}
    envs = make_vec(env_id, num_envs=lanes, truth=True, max_episode_steps=40, rules=rules, threads=threads)
    streams = lane_actions(make(env_id), lanes)
    result: tuple[Any, ...] = envs.reset(seed=0)
    ended = 0
    for step in range(STEPS + 1):
        for lane in range(lanes):
            expected = scalar_histories[env_id][lane][step]
            same(result[0][lane], expected[0], f"step {step} lane {lane}")
            for key in KEYS:
                np.testing.assert_array_equal(result[-1][key][lane], expected[-1][key], f"{key} {step} {lane}")
            if step > 0:
                outcome = tuple(part[lane] for part in result[1:4])
                assert outcome == (expected[1:4] if len(expected) == 5 else (0.0, False, False))
                ended += any(outcome[1:])
        result = envs.step(np.array([next(s) for s in streams]))
    assert ended >= 3 * lanes


@each_id
def test_many_lanes_and_threads(env_id: str, make: Any, make_vec: Any) -> None:
    """257 lanes do not divide evenly; the threshold for threads is the real one for 1,030."""
    for lanes, threads in ((257, 1), (1030, 4)):
        envs = make_vec(env_id, num_envs=lanes, threads=threads)
        chosen = [0, 1, lanes // 2, lanes - 1]
        singles = [make(env_id) for _ in chosen]
        observation, _ = envs.reset(seed=17)
        for lane, env in zip(chosen, singles, strict=True):
            same(env.reset(seed=17 + lane)[0], observation[lane])
        stream = actions(envs.action_space, 1)
        alive = np.ones(len(chosen), bool)
        for _ in range(10):
            action = next(stream)
            observation, rewards, terminated, _, _ = envs.step(action)
            for n, lane in enumerate(chosen):
                if alive[n]:
                    result = singles[n].step(action[lane])
                    same(result[0], observation[lane])
                    assert result[1:3] == (rewards[lane], terminated[lane])
                    alive[n] = not terminated[lane]


@each_id
def test_other_lanes_do_not_matter(env_id: str, make_vec: Any) -> None:
    """Lane 0 sees the same whatever lane 1 is shown: users do not share luck."""
    rows = []
    for other in (0, 1):
        envs = make_vec(env_id, num_envs=2)
        envs.reset(seed=0)
        stream, noise = actions(envs.action_space, 0), actions(envs.action_space, other)
        seen = []
        for _ in range(100):
            action = next(stream).copy()
            action[1] = next(noise)[1]
            seen.append(envs.step(action)[0])
        rows.append(np.stack(seen, axis=1))
    np.testing.assert_array_equal(rows[0][0], rows[1][0])
    assert (rows[0][1] != rows[1][1]).any()


def run(env: Any, stream: list[Any]) -> list[Any]:
    history = []
    for action in stream:
        history.append(copy.deepcopy(env.step(action)))
        if np.all(history[-1][2] | history[-1][3]):
            history.append(copy.deepcopy(env.reset()))
    return history


@each_id
@pytest.mark.parametrize("kind", ["scalar", "vector"])
def test_snapshots_replay(env_id: str, kind: str, make: Any, make_vec: Any) -> None:
    def new() -> Any:
        kwargs = {"truth": True, "max_episode_steps": 1000}
        return make_vec(env_id, num_envs=3, **kwargs) if kind == "vector" else make(env_id, **kwargs).unwrapped

    env = new()
    env.reset(seed=5)
    drawn = actions(env.action_space, 5)
    run(env, [next(drawn) for _ in range(FORK_STEP)])
    snapshot = env.get_state()
    saved = copy.deepcopy(snapshot)
    ahead, other = [next(drawn) for _ in range(60)], [next(drawn) for _ in range(60)]
    first = run(env, ahead)
    same(saved, snapshot, "the snapshot changed")
    env.set_state(snapshot)
    same(first, run(env, ahead))
    env.set_state(snapshot)
    assert difference(first, run(env, other)) is not None  # a counterfactual
    fresh = new()
    fresh.reset(seed=99)
    fresh.set_state(snapshot)
    same(first, run(fresh, ahead))
    small = {name: value[:0] if isinstance(value, np.ndarray) else value for name, value in snapshot.items()}
    with pytest.raises(ConfigError, match="snapshot does not fit"):
        env.set_state(small)
    before = env.get_state()
    with pytest.raises(ConfigError, match="part 'slot_reward'"):
        env.set_state({**snapshot, "slot_reward": np.zeros(7)})
    same(before, env.get_state(), "a snapshot that does not fit was written in part")


@each_id
@pytest.mark.parametrize("way", ["pickle", "deepcopy"])
@pytest.mark.parametrize("kind", ["scalar", "vector", "rendering"])
def test_copies_go_on_alike(env_id: str, way: str, kind: str, make: Any, make_vec: Any) -> None:
    if kind == "vector":
        env = make_vec(env_id, num_envs=3, choice="cascade", threads=2)
    else:
        env = make(env_id, choice="position", render_mode="ansi" if kind == "rendering" else None)
    env.reset(seed=3)
    drawn = actions(env.action_space, 3)
    run(env, [next(drawn) for _ in range(FORK_STEP)])
    twin = copy.deepcopy(env) if way == "deepcopy" else pickle.load(io.BytesIO(pickle.dumps(env)))
    ahead = [next(drawn) for _ in range(100)]
    kept = env.unwrapped.get_state()
    same(run(twin, ahead), run(copy.deepcopy(env), ahead))
    same(kept, env.unwrapped.get_state(), "stepping a copy moved the original")
    same(twin.reset(seed=8), env.reset(seed=8))
    if kind == "rendering":
        assert twin.render() == env.render()


def test_threads_share_out_every_lane(world: World) -> None:
    for lanes, threads in ((513, 2), (1000, 3), (5000, 7)):
        results = []
        for count in (1, threads):
            simulator = Simulator(world, Rules(), lanes=lanes, slate_size=2, threads=count)
            simulator.seed(np.arange(lanes, dtype=np.uint64))
            simulator.reset(np.ones(lanes, bool))
            chosen = np.arange(2 * lanes).reshape(lanes, 2) % len(world.catalog)
            simulator.step(chosen)
            assert (simulator.state.lane["step"] == 1).all()
            results.append(
                (simulator.outcome.observation.copy(), simulator.outcome.reward.copy(), vars(simulator.state))
            )
        same(results[0], results[1])


@each_id
@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"observation": "dict", "truth": True, "action_mask": True},
        {"choice": "position", "slate_size": 3, "reward": {"click": 1.0, "dwell": 0.2, "churn": -5.0}},
        {"choice": "cascade", "horizon": 20, "users": "test"},
    ],
    ids=["default", "dict and truth", "position", "cascade"],
)
def test_shipped_contract_checks(env_id: str, kwargs: dict[str, Any]) -> None:
    checks = check_env(env_id, steps=300, **kwargs)
    assert [str(check) for check in checks if check.passed is False] == []
    assert len(checks) >= 10
