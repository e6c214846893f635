"""What the latest feedback says of a user: the public signs of her mood, on which the value of a state depends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsim_llm.agents.common.cooldown import Memory
from recsim_llm.agents.core.env_runner import EnvironmentSpec, Flags, Floats

SIGNS = 9  # sums over the slots of click .. rating (7) and of skip, and the number of ratings
RATING, SKIP = 6, 7
KEPT = np.float32(0.85)
"""Share of the signs of a step that is left after one more."""


@dataclass(frozen=True)
class Trail:
    """State between two calls of ``predict``: the memory, and the decayed feedback of each lane's episode.

    Attributes:
        memory: Looks and clicks.
        signs: [B, SIGNS] decayed mean of the signs of the steps so far.
        features: [B, N] features of the states that the last decision was made in.
    """

    memory: Memory
    signs: Floats
    features: Floats


class Habits:
    """Features of a user's state, without encodings: [1, context, signs of the last step, decayed signs].

    Signs are the sums over slots of each feedback signal, in the scale of observations, and the number of ratings: a
    rating of zero is none.

    Args:
        env_spec: The form of observations.
    """

    def __init__(self, env_spec: EnvironmentSpec) -> None:
        self.env_spec = env_spec
        context = env_spec.layout["context"]
        self.count = 1 + context.stop - context.start + 2 * SIGNS

    def signs(self, obs: Floats) -> Floats:
        """Signs [B, SIGNS] of the last step."""
        feedback = self.env_spec.feedback(obs)
        rated = (feedback[:, :, RATING] > 0.0).sum(1, dtype=np.float32)
        sums = feedback.sum(1)
        sums[:, SKIP] /= np.float32(self.env_spec.slate_size)
        signs: Floats = np.concatenate([sums, rated[:, None]], 1)
        return signs

    def decayed(self, obs: Floats, before: Floats | None, episode_start: Flags) -> Floats:
        """Decayed signs [B, SIGNS] with those of the last step taken in; nothing in lanes that begin an episode."""
        signs = self.signs(obs)
        if before is None or len(before) != len(obs):
            before = np.zeros_like(signs)
        mean: Floats = np.where(episode_start[:, None], np.float32(0.0), KEPT * before + (1 - KEPT) * signs)
        return mean

    def of(self, obs: Floats, decayed: Floats) -> Floats:
        """Features [B, N] of observations [B, P] and decayed signs."""
        one = np.ones((len(obs), 1), np.float32)
        features: Floats = np.concatenate([one, self.env_spec.part("context", obs), self.signs(obs), decayed], 1)
        return features
