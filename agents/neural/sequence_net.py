"""Base network of sequential recommenders. Needs PyTorch."""

from __future__ import annotations

import abc
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recsim_llm.agents.common.neural_layers import BLOCKED, Batch, Drop, freshness, linear

Floats = NDArray[np.float32]


class SequenceNet(nn.Module, abc.ABC):
    """Base: item vectors, tokens, and the logits of what is clicked next.

    An item's vector is its encoding and a vector of its own, v_i = x_i + e_i; its token is W v_i and whether it was
    clicked. The first token is the profile's, so that a session has a beginning. The query after n tokens is q_n = U
    h_n + a * profile, the logit of i then q_n . v_i + c . v_i + b_i + w . fresh(i). U starts at zero.

    Args:
        encodings: [I, D].
        released: [I] [day].
        hidden: Width of tokens and states.
        length: L, most items that are read.
        drop: Dropout.
        sharpness: Of the similarity to the profile at the beginning.
        negatives: Items in each softmax; where the catalogue has more, it is over the target and so many drawn ones.
        generator: Where weights are drawn from.
    """

    items: Tensor
    released: Tensor

    def __init__(
        self, encodings: Floats, released: Floats, hidden: int, length: int, drop: float, sharpness: float,
        negatives: int, generator: torch.Generator,
    ) -> None:  # fmt: skip
        super().__init__()
        count, width = encodings.shape
        self.register_buffer("items", torch.as_tensor(encodings), persistent=False)
        self.register_buffer("released", torch.as_tensor(released.copy()), persistent=False)
        self.length, self.negatives, self.generator = length, negatives, generator
        self.drop = Drop(drop, generator)
        self.token, self.first = linear(width, hidden, generator), linear(width, hidden, generator)
        self.kind = nn.Parameter(torch.zeros(2, hidden).normal_(0.0, 0.1, generator=generator))
        self.query = linear(hidden, width, generator, zero=True)
        self.profile = nn.Parameter(torch.full((width,), sharpness))
        self.slope, self.fresh = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(2))
        self.id_vector, self.id_bias = nn.Parameter(torch.zeros(count, width)), nn.Parameter(torch.zeros(count))

    @abc.abstractmethod
    def states(self, first: Tensor, tokens: Tensor) -> Tensor:
        """States [N, 1 + L, H] after the first token [N, H] and each of the others [N, L, H]."""

    def queries(self, trail: Tensor, profile: Tensor) -> Tensor:
        """Queries [N, 1 + L, D] before anything and after each item.

        Args:
            trail: [N, L] twice the item, and one more for a click; -1 behind where there are fewer.
            profile: [N, D].
        """
        known = trail.clamp(min=0)
        vectors = self.items[known // 2] + self.id_vector[known // 2]
        tokens = self.token(self.drop(vectors)) + self.kind[known % 2]
        hidden = self.states(self.first(self.drop(profile)), tokens)
        queries: Tensor = self.query(self.drop(hidden)) + self.profile * profile[:, None]
        return queries

    def catalogue(self) -> tuple[Tensor, Tensor]:
        """Vectors [I, D] and biases [I] of all items."""
        vectors = self.items + self.id_vector
        return vectors, vectors @ self.slope + self.id_bias

    def logits(self, queries: Tensor, newest: Tensor, drawn: Tensor) -> Tensor:
        """Logits [N, n] of some items [n]; what is not out yet is blocked."""
        vectors, biases = self.catalogue()
        fresh, early = freshness(newest[:, None], self.released[drawn])
        return (queries @ vectors[drawn].T + biases[drawn] + fresh @ self.fresh).masked_fill(early, BLOCKED)

    def loss(self, batch: Batch) -> Tensor:
        """Softmax cross-entropy of the items clicked next."""
        place = batch["sequence"], batch["position"]
        queries, target = self.queries(batch["trail"], batch["profile"])[place], batch["target"]
        count = len(self.items)
        if count <= self.negatives:
            logits = self.logits(queries, batch["newest"], torch.arange(count, device=target.device))
            return nn.functional.cross_entropy(logits, target)
        drawn = torch.randperm(count, generator=self.generator)[: self.negatives].to(target.device)
        logits = self.logits(queries, batch["newest"], drawn) + math.log(count / self.negatives)
        logits = logits.masked_fill(drawn[None] == target[:, None], BLOCKED)
        vectors, biases = self.catalogue()
        fresh, _ = freshness(batch["newest"], self.released[target])
        own = (queries * vectors[target]).sum(1) + biases[target] + fresh @ self.fresh
        return nn.functional.cross_entropy(torch.cat([own[:, None], logits], 1), torch.zeros_like(target))


class Block(nn.Module):
    """Causal self-attention and a feed-forward layer, each added to its input after normalisation.

    Args:
        width: Width of tokens.
        heads: Heads of attention.
        drop: Dropout.
        generator: Where weights are drawn from.
    """

    def __init__(self, width: int, heads: int, drop: Drop, generator: torch.Generator) -> None:
        super().__init__()
        self.heads, self.drop = heads, drop
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.reads, self.writes = linear(width, 3 * width, generator), linear(width, width, generator)
        self.lower, self.upper = linear(width, width, generator), linear(width, width, generator)

    def forward(self, x: Tensor) -> Tensor:
        """[N, L, width]; what stands at a place depends on it and those before."""
        count, length, width = x.shape
        parts = self.reads(self.before(x)).reshape(count, length, 3, self.heads, width // self.heads)
        asked, key, value = parts.permute(2, 0, 3, 1, 4)  # [N, heads, L, width / heads]
        weights = asked @ key.transpose(2, 3) / math.sqrt(width // self.heads)
        later = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
        mixed = torch.softmax(weights.masked_fill(later, BLOCKED), 3) @ value
        x = x + self.drop(self.writes(mixed.transpose(1, 2).reshape(count, length, width)))
        y: Tensor = x + self.drop(self.upper(torch.relu(self.lower(self.between(x)))))
        return y
