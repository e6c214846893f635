"""Builds a world from people's own files: items, and any of users and interactions.

    tables, pictures -> encodings (cached) -> space -> categories -> personas by stance -> preference head -> folder

Nothing is written until all of it has worked.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.datasets import Interactions, Items, Limits, Users, read_interactions, read_items, read_users
from recsim_llm.datasets.item_images import pictures_in
from recsim_llm.encoders import (
    DEFAULT_ENCODER,
    DEFAULT_IMAGE_ENCODER,
    Encoder,
    ImageEncoder,
    load_image_encoder,
    load_text_encoder,
    profiles_of,
)
from recsim_llm.errors import ConfigError
from recsim_llm.fitting.calibration import fit_preferences
from recsim_llm.worlds.catalog import Catalog, Floats
from recsim_llm.worlds.embedding_space import Space, described, space_of
from recsim_llm.worlds.population import Population
from recsim_llm.worlds.preference_model import SHARES, SHARES_WITH_IMAGES, Preferences, zero_shot
from recsim_llm.worlds.topic_clusters import themes_of
from recsim_llm.worlds.world import World

_LOG = logging.getLogger(__name__)
DRAWN_USERS = 1000
"""How many users are drawn where neither users nor interactions are given."""
PRICE_EFFECT = 0.3
"""Standard deviation of price times price sensitivity where items have prices [logit]."""


@dataclass(frozen=True)
class Columns:
    """Columns that the user names, by role; see the ``ALIASES`` of each module of :mod:`recsim_llm.datasets`."""

    items: Mapping[str, str | None] | None = None
    users: Mapping[str, str | None] | None = None
    interactions: Mapping[str, str | None] | None = None


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
    columns: Columns | None = None,
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
    """Reads files, encodes the texts, finds or fits preferences, and saves the world.

    Args:
        items: CSV or Parquet file of items; a text for each is needed, everything else is optional.
        users: File of users; their personas become tastes.
        interactions: File of ratings or clicks. With it item appeal and tastes are fitted
            (:func:`recsim_llm.fitting.calibration.fit_preferences`); without it personas are taken at their word
            (:func:`recsim_llm.worlds.preference_model.zero_shot`).
        out: Folder of the new world, in a folder that exists; None saves nothing.
        name: Name of the world; None takes the folder's.
        encoder: Id of a text encoder, or one that is loaded.
        width: D, width of the encodings in the world, at most 256.
        text_columns: Columns of the items that are joined to the text that is encoded.
        columns: Columns named by role where they are not found by themselves.
        tags: File of notes on items (item, tag), put behind their texts.
        images: Folder of pictures named by item_id, in the folder of the items' file; None takes the paths of their
            column "image".
        image_encoder: Id of an image encoder, or one that is loaded. With it a quarter of the encodings' columns is
            what pictures show, and users have taste for it; without it pictures are only listed.
        drop_unknown: Leave out interactions with unknown items or users instead of refusing them.
        positive: Ratings from here on are positive; None finds the value.
        use: "train" keeps a test part of the interactions unseen, "all" fits the world to all of them.
        n_users: How many users are drawn where there are neither users nor interactions.
        mu: Constant of the utility [logit]; without interactions.
        spread: Standard deviation of the utility [logit]; without interactions.
        shares: Share of variance of each term (:data:`SHARES`); without interactions.
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
    target = None if out is None else free_folder(Path(out), overwrite)
    if not 1 <= width <= 256:
        raise ConfigError(f"width={width}: encodings in a world are 1 to 256 wide")
    tell("reading files")
    reading = _Reading(columns or Columns(), {"limits": limits, "separator": separator}, drop_unknown, n_users)
    things = read_items(items, text_columns=text_columns, columns=reading.columns.items, tags=tags, **reading.options)
    if images is not None:
        things = dataclasses.replace(things, image=pictures_in(images, items, things.item_id))
        image_encoder = image_encoder or DEFAULT_IMAGE_ENCODER
    people, log = _people_and_log(reading, things, users, interactions)
    model = load_text_encoder(encoder) if isinstance(encoder, str) else encoder
    seer = load_image_encoder(image_encoder) if isinstance(image_encoder, str) else image_encoder
    space = space_of(things, items, model, seer, width, progress, tell)
    statements = _statements(people, model, progress, tell)
    profile = profiles_of(model, statements, space.fusion.text, progress)
    drawing = _Drawing(mu, spread, shares, positive, use, seed)
    preferences, metrics = _preferences(space, profile, log, drawing, tell)
    latent = _unmeasured(things, len(people), log, seed)
    world = World(
        name=name or (target.name if target is not None else Path(items).stem),
        catalog=_catalog(things, space, preferences, latent, _moved(items, things.image, target), seed),
        population=_population(people, statements, profile, preferences, latent),
        head=preferences.head,
        encoder=described(model, seer),
        projection=space.fusion.arrays(),
        parameters=_parameters(things),
        metrics=metrics,
    )
    if target is not None:
        tell(f"saving {target}")
        world.save(target, overwrite=overwrite)
    return world


@dataclass(frozen=True)
class _Drawing:
    """How preferences are drawn or fitted; see :func:`build_world`."""

    mu: float
    spread: float
    shares: dict[str, float] | None
    positive: float | None
    use: str
    seed: int


def _preferences(
    space: Space, profile: Floats, log: Interactions | None, how: _Drawing, tell: Callable[[str], None]
) -> tuple[Preferences, dict[str, Any]]:
    """Fitted where there is a log, else drawn around what personas say; and what was measured."""
    if log is not None:
        fitted = fit_preferences(
            log, space.embedding, profile, positive=how.positive, use=how.use, seed=how.seed, say=tell
        )
        return fitted.preferences, {"held_out": fitted.metrics, "dropped_rows": log.dropped}
    blocks = space.fusion.blocks
    shares = how.shares or _possible_shares(profile, SHARES if len(blocks) == 1 else SHARES_WITH_IMAGES)
    drawn = zero_shot(
        profile, space.embedding, mu=how.mu, spread=how.spread, shares=shares, blocks=blocks, seed=how.seed
    )
    return drawn, {}


def _parameters(things: Items) -> dict[str, float]:
    """Items without dates neither age nor leave the shelf, whatever the scenario."""
    return {} if np.ptp(things.released_at) > 0 else {"freshness": 0.0, "shelf_life": 0.0}


def free_folder(target: Path, overwrite: bool) -> Path:
    """Refuses, before any work is done, a folder that could not be written in the end."""
    if not target.parent.is_dir():
        raise ConfigError(f"{target.parent} is not a folder; make it first, the world will be saved in it")
    if target.exists() or target.is_symlink():
        if not overwrite:
            raise ConfigError(f"{target} exists already; name another folder or pass overwrite")
        if not (target / "world.json").is_file():
            raise ConfigError(f"{target} holds no world, it will not be overwritten; name another folder")
    return target


@dataclass(frozen=True)
class _Reading:
    columns: Columns
    options: dict[str, Any]
    drop_unknown: bool
    n_users: int


def _people_and_log(
    reading: _Reading, things: Items, users: str | Path | None, interactions: str | Path | None
) -> tuple[Users, Interactions | None]:
    """The users of the file, else those of the log, else nameless ones."""
    named = reading.columns
    people = None if users is None else read_users(users, columns=named.users, **reading.options)
    if interactions is None:
        return people or _drawn(reading.n_users), None
    log, user_id = read_interactions(
        interactions,
        things.item_id,
        None if people is None else people.user_id,
        columns=named.interactions,
        drop_unknown=reading.drop_unknown,
        **reading.options,
    )
    return people or Users.nameless(user_id), log


def _drawn(count: int) -> Users:
    if count < 1:
        raise ConfigError(f"n_users={count}: at least one user has to be drawn")
    return Users.nameless([str(number + 1) for number in range(count)])


def _statements(
    people: Users, model: Encoder, progress: bool, tell: Callable[[str], None]
) -> list[list[tuple[str, float]]]:
    """Statements as the file gives them; a persona without any is split by stance."""
    open_rows = [row for row, own in enumerate(people.statements) if not own and people.persona[row]]
    out = [list(own) for own in people.statements]
    if open_rows:
        from recsim_llm.encoders.stance import split_personas  # fits a classifier for encoders that it does not know

        tell(f"splitting {len(open_rows)} personas into statements; users.parquet shows them, to be corrected")
        found = split_personas([people.persona[row] for row in open_rows], model, progress)
        for row, pairs in zip(open_rows, found, strict=True):
            out[row] = pairs
    return out


def _possible_shares(profile: Floats, usual: Mapping[str, float]) -> dict[str, float]:
    """The usual shares; where nobody says anything, the text's share is drawn like other taste."""
    if np.any(profile):
        return dict(usual)
    return {**usual, "text": 0.0, "residual": usual["residual"] + usual["text"]}


@dataclass(frozen=True, eq=False)
class _Latent:
    """What neither texts nor ratings tell."""

    quality: Floats
    clickbait: Floats
    price_sensitivity: Floats


def _unmeasured(things: Items, users: int, log: Interactions | None, seed: int) -> _Latent:
    """Quality, clickbait and price sensitivity: drawn, but zero in a world that is fitted to a log.

    A log of ratings holds what people got; that something attracts without satisfying cannot be told from it, and
    price is in the items' fitted appeal already.
    """
    if log is not None:
        nothing = np.zeros(len(things), np.float32)
        return _Latent(nothing, nothing, np.zeros(users, np.float32))
    rng = np.random.Generator(np.random.PCG64([seed, 11]))
    quality = rng.standard_normal(len(things))
    clickbait = np.maximum(rng.standard_normal(len(things)) - 0.5, 0.0)
    deviation = float(things.price.std())
    scale = PRICE_EFFECT / deviation if deviation > 0 else 0.0
    sensitivity = np.abs(rng.standard_normal(users)) * scale
    return _Latent(*(np.asarray(values, dtype=np.float32) for values in (quality, clickbait, sensitivity)))


def _catalog(
    things: Items,
    space: Space,
    preferences: Preferences,
    latent: _Latent,
    image: list[str | None],
    seed: int,
) -> Catalog:
    return Catalog(
        item_id=things.item_id,
        title=things.title,
        text=things.text,
        category=_categories(things, space.embedding, seed),
        provider=[value or "unknown" for value in things.provider],
        embedding=space.embedding,
        blocks=space.fusion.blocks,
        price=things.price.astype(np.float32),
        released_at=things.released_at.astype(np.float32),
        appeal=preferences.appeal,
        factors=preferences.item_factors,
        quality=latent.quality,
        clickbait=latent.clickbait,
        image=image,
    )


def _population(
    people: Users,
    statements: list[list[tuple[str, float]]],
    profile: Floats,
    preferences: Preferences,
    latent: _Latent,
) -> Population:
    return Population(
        user_id=people.user_id,
        persona=people.persona,
        statements=statements,
        gender=people.gender,
        age_band=people.age_band,
        region=people.region,
        profile=profile,
        taste=preferences.taste,
        factors=preferences.user_factors,
        bias=preferences.bias,
        price_sensitivity=latent.price_sensitivity,
    )


def _categories(things: Items, embedding: NDArray[Any], seed: int) -> list[str]:
    """Categories of the file; where it has none, themes found in the encodings."""
    if any(things.category):
        return [value or "other" for value in things.category]
    return themes_of(things.text, embedding, seed=seed)


def _moved(items: str | Path, images: list[str | None], target: Path | None) -> list[str | None]:
    """Paths of pictures, relative to the folder of the world instead of that of the file of items."""
    if target is None:
        return images
    source = Path(items).resolve().parent
    return [None if image is None else os.path.relpath(source / image, target.resolve()) for image in images]
