"""Base of agents that gather a log of interactions and fit a model to it."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.cooldown import CLICK, CooldownConfig
from recsim_llm.agents.common.interaction_log import Log, LogBook
from recsim_llm.agents.common.item_stats import EventReward, ItemCounts
from recsim_llm.agents.common.sampling import uniform_propensity, uniform_slates
from recsim_llm.agents.common.top_k import Chances, top_k
from recsim_llm.agents.core import agent_file as saving
from recsim_llm.agents.core.base import Agent
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Flags, Floats, Slates, Transition, like
from recsim_llm.agents.logged.episode_history import EpisodeHistory as EpisodeHistory
from recsim_llm.agents.logged.episode_history import remember
from recsim_llm.errors import ConfigError, DataError

LOG, MODEL = "log/", "model/"
"""Names of saved arrays begin with these."""


@dataclass(frozen=True)
class LoggedConfig(CooldownConfig):
    """Settings of agents that learn from a log.

    Attributes:
        explore: Share of steps that show a uniform random slate while the log is gathered; the others show what was
            clicked most often so far. What is learnt is served afterwards.
        online: Serve what was learnt while learning, and learn on from that.
        explore_online: Share of steps that show a uniform random slate when online, after the first fit; before it all
            do.
        refit: Steps of users between two updates of the model when online [steps].
        strength: Looks by which an item's click rate is drawn towards the mean of all.
        history: H, clicks that are remembered of an episode.
    """

    explore: float = 1.0
    online: bool = False
    explore_online: float = 0.1
    refit: int = 2_000
    strength: float = 5.0
    history: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(0.0, 1.0, "explore", "explore_online")
        self._within(1, 10**9, "refit")
        self._within(1e-6, 1e9, "strength")
        self._within(1, 10_000, "history")


class LoggedAgent(Agent):
    """Base of agents that fit a model to a log.

    Subclasses write :meth:`blank`, :meth:`fit`, :meth:`scores` and :meth:`learnt`; those that can learn from new rows
    alone also :meth:`absorb`. A fit may depend on the log, the settings and ``fit_seed`` only, so that training in
    parts is training in one go. Items that are not in the log have the mean click rate and no similarity to others.

    What these models foretell is the click, from clicks and what was left. Whether clicks are worth it is seen from the
    rewards in the log: where they earn less than looks that end without one, what is least likely to be clicked is
    served. How much each item's clicks earn counts where an agent says so.

    Attributes:
        book: The log so far.
        counts: Looks and clicks of each item in it.
        fitted: Rows of the log that the model was fitted to.
        fit_seed: Seed of whatever a fit draws.
        event_reward: What clicks earn, and looks without one.
    """

    foretells_reward: ClassVar[bool] = False
    """Whether scores are rewards already, in place of clicks."""
    Config: ClassVar[type[Config]] = LoggedConfig
    State: ClassVar[type | None] = EpisodeHistory
    config: LoggedConfig

    def setup(self, rng: np.random.Generator) -> None:
        """No log; an unfitted model."""
        self.ties = rng.random(self.env_spec.items) * 1e-9
        self.fit_seed = int(rng.integers(2**62))
        self.book = LogBook()
        self.counts = ItemCounts(self.env_spec.items)
        self.event_reward = EventReward()
        self.fitted = 0
        self.blank(0)

    @abc.abstractmethod
    def blank(self, users: int) -> None:
        """Sets the model to one that was not fitted, its arrays of the sizes for so many users of a log."""

    @abc.abstractmethod
    def fit(self, log: Log) -> None:
        """Fits the model to a log anew."""

    def absorb(self, log: Log, start: int) -> None:
        """Takes in the rows of a log from ``start`` on, those before being known; fits anew where not overridden."""
        self.fit(log)

    @abc.abstractmethod
    def scores(self, obs: Floats, session: Any) -> NDArray[np.floating]:
        """Scores [B, I], the higher the better, from observations [B, P] and the state of B lanes."""

    @abc.abstractmethod
    def learnt(self) -> dict[str, NDArray[Any]]:
        """The model's arrays by name, of the sizes that :meth:`blank` makes; they are filled when a file is loaded."""

    def sound(self) -> bool:
        """Whether numbers in the model's arrays that stand for items or users are ones: compiled code trusts them."""
        return True

    def fit_rng(self, *more: int) -> np.random.Generator:
        """The stream of a fit: the same at every fit, or for the same ``more``."""
        return np.random.Generator(np.random.PCG64([self.fit_seed, *more]))

    def fit_log(self, log: Log) -> Self:
        """Forgets the log so far and fits the model to another, for example one of your own (:meth:`Log.of`).

        Raises:
            DataError: If it names items that the catalogue does not have.
        """
        self._take(log, "the log")
        self._fit()
        return self

    def score_histories(self, history: Slates, obs: Floats | None = None) -> NDArray[np.floating]:
        """Scores [N, I] for users who clicked ``history`` [N, H] (-1: none; the newest last), as in a log's tests.

        Args:
            history: [N, H] items.
            obs: Observations [N, P]; zeros if None.
        """
        if obs is None:
            obs = np.zeros((len(history), self.env_spec.width), np.float32)
        return self.scores(obs, self.session_of(history))

    def met(self) -> NDArray[np.int64] | None:
        """[B] users who are served now as infos name them; None where no infos were shown."""
        if self.shown is None or "user_id" not in self.shown:
            return None
        return np.atleast_1d(np.asarray(self.shown["user_id"], np.int64))

    def session_of(self, history: Slates) -> Any:
        """The state of lanes whose users clicked ``history`` [N, H] and looked at nothing else."""
        width = self.config.history
        session = EpisodeHistory.empty(len(history), self.env_spec, width)
        kept = min(width, history.shape[1])
        aligned = np.take_along_axis(history, np.argsort(history >= 0, axis=1, kind="stable"), 1)
        session.history[:, width - kept :] = aligned[:, history.shape[1] - kept :]
        return session

    def act(
        self,
        obs: Floats,
        state: Any,
        episode_start: Flags,
        deterministic: bool,
        action_mask: Flags,
        rng: np.random.Generator,
    ) -> tuple[Slates, Any]:
        """The best scores; when online, with some uniform slates among them."""
        session = self.session(obs, state, episode_start)
        rested = self.cooldown.eligible(session.memory, action_mask)
        slates = top_k(self.served(obs, session) + self.ties, rested, self.env_spec.slate_size)
        if self.config.online and not deterministic:
            slates, self.propensity = sometimes_uniform(slates, rested, self._share(), rng)
        return slates, session.noting(slates)

    def relevance(
        self, obs: Floats, state: Any, episode_start: Flags, action_mask: Flags
    ) -> NDArray[np.floating] | None:
        """The scores by which it serves."""
        return self.served(obs, self.session(obs, state, episode_start))

    def served(self, rows: Floats, session: Any) -> NDArray[np.floating]:
        """The scores, their sign turned where clicks earn less than looks without one, [B, I]."""
        scores = self.scores(rows, session)
        return scores if self.foretells_reward or self.event_reward.sign > 0.0 else -scores

    def session(self, obs: Floats, state: Any, episode_start: Flags) -> Any:
        """The state with the feedback in observations [B, P] taken in; what :meth:`scores` gets."""
        memory = self.cooldown.recall(obs, state.memory if isinstance(state, EpisodeHistory) else state, episode_start)
        if not isinstance(state, EpisodeHistory):
            return EpisodeHistory(memory, EpisodeHistory.empty(len(obs), self.env_spec, self.config.history).history)
        if state.history.shape != (len(obs), self.config.history) or state.history.dtype != np.int64:
            raise ConfigError(f"state must be what predict() returned for the same {len(obs)} lanes")
        history = np.empty_like(state.history)
        clicked = (self.env_spec.feedback(obs)[:, :, CLICK] > 0) & (state.memory.last >= 0)
        remember(state.history, state.memory.last, clicked, np.ascontiguousarray(episode_start), history)
        return EpisodeHistory(memory, history)

    def interact(self) -> Transition:
        """One step of every lane; offline under a mixture of uniform slates and the most clicked items."""
        if self.config.online:
            return super().interact()
        lanes, share, slate_size = self.runner, self.config.explore, self.env_spec.slate_size
        action_mask = lanes.available()
        if share >= 1.0:
            self.propensity = uniform_propensity(action_mask, slate_size)
            return lanes.step(uniform_slates(action_mask, slate_size, self.rng), None, self.propensity)
        session = self.session(lanes.observation, self.state, lanes.fresh)
        popular = top_k(
            self.event_reward.sign * self.popularity() + self.ties,
            self.cooldown.eligible(session.memory, action_mask),
            slate_size,
        )
        slates, self.propensity = sometimes_uniform(popular, action_mask, share, self.rng)
        self.state = session.noting(slates)
        return lanes.step(slates, self.state, self.propensity)

    def popularity(self) -> NDArray[np.float64]:
        """[I] click rates, drawn towards their mean."""
        return self.counts.rate(self.config.strength)

    def update(self, transition: Transition) -> None:
        """Adds the slots that were looked at to the log; when online, updates the model now and then."""
        before = len(self.book)
        self.book.add(transition)
        self._count_rows(self.book.log[before:])
        done, every = self.num_timesteps, self.config.refit
        if self.config.online and (done + int(transition.valid.sum())) // every > done // every:
            self._fit()

    def finish(self) -> None:
        """Fits the model to the log; when online that was done on the way."""
        if not self.config.online:
            self._fit()

    def _fit(self) -> None:
        if len(self.book) == self.fitted:
            return
        log = self.book.log
        if self.fitted and self.config.online:
            self.absorb(log, self.fitted)
        else:
            self.fit(log)
        self.fitted = len(log)

    def _share(self) -> float:
        return self.config.explore_online if self.fitted else 1.0

    def _take(self, log: Log, source: object) -> None:
        """Takes over a log, its model not fitted."""
        if len(log) and log.item.max() >= self.env_spec.items:
            raise DataError(f"{source} names item {log.item.max()}, the catalogue has {self.env_spec.items}")
        self.book, self.counts, self.fitted = LogBook(log), ItemCounts(self.env_spec.items), 0
        self.event_reward = EventReward()
        self._count_rows(log)

    def _count_rows(self, log: Log) -> None:
        count_rows(self.counts, log)
        self.event_reward.add(log.click > 0, log.reward)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The log, the model and the order of ties."""
        return {
            "ties": self.ties,
            **{LOG + name: column for name, column in self.book.log.arrays().items()},
            **{MODEL + name: array for name, array in self.learnt().items()},
        }  # fmt: skip

    def extra(self) -> dict[str, Any]:
        """How many rows of the log are in the model."""
        return {"fitted": self.fitted}

    def restore(self, arrays: dict[str, NDArray[Any]], extra: dict[str, Any], source: object) -> None:
        """Takes over the log and the model."""
        columns = {name.removeprefix(LOG): array for name, array in arrays.items() if name.startswith(LOG)}
        log, fitted = Log.from_arrays(columns, source), extra.get("fitted")
        if set(extra) != {"fitted"} or type(fitted) is not int or not 0 <= fitted <= len(log):
            raise DataError(f"{source}: fitted must be a number of rows of the log, got {extra}")
        self._take(log, source)
        self.fitted = fitted
        self.blank(len(np.unique(log.user[:fitted])))
        saving.fill(self.arrays(), arrays, source)
        if not self.sound():
            raise DataError(f"{source}: the model names items or users that there are not")

    def snapshot(self) -> dict[str, Any]:
        """Where its lanes stand, their places in the log included."""
        lanes = super().snapshot()
        return {**lanes, "log": self.book.lanes} if lanes else {}

    def resume(self, arrays: dict[str, NDArray[Any]], rest: dict[str, Any]) -> None:
        """Goes on from a snapshot."""
        self.book.lanes = like(np.zeros((self.runner.count, 4), np.int64), arrays["log"], "log").copy()
        super().resume(arrays, rest)


def count_rows(counts: ItemCounts, log: Log) -> None:
    """Adds the looks and clicks of a log."""
    counts.looks += np.bincount(log.item, minlength=len(counts.looks))
    counts.gains += np.bincount(log.item, weights=log.click, minlength=len(counts.looks))


def sometimes_uniform(
    slates: Slates, action_mask: Flags, share: float, rng: np.random.Generator
) -> tuple[Slates, Chances]:  # fmt: skip
    """A share of lanes gets a uniform random slate in place of its own, with the probability of what is shown.

    Args:
        slates: [B, K], without chance.
        action_mask: [B, I] items of uniform slates.
        share: e, probability of a uniform slate.
        rng: Where to draw from.

    Returns:
        Slates [B, K], and the probability of each slot given the slots before it [B, K]. With u_k the probability of
        the first k slots under uniform slates and g_k whether they are the given slate's, it is
        (e u_k + (1 - e) g_k) / (e u_k-1 + (1 - e) g_k-1).
    """
    explored = rng.random(len(slates)) < share
    slate_size = slates.shape[1]
    shown = np.where(explored[:, None], uniform_slates(action_mask, slate_size, rng), slates)
    drawable = np.logical_and.accumulate(possible(shown, action_mask), axis=1)
    whole = share * np.cumprod(uniform_propensity(action_mask, slate_size), 1) * drawable
    whole += (1.0 - share) * np.logical_and.accumulate(shown == slates, axis=1)
    before = np.concatenate([np.ones((len(shown), 1)), whole[:, :-1]], 1)
    chances: Chances = whole / before
    return shown, chances


def possible(slates: Slates, action_mask: Flags) -> Flags:
    """[B, K] whether a uniform slate can have this item here: an allowed one, or one to fill up when none is left."""
    count = np.count_nonzero(action_mask, axis=1)[:, None]
    inside: Flags = np.take_along_axis(action_mask, slates, 1)
    filling: Flags = np.arange(slates.shape[1]) >= count
    return inside | filling
