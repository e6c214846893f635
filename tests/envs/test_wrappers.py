"""Wrappers: proto-actions, whole slates, flat observations, vector rewards, recorded sessions."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from recsim_llm.datasets import read_table
from recsim_llm.datasets.interactions import read_interactions
from recsim_llm.envs import wrappers
from recsim_llm.envs.registration import mo_ids
from recsim_llm.envs.vector_reward.objectives import OBJECTIVES
from recsim_llm.envs.wrappers import nearest
from recsim_llm.envs.wrappers import vector as vector_wrappers
from recsim_llm.simulator import SIGNALS
from recsim_llm.simulator.params import REWARD_TERMS
from recsim_llm.testing import actions, difference
from recsim_llm.worlds.build import build_world
from recsim_llm.worlds.world import World
from tests.conftest import WorldBuilder
from tests.tiny import tiny_world

NEWS, MUSIC = "recsim_llm/News-v0", "recsim_llm/Music-v0"
LIVELY = {"leave": -0.5, "churn": 0.0}
MODES = [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP]

each_mode = pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
each_size = pytest.mark.parametrize("slate_size", [1, 3])


def same(left: Any, right: Any) -> None:
    found = difference(left, right)
    assert found is None, found


@pytest.fixture
def small(tmp_path: Path, make_world: WorldBuilder) -> str:
    """A world of 8 items, two of them released later."""
    released = np.full(8, -1.0)
    released[[2, 5]] = 1e6
    return str(make_world(items=8, users=9, topics=3, item_arrays={"released_at": released}).save(tmp_path / "small"))


def scalar(name: str, wrapper: Any, arguments: dict[str, Any], **options: Any) -> gym.Env[Any, Any]:
    return wrapper(gym.make(name, **arguments), **options)


def agree(make_scalar: Any, native: Any, mode: AutoresetMode, stream: Any, steps: int = 40) -> int:
    """Steps a wrapped vector environment beside Gymnasium's of wrapped scalar ones; the number of ended episodes."""
    several = SyncVectorEnv([make_scalar] * native.num_envs, autoreset_mode=mode)
    assert several.single_action_space == native.single_action_space
    assert several.single_observation_space == native.single_observation_space
    same(several.reset(seed=3), native.reset(seed=3))
    ended = 0
    for action, _ in zip(stream, range(steps), strict=False):
        result = several.step(action)
        same(result, native.step(action))
        ended += int((result[2] | result[3]).sum())
    return ended


def through_json(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    assert env.spec is not None
    return EnvSpec.from_json(env.spec.to_json()).make()


# Proto-actions


@pytest.mark.parametrize("similarity", nearest.SIMILARITIES)
@pytest.mark.parametrize("candidates", [None, 9])
@each_size
def test_proto_action_shows_the_nearest(
    world_folder: str, slate_size: int, candidates: int | None, similarity: str
) -> None:
    arguments = {"world": world_folder, "slate_size": slate_size, "num_candidates": candidates}
    env: Any = scalar(NEWS, wrappers.ProtoAction, arguments, similarity=similarity)
    bare = env.unwrapped
    assert env.action_space == spaces.Box(-1.0, 1.0, (bare.catalog.width,), np.float32)
    vectors = bare.catalog.embedding
    if similarity == "cosine":
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    rng = np.random.Generator(np.random.PCG64(0))
    _, info = env.reset(seed=0)
    missed = 0
    for _ in range(30):
        action = rng.uniform(-1, 1, bare.catalog.width).astype(np.float32)
        pool = np.flatnonzero(bare.core.simulator.available()[0])
        if candidates:
            pool = info["candidates"][info["candidates"] >= 0]
        expected = pool[np.argsort(-(vectors[pool] @ action), kind="stable")[:slate_size]]
        _, _, terminated, truncated, info = env.step(action)
        missed += int((info["slate"] != expected).sum())
        assert info["wasted"] == 0
        if terminated or truncated:
            _, info = env.reset()
    assert missed <= 2, "only what the rounding to 12 bits cannot tell apart may change places"


def test_proto_action_breaks_ties_by_position(tmp_path: Path) -> None:
    folder = str(tiny_world([[1, 0], [0, 1], [1, 0], [0, 1], [1, 0]], np.zeros(5)).save(tmp_path / "w"))
    for index in nearest.INDICES:
        if index == "faiss":
            pytest.importorskip("faiss")
        env: Any = scalar(MUSIC, wrappers.ProtoAction, {"world": folder, "slate_size": 4}, index=index)
        env.reset(seed=0)
        assert env.step(np.array([0.2, 0.9], np.float32))[4]["slate"].tolist() == [1, 3, 0, 2]
        assert env.step(np.array([9.0, -3.0], np.float32))[4]["slate"].tolist() == [0, 2, 4, 1], "brought into the box"


@each_mode
@each_size
def test_proto_action_vector_equals_scalar(world_folder: str, mode: AutoresetMode, slate_size: int) -> None:
    arguments = {"world": world_folder, "slate_size": slate_size, "rules": LIVELY, "max_episode_steps": 5}
    native = vector_wrappers.ProtoAction(gym.make_vec(NEWS, num_envs=3, autoreset_mode=mode.value, **arguments))
    ended = agree(lambda: scalar(NEWS, wrappers.ProtoAction, arguments), native, mode, actions(native.action_space, 1))
    assert ended > 6


def test_proto_action_refuses(world_folder: str) -> None:
    arguments: dict[str, Any] = {"world": world_folder}
    env = scalar(NEWS, wrappers.ProtoAction, arguments)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"shape \(3,\), expected \(8,\)"):
        env.step(np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="not finite"):
        env.step(np.full(8, np.nan, np.float32))
    for options, message in (({"index": "exakt"}, "'exact'"), ({"similarity": "cosin"}, "'cosine'")):
        with pytest.raises(ValueError, match=f"Did you mean {message}"):
            scalar(NEWS, wrappers.ProtoAction, arguments, **options)
    with pytest.raises(ValueError, match="searches the whole catalogue"):
        scalar(NEWS, wrappers.ProtoAction, {**arguments, "num_candidates": 9}, index="faiss")
    with pytest.raises(ValueError, match="needs an environment of recsim_llm, got CartPoleEnv"):
        wrappers.ProtoAction(gym.make("CartPole-v1"))
    with pytest.raises(ValueError, match="wrap each environment inside"):
        vector_wrappers.ProtoAction(SyncVectorEnv([lambda: gym.make(NEWS, **arguments)]))
    with pytest.raises(ValueError, match="needs a catalogue, and InterestEvolution has none"):
        scalar("recsim_llm/InterestEvolution-v0", wrappers.ProtoAction, {})


@pytest.mark.parametrize("similarity", nearest.SIMILARITIES)
def test_an_index_finds_what_the_exact_search_finds(similarity: str, make_world: WorldBuilder, tmp_path: Path) -> None:
    """Nearly always: recall above 0.9 on 3,000 items in clusters; and only items on the shelf, few as they are."""
    pytest.importorskip("faiss")
    released = np.where(np.arange(3000) % 7 == 0, -1.0, 1e6)
    folder = str(make_world(items=3000, item_arrays={"released_at": released}).save(tmp_path / "w"))
    arguments: dict[str, Any] = {"num_envs": 20, "world": folder, "slate_size": 5}
    exact, indexed = (
        vector_wrappers.ProtoAction(gym.make_vec(MUSIC, **arguments), similarity=similarity, index=index)
        for index in nearest.INDICES
    )
    exact.reset(seed=0)
    indexed.reset(seed=0)
    rng = np.random.Generator(np.random.PCG64(1))
    vectors = rng.uniform(-1, 1, (20, 8)).astype(np.float32)
    expected, found = exact.actions(vectors), indexed.actions(vectors)
    assert (released[found] < 0).all()
    recall = np.mean([len(set(a) & set(b)) / 5 for a, b in zip(expected.tolist(), found.tolist(), strict=True)])
    assert recall > 0.9


def test_proto_action_without_faiss(world_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=r'pip install .*"\.\[ann\]"'):
        scalar(NEWS, wrappers.ProtoAction, {"world": world_folder}, index="faiss")


@pytest.mark.parametrize("algorithm", ["SAC", "TD3", "PPO"])
def test_continuous_control_learns_on_proto_actions(algorithm: str, world_folder: str) -> None:
    sb3 = pytest.importorskip("stable_baselines3")
    env = scalar(NEWS, wrappers.ProtoAction, {"world": world_folder, "slate_size": 2}, similarity="cosine")
    more: dict[str, Any] = {"n_steps": 64, "n_epochs": 1} if algorithm == "PPO" else {"learning_starts": 50}
    model = getattr(sb3, algorithm)("MlpPolicy", env, seed=0, device="cpu", policy_kwargs={"net_arch": [8]}, **more)
    before = [weight.detach().clone() for weight in model.policy.parameters()]
    model.learn(200)
    assert any(bool((old != new).any()) for old, new in zip(before, model.policy.parameters(), strict=True))
    action, _ = model.predict(env.reset(seed=0)[0])
    assert env.action_space.contains(action)


# Whole slates


@pytest.mark.parametrize("ordered", [True, False])
def test_slates_are_enumerated(small: str, ordered: bool) -> None:
    env: Any = scalar(
        MUSIC, wrappers.SlateEnumeration, {"world": small, "slate_size": 3, "action_mask": True}, ordered=ordered
    )
    count = 8 * 7 * 6 // (1 if ordered else 6)
    assert env.action_space == spaces.Discrete(count)
    assert len({tuple(row) for row in env.slates.tolist()}) == count
    _, info = env.reset(seed=0)
    mask = env.action_masks()
    np.testing.assert_array_equal(mask, ~np.isin(env.slates, [2, 5]).any(1))
    np.testing.assert_array_equal(info["action_mask"], mask.astype(np.int8))
    for number in np.flatnonzero(mask)[::29]:
        env.reset(seed=0)
        info = env.step(int(number))[4]
        np.testing.assert_array_equal(info["slate"], env.slates[number])
        np.testing.assert_array_equal(info["action_mask"], mask)
    env.reset(seed=0)
    assert env.step(int(np.flatnonzero(~mask)[0]))[4]["wasted"] == 1
    for bad in (-1, count):
        with pytest.raises(ValueError, match=f"action {bad} is no slate"):
            env.step(bad)


@each_mode
@each_size
def test_slates_vector_equals_scalar(small: str, mode: AutoresetMode, slate_size: int) -> None:
    arguments = {
        "world": small, "slate_size": slate_size, "action_mask": True, "rules": LIVELY, "max_episode_steps": 4,
        "num_candidates": 6,
    }  # fmt: skip
    native: Any = vector_wrappers.SlateEnumeration(
        gym.make_vec(MUSIC, num_envs=3, autoreset_mode=mode.value, **arguments)
    )
    stream = actions(native.action_space, 1)
    assert agree(lambda: scalar(MUSIC, wrappers.SlateEnumeration, arguments), native, mode, stream) > 6
    assert native.action_masks().shape == (3, native.single_action_space.n)


def test_too_many_slates(world_folder: str) -> None:
    with pytest.raises(ValueError, match=r"60 items make 655,381,440 ordered slates of 5, more than limit=100,000"):
        scalar(NEWS, wrappers.SlateEnumeration, {"world": world_folder})
    fewer = scalar(NEWS, wrappers.SlateEnumeration, {"world": world_folder, "num_candidates": 8}, ordered=False)
    assert fewer.action_space == spaces.Discrete(56)


def test_masked_policy_on_slates(small: str) -> None:
    pytest.importorskip("sb3_contrib")
    from sb3_contrib import MaskablePPO
    from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported

    env = scalar(MUSIC, wrappers.SlateEnumeration, {"world": small, "slate_size": 2})
    assert is_masking_supported(env)
    model = MaskablePPO("MlpPolicy", env, n_steps=32, batch_size=32, n_epochs=1, seed=0, device="cpu").learn(32)
    observation, _ = env.reset(seed=0)
    for _ in range(10):
        action, _ = model.predict(observation, action_masks=get_action_masks(env))
        observation, _, _, _, info = env.step(action)
        assert info["wasted"] == 0


# Flat observations


@each_mode
def test_flat_observation_is_the_flat_form(world_folder: str, mode: AutoresetMode) -> None:
    forms = {"world": world_folder, "history": 3, "num_candidates": 6, "rules": LIVELY, "max_episode_steps": 5}
    env = scalar(NEWS, wrappers.FlatObservation, {**forms, "observation": "dict"})
    plain = gym.make(NEWS, **forms)
    assert env.observation_space == plain.observation_space
    same(env.reset(seed=1), plain.reset(seed=1))
    native = vector_wrappers.FlatObservation(
        gym.make_vec(NEWS, num_envs=3, autoreset_mode=mode.value, observation="dict", **forms)
    )
    assert agree(lambda: gym.make(NEWS, **forms), native, mode, actions(native.action_space, 1)) > 6
    with pytest.raises(ValueError, match=r"FlatObservation needs a dict of 1-D boxes .* got Box"):
        wrappers.FlatObservation(plain)


# Vector rewards


@pytest.mark.filterwarnings("ignore:.*is 0 at every step")  # nothing has a price in this world
def test_the_weighted_vector_is_the_reward(world_folder: str) -> None:
    weights = {name: 0.5 + 0.25 * number for number, name in enumerate(REWARD_TERMS)}
    arguments = {"world": world_folder, "rules": {**LIVELY, "cart": -1.0, "purchase": -1.0}}
    vector: Any = gym.make("recsim_llm/mo-News-v0", objectives=list(REWARD_TERMS), **arguments)
    plain = gym.make(NEWS, reward=weights, **arguments)
    same(vector.reset(seed=2), plain.reset(seed=2))
    seen = np.zeros(len(weights))
    for action, _ in zip(actions(plain.action_space, 2), range(200), strict=False):
        left, right = vector.step(action), plain.step(action)
        same(left[0], right[0])
        assert left[2:4] == right[2:4]
        assert left[1].dtype == np.float32
        assert vector.unwrapped.reward_space.contains(left[1])
        assert left[1] @ np.array(list(weights.values())) == pytest.approx(right[1], rel=1e-5, abs=1e-4)
        seen += np.abs(left[1])
        if right[2] or right[3]:
            vector.reset()
            plain.reset()
    priced = {"revenue"}  # the synthetic world's items cost nothing
    assert {name for name, total in zip(weights, seen, strict=True) if total == 0} == priced


@pytest.mark.parametrize("env_id", mo_ids())
def test_mo_gymnasium_makes_every_id(env_id: str, tmp_path: Path) -> None:
    mo = pytest.importorskip("mo_gymnasium")
    if gym.spec(env_id).max_episode_steps is None:
        pytest.fail("an id without a horizon")
    env = mo.make(env_id)
    assert env.unwrapped.reward_space.shape == (3,)
    assert env.unwrapped.reward_dim == 3
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    reward = env.step(env.action_space.sample())[1]
    assert reward.shape == (3,)
    assert reward.dtype == np.float32
    json.loads(env.spec.to_json())
    twin = pickle.loads(pickle.dumps(env.unwrapped))
    action = env.action_space.sample()
    same(env.unwrapped.step(action), twin.step(action))


def test_mo_gymnasium_wrappers(world_folder: str) -> None:
    mo = pytest.importorskip("mo_gymnasium")
    from mo_gymnasium.wrappers import LinearReward, MORecordEpisodeStatistics

    arguments = {"world": world_folder, "objectives": ["click", "diversity"], "rules": {"churn": -60.0}}
    weight = np.array([1.0, 0.5])
    env = LinearReward(mo.make("recsim_llm/mo-News-v0", max_episode_steps=6, **arguments), weight=weight)
    env.reset(seed=0)
    _, reward, _, _, info = env.step(env.action_space.sample())
    assert reward == pytest.approx(float(info["vector_reward"] @ weight))
    counted = MORecordEpisodeStatistics(mo.make("recsim_llm/mo-News-v0", max_episode_steps=6, **arguments), gamma=0.9)
    counted.reset(seed=0)
    total, truncated = np.zeros(2), False
    while not truncated:
        _, reward, _, truncated, info = counted.step(counted.action_space.sample())
        total += reward
    np.testing.assert_allclose(info["episode"]["r"], total, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:.*is 0 at every step")  # nothing has a price in this world
def test_mo_vector_environments(world_folder: str) -> None:
    mo = pytest.importorskip("mo_gymnasium")
    from mo_gymnasium.wrappers.vector import MORecordEpisodeStatistics, MOSyncVectorEnv

    arguments = {
        "world": world_folder, "objectives": list(OBJECTIVES), "rules": LIVELY, "max_episode_steps": 5,
    }  # fmt: skip
    native: Any = gym.make_vec("recsim_llm/mo-News-v0", num_envs=3, **arguments)
    several = MOSyncVectorEnv([lambda: mo.make("recsim_llm/mo-News-v0", **arguments)] * 3)
    assert native.reward_space == several.reward_space
    same(several.reset(seed=3), native.reset(seed=3))
    for action, _ in zip(actions(native.action_space, 1), range(40), strict=False):
        result = several.step(action)
        assert result[1].shape == (3, len(OBJECTIVES))
        same(result, native.step(action))
    counted = MORecordEpisodeStatistics(gym.make_vec("recsim_llm/mo-News-v0", num_envs=3, **arguments))
    counted.reset(seed=0)
    lengths = [counted.step(counted.action_space.sample())[4] for _ in range(8)]
    assert any("episode" in infos for infos in lengths)
    with pytest.raises(ValueError, match="Stable-Baselines3 takes one number"):
        native.unwrapped.sb3()


@each_mode
def test_vector_reward_wrapper_is_the_mo_id(world_folder: str, mode: AutoresetMode) -> None:
    arguments = {"world": world_folder, "rules": LIVELY, "max_episode_steps": 5}
    objectives = ["dwell", "satisfaction", "churn"]
    expected = gym.make_vec(
        "recsim_llm/mo-News-v0", num_envs=3, objectives=objectives, autoreset_mode=mode.value, **arguments
    )
    native: Any = vector_wrappers.VectorReward(
        gym.make_vec(NEWS, num_envs=3, autoreset_mode=mode.value, **arguments), objectives=objectives
    )
    assert native.unwrapped.reward_space == native.reward_space == expected.unwrapped.reward_space
    same(expected.reset(seed=0), native.reset(seed=0))
    one: Any = wrappers.VectorReward(gym.make(NEWS, **arguments), objectives=objectives)
    one.reset(seed=0)
    alive = True
    for action, _ in zip(actions(native.action_space, 1), range(20), strict=False):
        result = expected.step(action)
        same(result, native.step(action))
        if alive:
            _, reward, terminated, truncated, _ = one.step(action[0])
            np.testing.assert_array_equal(reward, result[1][0])
            alive = not (terminated or truncated)
    assert one.unwrapped.reward_dim == 3


def test_mo_gymnasium_takes_wrapped_environments(world_folder: str) -> None:
    pytest.importorskip("mo_gymnasium")
    from mo_gymnasium.wrappers import LinearReward, MORecordEpisodeStatistics
    from mo_gymnasium.wrappers.vector import MOSyncVectorEnv

    def wrapped() -> gym.Env[Any, Any]:
        return wrappers.VectorReward(
            gym.make(NEWS, world=world_folder, max_episode_steps=3), objectives=["click", "like"]
        )

    several = MOSyncVectorEnv([wrapped] * 2)
    several.reset(seed=0)
    rewards = [several.step(several.action_space.sample())[1] for _ in range(6)]
    assert {reward.shape for reward in rewards} == {(2, 2)}
    env = LinearReward(MORecordEpisodeStatistics(wrapped()), weight=np.array([1.0, 2.0]))
    env.reset(seed=0)
    results = [env.step(env.action_space.sample()) for _ in range(3)]
    assert results[-1][4]["episode"]["r"].shape == (2,)
    assert results[-1][1] == pytest.approx(float(results[-1][4]["vector_reward"] @ np.array([1.0, 2.0])))


def test_objectives_are_checked(world_folder: str) -> None:
    for objectives, message in (
        (["clik"], "Did you mean 'click'"), (["click", "click"], "must differ"), ([], "must be a list"),
        ("click", "must be a list"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            gym.make("recsim_llm/mo-News-v0", world=world_folder, objectives=objectives)
    with pytest.raises(ValueError, match="a vector reward takes objectives="):
        gym.make("recsim_llm/mo-News-v0", world=world_folder, reward={"click": 1.0})


# Recorded sessions


def drive(env: Any, steps: int, seed: int = 0) -> list[Any]:
    """Random steps of a scalar environment: (info before, info after, reward)."""
    _, info = env.reset(seed=seed)
    found = []
    for action, _ in zip(actions(env.action_space, seed), range(steps), strict=False):
        before = info
        _, reward, terminated, truncated, info = env.step(action)
        found.append((before, info, reward))
        if terminated or truncated:
            _, info = env.reset()
    return found


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_recorded_rows(suffix: str, world: World, world_folder: str, tmp_path: Path) -> None:
    path = tmp_path / f"log.{suffix}"
    env = scalar(
        NEWS,
        wrappers.RecordSessions,
        {"world": world_folder, "slate_size": 3, "rules": LIVELY},
        path=path,
        row_group=20,
    )
    found = drive(env, 60)
    assert not path.exists(), "the name is given when the file is whole"
    env.close()
    env.close()
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    table = read_table(path)
    rows = [
        (before, after, slot, reward)
        for before, after, reward in found
        for slot in range(3)
        if after["slate"][slot] >= 0
    ]
    assert len(table) == len(rows) > 60
    columns = {name: table.text(name) for name in table.columns}
    for number, (before, after, slot, reward) in enumerate(rows):
        row = {name: texts[number] for name, texts in columns.items()}
        assert row["user_id"] == world.population.user_id[after["user_id"]]
        assert row["item_id"] == world.catalog.item_id[after["slate"][slot]]
        assert int(row["slot"]) == slot
        assert int(row["session"]) == before["session"]
        assert float(row["day"]) == before["day"]
        assert float(row["step_reward"]) == reward
        assert float(row["reward"]) == after["slot_reward"][slot]
        for name in SIGNALS:
            assert float(row["stars_given" if name == "rating" else name]) == after[name][slot]
    episodes = [int(n) for n in columns["episode"]]  # one whose slates were all wasted has no row
    assert episodes == sorted(episodes)
    assert len(set(episodes)) > 2
    assert int(columns["step"][0]) == 1


@pytest.mark.parametrize("mode", list(AutoresetMode), ids=lambda mode: mode.value)
def test_vector_records_the_same_rows(mode: AutoresetMode, world_folder: str, tmp_path: Path) -> None:
    arguments = {"world": world_folder, "slate_size": 2, "rules": LIVELY, "max_episode_steps": 4}
    native = vector_wrappers.RecordSessions(
        gym.make_vec(NEWS, num_envs=2, autoreset_mode=mode.value, **arguments), tmp_path / "vector.csv"
    )
    native.reset(seed=5)
    stream = actions(native.action_space, 9)
    singles = [scalar(NEWS, wrappers.RecordSessions, arguments, path=tmp_path / f"{lane}.csv") for lane in range(2)]
    for lane, env in enumerate(singles):
        env.reset(seed=5 + lane)
    over = np.zeros(2, bool)
    for _ in range(30):
        action = next(stream)
        _, _, terminated, truncated, _ = native.step(action)
        for lane, env in enumerate(singles):
            if over[lane]:
                env.reset()
            else:
                ended = any(env.step(action[lane])[2:4])
                if ended and mode is not AutoresetMode.NEXT_STEP:
                    env.reset()
        done = terminated | truncated
        over = done if mode is AutoresetMode.NEXT_STEP else over
        if mode is AutoresetMode.DISABLED and done.any():
            native.reset(options={"reset_mask": done})
    for env in (native, *singles):
        env.close()
    lines = [(tmp_path / f"{name}.csv").read_text().splitlines()[1:] for name in ("vector", "0", "1")]
    assert sorted(lines[0]) == sorted(lines[1] + lines[2])
    assert len(lines[0]) > 20


def test_propensities_are_recorded(world_folder: str, tmp_path: Path) -> None:
    arguments = {"world": world_folder, "slate_size": 2, "rules": {"churn": -60.0}}
    env: Any = scalar(NEWS, wrappers.RecordSessions, arguments, path=tmp_path / "log.parquet", propensities=True)
    env.reset(seed=0)
    shown = []
    for told in ([0.25, 0.5], None, [1.0, 0.125]):
        if told is not None:
            env.propose(told)
        info = env.step(env.action_space.sample())[4]
        shown += [("" if told is None else str(told[slot])) for slot in range(2) if info["slate"][slot] >= 0]
    for bad in ([0.0, 0.5], [0.5]):
        with pytest.raises(ValueError, match=r"propensities must lie in \(0, 1\]"):
            env.propose(bad)
    env.close()
    texts = read_table(tmp_path / "log.parquet").text("propensity")
    assert [text if not text else float(text) for text in texts] == [
        text if not text else float(text) for text in shown
    ]
    without: Any = scalar(NEWS, wrappers.RecordSessions, arguments, path=tmp_path / "other.csv")
    with pytest.raises(ValueError, match="propensities=True"):
        without.propose([0.5, 0.5])


def test_nothing_is_recorded_of_users_who_opted_out(world_folder: str, tmp_path: Path) -> None:
    env = scalar(NEWS, wrappers.RecordSessions, {"world": world_folder, "opt_out": 1.0}, path=tmp_path / "log.csv")
    drive(env, 5)
    env.close()
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 1


def test_a_world_is_built_from_recorded_sessions(world: World, world_folder: str, tmp_path: Path) -> None:
    log = tmp_path / "log.parquet"
    envs: Any = vector_wrappers.RecordSessions(gym.make_vec(NEWS, num_envs=20, world=world_folder), log)
    envs.reset(seed=0)
    envs.action_space.seed(0)
    for _ in range(40):
        envs.step(envs.action_space.sample())
    envs.close()
    read, users = read_interactions(log, world.catalog.item_id)
    assert read.kind == "click"
    assert set(users) <= set(world.population.user_id)
    assert 0 < read.value.mean() < 0.5
    assert read.time.max() > 0
    items = tmp_path / "items.csv"
    lines = [f"{name},{text}" for name, text in zip(world.catalog.item_id, world.catalog.text, strict=True)]
    items.write_text("\n".join(["item_id,text", *lines]) + "\n")
    built = build_world(items, interactions=log, out=tmp_path / "built", encoder="hashing", width=8)
    assert set(built.population.user_id) <= set(world.population.user_id)
    again = gym.make(NEWS, world=str(tmp_path / "built"))
    again.reset(seed=0)
    assert again.step(again.action_space.sample())[4]["slate"].shape == (5,)


def test_recording_refuses(world_folder: str, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"world": world_folder}
    taken = tmp_path / "taken.csv"
    taken.write_text("x\n")
    with pytest.raises(ValueError, match="overwrite=True"):
        scalar(NEWS, wrappers.RecordSessions, arguments, path=taken)
    with pytest.raises(ValueError, match=r"recorded to .parquet or .csv, got 'log.json'"):
        scalar(NEWS, wrappers.RecordSessions, arguments, path=tmp_path / "log.json")
    with pytest.raises(ValueError, match=r"no folder .*nowhere"):
        scalar(NEWS, wrappers.RecordSessions, arguments, path=tmp_path / "nowhere" / "log.csv")
    with pytest.raises(ValueError, match="row_group must be at least 1"):
        scalar(NEWS, wrappers.RecordSessions, arguments, path=tmp_path / "log.csv", row_group=0)
    env = scalar(NEWS, wrappers.RecordSessions, arguments, path=taken, overwrite=True)
    drive(env, 3)
    env.close()
    assert len(taken.read_text().splitlines()) > 1


# All of them


@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version")
@pytest.mark.parametrize("name", sorted(set(wrappers.__all__) - {"VectorReward"}))  # they want one number as reward
def test_checkers_take_every_wrapper(name: str, world_folder: str, tmp_path: Path) -> None:
    pytest.importorskip("stable_baselines3")
    from stable_baselines3.common.env_checker import check_env as check_sb3

    form = "dict" if name == "FlatObservation" else "flat"
    arguments = {"world": world_folder, "slate_size": 2, "observation": form, "num_candidates": 6}
    options = {"path": str(tmp_path / "log.csv")} if name == "RecordSessions" else {}
    check_env(scalar(NEWS, getattr(wrappers, name), arguments, **options), skip_render_check=True)
    options = {"path": str(tmp_path / "other.csv")} if name == "RecordSessions" else {}
    env = scalar(NEWS, getattr(wrappers, name), arguments, **options)
    check_sb3(env, warn=True, skip_render_check=True)
    if name != "RecordSessions":
        again = through_json(env)
        assert again.action_space == env.action_space
        assert again.observation_space == env.observation_space
    assert getattr(wrappers, name).__doc__
    assert issubclass(getattr(vector_wrappers, name), gym.vector.VectorWrapper)


def test_late_feedback_is_not_recorded_as_this_steps(world_folder: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="feedback comes 3 steps late here"):
        scalar(NEWS, wrappers.RecordSessions, {"world": world_folder, "delay": 3}, path=tmp_path / "log.csv")
    assert not list(tmp_path.iterdir())
