"""The results store under errors of the file system and several processes (RELIABILITY T4, T6, T8)."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from recsim_llm.benchmarks.harness import codec, store
from recsim_llm.benchmarks.harness.records import FAILED, FILE, Row, read, scan
from recsim_llm.benchmarks.harness.store import Store
from recsim_llm.benchmarks.harness.testing_cells import fake_experiment, fake_row, fill_store
from recsim_llm.errors import StoreError

EXPERIMENT = fake_experiment()
CELLS = list(EXPERIMENT.cells())


class FaultyOs:
    """The os module, with one call of one function failing."""

    def __init__(self, name: str, nth: int, fault: int, short: bool = False) -> None:
        self.name, self.nth, self.fault, self.short, self.calls = name, nth, fault, short, 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name != self.name:
            return real

        def call(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            if self.calls == self.nth:
                if self.short and name == "write":
                    return real(arguments[0], arguments[1][:10])
                if name == "write":
                    real(arguments[0], arguments[1][:17])  # half a row reaches the disk before the error
                raise OSError(self.fault, os.strerror(self.fault))
            return real(*arguments, **options)

        return call


class TestErrors:
    @pytest.mark.parametrize("name", ["write", "fsync", "open", "replace", "ftruncate", "pwrite", "fstat"])
    @pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EIO, errno.EACCES, errno.EMFILE])
    def test_error_at_every_call(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, fault: int) -> None:
        expected = fill_store(EXPERIMENT, tmp_path / "clean", 3)
        for nth in range(1, 50):
            folder = tmp_path / f"{nth}"
            faulty = FaultyOs(name, nth, fault)
            with monkeypatch.context() as patch:
                patch.setattr(store, "os", faulty)
                acknowledged = 0
                error = ""
                try:
                    with Store(folder, EXPERIMENT) as opened:
                        for cell in CELLS[:3]:
                            opened.append(fake_row(cell))
                            acknowledged += 1
                except StoreError as caught:
                    error = str(caught)
            if faulty.calls < nth:
                assert not error
                break
            assert str(folder.parent) in error
            if (folder / FILE).exists():
                assert len(scan(folder / FILE).rows) >= acknowledged
            with Store(folder, EXPERIMENT) as opened:
                for cell in CELLS[:3]:
                    if cell.key not in opened.done():
                        opened.append(fake_row(cell))
            assert read(folder).canonical_rows() == read(expected.parent).canonical_rows()
        else:
            pytest.fail("the run never passed")

    def test_short_writes_are_completed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(store, "os", FaultyOs("write", 1, 0, short=True))
        fill_store(EXPERIMENT, tmp_path, 2)
        assert len(read(tmp_path).rows) == 2
        assert read(tmp_path).problems == []

    def test_after_an_error_nothing_is_appended_to_a_half_written_row(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = fill_store(EXPERIMENT, tmp_path, 1)
        good = path.read_bytes()
        opened = Store(tmp_path, EXPERIMENT)
        monkeypatch.setattr(store, "os", FaultyOs("write", 1, errno.ENOSPC))
        with pytest.raises(StoreError, match=f"{FILE}.*No space left.*continues"):
            opened.append(fake_row(CELLS[1]))
        assert path.read_bytes() == good
        with pytest.raises(StoreError, match="open it again"):
            opened.append(fake_row(CELLS[1]))
        opened.close()

    def test_a_full_device(self, tmp_path: Path) -> None:
        if not Path("/dev/full").exists():
            pytest.skip("no /dev/full here")
        opened = Store(tmp_path, EXPERIMENT)
        os.close(opened._file)
        opened._file = os.open("/dev/full", os.O_WRONLY)
        with pytest.raises(StoreError, match="No space left"):
            opened.append(fake_row(CELLS[0]))
        opened.close()

    def test_a_size_limit_of_the_system(self, tmp_path: Path) -> None:
        script = (
            "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "from recsim_llm.benchmarks.harness import testing_cells as t\n"
            "from recsim_llm.benchmarks.harness.runner import run\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\n"
            "run(t.fake_experiment(), sys.argv[1], jobs=0, function='fake')\n"
        )
        done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert "StoreError" in done.stderr
        assert str(tmp_path) in done.stderr
        assert scan(tmp_path / FILE).damages == []

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        with pytest.raises(StoreError, match="file"):
            Store(tmp_path / "file" / "out", EXPERIMENT)
        with pytest.raises(StoreError, match="holds no results"):
            read(tmp_path)


HOLDER = """
import sys, time
from recsim_llm.benchmarks.harness.store import Store
from recsim_llm.benchmarks.harness.testing_cells import fake_experiment
store = Store(sys.argv[1], fake_experiment()); print("open", flush=True); time.sleep(60)
"""
WRITER = """
import sys
from recsim_llm.benchmarks.harness import store
from recsim_llm.benchmarks.harness.records import DONE, Row
from recsim_llm.benchmarks.harness.testing_cells import fake_experiment, fake_result
store.fcntl.flock = lambda *_: None
experiment = fake_experiment(seeds=tuple(range(100)))
with store.Store(sys.argv[1], experiment) as opened:
    sys.stdin.readline()
    for cell in experiment.cells():
        opened.append(Row(cell, DONE, fake_result(cell)))
"""


class TestWriters:
    def test_a_second_writer_is_refused_and_a_killed_one_frees_the_lock(self, tmp_path: Path) -> None:
        with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"open\n"
            with pytest.raises(StoreError, match=f"pid {holder.pid} on ") as caught:
                Store(tmp_path, EXPERIMENT)
            assert "another runner" in str(caught.value)
            read(tmp_path)  # readers need no lock
            holder.kill()
            start = time.monotonic()
            Store(tmp_path, EXPERIMENT).close()
            assert time.monotonic() - start < 1.0
            holder.wait()

    def test_writers_without_a_working_lock_repeat_rows_but_lose_none(self, tmp_path: Path) -> None:
        experiment = fake_experiment(seeds=tuple(range(100)))
        Store(tmp_path, experiment).close()
        writers = [
            subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdin=subprocess.PIPE) for _ in range(3)
        ]
        time.sleep(1.0)
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write(b"go\n")
            writer.stdin.flush()
        for writer in writers:
            writer.communicate(timeout=60)
            assert writer.returncode == 0
        contents = read(tmp_path)
        assert not contents.damages
        assert len(contents.rows) == 600
        assert len(contents.problems) == 1_200

    def test_a_reader_beside_a_writer_never_sees_a_torn_row(self, tmp_path: Path) -> None:
        seen: list[int] = []
        with Store(tmp_path, EXPERIMENT) as opened:
            for cell in CELLS:
                opened.append(fake_row(cell))
                contents = read(tmp_path)
                assert not contents.problems
                seen.append(len(contents.rows))
        assert seen == list(range(1, len(CELLS) + 1))

    def test_thousands_of_rows_open_fast(self, tmp_path: Path) -> None:
        experiment = fake_experiment(seeds=tuple(range(1_000)), agents=("random",))
        digest = codec.digest(experiment.canonical())
        path = fill_store(EXPERIMENT, tmp_path / "other", 0)
        with Store(tmp_path, experiment):
            pass
        path = tmp_path / FILE
        with path.open("ab") as file:
            for cell in experiment.cells():
                file.write(codec.seal(Row(cell, FAILED, {"error": "x"}).record(digest)))
        start = time.process_time()
        assert len(read(tmp_path).rows) == 2_000
        assert time.process_time() - start < 2.0
