"""What a recommender can say in words about a user: the titles and themes that she took, and those that she left."""

from __future__ import annotations

from collections import Counter

import numpy as np

from recsim_llm.agents.common.cooldown import RecentItems
from recsim_llm.worlds.catalog import Catalog

LIKED, LEFT, THEMES = 5, 3, 3
"""Most titles and themes that a profile names."""


def profile_text(memory: RecentItems, lane: int, catalog: Catalog, liked: int = LIKED, left: int = LEFT) -> str:
    """A user in words, the latest first; empty where nothing is remembered that she took.

    Args:
        memory: What was seen of her in this episode.
        lane: Which of its lanes.
        catalog: The public catalogue.
        liked: Most titles of items that she took.
        left: Most titles of items that she looked at and left.
    """
    item, takes, looks = memory.item[lane], memory.takes[lane], memory.looks[lane]
    there = item >= 0
    taken = [int(item[place]) for place in np.lexsort((item, -takes)) if there[place] and takes[place] > 0]
    if not taken:
        return ""
    passed = [
        int(item[place]) for place in np.lexsort((item, -looks)) if there[place] and looks[place] > 0 >= takes[place]
    ]
    themes = Counter(catalog.category[index] for index in taken)
    parts = [
        "Likes " + "; ".join(catalog.title[index] for index in taken[:liked]),
        "Themes: " + ", ".join(name for name, _ in themes.most_common(THEMES)),
    ]
    if passed and left:
        parts.append("Leaves " + "; ".join(catalog.title[index] for index in passed[:left]))
    return ". ".join(parts) + "."
