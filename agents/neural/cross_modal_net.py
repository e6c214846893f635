"""Parts of networks for text and image. Needs PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recsim_llm.agents.common.neural_layers import Trainer, linear

Floats = NDArray[np.float32]
ID_SPREAD = 0.1
"""Standard deviation of first vectors of items where nothing else tells them apart."""

SOFT = 1e-2
"""Square of the length below which a vector counts as short: what is nothing has no direction."""


class CrossModalNet(nn.Module):
    """Base of networks over text and image: what is known of the items, and what items and users have of their own.

    Args:
        table: [I, 1 + C] price and contents of the items, the text's before the image's.
        texts: Columns of the contents that come from the text.
        released: [I] [day].
        topic: [I].
        strangers: Share of examples in training whose user's own vector is left out.
        generator: Where initial weights are drawn from.
    """

    contents: Tensor
    table: Tensor
    released: Tensor
    topic: Tensor

    def __init__(
        self,
        table: Floats,
        texts: int,
        released: Floats,
        topic: NDArray[np.integer],
        strangers: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.width, self.texts = table.shape[1] - 1, texts
        self.images = self.width - texts
        self.strangers, self.generator = strangers, generator
        arrays: dict[str, NDArray[Any]] = {
            "table": table,
            "contents": table[:, 1:],
            "released": released,
            "topic": topic.astype(np.int64),
        }
        for name, array in arrays.items():
            self.register_buffer(name, torch.as_tensor(array.copy()), persistent=False)

    def add_own(self, room: int, width: int) -> None:
        """Biases, own vectors of so many users and of the items, and weights of age and of what was seen often."""
        self.bias = linear(self.table.shape[1], 1, self.generator, zero=True)
        self.id_user = nn.Parameter(torch.zeros(room, width))
        drawn = torch.zeros(len(self.table), width).normal_(0.0, 1.0, generator=self.generator)
        self.id_vector = nn.Parameter(drawn * (0.0 if self.width else ID_SPREAD))
        self.id_bias = nn.Parameter(torch.zeros(len(self.table)))
        self.fresh, self.wear = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))

    def biases(self) -> Tensor:
        """[I] what is alike for all users."""
        found: Tensor = self.bias(self.table)[:, 0] + self.id_bias
        return found


def unit(x: Tensor) -> Tensor:
    """Vectors [..., D] over their lengths, x / sqrt(|x|^2 + 0.01): never longer than 1, and zero for zero."""
    return x / torch.sqrt(torch.square(x).sum(-1, keepdim=True) + SOFT)


def own_vectors(table: Tensor, rows: Tensor) -> Tensor:
    """Rows [N] of a table [U, R], zeros where the number is -1, [N, R]."""
    return table[rows.clamp(min=0)] * (rows >= 0).to(table.dtype)[:, None]


def pooled_vectors(table: Tensor, history: Tensor) -> Tensor:
    """Sum of the rows of a table [I, R] that histories [N, H] name, over the root of their number, [N, R]."""
    some = (history >= 0).to(table.dtype)
    total = (table[history.clamp(min=0)] * some[:, :, None]).sum(1)
    return total / torch.sqrt(some.sum(1).clamp(min=1.0))[:, None]


def strangers(rows: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Rows [N] with a share of them set to -1, as for users who are not in the log."""
    drawn = torch.empty(len(rows)).uniform_(generator=generator).to(rows.device) < share
    return rows.masked_fill(drawn, -1)


def widen(trainer: Trainer, name: str, rows: int) -> None:
    """Gives a table of the network more rows, of zeros; the optimiser's moments grow with it.

    Args:
        trainer: The network and its optimiser.
        name: Parameter [U, R] of the network itself.
        rows: U afterwards; nothing is done where there are as many.
    """
    old: nn.Parameter = trainer.net.get_parameter(name)
    if rows <= len(old):
        return

    def longer(table: Tensor) -> Tensor:
        return torch.cat([table.detach(), torch.zeros(rows - len(old), old.shape[1])])

    new = nn.Parameter(longer(old))
    setattr(trainer.net, name, new)
    for group in trainer.optimizer.param_groups:
        group["params"] = [new if one is old else one for one in group["params"]]
    state = trainer.optimizer.state.pop(old)
    trainer.optimizer.state[new] = {
        "step": state["step"], "exp_avg": longer(state["exp_avg"]), "exp_avg_sq": longer(state["exp_avg_sq"])
    }  # fmt: skip
