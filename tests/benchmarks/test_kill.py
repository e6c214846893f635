"""Runs killed at random moments end with the rows of an uninterrupted run (RELIABILITY T1).

RECSIM_LLM_KILLS sets the number of kills (default 10; 50 is the acceptance level).
"""

from __future__ import annotations

import collections
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recsim_llm.benchmarks.harness import codec
from recsim_llm.benchmarks.harness.records import FILE, Contents, read, scan
from recsim_llm.benchmarks.harness.runner import run
from recsim_llm.benchmarks.harness.testing_cells import TRACE, kill_experiment

KILLS = int(os.environ.get("RECSIM_LLM_KILLS", "10"))
CELLS, WORKERS = 100, 2

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds worker processes through /proc")


def children(pid: int) -> list[int]:
    """Worker processes of a driver; the helper process that tracks resources is none."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            found += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
    return [child for child in found if b"spawn_main" in command(child)]


def command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


class Victim:
    """One store that is filled by drivers which keep being killed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.trace = folder, folder.with_suffix(".trace")
        self.driver: subprocess.Popen[bytes] | None = None
        self.kills: collections.Counter[str] = collections.Counter()
        self.safe = b""

    def start(self) -> None:
        self.driver = subprocess.Popen(
            [sys.executable, "-m", "recsim_llm.benchmarks.harness.testing_cells", str(self.folder), str(CELLS)],
            env={**os.environ, TRACE: str(self.trace)},
            start_new_session=True,
            stderr=subprocess.PIPE,
        )

    def kill(self, kind: str) -> bool:
        assert self.driver is not None
        workers = children(self.driver.pid)
        if kind == "worker":
            if not workers or self.driver.poll() is not None:
                return False
            try:
                os.kill(workers[0], signal.SIGKILL)
            except ProcessLookupError:
                return False
            self.kills[kind] += 1
            return True
        if self.driver.poll() is not None:
            return False
        if kind == "driver":
            self.driver.kill()
        else:
            os.killpg(self.driver.pid, signal.SIGKILL)
        self.driver.communicate()
        self.driver = None
        self.kills[kind] += 1
        self.check_after_death(workers)
        return True

    def check_after_death(self, workers: list[int]) -> None:
        deadline = time.monotonic() + 5
        while any(map(alive, workers)) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not any(map(alive, workers)), "worker processes outlive their driver"
        self.check_safe()

    def check_safe(self) -> None:
        """What was once a valid row stays, byte for byte."""
        path = self.folder / FILE
        if path.exists():
            content = path.read_bytes()
            assert content.startswith(self.safe)
            self.safe = content[: scan(path).end]

    def finish(self) -> Contents:
        while True:
            if self.driver is None:
                self.start()
            assert self.driver is not None
            _, errors = self.driver.communicate(timeout=120)
            assert self.driver.returncode == 0, errors.decode()
            self.check_safe()
            contents = read(self.folder)
            if all(row.state == "done" for row in contents.rows.values()):
                return contents
            self.driver = None


def done_rows_by_key(folder: Path) -> collections.Counter[str]:
    records = [codec.unseal(line) for line in (folder / FILE).read_bytes().splitlines(keepends=True)]
    return collections.Counter(record["key"] for record in records if record.get("state") == "done")


def test_killed_runs_end_with_the_rows_of_an_uninterrupted_one(tmp_path: Path) -> None:
    run(kill_experiment(CELLS), tmp_path / "whole", jobs=0, function="fake")
    expected = read(tmp_path / "whole").canonical_rows()
    assert len(expected) == CELLS
    dice, total, rounds = random.Random(20_26), collections.Counter[str](), 0
    while sum(total.values()) < KILLS:
        victim = Victim(tmp_path / f"round{rounds}")
        rounds += 1
        while sum(total.values()) + sum(victim.kills.values()) < KILLS:
            if victim.driver is None:
                victim.start()
            time.sleep(dice.uniform(0.02, 0.9))
            if not victim.kill(dice.choice(["driver", "worker", "worker", "group"])):
                assert victim.driver is not None
                if victim.driver.poll() is not None:
                    break
        contents = victim.finish()
        assert contents.canonical_rows() == expected
        assert set(done_rows_by_key(victim.folder).values()) == {1}, "a row is repeated"
        starts = victim.trace.read_text().split()
        assert len(starts) <= CELLS + WORKERS * sum(victim.kills.values()), "more was run again than was lost"
        total += victim.kills
    assert sum(total.values()) >= KILLS
    print(f"{dict(total)} kills in {rounds} rounds")
