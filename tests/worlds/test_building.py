"""Worlds from people's own files: whole and traceable, or one sentence and nothing left behind."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pyarrow.parquet as pq
import pytest

from recsim_llm.datasets import ColumnNames, Limits
from recsim_llm.errors import ConfigError, DataError
from recsim_llm.fitting.heldout import TEST, split_log
from recsim_llm.metrics.ranking import user_ranking
from recsim_llm.worlds.build import build_world
from recsim_llm.worlds.world import World

THEMES = {
    "Western": "cowboy desert sheriff horse saloon frontier",
    "Space": "rocket planet alien orbit starship galaxy",
    "Love": "wedding kiss romance heart letter summer",
    "Crime": "murder detective police heist gangster trial",
}
WORDS = "old last small brave lost quiet broken golden red northern silent hidden".split()
MOVIELENS = os.environ.get("RECSIM_LLM_MOVIELENS")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSIM_LLM_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


def write(path: Path, rows: list[list[Any]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return path


def body(path: Path) -> list[list[str]]:
    return list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))[1:]


def films(folder: Path, count: int = 120, seed: int = 0) -> Path:
    """Looks like MovieLens' movies.csv."""
    rng = np.random.Generator(np.random.PCG64(seed))
    rows: list[list[Any]] = [["movieId", "title", "genres"]]
    for number in range(count):
        genre = list(THEMES)[number % 4]
        about = " ".join(rng.choice(THEMES[genre].split(), 3, replace=False))
        rows.append([f"{number:03}", f"The {rng.choice(WORDS)} {about} ({1950 + number % 70})", f"{genre}|Drama"])
    return write(folder / "movies.csv", rows)


def ratings(folder: Path, users: int = 60, count: int = 120, seed: int = 1) -> Path:
    """Looks like MovieLens' ratings.csv: each user loves one genre and hates one; good films are met more."""
    rng = np.random.Generator(np.random.PCG64(seed))
    quality = 0.5 * rng.standard_normal(count)
    rows: list[list[Any]] = [["userId", "movieId", "rating", "timestamp"]]
    chance = np.exp(0.8 * quality)
    for user in range(users):
        loved, hated = rng.permutation(4)[:2]
        for item in rng.choice(count, 30, replace=False, p=chance / chance.sum()):
            exact = 3.3 + quality[item] + 1.2 * (item % 4 == loved) - 1.2 * (item % 4 == hated)
            value = np.clip(np.round(2 * (exact + 0.6 * rng.standard_normal())) / 2, 0.5, 5)
            rows.append([user + 1, f"{item:03}", value, 964982703 + len(rows)])
    return write(folder / "ratings.csv", rows)


def people(folder: Path, count: int = 12) -> Path:
    rows: list[list[Any]] = [["user_id", "persona", "statements", "gender"]]
    names = list(THEMES)
    for number in range(count):
        loved, hated = names[number % 4], names[(number + 1) % 4]
        said = [[THEMES[loved], 1], [THEMES[hated], -1]]
        rows.append([f"u{number}", "", json.dumps(said), "f" if number % 2 else "m"])
    return write(folder / "users.csv", rows)


def build(items: Path, *rest: Path | None, **options: Any) -> World:
    options = {"encoder": "hashing", "width": 16, "text_columns": ["title", "genres"], **options}
    return build_world(items, *rest, **options)


# --------------------------------------------------------------------------------------------------------- whole worlds


def test_a_world_from_items_alone_has_drawn_users(tmp_path: Path) -> None:
    world = build(films(tmp_path), out=tmp_path / "world", n_users=50)
    assert len(world.population) == 50
    assert world.catalog.item_id[:2] == ["000", "001"]
    assert world.catalog.category[:4] == list(THEMES)
    assert world.preference_model.kind == "zero_shot"
    assert not world.population.profile.any()
    assert world.population.taste.std() > 0
    loaded = World.load(tmp_path / "world")
    assert loaded.hash == world.hash
    np.testing.assert_array_equal(loaded.catalog.embedding, world.catalog.embedding)
    assert loaded.name == "world"
    assert loaded.encoder["id"] == "hashing"


def test_personas_like_what_they_say_they_like(tmp_path: Path) -> None:
    world = build(films(tmp_path), people(tmp_path), out=tmp_path / "world")
    genre = np.arange(len(world.catalog)) % 4
    match = world.population.profile @ world.catalog.embedding.T
    for user in range(len(world.population)):
        mean = [match[user, genre == k].mean() for k in range(4)]
        assert int(np.argmax(mean)) == user % 4
        assert int(np.argmin(mean)) == (user + 1) % 4
    stored = pq.read_table(tmp_path / "world" / "users.parquet").to_pydict()
    assert json.loads(stored["statements"][0]) == [[THEMES["Western"], 1.0], [THEMES["Space"], -1.0]]
    assert stored["gender"][:2] == ["m", "f"]


def test_free_text_is_split_by_stance_and_shown(tmp_path: Path) -> None:
    said = "I love rockets and planets. I hate weddings, and I skip anything with a kiss."
    users = write(
        tmp_path / "users.csv", [["user_id", "persona", "statements"], ["a", said, ""], ["b", said, '[["galaxy", 1]]']]
    )
    build(films(tmp_path), users, out=tmp_path / "world")
    shown = [json.loads(cell) for cell in pq.read_table(tmp_path / "world" / "users.parquet")["statements"].to_pylist()]
    assert shown[0][0][0] == "I love rockets and planets"
    assert all(-1 <= valence <= 1 for _, valence in shown[0])
    assert shown[0][0][1] > 0 > shown[0][1][1]
    assert shown[1] == [["galaxy", 1.0]]


def test_corrected_statements_can_be_read_back(tmp_path: Path) -> None:
    items = films(tmp_path)
    world = build(items, people(tmp_path), out=tmp_path / "world")
    again = build(items, tmp_path / "world" / "users.parquet", out=tmp_path / "again")
    np.testing.assert_array_equal(again.population.profile, world.population.profile)
    assert again.population.statements == world.population.statements


def test_ratings_make_a_calibrated_world_in_the_order_of_held_out_ratings(tmp_path: Path) -> None:
    world = build(films(tmp_path), None, ratings(tmp_path), out=tmp_path / "world")
    held_out = World.load(tmp_path / "world").metrics["held_out"]
    auc = held_out["auc"]
    assert world.preference_model.kind == "calibrated"
    assert auc["full"] > auc["item_means"] + 0.03
    assert auc["full"] > auc["popularity"] > auc["random"]
    assert auc["factors"] > auc["popularity"]
    assert world.population.user_id[:3] == ["1", "2", "3"]
    assert not world.population.profile.any()
    assert not world.catalog.quality.any()
    table = np.array(body(tmp_path / "ratings.csv"))
    user, item = table[:, 0].astype(np.int64) - 1, table[:, 1].astype(np.int64)
    unseen = split_log(user, item) == TEST
    score = world.utility(np.arange(60), np.arange(120))[user, item].astype(float)
    found = user_ranking(user[unseen], table[unseen, 2].astype(float) >= 4, score[unseen])
    assert found.auc == pytest.approx(auc["full"], abs=2e-3)


def test_users_and_ratings_together_keep_the_order_of_the_file_of_users(tmp_path: Path) -> None:
    rows: list[list[Any]] = [["user_id", "statements"]]
    rows += [[number + 1, json.dumps([["cowboy desert", 1]]) if number % 2 else ""] for number in range(70)]
    users = write(tmp_path / "people.csv", rows[:1] + rows[:0:-1])
    world = build(films(tmp_path), users, ratings(tmp_path), out=None)
    assert world.population.user_id[0] == "70"
    assert len(world.population) == 70
    assert world.population.taste[:10].std() > 0  # users without a rating are drawn


def test_items_without_categories_get_themes_named_by_words(tmp_path: Path) -> None:
    rows = [["item_id", "text"], *([row[0], f"{row[1]} {row[2].split('|')[0]}"] for row in body(films(tmp_path)))]
    world = build(write(tmp_path / "items.csv", rows), text_columns=None, out=None)
    assert 2 <= len(world.catalog.topics) <= 24
    marks = " ".join(THEMES.values()).split()
    assert any(word in topic for topic in world.catalog.topics for word in marks)
    assert build(tmp_path / "items.csv", text_columns=None, out=None).hash == world.hash


def test_prices_pictures_and_dates_arrive(tmp_path: Path) -> None:
    (tmp_path / "cover.png").write_bytes(b"png")
    rows = [
        ["text", "price", "image", "released_at"],
        ["a boat", 3, "cover.png", "2020-01-01"],
        ["a car", 9, "", "2020-01-02"],
    ]
    world = build(write(tmp_path / "items.csv", rows), text_columns=None, out=tmp_path / "world", n_users=9)
    assert world.catalog.price.tolist() == [3, 9]
    assert world.catalog.released_at.tolist() == [-1, 0]
    assert world.catalog.image == [os.path.join("..", "cover.png"), None]
    assert (tmp_path / "world" / str(world.catalog.image[0])).resolve() == tmp_path.resolve() / "cover.png"
    assert (world.population.price_sensitivity > 0).all()


def test_the_same_files_make_the_same_world(tmp_path: Path) -> None:
    items, log = films(tmp_path), ratings(tmp_path)
    first, second = (build(items, None, log, out=None, name="w") for _ in range(2))
    assert first.hash == second.hash
    assert build(items, None, log, out=None, name="w", seed=1).hash != first.hash


def test_tags_change_the_texts(tmp_path: Path) -> None:
    tags = write(tmp_path / "tags.csv", [["userId", "movieId", "tag"], ["1", "000", "Spaghetti"]])
    assert build(films(tmp_path), out=None, tags=tags).catalog.text[0].endswith("spaghetti.")


# ------------------------------------------------------------------------------------------------------------ bad input


def bad_cases(folder: Path) -> dict[str, tuple[dict[str, Any], list[str]]]:
    """Name of a case: arguments of build_world, and what the message must hold."""
    (folder / "sub").mkdir()
    (folder / "secret.png").write_bytes(b"png")
    (folder / "sub" / "link.png").symlink_to(folder / "secret.png")
    good = {"items": films(folder), "users": people(folder), "interactions": ratings(folder)}

    def items(name: str, rows: list[list[Any]]) -> dict[str, Any]:
        return {"items": write(folder / "sub" / name, rows), "text_columns": None}

    latin = folder / "latin.csv"
    latin.write_bytes("text\nok\nd\u00e9j\u00e0 vu\n".encode("latin-1"))
    strange = write(folder / "strange.csv", [["userId", "movieId", "rating"], ["u0", "000", 4], ["u1", "999", 4]])
    return {
        "missing column": ({"items": good["items"], "text_columns": None}, ["movies.csv", "row 1", '"text"']),
        "empty text": (items("a.csv", [["id", "text"], [1, "a"], [2, ""]]), ["a.csv, row 3", '"text"']),
        "duplicate ids": (items("b.csv", [["id", "text"], [1, "a"], [1, "b"]]), ["b.csv, row 3", '"id"', "row 2"]),
        "NaN": (items("c.csv", [["text", "price"], ["a", "nan"]]), ["c.csv, row 2", '"price"', "'nan'"]),
        "wrong encoding": ({"items": latin, "text_columns": None}, ["latin.csv, row 3", "0xe9", "UTF-8"]),
        "image through ..": (
            items("d.csv", [["text", "image"], ["a", "../secret.png"]]),
            ["row 2", '"image"', "outside"],
        ),
        "image through a link": (
            items("e.csv", [["text", "image"], ["a", "link.png"]]),
            ["row 2", '"image"', "outside"],
        ),
        "unknown item": ({**good, "interactions": strange}, ["strange.csv, row 3", '"movieId"', "'999'"]),
        "unknown user": ({**good, "users": people(folder)}, ["ratings.csv, row 2", '"userId"', "'1'"]),
        "limit": ({**good, "limits": Limits(rows=5)}, ["movies.csv", "rows=..."]),
    }


CASES = [
    *(
        "missing column",
        "empty text",
        "duplicate ids",
        "NaN",
        "wrong encoding",
        "image through ..",
        "image through a link",
    ),
    *("unknown item", "unknown user", "limit"),
]


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_sentence_and_leaves_nothing_behind(tmp_path: Path, case: str) -> None:
    arguments, parts = bad_cases(tmp_path)[case]
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError) as caught:
        build(
            arguments.pop("items"),
            arguments.pop("users", None),
            arguments.pop("interactions", None),
            out=tmp_path / "w",
            **arguments,
        )
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_error_while_saving_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = films(tmp_path)
    build(items, out=tmp_path / "old", n_users=5)
    kept = World.load(tmp_path / "old").hash
    before = sorted(path for path in tmp_path.rglob("*"))

    def fail(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.numpy.save", fail)
    for target, overwrite in (("new", False), ("old", True)):
        with pytest.raises(OSError, match="No space"):
            build(items, out=tmp_path / target, n_users=6, overwrite=overwrite)
    assert sorted(tmp_path.rglob("*")) == before
    assert World.load(tmp_path / "old").hash == kept


def test_what_exists_is_not_overwritten_unasked(tmp_path: Path) -> None:
    items = films(tmp_path)
    first = build(items, out=tmp_path / "world", n_users=5)
    with pytest.raises(ConfigError, match="exists already"):
        build(items, out=tmp_path / "world", n_users=6)
    second = build(items, out=tmp_path / "world", n_users=6, overwrite=True)
    assert World.load(tmp_path / "world").hash == second.hash != first.hash
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="holds no world"):
        build(items, out=precious, overwrite=True)
    assert (precious / "thesis.txt").read_text() == "years of work"
    with pytest.raises(ConfigError, match="is not a folder"):
        build(items, out=tmp_path / "none" / "world")


def test_arguments_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    items = films(tmp_path)
    with pytest.raises(ConfigError, match="width=300"):
        build(items, out=None, width=300)
    with pytest.raises(ConfigError, match="n_users=0"):
        build(items, out=None, n_users=0)
    with pytest.raises(ConfigError, match="no column role 'label'"):
        build(items, out=None, columns=ColumnNames(items={"label": "title"}))


@pytest.mark.skipif(MOVIELENS is None, reason="RECSIM_LLM_MOVIELENS names no folder of ml-latest-small")
def test_movielens_becomes_a_world(tmp_path: Path) -> None:
    folder = Path(str(MOVIELENS))
    world = build(
        folder / "movies.csv",
        None,
        folder / "ratings.csv",
        out=tmp_path / "films",
        width=64,
        encoder="all-MiniLM-L6-v2",
    )
    auc = world.metrics["held_out"]["auc"]
    assert auc["full"] > auc["item_means"] + 0.03
    assert len(World.load(tmp_path / "films").population) == 610


def test_items_without_dates_stay_on_the_shelf(tmp_path):
    (tmp_path / "items.csv").write_text("text\n" + "".join(f"a text about thing {n}\n" for n in range(30)))
    (tmp_path / "users.csv").write_text("user_id,persona\n" + "".join(f"u{n},I like things.\n" for n in range(9)))
    world = build_world(tmp_path / "items.csv", tmp_path / "users.csv", out=tmp_path / "w", encoder="hashing", width=8)
    assert world.parameters == {"freshness": 0.0, "shelf_life": 0.0}
    env = gym.make("recsim_llm/News-v0", world=str(tmp_path / "w")).unwrapped
    env.reset(seed=0)
    state = env.get_state()
    state["lane"]["clock"] = 40 * 86400
    env.set_state(state)
    assert env.available().all()
