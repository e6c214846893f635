"""Dynamic int8 quantisation of text encoders.

    W ~ s_o Q_o, Q_o = round(W_o / s_o), s_o = max |W_o| / 127        for each output o, once
    x ~ t_b P_b, P_b = round(x_b / t_b), t_b = max |x_b| / 127        for each token b, whenever it comes
    y_bo = t_b s_o (P_b . Q_o) + bias_o                               P . Q in int8 with int32 sums

Words' vectors and normalisation stay in float32. Attention's products do too. (``torch.ao.quantization`` is on its way
out of torch, so the layer is written here.) :func:`loss` measures what is lost.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from recsim_llm.errors import ConfigError, require
from recsim_llm.metrics.rank_correlation import spearman

if TYPE_CHECKING:
    from recsim_llm.encoders.text import Encoder, TextEncoder

__all__ = ["QuantisationLoss", "loss", "quantise"]

_LARGEST = 127  # -128 is left out, so that a sign can be turned
_SCHEME = "int8-1: linear layers, weights by output, activations by token, symmetric"


@dataclasses.dataclass(frozen=True)
class QuantisationLoss:
    """What int8 changes, measured on texts.

    Attributes:
        texts: How many texts.
        cosine: Mean cosine of a text's two encodings.
        worst_cosine: The smallest one.
        neighbours: Spearman correlation of the similarities of all pairs of texts.
        speed: Texts a second in int8, by texts a second in float32.
        megabytes: Memory of the weights of the model in float32 and in int8 [MB].
    """

    texts: int
    cosine: float
    worst_cosine: float
    neighbours: float
    speed: float
    megabytes: tuple[float, float]


def quantise(encoder: Encoder) -> TextEncoder:
    """The same encoder with linear layers in int8. It has a digest of its own, so caches keep the two apart.

    Args:
        encoder: A text encoder of transformers; it stays as it is.

    Raises:
        ConfigError: If it has no linear layers, or this torch cannot multiply int8.
    """
    from recsim_llm.encoders.text import TextEncoder

    torch = require("torch", "llm")
    if not isinstance(encoder, TextEncoder):
        raise ConfigError(f"{encoder.name!r} is no transformer; only those can be quantised")
    if not hasattr(torch, "_int_mm"):
        raise ConfigError(f"torch {torch.__version__} has no int8 product on this processor; leave out quantised")
    model = copy.deepcopy(encoder._model)
    if not _replace(model, _layer_class(torch), torch):
        raise ConfigError(f"{encoder.name!r} has no linear layers that could be quantised")
    digest = hashlib.sha256(f"{encoder.digest} {_SCHEME}".encode()).hexdigest()
    return dataclasses.replace(encoder, name=f"{encoder.name} int8", digest=digest, _model=model)


def loss(full: TextEncoder, small: TextEncoder, texts: Sequence[str]) -> QuantisationLoss:
    """Measures a quantised encoder against its original on texts, both on this machine now.

    Args:
        full: In float32.
        small: In int8.
        texts: At least three different ones.
    """
    if len(set(texts)) < 3:
        raise ConfigError(f"{len(set(texts))} different texts: the loss needs at least three")
    for encoder in (full, small):  # the first call allocates
        encoder.encode(texts[:1])
    begin = time.perf_counter()
    right = full.encode(texts)
    middle = time.perf_counter()
    seen = small.encode(texts)
    end = time.perf_counter()
    cosine = (right * seen).sum(axis=1)
    above = np.triu_indices(len(texts), 1)
    return QuantisationLoss(
        texts=len(texts),
        cosine=float(cosine.mean()),
        worst_cosine=float(cosine.min()),
        neighbours=spearman((right @ right.T)[above], (seen @ seen.T)[above]),
        speed=(middle - begin) / (end - middle),
        megabytes=(_megabytes(full._model), _megabytes(small._model)),
    )


def _megabytes(model: Any) -> float:
    tensors = [*model.parameters(), *model.buffers()]
    return float(sum(tensor.numel() * tensor.element_size() for tensor in tensors)) / 1e6


def _replace(module: Any, layer: Any, torch: Any) -> int:
    """Puts an int8 layer in the place of every linear one below a module; returns how many."""
    count = 0
    for name, child in list(module.named_children()):
        if type(child) is torch.nn.Linear:
            setattr(module, name, layer(child))
            count += 1
        else:
            count += _replace(child, layer, torch)
    return count


def _layer_class(torch: Any) -> Any:
    """The layer; a class made here, because torch is imported only where it is needed."""

    class Int8Linear(torch.nn.Module):  # type: ignore[misc]
        """A linear layer with weights in int8."""

        def __init__(self, linear: Any) -> None:
            super().__init__()
            weight = linear.weight.detach().float()
            scale = (weight.abs().amax(dim=1) / _LARGEST).clamp(min=1e-12)  # [O]
            whole = (weight / scale[:, None]).round().clamp(-_LARGEST, _LARGEST).to(torch.int8)
            self.register_buffer("weight_t", whole.t())  # [I, O]
            self.register_buffer("scale", scale)
            self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().float().clone())

        def forward(self, given: Any) -> Any:
            """[..., I] to [..., O]."""
            rows = given.reshape(-1, given.shape[-1])  # [B, I]
            size = (rows.abs().amax(dim=1, keepdim=True) / _LARGEST).clamp(min=1e-12)  # [B, 1]
            whole = (rows / size).round().to(torch.int8)
            out = torch._int_mm(whole, self.weight_t).float() * size * self.scale
            if self.bias is not None:
                out = out + self.bias
            return out.reshape(*given.shape[:-1], -1)

    return Int8Linear
