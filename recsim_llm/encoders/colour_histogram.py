"""Image encoder without a model: colour histogram and a coarse picture.

It sees colour and layout, not things. It is for tests, for machines without torch, and as a baseline that a network
must beat.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsim_llm.encoders.image_decoding import squared
from recsim_llm.encoders.progress import advance

__all__ = ["ColourEncoder"]

_SIDE = 64
_LEVELS = 4  # of each of red, green and blue
_GRID = 8
_SCHEME = "colours-1: 64 pixels, square-rooted histogram of 4 x 4 x 4 colours beside an 8 x 8 grid of means"


@dataclass(frozen=True)
class ColourEncoder:
    """A histogram of colours and a coarse picture, each scaled to the same length.

    Attributes:
        name: Always ``"colours"``.
        width: Always 256: 64 colours, 64 squares of three channels.
    """

    name: str = "colours"
    width: int = _LEVELS**3 + 3 * _GRID**2

    @property
    def digest(self) -> str:
        """SHA-256 of the scheme's description."""
        return hashlib.sha256(_SCHEME.encode()).hexdigest()

    def encode(self, images: Sequence[bytes], progress: bool = False) -> NDArray[np.float32]:
        """Encodes each file by itself, unit vectors ``[N, 256] float32``.

        Raises:
            DataError: If a file is no picture, is damaged or is too large.
        """
        out = np.zeros((len(images), self.width), dtype=np.float32)
        with advance("counting colours", len(images), progress) as step:
            for row, data in enumerate(images):
                out[row] = _one(squared(data, _SIDE))
                step(1)
        return out


def _one(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    level = pixels.astype(np.int64) * _LEVELS // 256
    code = (level[..., 0] * _LEVELS + level[..., 1]) * _LEVELS + level[..., 2]
    counts = np.sqrt(np.bincount(code.ravel(), minlength=_LEVELS**3).astype(np.float64))
    step = _SIDE // _GRID
    grid = (
        pixels.reshape(_GRID, step, _GRID, step, 3).astype(np.float64).mean(axis=(1, 3)).ravel() + 1.0
    )  # black has a direction too
    parts = [part / max(float(np.linalg.norm(part)), 1e-12) for part in (counts, grid)]
    return np.asarray(np.concatenate(parts) / np.sqrt(2.0))
