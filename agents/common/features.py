"""Features of user and item for linear models, and scores of all items by them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.cooldown import MemoryTables, RecentItems
from recsim_llm.agents.common.top_k import GROUPS, add_remembered, by_topic, select, write_highest
from recsim_llm.agents.core.env_runner import EnvironmentSpec, Flags, Floats, Slates
from recsim_llm.simulator.jit import jit, kernel, loaded

SHORT, LONG = 1.0, 5.0  # [day] lives of the two measures of freshness
OLDEST = 60.0  # [day] older than this is all the same, and smaller numbers would be slow
SCALARS = 9  # profile . item, interest . item, wear of its topic, freshness (2), mean reward, price, looks, clicks
FARTHEST = 25.0  # [day] users whose clocks differ by less are scored together: e^25 squared is a float32
TOGETHER = 128  # users scored at a time: their scores stay in the processor's cache


@dataclass(frozen=True)
class Situation:
    """Context of B users at the moment of a decision.

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
    memory: RecentItems
    newest: Floats
    rate: Floats


class Features:
    """Features phi(u, i) of a user and an item.

        phi = [1, context, slot, x, p * x, z * x, p.x, z.x, wear, freshness, freshness', mean reward, price, looks,
        clicks]

    x is the item's encoding, p the profile's, z that of recent interest; * is elementwise over the leading principal
    components, the dot products over all; wear is how often the item's topic was consumed lately, looks and clicks how
    often the item itself. For a given user everything but the slot and what is remembered is linear in what is known
    of the item: x, e^(release / life), mean reward and price, so that scores of B x I pairs are one product of
    matrices.

    Args:
        env_spec: The public catalogue.
        width: Principal components in the elementwise products.
    """

    def __init__(self, env_spec: EnvironmentSpec, width: int) -> None:
        catalog = env_spec.catalog
        self.width = min(width, catalog.width)
        scale = float(np.sqrt(np.square(catalog.embedding).sum(1).mean())) or 1.0
        self.scale = np.float32(1.0 / scale)
        self.items: Floats = np.ascontiguousarray(catalog.embedding * self.scale)
        self.topic = catalog.topic
        self.released: Floats = catalog.released_at
        self._members, self._ends = by_topic(self.topic, len(catalog.topics))
        spread = float(catalog.price.std()) or 1.0
        self.price: Floats = (catalog.price - catalog.price.mean()) / np.float32(spread)
        self.slate_size = env_spec.slate_size
        context = env_spec.layout["context"]
        self.fixed = 1 + (context.stop - context.start) + self.slate_size - 1
        self.count = self.fixed + 3 * self.width + SCALARS

    def newest(self, action_mask: Flags) -> Floats:
        """[B] [day] release of the newest item on the shelf."""
        newest, work = np.empty(len(action_mask), np.float32), np.empty(GROUPS, np.float32)
        loaded(write_highest, self.released, np.ascontiguousarray(action_mask), work, newest)
        np.maximum(newest, self.released.min(), out=newest)
        return newest

    def of(self, s: Situation, items: Slates, slate_size: NDArray[np.int64] | None = None) -> Floats:
        """Vectors of users and their items [B, N], as [B, N, d]; ``slate_size`` [N] says where each was shown."""
        lanes, count = items.shape
        places = np.zeros(count, np.int64) if slate_size is None else slate_size
        rows = self.rows(s, np.repeat(np.arange(lanes), count), items.reshape(-1), np.tile(places, lanes))
        return rows.reshape(lanes, count, self.count)

    def rows(self, s: Situation, lane: Slates, item: Slates, slot: Slates) -> Floats:
        """Vectors of N pairs of a user and an item in a slot, each [N], as [N, d]; lanes in ascending order."""
        out = np.zeros((len(lane), self.count), np.float32)
        tables = ItemTables(self.items, self.topic, self.released, self.price, np.ascontiguousarray(s.rate))
        context = np.ascontiguousarray(s.context)
        users = Users(s.profile * self.scale, s.interest * self.scale, context, s.newest)
        item, memory = np.ascontiguousarray(item), s.memory.tables
        loaded(_write, lane, item, slot, self.width, self.slate_size, tables, users, memory, out)
        return out

    def top(self, s: Situation, theta: Floats, action_mask: Flags, count: int) -> tuple[Slates, Floats]:
        """The ``count`` allowed items of highest score theta . phi and these scores, each [B, count], best first.

        Theta is [d], or [B, d] with one for each user. Of the scores is left out what is the same for all items. Ties
        go to the lower item; where fewer are allowed, others fill up, of score -inf.
        """
        lanes = len(s.newest)
        listed, values = np.empty((lanes, count), np.int64), np.empty((lanes, count), np.float32)
        action_mask = np.ascontiguousarray(action_mask)
        theta = np.atleast_2d(theta)
        users, items = self._factors(s, theta)
        room = np.empty((min(lanes, TOGETHER), len(self.items)), np.float32)
        for start in range(0, lanes, TOGETHER):
            part = slice(start, min(start + TOGETHER, lanes))
            scores = self._block(s, theta, users, items, part, room[: part.stop - start])
            listed[part], values[part] = select(scores, action_mask[part], count)
        return listed, values

    def scores(self, s: Situation, theta: Floats) -> Floats:
        """The product theta . phi of every user and item, less what is the same for all items, [B, I].

        Items that are released later than the newest on the shelf are not scored as they deserve.
        """
        theta = np.atleast_2d(theta)
        users, items = self._factors(s, theta)
        return self._block(
            s, theta, users, items, slice(0, len(users)), np.empty((len(users), len(self.items)), np.float32)
        )

    def _block(self, s: Situation, theta: Floats, users: Floats, items: Floats, part: slice, scores: Floats) -> Floats:
        """Writes and returns the scores [b, I] of some of the users."""
        at = self.fixed + 3 * self.width
        np.matmul(users[part], items, out=scores)
        memory, own = s.memory, theta[part] if len(theta) > 1 else theta
        tables = MemoryTables(memory.item[part], memory.looks[part], memory.takes[part], memory.wear[part])
        weights = np.ascontiguousarray(own[:, [at + 2, at + 7, at + 8]])
        loaded(add_remembered, tables, weights, self._members, self._ends, scores)
        if self._far(s.newest):
            age = np.clip(s.newest[part, None] - self.released, 0.0, OLDEST)
            for column, life in ((at + 3, SHORT), (at + 4, LONG)):
                scores += own[:, column, None] * np.exp(-age / np.float32(life))
        return scores

    def _factors(self, s: Situation, theta: Floats) -> tuple[Floats, Floats]:
        """Vectors of users [B, E] and of items [E, I] whose products are the scores, but for what is remembered.

        Where the clocks of users are far apart, freshness is left out too.
        """
        w, f, at = self.width, self.fixed, self.fixed + 3 * self.width
        p, z = s.profile * self.scale, s.interest * self.scale
        column = [theta[:, at + n, None] for n in range(SCALARS)]  # [1 or B, 1]
        direction = column[0] * p + column[1] * z  # [B, D]
        direction[:, :w] += theta[:, f : f + w]
        direction[:, :w] += theta[:, f + w : f + 2 * w] * p[:, :w] + theta[:, f + 2 * w : at] * z[:, :w]
        ones = np.ones((len(p), 1), np.float32)
        parts = [direction, column[5] * ones, column[6] * ones]
        tables = [self.items.T, s.rate[None], self.price[None]]
        if not self._far(s.newest):
            # e^-(newest - released) = e^(middle - newest) e^(released - middle)
            middle = (s.newest.max() + s.newest.min()) / np.float32(2.0)
            day = np.clip(self.released - middle, -OLDEST, OLDEST)
            for weight, life in ((column[3], SHORT), (column[4], LONG)):
                parts.append(weight * np.exp((middle - s.newest) / np.float32(life))[:, None])
                tables.append(np.exp(day / np.float32(life))[None])
        return np.concatenate(parts, 1), np.ascontiguousarray(np.concatenate(tables, 0))  # as products are fastest

    def _far(self, newest: Floats) -> bool:
        return bool(newest.max() - newest.min() > FARTHEST)


class ItemTables(NamedTuple):
    """What compiled code reads of items: encodings [I, D], topics, releases, prices and mean rewards [I]."""

    encoding: Floats
    topic: NDArray[np.int32]
    released: Floats
    price: Floats
    rate: Floats


class Users(NamedTuple):
    """What compiled code reads of users: profiles and interests [B, D], contexts [B, C], today [B] [day]."""

    profile: Floats
    interest: Floats
    context: Floats
    newest: Floats


@jit
def _dots(x: Floats, p: Floats, z: Floats) -> tuple[np.float32, np.float32]:
    """Dot products x . p and x . z, each as four sums: none waits for the one before."""
    a = b = c = d = e = f = g = h = np.float32(0.0)
    whole = x.shape[0] // 4 * 4
    for n in range(0, whole, 4):
        xs, ps, zs = x[n : n + 4], p[n : n + 4], z[n : n + 4]
        a += xs[0] * ps[0]
        b += xs[1] * ps[1]
        c += xs[2] * ps[2]
        d += xs[3] * ps[3]
        e += xs[0] * zs[0]
        f += xs[1] * zs[1]
        g += xs[2] * zs[2]
        h += xs[3] * zs[3]
    for n in range(whole, x.shape[0]):
        a += x[n] * p[n]
        e += x[n] * z[n]
    return (a + b) + (c + d), (e + f) + (g + h)


@kernel
def _write(
    lane: Slates, item: Slates, slot: Slates, width: int, slate_size: int, tables: ItemTables, users: Users,
    memory: MemoryTables, out: Floats,
) -> None:  # fmt: skip
    """Writes the vectors of N pairs.

    Args:
        lane: [N] ascending.
        item: [N].
        slot: [N].
        width: Principal components in the elementwise products.
        slate_size: K.
        tables: Of items.
        users: Users.
        memory: What they were shown lately.
        out: [N, d] zeros, written.
    """
    x, profile, interest, context = tables.encoding, users.profile, users.interest, users.context
    known, looks, takes = memory.item, memory.looks, memory.takes
    first = 1 + context.shape[1] + slate_size - 1
    at = first + 3 * width
    for n in range(item.shape[0]):
        b, i = lane[n], item[n]
        row, now = out[n], context[b]
        row[0] = np.float32(1.0)
        for c in range(now.shape[0]):
            row[1 + c] = now[c]
        if slot[n] > 0:
            row[first - slate_size + slot[n]] = np.float32(1.0)
        xs, ps, zs = x[i], profile[b], interest[b]
        plain, of_profile, of_interest = row[first:], row[first + width :], row[first + 2 * width :]
        for c in range(width):
            plain[c], of_profile[c], of_interest[c] = xs[c], xs[c] * ps[c], xs[c] * zs[c]
        rest = row[at:]
        age = min(max(users.newest[b] - tables.released[i], np.float32(0.0)), np.float32(OLDEST))
        rest[0], rest[1] = _dots(xs, ps, zs)
        rest[2] = memory.wear[b, tables.topic[i]]
        long = np.exp(age * np.float32(-1.0 / LONG))
        square = long * long
        rest[3], rest[4] = square * square * long, long  # e^-(age / SHORT) is the fifth power, as LONG is 5 SHORT
        rest[5], rest[6] = tables.rate[i], tables.price[i]
        items = known[b]
        place = 0
        for h in range(items.shape[0]):  # without branches: the processor compares several at a time
            place += h + 1 if items[h] == i else 0
        if place > 0:
            rest[7], rest[8] = looks[b, place - 1], takes[b, place - 1]
