"""From encodings to the space of a world: centre, principal components, one scale.

Not whitened: giving each direction the same variance cost accuracy wherever it was tried, because the leading
components of a catalogue are what its themes differ in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.errors import ConfigError


@dataclass(frozen=True)
class Projection:
    """An affine map from encodings to a world's space, ``x = scale * components @ (enc - mean)``.

    Attributes:
        mean: Mean encoding of the catalogue, ``[E] float32``.
        components: Orthonormal principal directions, strongest first, ``[D, E] float32``; zero rows where the
            catalogue spans fewer than D directions.
        scale: Makes the largest coordinate of the catalogue one.
    """

    mean: NDArray[np.float32]
    components: NDArray[np.float32]
    scale: float

    def apply(self, encodings: NDArray[Any], centre: bool = True) -> NDArray[np.float32]:
        """Projects encodings.

        Args:
            encodings: ``[N, E]``.
            centre: Whether the catalogue's mean is taken away first (yes for items and for persona statements).

        Returns:
            ``[N, D] float32``. Texts unlike the catalogue may go beyond one; whoever needs a bound scales or clips.
        """
        if encodings.ndim != 2 or encodings.shape[1] != self.mean.shape[0]:
            raise ConfigError(
                f"encodings have shape {encodings.shape}, but this projection was fitted to width "
                f"{self.mean.shape[0]}: encode with the world's own encoder"
            )
        shifted = encodings.astype(np.float64)
        if centre:
            shifted = shifted - self.mean.astype(np.float64)
        return np.asarray(shifted @ self.components.T.astype(np.float64) * self.scale, dtype=np.float32)


def fit_projection(encodings: NDArray[Any], width: int = 64) -> Projection:
    """Fits the projection to a catalogue.

    Args:
        encodings: ``[N, E]``, one row for each item.
        width: D, the number of principal components.

    Raises:
        ConfigError: If there is no item, or a value is not finite.
    """
    if encodings.ndim != 2 or encodings.shape[0] == 0:
        raise ConfigError(f"encodings have shape {encodings.shape}: a projection needs [N, E] with at least one row")
    data = encodings.astype(np.float64)
    if not np.isfinite(data).all():
        raise ConfigError("encodings hold NaN or infinity: encode the texts again")
    mean = data.mean(axis=0)
    centred = data - mean
    spread, vectors = np.linalg.eigh(centred.T @ centred / len(data))  # ascending
    order = np.argsort(spread)[::-1][:width]
    components = np.zeros((width, data.shape[1]))
    kept = order[spread[order] > max(float(spread.max()), 0.0) * 1e-10]
    components[: len(kept)] = vectors[:, kept].T
    components = _fix_signs(components)
    largest = float(np.abs(centred @ components.T).max())
    scale = 1.0 / largest if largest > 0 else 1.0
    return Projection(mean.astype(np.float32), components.astype(np.float32), scale)


def _fix_signs(components: NDArray[np.float64]) -> NDArray[np.float64]:
    """An eigenvector's sign is arbitrary: make the entry of largest size positive."""
    peak = np.argmax(np.abs(components), axis=1)
    sign = np.sign(components[np.arange(len(components)), peak])
    return components * np.where(sign == 0, 1.0, sign)[:, None]
