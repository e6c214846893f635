"""Checkpoints of agents: saving, loading, and going on in the middle of episodes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.core import agent_file
from recsim_llm.agents.core.env_runner import like
from recsim_llm.agents.core.packing import inside, pack, unpack
from recsim_llm.errors import ConfigError, DataError

if TYPE_CHECKING:
    from recsim_llm.agents.core.base import Agent

Kind = TypeVar("Kind", bound="Agent")

LANES = "lanes"
"""Arrays of a file under this name say where the lanes stand."""

OF_LANES = "own"
"""Arrays of the agent's own that belong to lanes, under that name."""


def snapshot(agent: Agent) -> dict[str, Any]:
    """Where an agent's lanes stand in the middle of episodes; {} before the first step."""
    lanes = agent.runner.snapshot()
    if not lanes:
        return {}
    returns = np.array(agent.episodes, np.float64).reshape(-1, 2)
    own = {OF_LANES: arrays} if (arrays := agent.of_lanes()) else {}
    return {**lanes, "state": agent.state, "running": agent.episode_sums, "returns": returns, **own}


def resume(agent: Agent, arrays: dict[str, NDArray[Any]], rest: dict[str, Any]) -> None:
    """Goes on from a snapshot that :func:`recsim_llm.agents.core.packing.pack` has taken apart.

    Raises:
        ValueError: If an array does not fit; other errors where the state does not.
    """
    lanes = agent.runner
    lanes.resume(arrays, rest)
    agent.state = None if "state" in rest else unpack(agent.State, arrays, rest, "state")
    agent.episode_sums[...] = like(agent.episode_sums, arrays["running"], "running")
    agent.episodes.extend((float(total), int(length)) for total, length in arrays["returns"])
    agent.observe(lanes.info)
    agent.where = lanes.served
    agent.act(  # raises if the state does not fit
        lanes.observation, agent.state, lanes.fresh, False, lanes.available(), np.random.Generator(np.random.PCG64(0))
    )
    agent.shown = agent.where = None
    for name, array in agent.of_lanes().items():
        array[...] = like(array, arrays[f"{OF_LANES}/{name}"], name)


def save(agent: Agent, path: str | Path) -> Path:
    """Writes an agent's file; see :meth:`Agent.save`."""
    description = {
        "agent": agent.name,
        "config": agent.config.to_dict(),
        "seed": agent.seed,
        "num_timesteps": agent.num_timesteps,
        "streams": [rng.bit_generator.state for rng in (agent.rng, agent.serving_rng)],
        "catalog": agent.env_spec.digest,
        "extra": agent.extra(),
    }
    lanes, description[LANES] = pack(agent.snapshot(), LANES)
    content = agent_file.Saved(description, agent.arrays() | lanes, agent_file.spec_of(agent.env))
    return agent_file.write(path, content)


def load(kind: type[Kind], path: str | Path, env: Any = None, **config: Any) -> Kind:
    """Reads an agent's file; see :meth:`Agent.load`."""
    saved = agent_file.read(path)
    about = saved.description
    if about["agent"] != kind.name:
        raise ConfigError(f"{path} holds the agent {about['agent']!r}, not {kind.name!r}; use agents.load")
    settings = kind.Config.from_dict({**about["config"], **config})
    for name, value in settings.outside().items():
        if name not in config:
            raise ConfigError(
                f"{path} sets {name}={value!r}, which is not part of a package, and what a file names is neither "
                f"opened nor asked; if you trust it, pass load(path, {name}=...)"
            )
    agent = kind(agent_file.env_from(saved.env_spec, path) if env is None else env, settings, seed=about["seed"])
    if agent.env_spec.digest != about["catalog"]:
        raise ConfigError(f"{path} was trained on another catalogue than this environment has; items would be mixed up")
    try:
        agent.num_timesteps = int(about["num_timesteps"])
        for rng, state in zip((agent.rng, agent.serving_rng), about["streams"], strict=True):
            rng.bit_generator.state = state
    except (TypeError, ValueError, KeyError) as error:
        raise DataError(f"{path}: steps or random streams are not valid: {error}") from error
    lanes = {name: array for name, array in saved.arrays.items() if name.startswith(LANES + "/")}
    own = {name: array for name, array in saved.arrays.items() if name not in lanes}
    agent.restore(own, about["extra"], path)
    if lanes and saved.env_spec["id"] is not None and agent_file.spec_of(agent.env) == saved.env_spec:
        try:
            agent.resume(inside(lanes, LANES), inside(about[LANES], LANES))
        except (KeyError, ValueError, TypeError, IndexError, AttributeError, DataError, ConfigError) as error:
            raise DataError(f"{path}: where the lanes stand is not valid: {error!r}") from error
    return agent
