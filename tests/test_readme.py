"""Every Python block of README and docs runs as it stands; generated parts are current; links and paths exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import gymnasium as gym
import pytest

from recsim_llm import agents
from recsim_llm.benchmarks.analysis import readme
from recsim_llm.benchmarks.harness.cell import evaluate
from recsim_llm.commands import api_page
from recsim_llm.worlds.build import build_world

ROOT = Path(__file__).parent.parent
MOST_LINES = 150
WRITTEN = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
"""README and the pages of docs, but those of environments."""
EVERY = [*WRITTEN, "CONTRIBUTING.md", *sorted(f"docs/environments/{p.name}" for p in (ROOT / "docs").glob("*/*.md"))]
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in EVERY}
FOUND = [(page, n, block) for page in WRITTEN
         for n, block in enumerate(re.findall(r"```python\n(.*?)```", TEXTS[page], re.DOTALL))]  # fmt: skip
TEN_LINES = next(block for page, _, block in FOUND if page == "README.md")
MARKER = re.compile(r"<!-- (\w+):begin -->")
NOT_STORED = {"ablation": "ablation.json", "scale": "scale.json"}
"""Sections whose numbers are of a machine, and stand in the page alone until they are stored."""


@pytest.mark.parametrize(("page", "number", "block"), FOUND, ids=[f"{page}-{n}" for page, n, _ in FOUND])
def test_block_runs(page, number, block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "stable_baselines3" in block:
        pytest.importorskip("stable_baselines3", reason="the block needs the extra [agents]")
    if "my_world" in block:
        (tmp_path / "items.csv").write_text("text\n" + "".join(f"a text about thing {n}\n" for n in range(30)))
        (tmp_path / "users.csv").write_text("user_id,persona\n" + "".join(f"u{n},I like things.\n" for n in range(9)))
        build_world("items.csv", "users.csv", out="my_world", encoder="hashing", width=8)
    exec(compile(block, f"{page}, block {number}", "exec"), {"__name__": "readme"})


def test_the_readme_is_short():
    assert len(TEXTS["README.md"].splitlines()) <= MOST_LINES


def test_ten_line_example_has_about_ten_lines():
    lines = [line for line in TEN_LINES.splitlines() if line.strip()]
    assert len(lines) <= 14


def test_ten_lines_are_worth_what_the_benchmark_says():
    names = {"__name__": "readme", "print": lambda *_: None}
    exec(compile(TEN_LINES, "README block 0", "exec"), names)
    agent, alone = names["agent"], names["test"]
    envs = [gym.make_vec("recsim_llm/News-v0", num_envs=24, users="test", autoreset_mode="Disabled") for _ in range(2)]
    expected = evaluate(agent, envs[0], 1).returns
    assert names["total"] == pytest.approx(expected[0])
    loop = TEN_LINES[TEN_LINES.index("observation, info = test") :]
    for lane in (1, 2):  # the lines as they stand, with the users that the benchmark meets after the first
        exec(compile(loop.replace("seed=1", f"seed={1 + lane}"), "README block 0", "exec"), names)
        assert names["total"] == pytest.approx(expected[lane])
    chance = evaluate(agents.make("random", alone), envs[1], 1).returns
    gain = expected - chance  # the same users with the same luck
    assert gain.mean() > 4.0 * gain.std(ddof=1) / len(gain) ** 0.5 > 0.0


def test_generated_sections_are_current():
    made = readme.pages()
    for page in WRITTEN:
        text, own = TEXTS[page], made.get(page, {})
        stored = [name for name, file in NOT_STORED.items() if (readme.STORED / file).is_file()]
        assert set(MARKER.findall(text)) == {*own, *(name for name in MARKER.findall(text) if name in NOT_STORED)}
        assert {name for name in stored if name in MARKER.findall(text)} <= set(own)
        assert readme.filled(text, own) == text, f"{page} is stale: make docs"
    assert made.keys() <= set(WRITTEN)


def test_the_ten_agents_stand_beside_their_rivals():
    text = TEXTS["README.md"]
    rows = re.findall(r"^\| \[(\*?)(\w+)\*?\]\(docs/agents\.md#\w+\) \|", text, re.MULTILINE)
    assert sorted(name for star, name in rows if not star) == sorted(readme.TEN)
    assert len(readme.TEN) == 10
    assert {name for star, name in rows if star} == {"oracle", "popularity", "random"}


def test_the_page_of_the_api_is_current_and_whole():
    made = api_page.page()
    assert TEXTS["docs/api.md"] == made, "docs/api.md is stale: recsim-llm docs"
    rows = re.findall(r"^\| `(\w+)[`(].*\| (.*) \|$", made, re.MULTILINE)
    assert len(rows) > 50
    assert not [name for name, meaning in rows if not meaning], "names without a docstring"
    assert {"Agent", "Transition", "make", "check_env", "run", "build_world"} <= {name for name, _ in rows}


@pytest.mark.parametrize("page", EVERY)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[page]):
        if target.startswith("http"):
            continue
        file, _, anchor = target.partition("#")
        path = (ROOT / page).parent / file if file else ROOT / page
        assert path.exists(), f"{page} links to {target}"
        if anchor and path.suffix == ".md":
            heads = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}, target


FILE = re.compile(r"`((?:recsim_llm|envs|agents|benchmarks|tests|docs)/[\w./-]*)`")
MODULE = re.compile(r"python -m (recsim_llm(?:\.\w+)*)")
NOT_YET = ("agents/bandits/topic_ucb.py",)
"""What CONTRIBUTING asks the reader to make."""


@pytest.mark.parametrize("page", [*WRITTEN, "CONTRIBUTING.md"])
def test_paths_exist(page):
    for path in FILE.findall(TEXTS[page]):
        assert (ROOT / path).exists() or path in (*NOT_YET, *gym.registry), f"{page} names {path}"
    for module in MODULE.findall(TEXTS[page]):
        file = ROOT / module.removesuffix(".NAME").replace(".", "/")
        assert file.is_dir() or file.with_suffix(".py").is_file(), f"{page} names {module}"


def test_every_room_and_every_file_of_the_flows_exists():
    text = TEXTS["docs/architecture.md"]
    rooms = {path.name for path in (ROOT / "recsim_llm").iterdir() if path.is_dir() and not path.name.startswith("_")}
    named = {name for cell in re.findall(r"^\| (`.*?`) \|", text, re.MULTILINE) for name in re.findall(r"\w+", cell)}
    assert rooms <= named, f"rooms that the page does not name: {sorted(rooms - named)}"
    families = {path.name for path in (ROOT / "agents").iterdir() if path.is_dir() and not path.name.startswith("_")}
    assert families - {"sb3"} <= named
    for room, first in re.findall(r"^\| `([\w/]+/)`.*\| `([\w/]+\.py)`[^|]*\|$", text, re.MULTILINE):
        assert (ROOT / room / first).is_file(), (room, first)


def imported(path: Path) -> set[str]:
    """Files of this repository that a module imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    files = {re.sub(r"^recsim_llm\.(envs|agents|benchmarks)\b", r"\1", name).replace(".", "/") for name in names}
    return {f"{file}.py" for file in files} | {f"{file}/__init__.py" for file in files}


@pytest.mark.parametrize(("flow", "most"), [("an action", 10), ("a persona", 10), ("a cell", 12)])
def test_a_flow_passes_few_files_that_hang_together(flow, most):
    part = TEXTS["docs/architecture.md"].split(f"## From {flow}")[1].split("\n## ")[0]
    files = re.findall(r"`([\w/]+/\w+\.py)`", "\n".join(re.findall(r"^\d+\. .*", part, re.MULTILINE)))
    assert 5 <= len(files) <= most
    links = {file: imported(ROOT / file) for file in files}
    for file, found in links.items():  # through a package's exports too
        links[file] = found | {other for init in found if init.endswith("__init__.py") and (ROOT / init).is_file()
                               for other in imported(ROOT / init)}  # fmt: skip
    reached, new = set(), {files[-1]}
    while new:
        file = new.pop()
        reached.add(file)
        new |= {other for other in files if other in links[file] or file in links[other]} - reached
    assert reached == set(files), "files that no other file of the flow imports, nor they them"


def test_all_pages_are_reached_from_the_readme():
    seen, new = set(), {"README.md"}
    while new:
        page = new.pop()
        seen.add(page)
        for target in re.findall(r"\]\(([^)#\s]+\.md)", TEXTS[page]):
            path = ((ROOT / page).parent / target).resolve()
            if path.is_relative_to(ROOT.resolve()) and str(path.relative_to(ROOT.resolve())) in TEXTS:
                new |= {str(path.relative_to(ROOT.resolve()))} - seen
    assert set(WRITTEN) <= seen
