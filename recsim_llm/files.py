"""Atomic writing of files: a reader sees the old content or the new."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def temporary_sibling(path: Path) -> Path:
    """A unique hidden name in the same folder, for content that is renamed to ``path`` when it is complete."""
    return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(6)}.tmp")


def write_file(path: Path, content: bytes) -> None:
    """Writes a whole file: unique temporary name, fsync, rename, fsync of the folder."""
    temporary = temporary_sibling(path)
    try:
        with temporary.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes renames and creations in a folder survive a power cut, where the system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # some systems do not open folders
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
