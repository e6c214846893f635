"""Every Python block of the README runs as it stands, and its generated sections are those of the stored results."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from recsim_llm.benchmarks.analysis import readme
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
    assert len(lines) <= 12


def test_generated_sections_are_current():
    for path, made in ((README, readme.sections()), (README.parent / "docs" / "performance.md", readme.performance())):
        text = path.read_text(encoding="utf-8")
        assert readme.filled(text, made) == text
