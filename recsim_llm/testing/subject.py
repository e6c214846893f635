"""The agent that :func:`recsim_llm.testing.check_agent` looks at: how it is made, fed and compared."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

SCRIPT = 12
"""Steps of users with whom agents are compared."""

Make = Callable[[Any, int], Any]
Actions = NDArray[np.int64]


NEW_PROCESS = """
import json, sys
import gymnasium as gym
import recsim_llm
from recsim_llm import agents
before, after, steps, name, lanes, options = sys.argv[1:]
env = gym.make_vec(name, num_envs=int(lanes), **json.loads(options))
agents.load(before, env).learn(int(steps)).save(after)
"""
"""Learning on in another process: files, steps, and the environment."""


@dataclass(frozen=True)
class Step:
    """What lanes see at one step: observation, infos, beginnings, shelf [B, I or C]."""

    observation: Any
    info: dict[str, Any]
    episode_start: NDArray[np.bool_]
    shelf: NDArray[np.bool_]


@dataclass(frozen=True)
class Subject:
    """The agent that is checked, and where."""

    maker: str | Make
    env_id: str
    options: dict[str, Any]
    lanes: int
    seed: int
    steps: int
    config: dict[str, Any]
    _kept: dict[str, Any] = field(default_factory=dict)

    def env(self, lanes: int | None = None, **options: Any) -> Any:
        """A vector environment of users for training."""
        return gym.make_vec(self.env_id, num_envs=lanes or self.lanes, **self.arguments(**options))

    def arguments(self, **options: Any) -> dict[str, Any]:
        """Arguments of that environment."""
        given = {"users": "train", **self.options, **options}
        if "truth" not in given and self.needs("truth"):
            given["truth"] = True
        return given

    def needs(self, what: str) -> bool:
        """Whether it says that it needs something."""
        if "needs" not in self._kept:
            env = gym.make_vec(self.env_id, num_envs=self.lanes, **{"users": "train", **self.options})
            agent = self._made(env, self.seed)
            self._kept["needs"] = {name: bool(getattr(agent, f"needs_{name}", False)) for name in ("truth", "torch")}
        return bool(self._kept["needs"][what])

    def agent(self, seed: int | None = None, env: Any = None) -> Any:
        """A new agent in a new environment."""
        return self._made(self.env() if env is None else env, self.seed if seed is None else seed)

    def _made(self, env: Any, seed: int) -> Any:
        if isinstance(self.maker, str):
            agent = importlib.import_module("recsim_llm.agents").make(self.maker, env, seed, **self.config)
        else:
            agent = self.maker(env, seed)
        return _serving(agent, env)

    def loaded(self, path: Path, env: Any) -> Any:
        """An agent from a file."""
        if isinstance(self.maker, str):
            return _serving(importlib.import_module("recsim_llm.agents").load(path, env), env)
        return _serving(type(self.agent()).load(path, env=env), env)

    @property
    def script(self) -> list[Step]:
        """Some steps of users who are shown fixed slates."""
        if "script" not in self._kept:
            self._kept["script"] = recorded(self.env(max_episode_steps=5), self.seed)
        script: list[Step] = self._kept["script"]
        return script


def _serving(agent: Any, env: Any) -> Any:
    """The agent, told where it is if it reads the truth: no environment has the observations of a script now."""
    if getattr(agent, "needs_truth", False) and hasattr(agent, "serve"):
        agent.serve(env)
    return agent


def recorded(env: Any, seed: int) -> list[Step]:
    """What users see and do who are shown fixed slates."""
    from recsim_llm.testing.environments import actions

    stream = actions(env.action_space, seed)
    observation, info = env.reset(seed=seed)
    episode_start, script = np.ones(env.num_envs, np.bool_), []
    for _ in range(SCRIPT):
        script.append(
            Step(_copied(observation), _copied(info), episode_start.copy(), np.array(env.unwrapped.available()))
        )
        observation, _, terminated, truncated, info = env.step(next(stream))
        episode_start = terminated | truncated
    return script


def _copied(value: Any) -> Any:
    return {name: np.copy(part) for name, part in value.items()} if isinstance(value, dict) else np.copy(value)


def rows_of(value: Any, index: Any) -> Any:
    """Some lanes of an observation or info."""
    if isinstance(value, dict):
        return {name: part[index] for name, part in value.items() if np.ndim(part)}
    return value[index]


def predict(agent: Any, step: Step, state: Any, deterministic: bool, index: Any = slice(None), **more: Any) -> Any:
    """One call of ``predict`` for some lanes of a step, with what it is to know beforehand."""
    if hasattr(agent, "observe"):
        agent.observe(rows_of(step.info, index))
    if "action_masks" in inspect.signature(agent.predict).parameters:
        more.setdefault("action_masks", step.shelf[index])
    return agent.predict(
        rows_of(step.observation, index), state=state, episode_start=step.episode_start[index],
        deterministic=deterministic,
        **more,
    )  # fmt: skip


def served(agent: Any, script: list[Step], deterministic: bool = True, index: Any = slice(None)) -> Actions:
    """Actions over a script, [T, B] or [T, B, K]."""
    state, made = None, []
    for step in script:
        chosen, state = predict(agent, step, state, deterministic, index)
        made.append(np.array(chosen))
    return np.stack(made)


def learnt(agent: Any, about: Subject, times: int = 1) -> Any:
    """The agent, after so many times the steps of a check."""
    agent.learn(times * about.steps)
    return agent


def require(condition: bool, message: str) -> None:
    """Fails the check unless the condition holds."""
    if not condition:
        raise AssertionError(message)


def skipped(reason: str) -> Exception:
    """To be raised where a check does not apply."""
    from recsim_llm.testing.environments import Skipped

    return Skipped(reason)


def arrays(agent: Any) -> dict[str, NDArray[Any]]:
    """Copies of what it has learnt, by name; nothing of agents that do not tell."""
    return {name: np.copy(array) for name, array in agent.arrays().items()} if hasattr(agent, "arrays") else {}


def alike(one: Any, other: Any, about: Subject, what: str) -> None:
    """Two agents have learnt the same, and do the same, bit by bit."""
    left, right = arrays(one), arrays(other)
    require(set(left) == set(right), f"{what}: arrays {sorted(set(left) ^ set(right))} are in one of the two only")
    for name, array in left.items():
        require(
            array.shape == right[name].shape and array.tobytes() == right[name].tobytes(),
            f"{what}: array {name} differs",
        )
    for deterministic in (True, False):
        same = (served(one, about.script, deterministic) == served(other, about.script, deterministic)).all()
        require(bool(same), f"{what}: actions differ (deterministic={deterministic})")


def choices_and_slots(about: Subject, env: Any) -> tuple[int, int]:
    """Choices of each slot and slots of an environment."""
    space = env.single_action_space
    if isinstance(space, gym.spaces.Discrete):
        return int(space.n), 1
    require(isinstance(space, gym.spaces.MultiDiscrete), f"actions of {about.env_id} are {space}, not items")
    return int(space.nvec[0]), len(space.nvec)
