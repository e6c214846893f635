"""Log of observations: what was known of the user before each slate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.cooldown import WEAR_LEFT
from recsim_llm.agents.common.interaction_log import Log, Numbers
from recsim_llm.agents.common.item_stats import seen_slots
from recsim_llm.agents.core.env_runner import EnvironmentSpec, Flags, Floats, Transition
from recsim_llm.errors import DataError
from recsim_llm.simulator.jit import jit


class ObservationLog:
    """Rows that say what was observed before each slate of a log; grows with it.

    A row is profile, interest and context of the observation, and the day on which the newest item on the shelf was
    released: the public estimate of today.

    Args:
        env_spec: The public catalogue and the form of observations.

    Attributes:
        width: W, width of a row.
    """

    def __init__(self, env_spec: EnvironmentSpec) -> None:
        self.env_spec = env_spec
        context = env_spec.layout["context"]
        self.context = slice(2 * env_spec.catalog.width, 2 * env_spec.catalog.width + context.stop - context.start)
        self.width = self.context.stop + 1
        self._rows: list[Floats] = [np.zeros((0, self.width), np.float32)]
        self._index: list[Numbers] = [np.zeros(0, np.int64)]
        self._count = 0

    def of(self, obs: Floats, newest: NDArray[np.floating]) -> Floats:
        """Rows [B, W] of observations [B, P] on the days [B]."""
        parts = [self.env_spec.part(name, obs) for name in ("profile", "interest", "context")]
        return np.concatenate([*parts, np.asarray(newest, np.float32)[:, None]], 1)

    def newest(self, action_mask: Flags) -> Floats:
        """[B] [day] release of the newest item on the shelf [B, I]."""
        released = self.env_spec.catalog.released_at
        day: Floats = np.where(action_mask, released, released.min()).max(1)
        return day

    def add(self, transition: Transition, newest: Floats | None) -> None:
        """Adds what was observed before a transition, in the order in which a log book takes its slots in.

        Args:
            transition: The transition.
            newest: [B] [day] as of :meth:`newest`; None takes the newest item of the slate.
        """
        shown, seen = seen_slots(transition)
        seen = seen & (np.asarray(transition.info["user_id"]) >= 0)[:, None]
        if newest is None or len(newest) != len(shown):
            newest = self.env_spec.catalog.released_at[np.maximum(shown, 0)].max(1)
        kept = np.flatnonzero(seen.any(1))
        place = np.cumsum(seen.any(1)) - 1 + self._count
        self._rows.append(self.of(transition.observation[kept], newest[kept]))
        self._index.append(place[np.nonzero(seen)[0]])
        self._count += len(kept)

    def forget(self, count: int) -> None:
        """Starts anew with a log of so many slots of which nothing was observed."""
        row = np.zeros((min(count, 1), self.width), np.float32)
        row[:, -1] = self.env_spec.catalog.released_at.max()
        self._rows, self._index, self._count = [row], [np.zeros(count, np.int64)], len(row)

    @property
    def rows(self) -> Floats:
        """[V, W]."""
        self._rows = [np.concatenate(self._rows)] if len(self._rows) > 1 else self._rows
        return self._rows[0]

    @property
    def index(self) -> Numbers:
        """[N] the row of each slot of the log."""
        self._index = [np.concatenate(self._index)] if len(self._index) > 1 else self._index
        return self._index[0]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The rows by name."""
        return {"rows": self.rows, "index": self.index}

    def restore(self, arrays: Mapping[str, NDArray[Any]], source: object) -> None:
        """Takes over what :meth:`arrays` gave.

        Raises:
            DataError: If it is of another form.
        """
        rows, index = arrays.get("rows", np.zeros(0)), arrays.get("index", np.zeros(0))
        fits = rows.ndim == 2 and rows.shape[1] == self.width and rows.dtype == np.float32 and np.isfinite(rows).all()
        fits &= index.ndim == 1 and index.dtype == np.int64 and len(arrays) == 2
        if not fits or (len(index) and not 0 <= index.min() <= index.max() < len(rows)):
            raise DataError(f"{source}: what was observed is {rows.dtype} {rows.shape}, expected [V, {self.width}]")
        self._rows, self._index, self._count = [rows], [index], len(rows)


@dataclass(frozen=True)
class EpisodeReplay:
    """What users had done in their episode before each of M slates of a log.

    Attributes:
        moment: [N] the slate of each slot of the log.
        pooled: [M, D] sum of the encodings of what was clicked, over the square root of their number.
        wear: [M, T] decayed count of clicks on each topic, as in :class:`RecentItems`.
    """

    moment: Numbers
    pooled: Floats
    wear: Floats

    @classmethod
    def of(cls, log: Log, fresh: Flags, encodings: Floats, topic: NDArray[np.integer], topics: int) -> EpisodeReplay:
        """Goes through all episodes side by side, step by step.

        Args:
            log: N slots.
            fresh: [N] whether the slot is of the first slate of a session: topics have recovered.
            encodings: [I, D].
            topic: [I].
            topics: T.
        """
        session = log.sessions()
        order = np.lexsort((session, log.step))
        pairs = np.stack([log.step, session], 1)[order]
        new = np.ones(len(order), np.bool_)
        new[1:] = (pairs[1:] != pairs[:-1]).any(1)
        moment = np.empty(len(order), np.int64)
        moment[order] = np.cumsum(new) - 1
        first = order[new]  # one slot of each moment; moments are sorted by step
        count, episodes = len(first), int(session.max(initial=-1)) + 1
        pooled, wear = np.zeros((count, encodings.shape[1]), np.float32), np.zeros((count, topics), np.float32)
        total, worn = np.zeros((episodes, encodings.shape[1]), np.float32), np.zeros((episodes, topics), np.float32)
        number, last = np.zeros(episodes, np.float32), np.zeros(episodes, np.int64)
        bounds = np.append(np.flatnonzero(np.diff(log.step[first], prepend=-1)), count)
        clicked = order[log.click[order] > 0]  # sorted by moment
        slate_size = np.searchsorted(moment[clicked], bounds)
        for start, stop, a, z in zip(bounds[:-1], bounds[1:], slate_size[:-1], slate_size[1:], strict=True):
            now, step = session[first[start:stop]], log.step[first[start]]
            worn[now] *= (WEAR_LEFT ** (step - last[now]))[:, None].astype(np.float32)
            worn[now[fresh[first[start:stop]]]] = 0.0
            last[now] = step
            pooled[start:stop] = total[now] / np.sqrt(np.maximum(number[now], 1.0))[:, None]
            wear[start:stop] = worn[now]
            who, what = session[clicked[a:z]], log.item[clicked[a:z]]
            # a click of the slate before counts one decay less in a memory: it is added after the decay
            np.add.at(worn, (who, topic[what]), np.float32(1.0 / WEAR_LEFT))
            np.add.at(total, who, encodings[what])
            np.add.at(number, who, np.float32(1.0))
        return cls(moment, pooled, wear)


def worth(log: Log, price: Floats, bid: Floats, strength: float) -> NDArray[np.float64]:
    """Mean reward of a click on each item, over the mean of all, [I]; ones where there was no click.

    It is drawn towards what the public numbers of the item predict, as by ``strength`` clicks.

    Args:
        log: The log.
        price: [I].
        bid: [I].
        strength: Clicks.
    """
    clicked = log[log.click > 0]
    known = np.stack([np.ones(len(price)), price, bid], 1).astype(np.float64)
    mean = float(clicked.reward.mean()) if len(clicked) else 0.0
    if mean <= 0.0:
        return np.ones(len(price))
    x = known[clicked.item]
    ridge = np.diag(np.square(known).mean(0) * 1e-3 * len(x) + 1e-9)
    ridge[0, 0] = 1e-9
    expected = known @ np.linalg.solve(x.T @ x + ridge, x.T @ clicked.reward.astype(np.float64))
    expected = np.clip(expected, LEAST_WORTH * mean, None)
    gains = np.bincount(clicked.item, weights=clicked.reward, minlength=len(price))
    clicks = np.bincount(clicked.item, minlength=len(price))
    value: NDArray[np.float64] = (gains + strength * expected) / (clicks + strength) / mean
    return np.maximum(value, LEAST_WORTH)


LEAST_WORTH = 0.01
"""Least worth of a click, over the mean of all."""


@jit
def add_timely(
    scores: Floats, wear: Floats, topic: NDArray[np.int32], released: Floats, newest: Floats, theta: Floats
) -> None:  # fmt: skip
    """Adds what wear and freshness are worth to scores [B, I].

    Args:
        scores: [B, I], changed.
        wear: [B, T].
        topic: [I].
        released: [I] [day].
        newest: [B] [day].
        theta: [3] coefficients of wear, exp(-age / 1 day) and exp(-age / 5 days); older than 60 days is all the same.
    """
    zero, oldest, life = np.float32(0.0), np.float32(60.0), np.float32(-0.2)
    for b in range(scores.shape[0]):
        for i in range(scores.shape[1]):
            long = np.exp(min(max(newest[b] - released[i], zero), oldest) * life)
            square = long * long
            scores[b, i] += theta[0] * wear[b, topic[i]] + theta[1] * square * square * long + theta[2] * long
