"""Parts of networks for text and image. Needs PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recsim_llm.agents.neural_net import Trainer

SOFT = 1e-2
"""Square of the length below which a vector counts as short: what is nothing has no direction."""


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
