"""The wheel holds every module and the worlds, and nothing else; a clone and an installation import the same."""

from __future__ import annotations

import configparser
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

TOP = ("envs", "agents", "benchmarks")
LARGEST = 10_000_000


def modules(root: Path) -> set[str]:
    """Modules of the tree under the paths at which they are installed."""
    core = {p for p in (root / "recsim_llm").rglob("*.py") if not any(part.is_symlink() for part in p.parents)}
    names = {str(path.relative_to(root)) for path in core}
    return names | {f"recsim_llm/{p.relative_to(root)}" for folder in TOP for p in (root / folder).rglob("*.py")}


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the tracked files, without the network."""
    copy, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    skip = shutil.ignore_patterns("__pycache__", "*.pyc", ".git", "*.egg-info", ".*_cache", ".hypothesis", ".venv*")
    for name in ("recsim_llm", *TOP):
        shutil.copytree(root / name, copy / name, symlinks=True, ignore=skip)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, copy / name)
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(copy)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    return built


def test_every_module_is_in_the_wheel(wheel: Path, root: Path) -> None:
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".py")}
    assert packed == modules(root)
    assert len(packed) > 50


def test_data_is_in_the_wheel(wheel: Path, root: Path) -> None:
    packed = set(zipfile.ZipFile(wheel).namelist())
    assert "recsim_llm/py.typed" in packed
    for world in ("music", "news"):
        for file in ("world.json", "items.parquet", "users.parquet", "arrays.safetensors"):
            assert f"recsim_llm/worlds/builtin/{world}/{file}" in packed
    tree = [p for name in ("recsim_llm", *TOP) for p in (root / name).rglob("*") if p.is_file()]
    data = {
        str(path.relative_to(root)) for path in tree
        if path.suffix not in (".py", ".pyc") and not any(part.is_symlink() for part in path.parents)
        and "stored" not in path.parts  # results of studies belong to the checkout
    }  # fmt: skip
    assert {name if name.startswith("recsim_llm/") else f"recsim_llm/{name}" for name in data} <= packed


def test_nothing_else_is_in_the_wheel(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"recsim_llm"}
    assert not [name for name in names if "test_" in name or name.startswith(TOP)]
    assert wheel.stat().st_size < LARGEST
    assert wheel.name.endswith("-py3-none-any.whl")


def test_the_wheel_works_away_from_the_clone(wheel: Path, tmp_path: Path) -> None:
    """Unpacked beside the dependencies, as installing it would: ids, worlds and compiled rules are there."""
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "sys.meta_path[:] = [finder for finder in sys.meta_path if 'editable' not in repr(finder)]\n"
        "import gymnasium as gym, recsim_llm, recsim_llm.agents, recsim_llm.benchmarks\n"
        "assert recsim_llm.__file__.startswith(sys.argv[1]), recsim_llm.__file__\n"
        "env = gym.make('recsim_llm/Music-v0'); env.reset(seed=0); print(env.step(3)[1])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "site")], capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "NUMBA_DISABLE_JIT": "1", "RECSIM_LLM_HOME": str(tmp_path / "home")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) in (0.0, 1.0)


def test_metadata(wheel: Path, root: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
    text = archive.read(name).decode()
    assert "Name: recsim-llm\n" in text
    assert re.search(r"^License(-Expression)?: Apache-2\.0$", text, re.MULTILINE)
    assert "Requires-Python: >=3.11\n" in text
    needed = {
        re.split("[<>=!~;]", line.split(": ")[1])[0]
        for line in text.splitlines()
        if line.startswith("Requires-Dist") and "extra" not in line
    }
    assert needed <= {"numpy", "numba", "gymnasium", "pyarrow", "safetensors", "typer", "rich", "platformdirs"}
    extras = {line.split(": ")[1] for line in text.splitlines() if line.startswith("Provides-Extra")}
    assert {"llm", "agents", "benchmarks", "dev", "all"} <= extras
    (entry,) = [n for n in archive.namelist() if n.endswith("entry_points.txt")]
    assert "recsim-llm = recsim_llm.cli:main" in archive.read(entry).decode()
    from recsim_llm import __version__

    assert f"Version: {__version__}\n" in text


def test_packages_are_listed(root: Path) -> None:
    config = configparser.ConfigParser()
    config.read(root / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    assert listed == {name.rpartition("/")[0].replace("/", ".") for name in modules(root)}
    for folder in TOP:
        assert f"recsim_llm.{folder} = {folder}" in config["options"]["package_dir"]


def test_constraints_name_installed_versions(root: Path) -> None:
    """The tables were made with these versions; every line is exact."""
    lines = [line.split("#")[0].strip() for line in (root / "constraints.txt").read_text().splitlines()]
    pins = dict(line.split("==") for line in lines if line)
    assert {"numpy", "numba", "gymnasium", "pyarrow", "safetensors"} <= set(pins)
    for name in ("numpy", "numba", "gymnasium"):
        assert importlib.metadata.version(name)
