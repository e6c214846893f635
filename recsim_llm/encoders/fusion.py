"""Cross-modal fusion: what a text says and what a picture shows become blocks of one encoding.

Each block is projected on its own principal components, because the two encoders' spaces have nothing in common, and
is scaled so that it has the wanted share of the variance of all items. A block that is not known is zeros, which is the
mean of the catalogue: an item with a text alone looks like the average picture.

    x = [ s_text C_text (text - mean_text), s_image C_image (image - mean_image) ] / largest
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.encoders.projection import Projection, fit_projection
from recsim_llm.errors import ConfigError

__all__ = ["IMAGE_SHARE", "IMAGE_WIDTH", "Fusion", "fit_fusion"]

Array = NDArray[np.float32]

IMAGE_SHARE = 0.25
"""The usual share of the image block of the variance of encodings: as large as its part of the columns."""
IMAGE_WIDTH = 16
"""The usual width of the image block, of 64."""


@dataclass(frozen=True)
class Fusion:
    """The map from encodings of texts and of pictures to one space.

    Attributes:
        text: The projection of texts, D wide: its columns of the image block are zeros, so that whoever knows only
            texts can use it alone.
        image: The projection of pictures, as wide as its block; None where there are no pictures.
        blocks: Columns by name, as in :class:`recsim_llm.worlds.catalog.Catalog`.
    """

    text: Projection
    image: Projection | None
    blocks: Mapping[str, tuple[int, int]]

    def apply(
        self, text: NDArray[Any], image: NDArray[Any] | None = None, seen: NDArray[np.bool_] | None = None
    ) -> Array:
        """Projects and puts side by side.

        Args:
            text: Encodings of texts [N, E].
            image: Encodings of pictures [N, F]; None where there are none.
            seen: Which rows have a picture [N]; None means all.

        Returns:
            [N, D] float32; zeros in the image block of rows without a picture.
        """
        out = self.text.apply(text)
        if image is not None and self.image is not None:
            first, last = self.blocks["image"]
            there = np.ones(len(out), np.bool_) if seen is None else seen
            out[there, first:last] = self.image.apply(image[there])
        return out

    def arrays(self) -> dict[str, Array]:
        """What a world stores of it: see ``World.projection``."""
        parts = {"": self.text} if self.image is None else {"": self.text, "image_": self.image}
        return {
            f"{prefix}{name}": values
            for prefix, part in parts.items()
            for name, values in (
                ("mean", part.mean),
                ("components", part.components),
                ("scale", np.array([part.scale], np.float32)),
            )
        }

    @classmethod
    def of(cls, arrays: Mapping[str, Any], blocks: Mapping[str, tuple[int, int]]) -> Fusion:
        """The fusion that a world was made with, from ``world.projection`` and ``world.catalog.blocks``."""
        text, image = (
            Projection(arrays[f"{prefix}mean"], arrays[f"{prefix}components"], float(arrays[f"{prefix}scale"][0]))
            if f"{prefix}mean" in arrays
            else None
            for prefix in ("", "image_")
        )
        if text is None:
            raise ConfigError("the world keeps no projection of texts, so new items cannot be encoded for it")
        return cls(text, image, dict(blocks))


def fit_fusion(
    text: NDArray[Any],
    image: NDArray[Any] | None = None,
    seen: NDArray[np.bool_] | None = None,
    *,
    width: int = 64,
    image_width: int = IMAGE_WIDTH,
    image_share: float = IMAGE_SHARE,
) -> Fusion:
    """Fits the fusion to a catalogue.

    Args:
        text: Encodings of the items' texts [N, E].
        image: Encodings of their pictures [N, F]; None makes a space of text alone.
        seen: Which items have a picture [N]; None means all.
        width: D, of all blocks together.
        image_width: Columns of the image block.
        image_share: Share of the image block of the variance of the items that have a picture, in (0, 1).

    Raises:
        ConfigError: If a width or the share does not fit, or fewer than two items have a picture.
    """
    if image is None:
        return Fusion(fit_projection(text, width), None, {"text": (0, width)})
    if not 0 < image_width < width:
        raise ConfigError(f"image_width={image_width}: of {width} columns at least one must stay for the text")
    if not 0 < image_share < 1:
        raise ConfigError(f"image_share={image_share}: a share of variance lies between 0 and 1")
    there = np.ones(len(text), np.bool_) if seen is None else seen
    if there.sum() < 2:
        raise ConfigError(f"{int(there.sum())} of {len(text)} items have a picture; an image block needs two")
    split = width - image_width
    said, shown = fit_projection(text, split), fit_projection(image[there], image_width)
    words, looks = said.apply(text), shown.apply(image[there])
    ratio = np.sqrt(image_share / (1 - image_share) * _variance(words) / max(_variance(looks), 1e-12))
    largest = max(float(np.abs(words).max()), float(np.abs(looks).max()) * ratio) or 1.0
    padded = np.zeros((width, text.shape[1]), np.float32)
    padded[:split] = said.components
    return Fusion(
        Projection(said.mean, padded, said.scale / largest),
        Projection(shown.mean, shown.components, float(shown.scale * ratio / largest)),
        {"text": (0, split), "image": (split, width)},
    )


def _variance(values: Array) -> float:
    return float(values.astype(np.float64).var(axis=0).sum())
