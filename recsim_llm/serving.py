"""Finds the running environment that observations come from.

An environment enters itself here when it is reset; an agent that is given observations and nothing else looks here for
the environment it is asked about, so that agents and environments need not import each other. Nothing is copied: what
an environment handed out last stands in its simulator until its next step.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.errors import ConfigError

Rows = NDArray[np.float32]
Numbers = NDArray[np.int64]

MOMENTS = itertools.count(1)
"""Drawn from at every reset and step of every environment: the highest number is the latest."""

GLANCE = 16
"""Numbers of a row that are compared before the whole row is."""

_serials: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
_serial_numbers = itertools.count(1)


def enter(env: Any) -> int:
    """Makes an environment known; returns the number that it alone has in this process."""
    if env not in _serials:
        _serials[env] = next(_serial_numbers)
    return _serials[env]


def leave(env: Any) -> None:
    """Makes an environment unknown: nobody is to be served in it."""
    _serials.pop(env, None)


@dataclass(frozen=True, eq=False)
class Part:
    """Rows of observations that come from one environment.

    Attributes:
        env: The bare environment, scalar or vector.
        rows: [N] which rows.
        lanes: [N] the lanes that they come from.
    """

    env: Any
    rows: Numbers
    lanes: Numbers

    @property
    def whole(self) -> bool:
        """Whether they are all lanes in their order."""
        return len(self.lanes) == self.env.core.lanes and bool((self.lanes == np.arange(len(self.lanes))).all())


@dataclass(frozen=True, eq=False)
class Served:
    """Where B users are who are to be served: the environments that their observations come from.

    Attributes:
        parts: Their environments; each row is in one of them.
        count: B.
    """

    parts: tuple[Part, ...]
    count: int

    @property
    def key(self) -> tuple[tuple[int, bytes], ...]:
        """What tells these users from others in this process."""
        return tuple((enter(part.env), part.lanes.tobytes()) for part in self.parts)

    def gathered(self, read: Callable[[Any], NDArray[Any]]) -> NDArray[Any]:
        """What ``read`` gives of each environment's core, [lanes, ...], for the B users: [B, ...]."""
        if len(self.parts) == 1 and self.parts[0].whole:
            return read(self.parts[0].env.core)
        found = [(part, read(part.env.core)) for part in self.parts]
        out = np.empty((self.count, *found[0][1].shape[1:]), found[0][1].dtype)
        for part, values in found:
            out[part.rows] = values[part.lanes]
        return out

    def available(self) -> NDArray[np.bool_]:
        """Which items are on the shelf, [B, I], or which candidates there are, [B, C]."""
        return self.gathered(lambda core: core.available())

    def candidates(self) -> Numbers:
        """Items [B, C] of the candidate lists, -1 for an empty place."""
        return self.gathered(lambda core: core.candidates)

    def steps(self) -> NDArray[Any]:
        """Steps of the episode so far, [B]; a copy."""
        return self.gathered(lambda core: core.simulator.state.lane["step"].copy())

    def ended(self) -> NDArray[np.bool_]:
        """Whose episode is over and waits for a reset, [B]; a copy."""
        return self.gathered(lambda core: core.simulator.state.lane["ended"].copy()).astype(np.bool_)

    def infos(self, truth: bool) -> dict[str, NDArray[Any]]:
        """Who the users are as infos say it, [B]; with ``truth`` also the latent truth where infos have it."""
        infos = {"user_id": self.gathered(_users)}
        if truth and all(part.env.core.options.truth for part in self.parts):
            infos["truth_appeal"] = self.gathered(lambda core: core.truth()[0])
            infos["truth_value"] = self.gathered(lambda core: core.truth()[1])
        return infos


def whole(env: Any) -> Served:
    """All lanes of an environment of this package, scalar or vector."""
    bare = env.unwrapped
    lanes = np.arange(bare.core.lanes)
    return Served((Part(bare, lanes, lanes),), len(lanes))


def served_by(env: Any) -> Served:
    """All lanes of an environment, whatever wraps it or runs several of it side by side in this process.

    Raises:
        ConfigError: If there is no environment of this package in it.
    """
    found = list(_inside(env))
    if not found:
        raise ConfigError(
            f"no environment of recsim_llm is in this {type(env).__name__} and in this process; serve() takes one that "
            "is, wrapped or in a list of them"
        )
    ends = np.cumsum([bare.core.lanes for bare in found])
    parts = (
        Part(bare, np.arange(end - bare.core.lanes, end), np.arange(bare.core.lanes))
        for bare, end in zip(found, ends.tolist(), strict=True)
    )
    return Served(tuple(parts), int(ends[-1]))


def _inside(env: Any) -> Iterator[Any]:
    """Bare environments inside one: Gymnasium's and Stable-Baselines3's wrappers and lists are looked through."""
    seen: set[int] = set()
    while env is not None and id(env) not in seen:
        seen.add(id(env))
        if isinstance(getattr(env, "envs", None), list | tuple):
            for one in env.envs:
                yield from _inside(one)
            return
        bare = getattr(env, "unwrapped", env)
        if hasattr(bare, "core"):
            yield bare
            return
        env = getattr(env, "venv", None) or getattr(env, "env", None)


def find(rows: Rows, items: int, slate_size: int, preferred: Served | None = None) -> Served | None:
    """The environments whose present observations are ``rows`` [B, P]; None if there are none for some row.

    An environment that handed out the whole of ``rows`` comes before several that handed out a row each, and among
    equals the one that was stepped or reset last. Rows that several lanes have alike are dealt out in order.

    Args:
        rows: Flat observations.
        items: I, of the catalogue; environments with another number are passed over.
        slate_size: K, likewise.
        preferred: Comes first among equals.
    """
    if preferred is not None and preferred.count == len(rows) and _same(preferred.gathered(_present), rows):
        return preferred
    width = rows.shape[1]
    running = [env for env in (ref() for ref in _serials.keyrefs()) if env is not None]
    fitting = [
        env for env in running
        if _present(env.core).shape[1] == width and env.core.items == items and env.core.slate_size == slate_size
    ]  # fmt: skip
    fitting.sort(key=lambda env: -env.core.moment)
    for env in fitting:
        if _same(_present(env.core), rows):
            return whole(env)
    return _by_rows(rows, fitting)


def _by_rows(rows: Rows, running: list[Any]) -> Served | None:
    """The same row by row; the environments are given latest first."""
    rows = rows + np.float32(0.0)  # equal numbers are equal bytes then: -0 becomes 0
    glance = np.linspace(0, rows.shape[1] - 1, GLANCE).astype(np.int64)
    wanted = {row.tobytes() for row in rows[:, glance]}  # rows that only look alike are told apart below
    known: dict[bytes, list[tuple[int, int]]] = {}  # where each whole row was found: environment, lane
    for number, env in enumerate(running):
        present = _present(env.core)
        for lane, row in enumerate(present[:, glance] + np.float32(0.0)):
            if row.tobytes() in wanted:
                known.setdefault((present[lane] + np.float32(0.0)).tobytes(), []).append((number, lane))
    alike: dict[bytes, list[int]] = {}
    for number, row in enumerate(rows):
        alike.setdefault(row.tobytes(), []).append(number)
    dealt: dict[int, list[tuple[int, int]]] = {}
    for content, numbers in alike.items():
        places = known.get(content)
        if places is None:
            return None
        # The latest come first in the list; those that are taken are dealt in the order in which they were stepped.
        latest = sorted(places[: len(numbers)], key=lambda place: (-place[0], place[1]))
        for row, (env, lane) in zip(numbers, itertools.cycle(latest)):
            dealt.setdefault(env, []).append((row, lane))
    parts = [Part(running[env], *np.array(pairs, np.int64).T) for env, pairs in dealt.items()]
    return Served(tuple(sorted(parts, key=lambda part: int(part.rows[0]))), len(rows))


def _present(core: Any) -> Rows:
    """[lanes, P] what an environment handed out last."""
    rows: Rows = core.simulator.outcome.observation
    return rows


def _users(core: Any) -> Numbers:
    """[lanes] users as infos name them: -1 for those who opted out."""
    lane = core.simulator.state.lane
    users: Numbers = lane["user"].astype(np.int64)
    if core.variant.opt_out > 0:
        users[lane["opted_out"]] = -1
    return users


def _same(present: Rows, rows: Rows) -> bool:
    """Whether they are equal; the first row tells most that are not."""
    return present.shape == rows.shape and np.array_equal(present[0], rows[0]) and np.array_equal(present, rows)
