"""Optimisation loop of fine-tuning. Needs PyTorch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from recsim_llm.encoders.finetune.adapters import Plan, body_of, encoded, orthogonality, prepared, ranks, upper_only
from recsim_llm.encoders.finetune.data import Block, Blocks, Engagements, Examples
from recsim_llm.encoders.finetune.files import Head
from recsim_llm.encoders.finetune.losses import bpr, cross_entropy, squared
from recsim_llm.encoders.text import TextEncoder
from recsim_llm.threads import one_thread

if TYPE_CHECKING:
    from recsim_llm.encoders.finetune.training import Tuning

RATE_LEFT = 0.1
"""Share of the step size that is left at the end."""

CLIP = 1.0
"""Most length of a gradient."""

LOOKS = 32
"""Blocks by which the share of blocks that an item is in is counted before tuning."""


class TaskHead(nn.Module):
    """b + a u . (w * e); w only where there are several tasks.

    Args:
        width: E.
        scale: a at the beginning.
        bias: b at the beginning.
        mixes: Whether there is a w.
    """

    def __init__(self, width: int, scale: float, bias: float, mixes: bool) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.bias = nn.Parameter(torch.tensor(bias))
        self.mix = nn.Parameter(torch.ones(width)) if mixes else None

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """[P, M]."""
        mixed = users if self.mix is None else users * self.mix
        scores: Tensor = self.bias + self.log_scale.exp() * (mixed @ items.T)
        return scores

    def plain(self) -> Head:
        """The numbers."""
        mix = None if self.mix is None else tuple(float(value) for value in self.mix.detach())
        return Head(float(self.log_scale.detach().exp()), float(self.bias.detach()), mix)


class Course:
    """One tuning from beginning to end.

    Args:
        encoder: The encoder.
        texts: Texts of the I items, then personas of the users, "" for those without one; or items alone.
        items: I.
        data: Who engaged with what.
        config: Settings.

    Attributes:
        body: The model that is trained.
        steps: How many steps there will be.
        losses: Mean loss of each step so far.
    """

    def __init__(
        self, encoder: TextEncoder, texts: Sequence[str], items: int, data: Engagements, config: Tuning
    ) -> None:
        self.config, self.items, self.losses = config, items, list[float]()
        personas = np.array([bool(text) for text in texts[items:]], np.bool_) if len(texts) > items else None
        self.blocks = Blocks(data, config.tasks, config.block, personas)
        self.rng, self._looks = (np.random.Generator(np.random.PCG64([config.seed, part])) for part in (0, 1))
        self.steps = min(config.steps, config.epochs * len(self.blocks))
        self.plan = Plan(config.method, config.rank, config.layers, self.steps)
        with one_thread():
            self.texts = prepared(encoder, texts, self.plan, config.length)
            self.body = body_of(encoder, self.plan, config.seed)
        self.log_share = self._shares(len(texts))
        self.negatives = {task: not (~np.isnan(v) & ~data.liked(task)).any() for task, v in data.values.items()}
        self.tasks = nn.ModuleDict({f"task {task}": self._head(task, data, encoder.width) for task in config.tasks})
        groups = [
            {"params": list(self.body.trained.values()), "rate": config.rate},
            {"params": list(self.tasks.parameters()), "rate": config.head_rate},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=config.rate, weight_decay=config.decay)
        self._order = self.blocks.drawn(self.rng)

    def _head(self, task: str, data: Engagements, width: int) -> TaskHead:
        mixes = len(self.config.tasks) > 1
        if self.config.loss != "squared":
            return TaskHead(width, self.config.sharpness, 0.0, mixes)
        return TaskHead(width, 1.0, 0.0 if self.negatives[task] else float(np.nanmean(data.values[task])), mixes)

    def _shares(self, count: int) -> Tensor:
        """[T] logarithm of the share of blocks that an item is in, counted in blocks drawn beforehand."""
        seen = np.full(count, 0.5)
        order = self.blocks.drawn(self._looks)
        for _ in range(LOOKS):
            np.add.at(seen, next(order), 1.0)
        return torch.from_numpy(np.log(seen / LOOKS)).float() * float(self.config.corrected)

    def step(self) -> float:
        """One block; the loss."""
        done, config = len(self.losses), self.config
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * (1.0 - (1.0 - RATE_LEFT) * done / self.steps)
        block = self.blocks.block(next(self._order), config.examples, self.rng)
        with one_thread(), upper_only(self.body.model, self.texts):
            loss = self.loss(block)
            whole = loss + 0.1 * orthogonality(self.body) if config.method == "adalora" else loss
            self.optimizer.zero_grad(set_to_none=True)
            if whole.requires_grad:
                whole.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_([*self.body.trained.values()], CLIP)
                self.optimizer.step()
            if config.method == "adalora":
                self.body.wrapper.base_model.update_and_allocate(done)
        self.losses.append(float(loss.detach()))
        return self.losses[-1]

    def loss(self, block: Block) -> Tensor:
        """The weighted mean of the tasks' losses."""
        rows = np.concatenate([block.items, self._told(block)])
        vectors = encoded(self.body.model, self.texts, torch.from_numpy(rows))
        items, told = vectors[: len(block.items)], vectors[len(block.items) :]
        weights = self.config.weights or (1.0,) * len(self.config.tasks)
        parts = [
            weight * self._task_loss(task, block, block.tasks[task], items, told)
            for task, weight in zip(self.config.tasks, weights, strict=True)
            if len(block.tasks[task].user)
        ]
        if not parts:
            return vectors.sum() * 0.0
        return torch.stack(parts).sum() / sum(weights)

    def _told(self, block: Block) -> Any:
        """Rows of the texts of those users of the block who have a persona."""
        return self.items + block.users[self.blocks.personas[block.users]]

    def _users(self, block: Block, examples: Examples, items: Tensor, told: Tensor) -> Tensor:
        """[P, E] unit vectors of the users of examples: persona, or the mean of what they engaged with but the item."""
        at, column = torch.from_numpy(examples.user), torch.from_numpy(examples.item)
        engaged = torch.from_numpy(block.engaged)
        total = (engaged @ items)[at] - engaged[at, column][:, None] * items[column]
        users: Tensor = total / total.norm(dim=1, keepdim=True).clamp(min=1e-6)
        has = self.blocks.personas[block.users]
        if has.any():
            place = torch.from_numpy(np.where(has, np.cumsum(has) - 1, 0))[at]
            users = torch.where(torch.from_numpy(has)[at][:, None], told[place], users)
        return users

    def _task_loss(self, task: str, block: Block, given: Examples, items: Tensor, told: Tensor) -> Tensor:
        kind = self.config.loss
        scores: Tensor = self.tasks[f"task {task}"](self._users(block, given, items, told), items)
        item, liked = torch.from_numpy(given.item), torch.from_numpy(given.liked)
        known = torch.from_numpy(block.engaged)[torch.from_numpy(given.user)] > 0
        if kind == "squared":
            own = scores.gather(1, item[:, None])[:, 0]
            loss = squared(own, torch.from_numpy(given.value))
            if self.negatives[task]:  # nothing was turned down: what nobody took counts as 0
                others = scores[~known]
                loss = 0.5 * loss + 0.5 * squared(others, torch.zeros_like(others))
            return loss
        if not given.liked.any():
            return scores.sum() * 0.0
        scores, item, known = scores[liked], item[liked], known[liked]
        if kind == "bpr":
            return bpr(scores, item, known)
        return cross_entropy(scores, item, known, self.log_share[torch.from_numpy(block.items)])

    def heads(self) -> dict[str, Head]:
        """The heads by task."""
        return {task: self.tasks[f"task {task}"].plain() for task in self.config.tasks}  # type: ignore[operator]

    def report(self) -> dict[str, Any]:
        """Costs and losses."""
        trained, whole = self.body.parameters
        trained += sum(weights.numel() for weights in self.tasks.parameters())
        tenth = max(len(self.losses) // 10, 1)
        found: dict[str, Any] = {
            "parameters_trained": trained, "parameters": whole, "share": trained / whole, "steps": self.steps,
            "first_loss": float(np.mean(self.losses[:tenth])), "last_loss": float(np.mean(self.losses[-tenth:])),
            "seconds_lower_layers": self.texts.seconds,
        }  # fmt: skip
        if self.config.method == "adalora":
            found["ranks"] = ranks(self.body)
        return found
