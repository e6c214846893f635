"""Serving: an agent finds the environment that it is asked about, and remembers the episodes of its users."""

from __future__ import annotations

import warnings
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm import serving
from recsim_llm.agents.core.env_runner import EnvironmentSpec, Flags, Floats, Slates, chosen_from, places
from recsim_llm.errors import ConfigError
from recsim_llm.serving import Served

if TYPE_CHECKING:
    from recsim_llm.agents.core.base import Agent

MOST_UNKNOWN = 8
"""Numbers of lanes for which something is remembered though their environment is not known."""


class UnknownEnvironmentWarning(UserWarning):
    """An agent cannot tell which environment it is asked about, and so not what is on the shelf."""


@dataclass(frozen=True)
class Visit:
    """The last time that B users were served.

    Attributes:
        obs: [B, P] what was observed.
        steps: [B] steps of their episodes by then; None where the environment is not known.
        episode_start: [B] who began an episode.
        before: The agent's state by then.
        after: Its state afterwards.
    """

    obs: Floats
    steps: NDArray[Any] | None
    episode_start: Flags
    before: Any
    after: Any


class ServingSession:
    """Keeps the state that :meth:`Agent.act` hands on, for each environment, where nobody else does.

    Args:
        name: The agent's.
        env_spec: Its setting.
    """

    def __init__(self, name: str, env_spec: EnvironmentSpec) -> None:
        self._name, self._env_spec = name, env_spec
        self._named: Served | None = None
        self._warned = False
        self._visits: weakref.WeakKeyDictionary[Any, dict[Any, Visit]] = weakref.WeakKeyDictionary()
        self._unknown: dict[Any, Visit] = {}

    def name(self, env: Any) -> None:
        """Takes an environment to be the one that observations come from, also where they were altered on the way."""
        served = serving.served_by(env)
        for part in served.parts:
            if part.env.core.items != self._env_spec.choices or part.env.core.slate_size != self._env_spec.slate_size:
                raise ConfigError(
                    f"agent {self._name} knows {self._env_spec.choices} items and slates of "
                    f"{self._env_spec.slate_size}, the environment to serve has {part.env.core.items} and "
                    f"{part.env.core.slate_size}; make another agent"
                )
        self._named = served

    def find(self, obs: Floats) -> Served | None:
        """Where observations [B, P] come from; None if that is not known."""
        found = serving.find(obs, self._env_spec.choices, self._env_spec.slate_size, self._named)
        if found is None and self._named is not None and self._named.count == len(obs):
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
                stacklevel=5,
            )

    def resume(self, obs: Floats, served: Served | None, given: Flags | None) -> tuple[Any, Flags]:
        """The state to go on with and who begins an episode, [B].

        Args:
            obs: Observations [B, P].
            served: Where they come from.
            given: [B] who begins an episode; None reads it off the environment or the observations.
        """
        visit = self._book(served).get(_key(served, obs))
        everyone = np.ones(len(obs), np.bool_)
        if visit is None:
            return None, everyone
        steps = None if served is None else served.steps()
        unmoved = steps is None or (visit.steps is not None and np.array_equal(steps, visit.steps))
        if unmoved and np.array_equal(obs, visit.obs):  # asked again: what was shown is not looked at twice
            episode_start = visit.episode_start if given is None else visit.episode_start | given
        else:
            episode_start = self._begins(obs, steps) if given is None else given
            if steps is not None and visit.steps is not None and served is not None:
                # Feedback to a slate that somebody else chose would be taken for feedback to the last one from here.
                still = (steps == visit.steps) & served.ended()  # finished lanes that nobody resets
                episode_start = episode_start | ~((steps == visit.steps + 1) | still)
            return (None, everyone) if episode_start.all() else (visit.after, episode_start)
        return (None, everyone) if episode_start.all() else (visit.before, episode_start)

    def keep(self, obs: Floats, served: Served | None, episode_start: Flags, before: Any, after: Any) -> None:
        """Remembers the state after users were served."""
        book, key = self._book(served), _key(served, obs)
        steps = None if served is None else served.steps()
        book.pop(key, None)
        book[key] = Visit(obs.copy(), steps, episode_start, before, after)
        most = MOST_UNKNOWN if served is None else served.parts[0].env.core.lanes + 1  # one by one, and all at once
        for oldest in list(book)[:-most]:
            del book[oldest]

    def _book(self, served: Served | None) -> dict[Any, Visit]:
        """Visits to an environment; they are forgotten when it is gone."""
        return self._unknown if served is None else self._visits.setdefault(served.parts[0].env, {})

    def _begins(self, rows: Floats, steps: NDArray[Any] | None) -> Flags:
        if steps is not None:
            return np.asarray(steps == 0)
        if "start" in self._env_spec.context_names:
            return np.asarray(self._env_spec.context("start", rows) == 1.0)
        return np.zeros(len(rows), np.bool_)


def _key(served: Served | None, rows: Floats) -> Any:
    return len(rows) if served is None else served.key


def predict(
    agent: Agent, observation: Any, state: Any, episode_start: Any, deterministic: bool, action_masks: Any
) -> tuple[NDArray[np.int64], Any]:
    """Runs :meth:`Agent.predict`; arguments as there."""
    obs = agent.env_spec.flat(observation)
    single, obs = obs.ndim == 1, np.atleast_2d(obs)
    given = None if episode_start is None else np.atleast_1d(np.asarray(episode_start, np.bool_))
    if given is not None and given.shape != (len(obs),):
        raise ConfigError(f"episode_start has shape {given.shape}, expected ({len(obs)},)")
    agent.where = served = agent.service.find(agent.env_spec.handed_out(observation))
    try:
        if agent.shown is None and served is not None:
            agent.observe(served.infos(agent.needs_truth))
        listed = agent.candidates(obs)
        action_mask = _on_shelf(agent, action_masks, len(obs), listed)
        if own := state is None:
            state, episode_start = agent.service.resume(obs, served, given)
        else:
            episode_start = np.zeros(len(obs), np.bool_) if given is None else given
        slates, after = agent.choose(obs, state, episode_start, deterministic, action_mask, agent.serving_rng)
    finally:
        agent.where = agent.shown = None
    if own:
        agent.service.keep(obs, served, episode_start, state, after)
    numbers = slates if listed is None else places(listed, slates)
    actions = numbers[:, 0] if agent.env_spec.slate_size == 1 else numbers
    return (actions[0] if single else actions), after


def _on_shelf(agent: Agent, masks: Any, lanes: int, listed: Slates | None) -> Flags:
    """Items that can be shown, [B, I]: as the masks say, as the environment has it, or all with a warning."""
    items = agent.env_spec.items
    choices = items if listed is None else agent.env_spec.candidates
    if masks is None:
        if listed is not None:
            return chosen_from(listed, items)
        if agent.where is not None:
            return agent.where.available()
        agent.service.warn()
        return np.ones((lanes, items), np.bool_)
    given = np.asarray(masks, np.bool_)
    sizes = (choices, choices * agent.env_spec.slate_size)
    if given.size not in (*sizes, *(lanes * size for size in sizes)):
        raise ConfigError(f"action_masks has shape {given.shape}, expected ({lanes}, {choices})")
    mask = np.broadcast_to(given.reshape(-1, given.shape[-1])[:, :choices], (lanes, choices))
    return mask if listed is None else chosen_from(np.where(mask, listed, -1), items)
