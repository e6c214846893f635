"""Builds worlds from texts: one pipeline for people's own files and for the built-in worlds.

    items, users -> encodings (cached) -> embedding space -> item embeddings, user profiles -> preferences -> World

:func:`make_world` is the pipeline. :func:`build_world` reads people's own files for it;
:mod:`recsim_llm.synthesis.build` writes the built-in worlds for it. Nothing is saved until all of it has worked.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.datasets import (
    ColumnNames,
    Interactions,
    Items,
    Limits,
    Users,
    read_interactions,
    read_items,
    read_users,
)
from recsim_llm.datasets.item_images import encode_item_images, find_item_images, paths_from
from recsim_llm.encoders.cache import encode_cached
from recsim_llm.encoders.images import DEFAULT_IMAGE_ENCODER, ImageEncoder, load_image_encoder
from recsim_llm.encoders.stance import split_personas
from recsim_llm.encoders.text import DEFAULT_ENCODER, Encoder, load_text_encoder
from recsim_llm.errors import ConfigError
from recsim_llm.fitting.calibration import fit_preferences
from recsim_llm.worlds.catalog import Catalog, Floats
from recsim_llm.worlds.embedding_space import (
    EmbeddingSpace,
    TextEncoding,
    fit_embedding_space,
    item_texts,
    persona_profile,
    persona_sums,
    unit_scaled,
)
from recsim_llm.worlds.item_images import ItemImages
from recsim_llm.worlds.population import Population
from recsim_llm.worlds.preference_model import (
    VARIANCE_SHARES_WITH_IMAGES,
    LatentColumns,
    Preferences,
    PreferenceSettings,
    draw_latent_columns,
    scale_profile_blocks,
    zero_shot_preferences,
)
from recsim_llm.worlds.topic_clusters import name_topic_clusters
from recsim_llm.worlds.world import World, writable_folder

Say = Callable[[str], None]

_LOG = logging.getLogger(__name__)
DRAWN_USERS = 1000
"""How many users are drawn where neither users nor interactions are given."""


@dataclass(frozen=True, eq=False)
class ImageInputs:
    """Encoded images of items, and what personas say about visual attributes.

    Attributes:
        encoder: The image encoder.
        encodings: [I, E], zeros for items without an image.
        has_image: [I].
        phrases: [N, E] what phrases on visual attributes mean to the encoder, as directions; None where nobody
            speaks of them.
        said: For each user the (row of ``phrases``, valence) pairs.
        files: The images themselves, where the world keeps them.
    """

    encoder: ImageEncoder
    encodings: Floats
    has_image: NDArray[np.bool_]
    phrases: Floats | None = None
    said: Sequence[Sequence[tuple[int, float]]] = ()
    files: ItemImages | None = None


@dataclass(frozen=True, eq=False)
class WorldInputs:
    """The inputs of the pipeline: items, users, and what else is known about them.

    Attributes:
        name: Name of the world.
        items: The items.
        users: The users, with the statements that their personas make.
        latent: What neither texts nor ratings tell; None draws it, or leaves it at zero beside interactions.
        interactions: A log to fit preferences to; None draws them around what personas say.
        images: Encoded images; None makes a space of text alone.
        item_text: What is encoded of items, one of :data:`recsim_llm.worlds.embedding_space.ITEM_TEXTS`.
        statements: The statements that are encoded as text; None takes all of the users'.
    """

    name: str
    items: Items
    users: Users
    latent: LatentColumns | None = None
    interactions: Interactions | None = None
    images: ImageInputs | None = None
    item_text: str = "text"
    statements: Sequence[Sequence[tuple[str, float]]] | None = None


def make_world(
    inputs: WorldInputs,
    encoder: Encoder,
    settings: PreferenceSettings,
    *,
    width: int = 64,
    progress: bool = False,
    say: Say | None = None,
) -> World:
    """Makes a world in memory: encodes items and personas, then draws or fits preferences.

    Args:
        inputs: Items, users and what else is known.
        encoder: Text encoder.
        settings: How preferences are drawn or fitted.
        width: D, width of the embeddings; a quarter of the columns are the images', where there are any.
        progress: Show progress bars on standard error.
        say: Is told what is being done.

    Raises:
        ConfigError: If a setting does not fit, or there are too few images.
        DataError: If the log cannot be fitted.
    """
    tell = say or (lambda text: _LOG.info("%s", text))
    items, users, images, log = inputs.items, inputs.users, inputs.images, inputs.interactions
    tell(f"encoding {len(items)} items")
    texts = encode_cached(encoder, item_texts(inputs.item_text, items.category, items.text), progress)
    seen = (None, None) if images is None else (images.encodings, images.has_image)
    space = fit_embedding_space(texts, *seen, width=width, image_width=max(width // 4, 1))
    embedding = space.embed(texts, *seen)
    sums = persona_sums(encoder, inputs.statements or users.statements, space.text, progress)
    profile = _profiles(sums, embedding, space, images)
    preferences, metrics = _preferences(space, embedding, profile, log, settings, tell)
    latent = inputs.latent or draw_latent_columns(items.price, len(users), settings.seed, fitted=log is not None)
    encoding = TextEncoding(inputs.item_text, profile_scale=_scale(sums, profile, space.blocks["text"]))
    return World(
        name=inputs.name,
        catalog=_catalog(items, embedding, space.blocks, preferences, latent, settings.seed),
        population=_population(users, profile, preferences, latent),
        preference_model=preferences.preference_model,
        encoder=_described(encoder, images),
        encoding=dataclasses.asdict(encoding),
        projection=space.arrays(),
        parameters=_parameters(items),
        metrics=metrics,
        item_images=None if images is None else images.files,
    )


def _profiles(sums: Floats, embedding: Floats, space: EmbeddingSpace, images: ImageInputs | None) -> Floats:
    """Profiles [U, D] in [-1, 1]: what personas say of texts and, in the image block, of visual attributes."""
    profile = unit_scaled(sums)
    if images is None or images.phrases is None or space.image is None:
        return profile
    first, last = space.blocks["image"]
    places = space.image.apply(images.phrases, centre=False)
    for user, said in enumerate(images.said):
        profile[user, first:last] = persona_profile(places[[row for row, _ in said]], [valence for _, valence in said])
    return scale_profile_blocks(profile, embedding, space.blocks, VARIANCE_SHARES_WITH_IMAGES)


def _scale(sums: Floats, profile: Floats, block: tuple[int, int]) -> float:
    """The factor from signed sums of statements to profiles; 1 where nobody says anything."""
    of_text = slice(*block)
    place = np.unravel_index(np.abs(sums[:, of_text]).argmax(), sums[:, of_text].shape)
    largest = float(sums[:, of_text][place])
    return float(profile[:, of_text][place]) / largest if largest else 1.0


def _described(encoder: Encoder, images: ImageInputs | None) -> dict[str, Any]:
    """Which encoders made the embeddings, for ``world.json``."""
    text = {"id": encoder.name, "digest": encoder.digest, "width": encoder.width}
    if images is None:
        return text
    seen = images.encoder
    return {**text, "image": {"id": seen.name, "digest": seen.digest, "width": seen.width}}


def _preferences(
    space: EmbeddingSpace,
    embedding: Floats,
    profile: Floats,
    log: Interactions | None,
    settings: PreferenceSettings,
    tell: Say,
) -> tuple[Preferences, dict[str, Any]]:
    """Preferences fitted to the log, or drawn around what personas say where there is none; and what was measured."""
    if log is not None:
        fitted = fit_preferences(
            log, embedding, profile, positive=settings.positive, use=settings.use, seed=settings.seed, say=tell
        )
        return fitted.preferences, {"held_out": fitted.metrics, "dropped_rows": log.dropped}
    drawn = zero_shot_preferences(
        profile, embedding, mu=settings.mu, spread=settings.spread, shares=settings.shares,
        blocks=space.blocks, seed=settings.seed,
    )  # fmt: skip
    return drawn, {}


def _catalog(
    items: Items,
    embedding: Floats,
    blocks: Mapping[str, tuple[int, int]],
    preferences: Preferences,
    latent: LatentColumns,
    seed: int,
) -> Catalog:
    named = [value or "other" for value in items.category] if any(items.category) else None
    return Catalog(
        item_id=items.item_id,
        title=items.title,
        text=items.text,
        category=named or name_topic_clusters(items.text, embedding, seed=seed),
        provider=[value or "unknown" for value in items.provider],
        embedding=embedding,
        blocks=blocks,
        price=items.price.astype(np.float32),
        released_at=items.released_at.astype(np.float32),
        appeal=preferences.appeal,
        factors=preferences.item_factors,
        quality=latent.quality,
        clickbait=latent.clickbait,
        bid=latent.bid,
        bid_event=latent.bid_event,
        provider_budget=latent.provider_budget,
        image=items.image,
    )


def _population(users: Users, profile: Floats, preferences: Preferences, latent: LatentColumns) -> Population:
    return Population(
        user_id=users.user_id,
        persona=users.persona,
        statements=users.statements,
        gender=users.gender,
        age_band=users.age_band,
        region=users.region,
        profile=profile,
        taste=preferences.taste,
        factors=preferences.user_factors,
        bias=preferences.bias,
        price_sensitivity=latent.price_sensitivity,
        wallet=latent.wallet,
    )


def _parameters(items: Items) -> dict[str, float]:
    """Items without dates neither age nor leave the shelf, whatever the scenario."""
    return {} if np.ptp(items.released_at) > 0 else {"freshness": 0.0, "shelf_life": 0.0}


def build_world(
    items: str | Path,
    users: str | Path | None = None,
    interactions: str | Path | None = None,
    *,
    out: str | Path | None,
    name: str | None = None,
    encoder: str | Encoder = DEFAULT_ENCODER,
    width: int = 64,
    text_columns: Sequence[str] | None = None,
    columns: ColumnNames | None = None,
    tags: str | Path | None = None,
    images: str | Path | None = None,
    image_encoder: str | ImageEncoder | None = None,
    drop_unknown: bool = False,
    positive: float | None = None,
    use: str = "train",
    n_users: int = DRAWN_USERS,
    mu: float = 0.0,
    spread: float = 2.0,
    shares: dict[str, float] | None = None,
    seed: int = 0,
    limits: Limits | None = None,
    separator: str | None = None,
    overwrite: bool = False,
    progress: bool = False,
    say: Callable[[str], None] | None = None,
) -> World:
    """Builds a world from files of items, users and interactions.

    Args:
        items: CSV or Parquet file of items; a text for each is needed, everything else is optional.
        users: File of users; their personas become tastes.
        interactions: File of ratings or clicks. With it item appeal and tastes are fitted
            (:func:`recsim_llm.fitting.calibration.fit_preferences`); without it personas are taken at their word
            (:func:`recsim_llm.worlds.preference_model.zero_shot_preferences`).
        out: Folder of the new world, in a folder that exists; None saves nothing.
        name: Name of the world; None takes the folder's.
        encoder: Id of a text encoder, or one that is loaded.
        width: D, width of the encodings in the world, at most 256.
        text_columns: Columns of the items that are joined to the text that is encoded.
        columns: Columns named by role where they are not found by themselves.
        tags: File of notes on items (item, tag), put behind their texts.
        images: Folder of images named by item_id, in the folder of the items' file; None takes the paths of their
            column "image".
        image_encoder: Id of an image encoder, or one that is loaded. With it a quarter of the encodings' columns is
            what images show, and users have taste for it; without it images are only listed.
        drop_unknown: Leave out interactions with unknown items or users instead of refusing them.
        positive: Ratings from here on are positive; None finds the value.
        use: "train" keeps a test part of the interactions unseen, "all" fits the world to all of them.
        n_users: How many users are drawn where there are neither users nor interactions.
        mu: Constant of the utility [logit]; without interactions.
        spread: Standard deviation of the utility [logit]; without interactions.
        shares: Share of variance of each term (:data:`VARIANCE_SHARES`); without interactions.
        seed: Seed of the split and of everything that is drawn.
        limits: Most rows, columns and bytes of the files.
        separator: Separator of CSV files; None finds it.
        overwrite: Replace a world that is in ``out``.
        progress: Show progress bars on standard error.
        say: Is told what is being done.

    Returns:
        The world as it was saved.

    Raises:
        DataError: If a file cannot be used; with file, row and column.
        ConfigError: If an argument does not fit or ``out`` exists.
        MissingExtraError: If an encoder needs packages that are not installed.
    """
    tell = say or (lambda text: _LOG.info("%s", text))
    target = None if out is None else writable_folder(Path(out), overwrite)
    if not 1 <= width <= 256:
        raise ConfigError(f"width={width}: encodings in a world are 1 to 256 wide")
    tell("reading files")
    options: dict[str, Any] = {"limits": limits, "separator": separator}
    named = columns or ColumnNames()
    things = read_items(items, text_columns=text_columns, columns=named.items, tags=tags, **options)
    if images is not None:
        things = dataclasses.replace(things, image=find_item_images(images, items, things.item_id))
        image_encoder = image_encoder or DEFAULT_IMAGE_ENCODER
    people = None if users is None else read_users(users, columns=named.users, **options)
    log = None
    if interactions is not None:
        known = None if people is None else people.user_id
        log, user_id = read_interactions(
            interactions, things.item_id, known, columns=named.interactions, drop_unknown=drop_unknown, **options
        )
        people = people or Users.anonymous(user_id)
    if n_users < 1:
        raise ConfigError(f"n_users={n_users}: at least one user has to be drawn")
    people = people or Users.anonymous([str(number + 1) for number in range(n_users)])
    model = load_text_encoder(encoder) if isinstance(encoder, str) else encoder
    seer = load_image_encoder(image_encoder) if isinstance(image_encoder, str) else image_encoder
    inputs = WorldInputs(
        name=name or (target.name if target is not None else Path(items).stem),
        items=dataclasses.replace(things, image=paths_from(target, items, things.image)),
        users=dataclasses.replace(people, statements=_statements(people, model, progress, tell)),
        interactions=log,
        images=None if seer is None else _image_inputs(things, items, seer, width, progress, tell),
    )
    settings = PreferenceSettings(mu, spread, shares, positive, use, seed)
    world = make_world(inputs, model, settings, width=width, progress=progress, say=tell)
    if target is not None:
        tell(f"saving {target}")
        world.save(target, overwrite=overwrite)
    return world


def _statements(people: Users, model: Encoder, progress: bool, tell: Say) -> list[list[tuple[str, float]]]:
    """Statements as the file gives them; a persona without any is split by stance."""
    open_rows = [row for row, own in enumerate(people.statements) if not own and people.persona[row]]
    out = [list(own) for own in people.statements]
    if open_rows:
        tell(f"splitting {len(open_rows)} personas into statements; users.parquet shows them, to be corrected")
        found = split_personas([people.persona[row] for row in open_rows], model, progress)
        for row, pairs in zip(open_rows, found, strict=True):
            out[row] = pairs
    return out


def _image_inputs(
    items: Items, file: str | Path, encoder: ImageEncoder, width: int, progress: bool, tell: Say
) -> ImageInputs:
    """Encodes the images of items that were read from a file."""
    has_image = np.array([image is not None for image in items.image])
    if has_image.sum() < 2 or width < 2:
        raise ConfigError(
            f"{int(has_image.sum())} of {len(items)} items have a picture and width={width}; a world with pictures "
            f"needs two of both: name files in a column image, or a folder of them (images)"
        )
    tell(f"encoding {int(has_image.sum())} pictures")
    return ImageInputs(encoder, encode_item_images(encoder, file, items.image, items.item_id, progress), has_image)
