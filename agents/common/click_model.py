"""A logistic regression of clicks: how likely an item that is shown is taken."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.cooldown import Memory
from recsim_llm.agents.common.top_k import add_remembered, by_topic
from recsim_llm.agents.common.user_item_features import Pairs
from recsim_llm.agents.core.env_runner import Flags, Floats, Slates
from recsim_llm.simulator.jit import loaded

Values = NDArray[np.float64]
RIDGE = 4.0
"""Precision of the prior of weights."""
STRENGTH = 2.0
"""The same for items' own weights, in looks at probability one half times four."""
GROWTH = 0.05
"""Share by which the information must have grown before the inverse is computed again."""
LARGEST = 15.0
REMEMBERED = 3
"""Features of what is remembered: wear of the topic, looks at the item, clicks on it."""


class ClickModel:
    """P(click i | s) = sigma(theta . (psi(s, i), wear, looks, clicks) + c_i), learnt by online Newton steps.

    theta <- theta + H^-1 sum (click - P) phi with H = ridge + sum P (1 - P) phi phi^T over all slots so far, and each
    c_i likewise with its own sum; wear is how often the user took the item's topic lately, looks and clicks how often
    the item itself, as in :class:`Features`. Items that were shown beside it, and took its
    clicks, are left out of account: P is that among slates as they were.

    Args:
        pairs: The features psi.
    """

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs
        self.topic = pairs.env_spec.catalog.topic
        count, items = pairs.count + REMEMBERED, pairs.env_spec.items
        self.members, self.ends = by_topic(self.topic, len(pairs.env_spec.catalog.topics))
        self.information: Values = np.zeros((count, count))
        self.inverse: Values = np.eye(count) / RIDGE
        self.theta: Values = np.zeros(count)
        self.own: Values = np.zeros(items)
        self.known: Values = np.zeros(items)  # sum of P (1 - P) of each item
        self.samples: Values = np.zeros(2)

    def logits(self, obs: Floats, memory: Memory) -> Values:
        """Logits [B, I]."""
        theta = self.theta.astype(np.float32)
        scores = np.ascontiguousarray(self.pairs.scores(obs, theta[:-REMEMBERED]))
        tables = memory.item, memory.looks, memory.takes, memory.wear
        loaded(add_remembered, tables, theta[None, -REMEMBERED:], self.members, self.ends, scores)
        logits: Values = scores + self.own
        return logits

    def scores(self, obs: Floats, memory: Memory) -> Values:
        """Probabilities [B, I]."""
        return _sigmoid(self.logits(obs, memory))

    def add(self, obs: Floats, memory: Memory, shown: Slates, clicked: Flags, seen: Flags) -> None:
        """Learns from slots [B, K]."""
        items = np.maximum(shown, 0)
        wear = np.take_along_axis(memory.wear, self.topic[items].astype(np.int64), 1)
        known = np.stack([wear, *memory.of(items)], 2)
        phi = np.concatenate([self.pairs.of(obs, items), known], 2)[seen].astype(np.float64)
        items = items[seen]
        chance = _sigmoid(phi @ self.theta + self.own[items])
        wrong, spread = clicked[seen] - chance, chance * (1.0 - chance)
        self.information += phi.T @ (phi * spread[:, None])
        size = len(self.own)
        self.known += np.bincount(items, weights=spread, minlength=size)
        self.samples[0] += len(phi)
        if self.samples[0] > self.samples[1] * (1.0 + GROWTH):
            self.inverse[...] = np.linalg.inv(self.information + RIDGE * np.eye(len(self.theta)))
            self.samples[1] = self.samples[0]
        self.theta += self.inverse @ (wrong @ phi)
        self.own += np.bincount(items, weights=wrong, minlength=size) / (STRENGTH + self.known)

    def arrays(self) -> dict[str, Values]:
        """Weights and what is known of them."""
        return {
            "click_information": self.information, "click_inverse": self.inverse, "click_theta": self.theta,
            "click_own": self.own, "click_known": self.known, "click_samples": self.samples,
        }  # fmt: skip


def _sigmoid(logits: Values) -> Values:
    chance: Values = 1.0 / (1.0 + np.exp(-np.clip(logits, -LARGEST, LARGEST)))
    return chance
