"""Finds the core of the environment inside a wrapper."""

from __future__ import annotations

from typing import Any

from recsim_llm.envs.core import Core
from recsim_llm.envs.world_core import WorldCore
from recsim_llm.errors import ConfigError


def core_of(env: Any, wrapper: str) -> Core:
    """The core of the environment inside.

    Args:
        env: A scalar or native vector environment of this package, wrapped or not.
        wrapper: Name of the wrapper that asks.

    Raises:
        ConfigError: If it is another environment.
    """
    core = getattr(env.unwrapped, "core", None)
    if not isinstance(core, Core):
        raise ConfigError(
            f"{wrapper} needs an environment of recsim_llm, got {type(env.unwrapped).__name__}; a vector environment "
            "must be that of gym.make_vec (of Gymnasium's, wrap each environment inside)"
        )
    return core


def world_core_of(env: Any, wrapper: str) -> WorldCore:
    """The core of the environment inside, which must have a catalogue.

    Args:
        env: A scalar or native vector environment of this package, wrapped or not.
        wrapper: Name of the wrapper that asks.

    Raises:
        ConfigError: If it is another environment, or has no catalogue.
    """
    core = core_of(env, wrapper)
    if not isinstance(core, WorldCore):
        raise ConfigError(f"{wrapper} needs a catalogue, and {core.scenario.name} has none")
    return core
