"""Writing a results store: append-only, one writer, nothing acknowledged is ever lost.

:meth:`Store.append` returns after the row is on disk (fsync). Opening takes a kernel lock, which dies with its process,
then mends what a crash left behind: an unfinished tail is cut, a damaged line in the middle is moved to
``results.quarantine.jsonl``, and the cells concerned simply run again. Only the driver of a run writes; see
:mod:`recsim_llm.benchmarks.harness.records` for reading.

An experiment that has all cells of the stored one and more (further agents, scenarios or seeds) continues the store: a
further header is appended, the stored rows stay as they are. Any other experiment is refused.
"""

from __future__ import annotations

import base64
import errno
import fcntl
import logging
import os
import platform
import socket
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from recsim_llm._version import __version__
from recsim_llm.benchmarks.harness import codec
from recsim_llm.benchmarks.harness.experiment import Experiment
from recsim_llm.benchmarks.harness.records import (
    DONE,
    FILE,
    ROW_SCHEMA,
    SCHEMA,
    Contents,
    Row,
    difference,
    extended_by,
    scan,
    stored_cells,
)
from recsim_llm.errors import StoreError
from recsim_llm.files import sync_folder

LOCK = "results.lock"
QUARANTINE = "results.quarantine.jsonl"
LOCK_GRACE = 1.0
"""How long a lock is waited for, since a killed process needs a moment to disappear [s]."""
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")

_log = logging.getLogger(__name__)


class Store:
    """A results store, open for writing by this process alone.

    Args:
        folder: Where it lies; made if it is not there.
        experiment: The experiment whose rows it holds.
        worlds: Content hash of each scenario's world, as far as known.
        modules: Names of the modules that the workers import; kept in the header for people, never read back.

    Attributes:
        path: The file.
        contents: What the file held when opened, kept up to date by `append`.
        problems: What was mended or is odd, in sentences.

    Raises:
        StoreError: If another runner holds it, it holds another experiment, or the file system refuses.
    """

    def __init__(
        self,
        folder: Path | str,
        experiment: Experiment,
        worlds: Mapping[str, str] | None = None,
        modules: Sequence[str] = (),
    ) -> None:
        self.folder = Path(folder)
        self.path = self.folder / FILE
        self.experiment, self._worlds, self._modules = experiment, worlds, modules
        self._canonical = experiment.canonical(worlds)
        self.digest = codec.digest(self._canonical)
        self.problems: list[str] = []
        self._file = self._lock = -1
        with _explained(self.folder):
            made = not self.folder.exists()
            self.folder.mkdir(parents=True, exist_ok=True)
            if made:
                sync_folder(self.folder.parent)
        try:
            self._take_lock()
            self._open()
        except BaseException:
            self.close()
            raise
        for problem in self.problems:
            _log.warning("%s", problem)

    def append(self, row: Row) -> None:
        """Writes one row; when this returns, the row survives a crash.

        Raises:
            StoreError: If the file system refuses. The file is cut back to its last good row first; open the store
                again to go on.
        """
        if self._file < 0:
            raise StoreError(f"{self.path} is closed, or an earlier row could not be written; open it again")
        self._write(codec.seal(row.record(self.digest)))
        self.contents.rows[row.key] = row

    def done(self) -> set[str]:
        """Keys of the cells that are done."""
        return {key for key, row in self.contents.rows.items() if row.state == DONE}

    def close(self) -> None:
        """Closes the file and gives the lock back; harmless when repeated."""
        for name in ("_file", "_lock"):
            descriptor = getattr(self, name)
            setattr(self, name, -1)
            if descriptor >= 0:
                os.close(descriptor)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take_lock(self) -> None:
        path = self.folder / LOCK
        with _explained(path):
            self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            until = time.monotonic() + LOCK_GRACE
            while True:
                try:
                    fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() < until:
                        time.sleep(0.05)
                        continue
                    holder = os.pread(self._lock, 200, 0).decode("utf-8", "replace").strip() or "an unknown process"
                    raise StoreError(
                        f"{self.path} is being written by another runner, {holder}. Wait for it, stop it, or choose "
                        "another folder"
                    ) from None
                except OSError as error:
                    if error.errno not in _NO_LOCKS:
                        raise
                    self.problems.append(f"{path}: this file system has no locks; start no second runner here")
                    break
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"pid {os.getpid()} on {socket.gethostname()}\n".encode(), 0)

    def _open(self) -> None:
        with _explained(self.path):
            for leftover in self.folder.glob(f"{FILE}.*.tmp"):
                leftover.unlink(missing_ok=True)
            self.contents = scan(self.path, {self.digest}) if self.path.exists() else Contents()
            self.problems += self.contents.problems
            header = self._new_header()
            if self.contents.damages:
                self._quarantine()
            if self.contents.header is None or not self.contents.torn_tail_only:
                self._rewrite(header)
                header = b""
            self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
            self._offset = os.fstat(self._file).st_size
            if self.contents.header is not None and self.contents.damages and self.contents.torn_tail_only:
                os.ftruncate(self._file, self.contents.end)
                os.fsync(self._file)
                self._offset = self.contents.end
            if header:
                self._write(header)

    def _new_header(self) -> bytes:
        """The header that the store needs before rows of this experiment, if any: its first, or one that extends.

        Raises:
            StoreError: If the store holds another experiment and this one does not have all its cells.
        """
        header = self.contents.header
        if header is None:
            if self.contents.rows.keys() - self._cells():
                raise StoreError(
                    f"{self.path} has lost its header, and its rows are not those of this experiment. "
                    "Give the command that made it, or choose another folder"
                )
            return self._header(sorted(self.contents.digests - {self.digest}))
        for stored in self.contents.headers:
            for line in difference(stored.get("versions"), _versions()):
                self.problems.append(f"{self.path} was begun with other versions, so last digits may differ:{line}")
        if header["digest"] == self.digest:
            return b""
        cells = stored_cells(header)
        if cells is None or not cells <= self._cells():
            lines = "\n".join(difference(header["experiment"], self._canonical))
            raise StoreError(
                f"{self.path} holds the results of another experiment:\n{lines}\n"
                "Give the same settings to continue it, with more agents, scenarios or seeds if you like, or choose "
                "another folder"
            )
        return self._header([*extended_by(header), header["digest"]])

    def _cells(self) -> set[str]:
        return {cell.key for cell in self.experiment.cells(self._worlds)}

    def _header(self, extends: list[str]) -> bytes:
        about: dict[str, Any] = {
            "schema": SCHEMA if extends else ROW_SCHEMA,
            "kind": "header",
            "digest": self.digest,
            "experiment": self._canonical,
            "definition": codec.loads(self.experiment.to_json()),
            "versions": _versions(),
            "machine": {"system": platform.platform(), "processor": platform.machine(), "cores": os.cpu_count()},
            "threads": {name: os.environ.get(name) for name in THREAD_VARIABLES},
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        if extends:
            about["extends"] = extends
        if self._modules:
            about["modules"] = list(self._modules)
        return codec.seal(about)

    def _quarantine(self) -> None:
        """Keeps a copy of what is about to be taken out."""
        lines = []
        with self.path.open("rb") as file:
            for damage in self.contents.damages:
                file.seek(damage.start)
                taken = base64.b64encode(file.read(damage.end - damage.start)).decode("ascii")
                lines.append(codec.seal({"line": damage.line, "reason": damage.reason, "base64": taken}))
        with (self.folder / QUARANTINE).open("ab") as file:
            file.write(b"".join(lines))
            file.flush()
            os.fsync(file.fileno())

    def _rewrite(self, header: bytes) -> None:
        """Replaces the file by its valid lines and a new header, if any, at once or not at all.

        A first header comes first, one that extends another after it.
        """
        temporary = self.folder / f"{FILE}.{uuid.uuid4().hex}.tmp"
        try:
            with temporary.open("xb") as file:
                first = self.contents.header is None
                file.write(header if first else b"")
                if self.contents.spans:
                    with self.path.open("rb") as old:
                        for start, end in self.contents.spans:
                            old.seek(start)
                            file.write(old.read(end - start))
                file.write(b"" if first else header)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(self.folder)

    def _write(self, line: bytes) -> None:
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(self._file, rest) :]
            os.fsync(self._file)
        except OSError as error:
            descriptor, self._file = self._file, -1
            try:
                os.ftruncate(descriptor, self._offset)
                os.fsync(descriptor)
            except OSError:
                _log.warning("%s could not be cut back; the next opening does it", self.path)
            finally:
                os.close(descriptor)
            raise StoreError(
                f"{self.path}: a row could not be written ({error.strerror or error}); all rows before it are safe. "
                "The same command continues once this is mended"
            ) from error
        self._offset += len(line)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turns an error of the file system into one that names the path."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{error.filename or path}: {error.strerror or error}") from error


@cache
def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {"recsim_llm": __version__, "python": ".".join(map(str, sys.version_info[:3]))}
    for package in ("numpy", "numba", "gymnasium", "torch", "stable-baselines3"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return versions
