"""Encodes product covers and what personas say about visual attributes, for the image columns of a world.

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

from recsim_llm.encoders import ImageEncoder, encode_images
from recsim_llm.metrics.rank_correlation import auc
from recsim_llm.synthesis.covers import draw_cover, draw_covers, encode_png, pictograms
from recsim_llm.synthesis.items import Item
from recsim_llm.synthesis.personas import Persona
from recsim_llm.synthesis.visual_attributes import (
    ATTRIBUTES,
    COLOURS,
    PATTERNS,
    SILHOUETTES,
    STYLES,
    VisualAttributes,
    draw_visual_attributes,
)
from recsim_llm.worlds.build import ImageInputs
from recsim_llm.worlds.catalog import Floats
from recsim_llm.worlds.item_images import ItemImages

__all__ = ["EncodedCovers", "attribute_auc", "attribute_directions", "encode_covers", "product_attributes"]

Directions = Mapping[tuple[str, str], Floats]
_OTHERS = 14  # stream of random numbers of the covers that directions are measured on; the shop's is 12


@dataclass(frozen=True, eq=False)
class EncodedCovers:
    """The covers of a shop's products and their encodings.

    Attributes:
        encoder: The image encoder.
        files: PNG files by name, in the order of the items.
        attributes: What each cover shows.
        encodings: [I, E] of the covers.
        directions: For each attribute and value its direction in the space of the encoder [E].
    """

    encoder: ImageEncoder
    files: dict[str, bytes]
    attributes: list[VisualAttributes]
    encodings: Floats
    directions: Directions

    def inputs(self, personas: Sequence[Persona]) -> ImageInputs:
        """The covers and what personas say about visual attributes, as inputs of the world pipeline."""
        row = {name: number for number, name in enumerate(self.directions)}
        return ImageInputs(
            self.encoder,
            self.encodings,
            np.ones(len(self.encodings), np.bool_),
            np.stack(list(self.directions.values())),
            [
                [(row[said.theme, said.facet], said.valence) for said in persona.visual_statements]
                for persona in personas
            ],
            ItemImages(self.files),
        )


def product_attributes(count: int, seed: int) -> list[VisualAttributes]:
    """The visual attributes of the products of a built-in world."""
    return draw_visual_attributes(count, np.random.Generator(np.random.PCG64([seed, 9])))


def encode_covers(items: Sequence[Item], encoder: ImageEncoder, seed: int, progress: bool = False) -> EncodedCovers:
    """Draws and encodes the covers of products.

    Args:
        items: The products.
        encoder: An image encoder.
        seed: Seed of looks and covers.
        progress: Whether to show a progress bar.
    """
    looks = product_attributes(len(items), seed)
    covers = draw_covers([(item.item_id, item.theme) for item in items], looks, seed)
    encodings = encode_images(encoder, list(covers.values()), list(covers), progress)
    return EncodedCovers(encoder, covers, looks, encodings, attribute_directions(encoder, seed, progress))


def attribute_directions(encoder: ImageEncoder, seed: int, progress: bool = False) -> Directions:
    """The direction of each attribute value in the image encoder's space, from one cover of each combination."""
    looks = [VisualAttributes(*values) for values in product(COLOURS, SILHOUETTES, PATTERNS, STYLES)]
    names = sorted(pictograms())
    rng = np.random.Generator(np.random.PCG64([seed, _OTHERS]))
    category = rng.permutation(np.arange(len(looks)) % len(names))
    files = [
        encode_png(draw_cover(names[int(which)], look, np.random.Generator(np.random.PCG64([seed, _OTHERS, number]))))
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


def attribute_auc(
    block: NDArray[np.floating], looks: Sequence[VisualAttributes], directions: Floats
) -> dict[str, float]:
    """AUC of finding items with an attribute value by its direction, for each value.

    Args:
        block: The image block of the items [I, columns].
        looks: What each item shows.
        directions: Of each value in the order of :data:`ATTRIBUTES` [18, columns].
    """
    values = [(attribute, value) for attribute, names in ATTRIBUTES.items() for value in names]
    out = {}
    for (attribute, value), direction in zip(values, directions, strict=True):
        score = block.astype(np.float64) @ direction.astype(np.float64)
        out[value] = round(auc(score, np.array([getattr(look, attribute) == value for look in looks])), 4)
    return out
