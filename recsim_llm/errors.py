"""Errors that the package raises on purpose.

Every message says what is wrong, the value seen, why it is wrong, and how to mend it.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


class RecsimError(Exception):
    """Base of all errors raised on purpose by this package."""


class DataError(RecsimError, ValueError):
    """A file or table from outside cannot be used; the message names file, row and column."""


class ConfigError(RecsimError, ValueError):
    """An argument or setting is not valid."""


class RefusedError(ConfigError):
    """An agent cannot work in an environment; the message names one that can."""


class StoreError(RecsimError):
    """A results store cannot be opened, read or continued."""


class MissingExtraError(RecsimError, ImportError):
    """An optional dependency is not installed; the message names the command that brings it."""


def require(module: str, extra: str) -> ModuleType:
    """Imports an optional dependency.

    Args:
        module: Name of the module, for example ``"transformers"``.
        extra: The extra of this package that installs it, for example ``"llm"``.

    Raises:
        MissingExtraError: If the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or module.split(".")[0] != error.name.split(".")[0]:
            raise
        raise MissingExtraError(f"{module} is not installed, and this feature needs it: {install(extra)}") from error


def install(*extras: str) -> str:
    """The command that brings extras of this package, which is on no index: it is run in the clone.

    Args:
        extras: Names of extras in ``setup.cfg``.
    """
    return f'pip install -c constraints.txt -e ".[{",".join(extras)}]" in the clone of recsim_llm'


def unexpected(name: str, valid: Iterable[str]) -> TypeError:
    """Builds Python's own error for a keyword argument that is not known, with the closest valid one.

    Libraries look for these words to find out whether an environment takes an argument (TorchRL's ``GymEnv``).
    """
    return TypeError(f"got an unexpected keyword argument {name!r}: {unknown('argument', name, valid)}")


def unknown(kind: str, name: object, valid: Iterable[str]) -> ConfigError:
    """Builds the error for a name that is not known, with the closest valid one."""
    names = sorted(valid)
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return ConfigError(f"no {kind} {str(name)!r}.{hint} Known: {', '.join(names)}")
