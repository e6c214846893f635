"""Compilation of the rules, and where compiled code is kept.

The cache folder belongs to the user, is named by the package's version and the digest of the rules' sources (numba
itself does not notice that a helper in another file changed), and is thrown away when it does not load.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core import config as numba_config

from recsim_llm._version import __version__
from recsim_llm.paths import home

logger = logging.getLogger(__name__)

config: Any = numba_config
COMPILED = not config.DISABLE_JIT
"""False when NUMBA_DISABLE_JIT=1: the rules then run as plain Python, bit for bit the same."""


@functools.cache
def cache_folder() -> Path | None:
    """Folder of the compiled code, made on first use; None where nothing can be written."""
    digest = hashlib.sha256(f"{__version__} {numba.__version__}".encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    folder = home() / "compiled" / digest.hexdigest()[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        logger.warning("compiled code cannot be kept in %s (%s); each process compiles for itself", folder, error)
        return None
    _check_index(folder)
    return folder


def _check_index(folder: Path) -> None:
    """Wipes the folder when one of its files was cut or altered since it was written.

    numba writes an index (.nbi) that names data files (.nbc); a process that was killed, or a full disk, may leave
    either one short, and loading it fails in ways that differ from version to version.
    """
    for file in folder.rglob("*.nb[ic]"):
        try:
            broken = file.stat().st_size == 0
        except OSError:
            continue
        if broken:
            forget_compiled()
            return


def forget_compiled() -> None:
    """Deletes compiled code; it is made again when needed."""
    folder = home() / "compiled"
    logger.warning("compiled code in %s does not load; it is built again", folder)
    shutil.rmtree(folder, ignore_errors=True)
    cache_folder.cache_clear()


def jit(function: Callable[..., Any], *, keep: bool = True) -> Any:
    """Compiles a function of the rules on its first call: no fastmath, no Python objects, GIL released.

    Args:
        function: Plain Python function of numbers and arrays.
        keep: Keep the compiled code for other processes. Only for functions that stand in a module.
    """
    folder = cache_folder() if keep and COMPILED else None
    # _nrt: no reference counts; the rules allocate nothing, and counting each row took more time than the rules.
    # forceinline: calls that pass a dozen arrays cost more than what they call.
    options: dict[str, Any] = {
        "nogil": True,
        "error_model": "numpy",
        "fastmath": False,
        "_nrt": False,
        "forceinline": True,
    }
    compiler: Any = numba.njit
    if folder is None:
        return compiler(function, **options)
    before = config.CACHE_DIR
    config.CACHE_DIR = str(folder)  # read when the decorator runs; other packages' folders stay as they are
    try:
        return compiler(function, cache=True, **options)
    finally:
        config.CACHE_DIR = before
