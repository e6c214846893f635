"""Covers of products: what they show can be seen, and is in no text. Taste for it: see test_images.py."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import struct
import sys
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from recsim_llm.errors import ConfigError, DataError, MissingExtraError
from recsim_llm.synthesis.build import SEED
from recsim_llm.synthesis.covers import SIDE, draw_cover, encode_png, pictograms
from recsim_llm.synthesis.visual_attributes import ATTRIBUTES, VisualAttributes, draw_visual_attributes
from recsim_llm.worlds.item_images import FILE, MOST_PIXELS, ItemImages, decode_png
from recsim_llm.worlds.world import BUILT_IN, World, load_world

needs_pillow = pytest.mark.skipif(
    importlib.util.find_spec("PIL") is None, reason="Pillow is not installed: pip install -e .[llm]"
)
needs_sklearn = pytest.mark.skipif(
    importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed: pip install -e .[llm]"
)


def generator(*seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


@pytest.fixture(scope="module")
def shop() -> World:
    return load_world("ecommerce")


@pytest.fixture(scope="module")
def looks(shop: World) -> list[VisualAttributes]:
    return draw_visual_attributes(len(shop.catalog), generator(SEED, 9))


@pytest.fixture(scope="module")
def pixels(shop: World) -> np.ndarray:
    return np.stack([shop.image(item) for item in range(len(shop.catalog))])  # [I, H, W, 3]


def column(looks: list[VisualAttributes], attribute: str) -> np.ndarray:
    return np.array([ATTRIBUTES[attribute].index(getattr(look, attribute)) for look in looks])


def nearest_mean(features: np.ndarray, label: np.ndarray) -> float:
    """Accuracy of the nearest class mean, fitted to the even rows and measured on the odd ones."""
    means = np.stack([features[::2][label[::2] == value].mean(axis=0) for value in range(label.max() + 1)])
    distance = ((features[1::2, None] - means[None]) ** 2).sum(axis=2)
    return float((distance.argmin(axis=1) == label[1::2]).mean())


def test_every_value_is_drawn_equally_often_and_independently() -> None:
    drawn = draw_visual_attributes(1_200, generator(5))
    for attribute, names in ATTRIBUTES.items():
        counts = Counter(getattr(look, attribute) for look in drawn)
        assert set(counts) == set(names)
        assert max(counts.values()) - min(counts.values()) <= 1
    pairs = Counter((look.colour, look.silhouette) for look in drawn)
    # chi-square of 30 cells with 40 expected each, 20 degrees of freedom, alpha = 1e-4: 52.4
    assert sum((count - 40) ** 2 / 40 for count in pairs.values()) + 40 * (30 - len(pairs)) < 52.4


@needs_pillow
def test_attributes_can_be_seen(pixels: np.ndarray, looks: list[VisualAttributes]) -> None:
    flat = pixels.astype(float)
    mean = flat.mean(axis=(1, 2))
    mean -= 0.95 * mean.min(axis=1, keepdims=True)  # hue and saturation more than how much paper is left
    share = mean / mean.sum(axis=1, keepdims=True)
    assert nearest_mean(share, column(looks, "colour")) > 0.95
    paper = np.abs(flat - flat[:, :1, :1]).max(axis=3) < 8  # the corner is paper
    assert nearest_mean(paper.reshape(len(flat), -1)[:, ::7].astype(float), column(looks, "silhouette")) > 0.95


@needs_pillow
@needs_sklearn
def test_pattern_and_style_can_be_seen(pixels: np.ndarray, looks: list[VisualAttributes]) -> None:
    """Patterns by a linear classifier on the spectrum, styles by one on the histogram of greys."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    grey = pixels.astype(float).mean(axis=3)
    middle = grey[:, 20:76, 20:76]
    spectrum = np.log1p(np.abs(np.fft.rfft2(middle - middle.mean(axis=(1, 2), keepdims=True))))
    histogram = np.stack([np.histogram(image, bins=24, range=(0, 256))[0] for image in grey]).astype(float)
    for features, attribute in ((spectrum.reshape(len(grey), -1), "pattern"), (histogram, "style")):
        label = column(looks, attribute)
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
        model.fit(features[::2], label[::2])
        assert model.score(features[1::2], label[1::2]) > 0.9, attribute


@needs_sklearn
@pytest.mark.parametrize("attribute", list(ATTRIBUTES))
def test_texts_do_not_tell(shop: World, looks: list[VisualAttributes], attribute: str) -> None:
    from sklearn.linear_model import LogisticRegression

    first, last = shop.catalog.blocks["text"]
    label, text = column(looks, attribute), shop.catalog.embedding[:, first:last]
    found = LogisticRegression(C=1.0, max_iter=500).fit(text[::2], label[::2]).score(text[1::2], label[1::2])
    chance = 1 / len(ATTRIBUTES[attribute])
    error = np.sqrt(chance * (1 - chance) / (len(text) // 2))
    assert abs(found - chance) < 4 * error  # a normal deviate, two-sided alpha 6e-5


def test_covers_are_what_the_drawing_makes(shop: World, looks: list[VisualAttributes]) -> None:
    """Whoever changes a drawing must rebuild: python -m recsim_llm.synthesis.build ecommerce."""
    assert set(pictograms()) == set(shop.catalog.topics)
    assert shop.catalog.image == [f"{item_id}.png" for item_id in shop.catalog.item_id]
    for item in range(0, len(shop.catalog), 60):
        drawn = draw_cover(shop.catalog.category[item], looks[item], generator(SEED, 12, item))
        assert drawn.shape == (SIDE, SIDE, 3)
        if importlib.util.find_spec("PIL") is not None:
            np.testing.assert_allclose(shop.image(item).astype(int), drawn.astype(int), atol=3)
    with pytest.raises(ConfigError, match=r"no pictogram of 'submarines'"):
        draw_cover("submarines", looks[0], generator(0))


@needs_pillow
@pytest.mark.parametrize("colours", [5, 4_000])
def test_png_round_trip(colours: int) -> None:
    rng = generator(colours)
    picture = rng.integers(0, 256, (colours, 3), dtype=np.uint8)[rng.integers(0, colours, (50, 70))]
    np.testing.assert_array_equal(decode_png(encode_png(picture)), picture)


def header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no PNG"),
        (b"GIF89a" + bytes(40), "no PNG"),
        (header(50_000, 50_000), "50000 x 50000 pixels"),
        (header(1_024, MOST_PIXELS // 1_024 + 1), "at most"),
        (header(96, 96) + bytes(2**20), "at most"),
        pytest.param(header(96, 96), "damaged", marks=needs_pillow),
        pytest.param(encode_png(np.zeros((9, 9, 3), np.uint8))[:60], "damaged", marks=needs_pillow),
    ],
)
def test_pictures_that_are_not_read(data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        decode_png(data)


def test_without_pillow(shop: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.delitem(sys.modules, "PIL.Image", raising=False)
    with pytest.raises(MissingExtraError, match=r"\.\[llm\]"):
        shop.image(0)


class TestFiles:
    @pytest.fixture
    def folder(self, shop: World, make_world, tmp_path: Path) -> Path:
        small = make_world()
        names = [f"{number}.png" for number in range(len(small.catalog))]
        files = {name: encode_png(np.full((4, 6, 3), number, np.uint8)) for number, name in enumerate(names[:-1])}
        catalog = dataclasses.replace(small.catalog, image=[*names[:-1], None])
        return dataclasses.replace(small, catalog=catalog, item_images=ItemImages(files)).save(tmp_path / "w")

    @needs_pillow
    def test_round_trip(self, folder: Path, tmp_path: Path) -> None:
        again = World.load(World.load(folder).save(tmp_path / "again"))
        assert (tmp_path / "again" / FILE).read_bytes() == (folder / FILE).read_bytes()
        assert again.image(3).shape == (4, 6, 3)
        assert (again.image(3) == 3).all()
        with pytest.raises(ConfigError, match="keeps no picture of item"):
            again.image(len(again.catalog) - 1)

    def test_altered_pictures_are_found_when_they_are_looked_at(self, folder: Path) -> None:
        path = folder / FILE
        data = bytearray(path.read_bytes())
        data[40] ^= 1
        path.write_bytes(bytes(data))
        world = World.load(folder)
        with pytest.raises(DataError, match="was altered"):
            world.image(0)

    def test_missing_file_and_link(self, folder: Path, tmp_path: Path) -> None:
        moved = (folder / FILE).rename(tmp_path / "elsewhere")
        for _ in range(2):
            with pytest.raises(DataError, match="missing or a link"):
                World.load(folder)
            if not (folder / FILE).is_symlink():
                (folder / FILE).symlink_to(moved)

    def test_other_tables_are_refused(self, tmp_path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        for number, table in enumerate((pa.table({"name": ["a"]}), pa.table({"name": ["a"], "png": ["text"]}))):
            path = tmp_path / f"{number}.parquet"
            pq.write_table(table, path)
            with pytest.raises(DataError, match="expected name"):
                ItemImages(path).png("a")
        (tmp_path / "no.parquet").write_bytes(b"PAR1")
        with pytest.raises(DataError, match="cannot be read as Parquet"):
            ItemImages(tmp_path / "no.parquet").png("a")

    def test_pictures_are_listed_only_where_they_are(self) -> None:
        for name in ("music", "news", "social", "ecommerce"):
            described = json.loads((BUILT_IN / name / "world.json").read_text())
            assert (FILE in described["files"]) == (name == "ecommerce") == (BUILT_IN / name / FILE).exists()
        with pytest.raises(ConfigError, match="keeps no picture"):
            load_world("news").image(0)
