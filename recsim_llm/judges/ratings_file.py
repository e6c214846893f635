"""Opening of rating files: locks, integrity, quarantine of damaged files."""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import sqlite3
import time
from pathlib import Path

from recsim_llm.errors import StoreError
from recsim_llm.files import sync_folder

APPLICATION = 0x5253_4C4D  # in the file's header: these are our ratings
VERSION = 1
_PATIENCE = 30.0  # how long another process's transaction is waited for [s]
_TABLE = """
CREATE TABLE IF NOT EXISTS ratings (
    key BLOB PRIMARY KEY,
    persona BLOB NOT NULL,
    item BLOB NOT NULL,
    rating REAL,
    spread REAL NOT NULL,
    reason TEXT NOT NULL,
    seal INTEGER NOT NULL
) WITHOUT ROWID
"""
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_whole: dict[str, tuple[int, ...]] = {}  # files as this process left them, whole: they need not be read through again

logger = logging.getLogger(__name__)


def opened(path: Path) -> tuple[sqlite3.Connection, int, bool]:
    """Opens a file of ratings, or makes it.

    Returns:
        The connection, a descriptor that tells other processes that the file is in use, and whether no other process
        uses it.

    Raises:
        StoreError: If it cannot be used.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock, alone = _locked(path.with_name(f"{path.name}.lock"))
    except OSError as error:
        raise StoreError(
            f"{error.filename or path}: {error.strerror or error}; set RECSIM_LLM_HOME to a folder that can be written"
        ) from error
    try:
        connection = _connected(path, alone)
    except BaseException:
        os.close(lock)
        raise
    if alone:
        _try_lock(lock, fcntl.LOCK_SH)
    return connection, lock, alone


def closed(path: Path, connection: sqlite3.Connection, lock: int) -> None:
    """Closes what :func:`opened` returned; the lock is -1 where that was done before."""
    connection.close()
    if lock >= 0:
        os.close(lock)
        _whole[str(path)] = _stamp(path)


def _locked(path: Path) -> tuple[int, bool]:
    """Takes the lock: alone where nobody has it, else shared."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        alone = _try_lock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not alone:
            _try_lock(lock, fcntl.LOCK_SH)
    except BaseException:
        os.close(lock)
        raise
    return lock, alone


def _try_lock(lock: int, how: int) -> bool:
    """Whether the lock was got; file systems without locks give it to everybody."""
    try:
        fcntl.flock(lock, how)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _connected(path: Path, alone: bool) -> sqlite3.Connection:
    try:
        return _checked_connection(path)
    except sqlite3.Error as error:
        if (getattr(error, "sqlite_errorcode", 0) & 0xFF) not in _DAMAGED:
            raise StoreError(f"{path}: {error}; check that the folder can be written and has room") from error
        if not alone:
            raise StoreError(
                f"{path} is damaged ({error}) and another process has it open; stop that one, then try again"
            ) from error
        aside = _set_aside(path)
        logger.warning("%s is damaged (%s): it is kept as %s, and a new one is begun", path, error, aside.name)
    try:
        return _checked_connection(path)
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {error}; check that the folder can be written and has room") from error


def _checked_connection(path: Path) -> sqlite3.Connection:
    """A connection to a file that is whole and ours.

    Raises:
        sqlite3.Error: If it is damaged or cannot be opened.
        StoreError: If it is not ours.
    """
    known = _whole.get(str(path)) == _stamp(path)
    connection = sqlite3.connect(path, timeout=_PATIENCE, check_same_thread=False)
    try:
        _prepare(connection, path)
        if not known:
            problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if problem != "ok":
                damaged = sqlite3.DatabaseError(str(problem).splitlines()[0])
                damaged.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
                raise damaged
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application != APPLICATION:
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if application or tables:
            raise StoreError(f"{path} is another program's database and stays as it is; name another folder")
    elif version != VERSION:
        raise StoreError(f"{path} has format {version}, this version reads {VERSION}; name another folder")
    connection.execute("PRAGMA journal_mode = WAL")  # where it cannot be, the older journal is as safe
    connection.execute("PRAGMA synchronous = FULL")
    if application == APPLICATION:
        return
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(_TABLE)
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
    sync_folder(path.parent)


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _set_aside(path: Path) -> Path:
    """Renames a damaged file, with what belongs to it; nothing of it is lost."""
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    aside = path.with_name(f"{path.stem}.damaged-{stamp}-{secrets.token_hex(3)}{path.suffix}")
    try:
        for tail in ("-wal", "-shm", ""):
            part = path.with_name(path.name + tail)
            if part.exists():
                part.rename(aside.with_name(aside.name + tail))
        sync_folder(path.parent)
    except OSError as error:
        raise StoreError(f"{path} is damaged and cannot be renamed ({error.strerror}); move it away") from error
    return aside
