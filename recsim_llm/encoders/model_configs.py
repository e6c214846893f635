"""Allow-list for a model's JSON files: keys of its architecture, plain values.

A configuration of transformers can name code to be fetched and run, another repository, or a file anywhere on the
machine. Here each architecture has a list of the keys that may come through, that of its own class; besides them there
are only numbers and plain words. Keys that name code are refused, since a model that needs them would be another one
without; all others that are not on the list are left out.
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Mapping
from typing import Any

from recsim_llm.errors import ConfigError

__all__ = ["configuration", "named_tokens", "plain_only", "refuse_code", "tokenizer_settings"]

logger = logging.getLogger(__name__)

CODE = frozenset({
    "auto_map", "custom_generate", "custom_pipelines", "trust_remote_code", "code_revision", "use_kernels",
    "kernel_config", "base_model_name_or_path", "extra_files", "extra_config_files", "backbone", "use_timm_backbone",
    "use_pretrained_backbone", "pretrained_cfg",
})  # fmt: skip
"""Keys that name code to be run, or files or models to be fetched, if they are set."""
QUANTISED = frozenset({"quantization_config", "compression_config"})
"""Keys of weights in forms that other packages, or kernels from the hub, must read."""
FETCHING = frozenset({"timm_backbone", "timm_wrapper", "rag", "mra", "yoso", "rwkv", "sam3_video"})
"""Architectures of transformers that fetch models or kernels when they are made."""
OLDER = frozenset({"torch_dtype", "num_labels", "rope_scaling", "rope_theta", "tokenizer_class"})
"""Keys of configurations that their classes turn into others."""
SPOKEN = frozenset({
    "chat_template", "additional_special_tokens", "extra_special_tokens", "added_tokens_decoder", "never_split",
})  # fmt: skip
"""Keys of a tokenizer's configuration whose values are text, beside those that end in ``_token``."""
DTYPES = (None, "auto", "float32", "float16", "bfloat16", "float64")
_PLACES = ("file", "files", "path", "paths", "dir", "folder", "url", "repo", "repository", "name_or_path")
"""Ends of keys that say where something lies; such values are never taken from a file."""
_WORD = re.compile(r"[A-Za-z0-9_.+ -]{0,100}")
_CLASS = re.compile(r"\w*(Tokenizer(Fast)?|Backend)|\w*(ImageProcessor|FeatureExtractor)(Fast|Pil)?")
_DEEPEST = 8


def refuse_code(content: Mapping[str, Any], file: str, called: str) -> None:
    """Refuses what names code, at any depth."""
    left: list[Any] = [content]
    while left:
        part = left.pop()
        if isinstance(part, list):
            left += part
        if not isinstance(part, dict):
            continue
        left += part.values()
        for key, value in part.items():
            if value and key in QUANTISED:
                raise ConfigError(
                    f"{called} is refused: its weights are quantised ({key} in {file}), a form that only code of "
                    "others can read; take the model in float32 or bfloat16"
                )
            fetched = "implementation" in key and not _is_plain(value)
            if (value and key in CODE) or fetched:
                raise ConfigError(
                    f"{called} is refused: its {file} names code to be loaded, or another model "
                    f"({key}={str(value)[:100]!r}), and neither is ever fetched or run; take a model of a kind that "
                    "transformers knows itself"
                )


def configuration(found: Mapping[str, Any], place: str, called: str, kind: Any = None) -> dict[str, Any]:
    """What a configuration says to its class: the class's own keys, and others with plain values.

    Args:
        found: The configuration, or a part of one.
        place: Where it stands, for messages.
        called: The model, for messages.
        kind: Its class; None finds it by the type of the model.
    """
    if kind is None:
        kind = _class_of(found.get("model_type"), place, called)
    known = _keys_of(kind)
    parts: Mapping[str, Any] = getattr(kind, "sub_configs", None) or {}
    kept: dict[str, Any] = {}
    for key, value in found.items():
        part = key if key in parts else key.removesuffix("_dict")  # so older files of CLIP have them
        if key == "model_type":
            kept[key] = value
        elif part in parts and isinstance(value, dict):
            inner = _part_class(kind, part, value, f"{place}: {key}", called)
            kept[key] = configuration(value, f"{place}: {key}", called, inner)
        elif key.startswith("_") or _says_where(key, value) or "implementation" in key:
            logger.debug("%s: %s of %s is not handed on", called, key, place)
        elif key in known or (key in OLDER and value is not None) or (_is_plain(value) and not hasattr(kind, key)):
            kept[key] = _without_marks(value)
        else:
            logger.debug("%s: %s of %s is not handed on", called, key, place)
    for key in ("dtype", "torch_dtype"):
        if kept.get(key) not in DTYPES:
            raise ConfigError(
                f"{called} is refused: {place} has {key}={str(kept[key])[:60]!r}, which is no number format"
            )
    _check_class(kept.get("tokenizer_class"), place, called)
    return kept


def _class_of(model_type: object, place: str, called: str) -> Any:
    """The configuration class of a type of model."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        raise ConfigError(
            f"{called} is refused: {place} has model_type={model_type!r}, which transformers does not know"
        )
    if model_type in FETCHING:
        raise ConfigError(
            f"{called} is refused: a model of type {model_type!r} ({place}) fetches code or models of others when it "
            "is made; take one of another kind"
        )
    return CONFIG_MAPPING[model_type]


def _part_class(kind: Any, part: str, value: Mapping[str, Any], place: str, called: str) -> Any:
    """The class of a part of a configuration, as the part on text of one on texts and images."""
    found = kind.sub_configs[part]
    fixed = getattr(found, "model_type", "")  # classes that may be any have none
    if fixed and fixed not in FETCHING:
        return found
    default = getattr(getattr(kind, "sub_configs_defaults", {}).get(part), "model_type", None)
    return _class_of(fixed or value.get("model_type", default), place, called)


def _keys_of(kind: Any) -> set[str]:
    """Names of the parameters of a configuration class and of those it is derived from."""
    known = set(getattr(kind, "attribute_map", {}))
    for one in kind.__mro__[:-1]:
        if "__init__" in vars(one):
            known |= set(inspect.signature(one.__init__).parameters) - {"self", "args", "kwargs"}
    return known


def _without_marks(value: Any, depth: int = 0) -> Any:
    """A value without the keys, in mappings inside, that say how something is implemented or where it lies."""
    if isinstance(value, list) and depth < _DEEPEST:
        return [_without_marks(one, depth + 1) for one in value]
    if isinstance(value, dict):
        return {
            key: _without_marks(one, depth + 1)
            for key, one in value.items()
            if depth < _DEEPEST and "implementation" not in key and not key.endswith("name_or_path")
        }
    return value


def tokenizer_settings(found: Mapping[str, Any] | None, called: str) -> dict[str, Any] | None:
    """Settings of a tokenizer: plain values, special tokens and chat templates; no paths."""
    if found is None:
        return None
    spoken = {key: value for key, value in found.items() if key in SPOKEN or _is_token(key, value)}
    return {**(plain_only(found, "tokenizer_class", "tokenizer_config.json", called) or {}), **spoken}


def named_tokens(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Special tokens by name; the file's other keys would be arguments of the tokenizer."""
    if found is None:
        return None
    return {key: value for key, value in found.items() if key in SPOKEN or _is_token(key, value)}


def _is_token(key: str, value: object) -> bool:
    return key.endswith("_token") and (isinstance(value, (str, dict)) or value is None)


def plain_only(found: Mapping[str, Any] | None, kind: str, file: str, called: str) -> dict[str, Any] | None:
    """What can name neither a path nor an address."""
    if found is None:
        return None
    _check_class(found.get(kind), file, called)
    return {
        key: value
        for key, value in found.items()
        if _is_plain(value) and not _says_where(key, value) and not key.startswith("_") and "implementation" not in key
    }


def _check_class(name: object, file: str, called: str) -> None:
    if name is not None and not (isinstance(name, str) and _CLASS.fullmatch(name) and not name.startswith("Rag")):
        raise ConfigError(
            f"{called} is refused: {file} names the class {str(name)[:60]!r}, which reads no texts or images"
        )


def _says_where(key: str, value: object) -> bool:
    return key.endswith(_PLACES) and isinstance(value, (str, list, dict))


def _is_plain(value: object, depth: int = 0) -> bool:
    """Whether a value is made of numbers and words: none of them a path, an address or a template."""
    if value is None or isinstance(value, bool | int | float):
        return True
    if isinstance(value, str):
        return _WORD.fullmatch(value) is not None
    if depth == _DEEPEST:
        return False
    if isinstance(value, list):
        return all(_is_plain(one, depth + 1) for one in value)
    return isinstance(value, dict) and all(
        _is_plain(key, depth + 1) and not _says_where(key, one) and _is_plain(one, depth + 1)
        for key, one in value.items()
    )
