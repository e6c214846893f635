"""Encoder with adapters in its upper layers; the frozen lower layers are computed once for each text. Needs peft.

Layers below the lowest one that is trained do not change, so what they make of a text is computed once and kept; a step
of tuning then costs a fraction of the whole model.
"""

from __future__ import annotations

import copy
import hashlib
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recsim_llm.encoders.text import TextEncoder
from recsim_llm.errors import ConfigError, DataError, require

TARGETS = ("query", "key", "value", "dense")
"""Linear maps of a layer of BERT that get adapters: those of attention and of both feed-forward maps."""

MOST_BYTES = 2**30
"""Most memory for what the lower layers make of texts; more is computed again in each step."""

BATCH = 32
LENGTH_STEP = 8


@dataclass(frozen=True)
class Plan:
    """Which numbers of a model are trained.

    Attributes:
        method: "lora", "adalora" or "full".
        rank: Rank of an adapter; the mean that AdaLoRA ends with.
        layers: Upper layers that are trained; 0 for all, and then "full" trains the embeddings too.
        steps: Steps of AdaLoRA's schedule.
    """

    method: str
    rank: int
    layers: int
    steps: int = 1


@dataclass(frozen=True, eq=False)
class Prepared:
    """T texts as the trained layers see them.

    Attributes:
        ids: [T, L] tokens.
        mask: [T, L].
        states: [T, L, E] what the layers below make of them; None where that is computed in each step.
        skipped: Layers below the trained ones; -1 where nothing is skipped.
        seconds: What it took [s].
    """

    ids: Tensor
    mask: Tensor
    states: Tensor | None
    skipped: int
    seconds: float = field(default=0.0, compare=False)


def layers_of(model: Any) -> Any:
    """The list of layers of a BERT; None for other models, of which all layers are computed in each step."""
    if getattr(model.config, "model_type", "") != "bert" or not hasattr(model, "embeddings"):
        return None
    return model.encoder.layer


def skipped_of(model: Any, plan: Plan) -> int:
    """Layers that can be computed once; -1 for none, not even the embeddings.

    Raises:
        ConfigError: If there are not so many layers.
    """
    layers = layers_of(model)
    if layers is None:
        if plan.layers:
            kind = getattr(model.config, "model_type", "unknown")
            raise ConfigError(f"layers={plan.layers}: only all layers (0) of a {kind!r} model can be tuned")
        return -1
    if plan.layers > len(layers):
        raise ConfigError(f"layers={plan.layers}: the encoder has {len(layers)}")
    if plan.layers == 0:
        return -1 if plan.method == "full" else 0
    return len(layers) - plan.layers


KEPT = 2
"""So many texts' lower states are remembered: those cut short to be tuned on, and those of whole texts to be served."""

_kept: dict[str, Prepared] = {}


def prepared(encoder: TextEncoder, texts: Sequence[str], plan: Plan, length: int) -> Prepared:
    """Tokens and lower states of texts; those of the last two calls that differ are remembered.

    Args:
        encoder: The encoder that is tuned.
        texts: T texts.
        plan: What is trained.
        length: Most tokens of a text; what goes beyond is cut off.
    """
    started = time.perf_counter()
    skipped = skipped_of(encoder._model, plan)
    key = hashlib.sha256(repr((encoder.digest, skipped, length)).encode())
    for text in texts:
        key.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    name = key.hexdigest()
    if name not in _kept:
        ids, mask = _tokens(encoder, texts, length)
        room = ids.numel() * encoder.width * 4
        states = _lower(encoder._model, ids, mask, skipped) if skipped >= 0 and room <= MOST_BYTES else None
        _kept[name] = Prepared(ids, mask, states, skipped, time.perf_counter() - started)
    _kept[name] = found = _kept.pop(name)  # the newest last
    while len(_kept) > KEPT:
        del _kept[next(iter(_kept))]
    return found


def _tokens(encoder: TextEncoder, texts: Sequence[str], length: int) -> tuple[Tensor, Tensor]:
    """Tokens and mask, each [T, L]: every text padded to one length, so that batches have one shape."""
    rows = encoder._tokenizer(list(texts), truncation=True, max_length=length, padding=False)["input_ids"]
    longest = max((len(row) for row in rows), default=1)
    width = min(-(-longest // LENGTH_STEP) * LENGTH_STEP, max(length, longest))
    ids = np.full((len(rows), width), encoder._tokenizer.pad_token_id or 0, np.int64)
    mask = np.zeros((len(rows), width), np.int64)
    for row, tokens in enumerate(rows):
        ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
    return torch.from_numpy(ids), torch.from_numpy(mask)


def _lower(model: Any, ids: Tensor, mask: Tensor, skipped: int) -> Tensor:
    """What the embeddings and the lower layers make of tokens, [T, L, E]."""
    out = torch.zeros((*ids.shape, int(model.config.hidden_size)))
    model = copy.deepcopy(model)  # others may encode with the model meanwhile
    with torch.no_grad(), _only(model, range(skipped)):
        for rows, width in _alike(mask):
            part = model(input_ids=ids[rows, :width], attention_mask=mask[rows, :width])
            out[rows, :width] = part.last_hidden_state
    return out


def _alike(mask: Tensor) -> Iterator[tuple[Tensor, int]]:
    """Rows [N] of texts of like length, and the length that holds them: what is beyond it is padding."""
    lengths = mask.sum(1)
    order = torch.argsort(lengths, stable=True)
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        yield rows, min(-(-int(lengths[rows[-1]]) // LENGTH_STEP) * LENGTH_STEP, mask.shape[1])


class Idle(nn.Module):
    """In place of a layer: hands on what it gets. In place of the embeddings: ``inputs_embeds``."""

    def forward(self, hidden: Any = None, *_: Any, inputs_embeds: Any = None, **__: Any) -> Any:
        """Its input."""
        return inputs_embeds if hidden is None else hidden


@contextmanager
def _only(model: Any, kept: range, embeddings: bool = True) -> Iterator[None]:
    """The model with only some of its layers at work; with ``embeddings`` false it starts from ``inputs_embeds``."""
    layers, first = layers_of(model), model.embeddings
    whole = list(layers)
    try:
        for number in range(len(layers)):
            if number not in kept:
                layers[number] = Idle()
        if not embeddings:
            model.embeddings = Idle()
        yield
    finally:
        model.embeddings = first
        for number, layer in enumerate(whole):
            layers[number] = layer


@contextmanager
def upper_only(model: Any, texts: Prepared) -> Iterator[None]:
    """The model with its trained layers alone at work, where the others' work is done."""
    if texts.states is None:
        yield
        return
    with _only(model, range(texts.skipped, len(layers_of(model))), embeddings=False):
        yield


def encoded(model: Any, texts: Prepared, rows: Tensor, width: int | None = None) -> Tensor:
    """Unit vectors [N, E] of some texts; the mean over tokens, as in :class:`~recsim_llm.encoders.text.TextEncoder`.

    Args:
        model: The model, inside :func:`upper_only`.
        texts: T texts.
        rows: [N] which of them.
        width: Tokens that hold them; None for all.
    """
    mask = texts.mask[rows, :width]
    given = (
        {"input_ids": texts.ids[rows, :width]} if texts.states is None
        else {"inputs_embeds": texts.states[rows, :width]}
    )  # fmt: skip
    hidden = model(attention_mask=mask, **given).last_hidden_state  # [N, L, E]
    weight = mask.unsqueeze(-1).to(hidden.dtype)
    mean = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1.0)
    unit: Tensor = mean / mean.norm(dim=1, keepdim=True).clamp(min=1e-12)
    return unit


def encoded_all(model: Any, texts: Prepared) -> NDArray[np.float32]:
    """Unit vectors [T, E] of all texts by a tuned model, of which the trained layers alone have to work."""
    out = np.zeros((len(texts.ids), int(model.config.hidden_size)), np.float32)
    with torch.no_grad(), upper_only(model, texts):
        for rows, width in _alike(texts.mask):
            out[rows.numpy()] = encoded(model, texts, rows, width).numpy()
    return out


@dataclass
class Body:
    """A copy of a model in which some numbers are trained.

    Attributes:
        model: The copy; its adapters are inside its layers.
        wrapper: peft's view of it; None for "full".
        plan: What is trained.
        trained: The trained numbers by name, in the order of the model.
    """

    model: Any
    wrapper: Any
    plan: Plan
    trained: dict[str, Any]

    @property
    def parameters(self) -> tuple[int, int]:
        """Numbers that are trained, and numbers of the untuned model."""
        adapters = sum(weights.numel() for weights in self.trained.values())
        own = {id(weights) for weights in self.trained.values()} if self.wrapper is not None else set()
        whole = sum(
            weights.numel() for name, weights in self.model.named_parameters()
            if id(weights) not in own and "lora_" not in name and "ranknum" not in name
        )  # fmt: skip
        return adapters, whole

    def tensors(self) -> dict[str, Tensor]:
        """What differs from the untuned model, by peft's names or, for "full", the model's own."""
        if self.wrapper is None:
            return {name: weights.detach().clone().contiguous() for name, weights in self.trained.items()}
        config = self.wrapper.peft_config["default"]
        pattern, config.rank_pattern = config.rank_pattern, {} if self.plan.method == "lora" else None
        found = require("peft", "llm").get_peft_model_state_dict(self.wrapper)
        config.rank_pattern = pattern
        return {name: weights.detach().clone().contiguous() for name, weights in found.items()}

    def fill(self, tensors: Mapping[str, Tensor], source: object) -> None:
        """Takes over :meth:`tensors`.

        Raises:
            DataError: If names, shapes or types differ, or a number is not finite.
        """
        own = self.tensors()
        if set(own) != set(tensors):
            raise DataError(f"{source}: tensors differ from this encoder's: {sorted(set(own) ^ set(tensors))[:4]}")
        for name, weights in tensors.items():
            if weights.shape != own[name].shape or weights.dtype != own[name].dtype:
                raise DataError(
                    f"{source}: {name} is {weights.dtype} {list(weights.shape)}, expected {own[name].dtype} "
                    f"{list(own[name].shape)}; it was tuned with other settings or on another encoder"
                )
            if not torch.isfinite(weights).all():
                raise DataError(f"{source}: {name} holds NaN or infinity; tune the encoder again")
        with torch.no_grad():
            if self.wrapper is None:
                for name, weights in tensors.items():
                    self.trained[name].copy_(weights)
            else:
                require("peft", "llm").set_peft_model_state_dict(self.wrapper, dict(tensors))

    def merged(self) -> Any:
        """The model with its adapters added to the weights; the body cannot be trained afterwards."""
        model = self.model if self.wrapper is None else self.wrapper.merge_and_unload()
        for weights in model.parameters():
            weights.requires_grad_(False)
        return model.eval()


def body_of(encoder: TextEncoder, plan: Plan, seed: int) -> Body:
    """A copy of an encoder's model that is ready for training; at first it encodes as the encoder does.

    Args:
        encoder: The encoder; it is left as it is.
        plan: What is trained.
        seed: Seed of the adapters' initial weights.
    """
    skipped = skipped_of(encoder._model, plan)
    model = copy.deepcopy(encoder._model).eval()  # no dropout: texts are few and steps are too
    for weights in model.parameters():
        weights.requires_grad_(False)
    if plan.method == "full":
        trained = {name: weights for name, weights in model.named_parameters() if _is_trained(name, skipped)}
        for weights in trained.values():
            weights.requires_grad_(True)
        return Body(model, None, plan, trained)
    peft = require("peft", "llm")
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        torch.manual_seed(seed)
        warnings.filterwarnings("ignore")  # peft's hints are on what is not used here
        wrapper = peft.get_peft_model(model, adapter_config(model, plan))
    trained = {name: weights for name, weights in model.named_parameters() if weights.requires_grad}
    return Body(model, wrapper.eval(), plan, trained)


def _is_trained(name: str, skipped: int) -> bool:
    """Whether full tuning trains a weight: all that has part in an encoding and lies above the skipped layers."""
    parts = name.split(".")
    if "pooler" in parts:
        return False
    if skipped < 0 or "layer" not in parts:
        return skipped < 0
    return int(parts[parts.index("layer") + 1]) >= skipped


def adapter_config(model: Any, plan: Plan) -> Any:
    """The settings of a plan as peft wants them."""
    peft = require("peft", "llm")
    layers = layers_of(model)
    where: dict[str, Any] = {"target_modules": "all-linear"}
    if layers is not None:
        numbers = list(range(max(skipped_of(model, plan), 0), len(layers)))
        where = {"target_modules": list(TARGETS), "layers_to_transform": numbers, "layers_pattern": "layer"}
    if plan.method == "lora":
        return peft.LoraConfig(r=plan.rank, lora_alpha=2 * plan.rank, lora_dropout=0.0, bias="none", **where)
    first = max(plan.rank * 3 // 2, plan.rank + 1)
    return peft.AdaLoraConfig(
        init_r=first, target_r=plan.rank, lora_alpha=2 * first, lora_dropout=0.0, bias="none",
        total_step=max(plan.steps, 10), tinit=max(plan.steps, 10) // 5, tfinal=max(plan.steps, 10) // 3, deltaT=1,
        orth_reg_weight=0.1, **where,
    )  # fmt: skip


def orthogonality(body: Body) -> Tensor:
    """AdaLoRA's penalty (Zhang et al. 2023): mean of |P^T P - I| and |Q Q^T - I|, Frobenius norms."""
    parts = []
    for name, weights in body.trained.items():
        if "lora_A" in name or "lora_B" in name:
            square = weights @ weights.T if "lora_A" in name else weights.T @ weights
            parts.append(torch.linalg.matrix_norm(square - torch.eye(len(square))))
    return torch.stack(parts).mean()


def ranks(body: Body) -> dict[str, int]:
    """Ranks that AdaLoRA left to each map."""
    return {
        name.removesuffix(".lora_E.default").removeprefix("encoder."): int((weights.detach() != 0).sum())
        for name, weights in body.trained.items()
        if "lora_E" in name
    }
