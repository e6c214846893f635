"""GRU4Rec's network: a gated recurrent unit over what was consumed. Needs PyTorch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from recsim_llm.agents.common.neural_layers import linear
from recsim_llm.agents.neural.sequence_net import SequenceNet


class GRU4RecNet(SequenceNet):
    """One gated recurrent unit; its first state comes from the profile.

    Args:
        generator: Where weights are drawn from.
        **rest: As for :class:`~recsim_llm.agents.neural.sequence_net.SequenceNet`.
    """

    def __init__(self, *, generator: torch.Generator, **rest: Any) -> None:
        super().__init__(generator=generator, **rest)
        width = self.kind.shape[1]
        self.reads, self.recalls = linear(width, 3 * width, generator), linear(width, 3 * width, generator)

    def states(self, first: Tensor, tokens: Tensor) -> Tensor:
        """[N, 1 + L, H]: h <- (1 - z) n + z h, n = tanh(W x + r * (U h)), gates r and z sigmoids of x and h."""
        hidden = torch.tanh(first)
        found, read = [hidden], self.reads(tokens)
        for step in range(tokens.shape[1]):
            r, z, new = read[:, step].chunk(3, 1)
            old_r, old_z, old = self.recalls(hidden).chunk(3, 1)
            update = torch.sigmoid(z + old_z)
            candidate = torch.tanh(new + torch.sigmoid(r + old_r) * old)
            hidden = (1.0 - update) * candidate + update * hidden
            found.append(hidden)
        return torch.stack(found, 1)
