"""HTTP request to an untrusted server: bounded in time and bytes, no redirects."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import math
import threading
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, TypeVar

from recsim_llm.errors import require

if TYPE_CHECKING:
    import httpx2

T = TypeVar("T")

CAP = 1 << 20
"""Longest reply that is read [byte]."""
_ERROR_CAP = 2_048  # of a reply that is an error, for the message to people [byte]
_HANDSHAKE = 0.3  # share of the time for TCP, and again for TLS
_AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, 529}
"""Statuses after which the same request may succeed."""


@dataclass
class Failure(Exception):
    """A request without a usable reply.

    Attributes:
        reason: Short, from a fixed set of words and a status: nothing that the server wrote.
        again: Whether it is worth another attempt.
        wait: How long the server asks to wait before that [s].
        status: HTTP status; 0 where there was none.
        detail: The beginning of what the server wrote, for messages to people; escaped.
    """

    reason: str
    again: bool = False
    wait: float = 0.0
    status: int = 0
    detail: str = ""


def new_client(*, timeout: float, verify: Any, key: str | None, trust_env: bool) -> httpx2.AsyncClient:
    """A client that follows no redirects, keeps no cookies, and never uses a connection twice.

    A connection that is used again could deliver a second reply to an earlier request as the reply to the next one.
    """
    library = require("httpx2", "llm")
    headers = {"Accept": "application/json", "Accept-Encoding": "identity", "Connection": "close"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    client: httpx2.AsyncClient = library.AsyncClient(
        headers=headers,
        timeout=timeout,
        verify=verify,
        trust_env=trust_env,
        follow_redirects=False,
        limits=library.Limits(max_keepalive_connections=0),
    )
    client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    return client


async def fetch(client: httpx2.AsyncClient, url: str, body: bytes | None, seconds: float) -> bytes:
    """Sends one request and reads its reply.

    Args:
        client: From :func:`new_client`.
        url: Where to.
        body: JSON to post; None gets instead.
        seconds: Everything together may take so long: name, connection, headers, reply [s].

    Returns:
        At most ``CAP`` bytes of a reply with status 200.

    Raises:
        Failure: In every other case.
    """
    library = require("httpx2", "llm")
    try:
        if seconds <= 0.0:
            raise TimeoutError
        async with asyncio.timeout(seconds):
            # a handshake must end by its own limit: one that is cancelled leaves its socket open
            limits = library.Timeout(seconds, connect=_HANDSHAKE * seconds)
            return await _exchange(client, url, body, limits)
    except (TimeoutError, library.TimeoutException) as error:
        raise Failure("timeout", again=True) from error
    except (library.HTTPError, library.InvalidURL, library.StreamError, OSError, ValueError) as error:
        raise Failure("connection", again=True, detail=shown(str(error))) from error


async def _exchange(client: httpx2.AsyncClient, url: str, body: bytes | None, limits: httpx2.Timeout) -> bytes:
    method, headers = ("GET", {}) if body is None else ("POST", {"Content-Type": "application/json"})
    async with client.stream(method, url, content=body, headers=headers, timeout=limits) as reply:
        if 300 <= reply.status_code < 400:
            raise Failure("redirect", status=reply.status_code)
        if reply.status_code != 200:
            raise Failure(
                "rate limited" if reply.status_code == 429 else f"http {reply.status_code}",
                again=reply.status_code in _AGAIN,
                wait=_asked_wait(reply.headers.get("retry-after")),
                status=reply.status_code,
                detail=shown((await _read(reply, _ERROR_CAP, cut=True)).decode("utf-8", "replace")),
            )
        if reply.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            raise Failure("compressed", status=200)  # plain was asked for; a small reply could unpack to a huge one
        return await _read(reply, CAP)


async def _read(reply: httpx2.Response, cap: int, cut: bool = False) -> bytes:
    announced = reply.headers.get("content-length", "")
    if not cut and announced.isdecimal() and (len(announced) > 12 or int(announced) > cap):
        raise Failure("too large", status=200)
    parts, size = [], 0
    async for part in reply.aiter_raw():
        parts.append(part)
        size += len(part)
        if size > cap:
            if cut:
                break
            raise Failure("too large", status=200)
    return b"".join(parts)[:cap]


def _asked_wait(header: str | None) -> float:
    """Seconds of a Retry-After header, a number or a date; 0 where there is none that makes sense."""
    if not header:
        return 0.0
    try:
        wait = float(header)
    except ValueError:
        try:
            wait = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0.0
    return max(wait, 0.0) if math.isfinite(wait) else 0.0


def shown(text: str, width: int = 200) -> str:
    """Text of a server for a message to people: one line, nothing invisible, not long."""
    line = " ".join(text.split())
    return "".join(letter if letter.isprintable() else "?" for letter in line[:width])


def run_apart(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine in an event loop on a thread of its own, so that it works where a loop runs already.

    An interrupt cancels the work, waits for that, and goes on to the caller.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="recsim-llm-judge", daemon=True)
    thread.start()
    future = asyncio.run_coroutine_threadsafe(work, loop)
    try:
        return future.result()
    finally:
        future.cancel()
        with contextlib.suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(_cancel_all(), loop).result(timeout=5.0)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _cancel_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()
