"""Temporal-difference agents and REINFORCE against exact values, brute force and formulas."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray

from recsim_llm import agents
from recsim_llm.agents.common.experience_buffer import Experience
from recsim_llm.agents.common.slate_optimisation import METHODS, optimal_slates
from recsim_llm.agents.td.sarsa_lambda import Traces
from recsim_llm.errors import DataError
from tests.agents import test_solvable
from tests.agents.test_solvable import Habit, served
from tests.tiny import tiny_env, tiny_world

# Made-up observations come from no environment, which agents say (tests/agents/test_evaluation.py).
pytestmark = pytest.mark.filterwarnings("ignore::recsim_llm.agents.core.serving_session.UnknownEnvironmentWarning")

Floats = NDArray[np.float64]
FREE: dict[str, Any] = {"after_click": 0, "after_look": 0}
SMALL = {"warmup": 32, "batch": 16, "updates": 1, "buffer": 400}
TORCH = ["double_dqn", "slateq", "reinforce"]
LINEAR = ["sarsa_lambda", "lspi"]
FILES = "load and save"


def rng(seed: int = 0) -> np.random.Generator:
    """A stream for a test."""
    return np.random.Generator(np.random.PCG64(seed))


def made(name: str, env: Any, **settings: Any) -> Any:
    """An agent; skips where its libraries are not installed."""
    if agents.get(name).needs_torch:
        pytest.importorskip("torch")
    return agents.make(name, env, **settings)


class TestTables:
    """Expected SARSA and SARSA on a world where the most wanted item is not the best."""

    SETTINGS: ClassVar[dict[str, Any]] = {**test_solvable.TestTabular.SETTINGS, "decay": 40_000}

    @pytest.mark.parametrize("name", ["sarsa", "expected_sarsa"])
    def test_the_optimum_is_reached(self, name: str, tmp_path: Path) -> None:
        habit = Habit(tmp_path, horizon=40)
        agent: Any = agents.make(name, habit.env, seed=1, **self.SETTINGS).learn(100_000)
        assert (served(agent, habit.env, steps=1) == 1).all()

    @pytest.mark.parametrize("name", ["sarsa", "expected_sarsa"])
    def test_values_of_a_policy_that_explores(self, name: str, tmp_path: Path) -> None:
        # epsilon 1: items are uniform whatever was learnt, so that Q is that of the uniform policy
        habit = Habit(tmp_path, horizon=40)
        uniform = {**self.SETTINGS, "epsilon": 1.0, "epsilon_start": 1.0, "power": 0.6}
        agent: Any = agents.make(name, habit.env, seed=1, **uniform).learn(100_000)
        q = habit.action_values(lambda q: q.mean(1))
        for last in (0, 1, 2, 3):
            row, visits = test_solvable.TestTabular.row(agent, last)
            for item in range(3):
                if visits[agent.groups.labels[item]] > 1_000:
                    assert row[agent.groups.labels[item]] == pytest.approx(q[last, item], rel=0.06), (last, item)
        assert (test_solvable.TestTabular.row(agent, 1)[1] > 1_000).all()

    def test_the_mean_over_actions_is_that_of_the_policy(self, tmp_path: Path) -> None:
        env = tiny_env(tiny_world(np.eye(4), np.zeros(4)), tmp_path)
        agent: Any = agents.make("expected_sarsa", env, **FREE, actions=2, epsilon=0.3, epsilon_start=0.3)
        agent.table[...] = rng().normal(size=agent.table.shape)
        share = np.bincount(agent.groups.labels, minlength=2) / 4
        expected = 0.7 * agent.table.max(1) + 0.3 * (agent.table * share).sum(1)
        assert agent.expected(np.arange(len(agent.table))) == pytest.approx(expected)


class TestBootstrap:
    """One item, always consumed: r / (1 - gamma) if only the clock ends episodes, r if users leave."""

    def env(self, folder: Path, rules: dict[str, Any], mode: str) -> Any:
        world = tiny_world([[1.0, 0.0], [1.0, 0.0]], [30.0, 30.0], taste=[[0.0, 1.0]], profile=[[1.0, 0.0]])
        return tiny_env(world, folder, lanes=4, rules=rules, autoreset_mode=mode, horizon=20)

    @pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
    def test_tables(self, mode: str, tmp_path: Path) -> None:
        agent: Any = agents.make("expected_sarsa", self.env(tmp_path, {}, mode), **FREE, gamma=0.8, smallest_step=0.1)
        agent.learn(8_000)
        assert agent.table[agent.visits > 100] == pytest.approx(5.0, rel=0.02)

    def test_termination(self, tmp_path: Path) -> None:
        env = self.env(tmp_path, {"leave": 60.0, "churn": 60.0}, "NextStep")
        agent: Any = agents.make("expected_sarsa", env, **FREE, gamma=0.8).learn(1_000)
        assert agent.table[agent.visits > 10] == pytest.approx(1.0, rel=1e-6)

    @pytest.mark.parametrize(("rules", "value"), [({}, 5.0), ({"leave": 60.0, "churn": 60.0}, 1.0)])
    @pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
    @pytest.mark.parametrize("name", LINEAR)
    def test_linear(self, name: str, mode: str, rules: dict[str, Any], value: float, tmp_path: Path) -> None:
        agent: Any = agents.make(name, self.env(tmp_path, rules, mode), **FREE, gamma=0.8, ridge=0.1).learn(6_000)
        values: list[Floats] = []
        keep = agent.event

        def event(transition: Any) -> Any:
            seen = keep(transition)
            states = seen.state[transition.valid]
            if name == "lspi":
                values.append(states @ agent.u)
            else:
                values.append(states @ agent.weights[: agent.states] + agent.worth(seen)[transition.valid])
            return seen

        agent.event = event
        agent.learn(400)
        assert np.concatenate(values).mean() == pytest.approx(value, rel=0.08)

    @pytest.mark.parametrize(("rules", "value"), [({}, 2.0), ({"leave": 60.0, "churn": 60.0}, 1.0)])
    @pytest.mark.parametrize("name", TORCH)
    def test_networks(self, name: str, rules: dict[str, Any], value: float, tmp_path: Path) -> None:
        agent = made(
            name, self.env(tmp_path, rules, "NextStep"), **FREE, gamma=0.5, warmup=64, batch=32, updates=1, steps=3,
            learning_rate=2e-2, hidden=8, **({} if name == "reinforce" else {"follow": 0.2}),
        )  # fmt: skip
        agent.learn(1_200)
        kept, learner = agent.experience, agent.learner
        ages, lanes = kept.sample(64, rng())
        with agent.torch.no_grad():
            base, direction = learner.net(learner.tensor(kept.get("state", ages, lanes)))
            values = base[:, 0]
            if name != "reinforce":  # a baseline knows no items
                values = values + learner.net.of(direction, 0, learner.tensor(kept.get("shown", ages, lanes)))[:, 0]
        assert (values * agent.scale[0]).numpy() == pytest.approx(value, rel=0.1)


class TestTraces:
    """True online TD(lambda) against the online lambda-return algorithm (van Seijen et al. 2016), by brute force."""

    GAMMA, LAMBDA, STEPS, WIDTH = 0.9, 0.7, 7, 4

    def episode(self, seed: int) -> tuple[Floats, Floats, Floats]:
        """Features [T + 1, d], the last ones 0 as the episode ends, rewards [T] and gains [T, d]."""
        draw = rng(seed)
        phi = draw.normal(size=(self.STEPS + 1, self.WIDTH))
        phi[-1] = 0.0
        matrix = draw.normal(size=(self.WIDTH, self.WIDTH))
        steps = draw.uniform(0.02, 0.1, self.STEPS)
        return phi, draw.normal(size=self.STEPS), steps[:, None] * (phi[:-1] @ (matrix @ matrix.T))

    def forward(self, phi: Floats, rewards: Floats, gains: Floats) -> Floats:
        """Weights after the episode: at each time, all updates anew towards the lambda-returns up to then."""
        weights = [np.zeros(self.WIDTH)]
        for horizon in range(1, self.STEPS + 1):
            w = np.zeros(self.WIDTH)
            for k in range(horizon):
                returns = []
                for n in range(1, horizon - k + 1):
                    reached = k + n
                    known = sum(self.GAMMA**j * rewards[k + j] for j in range(n))
                    returns.append(known + self.GAMMA**n * weights[reached - 1] @ phi[reached])
                last = len(returns) - 1
                mix = sum((1 - self.LAMBDA) * self.LAMBDA**n * returns[n] for n in range(last))
                w = w + gains[k] * (mix + self.LAMBDA**last * returns[last] - w @ phi[k])
            weights.append(w)
        return weights[-1]

    @pytest.mark.parametrize("seed", range(4))
    def test_backward_view_equals_forward_view(self, seed: int) -> None:
        phi, rewards, gains = self.episode(seed)
        traces, w = Traces.empty(3, self.WIDTH), np.zeros(self.WIDTH)
        lane = np.array([1])
        for t in range(self.STEPS):
            after = phi[t + 1 : t + 2] @ w
            target = rewards[t] + self.GAMMA * after
            w = w + traces.step(
                lane, phi[t : t + 1], gains[t : t + 1], phi[t : t + 1] @ w, target, after, self.GAMMA * self.LAMBDA
            )
        assert w == pytest.approx(self.forward(phi, rewards, gains), rel=1e-10)
        assert not traces.trace[[0, 2]].any()

    def test_lambda_zero_is_one_step(self) -> None:
        phi, rewards, gains = self.episode(1)
        traces, w = Traces.empty(1, self.WIDTH), rng().normal(size=self.WIDTH)
        after = phi[1:2] @ w
        change = traces.step(
            np.array([0]), phi[:1], gains[:1], phi[:1] @ w, rewards[0] + self.GAMMA * after, after, 0.0
        )
        assert change == pytest.approx((rewards[0] + self.GAMMA * after[0] - phi[0] @ w) * gains[0])


class TestAgainstPlainLoops:
    """The vectorised sums of LSPI, and its solution, against loops over transitions."""

    def test_least_squares(self, world_folder: str) -> None:
        env = gym.make_vec("recsim_llm/News-v0", num_envs=4, world=world_folder, slate_size=3, horizon=12)
        agent: Any = agents.make("lspi", env, seed=1, window=1e12, growth=1e6)
        steps: list[Any] = []
        keep = agent.event

        def event(transition: Any) -> Any:
            seen = keep(transition)
            steps.append((transition, seen))
            return seen

        agent.event = event
        agent.learn(400)
        agent.solve()
        gamma, decay, n = agent.config.gamma, agent.config.gamma * agent.config.trace, len(agent.u)
        gram, moment = agent.config.ridge * np.eye(n), np.zeros(n)
        for lane in range(4):
            trace = np.zeros(n)
            for transition, seen in steps:
                if not transition.valid[lane]:
                    continue
                trace = seen.state[lane] + (0.0 if seen.begins[lane] else decay) * trace
                follows = 0.0 if transition.terminated[lane] else 1.0
                gram += np.outer(trace, seen.state[lane] - gamma * follows * seen.after[lane])
                moment += trace * transition.reward[lane]
        assert agent.u == pytest.approx(np.linalg.solve(gram, moment), rel=1e-8, abs=1e-8)
        rows, targets = [], []
        for transition, seen in steps:
            for lane in np.flatnonzero(transition.valid):
                own = np.zeros(agent.env_spec.items)
                own[seen.items[lane][seen.items[lane] >= 0]] += 1.0
                rows.append(np.concatenate([[1.0], seen.psi[lane], own]))
                targets.append(transition.reward[lane] + (gamma * seen.after[lane] - seen.state[lane]) @ agent.u)
        x, y = np.array(rows), np.array(targets)
        for _ in range(400):
            agent.solve()
        m = len(agent.v)
        prior = np.r_[np.full(m, agent.config.ridge), np.full(agent.env_spec.items, agent.config.strength)]
        exact = np.linalg.solve(x.T @ x + np.diag(prior), x.T @ y)
        assert np.r_[agent.v, agent.b] == pytest.approx(exact, rel=1e-4, abs=1e-6)


class TestSlates:
    """Slates of a conditional logit against all slates there are."""

    ATTENTION = np.array([1.0, 0.8, 0.7])

    def problem(self, seed: int, items: int = 7) -> tuple[Floats, Floats]:
        draw = rng(seed)
        return draw.normal(0.0, 1.5, (1, items)), draw.normal(0.5, 1.0, (1, items))

    @staticmethod
    def worth(slate: Any, appeal: Floats, value: Floats, attention: Floats) -> float:
        """sum over i of P(i | s, A) Q(s, i), term by term."""
        weight = [float(np.exp(appeal[0, i])) * float(d) for i, d in zip(slate, attention, strict=True)]
        chances = [one / (1.0 + sum(weight)) for one in weight]
        return sum(chance * float(value[0, i]) for chance, i in zip(chances, slate, strict=True))

    @pytest.mark.parametrize("seed", range(5))
    def test_the_exact_slate_is_the_best_of_all(self, seed: int) -> None:
        appeal, value = self.problem(seed)
        usable = np.ones(appeal.shape, bool)
        usable[0, seed] = False
        slate = optimal_slates("exact", appeal, value, usable, self.ATTENTION)[0]
        best = max(
            self.worth(one, appeal, value, self.ATTENTION)
            for one in itertools.permutations([i for i in range(7) if i != seed], 3)
        )
        assert self.worth(slate, appeal, value, self.ATTENTION) == pytest.approx(best, rel=1e-10)

    @pytest.mark.parametrize("seed", range(5))
    def test_greedy_adds_the_best_each_time(self, seed: int) -> None:
        appeal, value = self.problem(seed)
        slate = optimal_slates("greedy", appeal, value, np.ones(appeal.shape, bool), self.ATTENTION)[0].tolist()
        for k in range(3):
            others = [i for i in range(7) if i not in slate[:k]]
            best = max(others, key=lambda i: self.worth([*slate[:k], i], appeal, value, self.ATTENTION[: k + 1]))
            assert slate[k] == best

    @pytest.mark.parametrize("seed", range(5))
    def test_top_k_is_by_weight_times_value(self, seed: int) -> None:
        appeal, value = self.problem(seed)
        slate = optimal_slates("top_k", appeal, value, np.ones(appeal.shape, bool), self.ATTENTION)[0]
        assert slate.tolist() == np.argsort(-np.exp(appeal[0]) * value[0])[:3].tolist()

    def test_heuristics_are_never_above_the_optimum_and_sometimes_below(self) -> None:
        below = dict.fromkeys(METHODS, 0)
        for seed in range(60):
            appeal, value = self.problem(seed)
            usable = np.ones(appeal.shape, bool)
            worth = {
                method: self.worth(
                    optimal_slates(method, appeal, value, usable, self.ATTENTION)[0], appeal, value, self.ATTENTION
                )
                for method in METHODS
            }
            for method in METHODS:
                assert worth[method] <= worth["exact"] + 1e-12
                below[method] += worth[method] < worth["exact"] - 1e-9
        assert below["exact"] == 0
        assert below["top_k"] > 0
        assert below["greedy"] > 0

    @pytest.mark.parametrize("method", METHODS)
    def test_nothing_twice_with_too_few_items(self, method: str) -> None:
        appeal, value = self.problem(1)
        usable = np.zeros(appeal.shape, bool)
        usable[0, 4] = True
        slate = optimal_slates(method, appeal, value, usable, self.ATTENTION)[0].tolist()
        assert 4 in slate
        assert len(set(slate)) == 3


def steps_of(kept: Experience, count: int, seed: int = 0) -> list[dict[str, NDArray[Any]]]:
    """Adds random steps to a buffer and returns them."""
    draw, added = rng(seed), []
    for _ in range(count):
        step = {
            "x": draw.normal(size=(kept.lanes, 2)).astype(np.float32),
            "reward": draw.normal(size=kept.lanes).astype(np.float32), "valid": draw.random(kept.lanes) < 0.9,
            "terminated": draw.random(kept.lanes) < 0.1, "truncated": draw.random(kept.lanes) < 0.1,
        }  # fmt: skip
        kept.add(**step)
        added.append(step)
    return added


class TestExperience:
    """The replay buffer against a list of steps."""

    FIELDS: ClassVar[dict[str, Any]] = {"x": ((2,), np.float32)}

    @pytest.mark.parametrize("count", [3, 8, 21])
    def test_the_last_steps_are_kept_in_order(self, count: int) -> None:
        kept = Experience(8, 3, self.FIELDS)
        added = steps_of(kept, count)[-8:]
        assert len(kept) == len(added)
        for age, step in enumerate(added):
            for name, array in step.items():
                assert (kept.get(name, np.full(3, age), np.arange(3)) == array).all()

    @pytest.mark.parametrize("count", [6, 21])
    def test_returns(self, count: int) -> None:
        kept = Experience(8, 3, self.FIELDS)
        added = steps_of(kept, count)[-8:]
        ages, lanes = (grid.reshape(-1) for grid in np.indices((len(added), 3)))
        totals, weights, last, over = kept.returns(ages, lanes, 4, 0.9)
        for n, (age, lane) in enumerate(zip(ages, lanes, strict=True)):
            total, weight, at, ended = 0.0, 1.0, age, False
            for later in range(age, min(age + 4, len(added))):
                total += weight * float(added[later]["reward"][lane])
                weight, at = weight * 0.9, later
                if added[later]["terminated"][lane] or added[later]["truncated"][lane]:
                    ended = True
                    weight = 0.0 if added[later]["terminated"][lane] else weight
                    break
            assert totals[n] == pytest.approx(total)
            assert weights[n] == pytest.approx(weight)
            assert (last[n], over[n]) == (at, ended)

    def test_only_valid_steps_are_drawn_and_all_of_them(self) -> None:
        kept = Experience(8, 3, self.FIELDS)
        added = steps_of(kept, 13)[-8:]
        ages, lanes = kept.sample(2_000, rng())
        drawn = set(zip(ages.tolist(), lanes.tolist(), strict=True))
        assert drawn == {(age, lane) for age in range(8) for lane in range(3) if added[age]["valid"][lane]}

    @pytest.mark.parametrize("count", [5, 8, 19])
    def test_round_trip(self, count: int) -> None:
        kept, other = Experience(8, 3, self.FIELDS), Experience(8, 3, self.FIELDS)
        steps_of(kept, count)
        other.restore({name: array.copy() for name, array in kept.arrays().items()}, FILES)
        for buffer in (kept, other):
            steps_of(buffer, 3, seed=5)
        first, second = kept.arrays(), other.arrays()
        assert all((first[name] == second[name]).all() for name in first)
        a, b = kept.sample(50, rng(1)), other.sample(50, rng(1))
        assert np.array_equal(a, b)

    def test_of_other_lanes_nothing_is_kept(self) -> None:
        kept, other = Experience(8, 3, self.FIELDS), Experience(8, 2, self.FIELDS)
        steps_of(kept, 5)
        other.restore(kept.arrays(), FILES)
        assert len(other) == 0

    @pytest.mark.parametrize("change", ["missing", "longer", "other type", "negative"])
    def test_damage_is_seen(self, change: str) -> None:
        kept = Experience(8, 3, self.FIELDS)
        steps_of(kept, 5)
        arrays = kept.arrays()
        x = arrays.pop("experience/x")
        if change == "longer":
            arrays["experience/x"] = np.concatenate([x, x])
        elif change == "other type":
            arrays["experience/x"] = x.astype(np.float64)
        elif change == "negative":
            arrays |= {"experience/x": x, "experience/added": np.array([-1])}
        with pytest.raises(DataError):
            Experience(8, 3, self.FIELDS).restore(arrays, FILES)


@pytest.fixture
def news(world_folder: str) -> Any:
    """Four users of a small world in which items come and go."""
    return gym.make_vec(
        "recsim_llm/News-v0", num_envs=4, world=world_folder, slate_size=3, users="train", horizon=12
    )  # fmt: skip


class TestNetworks:
    """Losses and gradients of the agents with networks, by hand."""

    def scrambled(self, name: str, env: Any, **settings: Any) -> Any:
        """An agent that has seen some steps, with random weights in both networks."""
        agent = made(name, env, seed=2, **{**SMALL, **settings})
        agent.learn(200)
        torch = agent.torch
        generator = torch.Generator().manual_seed(3)
        for net in (agent.learner.net, agent.learner.target):
            for weights in () if net is None else net.parameters():
                with torch.no_grad():
                    weights.copy_(0.3 * torch.randn(weights.shape, generator=generator))
        return agent

    def test_double_dqn_targets(self, news: Any) -> None:
        agent = self.scrambled("double_dqn", news, steps=2, gamma=0.8)
        kept, learner, torch = agent.experience, agent.learner, agent.torch
        ages, lanes = kept.sample(40, rng())
        targets = agent.targets(ages, lanes).numpy()
        differs = 0
        for n, (age, lane) in enumerate(zip(ages.tolist(), lanes.tolist(), strict=True)):

            def read(name: str, at: int, lane: int = lane) -> Any:
                return kept.get(name, np.array([at]), np.array([lane]))[0]

            y = read("slot_reward", age).astype(np.float64)
            at, weight, gone = age, 0.8, bool(read("terminated", age))
            if not gone and not read("truncated", age) and age + 1 < len(kept):
                at, weight = age + 1, 0.64
                y = y + 0.8 * read("reward", at) / 3
                gone = bool(read("terminated", at))
            state = torch.as_tensor(read("after", at))[None]
            with torch.no_grad():
                usable = agent.usable(np.array([at]), np.array([lane]))[0]
                scores = [net.of_all(net(state)[1], 0)[0].numpy() for net in (learner.net, learner.target)]
                chosen = int(np.where(usable, scores[0], -np.inf).argmax())
                differs += chosen != int(np.where(usable, scores[1], -np.inf).argmax())
                future = float(learner.target(state)[0][0, 0]) + float(scores[1][chosen])
            expected = y / agent.scale[0] + (0.0 if gone else weight * future)
            assert targets[n] == pytest.approx(expected, rel=1e-4, abs=1e-5)
        assert differs > 10  # a single network would have chosen otherwise

    @pytest.mark.parametrize("seed", [0, 1])
    def test_slateq_bootstraps_from_the_best_slate(self, seed: int, news: Any) -> None:
        agent = self.scrambled("slateq", news)
        kept, learner, torch = agent.experience, agent.learner, agent.torch
        ages, lanes = kept.sample(12, rng(seed))
        states, usable = learner.tensor(kept.get("after", ages, lanes)), agent.usable(ages, lanes)
        for row in usable:  # few enough to try all slates
            row[rng(seed).permutation(np.flatnonzero(row))[9:]] = False
        futures = agent.future(learner.target, states, learner.tensor(usable)).numpy()
        with torch.no_grad():
            base, direction = learner.target(states)
            appeal = (learner.target.of_all(direction, 1) + base[:, 1:]).numpy().astype(np.float64)
            value = learner.target.of_all(direction, 0).numpy().astype(np.float64)
        tried = 0
        for n in range(len(ages)):
            on_shelf = np.flatnonzero(usable[n])
            if len(on_shelf) < 3:
                continue
            tried += 1
            best = max(
                TestSlates.worth(slate, appeal[n : n + 1], value[n : n + 1], np.ones(3))
                for slate in itertools.combinations(on_shelf.tolist(), 3)
            )
            assert futures[n] == pytest.approx(float(base[n, 0]) + best, rel=1e-3, abs=1e-3)
        assert tried > 3

    def test_the_choice_model_is_learnt(self, tmp_path: Path) -> None:
        appeal = np.array([-1.0, 0.0, 1.0, -2.0])
        env = tiny_env(tiny_world(np.eye(4), appeal), tmp_path, slate_size=2)
        agent = made("slateq", env, **FREE, epsilon=1.0, warmup=64, learning_rate=3e-3, rate_items=1e-2)
        agent.learn(12_000)
        kept, torch = agent.experience, agent.torch
        ages, lanes = kept.sample(100, rng())
        with torch.no_grad():
            base, direction = agent.learner.net(torch.as_tensor(kept.get("state", ages, lanes)))
            learnt = (agent.learner.net.of_all(direction, 1) + base[:, 1:]).mean(0).numpy()
        assert learnt == pytest.approx(appeal, abs=0.35)

    def test_top_k_gradient(self) -> None:
        torch = pytest.importorskip("torch")
        from recsim_llm.agents.policy_gradient.reinforce import top_k_objective

        draw = rng(4)
        logits = torch.tensor(draw.normal(size=(5, 6)), requires_grad=True)
        shown = torch.tensor(np.stack([draw.permutation(6)[:3] for _ in range(5)]))
        beta, advantage = torch.tensor(draw.uniform(0.05, 0.9, (5, 3))), torch.tensor(draw.normal(size=(5, 3)))
        log_pi = torch.log_softmax(logits, 1).gather(1, shown)
        (own,) = torch.autograd.grad(top_k_objective(torch, log_pi, beta, advantage, 1e6).sum(), logits)
        # the chance that an item is among K draws, over that of its having been shown: its derivative is lambda_K's
        among = 1.0 - (1.0 - torch.softmax(logits, 1).gather(1, shown)) ** 3
        (exact,) = torch.autograd.grad((among / beta * advantage).sum(), logits)
        assert own.numpy() == pytest.approx(exact.numpy(), rel=1e-9)

    def test_weights_are_capped_and_unknown_chances_are_the_policys_own(self) -> None:
        torch = pytest.importorskip("torch")
        from recsim_llm.agents.policy_gradient.reinforce import top_k_objective

        log_pi = torch.log(torch.tensor([[0.5], [0.5], [0.5]]))
        beta = torch.tensor([[1e-9], [float("nan")], [1.0]])
        objective = top_k_objective(torch, log_pi, beta, torch.ones(3, 1), 4.0) / log_pi
        assert objective[:, 0].numpy() == pytest.approx([4.0, 1.0, 0.5])

    def test_reinforce_learns_from_the_recorded_chances(self, news: Any) -> None:
        agent = self.scrambled("reinforce", news)
        chance = agent.experience.fields["chance"][: len(agent.experience)]
        valid = agent.experience.fields["valid"][: len(agent.experience)]
        assert np.isfinite(chance[valid]).all()
        assert ((chance[valid] > 0.0) & (chance[valid] <= 1.0)).all()
        assert (chance[valid] < 0.9).mean() > 0.5

    @pytest.mark.parametrize("name", TORCH)
    def test_unseen_items_have_values(self, name: str, news: Any) -> None:
        agent = self.scrambled(name, news)
        learner, torch = agent.learner, agent.torch
        with torch.no_grad():
            learner.net.id_bias.zero_()
            learner.net.items[:, learner.net.width :] = 0.0
            scores = learner.net.of_all(learner.net(torch.zeros(1, agent.experience.fields["state"].shape[-1]))[1], 0)
        assert scores.std() > 0.0  # by their encodings alone

    def test_the_global_generator_is_left_alone(self, news: Any) -> None:
        torch = pytest.importorskip("torch")
        before = torch.get_rng_state()
        for name in TORCH:
            made(name, news, seed=0, **SMALL).learn(80)
        assert (torch.get_rng_state() == before).all()


class TestContinuation:
    """Learning goes on after loading; that it does to the bit is part of the contract (test_check_agent)."""

    @pytest.mark.parametrize("name", ["sarsa", *LINEAR, *TORCH])
    def test_goes_on_with_other_lanes(self, name: str, world_folder: str, tmp_path: Path, news: Any) -> None:
        path = made(name, news, seed=2, **(SMALL if name in TORCH else {})).learn(160).save(tmp_path / "agent")
        env = gym.make_vec("recsim_llm/News-v0", num_envs=7, world=world_folder, slate_size=3, users="train")
        agent = agents.load(path, env)
        before = agent.num_timesteps
        agent.learn(70)
        assert agent.num_timesteps == before + 70


class TestForesight:
    """A habit that pays later: what the linear agents and SlateQ do where a bandit would take the first pleasure."""

    @pytest.mark.parametrize("name", ["lspi", "sarsa_lambda"])
    def test_the_far_better_item_is_shown(self, name: str, tmp_path: Path) -> None:
        habit = Habit(tmp_path, horizon=40)
        settings = {
            **FREE,
            "gamma": Habit.GAMMA,
            "epsilon_start": 1.0,
            "epsilon": 0.05,
            "decay": 20_000.0,
            "width_state": 4,
        }
        agent: Any = agents.make(name, habit.env, seed=1, **settings).learn(60_000)
        assert (served(agent, habit.env, steps=1) == 1).mean() > 0.9
        assert habit.click[3].argmax() == 0

    def test_retention_in_the_video_month(self) -> None:
        # the study is elsewhere; here a short run must keep users longer than the bandit of highest mean reward
        lengths = {}
        for name in ("lspi", "epsilon_greedy"):
            env = gym.make_vec("recsim_llm/Video-retention-v0", num_envs=64, users="train")
            agent: Any = agents.make(name, env, seed=100).learn(8_000)
            ended: list[int] = []
            agent.learn(3_000, callback=lambda names, _, ended=ended: ended.append(
                int(names["transition"].terminated.sum())
            ))  # fmt: skip
            lengths[name] = 3_000 / sum(ended)
        assert lengths["lspi"] > 1.5 * lengths["epsilon_greedy"]


def test_settings_are_checked() -> None:
    from recsim_llm.agents.td.slateq import SlateQConfig
    from recsim_llm.errors import ConfigError

    assert SlateQConfig.from_dict({"slates": "greedy"}).slates == "greedy"
    with pytest.raises(ConfigError, match="top_k"):
        SlateQConfig.from_dict({"slates": "topk"})
    assert SimpleNamespace(**SlateQConfig().to_dict()).device == "cpu"
