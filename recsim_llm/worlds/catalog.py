"""The item catalogue, as columns of text and arrays.

What a recommender may know (texts, categories, prices, encodings) and what only the simulator knows (appeal, factors,
quality, clickbait) stand in one object here; :meth:`Catalog.public` gives agents the first part alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsim_llm.errors import ConfigError

FACTORS = 16
"""Width of the collaborative factors, the taste that no text explains."""

UNRELEASED = 1e6
"""Release day from which on an item waits to be put on the shelf while an environment runs, see ``release``."""

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]


def empty_column() -> Floats:
    """The default of an optional column: an empty array, replaced by zeros when the table is made."""
    return np.zeros(0, np.float32)


@dataclass(frozen=True, eq=False)
class Catalog:
    """The items of a world: public features and latent columns, one row for each of I items.

    Attributes:
        item_id: Names of the items, unique text.
        title: Titles, one line each.
        text: Descriptions that were encoded.
        category: Theme of each item.
        provider: Who made or sells it (artist, outlet, creator, advertiser).
        embedding: [I, D] encodings, centred, projected on principal components, scaled so that max |x| = 1.
        price: [I] in the world's currency.
        released_at: [I] [day]; negative is before an episode begins.
        appeal: [I] latent; part of the utility that all users share [logit].
        factors: [I, 16] latent; what no text explains.
        quality: [I] latent; about N(0, 1), what the user gets beyond what attracted her.
        clickbait: [I] latent; >= 0, attracts without satisfying.
        image: Names of images, or None: those the world keeps (``World.image``), else paths relative to it.
        bid: [I] what the provider pays the platform for an event, in the world's currency; zeros where nobody bids.
        bid_event: [I] the event: 0 a click, 1 a purchase (a commission).
        provider_budget: [G] what each of ``providers`` pays at most [currency / day and user]; zeros where there is no
            limit.
        blocks: Which columns of ``embedding`` come from what, name to (first, behind the last); by default all of them
            from the text. A block of a new item that is not known is zeros, which is the mean.
        providers: The G different providers, sorted.
        provider_index: [I] position of the item's provider among them; ``topics`` and ``topic`` are the same for
            categories.
    """

    item_id: list[str]
    title: list[str]
    text: list[str]
    category: list[str]
    provider: list[str]
    embedding: Floats
    price: Floats
    released_at: Floats
    appeal: Floats
    factors: Floats
    quality: Floats
    clickbait: Floats
    image: list[str | None] = dataclasses.field(default_factory=list)
    bid: Floats = dataclasses.field(default_factory=empty_column)
    bid_event: Floats = dataclasses.field(default_factory=empty_column)
    provider_budget: Floats = dataclasses.field(default_factory=empty_column)
    blocks: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    topics: list[str] = dataclasses.field(init=False)
    topic: Ints = dataclasses.field(init=False)
    providers: list[str] = dataclasses.field(init=False)
    provider_index: Ints = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        count = len(self.item_id)
        if count == 0:
            raise ConfigError("a catalogue needs at least one item, got none")
        if len(set(self.item_id)) != count:
            raise ConfigError("item_id has duplicates; every item needs its own id")
        if not self.image:
            object.__setattr__(self, "image", [None] * count)
        for name in ("title", "text", "category", "provider", "image"):
            _same_length(name, len(getattr(self, name)), count)
        width = self.embedding.shape[-1]
        shapes = {"embedding": (count, width), "factors": (count, FACTORS)}
        for name in ("embedding", "price", "released_at", "appeal", "factors", "quality", "clickbait"):
            object.__setattr__(self, name, checked_array(name, getattr(self, name), shapes.get(name, (count,))))
        if width > 256:
            raise ConfigError(
                f"embedding is {width} wide; exact integer dot products take at most 256. Project it first"
            )
        for column, names, codes in (("category", "topics", "topic"), ("provider", "providers", "provider_index")):
            labels = sorted(set(getattr(self, column)))
            place = {label: number for number, label in enumerate(labels)}
            object.__setattr__(self, names, [str(label) for label in labels])
            object.__setattr__(self, codes, np.fromiter(map(place.__getitem__, getattr(self, column)), np.int32, count))
        for name, size in (("bid", count), ("bid_event", count), ("provider_budget", len(self.providers))):
            given = getattr(self, name)
            object.__setattr__(self, name, checked_array(name, given if given.size else np.zeros(size), (size,)))
        object.__setattr__(self, "blocks", checked_blocks(self.blocks or {"text": (0, width)}, width))

    def __len__(self) -> int:
        return len(self.item_id)

    @property
    def width(self) -> int:
        """D, the width of the encodings."""
        return int(self.embedding.shape[1])

    def public(self) -> Catalog:
        """The same catalogue with every latent column set to zero: what a recommender may know."""
        zero = np.zeros(len(self), np.float32)
        return dataclasses.replace(
            self, appeal=zero, quality=zero, clickbait=zero, factors=np.zeros((len(self), FACTORS), np.float32)
        )


def checked_array(name: str, array: object, shape: tuple[int, ...]) -> Floats:
    """Returns ``array`` as finite, contiguous, read-only float32 of the given shape, or raises ConfigError.

    An array that is all that already, and not a view of another, is taken as it is; others are copied.
    """
    values = np.ascontiguousarray(np.asarray(array), dtype=np.float32)
    if values.shape != shape:
        raise ConfigError(f"{name} has shape {values.shape}, expected {shape}")
    # The extremes are infinite or not numbers if any value is; a mask of all values would cost memory.
    if values.size and not (np.isfinite(values.min()) and np.isfinite(values.max())):
        raise ConfigError(f"{name} has {int((~np.isfinite(values)).sum())} values that are not finite numbers")
    if values.base is not None or (values is array and values.flags.writeable):
        values = values.copy()
    values.flags.writeable = False
    return values


def checked_blocks(blocks: Mapping[str, Sequence[int]], width: int) -> dict[str, tuple[int, int]]:
    """Returns feature blocks in column order, or raises ConfigError if they do not cover all columns exactly once."""
    try:
        found = sorted(
            ((str(name), int(start), int(stop)) for name, (start, stop) in blocks.items()), key=lambda b: b[1]
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"blocks are {blocks!r}; each is a name with its first column and the one behind its last"
        ) from error
    edges = [0, *(stop for _, _, stop in found)]
    if [start for _, start, _ in found] != edges[:-1] or edges[-1] != width or any(a >= b for _, a, b in found):
        raise ConfigError(
            f"blocks {dict(blocks)} do not part the {width} columns of the encodings without gap or overlap"
        )
    return {name: (start, stop) for name, start, stop in found}


def _same_length(name: str, seen: int, count: int) -> None:
    if seen != count:
        raise ConfigError(f"column {name} has {seen} rows, item_id has {count}; they must be the same")


def occurrences(numbers: NDArray[np.integer]) -> NDArray[np.int64]:
    """How many equal numbers stand further left in each row [B, C]."""
    order = np.argsort(numbers, 1, kind="stable")
    ordered = np.take_along_axis(numbers, order, 1)
    place = np.broadcast_to(np.arange(numbers.shape[1]), numbers.shape)
    first = np.ones(numbers.shape, np.bool_)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    begins = np.maximum.accumulate(np.where(first, place, 0), 1)
    found = np.empty(numbers.shape, np.int64)
    np.put_along_axis(found, order, place - begins, 1)
    return found
