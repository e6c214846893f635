"""Compilation of the rules, and where compiled code is kept.

The cache folder belongs to the user, is named by the package's version and the digest of the rules' sources (numba
itself does not notice that a helper in another file changed), and is thrown away when it does not load.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core import config as numba_config
from numba.core.errors import NumbaError

from recsim_llm._version import __version__
from recsim_llm.errors import ConfigError
from recsim_llm.paths import home

logger = logging.getLogger(__name__)

config: Any = numba_config
COMPILED = not config.DISABLE_JIT
"""False when NUMBA_DISABLE_JIT=1: the rules then run as plain Python, bit for bit the same."""


@functools.cache
def cache_folder() -> Path | None:
    """Folder of the compiled code, made on first use; None where nothing can be written."""
    digest = hashlib.sha256(f"{__version__} {numba.__version__}".encode())
    for source in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(source.read_bytes())
    folder = home() / "compiled" / digest.hexdigest()[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        logger.warning("compiled code cannot be kept in %s (%s); each process compiles for itself", folder, error)
        return None
    return folder


def loaded(function: Any, *arguments: Any) -> Any:
    """Calls a compiled function for the first time; compiled code that does not load is made anew.

    A process that was killed, or a full disk, may leave numba's files short, and loading them then fails in ways that
    differ from version to version. ``arguments`` must make a call that may be made twice.

    Raises:
        ConfigError: If a function that was registered from outside does not compile.
    """
    try:
        return function(*arguments)
    except NumbaError as error:
        raise ConfigError(f"a registered rule does not compile: {error}") from error
    except Exception as error:
        folder = cache_folder()
        if not COMPILED or folder is None:
            raise
        logger.warning(
            "compiled code in %s does not load (%s: %s); it is made anew", folder, type(error).__name__, error
        )
        for file in folder.rglob("*.nb[ic]"):
            file.unlink(missing_ok=True)
        return function(*arguments)


def jit(function: Callable[..., Any], *, keep: bool = False) -> Any:
    """Compiles a function of the rules on its first call: no fastmath, no Python objects, GIL released.

    Args:
        function: Plain Python function of numbers and arrays.
        keep: Keep the compiled code, with everything it calls, for other processes. Only for functions that stand in a
            module.
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


def kernel(function: Callable[..., Any]) -> Any:
    """Compiles a loop over lanes that is called from Python, and keeps the compiled code for other processes."""
    return jit(function, keep=True)
