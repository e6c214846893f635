"""Recommenders on text and images: the models against brute force, what modalities leave out, and the study."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray

from recsim_llm import agents
from recsim_llm.agents.logged.vbpr_steps import VisualFactors, ascend_visual
from recsim_llm.agents.neural.cross_modal import columns_of, first_seen, pooled
from recsim_llm.benchmarks.studies import crossmodal
from recsim_llm.benchmarks.studies.crossmodal_report import interval, results, to_markdown
from recsim_llm.errors import ConfigError, DataError, RefusedError

torch = pytest.importorskip("torch", reason='needs torch: pip install -e ".[agents]"')

NAMES = ["siamese", "joint", "vbpr"]
Make = Callable[..., Any]


def stream(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


@pytest.fixture(scope="module")
def folder(make_world: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A world of 120 items whose users have a taste for text and for images, and say so."""
    rng = stream(0)
    profile = rng.normal(size=(240, 8))
    world = make_world(
        120, 240, plain=True, noise=0.5,
        user_arrays={"profile": profile / np.abs(profile).max(), "taste": 1.5 * profile},
    )  # fmt: skip
    embedding, blocks = rng.uniform(-1.0, 1.0, (120, 8)), {"text": (0, 4), "image": (4, 8)}
    price = np.ones(120, np.float32)
    catalog = dataclasses.replace(world.catalog, embedding=embedding, blocks=blocks, price=price)
    world = dataclasses.replace(world, catalog=catalog)
    return str(world.save(tmp_path_factory.mktemp("worlds") / "blocks"))


@pytest.fixture(scope="module")
def build(folder: str) -> Make:
    """Makes an agent on that world, or on another."""

    def made(name: str, *, world: str = folder, lanes: int = 4, seed: int = 0, **config: Any) -> Any:
        env = gym.make_vec(
            "recsim_llm/Ecommerce-v0", num_envs=lanes, world=world, slate_size=5, users="train", horizon=25,
            reward={"click": 1.0},
        )  # fmt: skip
        return agents.make(name, env, seed=seed, **config)

    return made


@pytest.fixture(scope="module")
def learnt(build: Make) -> dict[str, Any]:
    """One of each that has learnt a little."""
    return {name: build(name).learn(1_000) for name in NAMES}


class TestVBPR:
    """Gradient ascent against autograd and a plain loop."""

    RATE, SHRINK, SHRINK_VISUAL = 0.05, 0.02, 0.03

    @staticmethod
    def model() -> tuple[VisualFactors, NDArray[np.float64]]:
        rng = stream(1)
        model = VisualFactors.blank(5, 7, 3, 4, 6)
        for table in vars(model).values():
            table[...] = rng.normal(0.0, 0.5, table.shape)
        return model, rng.normal(size=(7, 6))

    def ascend(self, model: VisualFactors, contents: NDArray[np.float64], triples: NDArray[np.int64]) -> None:
        ascend_visual(
            *triples.T.copy(), contents, model.users, model.items, model.bias, model.tastes, model.projection,
            model.visual_bias, np.zeros(6), np.zeros(4), self.RATE, self.SHRINK, self.SHRINK_VISUAL,
        )  # fmt: skip

    def test_one_step_is_the_gradient(self) -> None:
        model, contents = self.model()
        names = list(vars(model))
        before = {name: torch.tensor(getattr(model, name), requires_grad=True) for name in names}
        u, i, j = 2, 1, 5
        f = torch.tensor(contents)

        def score(item: int) -> Any:
            seen = before["projection"] @ f[item]
            own = before["bias"][item] + before["users"][u] @ before["items"][item]
            return own + before["tastes"][u] @ seen + before["visual_bias"] @ f[item]

        gain: Any = torch.nn.functional.logsigmoid(score(i) - score(j))
        gain.backward()
        self.ascend(model, contents, np.array([[u, i, j]]))
        touched = {"users": [u], "tastes": [u], "items": [i, j], "bias": [i, j]}
        for name in names:
            old, gradient = before[name].detach().numpy(), before[name].grad.numpy()
            shrink = self.SHRINK if name in touched else self.SHRINK_VISUAL
            penalty = np.zeros_like(old)
            rows = touched.get(name, slice(None))
            penalty[rows] = shrink * old[rows]
            np.testing.assert_allclose(getattr(model, name), old + self.RATE * (gradient - penalty), atol=1e-12)

    def test_many_steps_are_those_of_a_plain_loop(self) -> None:
        (model, contents), (plain, _) = self.model(), self.model()
        rng = stream(2)
        triples = np.stack([rng.integers(0, 5, 60), rng.integers(0, 7, 60), rng.integers(-1, 7, 60)], 1)
        triples = triples[triples[:, 1] != triples[:, 2]]
        self.ascend(model, contents, triples)
        for u, i, j in triples.tolist():
            if j < 0:
                continue
            margin = plain.scores(contents, np.array([u]))[0]
            g, d = 1.0 / (1.0 + np.exp(margin[i] - margin[j])), contents[i] - contents[j]
            users, tastes, first, second = (
                plain.users[u].copy(), plain.tastes[u].copy(), plain.items[i].copy(), plain.items[j].copy()
            )  # fmt: skip
            seen, r, s = plain.projection @ d, self.RATE, self.SHRINK
            plain.bias[i] += r * (g - s * plain.bias[i])
            plain.bias[j] += r * (-g - s * plain.bias[j])
            plain.users[u] += r * (g * (first - second) - s * users)
            plain.items[i] += r * (g * users - s * first)
            plain.items[j] += r * (-g * users - s * second)
            plain.tastes[u] += r * (g * seen - s * tastes)
            plain.projection += r * (g * np.outer(tastes, d) - self.SHRINK_VISUAL * plain.projection)
            plain.visual_bias += r * (g * d - self.SHRINK_VISUAL * plain.visual_bias)
        for name, table in vars(plain).items():
            np.testing.assert_allclose(getattr(model, name), table, atol=1e-12)

    def test_without_contents_it_is_bpr(self, build: Make) -> None:
        from recsim_llm.agents.logged.bpr import ascend

        agent, rng = build("vbpr", modalities="ids"), stream(3)
        assert agent.contents.shape == (120, 0)
        model, other = VisualFactors.blank(5, 7, 3, 4, 0), VisualFactors.blank(5, 7, 3, 4, 0)
        model.begin(stream(4), 0.1)
        other.begin(stream(4), 0.1)
        u, i, j = rng.integers(0, 5, 30), rng.integers(0, 7, 30), rng.integers(0, 7, 30)
        ascend_visual(
            u, i, j, np.zeros((7, 0)), model.users, model.items, model.bias, model.tastes, model.projection,
            model.visual_bias, np.zeros(0), np.zeros(4), 0.05, 0.01, 0.01,
        )  # fmt: skip
        ascend(u, i, j, other.users, other.items, other.bias, 0.05, 0.01)
        np.testing.assert_allclose(model.items, other.items, atol=1e-12)
        np.testing.assert_allclose(model.users, other.users, atol=1e-12)

    def test_an_item_nobody_saw_has_the_rate_that_its_features_foretell(self, build: Make) -> None:
        agent = build("vbpr", strength=5.0)
        shown = np.arange(120) < 60
        agent.runner = crossmodal.Withheld(agent.env, agent.env_spec, ~shown)
        agent.learn(1_000)
        np.testing.assert_array_equal(agent.model.items[~shown], 0.0)
        np.testing.assert_allclose(agent.popularity()[~shown], agent.foretold[~shown])
        assert np.ptp(agent.vectors()[~shown, agent.config.factors :], axis=0).min() > 0.0


class TestSiamese:
    """Cosines and their loss."""

    def test_cosines_lie_between_minus_one_and_one(self, learnt: dict[str, Any]) -> None:
        agent = learnt["siamese"]
        rows = stream(5).uniform(-1.0, 1.0, (50, agent.env_spec.width)).astype(np.float32)
        users = agent.directions(rows, agent.session_of(np.full((50, 3), -1)))
        with torch.no_grad():
            items, images = (part.numpy() for part in agent.trainer.net.items())
        for shown in (items, images):
            cosines = users @ shown.T
            assert np.abs(cosines).max() <= 1.0
            assert np.abs(cosines).max() > 0.3

    def test_nothing_has_no_direction(self) -> None:
        from recsim_llm.agents.neural.cross_modal_net import unit

        x = torch.tensor([[0.0, 0.0], [3.0, 4.0]], requires_grad=True)
        unit(x).sum().backward()
        assert torch.isfinite(x.grad).all()
        np.testing.assert_allclose(unit(x).detach().numpy(), [[0.0, 0.0], [0.6, 0.8]], atol=1e-3)

    def test_images_are_drawn_to_their_texts(self) -> None:
        from recsim_llm.agents.neural.siamese_net import alignment_loss

        rng = stream(6)
        items, images, item = rng.normal(size=(5, 3)), rng.normal(size=(5, 3)), np.array([0, 1, 0, 2, 3])
        logits, total = 2.0 * images @ items.T, 0.0
        for table in (logits, logits.T):
            for b in range(5):
                kept = [j for j in range(5) if j == b or item[j] != item[b]]
                total -= 0.5 * np.log(np.exp(table[b, b]) / np.exp(table[b, kept]).sum()) / 5
        given = [torch.tensor(items), torch.tensor(images), torch.tensor(item), torch.tensor(2.0)]
        assert float(alignment_loss(*given)) == pytest.approx(total, rel=1e-6)

    def test_serving_is_the_network(self, build: Make) -> None:
        agent = build("siamese", strangers=0.0, alignment=0.1, online=True, refit=500).learn(1_000)
        rows, visit = (
            np.zeros((3, agent.env_spec.width), np.float32),
            agent.session_of(stream(7).integers(0, 120, (3, 4))),
        )
        rows += stream(8).uniform(-0.5, 0.5, rows.shape).astype(np.float32)
        net = agent.trainer.net
        with torch.no_grad():
            clicked = torch.from_numpy(pooled(visit.history, net.id_vector.numpy()))
            who = net.users(torch.from_numpy(agent.features_of(rows, visit)), torch.from_numpy(visit.user), clicked)
            items, images = net.items()
            first, second = net.sharpness.exp()
            expected = (
                first * who @ items.T + second * who @ images.T + net.bias(net.table)[:, 0] + net.id_bias
            ).numpy()
        left = agent.scores(rows, visit) - expected - crossmodal.item_values(agent)
        np.testing.assert_allclose(left - left[:1], 0.0, atol=1e-4)  # what is left is alike for all users: freshness


class TestJoint:
    """Interactions, their loss, and how they are served."""

    def test_serving_is_the_network(self, build: Make) -> None:
        agent = build("joint", strangers=0.0, learning_rate=1e-2).learn(1_000)
        net = agent.trainer.net
        assert net.upper.weight.abs().max() > 0.05
        rows = stream(9).uniform(-0.5, 0.5, (20, agent.env_spec.width)).astype(np.float32)
        visit = agent.session_of(stream(10).integers(0, 120, (20, 4)))
        batch = {
            "features": agent.features_of(rows, visit), "user": visit.user, "history": visit.history,
            "newest": visit.newest, "wear": visit.memory.wear,
        }  # fmt: skip
        with torch.no_grad():
            given = {name: torch.from_numpy(array) for name, array in batch.items()}
            expected = net.logits(given, torch.arange(120).repeat(20, 1)).numpy()
        np.testing.assert_allclose(agent.scores(rows, visit) - crossmodal.item_values(agent), expected, atol=1e-4)

    def test_the_three_interactions(self, learnt: dict[str, Any]) -> None:
        net = learnt["joint"].trainer.net
        u, i, v = (torch.tensor(stream(n).normal(size=(4, 16))) for n in range(3))
        assert torch.equal(net.interacting(u, i, v), torch.cat([u * i, i * v, v * u], 1))
        assert torch.equal(net.interacting(u, i, None), u * i)

    def test_the_loss_leaves_out_draws_of_what_was_clicked(self, learnt: dict[str, Any]) -> None:
        net, rng = learnt["joint"].trainer.net, stream(11)
        net.strangers = 0.0
        batch = {
            "features": rng.normal(size=(6, learnt["joint"].features_width)).astype(np.float32),
            "user": np.full(6, -1), "history": np.full((6, 2), -1), "newest": np.full(6, 99.0, np.float32),
            "wear": np.zeros((6, 6), np.float32), "item": np.arange(6), "against": rng.integers(0, 8, (6, 5)),
        }  # fmt: skip
        given = {name: torch.from_numpy(array) for name, array in batch.items()}
        with torch.no_grad():
            loss = float(net.loss(given))
            logits = net.logits(given, torch.arange(8).repeat(6, 1)).numpy().astype(np.float64)
        total = 0.0
        for b in range(6):
            total += np.log1p(np.exp(-logits[b, b]))
            total += sum(np.log1p(np.exp(logits[b, j])) for j in batch["against"][b] if j != b)
        assert (batch["against"] == batch["item"][:, None]).any()
        assert loss == pytest.approx(total / 6, rel=1e-4)


class TestModalities:
    """What is left out changes nothing; what is there does."""

    @pytest.mark.parametrize("name", ["siamese", "joint"])
    @pytest.mark.parametrize(("modalities", "read"), [("both", [0, 5]), ("text", [0]), ("image", [5]), ("ids", [])])
    def test_columns_of_users(self, name: str, modalities: str, read: list[int], build: Make) -> None:
        agent = build(name, modalities=modalities).learn(400)
        visit = agent.session_of(np.full((1, 1), -1))
        rows = np.zeros((1, agent.env_spec.width), np.float32)
        before = agent.scores(rows, visit)
        for column in (0, 5):
            changed = rows.copy()
            changed[0, column] = 0.5
            same = np.array_equal(agent.scores(changed, visit), before)
            assert same == (column not in read)

    def test_columns_of_items(self, build: Make) -> None:
        catalog = build("vbpr").env_spec.catalog
        found = {name: columns_of(catalog, name) for name in ("both", "text", "image", "ids")}
        assert {name: (columns.tolist(), texts) for name, (columns, texts) in found.items()} == {
            "both": (list(range(8)), 4), "text": ([0, 1, 2, 3], 4), "image": ([4, 5, 6, 7], 0), "ids": ([], 0),
        }  # fmt: skip

    @pytest.mark.parametrize("name", NAMES)
    def test_images_alone_are_refused_where_there_are_none(self, name: str, build: Make, world_folder: str) -> None:
        with pytest.raises(RefusedError, match='modalities="text"'):
            build(name, world=world_folder, modalities="image")
        with pytest.raises(ConfigError, match="Did you mean 'image'"):
            build(name, modalities="images")

    @pytest.mark.parametrize("name", NAMES)
    def test_without_images_both_is_the_text(self, name: str, build: Make, world_folder: str) -> None:
        both, text = (build(name, world=world_folder, modalities=m).learn(200) for m in ("both", "text"))
        history = np.array([[1, 2, 3]])
        np.testing.assert_array_equal(both.score_histories(history), text.score_histories(history))

    @pytest.mark.parametrize("name", NAMES)
    def test_text_and_images_beat_each_alone_on_items_that_are_not_in_the_log(self, name: str, folder: str) -> None:
        # without profiles, users must be known by their clicks: vbpr needs more of them
        steps, seeds = (5_120, 3) if name == "vbpr" else (2_560, 1)
        plan = crossmodal.Plan(world=folder, steps=steps, judged=1_920, served=1)
        auc = {
            m: np.mean([crossmodal.run(plan, name, m, seed)["cold auc"] for seed in range(seeds)])
            for m in ("both", "text", "image")
        }
        assert auc["both"] > max(auc["text"], auc["image"]) + 0.02
        assert min(auc.values()) > 0.52


class TestUsers:
    """Vectors of users' own."""

    def test_they_stay_when_others_come(self, build: Make) -> None:
        from recsim_llm.agents.neural.cross_modal_net import widen

        trainer = build("siamese").learn(400).trainer
        old = {name: array.copy() for name, array in trainer.arrays().items() if name.endswith("id_user")}
        count = len(trainer.net.id_user)
        widen(trainer, "id_user", count + 3)
        for name, array in trainer.arrays().items():
            if name.endswith("id_user") and array.ndim:
                np.testing.assert_array_equal(array[:count], old[name])
                np.testing.assert_array_equal(array[count:], 0.0)
                assert len(array) == count + 3
        held = [one for group in trainer.optimizer.param_groups for one in group["params"]]
        assert any(one is trainer.net.id_user for one in held)

    def test_rows_are_in_the_order_of_coming(self, learnt: dict[str, Any]) -> None:
        assert first_seen(np.array([7, 3, 7, 9, 3])).tolist() == [7, 3, 9]
        agent = learnt["siamese"]
        log = agent.book.log
        rows = agent.users_of(log.user)
        assert rows[0] == 0
        assert (np.asarray(agent._known)[rows] == log.user).all()
        assert agent.users_of(np.array([10**6])).tolist() == [-1]


class TestStudy:
    """The command."""

    def test_it_goes_on_where_it_stopped(self, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(crossmodal, "AGENTS", ("vbpr",))
        plan = crossmodal.Plan(world=folder, steps=640, judged=320, served=4, lanes=32)
        said: list[str] = []
        crossmodal.study(plan, tmp_path, 1, said.append)
        assert len(said) == 4
        rows = tmp_path / crossmodal.ROWS
        whole = rows.read_bytes()
        rows.write_bytes(whole[:-30])  # killed while it wrote
        found = crossmodal.study(plan, tmp_path, 1, said.append)
        assert len(said) == 5
        assert json.loads((tmp_path / "results.json").read_text())["agents"] == found["agents"]
        assert "| agent | both | text | image | ids | both - text |" in (tmp_path / "report.md").read_text()
        with pytest.raises(DataError, match="another world or plan"):
            crossmodal.study(dataclasses.replace(plan, steps=320), tmp_path, 1, said.append)

    def test_differences_are_paired(self) -> None:
        rows = [
            {"agent": "a", "modalities": kind, "seed": seed, "learn_s": 1.0, "judge_s": 1.0,
             **{f"{part} {m}": seed + gain for part in ("cold", "warm") for m in ("auc", "recall", "return", "clicks")}}
            for seed in range(5) for kind, gain in (("both", 0.5), ("text", 0.0), ("image", 1.0))
        ]  # fmt: skip
        found = results(rows, {"plan": dataclasses.asdict(crossmodal.Plan())})
        gain = found["agents"]["a"]["cold auc"]["both - text"]
        assert gain == {"mean": 0.5, "low": 0.5, "high": 0.5, "n": 5}
        assert "for: no agent" in to_markdown(found)  # images alone are better here

    def test_intervals(self) -> None:
        values = stream(12).normal(3.0, 2.0, 40)
        found = interval(values.tolist())
        half = 1.96 * values.std(ddof=1) / np.sqrt(40)
        assert found["high"] - found["low"] == pytest.approx(2 * half, rel=0.15)
        assert found["mean"] == pytest.approx(values.mean())
