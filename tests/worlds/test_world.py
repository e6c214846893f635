"""Worlds as folders: whole or not at all, checked before use, nothing runs on loading."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

from recsim_llm.errors import ConfigError, DataError
from recsim_llm.testing import difference
from recsim_llm.worlds import world as module
from recsim_llm.worlds.catalog import Catalog
from recsim_llm.worlds.world import BUILT_IN, FILES, World, built_in_worlds, load_world


def contents(world: World) -> dict[str, Any]:
    """Everything in a world, as plain nested data and arrays."""
    parts = {field.name: getattr(world, field.name) for field in dataclasses.fields(world)}
    for name in ("catalog", "population"):
        parts[name] = dict(vars(parts[name]))
    return {
        **parts,
        "preference_model": dataclasses.asdict(world.preference_model),
        "projection": dict(world.projection),
    }


def resign(folder: Path) -> None:
    """Makes the manifest agree with files that were altered, as a forger would."""
    path = folder / "world.json"
    description = json.loads(path.read_text())
    description["files"] = {name: module._digest(folder / name) for name in FILES}
    path.write_text(json.dumps(description))


def rewrite(folder: Path, **changes: Any) -> None:
    path = folder / "world.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture
def full(make_world: Any) -> World:
    """A world that uses every field, with text that is hard to store."""
    world = make_world(items=12, users=9)
    catalog = dataclasses.replace(
        world.catalog,
        item_id=["007", "7", "1e5", "NA", "None", "true", " x ", "'", '"', "é", "e\u0301", "=1+1"],
        title=["a\nb", "", "\u202e", "日本", "x" * 5000, *world.catalog.title[5:]],
        image=["a/b.png", *[None] * 11],
    )
    return World(
        name="full", catalog=catalog, population=world.population, preference_model=world.preference_model,
        encoder={"id": "some/encoder", "digest": "abc", "width": 384},
        encoding={"item_text": "text", "profile_scale": 0.5},
        projection={"mean": np.arange(4, dtype=np.float32), "components": np.ones((8, 4), np.float32),
                    "scale": np.array([0.1], np.float32)},
        parameters={"drift": 0.05, "choice": "cascade"}, metrics={"auc": {"liked": 0.95}},
    )  # fmt: skip


@pytest.fixture
def folder(full: World, tmp_path: Path) -> Path:
    return full.save(tmp_path / "saved")


class TestRoundTrip:
    def test_everything_comes_back(self, full: World, folder: Path) -> None:
        again = World.load(folder)
        assert difference(contents(full), contents(again)) is None
        assert again.hash == full.hash == json.loads((folder / "world.json").read_text())["hash"]
        assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES, "world.json"])

    def test_saving_twice_gives_the_same_bytes(self, full: World, folder: Path, tmp_path: Path) -> None:
        World.load(folder).save(tmp_path / "again")
        for file in (*FILES, "world.json"):
            assert (tmp_path / "again" / file).read_bytes() == (folder / file).read_bytes()

    def test_half_precision(self, full: World, folder: Path, tmp_path: Path) -> None:
        small = World.load(full.save(tmp_path / "half", half=True))
        assert difference(contents(full.half()), contents(small)) is None
        assert small.hash == full.half().hash != full.hash
        np.testing.assert_allclose(small.catalog.embedding, full.catalog.embedding, atol=1e-3)
        np.testing.assert_array_equal(small.projection["components"], full.projection["components"])
        sizes = [(path / "arrays.safetensors").stat().st_size for path in (tmp_path / "half", folder)]
        assert sizes[0] < 0.7 * sizes[1]

    def test_arrays_cannot_be_written(self, folder: Path) -> None:
        world = World.load(folder)
        for array in (world.catalog.embedding, world.catalog.price, world.population.taste, world.population.bias):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 0

    def test_utility_is_the_formula(self, full: World) -> None:
        people, things = full.population, full.catalog
        for u, i in ((0, 0), (8, 11), (3, 7)):
            expected = full.preference_model.mu + people.bias[u] + things.appeal[i]
            expected += people.taste[u].astype(float) @ things.embedding[i] + people.factors[u] @ things.factors[i]
            assert full.utility(np.array([u]), np.array([i]))[0, 0] == pytest.approx(expected, rel=1e-5)


class TestHash:
    @pytest.mark.parametrize("part", ["embedding", "price", "released_at", "appeal", "factors", "quality", "clickbait"])
    def test_items(self, full: World, part: str) -> None:
        array = getattr(full.catalog, part).copy()
        array.flat[-1] = np.nextafter(array.flat[-1], np.float32(9))
        assert dataclasses.replace(full, catalog=dataclasses.replace(full.catalog, **{part: array})).hash != full.hash

    @pytest.mark.parametrize("part", ["profile", "taste", "factors", "bias", "price_sensitivity"])
    def test_users(self, full: World, part: str) -> None:
        array = getattr(full.population, part).copy()
        array.flat[-1] = np.nextafter(array.flat[-1], np.float32(9))
        people = dataclasses.replace(full.population, **{part: array})
        assert dataclasses.replace(full, population=people).hash != full.hash

    def test_text_head_and_parameters(self, full: World) -> None:
        variants = [
            dataclasses.replace(full, catalog=dataclasses.replace(full.catalog, text=["other"] * 12)),
            dataclasses.replace(full, population=dataclasses.replace(full.population, region=["north"] * 9)),
            dataclasses.replace(full, preference_model=dataclasses.replace(full.preference_model, mu=0.25)),
            dataclasses.replace(full, parameters={"drift": 0.06, "choice": "cascade"}),
        ]
        assert len({full.hash, *(variant.hash for variant in variants)}) == 5

    def test_measurements_do_not_count(self, full: World) -> None:
        assert dataclasses.replace(full, metrics={"auc": 0.1}).hash == full.hash

    def test_nor_does_how_texts_were_encoded(self, full: World) -> None:
        """Users live by the arrays that came of it; results that name a world by its hash keep it."""
        assert dataclasses.replace(full, encoding={"item_text": "category: text"}).hash == full.hash


class TestAltered:
    @pytest.mark.parametrize("file", FILES)
    def test_any_altered_byte_is_found(self, folder: Path, file: str) -> None:
        content = (folder / file).read_bytes()
        rng = np.random.Generator(np.random.PCG64(len(file)))
        places = {0, len(content) - 1, *rng.integers(0, len(content), 60).tolist()}
        for place in sorted(places):
            altered = bytearray(content)
            altered[place] ^= 1 << int(rng.integers(8))
            (folder / file).write_bytes(altered)
            with pytest.raises(DataError, match=f"{file} was altered"):
                World.load(folder)
        for changed in (content[:-1], content + b"\0", b""):
            (folder / file).write_bytes(changed)
            with pytest.raises(DataError, match=f"{file} was altered"):
                World.load(folder)

    @pytest.mark.parametrize("file", FILES)
    def test_missing_files_and_links(self, folder: Path, file: str, tmp_path: Path) -> None:
        kept = (folder / file).rename(tmp_path / "elsewhere")
        with pytest.raises(DataError, match=f"{file} is missing or a link"):
            World.load(folder)
        (folder / file).symlink_to(kept)
        with pytest.raises(DataError, match=f"{file} is missing or a link"):
            World.load(folder)

    def test_description(self, folder: Path) -> None:
        good = (folder / "world.json").read_bytes()
        for content in (b"", b"{", b"[]", b"nonsense", b'{"format": 2}', b"\xff\xfe", b"[" * 100_000):
            (folder / "world.json").write_bytes(content)
            with pytest.raises(DataError, match=r"world\.json is not a world's description"):
                World.load(folder)
        for change in ({"code": "import os"}, {"format": 2}, {"files": []}, {"format": True}):
            (folder / "world.json").write_bytes(good)
            rewrite(folder, **change)
            with pytest.raises(DataError, match=r"world\.json"):
                World.load(folder)
        (folder / "world.json").write_bytes(good)
        World.load(folder)

    def test_description_with_other_values(self, folder: Path) -> None:
        good = (folder / "world.json").read_bytes()
        changes: list[dict[str, Any]] = [
            {"items": 13}, {"users": 8}, {"items": "many"}, {"name": 5}, {"name": "other"}, {"preference_model": None},
            {"preference_model": {"kind": "x", "power": 1}}, {"parameters": {"drift": 0.9}},
            {"preference_model": {"kind": "zero_shot", "mu": "NaN", "noise": 0, "shares": {}}}, {"encoder": 3},
            {"parameters": [1]}, {"encoding": None}, {"encoding": "text"},
            {"files": {"items.parquet": None}}, {"files": {"items.parquet": {"size": 1}}}, {"hash": 5},
        ]  # fmt: skip
        for change in changes:
            (folder / "world.json").write_bytes(good)
            rewrite(folder, **change)
            with pytest.raises(DataError):
                World.load(folder)

    def test_a_forged_hash_is_found(self, folder: Path) -> None:
        """The content hash names what results were measured on: it must be that of the content."""
        rewrite(folder, hash="0" * 64)
        with pytest.raises(DataError, match="hash"):
            World.load(folder)


class TestForged:
    """The digests agree, yet the content is wrong: still one family of errors."""

    def arrays(self, folder: Path, **changes: Any) -> None:
        path = folder / "arrays.safetensors"
        arrays = load_file(path) | {name.replace("__", "."): array for name, array in changes.items()}
        save_file({name: array for name, array in arrays.items() if array is not None}, path)
        resign(folder)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"items__embedding": np.ones((11, 8), np.float32)}, "expected 12 rows"),
            ({"items__embedding": np.ones(12, np.float32)}, "expected|wide"),
            ({"items__embedding": np.full((12, 8), np.nan, np.float32)}, "not finite"),
            ({"items__embedding": np.ones((12, 300), np.float32)}, "300"),
            ({"items__price": np.ones((12, 2), np.float32)}, "price"),
            ({"users__taste": np.ones((9, 5), np.float32)}, "expected"),
            ({"items__factors": np.ones((12, 15), np.float32)}, "16 columns"),
            ({"items__quality": None}, "quality"),
            ({"users__bias": np.array(1, np.float32)}, "expected 9 rows"),
        ],
    )
    def test_arrays(self, folder: Path, change: dict[str, Any], words: str) -> None:
        self.arrays(folder, **change)
        with pytest.raises(DataError, match=words):
            World.load(folder)

    def test_safetensors_that_lie(self, folder: Path) -> None:
        path = folder / "arrays.safetensors"
        content = path.read_bytes()
        size = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + size])
        name = "items.embedding"
        lies: list[Any] = [
            {**header, name: {**header[name], "shape": [2**40, 2**20]}},
            {**header, name: {**header[name], "shape": [12, 9]}},
            {**header, name: {**header[name], "data_offsets": [0, 2**50]}},
            {**header, name: {**header[name], "dtype": "F128"}},
            {**header, name: {**header[name], "data_offsets": header["items.price"]["data_offsets"]}},
            [],
        ]
        forged = [
            len(text := json.dumps(lie).encode()).to_bytes(8, "little") + text + content[8 + size :] for lie in lies
        ]
        forged += [
            b"",
            b"\0" * 8,
            (2**62).to_bytes(8, "little") + content[8:],
            content[: 8 + size],
            b"\x80\x04." + content,
        ]
        for bad in forged:
            path.write_bytes(bad)
            resign(folder)
            with pytest.raises(DataError):
                World.load(folder)

    def test_tables(self, folder: Path) -> None:
        path = folder / "items.parquet"
        good = pq.read_table(path)
        shorter = good.slice(0, 5)
        twice = good.set_column(0, "item_id", pa.array(["same"] * 12))
        numbers = good.set_column(0, "item_id", pa.array(range(12)))
        holes = good.set_column(0, "item_id", pa.array([None] * 12, pa.string()))
        more = good.append_column("appeal", pa.array([1.0] * 12))
        for bad in (shorter, twice, numbers, holes, good.drop_columns(["title"]), more):
            pq.write_table(bad, path)
            resign(folder)
            with pytest.raises(DataError):
                World.load(folder)
        path.write_bytes(b"PAR1 nonsense PAR1")
        resign(folder)
        with pytest.raises(DataError, match="cannot be read as Parquet"):
            World.load(folder)

    @pytest.mark.parametrize("text", ["", "[", "{}", "[1]", '[["a"]]', '[["a", "b"]]', '[["a", 1, 2]]', "null"])
    def test_statements(self, folder: Path, text: str) -> None:
        path = folder / "users.parquet"
        table = pq.read_table(path)
        column = table.column_names.index("statements")
        pq.write_table(table.set_column(column, "statements", pa.array([text] * 9)), path)
        resign(folder)
        with pytest.raises(DataError):
            World.load(folder)


class TestSaving:
    def test_a_world_is_replaced_only_when_asked(self, full: World, folder: Path) -> None:
        other = dataclasses.replace(full, name="other")
        with pytest.raises(ConfigError, match="exists already"):
            other.save(folder)
        assert World.load(folder).name == "full"
        other.save(folder, overwrite=True)
        assert World.load(folder).name == "other"
        assert [path.name for path in folder.parent.iterdir()] == ["saved"]

    def test_other_folders_are_never_replaced(self, full: World, tmp_path: Path) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.txt").write_text("important")
        with pytest.raises(ConfigError, match="holds no world; it will not be overwritten"):
            full.save(tmp_path / "mine", overwrite=True)
        assert (tmp_path / "mine" / "thesis.txt").read_text() == "important"
        (tmp_path / "file").write_text("important")
        with pytest.raises(ConfigError):
            full.save(tmp_path / "file", overwrite=True)
        assert (tmp_path / "file").read_text() == "important"

    @pytest.mark.parametrize("fails", [1, 2, 3, 4])
    def test_a_failed_write_leaves_nothing(self, full: World, folder: Path, fails: int, monkeypatch: Any) -> None:
        calls = iter(range(1, 9))
        real = module.write_file

        def failing(path: Path, content: bytes) -> None:
            if next(calls) == fails:
                raise OSError(28, "No space left on device", str(path))
            real(path, content)

        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        monkeypatch.setattr(module, "write_file", failing)
        with pytest.raises(OSError, match="No space left"):
            dataclasses.replace(full, name="other").save(folder, overwrite=True)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
        assert [path.name for path in folder.parent.iterdir()] == ["saved"]

    def test_different_widths_are_refused(self, make_world: Any) -> None:
        narrow, wide = make_world(width=4), make_world(width=8)
        with pytest.raises(ConfigError, match="taste is 8 wide and items' embedding 4"):
            World(name="mixed", catalog=narrow.catalog, population=wide.population)


class TestNames:
    def test_unknown_names(self, tmp_path: Path) -> None:
        assert {"music", "news"} <= set(built_in_worlds())
        for load in (World.load, load_world):
            with pytest.raises(ConfigError, match=r"no world 'musik'\. Did you mean 'music'\? Known: .*music, news"):
                load("musik")
            with pytest.raises(ConfigError, match="recsim-llm world build"):
                load(tmp_path)

    @pytest.mark.parametrize("name", ["..", ".", "", "../worlds/music", "/etc", "music/../music"])
    def test_names_are_not_paths_into_the_package(self, name: str, tmp_path: Path, monkeypatch: Any) -> None:
        monkeypatch.chdir(tmp_path)
        for load in (World.load, load_world):
            with pytest.raises(ConfigError, match="no world"):
                load(name)

    @pytest.mark.parametrize("name", ["music", "news"])
    def test_built_in_worlds(self, name: str) -> None:
        world = World.load(name)
        assert world.name == name
        assert len(world.catalog) >= 1000
        assert len(world.population) >= 2000
        assert len(set(world.catalog.text)) == len(world.catalog)
        assert len(set(world.population.persona)) > 0.99 * len(world.population)
        assert "MiniLM" in world.encoder["id"]
        assert sum(path.stat().st_size for path in (BUILT_IN / name).iterdir()) < 2_500_000
        fresh = dataclasses.replace(world)  # without the stored hash
        assert fresh.hash == world.hash
        assert set(world.population.split("train")).isdisjoint(world.population.split("test"))
        shares = len(world.population.split("test")) / len(world.population)
        assert shares == pytest.approx(0.25, abs=0.03)

    def test_loaded_worlds_are_remembered_until_they_change(self, full: World, folder: Path) -> None:
        first = load_world(folder)
        assert load_world(str(folder)) is first
        dataclasses.replace(full, name="other").save(folder, overwrite=True)
        os.utime(folder / "world.json", ns=(1, 1))
        assert load_world(folder).name == "other"


class TestColumns:
    def test_catalogue(self, full: World) -> None:
        catalog = full.catalog
        for change, words in (
            ({"title": ["one"]}, "column title has 1 rows, item_id has 12"),
            ({"item_id": ["a"] * 12}, "item_id has duplicates"),
            ({"price": np.ones(3)}, r"price has shape \(3,\), expected \(12,\)"),
            ({"appeal": np.full(12, np.inf)}, "appeal has 12 values that are not finite"),
        ):
            with pytest.raises(ConfigError, match=words):
                dataclasses.replace(catalog, **change)
        public = catalog.public()
        assert not public.appeal.any()
        assert not public.factors.any()
        assert not public.quality.any()
        assert not public.clickbait.any()
        np.testing.assert_array_equal(public.embedding, catalog.embedding)
        assert public.text == catalog.text
        with pytest.raises(ConfigError, match="at least one item"):
            Catalog(
                [], [], [], [], [], *[np.zeros((0, 8))] * 1, *[np.zeros(0)] * 3, np.zeros((0, 16)), *[np.zeros(0)] * 2
            )

    def test_splits_depend_on_the_id_alone(self, make_world: Any) -> None:
        small, large = make_world(users=100), make_world(users=300)
        ids = {small.population.user_id[u] for u in small.population.split("test")}
        more = {large.population.user_id[u] for u in large.population.split("test")}
        assert ids == {user for user in more if int(user[1:]) < 100}
        with pytest.raises(ConfigError, match=r"no split of users 'tset'\. Did you mean 'test'"):
            small.population.split("tset")

    def test_given_arrays_are_copied(self, make_world: Any) -> None:
        appeal = np.zeros(60, np.float32)
        world = make_world(item_arrays={"appeal": appeal})
        appeal[0] = 5
        assert world.catalog.appeal[0] == 0


def test_worlds_move(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "moved")
    assert World.load(tmp_path / "moved").hash == World.load(folder).hash
