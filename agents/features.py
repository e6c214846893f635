"""Features of a user and an item that a linear model can tell preferences from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.lanes import Flags, Floats, Setting, Slates
from recsim_llm.agents.memory import Memory
from recsim_llm.rules.jit import jit

SHORT, LONG = 1.0, 5.0  # [day] lives of the two measures of freshness
OLDEST = 60.0  # [day] older than this is all the same, and smaller numbers would be slow
SCALARS = 9  # profile . item, interest . item, wear of its topic, freshness (2), mean reward, price, looks, clicks


@dataclass(frozen=True)
class Situation:
    """B users at the moment of a decision.

    Attributes:
        profile: [B, D] encoding of the persona.
        interest: [B, D] decayed mean of the encodings of consumed items.
        context: [B, C] context part of the observation.
        memory: What was looked at and consumed lately.
        newest: [B] [day] release of the newest item on the shelf: the public estimate of today.
        rate: [I] mean reward of each item, less that of all items.
    """

    profile: Floats
    interest: Floats
    context: Floats
    memory: Memory
    newest: Floats
    rate: Floats


class Features:
    """Vectors phi(u, i) of a user and an item.

        phi = [1, context, slot, x, p * x, z * x, p.x, z.x, wear, freshness, freshness', mean reward, price, looks,
        clicks]

    x is the item's encoding, p the profile's, z that of recent interest; * is elementwise over the leading principal
    components, the dot products over all; wear is how often the item's topic was consumed lately, looks and clicks how
    often the item itself. Everything but the slot is linear in x for a given user, so that scores of B x
    I pairs are one product of matrices.

    Args:
        setting: The public catalogue.
        width: Principal components in the elementwise products.
    """

    def __init__(self, setting: Setting, width: int) -> None:
        catalog = setting.catalog
        self.width = min(width, catalog.width)
        scale = float(np.sqrt(np.square(catalog.embedding).sum(1).mean())) or 1.0
        self.scale = np.float32(1.0 / scale)
        self.items: Floats = catalog.embedding * self.scale
        self.topic = catalog.topic
        self.released: Floats = catalog.released_at
        spread = float(catalog.price.std()) or 1.0
        self.price: Floats = (catalog.price - catalog.price.mean()) / np.float32(spread)
        self.slots = setting.slots
        context = setting.layout["context"]
        self.fixed = 1 + (context.stop - context.start) + self.slots - 1
        self.count = self.fixed + 3 * self.width + SCALARS

    def newest(self, allowed: Flags) -> Floats:
        """[B] [day] release of the newest item on the shelf."""
        newest: Floats = np.where(allowed, self.released, self.released.min()).max(1)
        return newest

    def of(self, s: Situation, items: Slates, slots: NDArray[np.int64] | None = None) -> Floats:
        """Vectors of users and their items [B, N], as [B, N, d]; ``slots`` [N] says where each was shown."""
        lanes, count = items.shape
        w, f = self.width, self.fixed
        x = self.items[items]  # [B, N, D]
        p, z = s.profile * self.scale, s.interest * self.scale
        phi = np.zeros((lanes, count, self.count), np.float32)
        phi[:, :, 0] = 1.0
        phi[:, :, 1 : 1 + s.context.shape[1]] = s.context[:, None]
        if slots is not None:
            lower = np.flatnonzero(slots > 0)
            phi[:, lower, f - self.slots + slots[lower]] = 1.0
        phi[:, :, f : f + w] = x[:, :, :w]
        np.multiply(x[:, :, :w], p[:, None, :w], out=phi[:, :, f + w : f + 2 * w])
        np.multiply(x[:, :, :w], z[:, None, :w], out=phi[:, :, f + 2 * w : f + 3 * w])
        at = f + 3 * w
        phi[:, :, at] = np.einsum("bnd,bd->bn", x, p)
        phi[:, :, at + 1] = np.einsum("bnd,bd->bn", x, z)
        phi[:, :, at + 2] = np.take_along_axis(s.memory.wear, self.topic[items].astype(np.int64), 1)
        age = np.clip(s.newest[:, None] - self.released[items], 0.0, OLDEST)
        phi[:, :, at + 3], phi[:, :, at + 4] = np.exp(-age / SHORT), np.exp(-age / LONG)
        phi[:, :, at + 5], phi[:, :, at + 6] = s.rate[items], self.price[items]
        phi[:, :, at + 7] = np.take_along_axis(s.memory.looks, items, 1)
        phi[:, :, at + 8] = np.take_along_axis(s.memory.takes, items, 1)
        return phi

    def scores(self, s: Situation, theta: Floats) -> Floats:
        """The product theta . phi of every user and item, less what is the same for all items, [B, I]."""
        w, at = self.width, self.fixed + 3 * self.width
        p, z = s.profile * self.scale, s.interest * self.scale
        plain, with_profile, with_interest = (theta[self.fixed + n * w : self.fixed + (n + 1) * w] for n in range(3))
        direction = theta[at] * p + theta[at + 1] * z  # [B, D]
        direction[:, :w] += plain + with_profile * p[:, :w] + with_interest * z[:, :w]
        scores: Floats = direction @ self.items.T
        alike = theta[at + 5] * s.rate + theta[at + 6] * self.price  # [I]
        rest = theta[[at + 2, at + 7, at + 8, at + 3, at + 4]]
        add_rest(
            scores, alike, s.memory.wear, s.memory.looks, s.memory.takes, self.topic, self.released, s.newest, rest
        )
        return scores


@jit
def add_rest(
    scores: Floats, alike: Floats, wear: Floats, looks: Floats, takes: Floats, topic: NDArray[np.int32],
    released: Floats, newest: Floats, theta: Floats,
) -> None:  # fmt: skip
    """Adds to scores [B, I] what is no product of encodings, in one pass.

    Args:
        scores: [B, I], changed.
        alike: [I] what is added for all users.
        wear: [B, T] as in Memory.
        looks: [B, I] as in Memory.
        takes: [B, I] as in Memory.
        topic: [I] topic of each item.
        released: [I] [day].
        newest: [B] [day].
        theta: [5] coefficients of wear, looks, takes and the two measures of freshness.
    """
    zero, oldest, life = np.float32(0.0), np.float32(OLDEST), np.float32(-1.0 / LONG)
    for b in range(scores.shape[0]):
        for i in range(scores.shape[1]):
            long = np.exp(min(max(newest[b] - released[i], zero), oldest) * life)
            square = long * long
            total = alike[i] + theta[0] * wear[b, topic[i]] + theta[1] * looks[b, i] + theta[2] * takes[b, i]
            # exp(-age / SHORT) is the fifth power, as LONG is 5 SHORT
            scores[b, i] += total + theta[3] * square * square * long + theta[4] * long
