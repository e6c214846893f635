"""The data sets of the study of a larger teacher: SUBER's personas and ratings, MovieLens' films and people.

SUBER's ratings name films by their position in a file that the data set does not hold. Its authors' script went through
the links of ml-latest-small in order and left out films without an overview, so positions rise with the rows of
``links.csv`` and a little more than a hundred films are missing somewhere. Which ones is found by alignment: the path
of least squares (Viterbi) through "this film" and "left out", where a film's genres have to fit who liked it and how
much. Personas are the rows of ``user_features_600.csv``.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.errors import DataError

Array = NDArray[np.float64]
Index = NDArray[np.int64]

PERSONAS, RATINGS = "user_features_600.csv", "llm_ratings_dataset_clean.csv"
PASSES = (0.125, 0.4, 1.0, 1.0)
"""Shares of the films, from the first on, that the passes of the alignment learn from: early ones hardly shift."""
_YEAR = re.compile(r"\((\d{4})")


@dataclass(frozen=True, eq=False)
class Films:
    """Films of MovieLens that have an id at TMDB, in the order of the links.

    Attributes:
        number: [M] MovieLens ids.
        text: [M] title, genres and people's tags.
        genres: [M, G] zeros and ones.
        mean: [M] mean of real people's ratings, shrunk by three ratings' worth.
        count: [M] number of real people's ratings.
        year: [M].
    """

    number: Index
    text: list[str]
    genres: Array
    mean: Array
    count: Array
    year: Array


@dataclass(frozen=True, eq=False)
class Teacher:
    """The ratings of the large model.

    Attributes:
        user: [N] rows of the personas.
        item: [N] positions of the films in SUBER's file.
        value: [N] ratings, 1 to 9 in the data.
        personas: Rows of the file of personas.
    """

    user: Index
    item: Index
    value: Array
    personas: list[dict[str, str]]


@dataclass(frozen=True, eq=False)
class People:
    """Ratings of real people: user, MovieLens id of the film, stars; [N] each."""

    user: Index
    film: Index
    value: Array


def rows_of(path: Path) -> Iterator[dict[str, str]]:
    """Rows of a CSV file with a header.

    Raises:
        DataError: If it is not there.
    """
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            yield from csv.DictReader(stream)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); name the folder that holds it") from error


def read_teacher(folder: Path) -> Teacher:
    """SUBER's personas and ratings, ordered by film."""
    found = [(int(r["user"]), int(r["item"]), float(r["rating"])) for r in rows_of(folder / RATINGS)]
    table = np.array(sorted(found, key=lambda row: row[1]), np.float64)
    personas = list(rows_of(folder / PERSONAS))
    if table.ndim != 2 or table[:, 0].max() >= len(personas):
        raise DataError(f"{folder}: {RATINGS} names a persona that {PERSONAS} does not have")
    return Teacher(table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), table[:, 2], personas)


def read_films(folder: Path) -> tuple[Films, People]:
    """Films with texts, and real people's ratings of them."""
    tags: dict[str, dict[str, None]] = {}
    for row in rows_of(folder / "tags.csv"):
        tags.setdefault(row["movieId"], {})[row["tag"]] = None
    links = {row["movieId"]: row["tmdbId"] for row in rows_of(folder / "links.csv")}
    ratings = [(int(r["userId"]), int(r["movieId"]), float(r["rating"])) for r in rows_of(folder / "ratings.csv")]
    table = np.array(ratings, np.float64)
    people = People(table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), table[:, 2])
    met: set[str] = set()
    kept = []
    for row in rows_of(folder / "movies.csv"):
        link = links.get(row["movieId"], "")
        if link and link not in met:
            met.add(link)
            kept.append(row)
    number = np.array([int(row["movieId"]) for row in kept], np.int64)
    size = int(max(number.max(), people.film.max())) + 1
    count = np.bincount(people.film, minlength=size)[number].astype(np.float64)
    total = np.bincount(people.film, people.value, size)[number]
    names = sorted({genre for row in kept for genre in row["genres"].split("|")})
    genres = np.array([[name in row["genres"].split("|") for name in names] for row in kept], np.float64)
    text = [_text(row, tags.get(row["movieId"], {})) for row in kept]
    year = np.array([int(found[1]) if (found := _YEAR.search(row["title"])) else 1990 for row in kept], np.float64)
    return Films(number, text, genres, (total + 3 * people.value.mean()) / (count + 3), count, year), people


def _text(row: dict[str, str], tags: dict[str, None]) -> str:
    return f"{row['title']}. {row['genres'].replace('|', ', ')}. {', '.join(tags)}".strip()


def align(teacher: Teacher, films: Films, rows: Index | None = None) -> Index:
    """For each of SUBER's positions the film, [I], rising.

    Args:
        teacher: The ratings.
        films: The films; a few more than there are positions.
        rows: Ratings that may be used; all if left out.

    Raises:
        DataError: If there are fewer films than positions.
    """
    positions = int(teacher.item.max()) + 1
    spare = len(films.text) - positions
    if spare < 0:
        raise DataError(f"{positions} films are rated and {len(films.text)} are in the links; these are other data")
    used = np.arange(len(teacher.item)) if rows is None else rows
    aligner = _Aligner(films, teacher.user[used], teacher.item[used], teacher.value[used], positions, spare)
    path = np.arange(positions)
    for share in PASSES:
        path = aligner.improved(path, share)
    return path


@dataclass(frozen=True, eq=False)
class _Aligner:
    films: Films
    user: Index
    item: Index
    value: Array
    positions: int
    spare: int

    def improved(self, path: Index, share: float) -> Index:
        """Learns who likes which genres from a share of the path, then finds the best path."""
        known = self.item < share * self.positions
        means, tastes, level = self._learnt(path, known)
        residual = self.value - level[self.user]
        count = np.maximum(np.bincount(self.item, minlength=self.positions), 1)
        within, between = self._cost(path, means, tastes, residual, count)
        first = int(share * self.positions)
        noise = max(float(within[:first].sum() / max(known.sum() - first, 1)), 1e-3)
        scale = max(float(np.mean(between[:first])), 1e-3)
        likely = np.empty((self.positions, self.spare + 1))
        for shift in range(self.spare + 1):
            moved = np.arange(self.positions) + shift
            within, between = self._cost(moved, means, tastes, residual, count)
            likely[:, shift] = -within / (2 * noise) - between / (2 * scale)
        left_out = np.log(0.02) - 0.5 * np.log1p(self.films.count)  # known films have an overview
        return np.arange(self.positions) + _best_path(likely, left_out)

    def _learnt(self, path: Index, known: NDArray[np.bool_]) -> tuple[Array, Array, Array]:
        """Expected mean of each film, [M]; genre weights of each user, [G, U]; users' levels, [U]."""
        users = int(self.user.max()) + 1
        user, item, value = self.user[known], self.item[known], self.value[known]
        size = np.maximum(np.bincount(item, minlength=self.positions), 1)
        item_mean = np.bincount(item, value, self.positions) / size
        own = value - item_mean[item]
        level = np.bincount(user, own, users) / (np.bincount(user, minlength=users) + 5)
        own = own - level[user]
        rated = np.unique(item)
        design = self._features()
        seen = design[path[rated]]
        weight = np.linalg.solve(seen.T @ seen + 5 * np.eye(seen.shape[1]), seen.T @ item_mean[rated])
        genres = self.films.genres - self.films.genres[path[rated]].mean(0)
        tastes = np.zeros((genres.shape[1], users))
        order = np.argsort(user, kind="stable")
        for rows in np.split(order, np.searchsorted(user[order], np.arange(1, users))):
            if len(rows):
                things = genres[path[item[rows]]]
                gram = things.T @ things + 10 * np.eye(genres.shape[1])
                tastes[:, user[rows[0]]] = np.linalg.solve(gram, things.T @ own[rows])
        return design @ weight, genres @ tastes, level

    def _features(self) -> Array:
        films = self.films
        known, loved = np.log1p(films.count), films.mean - films.mean.mean()
        columns = [np.ones(len(known)), loved, known, loved * known, (films.year - 1990) / 20]
        return np.concatenate([np.stack(columns, 1), films.genres], axis=1)

    def _cost(self, path: Index, means: Array, tastes: Array, residual: Array, count: Array) -> tuple[Array, Array]:
        """Squares around each position's own mean, and of that mean around the expected one; [I] each."""
        off = residual - tastes[path[self.item], self.user]
        middle = np.bincount(self.item, off, self.positions) / count
        within = np.bincount(self.item, off * off, self.positions) - count * middle**2
        return within, (middle - means[path]) ** 2


def _best_path(likely: Array, left_out: Array) -> Index:
    """Shifts [I], never falling, of the greatest sum of ``likely`` [I, S] and the films' logs of being left out."""
    positions, shifts = likely.shape
    passed = np.concatenate([[0.0], np.cumsum(left_out)])  # cost of leaving out films before this one
    back = np.zeros((positions, shifts), np.int64)
    value = passed[:shifts] + likely[0]
    for place in range(1, positions):
        # from shift s' to s the films place + s' .. place + s - 1 are left out
        base = value - passed[place : place + shifts]
        best = np.maximum.accumulate(base)
        back[place] = np.maximum.accumulate(np.where(base >= best, np.arange(shifts), 0))
        value = best + passed[place : place + shifts] + likely[place]
    value = value + passed[-1] - passed[positions : positions + shifts]
    out = np.empty(positions, np.int64)
    out[-1] = int(np.argmax(value))
    for place in range(positions - 1, 0, -1):
        out[place - 1] = back[place, out[place]]
    return out


def persona_text(row: dict[str, Any]) -> str:
    """A persona as a judge reads it."""
    kind = {"M": "man", "F": "woman"}.get(row["gender"], "person")
    return f"{row['name']}, {kind}, {row['age']} years old: {row['description']}"
