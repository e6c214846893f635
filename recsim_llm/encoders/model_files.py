"""Where the weights of models lie, and which of them are read: safetensors only, hub ids at one commit.

A pickle file runs code when it is read, so a folder that offers nothing else is refused. A Hugging Face id means
whatever its owner last pushed, so the commit of the first use is kept (:func:`pinned`) and later uses ask for that one.
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
    "PINNED", "POOLER", "commit_of", "load_whole", "pinned", "refuse_pickles", "remember_commit", "store_bytes",
    "weights_digest",
]  # fmt: skip

logger = logging.getLogger(__name__)

PINNED = {"sentence-transformers/all-MiniLM-L6-v2": "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"}
"""Commits of the ids that this package names itself."""
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt", "*.joblib", "*.npy", "*.npz", "*.h5", "*.keras")
"""Weights in forms that are no safetensors; most of them can run code."""
POOLER = "pooler"
"""In the names of weights that follow the last layer of an encoder; many models are saved without them."""
_COMMIT = re.compile(r"[0-9a-f]{40}")


def refuse_pickles(folder: Path, what: str) -> None:
    """Refuses a folder that has no safetensors weights.

    Args:
        folder: Folder of a model.
        what: What was asked for, for the message ("text encoder").

    Raises:
        ConfigError: If there is no ``*.safetensors`` in it; names the pickle that lies there instead.
    """
    if any(folder.glob("*.safetensors")):
        return
    others = sorted({path.name for pattern in PICKLES for path in folder.glob(pattern)})
    found = f"only {others[0]!r}, a form that can run code when it is read" if others else "no weights at all"
    raise ConfigError(
        f"{what} {str(folder)!r} is refused: it has {found}; save the model again with save_pretrained(folder), which "
        f"writes model.safetensors"
    )


def load_whole(kind: Any, source: str, unused: str | None = None, **arguments: Any) -> tuple[Any, bool]:
    """Loads a model all of whose weights stand in its files: those that do not, transformers would draw at random.

    Args:
        kind: Class of transformers with ``from_pretrained``.
        source: Folder or id.
        unused: Weights with this in their names may be missing; the caller must not use them then.
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
            f"{source!r} is refused: {len(needed)} of the weights of a {type(model).__name__} are not in its files "
            f"({', '.join(needed[:3])}) and would be random; take a model that was saved as one"
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


def remember_commit(name: str, model: Any) -> None:
    """Notes the commit that an id stood for when it was loaded for the first time."""
    commit = getattr(model.config, "_commit_hash", None)
    if isinstance(commit, str) and _COMMIT.fullmatch(commit) and pinned(name, None) is None:
        store_bytes(_note(name), json.dumps({"id": name, "commit": commit}).encode())


def weights_digest(source: str, model: Any) -> str:
    """SHA-256 of the weights of a folder, or of the configuration and commit of a hub id."""
    state = hashlib.sha256()
    files = sorted(Path(source).glob("*.safetensors")) if Path(source).is_dir() else []
    for path in files:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                state.update(chunk)
    if not files:
        commit = getattr(model.config, "_commit_hash", None)
        state.update(f"{source}@{commit}\n{model.config.to_json_string()}".encode())
    return state.hexdigest()


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
