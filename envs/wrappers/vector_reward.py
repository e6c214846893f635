"""Rewards as vectors, in MO-Gymnasium's form, on environments that were made with one number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorWrapper

from recsim_llm.envs.vector_reward.environments import name_objectives
from recsim_llm.envs.vector_reward.objectives import DEFAULT, vector_rewards
from recsim_llm.envs.wrappers.common import world_core_of


class VectorReward(gym.Wrapper, RecordConstructorArgs):
    """The reward is a vector float32 [m] of objectives.

    Objectives are the terms of a reward (signals, "revenue", "return", "churn", and "satisfaction", which is latent and
    must be asked for) and "diversity", each with weight 1; dwell is in minutes. ``reward_space`` and ``reward_dim``
    stand on the environment itself too, where MO-Gymnasium's wrappers look for them. The ids ``recsim_llm/mo-...`` are
    the same without a wrapper.

    Args:
        env: A scalar environment of this package with a world.
        objectives: Names, in the order of the vector.

    Raises:
        ConfigError: If an objective is not known.
    """

    def __init__(self, env: gym.Env[Any, Any], *, objectives: Sequence[str] = DEFAULT) -> None:
        RecordConstructorArgs.__init__(self, objectives=list(objectives))
        gym.Wrapper.__init__(self, env)
        self._core = world_core_of(env, "VectorReward")
        bare: Any = env.unwrapped
        name_objectives(bare, objectives)
        self.objectives, self.reward_space, self.reward_dim = bare.objectives, bare.reward_space, bare.reward_dim

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As the environment inside, with the vector as reward."""
        observation, _, terminated, truncated, info = self.env.step(action)
        return observation, vector_rewards(self._core.simulator, self.objectives)[0], terminated, truncated, info


class VectorVectorReward(VectorWrapper, RecordConstructorArgs):
    """The same for vector environments: rewards float32 [B, m].

    It stands directly around the environment, which then gives vectors itself: other wrappers inside would see them.

    Args:
        env: The vector environment of ``gym.make_vec``.
        objectives: Names, in the order of the vector.

    Raises:
        ConfigError: If an objective is not known.
    """

    def __init__(self, env: gym.vector.VectorEnv[Any, Any, Any], *, objectives: Sequence[str] = DEFAULT) -> None:
        RecordConstructorArgs.__init__(self, objectives=list(objectives))
        VectorWrapper.__init__(self, env)
        bare: Any = env.unwrapped
        core = world_core_of(env, "VectorReward")
        name_objectives(bare, objectives)
        core.objectives = bare.objectives
        self.objectives, self.reward_space, self.reward_dim = bare.objectives, bare.reward_space, bare.reward_dim
