"""Blend of popularity and a personal score, whose weight may be chosen on held-out users."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.cooldown import CLICK, SKIP
from recsim_llm.agents.common.interaction_log import Log
from recsim_llm.agents.common.item_stats import ItemCounts
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Flags, Floats, Slates
from recsim_llm.agents.logged.base import LoggedAgent, LoggedConfig, count_rows
from recsim_llm.agents.logged.episode_history import EpisodeHistoryWithSkips, remember
from recsim_llm.agents.logged.user_item_matrix import CALM, UserItemMatrix
from recsim_llm.simulator.jit import jit

Scores = NDArray[np.floating]
LEAST_SPREAD = 1e-9

HELD_OUT = 3
"""One of so many users is held out to find a weight."""

LEAST_ROWS, MOST_ROWS, CHUNK = 50, 4_000, 512
"""Slots of held-out users by which a weight is found, and so many of them at a time."""

MOST_WEIGHT = 5.0


@dataclass(frozen=True)
class PopularityBlendConfig(LoggedConfig):
    """Settings of agents that blend.

    Attributes:
        personal: w, weight of the personal score against popularity, both in standard deviations over items.
        halfway: m, clicks in this episode after which the personal score has half its weight.
    """

    personal: float = 1.0
    halfway: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(0.0, 1e6, "personal", "halfway")


class PopularityBlendAgent(LoggedAgent):
    """Base of agents whose score is popularity plus a personal part that grows with the clicks of a session.

    score = z(popularity) + w n / (n + m) z(personal), n the clicks of this episode, z the standard score over items.
    Subclasses write :meth:`personal` in place of :meth:`scores`.
    """

    Config: ClassVar[type[Config]] = PopularityBlendConfig
    config: PopularityBlendConfig

    @abc.abstractmethod
    def personal(self, rows: Floats, session: Any) -> Scores:
        """The personal part [B, I], on any scale; rows that are all alike say nothing."""

    def trust(self, rows: Floats, session: Any) -> NDArray[np.floating]:
        """[B] weight of the personal part, 0 to 1."""
        clicks = session.clicks()
        share: NDArray[np.float64] = clicks / np.maximum(clicks + self.config.halfway, LEAST_SPREAD)
        return share

    def scores(self, obs: Floats, session: Any) -> Scores:
        """Popularity and the personal part."""
        return self._blend(obs, session, self.config.personal)

    def _blend(self, rows: Floats, session: Any, personal: float) -> Scores:
        weight = personal * self.trust(rows, session)
        blend = standardised(self.personal(rows, session), weight)
        blend += standardised(self.popularity()[None], np.ones(1))
        return blend


def standardised(scores: Scores, weight: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rows [B, I] less their mean, divided by their standard deviation, times ``weight`` [B]; rows alike are 0."""
    out = np.empty(scores.shape)
    _standardise(scores, np.asarray(weight, np.float64), out)
    return out


@jit
def _standardise(scores: Scores, weight: NDArray[np.float64], out: NDArray[np.float64]) -> None:
    items = scores.shape[1]
    for b in range(scores.shape[0]):
        mean, spread = 0.0, 0.0
        for i in range(items):
            mean += scores[b, i]
        mean /= items
        for i in range(items):
            spread += (scores[b, i] - mean) ** 2
        spread = np.sqrt(spread / items)
        scale = weight[b] / spread if spread > LEAST_SPREAD else 0.0
        for i in range(items):
            out[b, i] = (scores[b, i] - mean) * scale


def newest(history: Slates) -> Slates:
    """The last columns of histories [B, H]: as many as the longest needs, at least one."""
    count = int((history >= 0).sum(1).max(initial=0))
    return np.ascontiguousarray(history[:, history.shape[1] - max(count, 1) :])


@jit
def sum_rows(items: Slates, values: Floats, matrix: Floats, out: Floats) -> None:
    """Writes the sums [B, I] of the rows of a matrix [I, I] that ``items`` [B, N] name, times ``values`` [B, N]."""
    for b in range(items.shape[0]):
        out[b, :] = np.float32(0.0)
        for n in range(items.shape[1]):
            j, value = items[b, n], values[b, n]
            if j >= 0:
                for i in range(matrix.shape[1]):
                    out[b, i] += value * matrix[j, i]


@dataclass(frozen=True)
class HeldOutBlendConfig(PopularityBlendConfig):
    """Settings of agents that find the weight of the personal part by themselves.

    Attributes:
        personal: w, as for others, where it is not tuned.
        tuned: Find w by the clicks of users of the log that the model was not fitted to.
        looks: Learn from what was looked at and left too; False: from clicks alone, as in the papers. A log in which
            everything was clicked is used as if this were False.
    """

    tuned: bool = True
    looks: bool = True


class HeldOutBlendAgent(PopularityBlendAgent):
    """Base of agents that learn from clicks alone, of which there may be too few to say anything of a user.

    Before each fit anew, the model is fitted to two thirds of the users; for the others, clicks are regressed on
    the two parts of the score. The ratio of the coefficients, that of the personal part less its standard error, is
    the weight w: 0 where the log is too small to show that the personal part helps. Subclasses write
    :meth:`blank_model`, :meth:`fit_model` and :meth:`model_arrays`, and may write :meth:`absorb_model`.

    Attributes:
        weight: [1] w.
        weighed: [1] rows of the log by which it was found.
    """

    Config: ClassVar[type[Config]] = HeldOutBlendConfig
    State: ClassVar[type | None] = EpisodeHistoryWithSkips
    config: HeldOutBlendConfig

    @abc.abstractmethod
    def blank_model(self, users: int) -> None:
        """As :meth:`blank`."""

    @abc.abstractmethod
    def fit_model(self, log: Log) -> None:
        """As :meth:`fit`."""

    def absorb_model(self, log: Log, start: int) -> None:
        """As :meth:`absorb`."""
        self.fit_model(log)

    @abc.abstractmethod
    def model_arrays(self) -> dict[str, NDArray[Any]]:
        """As :meth:`learnt`."""

    def user_item(self, log: Log) -> UserItemMatrix:
        """What the users of a log did, by the click rates of the log."""
        counts = ItemCounts(self.env_spec.items)
        count_rows(counts, log)
        self.rate = counts.rate(self.config.strength)
        self.looked[0] = self.config.looks and not (log.click > 0).all()
        return UserItemMatrix.of(log, self.rate, bool(self.looked[0]))

    def session(self, obs: Floats, state: Any, episode_start: Flags) -> Any:
        """The session, with what was looked at and left in it."""
        session = super().session(obs, state, episode_start)
        left = np.full_like(session.history, -1)
        if isinstance(state, EpisodeHistoryWithSkips):
            signals = self.env_spec.feedback(obs)
            passed = (signals[:, :, SKIP] > 0) & (signals[:, :, CLICK] <= 0) & (state.memory.last >= 0)
            remember(state.left, state.memory.last, passed, np.ascontiguousarray(episode_start), left)
        return EpisodeHistoryWithSkips(session.memory, session.history, left)

    def session_of(self, history: Slates, left: Slates | None = None) -> Any:
        """The state of lanes whose users clicked ``history`` [N, H], and looked at ``left`` [N, H] in vain."""
        session = super().session_of(history)
        lefts = np.full_like(session.history, -1) if left is None else super().session_of(left).history
        return EpisodeHistoryWithSkips(session.memory, session.history, lefts)

    def opinions(self, session: Any) -> tuple[Slates, Floats]:
        """What users of sessions think of the items that they clicked and left.

        Returns:
            Items [B, N] and values [B, N] as in :class:`UserItemMatrix`; -1 and 0 for none.
        """
        if not self.looked[0]:
            history = newest(session.history)
            return history, (history >= 0).astype(np.float32)
        history, left = newest(session.history), newest(session.left)
        items = np.concatenate([history, left], 1)
        clicked = np.arange(items.shape[1]) < history.shape[1]
        rest = np.where(items >= 0, clicked - self.rate[items], 0.0)
        mean = rest.sum(1) / ((items >= 0).sum(1) + CALM)
        values: Floats = np.where(items >= 0, rest - mean[:, None], 0.0).astype(np.float32)
        return np.ascontiguousarray(items), values

    def blank(self, users: int) -> None:
        """An unfitted model and no weight for it."""
        self.rate, self.looked = np.zeros(self.env_spec.items), np.zeros(1, np.bool_)
        self.weight, self.weighed = np.zeros(1), np.zeros(1, np.int64)
        self.blank_model(users)

    def fit(self, log: Log) -> None:
        """Finds the weight, then fits the model to all users."""
        self.weight[0] = self._weigh(log) if self.config.tuned else self.config.personal
        self.weighed[0] = len(log)
        self.fit_model(log)

    def absorb(self, log: Log, start: int) -> None:
        """Takes in new rows; all is fitted anew whenever the log has doubled."""
        if self.config.tuned and len(log) >= 2 * self.weighed[0]:
            self.fit(log)
        else:
            self.absorb_model(log, start)

    def scores(self, obs: Floats, session: Any) -> Scores:
        """Popularity and the personal part."""
        return self._blend(obs, session, float(self.weight[0]))

    def learnt(self) -> dict[str, NDArray[Any]]:
        """The model, and its weight."""
        return {
            **self.model_arrays(),
            "weight": self.weight,
            "weighed": self.weighed,
            "rate": self.rate,
            "looked": self.looked,
        }

    def _weigh(self, log: Log) -> float:
        """The weight found by held-out users; leaves the model fitted to the others."""
        rng = self.fit_rng(HELD_OUT)
        users = np.unique(log.user)
        held = np.isin(log.user, rng.permutation(users)[: len(users) // HELD_OUT])
        if len(users) < HELD_OUT:
            return 0.0
        train, test = log[~held], log[held]
        history, left = (test.before(chosen, self.config.history) for chosen in (test.click > 0, test.click <= 0))
        told = np.flatnonzero((history >= 0).any(1) & ~(history == test.item[:, None]).any(1))
        told = rng.permutation(told)[:MOST_ROWS]
        if len(told) < LEAST_ROWS:
            return 0.0
        self.fit_model(train)
        counts = ItemCounts(self.env_spec.items)
        count_rows(counts, train)
        popular = standardised(counts.rate(self.config.strength)[None], np.ones(1))[0]
        item, personal = test.item[told], np.zeros(len(told))
        for part in np.array_split(np.arange(len(told)), -(-len(told) // CHUNK)):
            session = self.session_of(history[told[part]], left[told[part]])
            rows = np.zeros((len(part), self.env_spec.width), np.float32)
            scores = standardised(self.personal(rows, session), self.trust(rows, session))
            personal[part] = scores[np.arange(len(part)), item[part]]
        return ratio(popular[item], personal, test.click[told].astype(np.float64))


def ratio(popular: NDArray[np.float64], personal: NDArray[np.float64], click: NDArray[np.float64]) -> float:
    """How much more a personal score says of clicks than popularity does, cautiously: 0 to ``MOST_WEIGHT``.

    Args:
        popular: [N] standard score of the items' popularity.
        personal: [N] personal scores.
        click: [N] clicks.

    Returns:
        Ratio of the coefficients of a least-squares fit, that of the personal score less its standard error.
    """
    x = np.stack([np.ones(len(click)), popular, personal], 1)
    if np.linalg.matrix_rank(x) < x.shape[1]:
        return 0.0
    inverse = np.linalg.inv(x.T @ x)
    found = inverse @ (x.T @ click)
    noise = np.square(click - x @ found).sum() / max(len(click) - x.shape[1], 1)
    cautious = max(found[2] - np.sqrt(noise * inverse[2, 2]), 0.0)
    return float(min(cautious / max(found[1], LEAST_SPREAD), MOST_WEIGHT))
