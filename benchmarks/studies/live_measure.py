"""Metrics of a live judge and the world distilled from it: agreement, correlation, cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsim_llm.judges import Judge
from recsim_llm.judges.causal import CausalJudge
from recsim_llm.judges.pairs import pairs_of, sample_pairs
from recsim_llm.worlds.world import World

Floats = NDArray[np.float64]


class Clicks(NamedTuple):
    """What the lanes of a world clicked in one step.

    Attributes:
        slot: The clicked slot [B]; K for none.
        active: Whether the lane is in an episode [B].
    """

    slot: NDArray[np.int64]
    active: NDArray[np.bool_]


class Step(NamedTuple):
    """The clicks of two worlds in one step."""

    one: Clicks
    other: Clicks


USERS, EPISODE = 1_000, 100
"""Cost is told for so many users with so many steps each."""

LETTERS = 4
"""Characters of a token, where the tokens of a judge are not known."""


def agreement(steps: Sequence[Step], slots: int, users: NDArray[np.int64], chosen: NDArray[np.bool_]) -> dict[str, Any]:
    """Share of user-steps in which two worlds clicked the same slot (or none), while a lane is in both.

    Args:
        steps: Clicks in one world and in the other.
        slots: K.
        users: [B] whose lane it is.
        chosen: [B] lanes that count.

    Returns:
        Share "same" with its 95 % interval over users, Cohen's "kappa", "clicks" per step in both, and how many.
    """
    one, other = np.array([s.one.slot for s in steps]), np.array([s.other.slot for s in steps])  # [T, B]
    both = np.array([s.one.active & s.other.active for s in steps]) & chosen
    same, total = both & (one == other), int(both.sum())
    share = float(same.sum() / total)
    # Of a ratio of sums over users, who are independent (linearised).
    off = np.bincount(users, weights=same.sum(0) - share * both.sum(0))
    clusters = len(np.unique(users[chosen]))
    error = float(np.sqrt(np.sum(off**2) * clusters / max(clusters - 1, 1)) / total)
    tables = [np.bincount(part[both], minlength=slots + 1) / total for part in (one, other)]
    chance = float(tables[0] @ tables[1])
    return {
        "same": share,
        "ci95": [share - 1.96 * error, share + 1.96 * error],
        "kappa": (share - chance) / (1 - chance) if chance < 1 else float("nan"),
        "clicks": [float(1 - table[slots]) for table in tables],
        "user_steps": total,
    }


def correlations(world: World, ratings: Floats, inside: NDArray[np.bool_]) -> dict[str, Any]:
    """Correlation of a judge's ratings [U, I] with a world's utilities, where the world was fitted and where not."""
    users, items = (np.arange(size) for size in ratings.shape)
    utility = world.utility(users, items).astype(np.float64)
    there = np.isfinite(ratings)
    appeal = np.broadcast_to(world.catalog.appeal.astype(np.float64), ratings.shape)
    found: dict[str, Any] = {"missing": int((~there).sum()), "spread_of_ratings": float(np.std(ratings[there]))}
    for name, chosen in (("fitted", inside & there), ("held_out", ~inside & there)):
        found[name] = {
            "pairs": int(chosen.sum()),
            "pearson": _pearson(utility[chosen], ratings[chosen]),
            "spearman": _pearson(_ranks(utility[chosen]), _ranks(ratings[chosen])),
            "spearman_item_appeal": _pearson(_ranks(appeal[chosen]), _ranks(ratings[chosen])),
        }
    return found


def _pearson(a: Floats, b: Floats) -> float:
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def _ranks(values: Floats) -> Floats:
    """Ranks, the mean rank for equal values."""
    order, where, count = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(count) - (count - 1) / 2)[where], np.float64) if len(order) else values


def tokens_of(judge: Judge, world: World, sample: int = 20) -> dict[str, Any]:
    """Mean tokens of one question, instructions included; of the judge's own tokenizer where it is at hand."""
    users, items = sample_pairs(world, sample, seed=0, per_user=1, users="all")
    pairs = pairs_of(world, users, items)
    if isinstance(judge, CausalJudge):
        requests = [request for pair in pairs if not hasattr(request := judge.request(pair), "rating")]
        if requests:
            mean = len(judge.layout.head) + float(np.mean([len(request) for request in requests]))
            return {"per_pair": mean, "counted": "the judge's tokenizer"}
    letters = float(np.mean([len(pair.persona) + len(pair.item) for pair in pairs]))
    return {"per_pair": letters / LETTERS, "counted": f"{LETTERS} characters each, persona and item alone"}


def cost(live: float, distilled: float, slots: int, pairs: int, tokens: dict[str, Any], price: float) -> dict[str, Any]:
    """Seconds, and price where there is one, of 1,000 users with 100 steps each.

    Args:
        live: User-steps per second, all pairs new.
        distilled: User-steps per second.
        slots: K: pairs that the judge is asked about at a step.
        pairs: Pairs that the head was distilled from, asked once.
        tokens: See :func:`tokens_of`.
        price: Of a million tokens.
    """
    steps = USERS * EPISODE
    rate = tokens["per_pair"] * price / 1e6
    return {
        "users": USERS,
        "steps_each": EPISODE,
        "tokens_per_pair": tokens,
        "price_of_million_tokens": price,
        "live": {"seconds": steps / live, "tokens": steps * slots * tokens["per_pair"], "price": steps * slots * rate},
        "distilled": {
            "seconds": steps / distilled,
            "seconds_of_distillation": pairs / (live * slots),
            "tokens": pairs * tokens["per_pair"],
            "price": pairs * rate,
        },
    }
