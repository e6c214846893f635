"""The preference model: the utility of an item for a user, and zero-shot preferences from personas.

    utility(u, i) = mu + b_u + b_i + w_u . x_i + l_u . m_i (+ noise at each meeting)
    b_i = v . x_i + q_i        item appeal: the part its text predicts, and a residual
    w_u = A p_u + r_u          taste: the part the persona predicts, and a residual
    l_u, m_i in R^16           taste that no text explains

Where encodings have an image block beside that of the text, so have tastes and profiles.

How much of the variance of utility each term has is a setting, ``shares``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from recsim_llm.errors import ConfigError
from recsim_llm.worlds.catalog import FACTORS, Catalog, Floats, empty_column
from recsim_llm.worlds.population import Population

VARIANCE_SHARES = {"user": 0.10, "item": 0.15, "text": 0.35, "residual": 0.05, "factors": 0.10, "noise": 0.25}
"""Shares of variance of the built-in worlds, set by hand: their personas name their tastes."""
VARIANCE_SHARES_WITH_IMAGES = {**VARIANCE_SHARES, "text": 0.25, "image": 0.15, "factors": 0.05}
"""The same where embeddings have an image block: taste for what images show is taste that an encoding explains."""


PRICE_EFFECT = 0.3
"""Standard deviation of price times price sensitivity where items have prices [logit]."""


@dataclass(frozen=True)
class PreferenceModel:
    """The scalars of the preference model; its arrays stand with the users and items.

    Attributes:
        kind: "zero_shot", "calibrated" or "distilled".
        mu: Constant of the utility [logit]; a no-click option has utility 0.
        noise: Standard deviation of the noise at each meeting [logit].
        shares: Share of the variance of utility that each term explains; sums to 1.
    """

    kind: str = "zero_shot"
    mu: float = 0.0
    noise: float = 0.0
    shares: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Preferences:
    """The latent preferences of all users for all items: arrays as in Catalog and Population, and the scalars."""

    preference_model: PreferenceModel
    appeal: Floats  # [I]
    item_factors: Floats  # [I, 16]
    taste: Floats  # [U, D]
    user_factors: Floats  # [U, 16]
    bias: Floats  # [U]


@dataclass(frozen=True, eq=False)
class LatentColumns:
    """Latent columns that neither texts nor ratings determine: quality, clickbait, prices' effect, bids, wallets."""

    quality: Floats
    clickbait: Floats
    price_sensitivity: Floats
    bid: Floats = dataclasses.field(default_factory=empty_column)
    bid_event: Floats = dataclasses.field(default_factory=empty_column)
    provider_budget: Floats = dataclasses.field(default_factory=empty_column)
    wallet: Floats = dataclasses.field(default_factory=empty_column)


@dataclass(frozen=True)
class PreferenceSettings:
    """How preferences are drawn or fitted; see :func:`recsim_llm.worlds.build.build_world`."""

    mu: float = 0.0
    spread: float = 2.0
    shares: dict[str, float] | None = None
    positive: float | None = None
    use: str = "train"
    seed: int = 0


def utility(
    model: PreferenceModel,
    population: Population,
    catalog: Catalog,
    users: NDArray[np.integer],
    items: NDArray[np.integer],
) -> Floats:
    """Utility of items for users before noise, [len(users), len(items)] [logit], in floating point.

    The simulator computes the same sum in integers, so that it is exact on every machine.
    """
    return np.asarray(
        model.mu
        + population.bias[users][:, None]
        + catalog.appeal[items][None]
        + population.taste[users] @ catalog.embedding[items].T
        + population.factors[users] @ catalog.factors[items].T,
        dtype=np.float32,
    )


def draw_latent_columns(price: NDArray[np.floating], users: int, seed: int, *, fitted: bool = False) -> LatentColumns:
    """Draws quality, clickbait and price sensitivity; all zero in a world that is fitted to a log.

    A log of ratings holds what people got; that something attracts without satisfying cannot be told from it, and
    price is in the items' fitted appeal already.

    Args:
        price: [I] prices of the items.
        users: How many users there are.
        seed: Seed of the draws.
        fitted: Whether preferences are fitted to a log.
    """
    items = len(price)
    if fitted:
        zeros = np.zeros(items, np.float32)
        return LatentColumns(zeros, zeros, np.zeros(users, np.float32))
    rng = np.random.Generator(np.random.PCG64([seed, 11]))
    quality = rng.standard_normal(items)
    clickbait = np.maximum(rng.standard_normal(items) - 0.5, 0.0)
    deviation = float(price.std())
    scale = PRICE_EFFECT / deviation if deviation > 0 else 0.0
    sensitivity = np.abs(rng.standard_normal(users)) * scale
    return LatentColumns(*(np.asarray(values, dtype=np.float32) for values in (quality, clickbait, sensitivity)))


def zero_shot_preferences(
    profile: Floats,
    embedding: Floats,
    *,
    mu: float = 0.0,
    spread: float = 2.0,
    shares: dict[str, float] | None = None,
    blocks: Mapping[str, tuple[int, int]] | None = None,
    seed: int = 0,
) -> Preferences:
    """Zero-shot preferences (A = alpha I): users like items whose embeddings lie near their statements.

    Args:
        profile: [U, D] encodings of personas.
        embedding: [I, D] encodings of items.
        mu: Constant of the utility [logit].
        spread: Standard deviation of the utility over users, items and meetings [logit].
        shares: Share of variance of each term; the keys of :data:`VARIANCE_SHARES`, and the name of every further
            block, summing to 1.
        blocks: Which columns of the encodings come from what; None means that all come from the text. Taste has the
            same blocks, each with its share. Where no persona says anything in a block, taste in it is drawn.
        seed: Seed of the residuals.

    Returns:
        Arrays whose terms have exactly the requested variances over all (user, item) pairs. The text's share counts
        the interaction of user and item alone: what the average persona likes of an item is taken out of it.

    Raises:
        ConfigError: If the shares are not those keys, are negative, or do not sum to 1.
    """
    columns = {"text": (0, embedding.shape[1])} if blocks is None else dict(blocks)
    parts = _checked(shares, columns, silent=not profile.any())
    rng = np.random.Generator(np.random.PCG64(seed))
    users, items, width = len(profile), len(embedding), embedding.shape[1]
    deviation = {name: spread * math.sqrt(share) for name, share in parts.items()}
    texts = embedding.astype(np.float64)
    covariance = np.cov(texts, rowvar=False, bias=True).reshape(width, width)

    said = profile.astype(np.float64)
    said = said - said.mean(0)  # what everybody says is no difference of taste; item appeal is set below
    unsaid = rng.standard_normal((users, width)) * np.sqrt(np.maximum(said.var(0), 1e-6))
    taste = np.zeros((users, width))
    for number, (name, (first, last)) in enumerate(columns.items()):
        part = said[:, first:last]
        if number and not part.any():  # nobody says anything of it; the text's share is the caller's to set to zero
            part = np.random.Generator(np.random.PCG64([seed, number])).standard_normal((users, last - first))
            part -= part.mean(0)
        taste[:, first:last] = _scaled_interaction(part, covariance[first:last, first:last], deviation[name])
    taste += _scaled_interaction(unsaid - unsaid.mean(0), covariance, deviation["residual"])

    foretold = _standard(texts @ rng.standard_normal(width)) * math.sqrt(0.5)
    residual = _standard(rng.standard_normal(items)) * math.sqrt(0.5)
    user_factors = rng.standard_normal((users, FACTORS)) * math.sqrt(deviation["factors"] / math.sqrt(FACTORS))
    item_factors = rng.standard_normal((items, FACTORS)) * math.sqrt(deviation["factors"] / math.sqrt(FACTORS))
    return Preferences(
        preference_model=PreferenceModel("zero_shot", mu, deviation["noise"], parts),
        appeal=(_standard(foretold + residual) * deviation["item"]).astype(np.float32),
        item_factors=item_factors.astype(np.float32),
        taste=taste.astype(np.float32),
        user_factors=user_factors.astype(np.float32),
        bias=(_standard(rng.standard_normal(users)) * deviation["user"]).astype(np.float32),
    )


def scale_profile_blocks(
    profile: Floats, embedding: Floats, blocks: Mapping[str, tuple[int, int]], shares: Mapping[str, float]
) -> Floats:
    """Scales the text and image blocks of profiles [U, D] against each other as those of taste are.

    Then one alpha holds for all of them.

    Args:
        profile: [U, D], each block in the scale of its own encoder.
        embedding: [I, D] encodings of items.
        blocks: Columns by name.
        shares: Share of the variance of utility of each block, by its name.

    Returns:
        The largest coordinate is one; zeros stay zeros.
    """
    out = profile.astype(np.float64)
    covariance = np.cov(embedding.astype(np.float64), rowvar=False, bias=True).reshape(profile.shape[1], -1)
    for name, (first, last) in blocks.items():
        said = out[:, first:last] - out[:, first:last].mean(0)
        variance = _interaction(said, covariance[first:last, first:last])
        out[:, first:last] *= math.sqrt(shares[name] / variance) if variance > 0 else 0.0
    largest = float(np.abs(out).max(initial=0.0))
    return np.asarray(out / largest if largest > 0 else out, dtype=np.float32)


def _checked(shares: dict[str, float] | None, blocks: Mapping[str, tuple[int, int]], silent: bool) -> dict[str, float]:
    """The shares of variance, or the usual ones; where nobody says anything the text's is drawn like other taste."""
    usual = VARIANCE_SHARES if set(blocks) == {"text"} else VARIANCE_SHARES_WITH_IMAGES
    if silent:
        usual = {**usual, "text": 0.0, "residual": usual["residual"] + usual["text"]}
    parts = dict(usual if shares is None else shares)
    keys = {*VARIANCE_SHARES, *blocks}
    if set(parts) != keys or min(parts.values()) < 0 or not math.isclose(sum(parts.values()), 1, abs_tol=1e-6):
        raise ConfigError(f"shares must be non-negative, sum to 1 and have the keys {sorted(keys)}; got {parts}")
    return parts


def _interaction(weights: np.ndarray, covariance: np.ndarray) -> float:
    """Mean over users of the variance of weights . x over items."""
    return float(np.einsum("ud,de,ue->u", weights, covariance, weights).mean())


def _scaled_interaction(weights: np.ndarray, covariance: np.ndarray, deviation: float) -> np.ndarray:
    """Scales [U, D] weights so that weights . x has the given standard deviation over all pairs."""
    variance = _interaction(weights, covariance)
    return weights * (deviation / math.sqrt(variance)) if variance > 0 else np.zeros_like(weights)


def _standard(values: np.ndarray) -> np.ndarray:
    deviation = values.std()
    return (values - values.mean()) / deviation if deviation > 0 else np.zeros_like(values)
