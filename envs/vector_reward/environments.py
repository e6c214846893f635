"""Environments with a vector reward, ``recsim_llm/mo-<Name>-v0``: every scenario in MO-Gymnasium's form.

    import mo_gymnasium
    import recsim_llm

    env = mo_gymnasium.make("recsim_llm/mo-News-v0", objectives=["click", "dwell", "diversity"])

The class of a scenario's environment is made on first use: ``MoNewsEnv`` from ``NewsEnv``, ``MoNewsVectorEnv`` from
``NewsVectorEnv``.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from typing import Any

from gymnasium import spaces

from recsim_llm.envs.registration import CLASSICS, TABLE
from recsim_llm.envs.scalar_env import RecEnv
from recsim_llm.envs.vector_reward.objectives import DEFAULT, checked, reward_space, vector_rewards
from recsim_llm.envs.world_core import WorldCore
from recsim_llm.errors import ConfigError


class _Objectives:
    """What both kinds share: the objectives in place of a reward.

    Attributes:
        objectives: Their names, in the order of the vector.
        reward_space: Box of reward vectors, float32 [m].
        reward_dim: m.
    """

    core: WorldCore
    objectives: tuple[str, ...]
    reward_space: spaces.Box
    reward_dim: int

    def __init__(self, *args: Any, objectives: Sequence[str] = DEFAULT, **settings: Any) -> None:
        if settings.get("reward") is not None:
            raise ConfigError(
                f"reward={settings['reward']!r} makes one number; a vector reward takes objectives= instead, and "
                "MO-Gymnasium's LinearReward weights them"
            )
        super().__init__(*args, **settings)
        name_objectives(self, objectives)
        self.core.check_reward(self.objectives, "objectives")

    def _check_reward(self) -> None:
        """The scenario's own reward is not used here, so that it does not matter whether it can occur."""


def name_objectives(env: Any, objectives: Sequence[str]) -> None:
    """Gives an environment the attributes that MO-Gymnasium reads: reward_space, reward_dim."""
    env.objectives = checked(objectives)
    env.reward_space = reward_space(env.objectives, env.core.slate_size)
    env.reward_dim = len(env.objectives)


class _Scalar(_Objectives):
    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As the scenario's own step, with a reward float32 [m]."""
        observation, _, terminated, truncated, info = super().step(action)  # type: ignore[misc]
        return observation, vector_rewards(self.core.simulator, self.objectives)[0], terminated, truncated, info


class _Vector(_Objectives):
    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.core.objectives = self.objectives

    def sb3(self, *, full_infos: bool = False) -> Any:
        """There is no such adapter: Stable-Baselines3 takes one number.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(
            f"Stable-Baselines3 takes one number as reward, this environment gives {self.reward_dim}; use the "
            "scenario's id without mo- and weights in reward=, or MO-Gymnasium's LinearReward on the scalar environment"
        )


def _classes() -> dict[str, tuple[str, str]]:
    """Name of each class here -> (module, class) of the scenario's environment."""
    found: dict[str, tuple[str, str]] = {}
    for name, (module, scalar, vector, *_) in TABLE.items():
        if name not in CLASSICS:
            found |= {f"Mo{scalar}": (module, scalar), f"Mo{vector}": (module, vector)}
    return found


def __getattr__(name: str) -> Any:
    places = _classes()
    if name not in places:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    base = getattr(importlib.import_module(places[name][0]), places[name][1])
    scalar = issubclass(base, RecEnv)
    text = f"As :class:`{base.__name__}`, with a vector reward of the ``objectives`` {list(DEFAULT)} or others."
    made = type(name, (_Scalar if scalar else _Vector, base), {"__doc__": text, "__module__": __name__})
    own = inspect.signature(base)
    kept = [p for p in own.parameters.values() if p.name != "reward"]
    more = inspect.Parameter("objectives", inspect.Parameter.KEYWORD_ONLY, default=DEFAULT)
    made.__signature__ = own.replace(parameters=[*kept, more])  # type: ignore[attr-defined]
    globals()[name] = made
    return made
