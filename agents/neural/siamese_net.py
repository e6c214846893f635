"""The three towers of the Siamese network. Needs PyTorch."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recsim_llm.agents.common.neural_layers import BLOCKED, Batch, freshness
from recsim_llm.agents.neural.cross_modal_net import CrossModalNet, Floats, own_vectors, pooled_vectors, strangers, unit
from recsim_llm.agents.neural.two_tower_net import Tower, in_batch_loss


class SiameseNet(CrossModalNet):
    """Users, items and their images as vectors of one space, compared by their cosines.

    The first axes of the space are those of the text's encodings, the last ones those of the image's: before training
    it ranks by the cosines of profile and encodings.

    Args:
        table: [I, 1 + C] price and contents of the items, the text's before the image's.
        texts: Columns of the contents that come from the text.
        released: [I] [day].
        topic: [I].
        users: Width of a user's features, of which profile, interest and pooled come first, C each.
        room: Users with vectors of their own.
        hidden: Width of the hidden layers, and of the space where there are no contents.
        drop: Dropout of the inputs.
        sharpness: Inverse temperature at the beginning.
        alignment: Weight of the loss of a product's text and image.
        strangers: Share of examples in training whose user's own vector is left out.
        generator: Where initial weights are drawn from.
    """

    def __init__(
        self,
        table: Floats,
        texts: int,
        released: Floats,
        topic: NDArray[np.integer],
        users: int,
        room: int,
        hidden: int,
        drop: float,
        sharpness: float,
        alignment: float,
        strangers: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__(table, texts, released, topic, strangers, generator)
        self.alignment, self.space = alignment, self.width or hidden
        self.user_tower = Tower(users, hidden, self.space, drop, generator)
        self.text_tower = Tower(texts, hidden, self.space, drop, generator) if texts else None
        self.image_tower = Tower(self.images, hidden, self.space, drop, generator) if self.images else None
        self.mix = nn.Parameter(torch.tensor([1.0, 0.0, 0.0])[:, None].repeat(1, self.width))
        self.sharpness = nn.Parameter(torch.full((2,), float(np.log(sharpness))))
        self.add_own(room, self.space)

    def users(self, features: Tensor, user: Tensor, clicked: Tensor) -> Tensor:
        """Directions [B, R] of users.

        Args:
            features: [B, F].
            user: [B] rows of their own vectors, -1 for none.
            clicked: [B, R] pooled own vectors of the items that were clicked.
        """
        parts = features[:, : 3 * self.width].reshape(len(features), 3, self.width)
        vector = self.user_tower(features) + own_vectors(self.id_user, user) + clicked
        return unit(vector + (parts * self.mix).sum(1) if self.width else vector)

    def items(self) -> tuple[Tensor, Tensor]:
        """Directions of all items by text and own vector, and by image, [I, R] each; zeros without images."""
        items, images = self.id_vector, torch.zeros_like(self.id_vector)
        if self.text_tower is not None:
            text = self.contents[:, : self.texts]
            items = items + nn.functional.pad(text, (0, self.images)) + self.text_tower(text)
        if self.image_tower is not None:
            image = self.contents[:, self.texts :]
            images = nn.functional.pad(image, (self.texts, 0)) + self.image_tower(image)
        return unit(items), unit(images)

    def catalogue(self) -> tuple[Tensor, Tensor]:
        """Sums of the two directions [I, R], each over its temperature, and biases [I]."""
        items, images = self.items()
        sharp = torch.exp(self.sharpness)
        return sharp[0] * items + sharp[1] * images, self.biases()

    def loss(self, batch: Batch) -> Tensor:
        """Softmax over the items of the batch, and how well each image finds its text among theirs."""
        item = batch["item"]
        vectors, biases = self.catalogue()
        user = strangers(batch["user"], self.strangers, self.generator)
        who = self.users(batch["features"], user, pooled_vectors(self.id_vector, batch["history"]))
        fresh, early = freshness(batch["newest"][:, None], self.released[item])
        logits = who @ vectors[item].T + biases[item] + fresh @ self.fresh
        loss = in_batch_loss(logits + self.wear * batch["wear"][:, self.topic[item]], item, batch["log_share"], early)
        if not self.alignment or self.text_tower is None or self.image_tower is None:
            return loss
        items, images = self.items()
        return loss + self.alignment * alignment_loss(items[item], images[item], item, self.sharpness.exp().mean())


def alignment_loss(items: Tensor, images: Tensor, item: Tensor, sharpness: Tensor) -> Tensor:
    """Softmax of cosines of N images with the items of all, and the other way round; the same item is no negative."""
    same = (item[:, None] == item[None, :]) & ~torch.eye(len(item), dtype=torch.bool, device=item.device)
    logits = (sharpness * images @ items.T).masked_fill(same, BLOCKED)
    target = torch.arange(len(item), device=item.device)
    return 0.5 * (nn.functional.cross_entropy(logits, target) + nn.functional.cross_entropy(logits.T, target))
