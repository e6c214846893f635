"""Untrusted model folders: files checked, digested and copied aside, so that nothing else is read.

A model's folder is data, but the library that reads it does more: a configuration can name code to be fetched and run,
another repository, or a file anywhere on the machine. So a model is never loaded from its folder. :func:`opened` makes
a folder beside it that holds links to its vocabulary and its safetensors, and of its JSON files what
:mod:`recsim_llm.encoders.model_configs` takes from them. A hub id is fetched first, as files, and then treated alike.

The digest covers every file that can be in that folder, so two models with one digest encode alike.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsim_llm.encoders.hub_files import load_whole
from recsim_llm.encoders.model_configs import configuration, named_tokens, plain_only, refuse_code, tokenizer_settings
from recsim_llm.errors import ConfigError, require

__all__ = ["ModelFiles", "digest_of", "files_of", "opened"]

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
CONFIG, TOKENIZER, TOKENS, ADDED = (
    "config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip
PICTURES = "preprocessor_config.json"
ADAPTER = "adapter_config.json"
VOCABULARY = (".json", ".txt", ".model", ".jinja", ".spm", ".tiktoken", ".bpe", ".codes", ".vocab")
"""Suffixes of the files beside the weights that transformers may read."""
NESTED = ("*/config.json", "additional_chat_templates/*.jinja")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt", "*.joblib", "*.npy", "*.npz", "*.h5", "*.keras",
           "*.msgpack")  # fmt: skip
"""Weights in forms that are no safetensors; most of them can run code."""


MOST_JSON_BYTES = 16 * 2**20
_MEMBER = re.compile(r"[A-Za-z0-9][\w.-]*\.safetensors")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class ModelFiles:
    """A model's files, ready to be read.

    Attributes:
        name: Folder or id that was asked for.
        folder: Where what may be read is set apart; it is gone when :func:`opened` ends.
        digest: SHA-256 of all files that decide what the model says.
        commit: Commit of a hub id; None for folders.
    """

    name: str
    folder: Path
    digest: str
    commit: str | None

    def model(self, kind: Any, unused: str | None = None, **arguments: Any) -> tuple[Any, bool]:
        """The model, as :func:`recsim_llm.encoders.hub_files.load_whole` gives it.

        Args:
            kind: Class of transformers with ``from_pretrained``.
            unused: Weights with this in their names may be missing.
            **arguments: Of ``from_pretrained``.
        """
        model, whole = load_whole(kind, str(self.folder), unused, called=self.name, **arguments, **self._safe())
        model.config._name_or_path = model.name_or_path = self.name
        model.config._commit_hash = self.commit
        return model.eval(), whole

    def tokenizer(self) -> Any:
        """Its tokenizer."""
        transformers = require("transformers", "llm")
        config = transformers.AutoConfig.from_pretrained(str(self.folder), **self._safe())
        config._name_or_path = self.name  # some ids have a tokenizer of their own
        found = transformers.AutoTokenizer.from_pretrained(str(self.folder), config=config, **self._safe())
        found.name_or_path = self.name
        return found

    def image_processor(self) -> Any:
        """What prepares pictures for it."""
        return require("transformers", "llm").AutoImageProcessor.from_pretrained(str(self.folder), **self._safe())

    def _safe(self) -> dict[str, Any]:
        return {"trust_remote_code": False, "local_files_only": True}


@contextmanager
def opened(name: str, what: str, revision: str | None = None) -> Iterator[ModelFiles]:
    """Checks a model's files and sets apart what may be read.

    Args:
        name: Folder of a model, or id of the Hugging Face hub.
        what: What is asked for, for messages ("text encoder").
        revision: Commit or tag of an id.

    Raises:
        ConfigError: If a file names code, other files or other models, if a link leads out of the folder, or if the
            weights are not safetensors.
    """
    place = Path(name).expanduser()
    commit = None
    if not place.is_dir():
        place, commit = _fetched(name, what, revision)
    files = files_of(place, f"{what} {name!r}")
    with tempfile.TemporaryDirectory(prefix="recsim-llm-model-") as staging:
        _set_apart(files, Path(staging), place, f"{what} {name!r}")
        yield ModelFiles(name, Path(staging), digest_of(files), commit)


def files_of(folder: Path, called: str = "model") -> dict[str, Path]:
    """The files of a model that can decide what it says, by name: weights, configurations, vocabulary.

    Raises:
        ConfigError: If one of them is a link to a place outside the folder. Links of the hub's cache, from a snapshot
            to its blobs, are no such.
    """
    root = folder.resolve()
    inside = [root, root.parent.parent / "blobs"] if root.parent.name == "snapshots" else [root]
    nested = [path for pattern in NESTED for path in folder.glob(pattern)]
    found = {}
    for path in sorted([*folder.iterdir(), *nested]):
        if path.suffix not in (".safetensors", *VOCABULARY):
            continue
        try:
            target = path.resolve()
        except (OSError, RuntimeError):  # a link to itself
            target = Path("/")
        name = path.relative_to(folder).as_posix()
        if not any(target.is_relative_to(place) for place in inside):
            raise ConfigError(
                f"{called} is refused: {name} is a link that leads out of its folder, to {str(target)!r}; copy the "
                "file into the folder if you trust it"
            )
        if target.is_file():
            found[name] = target
    return found


def digest_of(files: Mapping[str, Path]) -> str:
    """SHA-256 over the names and contents of files."""
    state = hashlib.sha256()
    for name, path in sorted(files.items()):
        with path.open("rb") as file:
            state.update(json.dumps([name, hashlib.file_digest(file, "sha256").hexdigest()]).encode())
    return state.hexdigest()


def _fetched(name: str, what: str, revision: str | None) -> tuple[Path, str]:
    """The folder of the hub's cache with the files of an id, fetched if they are not there, and their commit.

    Raises:
        ConfigError: If the commit cannot be found out.
    """
    hub = require("huggingface_hub", "llm")
    small = [f"*{suffix}" for suffix in VOCABULARY]
    folder = Path(hub.snapshot_download(name, revision=revision, allow_patterns=small))
    commit = folder.name
    if not _COMMIT.fullmatch(commit):
        raise ConfigError(f"the commit of {name!r} cannot be found out, so what it says could not be told apart")
    called = f"{what} {name!r}"
    members = [WEIGHTS]
    if (folder / INDEX).exists():
        members += sorted(set(_weight_map(files_of(folder, called)[INDEX], called).values()))
    return Path(hub.snapshot_download(name, revision=commit, allow_patterns=members)), commit


def _set_apart(files: Mapping[str, Path], staging: Path, folder: Path, called: str) -> None:
    """Fills the folder that is read: links to vocabulary and weights, and what may be taken from configurations."""
    if ADAPTER in files:
        raise ConfigError(
            f"{called} is refused: its {ADAPTER} names a second model to be loaded; merge the adapter into its model "
            "and save that"
        )
    read = {
        name: _parsed(path, called) for name, path in files.items() if name in (CONFIG, TOKENIZER, TOKENS, PICTURES)
    }
    for name, settings in read.items():
        refuse_code(settings, name, called)
    weights = _weights(files, folder, called)
    if CONFIG not in read:
        raise ConfigError(f"{called} is refused: it has no {CONFIG}, which says what kind of model it is")
    kept: dict[str, dict[str, Any] | None] = {
        CONFIG: configuration(read[CONFIG], CONFIG, called),
        TOKENIZER: tokenizer_settings(read.get(TOKENIZER), called),
        TOKENS: named_tokens(read.get(TOKENS)),
        PICTURES: plain_only(read.get(PICTURES), "image_processor_type", PICTURES, called),
        INDEX: None,
        ADDED: None,
    }
    if len(weights) > 1 or weights[0] != WEIGHTS:
        kept[INDEX] = {"metadata": {}, "weight_map": _weight_map(files[INDEX], called)}
    if ADDED in files:
        added = _parsed(files[ADDED], called)
        kept[ADDED] = {token: number for token, number in added.items() if type(number) is int}
    for name, content in kept.items():
        if content is not None:
            (staging / name).write_text(json.dumps(content), encoding="utf-8")
    for name, path in files.items():
        wanted = name in weights if name.endswith(".safetensors") else _is_vocabulary(name)
        if wanted and name not in kept:
            _linked(path, staging / name)


def _is_vocabulary(name: str) -> bool:
    """Whether a file holds words rather than settings; settings that are not known here are not handed on."""
    if "/" in name:
        return name.endswith(".jinja")
    return not (name.endswith(".json") and ("config" in name or "index" in name))


def _linked(path: Path, place: Path) -> None:
    place.parent.mkdir(exist_ok=True)
    try:
        place.symlink_to(path)
    except OSError:  # a file system without links
        shutil.copyfile(path, place)


def _weights(files: Mapping[str, Path], folder: Path, called: str) -> list[str]:
    """Names of the files that hold the weights."""
    if WEIGHTS in files:
        return [WEIGHTS]
    if INDEX in files:
        members = sorted(set(_weight_map(files[INDEX], called).values()))
        gone = [name for name in members if name not in files]
        if gone or not members:
            raise ConfigError(
                f"{called} is refused: {INDEX} names {gone[:3]}, which are not in its folder; fetch it again"
            )
        return members
    others = sorted({path.name for pattern in PICKLES for path in folder.glob(pattern)})
    others += [name for name in files if name.endswith(".safetensors") and not others]
    found = "no weights at all"
    if others:
        found = f"only {others[0]!r}, " + (
            "which is not what transformers reads" if others[0].endswith(".safetensors")
            else "a form that can run code when it is read"
        )  # fmt: skip
    raise ConfigError(
        f"{called} is refused: it has {found}; save the model again with save_pretrained(folder), which writes "
        f"{WEIGHTS}"
    )


def _weight_map(path: Path, called: str) -> dict[str, str]:
    """The file of each weight, from an index; all of them plain names of safetensors."""
    found = _parsed(path, called).get("weight_map")
    if not isinstance(found, dict):
        raise ConfigError(f"{called} is refused: {INDEX} holds no weight_map; save the model again")
    for name in found.values():
        if not isinstance(name, str) or not _MEMBER.fullmatch(name):
            raise ConfigError(
                f"{called} is refused: {INDEX} names {str(name)[:100]!r}, which is no safetensors file in its folder; "
                "save the model again with save_pretrained(folder)"
            )
    return found


def _parsed(path: Path, called: str) -> dict[str, Any]:
    if path.stat().st_size > MOST_JSON_BYTES:
        raise ConfigError(f"{called} is refused: {path.name} is larger than {MOST_JSON_BYTES:,} bytes")
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{called} is refused: {path.name} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{called} is refused: {path.name} must hold an object, got {type(found).__name__}")
    return found
