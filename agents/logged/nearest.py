"""Nearest-neighbour retrieval by encodings of interest and persona."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.interaction_log import Log
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Floats, normalised
from recsim_llm.agents.logged.popularity_blend import PopularityBlendAgent, PopularityBlendConfig, Scores
from recsim_llm.errors import ConfigError

METRICS = ("cosine", "euclidean")


@dataclass(frozen=True)
class NearestConfig(PopularityBlendConfig):
    """Settings of :class:`NearestAgent`.

    Attributes:
        metric: "cosine" or "euclidean".
        profile: Weight of the persona in the query beside a recent interest, 0 to 1; without interest it is all.
    """

    metric: str = "cosine"
    profile: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(0.0, 1.0, "profile")
        if self.metric not in METRICS:
            raise ConfigError(f"setting metric must be one of {', '.join(METRICS)}, got {self.metric!r}")


class NearestAgent(PopularityBlendAgent):
    """Shows the items whose encodings are nearest to the user's recent interest and persona.

    Equation: personal_i = cos(q, x_i), or -|q - x_i|^2, of the query q = (1 - profile) z / |z| + profile p / |p|, z the
    recent interest and p the persona's encoding as the observation has them; the one that is there where the other is
    not.

    Paper: Pazzani and Billsus (2007), "Content-based recommendation systems", section on nearest neighbours.

    Needs no log but for popularity, with which the score is blended: an item that nobody has seen is found as any
    other. Euclidean distances compare with a query of the encodings' usual length, so that long encodings are not
    near to anything.

    Origin of the defaults: what a user did says more than what she says (profile below a half). Deviations: (1) the
    blend with popularity; (2) the log is gathered under uniform random slates; (3) what was just shown rests.
    """

    name: ClassVar[str] = "nearest"
    Config: ClassVar[type[Config]] = NearestConfig
    config: NearestConfig

    def setup(self, rng: np.random.Generator) -> None:
        """Encodings as the metric wants them."""
        super().setup(rng)
        items = self.env_spec.catalog.embedding.astype(np.float64)
        lengths = np.sqrt(np.square(items).sum(1))
        self._length = float(lengths.mean())
        cosine = self.config.metric == "cosine"
        self._items = (normalised(items) if cosine else items).astype(np.float32)
        self._squares = np.zeros(len(items), np.float32) if cosine else np.square(lengths).astype(np.float32)

    def blank(self, users: int) -> None:
        """There is nothing to fit beside popularity."""

    def fit(self, log: Log) -> None:
        """The encodings are those of the catalogue."""

    def query(self, rows: Floats) -> Floats:
        """What is looked for [B, D]; zeros where nothing is known of a user."""
        interest, profile = (
            normalised(self.env_spec.part(name, rows).astype(np.float64)) for name in ("interest", "profile")
        )
        share = np.where(interest.any(1, keepdims=True), self.config.profile, 1.0)
        share = np.where(profile.any(1, keepdims=True), share, 0.0)
        query = normalised((1.0 - share) * interest + share * profile)
        return (query if self.config.metric == "cosine" else self._length * query).astype(np.float32)

    def personal(self, rows: Floats, session: Any) -> Scores:
        """Cosine, or the square of the distance less what is the same for all items, its sign changed."""
        query = self.query(rows)
        if self.config.metric == "cosine":
            scores: Scores = query @ self._items.T
            return scores
        scores = 2.0 * query @ self._items.T - self._squares
        return scores * query.any(1, keepdims=True)

    def trust(self, rows: Floats, session: Any) -> NDArray[np.floating]:
        """A persona or an interest, from which an encoding is made, is trusted at once."""
        return np.ones(len(rows))

    def learnt(self) -> dict[str, NDArray[Any]]:
        """Nothing beside popularity, which follows from the log."""
        return {}
