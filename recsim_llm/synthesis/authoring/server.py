"""A text generator behind an OpenAI-compatible server; the connection is that of the judge's server."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from recsim_llm.judges.server import ServerJudge
from recsim_llm.judges.server_answers import choice_of
from recsim_llm.judges.server_http import Failure, fetch, run_apart
from recsim_llm.synthesis.authoring.requests import SCHEME, SYSTEM, Draft, Request, chat_messages, read_reply

LONGEST = 400
"""Longest reply [tokens]."""


class ServerAuthor:
    """Asks a server for one JSON object at a time; replies of any other form are refused.

    Each request carries a seed. Whether the server then gives the same reply again is up to the server.

    Args:
        url: Address of the server.
        temperature: As the server takes it.
        top_p: As the server takes it.
        **connection: As for :class:`recsim_llm.judges.server.ServerJudge`: ``model``, ``timeout``, ``retries``, ...
    """

    def __init__(self, url: str, temperature: float = 0.8, top_p: float = 0.9, **connection: Any) -> None:
        self._server = ServerJudge(url, **{"answer": "json", **connection})
        self._drawing = {"temperature": float(temperature), "top_p": float(top_p)}

    @property
    def name(self) -> str:
        """The address and the server's name of the model."""
        return f"{self._server.name} {self._server.model or ''}".strip()

    @property
    def digest(self) -> str:
        """SHA-256 over what is known of the model and all that is sent besides texts."""
        parts = {"server": self._server.digest, "scheme": SCHEME, "trusted": SYSTEM, **self._drawing}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def write(self, requests: Sequence[Request], seed: int) -> list[Draft]:
        """One draft for each request; where the server fails, none with the reason.

        Raises:
            ConfigError: If the server does not answer the very first question.
        """
        self._server.ready()
        return run_apart(self._drafts(requests, seed))

    async def _drafts(self, requests: Sequence[Request], seed: int) -> list[Draft]:
        server, drafts = self._server, []
        async with server._client() as client:
            for number, request in enumerate(requests):
                fields: dict[str, Any] = {
                    "model": server.model, "messages": chat_messages(request), "max_tokens": LONGEST,
                    "seed": (seed + number) % 2**31, **self._drawing, **server.body,
                }  # fmt: skip
                kept = {name: value for name, value in fields.items() if value is not None}
                try:
                    await server._slot(float("inf"))
                    data = await fetch(client, server._endpoint, json.dumps(kept).encode("ascii"), server.timeout)
                    content = choice_of(data)["message"].get("content")
                except Failure as failure:
                    drafts.append(Draft({}, f"server: {failure.reason}"))
                    continue
                drafts.append(read_reply(content, request) if isinstance(content, str) else Draft({}, "schema"))
        return drafts
