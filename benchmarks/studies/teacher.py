"""Distilling from a larger model: does a preference model learn what it says of personas that it has not seen?

    python -m recsim_llm.benchmarks.studies.teacher --data SUBER --movielens ML_LATEST_SMALL --out
    benchmarks/stored/teacher

The teacher's 240,425 ratings of films for 600 personas (SUBER, arXiv:2406.01631) are divided by persona: a quarter is
unseen, of the others a fifth chooses how personas are encoded. The bar to beat is the films' mean rating. Then the
small judge of this package and real people (ml-latest-small) are asked about the same films. Only numbers are written,
no rating and no text. Killed at any moment, the same command continues with the next division.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.benchmarks.studies.teacher_data import (
    PERSONAS,
    RATINGS,
    Films,
    People,
    Teacher,
    align,
    persona_text,
    read_films,
    read_teacher,
)
from recsim_llm.datasets import Interactions
from recsim_llm.encoders import (
    DEFAULT_ENCODER,
    encode_cached,
    load_text_encoder,
    split_personas,
)
from recsim_llm.files import write_file
from recsim_llm.fitting.agreement import agreement, limits, rounded
from recsim_llm.fitting.distillation_curve import PairSplit, learning_curve
from recsim_llm.fitting.distillation_model import fit_rating_model, item_means
from recsim_llm.metrics.rank_correlation import spearman
from recsim_llm.metrics.ranking import user_ranking
from recsim_llm.worlds.embedding_space import fit_projection, persona_profiles

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Say = Callable[[str], None]

WIDTH = 64
SIZES = (250, 1_000, 4_000, 20_000)
POSITIVE = 7.0
"""Of the teacher's ratings, 62 % are that high."""
AGES = (0, 13, 20, 35, 50, 65, 200)
CHOICE_ROWS, CHOICE_SWEEPS = 60_000, 8
FEWEST_PEOPLE = 10
"""Real ratings that a film needs to be compared by its mean."""


def components(values: NDArray[Any], width: int) -> Array:
    """Principal components of rows, [U, width], of mean square length one."""
    centred = np.asarray(values, np.float64) - np.mean(values, axis=0)
    left, scale, _ = np.linalg.svd(centred, full_matrices=False)
    found = np.zeros((len(centred), width))
    kept = min(width, len(scale))
    found[:, :kept] = left[:, :kept] * scale[:kept]
    return np.asarray(found / np.sqrt(np.mean(np.sum(found**2, axis=1))))


def encodings(teacher: Teacher, model: Any, projection: Any) -> dict[str, Array]:
    """Persona encodings that are tried, [U, 64] each; none of them looks at a rating."""
    said = [row["description"] for row in teacher.personas]
    age = np.array([float(row["age"]) for row in teacher.personas])
    bands = [(age >= low) & (age < high) for low, high in pairwise(AGES)]
    people = np.stack([*bands, np.array([row["gender"] == "M" for row in teacher.personas])], axis=1).astype(np.float64)
    people = np.concatenate([people, (age / 40)[:, None]], axis=1)
    statements = np.asarray(persona_profiles(model, split_personas(said, model), projection), np.float64)
    whole = encode_cached(model, [persona_text(row) for row in teacher.personas])
    beside = WIDTH - people.shape[1]
    known = components(people, people.shape[1])
    return {
        "statements with valences": statements,
        "whole text": components(whole, WIDTH),
        "demographics": components(people, WIDTH),
        "demographics and statements": np.concatenate([known, 0.5 * components(statements, beside)], axis=1),
        "demographics and whole text": np.concatenate([known, 0.5 * components(whole, beside)], axis=1),
    }


def split_ratings(teacher: Teacher, seed: int) -> tuple[PairSplit, Index]:
    """A quarter of the personas unseen, 15 % for choices; of the others' ratings a fifth held out. Rows of choices."""
    rng = np.random.Generator(np.random.PCG64([seed, 17]))
    people = rng.permutation(len(teacher.personas))
    away, choosing = people[: len(people) // 4], people[len(people) // 4 : len(people) * 2 // 5]
    outside, between = np.isin(teacher.user, away), np.isin(teacher.user, choosing)
    rows = rng.permutation(np.flatnonzero(~outside & ~between))
    held = len(rows) // 5
    return PairSplit(rows[held:], np.sort(rows[:held]), np.flatnonzero(outside)), np.flatnonzero(between)


def pick_encoding(
    log: Interactions, x: Array, tried: Mapping[str, Array], parts: PairSplit, rows: Index
) -> dict[str, Any]:
    """Agreement of each encoding on personas for choices, and the best."""
    train = parts.train[:CHOICE_ROWS]
    found = {}
    for name, p in tried.items():
        head = fit_rating_model(log.user[train], log.item[train], log.value[train], x, p, sweeps=CHOICE_SWEEPS)
        found[name] = rounded(spearman(head.score(log.user[rows], log.item[rows], x), log.value[rows]))
    means = item_means(log.item[train], log.value[train], len(x))
    best = max(found, key=lambda name: -1.0 if found[name] is None else float(found[name] or 0))
    return {"by_encoding": found, "item_means": rounded(spearman(means[log.item[rows]], log.value[rows])), "best": best}


def run_division(
    log: Interactions, teacher: Teacher, x: Array, tried: Mapping[str, Array], films: Films, people: People,
    path: Index, seed: int, sizes: Sequence[int], say: Say,
) -> dict[str, Any]:  # fmt: skip
    """One division of the personas: choice of the encoding, learning curve, agreement with real people."""
    parts, choosing = split_ratings(teacher, seed)
    choice = pick_encoding(log, x, tried, parts, choosing)
    say(f"division {seed}: {choice['best']} {choice['by_encoding'][choice['best']]} (means {choice['item_means']})")
    found, head = learning_curve(log, x, tried[choice["best"]], parts, POSITIVE, sizes, seed)
    last = found[-1]["unseen"]
    say(
        f"division {seed}: unseen personas, distilled {last['distilled']['spearman']}, "
        f"item means {last['item_means']['spearman']}, ahead {last['distilled']['ahead_interval']}"
    )
    train = parts.train
    means = item_means(log.item[train], log.value[train], len(x))
    scores = {"distilled_appeal": head.appeal, "teacher_means": means}
    return {
        "seed": seed,
        "choice": choice,
        "curve": found,
        "people": against_people(scores, films, people, path, seed),
    }


def against_people(scores: Mapping[str, Array], films: Films, people: People, path: Index, seed: int) -> dict[str, Any]:
    """Scores of films, [I], against real people: film by film, and in each person's own order."""
    count = films.count[path]
    real = films.mean[path]
    often = np.flatnonzero(count >= FEWEST_PEOPLE)
    place = np.full(int(max(films.number.max(), people.film.max())) + 1, -1)
    place[films.number[path]] = np.arange(len(path))
    rows = np.flatnonzero(place[people.film] >= 0)
    item, user, value = place[people.film[rows]], people.user[rows], people.value[rows]
    # A film's mean without this person's own rating: how far knowing what others think goes.
    total = np.bincount(item, value, len(path))
    size = np.bincount(item, minlength=len(path))
    middle = float(value.mean())
    others = (total[item] - value + 3 * middle) / (size[item] - 1 + 3)
    rng = np.random.Generator(np.random.PCG64([seed, 23]))
    out: dict[str, Any] = {"films": len(often), "ratings": len(rows), "people": len(np.unique(user))}
    for name, score in scores.items():
        drawn = [rng.integers(0, len(often), len(often)) for _ in range(200)]
        boot = np.array([spearman(score[often[d]], real[often[d]]) for d in drawn])
        auc = _auc_by_person(user, value, score[item], rng)
        out[name] = {"films_spearman": rounded(spearman(score[often], real[often])), "interval": limits(boot), **auc}
    out["other_peoples_means"] = _auc_by_person(user, value, others, rng)
    return out


def _auc_by_person(user: Index, value: Array, score: Array, rng: np.random.Generator) -> dict[str, Any]:
    """Mean over people of the chance that a film of 4 stars or more is scored above one of fewer."""
    order = np.argsort(user, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(user[order])) + 1)
    own = np.array([user_ranking(user[g], value[g] >= 4, score[g]).auc for g in groups])
    own = own[np.isfinite(own)]
    boot = own[rng.integers(0, len(own), (1_000, len(own)))].mean(axis=1)
    return {"auc": rounded(float(own.mean())), "auc_interval": limits(boot)}


def against_judge(
    name: str, count: int, log: Interactions, teacher: Teacher, x: Array, p: Array, films: Films, path: Index, say: Say
) -> dict[str, Any]:
    """The small judge's own agreement with the teacher, on unseen personas of the first division."""
    from recsim_llm.judges import Pair, load_judge
    from recsim_llm.judges.ratings import missing_share, rate_all

    parts, _ = split_ratings(teacher, 0)
    rng = np.random.Generator(np.random.PCG64(29))
    each = 6
    people = rng.permutation(np.unique(log.user[parts.unseen]))[: -(-count // each)]
    rows = np.concatenate([rng.permutation(parts.unseen[log.user[parts.unseen] == who])[:each] for who in people])
    rows = rows[:count]
    judge = load_judge(name)
    pairs = [Pair(persona_text(teacher.personas[log.user[r]]), films.text[path[log.item[r]]]) for r in rows]
    verdicts = rate_all(judge, pairs, None, say)
    value = np.array([verdict.rating for verdict in verdicts])
    there = np.isfinite(value)
    rows, value = rows[there], value[there]
    train = parts.train
    head = fit_rating_model(log.user[train], log.item[train], log.value[train], x, p)
    means = item_means(log.item[train], log.value[train], len(x))
    scores = {
        "judge": value, "item_means": means[log.item[rows]], "distilled": head.score(log.user[rows], log.item[rows], x)
    }  # fmt: skip
    found = agreement(log.user[rows], log.value[rows], scores, POSITIVE)
    people_mean = films.mean[path[log.item[rows]]]
    often = films.count[path[log.item[rows]]] >= FEWEST_PEOPLE
    with_real = {"pairs": int(often.sum()), "spearman": rounded(spearman(value[often], people_mean[often]))}
    share = missing_share(verdicts)
    return {"name": judge.name, "digest": judge.digest, "missing": share, "agreement": found, "people": with_real}


def study(
    data: Path, movielens: Path, out: Path, *, seeds: int = 5, sizes: Sequence[int] = SIZES, judge: str = "smollm2",
    judge_pairs: int = 300, say: Say = print,
) -> dict[str, Any]:  # fmt: skip
    """Runs what is not stored yet, and writes results.json and report.md."""
    teacher = read_teacher(data)
    films, people = read_films(movielens)
    digests = {f.name: _sha(f) for f in (data / RATINGS, data / PERSONAS, movielens / "ratings.csv")}
    settings: dict[str, Any] = {"encoder": DEFAULT_ENCODER, "width": WIDTH, "sizes": list(sizes), "data": digests}
    results = _stored(out, settings)
    path = align(teacher, films)
    if "alignment" not in results:
        results["alignment"] = _halves(teacher, films, path)
        say(f"alignment: {results['alignment']}")
    model = load_text_encoder(DEFAULT_ENCODER)
    texts = encode_cached(model, [films.text[row] for row in path])
    projection = fit_projection(texts, WIDTH)
    x = np.asarray(projection.apply(texts), np.float64)
    tried = encodings(teacher, model, projection)
    log = Interactions(teacher.user, teacher.item, teacher.value, "rating", np.zeros(len(teacher.value)))
    for seed in range(len(results["divisions"]), seeds):
        results["divisions"].append(run_division(log, teacher, x, tried, films, people, path, seed, sizes, say))
        _write(out, results)
    if judge_pairs and "judge" not in results:
        p = tried[results["divisions"][0]["choice"]["best"]]
        results["judge"] = against_judge(judge, judge_pairs, log, teacher, x, p, films, path, say)
    results["machine"] = {"python": platform.python_version(), "numpy": np.__version__, "machine": platform.machine()}
    _write(out, results)
    return results


def _halves(teacher: Teacher, films: Films, path: Index) -> dict[str, Any]:
    """Whether two halves of the personas, who share no rating, find the same films."""
    half = np.random.Generator(np.random.PCG64(31)).permutation(len(teacher.personas)) % 2
    one, other = (align(teacher, films, np.flatnonzero(half[teacher.user] == side)) for side in (0, 1))
    blind = align(teacher, dataclasses.replace(films, mean=np.zeros(len(films.mean))))
    return {
        "positions": len(path), "films": len(films.text), "left_out": len(films.text) - len(path),
        "halves_agree": rounded(float(np.mean(one == other))),
        "half_agrees_with_all": rounded(float(np.mean(one == path))),
        "without_real_means_agrees": rounded(float(np.mean(blind == path))),
    }  # fmt: skip


def _sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _stored(out: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Results of the same settings and data that are there already."""
    try:
        found: dict[str, Any] = json.loads((out / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {"settings": settings, "divisions": []}
    return found if found.get("settings") == settings else {"settings": settings, "divisions": []}


def _write(out: Path, results: dict[str, Any]) -> None:
    from recsim_llm.benchmarks.studies.teacher_report import report

    out.mkdir(parents=True, exist_ok=True)
    write_file(out / "results.json", (json.dumps(results, indent=1) + "\n").encode())
    write_file(out / "report.md", report(results).encode())


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m recsim_llm.benchmarks.studies.teacher", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the SUBER data set")
    parser.add_argument("--movielens", type=Path, required=True, help="folder of ml-latest-small")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--seeds", type=int, default=5, help="divisions of the personas")
    parser.add_argument("--small", action="store_true", help="two divisions, 30 pairs judged")
    parser.add_argument("--judge", default="smollm2", help="the small judge")
    parser.add_argument("--judge-pairs", type=int, default=300, help="pairs that it rates; 0 for none")
    given = parser.parse_args(arguments)
    study(
        given.data, given.movielens, given.out, seeds=2 if given.small else given.seeds,
        judge=given.judge, judge_pairs=min(given.judge_pairs, 30) if given.small else given.judge_pairs,
    )  # fmt: skip


if __name__ == "__main__":
    main()
