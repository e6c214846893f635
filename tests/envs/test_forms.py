"""Forms of action and observation by option: candidate lists, history, groups."""

from __future__ import annotations

import dataclasses
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from recsim_llm import agents
from recsim_llm.agents.core.env_runner import EnvironmentSpec
from recsim_llm.errors import RefusedError
from recsim_llm.simulator import SIGNALS
from recsim_llm.testing import actions, check_env, difference
from tests.conftest import WorldBuilder
from tests.tiny import tiny_env, tiny_world

CHI_SQUARE_19 = 50.8
"""Quantile of the chi-square distribution with 19 degrees of freedom at alpha = 1e-4."""

LIVELY = {"leave": -0.5, "churn": 0.0}
FORMS: dict[str, Any] = {"num_candidates": 7, "history": 5, "group": True}
NEWS = "recsim_llm/News-v0"

each_mode = pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])


def same(left: Any, right: Any) -> None:
    found = difference(left, right)
    assert found is None, found


@pytest.fixture
def news(world_folder: str) -> dict[str, Any]:
    """Arguments of a small news environment with every form on."""
    return {"world": world_folder, "slate_size": 3, "rules": LIVELY, **FORMS}


@pytest.mark.parametrize("slate_size", [1, 3])
@pytest.mark.parametrize("observation", ["flat", "dict"])
def test_the_contract_holds(world_folder: str, observation: str, slate_size: int) -> None:
    checks = check_env(
        NEWS, steps=60, world=world_folder, slate_size=slate_size, observation=observation, truth=True,
        action_mask=True, rules=LIVELY, **FORMS,
    )  # fmt: skip
    assert [str(check) for check in checks if check.passed is False] == []


def test_spaces_and_layout(news: dict[str, Any]) -> None:
    env = gym.make(NEWS, **news)
    bare: Any = env.unwrapped
    plain: Any = gym.make(NEWS, world=news["world"], slate_size=3).unwrapped
    assert env.action_space == spaces.MultiDiscrete([7] * 3)
    assert gym.make(NEWS, **{**news, "slate_size": 1}).action_space == spaces.Discrete(7)
    widths = {name: part.stop - part.start for name, part in bare.layout.items()}
    assert widths["history"] == 5 * (1 + len(SIGNALS))
    assert widths["candidates"] == 7 * bare.catalog.width
    assert widths["group"] == 2  # f and m
    assert {name: bare.layout[name] for name in plain.layout} == plain.layout
    assert sum(widths.values()) == env.observation_space.shape[0]
    assert env.unwrapped.action_masks().shape == (21,)
    assert len(bare.catalog) == 60, "the catalogue stays the whole one"


def test_what_is_asked_for_changes_nothing_else(world_folder: str) -> None:
    """The same items shown to the same users: the same reactions, whatever else the observation holds."""
    arguments: dict[str, Any] = {"world": world_folder, "slate_size": 3, "rules": LIVELY, "num_envs": 4}
    listed, plain = gym.make_vec(NEWS, **arguments, **FORMS), gym.make_vec(NEWS, **arguments)
    (rows, infos), (expected, _) = listed.reset(seed=3), plain.reset(seed=3)
    width = expected.shape[1]
    for action, _ in zip(actions(listed.action_space, 0), range(40), strict=False):
        np.testing.assert_array_equal(rows[:, :width], expected)
        shown = np.take_along_axis(infos["candidates"], action, 1)
        rows, rewards, ends, _, infos = listed.step(action)
        expected, plain_rewards, plain_ends, _, plain_infos = plain.step(shown)
        same((rewards, ends), (plain_rewards, plain_ends))
        same({name: infos[name] for name in plain_infos}, plain_infos)


def test_candidates_are_different_and_on_the_shelf(news: dict[str, Any]) -> None:
    listed = gym.make_vec(NEWS, num_envs=50, **{**news, "rules": {"churn": -60.0}})
    bare: Any = listed.unwrapped
    rows, infos = listed.reset(seed=0)
    before = None
    for action, _ in zip(actions(listed.action_space, 1), range(30), strict=False):
        items = infos["candidates"]
        assert items.dtype == np.int64
        assert all(len(set(row)) == 7 for row in items.tolist())
        shelf = bare.core.simulator.available()
        assert np.take_along_axis(shelf, items, 1).all()
        encodings = rows[:, bare.layout["candidates"]].reshape(50, 7, -1)
        np.testing.assert_array_equal(encodings, bare.catalog.embedding[items])
        assert before is None or (items != before).any(1).mean() > 0.9, "lists are drawn anew"
        before = items
        rows, _, _, _, infos = listed.step(action)
        chosen = np.take_along_axis(items, action, 1)
        shown = infos["slate"] >= 0
        assert (infos["slate"] == chosen)[shown].all()
        np.testing.assert_array_equal(infos["wasted"], [3 - len(set(row)) for row in chosen.tolist()])


@pytest.mark.parametrize("hidden", [0, 30])
def test_inclusion_is_uniform(hidden: int, tmp_path: Path) -> None:
    """Each of 20 items on the shelf is in a list of 5 with probability 1/4, whatever else there is: chi-square."""
    lanes, items, listed = 4000, 20, 5
    world = tiny_world(np.eye(items + hidden), np.zeros(items + hidden))
    released = np.where(np.arange(items + hidden) < items, -1.0, 1e6).astype(np.float32)
    world = dataclasses.replace(world, catalog=dataclasses.replace(world.catalog, released_at=released))
    env = tiny_env(world, tmp_path, lanes=lanes, num_candidates=listed)
    _, infos = env.reset(seed=1)
    counts = np.bincount(infos["candidates"].ravel(), minlength=items)
    assert len(counts) == items
    share = listed / items
    # Drawn without replacement: the counts' covariance is that of a multinomial times (I - C) / (I - 1).
    statistic = float(np.square(counts - lanes * share).sum() / (lanes * share * (1 - share)) * (items - 1) / items)
    assert 0 < statistic < CHI_SQUARE_19
    places = np.stack([np.bincount(infos["candidates"][:, c], minlength=items) for c in range(listed)])
    assert np.abs(places - lanes / items).max() < 5 * np.sqrt(lanes / items), "no item prefers a place"


def test_lanes_and_threads_do_not_matter(news: dict[str, Any]) -> None:
    few = gym.make_vec(NEWS, num_envs=3, threads=1, **news)
    many = gym.make_vec(NEWS, num_envs=600, threads=2, **news)
    (left, infos), (right, others) = few.reset(seed=9), many.reset(seed=9)
    for action, _ in zip(actions(many.action_space, 2), range(12), strict=False):
        np.testing.assert_array_equal(left, right[:3])
        np.testing.assert_array_equal(infos["candidates"], others["candidates"][:3])
        left, _, _, _, infos = few.step(action[:3])
        right, _, _, _, others = many.step(action)


def test_an_almost_empty_shelf(make_world: WorldBuilder, tmp_path: Path) -> None:
    released = np.full(60, 1e6)
    released[[4, 17, 33]] = -1.0
    folder = str(make_world(item_arrays={"released_at": released}).save(tmp_path / "world"))
    env: Any = gym.make("recsim_llm/Music-v0", world=folder, slate_size=4, num_candidates=10).unwrapped
    rows, info = env.reset(seed=0)
    items = info["candidates"]
    assert sorted(items[:3]) == [4, 17, 33]
    assert (items[3:] == -1).all()
    assert not rows[env.layout["candidates"]].reshape(10, -1)[3:].any()
    np.testing.assert_array_equal(env.action_masks().reshape(4, 10), np.tile(items >= 0, (4, 1)))
    _, _, _, _, info = env.step([0, 5, 1, 9])
    assert info["wasted"] == 2
    np.testing.assert_array_equal(info["slate"], [items[0], -1, items[1], -1])
    strict: Any = gym.make("recsim_llm/Music-v0", world=folder, slate_size=2, num_candidates=10, strict=True).unwrapped
    strict.reset(seed=0)
    with pytest.raises(ValueError, match="wastes 1 slots"):
        strict.step([0, 5])


def test_few_items_among_many_are_found(tmp_path: Path) -> None:
    """Where next to nothing is on the shelf, the draws run out and a scan finds the rest."""
    count = 4_000
    world, offered = tiny_world(np.ones((count, 2)), np.zeros(count)), [0, 1_400, 1_401, 3_999]
    released = np.full(count, 1e6, np.float32)
    released[offered] = -1.0
    catalog = dataclasses.replace(world.catalog, released_at=released, category=["one"] * count)
    env = tiny_env(dataclasses.replace(world, catalog=catalog), tmp_path, lanes=20, num_candidates=6)
    _, infos = env.reset(seed=0)
    for row in infos["candidates"].tolist():
        assert sorted(row) == [-1, -1, *offered]
    assert len({row[0] for row in infos["candidates"].tolist()}) > 1, "the scan starts anywhere"


def test_plain_python_draws_the_same(world_folder: str) -> None:
    code = (
        "import gymnasium as gym, sys, recsim_llm; from recsim_llm.testing import trajectory_digest as digest\n"
        f"env = gym.make('{NEWS}', world=sys.argv[1], num_candidates=7, history=5, group=True)\n"
        "print(digest(env, 5, 12))"
    )
    digests = set()
    for flag in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", code, world_folder], capture_output=True, text=True, check=True,
            env={**os.environ, "NUMBA_DISABLE_JIT": flag},
        )  # fmt: skip
        digests.add(done.stdout.strip())
    assert len(digests) == 1


def test_history_is_what_was_shown(world_folder: str) -> None:
    env: Any = gym.make(NEWS, world=world_folder, slate_size=3, history=7, rules={"churn": -60.0}).unwrapped
    rows, info = env.reset(seed=2)
    width = 1 + len(SIGNALS)
    expected: list[tuple[int, np.ndarray]] = []
    for action, _ in zip(actions(env.action_space, 4), range(30), strict=False):
        part = rows[env.layout["history"]].reshape(7, width)
        items = np.array([item for item, _ in expected[:7]] + [-1] * (7 - len(expected)))
        np.testing.assert_array_equal(info["history"], items)
        np.testing.assert_array_equal(part[:, 0], ((items + 1) / np.float32(60)).astype(np.float32))
        for place, (_, signals) in enumerate(expected[:7]):
            np.testing.assert_array_equal(part[place, 1:], signals)
        assert not part[len(expected) :].any()
        rows, _, _, _, info = env.step(action)
        signals = rows[env.layout["feedback"]].reshape(3, -1)
        expected = [(int(i), s) for i, s in zip(info["slate"], signals, strict=True) if i >= 0] + expected
    assert len(expected) > 20
    rows, info = env.reset()
    assert not rows[env.layout["history"]].any()
    assert (info["history"] == -1).all()


def test_group_is_public_and_hidden_by_opting_out(world_folder: str) -> None:
    for opt_out, expected in ((0.0, 1.0), (1.0, 0.0)):
        env = gym.make_vec(NEWS, num_envs=6, world=world_folder, group=True, history=3, opt_out=opt_out)
        bare: Any = env.unwrapped
        assert bare.core.observation_parts.names == ("gender=f", "gender=m")
        rows, infos = env.reset(seed=0, options={"user": list(range(6))})
        group = rows[:, bare.layout["group"]]
        odd = np.arange(6) % 2
        np.testing.assert_array_equal(group, expected * np.stack([odd, 1 - odd], 1))
        for action, _ in zip(actions(env.action_space, 0), range(4), strict=False):
            rows, _, _, _, infos = env.step(action)
        assert infos["history"].max() == -1 if opt_out else infos["history"].max() >= 0


def test_groups_need_groups(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"group=True, but the users of this world have no gender.*add such columns"):
        tiny_env(tiny_world(np.eye(2), [0, 0]), tmp_path, group=True)


def test_sizes_are_checked(world_folder: str) -> None:
    for arguments, message in (
        ({"num_candidates": 2}, r"num_candidates must lie in 5\.\.60 .*got 2"),
        ({"num_candidates": 61}, r"num_candidates must lie in 5\.\.60 .*got 61"),
        ({"num_candidates": 0}, "num_candidates must be at least 1"),
        ({"history": -1}, "history must lie in .*got -1"),
    ):
        with pytest.raises(ValueError, match=message):
            gym.make(NEWS, world=world_folder, **arguments)
    env: Any = gym.make(NEWS, world=world_folder, num_candidates=6).unwrapped
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"action 6 is no candidate; the list has candidates 0\.\.5"):
        env.step([0, 1, 2, 3, 6])


def test_snapshots_and_pickles(news: dict[str, Any]) -> None:
    env: Any = gym.make(NEWS, **{**news, "rules": {"churn": -60.0}}).unwrapped
    env.reset(seed=1)
    stream = actions(env.action_space, 3)
    for _ in range(5):
        env.step(next(stream))
    snapshot, twin = env.get_state(), pickle.loads(pickle.dumps(env))
    chosen = [next(stream) for _ in range(6)]
    first = [env.step(action) for action in chosen]
    env.reset()
    env.set_state(snapshot)
    for action, expected in zip(chosen, first, strict=True):
        same(expected, env.step(action))
        same(expected, twin.step(action))
    del snapshot["candidates"]
    with pytest.raises(ValueError, match="part 'candidates' must be int64"):
        env.set_state(snapshot)


def test_truth_is_that_of_the_candidates(news: dict[str, Any]) -> None:
    env: Any = gym.make(NEWS, truth=True, **news).unwrapped
    _, info = env.reset(seed=0)
    appeal, value = env.core.simulator.truth()
    np.testing.assert_array_equal(info["truth_appeal"], appeal[0, info["candidates"]])
    np.testing.assert_array_equal(info["truth_value"], value[0, info["candidates"]])


def test_stable_baselines3_adapter(news: dict[str, Any]) -> None:
    pytest.importorskip("stable_baselines3")
    arguments = {"num_envs": 3, "max_episode_steps": 4, **news}
    adapted, plain = gym.make_vec(NEWS, **arguments).unwrapped.sb3(), gym.make_vec(
        NEWS, autoreset_mode="SameStep", **arguments
    )  # fmt: skip
    adapted.seed(5)
    np.testing.assert_array_equal(adapted.reset(), plain.reset(seed=5)[0])
    for action, _ in zip(actions(plain.action_space, 5), range(15), strict=False):
        rows, _, dones, infos = adapted.step(action)
        expected, _, _, _, facts = plain.step(action)
        np.testing.assert_array_equal(rows, expected)
        for lane in np.flatnonzero(dones):
            np.testing.assert_array_equal(infos[lane]["terminal_observation"], facts["final_obs"][lane])
            np.testing.assert_array_equal(infos[lane]["history"], facts["final_info"]["history"][lane])


@pytest.mark.parametrize("slate_size", [1, 3])
@pytest.mark.parametrize("name", agents.names())
def test_every_agent_chooses_from_the_lists(name: str, slate_size: int, world_folder: str) -> None:
    """They learn, and serve another environment with other lists than their own: no slot is wasted."""
    kind = agents.get(name)
    if kind.needs_torch:
        pytest.importorskip("stable_baselines3")
    arguments: dict[str, Any] = {
        "world": world_folder, "slate_size": slate_size, "num_candidates": 7, "history": 2, "truth": kind.needs_truth,
    }  # fmt: skip
    config = {"ppo": {"rollout": 40, "batch": 40, "epochs": 1}, "mf": {"epochs": 1}}.get(name, {})
    envs = gym.make_vec(NEWS, num_envs=4, **arguments)
    if kind.refusal(EnvironmentSpec.of(envs), kind.Config()):
        with pytest.raises(RefusedError):
            agents.make(name, envs)
        return
    agent = agents.make(name, envs, seed=0, **config).learn(80)
    test = gym.make_vec(NEWS, num_envs=4, **arguments)
    observation, infos = test.reset(seed=77)
    state, fresh = None, np.ones(4, bool)
    for _ in range(8):
        agent.observe(infos)
        action, state = agent.predict(observation, state, fresh, deterministic=True)
        assert action.shape == ((4,) if slate_size == 1 else (4, 3))
        observation, _, _, _, infos = test.step(action)
        fresh = np.zeros(4, bool)
        assert not infos["wasted"].any()


def test_masks_of_candidates_are_kept(world_folder: str) -> None:
    agent = agents.make("random", gym.make_vec(NEWS, num_envs=2, world=world_folder, slate_size=2, num_candidates=9))
    observation, _ = agent.env.reset(seed=0)
    mask = np.zeros((2, 9), bool)
    mask[0, [2, 5]] = mask[1, [0, 8]] = True
    for _ in range(10):
        chosen, _ = agent.predict(observation, action_masks=np.tile(mask, (1, 2)))
        assert [sorted(row) for row in chosen.tolist()] == [[2, 5], [0, 8]]
    with pytest.raises(ValueError, match=r"action_masks has shape .* expected \(2, 9\)"):
        agent.predict(observation, action_masks=np.ones((2, 5), bool))


def test_the_oracle_is_the_best_of_the_lists(tmp_path: Path) -> None:
    """Two items are good and the user likes nothing else: the oracle shows one of them whenever it is in the list."""
    appeal = np.full(12, -9.0)
    appeal[[3, 8]] = 3.0
    env = tiny_env(tiny_world(np.eye(12), appeal), tmp_path, lanes=16, num_candidates=4, truth=True)
    oracle = agents.make("oracle", env, seed=0)
    observation, infos = env.reset(seed=0)
    for _ in range(20):
        action, _ = oracle.predict(observation)
        listed = infos["candidates"]
        shown = listed[np.arange(16), action]
        possible = np.isin(listed, [3, 8]).any(1)
        assert np.isin(shown[possible], [3, 8]).all()
        observation, _, _, _, infos = env.step(action)


@each_mode
def test_modes_of_autoreset_draw_for_the_next_episode(mode: str, news: dict[str, Any]) -> None:
    envs = gym.make_vec(NEWS, num_envs=3, max_episode_steps=3, autoreset_mode=mode, **{**news, "rules": {"churn": -60}})
    singles = [gym.make(NEWS, **{**news, "rules": {"churn": -60}}) for _ in range(3)]
    _, infos = envs.reset(seed=0)
    firsts = [env.reset(seed=lane)[1] for lane, env in enumerate(singles)]
    seconds = [env.reset()[1] for env in singles]
    same([row.tolist() for row in infos["candidates"]], [info["candidates"].tolist() for info in firsts])
    for action, _ in zip(actions(envs.action_space, 0), range(3 if mode != "NextStep" else 4), strict=False):
        _, _, _, _, infos = envs.step(action)
    if mode == "Disabled":
        _, infos = envs.reset(options={"reset_mask": np.ones(3, bool)})
    same([row.tolist() for row in infos["candidates"]], [info["candidates"].tolist() for info in seconds])
    assert (infos["history"] == -1).all()
