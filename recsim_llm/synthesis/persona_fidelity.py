"""Fidelity of profiles: whether encodings recover the themes that personas like and dislike.

For a persona u and a theme t the score is ``p_u . m_t`` with ``m_t`` the mean embedding of the theme's items. The two
numbers are areas under the ROC curve over pairs of themes of one persona: the chance that a liked theme scores above a
neutral one (should be near 1), and that a disliked one does (should be near 0).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.metrics.rank_correlation import auc
from recsim_llm.synthesis.domains import DOMAINS
from recsim_llm.synthesis.grammar import read_themes
from recsim_llm.synthesis.visual_attributes import ATTRIBUTE_OF_PHRASE
from recsim_llm.worlds.world import World


@dataclass(frozen=True)
class Fidelity:
    """AUCs of how well profiles recover the themes that personas name.

    Attributes:
        liked: AUC of liked against neutral themes.
        disliked: AUC of disliked against neutral themes.
        personas: How many personas it was measured on.
    """

    liked: float
    disliked: float
    personas: int

    def as_dict(self) -> dict[str, float | int]:
        """For ``world.json``."""
        return {"auc_liked": round(self.liked, 4), "auc_disliked": round(self.disliked, 4), "personas": self.personas}


def world_fidelity(world: World) -> Fidelity:
    """Fidelity of the profiles of a built-in world, from its stored arrays and statements.

    Args:
        world: A world made by :mod:`recsim_llm.synthesis.build`: its statements are phrases of its grammar.
    """
    theme_of = {
        thing: theme.name
        for theme in read_themes(DOMAINS[world.name].file)
        for facet in theme.facets
        for thing in facet.objects
    }
    liked: list[set[str]] = []
    disliked: list[set[str]] = []
    for statements in world.population.statements:
        of_themes = [(theme_of[thing], valence) for thing, valence in statements if thing not in ATTRIBUTE_OF_PHRASE]
        liked.append({theme for theme, valence in of_themes if valence > 0})
        disliked.append({theme for theme, valence in of_themes if valence < 0})
    return fidelity_of_profiles(
        world.population.profile, world.catalog.embedding, world.catalog.category, liked, disliked
    )


def fidelity_of_profiles(
    profile: NDArray[Any],
    embedding: NDArray[Any],
    category: Sequence[str],
    liked: Sequence[set[str]],
    disliked: Sequence[set[str]],
) -> Fidelity:
    """Fidelity of profiles, given the themes that users like and dislike.

    Args:
        profile: ``[U, D]``.
        embedding: ``[I, D]``.
        category: Theme of each item.
        liked: For each user the themes she likes.
        disliked: For each user the themes she dislikes; the others are neutral.
    """
    names = sorted(set(category))
    theme = np.asarray(category)
    means = np.stack([embedding[theme == name].mean(axis=0, dtype=np.float64) for name in names])  # [T, D]
    score = profile.astype(np.float64) @ means.T  # [U, T]
    likes = np.array([[name in mine for name in names] for mine in liked])
    dislikes = np.array([[name in mine for name in names] for mine in disliked])
    neutral = ~(likes | dislikes)
    return Fidelity(_pooled_auc(score, likes, neutral), _pooled_auc(score, dislikes, neutral), len(profile))


def _pooled_auc(score: NDArray[Any], first: NDArray[Any], second: NDArray[Any]) -> float:
    """Share of pairs of one user's themes in which the first kind scores higher; ties count half."""
    higher = pairs = 0.0
    for row, likes, others in zip(score, first, second, strict=True):
        chosen, count = likes | others, float(likes.sum()) * float(others.sum())
        if count:
            higher += count * auc(row[chosen], likes[chosen])
            pairs += count
    return higher / pairs if pairs else float("nan")
