"""Draws product covers whose colour, silhouette, pattern and style are in no text.

    background < shadow < plaque (silhouette, colour, pattern, style) < pictogram of the category

Everything is drawn from signed distances [pixel] in NumPy, so that the same seed gives the same picture everywhere. The
four attributes are drawn independently of the text and of each other (:mod:`recsim_llm.synthesis.visual_attributes`).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.errors import ConfigError, DataError
from recsim_llm.synthesis.visual_attributes import VisualAttributes

__all__ = ["SIDE", "draw_cover", "draw_covers", "encode_png", "pictograms"]

Plane = NDArray[np.float64]  # [H, W], or the same for each pixel
Pixels = NDArray[np.uint8]  # [H, W, 3]

SIDE = 96
"""Width and height of a cover [pixel]."""
_LEVELS = 8  # steps of transparency; few, so that most covers fit a palette of 256 colours
_PAPER, _INK, _WHITE = (np.array(c, float) for c in ((243, 240, 233), (38, 36, 44), (255, 255, 255)))
_PALETTE = {
    "red": (205, 70, 58), "yellow": (228, 166, 40), "green": (78, 148, 84),
    "blue": (48, 112, 186), "purple": (142, 84, 166), "grey": (116, 120, 128),
}  # fmt: skip
_JITTER = 9.0  # [grey level]
_TILT = 0.1  # [rad]
_EDGE = 3.0  # width of an outline [pixel]
_SHADOW = 7.0  # how far a shadow fades [pixel]
_SIZES = {"disc": 3, "ring": 4, "box": 5, "bar": 5, "oval": 5}


def draw_cover(category: str, look: VisualAttributes, rng: np.random.Generator) -> Pixels:
    """Draws the cover of one product.

    Args:
        category: Decides the pictogram.
        look: Decides everything else.
        rng: Slight differences of colour and tilt between covers of one look.

    Returns:
        uint8 [96, 96, 3].
    """
    y, x = np.mgrid[0:SIDE, 0:SIDE] - (SIDE - 1) / 2
    colour = np.clip(np.array(_PALETTE[look.colour]) + rng.uniform(-_JITTER, _JITTER, 3), 0, 255)
    outside = _silhouette(look.silhouette, x, y)
    tilt = rng.uniform(-_TILT, _TILT)
    turned = x * np.cos(tilt) + y * np.sin(tilt), y * np.cos(tilt) - x * np.sin(tilt)
    sign = _pictogram(category, *turned)
    canvas = np.broadcast_to(_PAPER, (SIDE, SIDE, 3))
    fill: NDArray[Any] = np.broadcast_to(colour, canvas.shape)
    if look.style == "shaded":
        canvas = _over(canvas, _INK, 0.4 * _stepped(0.5 - _silhouette(look.silhouette, x - 2, y - 4) / _SHADOW))
        light = np.round(np.clip(0.5 - y / 80, 0, 1) * 6) / 6
        fill = colour * (0.72 + 0.4 * light[..., None])
    fill = fill + (_WHITE - fill) * 0.42 * _pattern(look.pattern, x, y)[..., None]
    canvas = _over(canvas, fill, _covered(outside))
    if look.style == "outlined":
        canvas = _over(canvas, _INK, _covered(np.abs(outside + _EDGE / 2) - _EDGE / 2))
        canvas = _over(canvas, _INK, _covered(sign - _EDGE / 1.5))
    elif look.style == "shaded":
        shade = _pictogram(category, turned[0] - 1.5, turned[1] - 2.5)
        canvas = _over(canvas, _INK, 0.55 * _stepped(0.5 - shade / 3))
    else:
        canvas = _over(canvas, colour * 0.55, _covered(sign - 1.5))
    canvas = _over(canvas, _WHITE, _covered(sign))
    return np.asarray(np.clip(np.round(canvas / 3) * 3, 0, 255), np.uint8)


def draw_covers(items: Sequence[tuple[str, str]], looks: Sequence[VisualAttributes], seed: int) -> dict[str, bytes]:
    """Draws the covers of products as PNG files by name.

    Args:
        items: Item id and category of each product.
        looks: What each cover shows.
        seed: Seed of slight differences.
    """
    return {
        f"{item_id}.png": encode_png(
            draw_cover(category, look, np.random.Generator(np.random.PCG64([seed, 12, number])))
        )
        for number, ((item_id, category), look) in enumerate(zip(items, looks, strict=True))
    }


def encode_png(pixels: Pixels) -> bytes:
    """Encodes an image as PNG, with a palette where it has at most 256 colours.

    Args:
        pixels: uint8 [H, W, 3].
    """
    height, width, _ = pixels.shape
    colours, index = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True)
    if len(colours) <= 256:
        kind, rows = 3, index.reshape(height, width).astype(np.uint8)
        palette = _chunk(b"PLTE", colours.astype(np.uint8).tobytes())
    else:
        kind, rows, palette = 2, pixels.reshape(height, width * 3), b""
    lines = np.hstack([np.zeros((height, 1), np.uint8), rows]).tobytes()  # filter 0 before each line
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + palette + _chunk(b"IDAT", zlib.compress(lines, 9)) + _chunk(b"IEND", b"")


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _over(below: NDArray[Any], colour: NDArray[Any], share: Plane) -> NDArray[Any]:
    return np.asarray(below + (colour - below) * share[..., None])


def _covered(distance: Plane) -> Plane:
    """Which share of a pixel lies inside, from the distance of its middle to the edge."""
    return _stepped(0.5 - distance)


def _stepped(share: Plane) -> Plane:
    return np.asarray(np.round(np.clip(share, 0, 1) * _LEVELS) / _LEVELS)


def _silhouette(name: str, x: Plane, y: Plane) -> Plane:
    """Distance to the plaque's edge, negative inside."""
    if name == "disc":
        return np.hypot(x, y) - 41
    if name == "square":
        return _box(x, y, 36, 36, 9)
    if name == "diamond":
        return np.asarray((np.abs(x) + np.abs(y) - 41) / np.sqrt(2) - 4)
    if name == "arch":
        return np.where(y < -8, np.hypot(x, y + 8) - 33, np.maximum(np.abs(x) - 33, y - 40))
    return _box(x, y, 45, 28, 28)


def _pattern(name: str, x: Plane, y: Plane) -> Plane:
    """How much lighter a pixel is, from 0 to 1."""
    if name == "stripes":
        return _covered(np.abs((x + y) / np.sqrt(2) % 14 - 7) - 3)
    if name == "dots":
        row = np.floor(y / 11)
        return _covered(np.hypot((x + 5.5 * (row % 2)) % 11 - 5.5, y % 11 - 5.5) - 2.6)
    if name == "checks":
        return np.asarray(((np.floor(x / 10) + np.floor(y / 10)) % 2).astype(np.float64))
    return np.zeros_like(x)


def _box(x: Plane, y: Plane, width: float, height: float, corner: float) -> Plane:
    right, down = np.abs(x) - width + corner, np.abs(y) - height + corner
    return np.asarray(
        np.hypot(np.maximum(right, 0), np.maximum(down, 0)) + np.minimum(np.maximum(right, down), 0) - corner
    )


def _bar(x: Plane, y: Plane, ends: tuple[float, ...], width: float) -> Plane:
    x0, y0, x1, y1 = ends
    along_x, along_y = x1 - x0, y1 - y0
    share = np.clip(((x - x0) * along_x + (y - y0) * along_y) / (along_x**2 + along_y**2), 0, 1)
    return np.asarray(np.hypot(x - x0 - share * along_x, y - y0 - share * along_y) - width / 2)


def _oval(x: Plane, y: Plane, a: float, b: float, degrees: float) -> Plane:
    """Nearly the distance: exact on the edge, which is all that is drawn."""
    turn = np.deg2rad(degrees)
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    unit = np.hypot(u / a, v / b)
    slope = np.hypot(u / a**2, v / b**2)
    return np.asarray(unit * (unit - 1) / np.maximum(slope, 1e-9))


def _poly(x: Plane, y: Plane, corners: tuple[float, ...]) -> Plane:
    points = list(zip(corners[::2], corners[1::2], strict=True))
    distance = np.full(x.shape, np.inf)
    inside = np.zeros(x.shape, bool)
    for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
        distance = np.minimum(distance, _bar(x, y, (x0, y0, x1, y1), 0.0))
        if y0 != y1:
            inside ^= ((y0 > y) != (y1 > y)) & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    return np.where(inside, -distance, distance)


def _primitive(name: str, n: tuple[float, ...], x: Plane, y: Plane) -> Plane:
    if name == "disc":
        return np.asarray(np.hypot(x - n[0], y - n[1]) - n[2])
    if name == "ring":
        return np.asarray(np.abs(np.hypot(x - n[0], y - n[1]) - n[2]) - n[3] / 2)
    if name == "box":
        return _box(x - n[0], y - n[1], n[2], n[3], n[4])
    if name == "bar":
        return _bar(x, y, n[:4], n[4])
    if name == "oval":
        return _oval(x - n[0], y - n[1], n[2], n[3], n[4])
    return _poly(x, y, n)


def _pictogram(category: str, x: Plane, y: Plane) -> Plane:
    known = pictograms()
    if category not in known:
        raise ConfigError(f"covers.txt has no pictogram of {category!r}; add a line that begins with {category!r}:")
    distance = np.full(x.shape, np.inf)
    for adds, name, numbers in known[category]:
        part = _primitive(name, numbers, x, y)
        distance = np.minimum(distance, part) if adds else np.maximum(distance, -part)
    return distance


@lru_cache(maxsize=1)
def pictograms() -> dict[str, list[tuple[bool, str, tuple[float, ...]]]]:
    """Reads the drawing steps of the pictograms in ``covers.txt``: add or cut out, which shape, its numbers.

    Raises:
        DataError: If a line cannot be read.
    """
    out: dict[str, list[tuple[bool, str, tuple[float, ...]]]] = {}
    for line in resources.files(__package__).joinpath("covers.txt").read_text(encoding="utf-8").splitlines():
        category, _, steps = line.partition(":")
        if line.startswith("#") or not steps:
            continue
        out[category] = []
        for step in steps.split(";"):
            sign, name, *numbers = step.split()
            if sign not in "+-" or (len(numbers) != _SIZES.get(name, len(numbers))) or (name not in {*_SIZES, "poly"}):
                raise DataError(f"covers.txt, {category}: {step.strip()!r} is no step of a pictogram")
            out[category].append((sign == "+", name, tuple(float(number) for number in numbers)))
    return out
