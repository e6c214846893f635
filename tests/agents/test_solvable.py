"""Tiny worlds whose optimum is computed exactly and must be reached, with fixed seeds and budgets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from recsim_llm import agents
from recsim_llm.agents.core.base import Agent, Transition
from tests.tiny import sigmoid, tiny_env, tiny_world

Floats = NDArray[np.float64]
FREE: dict[str, Any] = {"after_click": 0, "after_look": 0}
"""Nothing has to rest: users of these worlds never tire of an item."""


def served(agent: Agent, env: Any, steps: int = 3) -> NDArray[np.int64]:
    """Actions at deterministic serving after the first steps of fresh episodes, [B] or [B, K]."""
    observation, _ = env.reset(seed=99)
    state: Any = None
    for _ in range(steps):
        actions, state = agent.predict(observation, state, deterministic=True)
        observation, *_ = env.step(actions)
    return actions


class TestBandits:
    """One kind of user, ten items: the best have the highest appeal."""

    APPEAL = np.array([-1.0, -2.0, 0.2, -0.5, -3.0, 1.2, -1.5, 0.8, -0.8, -2.5])

    @pytest.mark.parametrize("name", ["thompson", "linucb"])
    def test_the_best_slate_is_found(self, name: str, tmp_path: Path) -> None:
        # For equal values the best assortment of a multinomial logit are the K most attractive items.
        env = tiny_env(tiny_world(np.eye(10), self.APPEAL), tmp_path, slate_size=2)
        agent = agents.make(name, env, seed=1, **FREE).learn(12_000)
        assert set(np.unique(served(agent, env))) == {5, 7}

    def test_thompson_sampling_stops_paying_for_exploration(self, tmp_path: Path) -> None:
        env = tiny_env(tiny_world(np.eye(10), self.APPEAL), tmp_path)
        agent = agents.make("thompson", env, seed=1, **FREE)
        agent.learn(8_000)
        rewards: list[float] = []
        agent.learn(4_000, callback=lambda names, _: rewards.append(float(names["transition"].reward.mean())))
        best = sigmoid(self.APPEAL.max())
        assert np.mean(rewards) > 0.97 * best
        assert np.mean(rewards) < 1.03 * best


class TestLinUCB:
    """Four kinds of users, each wants another item: no item is best, the profile must be read."""

    TASTE = 4.0 * np.eye(4) - 1.0

    @pytest.fixture
    def env(self, tmp_path: Path) -> Any:
        kinds = np.tile(np.eye(4), (2, 1))
        return tiny_env(
            tiny_world(np.eye(4), np.zeros(4), taste=np.tile(self.TASTE, (2, 1)), profile=kinds), tmp_path, lanes=64
        )

    def test_each_user_gets_her_item(self, env: Any) -> None:
        agent = agents.make("linucb", env, seed=3, **FREE).learn(6_000)
        observation, info = env.reset(seed=5)
        actions, _ = agent.predict(observation, deterministic=True)
        assert (actions == info["user_id"] % 4).all()

    def test_the_optimum_is_earned(self, env: Any) -> None:
        agent = agents.make("linucb", env, seed=3, **FREE).learn(6_000)
        rewards: list[float] = []
        agent.learn(6_000, callback=lambda names, _: rewards.append(float(names["transition"].reward.mean())))
        assert np.mean(rewards) == pytest.approx(float(sigmoid(3.0)), abs=0.02)

    def test_no_single_item_comes_near(self, env: Any) -> None:
        agent = agents.make("thompson", env, seed=3, **FREE).learn(6_000)
        rewards: list[float] = []
        agent.learn(3_000, callback=lambda names, _: rewards.append(float(names["transition"].reward.mean())))
        everybody = float(sigmoid(self.TASTE).mean())
        assert np.mean(rewards) < everybody + 0.06 < float(sigmoid(3.0)) - 0.3


class Habit:
    """Users come to like what they consumed last: a decision problem in which the most wanted item is not the best.

    After consuming item j, taste is c x_j, so that item i is consumed with probability sigma(a_i + c x_i . x_j). Item 0
    is wanted at first, item 1 less, but whoever once had item 1 wants it ever after, and whoever had item 0
    wants item 1 no more.
    """

    GAMMA = 0.9
    ENCODING = np.array([[0.3, -0.35, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.7, 0.0]])
    APPEAL = np.array([-0.6, -1.2, -1.5])
    DRIFT_TARGET = 2.2

    def __init__(self, folder: Path, **arguments: Any) -> None:
        scale = self.DRIFT_TARGET / float(np.square(self.ENCODING).sum(1).mean())
        # The fourth dimension, which no item has, makes room for what taste becomes, and satisfaction is total.
        world = tiny_world(self.ENCODING, self.APPEAL, taste=[[0.0, 0.0, 0.0, scale]], quality=30.0)
        rules = {"drift": 1.0, "drift_target": self.DRIFT_TARGET}
        self.env = tiny_env(world, folder, rules=rules, **arguments)
        gain = scale * self.ENCODING @ self.ENCODING.T
        self.click = sigmoid(self.APPEAL + np.concatenate([gain, np.zeros((1, 3))]))  # [last item or none, item]

    def action_values(self, policy: Callable[[Floats], Floats]) -> Floats:
        """Q [4, 3] of the policy, given as the value [4] of acting by it where Q is given; by iteration to the end."""
        q = np.zeros((4, 3))
        for _ in range(2_000):
            v = policy(q)
            q = self.click * (1.0 + self.GAMMA * v[:3]) + (1.0 - self.click) * self.GAMMA * v[:, None]
        return q

    def optimum(self) -> Floats:
        """Q* [4, 3]."""
        return self.action_values(lambda q: q.max(1))

    def following(self, actions: NDArray[np.int64]) -> Floats:
        """Value [4] of always taking the given action [4]."""
        q = self.action_values(lambda q: q[np.arange(4), actions])
        return q[np.arange(4), actions]


class TestTabular:
    """Q-learning and SARSA on :class:`Habit`."""

    SETTINGS: ClassVar[dict[str, Any]] = {
        **FREE,
        "states": 3,
        "actions": 3,
        "gamma": Habit.GAMMA,
        "epsilon": 0.02,
        "decay": 40_000,
    }

    def test_the_model_is_what_the_environment_does(self, tmp_path: Path) -> None:
        habit = Habit(tmp_path, truth=True)
        _, info = habit.env.reset(seed=0)
        assert sigmoid(info["truth_appeal"][0]) == pytest.approx(habit.click[3], abs=0.005)
        for item in range(3):
            habit.env.reset(seed=item)
            for _ in range(60):
                *_, info = habit.env.step(np.full(32, item))
            assert info["click"].sum() > 0
            clicked = info["click"][:, 0] > 0
            assert sigmoid(info["truth_appeal"][clicked][0]) == pytest.approx(habit.click[item], abs=0.005)

    def test_the_optimum_looks_ahead(self, tmp_path: Path) -> None:
        habit = Habit(tmp_path)
        best = habit.optimum()
        assert best.argmax(1).tolist() == [0, 1, 1, 1]
        assert habit.click[3].argmax() == 0
        myopic = habit.following(habit.click.argmax(1))
        assert best.max(1)[3] > 1.1 * myopic[3]

    @pytest.mark.parametrize("name", ["q_learning", "sarsa"])
    def test_the_optimum_is_reached(self, name: str, tmp_path: Path) -> None:
        habit = Habit(tmp_path, horizon=40)
        agent: Any = agents.make(name, habit.env, seed=2, **self.SETTINGS).learn(100_000)
        assert (served(agent, habit.env, steps=1) == 1).all()
        best = habit.optimum()
        for last in (0, 1, 3):  # item 2 is hardly ever consumed
            row, _ = self.row(agent, last)
            assert agent.groups.labels[best[last].argmax()] == row.argmax(), last

    def test_q_learning_learns_the_optimal_values(self, tmp_path: Path) -> None:
        habit = Habit(tmp_path, horizon=40)
        agent: Any = agents.make("q_learning", habit.env, seed=2, **self.SETTINGS).learn(120_000)
        best = habit.optimum()
        for last in (0, 1, 3):
            item = int(best[last].argmax())
            row, visits = self.row(agent, last)
            assert visits[agent.groups.labels[item]] > 1_000
            assert row[agent.groups.labels[item]] == pytest.approx(best[last, item], rel=0.05), last

    @staticmethod
    def row(agent: Any, last: int) -> tuple[Floats, Floats]:
        """Mean values and visits of each cluster [3] after consuming an item (3: none), over the levels of fatigue."""
        cluster = len(agent.interests) if last == 3 else int(agent.interests.labels[last])
        table, visits = (array.reshape(-1, 3, 3)[cluster] for array in (agent.table, agent.visits))
        return (table * visits).sum(0) / np.maximum(visits.sum(0), 1.0), visits.sum(0)


class TestBootstrap:
    """One item, always consumed. r / (1 - gamma) if only the clock ends episodes, r if users leave (pain 12)."""

    MODES = ("NextStep", "SameStep", "Disabled")

    def env(self, folder: Path, rules: dict[str, Any], mode: str, horizon: int = 20) -> Any:
        world = tiny_world([[1.0, 0.0], [1.0, 0.0]], [30.0, 30.0], taste=[[0.0, 1.0]], profile=[[1.0, 0.0]])
        return tiny_env(world, folder, lanes=4, rules=rules, autoreset_mode=mode, horizon=horizon)

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("name", ["q_learning", "sarsa"])
    def test_truncation_bootstraps(self, name: str, mode: str, tmp_path: Path) -> None:
        agent: Any = agents.make(name, self.env(tmp_path, {}, mode), **FREE, gamma=0.8, power=0.6, smallest_step=0.1)
        agent.learn(8_000)
        assert agent.table[agent.visits > 100] == pytest.approx(1.0 / (1.0 - 0.8), rel=0.02)

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("name", ["q_learning", "sarsa"])
    def test_termination_does_not(self, name: str, mode: str, tmp_path: Path) -> None:
        env = self.env(tmp_path, {"leave": 60.0, "churn": 60.0}, mode)
        agent: Any = agents.make(name, env, **FREE, gamma=0.8).learn(1_000)
        assert agent.table[agent.visits > 10] == pytest.approx(1.0, rel=1e-6)

    def test_the_step_that_resets_a_lane_teaches_nothing(self, tmp_path: Path) -> None:
        env = self.env(tmp_path, {}, "NextStep", horizon=1)
        agent: Any = agents.make("q_learning", env, **FREE, gamma=0.0).learn(400)
        assert agent.table[agent.visits > 10] == pytest.approx(1.0, rel=1e-9)

    @pytest.mark.parametrize("terminated", [True, False])
    def test_one_transition_by_hand(self, terminated: bool, tmp_path: Path) -> None:
        env = self.env(tmp_path, {}, "NextStep")
        agent: Any = agents.make("q_learning", env, **FREE, gamma=0.5)
        observation, _ = env.reset(seed=0)
        agent.table[...] = 8.0
        *_, info = env.step(np.zeros(4, np.int64))
        over = np.full(4, terminated)
        agent.update(
            Transition(
                observation, np.zeros((4, 1), np.int64), np.ones(4), observation, over, ~over, info, np.ones(4, bool)
            )
        )
        changed = agent.table[agent.visits > 0]
        assert changed == pytest.approx(1.0 if terminated else 1.0 + 0.5 * 8.0)

    @pytest.mark.parametrize(("rules", "value"), [({}, 1.0 / 0.5), ({"leave": 60.0, "churn": 60.0}, 1.0)])
    def test_ppo_learns_the_same_values(self, rules: dict[str, Any], value: float, tmp_path: Path) -> None:
        torch = pytest.importorskip("torch")
        pytest.importorskip("stable_baselines3")
        env = self.env(tmp_path, rules, "NextStep")
        agent: Any = agents.make("ppo", env, gamma=0.5, rollout=64, batch=64, epochs=10).learn(2_500)
        with torch.no_grad():
            values = agent.model.policy.predict_values(torch.as_tensor(agent.now()[0])).numpy()
        assert values / agent.told_scale == pytest.approx(value, rel=0.1)
