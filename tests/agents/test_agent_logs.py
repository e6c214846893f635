"""Logs and callbacks as Stable-Baselines3 has them (CONVENTIONS rows 45 and 56 to 62)."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from recsim_llm import agents
from recsim_llm.agents.core.callbacks import EvaluationCallback, Hook, hooked
from recsim_llm.agents.core.log_formats import Csv, Tables, opened
from recsim_llm.agents.core.run_logger import Monitor, RunLogger, numbered
from recsim_llm.errors import ConfigError

ROLLOUT = {"rollout/ep_rew_mean", "rollout/ep_len_mean", "rollout/success_rate"}
RECSYS = {"recsys/ctr", "recsys/coverage", "recsys/diversity"}
TIMES = {"time/fps", "time/episodes", "time/time_elapsed", "time/total_timesteps"}
HIDDEN = TIMES - {"time/fps"}
"""Tags that are not for TensorBoard (row 57)."""

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def build(world_folder: str) -> Make:
    """Makes an agent on the synthetic world."""

    def made(name: str = "epsilon_greedy", *, lanes: int = 4, users: str = "train", **config: Any) -> Any:
        return agents.make(name, environment(world_folder, lanes, users), **config)

    return made


def environment(world: str, lanes: int = 4, users: str = "train") -> Any:
    return gym.make_vec("recsim_llm/News-v0", num_envs=lanes, world=world, slate_size=3, users=users, horizon=20)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Scalars of a run by tag: steps and values."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder))
    reader.Reload()
    return {tag: [(e.step, e.value) for e in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


class TestRuns:
    """Folders, files and tags."""

    def test_files_have_the_names_and_tags_of_stable_baselines3(self, build: Make, tmp_path: Path) -> None:
        agent = build().log_to(tmp_path, formats=("csv", "json", "log"))
        agent.learn(800, tb_log_name="mine", log_interval=10)
        folder = tmp_path / "mine_1"
        assert {path.name for path in folder.iterdir()} == {"progress.csv", "progress.json", "log.txt", "0.monitor.csv"}
        rows = table(folder / "progress.csv")
        tags = ROLLOUT | RECSYS | TIMES | {"rollout/exploration_rate"}
        assert list(rows[0]) == sorted(tags)
        lines = [json.loads(line) for line in (folder / "progress.json").read_text().splitlines()]
        assert len(lines) == len(rows) >= 3
        for row, line in zip(rows, lines, strict=True):
            assert {key: float(value) for key, value in row.items()} == line
        last = lines[-1]
        assert last["time/total_timesteps"] == agent.num_timesteps
        assert last["time/episodes"] == len(table_of_monitor(folder))
        assert last["rollout/exploration_rate"] == pytest.approx(agent.epsilon)
        assert all(0 < last[tag] <= 1 for tag in RECSYS)
        text = (folder / "log.txt").read_text()
        assert "| rollout/ " in text
        assert "|    ep_rew_mean " in text

    def test_episodes_are_those_that_were_played(self, build: Make, tmp_path: Path) -> None:
        agent = build().log_to(tmp_path, formats=(), info_keywords=("clicks", "is_success"))
        running, expected = np.zeros(4), []

        def noted(names: dict[str, Any], _: Any) -> None:
            t = names["transition"]
            running[t.valid] += t.reward[t.valid]
            for lane in np.flatnonzero(t.terminated | t.truncated):
                expected.append((round(float(running[lane]), 6), int(t.info["clicks"][lane])))
                running[lane] = 0.0

        agent.learn(300, callback=noted)
        agent.learn(300, callback=noted)
        rows = table_of_monitor(tmp_path / "run_1")
        assert [(float(row["r"]), int(row["clicks"])) for row in rows] == expected
        assert list(rows[0]) == ["r", "l", "t", "clicks", "is_success"]
        assert all(0 < int(row["l"]) <= 20 for row in rows)
        times = [float(row["t"]) for row in rows]
        assert times == sorted(times)

    def test_load_results_reads_the_monitor(self, build: Make, tmp_path: Path) -> None:
        pytest.importorskip("pandas")
        monitor = pytest.importorskip("stable_baselines3.common.monitor")
        build().log_to(tmp_path, formats=(), info_keywords=("clicks",)).learn(400)
        frame = monitor.load_results(str(tmp_path / "run_1"))
        rows = table_of_monitor(tmp_path / "run_1")
        assert frame["r"].tolist() == [float(row["r"]) for row in rows]
        assert frame["clicks"].tolist() == [int(row["clicks"]) for row in rows]
        first = (tmp_path / "run_1" / "0.monitor.csv").read_text().splitlines()[0]
        assert json.loads(first[1:])["env_id"] == "recsim_llm/News-v0"

    def test_a_second_call_goes_on_in_the_same_run(self, build: Make, tmp_path: Path) -> None:
        agent = build().log_to(tmp_path, formats=("csv",))
        agent.learn(200, log_interval=5)
        some = len(table(tmp_path / "run_1" / "progress.csv"))
        agent.learn(200, log_interval=5)
        rows = table(tmp_path / "run_1" / "progress.csv")
        assert len(rows) > some
        steps = [int(row["time/total_timesteps"]) for row in rows]
        assert steps == sorted(steps)
        agent.learn(200, reset_num_timesteps=True)
        build().log_to(tmp_path, formats=()).learn(40)
        assert {path.name for path in tmp_path.iterdir()} == {"run_1", "run_2", "run_3"}

    def test_tensorboard_shows_it(self, build: Make, tmp_path: Path) -> None:
        agent = build().log_to(tmp_path, formats=("tensorboard",))
        agent.learn(600, log_interval=10)
        found = events(tmp_path / "run_1")
        assert ROLLOUT | RECSYS | {"time/fps", "rollout/exploration_rate"} <= set(found)
        assert not HIDDEN & set(found)
        steps = [step for step, _ in found["rollout/ep_rew_mean"]]
        assert steps == sorted(set(steps))
        assert steps[-1] == agent.num_timesteps
        assert found["rollout/ep_rew_mean"][-1][1] == pytest.approx(agent.logger["rollout/ep_rew_mean"])

    def test_logging_changes_nothing(self, build: Make, tmp_path: Path) -> None:
        silent, logged = build().learn(400), build().log_to(tmp_path, formats=("csv",)).learn(400, log_interval=3)
        for name, array in silent.arrays().items():
            assert (array == logged.arrays()[name]).all(), name

    def test_what_was_begun_is_written_when_learning_fails(self, build: Make, tmp_path: Path) -> None:
        agent = build().log_to(tmp_path, formats=("csv",))

        def fails(names: dict[str, Any], _: Any) -> None:
            if names["self"].num_timesteps > 200:
                raise RuntimeError("enough")

        with pytest.raises(RuntimeError, match="enough"):
            agent.learn(1_000, callback=fails)
        assert len(table(tmp_path / "run_1" / "progress.csv")) == 1
        assert agent.logger.output_formats == []

    @pytest.mark.parametrize("name", ["ppo", "dqn"])
    def test_agents_of_stable_baselines3_log_too(self, name: str, build: Make, tmp_path: Path) -> None:
        pytest.importorskip("stable_baselines3")
        config = {"rollout": 64, "batch": 64, "epochs": 1} if name == "ppo" else {}
        agent = build(name, **config).log_to(tmp_path, formats=("csv",))
        agent.learn(400)
        rows = table(tmp_path / "run_1" / "progress.csv")
        assert {"rollout/ep_rew_mean", "time/fps"} <= set(rows[-1])
        assert len(table_of_monitor(tmp_path / "run_1")) >= 10

    def test_wrong_formats_are_named(self, build: Make, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"no log format 'cvs'\. Did you mean 'csv'\?"):
            build().log_to(tmp_path, formats=("cvs",))
        with pytest.raises(ConfigError, match="no log format"):
            opened("xml", tmp_path)

    def test_numbers_of_runs_go_up(self, tmp_path: Path) -> None:
        (tmp_path / "a_b_7").mkdir()
        (tmp_path / "a_b_old").mkdir()
        (tmp_path / "a_3").mkdir()
        assert numbered(tmp_path, "a_b").name == "a_b_8"
        assert numbered(tmp_path, "a").name == "a_4"
        assert numbered(tmp_path, "[a]").name == "[a]_1"
        assert numbered(tmp_path, "[a]").name == "[a]_2"

    def test_logs_need_neither_torch_nor_stable_baselines3(self, world_folder: str, tmp_path: Path) -> None:
        code = f"""
import sys
sys.modules["torch"] = sys.modules["stable_baselines3"] = None
import gymnasium as gym, recsim_llm
from recsim_llm import agents
from recsim_llm.agents.core.callbacks import EvaluationCallback
env = lambda: gym.make_vec("recsim_llm/News-v0", num_envs=2, world={world_folder!r}, slate_size=3, horizon=10)
agent = agents.make("thompson", env()).log_to({str(tmp_path)!r}, formats=("csv", "json", "log", "stdout"))
agent.learn(100, callback=EvaluationCallback(env(), eval_freq=50, log_path={str(tmp_path)!r}))
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "ep_rew_mean" in done.stdout
        assert (tmp_path / "evaluations.npz").exists()


def table_of_monitor(folder: Path) -> list[dict[str, str]]:
    with (folder / "0.monitor.csv").open(newline="") as stream:
        assert stream.readline().startswith('#{"t_start": ')
        return list(csv.DictReader(stream))


class TestLogger:
    """What Stable-Baselines3 and people call on a logger."""

    def test_it_remembers_the_last_and_writes_what_is_new(self, tmp_path: Path) -> None:
        logger = RunLogger()
        logger.output_formats = [Csv(tmp_path / "progress.csv")]
        logger["b/x"] = 1.0
        logger.record("a/y", 2, exclude="csv")
        logger.record_mean("c/z", 1.0)
        logger.record_mean("c/z", 3.0)
        logger.record_mean("c/z", None)
        assert logger.name_to_value == {"b/x": 1.0, "a/y": 2, "c/z": 2.0}
        logger.dump(5)
        logger.record("a/new", 7)
        logger.record_mean("c/z", 5.0)
        logger.dump(6)
        assert dict(logger) == {"b/x": 1.0, "a/y": 2, "c/z": 5.0, "a/new": 7}
        assert (tmp_path / "progress.csv").read_text() == "a/new,b/x,c/z\n,1.0,2.0\n7,,5.0\n"
        again = Csv(tmp_path / "progress.csv")
        again.write({"b/x": 4}, 7)
        assert (tmp_path / "progress.csv").read_text().endswith("7,,5.0\n,4,\n")
        logger.close()

    def test_tables_are_those_of_stable_baselines3(self, tmp_path: Path) -> None:
        library = pytest.importorskip("stable_baselines3.common.logger")
        values = {"rollout/ep_rew_mean": 1.5, "time/fps": 12, "rollout/a_name_that_is_far_too_long_for_a_table": 2.0}
        ours, theirs = tmp_path / "ours.txt", tmp_path / "theirs.txt"
        format_ = Tables(ours.open("w"), "log")
        format_.write(values, 1)
        format_.close()
        other = library.HumanOutputFormat(str(theirs))
        other.write(values, dict.fromkeys(values))
        other.close()
        assert ours.read_text() == theirs.read_text()

    def test_a_monitor_goes_on(self, tmp_path: Path) -> None:
        path = tmp_path / "0.monitor.csv"
        for total in (1.23456789, 2.0):
            monitor = Monitor(path, "id", ("clicks",))
            monitor.write(total, 3, {"clicks": 2, "other": 1})
            monitor.close()
        rows = table_of_monitor(tmp_path)
        assert [row["r"] for row in rows] == ["1.234568", "2.0"]
        assert rows[0]["clicks"] == "2"


class TestCallbacks:
    """Functions, hooks, and callbacks of Stable-Baselines3."""

    def test_all_of_a_list_are_called_and_any_may_end_it(self, build: Make) -> None:
        calls: list[str] = []

        class Mine(Hook):
            def begin(self, names: dict[str, Any], globals_: dict[str, Any]) -> None:
                calls.append("begin")

            def step(self, names: dict[str, Any], globals_: dict[str, Any]) -> bool:
                calls.append("step")
                return len(calls) < 5

            def end(self) -> None:
                calls.append("end")

        other: list[int] = []
        agent = build().learn(400, callback=[Mine(), lambda names, _: other.append(names["self"].num_timesteps)])
        assert calls == ["begin", *["step"] * 4, "end"]
        assert other == [4, 8, 12, 16]
        assert agent.num_timesteps == 16
        with pytest.raises(ConfigError, match="callback is a int"):
            hooked(3, agent)

    def test_evaluation_writes_what_evalcallback_writes(self, build: Make, world_folder: str, tmp_path: Path) -> None:
        held_out = environment(world_folder, 3, "test")
        callback = EvaluationCallback(
            held_out, n_eval_episodes=5, eval_freq=200, log_path=tmp_path, best_model_save_path=tmp_path / "best"
        )
        agent = build("popularity").learn(650, callback=callback)
        with np.load(tmp_path / "evaluations.npz") as saved:
            assert {name: (saved[name].shape, saved[name].dtype) for name in saved} == {
                "timesteps": ((3,), np.int64), "results": ((3, 5), np.float64), "ep_lengths": ((3, 5), np.int64),
                "successes": ((3, 5), np.bool_),
            }  # fmt: skip
            means = saved["results"].mean(1)
            at = saved["timesteps"]
            assert (np.diff(at, prepend=0) // 8 == 25).all()  # a step of each lane more at most
        assert callback.best_mean_reward == pytest.approx(means.max())
        assert agent.logger["eval/mean_reward"] == pytest.approx(means[-1])
        best = agents.load(tmp_path / "best" / "best_model.zip", env=build("popularity").env)
        assert best.num_timesteps == at[means.argmax()]
        assert EvaluationCallback(held_out, n_eval_episodes=5).evaluate(best) == pytest.approx(means.max())

    def test_evaluating_does_not_disturb_learning(self, build: Make, world_folder: str) -> None:
        for name in ("thompson", "mf", "linucb"):
            quiet = build(name).learn(300)
            watched = build(name).learn(300, callback=EvaluationCallback(environment(world_folder), eval_freq=50))
            for key, array in quiet.arrays().items():
                assert (array == watched.arrays()[key]).all(), (name, key)

    def test_another_catalogue_is_refused(self, build: Make) -> None:
        other = gym.make_vec("recsim_llm/News-v0", num_envs=2)
        with pytest.raises(ConfigError, match="another catalogue"):
            build().learn(10, callback=EvaluationCallback(other))
        with pytest.raises(ConfigError, match="must be >= 1"):
            EvaluationCallback(other, n_eval_episodes=0)

    def test_those_of_stable_baselines3_work(self, build: Make, world_folder: str, tmp_path: Path) -> None:
        library = pytest.importorskip("stable_baselines3.common.callbacks")
        agent = build().log_to(tmp_path / "logs", formats=("csv",))
        evaluation = library.EvalCallback(
            environment(world_folder, 3, "test").unwrapped.sb3(), n_eval_episodes=6, eval_freq=50, verbose=0,
            log_path=str(tmp_path), best_model_save_path=str(tmp_path),
        )  # fmt: skip
        seen: list[tuple[int, int]] = []

        class Mine(library.BaseCallback):  # type: ignore[misc, name-defined]
            def _on_step(self) -> bool:
                infos = [info for info in self.locals["infos"] if "episode" in info]
                assert len(infos) == self.locals["dones"].sum()
                assert self.training_env.num_envs == 4
                seen.append((self.num_timesteps, len(infos)))
                return True

        given = [
            evaluation, library.CheckpointCallback(100, str(tmp_path / "checkpoints"), name_prefix="agent"),
            library.StopTrainingOnMaxEpisodes(20), Mine(),
        ]  # fmt: skip
        agent.learn(100_000, callback=given)
        episodes = sum(count for _, count in seen)
        assert 20 <= episodes // 4 * 4 < 100
        assert seen[-1][0] == agent.num_timesteps
        assert len(table_of_monitor(tmp_path / "logs" / "run_1")) == episodes
        with np.load(tmp_path / "evaluations.npz") as saved:
            assert saved["results"].shape[1] == 6
            assert saved["timesteps"].tolist() == sorted(saved["timesteps"].tolist())
        assert agents.load(tmp_path / "best_model.zip", env=agent.env).name == "epsilon_greedy"
        assert sorted((tmp_path / "checkpoints").iterdir())
        assert any(row["eval/mean_reward"] for row in table(tmp_path / "logs" / "run_1" / "progress.csv"))

    def test_thresholds_and_other_callbacks_inside(self, build: Make, world_folder: str) -> None:
        library = pytest.importorskip("stable_baselines3.common.callbacks")
        stop = library.StopTrainingOnRewardThreshold(-1.0, verbose=0)
        evaluation = library.EvalCallback(
            environment(world_folder, 4).unwrapped.sb3(), callback_on_new_best=stop, eval_freq=30, verbose=0
        )
        agent = build("mf", epochs=1)
        agent.learn(5_000, callback=library.CallbackList([evaluation]))
        assert agent.num_timesteps < 200
