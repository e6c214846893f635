"""The same bits on every CPU, with any number of threads, compiled or not (RELIABILITY T11, T12)."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
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


def elsewhere(root: Path, home: Path, part: str, **environment: str) -> tuple[Any, str]:
    """Runs tests/golden.py in a process of its own with other settings; its digests, and what it complained of."""
    done = subprocess.run(
        [sys.executable, str(root / "tests" / "golden.py"), "--only", part],
        env={**os.environ, "RECSIM_LLM_HOME": str(home), **environment}, capture_output=True, text=True, cwd=root,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.fixture(scope="module")
def generic(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Rules compiled anew for a CPU without vector registers beyond the oldest: the cache folder, and the digests."""
    home = tmp_path_factory.mktemp("home")
    digests, complaints = elsewhere(root, home, "trajectories", NUMBA_CPU_NAME="generic")
    assert not complaints
    return home, digests


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
    monkeypatch.setattr("recsim_llm.simulator.simulator.LANES_PER_THREAD", 200)
    assert golden.vector_digest(env_id, threads=threads) == expected["lanes"][env_id]


def test_golden_trajectories_on_a_generic_cpu(expected: dict[str, Any], generic: tuple[Path, Any]) -> None:
    assert generic[1] == expected["trajectories"]


def test_golden_trajectories_with_a_damaged_cache(
    root: Path, expected: dict[str, Any], generic: tuple[Path, Any]
) -> None:
    """Compiled code that was cut short is made anew with one warning, and kept (RELIABILITY T19)."""
    files = sorted(generic[0].rglob("*.nb[ic]"))
    assert len(files) >= 4
    for number, file in enumerate(files):
        content = file.read_bytes()
        file.write_bytes(content[: (0, len(content) // 2, len(content) - 1)[number % 3]])
    digests, complaints = elsewhere(root, generic[0], "short_trajectories", NUMBA_CPU_NAME="generic")
    assert digests == expected["short_trajectories"]
    assert complaints.count("does not load") == 1
    digests, complaints = elsewhere(root, generic[0], "short_trajectories", NUMBA_CPU_NAME="generic")
    assert digests == expected["short_trajectories"]
    assert not complaints


def test_golden_trajectories_without_compilation(root: Path, expected: dict[str, Any], tmp_path: Path) -> None:
    digests, _ = elsewhere(root, tmp_path, "short_trajectories", NUMBA_DISABLE_JIT="1")
    assert digests == expected["short_trajectories"]
    assert not list(tmp_path.iterdir())


def test_digest_sees_small_changes(golden: ModuleType, make: Any) -> None:
    env_id = IDS[0]
    base = golden.trajectory_digest(make(env_id), 0, 50)
    assert golden.trajectory_digest(make(env_id), 0, 50) == base
    assert golden.trajectory_digest(make(env_id, rules={"mood_rate": 0.1000001}), 0, 50) != base
    assert golden.trajectory_digest(make(env_id), 0, 51) != base
