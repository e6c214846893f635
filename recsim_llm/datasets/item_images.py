"""Images of people's own items: finds, reads and encodes them, within the folder of the items' file alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

from recsim_llm.datasets.tables import is_inside
from recsim_llm.encoders.image_decoding import LARGEST_FILE
from recsim_llm.encoders.images import ImageEncoder, encode_images
from recsim_llm.encoders.progress import advance
from recsim_llm.errors import ConfigError, DataError

__all__ = ["encode_item_images", "find_item_images", "paths_from", "read_item_image"]

BATCH = 256
"""Images in memory at a time."""
_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")


def find_item_images(folder: str | Path, items: str | Path, item_id: Sequence[str]) -> list[str | None]:
    """Finds the images of items in a folder, ``<item_id>.png`` and so on, as paths relative to the file of items.

    Args:
        folder: Folder of pictures, the items' own or one in it.
        items: File of items.
        item_id: Names of the items. No path is made from them: they are looked up among the files that are there.

    Returns:
        For each item its picture, or None.

    Raises:
        ConfigError: If the folder is none, lies elsewhere, or has no picture of any item.
    """
    home = Path(items).resolve().parent
    place = Path(folder)
    if not place.is_dir() or not is_inside(place, home):
        raise ConfigError(f"{place} is no folder in {home}; put the pictures into a folder beside the file of items")
    found: dict[str, str] = {}
    for path in sorted(place.resolve().iterdir()):
        if path.suffix.lower() in _ENDINGS and path.is_file() and is_inside(path, home):
            found.setdefault(path.stem, str(path.relative_to(home)))
    out = [found.get(name) for name in item_id]
    if not any(out):
        raise ConfigError(f"{place} has no picture of any item; name them by item_id: {item_id[0]}.png")
    return out


def read_item_image(items: str | Path, image: str, name: str) -> bytes:
    """Reads the image file of one item.

    Args:
        items: File of items; the path is relative to its folder and must stay there.
        image: The path as written.
        name: Id of the item, for messages.

    Raises:
        DataError: If the path leads elsewhere (also by ``..``, a root or a link), or the file cannot be read.
    """
    home = Path(items).resolve().parent
    parts = PurePath(image)
    if parts.is_absolute() or ".." in parts.parts or not is_inside(home / image, home):
        raise DataError(
            f"item {name}: the picture {image!r} leads outside the folder of the items' file; write a path inside it"
        )
    try:
        size = os.stat(home / image).st_size
        if size > LARGEST_FILE:
            raise DataError(f"item {name}: the picture has {size:,} bytes; at most {LARGEST_FILE:,} are read")
        return (home / image).read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"item {name}: the picture {image!r} cannot be read: {error}") from error


def encode_item_images(
    encoder: ImageEncoder,
    items: str | Path,
    images: Sequence[str | None],
    item_id: Sequence[str],
    progress: bool = False,
) -> NDArray[np.float32]:
    """Encodes the images of items, [I, E]; zeros for items without one. Only a few files are in memory at a time.

    Args:
        encoder: The image encoder.
        items: File of items; images lie in its folder.
        images: Path of each item's image as written, or None.
        item_id: Names of the items, for messages.
        progress: Whether to show a progress bar.

    Raises:
        DataError: If an image cannot be used; with the id of its item.
    """
    out = np.zeros((len(images), encoder.width), np.float32)
    rows = [row for row, image in enumerate(images) if image is not None]
    with advance("encoding images", len(rows), progress) as step:
        for start in range(0, len(rows), BATCH):
            part = rows[start : start + BATCH]
            files = [read_item_image(items, str(images[row]), item_id[row]) for row in part]
            out[part] = encode_images(encoder, files, [item_id[row] for row in part])
            step(len(part))
    return out


def paths_from(folder: Path | None, items: str | Path, images: Sequence[str | None]) -> list[str | None]:
    """Paths of images relative to another folder instead of that of the file of items; as they are for None."""
    if folder is None:
        return list(images)
    source = Path(items).resolve().parent
    return [None if image is None else os.path.relpath(source / image, folder.resolve()) for image in images]
