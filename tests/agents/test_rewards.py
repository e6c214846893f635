"""Every agent maximises the reward that it is given: one of another sign, by the environment or a wrapper around it."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers.vector import TransformReward

from recsim_llm import agents
from recsim_llm.agents.common.item_stats import SlotWeight, credited
from recsim_llm.agents.core.env_runner import Transition
from recsim_llm.worlds.world import World
from tests.tiny import tiny_env, tiny_world

ITEMS, WIDTH, LANES, SLOTS = 24, 6, 32, 3
STEPS = 40
"""Steps of each lane."""
FOREVER = {"max_episode_steps": 20, "slate_size": SLOTS}
TORCH = ("torch", "stable_baselines3")
LEARNING = [
    name
    for name in agents.names()
    if agents.get(name).learns and name not in ("tuned", "scalarised")  # a text encoder; rewards of its own
]


@functools.cache
def world() -> World:
    """Items whose chance of a click is in their encoding: those of high rank are clicked often."""
    rng = np.random.default_rng(0)
    embedding = rng.normal(size=(ITEMS, WIDTH)) * 0.3
    embedding[:, 0] = np.linspace(-1.0, 1.0, ITEMS)
    return tiny_world(embedding, np.linspace(-4.0, 1.0, ITEMS))


def made(folder: Path, kind: str, lanes: int = LANES) -> Any:
    """The environment with the built-in reward (clicks), the negative as a function, or in a wrapper."""
    reward = (lambda infos: -infos["clicks"].astype(np.float64)) if kind == "function" else None
    env: Any = tiny_env(world(), folder, lanes=lanes, reward=reward, **FOREVER)
    return TransformReward(env, lambda rewards: -rewards) if kind == "wrapper" else env


def settings_of(name: str) -> dict[str, Any]:
    """Settings with which an agent may show the same item again, and learns from little."""
    known = agents.get(name).Config.__dataclass_fields__
    wanted: dict[str, Any] = {
        "after_click": 0,
        "after_look": 0,
        "warmup": 200,
        "rollout": 128,
        "refit": 500,
        "period": 400,
    }
    if "epsilon_start" in known:
        wanted["decay"] = 200
    if "agent_config" in known:  # a wrapper
        wanted["agent_config"] = {"after_click": 0, "after_look": 0}
    return {setting: value for setting, value in wanted.items() if setting in known}


def clicks(agent: Any, env: Any, steps: int = 10) -> float:
    """Clicks per step of the agent as it is served without exploration."""
    observation, _ = env.reset(seed=10_000)
    state, starts, total = None, np.ones(env.num_envs, np.bool_), 0.0
    for _ in range(steps):
        actions, state = agent.predict(observation, state, starts, True, env.unwrapped.available())
        observation, _, _, _, infos = env.step(actions)
        starts = np.zeros(env.num_envs, np.bool_)
        total += float(infos["clicks"].sum())
    return total / steps / env.num_envs


@pytest.mark.parametrize("name", LEARNING)
def test_agents_maximise_the_reward_they_are_given(name: str, tmp_path: Path) -> None:
    """With reward -clicks, agents get fewer clicks than random ones, and far fewer than when clicks are rewarded."""
    for module in agents.get(name).libraries + (TORCH if agents.get(name).needs_torch else ()):
        pytest.importorskip(module)
    found = {}
    test = made(tmp_path, "clicks")
    for kind in ("clicks", "function", "wrapper"):
        env = made(tmp_path, kind)
        agent = agents.make(name, env, seed=1, **settings_of(name)).learn(LANES * STEPS)
        found[kind] = clicks(agent, test)
    chance = clicks(agents.make("random", test, seed=0), test)
    print(name, found, chance)
    for kind in ("function", "wrapper"):
        assert found[kind] < chance, (kind, found, chance)
        assert found[kind] < found["clicks"] - 0.3, (kind, found, chance)


MUSIC = {"slate_size": 4, "max_episode_steps": 7}
PARTS = {"click": 0.5, "dwell": 1.0, "like": 2.0, "skip": -0.25}


def parts(infos: dict[str, Any]) -> Any:
    """The weights ``PARTS`` written as a function."""
    return sum(w * infos[name].sum(1) / (60.0 if name == "dwell" else 1.0) for name, w in PARTS.items())


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_slots_of_an_additive_function_earn_what_they_add(mode: str) -> None:
    """A reward function that is the weighted sum of signals gives each slot what the weights give it."""
    weighted, function = (
        gym.make_vec("recsim_llm/Music-v0", num_envs=6, autoreset_mode=mode, reward=reward, **MUSIC)
        for reward in (PARTS, parts)
    )
    weighted.reset(seed=3), function.reset(seed=3)
    rng = np.random.default_rng(0)
    for _ in range(16):
        actions = rng.integers(weighted.single_action_space.nvec[0], size=(6, 4))
        _, expected, _, _, first = weighted.step(actions)
        _, rewards, _, _, second = function.step(actions)
        np.testing.assert_allclose(rewards, expected, atol=1e-5)
        np.testing.assert_allclose(second["slot_reward"], first["slot_reward"], atol=1e-5)
        assert second["slot_reward"].dtype == first["slot_reward"].dtype
        if "final_info" in second:
            ended = second["_final_info"]
            given, wanted = (infos["final_info"]["slot_reward"][ended] for infos in (second, first))
            np.testing.assert_allclose(given, wanted, atol=1e-5)


def test_slots_of_revenue_clicks_and_the_built_in_reward() -> None:
    """A function of what lanes earn as a whole is taken apart by slots, in the scalar environment too."""
    functions = {
        "clicks": lambda infos: -2.0 * infos["clicks"], "revenue": lambda infos: 3.0 * infos["revenue"],
        "reward": lambda infos: -infos["reward"],
    }  # fmt: skip
    for name, function in functions.items():
        for env_id, arguments in (("Ads", {}), ("Ecommerce", {"slate_size": 4}), ("Ecommerce", {"rules": {"bids": 0}})):
            env = gym.make(f"recsim_llm/{env_id}-v0", reward=function, **arguments)
            plain = gym.make(f"recsim_llm/{env_id}-v0", **arguments)
            env.reset(seed=5), plain.reset(seed=5)
            rng, earned = np.random.default_rng(1), 0.0
            for _ in range(60):
                action = np.asarray(rng.integers(env.unwrapped.core.items, size=env.unwrapped.slate_size))
                action = action if env.unwrapped.slate_size > 1 else int(action[0])
                _, reward, ended, cut, info = env.step(action)
                _, _, _, _, told = plain.step(action)
                own = {
                    "clicks": -2.0 * told["click"],
                    "revenue": 3.0 * told["slot_reward"],
                    "reward": -told["slot_reward"],
                }
                np.testing.assert_allclose(info["slot_reward"], own[name], rtol=1e-4, atol=1e-4)
                assert reward == pytest.approx(info["slot_reward"].sum(), abs=1e-3)
                earned += abs(reward)
                if ended or cut:
                    break
            assert earned > 0.0 or name != "clicks"


def moment(reward: Any, slots: Any, looked: Any, weight: float = 1.0) -> Transition:
    """A transition of which only the reward matters."""
    reward, slots, looked = np.asarray(reward, float), np.asarray(slots, np.float32), np.asarray(looked, bool)
    none, flags = np.zeros((len(reward), 1), np.float32), np.zeros(len(reward), np.bool_)
    info = {
        "slate": np.zeros(slots.shape, int), "click": (slots > 0) & looked, "skip": (slots <= 0) & looked,
        "slot_reward": slots,
    }  # fmt: skip
    return Transition(none, info["slate"], reward, none, flags, flags, info, ~flags, slot_weight=weight)


def test_credit_adds_up_to_the_reward() -> None:
    """What no slot earned is shared by the slots looked at, by all where none was; nothing is lost."""
    slots = [[1, 0, 2], [0, 0, 0], [0, 1, 0]]
    looked = [[1, 1, 1], [0, 0, 0], [1, 1, 0]]
    credit = credited(moment([6.0, 3.0, -1.0], slots, looked))
    np.testing.assert_allclose(credit, [[2, 1, 3], [1, 1, 1], [-1, 0, 0]])
    credit = credited(moment([-3.0, 3.0, 1.0], slots, looked, weight=-1.0))
    np.testing.assert_allclose(credit, [[-1, 0, -2], [1, 1, 1], [1, 0, 0]])
    exact = credited(moment([0.3], [[0.1, 0.2]], [[1, 1]]))  # 0.1 and 0.2 as float32: what is left is rounding
    np.testing.assert_array_equal(exact, np.float32([[0.1, 0.2]]).astype(float))


@pytest.mark.parametrize("factor", [-1.0, 0.1, 10.0, 0.0])
def test_weight_of_slots_is_the_slope_of_a_line(factor: float) -> None:
    """A wrapper that scales rewards is found out, with noise too; what has nothing to do with slots leaves it at 1."""
    rng = np.random.default_rng(2)
    slots, noise = rng.poisson(0.4, (400, 3)).astype(float), rng.normal(size=400)
    weight = SlotWeight()
    reward = factor * slots.sum(1) + noise
    for low in range(0, 400, 50):
        weight.add(slots[low : low + 50], reward[low : low + 50])
    assert weight.weight == pytest.approx(np.polyfit(slots.sum(1), reward, 1)[0], abs=1e-9)
    assert SlotWeight().add(slots[:8], factor * slots.sum(1)[:8]) == pytest.approx(factor)
    staying = SlotWeight()
    for start in range(0, 400, 10):
        assert (
            staying.add(slots[start : start + 10], slots[start : start + 10].sum(1) + noise[start : start + 10]) == 1.0
        )


def test_one_credit_for_all() -> None:
    """No agent reads the rewards of slots past the function that makes them add up."""
    folder = Path(agents.__file__).parent
    reading = {path.name for path in folder.glob("*.py") if 'info["slot_reward"]' in path.read_text()}
    assert reading == set()


@pytest.mark.parametrize("name", ["ppo", "a2c", "masked_ppo", "linucb", "lspi", "sarsa_lambda"])
def test_scores_see_what_the_user_met_lately(name: str, tmp_path: Path) -> None:
    """Where an item that was just seen is not wanted again, scores of agents on features fall by having seen it."""
    for module in agents.get(name).libraries + (TORCH if agents.get(name).needs_torch else ()):
        pytest.importorskip(module)
    rules = {"repeat": 5.0, "repeat_look": 1.0, "repeat_life": 1_000.0}
    alike = tiny_world(np.tile([1.0, 0.0], (12, 1)), np.full(12, 1.0))
    one = dataclasses.replace(alike.catalog, category=["one"] * 12)  # wear of topics tells nothing
    alike = dataclasses.replace(alike, catalog=one)
    env = tiny_env(alike, tmp_path, lanes=LANES, rules=rules, slate_size=2, max_episode_steps=20)
    agent: Any = agents.make(name, env, seed=3, after_click=0, after_look=0).learn(LANES * 120)
    observation, _ = env.reset(seed=77)
    everything = env.unwrapped.available()
    starts, state = np.ones(LANES, np.bool_), None
    before, total, met = np.zeros((LANES, 12), np.bool_), 0.0, 0.0
    for _ in range(3):
        actions, state = agent.predict(observation, state, starts, True, everything)
        observation, _, _, _, infos = env.step(actions)
        looked = (infos["click"] > 0) | (infos["skip"] > 0)
        np.put_along_axis(before, actions, looked, 1)
        starts = np.zeros(LANES, np.bool_)
    scores = np.asarray(agent.relevance(observation, state, starts, everything), float)
    for lane in range(LANES):
        total += 1
        met += scores[lane][before[lane]].mean() < scores[lane][~before[lane]].mean()
    assert met / total > 0.9


def test_all_agents_rest_items_alike() -> None:
    """One default for every agent that shows items: what is compared is what they learn, not how long items rest."""
    rests = {
        (config.after_click, config.after_look)
        for config in (agents.get(name).Config() for name in agents.names())
        if hasattr(config, "after_click")
    }
    assert len(rests) == 1
