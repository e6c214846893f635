"""The specification of a built-in domain; :mod:`recsim_llm.synthesis.domains` fills it in for each world."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from recsim_llm.synthesis.items import Item

__all__ = ["Domain", "Economy"]


@dataclass(frozen=True)
class Economy:
    """Bids and budgets of advertisers.

    Attributes:
        bid: [I] [money per event].
        bid_event: [I] 0 = charged per click, 1 = commission per conversion.
        budget: Of each provider [money per user and day].
    """

    bid: NDArray[np.float64]
    bid_event: NDArray[np.float64]
    budget: dict[str, float]


@dataclass(frozen=True)
class Domain:
    """The specification of a built-in world: grammar files, sizes, and how numbers are drawn.

    Attributes:
        name: Name of the world.
        file: Its themes, a file beside this module.
        words: Lists of phrases of this domain alone, a file beside this module.
        items: Number of items.
        users: Number of personas.
        provider: Template of who an item comes from; GROUP stands for the group of the theme.
        bait: Template of a title that promises too much, with the slots title, facet and theme.
        clickbait_share: Share of items with such a title.
        filing: Template of a last sentence that says where the item is filed.
        released: Draws release times [day].
        price: Draws a price from the release time.
        listed: Template of the price that the text names; if given, it is written first and becomes the price.
        channels: Name of the list of providers that each theme holds; if given, each provider has a quality of its
            own, which moves the quality of its items and how often their titles promise too much.
        economy: Draws bids and budgets from the provider of each item and from the quality of providers.
        arranged: Sets numbers of the finished items that depend on all of them: prices by category, even times.
        wallet: Median of what a user can spend [currency / 30 days]; 0 where there is no limit.
        covers: Whether every item has a drawn cover, with taste for what it shows.
    """

    name: str
    file: str
    words: str
    items: int
    users: int
    provider: str
    bait: str
    clickbait_share: float
    filing: str
    released: Callable[[np.random.Generator, int], NDArray[Any]]
    price: Callable[[np.random.Generator, float], float]
    listed: str = ""
    channels: str = ""
    economy: Callable[[np.random.Generator, Sequence[str], dict[str, float]], Economy] | None = None
    arranged: Callable[[np.random.Generator, list[Item]], list[Item]] | None = None
    wallet: float = 0.0
    covers: bool = False
