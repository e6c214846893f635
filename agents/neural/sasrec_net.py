"""SASRec's network: causal self-attention over what was consumed. Needs PyTorch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from recsim_llm.agents.neural.sequence_net import Block, SequenceNet


class SASRecNet(SequenceNet):
    """Tokens with the vectors of their places go through blocks of causal self-attention.

    Args:
        blocks: Number of blocks.
        heads: Heads of attention in each; they divide the width.
        generator: Where weights are drawn from.
        **rest: As for :class:`~recsim_llm.agents.neural.sequence_net.SequenceNet`.
    """

    def __init__(self, *, blocks: int, heads: int, generator: torch.Generator, **rest: Any) -> None:
        super().__init__(generator=generator, **rest)
        width = self.kind.shape[1]
        self.place = nn.Parameter(torch.zeros(1 + self.length, width).normal_(0.0, 0.1, generator=generator))
        self.blocks = nn.ModuleList(Block(width, heads, self.drop, generator) for _ in range(blocks))
        self.last = nn.LayerNorm(width)

    def states(self, first: Tensor, tokens: Tensor) -> Tensor:
        """[N, 1 + L, H]."""
        x = torch.cat([first[:, None], tokens], 1) + self.place[: 1 + tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        y: Tensor = self.last(x)
        return y
