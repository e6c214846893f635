"""Interaction log: slots looked at and their feedback, as growing arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsim_llm.agents.common.item_stats import credited, seen_slots
from recsim_llm.agents.core.env_runner import Flags, Floats, Transition
from recsim_llm.errors import DataError
from recsim_llm.simulator.jit import jit

Numbers = NDArray[np.int64]

SIGNALS = ("click", "reward", "dwell", "like", "share", "cart", "purchase", "rating", "skip")
"""Columns of numbers; all others are whole numbers."""

LEAST_ROWS = 1_024


@dataclass(frozen=True, eq=False)
class Log:
    """N slots that users looked at, in the order of time. Nothing is logged of users who opted out.

    Attributes:
        user: [N] public number of the user.
        item: [N] item shown.
        click: [N] 1 for a click, else 0.
        reward: [N] reward that the slot is credited with.
        dwell: [N] [s].
        like: [N] 1 or 0, as the next three.
        share: [N].
        cart: [N].
        purchase: [N].
        rating: [N] 1 to 5, 0 for none.
        skip: [N] 1 where she looked and left.
        position: [N] slot of the slate.
        lane: [N] where she was served.
        episode: [N] counts the episodes of a lane.
        step: [N] counts the steps of an episode.
    """

    user: Numbers
    item: Numbers
    click: Floats
    reward: Floats
    dwell: Floats
    like: Floats
    share: Floats
    cart: Floats
    purchase: Floats
    rating: Floats
    skip: Floats
    position: Numbers
    lane: Numbers
    episode: Numbers
    step: Numbers

    @classmethod
    def of(cls, user: ArrayLike, item: ArrayLike, **columns: ArrayLike) -> Log:
        """A log of one's own, in the order of time.

        Args:
            user: [N] whole numbers, not negative.
            item: [N] rows of the catalogue.
            **columns: Any others. By default everything was clicked, the reward is the click and what was not clicked
                was skipped; each user has one lane and one episode, whose steps are her rows.

        Raises:
            DataError: If a column is unknown, of another length or not of numbers.
        """
        given: dict[str, Any] = {"user": user, "item": item, **columns}
        unknown = set(given) - set(COLUMNS)
        if unknown:
            raise DataError(f"a log has no columns {sorted(unknown)}; it has {', '.join(COLUMNS)}")
        count = len(np.atleast_1d(np.asarray(user)))
        given.setdefault("click", np.ones(count))
        given.setdefault("reward", given["click"])
        given.setdefault("skip", 1.0 - np.asarray(given["click"], np.float32))
        if "lane" not in given:
            given["lane"] = user
            given.setdefault("step", _places(np.asarray(user)))
        return cls.from_arrays({name: given.get(name, np.zeros(count)) for name in COLUMNS})

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, ArrayLike], source: object = "the log") -> Log:
        """From columns by name.

        Raises:
            DataError: If columns are missing, differ in length, or do not hold what they should.
        """
        if set(arrays) != set(COLUMNS):
            raise DataError(f"{source}: columns differ from a log's: {sorted(set(arrays) ^ set(COLUMNS))}")
        made: dict[str, Any] = {}
        for name, column in arrays.items():
            kind = np.float32 if name in SIGNALS else np.int64
            array = np.asarray(column)
            if array.ndim != 1 or array.dtype.kind not in "iufb" or not np.isfinite(array).all():
                raise DataError(
                    f"{source}: column {name} must hold finite numbers [N], got {array.dtype} {array.shape}"
                )
            made[name] = array.astype(kind, copy=False)
        if len({len(column) for column in made.values()}) != 1:
            raise DataError(f"{source}: the columns differ in length")
        if len(made["user"]) and (made["user"].min() < 0 or made["item"].min() < 0):
            raise DataError(f"{source}: users and items are numbers from 0 on, got a negative one")
        return cls(**made)

    @classmethod
    def empty(cls) -> Log:
        """No rows."""
        return cls.of(np.zeros(0), np.zeros(0))

    def __len__(self) -> int:
        return len(self.user)

    def __getitem__(self, rows: slice | Flags | Numbers) -> Log:
        """Some rows."""
        return _made({name: column[rows] for name, column in self.arrays().items()})

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The columns by name."""
        return {name: getattr(self, name) for name in COLUMNS}

    def sessions(self) -> Numbers:
        """[N] whole numbers that are the same for slots of the same episode of the same lane."""
        if not len(self):
            return np.zeros(0, np.int64)
        _, number = np.unique(np.stack([self.lane, self.episode], 1), axis=0, return_inverse=True)
        return number.reshape(-1).astype(np.int64)

    def clicks(self) -> tuple[Numbers, Numbers]:
        """Items that were clicked, episode after episode and there in the order of time; and their :meth:`sessions`."""
        clicked = np.flatnonzero(self.click > 0)
        number = self.sessions()[clicked]
        order = np.argsort(number, kind="stable")
        return self.item[clicked][order], number[order]

    def before(self, chosen: Flags, width: int) -> Numbers:
        """Chosen items [N, H] of the same episode, at steps before each row, the newest last, -1 in front."""
        order = np.argsort(self.sessions(), kind="stable")
        histories = np.full((len(self), width), -1, np.int64)
        _before(order, self.sessions(), self.step, self.item, chosen, histories)
        return histories

    def last_clicks(self, width: int) -> tuple[Numbers, Numbers]:
        """The last click of each episode that has two or more, and the clicks before it: to test a recommender.

        Args:
            width: H, clicks to be kept of those before it.

        Returns:
            Histories [M, H], the newest last, -1 in front where there are fewer; and the items clicked next [M].
        """
        items, session = self.clicks()
        bounds = np.flatnonzero(np.diff(session, prepend=-1, append=-1))
        histories, targets = [], []
        for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            if stop - start > 1:
                before = items[max(start, stop - 1 - width) : stop - 1]
                histories.append(np.concatenate([np.full(width - len(before), -1, np.int64), before]))
                targets.append(items[stop - 1])
        return np.array(histories, np.int64).reshape(-1, width), np.array(targets, np.int64)


COLUMNS = tuple(field.name for field in fields(Log))


class LogBook:
    """A log that grows by transitions: rooms are doubled, so that N rows cost O(N).

    Attributes:
        lanes: [B, 4] of each lane: number of the episode, step in it, user, and whether the episode is over.
    """

    def __init__(self, log: Log | None = None) -> None:
        kept = Log.empty() if log is None else log
        self._count = len(kept)
        self._room = {name: column.copy() for name, column in kept.arrays().items()}
        self.lanes: Numbers = np.zeros((0, 4), np.int64)

    def __len__(self) -> int:
        return self._count

    @property
    def log(self) -> Log:
        """Everything so far; views, not copies."""
        return _made({name: column[: self._count] for name, column in self._room.items()})

    def add(self, transition: Transition) -> None:
        """Adds the slots that were looked at."""
        shown, seen = seen_slots(transition)
        user = np.asarray(transition.info["user_id"], np.int64)
        episode, step = self._place(transition, user)
        lane, position = np.nonzero(seen & (user >= 0)[:, None])
        if not len(lane):
            return
        rows: dict[str, NDArray[Any]] = {
            "user": user[lane], "item": shown[lane, position], "position": position, "lane": lane,
            "episode": episode[lane], "step": step[lane],
        }  # fmt: skip
        credit = credited(transition)
        for name in SIGNALS:
            signal = credit if name == "reward" else transition.info.get(name)
            rows[name] = np.zeros(len(lane), np.float32) if signal is None else np.asarray(signal)[lane, position]
        self._append(rows, len(lane))

    def extend(self, log: Log) -> None:
        """Adds another log, later than this one."""
        self._append(log.arrays(), len(log))

    def _append(self, rows: Mapping[str, NDArray[Any]], count: int) -> None:
        needed = self._count + count
        for name, column in self._room.items():
            if needed > len(column):
                room = np.zeros(max(2 * len(column), needed, LEAST_ROWS), column.dtype)
                room[: self._count] = column[: self._count]
                self._room[name] = room
            self._room[name][self._count : needed] = rows[name]
        self._count = needed

    def _place(self, transition: Transition, user: Numbers) -> tuple[Numbers, Numbers]:
        """Episode [B] and step [B] of a transition; another user, or one after an end, begins an episode."""
        first = len(self.lanes) != len(user)
        if first:
            begin = int(self._room["episode"][: self._count].max(initial=-1)) + 1
            self.lanes = np.zeros((len(user), 4), np.int64)
            self.lanes[:, 0], self.lanes[:, 2] = begin, user
        episode, step, before, over = self.lanes.T
        valid = transition.valid
        new = valid & ((over > 0) | (before != user)) & (not first)
        episode, step = episode + new, np.where(new, 0, step)
        ended = np.where(valid, transition.terminated | transition.truncated, over > 0)
        self.lanes = np.stack([episode, step + valid, np.where(valid, user, before), ended], 1).astype(np.int64)
        return episode, step


def _made(columns: dict[str, Any]) -> Log:
    return Log(**columns)


@jit
def _before(
    order: Numbers, session: Numbers, step: Numbers, item: Numbers, chosen: Flags, histories: Numbers
) -> None:  # fmt: skip
    """Writes the histories [N, H] of slots, visited session after session."""
    width = histories.shape[1]
    begin = 0
    for at in range(len(order)):
        n = order[at]
        if at > 0 and session[order[at - 1]] != session[n]:
            begin = at
        place = width - 1
        for back in range(at - 1, begin - 1, -1):
            m = order[back]
            if chosen[m] and step[m] < step[n]:
                histories[n, place] = item[m]
                place -= 1
                if place < 0:
                    break


def _places(user: NDArray[Any]) -> Numbers:
    """[N] how many rows of the same user are before each."""
    order = np.argsort(user, kind="stable")
    episode_start = np.flatnonzero(np.diff(user[order], prepend=user[order][:1] - 1))
    count = np.diff(episode_start, append=len(user))
    places = np.empty(len(user), np.int64)
    places[order] = np.arange(len(user)) - np.repeat(episode_start, count)
    return places
