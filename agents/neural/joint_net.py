"""The joint network of users, items and images. Needs PyTorch."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recsim_llm.agents.common.neural_layers import BLOCKED, Batch, Drop, freshness, linear
from recsim_llm.agents.neural.cross_modal_net import CrossModalNet, Floats, own_vectors, pooled_vectors, strangers


class JointNet(CrossModalNet):
    """Logits of clicks from three interactions: user and item, item and image, image and user.

    Each interaction is the elementwise product of two projections of R numbers; a layer reads all three. Beside it
    stands the weighted product of what is known of the user and the item's contents, column by column, by which it
    ranks before training.

    Args:
        table: [I, 1 + C] price and contents of the items, the text's before the image's.
        texts: Columns of the contents that come from the text.
        released: [I] [day].
        topic: [I].
        users: Width of a user's features, of which profile, interest and pooled come first, C each.
        room: Users with vectors of their own.
        rank: R.
        hidden: Width of the hidden layer.
        drop: Dropout of the user's features.
        sharpness: Of similarity at the beginning.
        base: Logit of everything at the beginning.
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
        rank: int,
        hidden: int,
        drop: float,
        sharpness: float,
        base: float,
        strangers: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__(table, texts, released, topic, strangers, generator)
        self.rank = rank
        self.drop, self.user = Drop(drop, generator), linear(users, rank, generator)
        self.item = linear(texts, rank, generator) if texts else None
        self.image = linear(self.images, rank, generator) if self.images else None
        self.interactions = 3 if self.images else 1
        self.lower = linear(self.interactions * rank, hidden, generator)
        self.upper = linear(hidden, 1, generator, zero=True)
        nn.init.constant_(self.upper.bias, base)
        self.mix = nn.Parameter(torch.tensor([sharpness, 0.0, 0.0])[:, None].repeat(1, self.width))
        self.add_own(room, rank)

    def users(self, features: Tensor, user: Tensor, clicked: Tensor) -> tuple[Tensor, Tensor]:
        """Projections [B, R] of users, and their similarity weights by column of the contents [B, C].

        Args:
            features: [B, F].
            user: [B] rows of their own vectors, -1 for none.
            clicked: [B, R] pooled own vectors of the items that were clicked.
        """
        parts = features[:, : 3 * self.width].reshape(len(features), 3, self.width)
        projected = self.user(self.drop(features)) + own_vectors(self.id_user, user) + clicked
        return projected, (parts * self.mix).sum(1)

    def items(self) -> tuple[Tensor, Tensor | None]:
        """Projections of all items by text and own vector, and of their images, [I, R] each; None without images."""
        items, images = self.id_vector, None
        if self.item is not None:
            items = items + self.item(self.contents[:, : self.texts])
        if self.image is not None:
            images = self.image(self.contents[:, self.texts :])
        return items, images

    def interacting(self, user: Tensor, item: Tensor, image: Tensor | None) -> Tensor:
        """[..., 3 R] the interactions of projections [..., R]; [..., R] without images."""
        parts = [user * item]
        if image is not None:
            parts += [item * image + torch.zeros_like(parts[0]), image * user]
        return torch.cat(parts, -1)

    def logits(self, batch: Batch, item: Tensor) -> Tensor:
        """Logits [N, M] of items [N, M] for the users of a batch."""
        user = strangers(batch["user"], self.strangers, self.generator)
        clicked = pooled_vectors(self.id_vector, batch["history"])
        projected, similar = self.users(batch["features"], user, clicked)
        items, images = self.items()
        joined = self.interacting(projected[:, None], items[item], None if images is None else images[item])
        fresh, early = freshness(batch["newest"][:, None], self.released[item])
        logits = self.upper(torch.relu(self.lower(joined)))[..., 0] + self.biases()[item] + fresh @ self.fresh
        logits = logits + (similar[:, None] * self.contents[item]).sum(-1)
        worn = torch.gather(batch["wear"], 1, self.topic[item])
        found: Tensor = (logits + self.wear * worn).masked_fill(early, BLOCKED)
        return found

    def loss(self, batch: Batch) -> Tensor:
        """Binary cross-entropy of clicks ("item" [N]) and of as many items drawn for each ("against" [N, M])."""
        item = torch.cat([batch["item"][:, None], batch["against"]], 1)
        logits = self.logits(batch, item)
        target = torch.zeros_like(logits)
        target[:, 0] = 1.0
        # what was drawn may be what was clicked, and says nothing then
        counts = torch.cat([torch.ones_like(logits[:, :1]), (item[:, 1:] != item[:, :1]).to(logits.dtype)], 1)
        each = nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return (each * counts).sum() / len(item)
