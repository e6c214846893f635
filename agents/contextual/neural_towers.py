"""Networks of neural-linear: a tower for users and one for items. Needs PyTorch."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recsim_llm.agents.common.neural_layers import Batch, linear


class Towers(nn.Module):
    """Vectors of users, two of R numbers each, and of items, R numbers; a linear head predicts rewards from them.

    The head sees what the Bayesian regression will: the item's vector, its elementwise products with the user's two,
    the sums of these with the dot products of the encodings, and numbers that are known otherwise.

    Args:
        items: [I, D] encodings of the items, scaled.
        user: Length of the users' inputs: encodings of profile and interest, scaled alike, and more.
        rank: R.
        hidden: Width of the hidden layers.
        others: Numbers known otherwise.
        generator: Where the first weights are drawn from.
    """

    encodings: Tensor

    def __init__(
        self, items: NDArray[np.float32], user: int, rank: int, hidden: int, others: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.rank = rank
        self.register_buffer("encodings", torch.from_numpy(items), persistent=False)
        self.user_in, self.user_out = linear(user, hidden, generator), linear(hidden, 2 * rank, generator)
        self.item_in, self.item_out = linear(items.shape[1], hidden, generator), linear(hidden, rank, generator)
        self.head = linear(3 * rank + 2 + others, 1, generator, zero=True)

    def users(self, rows: Tensor) -> Tensor:
        """[N, 2 R]."""
        found: Tensor = self.user_out(torch.relu(self.user_in(rows)))
        return found

    def items(self, encodings: Tensor) -> Tensor:
        """[N, R]."""
        found: Tensor = self.item_out(torch.relu(self.item_in(encodings)))
        return found

    def loss(self, batch: Batch) -> Tensor:
        """Mean squared error of the rewards of N slots: "user" [N, .], "item" [N], "others" [N, .], "reward" [N]."""
        x = self.encodings[batch["item"]]
        phi = self.joined(self.items(x), self.users(batch["user"]), x, batch["user"])
        predicted = self.head(torch.cat([phi, batch["others"]], 1))[:, 0]
        return torch.square(predicted - batch["reward"]).mean()

    def joined(self, g: Tensor, h: Tensor, x: Tensor, user: Tensor) -> Tensor:
        """What is learnt of N pairs, [N, 3 R + 2]: items' vectors, products with users', and the sums."""
        first, second = g * h[:, : self.rank], g * h[:, self.rank :]
        width = x.shape[1]
        near = (x * user[:, :width]).sum(1), (x * user[:, width : 2 * width]).sum(1)
        sums = [products.sum(1) + close for products, close in zip((first, second), near, strict=True)]
        return torch.cat([g, first, second, torch.stack(sums, 1)], 1)
