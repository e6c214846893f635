"""The built-in domains of a shop and a social network: product prices, and creators who post regularly."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.synthesis.domain import Domain
from recsim_llm.synthesis.grammar import read_themes

if TYPE_CHECKING:
    from recsim_llm.synthesis.items import Item

__all__ = ["ECOMMERCE", "PRICES", "SOCIAL"]

PRICES = {
    "cookware": (45, 80, 30), "coffee gear": (260, 70, 14), "bedding": (70, 65, 240), "lamps": (60, 110, 35),
    "power tools": (120, 130, 75), "garden supplies": (10, 45, 60), "running shoes": (120, 130, 80),
    "camping gear": (220, 110, 45), "bicycle parts": (60, 70, 55), "fitness equipment": (60, 30, 380),
    "headphones": (160, 90, 180), "cameras": (520, 320, 110), "computers": (560, 110, 210),
    "board games": (45, 16, 28), "toys": (38, 30, 42), "baby gear": (280, 35, 190), "pet supplies": (28, 42, 90),
    "skincare": (28, 16, 9), "perfume": (60, 95, 32), "jewellery": (320, 120, 210), "luggage": (140, 85, 120),
    "knitwear": (95, 130, 26), "stationery": (12, 8, 11), "musical instruments": (260, 480, 180),
}  # fmt: skip
"""Median price of each facet of a product category, in the order of the file [currency]."""
PRICE_SPREAD, PRICE_OF_QUALITY = 0.28, 0.22
"""Standard deviation of log price within a facet, and how much of it a standard deviation of quality adds."""
DEAREST_ROUNDED = 100.0
FIRST_DAY, DAYS = -3, 48
"""First day with posts [day], and over how many days they are spread."""


def _released_shop(rng: np.random.Generator, count: int) -> NDArray[Any]:
    """85 % are listed already (half of them for more than 200 days, none than 1,500), the rest come in 60 days."""
    old = -np.minimum(rng.lognormal(np.log(200), 1.0, count), rng.uniform(1_000, 1_500, count))
    return np.where(rng.permutation(count) < round(0.15 * count), rng.uniform(0, 60, count), old)


def _price_free(rng: np.random.Generator, day: float) -> float:
    del rng, day
    return 0.0


def _priced(rng: np.random.Generator, items: list[Item]) -> list[Item]:
    """Prices log-normal around the median of the facet; better things cost more, and end in .99 or .50 or are round."""
    place = {
        (theme.name, facet.name): PRICES[theme.name][number]
        for theme in read_themes(ECOMMERCE.file)
        for number, facet in enumerate(theme.facets)
    }
    out = []
    for item in items:
        effect = PRICE_SPREAD * rng.standard_normal() + PRICE_OF_QUALITY * item.quality
        price = place[item.theme, item.facet] * float(np.exp(effect))
        ending = float(rng.choice([0.99, 0.5, 0.0], p=[0.6, 0.2, 0.2]))
        whole = round(price / 5) * 5 - 1 if price > DEAREST_ROUNDED else int(price)
        out.append(dataclasses.replace(item, price=float(whole if price > DEAREST_ROUNDED else whole + ending)))
    return out


def _published(rng: np.random.Generator, items: list[Item]) -> list[Item]:
    """The same number of posts each day, more by day than by night, and every creator publishes all the time."""
    count = Counter(item.provider for item in items)
    turn = {name: list(rng.permutation(number)) for name, number in count.items()}
    share = [(turn[item.provider].pop() + rng.random()) / count[item.provider] for item in items]  # of the time
    rank = np.argsort(np.argsort(share))
    day = FIRST_DAY + rank * DAYS // len(items)
    hour = np.where(rng.random(len(items)) < 0.9, rng.triangular(6, 20, 24, len(items)), rng.uniform(0, 24, len(items)))
    return [
        dataclasses.replace(item, released_at=round(float(when), 3))
        for item, when in zip(items, day + hour / 24, strict=True)
    ]


ECOMMERCE = Domain(
    name="ecommerce",
    file="ecommerce.txt",
    words="ecommerce_words.txt",
    items=1_248,
    users=2_000,
    provider="{brand#a}",
    bait="{bait}",
    clickbait_share=0.10,
    filing="{filed}",
    released=_released_shop,
    price=_price_free,
    arranged=_priced,
    wallet=150.0,
    covers=True,
)
SOCIAL = Domain(
    name="social",
    file="social.txt",
    words="social_words.txt",
    items=1_248,
    users=2_000,
    provider="{creator#a}",
    bait="{bait}",
    clickbait_share=0.15,
    filing="{filed}",
    released=_released_shop,  # and then as _published says
    price=_price_free,
    channels="creator",
    arranged=_published,
)
