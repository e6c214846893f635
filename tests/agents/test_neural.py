"""Neural recommenders trained on logs: their losses, what they learn, and how they are kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray

from recsim_llm import agents
from recsim_llm.agents.common.interaction_log import Log
from recsim_llm.agents.core import agent_file as saving
from recsim_llm.agents.logged.observation_log import worth
from recsim_llm.errors import ConfigError, DataError
from recsim_llm.metrics.ranking import recall_at

# Made-up observations come from no environment, which agents say (tests/agents/test_evaluation.py).
pytestmark = pytest.mark.filterwarnings("ignore::recsim_llm.agents.core.serving_session.UnknownEnvironmentWarning")

torch = pytest.importorskip("torch")

NAMES = ["two_tower", "sasrec", "gru4rec", "multi_task"]
NEXT = ["two_tower", "sasrec", "gru4rec"]
Make = Callable[..., Any]


@pytest.fixture(scope="module")
def build(world_folder: str) -> Make:
    """Makes an agent on the synthetic world of 60 items."""

    def made(name: str, *, lanes: int = 4, seed: int = 0, slate_size: int = 3, **config: Any) -> Any:
        env = gym.make_vec(
            "recsim_llm/News-v0", num_envs=lanes, world=world_folder, slate_size=slate_size, users="train", horizon=25
        )
        return agents.make(name, env, seed=seed, **config)

    return made


def stream(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def tensor(array: Any, kind: Any = np.float32) -> Any:
    return torch.as_tensor(np.asarray(array, kind))


class TestInBatchSoftmax:
    """The loss of the two towers."""

    def test_against_sums_written_out(self) -> None:
        from recsim_llm.agents.neural.two_tower_net import in_batch_loss

        rng = stream(0)
        logits, item = rng.normal(size=(12, 12)), rng.integers(0, 5, 12)  # items twice and more
        share, blocked = rng.uniform(0.05, 0.5, 5)[item], rng.random((12, 12)) < 0.2
        total = 0.0
        for b in range(12):
            parts = [
                np.exp(logits[b, j] - np.log(share[j]))
                for j in range(12)
                if j == b or (item[j] != item[b] and not blocked[b, j])
            ]
            total -= np.log(np.exp(logits[b, b] - np.log(share[b])) / np.sum(parts))
        loss = in_batch_loss(tensor(logits), tensor(item, np.int64), tensor(np.log(share)), tensor(blocked, bool))
        assert float(loss) == pytest.approx(total / 12, rel=1e-5)

    @pytest.mark.parametrize("corrected", [True, False])
    def test_the_correction_makes_popular_negatives_unbiased(self, corrected: bool) -> None:
        """Clicks ~ softmax(theta): with it the fit finds theta, without it that all items are alike."""
        from recsim_llm.agents.neural.two_tower_net import in_batch_loss

        rng = stream(1)
        theta = rng.normal(0.0, 1.0, 30)
        chances = np.exp(theta) / np.exp(theta).sum()
        clicks = rng.choice(30, 40_000, p=chances)
        share = np.log(np.bincount(clicks, minlength=30) / len(clicks)) * corrected
        bias = torch.zeros(30, requires_grad=True)
        optimizer = torch.optim.Adam([bias], lr=0.03)
        for _ in range(4):
            for part in np.array_split(rng.permutation(len(clicks)), 200):
                item = torch.as_tensor(clicks[part])
                loss = in_batch_loss(bias[item].expand(len(item), -1), item, tensor(share)[item])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        found = bias.detach().numpy()
        slope = np.polyfit(theta, found, 1)[0]
        if corrected:
            assert slope == pytest.approx(1.0, abs=0.1)
            assert np.corrcoef(theta, found)[0, 1] > 0.98
        else:
            assert abs(slope) < 0.1


class TestSequences:
    """Episodes in windows, and what networks see of them."""

    @pytest.mark.parametrize("looks", [False, True])
    @pytest.mark.parametrize("length", [1, 4, 7])
    def test_windows_hold_what_was_consumed_before_and_nothing_later(self, length: int, looks: bool) -> None:
        from recsim_llm.agents.neural.sequence_data import Sequences

        rng = stream(2)
        lane = np.repeat(rng.integers(0, 3, 200), 3)  # slates of 3, lanes interleaved
        step = np.repeat([int((lane[: 3 * n : 3] == lane[3 * n]).sum()) for n in range(200)], 3)
        log = Log.of(
            lane, rng.integers(0, 50, 600), click=rng.random(600) < 0.3, lane=lane, step=step % 40,
            episode=step // 40, position=np.tile(np.arange(3), 200),
        )  # fmt: skip
        found = Sequences.of(log, length, looks)
        assert sorted(found.row) == sorted(np.flatnonzero(log.click > 0))
        assert (np.diff(found.window) >= 0).all()
        session = log.sessions()
        for row, window, position in zip(found.row, found.window, found.position, strict=True):
            earlier = (session == session[row]) & (log.step < log.step[row]) & ((log.click > 0) | looks)
            wanted = (2 * log.item + (log.click > 0))[earlier].astype(np.int64)
            seen = found.trail[window, :position]
            assert (seen == wanted[len(wanted) - position :]).all()
            assert position == len(wanted) or (length // 2 <= position <= length)

    @pytest.mark.parametrize("name", ["sasrec", "gru4rec"])
    def test_the_future_changes_nothing(self, name: str, build: Make) -> None:
        agent = build(name, length=8, sharpness=1.0)
        net = agent.trainer.net
        with torch.no_grad():
            net.query.weight.normal_(generator=torch.Generator().manual_seed(0))
        rng = stream(3)
        trail, profile = tensor(rng.integers(0, 120, (5, 8)), np.int64), tensor(rng.normal(size=(5, 8)))
        with torch.no_grad():
            before = net.queries(trail, profile)
            for place in range(8):
                other = trail.clone()
                other[:, place] = (other[:, place] + 37) % 120
                after = net.queries(other, profile)
                assert torch.equal(before[:, : place + 1], after[:, : place + 1])
                assert (before[:, place + 1 :] != after[:, place + 1 :]).any(2).all()

    def test_the_recurrent_unit_is_torchs(self, build: Make) -> None:
        net = build("gru4rec", length=6).trainer.net
        unit = torch.nn.GRU(32, 32, batch_first=True)
        with torch.no_grad():
            unit.weight_ih_l0.copy_(net.reads.weight)
            unit.bias_ih_l0.copy_(net.reads.bias)
            unit.weight_hh_l0.copy_(net.recalls.weight)
            unit.bias_hh_l0.copy_(net.recalls.bias)
            first, tokens = torch.full((3, 32), 0.3), tensor(stream(4).normal(size=(3, 6, 32)))
            expected, _ = unit(tokens, torch.tanh(first)[None])
            assert torch.allclose(net.states(first, tokens)[:, 1:], expected, atol=1e-6)

    def test_attention_is_torchs(self, build: Make) -> None:
        block = build("sasrec", heads=2, dropout=0.0).trainer.net.blocks[0]
        x = tensor(stream(5).normal(size=(3, 7, 32)))
        with torch.no_grad():
            q, k, v = block.reads(block.before(x)).reshape(3, 7, 3, 2, 16).permute(2, 0, 3, 1, 4)
            mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            y = x + block.writes(mixed.transpose(1, 2).reshape(3, 7, 32))
            y = y + block.upper(torch.relu(block.lower(block.between(y))))
            assert torch.allclose(block(x), y, atol=1e-5)

    def test_a_sample_of_negatives_has_the_gradient_of_all(self, build: Make) -> None:
        """The mean gradient over draws of 59 of 60 items against the softmax over 60."""
        whole = build("gru4rec").trainer.net
        rng = stream(6)
        batch = {
            "trail": tensor(rng.integers(0, 120, (4, 20)), np.int64), "profile": tensor(rng.normal(size=(4, 8))),
            "sequence": tensor([0, 1, 2, 3], np.int64), "position": tensor([0, 3, 9, 20], np.int64),
            "target": tensor([1, 2, 3, 4], np.int64), "newest": tensor(np.full(4, 100.0)),
        }  # fmt: skip

        def gradient() -> Any:
            whole.zero_grad()
            whole.loss(batch).backward()
            return whole.id_bias.grad.clone()

        exact = gradient()
        whole.negatives = 59
        drawn = torch.stack([gradient() for _ in range(300)]).mean(0)
        assert torch.allclose(drawn, exact, atol=0.01)
        assert not torch.equal(drawn, exact)

    def test_trails_keep_the_last_items_in_order(self, build: Make) -> None:
        agent = build("sasrec", length=4)
        lanes, kept = 4, [[] for _ in range(4)]
        agent.runner.reset(seed=1)
        state: Any = None
        for _ in range(20):
            place = agent.runner
            rows, episode_start = place.observation, place.fresh
            session = agent.session(rows, state, episode_start)
            if state is not None:
                clicks = agent.env_spec.feedback(rows)[:, :, 0] > 0
                for b in range(lanes):
                    kept[b] += (2 * state.memory.last[b] + 1)[clicks[b]].tolist()
                    kept[b] = [] if episode_start[b] else kept[b]
                    assert session.trail[b].tolist() == ([-1] * 4 + kept[b])[-4:]
            slates, state = agent.act(rows, state, episode_start, True, place.available(), agent.rng)
            place.step(slates)
        assert max(map(len, kept)) > 4


class TestReplay:
    """What is told from a log afterwards is what a state had remembered."""

    @pytest.mark.parametrize("slate_size", [1, 3])
    def test_against_memories(self, slate_size: int, build: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        from recsim_llm.agents.neural.two_tower import pooled_of

        agent = build("two_tower", online=True, refit=10**6, slate_size=slate_size)
        seen: list[Any] = []
        scores = agent.scores
        monkeypatch.setattr(agent, "scores", lambda rows, visit: seen.append((rows, visit)) or scores(rows, visit))
        update, wear, pooled, newest, profile = agent.update, [], [], [], []

        def noted(transition: Any) -> None:
            rows, visit = seen[-1]
            looked = ((transition.info["click"] > 0) | (transition.info["skip"] > 0)).any(1) & transition.valid
            wear.append(visit.memory.wear[looked])
            pooled.append(pooled_of(visit.history, agent.encodings)[looked])
            newest.append(visit.newest[looked])
            profile.append(agent.env_spec.part("profile", rows)[looked])
            update(transition)

        monkeypatch.setattr(agent, "update", noted)
        agent.learn(400)
        log, views = agent.book.log, agent.observation_log
        replay = agent.replayed(log)
        assert len(views.index) == len(log)
        place = np.empty(len(replay.wear), np.int64)
        place[replay.moment] = views.index
        np.testing.assert_allclose(replay.wear, np.concatenate(wear)[place], atol=1e-4)
        np.testing.assert_allclose(replay.pooled, np.concatenate(pooled)[place], atol=1e-4)
        np.testing.assert_array_equal(views.rows[:, -1], np.concatenate(newest))
        np.testing.assert_array_equal(views.rows[:, :8], np.concatenate(profile))
        assert replay.wear.max() > 1.0

    def test_worth_is_the_mean_reward_of_a_click(self) -> None:
        rng = stream(7)
        price = np.linspace(1.0, 10.0, 20).astype(np.float32)
        item, click = rng.integers(0, 19, 4000), rng.random(4000) < 0.5  # the last item is never shown
        log = Log.of(np.zeros(4000), item, click=click, reward=click * 2.0 * price[item])
        found = worth(log, price, np.zeros(20, np.float32), 5.0)
        mean = float(log.reward[log.click > 0].mean())
        np.testing.assert_allclose(found * mean, 2.0 * price, rtol=0.02)
        assert (worth(log[log.click < 0], price, price, 5.0) == 1.0).all()


def planted(sessions: int, seed: int, order: NDArray[np.int64]) -> Log:
    """Sessions of 12 clicks that follow a cycle through the items, with chance; all items are equally popular."""
    rng = stream(seed)
    now, rows = rng.integers(0, len(order), sessions), []
    for _ in range(12):
        rows.append(now)
        now = np.where(rng.random(sessions) < 0.8, order[now], rng.integers(0, len(order), sessions))
    item = np.stack(rows, 1).reshape(-1)
    return Log.of(np.repeat(np.arange(sessions), 12), item)


class TestBetterThanPopularity:
    """Held-out recall on the logs they are trained on."""

    EAGER: dict[str, Any] = {"learning_rate": 5e-3, "shrink": 0.1, "dropout": 0.0, "sharpness": 0.0}  # noqa: RUF012

    @pytest.mark.parametrize("name", ["sasrec", "gru4rec"])
    def test_order_is_learnt(self, name: str, build: Make) -> None:
        order = np.roll(np.arange(60), 1)[stream(8).permutation(60)]
        agent = build(name, epochs=30, **self.EAGER).fit_log(planted(400, 1, order))
        history, target = planted(300, 2, order).last_clicks(20)
        reached = recall_at(agent.score_histories(history), target, 1)
        popular = recall_at(np.tile(agent.popularity(), (300, 1)), target, 1)
        assert reached > 0.7  # at best 0.8
        assert popular < 0.1

    def test_likings_are_learnt(self, build: Make) -> None:
        """Users of two towers: each session is about one of six topics."""
        agent = build("two_tower", epochs=20, **self.EAGER)
        topic = agent.env_spec.catalog.topic
        members = [np.flatnonzero(topic == t) for t in range(6)]

        def drawn(seed: int) -> Log:
            rng = stream(seed)
            item = [rng.choice(members[rng.integers(6)], 5, replace=False) for _ in range(400)]
            return Log.of(np.repeat(np.arange(400), 5), np.concatenate(item))

        agent.fit_log(drawn(1))
        history, target = drawn(2).last_clicks(20)
        unseen = np.ones((len(target), 61), bool)
        np.put_along_axis(unseen, history, False, 1)
        reached = recall_at(agent.score_histories(history), target, 6, unseen[:, :60])
        assert reached > 0.9  # 6 of its topic are left
        assert recall_at(np.tile(agent.popularity(), (len(target), 1)), target, 6, unseen[:, :60]) < 0.3

    @pytest.mark.parametrize("name", NEXT)
    @pytest.mark.parametrize("scenario", ["News", "Music"])
    def test_on_users_of_a_scenario(self, name: str, scenario: str, held_out: Make) -> None:
        agent, score, target, shelf = held_out(name, scenario)
        k = 100 if scenario == "Music" else 20
        reached = recall_at(score, target, k, shelf)
        popular = recall_at(np.broadcast_to(agent.popularity(), shelf.shape), target, k, shelf)
        spread = np.sqrt(popular * (1.0 - popular) / len(target))
        assert reached > popular + 3.0 * spread
        assert popular > recall_at(stream(0).random(shelf.shape), target, k, shelf) + 3.0 * spread


def clicks_before(log: Log, rows: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """Items [n, H] clicked in the same episode at steps before each of the rows, the newest last."""
    session, clicked = log.sessions(), np.flatnonzero(log.click > 0)
    found = np.full((len(rows), width), -1, np.int64)
    for n, row in enumerate(rows.tolist()):
        items = log.item[clicked[(session[clicked] == session[row]) & (log.step[clicked] < log.step[row])]]
        found[n, width - len(items) :] = items
    return found


@pytest.fixture(scope="module")
def held_out() -> Make:
    """Scores of an agent for clicks of users of a log that it was not trained on, and what was out then."""

    def made(name: str, scenario: str) -> Any:
        def env(users: str) -> Any:
            return gym.make_vec(f"recsim_llm/{scenario}-v0", num_envs=64, users=users)

        agent = agents.make(name, env("train"), seed=100).learn(12_000)
        other = agents.make("two_tower", env("test"), seed=101, epochs=0).learn(6_000)
        log, views = other.book.log, other.observation_log
        assert not np.isin(log.user, agent.book.log.user).any()
        clicked = np.flatnonzero(log.click > 0)
        rows = np.zeros((len(clicked), agent.env_spec.width), np.float32)
        seen = views.rows[views.index[clicked]]
        rows[:, : views.width - 1] = seen[:, :-1]  # profile, interest and context come first
        visit = agent.session_of(clicks_before(log, clicked, agent.config.history))
        replay = other.replayed(log)
        memory = dataclasses.replace(visit.memory, wear=replay.wear[replay.moment[clicked]])
        visit = dataclasses.replace(visit, memory=memory, newest=seen[:, -1])
        released = agent.env_spec.catalog.released_at
        age = seen[:, -1:] - released
        shelf = (age >= 0.0) & ((age <= 7.0) | (scenario != "News"))
        return agent, agent.scores(rows, visit), log.item[clicked], shelf

    return made


@pytest.fixture(scope="module")
def shop(build: Make) -> Any:
    """Half of the items are clicked and never bought, the other half bought when clicked, for a long time."""
    rng = stream(10)
    user, item = np.repeat(np.arange(300), 20), rng.integers(0, 60, 6000)
    bought = item >= 30
    click = rng.random(6000) < np.where(bought, 0.2, 0.6)
    purchase = click & bought & (rng.random(6000) < 0.8)
    log = Log.of(
        user, item, click=click, purchase=purchase, dwell=click * np.where(item % 2, 100.0, 10.0),
        rating=click * np.where(item < 20, 5.0, 2.0), reward=click + 3.0 * purchase,
    )  # fmt: skip
    settings = {"learning_rate": 1e-2, "shrink": 0.1, "epochs": 30, "batch": 64, "sharpness": 0.0}
    return build("multi_task", **settings).fit_log(log)


class TestMultiTask:
    """Heads, their losses, and what is served."""

    @staticmethod
    def example() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        rng = stream(9)
        logits, target = rng.normal(size=(40, 6)), np.zeros((40, 6))
        target[:, 0] = rng.random(40) < 0.5
        target[:, 1:4] = (rng.random((40, 3)) < 0.4) * target[:, :1]
        target[:, 4] = rng.uniform(1.0, 300.0, 40) * target[:, 0]
        target[:, 5] = rng.integers(0, 6, 40) * target[:, 0]
        return logits, target

    def test_losses_on_clicked_rows(self) -> None:
        from recsim_llm.agents.neural.multi_task_net import head_losses

        logits, target = self.example()
        chance, clicked, rated = 1.0 / (1.0 + np.exp(-logits)), target[:, 0] > 0, target[:, 5] > 0
        entropy = -(target * np.log(chance) + (1.0 - target) * np.log1p(-chance))
        wanted = [
            entropy[:, 0].mean(), *entropy[clicked][:, 1:4].mean(0),
            0.5 * np.square(logits[:, 4] - np.log(1.0 + target[:, 4]))[clicked].mean(),
            0.5 * np.square(logits[:, 5] - target[:, 5])[rated].mean(),
        ]  # fmt: skip
        np.testing.assert_allclose(head_losses(tensor(logits), tensor(target), False).numpy(), wanted, rtol=1e-4)

    def test_losses_on_the_entire_space(self) -> None:
        from recsim_llm.agents.neural.multi_task_net import head_losses

        logits, target = self.example()
        chance = 1.0 / (1.0 + np.exp(-logits))
        both = chance[:, :1] * chance[:, 1:4]
        wanted = -(target[:, 1:4] * np.log(both) + (1.0 - target[:, 1:4]) * np.log(1.0 - both)).mean(0)
        np.testing.assert_allclose(head_losses(tensor(logits), tensor(target), True).numpy()[1:4], wanted, rtol=1e-4)

    def test_losses_of_certain_logits_are_finite(self) -> None:
        from recsim_llm.agents.neural.multi_task_net import head_losses

        logits = torch.tensor([[60.0] * 6, [-60.0] * 6], requires_grad=True)
        losses = head_losses(logits, torch.ones((2, 6)), True)
        losses.sum().backward()
        assert torch.isfinite(losses).all()
        assert torch.isfinite(logits.grad).all()

    def test_balance_is_least_where_it_should_be(self) -> None:
        """e^-s L + s is least at s = log L, where each head counts as 1 / L."""
        from recsim_llm.agents.neural.multi_task_net import balanced

        losses = torch.tensor([0.3, 2.0, 0.01])
        unexplained = torch.log(losses).requires_grad_()
        total = balanced(losses, unexplained)
        total.backward()
        assert total.item() == pytest.approx(float((1.0 + np.log(losses.numpy())).sum()), rel=1e-6)
        assert torch.allclose(unexplained.grad, torch.zeros(3), atol=1e-6)

    def test_heads_without_a_signal_are_left_out(self, shop: Any) -> None:
        assert shop.heads == ["click", "conversion", "dwell", "rating"]

    def test_the_reward_is_found_in_the_log(self, shop: Any) -> None:
        wanted = dict.fromkeys(shop.weights, 0.0) | {"click": 1.0, "conversion": 3.0}
        found = build_weights(shop)
        assert found == pytest.approx(wanted, abs=1e-3)

    def test_predictions_are_what_was_planted(self, shop: Any) -> None:
        visit = shop.session_of(np.full((1, 5), -1, np.int64))
        rows = np.zeros((1, shop.env_spec.width), np.float32)
        found = {name: values[0] for name, values in shop.predictions(rows, visit, shop.heads).items()}
        assert np.abs(found["click"] - np.where(np.arange(60) >= 30, 0.2, 0.6)).mean() < 0.08
        assert np.abs(found["conversion"] - np.where(np.arange(60) >= 30, 0.8, 0.0)).mean() < 0.15
        odd = np.arange(60) % 2 == 1
        assert np.median(found["dwell"][odd]) == pytest.approx(100.0, rel=0.3)
        assert np.median(found["dwell"][~odd]) == pytest.approx(10.0, rel=0.3)
        assert found["rating"][:20].min() > found["rating"][20:].max()

    @pytest.mark.parametrize(
        ("weights", "best"),
        [
            ({"click": 1.0}, lambda item: item < 30),
            ({"conversion": 1.0}, lambda item: item >= 30),
            ({"dwell": 1.0}, lambda item: (item < 30) & (item % 2 == 1)),
            ({"click": 1.0, "conversion": 10.0}, lambda item: item >= 30),
            ({"rating": 1.0}, lambda item: item < 20),
        ],
    )
    def test_what_is_served_follows_the_weighting(self, weights: dict[str, float], best: Any, shop: Any) -> None:
        shop.reweigh(weights)
        scores = shop.score_histories(np.full((1, 5), -1, np.int64))[0]
        assert best(np.argsort(-scores)[:10]).mean() >= 0.9
        actions, _ = shop.predict(np.zeros((1, shop.env_spec.width), np.float32), action_masks=np.ones((1, 60), bool))
        assert best(actions[0]).all()

    def test_only_conversion_ranks_by_its_head(self, shop: Any) -> None:
        shop.reweigh({"conversion": 2.0})
        rng = stream(11)
        rows = rng.uniform(-1, 1, (7, shop.env_spec.width)).astype(np.float32)
        visit = shop.session_of(rng.integers(0, 60, (7, 5)))
        found = shop.predictions(rows, visit, ["click", "conversion"])
        np.testing.assert_allclose(shop.scores(rows, visit), 2.0 * found["click"] * found["conversion"], rtol=1e-5)

    def test_settings_weigh_too_and_wrong_names_get_the_closest(self, build: Make, shop: Any) -> None:
        agent = build("multi_task", conversion_weight=2.0, epochs=0).fit_log(shop.book.log)
        assert agent.weights == dict.fromkeys(agent.weights, 0.0) | {"conversion": 2.0}
        with pytest.raises(ConfigError, match=r"no weight 'conversions'\. Did you mean 'conversion'\?"):
            agent.reweigh({"conversions": 1.0})

    @pytest.mark.parametrize(
        ("scenario", "wanted"),
        [
            ("Video", {"dwell": 1.0}),
            ("Social", {"click": 1.0, "like": 1.0, "share": 2.0}),
            ("Ecommerce", {"revenue": 1.0}),
        ],
    )
    def test_the_rewards_of_scenarios_are_found(self, scenario: str, wanted: dict[str, float]) -> None:
        env = gym.make_vec(f"recsim_llm/{scenario}-v0", num_envs=64, users="train")
        agent = agents.make("multi_task", env, seed=100, epochs=0).learn(6_400)
        assert agent.weights == pytest.approx(dict.fromkeys(agent.weights, 0.0) | wanted, abs=1e-3)


def build_weights(agent: Any) -> dict[str, float]:
    """The weights that the log tells."""
    from recsim_llm.agents.neural.multi_task import weights_of

    return dict(zip(agent.weights, weights_of(agent.book.log, agent.env_spec.catalog).tolist(), strict=True))


class TestKept:
    """Files, and learning that goes on."""

    @pytest.mark.parametrize("name", NAMES)
    def test_learning_on_from_a_file_is_learning_on(self, name: str, build: Make, tmp_path: Path) -> None:
        settings = {"online": True, "refit": 40, "epochs": 1}
        whole = build(name, **settings).learn(160)
        half = build(name, **settings).learn(80)
        half.save(tmp_path / "agent.zip")
        loaded = agents.load(tmp_path / "agent.zip", build(name).env)
        for agent in (half, loaded):
            agent.learn(80)
            for key, array in whole.arrays().items():
                np.testing.assert_array_equal(agent.arrays()[key], array, err_msg=key)
        assert whole.trainer.arrays()["adam/step/id_bias"] > 4

    @pytest.mark.parametrize("name", NAMES)
    def test_a_fit_depends_on_the_log_and_the_seed_alone(self, name: str, build: Make) -> None:
        parts, whole, other = build(name), build(name), build(name, seed=1)
        parts.learn(60)
        state = torch.random.get_rng_state()
        parts.learn(60)
        assert torch.equal(state, torch.random.get_rng_state())
        whole.learn(120)
        other.fit_log(whole.book.log)
        for key, array in whole.learnt().items():
            np.testing.assert_array_equal(parts.learnt()[key], array, err_msg=key)
        assert any((other.learnt()[key] != array).any() for key, array in whole.learnt().items())

    @pytest.mark.parametrize("name", NAMES)
    def test_learning_on_moves_a_little(self, name: str, build: Make) -> None:
        agent = build(name).learn(200)
        before = {key: array.copy() for key, array in agent.learnt().items()}
        agent.absorb(agent.book.log, len(agent.book) // 2)
        after = agent.learnt()
        moved = [np.abs(after[key] - before[key]).max() for key in before if key.startswith("net/")]
        assert 0.0 < max(moved) < 0.1

    @pytest.mark.parametrize("damage", ["rows", "index", "gone"])
    def test_damaged_observations_are_refused(self, damage: str, build: Make, tmp_path: Path) -> None:
        agent = build("two_tower", epochs=1).learn(40)
        path = agent.save(tmp_path / "agent.zip")
        saved = saving.read(path)
        if damage == "rows":
            saved.arrays["view/rows"] = saved.arrays["view/rows"][:, :-1]
        elif damage == "index":
            saved.arrays["view/index"] = saved.arrays["view/index"] + 10_000
        else:
            saved.arrays["view/index"] = saved.arrays["view/index"][:-1]
        saving.write(path, saved)
        with pytest.raises(DataError, match="what was observed"):
            agents.load(path, agent.env)

    def test_an_item_nobody_clicked_is_served_by_its_text(self, build: Make) -> None:
        """Items of the profile's direction come first before and after training on others."""
        agent = build("two_tower")
        embedding = agent.env_spec.catalog.embedding
        liked = embedding[0] / np.linalg.norm(embedding[0])
        near = np.argsort(-(embedding @ liked))[:20]
        rows = np.zeros((1, agent.env_spec.width), np.float32)
        rows[0, :8] = np.clip(3.0 * liked, -1.0, 1.0)
        clicked = np.setdiff1d(np.arange(60), near[::2])  # every other one of the near items is never shown
        rng = stream(12)
        agent.fit_log(Log.of(np.repeat(np.arange(100), 10), rng.choice(clicked, 1000)))
        scores = agent.score_histories(np.full((1, 5), -1, np.int64), rows)[0]
        assert np.isin(near[::2], np.argsort(-scores)[:30]).mean() > 0.8

    def test_wrong_settings(self, build: Make) -> None:
        with pytest.raises(ConfigError, match=r"no device 'gpu'"):
            build("two_tower", device="gpu")
        with pytest.raises(ConfigError, match="heads must divide hidden = 32, got 5"):
            build("sasrec", heads=5)
        agent = build("sasrec", length=5)
        rows = np.zeros((4, agent.env_spec.width), np.float32)
        _, state = build("sasrec", length=6).predict(rows)
        with pytest.raises(ConfigError, match="state must be what predict"):
            agent.predict(rows, state)
