"""Every Python block of the README runs as it stands, and its generated sections are those of the stored results."""

from __future__ import annotations

import re
from pathlib import Path

import gymnasium as gym
import pytest

from recsim_llm import agents
from recsim_llm.benchmarks.analysis import readme
from recsim_llm.benchmarks.harness.cell import evaluate
from recsim_llm.worlds.build import build_world

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block_runs(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    block = BLOCKS[number]
    if "stable_baselines3" in block:
        pytest.importorskip("stable_baselines3", reason="the block needs the extra [agents]")
    if "my_world" in block:
        (tmp_path / "items.csv").write_text("text\n" + "".join(f"a text about thing {n}\n" for n in range(30)))
        (tmp_path / "users.csv").write_text("user_id,persona\n" + "".join(f"u{n},I like things.\n" for n in range(9)))
        build_world("items.csv", "users.csv", out="my_world", encoder="hashing", width=8)
    exec(compile(block, f"README block {number}", "exec"), {"__name__": "readme"})


def test_ten_line_example_has_about_ten_lines():
    lines = [line for line in BLOCKS[0].splitlines() if line.strip()]
    assert len(lines) <= 14


def test_ten_lines_are_worth_what_the_benchmark_says():
    names = {"__name__": "readme", "print": lambda *_: None}
    exec(compile(BLOCKS[0], "README block 0", "exec"), names)
    agent, alone = names["agent"], names["test"]
    envs = [gym.make_vec("recsim_llm/News-v0", num_envs=24, users="test", autoreset_mode="Disabled") for _ in range(2)]
    expected = evaluate(agent, envs[0], 1).returns
    assert names["total"] == pytest.approx(expected[0])
    loop = BLOCKS[0][BLOCKS[0].index("observation, info = test") :]
    for lane in (1, 2):  # the lines as they stand, with the users that the benchmark meets after the first
        exec(compile(loop.replace("seed=1", f"seed={1 + lane}"), "README block 0", "exec"), names)
        assert names["total"] == pytest.approx(expected[lane])
    chance = evaluate(agents.make("random", alone), envs[1], 1).returns
    gain = expected - chance  # the same users with the same luck
    assert gain.mean() > 4.0 * gain.std(ddof=1) / len(gain) ** 0.5 > 0.0


def test_generated_sections_are_current():
    for path, made in ((README, readme.sections()), (README.parent / "docs" / "performance.md", readme.performance())):
        text = path.read_text(encoding="utf-8")
        assert readme.filled(text, made) == text
