"""What each slot of a slate contributed to a reward that is a function of the infos."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.envs.vector_reward.objectives import MINUTE
from recsim_llm.simulator import SIGNALS

Infos = dict[str, Any]
Floats64 = NDArray[np.float64]


def differences(
    function: Callable[[Infos], Any], infos: Infos, weighted: Floats64, values: Floats64,
    weights: Mapping[str, float], price: NDArray[np.floating],
) -> NDArray[np.float32]:  # fmt: skip
    """Difference rewards of slots, float32 [B, K]: the reward less that of the same step without the slot.

    Without its signals, that is, its built-in reward, its click and its revenue; the slate itself, and what is known of
    lanes as a whole, stay as they are. The differences add up to the reward where the function is additive over slots.

    Paper: Wolpert and Tumer (2002), "Optimal payoff functions for members of collectives".

    Args:
        function: The reward function.
        infos: Infos of the step, with the built-in ``slot_reward``.
        weighted: [B] built-in reward of the step.
        values: [B] what the function gave for it.
        weights: Weights of the built-in reward.
        price: [I].
    """
    slots = np.asarray(infos["slot_reward"], np.float64)
    revenue = _revenue(infos, weights, price) if "revenue" in infos else None
    found = np.empty(slots.shape, np.float32)
    for k in range(slots.shape[1]):
        without = {**infos, "reward": weighted - slots[:, k]}
        for name in (*SIGNALS, "slot_reward"):
            without[name] = infos[name].copy()
            without[name][:, k] = 0.0
        without["clicks"] = infos["clicks"] - (infos["click"][:, k] > 0).astype(np.int64)
        if revenue is not None:
            without["revenue"] = infos["revenue"] - revenue[:, k]
        found[:, k] = values - np.asarray(function(without), np.float64)
    return found


def _revenue(infos: Infos, weights: Mapping[str, float], price: NDArray[np.floating]) -> Floats64:
    """Revenue of each slot, [B, K]: what is left of its built-in reward, or the price of what was bought."""
    paid = weights.get("revenue", 0.0)
    if not paid:
        return np.asarray(infos["purchase"] * price[np.maximum(infos["slate"], 0)], np.float64)
    left = np.asarray(infos["slot_reward"], np.float64)
    for name in SIGNALS:
        left = left - weights.get(name, 0.0) * infos[name] / (MINUTE if name == "dwell" else 1.0)
    return np.asarray(left / paid, np.float64)
