"""Judge behind an OpenAI-compatible server: vLLM, llama.cpp, Ollama, or a paid one.

The server is not trusted. Every request ends within twice the time-out, attempts and waiting included; a reply is read
up to 1 MiB and must be of the one form that was asked for, or the verdict is missing with its reason; redirects are not
followed; after 20 failures in a row no more requests are made for a while. A key comes from an environment variable and
goes into the request's header alone: no log, error, file or digest holds it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit, urlunsplit

from recsim_llm.encoders.progress import advance
from recsim_llm.errors import ConfigError, require, unknown
from recsim_llm.judges.base import Pair, Verdict
from recsim_llm.judges.prompts import SCHEME
from recsim_llm.judges.server_answers import DIGIT, FORMS, model_names, read_answer, request_body
from recsim_llm.judges.server_http import Failure, fetch, new_client, run_apart

if TYPE_CHECKING:
    import httpx2

KEY = "RECSIM_LLM_API_KEY"
"""Environment variable with the key for a server, unless another is named."""
BREAK_AFTER = 20
"""Failures in a row after which the server is left alone."""
REST = 30.0
"""For how long it is [s]."""
_BUDGET = 1.9  # time-outs that a pair may take in all, attempts and waiting included
_BACKOFF = 0.25  # before the second attempt; doubled for each further one [s]
_LOCAL = {"localhost", "127.0.0.1", "::1"}
_PROBE = Pair("She drinks green tea every morning.", "Sencha, a green tea from Shizuoka.")

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class ServerJudge:
    """Rates through a server.

    Attributes:
        url: The server's address, as ``http://localhost:8000``; with or without ``/v1`` or ``/v1/chat/completions``.
        model: Its name of the model; may be left out where it serves only one.
        answer: "likelihoods" reads the probabilities of the digits 1 to 5, "json" a written answer; "auto" takes the
            first if the server gives them.
        timeout: Longest attempt, from the connection to the last byte [s]; a pair takes at most twice that.
        retries: Further attempts after a failure that may pass, at most 3.
        per_minute: Most requests in a minute; None sets no limit.
        concurrency: Requests under way at a time.
        key_from: Environment variable that holds the key. A server that needs none gets none, if it is not set.
        identity: What the model is known by in stored ratings; by default the address, since two servers may give one
            name to two models. Name it where a server moves.
        body: Further fields of each request, in place of ours; None takes one out, as in
            ``{"max_tokens": None, "max_completion_tokens": 500}``.
        secret: Key of the marks around the data, at most 64 bytes. Ratings are reproducible with the same one.
    """

    url: str
    model: str | None = None
    answer: str = "auto"
    timeout: float = 30.0
    retries: int = 2
    per_minute: float | None = None
    concurrency: int = 4
    key_from: str = KEY
    identity: str | None = None
    body: Mapping[str, Any] = field(default_factory=dict)
    secret: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        self._parts = _checked_url(self.url)
        for value, least, most, what in (
            (self.timeout, 0.01, 3_600.0, "timeout"),
            (self.retries, 0, 3, "retries"),
            (self.concurrency, 1, 256, "concurrency"),
            (self.per_minute or 1.0, 0.01, 1e6, "per_minute"),
            (len(self.secret), 0, 64, "bytes of the secret"),
        ):
            if not least <= value <= most:
                raise ConfigError(f"{what} of a judge's server must lie in {least:g} to {most:g}, got {value:g}")
        if self.answer not in ("auto", *FORMS):
            raise unknown("form of answer", self.answer, ("auto", *FORMS))
        if self.key_from != KEY and not os.environ.get(self.key_from):
            raise ConfigError(f"the environment variable {self.key_from} is not set; it must hold the server's key")
        try:
            json.dumps(dict(self.body), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"body of a judge's server must be fields of JSON: {error}") from error
        self._key()
        self._is_ready = False
        self._failures, self._rest_until, self._pause_until, self._next_slot = 0, 0.0, 0.0, 0.0

    @property
    def name(self) -> str:
        """The address, without what stands behind a question mark."""
        return urlunsplit(self._parts._replace(query=""))

    @property
    def pairs_at_once(self) -> int:
        """Pairs that are stored at a time: few, since each may have cost seconds and money."""
        return 4 * self.concurrency

    @property
    def digest(self) -> str:
        """SHA-256 over all that decides a rating: identity, model, form of answer, prompt, further fields, secret.

        Raises:
            ConfigError: If the model or the form is not given and the server cannot be asked for it.
        """
        if self.model is None or self.answer == "auto":
            self.ready()
        parts = {
            "identity": self.name if self.identity is None else self.identity,
            "model": self.model,
            "answer": self.answer,
            "scheme": ["server-1", SCHEME, DIGIT],
            "body": dict(self.body),
            "secret": hashlib.sha256(self.secret).hexdigest() if self.secret else "",
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def ready(self) -> ServerJudge:
        """Asks the server a first question, and finds out its model and form of answer where they are not given.

        Raises:
            ConfigError: If it is down, refuses the key or does not know the model; the message says how to mend it.
            MissingExtraError: If httpx2 is not installed.
        """
        if not self._is_ready:
            require("httpx2", "llm")
            try:
                run_apart(self._get_ready())
            except Failure as failure:
                raise ConfigError(_explained(self, failure)) from None
            self._is_ready = True
        return self

    def rate(self, pairs: Sequence[Pair], progress: bool = False) -> list[Verdict]:
        """Rates pairs, several at a time.

        Args:
            pairs: Any number of pairs.
            progress: Whether to show a progress bar on standard error.

        Returns:
            One verdict for each. What the server fails at is missing: "timeout", "connection", "http 500", "rate
            limited", "redirect", "too large", "compressed", "no completion" or "circuit open"; what the model does not
            answer is "schema", "no likelihoods", "out of scale" or "refused".

        Raises:
            ConfigError: If the server does not answer the very first question.
        """
        self.ready()
        with advance(f"rating with {self.name}", len(pairs), progress and bool(pairs)) as step:
            return run_apart(self._rate(pairs, step))

    async def _rate(self, pairs: Sequence[Pair], step: Callable[[int], None]) -> list[Verdict]:
        verdicts = [Verdict(math.nan, "not rated")] * len(pairs)
        left = iter(enumerate(pairs))

        async def work(client: httpx2.AsyncClient) -> None:
            for row, pair in left:
                verdicts[row] = await self._verdict(client, pair)
                step(1)

        async with self._client() as client, asyncio.TaskGroup() as group:
            for _ in range(min(self.concurrency, len(pairs))):
                group.create_task(work(client))
        return verdicts

    async def _verdict(self, client: httpx2.AsyncClient, pair: Pair) -> Verdict:
        if self._failures >= BREAK_AFTER and time.monotonic() < self._rest_until:
            return Verdict(math.nan, "circuit open")
        try:
            verdict = await self._asked(client, pair, self.answer)
        except Failure as failure:
            self._failures += 1
            self._rest_until = time.monotonic() + REST
            if self._failures == BREAK_AFTER:
                logger.warning("%s failed %d times in a row, so it is left alone for a while", self.name, BREAK_AFTER)
            return Verdict(math.nan, failure.reason)
        self._failures = 0
        return verdict

    async def _asked(self, client: httpx2.AsyncClient, pair: Pair, form: str) -> Verdict:
        """One pair's verdict after as many attempts as it takes and its time allows."""
        body, mark = request_body(pair, form, str(self.model), self.body, self.secret)
        await self._slot(math.inf)
        end = time.monotonic() + _BUDGET * self.timeout
        for attempt in range(self.retries + 1):
            await _until(min(self._pause_until, end))
            try:
                data = await fetch(client, self._endpoint, body, min(self.timeout, end - time.monotonic()))
                return read_answer(data, form, mark)
            except Failure as failure:
                if not failure.again or attempt == self.retries:
                    raise
                pause = max(_BACKOFF * 2**attempt, failure.wait)
                until = time.monotonic() + min(pause, self.timeout / 2)
                if failure.wait:
                    self._pause_until = max(self._pause_until, until)
                await _until(min(until, end))
                if time.monotonic() >= end - 0.01 * self.timeout or not await self._slot(end):
                    raise
        raise AssertionError  # the last attempt returns or raises

    async def _slot(self, end: float) -> bool:
        """Waits until the rate limit allows one more request; False, without waiting, if that is after ``end``."""
        if self.per_minute is None:
            return True
        slot = max(self._next_slot, time.monotonic())
        if slot > end:
            return False
        self._next_slot = slot + 60.0 / self.per_minute
        await _until(slot)
        return True

    async def _get_ready(self) -> None:
        async with self._client() as client:
            if self.model is None:
                self.model = await self._only_model(client)
            for form in FORMS if self.answer == "auto" else (self.answer,):
                try:
                    verdict = await self._asked(client, _PROBE, form)
                except Failure as failure:
                    if self.answer == "auto" and form != FORMS[-1] and failure.status in (400, 422, 501):
                        continue  # it does not take this form of request
                    raise
                if self.answer != "auto" or form == FORMS[-1] or not verdict.missing:
                    self.answer = form
                    if verdict.missing:
                        logger.warning("%s answers, but its first answer has no rating: %s", self.name, verdict.reason)
                    return

    async def _only_model(self, client: httpx2.AsyncClient) -> str:
        try:
            names = model_names(await fetch(client, self._models_url, None, self.timeout))
        except Failure as failure:
            if failure.status in (0, 401, 403):  # down, or a matter of the key
                raise
            raise ConfigError(
                f"{self.name} does not say which models it serves ({failure.reason}); name one: model=..."
            ) from None
        if len(names) == 1:
            return names[0]
        listed = ", ".join(repr(name[:80]) for name in sorted(names)[:8]) or "none"
        raise ConfigError(f"{self.name} serves {len(names)} models ({listed}); name one of them: model=...")

    def _client(self) -> httpx2.AsyncClient:
        local = self._parts.hostname in _LOCAL
        return new_client(timeout=self.timeout, verify=self._tls, key=self._key(), trust_env=not local)

    @cached_property
    def _tls(self) -> Any:
        if self._parts.scheme == "http" and self._parts.hostname in _LOCAL:
            return False  # nothing is encrypted, so no certificates are read
        return require("httpx2", "llm").create_ssl_context()

    def _key(self) -> str | None:
        key = os.environ.get(self.key_from, "").strip()
        if not key:
            return None
        if not key.isascii() or not key.isprintable() or " " in key:
            raise ConfigError(f"the key in {self.key_from} holds blanks or letters that no key has; set it again")
        return key

    @property
    def _endpoint(self) -> str:
        return urlunsplit(self._parts)

    @property
    def _models_url(self) -> str:
        return urlunsplit(self._parts._replace(path=self._parts.path.removesuffix("/chat/completions") + "/models"))


async def _until(when: float) -> None:
    seconds = when - time.monotonic()
    if seconds > 0:
        await asyncio.sleep(seconds)


def _checked_url(url: str) -> SplitResult:
    """The address of the server's completions.

    Raises:
        ConfigError: If it is none, or holds a name and a password.
    """
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or not url.isprintable() or " " in url:
        raise ConfigError(f"{url!r} is no address of a server; write it as http://localhost:8000")
    if "@" in parts.netloc:
        raise ConfigError(f"leave name and password out of the server's address, and put a key into ${KEY}")
    path = parts.path.rstrip("/")
    if not path.endswith("/chat/completions"):
        path = f"{path}/chat/completions" if path else "/v1/chat/completions"
    return parts._replace(path=path, fragment="")


def _explained(judge: ServerJudge, failure: Failure) -> str:
    """Why a server is not ready, and how to mend it."""
    at, wrote = f"the judge's server at {judge.name}", f" It wrote: {failure.detail}" if failure.detail else ""
    if failure.status in (401, 403):
        return f"{at} refuses the key (status {failure.status}); set ${judge.key_from} to a valid one.{wrote}"
    if failure.status == 404:
        return f"{at} knows no such path or no model {judge.model!r} (status 404); check both.{wrote}"
    if failure.reason == "redirect":
        return f"{at} points to another address, which is not followed; give the address that it points to"
    if failure.reason == "rate limited":
        return f"{at} takes no more requests for now (status 429); wait, or set per_minute.{wrote}"
    if failure.reason == "timeout":
        return f"{at} did not answer within {judge.timeout:g} s; is it still loading its model? Else raise timeout"
    if "CERTIFICATE" in failure.detail.upper() or "SSL" in failure.detail.upper():
        return f"{at} has no valid certificate, or speaks plain http: check https:// ({failure.detail})"
    if failure.reason == "connection":
        return f"{at} is down or not there ({failure.detail or 'no connection'}); start it, or mend the address"
    return f"{at} gave no chat completion ({failure.reason}); does it speak OpenAI's protocol?{wrote}"
