"""The look-ahead oracle: it plans without touching the users it plans for, and gains where looking ahead pays."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from recsim_llm import agents
from recsim_llm.agents.reference.lookahead import shrunk
from recsim_llm.benchmarks.harness.cell import evaluate
from recsim_llm.errors import ConfigError
from recsim_llm.testing import difference

# Made-up observations come from no environment, which agents say (tests/agents/test_evaluation.py).
pytestmark = pytest.mark.filterwarnings("ignore::recsim_llm.agents.core.serving_session.UnknownEnvironmentWarning")


def made(name: str, scenario: str = "recsim_llm/Ecommerce-v0", lanes: int = 16, **config: Any) -> Any:
    """An oracle and its environment, of training users."""
    env = gym.make_vec(scenario, num_envs=lanes, users="train", truth=True, autoreset_mode="Disabled")
    return agents.make(name, env, **config)


def test_it_gains_where_looking_ahead_pays() -> None:
    """The same users with the same luck: what it gains over the myopic oracle is beyond chance."""
    myopic, ahead = (
        evaluate(agent, agent.env, seed=700).returns
        for agent in (made("oracle", lanes=48), made("lookahead", lanes=48))
    )
    gain = ahead - myopic
    assert gain.mean() > 2.0 * gain.std(ddof=1) / np.sqrt(len(gain)) > 0.0


def test_one_policy_is_the_myopic_oracle() -> None:
    alone = made("lookahead", weights="0")
    assert (evaluate(alone, alone.env, 3).returns == evaluate(made("oracle"), made("oracle").env, 3).returns).all()


def test_planning_changes_nothing_of_the_users() -> None:
    agent = made("lookahead", depth=5)
    observation, info = agent.env.reset(seed=1)
    before = agent.env.unwrapped.get_state()
    agent.observe(info)
    agent.predict(observation)
    assert difference(before, agent.env.unwrapped.get_state()) is None


def test_the_plan_has_other_luck_than_the_users_will_have() -> None:
    """What it plays out is not what happens: it does not see the dice."""
    agent = made("lookahead")
    agent.env.reset(seed=1)
    env = agent.env.unwrapped
    snapshot, weights = env.core.simulator.get_state(), np.zeros(env.core.lanes)
    first, second = (agent._played_out(env, snapshot, weights, luck) for luck in (0, 1))
    again = agent._played_out(env, snapshot, weights, 0)
    assert (first == again).all()
    assert (first != second).any()
    planned = agent._copies(env, env.core.lanes)[0].simulator.state.lane["stream"]
    assert (planned != snapshot["lane"]["stream"]).all()


def test_a_choice_is_kept_until_it_is_time() -> None:
    agent = made("lookahead", depth=3, replan=4)
    observation, _ = agent.env.reset(seed=1)
    state: Any = None
    seen = []
    for _ in range(6):
        action, state = agent.predict(observation, state, np.zeros(16, bool))
        seen.append(int(state.left[0]))
        observation, *_ = agent.env.step(action)
    assert seen == [3, 2, 1, 0, 3, 2]


def test_gains_are_drawn_to_the_mean_as_far_as_they_are_noise() -> None:
    rng = np.random.Generator(np.random.PCG64(0))
    real = rng.normal(size=(1, 1, 4000))
    exact = np.repeat(real, 3, 0)
    assert np.allclose(shrunk(exact), real[0])
    noise = rng.normal(size=(3, 1, 4000))
    assert np.abs(shrunk(noise) - noise.mean()).max() < 0.1 * np.abs(noise.mean(0)).max()
    both = exact + noise
    error = np.square(shrunk(both) - real[0]).mean()
    assert error < 0.9 * np.square(both.mean(0) - real[0]).mean()
    # For normal values the best linear shrinkage leaves noise / R times spread / (spread + noise / R).
    assert error == pytest.approx((1 / 3) * 1.0 / (1.0 + 1 / 3), rel=0.1)


def test_what_it_cannot_do_is_said_with_a_way_out() -> None:
    with pytest.raises(ConfigError, match="without num_candidates, or use oracle"):
        agents.make("lookahead", gym.make_vec("recsim_llm/News-v0", num_envs=2, truth=True, num_candidates=20))
    with pytest.raises(ConfigError, match="numbers with commas"):
        made("lookahead", weights="0,much")
    agent = made("lookahead")
    agent.env.reset(seed=0)
    with pytest.raises(ConfigError, match=r"agent\.serve\(env\)"):
        agent.predict(np.zeros((3, agent.env_spec.width), np.float32))


def test_the_truth_of_listed_items_is_that_of_all() -> None:
    agent = made("oracle", lanes=5)
    agent.env.reset(seed=2)
    simulator = agent.env.unwrapped.core.simulator
    rng = np.random.Generator(np.random.PCG64(0))
    listed = rng.integers(0, agent.env_spec.items, (5, 40))
    for weights in (None, {"satisfaction": 1.0}):
        for all_of_them, some in zip(simulator.truth(weights), simulator.truth(weights, listed), strict=True):
            assert (np.take_along_axis(all_of_them, listed, 1) == some).all()
