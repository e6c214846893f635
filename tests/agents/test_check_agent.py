"""Every agent keeps the contract that ships with the package, and every check of it can fail (RELIABILITY T13)."""

from __future__ import annotations

import json
import pickle
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from recsim_llm import agents
from recsim_llm.agents.bandits.epsilon_greedy import EpsilonGreedyAgent
from recsim_llm.agents.bandits.thompson import ThompsonAgent
from recsim_llm.agents.common.top_k import top_k
from recsim_llm.agents.reference.random_policy import RandomAgent
from recsim_llm.cli import app
from recsim_llm.testing import Check, check_agent

ROLLOUT = {"rollout": 64, "batch": 64, "epochs": 2}
SMALL: dict[str, dict[str, Any]] = {"ppo": ROLLOUT, "masked_ppo": ROLLOUT, "a2c": {"rollout": 64}}
SMALL |= {name: {"warmup": 32, "batch": 16} for name in ("double_dqn", "slateq", "reinforce")}
SMALL["neural_linear"] = {"period": 32}
"""Periods so short that a check sees updates, and that divide its steps."""

NOT_KEPT: dict[str, set[str]] = {}
"""Checks that an agent is known not to pass."""

INAPPLICABLE = {
    "learning changes it", "candidate lists", "a batch is served as its users one by one",
    "the truth in infos changes nothing",
}  # fmt: skip
"""Checks that agents of this package may leave out; all others must be made."""

STEPS = 64


def checked(maker: Any, world: str, **arguments: Any) -> dict[str, Check]:
    given = {"steps": STEPS, "slate_size": 3, "horizon": 25, **arguments}
    return {check.name: check for check in check_agent(maker, world=world, **given)}


@pytest.mark.parametrize("name", agents.names())
def test_every_agent_keeps_the_contract(name: str, world_folder: str) -> None:
    kind = agents.get(name)
    for module in (*(["torch", "stable_baselines3"] if kind.needs_torch else []), *kind.libraries):
        pytest.importorskip(module)
    results = checked(name, world_folder, config=SMALL.get(name))
    failed = {check.name: check.detail for check in results.values() if check.passed is False}
    assert set(failed) <= NOT_KEPT.get(name, set()), failed
    left_out = {check.name for check in results.values() if check.passed is None}
    assert left_out - {"stable-baselines3 evaluate_policy"} <= INAPPLICABLE
    if kind.learns:
        assert "learning changes it" not in left_out


@pytest.mark.parametrize("name", ["sarsa", "explore_softmax"])
def test_learning_goes_on_in_a_new_process(name: str, world_folder: str) -> None:
    result = checked(name, world_folder, new_process=True)["the same in a new process"]
    assert result.passed, result.detail


def test_slates_of_one_and_other_environments(world_folder: str) -> None:
    assert all(check.passed is not False for check in checked("thompson", world_folder, slate_size=1).values())
    found = check_agent("linucb", "recsim_llm/Music-v0", world=world_folder, steps=STEPS)
    assert [str(check) for check in found if check.passed is False] == []


class Clicks:
    """An agent from elsewhere: the four methods, and nothing of this package."""

    def __init__(self, env: Any, seed: int) -> None:
        self.env, self.seed = env, seed
        self.slate_size = env.unwrapped.slate_size
        self.count = np.zeros(len(env.unwrapped.catalog))
        if env.single_action_space.nvec[0] != len(self.count):
            raise ValueError("it knows no candidates")
        self.num_timesteps = 0

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[NDArray[np.int64], Any]:
        rows = np.atleast_2d(observation)
        order = np.argsort(-self.count, kind="stable")[: self.slate_size]
        slates = np.tile(order, (len(rows), 1))
        return (slates if np.ndim(observation) == 2 else slates[0]), state

    def learn(self, total_timesteps: int) -> Self:
        self.env.reset(seed=self.seed + self.num_timesteps)
        for step in range(0, total_timesteps, self.env.num_envs):
            first = (self.num_timesteps + step) % (len(self.count) - self.slate_size)
            slate = np.tile(np.arange(first, first + self.slate_size), (self.env.num_envs, 1))
            _, _, _, _, info = self.env.step(slate)
            shown = info["slate"] >= 0
            np.add.at(self.count, info["slate"][shown], info["click"][shown])
        self.num_timesteps += total_timesteps
        return self

    def save(self, path: Any) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("about.json", json.dumps([self.seed, self.num_timesteps, self.count.tolist()]))

    @classmethod
    def load(cls, path: Any, env: Any = None) -> Self:
        with zipfile.ZipFile(path) as archive:
            seed, steps, count = json.loads(archive.read("about.json"))
        agent = cls(env, seed)
        agent.num_timesteps, agent.count = steps, np.array(count)
        return agent


def test_agents_from_elsewhere_can_be_checked(world_folder: str) -> None:
    results = checked(Clicks, world_folder)
    # it begins new episodes at each call of learn, which is found; all else is well
    failed = {name for name, check in results.items() if check.passed is False}
    assert failed == {
        "learning twice is learning for twice as long",
        "learning, saving, loading and learning is learning for twice as long",
    }
    left_out = {name for name, check in results.items() if check.passed is None}
    assert left_out == {
        "masks are kept, nothing is shown twice", "an empty shelf is no error",
        "a batch is served as its users one by one", "probabilities are those of what is shown",
        "settings as JSON and back", "candidate lists",
    }  # fmt: skip


def broken(base: type = EpsilonGreedyAgent, **members: Any) -> Callable[[Any, int], Any]:
    """A maker of agents that are as ``base`` but for some members."""
    kind: Any = type("Broken", (base,), {"name": "broken", **members})
    return lambda env, seed: kind(env, seed=seed)


def changed(method: str, change: Callable[..., Any], base: type = EpsilonGreedyAgent) -> dict[str, Any]:
    """A method whose result is changed: ``change(agent, result, *arguments)``."""
    original = getattr(base, method)

    def made(self: Any, *arguments: Any, **named: Any) -> Any:
        return change(self, original(self, *arguments, **named), *arguments)

    return {method: made}


def before(method: str, act: Callable[[Any], None], base: type = EpsilonGreedyAgent) -> dict[str, Any]:
    """A method before which something is done."""
    original = getattr(base, method)

    def made(self: Any, *arguments: Any, **named: Any) -> Any:
        act(self)
        return original(self, *arguments, **named)

    return {method: made}


def first_shown(self: Any, made: Any, *_: Any) -> Any:
    """Slates in which the first item stands twice."""
    slates, state = made
    slates[:, 1] = slates[:, 0]
    return slates, state


def unmasked(self: Any, made: Any, rows: Any, *_: Any) -> Any:
    return top_k(self.counts.rate(1.0) + self.ties, np.ones((len(rows), self.env_spec.items), bool), 3), made[1]


def by_neighbours(self: Any, made: Any, rows: Any, *_: Any) -> Any:
    """Serves everybody what the first in the batch gets, shifted by how many are served."""
    return np.tile((np.arange(3) + len(rows)) % self.env_spec.items, (len(rows), 1)), made[1]


def seen_truth(self: Any, _: Any, transition: Any) -> None:
    if "truth_appeal" in transition.info:
        self.counts.looks += 1.0


def pickled(self: Any, path: Path, *_: Any) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("data", pickle.dumps(self.num_timesteps))


def half(self: Any, made: Any, *_: Any) -> Any:
    self.propensity = self.propensity / 2.0
    return made


def once(self: Any) -> None:
    self.seen = getattr(self, "seen", 0) + 1
    if self.seen % 2 == 0:
        self.counts.looks += 1.0


BROKEN: dict[str, tuple[str, Callable[[Any, int], Any]]] = {
    "floats": (
        "shapes and types of actions",
        broken(**changed("predict", lambda self, made, *_: (np.asarray(made[0], float), made[1]))),
    ),
    "one slot": (
        "shapes and types of actions",
        broken(**changed("predict", lambda self, made, *_: (np.asarray(made[0])[..., :1], made[1]))),
    ),
    "ignores masks": ("masks are kept, nothing is shown twice", broken(**changed("act", unmasked))),
    "shows twice": ("masks are kept, nothing is shown twice", broken(**changed("act", first_shown))),
    "an empty shelf raises": (
        "an empty shelf is no error",
        broken(**changed("act", lambda self, made, r, s, t, d, action_mask, g: made if action_mask.any() else made[9])),
    ),
    "positions beyond": (
        "candidate lists",
        broken(**changed("predict", lambda self, made, *_: (np.asarray(made[0]) + 40, made[1]))),
    ),
    "operating system's randomness": (
        "same seed, same agent",
        broken(**before("update", lambda self: self.counts.gains.__iadd__(random.SystemRandom().random()))),
    ),
    "learns nothing": ("learning changes it", broken(update=lambda self, transition: None, base=ThompsonAgent)),
    "learn returns nothing": ("learning changes it", broken(**changed("learn", lambda self, made, *_: None))),
    "serving counts": (
        "serving does not disturb learning",
        broken(**before("predict", lambda self: self.counts.looks.__iadd__(1.0))),
    ),
    "serving takes from the stream of learning": (
        "serving does not disturb learning", broken(**before("predict", lambda self: self.rng.random()))
    ),
    "numpy's generator": (
        "global random generators are left alone",
        broken(**before("update", lambda self: np.random.random())),  # noqa: NPY002 - what the check looks for
    ),
    "python's generator": (
        "global random generators are left alone", broken(**before("update", lambda self: random.random()))
    ),
    "saves half": (
        "a saved agent serves the same",
        broken(**changed("restore", lambda self, made, *_: self.counts.looks.__imul__(0.5))),
    ),
    "pickles": ("its file holds no pickle", broken(**changed("save", lambda self, made, path: pickled(self, path)))),
    "begins anew": (
        "learning twice is learning for twice as long",
        broken(**before("learn", lambda self: setattr(self.runner, "started", False))),
    ),
    "finish changes it": (
        "learning twice is learning for twice as long",
        broken(**before("finish", lambda self: self.counts.looks.__iadd__(1.0))),
    ),
    "forgets what is not saved": (
        "learning, saving, loading and learning is learning for twice as long",
        broken(**before("update", lambda self: setattr(self, "seen", getattr(self, "seen", 0) + 1)),
               **changed("observe", lambda self, *_: self.counts.looks.__iadd__(float(getattr(self, "seen", 0) > 16)))),
    ),
    "forgets where users stand": (
        "learning, saving, loading and learning is learning for twice as long",
        broken(snapshot=lambda self: {}),
    ),
    "depends on neighbours": ("a batch is served as its users one by one", broken(**changed("act", by_neighbours))),
    "probabilities halved": ("probabilities are those of what is shown", broken(**changed("act", half))),
    "probability zero": (
        "probabilities are those of what is shown",
        broken(**changed("act", lambda self, made, *_: (setattr(self, "propensity", self.propensity * 0), made)[1])),
    ),
    "certain of chance": (
        "probabilities are those of what is shown",
        broken(RandomAgent, **changed("act", lambda self, made, *_: (
            setattr(self, "propensity", np.ones((len(made[0]), 3))), made)[1], RandomAgent)),
    ),
    "reads the truth": ("the truth in infos changes nothing", broken(**changed("update", seen_truth))),
    "no state": (
        "stable-baselines3 evaluate_policy",
        broken(**changed("predict", lambda self, made, *_: (made[0], np.zeros(3)))),
    ),
    "settings are not JSON": (
        "settings as JSON and back",
        broken(Config=type("Odd", (EpsilonGreedyAgent.Config,), {"to_dict": lambda self: {"epsilon": 0.5}})),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_every_check_can_fail(what: str, world_folder: str) -> None:
    name, maker = BROKEN[what]
    result = checked(maker, world_folder)[name]
    if name.startswith("stable") and result.passed is None:
        pytest.skip(result.detail)
    assert result.passed is False, result
    assert result.detail


def test_the_agents_that_are_broken_are_well_otherwise(world_folder: str) -> None:
    """So that each of them fails for its own fault."""
    for base in (EpsilonGreedyAgent, ThompsonAgent, RandomAgent):
        agents_like = broken(base)
        failed = {name for name, check in checked(agents_like, world_folder).items() if check.passed is False}
        assert failed == set()


def test_every_check_is_among_those_that_can_fail(world_folder: str) -> None:
    every = set(checked("random", world_folder, new_process=True))
    assert every - {"the same in a new process"} == {name for name, _ in BROKEN.values()}


class TestCommand:
    """``recsim-llm agents``."""

    def test_it_lists_every_agent(self) -> None:
        result = CliRunner().invoke(app, ["agents", "--json"])
        rows = json.loads(result.stdout)
        assert [row["agent"] for row in rows] == agents.names()
        families = {row["agent"]: row["family"] for row in rows}
        assert families["mmr"] == "wrapper"
        assert all(row["what it is"] for row in rows)
        by_name = {row["agent"]: row for row in rows}
        assert by_name["oracle"]["needs"] == "truth"
        assert "torch" in by_name["ppo"]["needs"]
        assert by_name["linucb"]["slates"] is True

    @pytest.mark.parametrize("name", agents.names())
    def test_every_setting_is_documented(self, name: str) -> None:
        from recsim_llm.commands.agents import setting_rows

        kind = agents.get(name)
        rows = setting_rows(kind)
        assert [row["setting"] for row in rows] == list(kind.Config().to_dict())
        assert [row["setting"] for row in rows if not row["what it is"]] == []

    def test_it_shows_the_settings_of_one(self) -> None:
        result = CliRunner().invoke(app, ["agents", "fair_exposure", "--json"])
        shown = json.loads(result.stdout)
        assert {row["setting"]: row["default"] for row in shown["settings"]} == agents.get(
            "fair_exposure"
        ).Config().to_dict()
        assert "Biega" in shown["text"]
        text = CliRunner().invoke(app, ["agents", "fair_exposure"]).stdout
        assert "strength" in text

    def test_naming_agents_imports_nothing_heavy(self) -> None:
        code = (
            "import sys; from recsim_llm import agents\n"
            "for name in agents.names(): agents.get(name)\n"
            "print([m for m in ('torch', 'stable_baselines3', 'sb3_contrib', 'sklearn', 'implicit', 'tensorboard') "
            "if m in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"


def test_checks_are_of_environments_too(world_folder: str) -> None:
    """Both are found in one place."""
    from recsim_llm import testing

    assert testing.check_agent is check_agent
    assert gym.spec("recsim_llm/News-v0") is not None
