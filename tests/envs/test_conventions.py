"""What Gymnasium, Stable-Baselines3, sb3-contrib, RLlib and Minari expect: one test for each row of the conventions."""

from __future__ import annotations

import csv
import dataclasses
import inspect
import itertools
import json
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics

from recsim_llm import agents
from recsim_llm.envs import register_all, scenarios
from recsim_llm.simulator import SIGNALS
from recsim_llm.simulator.task_variant import TaskVariant
from recsim_llm.testing import actions, difference

IDS = scenarios()
MODES = [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP]
LIVELY = {"leave": -0.5, "churn": 0.0}
"""Rules under which users leave for good after a few steps, so that episodes end in both ways."""

each_id = pytest.mark.parametrize("env_id", IDS)
each_form = pytest.mark.parametrize("observation", ["flat", "dict"])
each_mode = pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)


def same(left: Any, right: Any) -> None:
    found = difference(left, right)
    assert found is None, found


def scalar_lanes(make: Any, env_id: str, lanes: int, mode: AutoresetMode, **kwargs: Any) -> SyncVectorEnv:
    return SyncVectorEnv([lambda: make(env_id, **kwargs)] * lanes, autoreset_mode=mode)


# 1a. Environment: single


@each_id
def test_row_01_id_grammar(env_id: str) -> None:
    assert re.fullmatch(r"recsim_llm/[A-Z][A-Za-z]*-v\d+", env_id)
    assert gym.spec(env_id).namespace == "recsim_llm"
    assert gym.spec(env_id).version is not None


@each_id
def test_row_02_registration_on_import(env_id: str) -> None:
    register_all()  # a second time: silent, as warnings are errors here
    code = f"import gymnasium\nenv = gymnasium.make('recsim_llm:{env_id}')\nprint(env.reset(seed=0)[1]['user_id'])\n"
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip().isdigit()
    assert not run.stderr


@each_id
def test_row_03_spec(env_id: str, make: Any) -> None:
    spec = gym.spec(env_id)
    for entry in (spec.entry_point, spec.vector_entry_point):
        assert isinstance(entry, str)
        assert re.fullmatch(r"recsim_llm\.envs\.\w+:\w+", entry)
    assert spec.max_episode_steps in (100, 200)
    assert isinstance(spec.reward_threshold, float)
    assert not spec.nondeterministic
    assert not spec.disable_env_checker
    env = make(env_id, slate_size=3, rules={"drift": 0.5}, reward={"click": 2.0}, max_episode_steps=9)
    again = EnvSpec.from_json(env.spec.to_json()).make()
    same(env.reset(seed=4), again.reset(seed=4))
    stream = actions(env.action_space, 4)
    for _ in range(9):
        action = next(stream)
        result = env.step(action)
        same(result, again.step(action))
    assert result[3]


@each_id
def test_row_03_reward_threshold_lies_between_random_and_oracle(env_id: str, make_vec: Any) -> None:
    scores = []
    for name in ("random", "oracle"):
        envs = make_vec(env_id, num_envs=60, truth=name == "oracle", autoreset_mode="Disabled")
        agent = agents.make(name, envs, seed=0)
        observation, infos = envs.reset(seed=0)
        total, state = np.zeros(60), None
        for step in range(gym.spec(env_id).max_episode_steps or 0):
            agent.observe(infos)
            action, state = agent.predict(observation, state, np.full(60, step == 0), deterministic=True)
            observation, rewards, _, _, infos = envs.step(action)
            total += rewards
        scores.append(float(total.mean()))
    low, high = scores
    threshold = gym.spec(env_id).reward_threshold
    assert threshold is not None
    assert low + 0.2 * (high - low) < threshold < high - 0.2 * (high - low), f"random {low:.1f}, oracle {high:.1f}"


@each_id
def test_row_04_arguments_are_json(env_id: str) -> None:
    for entry in (gym.spec(env_id).entry_point, gym.spec(env_id).vector_entry_point):
        for name, parameter in inspect.signature(load_env_creator(str(entry))).parameters.items():
            if name == "autoreset_mode":
                assert AutoresetMode(parameter.default.value) is parameter.default  # its value string works as well
            elif name != "self":
                json.dumps(parameter.default)


@each_id
def test_row_05_typos_are_named(env_id: str, make: Any) -> None:
    with pytest.raises(gym.error.NameNotFound, match=rf"Did you mean: `{env_id[11:-3]}`"):
        gym.make(f"recsim_llm/{env_id[11]}{env_id[11:]}")
    with pytest.raises(TypeError, match="slate"):
        make(env_id, slate=3)
    for entry in (gym.spec(env_id).entry_point, gym.spec(env_id).vector_entry_point):
        kinds = [p.kind for p in inspect.signature(load_env_creator(str(entry))).parameters.values()]
        assert inspect.Parameter.VAR_KEYWORD not in kinds
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"world": "musik"}, "'music'"),
        ({"observation": "flatt"}, "'flat'"),
        ({"users": "tset"}, "'test'"),
        ({"choice": "cascad"}, "'cascade'"),
        ({"dynamics": "drif"}, "'drift'"),
        ({"rules": {"drfit": 0.1}}, "'drift'"),
        ({"reward": {"clik": 1.0}}, "'click'"),
    ]
    for kwargs, hint in wrong:
        with pytest.raises(ValueError, match=rf"Did you mean {hint}"):
            make(env_id, **kwargs)
    with pytest.raises(ValueError, match="Did you mean 'rgb_array'"):  # Gymnasium's make would warn first
        load_env_creator(str(gym.spec(env_id).entry_point))(render_mode="rgb")
    with pytest.raises(ValueError, match="Did you mean 'NextStep'"):
        gym.make_vec(env_id, autoreset_mode="NextSteps")
    for size in (0, 100_000):
        with pytest.raises(ValueError, match=f"slate_size must lie in .*got {size}"):
            make(env_id, slate_size=size)


@each_id
def test_row_06_reset(env_id: str, make: Any) -> None:
    env = make(env_id).unwrapped
    parameters = inspect.signature(env.reset).parameters
    assert [(p.kind, p.default) for p in parameters.values()] == [(inspect.Parameter.KEYWORD_ONLY, None)] * 2
    assert list(parameters) == ["seed", "options"]
    first = env.reset(seed=7)
    assert env.np_random_seed == 7
    same(first, env.reset(seed=7, options={"minari_autoseed": True, "reset_mask": np.array([True])}))
    assert env.reset(options={"user": 3})[1]["user_id"] == 3
    with pytest.raises(ValueError, match=r"no reset option 'usr'\. Did you mean 'user'"):
        env.reset(options={"usr": 3})
    with pytest.raises(ValueError, match="no user 1000000"):
        env.reset(options={"user": 1_000_000})
    users = {make(env_id).reset()[1]["user_id"] for _ in range(4)}
    assert len(users) > 1, "without a seed every environment showed the same user"


@each_id
@each_form
def test_row_07_gymnasium_checker(env_id: str, observation: str, make: Any) -> None:
    from gymnasium.utils.env_checker import check_env

    check_env(make(env_id, observation=observation, render_mode="ansi").unwrapped)  # warnings are errors
    env = make(env_id)
    env.close()
    env.close()


@each_id
def test_row_08_step_returns(env_id: str, make: Any) -> None:
    for kwargs in ({}, {"reward": {"click": 1.0, "dwell": 0.1}}, {"reward": lambda infos: infos["clicks"] * 2}):
        env = make(env_id, rules=LIVELY, **kwargs)
        env.reset(seed=0)
        for action, _ in zip(actions(env.action_space, 0), range(20), strict=False):
            _, reward, terminated, truncated, info = env.step(action)
            assert type(reward) is float
            assert type(terminated) is bool
            assert type(truncated) is bool
            assert type(info) is dict
            if terminated or truncated:
                env.reset()


@each_id
@each_form
def test_row_09_observations_stay_in_bounds(env_id: str, observation: str, make: Any) -> None:
    # Extremes on purpose: long dwells, strong drift, every item often.
    env = make(env_id, observation=observation, rules={"drift": 0.9, "dwell_time": 3000.0, "leave": -2.0})
    space = env.observation_space
    parts = list(space.spaces.values()) if isinstance(space, spaces.Dict) else [space]
    assert all(part.dtype == np.float32 for part in parts)
    assert all(np.isfinite([part.low, part.high]).all() for part in parts)
    seen, _ = env.reset(seed=1)
    for action, _ in zip(actions(env.action_space, 1), range(10_000), strict=False):
        assert space.contains(seen)
        for array in seen.values() if isinstance(seen, dict) else [seen]:
            assert array.dtype == np.float32
        seen, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            seen, _ = env.reset()


@each_id
def test_row_10_observation_form(env_id: str, make: Any) -> None:
    stay = {"rules": {"churn": -60.0}}
    flat, parts = make(env_id, **stay), make(env_id, observation="dict", **stay)
    assert isinstance(flat.observation_space, spaces.Box)
    assert flat.observation_space.shape == (flat.unwrapped.core.simulator.observation_width,)
    assert all(type(space) is spaces.Box and len(space.shape) == 1 for space in parts.observation_space.values())
    seen, pieces = flat.reset(seed=0)[0], parts.reset(seed=0)[0]
    for _ in range(30):
        assert set(parts.observation_space) == set(pieces) == set(flat.unwrapped.layout)
        for name, where in flat.unwrapped.layout.items():
            np.testing.assert_array_equal(seen[where], pieces[name])
        action = flat.action_space.sample()
        seen, pieces = flat.step(action)[0], parts.step(action)[0]


@each_id
def test_row_11_action_space(env_id: str, make: Any) -> None:
    one, slate = make(env_id, slate_size=1), make(env_id, slate_size=4)
    items = len(one.unwrapped.catalog)
    assert one.action_space == spaces.Discrete(items)
    assert slate.action_space == spaces.MultiDiscrete([items] * 4)
    results = []
    for action in (5, np.int64(5), np.int32(5), np.array(5), np.array([5])):
        one.unwrapped.reset(seed=2)
        results.append(one.unwrapped.step(action))
    for result in results[1:]:
        same(results[0], result)
    one.reset(seed=2)
    for bad in (-1, items):
        with pytest.raises(ValueError, match=f"action {bad} is no item; the catalogue has items 0..{items - 1}"):
            one.unwrapped.step(bad)
    slate.reset(seed=2)
    for wrong in (np.zeros(3, int), np.zeros((4, 2), int), 1.5 * np.ones(4)):
        with pytest.raises(ValueError, match=r"actions (have shape|must be integers)"):
            slate.unwrapped.step(wrong)


@each_id
def test_row_12_action_masks(env_id: str, make: Any) -> None:
    pytest.importorskip("sb3_contrib")
    from sb3_contrib import MaskablePPO
    from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported

    env = make(env_id, action_mask=True)
    assert is_masking_supported(env)
    observation, info = env.reset(seed=0)
    length = env.action_space.n if isinstance(env.action_space, spaces.Discrete) else sum(env.action_space.nvec)
    masks = get_action_masks(env)
    assert masks.dtype == bool
    assert masks.shape == (length,)
    assert info["action_mask"].dtype == np.int8
    np.testing.assert_array_equal(info["action_mask"], masks)
    model = MaskablePPO("MlpPolicy", env, n_steps=32, batch_size=32, n_epochs=1, seed=0, device="cpu")
    before = model.policy.action_net.weight.detach().clone()
    model.learn(64)  # two updates
    assert model.num_timesteps == 64
    assert not bool((before == model.policy.action_net.weight).all())
    env.reset(seed=1)
    for _ in range(10):
        masks = get_action_masks(env)
        action, _ = model.predict(observation, action_masks=masks)
        chosen = np.atleast_1d(action)
        assert masks.reshape(chosen.size, -1)[np.arange(chosen.size), chosen].all()
        observation, *_ = env.step(action)


@each_id
def test_row_13_no_accidental_goal_env(env_id: str, make: Any) -> None:
    assert not hasattr(make(env_id).unwrapped, "compute_reward")


@each_id
def test_row_14_time_limit(env_id: str, make: Any) -> None:
    stay = make(env_id, rules={"churn": -60.0})
    stay.reset(seed=0)
    horizon = gym.spec(env_id).max_episode_steps or 0
    flags = [stay.step(stay.action_space.sample())[2:4] for _ in range(horizon)]
    assert flags == [(False, False)] * (horizon - 1) + [(False, True)]
    leave = make(env_id, rules={"leave": 60.0, "churn": 60.0})
    leave.reset(seed=0)
    assert leave.step(leave.action_space.sample())[2:4] == (True, False)
    endless = make(env_id, rules={"churn": -60.0}, max_episode_steps=-1)
    endless.reset(seed=0)
    assert not any(any(endless.step(endless.action_space.sample())[2:4]) for _ in range(horizon + 50))


@each_id
def test_row_15_render(env_id: str, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    assert make(env_id).metadata["render_modes"] == ["ansi", "rgb_array", "html"]
    assert make(env_id).metadata["render_fps"] > 0
    text = make(env_id, render_mode="ansi")
    text.reset(seed=0)
    text.step(text.action_space.sample())
    page = text.render()
    assert isinstance(page, str)
    shown = text.unwrapped.core.simulator.state.slate[0]
    assert all(text.unwrapped.catalog.title[item] in page for item in shown if item >= 0)
    assert "\x1b" not in page
    pytest.importorskip("matplotlib")
    picture = make(env_id, render_mode="rgb_array")
    picture.reset(seed=0)
    picture.step(picture.action_space.sample())
    image = picture.render()
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3
    assert image.std() > 1  # something is drawn
    quiet = make(env_id).unwrapped
    quiet.reset(seed=0)
    assert quiet.render() is None
    with pytest.warns(UserWarning, match="HumanRendering"):
        human = make(env_id, render_mode="human", disable_env_checker=True)
    assert isinstance(human, gym.wrappers.HumanRendering)


@each_id
def test_row_16_success_flag(env_id: str, make: Any) -> None:
    for rules, expected in (({"churn": -60.0}, True), ({"leave": -3.0, "churn": 60.0}, False)):
        env = make(env_id, rules=rules)
        _, info = env.reset(seed=0)
        flags = [info["is_success"]]
        done = False
        while not done:
            *_, terminated, truncated, info = env.step(env.action_space.sample())
            flags.append(info["is_success"])
            done = terminated or truncated
        assert not any(flags[:-1])
        assert flags[-1] is expected
    short = make(env_id, rules={"churn": -60.0}, horizon=3)
    short.reset(seed=0)
    assert [short.step(short.action_space.sample())[4]["is_success"] for _ in range(3)] == [False, False, True]


@each_id
@each_mode
def test_row_17_reserved_keys(env_id: str, mode: AutoresetMode, make: Any, make_vec: Any) -> None:
    reserved = {"episode", "terminal_observation", "TimeLimit.truncated", "reward_weights", "vector_reward"}
    env = make(env_id, truth=True, action_mask=True)
    info = env.reset(seed=0)[1]
    assert not (reserved | {"final_obs", "final_info"}) & set(info)
    assert not [key for key in info if key.startswith("_")]
    envs = make_vec(env_id, num_envs=2, max_episode_steps=2, autoreset_mode=mode.value)
    envs.reset(seed=0)
    for _ in range(5):
        infos = envs.step(envs.action_space.sample())[4]
        assert not reserved & set(infos)
        if mode is AutoresetMode.NEXT_STEP:
            assert not {"final_obs", "final_info"} & set(infos)


@each_id
def test_row_18_stable_infos(env_id: str, make: Any) -> None:
    env = make(env_id, truth=True, action_mask=True, rules=LIVELY)

    def form(info: dict[str, Any]) -> dict[str, Any]:
        return {k: (type(v), getattr(v, "dtype", None), getattr(v, "shape", None)) for k, v in info.items()}

    info = env.reset(seed=0)[1]
    expected = form(info)
    items, slate_size = len(env.unwrapped.catalog), env.unwrapped.slate_size
    kinds = {"user_id": int, "clicks": int, "ctr": float, "diversity": float, "is_success": bool, "wasted": int}
    assert {name: type(info[name]) for name in kinds} == kinds
    shapes = {name: (slate_size,) for name in (*SIGNALS, "slate", "slot_reward")}
    shapes |= {name: (items,) for name in ("truth_appeal", "truth_value")}
    assert {name: info[name].shape for name in shapes} == shapes
    for value in info.values():
        assert type(value) in (int, float, bool) or value.dtype.kind in "biuf"
    for action, _ in zip(actions(env.action_space, 0), range(300), strict=False):
        *_, terminated, truncated, info = env.step(action)
        assert form(info) == expected
        if terminated or truncated:
            assert form(env.reset()[1]) == expected


@each_id
def test_row_19_versions_are_guarded(env_id: str, root: Path) -> None:
    golden = json.loads((root / "tests" / "golden.json").read_text())
    assert env_id in golden["trajectories"], "no golden digest: run python tests/golden.py"
    history = (inspect.getdoc(load_env_creator(str(gym.spec(env_id).entry_point))) or "").split("## Version History")[1]
    assert f"* v{gym.spec(env_id).version}:" in history


@each_id
def test_row_20_docstring_is_the_page(env_id: str) -> None:
    creator = load_env_creator(str(gym.spec(env_id).entry_point))
    headings = re.findall(r"^## (.+)$", inspect.getdoc(creator) or "", re.MULTILINE)
    assert headings == [
        "Description", "Action Space", "Observation Space", "Rewards", "Starting State", "Episode End", "Arguments",
        "Information", "Vectorized environment", "References", "Version History",
    ]  # fmt: skip
    page = inspect.getdoc(creator) or ""
    axes = [field.name for field in dataclasses.fields(TaskVariant)]
    assert "`TaskVariant`" in page
    for name in inspect.signature(creator).parameters:
        assert name == "render_mode" or name in axes or f"| {name} |" in page, f"argument {name} is not in the table"
    ends = page.split("## Episode End")[1].split("##")[0]
    assert "1. Termination" in ends
    assert "2. Truncation" in ends


def test_row_21_listing(root: Path) -> None:
    readme = (root / "README.md").read_text()
    assert "https://img.shields.io/badge/Gymnasium-v1" in readme
    assert all(env_id in readme for env_id in IDS)


# 1b. Environment: vector


@each_id
@each_form
def test_row_22_vector_attributes(env_id: str, observation: str, make: Any, make_vec: Any) -> None:
    envs, env = make_vec(env_id, num_envs=3, observation=observation), make(env_id, observation=observation)
    assert isinstance(envs, VectorEnv)
    assert type(envs).__module__.startswith("recsim_llm.envs")
    assert envs.num_envs == 3
    assert envs.single_observation_space == env.observation_space
    assert envs.single_action_space == env.action_space
    assert envs.observation_space == gym.vector.utils.batch_space(env.observation_space, 3)
    assert envs.action_space == gym.vector.utils.batch_space(env.action_space, 3)
    assert envs.spec.id == env_id
    assert envs.render_mode is None
    assert not envs.closed
    observations, _ = envs.reset(seed=0)
    assert envs.observation_space.contains(observations)
    assert envs.np_random_seed == 0
    envs.close()
    assert envs.closed


@each_id
def test_row_23_autoreset_metadata(env_id: str, make_vec: Any) -> None:
    default = make_vec(env_id, num_envs=2)
    assert default.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    for mode in AutoresetMode:
        for given in (mode, mode.value):
            assert make_vec(env_id, num_envs=2, autoreset_mode=given).metadata["autoreset_mode"] is mode
    assert default.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP  # of this instance alone


@each_id
def test_row_24_next_step(env_id: str, make_vec: Any) -> None:
    envs = make_vec(env_id, num_envs=3, max_episode_steps=4, rules={"churn": -60.0})
    envs.reset(seed=5)
    alone = make_vec(env_id, num_envs=3, max_episode_steps=4, rules={"churn": -60.0})
    alone.reset(seed=5)
    stream = actions(envs.action_space, 0)
    for _ in range(4):
        action = next(stream)
        _, _, _, truncated, _ = envs.step(action)
        alone.step(action)
    assert truncated.all()
    begun = alone.reset()  # the next episode of each lane
    observation, reward, terminated, truncated, infos = envs.step(next(stream))
    np.testing.assert_array_equal(observation, begun[0])
    same(infos, begun[1])
    assert not reward.any()
    assert not terminated.any()
    assert not truncated.any()


@each_id
@each_form
def test_row_25_same_step(env_id: str, observation: str, make_vec: Any) -> None:
    kwargs = {"num_envs": 3, "rules": LIVELY, "observation": observation, "max_episode_steps": 6}
    envs = make_vec(env_id, autoreset_mode="SameStep", **kwargs)
    plain = make_vec(env_id, autoreset_mode="Disabled", **kwargs)
    envs.reset(seed=1)
    plain.reset(seed=1)
    ended = 0
    for action, _ in zip(actions(envs.action_space, 1), range(60), strict=False):
        now, reward, terminated, truncated, infos = envs.step(action)
        last, last_reward, last_terminated, last_truncated, last_infos = plain.step(action)
        same((reward, terminated, truncated), (last_reward, last_terminated, last_truncated))
        assert "final_observation" not in infos
        done = terminated | truncated
        if not done.any():
            assert "final_obs" not in infos
            same((now, infos), (last, last_infos))
            continue
        ended += int(done.sum())
        assert infos["final_obs"].dtype == object
        np.testing.assert_array_equal(infos["_final_obs"], done)
        np.testing.assert_array_equal(infos["_final_info"], done)
        assert isinstance(infos["final_info"], dict)
        for lane in range(3):
            if not done[lane]:
                assert infos["final_obs"][lane] is None
                continue
            row = {k: v[lane] for k, v in last.items()} if isinstance(last, dict) else last[lane]
            same(infos["final_obs"][lane], row)
            for name, values in infos["final_info"].items():
                np.testing.assert_array_equal(values[lane], last_infos[name][lane])
        begun, _ = plain.reset(options={"reset_mask": done})
        same(now, begun)
    assert ended > 9


@each_id
def test_row_26_disabled_and_reset_mask(env_id: str, make: Any, make_vec: Any) -> None:
    kwargs = {"max_episode_steps": 8, "rules": LIVELY}
    native = make_vec(env_id, num_envs=4, autoreset_mode="Disabled", **kwargs)
    scalar = scalar_lanes(make, env_id, 4, AutoresetMode.DISABLED, **kwargs)
    same(scalar.reset(seed=3), native.reset(seed=3))
    resets = 0
    for action, step in zip(actions(native.action_space, 3), range(80), strict=False):
        result = scalar.step(action)
        same(result, native.step(action))
        done = result[2] | result[3]
        if done.any():
            resets += 1
            seed = [None, 50 + step, None, 90 + step] if resets % 3 == 0 else None
            named = {"user": 2} if resets % 4 == 0 else {}
            masks = [{"reset_mask": done.copy(), **named} for _ in range(2)]
            same(scalar.reset(seed=seed, options=masks[0]), native.reset(seed=seed, options=masks[1]))
    assert resets > 8
    native.step(native.action_space.sample())
    wrong: list[tuple[Any, type[Exception], str]] = [
        ([True] * 4, TypeError, "must be a numpy array"),
        (np.ones(3, bool), ValueError, r"must have shape"),
        (np.ones(4, int), TypeError, r"must have `dtype=np\.bool_`"),
        (np.zeros(4, bool), ValueError, "at least one True"),
    ]
    for mask, error, words in wrong:
        for envs in (native, scalar):
            with pytest.raises(error, match=words):
                envs.reset(options={"reset_mask": mask})


@each_id
@each_form
def test_row_27_returned_types_and_copies(env_id: str, observation: str, make_vec: Any) -> None:
    envs = make_vec(env_id, num_envs=5, observation=observation, max_episode_steps=5)
    kept = [envs.reset(seed=0)]
    saved = [json.dumps(kept[0], default=lambda array: array.tolist())]
    for _ in range(12):
        result = envs.step(envs.action_space.sample())
        observations, rewards, terminated, truncated, _ = result
        for array in observations.values() if isinstance(observations, dict) else [observations]:
            assert array.dtype == np.float32
            assert array.flags.c_contiguous
            assert array.base is None or not np.shares_memory(array, envs.core.simulator.outcome.observation)
        assert (rewards.dtype, rewards.shape) == (np.float64, (5,))
        assert (terminated.dtype, terminated.shape) == (np.bool_, (5,))
        assert (truncated.dtype, truncated.shape) == (np.bool_, (5,))
        kept.append(result)
        saved.append(json.dumps(result, default=lambda array: array.tolist()))
    for result, text in zip(kept, saved, strict=True):
        assert json.dumps(result, default=lambda array: array.tolist()) == text, "a later step wrote into it"
    if observation == "flat":
        fast = make_vec(env_id, num_envs=5, copy=False)
        first, _ = fast.reset(seed=0)
        second = fast.step(fast.action_space.sample())[0]
        assert np.shares_memory(first, second)


def test_a_horizon_beyond_the_ids_limit_is_not_cut_in_silence(make: Any, make_vec: Any) -> None:
    beyond = {"horizon": 130, "rules": {"churn": -60.0}}
    said = r"horizon=130 has no effect.*max_episode_steps=100; pass max_episode_steps=130"
    envs = make_vec("recsim_llm/News-v0", num_envs=2, **beyond)
    with pytest.warns(UserWarning, match=said):
        envs.reset()

    def episode(env: gym.Env[Any, Any]) -> int:
        env.reset()
        return next(n for n in itertools.count(1) if env.step(env.action_space.sample())[3])

    env = make("recsim_llm/News-v0", **beyond)
    assert episode(env) == 100
    with pytest.warns(UserWarning, match=said):
        env.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert episode(env) == 100  # it is said once
        env.reset()
        envs.reset()
        make_vec("recsim_llm/News-v0", num_envs=2, max_episode_steps=130, **beyond).reset()
        make_vec("recsim_llm/News-v0", num_envs=2, max_episode_steps=5, **beyond).reset()
        long = make("recsim_llm/News-v0", max_episode_steps=130, **beyond)
        assert episode(long) == 130
        long.reset()


@each_id
def test_row_28_horizon(env_id: str, make: Any, make_vec: Any) -> None:
    horizon = gym.spec(env_id).max_episode_steps or 0

    def length(env: gym.Env[Any, Any]) -> int:
        env.reset(seed=0)
        for step in range(1, horizon + 50):
            if env.step(env.action_space.sample())[3]:
                return step
        return 0

    def lengths(envs: VectorEnv[Any, Any, Any]) -> list[int]:
        envs.reset(seed=0)
        found = np.zeros(envs.num_envs, int)
        for step in range(1, horizon + 50):
            truncated = envs.step(envs.action_space.sample())[3]
            assert isinstance(truncated, np.ndarray)
            found[(found == 0) & truncated] = step
        return found.tolist()

    stay = {"rules": {"churn": -60.0}}
    assert length(make(env_id, **stay)) == horizon
    assert length(make(env_id, max_episode_steps=7, **stay)) == 7
    assert length(make(env_id, horizon=9, **stay)) == 9
    assert length(make(env_id, horizon=9, max_episode_steps=7, **stay)) == 7
    assert lengths(make_vec(env_id, num_envs=3, **stay)) == [horizon] * 3
    assert lengths(make_vec(env_id, num_envs=3, max_episode_steps=7, **stay)) == [7] * 3
    assert lengths(make_vec(env_id, num_envs=3, horizon=9, **stay)) == [9] * 3
    assert lengths(make_vec(env_id, num_envs=3, horizon=9, max_episode_steps=7, **stay)) == [7] * 3
    assert not any(lengths(make_vec(env_id, num_envs=3, max_episode_steps=None, **stay)))
    staggered = make_vec(env_id, num_envs=2, max_episode_steps=4, autoreset_mode="Disabled", **stay)
    staggered.reset(seed=0)
    for _ in range(2):
        staggered.step(staggered.action_space.sample())
    staggered.reset(options={"reset_mask": np.array([False, True])})
    flags = [staggered.step(staggered.action_space.sample())[3].tolist() for _ in range(4)]
    assert flags == [[False, False], [True, False], [False, False], [False, True]]


@each_id
@each_mode
def test_row_29_record_episode_statistics(env_id: str, mode: AutoresetMode, make_vec: Any) -> None:
    kwargs = {"num_envs": 3, "max_episode_steps": 7, "rules": LIVELY, "autoreset_mode": mode.value}
    envs, plain = RecordEpisodeStatistics(make_vec(env_id, **kwargs)), make_vec(env_id, **kwargs)
    envs.reset(seed=2)
    plain.reset(seed=2)
    returns, lengths, before = np.zeros(3), np.zeros(3, int), np.zeros(3, bool)
    ended = 0
    for action, _ in zip(actions(envs.action_space, 2), range(50), strict=False):
        infos = envs.step(action)[4]
        _, rewards, terminated, truncated, _ = plain.step(action)
        fresh = before if mode is AutoresetMode.NEXT_STEP else np.zeros(3, bool)
        returns, lengths = np.where(fresh, 0, returns + rewards), np.where(fresh, 0, lengths + 1)
        done = terminated | truncated
        if done.any():
            np.testing.assert_array_equal(infos["_episode"], done)
            assert infos["episode"]["r"].dtype == np.float64
            assert infos["episode"]["l"].dtype == np.int64
            np.testing.assert_allclose(infos["episode"]["r"][done], returns[done])
            np.testing.assert_array_equal(infos["episode"]["l"][done], lengths[done])
            ended += int(done.sum())
        if mode is AutoresetMode.SAME_STEP:
            returns, lengths = np.where(done, 0, returns), np.where(done, 0, lengths)
        before = done
    assert ended > 9


@each_id
@each_mode
@each_form
def test_row_30_native_equals_scalar(
    env_id: str, mode: AutoresetMode, observation: str, make: Any, make_vec: Any
) -> None:
    kwargs = {
        "rules": LIVELY, "observation": observation, "truth": True, "action_mask": True, "max_episode_steps": 5,
        "reward": {"click": 1.0, "dwell": 0.1, "churn": -1.0, "return": 0.5},
    }  # fmt: skip
    native = make_vec(env_id, num_envs=4, autoreset_mode=mode.value, **kwargs)
    scalar = scalar_lanes(make, env_id, 4, mode, **kwargs)
    for seed in (11, [5, 2**40, 0, 7], None):  # None goes on with the lanes' next episodes
        same(scalar.reset(seed=seed), native.reset(seed=seed))
        episodes, both = np.zeros(4, int), 0
        for action, _ in zip(actions(native.action_space, 6), range(60), strict=False):
            result = scalar.step(action)
            same(result, native.step(action))
            episodes += result[2] | result[3]
            both += int((result[2] & result[3]).sum())
        assert episodes.min() >= 3
    assert both > 0, "the test should have seen a user leave at the very horizon"


@each_id
def test_row_31_vectorisation_modes(env_id: str) -> None:
    kwargs = {"rules": LIVELY, "max_episode_steps": 6}
    modes = {
        "vector_entry_point": {},
        "sync": {},
        "async spawn": {"vector_kwargs": {"context": "spawn"}},
        "async forkserver": {"vector_kwargs": {"context": "forkserver"}},
    }
    histories = {}
    for name, extra in modes.items():
        envs = gym.make_vec(env_id, num_envs=2, vectorization_mode=name.split()[0], **extra, **kwargs)
        history: list[Any] = [envs.reset(seed=8)]
        for action, _ in zip(actions(envs.action_space, 8), range(25), strict=False):
            history.append(envs.step(action))
        envs.close()
        histories[name] = history
    for name in modes:
        same(histories["vector_entry_point"], histories[name])


@each_id
@each_mode
def test_row_32_dict_info_to_list(env_id: str, mode: AutoresetMode, make: Any, make_vec: Any) -> None:
    kwargs = {"max_episode_steps": 3, "rules": LIVELY}
    envs = DictInfoToList(make_vec(env_id, num_envs=3, autoreset_mode=mode.value, **kwargs))
    singles = [make(env_id, **kwargs) for _ in range(3)]
    _, infos = envs.reset(seed=0)
    for lane, (info, single) in enumerate(zip(infos, singles, strict=True)):
        expected = single.reset(seed=lane)[1]
        assert set(info) == set(expected)
        for name, value in expected.items():
            np.testing.assert_array_equal(info[name], value)
    for action, _ in zip(actions(envs.action_space, 0), range(12), strict=False):
        infos = envs.step(action)[4]
        assert isinstance(infos, list)
        assert len(infos) == 3
        for info in infos:
            for name, value in info.items():
                assert name.startswith("final_") or np.asarray(value).dtype.kind in "biuf"


# 1d. Training libraries


@each_id
@each_form
@pytest.mark.parametrize("slate_size", [1, 3])
def test_row_43_stable_baselines3_checker(env_id: str, observation: str, slate_size: int, make: Any) -> None:
    pytest.importorskip("stable_baselines3")
    from stable_baselines3.common.env_checker import check_env

    env = make(env_id, observation=observation, slate_size=slate_size, render_mode="rgb_array")
    check_env(env, warn=True)  # warnings are errors


@each_id
def test_row_44_make_vec_env(env_id: str, tmp_path: Path) -> None:
    pytest.importorskip("stable_baselines3")
    from stable_baselines3.common.env_util import make_vec_env

    envs = make_vec_env(
        f"recsim_llm:{env_id}", n_envs=2, seed=3, env_kwargs={"max_episode_steps": 5},
        monitor_dir=str(tmp_path), monitor_kwargs={"info_keywords": ("clicks", "is_success")},
    )  # fmt: skip
    envs.reset()
    for _ in range(12):
        envs.step(np.array([envs.action_space.sample() for _ in range(2)]))
    envs.close()
    for file in sorted(tmp_path.glob("*.monitor.csv")):
        rows = list(csv.DictReader(file.read_text().splitlines()[1:]))
        assert len(rows) >= 2
        assert set(rows[0]) == {"r", "l", "t", "clicks", "is_success"}
    assert len(list(tmp_path.glob("*.monitor.csv"))) == 2


@pytest.mark.parametrize("name", agents.names())
def test_row_45_agent_surface(name: str, world_folder: str, tmp_path: Path) -> None:
    """Stable-Baselines3's names and orders of arguments, and its ``evaluate_policy``, on every agent."""
    pytest.importorskip("stable_baselines3")
    from stable_baselines3.common.evaluation import evaluate_policy

    kind = agents.get(name)
    expected = {
        "learn": ["total_timesteps", "callback", "log_interval", "tb_log_name", "reset_num_timesteps", "progress_bar"],
        "predict": ["observation", "state", "episode_start", "deterministic"],
        "save": ["path"],
        "load": ["path", "env"],
    }
    for method, wanted in expected.items():
        given = [p for p in inspect.signature(getattr(kind, method)).parameters if p != "self"]
        assert given[: len(wanted)] == wanted, method
    arguments = {"world": world_folder, "slate_size": 2, "horizon": 10, "truth": kind.needs_truth}
    config = {"ppo": {"rollout": 40, "batch": 40, "epochs": 1}, "mf": {"epochs": 1}}.get(name, {})
    agent = agents.make(name, gym.make_vec("recsim_llm/News-v0", num_envs=4, **arguments), seed=0, **config)
    assert agent.num_timesteps == 0
    assert agent.learn(80) is agent
    assert agent.num_timesteps >= 80  # whole rollouts, where the loop is Stable-Baselines3's
    returns, _ = evaluate_policy(agent, agent.env.unwrapped.sb3(), n_eval_episodes=4, return_episode_rewards=True)
    assert len(returns) == 4
    agent.save(tmp_path / "agent.zip")
    env = gym.make_vec("recsim_llm/News-v0", num_envs=4, **arguments)
    again = kind.load(tmp_path / "agent.zip", env=env)
    assert again.num_timesteps == agent.num_timesteps
    choices = []
    for who in (agent, again):  # each on its own environment, from where it takes what is on the shelf
        observation, _ = who.env.reset(seed=0)
        choices.append(who.predict(observation, deterministic=True)[0])
    assert choices[0].shape == (4, 2)
    if name not in ("random", "oracle"):  # one draws, the other reads the infos of its environment's last step
        np.testing.assert_array_equal(choices[0], choices[1])


def test_row_42_adapter_truncates_at_the_horizon_of_the_spec():
    pytest.importorskip("stable_baselines3", reason="the adapter needs the extra [agents]")
    envs = gym.make_vec("recsim_llm/Music-v0", num_envs=4).unwrapped.sb3()
    envs.seed(0)
    envs.reset()
    truncated, ended = 0, 0
    for _ in range(205):
        _, _, dones, infos = envs.step(np.zeros(4, np.int64))
        assert all(done or not info["TimeLimit.truncated"] for done, info in zip(dones, infos, strict=True))
        truncated += sum(info["TimeLimit.truncated"] for info in infos)
        ended += int(dones.sum())
        assert all("terminal_observation" in info for done, info in zip(dones, infos, strict=True) if done)
    assert truncated >= 1
    assert ended >= 8
