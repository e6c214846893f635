"""The space of a world that is built from files: encodings of texts, and of pictures where there are any."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recsim_llm.datasets import Items
from recsim_llm.datasets.item_images import read_picture
from recsim_llm.encoders import Encoder, Fusion, ImageEncoder, encode_cached, encode_images, fit_fusion
from recsim_llm.encoders.progress import advance
from recsim_llm.errors import ConfigError
from recsim_llm.worlds.catalog import Floats

__all__ = ["Space", "described", "space_of"]

PICTURES = 256
"""Pictures in memory at a time."""


@dataclass(frozen=True, eq=False)
class Space:
    """The space of a world and where the items lie in it.

    Attributes:
        fusion: From encodings to the space.
        embedding: Of the items [I, D].
    """

    fusion: Fusion
    embedding: Floats


def space_of(
    things: Items,
    items: str | Path,
    model: Encoder,
    seer: ImageEncoder | None,
    width: int,
    progress: bool,
    tell: Callable[[str], None],
) -> Space:
    """Encodes items: texts, and pictures where an encoder of them is given.

    Args:
        things: The items as they were read.
        items: Their file; pictures lie in its folder.
        model: Encoder of texts.
        seer: Encoder of pictures, or None.
        width: D, width of the encodings in the world.
        progress: Whether to show progress bars.
        tell: Is told what is being done.

    Raises:
        ConfigError: If there are too few pictures or columns.
        DataError: If a picture cannot be used; with the id of its item.
    """
    tell(f"encoding {len(things)} items")
    texts = encode_cached(model, things.text, progress)
    if seer is None:
        fusion = fit_fusion(texts, width=width)
        return Space(fusion, fusion.apply(texts))
    seen = np.array([image is not None for image in things.image])
    if seen.sum() < 2 or width < 2:
        raise ConfigError(
            f"{int(seen.sum())} of {len(things)} items have a picture and width={width}; a world with pictures needs "
            f"two of both: name files in a column image, or a folder of them (images)"
        )
    tell(f"encoding {int(seen.sum())} pictures")
    shown = _pictures(things, items, seer, progress)
    fusion = fit_fusion(texts, shown, seen, width=width, image_width=max(width // 4, 1))
    return Space(fusion, fusion.apply(texts, shown, seen))


def _pictures(things: Items, items: str | Path, seer: ImageEncoder, progress: bool) -> Floats:
    """Encodings of pictures [I, E], zeros without one; only a few files are in memory at a time."""
    out = np.zeros((len(things), seer.width), np.float32)
    rows = [row for row, image in enumerate(things.image) if image is not None]
    with advance("encoding pictures", len(rows), progress) as step:
        for start in range(0, len(rows), PICTURES):
            part = rows[start : start + PICTURES]
            names = [things.item_id[row] for row in part]
            files = [read_picture(items, str(things.image[row]), things.item_id[row]) for row in part]
            out[part] = encode_images(seer, files, names)
            step(len(part))
    return out


def described(model: Encoder, seer: ImageEncoder | None) -> dict[str, Any]:
    """Which encoders made the encodings, for ``world.json``."""
    parts = [
        {"id": part.name, "digest": part.digest, "width": part.width} for part in (model, seer) if part is not None
    ]
    return {**parts[0], "image": parts[1]} if len(parts) > 1 else parts[0]
