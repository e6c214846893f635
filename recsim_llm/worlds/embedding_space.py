"""The embedding space of a world: from text and image encodings to item embeddings and user profiles.

    x_i = [s_text C_text (text_i - mean_text), s_image C_image (image_i - mean_image)]     item embedding
    p_u = scale * sum_s v_s C_text (statement_s - mean_text)                               user profile

C are principal components of the catalogue, not whitened: giving each direction the same variance cost accuracy
wherever it was tried, because the leading components are what a catalogue's themes differ in. Text and image have
components of their own, because the two encoders' spaces have nothing in common, and each block of columns gets a share
of the variance. A block that is not known is zeros, which is the mean of the catalogue.

A persona is encoded statement by statement, each with its valence v_s in [-1, 1], because sentence encoders do not hear
negation: a whole paragraph lands close to the themes that it rejects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.encoders.cache import encode_cached
from recsim_llm.encoders.text import Encoder, load_text_encoder, may_be_named
from recsim_llm.errors import ConfigError, unknown
from recsim_llm.worlds.world import World

__all__ = [
    "IMAGE_SHARE",
    "IMAGE_WIDTH",
    "ITEM_TEXTS",
    "EmbeddingSpace",
    "Projection",
    "TextEncoding",
    "WorldEncoder",
    "fit_embedding_space",
    "fit_projection",
    "item_texts",
    "persona_profile",
    "persona_profiles",
    "persona_sums",
    "unit_scaled",
]

Array = NDArray[np.float32]
Statement = tuple[str, float]

IMAGE_SHARE = 0.25
"""The usual share of the image block of the variance of embeddings: as large as its part of the columns."""
IMAGE_WIDTH = 16
"""The usual width of the image block, of 64."""


ITEM_TEXTS = ("text", "category: text")
"""What is encoded of items: their texts alone, or with the category in front."""


@dataclass(frozen=True)
class TextEncoding:
    """The record of how a world's texts were encoded, so that new items and personas are encoded alike.

    Attributes:
        item_text: What was encoded of an item, one of :data:`ITEM_TEXTS`.
        persona: "statements": a profile is the sum of the encodings of a persona's statements, each times its valence.
        profile_scale: The factor from that sum to the stored profile, in the text's columns.
        projection: "principal components": centred, projected, one scale; the arrays are in ``World.projection``.
    """

    item_text: str = "text"
    persona: str = "statements"
    profile_scale: float = 1.0
    projection: str = "principal components"

    def __post_init__(self) -> None:
        if self.item_text not in ITEM_TEXTS:
            raise unknown("form of the items' texts", self.item_text, ITEM_TEXTS)
        if self.persona != "statements" or self.projection != "principal components":
            raise ConfigError(
                f"the world's personas were encoded by {self.persona!r} and projected on {self.projection!r}; only "
                f"'statements' on 'principal components' are known"
            )
        if not isinstance(self.profile_scale, int | float) or not np.isfinite(self.profile_scale):
            raise ConfigError(f"profile_scale is {self.profile_scale!r}, a number was expected; build the world again")


@dataclass(frozen=True)
class Projection:
    """An affine map from one encoder's outputs to the embedding space, ``x = scale * components @ (enc - mean)``.

    Attributes:
        mean: Mean encoding of the catalogue, ``[E] float32``.
        components: Orthonormal principal directions, strongest first, ``[D, E] float32``; zero rows where the
            catalogue spans fewer than D directions.
        scale: Makes the largest coordinate of the catalogue one.
    """

    mean: Array
    components: Array
    scale: float

    def apply(self, encodings: NDArray[Any], centre: bool = True) -> Array:
        """Projects encodings.

        Args:
            encodings: ``[N, E]``.
            centre: Whether the catalogue's mean is taken away first (yes for items and for persona statements).

        Returns:
            ``[N, D] float32``. Texts unlike the catalogue may go beyond one; whoever needs a bound scales or clips.

        Raises:
            ConfigError: If the encodings have another width than those it was fitted to.
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
    """Fits a projection on principal components to the encodings of a catalogue.

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
    """Makes the entry of largest size positive: an eigenvector's sign is arbitrary."""
    peak = np.argmax(np.abs(components), axis=1)
    sign = np.sign(components[np.arange(len(components)), peak])
    return components * np.where(sign == 0, 1.0, sign)[:, None]


@dataclass(frozen=True)
class EmbeddingSpace:
    """The map from encodings of texts and images to the embeddings of a world, text and image side by side.

    Attributes:
        text: The projection of texts, D wide: its columns of the image block are zeros, so that whoever knows only
            texts can use it alone.
        image: The projection of images, as wide as its block; None where there are no images.
        blocks: Columns by name, as in :class:`recsim_llm.worlds.catalog.Catalog`.
    """

    text: Projection
    image: Projection | None
    blocks: Mapping[str, tuple[int, int]]

    def embed(
        self, text: NDArray[Any], image: NDArray[Any] | None = None, has_image: NDArray[np.bool_] | None = None
    ) -> Array:
        """Embeds items.

        Args:
            text: Encodings of texts [N, E].
            image: Encodings of images [N, F]; None where there are none.
            has_image: Which rows have an image [N]; None means all.

        Returns:
            [N, D] float32; zeros in the image block of rows without an image.
        """
        out = self.text.apply(text)
        if image is not None and self.image is not None:
            first, last = self.blocks["image"]
            there = np.ones(len(out), np.bool_) if has_image is None else has_image
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
    def of(cls, arrays: Mapping[str, Any], blocks: Mapping[str, tuple[int, int]]) -> EmbeddingSpace:
        """The space that a world was made with, from ``world.projection`` and ``world.catalog.blocks``.

        Raises:
            ConfigError: If there is no projection of texts, or it is not as wide as the embeddings.
        """
        text, image = (
            Projection(arrays[f"{prefix}mean"], arrays[f"{prefix}components"], float(arrays[f"{prefix}scale"][0]))
            if f"{prefix}mean" in arrays
            else None
            for prefix in ("", "image_")
        )
        if text is None:
            raise ConfigError("the world keeps no projection of texts, so new items cannot be encoded for it")
        width = max(last for _, last in blocks.values())
        if len(text.components) != width:
            raise ConfigError(
                f"the world's projection of texts is {len(text.components)} wide, its embeddings {width}; build the "
                f"world again"
            )
        return cls(text, image, dict(blocks))


def fit_embedding_space(
    text: NDArray[Any],
    image: NDArray[Any] | None = None,
    has_image: NDArray[np.bool_] | None = None,
    *,
    width: int = 64,
    image_width: int = IMAGE_WIDTH,
    image_share: float = IMAGE_SHARE,
) -> EmbeddingSpace:
    """Fits the embedding space to the encodings of a catalogue.

    Args:
        text: Encodings of the items' texts [N, E].
        image: Encodings of their images [N, F]; None makes a space of text alone.
        has_image: Which items have an image [N]; None means all.
        width: D, of all blocks together.
        image_width: Columns of the image block.
        image_share: Share of the image block of the variance of the items that have an image, in (0, 1).

    Raises:
        ConfigError: If a width or the share does not fit, or fewer than two items have an image.
    """
    if image is None:
        return EmbeddingSpace(fit_projection(text, width), None, {"text": (0, width)})
    if not 0 < image_width < width:
        raise ConfigError(f"image_width={image_width}: of {width} columns at least one must stay for the text")
    if not 0 < image_share < 1:
        raise ConfigError(f"image_share={image_share}: a share of variance lies between 0 and 1")
    there = np.ones(len(text), np.bool_) if has_image is None else has_image
    if there.sum() < 2:
        raise ConfigError(f"{int(there.sum())} of {len(text)} items have an image; an image block needs two")
    split = width - image_width
    of_text, of_image = fit_projection(text, split), fit_projection(image[there], image_width)
    texts, images = of_text.apply(text), of_image.apply(image[there])
    ratio = np.sqrt(image_share / (1 - image_share) * _variance(texts) / max(_variance(images), 1e-12))
    largest = max(float(np.abs(texts).max()), float(np.abs(images).max()) * ratio) or 1.0
    padded = np.zeros((width, text.shape[1]), np.float32)
    padded[:split] = of_text.components
    return EmbeddingSpace(
        Projection(of_text.mean, padded, of_text.scale / largest),
        Projection(of_image.mean, of_image.components, float(of_image.scale * ratio / largest)),
        {"text": (0, split), "image": (split, width)},
    )


def _variance(values: Array) -> float:
    return float(values.astype(np.float64).var(axis=0).sum())


def item_texts(mode: str, categories: Sequence[str], texts: Sequence[str]) -> list[str]:
    """What is encoded of items: their texts alone, or with the category in front, as a catalogue page shows them.

    Args:
        mode: One of :data:`ITEM_TEXTS`.
        categories: Category of each item.
        texts: Text of each item.
    """
    if mode == "text":
        return list(texts)
    return [f"{category}: {text}" for category, text in zip(categories, texts, strict=True)]


def persona_profile(vectors: NDArray[Any], valences: Sequence[float] | NDArray[Any]) -> Array:
    """Sum of a persona's statements times their valences: ``[S, D]`` and ``[S]`` to ``[D] float32``, not scaled."""
    weight = np.asarray(valences, dtype=np.float64)
    if len(weight) != len(vectors):
        raise ConfigError(f"{len(vectors)} statements, but {len(weight)} valences: one for each is needed")
    if not len(weight):
        return np.zeros(vectors.shape[1], dtype=np.float32)
    if not (np.abs(weight) <= 1.0).all():
        raise ConfigError(f"a valence of {weight[np.argmax(np.abs(weight))]}: valences lie in [-1, 1]")
    return np.asarray((np.asarray(vectors, dtype=np.float64) * weight[:, None]).sum(axis=0), dtype=np.float32)


def persona_sums(
    encoder: Encoder, people: Sequence[Sequence[Statement]], projection: Projection, progress: bool = False
) -> Array:
    """Signed sums of the statements of a population, ``[U, D] float32``; arguments as for :func:`persona_profiles`."""
    texts = [text for statements in people for text, _ in statements]
    vectors = projection.apply(encode_cached(encoder, texts, progress))
    out = np.zeros((len(people), projection.components.shape[0]), dtype=np.float32)
    start = 0
    for user, statements in enumerate(people):
        stop = start + len(statements)
        out[user] = persona_profile(vectors[start:stop], [valence for _, valence in statements])
        start = stop
    return out


def persona_profiles(
    encoder: Encoder, people: Sequence[Sequence[Statement]], projection: Projection, progress: bool = False
) -> Array:
    """Profiles of a population: signed sums of statements, scaled so that the largest coordinate of all is one.

    Args:
        encoder: The encoder that the projection was fitted with.
        people: For each user the statements with their valences in [-1, 1]; an empty list gives zeros.
        projection: The projection of texts.
        progress: Whether to show a progress bar.

    Returns:
        ``[U, D] float32`` in [-1, 1].
    """
    return unit_scaled(persona_sums(encoder, people, projection, progress))


def unit_scaled(profiles: Array) -> Array:
    """Divides by the largest absolute value of all; zeros stay zeros."""
    largest = float(np.abs(profiles).max(initial=0.0))
    return profiles if largest == 0 else np.asarray(profiles / np.float32(largest), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class WorldEncoder:
    """Encodes new items and personas exactly as the world's own were.

    Attributes:
        encoder: The world's text encoder.
        space: The world's embedding space.
        encoding: How the world's texts were encoded.
    """

    encoder: Encoder
    space: EmbeddingSpace
    encoding: TextEncoding

    @classmethod
    def of(cls, world: World, encoder: Encoder | None = None) -> WorldEncoder:
        """Reads from a world how its texts were encoded.

        Args:
            world: The world.
            encoder: Its text encoder, where that is loaded already.

        Raises:
            ConfigError: If the world does not say how it was encoded, or the encoder is another one.
        """
        if not world.encoding or "id" not in world.encoder:
            raise ConfigError(
                f"the world {world.name!r} names no text encoder, or not how it was used; new texts cannot be encoded"
            )
        name = str(world.encoder["id"])
        if encoder is None and not may_be_named(name):
            raise ConfigError(
                f"the world {world.name!r} names the text encoder {name!r}, which is neither the model of a package "
                "nor an id that was loaded here before; if you trust it, pass encoder=load_text_encoder(...)"
            )
        model = encoder or load_text_encoder(name)
        if model.digest != world.encoder.get("digest", model.digest):
            raise ConfigError(
                f"the world {world.name!r} was encoded by {world.encoder['id']!r} with other weights than those of "
                f"{model.name!r}; encodings would not be comparable"
            )
        try:
            encoding = TextEncoding(**world.encoding)
        except TypeError as error:
            raise ConfigError(f"the world {world.name!r} records no encoding that is known ({error})") from error
        return cls(model, EmbeddingSpace.of(world.projection, world.catalog.blocks), encoding)

    def items(self, categories: Sequence[str], texts: Sequence[str]) -> Array:
        """Embeddings of items [N, D] in [-1, 1]; image columns are zero, the middle of the catalogue."""
        read = item_texts(self.encoding.item_text, categories, texts)
        return np.asarray(np.clip(self.space.embed(encode_cached(self.encoder, read)), -1.0, 1.0), np.float32)

    def profiles(self, people: Sequence[Sequence[Statement]]) -> Array:
        """Profiles of people [N, D] in [-1, 1] from their statements with valences."""
        sums = persona_sums(self.encoder, people, self.space.text)
        return np.asarray(np.clip(self.encoding.profile_scale * sums, -1.0, 1.0), np.float32)
