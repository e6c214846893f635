"""One network for all signals: shared experts, a gate and a head for each. Needs PyTorch."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recsim_llm.agents.common.neural_layers import Batch, freshness, linear
from recsim_llm.agents.neural.two_tower_net import Tower

Floats = NDArray[np.float32]

HEADS = ("click", "like", "share", "conversion", "dwell", "rating")
"""The first is a probability, the next three are probabilities given a click, then log(1 + s) and stars."""

BINARY = 4


class MultiTaskNet(nn.Module):
    """Logits of all heads for users and items.

    User vectors of head t are m_t * (profile, interest, pooled) + sum_e g_te E_e(user), g_t = softmax(G_t user) over
    experts that all heads share; item vectors, x_i + MLP(columns) + e_i, are shared, too. The logit of a head is their
    dot product, with a bias of the head and item, of the slot, and with what is fresh and worn out.

    Args:
        encodings: [I, D].
        columns: [I, F] other public numbers of the items.
        released: [I] [day].
        topic: [I].
        users: Width of a user's features, of which profile, interest and pooled come first, D each.
        slate_size: K.
        experts: Experts; with one it is a shared bottom.
        hidden: Width of the hidden layers.
        drop: Dropout of the inputs.
        sharpness: Of similarity in the head of clicks at the beginning.
        uncertain: Whether heads are weighted by what they leave unexplained.
        entire: Whether heads of what follows a click learn from all rows, by the product of both probabilities.
        generator: Where initial weights are drawn from.
    """

    items: Tensor
    released: Tensor
    topic: Tensor

    def __init__(
        self, encodings: Floats, columns: Floats, released: Floats, topic: NDArray[np.integer], users: int,
        slate_size: int,
        experts: int, hidden: int, drop: float, sharpness: float, uncertain: bool, entire: bool,
        generator: torch.Generator,
    ) -> None:  # fmt: skip
        super().__init__()
        count, self.width = encodings.shape
        table, heads = np.concatenate([encodings, columns], 1), len(HEADS)
        for name, array in (("items", table), ("released", released.copy()), ("topic", topic.astype(np.int64))):
            self.register_buffer(name, torch.as_tensor(array), persistent=False)
        self.uncertain, self.entire = uncertain, entire
        made = [Tower(users, hidden, self.width, drop, generator) for _ in range(experts)]
        for expert in made:  # all at zero they would stay alike
            nn.init.uniform_(expert.upper.weight, -0.01, 0.01, generator=generator)
        self.experts = nn.ModuleList(made)
        self.gates = linear(users, heads * experts, generator, zero=True)
        self.item_tower = Tower(table.shape[1], hidden, self.width, drop, generator)
        start = torch.zeros(heads, 3, self.width)
        start[0, 0] = sharpness
        self.mix = nn.Parameter(start)
        self.bias = linear(table.shape[1], heads, generator, zero=True)
        self.id_vector, self.id_bias = (
            nn.Parameter(torch.zeros(count, self.width)),
            nn.Parameter(torch.zeros(count, heads)),
        )
        self.timely, self.slot = nn.Parameter(torch.zeros(heads, 3)), nn.Parameter(torch.zeros(slate_size, heads))
        self.unexplained = nn.Parameter(torch.zeros(heads))

    def users(self, features: Tensor) -> Tensor:
        """Vectors [B, heads, D] from features [B, F]."""
        parts = features[:, None, : 3 * self.width].reshape(len(features), 1, 3, self.width)
        made = torch.stack([expert(features) for expert in self.experts], 1)  # [B, experts, D]
        gates = torch.softmax(self.gates(features).reshape(len(features), len(HEADS), -1), 2)
        vectors: Tensor = (parts * self.mix).sum(2) + gates @ made
        return vectors

    def catalogue(self) -> tuple[Tensor, Tensor]:
        """Vectors [I, D] and biases [I, heads] of all items."""
        vectors = self.items[:, : self.width] + self.item_tower(self.items) + self.id_vector
        return vectors, self.bias(self.items) + self.id_bias

    def logits(self, batch: Batch) -> Tensor:
        """Logits [R, heads] of the slots of a batch."""
        vectors, biases = self.catalogue()
        item, user = batch["item"], batch["user"]
        fresh, _ = freshness(batch["newest"][user], self.released[item])
        wear = batch["wear"][user, self.topic[item]]
        logits = (self.users(batch["features"])[user] * vectors[item][:, None]).sum(2) + biases[item]
        timely = torch.cat([wear[:, None], fresh], 1) @ self.timely.T
        return logits + timely + self.slot[batch["position"]]

    def loss(self, batch: Batch) -> Tensor:
        """The heads' losses, weighted; those whose signal never occurs are left out."""
        losses, present = head_losses(self.logits(batch), batch["target"], self.entire), batch["present"] > 0
        if not self.uncertain:
            return losses[present].sum()
        return balanced(losses[present], self.unexplained[present])


def head_losses(logits: Tensor, target: Tensor, entire: bool) -> Tensor:
    """Mean loss of each head, [heads]; 0 where there is nothing to learn from.

    Args:
        logits: [R, heads].
        target: [R, heads] click, like, share, conversion, dwell [s], rating (0 for none).
        entire: Whether what follows a click is learnt from all rows, as P(click) P(it | click), or from clicked ones.
    """
    clicked = target[:, 0]
    binary, wanted = logits[:, :BINARY], target[:, :BINARY]
    each = nn.functional.binary_cross_entropy_with_logits(binary, wanted, reduction="none")
    mask = clicked[:, None].expand(-1, BINARY).clone()
    mask[:, 0] = 1.0
    if entire:
        click, other = binary[:, :1].expand(-1, BINARY - 1), binary[:, 1:]
        both = nn.functional.logsigmoid(click) + nn.functional.logsigmoid(other)
        # 1 - s(a) s(b) = (e^-a + e^-b + e^-(a + b)) s(a) s(b): nothing cancels
        neither = torch.logsumexp(torch.stack([-click, -other, -click - other]), 0) + both
        later = -(wanted[:, 1:] * both + (1.0 - wanted[:, 1:]) * neither)
        each, mask = torch.cat([each[:, :1], later], 1), torch.ones_like(mask)
    dwell = 0.5 * (logits[:, BINARY] - torch.log1p(target[:, BINARY])).square()
    stars = 0.5 * (logits[:, BINARY + 1] - target[:, BINARY + 1]).square()
    each = torch.cat([each, dwell[:, None], stars[:, None]], 1)
    mask = torch.cat([mask, clicked[:, None], (target[:, BINARY + 1] > 0.0).to(mask.dtype)[:, None]], 1)
    return (each * mask).sum(0) / mask.sum(0).clamp(min=1.0)


def balanced(losses: Tensor, unexplained: Tensor) -> Tensor:
    """Sum of e^-s L + s over heads, s learnt: a head that explains less counts less."""
    return (torch.exp(-unexplained) * losses + unexplained).sum()
