"""Fine-tuned encoder as a folder of JSON and safetensors. Loading one runs no code.

* tuned.json: what it was tuned from (name, revision, digest), how, at what cost, and the heads of its tasks
* adapter_model.safetensors, adapter_config.json: the adapters, as ``peft`` writes and reads them; or
* model.safetensors: the trained weights of full tuning, by the names of the model
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.encoders.text import MAX_TOKENS, Encoder, TextEncoder, load_text_encoder, may_be_named
from recsim_llm.errors import ConfigError, DataError, require
from recsim_llm.files import write_file
from recsim_llm.threads import one_thread

ABOUT, FORMAT = "tuned.json", 1
ADAPTER, ADAPTER_CONFIG, WHOLE = "adapter_model.safetensors", "adapter_config.json", "model.safetensors"
KEYS = {"format", "base", "revision", "base_digest", "plan", "digest", "heads", "settings", "report"}
PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz"}
MOST_JSON_BYTES = 4 * 2**20

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Head:
    """What a task adds to the encoder: score = bias + scale u . (mix * e).

    Attributes:
        scale: a.
        bias: b.
        mix: w [E]; None for ones.
    """

    scale: float
    bias: float = 0.0
    mix: tuple[float, ...] | None = None

    def scores(self, users: Floats, items: Floats) -> Floats:
        """Scores [U, I] of users by vectors [U, E], made unit here, and items by encodings [I, E]."""
        length = np.maximum(np.linalg.norm(users, axis=1, keepdims=True), 1e-6)
        unit = users / length * np.asarray(1.0 if self.mix is None else self.mix, np.float32)
        found: Floats = (self.bias + self.scale * (unit @ items.T)).astype(np.float32)
        return found


@dataclass(frozen=True, eq=False)
class TunedEncoder:
    """A text encoder that was tuned on what users did; an :class:`~recsim_llm.encoders.text.Encoder` like others.

    Attributes:
        name: The folder it was loaded from, else the base's name and the method.
        width: Length E of one encoding.
        digest: SHA-256 over the base's digest, the plan and the bytes of the tuned numbers.
        base: Name, revision and digest of the encoder it was tuned from.
        plan: Which numbers were trained.
        heads: Heads of its tasks.
        settings: How it was tuned.
        report: What it cost and how the loss fell.
    """

    name: str
    width: int
    digest: str
    base: Mapping[str, str | None]
    plan: Mapping[str, Any]
    heads: Mapping[str, Head]
    settings: Mapping[str, Any]
    report: Mapping[str, Any]
    _inner: TextEncoder = field(repr=False)
    _content: bytes = field(repr=False)
    _config: bytes | None = field(repr=False)

    def encode(self, texts: Sequence[str], progress: bool = False) -> Floats:
        """Unit vectors [N, E] of texts, as :meth:`~recsim_llm.encoders.text.TextEncoder.encode`."""
        return self._inner.encode(texts, progress)

    def encode_again(self, texts: Sequence[str], base: TextEncoder) -> Floats:
        """As :meth:`encode`, but for the last bits, for texts that are encoded by one tuned encoder after the other.

        What the layers that were not trained make of the texts is computed once in a process and kept.

        Args:
            texts: The same N texts, in the same order, every time.
            base: The encoder that it was tuned from.

        Returns:
            Unit vectors [N, E].

        Raises:
            ConfigError: If it was tuned from another encoder.
        """
        from recsim_llm.encoders.finetune.adapters import Plan, encoded_all, prepared

        if base.digest != self.base["digest"]:
            raise ConfigError(f"{self.name} was tuned from {self.base['name']}, not from {base.name}; pass that one")
        with one_thread():
            kept = prepared(base, texts, Plan(**self.plan), MAX_TOKENS)
            return self.encode(texts) if kept.states is None else encoded_all(self._inner._model, kept)

    def tensors(self) -> dict[str, Floats]:
        """The tuned numbers by name."""
        from safetensors.numpy import load

        found: dict[str, Floats] = load(self._content)
        return found

    def save(self, folder: str | Path, overwrite: bool = False) -> Path:
        """Writes the encoder into a folder of its own, the description last.

        Raises:
            ConfigError: If the folder exists and is not one of a tuned encoder that may be replaced.
        """
        target = Path(folder)
        if target.exists() and not ((overwrite and (target / ABOUT).is_file()) or _is_empty(target)):
            raise ConfigError(f"{target} exists already; name another folder, or pass overwrite for a tuned encoder's")
        target.mkdir(parents=True, exist_ok=True)
        for name in (ABOUT, ADAPTER, ADAPTER_CONFIG, WHOLE):
            (target / name).unlink(missing_ok=True)
        if self._config is not None:
            write_file(target / ADAPTER_CONFIG, self._config)
        write_file(target / _weights_name(self.plan), self._content)
        about = {
            "format": FORMAT, "base": self.base["name"], "revision": self.base["revision"],
            "base_digest": self.base["digest"], "plan": dict(self.plan), "digest": self.digest,
            "heads": {task: asdict(head) for task, head in self.heads.items()},
            "settings": dict(self.settings), "report": dict(self.report),
        }  # fmt: skip
        write_file(target / ABOUT, json.dumps(about, indent=1, sort_keys=True).encode())
        return target


def assembled(
    encoder: TextEncoder,
    plan: Any,
    tensors: Mapping[str, Any],
    heads: Mapping[str, Head],
    settings: Mapping[str, Any],
    report: Mapping[str, Any],
    name: str | None = None,
) -> TunedEncoder:
    """A tuned encoder from the encoder that it was tuned from and what differs.

    Args:
        encoder: The base; it is left as it is.
        plan: Which numbers were trained.
        tensors: Them, by name.
        heads: Heads by task.
        settings: How it was tuned.
        report: What it cost.
        name: What it is called; None takes the base's name and the method.

    Raises:
        DataError: If the tensors do not fit the base and the plan.
    """
    from safetensors.torch import save

    from recsim_llm.encoders.finetune.adapters import adapter_config, body_of

    content = save({key: tensors[key].contiguous() for key in sorted(tensors)})
    with one_thread():
        body = body_of(encoder, plan, 0)
        body.fill(tensors, name or "the tuned encoder")
        model = body.merged()
    config = None
    if plan.method != "full":
        # peft writes sets and enumerations of its own; those are the same in JSON whatever the order they came in
        found = adapter_config(encoder._model, plan).to_dict()
        found |= {"base_model_name_or_path": encoder.name, "inference_mode": True}
        config = json.dumps(found, indent=1, sort_keys=True, default=_plain).encode()
    described = json.dumps(asdict(plan), sort_keys=True)
    digest = hashlib.sha256(f"{encoder.digest}\n{described}\n".encode() + content).hexdigest()
    label = name or f"{encoder.name}+{plan.method}"
    revision = getattr(encoder._model.config, "_commit_hash", None)
    base = {"name": encoder.name, "revision": revision, "digest": encoder.digest}
    inner = TextEncoder(label, encoder.width, digest, encoder._tokenizer, model)
    return TunedEncoder(
        label, encoder.width, digest, base, asdict(plan), dict(heads), dict(settings), dict(report), inner, content,
        config,
    )  # fmt: skip


def is_tuned(folder: str | Path) -> bool:
    """Whether a folder holds a tuned encoder."""
    return (Path(folder).expanduser() / ABOUT).is_file()


def load_tuned(folder: str | Path, base: Encoder | None = None) -> TunedEncoder:
    """Loads a tuned encoder from its folder.

    Args:
        folder: The folder.
        base: The encoder that it was tuned from; None loads it by the name in the folder, if that is the model of a
            package or an id that was loaded on this machine before: nothing else that a file names is opened or
            fetched.

    Raises:
        DataError: If the folder holds pickles, or is damaged, or was changed.
        ConfigError: If there is none, or it was tuned from another encoder.
    """
    source = Path(folder).expanduser()
    refuse_pickles(source)
    about = _about(source)
    plan = _plan(about["plan"], source)
    encoder = _base(about, source) if base is None else base
    if encoder.digest != about["base_digest"]:
        raise ConfigError(
            f"{source} was tuned from {about['base']!r} with the digest {str(about['base_digest'])[:12]}, this encoder "
            f"is {encoder.name!r} with {encoder.digest[:12]}: encodings would mean nothing; load it with that base"
        )
    if not isinstance(encoder, TextEncoder):
        raise ConfigError(f"{source}: {encoder.name!r} is no transformer; pass the encoder that it was tuned from")
    tensors = _tensors(source / _weights_name(asdict(plan)))
    heads = {str(task): _head(value, encoder.width, source) for task, value in about["heads"].items()}
    found = assembled(encoder, plan, tensors, heads, about["settings"], about["report"], str(folder))
    if found.digest != about["digest"]:
        raise DataError(f"{source}: the weights are not those that {ABOUT} describes; tune the encoder again")
    return found


def refuse_pickles(folder: Path) -> None:
    """Raises DataError if there is a file in a folder, at any depth, of a kind that can run code when it is read."""
    bad = sorted(path.name for path in folder.rglob("*") if path.suffix.lower() in PICKLES)
    if bad:
        raise DataError(
            f"{folder} holds {bad[0]!r}, a kind of file that can run code when it is read; weights must be safetensors"
        )


def _about(source: Path) -> dict[str, Any]:
    path = source / ABOUT
    if not path.is_file():
        raise ConfigError(f"{source} holds no {ABOUT}; name a folder that was written by TunedEncoder.save()")
    if path.stat().st_size > MOST_JSON_BYTES:
        raise DataError(f"{path} is larger than {MOST_JSON_BYTES:,} bytes")
    try:
        about = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    if not isinstance(about, dict) or set(about) != KEYS or about["format"] != FORMAT:
        raise DataError(f"{path} is not of format {FORMAT}, with the keys {sorted(KEYS)}")
    for name, kind in {"base": str, "base_digest": str, "digest": str, "plan": dict, "heads": dict,
                       "settings": dict, "report": dict}.items():  # fmt: skip
        if not isinstance(about[name], kind):
            raise DataError(f"{path}: {name} must be {kind.__name__}, got {about[name]!r}")
    if not about["heads"]:
        raise DataError(f"{path}: heads must name a task")
    return about


def _plan(given: Mapping[str, Any], source: Path) -> Any:
    from recsim_llm.encoders.finetune.adapters import Plan

    wanted = {"method": str, "rank": int, "layers": int, "steps": int}
    if set(given) != set(wanted) or any(type(given[name]) is not kind for name, kind in wanted.items()):
        raise DataError(f"{source}: plan must hold {sorted(wanted)}, got {dict(given)}")
    fits = given["method"] in ("lora", "adalora", "full") and 1 <= given["rank"] <= 256
    if not fits or not 0 <= given["layers"] <= 1_000 or not 1 <= given["steps"] <= 10**7:
        raise DataError(f"{source}: plan {dict(given)} is not one that tune() makes")
    return Plan(**given)


def _base(about: Mapping[str, Any], source: Path) -> Encoder:
    name, revision = about["base"], about["revision"]
    if not may_be_named(name) or not (revision is None or isinstance(revision, str)):
        raise ConfigError(
            f"{source} was tuned from {name!r}, which is neither the model of a package nor an id that was loaded on "
            "this machine before; pass load_tuned(folder, base=load_text_encoder(...))"
        )
    return load_text_encoder(name, revision)


def _head(value: Any, width: int, source: Path) -> Head:
    numbers = [value.get("scale"), value.get("bias"), *(value.get("mix") or [])] if isinstance(value, dict) else [None]
    if any(type(number) is not float or not math.isfinite(number) for number in numbers):
        raise DataError(f"{source}: a head must hold finite numbers scale, bias and mix, got {str(value)[:80]}")
    mix = value.get("mix")
    if set(value) != {"scale", "bias", "mix"} or (mix is not None and len(mix) != width):
        raise DataError(f"{source}: a head must hold scale, bias and mix, the last {width} numbers or null")
    return Head(value["scale"], value["bias"], None if mix is None else tuple(mix))


def _tensors(path: Path) -> dict[str, Any]:
    require("torch", "llm")
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        found: dict[str, Any] = load(path.read_bytes())
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read as safetensors: {error}") from error
    return found


def _weights_name(plan: Mapping[str, Any]) -> str:
    return WHOLE if plan["method"] == "full" else ADAPTER


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, (set, frozenset)) else str(getattr(value, "value", value))
