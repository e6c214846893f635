"""Provider quality: one number for each provider that shifts its items' quality and clickbait rate.

    quality = WEIGHT c_p + NOISE e_i - BAIT b_i        c_p, e_i ~ N(0, 1), b_i in {0, 1} whether the title is bait
    P(b_i = 1) = sigma(m - STEEP c_p)                  m such that the mean over providers is the domain's share of bait

With these constants half of the variance of quality lies between providers (a test measures it on the catalogues).
"""

from __future__ import annotations

import numpy as np

from recsim_llm.synthesis.domain import Domain
from recsim_llm.synthesis.grammar import read_themes

WEIGHT, NOISE, BAIT = 0.66, 0.74, 0.6
STEEP = 1.0
_STREAM = 3
_HALVINGS = 60


def provider_qualities(domain: Domain, seed: int) -> dict[str, float]:
    """Draws the quality of every provider of a domain; empty if its providers do not differ.

    Args:
        domain: Which world; its ``channels`` names the list of providers in each theme.
        seed: Seed of the draw.

    Returns:
        Numbers of mean 0 and standard deviation 1, by name of the provider.
    """
    if not domain.channels:
        return {}
    names = sorted({name for theme in read_themes(domain.file) for name in theme.words.get(domain.channels, ())})
    drawn = np.random.Generator(np.random.PCG64([seed, _STREAM])).standard_normal(len(names))
    drawn = (drawn - drawn.mean()) / drawn.std()
    return {name: float(value) for name, value in zip(names, drawn, strict=True)}


def clickbait_rates(qualities: dict[str, float], share: float) -> dict[str, float]:
    """Clickbait rate of each provider; the mean over providers is ``share``."""
    if not qualities:
        return {}
    value = np.array(list(qualities.values()))
    low, high = -20.0, 20.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if float((1 / (1 + np.exp(STEEP * value - middle))).mean()) < share:
            low = middle
        else:
            high = middle
    shares = 1 / (1 + np.exp(STEEP * value - low))
    return {name: float(found) for name, found in zip(qualities, shares, strict=True)}
