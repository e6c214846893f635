"""The contract of all agents (CONVENTIONS rows 45, 62; RELIABILITY T12, T13, T22, T24), and what each computes."""

from __future__ import annotations

import io
import itertools
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray

from recsim_llm import agents
from recsim_llm.agents.common.cooldown import RecentItems
from recsim_llm.agents.common.features import Features, Situation
from recsim_llm.agents.common.sampling import epsilon_greedy, uniform_slates
from recsim_llm.agents.common.slate_optimisation import best_assortment
from recsim_llm.agents.common.top_k import top_k
from recsim_llm.agents.core.base import Agent
from recsim_llm.agents.core.env_runner import EnvironmentSpec, EnvRunner
from recsim_llm.errors import ConfigError, DataError

# Made-up observations come from no environment, which agents say (tests/agents/test_evaluation.py).
pytestmark = pytest.mark.filterwarnings("ignore::recsim_llm.agents.core.serving_session.UnknownEnvironmentWarning")

ALPHA = 1e-4
LEARNERS = ["popularity", "epsilon_greedy", "thompson", "linucb", "q_learning", "sarsa", "mf", "ppo"]
"""One or two of each family: what the shipped contract does not look at is tested on these (test_check_agent: all)."""
EVERYONE = ["random", "oracle", *LEARNERS]
SMALL: dict[str, dict[str, Any]] = {"ppo": {"rollout": 64, "batch": 64, "epochs": 2}, "mf": {"epochs": 3}}
Make = Callable[..., Agent]


@pytest.fixture(scope="session")
def build(world_folder: str) -> Make:
    """Makes an agent and its environment on the synthetic world, whose items come and go."""

    def made(
        name: str, *, slate_size: int = 3, lanes: int = 4, seed: int = 0, truth: bool | None = None, **env: Any
    ) -> Agent:
        if agents.get(name).needs_torch:
            pytest.importorskip("torch")
            pytest.importorskip("stable_baselines3")
        needed = agents.get(name).needs_truth if truth is None else truth
        arguments = {
            "world": world_folder,
            "slate_size": slate_size,
            "users": "train",
            "truth": needed,
            "horizon": 25,
            **env,
        }
        config = arguments.pop("config", SMALL.get(name, {}))
        if lanes == 0:
            return agents.make(name, gym.make("recsim_llm/News-v0", **arguments), seed=seed, **config)
        return agents.make(name, gym.make_vec("recsim_llm/News-v0", num_envs=lanes, **arguments), seed=seed, **config)

    return made


def rows(agent: Agent, count: int, seed: int = 0) -> NDArray[np.float32]:
    """Observations [B, P] with something in every part."""
    rng = np.random.Generator(np.random.PCG64(seed))
    return rng.uniform(-1, 1, (count, agent.env_spec.width)).astype(np.float32)


def truth_for(agent: Agent, count: int, seed: int = 0) -> None:
    """Shows an oracle some truth for that many lanes; others do not look."""
    rng = np.random.Generator(np.random.PCG64(seed))
    shape = (count, agent.env_spec.items)
    agent.observe({"truth_appeal": rng.normal(size=shape), "truth_value": np.ones(shape)})


def chosen(agent: Agent, seed: int = 0, steps: int = 6) -> NDArray[np.int64]:
    """Actions of a few deterministic steps on made-up observations, [steps, B, K]."""
    state: Any = None
    made = []
    for step in range(steps):
        truth_for(agent, 8, seed + step)
        actions, state = agent.predict(rows(agent, 8, seed + step), state, deterministic=True)
        made.append(actions)
    return np.stack(made)


class TestNames:
    """The registry."""

    def test_every_name_is_in_one_family(self) -> None:
        listed = [name for family in agents.families().values() for name in family]
        assert sorted(listed) == sorted(agents.names())
        assert set(EVERYONE) <= set(listed)

    @pytest.mark.parametrize("name", agents.names())
    def test_names_agree(self, name: str) -> None:
        kind = agents.get(name)
        assert kind.name == name
        assert kind.needs_truth == (name in ("oracle", "lookahead"))

    @pytest.mark.parametrize("name", agents.names())
    def test_settings_survive_json(self, name: str) -> None:
        kind = agents.get(name)
        config = kind.Config()
        assert kind.Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config

    @pytest.mark.parametrize("name", [name for name in agents.names() if agents.get(name).learns])
    def test_docstrings_name_paper_equation_and_defaults(self, name: str) -> None:
        kind = agents.get(name)
        text = " ".join(part.__doc__ or "" for part in (kind, *kind.__mro__))
        for word in ("Paper:", "Equation:", "Origin of the defaults", "Deviation"):
            assert word in text, word

    def test_wrong_names_get_the_closest(self, build: Make) -> None:
        with pytest.raises(ConfigError, match=r"no agent 'linucbb'\. Did you mean 'linucb'\?"):
            agents.make("linucbb", "recsim_llm/Music-v0")

    def test_wrong_settings_get_the_closest(self, build: Make) -> None:
        with pytest.raises(ConfigError, match=r"no setting 'alhpa'\. Did you mean 'alpha'\?"):
            build("linucb", config={"alhpa": 1.0})

    @pytest.mark.parametrize("value", [-1.0, float("nan"), "much", True, None])
    def test_wrong_values_are_refused(self, value: Any, build: Make) -> None:
        with pytest.raises(ConfigError, match="setting alpha must"):
            build("linucb", config={"alpha": value})

    def test_own_agents_can_be_registered(self, build: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(agents, "_registered", {})

        class Mine(agents.get("random")):  # type: ignore[misc]
            name = "mine"

        agents.register(Mine)
        assert "mine" in agents.names()
        assert agents.get("mine") is Mine
        with pytest.raises(ValueError, match="built in"):
            agents.register(type("Other", (Mine,), {"name": "random"}))

    def test_something_else_than_an_environment_of_ours_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="no public catalogue"):
            agents.make("random", gym.make("CartPole-v1"))


class TestActions:
    """What ``predict`` returns."""

    @pytest.mark.parametrize("slate_size", [1, 3])
    @pytest.mark.parametrize("name", EVERYONE)
    def test_shapes(self, name: str, slate_size: int, build: Make) -> None:
        agent = build(name, slate_size=slate_size)
        for count in (1, 4, 7):
            truth_for(agent, count)
            actions, _ = agent.predict(rows(agent, count))
            assert actions.shape == ((count,) if slate_size == 1 else (count, slate_size))
            assert actions.dtype == np.int64
        truth_for(agent, 1)
        actions, _ = agent.predict(rows(agent, 1)[0])
        assert np.shape(actions) == (() if slate_size == 1 else (slate_size,))

    @pytest.mark.parametrize("deterministic", [False, True])
    @pytest.mark.parametrize("name", EVERYONE)
    def test_masks_are_kept_and_nothing_is_shown_twice(self, name: str, deterministic: bool, build: Make) -> None:
        agent = build(name).learn(200)
        rng = np.random.Generator(np.random.PCG64(1))
        state: Any = None
        for step in range(25):
            action_mask = rng.random((6, agent.env_spec.items)) < 0.15
            action_mask[:, rng.choice(agent.env_spec.items, 3, replace=False)] = True
            truth_for(agent, 6, step)
            actions, state = agent.predict(
                rows(agent, 6, step), state, np.zeros(6, bool), deterministic, action_masks=action_mask
            )
            assert np.take_along_axis(action_mask, actions, 1).all()
            assert all(len(set(slate)) == 3 for slate in actions.tolist())

    @pytest.mark.parametrize("name", EVERYONE)
    def test_no_slot_is_wasted_when_enough_is_on_the_shelf(self, name: str, build: Make) -> None:
        if name == "ppo":
            pytest.skip("its rollouts are Stable-Baselines3's, which know no masks")
        build(name, strict=True).learn(400)  # strict environments raise on a wasted slot

    @pytest.mark.parametrize("name", EVERYONE)
    def test_an_empty_shelf_is_no_error(self, name: str, build: Make) -> None:
        agent = build(name)
        truth_for(agent, 4)
        actions, _ = agent.predict(rows(agent, 4), action_masks=np.zeros((4, agent.env_spec.items), bool))
        assert all(len(set(slate)) == 3 for slate in actions.tolist())

    def test_masks_come_in_every_form(self, build: Make) -> None:
        agent = build("random")
        items = agent.env_spec.items
        one = np.zeros(items, bool)
        one[:3] = True
        for masks in (
            one,
            np.tile(one, 3),
            np.tile(one, (5, 1)),
            np.tile(one, (5, 3)),
            np.tile(one, (5, 1)).astype("i1"),
        ):
            actions, _ = agent.predict(rows(agent, 5), action_masks=masks)
            assert actions.max() < 3
        with pytest.raises(ConfigError, match="action_masks has shape"):
            agent.predict(rows(agent, 5), action_masks=np.ones((4, items), bool))

    def test_without_masks_the_own_environment_is_asked(self, build: Make) -> None:
        agent = build("random")
        observation, _ = agent.env.reset(seed=0)
        action_mask = agent.env.unwrapped.available()
        assert not action_mask.all()
        for _ in range(20):
            actions, _ = agent.predict(observation)
            assert np.take_along_axis(action_mask, actions, 1).all()

    @pytest.mark.parametrize("name", [name for name in EVERYONE if name != "ppo"])
    def test_dict_observations(self, name: str, build: Make) -> None:
        flat, parts = build(name, seed=4), build(name, seed=4, observation="dict")
        for agent in (flat, parts):
            agent.learn(200)
        assert flat.arrays().keys() == parts.arrays().keys()
        assert (chosen(flat) == chosen(parts)).all()
        observation, _ = parts.env.reset(seed=1)
        actions, _ = parts.predict(observation)
        assert actions.shape == (4, 3)

    def test_wrong_shapes_are_named(self, build: Make) -> None:
        agent = build("thompson")
        with pytest.raises(ConfigError, match="observation has shape"):
            agent.predict(np.zeros((4, 3), np.float32))
        with pytest.raises(ConfigError, match="episode_start has shape"):
            agent.predict(rows(agent, 4), agent.predict(rows(agent, 4))[1], np.zeros(3, bool))
        with pytest.raises(ConfigError, match="state must be what predict"):
            agent.predict(rows(agent, 4), agent.predict(rows(agent, 5))[1])


class TestLearning:
    """``learn`` and what it promises."""

    @pytest.mark.parametrize("name", LEARNERS)
    def test_learning_changes_the_agent(self, name: str, build: Make) -> None:
        agent = build(name)
        before = {key: array.copy() for key, array in agent.arrays().items()}
        serving = chosen(agent)
        assert agent.learn(600) is agent
        after = agent.arrays()
        assert any(before[key].shape != after[key].shape or (before[key] != after[key]).any() for key in after)
        assert (serving != chosen(agent)).any()

    @pytest.mark.parametrize("name", EVERYONE)
    def test_the_seed_decides_everything(self, name: str, build: Make) -> None:
        first, second, other = (build(name, seed=seed).learn(300) for seed in (5, 5, 6))
        for key, array in first.arrays().items():
            assert (array == second.arrays()[key]).all(), key
        assert (chosen(first) == chosen(second)).all()
        free = [np.stack([agent.predict(rows(agent, 8, n))[0] for n in range(5)]) for agent in (first, second)
                if not agent.needs_truth]  # fmt: skip
        assert all((free[0] == actions).all() for actions in free)
        if name != "oracle":
            assert (chosen(first, steps=20) != chosen(other, steps=20)).any()

    @pytest.mark.parametrize("name", EVERYONE)
    def test_global_generators_are_left_alone(self, name: str, build: Make) -> None:
        before = np.random.get_state()[1].copy()  # noqa: NPY002
        agent = build(name)
        torch = pytest.importorskip("torch") if name == "ppo" else None
        state = torch.get_rng_state() if torch else None
        threads = torch.get_num_threads() if torch else None
        agent.learn(200)
        chosen(agent)
        assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
        if torch:
            assert (torch.get_rng_state() == state).all()
            assert torch.get_num_threads() == threads

    @pytest.mark.parametrize("name", EVERYONE)
    def test_serving_does_not_disturb_learning(self, name: str, build: Make) -> None:
        quiet, busy = build(name, seed=2), build(name, seed=2)
        for agent in (quiet, busy):
            agent.learn(192)
            if agent is busy:
                chosen(agent)
                if not agent.needs_truth:
                    agent.predict(rows(agent, 4))
            agent.learn(192)
        for key, array in quiet.arrays().items():
            assert (array == busy.arrays()[key]).all(), key

    @pytest.mark.parametrize("name", [name for name in EVERYONE if name != "oracle"])
    def test_the_truth_changes_nothing(self, name: str, build: Make) -> None:
        without, with_truth = (build(name, seed=3, truth=truth).learn(300) for truth in (False, True))
        for key, array in without.arrays().items():
            assert (array == with_truth.arrays()[key]).all(), key
        assert (chosen(without) == chosen(with_truth)).all()

    @pytest.mark.parametrize("lanes", [1, 4, 16])
    def test_steps_are_summed_over_lanes(self, lanes: int, build: Make) -> None:
        agent = build("epsilon_greedy", lanes=lanes)
        valid = []
        agent.learn(500, callback=lambda names, _: valid.append(int(names["transition"].valid.sum())))
        assert 500 <= agent.num_timesteps < 500 + lanes
        assert sum(valid) == agent.num_timesteps
        agent.learn(100)
        assert 600 <= agent.num_timesteps < 600 + 2 * lanes
        agent.learn(10, reset_num_timesteps=True)
        assert 10 <= agent.num_timesteps < 10 + lanes

    def test_ppo_counts_whole_rollouts(self, build: Make) -> None:
        agent = build("ppo").learn(100)
        assert agent.num_timesteps == 128
        assert agent.learn(0).num_timesteps == 128
        assert agent.learn(1).num_timesteps == 192

    @pytest.mark.parametrize(
        "name", ["random", "popularity", "epsilon_greedy", "thompson", "q_learning", "sarsa", "mf"]
    )
    def test_learn_goes_on_where_it_stopped(self, name: str, build: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        whole, parts = build(name, seed=1), build(name, seed=1)
        whole.learn(600)
        for _ in range(6):
            parts.learn(100)
        assert whole.num_timesteps == parts.num_timesteps
        for key, array in whole.arrays().items():
            assert (array == parts.arrays()[key]).all(), key
        monkeypatch.setattr(type(whole.env), "reset", lambda *_, **__: pytest.fail("an episode was cut short"))
        whole.learn(100)

    def test_callbacks_can_end_it(self, build: Make) -> None:
        agent = build("random")
        agent.learn(1_000, callback=lambda names, _: names["self"].num_timesteps < 40)
        assert agent.num_timesteps == 40
        with pytest.raises(ConfigError, match="must not be negative"):
            agent.learn(-1)

    def test_means_have_the_tags_of_stable_baselines3(self, build: Make, caplog: pytest.LogCaptureFixture) -> None:
        agent = build("random")
        with caplog.at_level("INFO", logger="recsim_llm.agents"):
            agent.learn(400, log_interval=4, tb_log_name="mine", progress_bar=True)
        assert 0 < agent.logger["rollout/ep_len_mean"] <= 25
        assert 0 <= agent.logger["rollout/ep_rew_mean"] <= 25
        assert any("mine random: " in line and "time/fps" in line for line in caplog.messages)

    @pytest.mark.parametrize("name", [name for name in EVERYONE if name != "oracle"])
    def test_a_scalar_environment_will_do(self, name: str, build: Make) -> None:
        agent = build(name, lanes=0).learn(80)
        assert agent.num_timesteps >= 80
        assert agent.predict(rows(agent, 1)[0])[0].shape == (3,)

    def test_an_id_will_do(self) -> None:
        agent = agents.make("random", "recsim_llm/Music-v0")
        assert agent.runner.count == 64
        assert agent.learn(64).num_timesteps == 64


class TestLanes:
    """Transitions are the same whatever kind of environment runs the users (CONVENTIONS rows 24 to 28, pain 12)."""

    @staticmethod
    def told(world_folder: str, mode: str | None, lanes: int = 3, steps: int = 120) -> list[list[tuple[Any, ...]]]:
        arguments: dict[str, Any] = {"world": world_folder, "slate_size": 2, "rules": {"leave": -1.0, "churn": -1.0}}
        if mode is None:
            env: Any = gym.make("recsim_llm/News-v0", max_episode_steps=9, **arguments)
        else:
            env = gym.make_vec("recsim_llm/News-v0", num_envs=lanes, autoreset_mode=mode, horizon=9, **arguments)
        driver = EnvRunner(env, EnvironmentSpec.of(env))
        driver.reset(seed=11)
        kept: list[list[tuple[Any, ...]]] = [[] for _ in range(driver.count)]
        while min(len(lane) for lane in kept) < steps:
            # Any function of what each lane has been through will do as a policy.
            seen = np.array([[len(lane) * 2 % 60, (len(lane) * 2 + 1) % 60] for lane in kept], np.int64)
            was = driver.observation.copy()
            t = driver.step(seen)
            assert (t.observation == was).all()
            for lane in np.flatnonzero(t.valid):
                kept[lane].append((
                    t.observation[lane].tobytes(), t.action[lane].tolist(), float(t.reward[lane]),
                    t.next_observation[lane].tobytes(), bool(t.terminated[lane]), bool(t.truncated[lane]),
                    t.info["slate"][lane].tolist(), t.info["click"][lane].tolist(), int(t.info["user_id"][lane]),
                ))  # fmt: skip
        return [lane[:steps] for lane in kept]

    def test_all_modes_tell_the_same(self, world_folder: str) -> None:
        next_step, same_step, disabled = (
            self.told(world_folder, mode) for mode in ("NextStep", "SameStep", "Disabled")
        )
        assert next_step == same_step
        assert next_step == disabled
        ends = [(step[4], step[5]) for lane in next_step for step in lane]
        assert (True, False) in ends
        assert (False, True) in ends

    def test_the_scalar_environment_tells_what_lane_0_does(self, world_folder: str) -> None:
        assert self.told(world_folder, None)[0] == self.told(world_folder, "SameStep")[0]

    def test_the_last_observation_is_not_the_next_first(self, world_folder: str) -> None:
        for lane in self.told(world_folder, "SameStep"):
            for step, following in itertools.pairwise(lane):
                over = step[4] or step[5]
                assert (step[3] == following[0]) != over


class TestFiles:
    """``save`` and ``load`` (CONVENTIONS row 62)."""

    @pytest.mark.parametrize("name", EVERYONE)
    def test_a_loaded_agent_is_the_same(self, name: str, build: Make, tmp_path: Path) -> None:
        agent = build(name, seed=7).learn(300)
        path = agent.save(tmp_path / "agent")
        assert path == tmp_path / "agent.zip"
        again = agents.load(path, env=build(name).env)
        assert type(again) is type(agent)
        assert (again.num_timesteps, again.config, again.seed) == (agent.num_timesteps, agent.config, agent.seed)
        for key, array in agent.arrays().items():
            assert (array == again.arrays()[key]).all(), key
        assert (chosen(agent) == chosen(again)).all()
        if name != "oracle":
            assert (agent.predict(rows(agent, 8))[0] == again.predict(rows(agent, 8))[0]).all()

    @pytest.mark.parametrize("name", LEARNERS)
    def test_a_loaded_agent_learns_on_as_the_other_would(self, name: str, build: Make, tmp_path: Path) -> None:
        agent = build(name, seed=7).learn(256)
        one, two = (agents.load(agent.save(tmp_path / "agent"), env=build(name).env).learn(256) for _ in range(2))
        assert one.num_timesteps == two.num_timesteps > 500
        for key, array in one.arrays().items():
            assert (array == two.arrays()[key]).all(), key

    def test_the_file_names_its_environment(self, build: Make, tmp_path: Path) -> None:
        elsewhere = build("thompson", lanes=5).save(tmp_path / "elsewhere.zip")
        with pytest.raises(ConfigError, match=r"is not built in; .*pass load\(path, env="):
            agents.get("thompson").load(elsewhere)
        path = build("thompson", lanes=5, world="news").learn(50).save(tmp_path / "agent.zip")
        again = agents.get("thompson").load(path)
        assert again.env.unwrapped.num_envs == 5
        assert again.env_spec.slate_size == 3
        again.learn(50)

    def test_members(self, build: Make, tmp_path: Path) -> None:
        path = build("linucb").save(tmp_path / "agent")
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: info for info in archive.infolist()}
            assert sorted(members) == [
                "config.json", "env_spec.json", "format_version", "system_info.json", "weights.safetensors",
            ]  # fmt: skip
            assert all(info.compress_type == zipfile.ZIP_STORED for info in members.values())
            assert json.loads(archive.read("config.json"))["config"] == agents.get("linucb").Config().to_dict()
            assert json.loads(archive.read("env_spec.json"))["id"] == "recsim_llm/News-v0"
            assert "numpy" in json.loads(archive.read("system_info.json"))

    def test_the_same_agent_gives_the_same_bytes(self, build: Make, tmp_path: Path) -> None:
        first, second = (build("sarsa", seed=1).learn(200).save(tmp_path / f"{n}").read_bytes() for n in range(2))
        assert first == second

    def test_another_agents_file_is_refused(self, build: Make, tmp_path: Path) -> None:
        path = build("thompson").save(tmp_path / "agent")
        with pytest.raises(ConfigError, match="holds the agent 'thompson', not 'linucb'"):
            agents.get("linucb").load(path)

    def test_another_catalogue_is_refused(self, build: Make, tmp_path: Path, make_world: Any) -> None:
        path = build("thompson").save(tmp_path / "agent")
        other = make_world(seed=9).save(tmp_path / "other")
        env = gym.make_vec("recsim_llm/News-v0", num_envs=2, world=str(other), slate_size=3)
        with pytest.raises(ConfigError, match="another catalogue"):
            agents.load(path, env=env)

    @pytest.mark.parametrize("name", LEARNERS)
    def test_wrong_shapes_are_refused(self, name: str, build: Make, tmp_path: Path) -> None:
        from safetensors.numpy import load, save

        path = build(name).learn(100).save(tmp_path / "agent")
        members = unzipped(path)
        arrays = load(members["weights.safetensors"])
        for key, array in arrays.items():
            if array.ndim == 0 or key == "lanes/returns":  # of however many episodes there were
                continue
            changed = {**arrays, key: np.concatenate([array, array])}
            zipped(path, {**members, "weights.safetensors": save(changed)})
            with pytest.raises(DataError):
                agents.load(path, env=build(name).env)
        zipped(path, {**members, "weights.safetensors": save({**arrays, "more": np.zeros(1)})})
        with pytest.raises(DataError):
            agents.load(path, env=build(name).env)

    def test_damaged_files_are_refused(self, build: Make, tmp_path: Path) -> None:
        agent = build("thompson")
        path = agent.save(tmp_path / "agent")
        whole, members = path.read_bytes(), unzipped(path)
        rng = np.random.Generator(np.random.PCG64(0))
        for cut in rng.integers(0, len(whole), 40):
            path.write_bytes(whole[:cut])
            with pytest.raises(DataError):
                agents.load(path, env=agent.env)
        settings = json.loads(members["config.json"])
        hostile = [
            {**members, "format_version": b"1"},
            {**members, "config.json": b"[]"},
            {**members, "config.json": b"{"},
            {**members, "config.json": json.dumps({**settings, "more": 1}).encode()},
            {**members, "config.json": json.dumps({**settings, "streams": [{}, {}]}).encode()},
            {**members, "config.json": json.dumps({**settings, "num_timesteps": "x"}).encode()},
            {**members, "weights.safetensors": b"\x80\x04\x95pickle"},
            {**members, "data.pkl": b"\x80\x04."},
            {**members, "../escape": b"x"},
            {name: content for name, content in members.items() if name != "system_info.json"},
        ]
        for content in hostile:
            zipped(path, content)
            with pytest.raises(DataError):
                agents.load(path, env=agent.env)
        zipped(path, members, zipfile.ZIP_DEFLATED)
        with pytest.raises(DataError, match="compressed"):
            agents.load(path, env=agent.env)
        with pytest.raises(ConfigError, match="is no file"):
            agents.load(tmp_path / "nothing")

    def test_names_in_files_import_nothing(self, build: Make, tmp_path: Path) -> None:
        path = build("thompson").save(tmp_path / "agent")
        members = unzipped(path)
        spec = json.loads(members["env_spec.json"])
        for name in ("os:system", "antigravity:recsim_llm/News-v0", "recsim_llm/New-v0", None, 5):
            zipped(path, {**members, "env_spec.json": json.dumps({**spec, "id": name}).encode()})
            with pytest.raises(ConfigError, match="no environment"):
                agents.load(path)
        settings = json.loads(members["config.json"])
        zipped(path, {**members, "config.json": json.dumps({**settings, "agent": "os.system"}).encode()})
        with pytest.raises(ConfigError, match="no agent"):
            agents.load(path)

    def test_an_environment_that_cannot_be_written_down_must_be_given(self, build: Make, tmp_path: Path) -> None:
        agent = build("thompson", reward=lambda infos: infos["clicks"])
        path = agent.save(tmp_path / "agent")
        with pytest.raises(ConfigError, match=r"pass load\(path, env="):
            agents.load(path)
        agents.load(path, env=agent.env)


def unzipped(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def zipped(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    path.write_bytes(sink.getvalue())


class TestStableBaselines3:
    """``evaluate_policy`` works on every agent (CONVENTIONS row 45)."""

    @pytest.mark.parametrize("name", EVERYONE)
    def test_evaluate_policy(self, name: str, build: Make, world_folder: str) -> None:
        evaluation = pytest.importorskip("stable_baselines3.common.evaluation")
        agent = build(name).learn(100)
        if name == "oracle":
            env = agent.env.unwrapped.sb3()  # an oracle reads the truth of its own environment
        else:
            arguments = {"world": world_folder, "slate_size": 3, "users": "test", "horizon": 25}
            env = gym.make_vec("recsim_llm/News-v0", num_envs=3, **arguments).unwrapped.sb3()
        returns, lengths = evaluation.evaluate_policy(agent, env, n_eval_episodes=6, return_episode_rewards=True)
        assert len(returns) == 6
        assert all(0 <= total <= 25 for total in returns)
        assert all(0 < length <= 25 for length in lengths)

    @pytest.mark.parametrize("name", ["linucb", "mf", "oracle"])
    @pytest.mark.filterwarnings("ignore:Evaluation environment is not wrapped")
    def test_evaluate_policy_on_a_scalar_environment(self, name: str, build: Make) -> None:
        evaluation = pytest.importorskip("stable_baselines3.common.evaluation")
        agent = build(name, lanes=0, slate_size=1)
        mean, _ = evaluation.evaluate_policy(agent, agent.env, n_eval_episodes=2)
        assert 0 <= mean <= 25


class TestRandom:
    """The uniform policy is uniform."""

    @pytest.mark.parametrize("slate_size", [1, 3])
    def test_items_are_equally_frequent(self, slate_size: int) -> None:
        stats = pytest.importorskip("scipy.stats")
        rng = np.random.Generator(np.random.PCG64(0))
        action_mask = np.ones((4_000, 12), bool)
        action_mask[:, 5] = False
        slates = uniform_slates(action_mask, slate_size, rng)
        for slot in range(slate_size):
            counts = np.bincount(slates[:, slot], minlength=12)
            assert counts[5] == 0
            assert stats.chisquare(np.delete(counts, 5)).pvalue > ALPHA

    def test_slots_explore_with_probability_epsilon(self) -> None:
        stats = pytest.importorskip("scipy.stats")
        rng = np.random.Generator(np.random.PCG64(1))
        action_mask = np.ones((20_000, 1_000), bool)[:5_000]
        greedy = np.tile(np.arange(4), (5_000, 1))
        slates, _ = epsilon_greedy(greedy, action_mask, 0.3, rng)
        assert all(len(set(slate)) == 4 for slate in slates[:500].tolist())
        explored = int((slates != greedy).sum())
        rate = 0.3 * (1 - 4 / 1_000)
        assert stats.binomtest(explored, slates.size, rate).pvalue > ALPHA


class TestSlates:
    """The K best."""

    @pytest.mark.parametrize("seed", range(20))
    def test_best_is_what_sorting_gives(self, seed: int) -> None:
        rng = np.random.Generator(np.random.PCG64(seed))
        items, slate_size = int(rng.integers(1, 40)), 1
        slate_size = int(rng.integers(1, items + 1))
        scores = rng.integers(-3, 4, (5, items)).astype(np.float32)
        action_mask = rng.random((5, items)) < rng.random()
        slates = top_k(scores, action_mask, slate_size)
        for row, mask, slate in zip(scores, action_mask, slates, strict=True):
            order = sorted(range(items), key=lambda i: (not mask[i], -row[i] if mask[i] else 0, i))
            assert slate.tolist() == order[:slate_size]

    def test_what_was_consumed_rests(self, build: Make) -> None:
        agent = build("popularity")
        env_spec, observation = agent.env_spec, np.zeros((2, agent.env_spec.width), np.float32)
        shown = np.array([[1, 2, 3], [4, 5, 6]])
        memory = RecentItems.empty(2, env_spec).noting(shown)
        feedback = observation[:, env_spec.layout["feedback"]].reshape(2, 3, 8)
        feedback[0, 0, 0] = 1.0  # clicked item 1
        feedback[0, 1, 7] = 1.0  # left item 2; item 3 was never seen
        observation[:, env_spec.layout["feedback"]] = feedback.reshape(2, -1)
        memory = memory.renewed(observation, np.array([False, True]), env_spec)
        action_mask = np.ones((2, env_spec.items), bool)
        rested = memory.eligible(action_mask, after_click=3, after_look=1)
        assert np.flatnonzero(~rested[0]).tolist() == [1, 2]
        assert rested[1].all()
        nothing = np.zeros_like(observation)
        for resting in ([1, 2], [1], [1], []):
            memory = memory.renewed(nothing, np.zeros(2, bool), env_spec)
            assert np.flatnonzero(~memory.eligible(action_mask, after_click=3, after_look=1)[0]).tolist() == resting

    def test_a_short_shelf_lets_nothing_rest(self, build: Make) -> None:
        agent = build("popularity")
        action_mask = np.zeros((1, agent.env_spec.items), bool)
        action_mask[0, :3] = True
        state: Any = None
        for _ in range(5):
            actions, state = agent.predict(rows(agent, 1), state, np.zeros(1, bool), action_masks=action_mask)
            assert sorted(actions[0].tolist()) == [0, 1, 2]


class TestOracle:
    """The best slate under multinomial choice."""

    @pytest.mark.parametrize("seed", range(12))
    def test_no_slate_is_better(self, seed: int) -> None:
        rng = np.random.Generator(np.random.PCG64(seed))
        appeal, value = rng.normal(0, 2, (1, 7)), rng.normal(1, 1.5, (1, 7))
        usable = np.ones((1, 7), bool)
        usable[0, seed % 7] = False
        attention = np.arange(1.0, 4.0) ** -rng.uniform(0, 2)
        slates, rewards = best_assortment(appeal, value, usable, attention, 0.5)

        def reward(slate: tuple[int, ...]) -> float:
            weight = attention * np.exp(appeal[0, list(slate)] - 0.5)
            return float((weight * value[0, list(slate)]).sum() / (1.0 + weight.sum()))

        everything = [slate for slate in itertools.permutations(range(7), 3) if seed % 7 not in slate]
        assert rewards[0] == pytest.approx(max(map(reward, everything)), abs=1e-9)
        assert reward(tuple(slates[0].tolist())) == pytest.approx(rewards[0], abs=1e-9)

    @pytest.mark.parametrize("choice", ["multinomial", "cascade", "position"])
    def test_it_earns_more_than_chance(self, choice: str, build: Make) -> None:
        means = {}
        for name in ("oracle", "random"):
            rewards: list[float] = []
            agent = build(name, lanes=16, seed=1, choice=choice)
            agent.learn(800, callback=lambda names, _, kept=rewards: kept.append(names["transition"].reward.mean()))
            means[name] = np.mean(rewards)
        assert means["oracle"] > 1.15 * means["random"]

    def test_without_truth_it_says_what_to_do(self, build: Make) -> None:
        agent = build("oracle", truth=False)
        with pytest.raises(ConfigError, match="truth=True"):
            agent.predict(rows(agent, 4))
        with pytest.raises(ConfigError, match="truth=True"):
            agent.learn(10)

    def test_truth_for_other_lanes_is_refused(self, build: Make) -> None:
        agent = build("oracle")
        truth_for(agent, 3)
        with pytest.raises(ConfigError, match="for 3 lanes and the observation for 5"):
            agent.predict(rows(agent, 5))

    def test_truth_is_used_once(self, build: Make) -> None:
        agent = build("oracle")
        observation, _ = agent.env.reset(seed=0)
        truth_for(agent, 4, seed=1)
        shown, _ = agent.predict(observation)
        own, _ = agent.predict(observation)
        assert (shown != own).any()


class TestLinUCB:
    """Scores by products of matrices are the scores of the features."""

    @pytest.fixture
    def case(self, build: Make) -> tuple[Features, Situation]:
        agent = build("linucb")
        env_spec, features = agent.env_spec, Features(agent.env_spec, 5)
        rng = np.random.Generator(np.random.PCG64(0))

        def draw(*shape: int) -> NDArray[np.float32]:
            return rng.uniform(0, 1, shape).astype(np.float32)

        known = rng.permuted(np.tile(np.arange(env_spec.items, dtype=np.int32), (4, 1)), axis=1)[:, :40]
        known[:, 30:] = -1
        memory = RecentItems(
            known, draw(4, 40), draw(4, 40), draw(4, len(env_spec.catalog.topics)), np.zeros((4, 3), int)
        )
        situation = Situation(
            draw(4, env_spec.catalog.width), draw(4, env_spec.catalog.width), draw(4, 10), memory,
            np.array([6.0, 3.0, 0.0, -1.0], np.float32), draw(env_spec.items),
        )  # fmt: skip
        return features, situation

    @pytest.mark.parametrize("apart", [0.0, 30.0])
    def test_both_ways_to_score_agree(self, apart: float, case: tuple[Features, Situation]) -> None:
        features, situation = case
        situation = replace(
            situation, newest=situation.newest + np.float32(apart) * np.arange(4, dtype=np.float32)
        )  # far apart, freshness is no product
        rng = np.random.Generator(np.random.PCG64(1))
        theta = rng.normal(size=features.count).astype(np.float32)
        everything = np.tile(np.arange(60), (4, 1))
        slow = features.of(situation, everything) @ theta
        difference = slow - features.scores(situation, theta)
        shelf = features.released[:60] <= situation.newest[:, None]
        for row, out in zip(difference, shelf, strict=True):
            assert out.sum() > 1
            assert row[out] == pytest.approx(row[out][0], abs=1e-4)

    def test_theta_is_the_ridge_solution(self, build: Make) -> None:
        agent: Any = build("linucb", config={"growth": 0.0})
        agent.learn(400)
        model = agent.model
        assert model.theta == pytest.approx(np.linalg.solve(model.gram, model.moment), abs=1e-4)
        assert model.root.T @ model.root == pytest.approx(np.linalg.inv(model.gram), abs=1e-4)
        assert model.samples[0] == agent.counts.looks.sum()

    def test_width_falls_as_data_come(self, build: Make, case: tuple[Features, Situation]) -> None:
        agent: Any = build("linucb")
        features, situation = agent.features, case[1]
        phi = features.of(situation, np.tile(np.arange(60), (4, 1)))
        before = np.square(phi @ agent.model.root.T).sum()
        agent.learn(400)
        assert np.square(phi @ agent.model.root.T).sum() < 0.8 * before


class TestMF:
    """Folding in a user is ridge regression on what she did."""

    def test_the_sums_are_those_of_the_episode(self, build: Make) -> None:
        agent: Any = build("mf", config={"epochs": 3, "factors": 4})
        agent.learn(400)
        model, env_spec = agent.model, agent.env_spec
        rng = np.random.Generator(np.random.PCG64(0))
        state: Any = None
        designs, targets = [], []
        observation = np.zeros((1, env_spec.width), np.float32)
        for _ in range(6):
            actions, state = agent.predict(
                observation, state, np.zeros(1, bool), action_masks=np.ones(env_spec.items, bool)
            )
            clicks = rng.random(3) < 0.5
            signals = np.zeros((3, 8), np.float32)
            signals[:, 0], signals[:, 7] = clicks, ~clicks
            observation[:, env_spec.layout["feedback"]] = signals.reshape(1, -1)
            items = actions[0]
            designs += [np.concatenate([[1.0], model.weights * model.items[item]]) for item in items]
            targets += list(clicks - model.mu[0] - model.item_bias[items])
        _, state = agent.predict(observation, state, np.zeros(1, bool))
        x, y = np.array(designs), np.array(targets)
        assert state.gram[0] == pytest.approx(x.T @ x)
        assert state.moment[0] == pytest.approx(x.T @ y)
        _, state = agent.predict(observation, state, np.ones(1, bool))
        assert not state.gram.any()

    def test_the_model_predicts_what_it_was_fitted_to(self) -> None:
        from recsim_llm.agents.logged.sgd_factorisation import Factors, fit

        rng = np.random.Generator(np.random.PCG64(0))
        users, items = rng.normal(size=(40, 2)), rng.normal(size=(30, 2))
        bias_u, bias_i = 0.5 * rng.normal(size=40), 0.5 * rng.normal(size=30)
        user, item = (index.ravel() for index in np.meshgrid(np.arange(40), np.arange(30), indexing="ij"))
        rating = 1.0 + bias_u[user] + bias_i[item] + (users[user] * items[item]).sum(1)
        held_out = rng.random(len(user)) < 0.2
        model = Factors.start(40, 30, 2, rng)
        fit(
            model, user[~held_out], item[~held_out], rating[~held_out], epochs=200, rate=0.05, shrink_bias=1e-3,
            shrink=1e-3, rng=rng,
        )  # fmt: skip
        u, i = user[held_out], item[held_out]
        predicted = model.mu[0] + model.user_bias[u] + model.item_bias[i]
        predicted += (model.users[u] * model.items[i] * model.weights).sum(1)
        assert np.square(predicted - rating[held_out]).mean() < 0.02 * rating.var()
