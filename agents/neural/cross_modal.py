"""Base of cross-modal recommenders: text and image columns, and user vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.interaction_log import Log, Numbers
from recsim_llm.agents.core.env_runner import EnvironmentSpec, Flags, Floats, Slates
from recsim_llm.agents.logged.base import LoggedConfig
from recsim_llm.agents.neural.base import EpisodeSequence, NeuralAgent, NeuralConfig
from recsim_llm.errors import unknown
from recsim_llm.simulator.jit import jit
from recsim_llm.worlds.catalog import Catalog

MODALITIES = ("both", "text", "image", "ids")
IMAGE = "image"
"""Name of the block of encodings that comes from images; all others come from text."""

RECENT = 20
"""Clicks of an episode, the last ones, whose own vectors say something of the user."""


@dataclass(frozen=True)
class CrossModalConfig(NeuralConfig):
    """Settings of networks that read text and images.

    Attributes:
        modalities: Which contents of items and users are read beside ids: "both", "text", "image", or "ids" for none.
        value: Power of the mean reward of a click on an item by which its probability is weighted; 0 serves clicks.
        strangers: Share of the examples in training whose user counts as one who is not in the log.
    """

    modalities: str = "both"
    value: float = 1.0
    strangers: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(0.0, 100.0, "value")
        self._within(0.0, 1.0, "strangers")
        checked_modalities(self.modalities)


@dataclass(frozen=True)
class IdentifiedEpisode(EpisodeSequence):
    """State between two calls of ``predict``.

    Attributes:
        user: [B] rows of the users' vectors for users of the log, -1 for others.
    """

    user: Numbers


class CrossModalAgent(NeuralAgent):
    """Base: contents by :attr:`CrossModalConfig.modalities`, and a vector for each user of the log.

    Attributes:
        contents: [I, C] the columns of the encodings that are read, those of the text first.
        texts: How many of them come from the text.
    """

    Config: ClassVar[type[LoggedConfig]] = CrossModalConfig
    State: ClassVar[type | None] = IdentifiedEpisode
    config: CrossModalConfig

    @classmethod
    def refusal(cls, env_spec: EnvironmentSpec, config: Any) -> str | None:
        """Needs images where nothing else is to be read."""
        return without_images(cls.name, env_spec.catalog, config.modalities)

    def setup(self, rng: np.random.Generator) -> None:
        """No log; a network that was not trained."""
        self.columns, self.texts = columns_of(self.env_spec.catalog, self.config.modalities)
        self._known: Numbers = np.zeros(0, np.int64)
        super().setup(rng)

    @property
    def tables(self) -> Floats:
        """[I, 1 + C] price and contents of the items, which every tower may read."""
        table: Floats = np.concatenate([self.price[:, None], self.contents], 1).astype(np.float32)
        return table

    @property
    def features_width(self) -> int:
        """F, width of the users' features."""
        context = self.observation_log.context
        width: int = 3 * len(self.columns) + context.stop - context.start + len(self.env_spec.catalog.topics)
        return width

    def features(self, views: Floats, pooled: Floats, wear: Floats) -> Floats:
        """[B, F] of users: profile, interest and what was consumed [B, C], scaled alike, then context and wear."""
        width = self.env_spec.catalog.width
        told = np.concatenate([views[:, self.columns], views[:, width + self.columns]], 1) * self.scale
        return np.concatenate([told, pooled, views[:, 2 * width : -1], wear], 1)

    def features_of(self, obs: Floats, session: IdentifiedEpisode) -> Floats:
        """[B, F] of users from observations [B, P] and their states."""
        return self.features(
            self.observation_log.of(obs, session.newest), pooled(session.history, self.contents), session.memory.wear
        )

    def situations(self, log: Log, rows: Numbers) -> Callable[[Numbers], dict[str, NDArray[Any]]]:
        """What was known before each of some rows [n] of a log.

        Returns:
            A function that takes places among these rows and gives "features" [N, F], "wear" [N, T], "newest" [N]
            [day], "user" [N] and "history" [N, H], the last items clicked in the same episode, -1 for none.
        """
        replay, index = self.replayed(log), self.observation_log.index
        history = log.before(log.click > 0, min(RECENT, self.config.history))[rows]
        moment, user = replay.moment[rows], self.users_of(log.user[rows])

        def of(chosen: Numbers) -> dict[str, NDArray[Any]]:
            views, wear = self.observation_log.rows[index[rows[chosen]]], replay.wear[moment[chosen]]
            features = self.features(views, replay.pooled[moment[chosen]][:, self.columns], wear)
            return {
                "features": features, "wear": wear, "newest": views[:, -1], "user": user[chosen],
                "history": history[chosen],
            }  # fmt: skip

        return of

    def users_of(self, user: Numbers) -> Numbers:
        """[N] rows of the vectors of users by their public numbers; -1 for those whom the model does not know."""
        if not len(self._known):
            return np.full(len(user), -1, np.int64)
        order = np.argsort(self._known, kind="stable")
        place = np.minimum(np.searchsorted(self._known[order], user), len(order) - 1)
        row = order[place]
        return np.where(self._known[row] == user, row, -1)

    def fit(self, log: Log) -> None:
        """Trains a new network."""
        self._known = first_seen(log.user)
        self.blank(len(self._known))
        self._train(log, 0, self.config.epochs, 1.0)

    def absorb(self, log: Log, start: int) -> None:
        """Trains the network on; users that are new start with vectors of zero."""
        from recsim_llm.agents.neural.cross_modal_net import widen

        self._known = first_seen(log.user)
        widen(self.trainer, "id_user", len(self._known))
        super().absorb(log, start)

    def blank(self, users: int) -> None:
        """An untrained network with vectors for so many users."""
        self.room = max(users, 1)
        self.contents: Floats = self.encodings[:, self.columns]
        super().blank(users)

    def session(self, obs: Floats, state: Any, episode_start: Flags) -> IdentifiedEpisode:
        """The state with the feedback in observations [B, P] taken in, and who the users are."""
        return IdentifiedEpisode(
            **vars(super().session(obs, state, episode_start)), user=self._who(state, episode_start)
        )

    def session_of(self, history: Slates) -> IdentifiedEpisode:
        """The state of lanes whose users clicked ``history`` [N, H] and looked at nothing else."""
        return IdentifiedEpisode(**vars(super().session_of(history)), user=np.full(len(history), -1, np.int64))

    def _who(self, state: Any, episode_start: Flags) -> Numbers:
        """[B] rows of users, where infos named them when the episode began; -1 for others."""
        before = state.user if isinstance(state, IdentifiedEpisode) else np.full(len(episode_start), -1, np.int64)
        met = self.met()
        if met is None or len(met) != len(episode_start):
            return np.where(episode_start, -1, before)
        return np.where(episode_start | (before < 0), self.users_of(met), before)

    def restore(self, arrays: dict[str, NDArray[Any]], extra: dict[str, Any], source: object) -> None:
        """Takes over the log, what was observed, and the network."""
        super().restore(arrays, extra, source)
        self._known = first_seen(self.book.log.user[: self.fitted])


def first_seen(user: Numbers) -> Numbers:
    """Different users in the order in which they first come, so that the rows of known ones stay."""
    users, first = np.unique(user, return_index=True)
    return users[np.argsort(first, kind="stable")]


def checked_modalities(modalities: str) -> None:
    """Raises ConfigError for a name that is none of :data:`MODALITIES`."""
    if modalities not in MODALITIES:
        raise unknown("choice of modalities", modalities, MODALITIES)


def without_images(name: str, catalog: Catalog, modalities: str) -> str | None:
    """Why an agent cannot read images alone; None where it can or need not."""
    if modalities != IMAGE or IMAGE in catalog.blocks:
        return None
    return (
        f'agent {name} with modalities="image" needs encodings of images, and the blocks of this catalogue are '
        f'{", ".join(catalog.blocks)}; use modalities="text", or a world with images such as Ecommerce'
    )


def columns_of(catalog: Catalog, modalities: str) -> tuple[Numbers, int]:
    """Columns [C] of the encodings that are read, those of the text first, and how many come from the text.

    Without an image block "both" is the text alone.
    """
    blocks: Mapping[str, tuple[int, int]] = catalog.blocks
    text = [np.arange(*edges) for name, edges in blocks.items() if name != IMAGE and modalities in ("both", "text")]
    image = [np.arange(*edges) for name, edges in blocks.items() if name == IMAGE and modalities in ("both", IMAGE)]
    found = np.concatenate([np.zeros(0, np.int64), *text, *image]).astype(np.int64)
    return found, sum(map(len, text))


@jit
def pool(history: Numbers, table: Floats, out: Floats) -> None:
    """Writes sums [B, D] of the rows of a table [I, D] that histories [B, H] name, over the root of their number."""
    for b in range(history.shape[0]):
        count = 0
        out[b, :] = np.float32(0.0)
        for h in range(history.shape[1]):
            item = history[b, h]
            if item >= 0:
                count += 1
                for d in range(table.shape[1]):
                    out[b, d] += table[item, d]
        if count > 1:
            share = np.float32(1.0) / np.sqrt(np.float32(count))
            for d in range(table.shape[1]):
                out[b, d] *= share


def pooled(history: Numbers, table: Floats) -> Floats:
    """[B, D] as of :func:`pool`."""
    out = np.empty((len(history), table.shape[1]), np.float32)
    pool(np.ascontiguousarray(history), np.ascontiguousarray(table), out)
    return out
