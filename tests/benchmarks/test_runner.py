"""The runner: the same rows however it runs; faults are recorded and the rest goes on (RELIABILITY T7, T9, T33)."""

from __future__ import annotations

import io
import logging
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from recsim_llm.benchmarks.analysis.leaderboard import leaderboard
from recsim_llm.benchmarks.harness import pool, worker
from recsim_llm.benchmarks.harness.experiment import Experiment
from recsim_llm.benchmarks.harness.records import DONE, FAILED, FILE, KILLED, TIMEOUT, read
from recsim_llm.benchmarks.harness.results import Results, load, results_csv
from recsim_llm.benchmarks.harness.runner import run
from recsim_llm.benchmarks.harness.store import Store
from recsim_llm.benchmarks.harness.testing_cells import FAULTS, TRACE, fake_experiment
from recsim_llm.benchmarks.presets import NEWS
from recsim_llm.errors import ConfigError, MissingExtraError, StoreError

EXPERIMENT = fake_experiment()


def fake_run(out: Path, experiment: Any = EXPERIMENT, **options: Any) -> Results:
    return run(experiment, out, function="fake", **{"jobs": 2, **options})


def faulty(fault: str, **settings: Any) -> Any:
    return fake_experiment(
        scenarios=("Fake/A-v0",), agent_configs={"linucb": {"fault": fault, "faulty_seeds": [1], **settings}}
    )


class TestInvariance:
    def test_rows_do_not_depend_on_processes_or_order(self, tmp_path: Path) -> None:
        fake_run(tmp_path / "here", jobs=0)
        fake_run(tmp_path / "one", jobs=1)
        fake_run(tmp_path / "two", jobs=2)
        shuffled = random.Random(3)
        fake_run(tmp_path / "order", order=lambda cells: shuffled.sample(cells, len(cells)))
        rows = {name: read(tmp_path / name).canonical_rows() for name in ("here", "one", "two", "order")}
        assert len(rows["here"]) == 18
        assert rows["one"] == rows["here"]
        assert rows["two"] == rows["here"]
        assert rows["order"] == rows["here"]
        files = [(tmp_path / name / FILE).read_bytes() for name in ("here", "order")]
        assert files[0] != files[1]  # the order did differ
        assert results_csv(tmp_path / "here") == results_csv(tmp_path / "order")

    def test_a_finished_run_runs_nothing_again(self, tmp_path: Path) -> None:
        fake_run(tmp_path)
        before = (tmp_path / FILE).read_bytes()
        fake_run(tmp_path)
        fake_run(tmp_path, EXPERIMENT.replace(agents=EXPERIMENT.agents[::-1]))
        assert (tmp_path / FILE).read_bytes() == before

    def test_a_changed_experiment_is_refused(self, tmp_path: Path) -> None:
        fake_run(tmp_path, jobs=0)
        with pytest.raises(StoreError, match="budget: 1000"):
            fake_run(tmp_path, EXPERIMENT.replace(budget=500), jobs=0)

    def test_a_larger_experiment_runs_only_what_is_new(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        trace = tmp_path / "trace"
        monkeypatch.setenv(TRACE, str(trace))
        fake_run(tmp_path / "grown")
        assert len(trace.read_text().split()) == 18
        trace.unlink()
        larger = EXPERIMENT.replace(agents=("mine", *EXPERIMENT.agents), seeds=(0, 1, 2, 3))
        found = fake_run(tmp_path / "grown", larger)
        new = {cell.key for cell in larger.cells() if cell.agent == "mine" or cell.seed == 3}
        assert sorted(trace.read_text().split()) == sorted(new)
        assert found.missing == 0
        fake_run(tmp_path / "whole", larger, jobs=0)
        assert read(tmp_path / "grown").canonical_rows() == read(tmp_path / "whole").canonical_rows()
        assert results_csv(tmp_path / "grown") == results_csv(tmp_path / "whole")
        boards = [leaderboard(load(tmp_path / name)) for name in ("grown", "whole")]
        assert [line.score for line in boards[0].lines] == [line.score for line in boards[1].lines]

    def test_one_thread_in_workers_and_the_drivers_environment_untouched(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OMP_NUM_THREADS", "7")
        monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
        with pool.one_thread():
            assert os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == "1"
        assert os.environ["OMP_NUM_THREADS"] == "7"
        assert "MKL_NUM_THREADS" not in os.environ


EXPECTED = {
    "exception": (FAILED, "ValueError", "seed 1 does not please me"),
    "unpicklable exception": (FAILED, "_Unpicklable", "first"),
    "unpicklable result": (FAILED, "StoreError", "cannot be stored"),
    "SIGKILL": (KILLED, "SIGKILL", "memory runs out"),
    "SIGSEGV": (KILLED, "SIGSEGV", "SIGSEGV"),
    "exit 0": (KILLED, "exit 0", "exit code 0"),
    "exit 1": (KILLED, "exit 1", "exit code 1"),
    "sys.exit": (FAILED, "SystemExit", "3"),
    "memory": (FAILED, "MemoryError", ""),
    "recursion": (FAILED, "RecursionError", "recursion"),
    "import": (FAILED, "ModuleNotFoundError", "no_such_module"),
    "endless loop": (TIMEOUT, "TimeoutError", "limit of 0.5 s"),
    "endless output": (TIMEOUT, "TimeoutError", "limit of 0.5 s"),
    "thread": (DONE, "", ""),
    "semaphore": (DONE, "", ""),
}


class TestFaults:
    def test_every_fault_has_its_expectation(self) -> None:
        assert EXPECTED.keys() == FAULTS.keys()

    @pytest.mark.parametrize("fault", sorted(EXPECTED))
    def test_a_fault_is_recorded_and_the_others_go_on(self, tmp_path: Path, fault: str) -> None:
        start = time.monotonic()
        limit = 0.5 if fault.startswith("endless") else None
        results = fake_run(tmp_path, faulty(fault), timeout=limit)
        state, error_type, says = EXPECTED[fault]
        rows = {(row.cell.agent, row.cell.seed): row for row in results.rows}
        assert len(rows) == 9
        bad = rows.pop(("linucb", 1))
        assert all(row.state == DONE for row in rows.values())
        assert bad.state == state
        if state != DONE:
            assert bad.result["error_type"] == error_type
            assert says in bad.result["error"]
            assert len(bad.result["last_lines"]) <= worker.LAST_LINES
        if fault == "SIGKILL":
            assert "last words before the signal" in bad.result["last_lines"]
        if fault == "SIGSEGV":
            assert any("Segmentation fault" in line for line in bad.result["last_lines"])
        if fault == "exception":
            assert bad.result["last_lines"][-1] == "ValueError: seed 1 does not please me"
        assert not multiprocessing.active_children()
        assert time.monotonic() - start < 20

    def test_a_worker_that_dies_once_gets_its_cell_again(self, tmp_path: Path) -> None:
        results = fake_run(tmp_path / "out", faulty("SIGKILL", marker=str(tmp_path / "marker")))
        assert (tmp_path / "marker").exists()
        assert all(row.state == DONE for row in results.rows)
        again = fake_run(tmp_path / "no", faulty("SIGKILL", marker=str(tmp_path / "second")), retries=0)
        assert [row.state for row in again.failed] == [KILLED]

    def test_failed_cells_run_again_only_when_asked(self, tmp_path: Path) -> None:
        experiment = faulty("exception", marker=str(tmp_path / "marker"))
        assert len(fake_run(tmp_path / "out", experiment).failed) == 1
        assert len(fake_run(tmp_path / "out", experiment).failed) == 1
        results = fake_run(tmp_path / "out", experiment, retry_failed=True)
        assert not results.failed
        assert not results.problems
        assert len(results.rows) == 9

    def test_failures_show_in_the_csv_without_their_wording(self, tmp_path: Path) -> None:
        fake_run(tmp_path, faulty("exception"))
        lines = results_csv(tmp_path).splitlines()
        assert lines[0].startswith("scenario,agent,seed,state,step")
        assert len(lines) == 1 + 8 * 3 + 1
        assert "Fake/A-v0,linucb,1,failed,,,,,,,,,,ValueError" in lines
        assert "wall" not in lines[0]

    def test_a_script_without_main_guard_is_told_so(self, tmp_path: Path) -> None:
        script = tmp_path / "script.py"
        script.write_text(
            "from recsim_llm.benchmarks.harness.runner import run\n"
            "from recsim_llm.benchmarks.harness.testing_cells import fake_experiment\n"
            f"run(fake_experiment(), {str(tmp_path / 'out')!r}, function='fake', jobs=2)\n"
        )
        done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1
        assert 'if __name__ == "__main__":' in done.stderr
        assert "WorkerError" in done.stderr

    def test_workers_give_their_semaphores_back(self, tmp_path: Path) -> None:
        """Else Python says at the end of every study with progress bars in it that some leaked."""
        script = (
            "from recsim_llm.benchmarks.harness.runner import run\n"
            "from recsim_llm.benchmarks.harness.testing_cells import fake_experiment\n"
            "experiment = fake_experiment(agent_configs={'linucb': {'fault': 'semaphore'}})\n"
            f"run(experiment, {str(tmp_path / 'out')!r}, function='fake', jobs=2)\n"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
        assert "leaked" not in done.stderr

    def test_the_disk_filling_up_stops_the_workers(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(self: Any, row: Any) -> None:
            raise StoreError("no space")

        monkeypatch.setattr("recsim_llm.benchmarks.harness.store.Store.append", refuse)
        with pytest.raises(StoreError, match="no space"):
            fake_run(tmp_path)
        assert not multiprocessing.active_children()


class TestArguments:
    def test_bad_arguments(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="Did you mean 'local'"):
            fake_run(tmp_path, backend="locl")
        with pytest.raises(ConfigError, match="jobs is -1"):
            fake_run(tmp_path, jobs=-1)
        with pytest.raises(ConfigError, match="timeout is 0"):
            fake_run(tmp_path, timeout=0)
        with pytest.raises(ConfigError, match="no cell function"):
            run(EXPERIMENT, tmp_path, function="os.system")
        assert not (tmp_path / FILE).exists()

    def test_progress_goes_to_a_terminal_only(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "recsim_llm")
        plain, terminal = io.StringIO(), io.StringIO()
        fake_run(tmp_path / "a", jobs=0, console=Console(file=plain))
        fake_run(tmp_path / "b", jobs=0, console=Console(file=terminal, force_terminal=True, width=120))
        assert plain.getvalue() == ""
        assert "18/18" in terminal.getvalue()
        assert "18 of 18" in caplog.text

    def test_ray_is_named_when_it_is_missing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "ray", None)
        with pytest.raises(MissingExtraError, match="pip install ray"):
            fake_run(tmp_path, backend="ray")

    def test_rows_on_ray_are_the_same(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "ray", stand_in_for_ray())
        fake_run(tmp_path / "ray", backend="ray", jobs=None)
        fake_run(tmp_path / "here", jobs=0)
        assert read(tmp_path / "ray").canonical_rows() == read(tmp_path / "here").canonical_rows()


OWN_AGENT = """
from recsim_llm import agents
from recsim_llm.agents.reference.random_policy import RandomAgent

@agents.register
class MyAgent(RandomAgent):
    name = "my_agent"
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that registers an agent, importable in this process and in those that it starts."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "own_agents_of_a_test.py").write_text(OWN_AGENT)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    monkeypatch.setattr("recsim_llm.agents._registered", {})
    monkeypatch.delitem(sys.modules, "own_agents_of_a_test", raising=False)
    return "own_agents_of_a_test"


class TestModules:
    """Agents that a module of the user registers run wherever cells run."""

    EXPERIMENT = Experiment(
        scenarios=(NEWS,), agents=("random", "my_agent"), seeds=(0,), budget=64, checkpoints=(0, 64), lanes=4,
        episodes=3, env_kwargs={NEWS: {"max_episode_steps": 5}},
    )  # fmt: skip

    def test_an_agent_of_ones_own_in_two_processes_here_and_on_ray(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_module: str
    ) -> None:
        with pytest.raises(ConfigError, match="no agent 'my_agent'"):
            run(self.EXPERIMENT, tmp_path / "two", jobs=2)
        monkeypatch.setitem(sys.modules, "ray", stand_in_for_ray())
        for name, options in {"two": {"jobs": 2}, "here": {"jobs": 0}, "ray": {"backend": "ray"}}.items():
            found = run(self.EXPERIMENT, tmp_path / name, modules=[own_module], **options)  # type: ignore[arg-type]
            assert {row.cell.agent: row.state for row in found.rows} == {"random": DONE, "my_agent": DONE}
            assert found.header["modules"] == [own_module]
        rows = {name: read(tmp_path / name).canonical_rows() for name in ("two", "here", "ray")}
        assert rows["two"] == rows["here"] == rows["ray"]

    def test_fresh_processes_know_only_what_they_import(self, tmp_path: Path, own_module: str) -> None:
        worker.import_modules([own_module])  # known to this process alone
        found = run(self.EXPERIMENT, tmp_path, jobs=1)
        assert [row.result["error"][:20] for row in found.failed] == ["no agent 'my_agent'."]

    def test_names_in_a_stored_file_are_never_imported(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "module_of_a_stranger.py").write_text(f"import os; os.mkdir({str(tmp_path / 'seen')!r})")
        monkeypatch.syspath_prepend(str(tmp_path))
        Store(tmp_path / "out", EXPERIMENT, modules=["module_of_a_stranger"]).close()
        assert fake_run(tmp_path / "out").header["modules"] == ["module_of_a_stranger"]
        assert not (tmp_path / "seen").exists()
        fake_run(tmp_path / "out", modules=["module_of_a_stranger"])
        assert (tmp_path / "seen").exists()

    @pytest.mark.parametrize(
        ("modules", "says"),
        [
            (["no_such_module_at_all"], "'no_such_module_at_all' cannot be imported .*PYTHONPATH"),
            ([".relative"], "'.relative' cannot be imported"),
            ("json", "it must be a list"),
        ],
    )
    def test_modules_that_cannot_be_imported_are_named_before_anything_runs(
        self, tmp_path: Path, modules: Any, says: str
    ) -> None:
        with pytest.raises(ConfigError, match=says):
            fake_run(tmp_path, modules=modules)
        assert not (tmp_path / FILE).exists()

    def test_on_the_command_line_with_a_module_beside_it(self, tmp_path: Path) -> None:
        (tmp_path / "own_agents_of_a_test.py").write_text(OWN_AGENT)
        command = (
            "bench --import own_agents_of_a_test --env news --agent random --agent my_agent --seeds 1 --budget 64 "
            "--lanes 4 --episodes 3 --set env.max_episode_steps=5 --jobs 2 --out out"
        )
        script = "import sys; sys.path.remove(''); from recsim_llm.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", script, *command.split()],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert {row.cell.agent: row.state for row in read(tmp_path / "out").rows.values()} == {
            "random": DONE,
            "my_agent": DONE,
        }


def stand_in_for_ray() -> types.ModuleType:
    """Ray's five calls that are used, run at once in this process; Ray itself is too large for the test environment."""
    ray = types.ModuleType("ray")

    class Reference:
        def __init__(self, value: Any) -> None:
            self.value = value

    def remote(**options: Any) -> Any:
        assert options["num_cpus"] == 1
        return lambda function: types.SimpleNamespace(remote=lambda *given: Reference(function(*given)))

    def initialise(**options: Any) -> None:
        assert options["ignore_reinit_error"]
        assert options["log_to_driver"] is False

    contents: dict[str, Any] = {
        "init": initialise,
        "remote": remote,
        "wait": lambda references, num_returns, timeout: (references[-1:], references[:-1]),
        "get": lambda reference: reference.value,
    }
    vars(ray).update(contents)
    return ray


SLOW_DRIVER = """
import sys
from recsim_llm.benchmarks.harness.runner import run
from recsim_llm.benchmarks.harness.testing_cells import fake_experiment
if __name__ == "__main__":
    agents = ("random", "linucb", "oracle")
    slow = fake_experiment(agent_configs={agent: {"sleep": float(sys.argv[2])} for agent in agents})
    try:
        run(slow, sys.argv[1], function="fake", jobs=2)
    except KeyboardInterrupt as error:
        print(error)
        sys.exit(130)
"""


def no_process_left(group: int) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


class TestSignals:
    def driver(self, tmp_path: Path, sleep: float) -> subprocess.Popen[str]:
        script = tmp_path / "driver.py"
        script.write_text(SLOW_DRIVER)
        process = subprocess.Popen(
            [sys.executable, str(script), str(tmp_path / "out"), str(sleep)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.wait_for_rows(tmp_path / "out", 0 if sleep > 5 else 1)
        return process

    def wait_for_rows(self, out: Path, count: int) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if (out / FILE).exists() and len(read(out).rows) >= count:
                time.sleep(0.5 if count == 0 else 0.0)
                return
            time.sleep(0.01)
        pytest.fail("the driver wrote nothing")

    def test_interrupt_once_lets_running_cells_finish(self, tmp_path: Path) -> None:
        process = self.driver(tmp_path, 0.4)
        os.killpg(process.pid, signal.SIGINT)
        start = time.monotonic()
        output, errors = process.communicate(timeout=10)
        assert time.monotonic() - start < 5
        assert process.returncode == 130, errors
        assert "the same command continues" in output
        assert "Ctrl-C again" in errors
        rows = read(tmp_path / "out").rows
        assert 1 <= len(rows) < 18  # at least the one that was running
        assert all(row.state == DONE for row in rows.values())

    def test_interrupt_twice_stops_now(self, tmp_path: Path) -> None:
        process = self.driver(tmp_path, 30.0)
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.3)
        start = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=10)
        assert time.monotonic() - start < 5
        assert process.returncode == 130
        assert read(tmp_path / "out").rows == {}
        assert no_process_left(process.pid)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
    def test_other_signals_leave_no_orphans(self, tmp_path: Path, number: signal.Signals) -> None:
        process = self.driver(tmp_path, 0.4)
        process.send_signal(number)
        process.communicate(timeout=10)
        assert process.returncode == -number
        assert no_process_left(process.pid)
        assert read(tmp_path / "out").problems == []
