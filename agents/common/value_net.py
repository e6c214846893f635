"""Networks that score users and items by encodings, and their optimiser. Needs PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recsim_llm.agents.common.neural_layers import linear

Arrays = dict[str, NDArray[Any]]


class UserItemNet(nn.Module):
    """Heads of a user's own number and of scores of all items.

        base(s) = c + u . h(s),    score(s, i) = (W h(s) + a * p + c * z) . x_i + (M h(s)) . m_i + b_i

    x_i is the item's encoding, p and z those of profile and recent interest, h a hidden layer over the features of the
    state and the encodings of the user, m_i what users did with the item on average, b_i the item's own number. All
    are 0 at first but the hidden layer. W and M hold the part that is the same for all states.

    Args:
        embedding: [I, D] encodings of the items.
        features: Features of a state beside the encodings.
        hidden: Width of the hidden layer.
        heads: Number of heads.
        signs: Width of m_i.
        generator: Where initial weights are drawn from.
    """

    items: Tensor

    def __init__(
        self,
        embedding: NDArray[np.float32],
        features: int,
        hidden: int,
        heads: int,
        signs: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        width = embedding.shape[1]
        scale = float(np.sqrt(np.square(embedding).sum(1).mean())) or 1.0
        self.width, self.heads, self.signs, self.scale = width, heads, signs, 1.0 / scale
        known = np.concatenate([embedding / scale, np.zeros((len(embedding), signs))], 1)
        self.register_buffer("items", torch.as_tensor(known, dtype=torch.float32), persistent=False)
        self.inner = linear(features + 2 * width, hidden, generator)
        self.base = linear(hidden, heads, generator, zero=True)
        self.query = linear(hidden, heads * (width + signs), generator, zero=True)
        self.profile = nn.Parameter(torch.zeros(heads, width))
        self.interest = nn.Parameter(torch.zeros(heads, width))
        self.id_bias = nn.Parameter(torch.zeros(heads, len(embedding)))

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Base [B, heads] and directions [B, heads, D + signs] of states [B, N + 2 D]: features, profile, interest."""
        people = states[:, -2 * self.width :] * self.scale
        profile, interest = people[:, None, : self.width], people[:, None, self.width :]
        hidden = torch.tanh(self.inner(torch.cat([states[:, : -2 * self.width], people], 1)))
        base: Tensor = self.base(hidden)
        query = self.query(hidden).reshape(len(states), self.heads, self.width + self.signs)
        said = profile * self.profile + interest * self.interest
        direction: Tensor = query + nn.functional.pad(said, (0, self.signs))
        return base, direction

    def know(self, table: Tensor) -> None:
        """Takes over what users did with each item, [I, signs]."""
        self.items[:, self.width :] = table

    def of_all(self, direction: Tensor, head: int) -> Tensor:
        """Scores of all items, [B, I]."""
        scores: Tensor = direction[:, head] @ self.items.T + self.id_bias[head]
        return scores

    def of(self, direction: Tensor, head: int, items: Tensor) -> Tensor:
        """Scores of items [B, K], [B, K]."""
        scores: Tensor = (self.items[items] @ direction[:, head, :, None])[:, :, 0] + self.id_bias[head][items]
        return scores


class Learner:
    """A network, one that lags behind it, and the optimiser (AdamW).

    Args:
        net: The network.
        target: The one that lags behind, of the same form; None for none.
        rate: Step size.
        rate_items: The same for items' own numbers, which few examples speak of.
        decay: Weight decay.
        shrink: The same for items' own numbers.
        device: Where it is: "cpu", "cuda", or "auto" for CUDA where there is a device.
    """

    def __init__(
        self, net: nn.Module, target: nn.Module | None, rate: float, rate_items: float, decay: float, shrink: float,
        device: str,
    ) -> None:  # fmt: skip
        self.device = torch.device(device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
        self.net = net.to(self.device)
        self.target = None if target is None else target.to(self.device)
        named = list(net.named_parameters())
        own = [weights for name, weights in named if name.split(".")[-1].startswith("id_")]
        rest = [weights for name, weights in named if not name.split(".")[-1].startswith("id_")]
        groups = [
            {"params": rest, "lr": rate, "weight_decay": decay},
            {"params": own, "lr": rate_items, "weight_decay": shrink},
        ]
        self.optimizer = torch.optim.AdamW([group for group in groups if group["params"]])
        for _, weights in named:  # made at once, so that they have their shapes before the first step
            self.optimizer.state[weights] = {
                "step": torch.zeros(()), "exp_avg": torch.zeros_like(weights), "exp_avg_sq": torch.zeros_like(weights)
            }  # fmt: skip
        self.follow(1.0)

    def step(self, loss: Tensor, largest: float = 10.0) -> float:
        """One step down the gradient of a scalar, whose norm is limited; the loss."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.net.parameters(), largest)
        self.optimizer.step()
        return float(loss.detach())

    def follow(self, share: float) -> None:
        """Moves the network that lags behind a share of the way."""
        if self.target is None:
            return
        with torch.no_grad():
            for behind, ahead in zip(self.target.parameters(), self.net.parameters(), strict=True):
                behind.lerp_(ahead, share)

    def tensor(self, array: NDArray[Any]) -> Tensor:
        """An array on the device."""
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def arrays(self) -> Arrays:
        """Weights and moments; on the CPU they share memory with the network's."""
        return {name: tensor.detach().cpu().numpy() for name, tensor in self._tensors().items()}

    def take(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Takes over values by name."""
        with torch.no_grad():
            for name, tensor in self._tensors().items():
                tensor.copy_(torch.from_numpy(arrays[name]))

    def _tensors(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for name, weights in self.net.named_parameters():
            found[f"net/{name}"] = weights
            for part, value in self.optimizer.state[weights].items():
                found[f"adam/{part}/{name}"] = value
        if self.target is not None:
            found |= {f"target/{name}": weights for name, weights in self.target.named_parameters()}
        return found
