"""Text generators: a causal language model, an OpenAI-compatible server, or a Markov chain of words."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from recsim_llm.errors import ConfigError, require
from recsim_llm.synthesis.authoring.requests import SCHEME, SYSTEM, Draft, Request, chat_messages, reply_prefix
from recsim_llm.threads import one_thread

NO_REPEAT = 4
"""Sequences of so many tokens are not written twice in one field."""


class Author(Protocol):
    """The protocol of a text generator."""

    @property
    def name(self) -> str:
        """The name it was loaded by."""

    @property
    def digest(self) -> str:
        """SHA-256 over model, prompt scheme and options."""

    def write(self, requests: Sequence[Request], seed: int) -> list[Draft]:
        """One draft for each request, from a random stream of its own that the seed begins."""


@dataclass(eq=False)
class CausalAuthor:
    """Samples entries from a causal language model, field by field, in a given JSON form.

    Attributes:
        judge: The loaded model with its tokenizer, a :class:`recsim_llm.judges.causal.CausalJudge`.
        temperature: Divides the logits.
        top_p: Tokens are drawn from the most probable ones that have this much together.
    """

    judge: Any = field(repr=False)
    temperature: float = 0.8
    top_p: float = 0.9

    def __post_init__(self) -> None:
        if not 0.0 < self.temperature <= 10.0 or not 0.0 < self.top_p <= 1.0:
            raise ConfigError(
                f"temperature={self.temperature} and top_p={self.top_p}: they must lie in (0, 10] and (0, 1]"
            )

    @property
    def name(self) -> str:
        """The name it was loaded by."""
        return str(self.judge.name)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the model's files, number format, trusted text and settings."""
        parts = {
            "model": self.judge.model_digest, "dtype": str(self.judge.model.dtype), "scheme": SCHEME, "trusted": SYSTEM,
            "temperature": self.temperature, "top_p": self.top_p, "no_repeat": NO_REPEAT,
        }  # fmt: skip
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def write(self, requests: Sequence[Request], seed: int) -> list[Draft]:
        """Drafts; those of one request cost least."""
        torch = require("torch", "llm")
        generator = torch.Generator().manual_seed(seed)
        with one_thread(), torch.inference_mode():
            return self._side_by_side(requests, generator) if requests else []

    def _side_by_side(self, requests: Sequence[Request], generator: Any) -> list[Draft]:
        """All drafts at once, field by field; what prompts share is computed once."""
        from recsim_llm.judges.prefix_cache import PromptPrefix

        tokenizer, specials = self.judge.layout.tokenizer, self.judge.layout.specials
        chats = [_chat(tokenizer, chat_messages(request, specials)) for request in requests]
        places = {chat: place for place, chat in enumerate(dict.fromkeys(chats))}
        prompts = [tokenizer(chat, add_special_tokens=False)["input_ids"] for chat in places]
        trunk, _ = PromptPrefix.root(self.judge.model).take([0] * len(prompts)).grow(prompts)
        fields: list[dict[str, str] | None] = [{} for _ in requests]
        for number in range(max(len(request.wanted) for request in requests)):
            left = [row for row, done in enumerate(fields) if done is not None and number < len(requests[row].wanted)]
            if not left:
                break
            names = [requests[row].wanted[number] for row in left]
            openings = [
                reply_prefix(requests[row], fields[row] or {}, name, specials)
                for row, name in zip(left, names, strict=True)
            ]
            ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in openings]
            branch, logits = trunk.take([places[chats[row]] for row in left]).grow(ids)
            limits = [requests[row].tokens[name] for row, name in zip(left, names, strict=True)]
            found = self._strings(branch, logits, limits, generator)
            for row, name, text in zip(left, names, found, strict=True):
                done = fields[row]
                fields[row] = None if text is None or done is None else {**done, name: text}
        return [Draft({}, "unfinished") if done is None else Draft(done) for done in fields]

    def _strings(self, branch: Any, logits: Any, limits: Sequence[int], generator: Any) -> list[str | None]:
        """The insides of JSON strings that rows are in.

        One that does not end within its limit [tokens] ends with its last whole sentence; None where it has none.
        """
        tokenizer = self.judge.layout.tokenizer
        written: list[list[int]] = [[] for _ in range(len(logits))]
        out: list[str | None] = [None] * len(written)
        left = list(range(len(written)))
        for _ in range(max(limits)):
            drawn = self._drawn(logits, [written[row] for row in left], generator)
            still = []
            for place, row in enumerate(left):
                written[row].append(drawn[place])
                end = closed_json_string(tokenizer.decode(written[row]))
                if end is not None:
                    out[row] = end
                elif len(written[row]) == limits[row]:
                    out[row] = whole_sentences(tokenizer.decode(written[row]))
                elif drawn[place] not in tokenizer.all_special_ids:
                    still.append(place)
            if not still:
                break
            branch, logits = branch.take(still).grow([[drawn[place]] for place in still])
            left = [left[place] for place in still]
        return out

    def _drawn(self, logits: Any, written: Sequence[Sequence[int]], generator: Any) -> list[int]:
        """One token for each row of logits [B, V]."""
        torch = require("torch", "llm")
        for row, ids in enumerate(written):
            for token in repeated_ngram_tokens(ids):
                logits[row, token] = -torch.inf
        chances = torch.softmax(logits.double() / self.temperature, -1)
        chances, order = chances.sort(descending=True, stable=True)
        chances[chances.cumsum(-1) - chances > self.top_p] = 0.0
        places = torch.multinomial(chances, 1, generator=generator)
        tokens: list[int] = order.gather(1, places)[:, 0].tolist()
        return tokens


def repeated_ngram_tokens(ids: Sequence[int]) -> list[int]:
    """Tokens that would repeat an n-gram of NO_REPEAT tokens."""
    tail = list(ids[len(ids) - NO_REPEAT + 1 :])
    if len(ids) < NO_REPEAT:
        return []
    starts = range(len(ids) - NO_REPEAT + 1)
    return [ids[start + NO_REPEAT - 1] for start in starts if list(ids[start : start + NO_REPEAT - 1]) == tail]


def closed_json_string(text: str) -> str | None:
    """Decodes a JSON string from its remainder, if the closing quote is there."""
    escaped = False
    for place, letter in enumerate(text):
        if escaped:
            escaped = False
        elif letter == "\\":
            escaped = True
        elif letter == '"':
            try:
                return str(json.loads("".join(('"', text[:place], '"')), strict=True))
            except ValueError:
                return ""  # no string of JSON: too short for every check
    return None


def whole_sentences(text: str) -> str | None:
    """Cuts generated text after its last whole sentence; None if no sentence ends."""
    ends = [found.end() for found in re.finditer(r"[.!?](?=\s)", text)]
    return closed_json_string(text[: ends[-1]] + '"') if ends else None


def _chat(tokenizer: Any, messages: list[dict[str, str]]) -> str:
    if getattr(tokenizer, "chat_template", None):
        try:
            return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        except Exception:  # whatever the template of a model's makers raises: it knows no system
            joined = "\n\n".join(message["content"] for message in messages)
            alone = [{"role": "user", "content": joined}]
            return str(tokenizer.apply_chat_template(alone, tokenize=False, add_generation_prompt=True))
    return "\n\n".join([*(message["content"] for message in messages), ""])


@dataclass(frozen=True)
class MarkovAuthor:
    """A Markov chain of words, for tests and machines without torch.

    Each word follows its predecessor as it did somewhere in the world's texts on the same subject (Shannon 1948).
    """

    name: str = "markov"

    @property
    def digest(self) -> str:
        """SHA-256 of the scheme."""
        return hashlib.sha256(f"markov-1 {SCHEME}".encode()).hexdigest()

    def write(self, requests: Sequence[Request], seed: int) -> list[Draft]:
        """Drafts from the texts in each request's pool."""
        rng = np.random.Generator(np.random.PCG64(seed))
        return [Draft({name: _walk(request, name, rng) for name in request.wanted}) for request in requests]


def _walk(request: Request, name: str, rng: np.random.Generator) -> str:
    follow: dict[str, list[str]] = {}
    texts = [text.split() for text in request.pool.get(name, ())]
    for words in texts:
        for before, after in zip(["", *words], [*words, ""], strict=True):
            follow.setdefault(before, []).append(after)
    word, out = "", []
    for _ in range(request.tokens[name]):
        choices = follow.get(word, [""])
        word = choices[int(rng.integers(len(choices)))]
        if not word:
            break
        out.append(word)
    return " ".join(out)


def load_author(name: str = "smollm2", **options: Any) -> Author:
    """Loads a text generator by name.

    Args:
        name: "smollm2", "markov" (no model), a folder or Hugging Face id of a causal language model, or the address of
            a server that speaks OpenAI's protocol.
        **options: ``temperature`` and ``top_p``; the others go to :func:`recsim_llm.judges.load_judge`.

    Raises:
        ConfigError: If no model of that name can be loaded.
        MissingExtraError: If torch, transformers or the package with the model is not installed.
    """
    if name == "markov":
        if options:
            raise ConfigError(f"the writer 'markov' takes no options, got {sorted(options)}")
        return MarkovAuthor()
    drawing = {key: options.pop(key) for key in ("temperature", "top_p") if key in options}
    if name.startswith(("http://", "https://")):
        from recsim_llm.synthesis.authoring.server import ServerAuthor

        return ServerAuthor(name, **drawing, **options)
    from recsim_llm.judges import load_judge

    if name == "hashing":
        raise ConfigError("'hashing' is a judge and cannot write; without a model take 'markov'")
    return CausalAuthor(load_judge(name, **options), **drawing)
