"""Ratings on disk: kept as they come, never asked for twice, whatever kills the run or damages the file."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from recsim_llm.errors import ConfigError, DataError, StoreError
from recsim_llm.judges import HashingJudge, Pair, Verdict
from recsim_llm.judges.ratings import RatingStore, key_of, missing_share, rate_all, store_path

DIGEST = hashlib.sha256(b"a judge of the tests").hexdigest()


class Counting:
    """A judge that remembers what it was asked, and answers with the length of the texts."""

    name = "counting"
    digest = DIGEST
    pairs_at_once = 8

    def __init__(self, stop_after: int | None = None, missing: Sequence[str] = ()) -> None:
        self.asked: list[Pair] = []
        self.stop_after = stop_after
        self.missing = set(missing)

    def rate(self, pairs: Sequence[Pair], progress: bool = False) -> list[Verdict]:
        for pair in pairs:
            if self.stop_after is not None and len(self.asked) >= self.stop_after:
                raise KeyboardInterrupt
            self.asked.append(pair)
        return [
            Verdict(math.nan, "timeout") if p.item in self.missing else Verdict(expected(p), "", 0.5) for p in pairs
        ]


def expected(pair: Pair) -> float:
    return 1.0 + (number_of(pair) % 401) / 100.0


def number_of(pair: Pair) -> int:
    return int.from_bytes(hashlib.blake2b(f"{pair.persona}|{pair.item}".encode(errors="replace")).digest()[:4], "big")


def pairs_of(personas: int, items: int) -> list[Pair]:
    return [Pair(f"persona {u}", f"item {i}") for u in range(personas) for i in range(items)]


PAIRS = pairs_of(10, 10)


def test_each_pair_is_asked_once_and_found_again(tmp_path: Path) -> None:
    said: list[str] = []
    judge = Counting()
    verdicts = rate_all(judge, PAIRS + PAIRS[:7], tmp_path, say=said.append)
    assert [v.rating for v in verdicts] == [expected(p) for p in PAIRS + PAIRS[:7]]
    assert {v.spread for v in verdicts} == {0.5}
    assert sorted(judge.asked, key=str) == sorted(PAIRS, key=str)
    assert "100 to ask" in said[0]
    assert said[-1] == "100 of 100 pairs have a rating"
    again = Counting(stop_after=0)
    assert rate_all(again, list(reversed(PAIRS)), tmp_path) == [Verdict(expected(p), "", 0.5) for p in reversed(PAIRS)]
    assert not again.asked
    assert rate_all(Counting(), [], tmp_path) == []


def test_another_judge_has_its_own_ratings(tmp_path: Path) -> None:
    rate_all(Counting(), PAIRS[:5], tmp_path)
    other = Counting()
    other.digest = hashlib.sha256(b"another").hexdigest()
    rate_all(other, PAIRS[:5], tmp_path)
    assert len(other.asked) == 5
    assert len(list(tmp_path.glob("*.sqlite"))) == 2


def test_missing_verdicts_are_kept_with_their_reason_and_asked_again(tmp_path: Path) -> None:
    said: list[str] = []
    first = rate_all(Counting(missing=["item 3", "item 4"]), PAIRS, tmp_path, say=said.append)
    assert missing_share(first) == {"pairs": 100, "missing": 20, "share": 0.2, "reasons": {"timeout": 20}}
    assert "20.0% are missing (timeout 20)" in said[-1]
    with RatingStore(store_path(Counting(), tmp_path), DIGEST) as store:
        assert store.count() == (80, 20)
        assert store.known(PAIRS)[key_of(DIGEST, Pair("persona 0", "item 3"))].reason == "timeout"
    second = Counting()
    verdicts = rate_all(second, PAIRS, tmp_path)
    assert {p.item for p in second.asked} == {"item 3", "item 4"}
    assert len(second.asked) == 20
    assert [v.rating for v in verdicts] == [expected(p) for p in PAIRS]


def test_a_rating_is_never_replaced(tmp_path: Path) -> None:
    with RatingStore(tmp_path / "r.sqlite", DIGEST) as store:
        store.add(PAIRS[:1], [Verdict(2.0)])
        store.add(PAIRS[:1], [Verdict(5.0)])
        store.add(PAIRS[:1], [Verdict(math.nan, "timeout")])
        assert list(store.known(PAIRS[:1]).values()) == [Verdict(2.0)]


@pytest.mark.parametrize("after", [0, 1, 8, 9, 41, 99])
def test_an_interrupted_run_continues(tmp_path: Path, after: int) -> None:
    first = Counting(stop_after=after)
    with pytest.raises(KeyboardInterrupt):
        rate_all(first, PAIRS, tmp_path)
    second = Counting()
    verdicts = rate_all(second, PAIRS, tmp_path)
    assert [v.rating for v in verdicts] == [expected(p) for p in PAIRS]
    assert len(second.asked) == 100 - after // 8 * 8, "a batch that was complete was asked again, or one was lost"


WORKER = """
import sys, time
sys.path.insert(0, sys.argv[1])
from test_ratings import Counting, pairs_of
from recsim_llm.judges.ratings import rate_all
class Slow(Counting):
    def rate(self, pairs, progress=False):
        with open(sys.argv[3], "a") as log:
            for pair in pairs:
                time.sleep(0.001)
                log.write(f"{pair.persona}|{pair.item}\\n")
        return super().rate(pairs)
print("begun", flush=True)
rate_all(Slow(), pairs_of(20, 25), sys.argv[2])
"""


def _worker(folder: Path, log: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WORKER, str(Path(__file__).parent), str(folder), str(log)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_killed_at_random_points_it_continues_and_loses_no_batch(tmp_path: Path) -> None:
    log, rng, kills = tmp_path / "asked.txt", random.Random(5), 0
    for _ in range(5):
        process = _worker(tmp_path, log)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(rng.uniform(0.02, 0.25))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
    assert kills >= 2, "the runs were too short to be killed"
    pairs = pairs_of(20, 25)
    last = Counting()
    verdicts = rate_all(last, pairs, tmp_path)
    assert [v.rating for v in verdicts] == [expected(p) for p in pairs]
    times = Counter(log.read_text().splitlines())
    asked_again = sum(times.values()) + len(last.asked) - len(pairs)
    assert 0 <= asked_again <= 8 * kills, "more was asked again than one batch for each kill"
    assert not list(tmp_path.glob("*damaged*"))


def test_two_processes_fill_one_store(tmp_path: Path) -> None:
    logs = [tmp_path / "a.txt", tmp_path / "b.txt"]
    processes = [_worker(tmp_path, log) for log in logs]
    for process in processes:
        _, problem = process.communicate(timeout=60)
        assert process.returncode == 0, problem
    pairs, last = pairs_of(20, 25), Counting()
    assert [v.rating for v in rate_all(last, pairs, tmp_path)] == [expected(p) for p in pairs]
    assert not last.asked
    asked = sum(len(log.read_text().splitlines()) for log in logs)
    assert 500 <= asked <= 600, "the two did each other's work"


def test_the_later_process_begins_in_the_middle(tmp_path: Path) -> None:
    judge = Counting()
    with RatingStore(store_path(judge, tmp_path), DIGEST) as other:
        assert other.alone
        rate_all(judge, PAIRS, tmp_path)
    assert judge.asked[0] == PAIRS[48]  # 13 batches of 8
    assert len(judge.asked) == 100


@pytest.mark.parametrize("how", ["text", "cut", "torn", "zeros"])
def test_a_damaged_file_is_set_aside_with_one_sentence(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    rate_all(Counting(), pairs_of(40, 25), tmp_path)
    path = store_path(Counting(), tmp_path)
    content = path.read_bytes()
    damaged = {
        "text": b"user,item,rating\n" * 100,
        "cut": content[: len(content) // 2 // 4096 * 4096],
        "torn": content[:8192] + os.urandom(8192) + content[16384:],
        "zeros": content[:4096] + bytes(len(content) - 4096),
    }[how]
    path.with_name("new").write_bytes(damaged)
    path.with_name("new").rename(path)
    judge = Counting()
    with caplog.at_level(logging.WARNING):
        verdicts = rate_all(judge, pairs_of(40, 25)[:9], tmp_path)
    assert [v.rating for v in verdicts] == [expected(p) for p in pairs_of(40, 25)[:9]]
    kept = [file for file in tmp_path.glob("*.damaged-*") if file.suffix == ".sqlite"]
    assert len(kept) == 1
    assert kept[0].read_bytes() == damaged
    sentences = [record.getMessage() for record in caplog.records]
    assert len(sentences) == 1
    assert "is damaged" in sentences[0]
    assert kept[0].name in sentences[0]


def test_a_damaged_file_that_another_process_uses_is_left_alone(tmp_path: Path) -> None:
    path = store_path(Counting(), tmp_path)
    rate_all(Counting(), PAIRS, tmp_path)
    with RatingStore(path, DIGEST):
        path.with_name("new").write_bytes(b"no database " * 1000)
        path.with_name("new").rename(path)
        with pytest.raises(StoreError, match="another process has it open; stop that one"):
            rate_all(Counting(), PAIRS, tmp_path)
        assert path.read_bytes().startswith(b"no database")


def test_databases_of_others_are_left_alone(tmp_path: Path) -> None:
    path = store_path(Counting(), tmp_path)
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE letters (text TEXT)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another program's database"):
        rate_all(Counting(), PAIRS, tmp_path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "change", ["rating = 4.99", "rating = 9e99", "reason = 'x'", "spread = 'wide'", "rating = NULL"]
)
def test_rows_that_were_altered_are_asked_again(tmp_path: Path, change: str, caplog: pytest.LogCaptureFixture) -> None:
    rate_all(Counting(), PAIRS, tmp_path)
    with sqlite3.connect(store_path(Counting(), tmp_path)) as other:
        key = key_of(DIGEST, PAIRS[11])
        assert other.execute(f"UPDATE ratings SET {change} WHERE key = ?", (key,)).rowcount == 1
    other.close()
    judge = Counting()
    with caplog.at_level(logging.WARNING):
        verdicts = rate_all(judge, PAIRS, tmp_path)
    assert judge.asked == [PAIRS[11]]
    assert [v.rating for v in verdicts] == [expected(p) for p in PAIRS]
    assert "1 rows are damaged" in caplog.text


def test_what_a_judge_may_not_answer(tmp_path: Path) -> None:
    class Wrong(Counting):
        answers = (7.0, 0.0, math.inf, -math.inf, math.nan)

        def rate(self, pairs: Sequence[Pair], progress: bool = False) -> list[Verdict]:
            return [Verdict(rating) for rating, _ in zip(self.answers, pairs, strict=False)]

    verdicts = rate_all(Wrong(), PAIRS[:5], tmp_path)
    assert all(v.missing for v in verdicts)
    assert [v.reason for v in verdicts] == ["out of scale"] * 4 + ["unknown"]
    with pytest.raises(ConfigError, match="gave 5 verdicts on 8 pairs"):
        rate_all(Wrong(), PAIRS[10:], tmp_path)
    named = Counting()
    named.digest = "../../etc/passwd"
    with pytest.raises(ConfigError, match="must be a SHA-256"):
        rate_all(named, PAIRS, tmp_path)


def test_any_text_is_a_key(tmp_path: Path) -> None:
    texts = ["", "\0", "\ud800", "a'; DROP TABLE ratings; --", "ab", "a", "b", "é", "e\u0301", "x" * 100_000]
    pairs = [Pair(left, right) for left in texts for right in texts]
    judge = Counting()
    first = rate_all(judge, pairs, tmp_path)
    assert len(judge.asked) == len(pairs)
    assert rate_all(Counting(stop_after=0), pairs, tmp_path) == first


def test_a_folder_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="RECSIM_LLM_HOME"):
        rate_all(Counting(), PAIRS, tmp_path / "file" / "ratings")


def test_the_cache_folder_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSIM_LLM_HOME", str(tmp_path))
    rate_all(HashingJudge(), PAIRS[:3])
    assert (tmp_path / "ratings" / f"{HashingJudge().digest}.sqlite").is_file()


@pytest.mark.parametrize("name", ["ratings.csv", "ratings.parquet"])
def test_export_and_import(tmp_path: Path, name: str) -> None:
    personas = {"007": "persona 0", "a,b": "persona 1", 'say "u"': "persona 2", "twin": "persona 2"}
    items = {f"i{number}": f"item {number}" for number in range(4)}
    rate_all(Counting(missing=["item 3"]), PAIRS, tmp_path / "one")
    file = tmp_path / name
    with RatingStore(store_path(Counting(), tmp_path / "one"), DIGEST) as store:
        assert store.export(file, personas, items) == 4 * 3
    with RatingStore(tmp_path / "two.sqlite", DIGEST) as store:
        assert store.take_in(file, personas, items) == 12
        found = store.known(PAIRS)
        assert store.count() == (9, 0)  # the twins are one text
    want = [Pair(f"persona {u}", f"item {i}") for u in range(3) for i in range(3)]
    assert {key: v.rating for key, v in found.items()} == {key_of(DIGEST, pair): expected(pair) for pair in want}


def test_files_that_cannot_be_taken_in(tmp_path: Path) -> None:
    personas, items = {"u": "persona"}, {"i": "item"}
    with RatingStore(tmp_path / "r.sqlite", DIGEST) as store:
        for text, problem in (
            ("user_id,item_id,rating\nu,i,7\n", "1 ratings lie beyond 1 to 5, the first is 7 of user 'u' on item 'i'"),
            ("user_id,item_id,rating\nu,i,nan\n", "rating"),
            ("user_id,item_id,rating\nv,i,3\n", "'v' is not in the file of users"),
            ("user_id,item_id,click\nu,i,1\n", "no column of ratings"),
        ):
            (tmp_path / "in.csv").write_text(text)
            with pytest.raises(DataError, match=problem):
                store.take_in(tmp_path / "in.csv", personas, items)
        with pytest.raises(ConfigError, match=r"\.csv or \.parquet"):
            store.export(tmp_path / "out.xlsx", personas, items)
        assert store.count() == (0, 0)
