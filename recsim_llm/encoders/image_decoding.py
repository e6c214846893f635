"""Decoding of untrusted image files: formats by name, sizes checked before pixels."""

from __future__ import annotations

import io
import struct
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.errors import DataError, require

__all__ = ["FORMATS", "LARGEST_FILE", "MOST_PIXELS", "BadPictureError", "squared"]

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
LARGEST_FILE = 32 * 2**20
"""Largest file of one picture [byte]."""
MOST_PIXELS = 2**25
"""Most pixels of one picture."""


class BadPictureError(DataError):
    """A file that cannot be used as a picture.

    Args:
        message: What is wrong.
        data: The file, so that whoever knows where it came from can say so.
    """

    def __init__(self, message: str, data: bytes) -> None:
        super().__init__(message)
        self.data = data


def squared(data: bytes, side: int) -> NDArray[np.uint8]:
    """The pixels of a picture, whole and upright on a white square.

    Args:
        data: The file.
        side: Width and height of the square [pixel].

    Returns:
        uint8 [side, side, 3]. Of a moving picture the first frame; what is transparent is white.

    Raises:
        DataError: If it is no picture, is damaged or is too large.
        MissingExtraError: If Pillow is not installed.
    """
    if len(data) > LARGEST_FILE:
        raise BadPictureError(f"the picture has {len(data):,} bytes; at most {LARGEST_FILE:,} are read", data)
    image = require("PIL.Image", "images")
    try:
        # oddities that Pillow mends are no news; sizes are checked here
        with warnings.catch_warnings(action="ignore"):
            with image.open(io.BytesIO(data), formats=FORMATS) as opened:
                if opened.width * opened.height > MOST_PIXELS:
                    raise BadPictureError(_too_many(opened), data)
                return _on_white(opened, side)
    except image.UnidentifiedImageError as error:
        raise BadPictureError(f"the file is no picture in one of the forms {', '.join(FORMATS)}", data) from error
    except image.DecompressionBombError as error:
        raise BadPictureError(
            f"the picture has far more than the {MOST_PIXELS:,} pixels that are read", data
        ) from error
    except BadPictureError:
        raise
    except (OSError, ValueError, SyntaxError, TypeError, IndexError, EOFError, struct.error) as error:
        raise BadPictureError(f"the picture is damaged: {error}", data) from error


def _too_many(opened: Any) -> str:
    return f"the picture has {opened.width} x {opened.height} pixels; at most {MOST_PIXELS:,} are read"


def _on_white(opened: Any, side: int) -> NDArray[np.uint8]:
    image, turn = require("PIL.Image", "images"), require("PIL.ImageOps", "images")
    upright = turn.exif_transpose(opened)
    if upright.mode.startswith("I"):  # 16 bits a pixel: the high ones
        upright = image.fromarray((np.asarray(upright).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    share = side / max(upright.size)
    size = tuple(max(round(length * share), 1) for length in upright.size)
    clear = upright.convert("RGBA").resize(size, image.Resampling.BICUBIC)
    canvas = image.new("RGBA", (side, side), (255, 255, 255, 255))
    canvas.alpha_composite(clear, ((side - size[0]) // 2, (side - size[1]) // 2))
    return np.array(canvas.convert("RGB"), dtype=np.uint8)
