"""A Siamese network of users, items and images: cosines in one space, trained on the clicks of a log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.interaction_log import Log, Numbers
from recsim_llm.agents.core.env_runner import Floats
from recsim_llm.agents.logged.base import LoggedConfig
from recsim_llm.agents.logged.observation_log import add_timely
from recsim_llm.agents.neural.cross_modal import RECENT, CrossModalAgent, CrossModalConfig, pooled


@dataclass(frozen=True)
class SiameseConfig(CrossModalConfig):
    """Settings of :class:`SiameseAgent`.

    Attributes:
        sharpness: Inverse temperature of the cosines before training; it is learnt, one for items and one for images.
        alignment: Weight of the loss that draws the image of an item to its text; 0 leaves it out.
        corrected: Whether logits are corrected for how often an item is among the negatives.
    """

    sharpness: float = 8.0
    alignment: float = 0.0
    corrected: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(1e-3, 100.0, "sharpness")
        self._within(0.0, 100.0, "alignment")


class SiameseAgent(CrossModalAgent):
    """Siamese network of users, items and images with in-batch negatives, served by cosines.

    Equation: s(u, i) = cos(f(u), g(text_i)) / t_1 + cos(f(u), h(image_i)) / t_2 + b_i + w . fresh(u, i) + v
    wear(u, topic_i), minimising - log e^(s_bb - log q_b) / sum_j e^(s_bj - log q_j) over the clicks b of a batch,
    whose items j are the negatives and q_j their share of all clicks; with ``alignment`` also the same for the images
    and texts of the batch's items. Served is s + value * log(mean reward of a click on i).

    Paper: Bromley et al. (1993), "Signature verification using a 'Siamese' time delay neural network"; the towers of
    unlike inputs and the loss are those of Radford et al. (2021), "Learning transferable visual models from natural
    language supervision", with users in place of captions.

    f has profile, interest and the mean of what was consumed in the episode, each with its text and image columns,
    context, how worn topics are, a vector of the user's own where the log has her, and the own vectors of the items
    that she clicked last; g has the text's encoding and a vector of the item's own; h has the image's encoding. A new
    user is served by what she is seen to be and do, a new item by text and image. ``modalities`` leaves contents out,
    of users and items alike: "text" has no tower h, "image" no text in g, "ids" neither. Where the catalogue has no
    images "both" is the text alone, and "image" is refused.

    Origin of the defaults: those of two towers; sharpness and alignment, which made no difference, were tried on
    training users of Ecommerce (seeds 100 and 101), judged by clicks on withheld products. Deviations: the branches
    have layers of their own, as their inputs are of different kinds; a bias and what is fresh or worn out stand beside
    the cosines; lengths are softened, so that a vector of zero has the cosine 0.
    """

    name: ClassVar[str] = "siamese"
    Config: ClassVar[type[LoggedConfig]] = SiameseConfig
    config: SiameseConfig

    def build(self, generator: Any) -> Any:
        """The three towers."""
        from recsim_llm.agents.neural.siamese_net import SiameseNet

        catalog, config = self.env_spec.catalog, self.config
        return SiameseNet(
            self.tables, self.texts, catalog.released_at, catalog.topic, self.features_width, self.room, config.hidden,
            config.dropout, config.sharpness, config.alignment, config.strangers, generator,
        )  # fmt: skip

    def examples(self, log: Log, start: int, rng: np.random.Generator) -> tuple[int, Any]:
        """Clicks with the situation before them."""
        rows = self.chosen(np.flatnonzero(log.click > 0), start, rng)
        situation = self.situations(log, rows)
        item = log.item[rows]
        clicks = np.bincount(item, minlength=self.env_spec.items)
        share = np.log(np.maximum(clicks, 1) / max(len(rows), 1)).astype(np.float32) * self.config.corrected

        def batch(chosen: Numbers) -> dict[str, NDArray[Any]]:
            return {**situation(chosen), "item": item[chosen], "log_share": share[item[chosen]]}

        return len(rows), batch

    def prepare(self) -> None:
        """Vectors of all items."""
        import torch

        net = self.trainer.net
        with torch.no_grad():
            vectors, biases = net.catalogue()
        self._vectors: Floats = vectors.numpy().T.copy()
        self._alike: Floats = (biases.numpy() + self.config.value * np.log(self.value)).astype(np.float32)
        self._timely = np.concatenate([net.wear.detach().numpy(), net.fresh.detach().numpy()])
        self._own: Floats = net.id_vector.detach().numpy().copy()

    def directions(self, obs: Floats, session: Any) -> Floats:
        """[B, R] directions of the users of observations [B, P]."""
        import torch

        features = self.features_of(obs, session)
        clicked = pooled(session.history[:, -RECENT:], self._own)
        with torch.no_grad():
            given = torch.from_numpy(features), torch.from_numpy(session.user), torch.from_numpy(clicked)
            found: Floats = self.trainer.net.users(*given).numpy()
        return found

    def scores(self, obs: Floats, session: Any) -> NDArray[np.floating]:
        """Cosines over their temperatures, biases and worth."""
        catalog = self.env_spec.catalog
        scores: Floats = self.directions(obs, session) @ self._vectors + self._alike
        add_timely(scores, session.memory.wear, catalog.topic, catalog.released_at, session.newest, self._timely)
        return scores
