"""The same bits on every CPU, with any number of threads, compiled or not (RELIABILITY T11, T12)."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from recsim_llm.envs import ids

IDS = ids()


@pytest.fixture(scope="module")
def golden(root: Path) -> ModuleType:
    """tests/golden.py as a module."""
    spec = importlib.util.spec_from_file_location("golden", root / "tests" / "golden.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def expected(root: Path) -> dict[str, Any]:
    """The committed digests."""
    return json.loads((root / "tests" / "golden.json").read_text())


@pytest.fixture(scope="module")
def elsewhere(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Runs tests/golden.py in a process of its own with other settings; returns the digests that it prints."""

    def run(part: str, **environment: str) -> Any:
        home = {"RECSIM_LLM_HOME": str(tmp_path_factory.mktemp("home"))}
        done = subprocess.run(
            [sys.executable, str(root / "tests" / "golden.py"), "--only", part],
            env={**os.environ, **home, **environment}, capture_output=True, text=True, cwd=root,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.mark.parametrize("env_id", IDS)
def test_golden_trajectories(env_id: str, golden: ModuleType, expected: dict[str, Any], make: Any) -> None:
    assert expected["seeds"] == list(golden.SEEDS)
    assert (expected["steps"], expected["short"]) == (golden.STEPS, golden.SHORT) == (1000, 100)
    for part, steps in (("trajectories", golden.STEPS), ("short_trajectories", golden.SHORT)):
        seen = [golden.trajectory_digest(make(env_id), seed, steps) for seed in golden.SEEDS]
        assert seen == expected[part][env_id], "users behave otherwise: see tests/golden.py"
        assert len(set(seen)) == len(golden.SEEDS)


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_golden_lanes_with_threads(
    env_id: str, threads: int, golden: ModuleType, expected: dict[str, Any], monkeypatch: Any
) -> None:
    monkeypatch.setattr("recsim_llm.rules.simulator.LANES_PER_THREAD", 200)
    assert golden.vector_digest(env_id, threads=threads) == expected["lanes"][env_id]


def test_golden_trajectories_on_a_generic_cpu(expected: dict[str, Any], elsewhere: Callable[..., Any]) -> None:
    assert elsewhere("trajectories", NUMBA_CPU_NAME="generic") == expected["trajectories"]


def test_golden_trajectories_without_compilation(expected: dict[str, Any], elsewhere: Callable[..., Any]) -> None:
    assert elsewhere("short_trajectories", NUMBA_DISABLE_JIT="1") == expected["short_trajectories"]


def test_digest_sees_small_changes(golden: ModuleType, make: Any) -> None:
    env_id = IDS[0]
    base = golden.trajectory_digest(make(env_id), 0, 50)
    assert golden.trajectory_digest(make(env_id), 0, 50) == base
    assert golden.trajectory_digest(make(env_id, rules={"mood_rate": 0.1000001}), 0, 50) != base
    assert golden.trajectory_digest(make(env_id), 0, 51) != base
