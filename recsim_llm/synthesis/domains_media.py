"""The built-in domains of advertisements and videos: bids and budgets, and channels of different quality."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.synthesis.domain import Domain, Economy

PER_CLICK, PER_CONVERSION = 0.5, 8.0
"""Median bids [money per event]."""
CLICK_SHARE = 0.6
"""Share of the advertisers that are charged per click; the others pay a commission per conversion."""
HASTE = 0.35
"""How much more the advertisers of low quality bid: log bid per standard deviation of quality."""


def _released_ads(rng: np.random.Generator, count: int) -> NDArray[Any]:
    """80 % run already (half of them for more than 45 days), the rest start in the first 30 days."""
    old = -np.minimum(rng.lognormal(np.log(45), 0.9, count), 365)
    return np.where(rng.permutation(count) < round(0.2 * count), rng.uniform(0, 30, count), old)


def _released_video(rng: np.random.Generator, count: int) -> NDArray[Any]:
    """85 % are older than the episode (half of them than 150 days, none than two years), the rest come in 60 days."""
    old = -np.minimum(rng.lognormal(np.log(150), 1.0, count), rng.uniform(600, 730, count))
    return np.where(rng.permutation(count) < round(0.15 * count), rng.uniform(0, 60, count), old)


def _price_listed(rng: np.random.Generator, day: float) -> float:
    """Never asked: the text of an advertisement names the price."""
    raise NotImplementedError("an advertisement's price is the one its text names")


def _price_video(rng: np.random.Generator, day: float) -> float:
    del day
    return float(rng.choice([0.0, 2.99], p=[0.96, 0.04]))


def _economy(rng: np.random.Generator, providers: Sequence[str], qualities: dict[str, float]) -> Economy:
    """Draws what each advertisement bids and what each advertiser spends on one user a day.

    The bids of an advertiser lie close together. Its budget pays for two to six clicks or one to two conversions, and
    in any case once for the dearest of its advertisements.
    """
    names = sorted(qualities)
    converts = rng.permutation(len(names)) >= round(CLICK_SHARE * len(names))  # [G]
    own = rng.normal(0.0, 0.3, len(names)) - HASTE * np.array([qualities[name] for name in names])
    median = np.where(converts, PER_CONVERSION, PER_CLICK) * np.exp(own)
    events = np.where(
        converts,
        np.clip(rng.lognormal(np.log(1.4), 0.25, len(names)), 1.0, 2.0),
        np.clip(rng.lognormal(np.log(3.5), 0.35, len(names)), 2.0, 6.0),
    )
    index = np.array([names.index(name) for name in providers])
    bid = median[index] * rng.lognormal(0.0, 0.15, len(index))  # [I]
    shown = [bid[index == number] for number in range(len(names))]
    typical = np.array([np.median(mine) if len(mine) else usual for mine, usual in zip(shown, median, strict=True)])
    dearest = np.array([mine.max(initial=0.0) for mine in shown])
    budget = np.maximum(typical * events, 1.01 * dearest)  # float16 rounds by less
    return Economy(
        bid=bid,
        bid_event=converts[index].astype(np.float64),
        budget={name: float(found) for name, found in zip(names, budget, strict=True)},
    )


ADS = Domain(
    name="ads",
    file="ads.txt",
    words="ads_words.txt",
    items=1_248,
    users=2_000,
    provider="{advertiser#a}",
    bait="{bait}",
    clickbait_share=0.33,
    filing="{filed}",
    released=_released_ads,
    price=_price_listed,
    listed="{price#p}",
    channels="advertiser",
    economy=_economy,
)
VIDEO = Domain(
    name="video",
    file="video.txt",
    words="video_words.txt",
    items=1_248,
    users=2_000,
    provider="{channel#a}",
    bait="{bait}",
    clickbait_share=0.30,
    filing="{filed}",
    released=_released_video,
    price=_price_video,
    channels="channel",
)
