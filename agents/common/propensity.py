"""Probabilities of choices, for off-policy evaluation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.core.env_runner import Slates

Chances = NDArray[np.float64]


def estimated(slates: Slates, draw: Callable[[], Slates], samples: int) -> Chances:
    """Probability of each slot's item given the slots before it, estimated by drawing again, [B, K].

    Args:
        slates: [B, K] what was chosen.
        draw: Makes the same choice anew, [B, K].
        samples: How often.
    """
    agree = np.zeros(slates.shape)
    for _ in range(samples):
        agree += np.logical_and.accumulate(draw() == slates, axis=1)
    before = np.concatenate([np.full((len(slates), 1), float(samples)), agree[:, :-1]], 1)
    share: Chances = (1.0 + agree) / (1.0 + before)  # the choice itself is a draw like the others
    return share
