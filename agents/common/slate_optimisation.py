"""Slate optimisation: the best slate under a conditional logit of what users click."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.top_k import top_k
from recsim_llm.agents.core.env_runner import Flags, Slates

Values = NDArray[np.float64]
METHODS = ("exact", "top_k", "greedy")
LARGEST = 30.0
LARGEST_UTILITY = 60.0
MOST_ROUNDS = 50


def best_assortment(
    appeal: Values, value: Values, usable: Flags, attention: Values, no_click: float
) -> tuple[Slates, Values]:
    """Slates [B, K] of the highest expected reward under multinomial choice, and that reward [B].

    Args:
        appeal: Attraction of each item, [B, I] [logit].
        value: Expected reward of a click on it, [B, I].
        usable: Items on the shelf, [B, I].
        attention: Attention of each slot, not increasing, [K].
        no_click: Utility of clicking nothing [logit].
    """
    slate_size = len(attention)
    weight = np.where(usable, np.exp(np.clip(appeal - no_click, -LARGEST_UTILITY, LARGEST_UTILITY)), 0.0)
    reward = np.zeros(len(appeal))
    for _ in range(MOST_ROUNDS):
        slates = top_k(weight * (value - reward[:, None]), usable, slate_size)
        drawn = np.take_along_axis(weight, slates, 1) * attention
        better = (drawn * np.take_along_axis(value, slates, 1)).sum(1) / (1.0 + drawn.sum(1))
        settled = np.abs(better - reward) <= 1e-12 * np.maximum(np.abs(better), 1.0)
        reward = better
        if settled.all():
            break
    return slates, reward


def optimal_slates(method: str, appeal: Values, value: Values, usable: Flags, attention: Values) -> Slates:
    """Slates [B, K] for items of given appeal and value.

    Args:
        method: "exact" is the best of all; "top_k" the K largest exp(appeal) value (Ie et al. 2019, section 5.2);
            "greedy" adds items one by one, each time the one with which the slate is worth most.
        appeal: [B, I] [logit].
        value: [B, I] value of a click on each, less that of none.
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
