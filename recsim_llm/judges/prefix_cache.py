"""Key-value cache of prompt prefixes, extended in batches to many endings.

A branch holds B beginnings side by side. Growing it appends tokens to each, padded on the right; padding keeps its slot
and is masked, and each token is told its own position. So a branch can be grown again and again, each row may be taken
any number of times, and the last token's logits are those of the whole text computed at once, but for rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from recsim_llm.errors import require


@dataclass(frozen=True, eq=False)
class PromptPrefix:
    """Keys and values of B beginnings.

    Attributes:
        model: A causal language model of transformers.
        layers: Keys and values of each layer, each ``[B, heads, S, width]``; empty where nothing was computed yet.
        mask: ``[B, S] int64``, 0 where a slot is padding.
        lengths: ``[B] int64``, tokens of each beginning without padding.
    """

    model: Any
    layers: tuple[tuple[Any, Any], ...]
    mask: Any
    lengths: Any

    @classmethod
    def root(cls, model: Any) -> PromptPrefix:
        """One beginning without a token."""
        torch = require("torch", "llm")
        zeros = torch.zeros((1, 0), dtype=torch.long, device=model.device)
        return cls(model, (), zeros, torch.zeros(1, dtype=torch.long, device=model.device))

    def take(self, rows: Sequence[int]) -> PromptPrefix:
        """Some of the beginnings, each as often as it is named. Without a copy where there is only one."""
        torch = require("torch", "llm")
        chosen = torch.tensor(list(rows), dtype=torch.long, device=self.mask.device)
        alone = len(self.mask) == 1

        def pick(array: Any) -> Any:
            return array.expand(len(chosen), *array.shape[1:]) if alone else array.index_select(0, chosen)

        layers = tuple((pick(keys), pick(values)) for keys, values in self.layers)
        return PromptPrefix(self.model, layers, pick(self.mask), pick(self.lengths))

    def grow(self, tokens: Sequence[Sequence[int]]) -> tuple[PromptPrefix, Any]:
        """Appends tokens, at least one to each row.

        Returns:
            The longer branch, and the logits after each row's last token, ``[B, V]``.
        """
        cache = self._cache()
        mask, at, logits = self._forward(tokens, cache)
        layers = tuple((layer.keys, layer.values) for layer in cache.layers)
        return PromptPrefix(self.model, layers, mask, self.lengths + at + 1), logits

    def end(self, tokens: Sequence[Sequence[int]]) -> Any:
        """The logits of :meth:`grow` alone; nothing is kept, and without a beginning no cache is made."""
        return self._forward(tokens, self._cache() if self.layers else None)[2]

    def _cache(self) -> Any:
        cache = require("transformers", "llm").DynamicCache()
        for number, (keys, values) in enumerate(self.layers):
            cache.update(keys, values, number)
        return cache

    def _forward(self, tokens: Sequence[Sequence[int]], cache: Any) -> tuple[Any, Any, Any]:
        torch = require("torch", "llm")
        device, longest = self.mask.device, max(len(row) for row in tokens)
        ids = torch.tensor([[*row, *[row[-1]] * (longest - len(row))] for row in tokens], device=device)
        at = torch.tensor([len(row) - 1 for row in tokens], device=device)  # [B], place of the last token
        steps = torch.arange(longest, device=device)
        mask = torch.cat([self.mask, (steps <= at[:, None]).long()], dim=1)
        wanted, place = torch.unique(at, return_inverse=True)
        with torch.inference_mode():
            out = self.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=self.lengths[:, None] + torch.minimum(steps, at[:, None]),
                past_key_values=cache,
                use_cache=cache is not None,
                logits_to_keep=wanted,
            )
        rows = torch.arange(len(ids), device=device)
        return mask, at, out.logits[rows, place].float()
