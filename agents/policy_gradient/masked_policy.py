"""Policy and rollouts of masked PPO: one mask of the items for all slots. Needs PyTorch and sb3-contrib."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import numpy as np
from sb3_contrib.common.maskable.buffers import MaskableRolloutBuffer, MaskableRolloutBufferSamples
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.buffers import RolloutBuffer

from recsim_llm.agents.sb3.item_policy import ItemScoring


class MaskedItemPolicy(ItemScoring, MaskableActorCriticPolicy):
    """sb3-contrib's actor-critic policy, scoring items."""


class MaskedOwnOrderBuffer(MaskableRolloutBuffer):
    """A rollout with masks [B, I] as booleans, whose minibatches are drawn in an order from the agent's own stream.

    Args:
        rng: The stream.
        begun: Called before each rollout.
        *args: As for sb3-contrib.
        **kwargs: As for sb3-contrib.
    """

    def __init__(self, *args: Any, rng: np.random.Generator, begun: Callable[[], None], **kwargs: Any) -> None:
        self.rng, self.begun = rng, begun
        super().__init__(*args, **kwargs)

    def reset(self) -> None:
        """Empties it."""
        self.begun()
        space: Any = self.action_space
        self.mask_dims = int(space.nvec[0])
        self.action_masks = np.ones((self.buffer_size, self.n_envs, self.mask_dims), np.bool_)
        RolloutBuffer.reset(self)

    def get(self, batch_size: int | None = None) -> Generator[MaskableRolloutBufferSamples, None, None]:  # type: ignore[override]
        """Every step of every lane once, in minibatches."""
        if not self.generator_ready:
            for name in ("observations", "actions", "values", "log_probs", "advantages", "returns", "action_masks"):
                setattr(self, name, self.swap_and_flatten(getattr(self, name)))
            self.generator_ready = True
        order = self.rng.permutation(self.buffer_size * self.n_envs)
        size = batch_size or len(order)
        for start in range(0, len(order), size):
            yield self._get_samples(order[start : start + size])
