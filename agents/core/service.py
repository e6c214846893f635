"""Whom an agent serves: the environments it is asked about, and what it remembers of each user's episode."""

from __future__ import annotations

import warnings
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm import serving
from recsim_llm.agents.core.env_runner import Flags, Floats, Setting
from recsim_llm.errors import ConfigError
from recsim_llm.serving import Served

MOST_UNKNOWN = 8
"""Numbers of lanes for which something is remembered though their environment is not known."""


class UnknownEnvironmentWarning(UserWarning):
    """An agent cannot tell which environment it is asked about, and so not what is on the shelf."""


@dataclass(frozen=True)
class Visit:
    """The last time that B users were served.

    Attributes:
        rows: [B, P] what was observed.
        steps: [B] steps of their episodes by then; None where the environment is not known.
        starts: [B] who began an episode.
        before: The agent's state by then.
        after: Its state afterwards.
    """

    rows: Floats
    steps: NDArray[Any] | None
    starts: Flags
    before: Any
    after: Any


class Service:
    """Keeps the state that :meth:`Agent.act` hands on, for each environment, where nobody else does.

    Args:
        name: The agent's.
        setting: Its setting.
    """

    def __init__(self, name: str, setting: Setting) -> None:
        self._name, self._setting = name, setting
        self._named: Served | None = None
        self._warned = False
        self._visits: weakref.WeakKeyDictionary[Any, dict[Any, Visit]] = weakref.WeakKeyDictionary()
        self._unknown: dict[Any, Visit] = {}

    def name(self, env: Any) -> None:
        """Takes an environment to be the one that observations come from, also where they were altered on the way."""
        served = serving.served_by(env)
        for part in served.parts:
            if part.env.core.items != self._setting.items or part.env.core.slots != self._setting.slots:
                raise ConfigError(
                    f"agent {self._name} knows {self._setting.items} items and slates of {self._setting.slots}, the "
                    f"environment to serve has {part.env.core.items} and {part.env.core.slots}; make another agent"
                )
        self._named = served

    def find(self, rows: Floats) -> Served | None:
        """Where observations [B, P] come from; None if that is not known."""
        found = serving.find(rows, self._setting.items, self._setting.slots, self._named)
        if found is None and self._named is not None and self._named.count == len(rows):
            return self._named
        return found

    def warn(self) -> None:
        """Says once that every item is allowed."""
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"agent {self._name} allows every item, also those that are not on the shelf, as no environment in "
                "this process has these observations now (it runs in another process, or a wrapper altered them); "
                "pass action_masks=, or name the environment once: agent.serve(env)",
                UnknownEnvironmentWarning,
                stacklevel=4,
            )

    def resume(self, rows: Floats, served: Served | None, given: Flags | None) -> tuple[Any, Flags]:
        """The state to go on with and who begins an episode, [B].

        Args:
            rows: Observations [B, P].
            served: Where they come from.
            given: [B] who begins an episode; None reads it off the environment or the observations.
        """
        visit = self._book(served).get(_key(served, rows))
        everyone = np.ones(len(rows), np.bool_)
        if visit is None:
            return None, everyone
        steps = None if served is None else served.steps()
        unmoved = steps is None or (visit.steps is not None and np.array_equal(steps, visit.steps))
        if unmoved and np.array_equal(rows, visit.rows):  # asked again: what was shown is not looked at twice
            starts = visit.starts if given is None else visit.starts | given
        else:
            starts = self._begins(rows, steps) if given is None else given
            if steps is not None and visit.steps is not None and served is not None:
                # Feedback to a slate that somebody else chose would be taken for feedback to the last one from here.
                still = (steps == visit.steps) & served.ended()  # finished lanes that nobody resets
                starts = starts | ~((steps == visit.steps + 1) | still)
            return (None, everyone) if starts.all() else (visit.after, starts)
        return (None, everyone) if starts.all() else (visit.before, starts)

    def keep(self, rows: Floats, served: Served | None, starts: Flags, before: Any, after: Any) -> None:
        """Remembers the state after users were served."""
        book, key = self._book(served), _key(served, rows)
        steps = None if served is None else served.steps()
        book.pop(key, None)
        book[key] = Visit(rows.copy(), steps, starts, before, after)
        most = MOST_UNKNOWN if served is None else served.parts[0].env.core.lanes + 1  # one by one, and all at once
        for oldest in list(book)[:-most]:
            del book[oldest]

    def _book(self, served: Served | None) -> dict[Any, Visit]:
        """Visits to an environment; they are forgotten when it is gone."""
        return self._unknown if served is None else self._visits.setdefault(served.parts[0].env, {})

    def _begins(self, rows: Floats, steps: NDArray[Any] | None) -> Flags:
        if steps is not None:
            return np.asarray(steps == 0)
        if "start" in self._setting.context_names:
            return np.asarray(self._setting.context("start", rows) == 1.0)
        return np.zeros(len(rows), np.bool_)


def _key(served: Served | None, rows: Floats) -> Any:
    return len(rows) if served is None else served.key
