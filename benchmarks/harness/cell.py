"""Runs one cell: trains an agent on some users and evaluates it on others.

All that benchmarks know of environments and agents is here. Evaluation uses common random numbers: lane i of every
agent with the same seed is the same user with the same dice, so that agents differ only by what they do.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

import recsim_llm
from recsim_llm import agents
from recsim_llm.agents.core.env_runner import EnvironmentSpec
from recsim_llm.benchmarks.harness.experiment import Cell, Experiment, agent_of
from recsim_llm.errors import ConfigError, install, unknown

Floats = NDArray[np.float64]
_NAMESPACE = "recsim_llm/"
_MAX_STEPS = 100_000  # of one episode; an environment without an end is an error


def scenarios() -> list[str]:
    """Ids of the environments that this package registers."""
    assert recsim_llm.__version__  # importing the package is what registers them
    return sorted(name for name in gym.registry if name.startswith(_NAMESPACE))


def scenario_id(name: str) -> str:
    """The environment id for a short name such as "music"; ids are returned as they are.

    Raises:
        ConfigError: If there is none; with the closest name.
    """
    known = scenarios()
    by_short = {known_id.removeprefix(_NAMESPACE).rsplit("-v", 1)[0].lower(): known_id for known_id in known}
    if name in gym.registry:
        return name
    if name.lower() in by_short:
        return by_short[name.lower()]
    raise unknown("scenario", name, [*known, *by_short])


def prepare(experiment: Experiment) -> Mapping[str, str]:
    """Checks every name and setting of an experiment by building what it names; returns the worlds' content hashes.

    Raises:
        ConfigError: If a scenario, an agent or an argument is not valid, or an agent's library is not installed.
    """
    for name in experiment.agents:
        agents.get(agent_of(name))
    for name in experiment.scenarios:
        if name not in gym.registry:
            raise unknown("scenario", name, scenarios())
    left_out = unavailable(experiment.agents)
    if left_out:
        raise ConfigError(
            f"{', '.join(left_out)} cannot run without PyTorch and Stable-Baselines3: {install('agents')}, or leave "
            "them out"
        )
    for name, settings in experiment.agent_configs.items():
        agents.get(agent_of(name)).Config.from_dict(dict(settings))
    worlds = {}
    one = experiment.replace(
        agents=experiment.agents[:1], seeds=experiment.seeds[:1], agent_configs={}, only={}, fewer_seeds={}
    )
    for cell in one.cells():
        for users in ("train", "test"):
            env = make_env(cell, lanes=1, users=users, autoreset=AutoresetMode.NEXT_STEP, truth=False)
            world = getattr(env.unwrapped.core, "world", None)  # type: ignore[attr-defined]
            if world is not None:  # RecSim's classics have none
                worlds[cell.scenario] = str(world.hash)
            env.close()
    return worlds


def unavailable(names: Sequence[str]) -> list[str]:
    """Those of the agents whose libraries are not installed here."""
    installed = all(importlib.util.find_spec(module) for module in ("torch", "stable_baselines3"))
    return [] if installed else [name for name in names if agents.get(agent_of(name)).needs_torch]


def make_env(cell: Cell, *, lanes: int, users: str, autoreset: AutoresetMode, truth: bool) -> VectorEnv[Any, Any, Any]:
    """The vector environment of a cell."""
    arguments = {"users": users, **cell.env_kwargs}
    if cell.world is not None:
        arguments["world"] = cell.world
    if truth:
        arguments["truth"] = True
    return gym.make_vec(cell.scenario, num_envs=lanes, autoreset_mode=autoreset, **arguments)


def run_cell(cell: Cell) -> Mapping[str, Any]:
    """Trains and evaluates one agent.

    Returns:
        ``steps`` (the checkpoints), ``trained_steps`` (interactions that the agent had really had by then), a list with
        one value per checkpoint for every metric of :data:`recsim_llm.benchmarks.harness.results.METRICS`,
        ``episode_returns`` at the last checkpoint, ``items``, and the wall-clock and processor times ``wall_train_s``,
        ``wall_evaluate_s``, ``cpu_train_s`` and ``cpu_evaluate_s`` [s].
    """
    name = agent_of(cell.agent)
    kind = agents.get(name)
    if kind.needs_torch:
        import torch

        torch.set_num_threads(1)
    train = make_env(cell, lanes=cell.lanes, users="train", autoreset=AutoresetMode.NEXT_STEP, truth=kind.needs_truth)
    test = make_env(cell, lanes=cell.episodes, users="test", autoreset=AutoresetMode.DISABLED, truth=kind.needs_truth)
    agent = agents.make(name, train, seed=cell.seed, **cell.agent_config)
    measured: list[Evaluation] = []
    trained, online, train_time, evaluation_time = [], [], _Stopwatch(), _Stopwatch()
    for checkpoint in cell.checkpoints:
        earned = _Earned()
        if kind.learns and checkpoint > agent.num_timesteps:
            with train_time:
                agent.learn(checkpoint - agent.num_timesteps, callback=earned)
        trained.append(int(agent.num_timesteps))
        online.append(earned.mean)
        if kind.learns or not measured:
            with evaluation_time:
                measured.append(evaluate(agent, test, cell.evaluation_seed, deterministic=cell.deterministic))
        else:
            measured.append(measured[-1])
    train.close()
    test.close()
    result: dict[str, Any] = {"steps": cell.checkpoints, "trained_steps": trained, "online": online}
    for name in measured[0].metrics:
        result[name] = [one.metrics[name] for one in measured]
    return {
        **result,
        "episode_returns": measured[-1].returns,
        "items": measured[-1].items,
        "wall_train_s": train_time.wall,
        "wall_evaluate_s": evaluation_time.wall,
        "cpu_train_s": train_time.processor,
        "cpu_evaluate_s": evaluation_time.processor,
    }


class _Stopwatch:
    """Wall-clock and processor time [s] of all that is done inside it.

    Processor time is that of all threads of this process; unlike wall-clock time it leaves out waiting for processors
    that others keep busy.
    """

    def __init__(self) -> None:
        self.wall = self.processor = 0.0

    def __enter__(self) -> None:
        self.wall -= time.perf_counter()
        self.processor -= time.process_time()

    def __exit__(self, *_: object) -> None:
        self.wall += time.perf_counter()
        self.processor += time.process_time()


class _Earned:
    """Mean reward of a user's step while an agent learns; a callback of :meth:`Agent.learn`."""

    def __init__(self) -> None:
        self.total, self.steps = 0.0, 0

    def __call__(self, names: Mapping[str, Any], _: Mapping[str, Any]) -> bool:
        transition = names.get("transition")
        if transition is not None:  # agents from elsewhere may have a loop of their own
            self.total += float(transition.reward[transition.valid].sum())
            self.steps += int(transition.valid.sum())
        return True

    @property
    def mean(self) -> float:
        """0 where nothing was counted."""
        return self.total / max(self.steps, 1)


@dataclass(frozen=True)
class Evaluation:
    """What one round of evaluation measured.

    Attributes:
        returns: Sum of rewards of each episode [B].
        metrics: Means over the episodes, by name.
        items: Number of items of the catalogue.
    """

    returns: Floats
    metrics: Mapping[str, float]
    items: int


def evaluate(
    agent: Any, env: VectorEnv[Any, Any, Any], seed: int, *, deterministic: bool = True
) -> Evaluation:  # fmt: skip
    """Plays one episode in every lane, lane i with seed `seed` + i, without learning.

    Args:
        agent: The agent.
        env: Vector environment with autoreset disabled, whose finished lanes stand still.
        seed: Seed of the first lane.
        deterministic: Whether it leaves exploration out, and shows the mode of a policy that is a distribution.
    """
    lanes = env.num_envs
    core: Any = env.unwrapped
    observation, info = env.reset(seed=seed)
    running = fresh = np.ones(lanes, dtype=bool)
    env_spec = EnvironmentSpec.of(env)
    tally = _Tally(lanes, env_spec.items)
    rows = env_spec.flat(observation)
    state: Any = None
    for _ in range(_MAX_STEPS):
        agent.observe(info)
        action, state = agent.predict(
            observation, state, episode_start=fresh, deterministic=deterministic, action_masks=core.available()
        )
        observation, reward, terminated, truncated, info = env.step(action)
        if core.core.variant.reports:  # the recommender learns from what is reported and is worth what happened
            reward, info = core.core.true_rewards(), {**info, **core.core.true_counts()}
        if env_spec.kinds:
            listed, rows = env_spec.listed(rows), env_spec.flat(observation)
            info = env_spec.infos(info, rows, listed)
        tally.add(running, reward, terminated, info)
        running, fresh = running & ~(terminated | truncated), np.zeros(lanes, dtype=bool)
        if not running.any():
            return tally.evaluation()
    raise ConfigError(f"an episode of {env.spec and env.spec.id} did not end within {_MAX_STEPS} steps; set a horizon")


class _Tally:
    """Sums over the steps of the episodes that count."""

    def __init__(self, lanes: int, items: int) -> None:
        self.returns = np.zeros(lanes)
        self.lengths = np.zeros(lanes, dtype=np.int64)
        self.terminated = np.zeros(lanes, dtype=bool)
        self.shown = np.zeros(items, dtype=bool)
        self.clicks = self.slate_size = 0
        self.diversity = 0.0

    def add(self, running: NDArray[np.bool_], reward: Floats, terminated: NDArray[np.bool_], info: Any) -> None:
        """Counts one step of the lanes that are `running` [B]."""
        slate = np.atleast_2d(np.asarray(info["slate"]).reshape(len(running), -1))[running]  # [b, K]
        self.returns[running] += np.asarray(reward)[running]
        self.lengths[running] += 1
        self.terminated |= running & terminated
        self.shown[slate[slate >= 0]] = True
        self.slate_size += int(np.sum(slate >= 0))
        self.clicks += int(np.sum(np.asarray(info["clicks"])[running]))
        self.diversity += float(np.sum(np.asarray(info["diversity"], dtype=np.float64)[running]))

    def evaluation(self) -> Evaluation:
        """The means."""
        return Evaluation(
            returns=self.returns,
            metrics={
                "return": float(np.mean(self.returns)),
                "ctr": self.clicks / max(self.slate_size, 1),
                "episode_length": float(np.mean(self.lengths)),
                "coverage": float(np.mean(self.shown)),
                "diversity": self.diversity / max(int(self.lengths.sum()), 1),
                "terminated": float(np.mean(self.terminated)),
            },
            items=int(self.shown.size),
        )
