"""Requests and answers in OpenAI's chat protocol.

Two forms. With ``"likelihoods"`` the model answers with one digit, and the rating is the mean of 1 to 5 under the
probabilities that the server reports for that token: one token for each pair, and the spread comes with it. With
``"json"`` it writes one JSON object, which is read strictly. Everything else is a missing verdict.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from recsim_llm.judges.base import Pair, Verdict
from recsim_llm.judges.prompts import INSTRUCTIONS, OPTIONS, ask, messages, orders, question, read_verdict
from recsim_llm.judges.server_http import Failure

FORMS = ("likelihoods", "json")
DIGIT = "Reply with one digit from 1 to 5 and nothing else."
"""What a judge is told whose likelihoods are read."""
ALTERNATIVES = 20  # likeliest tokens that are asked for; the protocol allows no more
LEAST_MASS = 0.1
"""Least probability that must lie on the digits 1 to 5; with less, the model answers something else. Small models that
like to talk put about 0.2 there."""
_BLANKS = " \t\r\n\u0120\u2581\u010a"  # some servers spell a token's blank as their tokenizer does


def request_body(pair: Pair, form: str, model: str, more: Mapping[str, Any], secret: bytes) -> tuple[bytes, str]:
    """The JSON of a request, and the mark that an answer in JSON must repeat.

    Args:
        pair: The two texts.
        form: One of ``FORMS``.
        model: The server's name of the model.
        more: Further fields of the request, in place of ours; None takes a field out.
        secret: Key of the marks.
    """
    chat, mark = messages(pair, secret)
    fields: dict[str, Any] = {"model": model, "messages": chat, "temperature": 0, "max_tokens": 64}
    if form == "likelihoods":
        asked, order = ask(pair, secret), orders(pair, 1, secret)[0]
        chat = [
            {"role": "system", "content": "\n".join((INSTRUCTIONS, DIGIT))},
            {"role": "user", "content": "".join((asked.persona, asked.item, question(order)))},
        ]
        fields |= {"messages": chat, "max_tokens": 4, "logprobs": True, "top_logprobs": ALTERNATIVES}
    fields = {name: value for name, value in {**fields, **more}.items() if value is not None}
    return json.dumps(fields, ensure_ascii=True).encode("ascii"), mark


def read_answer(data: bytes, form: str, mark: str) -> Verdict:
    """The verdict in a reply; a missing one where the model did not answer what it was asked.

    Raises:
        Failure: If the reply is no chat completion, which is the server's fault and not the model's.
    """
    choice = choice_of(data)
    message = choice["message"]
    if message.get("refusal") or choice.get("finish_reason") == "content_filter":
        return Verdict(math.nan, "refused")
    if form == "likelihoods":
        return _likelihoods(choice)
    content = message.get("content")
    return read_verdict(content, mark) if isinstance(content, str) else Verdict(math.nan, "schema")


def model_names(data: bytes) -> list[str]:
    """Names in a server's list of models.

    Raises:
        Failure: If the reply is no such list.
    """
    found = _parsed(data)
    rows = found.get("data") if isinstance(found, dict) else None
    if not isinstance(rows, list):
        raise Failure("no completion", status=200)
    return [row["id"] for row in rows if isinstance(row, dict) and isinstance(row.get("id"), str)]


def choice_of(data: bytes) -> dict[str, Any]:
    """The choice of a completion, which must have one."""
    found = _parsed(data)
    choices = found.get("choices") if isinstance(found, dict) else None
    if isinstance(choices, list) and len(choices) == 1 and isinstance(choices[0], dict):
        choice: dict[str, Any] = choices[0]
        message = choice.get("message")
        if (
            choice.get("index", 0) == 0
            and isinstance(message, dict)
            and message.get("role", "assistant") == "assistant"
        ):
            return choice
    raise Failure("no completion", status=200)


def _parsed(data: bytes) -> Any:
    """JSON in UTF-8, one document, no key twice, no NaN."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in pairs}) != len(pairs):
            raise ValueError("a key twice")
        return dict(pairs)

    def refuse(name: str) -> float:
        raise ValueError(f"{name} is no JSON")

    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=once, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise Failure("no completion", status=200) from error


def _likelihoods(choice: Mapping[str, Any]) -> Verdict:
    """The mean of the ratings under the probabilities of the first token that is not blank."""
    logprobs = choice.get("logprobs")
    tokens = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(tokens, list) or not tokens:
        return Verdict(math.nan, "no likelihoods")
    for token in tokens:
        text = token.get("token") if isinstance(token, dict) else None
        if not isinstance(text, str):
            return Verdict(math.nan, "schema")
        if text.strip(_BLANKS):
            return _expected(token)
    return Verdict(math.nan, "schema")


def _expected(token: Mapping[str, Any]) -> Verdict:
    chances = _chances(token)
    if chances is None:
        return Verdict(math.nan, "schema")
    weights = {str(rating): chances.get(str(rating), 0.0) for rating in OPTIONS}
    mass = sum(weights.values())
    said = str(token["token"]).strip(_BLANKS)
    if said.isdecimal() and said not in weights:
        return Verdict(math.nan, "out of scale")
    if mass < LEAST_MASS:
        return Verdict(math.nan, "schema")
    mean = sum(int(digit) * weight for digit, weight in weights.items()) / mass
    variance = sum((int(digit) - mean) ** 2 * weight for digit, weight in weights.items()) / mass
    return Verdict(min(max(mean, min(OPTIONS)), max(OPTIONS)), spread=math.sqrt(max(variance, 0.0)))


def _chances(token: Mapping[str, Any]) -> dict[str, float] | None:
    """Probability of each text among a token's alternatives, or None where they are no probabilities."""
    rows = token.get("top_logprobs")
    if not isinstance(rows, list) or len(rows) > 10 * ALTERNATIVES:
        return None
    found: dict[str, float] = {}
    for row in rows:
        text, value = (row.get("token"), row.get("logprob")) if isinstance(row, dict) else (None, None)
        if not isinstance(text, str) or isinstance(value, bool) or not isinstance(value, int | float):
            return None
        if not value <= 1e-3:  # true for NaN too; a little above zero is rounding
            return None
        stripped = text.strip(_BLANKS)
        found[stripped] = found.get(stripped, 0.0) + math.exp(value)
    return found if sum(found.values()) <= 1.01 else None
