"""k-means retrieval: items of the clusters that the user consumed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.interaction_log import Log
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Floats, normalised
from recsim_llm.agents.logged.popularity_blend import PopularityBlendAgent, PopularityBlendConfig, Scores
from recsim_llm.errors import require

Floats64 = NDArray[np.float64]


@dataclass(frozen=True)
class KMeansConfig(PopularityBlendConfig):
    """Settings of :class:`KMeansAgent`.

    Attributes:
        clusters: k, at most; fewer where the catalogue has fewer different encodings.
        restarts: Runs from other seeds, the best of which is kept.
        persona: a, clicks that the persona counts for, in the cluster nearest to it.
        near: Weight of an item's own distance to its cluster's centre against the share of its cluster.
    """

    clusters: int = 20
    restarts: int = 4
    persona: float = 2.0
    near: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(1, 10_000, "clusters")
        self._within(1, 1_000, "restarts")
        self._within(0.0, 1e6, "persona", "near")


class KMeansAgent(PopularityBlendAgent):
    """Groups items by their encodings, and recommends from the groups a user consumed from, or her persona is near to.

    Equation: k-means of the encodings at unit length; with n_c clicks of the episode in cluster c, and the persona as a
    more in the cluster nearest to it,

        personal_i = w_c(i) (1 + near cos(x_i, centre of c(i))),  w_c = (n_c + a [c = c(persona)]) / (n + a),

    and ties between items of a cluster are left to popularity, with which the score is blended.

    Paper: MacQueen (1967), "Some methods for classification and analysis of multivariate observations"; seeds as of
    Arthur and Vassilvitskii (2007), through scikit-learn.

    Needs no log but for popularity: an item that nobody has seen is in a cluster as any other. A user without persona
    and clicks is shown what is popular.

    Origin of the defaults: about as many clusters as the built-in catalogues have topics. Deviations: (1) shares of
    clusters instead of the nearest cluster alone, as people have several interests; (2) the blend with popularity; (3)
    the log is gathered under uniform random slates; (4) what was just shown rests.
    """

    name: ClassVar[str] = "kmeans"
    Config: ClassVar[type[Config]] = KMeansConfig
    libraries: ClassVar[tuple[str, ...]] = ("sklearn",)
    config: KMeansConfig

    def setup(self, rng: np.random.Generator) -> None:
        """Clusters of the catalogue."""
        kind = require("sklearn.cluster", "agents").KMeans
        super().setup(rng)
        points = normalised(self.env_spec.catalog.embedding.astype(np.float64))
        count = min(self.config.clusters, len(np.unique(points, axis=0)))
        with require("threadpoolctl", "agents").threadpool_limits(1):
            found = kind(count, n_init=self.config.restarts, random_state=self.fit_seed % 2**32).fit(points)
        self.centres: Floats64 = np.asarray(found.cluster_centers_, np.float64)
        self.labels: NDArray[np.int64] = found.labels_.astype(np.int64)
        own = (points * normalised(self.centres)[self.labels]).sum(1)
        self.typical: Floats64 = 1.0 + self.config.near * own

    def blank(self, users: int) -> None:
        """There is nothing to fit beside popularity."""

    def fit(self, log: Log) -> None:
        """The clusters are those of the catalogue."""

    def personal(self, rows: Floats, session: Any) -> Scores:
        """Shares of clusters, and how typical items are of them."""
        scores: Scores = self.shares(rows, session)[:, self.labels] * self.typical
        return scores

    def shares(self, rows: Floats, session: Any) -> Floats64:
        """Share [B, k] of each cluster in what a user likes; zeros where nothing is known."""
        history, weight = session.history, self.config.persona
        shares = np.zeros((len(rows), len(self.centres)))
        lane, place = np.nonzero(history >= 0)
        np.add.at(shares, (lane, self.labels[history[lane, place]]), 1.0)
        profile = normalised(self.env_spec.part("profile", rows).astype(np.float64))
        told = np.flatnonzero(profile.any(1))
        shares[told, self.nearest(profile[told])] += weight
        shares /= np.maximum(shares.sum(1, keepdims=True), 1e-9)
        return shares

    def nearest(self, points: Floats64) -> NDArray[np.int64]:
        """Cluster [N] whose centre is nearest to each point [N, D] of unit length."""
        distance = np.square(self.centres).sum(1) - 2.0 * points @ self.centres.T
        nearest: NDArray[np.int64] = distance.argmin(1)
        return nearest

    def trust(self, rows: Floats, session: Any) -> NDArray[np.floating]:
        """The persona counts as clicks do."""
        told = self.env_spec.part("profile", rows).any(1) * self.config.persona
        known = session.clicks() + told
        share: Floats64 = known / np.maximum(known + self.config.halfway, 1e-9)
        return share

    def learnt(self) -> dict[str, NDArray[Any]]:
        """The clusters."""
        return {"centres": self.centres, "labels": self.labels, "typical": self.typical}

    def sound(self) -> bool:
        """Whether labels are of clusters."""
        return bool((self.labels >= 0).all() and (self.labels < len(self.centres)).all())
