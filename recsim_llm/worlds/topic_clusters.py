"""Topics for items without categories: k-means clusters of their embeddings, named by typical words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.errors import require

_WORD = re.compile(r"[^\W\d_]{3,}")


def name_topic_clusters(
    text: Sequence[str], embedding: NDArray[Any], *, count: int | None = None, seed: int = 0
) -> list[str]:
    """Clusters items by their embeddings and names the cluster of each.

    Args:
        text: [I] texts.
        embedding: [I, D] encodings.
        count: Number of themes; None takes about the square root of half the items, 2 to 24.
        seed: Seed of k-means.

    Returns:
        [I] names such as "guitar, blues"; "theme 3" where no word marks a cluster.
    """
    distinct = len(np.unique(embedding, axis=0))
    wanted = count if count is not None else int(np.clip(round((len(text) / 2) ** 0.5), 2, 24))
    clusters = min(wanted, distinct)
    if clusters < 2:
        return ["everything"] * len(text)
    cluster = require("sklearn.cluster", "llm")
    means = cluster.KMeans(n_clusters=clusters, n_init=4, random_state=seed)
    label = np.asarray(means.fit_predict(np.asarray(embedding, dtype=np.float64)))
    names = _names(text, label, clusters)
    return [names[group] for group in label]


def _names(text: Sequence[str], label: NDArray[Any], clusters: int) -> list[str]:
    """The two words of each cluster whose share of its items most exceeds their share of the others."""
    words = [set(_WORD.findall(line.lower())) for line in text]
    everywhere = Counter(word for own in words for word in own)
    names: list[str] = []
    for group in range(clusters):
        inside = Counter(word for own, mine in zip(words, label, strict=True) if mine == group for word in own)
        size = max(int(np.sum(label == group)), 1)
        rest = max(len(text) - size, 1)
        marks = {word: found / size - (everywhere[word] - found) / rest for word, found in inside.items() if found >= 2}
        best = sorted((word for word in marks if marks[word] > 0.05), key=lambda word: (-marks[word], word))[:2]
        name = ", ".join(best) or f"theme {group + 1}"
        names.append(name if name not in names else f"{name} {group + 1}")
    return names
