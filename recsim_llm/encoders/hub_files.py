"""Hugging Face hub models pinned to one commit, and loading that checks that every weight is there.

An id means whatever its owner last pushed, so the commit of the first use is kept (:func:`pinned`) and later uses ask
for that one. Which files of a model are read is decided in :mod:`recsim_llm.encoders.model_files`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import uuid
from pathlib import Path
from typing import Any

from recsim_llm.errors import ConfigError, require
from recsim_llm.paths import home

__all__ = [
    "PINNED", "POOLER", "commit_of", "load_whole", "pinned", "remember_commit", "store_bytes",
]  # fmt: skip

logger = logging.getLogger(__name__)

PINNED = {"sentence-transformers/all-MiniLM-L6-v2": "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"}
"""Commits of the ids that this package names itself."""
POOLER = "pooler"
"""In the names of weights that follow the last layer of an encoder; many models are saved without them."""
_COMMIT = re.compile(r"[0-9a-f]{40}")


def load_whole(
    kind: Any, source: str, unused: str | None = None, called: str | None = None, **arguments: Any
) -> tuple[Any, bool]:
    """Loads a model all of whose weights stand in its files: those that do not, transformers would draw at random.

    Args:
        kind: Class of transformers with ``from_pretrained``.
        source: Folder.
        unused: Weights with this in their names may be missing; the caller must not use them then.
        called: What the model is called in messages; None for the folder.
        **arguments: Of ``from_pretrained``.

    Returns:
        The model, and whether the unused weights were there too.

    Raises:
        ConfigError: If others are missing; the first of them are named.
    """
    log = require("transformers", "llm").utils.logging
    level = log.get_verbosity()
    log.set_verbosity_error()  # its report of what is missing says what is said here
    try:
        with require("torch", "llm").random.fork_rng(devices=[]):  # what is missing is drawn from the global stream
            model, found = kind.from_pretrained(source, use_safetensors=True, output_loading_info=True, **arguments)
    finally:
        log.set_verbosity(level)
    missing = sorted(found["missing_keys"])
    needed = [name for name in missing if unused is None or unused not in name]
    if needed:
        raise ConfigError(
            f"{called or source!r} is refused: {len(needed)} of the weights of a {type(model).__name__} are not in its "
            f"files ({', '.join(needed[:3])}) and would be random; take a model that was saved as one"
        )
    return model, not missing


def pinned(name: str, revision: str | None) -> str | None:
    """The revision to ask the hub for: the one given, the one this package names, or the commit of the first use."""
    return revision or PINNED.get(name) or commit_of(name)


def commit_of(name: str) -> str | None:
    """The commit that was remembered for an id, or None."""
    try:
        noted = json.loads(_note(name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    commit = noted.get("commit") if isinstance(noted, dict) and noted.get("id") == name else None
    return commit if isinstance(commit, str) and _COMMIT.fullmatch(commit) else None


def remember_commit(name: str, commit: str | None) -> None:
    """Notes the commit that an id stood for when it was loaded for the first time; None, a folder's, is not noted."""
    if commit is not None and _COMMIT.fullmatch(commit) and pinned(name, None) is None:
        store_bytes(_note(name), json.dumps({"id": name, "commit": commit}).encode())


def store_bytes(path: Path, data: bytes) -> bool:
    """Writes a file whole or not at all; a folder that cannot be written is a warning, and False."""
    temporary = path.with_name(f".{os.getpid()}-{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        logger.warning("%s is not kept: %s cannot be written (%s)", path.name, path.parent, error.strerror or error)
        return False
    return True


def _note(name: str) -> Path:
    """A name without any part of the id in it, which comes from outside."""
    return home() / "models" / "commits" / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.json"
