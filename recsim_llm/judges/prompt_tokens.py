"""Prompt template as tokens of one model, with slots for untrusted texts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from recsim_llm.errors import ConfigError
from recsim_llm.judges.prompts import INSTRUCTIONS, OPTIONS

logger = logging.getLogger(__name__)

_GAP = "\u2983data\u2984"  # where the data go, while a chat template writes the trusted part
_LEADS = ("Rating: ", "Rating:", "", " ")  # what may stand before the answer: the first that the tokenizer allows
_UNLIMITED = 1 << 20


@dataclass(eq=False)
class Layout:
    """Where the parts of a prompt stand.

    Attributes:
        tokenizer: The model's tokenizer.
        positions: Longest text that the model was made for [tokens].
    """

    tokenizer: Any = field(repr=False)
    positions: int = _UNLIMITED

    def __post_init__(self) -> None:
        self.before, after = _template(self.tokenizer)
        for lead in _LEADS:
            self.after = after + lead
            options = self._options()
            if options:
                self.options = options
                return
        raise ConfigError(
            "the model's tokenizer has no single token for each of 1 to 5, so the answer's likelihood cannot be read; "
            "take another model, or ask this one through a server"
        )

    @cached_property
    def specials(self) -> tuple[str, ...]:
        """Texts of all tokens that mean something to the model besides their letters."""
        added = getattr(self.tokenizer, "added_tokens_decoder", {}).values()
        return tuple(sorted({*self.tokenizer.all_special_tokens, *(str(token) for token in added)}))

    @cached_property
    def _special_ids(self) -> frozenset[int]:
        added = getattr(self.tokenizer, "added_tokens_decoder", {})
        return frozenset((*self.tokenizer.all_special_ids, *added))

    @property
    def trusted(self) -> list[str]:
        """The trusted text, before and after the data and the question."""
        return [self.before, self.after]

    @property
    def longest(self) -> int:
        """Longest prompt [tokens]."""
        return self.positions

    @cached_property
    def head(self) -> tuple[int, ...]:
        """Tokens before the data."""
        return self._ids(self.before)

    def end(self, question: str) -> tuple[int, ...]:
        """Tokens after the data: the question, and what makes the model answer."""
        return self._ids(question + self.after)

    def data(self, text: str) -> tuple[int, ...] | None:
        """Tokens of data, or None if one of them is special in spite of the escapes."""
        ids = self._ids(text)
        return None if self._special_ids.intersection(ids) else ids

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _options(self) -> Sequence[int]:
        """The token of each rating after the trusted text, or nothing if one is more than a token."""
        begin, found = self._ids(self.after), []
        for rating in sorted(OPTIONS):
            ids = self._ids(self.after + str(rating))
            if len(ids) != len(begin) + 1 or ids[:-1] != begin:
                return ()
            found.append(ids[-1])
        return found if len(set(found)) == len(found) else ()


def _template(tokenizer: Any) -> tuple[str, str]:
    """What stands before and after the data: the chat template of the model, where it has one."""
    if not getattr(tokenizer, "chat_template", None):
        return f"{tokenizer.bos_token or ''}{INSTRUCTIONS}\n\n", ""
    chats = (
        [{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": _GAP}],
        [{"role": "user", "content": f"{INSTRUCTIONS}\n\n{_GAP}"}],  # for models that know no system
    )
    for chat in chats:
        try:
            text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # whatever a template raises: it is a program of the model's makers
            logger.debug("the chat template refuses %s: %s", [message["role"] for message in chat], error)
            continue
        if text.count(_GAP) == 1 and INSTRUCTIONS in text:
            before, _, after = text.partition(_GAP)
            return before, after
    raise ConfigError("the model's chat template loses the system's or the user's message; this judge cannot use it")
