"""Slates under a conditional logit: what they are worth, and which is the best."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.top_k import top_k
from recsim_llm.agents.core.env_runner import Flags, Slates
from recsim_llm.agents.reference.oracle import best_assortment

Values = NDArray[np.float64]
METHODS = ("exact", "top_k", "greedy")
LARGEST = 30.0


def slate_values(appeal: Values, value: Values, attention: Values) -> Values:
    """Expected value of slates, [B]: sum d_k v_k Q_k / (1 + sum d_k v_k), v = exp(appeal); taking nothing is worth 0.

    Args:
        appeal: [B, K] of the slates' items, beside taking nothing [logit].
        value: [B, K] value of taking each, less that of taking nothing.
        attention: [K] attention of each slot.
    """
    drawn = np.exp(np.clip(appeal, -LARGEST, LARGEST)) * attention
    values: Values = (drawn * value).sum(1) / (1.0 + drawn.sum(1))
    return values


def optimal_slates(method: str, appeal: Values, value: Values, usable: Flags, attention: Values) -> Slates:
    """Slates [B, K] for items of given appeal and value.

    Args:
        method: "exact" is the best of all; "top_k" the K largest exp(appeal) value (Ie et al. 2019, section 5.2);
            "greedy" adds items one by one, each time the one with which the slate is worth most.
        appeal: [B, I] [logit].
        value: [B, I] value of taking each, less that of taking nothing.
        usable: [B, I] items on the shelf.
        attention: [K] attention of each slot, not increasing.
    """
    if method == "exact":
        return best_assortment(appeal, value, usable, attention, 0.0)[0]
    weight = np.exp(np.clip(appeal, -LARGEST, LARGEST))
    if method == "top_k":
        return top_k(weight * value, usable, len(attention))
    lanes = np.arange(len(appeal))
    earned, drawn = np.zeros(len(appeal)), np.ones(len(appeal))
    left: Flags = usable.copy()
    slates = np.empty((len(appeal), len(attention)), np.int64)
    for k, share in enumerate(attention):
        added = share * weight
        worth = (earned[:, None] + added * value) / (drawn[:, None] + added)
        slates[:, k] = pick = _next(worth, left, slates[:, :k])
        earned, drawn = earned + added[lanes, pick] * value[lanes, pick], drawn + added[lanes, pick]
        left[lanes, pick] = False
    return slates


def _next(worth: Values, left: Flags, shown: Slates) -> NDArray[np.int64]:
    """The best item that is left, [B]; where none is, the first one that is not shown yet."""
    others = np.ones(left.shape, np.bool_)
    np.put_along_axis(others, shown, False, 1)
    usable = np.where(left.any(axis=1, keepdims=True), left, others)
    pick: NDArray[np.int64] = np.where(usable, worth, -np.inf).argmax(1)
    return pick
