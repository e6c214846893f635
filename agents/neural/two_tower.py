"""Two towers: users and items as vectors, trained on the clicks of a log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.interaction_log import Log, Numbers
from recsim_llm.agents.core.env_runner import Floats
from recsim_llm.agents.logged.base import LoggedConfig
from recsim_llm.agents.logged.observation_log import add_timely
from recsim_llm.agents.neural.base import NeuralAgent, NeuralConfig


@dataclass(frozen=True)
class TwoTowerConfig(NeuralConfig):
    """Settings of :class:`TwoTowerAgent`.

    Attributes:
        sharpness: Factor of the similarity of profile and item before training.
        corrected: Whether logits are corrected for how often an item is among the negatives.
        value: Power of the mean reward of a click on an item by which its probability is weighted; 0 serves clicks.
    """

    sharpness: float = 3.0
    corrected: bool = True
    value: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(0.0, 100.0, "sharpness", "value")


class TwoTowerAgent(NeuralAgent):
    """Two towers with in-batch negatives, served by the dot product.

    Equation: s(u, i) = f(u) . g(i) + b_i + w . fresh(u, i) + v wear(u, topic_i), minimising - log e^(s_bb - log q_b) /
    sum_j e^(s_bj - log q_j) over the clicks b of a batch, whose items j are the negatives and q_j their share of all
    clicks. Served is s + value * log(mean reward of a click on i).

    Paper: Yi et al. (2019), "Sampling-bias-corrected neural modeling for large corpus item recommendations".

    f has profile, interest, context, the mean of what was consumed in the episode and how worn its topics are; g has
    encoding, category, price and a vector of the item's own, which weight decay draws to zero, so that an item nobody
    has clicked is served by its text. Both start at the similarity of profile and encoding: logs of some thousand
    clicks teach corrections of it, not tastes from nothing.

    Origin of the defaults: tried on held-out clicks of random logs of 20,000 steps from training users (seeds 100 and
    101) of News and Music: a small step size, few passes and strong decay; sharpness is what fitting found.
    Deviations: the vectors have no unit length and no temperature, a bias stands beside them; q is counted in the log,
    which is at hand, and not estimated from a stream; the freshness of an item differs from row to row of a batch.
    """

    name: ClassVar[str] = "two_tower"
    Config: ClassVar[type[LoggedConfig]] = TwoTowerConfig
    config: TwoTowerConfig

    def build(self, generator: Any) -> Any:
        """Both towers."""
        from recsim_llm.agents.neural.two_tower_net import TwoTowerNet

        catalog, config = self.env_spec.catalog, self.config
        columns = np.concatenate([np.eye(len(catalog.topics))[catalog.topic], self.price[:, None]], 1)
        width = self.observation_log.width - 1 + catalog.width + len(catalog.topics)
        return TwoTowerNet(
            self.encodings, columns.astype(np.float32), catalog.released_at, catalog.topic, width, config.hidden,
            config.dropout, config.sharpness, generator,
        )  # fmt: skip

    def features(self, views: Floats, pooled: Floats, wear: Floats) -> Floats:
        """[B, F] of users: profile, interest and what was consumed, scaled like encodings, context, wear."""
        width = self.env_spec.catalog.width
        return np.concatenate([views[:, : 2 * width] * self.scale, pooled, views[:, 2 * width : -1], wear], 1)

    def examples(self, log: Log, start: int, rng: np.random.Generator) -> tuple[int, Any]:
        """Clicks with the situation before them."""
        rows = self.chosen(np.flatnonzero(log.click > 0), start, rng)
        replay, index = self.replayed(log), self.observation_log.index
        item, moment = log.item[rows], replay.moment[rows]
        clicks = np.bincount(item, minlength=self.env_spec.items)
        share = np.log(np.maximum(clicks, 1) / max(len(rows), 1)).astype(np.float32) * self.config.corrected

        def batch(chosen: Numbers) -> dict[str, NDArray[Any]]:
            views, wear = self.observation_log.rows[index[rows[chosen]]], replay.wear[moment[chosen]]
            return {
                "features": self.features(views, replay.pooled[moment[chosen]], wear), "wear": wear,
                "item": item[chosen], "newest": views[:, -1], "log_share": share[item[chosen]],
            }  # fmt: skip

        return len(rows), batch

    def prepare(self) -> None:
        """Vectors of all items."""
        import torch

        with torch.no_grad():
            vectors, biases = self.trainer.net.catalogue()
        self._vectors: Floats = vectors.numpy().T.copy()
        self._alike: Floats = (biases.numpy() + self.config.value * np.log(self.value)).astype(np.float32)
        fresh, wear = (self.trainer.net.get_parameter(name).detach().numpy() for name in ("fresh", "wear"))
        self._timely = np.concatenate([wear, fresh])

    def scores(self, obs: Floats, session: Any) -> NDArray[np.floating]:
        """Dot products, biases and worth."""
        import torch

        catalog, memory = self.env_spec.catalog, session.memory
        pooled = pooled_of(session.history, self.encodings)
        features = self.features(self.observation_log.of(obs, session.newest), pooled, memory.wear)
        with torch.no_grad():
            users = self.trainer.net.users(torch.from_numpy(features)).numpy()
        scores: Floats = users @ self._vectors + self._alike
        add_timely(scores, memory.wear, catalog.topic, catalog.released_at, session.newest, self._timely)
        return scores


def pooled_of(history: Numbers, encodings: Floats) -> Floats:
    """[B, D] sum of the encodings of items [B, H], -1 for none, over the square root of their number."""
    lane, place = np.nonzero(history >= 0)
    pooled = np.zeros((len(history), encodings.shape[1]), np.float32)
    np.add.at(pooled, lane, encodings[history[lane, place]])
    count = np.bincount(lane, minlength=len(history))
    return pooled / np.sqrt(np.maximum(count, 1)).astype(np.float32)[:, None]
