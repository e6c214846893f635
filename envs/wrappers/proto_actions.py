"""Continuous actions: a vector in the space of encodings, in whose place the nearest items are shown."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorWrapper
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from recsim_llm.envs.wrappers.common import world_core_of
from recsim_llm.envs.wrappers.nearest import nearest
from recsim_llm.errors import ConfigError


class ProtoAction(gym.ActionWrapper, RecordConstructorArgs):
    """The action is a "proto-item", Box(-1, 1, (D,), float32); the K items nearest to it are shown, nearest first.

    Near is a large inner product with the item's encoding, or a large cosine. Only items on the shelf count, with
    ``num_candidates`` only candidates; of equals the first in the catalogue (or list) is taken. Numbers beyond the box
    are brought into it.

    Paper: Dulac-Arnold et al. (2015), "Deep reinforcement learning in large discrete action spaces"; without its second
    step, which scores the nearest items by the critic.

    Args:
        env: A scalar environment of this package with a world.
        similarity: "inner" or "cosine".
        index: "exact" looks at every item; "faiss" asks an index of cells, for catalogues of more than about 100,000
            items, and may miss an item (extra ``ann``).

    Raises:
        ConfigError: If a name is not known or an action is no finite vector [D].
        MissingExtraError: If FAISS is asked for and not installed.
    """

    def __init__(self, env: gym.Env[Any, Any], *, similarity: str = "inner", index: str = "exact") -> None:
        RecordConstructorArgs.__init__(self, similarity=similarity, index=index)
        gym.ActionWrapper.__init__(self, env)
        core = world_core_of(env, "ProtoAction")
        self._slots = core.slate_size
        self._nearest = nearest(core, similarity, index)
        self.action_space = spaces.Box(-1.0, 1.0, (core.world.catalog.width,), np.float32)

    def action(self, action: Any) -> Any:
        """The slate [K] (one number for K = 1) for a vector [D]."""
        slates = self._nearest(_checked(action, self.action_space.shape)[None])
        return slates[0, 0] if self._slots == 1 else slates[0]


class VectorProtoAction(VectorWrapper, RecordConstructorArgs):
    """The same for vector environments: actions [B, D].

    Args:
        env: The vector environment of ``gym.make_vec``.
        similarity: "inner" or "cosine".
        index: "exact" or "faiss".

    Raises:
        ConfigError: If a name is not known or the actions are no finite array [B, D].
        MissingExtraError: If FAISS is asked for and not installed.
    """

    def __init__(
        self, env: gym.vector.VectorEnv[Any, Any, Any], *, similarity: str = "inner", index: str = "exact"
    ) -> None:
        RecordConstructorArgs.__init__(self, similarity=similarity, index=index)
        VectorWrapper.__init__(self, env)
        core = world_core_of(env, "ProtoAction")
        self._slots = core.slate_size
        self._nearest = nearest(core, similarity, index)
        self.single_action_space = spaces.Box(-1.0, 1.0, (core.world.catalog.width,), np.float32)
        self.action_space = batch_space(self.single_action_space, env.num_envs)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Shows the items nearest to the vectors [B, D]."""
        return self.env.step(self.actions(actions))

    def actions(self, actions: Any) -> NDArray[np.int64]:
        """The slates [B, K] ([B] for K = 1) for vectors [B, D]."""
        slates = self._nearest(_checked(actions, self.action_space.shape))
        return slates[:, 0] if self._slots == 1 else slates


def _checked(actions: Any, shape: tuple[int, ...] | None) -> NDArray[np.float32]:
    given = np.asarray(actions, np.float32)
    if given.shape != shape:
        raise ConfigError(f"proto-actions have shape {given.shape}, expected {shape}")
    if not np.isfinite(given).all():
        raise ConfigError("a proto-action has a number that is not finite; the policy has diverged")
    return given
