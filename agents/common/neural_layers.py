"""What the networks of recommenders share: layers with a random stream of their own, and training. Needs PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recsim_llm.threads import one_thread

Batch = Mapping[str, Tensor]
Numbers = NDArray[np.int64]

BLOCKED = -1e9
"""Logit of what cannot be chosen."""

RATE_LEFT = 0.1
"""Share of the step size that is left at the end of a fit."""

SHORT, LONG, OLDEST = 1.0, 5.0, 60.0
"""[day] lives of the two measures of freshness, and the age from which on all are alike, as linear models have them."""


class Drop(nn.Module):
    """Dropout that draws from a generator of its own.

    Args:
        share: Share of the numbers that are set to zero in training.
        generator: Where to draw from, on the CPU.
    """

    def __init__(self, share: float, generator: torch.Generator) -> None:
        super().__init__()
        self.kept, self.generator = 1.0 - share, generator

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        if not self.training or self.kept >= 1.0:
            return x
        mask = torch.empty(x.shape).bernoulli_(self.kept, generator=self.generator)
        return x * (mask.to(x.device) / self.kept)


def linear(inputs: int, outputs: int, generator: torch.Generator, *, zero: bool = False) -> nn.Linear:
    """A linear layer with uniform weights of variance 1 / (3 inputs), or zeros; the global generator is not touched."""
    skip_init: Any = nn.utils.skip_init  # has no types
    layer: nn.Linear = skip_init(nn.Linear, inputs, outputs)
    bound = 0.0 if zero else 1.0 / math.sqrt(inputs)
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.zero_()
    return layer


def freshness(newest: Tensor, released: Tensor) -> tuple[Tensor, Tensor]:
    """exp(-age / life) for two lives [..., 2], and what is not out yet; ``newest`` and ``released`` broadcast."""
    age = newest - released
    bounded = age.clamp(0.0, OLDEST)
    return torch.stack([torch.exp(-bounded / SHORT), torch.exp(-bounded / LONG)], -1), age < 0.0


@dataclass(frozen=True)
class Course:
    """How a network is trained.

    Attributes:
        epochs: Passes over the examples.
        batch: Most examples of a step.
        rate: Step size of Adam at the beginning.
        end: Share of it that is left at the end; in between it falls linearly.
    """

    epochs: int
    batch: int
    rate: float
    end: float = RATE_LEFT


class Trainer:
    """A network and its optimiser.

    Args:
        net: The network; its method ``loss`` takes a batch and gives a scalar. Parameters whose name begins with "id_"
            belong to single items.
        decay: Weight decay of AdamW.
        shrink: The same for parameters of single items: how strongly they are drawn to what the item's text says.
        generator: The generator of the network's layers.
        device: Where it is trained; in between it is on the CPU.
    """

    def __init__(self, net: Any, decay: float, shrink: float, generator: torch.Generator, device: str) -> None:
        self.net, self.generator = net.eval(), generator
        self.device = torch.device(device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
        named = dict(net.named_parameters())
        own = [weights for name, weights in named.items() if name.split(".")[-1].startswith("id_")]
        rest = [weights for name, weights in named.items() if not name.split(".")[-1].startswith("id_")]
        groups = [{"params": rest, "weight_decay": decay}, {"params": own, "weight_decay": shrink}]
        self.optimizer = torch.optim.AdamW([group for group in groups if group["params"]])
        for weights in named.values():  # made at once, so that they have their shapes before the first step
            self.optimizer.state[weights] = {
                "step": torch.zeros(()), "exp_avg": torch.zeros_like(weights), "exp_avg_sq": torch.zeros_like(weights)
            }  # fmt: skip

    def train(self, count: int, batch: Callable[[Numbers], dict[str, Any]], course: Course, rng: Any) -> float:
        """Goes over the examples; the mean loss of the last pass.

        Args:
            count: N.
            batch: Gives arrays for examples by their numbers.
            course: How.
            rng: Where the order is drawn from.
        """
        parts = max(-(-count // course.batch), 1)
        steps, done, mean = course.epochs * parts, 0, 0.0
        if not count:
            return mean
        with self._at_work():
            for _ in range(course.epochs):
                mean = 0.0
                for chosen in np.array_split(rng.permutation(count), parts):
                    rate = course.rate * (1.0 - (1.0 - course.end) * done / steps)
                    mean += self._step(batch(chosen), rate) / parts
                    done += 1
        return mean

    def _step(self, arrays: dict[str, Any], rate: float) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        given = {name: torch.from_numpy(np.ascontiguousarray(array)).to(self.device) for name, array in arrays.items()}
        loss = self.net.loss(given)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """The network in training on its device, PyTorch on one thread; afterwards both are as they were."""
        with one_thread():
            self._to(self.device)
            self.net.train()
            try:
                yield
            finally:
                self.net.eval()
                self._to(torch.device("cpu"))

    def _to(self, device: torch.device) -> None:
        self.net.to(device)
        for state in self.optimizer.state.values():
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = state[name].to(device)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Weights and the optimiser's moments by name; they share their memory with the network."""
        found = {}
        for name, weights in self.net.named_parameters():
            found[f"net/{name}"] = weights.detach().numpy()
            for part, value in self.optimizer.state[weights].items():
                found[f"adam/{part}/{name}"] = value.numpy()
        return found
