"""Causal language model as a judge: the likelihood of each rating as the next token.

The model is shown a persona and an item and asked for a number from 1 to 5; the rating is the mean of the five numbers
under the probabilities that the model gives them as its first token, so nothing is sampled and nothing is parsed. The
options are listed in an order drawn for each pair and in that order backwards, since models prefer places in a list
(Zheng et al. 2024, arXiv:2309.03882).

What prompts begin with alike is computed once: the keys and values of the instructions are kept for good, those of a
persona for all its items, those of an item for all orders of the options.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.encoders.progress import advance
from recsim_llm.errors import ConfigError, require
from recsim_llm.judges.base import Pair, Verdict
from recsim_llm.judges.prefix_cache import PromptPrefix
from recsim_llm.judges.prompt_tokens import Layout
from recsim_llm.judges.prompts import OPTIONS, SCHEME, ask, orders, question

RATINGS = np.array(sorted(OPTIONS), dtype=np.float64)


@dataclass(frozen=True)
class Request:
    """One pair in tokens: the persona's part, the item's part, and one ending for each order of the options."""

    row: int
    persona: tuple[int, ...]
    item: tuple[int, ...]
    ends: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.persona) + len(self.item) + max(map(len, self.ends))


@dataclass(eq=False)
class CausalJudge:
    """Rates by the likelihood of the answer.

    Attributes:
        name: The name it was loaded by.
        model_digest: SHA-256 of the model's files, with the commit of a hub id.
        layout: The model's tokenizer and the trusted parts of the prompt.
        model: A causal language model of transformers.
        orders: Orders of the options that a rating is averaged over.
        batch: Pairs computed at a time.
        secret: Key of the marks around the data, at most 64 bytes. Ratings are reproducible with the same one.
        cached: Whether the beginnings that prompts share are computed once. Ratings differ in the last bits only.
    """

    name: str
    model_digest: str
    layout: Layout = field(repr=False)
    model: Any = field(repr=False)
    orders: int = 2
    batch: int = 16
    secret: bytes = field(default=b"", repr=False)
    cached: bool = True

    def __post_init__(self) -> None:
        for value, least, most, what in (
            (self.orders, 1, 24, "orders of the options"),
            (self.batch, 1, 1_024, "pairs at a time"),
            (len(self.secret), 0, 64, "bytes of the secret"),
        ):
            if not least <= value <= most:
                raise ConfigError(f"{value} {what}: a judge takes {least} to {most}")

    @cached_property
    def digest(self) -> str:
        """SHA-256 over all that decides a rating: model, number format, trusted text, orders, secret."""
        parts = {
            "model": self.model_digest,
            "dtype": str(self.model.dtype),
            "scheme": SCHEME,
            "trusted": self.layout.trusted,
            "orders": self.orders,
            "secret": hashlib.sha256(self.secret).hexdigest() if self.secret else "",
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def rate(self, pairs: Sequence[Pair], progress: bool = False) -> list[Verdict]:
        """Rates pairs; those of one persona cost least when they come in one call, in any order.

        Args:
            pairs: Any number of pairs.
            progress: Whether to show a progress bar on standard error.

        Returns:
            One verdict for each. A pair that does not fit into the model, or whose text is read as a special token in
            spite of all, is missing.
        """
        verdicts: list[Verdict] = [Verdict(math.nan, "not rated")] * len(pairs)
        for row, answer in self.chances(pairs, progress):
            verdicts[row] = answer if isinstance(answer, Verdict) else _verdict(answer)
        return verdicts

    def chances(
        self, pairs: Sequence[Pair], progress: bool = False
    ) -> Iterator[tuple[int, NDArray[np.float64] | Verdict]]:
        """Probabilities of the five ratings under each order of the options, as they come.

        Yields:
            The pair's place and ``[orders, 5]``; or its place and why it is missing.
        """
        with advance(f"rating with {self.name}", len(pairs), progress) as step:
            requests = []
            for row, pair in enumerate(pairs):
                request = self.request(pair, row)
                if isinstance(request, Verdict):
                    yield row, request
                    step(1)
                else:
                    requests.append(request)
            for group in _groups(requests, self.batch):
                for request, logits in self._answers(group):
                    yield request.row, _softmax(logits)
                    step(1)

    def request(self, pair: Pair, row: int = 0) -> Request | Verdict:
        """The tokens of a pair's prompts, or why there are none."""
        layout = self.layout
        asked = ask(pair, self.secret, layout.specials)
        persona, item = layout.data(asked.persona), layout.data(asked.item)
        if persona is None or item is None:
            return Verdict(math.nan, "special token")
        ends = tuple(layout.end(question(order)) for order in orders(pair, self.orders, self.secret))
        request = Request(row, persona, item, ends)
        if len(layout.head) + len(request) > layout.longest:
            return Verdict(math.nan, "too long")
        return request

    @cached_property
    def _root(self) -> PromptPrefix:
        return PromptPrefix.root(self.model).grow([self.layout.head])[0]

    def _answers(self, group: list[Request]) -> Iterator[tuple[Request, NDArray[np.float64]]]:
        """Logits of the five ratings for each request of one group, ``[orders, 5]``."""
        if not self.cached:
            yield from self._plain(group)
            return
        personas = list(dict.fromkeys(request.persona for request in group))
        trunk, _ = self._root.take([0] * len(personas)).grow(personas)
        place = {persona: row for row, persona in enumerate(personas)}
        for start in range(0, len(group), self.batch):
            part = group[start : start + self.batch]
            branch, _ = trunk.take([place[request.persona] for request in part]).grow([r.item for r in part])
            many = branch.take([row for row, request in enumerate(part) for _ in request.ends])
            logits = self._chosen(many.end([end for request in part for end in request.ends]))
            yield from zip(part, logits.reshape(len(part), self.orders, len(RATINGS)), strict=True)

    def _plain(self, group: list[Request]) -> Iterator[tuple[Request, NDArray[np.float64]]]:
        """The same without anything shared: each prompt whole."""
        root = PromptPrefix.root(self.model)
        for start in range(0, len(group), self.batch):
            part = group[start : start + self.batch]
            whole = [(*self.layout.head, *r.persona, *r.item, *end) for r in part for end in r.ends]
            logits = self._chosen(root.take([0] * len(whole)).end(whole))
            yield from zip(part, logits.reshape(len(part), self.orders, len(RATINGS)), strict=True)

    def _chosen(self, logits: Any) -> NDArray[np.float64]:
        torch = require("torch", "llm")
        options = torch.tensor(self.layout.options, device=logits.device)
        return np.asarray(logits.index_select(1, options).cpu().numpy(), dtype=np.float64)


def _groups(requests: list[Request], batch: int) -> Iterator[list[Request]]:
    """Requests that are computed together: one persona with many items, or several personas with few."""
    of_persona: dict[tuple[int, ...], list[Request]] = {}
    for request in sorted(requests, key=lambda r: len(r.item)):  # items of about one length stand together
        of_persona.setdefault(request.persona, []).append(request)
    together: list[Request] = []
    for persona in sorted(of_persona, key=lambda p: (len(p), p)):
        mine = of_persona[persona]
        if len(mine) >= batch:
            yield mine
            continue
        if len(together) + len(mine) > batch:
            yield together
            together = []
        together += mine
    if together:
        yield together


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64] | Verdict:
    if not np.isfinite(logits).all():
        return Verdict(math.nan, "not finite")
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _verdict(chances: NDArray[np.float64]) -> Verdict:
    """Mean and standard deviation of the answer, averaged over the orders of the options, ``[orders, 5]``."""
    chance = chances.mean(axis=0)
    mean = float(chance @ RATINGS)
    spread = math.sqrt(max(float(chance @ (RATINGS - mean) ** 2), 0.0))
    return Verdict(min(max(mean, RATINGS[0]), RATINGS[-1]), spread=spread)
