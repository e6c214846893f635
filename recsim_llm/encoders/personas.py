"""From what people say they like and dislike to a profile in the space of a world.

``p_u = sum_s v_s x_s`` over a persona's statements s, with ``x_s`` the centred and projected encoding of what the
statement is about and ``v_s`` in [-1, 1] its valence. Statement by statement, because sentence encoders do not hear
negation: a whole paragraph lands close to the themes that it rejects.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.encoders.cache import encode_cached
from recsim_llm.encoders.projection import Projection
from recsim_llm.encoders.text import Encoder
from recsim_llm.errors import ConfigError

Statement = tuple[str, float]


def profile_of(vectors: NDArray[Any], valences: Sequence[float] | NDArray[Any]) -> NDArray[np.float32]:
    """Signed sum of one persona's statements: ``[S, D]`` and ``[S]`` to ``[D] float32``, not scaled."""
    weight = np.asarray(valences, dtype=np.float64)
    if len(weight) != len(vectors):
        raise ConfigError(f"{len(vectors)} statements, but {len(weight)} valences: one for each is needed")
    if not len(weight):
        return np.zeros(vectors.shape[1], dtype=np.float32)
    if not (np.abs(weight) <= 1.0).all():
        raise ConfigError(f"a valence of {weight[np.argmax(np.abs(weight))]}: valences lie in [-1, 1]")
    return np.asarray((np.asarray(vectors, dtype=np.float64) * weight[:, None]).sum(axis=0), dtype=np.float32)


def profiles_of(
    encoder: Encoder, people: Sequence[Sequence[Statement]], projection: Projection, progress: bool = False
) -> NDArray[np.float32]:
    """Profiles of a population, scaled by one factor so that the largest coordinate is one.

    Args:
        encoder: The encoder that the projection was fitted with.
        people: For each user the statements with their valences in [-1, 1]; an empty list gives zeros.
        projection: The catalogue's projection.
        progress: Whether to show a progress bar.

    Returns:
        ``[U, D] float32`` in [-1, 1].
    """
    texts = [text for statements in people for text, _ in statements]
    vectors = projection.apply(encode_cached(encoder, texts, progress))
    out = np.zeros((len(people), projection.components.shape[0]), dtype=np.float32)
    start = 0
    for user, statements in enumerate(people):
        stop = start + len(statements)
        out[user] = profile_of(vectors[start:stop], [valence for _, valence in statements])
        start = stop
    return scaled(out)


def scaled(profiles: NDArray[np.float32]) -> NDArray[np.float32]:
    """Divides by the largest absolute value of all; zeros stay zeros."""
    largest = float(np.abs(profiles).max(initial=0.0))
    return profiles if largest == 0 else np.asarray(profiles / np.float32(largest), dtype=np.float32)
