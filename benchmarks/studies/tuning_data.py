"""Data of the study of fine-tuned encoders: a folder of ratings, or interactions in a built-in world."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from recsim_llm.encoders.finetune.data import Engagements
from recsim_llm.errors import ConfigError, DataError
from recsim_llm.fitting.heldout import TEST, VALIDATION, split_log
from recsim_llm.metrics.ranking import ndcg, recall, recall_at, top_k

Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]

LEAST_LIKED = 20
"""Fewest liked items of a user of the study."""

COLD = 0.15
"""Share of the items that are held out with everything that was done with them."""

POPULARITY = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 10.0)
"""Weights of log(1 + times liked) beside the similarity, from none to little else; the validation part chooses."""

RIDGES = (20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
"""Penalties of EASE; the validation part chooses."""

DEPTH = 20
LANES = 64
CUT = 7


@dataclass(frozen=True, eq=False)
class Data:
    """Texts of I items and what U users did with them.

    Attributes:
        name: What it is.
        texts: [I].
        users: U.
        data: Who engaged with what.
    """

    name: str
    texts: list[str]
    users: int
    data: Engagements

    @property
    def digest(self) -> str:
        """SHA-256 over texts and meetings."""
        state = hashlib.sha256("\n".join(self.texts).encode())
        for column in (self.data.user, self.data.item, *self.data.values.values()):
            state.update(np.ascontiguousarray(column).tobytes())
        return state.hexdigest()


def from_folder(folder: str | Path, items: int, users: int) -> Data:
    """Reads movies.csv, ratings.csv and, if there, tags.csv, as MovieLens has them; or items.csv and interactions.csv.

    Args:
        folder: The folder.
        items: Most items: those with most interactions.
        users: Most users, drawn from those with 20 liked items or more.

    Raises:
        ConfigError: If the files are not there.
    """
    from recsim_llm.datasets import read_interactions, read_items

    source, tags = Path(folder), Path(folder) / "tags.csv"
    found = [pair for pair in (("movies.csv", "ratings.csv"), ("items.csv", "interactions.csv"))
             if all((source / name).is_file() for name in pair)]  # fmt: skip
    if not found:
        raise ConfigError(f"{source} holds neither movies.csv and ratings.csv nor items.csv and interactions.csv")
    columns = ["title", "genres"] if found[0][0] == "movies.csv" else None
    things = read_items(source / found[0][0], text_columns=columns, tags=tags if tags.is_file() else None)
    log, _ = read_interactions(source / found[0][1], things.item_id, drop_unknown=True)
    return subsample(source.name, things.text, Engagements.of(log), items, users)


def from_world(env: str, items: int, users: int, steps: int, seed: int = 100) -> Data:
    """What training users of a built-in world did with uniform random slates; training users and no others.

    Args:
        env: Id of the environment.
        items: Most items.
        users: Most users.
        steps: Steps of users.
        seed: Seed of the environment and of the slates.
    """
    from recsim_llm import agents
    from recsim_llm.agents.common.interaction_log import LogBook

    agent = agents.make("random", gym.make_vec(env, num_envs=LANES, users="train"), seed=seed)
    agent.runner.reset(seed=seed)
    book = LogBook()
    for _ in range(-(-steps // LANES)):
        book.add(agent.interact())
    log = book.log
    texts = list(agent.env_spec.catalog.text)
    return subsample(env, texts, Engagements(log.user, log.item, {"click": log.click}), items, users, least=4)


def subsample(name: str, texts: list[str], data: Engagements, items: int, users: int, least: int = LEAST_LIKED) -> Data:
    """The most popular items, and some of the users who liked enough of them."""
    kept = np.argsort(-np.bincount(data.item, minlength=len(texts)), kind="stable")[:items]
    column = np.full(len(texts), -1)
    column[np.sort(kept)] = np.arange(len(kept))
    data = data[column[data.item] >= 0]
    liked = np.bincount(data.user[data.liked("click")], minlength=int(data.user.max(initial=0)) + 1)
    who = np.flatnonzero(liked >= least)
    who = np.sort(np.random.Generator(np.random.PCG64(CUT)).permutation(who)[:users])
    row = np.full(len(liked), -1)
    row[who] = np.arange(len(who))
    data = data[row[data.user] >= 0]
    made = Engagements(row[data.user], column[data.item], data.values, data.positive)
    return Data(name, [texts[item] for item in np.sort(kept)], len(who), made)


@dataclass(frozen=True, eq=False)
class Split:
    """One division of the data by a seed.

    Attributes:
        train: [N] meetings that are tuned on.
        seen: [U, I] what stands in them, liked or not.
        history: [U, I] 1 for what was liked there.
        validation: [U, I] liked, held out to weigh popularity.
        test: [U, I] liked, held out, of items that others' training meetings name.
        cold: [I] items of which no meeting is tuned on.
        liked_cold: [U, I] of those, what was liked.
    """

    train: Flags
    seen: Flags
    history: Floats
    validation: Flags
    test: Flags
    cold: Flags
    liked_cold: Flags

    @classmethod
    def of(cls, data: Data, seed: int) -> Split:
        """Draws cold items, and the test and validation rows of each user."""
        user, item, count = data.data.user, data.data.item, len(data.texts)
        cold = np.zeros(count, np.bool_)
        rng = np.random.Generator(np.random.PCG64([seed, 5]))
        cold[rng.permutation(count)[: round(count * COLD)]] = True
        part = split_log(user, item, seed=seed)
        liked, train = data.data.liked("click"), (part != TEST) & (part != VALIDATION) & ~cold[item]

        def table(rows: Flags) -> Flags:
            flags = np.zeros((data.users, count), np.bool_)
            flags[user[rows], item[rows]] = True
            return flags

        return cls(
            train, table(train), table(train & liked).astype(np.float64),
            table((part == VALIDATION) & liked & ~cold[item]), table((part == TEST) & liked & ~cold[item]), cold,
            table(liked & cold[item]),
        )  # fmt: skip


def ranking_quality(encodings: NDArray[np.floating], split: Split) -> dict[str, float]:
    """Recall and NDCG at 20 of the similarity to the mean of what a user liked.

    Args:
        encodings: [I, E] unit vectors of the items.
        split: What is held out.

    Returns:
        "recall" and "ndcg" among the items that are not cold and were not seen; "recall_popular" and "ndcg_popular"
        with popularity beside the similarity; "recall_cold" and "ndcg_cold" among the cold items.

    Raises:
        DataError: If nothing is held out.
    """
    vectors = np.asarray(encodings, np.float64)
    users = split.history @ vectors
    alike = (users / np.maximum(np.linalg.norm(users, axis=1, keepdims=True), 1e-9)) @ vectors.T
    popular = np.log1p(split.history.sum(0))
    known = split.history.any(1)
    checked, tested = (known & part.any(1) for part in (split.validation, split.test))
    open_items = ~split.seen & ~split.cold
    tested_cold = known & split.liked_cold.any(1)
    if not (tested.any() and tested_cold.any()):
        raise DataError("nothing that a user liked is held out: take more users, more items or a longer log")
    weight = (
        0.0
        if not checked.any()
        else max(
            POPULARITY,
            key=lambda w: recall_at(
                (alike + w * popular)[checked], split.validation[checked], DEPTH, open_items[checked]
            ),
        )
    )
    found: dict[str, Any] = {"popularity": weight}
    open_items &= ~split.validation
    for name, scores in (("", alike), ("_popular", alike + weight * popular)):
        ranked = top_k(scores[tested], DEPTH, open_items[tested])
        found[f"recall{name}"] = float(recall(ranked, split.test[tested]).mean())
        found[f"ndcg{name}"] = float(ndcg(ranked, split.test[tested]).mean())
    wanted = split.liked_cold[tested_cold][:, split.cold]
    ranked = top_k(alike[tested_cold][:, split.cold], min(DEPTH, int(split.cold.sum())))
    found["recall_cold"], found["ndcg_cold"] = float(recall(ranked, wanted).mean()), float(ndcg(ranked, wanted).mean())
    return found


def references(split: Split) -> dict[str, dict[str, float]]:
    """Recall and NDCG at 20 of recommenders that read no text, on the rows of :func:`measured`.

    "popularity" ranks by how often an item was liked, the same for everybody; "ease" is Steck (2019), with the penalty
    of :data:`RIDGES` that the validation part prefers.
    """
    from recsim_llm.agents.logged.ease import weights

    liked = split.history
    known = liked.any(1)
    checked = np.flatnonzero(known & split.validation.any(1))
    tested = np.flatnonzero(known & split.test.any(1))
    open_items = ~split.seen & ~split.cold

    choices: Sequence[Floats] = [liked @ weights(liked.T @ liked, ridge) for ridge in RIDGES]
    best = choices[0]
    if checked.size:
        wanted, where = split.validation[checked], open_items[checked]
        best = max(choices, key=lambda scores: recall_at(scores[checked], wanted, DEPTH, where))
    open_items &= ~split.validation
    found = {}
    for name, scores in (("popularity", np.tile(liked.sum(0), (len(liked), 1))), ("ease", best)):
        ranked = top_k(scores[tested], DEPTH, open_items[tested])
        wanted = split.test[tested]
        found[name] = {"recall": float(recall(ranked, wanted).mean()), "ndcg": float(ndcg(ranked, wanted).mean())}
    return found
