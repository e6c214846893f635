"""Pictures of people's own items: found by column or by name in a folder, and never read from elsewhere."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePath

from recsim_llm.datasets.text_table import is_inside
from recsim_llm.encoders.image_decoding import LARGEST_FILE
from recsim_llm.errors import ConfigError, DataError

__all__ = ["pictures_in", "read_picture"]

_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")


def pictures_in(folder: str | Path, items: str | Path, item_id: Sequence[str]) -> list[str | None]:
    """Pictures of items in a folder, ``<item_id>.png`` and so on, as paths relative to the file of items.

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


def read_picture(items: str | Path, image: str, name: str) -> bytes:
    """Reads one picture.

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
