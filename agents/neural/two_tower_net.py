"""The two towers and their loss. Needs PyTorch."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recsim_llm.agents.common.neural_layers import BLOCKED, Batch, Drop, freshness, linear

Floats = NDArray[np.float32]


class Tower(nn.Module):
    """Two layers; the last starts at zero.

    Args:
        inputs: Width of the input.
        hidden: Width of the hidden layer.
        outputs: Width of the output.
        drop: Dropout of the input.
        generator: Where initial weights are drawn from.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, drop: float, generator: torch.Generator) -> None:
        super().__init__()
        self.drop = Drop(drop, generator)
        self.lower, self.upper = linear(inputs, hidden, generator), linear(hidden, outputs, generator, zero=True)

    def forward(self, x: Tensor) -> Tensor:
        """[N, outputs]."""
        y: Tensor = self.upper(torch.relu(self.lower(self.drop(x))))
        return y


class TwoTowerNet(nn.Module):
    """Vectors of users and items whose dot product, with a bias and what is fresh or worn out, is a logit.

    The user's vector is a * profile + b * interest + c * pooled + MLP(everything), the item's its encoding + MLP(its
    columns) + a vector of its own. Before training it ranks by the similarity of encodings.

    Args:
        encodings: [I, D].
        columns: [I, F] other public numbers of the items.
        released: [I] [day].
        topic: [I].
        users: Width of a user's features, of which profile, interest and pooled come first, D each.
        hidden: Width of the hidden layers.
        drop: Dropout of the inputs.
        sharpness: Of similarity at the beginning.
        generator: Where initial weights are drawn from.
    """

    items: Tensor
    released: Tensor
    topic: Tensor

    def __init__(
        self,
        encodings: Floats,
        columns: Floats,
        released: Floats,
        topic: NDArray[np.integer],
        users: int,
        hidden: int,
        drop: float,
        sharpness: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        count, self.width = encodings.shape
        table = np.concatenate([encodings, columns], 1)
        for name, array in (("items", table), ("released", released.copy()), ("topic", topic.astype(np.int64))):
            self.register_buffer(name, torch.as_tensor(array), persistent=False)
        self.user_tower = Tower(users, hidden, self.width, drop, generator)
        self.item_tower = Tower(table.shape[1], hidden, self.width, drop, generator)
        self.mix = nn.Parameter(torch.tensor([sharpness, 0.0, 0.0])[:, None].repeat(1, self.width))
        self.bias = linear(table.shape[1], 1, generator, zero=True)
        self.id_vector, self.id_bias = nn.Parameter(torch.zeros(count, self.width)), nn.Parameter(torch.zeros(count))
        self.fresh, self.wear = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))

    def users(self, features: Tensor) -> Tensor:
        """Vectors [B, D] from features [B, F]."""
        parts = features[:, : 3 * self.width].reshape(len(features), 3, self.width)
        vector: Tensor = (parts * self.mix).sum(1) + self.user_tower(features)
        return vector

    def catalogue(self) -> tuple[Tensor, Tensor]:
        """Vectors [I, D] and biases [I] of all items."""
        vectors = self.items[:, : self.width] + self.item_tower(self.items) + self.id_vector
        return vectors, self.bias(self.items)[:, 0] + self.id_bias

    def logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits [B, B] of the items that others of the batch clicked, and where they were not out yet."""
        vectors, biases = self.catalogue()
        item = batch["item"]
        fresh, early = freshness(batch["newest"][:, None], self.released[item])
        logits = self.users(batch["features"]) @ vectors[item].T + biases[item] + fresh @ self.fresh
        return logits + self.wear * batch["wear"][:, self.topic[item]], early

    def loss(self, batch: Batch) -> Tensor:
        """Softmax over the items of the batch, corrected for how often they are in one."""
        logits, early = self.logits(batch)
        return in_batch_loss(logits, batch["item"], batch["log_share"], early)


def in_batch_loss(logits: Tensor, item: Tensor, log_share: Tensor, blocked: Tensor | None = None) -> Tensor:
    """Sampled softmax with the other examples' items as negatives.

        - mean_b log( e^(s_bb - log q_b) / sum_j e^(s_bj - log q_j) )

    over j = b and all j whose item is another one.

    Args:
        logits: [B, B] s of user b and the item of example j.
        item: [B] items.
        log_share: [B] log q, logarithm of the item's share of the examples.
        blocked: [B, B] pairs that are left out.
    """
    same = item[:, None] == item[None, :]
    out = same if blocked is None else same | blocked
    out = out & ~torch.eye(len(item), dtype=torch.bool, device=item.device)
    corrected = (logits - log_share[None, :]).masked_fill(out, BLOCKED)
    return nn.functional.cross_entropy(corrected, torch.arange(len(item), device=item.device))
