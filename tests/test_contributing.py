"""CONTRIBUTING as a newcomer follows it: its blocks are saved, counted and run in an empty folder."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from recsim_llm.testing import trajectory_digest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", TEXT, re.DOTALL))
COMMANDS = re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
DIFF = re.search(r"```diff\n(.*?)```", TEXT, re.DOTALL)[1]
MOST_LINES = {"my_agents.py": 41, "my_scenarios.py": 40}
"""Forty lines each, and one that registers the agent."""
MOST_LINES_OF_A_RULE = 10
FOLDERS = ("recsim_llm", "envs", "agents", "benchmarks")
DIGEST = """
import gymnasium as gym
import recsim_llm
from recsim_llm.testing import trajectory_digest

print(trajectory_digest(gym.make("recsim_llm/News-v0"), 3, 40))
"""


def run(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in a folder, with the package of this checkout, or the one that lies there."""
    path = folder if (folder / "recsim_llm").is_dir() else ROOT
    done = subprocess.run(
        command, cwd=folder, text=True, capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(path), str(folder)]), **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files of the page."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("name", MOST_LINES)
def test_it_takes_as_few_lines_as_it_says(name):
    assert len([line for line in FILES[name].splitlines() if line.strip()]) <= MOST_LINES[name]


def test_an_agent_is_added(folder):
    out = run(folder, sys.executable, "check_my_agents.py").stdout
    assert len(out.splitlines()) > 5
    (command,) = COMMANDS
    assert "--import my_agents" in command
    assert "--jobs 2" in command
    out = run(folder, sys.executable, "-m", "recsim_llm", *shlex.split(command)[1:], "--json", COLUMNS="200").stdout
    from recsim_llm import benchmarks

    results = benchmarks.load(folder / "runs" / "mine")
    assert not results.failed
    assert results.final("topic_ucb").mean() > results.final("random").mean()


def test_an_environment_is_added(folder):
    assert len(run(folder, sys.executable, "check_my_scenarios.py").stdout.splitlines()) > 5


def changed(text: str, hunk: str) -> str:
    """A text with a hunk of the page applied, whose old lines must stand there once."""
    lines = [(line[:1], line[1:]) for line in hunk.splitlines()]
    old, new = ("\n".join(text for sign, text in lines if sign in kept) for kept in (" -", " +"))
    assert text.count(old) == 1, f"CONTRIBUTING changes what is not there, or more than once: {old}"
    return text.replace(old, new)


def test_a_rule_is_added(folder):
    added = [line for line in DIFF.splitlines() if line.startswith("+")]
    files = re.findall(r"^--- (.+)$", DIFF, re.MULTILINE)
    assert len(added) <= MOST_LINES_OF_A_RULE
    assert 1 <= len(files) <= 2
    copy = folder / "copy"
    copy.mkdir()
    for name in FOLDERS:  # as in a clone: three of them are linked into the first
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "stored"))
    for part in re.split(r"^--- ", DIFF, flags=re.MULTILINE)[1:]:
        name, *hunks = part.split("@@\n")
        path = copy / name.strip()
        text = path.read_text(encoding="utf-8")
        for hunk in hunks:
            text = changed(text, hunk)
        path.write_text(text, encoding="utf-8")
    check = FILES["check_quality_pull.py"]
    (copy / "check.py").write_text(check, encoding="utf-8")
    run(copy, sys.executable, "check.py", NUMBA_DISABLE_JIT="1")
    import gymnasium as gym

    same = run(copy, sys.executable, "-c", DIGEST, NUMBA_DISABLE_JIT="1").stdout.split()[-1]
    assert same == trajectory_digest(gym.make("recsim_llm/News-v0"), 3, 40), "at its default the rule changes nothing"
    limit = 'import gymnasium as gym, recsim_llm; gym.make("recsim_llm/News-v0", rules={"quality_pull": -1.0})'
    with pytest.raises(AssertionError, match="quality_pull must not be below 0"):
        run(copy, sys.executable, "-c", limit, NUMBA_DISABLE_JIT="1")


def test_a_hunk_that_fits_nowhere_is_seen():
    with pytest.raises(AssertionError, match="not there"):
        changed("a = 1\n", " b = 2\n+c = 3")


def test_the_modules_are_not_those_of_the_package():
    assert all(importlib.util.find_spec(name.removesuffix(".py")) is None for name in FILES)
