"""Does a calibrated world order recommenders as the real log does?

The same recommenders are fitted once, to the training part of a log, and judged twice: by the held-out ratings of each
user (AUC), and by the world that was calibrated on the same training part, serving the same users. Neither judgement
saw the test part, and no recommender saw the world.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.logged.sgd_factorisation import Factors, fit
from recsim_llm.datasets import Interactions, read_interactions
from recsim_llm.errors import DataError
from recsim_llm.fitting.heldout import TEST, split_log
from recsim_llm.metrics.ranking import user_ranking
from recsim_llm.worlds.world import World, load_world

FACTORS, EPOCHS, RATE, SHRINK_BIAS, SHRINK = 16, 30, 0.02, 0.02, 0.1
"""Matrix factorisation as Koren, Bell and Volinsky (2009) recommend it: steps of .01 to .02, penalties of .02 to .1."""

Scores = Mapping[str, NDArray[np.float64]]  # name -> [U, I], higher is recommended first
Z_95 = 1.959964


@dataclass(frozen=True)
class Verdict:
    """One recommender, judged twice.

    Attributes:
        auc: Mean over users of the AUC on held-out ratings.
        mean_return: Mean return per episode in the world.
        margin: Half of the 95 % interval of the mean return's difference to the next one below, paired by user.
        ahead: That difference; NaN for the last.
    """

    name: str
    auc: float
    mean_return: float
    ahead: float
    margin: float


def compare(
    world: str | Path, interactions: str | Path, *, env: str = "recsim_llm/Music-v0", episodes: int = 400, seed: int = 0
) -> list[Verdict]:
    """Judges random, popularity and matrix factorisation by the log and by the world.

    Args:
        world: Folder of a world that was built with these interactions (``use="train"``, split seed 0).
        interactions: The log.
        env: The scenario whose rules are used.
        episodes: Users served in the world, one episode each, the same users with the same luck for all.
        seed: Seed of the factorisation, the random scores and the episodes.

    Returns:
        Verdicts, best in the world first.

    Raises:
        DataError: If the log does not belong to the world.
    """
    loaded = load_world(world)
    log, _ = read_interactions(interactions, loaded.catalog.item_id, loaded.population.user_id)
    test = split_log(log.user, log.item) == TEST
    if not test.any():
        raise DataError(f"{interactions}: no user has enough rows for a test part")
    liked = log.value >= float(loaded.metrics.get("held_out", {}).get("positive_from", 1.0))
    scores = fitted_scores(loaded, log, liked, ~test, seed)
    users = np.random.Generator(np.random.PCG64(seed)).permutation(len(loaded.population))[:episodes]
    returns = {name: serve(env, str(world), users, table[users], seed) for name, table in scores.items()}
    aucs = {
        name: user_ranking(log.user[test], liked[test], table[log.user[test], log.item[test]]).auc
        for name, table in scores.items()
    }
    return _verdicts(aucs, returns)


def fitted_scores(
    world: World, log: Interactions, liked: NDArray[np.bool_], train: NDArray[np.bool_], seed: int
) -> dict[str, NDArray[np.float64]]:
    """Scores of every user and item, [U, I], of each recommender, from the training rows alone."""
    rng = np.random.Generator(np.random.PCG64(seed))
    users, items = len(world.population), len(world.catalog)
    count = np.bincount(log.item[train], liked[train], items).astype(np.float64)
    model = Factors.start(users, items, FACTORS, rng)
    fit(
        model, log.user[train], log.item[train], log.value[train].astype(np.float64), epochs=EPOCHS, rate=RATE,
        shrink_bias=SHRINK_BIAS, shrink=SHRINK, rng=rng,
    )  # fmt: skip
    factorised = model.item_bias + (model.users * model.weights) @ model.items.T
    return {
        "random": rng.random((users, items)),
        "popularity": np.broadcast_to(count, (users, items)),
        "mf": factorised,
    }


def serve(
    env: str, world: str, users: NDArray[np.integer[Any]], scores: NDArray[np.float64], seed: int
) -> NDArray[np.float64]:
    """Returns [B] of users who are shown their items by falling score, none twice."""
    envs = gym.make_vec(env, num_envs=len(users), world=world, autoreset_mode="Disabled")
    envs.reset(seed=seed, options={"user": users.tolist()})
    slate_size: int = envs.unwrapped.slate_size  # type: ignore[attr-defined]
    order = np.argsort(-scores, axis=1, kind="stable")
    total, over, step = np.zeros(len(users)), np.zeros(len(users), np.bool_), 0
    while not over.all():
        places = np.arange(step * slate_size, (step + 1) * slate_size) % order.shape[1]
        actions = order[:, places]
        _, rewards, terminated, truncated, _ = envs.step(actions[:, 0] if slate_size == 1 else actions)
        total += rewards
        over |= terminated | truncated
        step += 1
    envs.close()
    return total


def _verdicts(aucs: Mapping[str, float], returns: Scores) -> list[Verdict]:
    names = sorted(returns, key=lambda name: -float(returns[name].mean()))
    found = []
    for name, below in zip(names, [*names[1:], None], strict=True):
        ahead, margin = float("nan"), float("nan")
        if below is not None:
            difference = returns[name] - returns[below]
            ahead = float(difference.mean())
            margin = float(Z_95 * difference.std(ddof=1) / np.sqrt(len(difference)))
        found.append(Verdict(name, float(aucs[name]), float(returns[name].mean()), ahead, margin))
    return found
