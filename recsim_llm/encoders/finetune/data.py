"""Training data of fine-tuning: user-item engagements and batches of items.

A step of tuning encodes the M items of one block and then uses everything that any user did with them: texts are what
costs time, users are free.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.errors import DataError

if TYPE_CHECKING:
    from recsim_llm.datasets import Interactions

Floats = NDArray[np.float32]
Numbers = NDArray[np.int64]
Flags = NDArray[np.bool_]

TURN = 8
"""Items of one user that are drawn into a block at a time."""


@dataclass(frozen=True, eq=False)
class Engagements:
    """N meetings of users and items, with what came of them.

    Attributes:
        user: [N] numbers of users, from 0 on.
        item: [N] rows of the texts.
        values: [N] by task, as "click" (0 or 1) or "rating"; NaN where a meeting says nothing on the task.
        positive: Values of a task from here on are liked; 1 where it is not named, 4 for "rating".
    """

    user: Numbers
    item: Numbers
    values: Mapping[str, Floats]
    positive: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("user", "item"):
            column = np.asarray(getattr(self, name))
            if column.ndim != 1 or column.dtype.kind not in "iu" or (len(column) and column.min() < 0):
                raise DataError(f"{name} must hold whole numbers from 0 on, [N]; got {column.dtype} {column.shape}")
            object.__setattr__(self, name, column.astype(np.int64))
        values = {task: np.asarray(column, np.float32) for task, column in self.values.items()}
        columns: dict[str, NDArray[Any]] = {"item": self.item, **values}
        for task, numbers in columns.items():
            if numbers.shape != self.user.shape or np.isinf(numbers).any():
                raise DataError(f"column {task} has shape {numbers.shape}, expected finite numbers {self.user.shape}")
        object.__setattr__(self, "values", values)

    def __len__(self) -> int:
        return len(self.user)

    @classmethod
    def of(cls, log: Interactions, positive: float | None = None) -> Engagements:
        """From a file of ratings or clicks.

        Args:
            log: The interactions.
            positive: Ratings from here on are liked; None takes 4 on scales that end at 5, else the upper half.
        """
        values = {log.kind: log.value.astype(np.float32)}
        if log.kind == "click":
            return cls(log.user, log.item, values)
        top = float(log.value.max(initial=0.0))
        least = positive if positive is not None else 4.0 if top == 5.0 else float(np.median(log.value))
        values["click"] = (log.value >= least).astype(np.float32)
        return cls(log.user, log.item, values, {"rating": least})

    def liked(self, task: str) -> Flags:
        """[N] whether the meeting is a positive one.

        Raises:
            DataError: If there is no such task.
        """
        if task not in self.values:
            raise DataError(f"no values for the task {task!r}; there are {', '.join(self.values) or 'none'}")
        least = self.positive.get(task, 4.0 if task == "rating" else 1.0)
        flags: Flags = self.values[task] >= least  # NaN is not
        return flags

    def engaged(self, tasks: Sequence[str]) -> Flags:
        """[N] whether the meeting is a positive one for any of the tasks."""
        flags: Flags = np.logical_or.reduce([self.liked(task) for task in tasks])
        return flags

    def __getitem__(self, rows: Flags | Numbers) -> Engagements:
        """Some meetings."""
        values = {task: column[rows] for task, column in self.values.items()}
        return Engagements(self.user[rows], self.item[rows], values, self.positive)


@dataclass(frozen=True, eq=False)
class Examples:
    """P examples of one task in a block.

    Attributes:
        user: [P] rows of the block's users.
        item: [P] columns of the block's items.
        value: [P] what is to be predicted.
        liked: [P] whether it was liked.
    """

    user: Numbers
    item: Numbers
    value: Floats
    liked: Flags


@dataclass(frozen=True, eq=False)
class Block:
    """M items and everything that V users did with them.

    Attributes:
        items: [M] rows of the texts.
        users: [V] numbers of the users.
        engaged: [V, M] 1 where the user engaged with the item.
        tasks: Examples of each task.
    """

    items: Numbers
    users: Numbers
    engaged: Floats
    tasks: Mapping[str, Examples]


class Blocks:
    """Draws blocks.

    Args:
        data: The meetings.
        tasks: Tasks to be learnt.
        size: M, most items of a block.
        personas: [U] whether a user has a text of her own, or None: her examples need no history then.

    Attributes:
        known: [N] rows of ``data`` with a value for one of the tasks.
    """

    def __init__(self, data: Engagements, tasks: Sequence[str], size: int, personas: Flags | None = None) -> None:
        self.data, self.names, self.size = data, tuple(tasks), size
        self.engaged = data.engaged(tasks)
        if not self.engaged.any():
            raise DataError(f"nobody engaged with anything in the tasks {', '.join(tasks)}: there is nothing to learn")
        self.personas = np.zeros(int(data.user.max(initial=0)) + 1, np.bool_) if personas is None else personas
        cells = np.unique(np.stack([data.user, data.item], 1)[self.engaged], axis=0)
        self.user, self.item = cells[:, 0], cells[:, 1]  # sorted by user

    def __len__(self) -> int:
        """About how many blocks make an epoch: each item of each user once in the draw."""
        return max(-(-len(self.user) // self.size), 1)

    def drawn(self, rng: np.random.Generator) -> Iterator[Numbers]:
        """Items of blocks without end: users take turns, each bringing some of the items she engaged with."""
        while True:
            inside: dict[int, None] = {}
            for turn in self._turns(rng):
                inside.update(dict.fromkeys(turn.tolist()))
                if len(inside) >= self.size:
                    yield np.array(list(inside)[: self.size], np.int64)
                    inside = {}
            if inside:
                yield np.array(list(inside), np.int64)

    def _turns(self, rng: np.random.Generator) -> list[Numbers]:
        mixed = rng.permutation(len(self.user))
        mixed = mixed[np.argsort(self.user[mixed], kind="stable")]
        bounds = np.flatnonzero(np.diff(self.user[mixed], prepend=-1))
        parts = [self.item[rows] for rows in np.split(mixed, bounds[1:])]
        turns = [turn for part in parts for turn in np.array_split(part, max(len(part) // TURN, 1))]
        return [turns[number] for number in rng.permutation(len(turns))]

    def block(self, items: Numbers, most: int, rng: np.random.Generator) -> Block:
        """What was done with some items.

        Args:
            items: [M].
            most: Most examples of a task; more are drawn from.
            rng: Where to draw from.
        """
        column = np.full(int(max(self.data.item.max(initial=0), items.max())) + 1, -1, np.int64)
        column[items] = np.arange(len(items))
        cells = column[self.item] >= 0
        users = self._kept(np.unique(self.user[cells]), rng)
        cells &= np.isin(self.user, users)
        engaged = np.zeros((len(users), len(items)), np.float32)
        engaged[np.searchsorted(users, self.user[cells]), column[self.item[cells]]] = 1.0
        place = np.full(int(self.data.user.max(initial=0)) + 1, -1, np.int64)
        place[users] = np.arange(len(users))
        inside = np.flatnonzero((column[self.data.item] >= 0) & (place[self.data.user] >= 0))
        at, where = place[self.data.user[inside]], column[self.data.item[inside]]
        others = engaged.sum(1)[at] - engaged[at, where]  # what is left of her history without the item itself
        usable = (others > 0) | self.personas[self.data.user[inside]]
        inside, at, where = inside[usable], at[usable], where[usable]
        tasks = {name: self._examples(name, inside, at, where, most, rng) for name in self.names}
        return Block(items, users, engaged, tasks)

    def _kept(self, users: Numbers, rng: np.random.Generator) -> Numbers:
        """Some of the users [V]: of those with a persona, which has to be encoded, at most half as many as items."""
        told = np.flatnonzero(self.personas[users])
        surplus = max(len(told) - max(self.size // 2, 1), 0)
        return np.delete(users, rng.permutation(told)[:surplus])

    def _examples(
        self, task: str, rows: Numbers, user: Numbers, item: Numbers, most: int, rng: np.random.Generator
    ) -> Examples:
        known = np.flatnonzero(~np.isnan(self.data.values[task][rows]))
        if len(known) > most:
            known = np.sort(rng.choice(known, most, replace=False))
        at = rows[known]
        return Examples(user[known], item[known], self.data.values[task][at], self.data.liked(task)[at])
