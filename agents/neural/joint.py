"""The joint network: interactions of user and item, item and image, image and user, trained on the clicks of a log."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.interaction_log import Log, Numbers
from recsim_llm.agents.core.env_runner import Floats
from recsim_llm.agents.logged.base import LoggedConfig
from recsim_llm.agents.logged.observation_log import add_timely
from recsim_llm.agents.neural.cross_modal import RECENT, CrossModalAgent, CrossModalConfig, pooled
from recsim_llm.simulator.jit import jit

CHUNK = 16
"""Users scored at a time, so that the hidden layer of all their items stays in the cache."""


@dataclass(frozen=True)
class JointConfig(CrossModalConfig):
    """Settings of :class:`JointAgent`.

    Attributes:
        rank: R, width of the projections.
        negatives: M, items drawn for each click.
        sharpness: Factor of the similarity of profile and contents before training.
    """

    rank: int = 16
    negatives: int = 8
    epochs: int = 10
    sharpness: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(1, 256, "rank")
        self._within(1, 1_000, "negatives")
        self._within(0.0, 100.0, "sharpness")


class JointAgent(CrossModalAgent):
    """Joint network of user-item, item-image and image-user interactions, served by its logit.

    Equation: with u = P f(u), i = Q text_i + e_i and v = S image_i, of R numbers each, * the elementwise product, and
    [,] joining,

        s(u, i) = w . relu(W [u * i, i * v, v * u]) + sum_c m_c(u) x_ic + b_i + w' . fresh(u, i) + v' wear(u, topic_i)

    where x_i are text and image, and m_c(u) is a weighted sum of profile, interest and what was consumed;
    minimising - log sigma(s(u, i)) - sum over j of log(1 - sigma(s(u, j))) over clicks on i and M items j drawn at
    random from those that were out. Served is s + value * log(mean reward of a click on i).

    Paper: the joint network that is described with the suite's source article on language models and images in
    recommendation; the form of the interactions is that of He et al. (2017), "Neural collaborative filtering".

    What was corrected: (1) as described the three interactions join vectors whose widths differ (a tokeniser's, an
    image network's, a user table's): here each side is projected to the same R numbers first; (2) token numbers are
    taken there for vectors: here texts are encoded by a sentence encoder, once, before; (3) the loss described suits
    one class among many, the output is a single number: here the output is a logit, the loss binary cross-entropy; (4)
    with clicks alone, every output of 1 is perfect: here items that were not clicked are drawn beside each click.

    The features f(u), vectors of users' and items' own, and ``modalities`` are those of the Siamese network: without
    images there is the interaction of user and item alone. A new user is served by what she is seen to be and do, a
    new item by text and image.

    Origin of the defaults: those of two towers; passes, step size and sharpness were tried on training users of
    Ecommerce (seeds 100 and 101), judged by clicks on withheld products. Deviations: similarity of contents, a bias and
    what is fresh or worn out stand beside the network, which begins at nothing: some thousand clicks teach it
    corrections.
    """

    name: ClassVar[str] = "joint"
    Config: ClassVar[type[LoggedConfig]] = JointConfig
    config: JointConfig

    def build(self, generator: Any) -> Any:
        """The network."""
        from recsim_llm.agents.neural.joint_net import JointNet

        catalog, config = self.env_spec.catalog, self.config
        return JointNet(
            self.tables, self.texts, catalog.released_at, catalog.topic, self.features_width, self.room, config.rank,
            config.hidden, config.dropout, config.sharpness, -math.log(config.negatives), config.strangers, generator,
        )  # fmt: skip

    def examples(self, log: Log, start: int, rng: np.random.Generator) -> tuple[int, Any]:
        """Clicks with the situation before them; what is drawn against them is drawn for each batch."""
        rows = self.chosen(np.flatnonzero(log.click > 0), start, rng)
        situation, item = self.situations(log, rows), log.item[rows]
        shape = self.config.negatives, self.env_spec.items

        def batch(chosen: Numbers) -> dict[str, NDArray[Any]]:
            against = rng.integers(0, shape[1], (len(chosen), shape[0]))
            return {**situation(chosen), "item": item[chosen], "against": against}

        return len(rows), batch

    def prepare(self) -> None:
        """What serving needs of all items: projections, and their part of the hidden layer."""
        import torch

        net, rank = self.trainer.net, self.config.rank
        with torch.no_grad():
            items, images = net.items()
            weights = net.lower.weight
            hidden = net.lower.bias[:, None].repeat(1, len(items))  # [H, I]
            self._reads = [weights[:, :rank].numpy().copy()]
            shown = [items]
            if images is not None:
                hidden = hidden + weights[:, rank : 2 * rank] @ (items * images).T
                self._reads.append(weights[:, 2 * rank :].numpy().copy())
                shown.append(images)
            self._shown: Floats = torch.cat(shown, 1).numpy().T.copy()  # [R or 2 R, I]
            self._hidden: Floats = hidden.numpy().copy()
            self._upper: Floats = net.upper.weight[0].numpy().copy()
            biases = net.biases() + net.upper.bias
        self._alike: Floats = (biases.numpy() + self.config.value * np.log(self.value)).astype(np.float32)
        self._timely = np.concatenate([net.wear.detach().numpy(), net.fresh.detach().numpy()])
        self._own: Floats = net.id_vector.detach().numpy().copy()
        self._columns: Floats = self.contents.T.copy()

    def scores(self, obs: Floats, session: Any) -> NDArray[np.floating]:
        """Logits and worth."""
        import torch

        features, catalog = self.features_of(obs, session), self.env_spec.catalog
        clicked = pooled(session.history[:, -RECENT:], self._own)
        with torch.no_grad():
            given = torch.from_numpy(features), torch.from_numpy(session.user), torch.from_numpy(clicked)
            projected, similar = (part.numpy() for part in self.trainer.net.users(*given))
        scores: Floats = similar @ self._columns + self._alike
        for start in range(0, len(obs), CHUNK):
            part = projected[start : start + CHUNK, None]  # [b, 1, R]
            reads = np.concatenate([weights * part for weights in self._reads], 2)  # [b, H, R or 2 R]
            layer = reads.reshape(-1, reads.shape[2]) @ self._shown
            add_layer(scores[start : start + CHUNK], layer.reshape(len(part), -1, self.env_spec.items), self._hidden,
                      self._upper)  # fmt: skip
        add_timely(scores, session.memory.wear, catalog.topic, catalog.released_at, session.newest, self._timely)
        return scores


@jit
def add_layer(scores: Floats, layer: Floats, alike: Floats, upper: Floats) -> None:
    """Adds sum_h upper_h max(layer_bhi + alike_hi, 0) to scores [B, I].

    Args:
        scores: [B, I], changed.
        layer: [B, H, I].
        alike: [H, I].
        upper: [H].
    """
    zero = np.float32(0.0)
    for b in range(layer.shape[0]):
        for h in range(layer.shape[1]):
            for i in range(layer.shape[2]):
                scores[b, i] += upper[h] * max(layer[b, h, i] + alike[h, i], zero)
