"""From pictures to the image block: covers encoded by the real network, and what people say of looks in the same space.

What a phrase such as "stripes" means to the network is measured, not decreed: one cover of every look is drawn with
another seed than the shop's, and the direction of a value is the mean encoding of the covers that have it, less the
mean of all. A look that the network hardly sees has a short direction, and counts for little in taste.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from recsim_llm.encoders import ImageEncoder, Projection, encode_images
from recsim_llm.synthesis.covers import draw, draw_covers, pictograms, png_of
from recsim_llm.synthesis.items import Item
from recsim_llm.synthesis.personas import Persona
from recsim_llm.synthesis.visual_attributes import ATTRIBUTES, COLOURS, PATTERNS, SILHOUETTES, STYLES, Look, draw_looks
from recsim_llm.worlds.catalog import Floats

__all__ = ["Appearance", "appearance_of", "directions", "looks_found", "looks_of", "visual_profiles"]

Directions = Mapping[tuple[str, str], Floats]
_OTHERS = 14  # stream of random numbers of the covers that directions are measured on; the shop's is 12


@dataclass(frozen=True, eq=False)
class Appearance:
    """How a shop looks.

    Attributes:
        covers: PNG files by name, in the order of the items.
        looks: What each cover shows.
        encodings: [I, E] of the covers.
        directions: For each attribute and value its direction in the space of the encoder [E].
    """

    covers: dict[str, bytes]
    looks: list[Look]
    encodings: Floats
    directions: Directions


def looks_of(count: int, seed: int) -> list[Look]:
    """The looks of the products of a built-in world."""
    return draw_looks(count, np.random.Generator(np.random.PCG64([seed, 9])))


def appearance_of(items: Sequence[Item], encoder: ImageEncoder, seed: int, progress: bool = False) -> Appearance:
    """Draws and encodes the covers of products.

    Args:
        items: The products.
        encoder: An image encoder.
        seed: Seed of looks and covers.
        progress: Whether to show a progress bar.
    """
    looks = looks_of(len(items), seed)
    covers = draw_covers([(item.item_id, item.theme) for item in items], looks, seed)
    encodings = encode_images(encoder, list(covers.values()), list(covers), progress)
    return Appearance(covers, looks, encodings, directions(encoder, seed, progress))


def directions(encoder: ImageEncoder, seed: int, progress: bool = False) -> Directions:
    """The direction of each value of each attribute, from one cover of each of the 360 looks, categories mixed."""
    looks = [Look(*values) for values in product(COLOURS, SILHOUETTES, PATTERNS, STYLES)]
    names = sorted(pictograms())
    rng = np.random.Generator(np.random.PCG64([seed, _OTHERS]))
    category = rng.permutation(np.arange(len(looks)) % len(names))
    files = [
        png_of(draw(names[int(which)], look, np.random.Generator(np.random.PCG64([seed, _OTHERS, number]))))
        for number, (which, look) in enumerate(zip(category, looks, strict=True))
    ]
    seen = encode_images(encoder, files, [f"cover {number}" for number in range(len(files))], progress)
    middle = seen.mean(axis=0, dtype=np.float64)
    return {
        (attribute, value): (
            seen[[getattr(look, attribute) == value for look in looks]].mean(axis=0, dtype=np.float64) - middle
        ).astype(np.float32)
        for attribute, values in ATTRIBUTES.items()
        for value in values
    }


def visual_profiles(personas: Sequence[Persona], directions: Directions, projection: Projection) -> Floats:
    """What people say of looks, valence times direction summed, in the image block [U, columns]."""
    names = list(directions)
    places = projection.apply(np.stack([directions[name] for name in names]), centre=False)
    row = {name: place.astype(np.float64) for name, place in zip(names, places, strict=True)}
    out = np.zeros((len(personas), places.shape[1]))
    for user, persona in enumerate(personas):
        for said in persona.looks:
            out[user] += said.valence * row[said.theme, said.facet]
    return out.astype(np.float32)


def looks_found(block: NDArray[np.floating], looks: Sequence[Look], directions: Floats) -> dict[str, float]:
    """How well directions find items with a look: area under the ROC curve, by value.

    Args:
        block: The image block of the items [I, columns].
        looks: What each item shows.
        directions: Of each value in the order of :data:`ATTRIBUTES` [18, columns].
    """
    values = [(attribute, value) for attribute, names in ATTRIBUTES.items() for value in names]
    out = {}
    for (attribute, value), direction in zip(values, directions, strict=True):
        rank = np.argsort(np.argsort(block.astype(np.float64) @ direction.astype(np.float64))) + 1.0
        has = np.array([getattr(look, attribute) == value for look in looks])
        above = rank[has].sum() - has.sum() * (has.sum() + 1) / 2
        out[value] = round(float(above / (has.sum() * (~has).sum())), 4)
    return out
