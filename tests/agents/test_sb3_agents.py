"""The agents of Stable-Baselines3 and sb3-contrib: what is theirs beyond the contract of all agents."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray

import recsim_llm
from recsim_llm import agents
from recsim_llm.errors import ConfigError, DataError

# Made-up observations come from no environment, which agents say (tests/agents/test_evaluation.py).
pytestmark = pytest.mark.filterwarnings("ignore::recsim_llm.agents.core.serving_session.UnknownEnvironmentWarning")

pytest.importorskip("torch")
pytest.importorskip("stable_baselines3")
pytest.importorskip("sb3_contrib")

ALPHA = 1e-4
PERIOD = 64
ON_POLICY = ["ppo", "a2c", "masked_ppo"]
PROTO = ["sac", "td3"]
OFF_POLICY = ["dqn", *PROTO]
EVERYONE = [*ON_POLICY, *OFF_POLICY]
SMALL: dict[str, dict[str, Any]] = {
    **{name: {"rollout": PERIOD, "batch": 32, "epochs": 2} for name in ("ppo", "masked_ppo")},
    "a2c": {"rollout": PERIOD},
    "dqn": {"warmup": PERIOD, "batch": 32, "buffer": 5 * PERIOD, "target": PERIOD, "epsilon_steps": 1_000},
    **{name: {"warmup": PERIOD, "batch": 32, "buffer": 5 * PERIOD} for name in PROTO},
}
Make = Callable[..., Any]


@pytest.fixture(scope="module")
def build(world_folder: str) -> Make:
    """Makes an agent and its environment on the synthetic world, whose items come and go."""

    def made(name: str, *, slate_size: int = 3, lanes: int = 4, seed: int = 0, config: Any = None, **env: Any) -> Any:
        arguments = {"world": world_folder, "slate_size": slate_size, "users": "train", "horizon": 25, **env}
        place = gym.make_vec("recsim_llm/News-v0", num_envs=lanes, **arguments)
        return agents.make(name, place, seed=seed, **{**SMALL[name], **(config or {})})

    return made


def seen(agent: Any, count: int, seed: int = 0) -> NDArray[np.float32]:
    """Observations [B, P] with something in every part."""
    rng = np.random.Generator(np.random.PCG64(seed))
    return rng.uniform(-1, 1, (count, agent.env_spec.width)).astype(np.float32)


def same(one: dict[str, NDArray[Any]], two: dict[str, NDArray[Any]]) -> bool:
    """Whether two agents hold the same numbers, bit for bit."""
    return one.keys() == two.keys() and all(
        one[key].dtype == two[key].dtype and (one[key] == two[key]).all() for key in one
    )


GO_ON = """
import sys, torch
torch.set_num_threads(1)
import gymnasium as gym, recsim_llm
from recsim_llm import agents
steps, world, *names = sys.argv[1:]
for name in names:
    env = gym.make_vec("recsim_llm/News-v0", num_envs=4, world=world, slate_size=3, users="train", horizon=25)
    agents.load(name + "-half.zip", env).learn(int(steps)).save(name + "-whole.zip")
"""


@pytest.fixture(scope="module")
def continued(
    build: Make, world_folder: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Any, Any, Path]]:
    """Of each agent: one that learnt 2 N, one N and N, and the file of one that learnt the second N elsewhere."""
    folder = tmp_path_factory.mktemp("continued")
    pairs = {}
    for name in EVERYONE:
        whole, parts = build(name, seed=3).learn(10 * PERIOD), build(name, seed=3).learn(5 * PERIOD)
        parts.save(folder / f"{name}-half.zip")
        pairs[name] = whole, parts.learn(5 * PERIOD), folder / f"{name}-whole.zip"
    command = [sys.executable, "-c", GO_ON, str(5 * PERIOD), world_folder, *EVERYONE]
    subprocess.run(command, check=True, timeout=300, cwd=folder)
    return pairs


class TestContinuation:
    """Learning N, then N more, is learning 2 N (RELIABILITY T13)."""

    @pytest.mark.parametrize("name", EVERYONE)
    def test_in_parts_and_in_a_new_process(
        self, name: str, continued: dict[str, tuple[Any, Any, Path]], build: Make
    ) -> None:
        whole, parts, path = continued[name]
        assert same(parts.arrays(), whole.arrays())
        again = agents.load(path, build(name).env)
        assert again.num_timesteps == whole.num_timesteps == 10 * PERIOD
        assert same(again.arrays(), whole.arrays())
        assert again.extra() == whole.extra()
        assert (again.predict(seen(again, 6))[0] == whole.predict(seen(whole, 6))[0]).all()

    @pytest.mark.parametrize("name", OFF_POLICY)
    def test_a_full_buffer_goes_on_where_it_was(self, name: str, build: Make, tmp_path: Path) -> None:
        whole, parts = build(name).learn(14 * PERIOD), build(name).learn(7 * PERIOD)
        assert parts.model.replay_buffer.full
        again = agents.load(parts.save(tmp_path / "half"), build(name).env)
        assert same(again.learn(7 * PERIOD).arrays(), whole.arrays())

    @pytest.mark.parametrize("name", EVERYONE)
    def test_users_are_in_the_middle_of_their_episodes(self, name: str, build: Make, tmp_path: Path) -> None:
        agent = build(name).learn(2 * PERIOD)
        again = agents.load(agent.save(tmp_path / "agent"), build(name).env)
        assert (again.runner.observation == agent.runner.observation).all()
        assert (again.runner.fresh == agent.runner.fresh).all()
        assert (again.runner.available() == agent.runner.available()).all()

    def test_another_number_of_lanes_begins_anew(self, build: Make, tmp_path: Path) -> None:
        path = build("sac").learn(4 * PERIOD).save(tmp_path / "agent")
        other = agents.load(path, env=build("sac", lanes=8).env)
        assert other.model.replay_buffer.filled == 0
        assert other.learn(2 * PERIOD).num_timesteps == 6 * PERIOD


class TestFiles:
    """Nothing in a file is believed."""

    @pytest.mark.parametrize("extra", [{}, {"_n_updates": -1}, {"_n_updates": 1.5}, {"_n_updates": 1, "more": 2}])
    def test_wrong_counters_are_refused(self, extra: dict[str, Any], build: Make) -> None:
        agent = build("ppo")
        with pytest.raises(DataError, match="counters must be"):
            agent.restore(agent.arrays(), extra, "file")

    @pytest.mark.parametrize("position", [-1, 3, 10_000, None, 1.5])
    def test_wrong_positions_are_refused(self, position: Any, build: Make) -> None:
        agent = build("dqn").learn(2 * PERIOD)
        with pytest.raises(DataError, match="the replay buffer"):
            agent.restore(agent.arrays(), {**agent.extra(), "position": position}, "file")

    def test_items_that_are_not_there_are_refused(self, build: Make) -> None:
        agent = build("td3").learn(2 * PERIOD)
        arrays = {key: array.copy() for key, array in agent.arrays().items()}
        arrays["replay/actions"][0, 0, 0] = agent.env_spec.items
        with pytest.raises(DataError, match="names items"):
            agent.restore(arrays, agent.extra(), "file")

    def test_a_missing_temperature_is_refused(self, build: Make) -> None:
        agent = build("sac")
        arrays = {key: array for key, array in agent.arrays().items() if not key.startswith("temperature")}
        with pytest.raises(DataError, match="temperature/log is missing"):
            agent.restore(arrays, agent.extra(), "file")


class TestRollouts:
    """What is shown while learning."""

    @pytest.mark.parametrize("name", ["masked_ppo", *OFF_POLICY])
    @pytest.mark.parametrize("env", [{}, {"num_candidates": 9}])
    def test_no_slot_is_wasted(self, name: str, env: dict[str, Any], build: Make) -> None:
        agent = build(name, strict=True, **env)  # strict environments raise on a wasted slot
        assert agent.learn(4 * PERIOD).num_timesteps == 4 * PERIOD

    def test_masks_reach_the_policy(self, build: Make) -> None:
        agent = build("masked_ppo")
        asked: list[tuple[NDArray[np.bool_], NDArray[np.int64]]] = []
        shown = agent.show
        agent.show = lambda slates: (asked.append((agent.open(), slates)), shown(slates))[1]
        agent.learn(4 * PERIOD)
        rests = 0
        for open_, slates in asked:
            assert np.take_along_axis(open_, slates, 1).all()
            rests += int((agent.runner.available() & ~open_).sum())
        assert rests > 0  # some of what is on the shelf rests, so that the masks say more than the shelf
        masks = agent.model.rollout_buffer.action_masks
        assert masks.shape[-1] == agent.env_spec.items
        assert 0 < masks.mean() < 1

    def test_rollouts_of_ppo_know_no_masks(self, build: Make) -> None:
        with pytest.raises(ConfigError, match="wastes"):
            build("ppo", strict=True).learn(10 * PERIOD)

    @pytest.mark.parametrize("name", EVERYONE)
    def test_no_item_is_shown_twice_in_a_slate(self, name: str, build: Make) -> None:
        agent = build(name)
        slates: list[NDArray[np.int64]] = []
        shown = agent.show
        agent.show = lambda items: (slates.append(items), shown(items))[1]
        agent.learn(3 * PERIOD)
        assert all(len(set(slate)) == 3 for slate in np.concatenate(slates).tolist())

    @pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
    def test_all_modes_of_the_environment_teach_the_same(self, mode: str, build: Make) -> None:
        other = build("masked_ppo", autoreset_mode=mode).learn(10 * PERIOD)
        assert same(other.arrays(), build("masked_ppo").learn(10 * PERIOD).arrays())

    def test_the_algorithm_is_told_of_episodes(self, build: Make) -> None:
        agent = build("a2c").learn(10 * PERIOD)
        told = agent.model.ep_info_buffer
        assert len(told) > 10
        assert list(agent.episodes)[-5:] == [(episode["r"], episode["l"]) for episode in list(told)[-5:]]
        assert agent.logger["rollout/ep_rew_mean"] == pytest.approx(np.mean([total for total, _ in agent.episodes]))
        assert np.isfinite(agent.logger["train/value_loss"])

    def test_last_observations_are_those_of_the_episode(self, build: Make) -> None:
        agent = build("dqn", config={"buffer": 1_000}).learn(6 * PERIOD)
        buffer = agent.model.replay_buffer
        following, ends = buffer.observations[1 : buffer.pos], buffer.dones[: buffer.pos - 1] > 0
        gone_on = (following == buffer.next_observations[: buffer.pos - 1]).all(2)
        assert ends.any()
        assert (gone_on == ~ends).all()
        assert (buffer.timeouts <= buffer.dones).all()

    def test_slots_earn_what_the_slate_earns(self, build: Make) -> None:
        agent = build("dqn", config={"buffer": 1_000}, reward={"click": 1.0, "dwell": 0.5})
        rewards: list[NDArray[np.float64]] = []
        agent.learn(4 * PERIOD, callback=lambda names, _: rewards.append(names["transition"].reward))
        buffer = agent.model.replay_buffer
        assert buffer.rewards[: buffer.pos].sum(2) == pytest.approx(np.stack(rewards), abs=1e-5)

    def test_slots_that_were_looked_at_are_drawn(self) -> None:
        stats = pytest.importorskip("scipy.stats")
        from recsim_llm.agents.sb3.replay import drawn

        seen = np.repeat([[True, False, True, True], [False] * 4], 3_000, 0)
        slate_size = drawn(seen, np.random.Generator(np.random.PCG64(0)))
        for rows, expected in ((slate_size[:3_000], [4_000, 0, 4_000, 4_000]), (slate_size[3_000:], [3_000] * 4)):
            counts, likely = np.bincount(rows.ravel(), minlength=4), np.array(expected)
            assert (counts[likely == 0] == 0).all()
            assert stats.chisquare(counts[likely > 0], likely[likely > 0]).pvalue > ALPHA

    def test_exploration_falls_with_the_steps_of_all_calls(self, build: Make) -> None:
        agent = build("dqn")
        assert agent.epsilon == 1.0
        for _ in range(2):
            agent.learn(4 * PERIOD)
        assert agent.epsilon == pytest.approx(0.05 + 0.95 * (1 - 8 * PERIOD / 1_000))
        assert agent.model.exploration_rate == agent.epsilon


class TestSlateDistribution:
    """The distribution over slates is Plackett and Luce's."""

    def test_probabilities_against_enumeration(self) -> None:
        torch = pytest.importorskip("torch")
        from itertools import permutations

        from recsim_llm.agents.sb3.item_policy import SlateDistribution

        rng = np.random.Generator(np.random.PCG64(0))
        logits = torch.as_tensor(rng.normal(size=(1, 6)) * 2, dtype=torch.float64)
        masks = np.array([[True, True, False, True, True, True]])
        slates = torch.as_tensor(list(permutations(range(6), 3)))
        distribution = SlateDistribution([6] * 3).proba_distribution(logits.expand(len(slates), -1))
        distribution.apply_masking(np.repeat(masks, len(slates), 0))
        chances = distribution.log_prob(slates).exp().numpy()
        weights = np.where(masks[0], np.exp(logits[0].numpy()), 0.0)
        expected = []
        for slate in slates.tolist():
            left, chance = weights.copy(), 1.0
            for item in slate:
                chance *= left[item] / left.sum()
                left[item] = 0.0
            expected.append(chance)
        assert chances == pytest.approx(np.array(expected), abs=1e-9)
        assert chances.sum() == pytest.approx(1.0)

    def test_draws_have_these_frequencies(self) -> None:
        torch = pytest.importorskip("torch")
        stats = pytest.importorskip("scipy.stats")
        from recsim_llm.agents.sb3.item_policy import SlateDistribution

        logits = torch.tensor([[0.5, -1.0, 0.0, 1.0]], dtype=torch.float64)
        distribution = SlateDistribution([4] * 2).proba_distribution(logits.expand(20_000, -1))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            slates = distribution.sample()
        counts = np.zeros((4, 4))
        np.add.at(counts, (slates[:, 0].numpy(), slates[:, 1].numpy()), 1)
        pairs = [(i, j) for i in range(4) for j in range(4) if i != j]
        one = SlateDistribution([4] * 2).proba_distribution(logits.expand(len(pairs), -1))
        chances = one.log_prob(torch.tensor(pairs)).exp().numpy()
        observed = np.array([counts[pair] for pair in pairs])
        assert observed.sum() == 20_000
        assert stats.chisquare(observed, 20_000 * chances / chances.sum()).pvalue > ALPHA


class TestPropensity:
    """The recorded probabilities are those of the policy."""

    DRAWS = 6_000

    @pytest.mark.parametrize("name", [*ON_POLICY, "dqn"])
    def test_against_frequencies(self, name: str, build: Make) -> None:
        stats = pytest.importorskip("scipy.stats")
        agent = build(name, slate_size=2).learn(4 * PERIOD)
        rows = np.repeat(seen(agent, 1), self.DRAWS, 0)
        action_mask = np.zeros((self.DRAWS, agent.env_spec.items), np.bool_)
        action_mask[:, :5] = True
        slates, _ = agent.predict(rows, action_masks=action_mask)
        pairs, first, counts = np.unique(slates, axis=0, return_index=True, return_counts=True)
        chances = agent.propensity.prod(1)[first]
        assert chances.sum() == pytest.approx(1.0, abs=0.02)  # all but the rarest of the 20 slates were drawn
        kept = chances * self.DRAWS > 5
        observed = np.append(counts[kept], self.DRAWS - counts[kept].sum())
        expected = np.append(chances[kept], 1 - chances[kept].sum()) * self.DRAWS
        if expected[-1] < 5:
            observed, expected = observed[:-1], expected[:-1] * observed[:-1].sum() / expected[:-1].sum()
        assert len(pairs) > 5
        assert stats.chisquare(observed, expected).pvalue > ALPHA

    @pytest.mark.parametrize("name", EVERYONE)
    def test_what_is_certain_is_one(self, name: str, build: Make) -> None:
        agent = build(name)
        agent.predict(seen(agent, 5), deterministic=True)
        assert (agent.propensity == np.ones((5, 3))).all()

    def test_only_sac_has_no_closed_form(self, build: Make) -> None:
        sac, td3 = build("sac"), build("td3")
        sac.predict(seen(sac, 5))
        assert np.isnan(sac.propensity).all()
        td3.predict(seen(td3, 5))
        assert (td3.propensity == 1.0).all()
        sac.propensity_samples = 50
        sac.predict(seen(sac, 5))
        assert ((sac.propensity > 0) & (sac.propensity <= 1)).all()

    def test_a_short_shelf_leaves_no_choice(self, build: Make) -> None:
        agent = build("ppo")
        action_mask = np.zeros((4, agent.env_spec.items), np.bool_)
        action_mask[:, 7] = True
        slates, _ = agent.predict(seen(agent, 4), action_masks=action_mask)
        assert (slates[:, 0] == 7).all()
        assert (agent.propensity == 1.0).all()


class TestProtoItems:
    """The nearest items."""

    @pytest.mark.parametrize("seed", range(5))
    def test_brute_force(self, seed: int) -> None:
        from recsim_llm.agents.policy_gradient.proto_actor import nearest

        rng = np.random.Generator(np.random.PCG64(seed))
        vectors = rng.normal(size=(6, 3, 8)).astype(np.float32)
        codes = rng.normal(size=(20, 8)).astype(np.float32)
        action_mask = rng.random((6, 20)) < 0.3
        action_mask[0] = False
        action_mask[1, 3:] = False
        slates = nearest(vectors, codes, action_mask)
        for lane in range(6):
            taken: list[int] = []
            for slot in range(3):
                closeness = codes @ vectors[lane, slot]
                order = sorted(
                    set(range(20)) - set(taken), key=lambda item: (not action_mask[lane, item], -closeness[item])
                )
                taken.append(order[0])
            assert slates[lane].tolist() == taken

    @pytest.mark.parametrize("similarity", ["cosine", "inner"])
    @pytest.mark.parametrize("name", PROTO)
    def test_the_agent_shows_the_nearest(self, name: str, similarity: str, build: Make) -> None:
        agent = build(name, config={"similarity": similarity}).learn(4 * PERIOD)
        rows, everything = seen(agent, 5), np.ones((5, agent.env_spec.items), np.bool_)
        inputs = agent.inputs(rows, agent.cooldown.recall(rows, None, np.ones(5, np.bool_)), everything)
        wanted, encodings = agent.vectors(inputs, None), agent.env_spec.catalog.embedding
        assert wanted.shape == (5, 3, encodings.shape[1])
        assert np.abs(wanted).max() <= 1.0
        slates, _ = agent.predict(rows, deterministic=True, action_masks=everything)
        closeness = wanted.astype(np.float64) @ encodings.T
        if similarity == "cosine":
            closeness = closeness / np.linalg.norm(encodings, axis=1)
        for lane in range(5):
            for slot in range(3):
                closeness[lane, slot, slates[lane, :slot]] = -np.inf
                assert closeness[lane, slot, slates[lane, slot]] == pytest.approx(closeness[lane, slot].max(), abs=1e-5)

    @pytest.mark.parametrize("name", PROTO)
    def test_critics_learn_from_what_was_shown(self, name: str, build: Make) -> None:
        agent = build(name).learn(2 * PERIOD)
        sample = agent.model.replay_buffer.sample(50)
        vectors = sample.actions.numpy().reshape(50, 3, -1)
        assert np.linalg.norm(vectors, axis=2) == pytest.approx(np.ones((50, 3)), abs=1e-5)
        closest = (vectors @ agent.codes.T).max(2)
        assert closest == pytest.approx(np.ones((50, 3)), abs=1e-5)

    def test_critics_add_slots_up(self, build: Make) -> None:
        torch = pytest.importorskip("torch")
        agent = build("td3").learn(4 * PERIOD)
        critic, rows = agent.model.critic, torch.as_tensor(agent.now()[0])
        slates = torch.as_tensor(agent.coded(np.arange(12).reshape(4, 3)))
        mirrored = torch.as_tensor(agent.coded(np.arange(12).reshape(4, 3)[:, ::-1]))
        with torch.no_grad():
            one, other = critic.q1_forward(rows, slates), critic.q1_forward(rows, mirrored)
            longer = critic.q1_forward(rows, 0.5 * slates)
        assert one.numpy() == pytest.approx(other.numpy(), abs=1e-5)
        assert one.numpy() == pytest.approx(longer.numpy(), abs=1e-5)


class TestSettings:
    """What cannot be is refused with a sentence."""

    @pytest.mark.parametrize(
        ("name", "config", "message"),
        [
            ("ppo", {"device": "gpu"}, "no device 'gpu'"),
            ("sac", {"similarity": "cosin"}, "Did you mean 'cosine'"),
            ("dqn", {"epsilon_end": 2.0}, "setting epsilon_end must lie in"),
            ("td3", {"noise": -1.0}, "setting noise must lie in"),
            ("sac", {"temperature": 0.0}, "setting temperature must lie in"),
            ("a2c", {"rollout": 1}, "setting rollout must lie in"),
        ],
    )
    def test_wrong_settings(self, name: str, config: dict[str, Any], message: str, build: Make) -> None:
        with pytest.raises(ConfigError, match=message):
            build(name, config=config)

    def test_a_missing_device_is_named(self, build: Make) -> None:
        torch = pytest.importorskip("torch")
        if torch.cuda.is_available():
            pytest.skip("there is a CUDA device")
        with pytest.raises(ConfigError, match="finds no CUDA device"):
            build("ppo", config={"device": "cuda"})

    def test_auto_takes_what_is_there(self, build: Make) -> None:
        torch = pytest.importorskip("torch")
        agent = build("dqn", config={"device": "auto"})
        assert agent.device.type == ("cuda" if torch.cuda.is_available() else "cpu")
        assert agent.learn(2 * PERIOD).predict(seen(agent, 3))[0].shape == (3, 3)


class TestStableBaselines3:
    """Its own tools work on the agents."""

    @pytest.mark.parametrize("name", EVERYONE)
    def test_evaluate_policy(self, name: str, build: Make, world_folder: str) -> None:
        from stable_baselines3.common.evaluation import evaluate_policy

        agent = build(name).learn(2 * PERIOD)
        arguments = {"world": world_folder, "slate_size": 3, "users": "test", "horizon": 25}
        env = gym.make_vec("recsim_llm/News-v0", num_envs=3, **arguments).unwrapped.sb3()
        returns, lengths = evaluate_policy(agent, env, n_eval_episodes=6, return_episode_rewards=True)
        assert len(returns) == 6
        assert all(0 < length <= 25 for length in lengths)

    def test_callbacks_see_the_algorithm(self, build: Make) -> None:
        from stable_baselines3.common.callbacks import BaseCallback

        class Stop(BaseCallback):
            def _on_step(self) -> bool:
                assert len(self.locals["dones"]) == 4
                return self.num_timesteps < 3 * PERIOD

        for name in ("a2c", "td3"):
            assert build(name).learn(100 * PERIOD, callback=Stop()).num_timesteps == 3 * PERIOD

    def test_messages_are_logged_by_episodes(self, build: Make, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level("INFO", logger="recsim_llm.agents"):
            build("td3").learn(6 * PERIOD, log_interval=4, tb_log_name="mine")
        assert any(line.startswith("mine td3: ") for line in caplog.messages)

    def test_nothing_is_left_in_the_folder_for_temporary_files(
        self, build: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        build("ppo").learn(PERIOD)
        assert not list(tmp_path.iterdir())


def test_settings_are_json() -> None:
    assert recsim_llm.__version__
    for name in EVERYONE:
        config = agents.get(name).Config()
        assert agents.get(name).Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config
