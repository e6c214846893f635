"""The built-in domains by name, and those of music and news: prices and release times."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.errors import unknown
from recsim_llm.synthesis.domain import Domain
from recsim_llm.synthesis.domains_market import ECOMMERCE, SOCIAL
from recsim_llm.synthesis.domains_media import ADS, VIDEO

__all__ = ["DOMAINS", "MUSIC", "NEWS", "Domain", "domain_named"]


def _released_music(rng: np.random.Generator, count: int) -> NDArray[Any]:
    """92 % are older than the episode (half of them than 700 days), the rest come out in its first 60 days."""
    old = -np.minimum(rng.lognormal(np.log(700), 1.2, count), 20_000)
    coming = rng.uniform(0, 60, count)
    return np.where(rng.permutation(count) < round(0.08 * count), coming, old)


def _price_music(rng: np.random.Generator, day: float) -> float:
    return float(rng.choice([0.69, 0.99, 1.29], p=[0.1, 0.4, 0.5] if day > -365 else [0.4, 0.5, 0.1]))


def _released_news(rng: np.random.Generator, count: int) -> NDArray[Any]:
    """An even number a day from day -6 to day 14, most of them between six in the morning and ten at night."""
    day = rng.permutation(np.arange(count) % 20) - 6
    hour = np.where(rng.random(count) < 0.85, rng.uniform(6, 22, count), rng.uniform(0, 24, count))
    return day + hour / 24


def _price_news(rng: np.random.Generator, day: float) -> float:
    del day
    return float(rng.choice([0.0, 0.49, 0.99, 1.99], p=[0.78, 0.1, 0.08, 0.04]))


MUSIC = Domain(
    name="music",
    file="music.txt",
    words="music_words.txt",
    items=1_248,
    users=2_000,
    provider="{artist#a}",
    bait="{title} ({tag})",
    clickbait_share=0.08,
    filing="{filed}",
    released=_released_music,
    price=_price_music,
)
NEWS = Domain(
    name="news",
    file="news.txt",
    words="news_words.txt",
    items=1_248,
    users=2_000,
    provider="[{outlet}|{outlet_GROUP}]",
    bait="{bait}",
    clickbait_share=0.12,
    filing="{filed}",
    released=_released_news,
    price=_price_news,
)
DOMAINS = {domain.name: domain for domain in (MUSIC, NEWS, ADS, VIDEO, ECOMMERCE, SOCIAL)}


def domain_named(name: str) -> Domain:
    """The built-in domain of that name.

    Raises:
        ConfigError: If there is none.
    """
    if name not in DOMAINS:
        raise unknown("built-in world", name, DOMAINS)
    return DOMAINS[name]
