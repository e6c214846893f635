"""A judge behind an OpenAI-compatible server, at small size: a stub on this machine, interrupted and continued."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from recsim_llm.errors import require
from recsim_llm.judges import HashingJudge, Pair, Verdict
from recsim_llm.judges.pairs import pairs_of, sample_pairs
from recsim_llm.judges.ratings import missing_share, rate_all
from recsim_llm.judges.server import ServerJudge
from recsim_llm.worlds.world import load_world

Say = Callable[[str], None]
PAIRS, STOP_AFTER = 50, 20
FAIL_EVERY = 7
"""Each so many-th request is answered with a status of 503, as a server under load does."""


class Stub(ThreadingHTTPServer):
    """Answers as an OpenAI-compatible server would whose model is the hashing judge.

    Attributes:
        requests: Requests so far.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Stub

    def do_POST(self) -> None:
        """One chat completion, or now and then a failure."""
        with self.server.lock:
            self.server.requests += 1
            fails = self.server.requests % FAIL_EVERY == 0
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if fails:
            self._send(503, {"error": {"message": "busy"}})
            return
        self._send(200, {"object": "chat.completion", "choices": [completion(request["messages"][-1]["content"])]})

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def _send(self, status: int, answer: dict[str, Any]) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def completion(content: str) -> dict[str, Any]:
    """The answer of the hashing judge to a user's message, as likelihoods of the two digits around its rating."""
    texts = [json.loads(line) for line in content.splitlines() if line.startswith("{")]
    rating = HashingJudge().rate([Pair(texts[0]["person"], texts[1]["item"])])[0].rating
    low = min(int(rating), 4)
    chances = {str(low): low + 1 - rating, str(low + 1): rating - low}
    top = [{"token": digit, "logprob": float(np.log(p))} for digit, p in chances.items() if p > 0]
    best = max(chances, key=lambda digit: chances[digit])
    tokens = [{"token": best, "logprob": float(np.log(chances[best])), "top_logprobs": top}]
    message = {"role": "assistant", "content": best}
    return {"index": 0, "message": message, "logprobs": {"content": tokens}, "finish_reason": "stop"}


@contextmanager
def stub() -> Iterator[Stub]:
    """A running stub; it ends with the block."""
    server = Stub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Interrupted:
    """A judge during whose work somebody presses Ctrl-C."""

    def __init__(self, judge: ServerJudge, after: int) -> None:
        self.name, self.digest, self.pairs_at_once = judge.name, judge.digest, judge.pairs_at_once
        self._judge, self._left = judge, after

    def rate(self, pairs: Sequence[Pair], progress: bool = False) -> list[Verdict]:
        """Rates as the judge does, until it is enough."""
        if self._left < len(pairs):
            raise KeyboardInterrupt
        self._left -= len(pairs)
        return self._judge.rate(pairs, progress)


def small(say: Say) -> dict[str, Any]:
    """Rates pairs of a built-in world through a server on this machine, is interrupted, and continues.

    Args:
        say: Is told what is being done.

    Returns:
        Pairs, requests before and after the interruption, missing verdicts, the largest difference from the judge that
        the server asks, and pairs per second.
    """
    require("httpx2", "llm")
    world = load_world("music")
    users, items = sample_pairs(world, PAIRS, seed=100)
    pairs = pairs_of(world, users, items)
    with stub() as server, tempfile.TemporaryDirectory() as folder:
        judge = ServerJudge(server.url, "words", identity="the tour's stub", timeout=10.0, concurrency=2).ready()
        try:
            rate_all(_Interrupted(judge, STOP_AFTER), pairs, folder, say=say)
        except KeyboardInterrupt:
            say(f"interrupted after {server.requests} requests")
        before, start = server.requests, time.perf_counter()
        verdicts = rate_all(judge, pairs, folder, say=say)
        seconds, after = time.perf_counter() - start, server.requests - before
        rate_all(judge, pairs, folder)
        again, size = server.requests - before - after, sum(f.stat().st_size for f in Path(folder).iterdir())
    plain = np.array([verdict.rating for verdict in HashingJudge().rate(pairs)])
    rated = np.array([verdict.rating for verdict in verdicts])
    return {
        **missing_share(verdicts),
        "form": judge.answer,
        "requests_before": before,
        "requests_after": after,
        "requests_third_run": again,
        "largest_difference": float(np.nanmax(np.abs(plain - rated))),
        "requests_per_second": after / seconds,
        "bytes_on_disk": size,
    }
