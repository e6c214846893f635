"""Documentation pages: every id has one, made from its docstring, and the committed ones are current."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from gymnasium.envs.registration import EnvSpec

from recsim_llm import agents, cli
from recsim_llm.agents import docs as agent_docs
from recsim_llm.envs import docs, ids, variants
from recsim_llm.envs.news import NEWS, NewsEnv
from recsim_llm.envs.registration import mo_ids
from recsim_llm.errors import ConfigError, DataError
from recsim_llm.simulator import Rules
from recsim_llm.simulator.task_variant import TaskVariant

BASES = [entry.base.id for entry in docs.entries()]


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    """The pages as the generator writes them now."""
    return docs.pages()


def test_committed_pages_are_current(made: dict[str, str], root: Path) -> None:
    folder = root / "docs" / docs.FOLDER
    committed = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.md")}
    stale = sorted(name for name in made.keys() | committed.keys() if made.get(name) != committed.get(name))
    assert not stale, "run recsim-llm docs"


def test_the_page_of_the_agents_is_current_and_whole(root: Path) -> None:
    text = agent_docs.page()
    assert (root / "docs" / "agents.md").read_text(encoding="utf-8") == text, "run recsim-llm docs"
    for name in agents.names():
        assert f"### {name}\n" in text
        for setting, _, meaning in agent_docs.settings(agents.get(name)):
            assert meaning, f"{name} does not say what {setting} is"
    assert ":class:" not in text


def test_the_readme_leads_to_them(root: Path) -> None:
    links = re.findall(r"\]\((docs/[^)#]+)", (root / "README.md").read_text(encoding="utf-8"))
    assert {"docs/environments/index.md", "docs/agents.md"} <= set(links)
    assert all((root / link).is_file() for link in links)


def test_every_id_has_a_place(made: dict[str, str]) -> None:
    listed = re.findall(r"^\| \[([^\]]+)\]\(([^)#]+)", made["index.md"], re.MULTILINE)
    assert sorted(name for name, _ in listed) == sorted([*ids(), *variants(), *mo_ids()])
    for name, file in listed:
        assert re.search(rf"^#+ {re.escape(name)}$", made[file], re.MULTILINE), f"{name} is not in {file}"


@pytest.mark.parametrize("env_id", BASES)
def test_docstring_has_the_fixed_headings(env_id: str) -> None:
    told = docs.documentation(gym.spec(env_id))
    assert tuple(re.findall(r"^## (.+)$", told, re.MULTILINE)) == docs.HEADINGS
    parts = re.split(r"^## .+$", told, flags=re.MULTILINE)
    assert all(part.strip() for part in parts), "a heading without words"


@pytest.mark.parametrize("env_id", BASES)
def test_page_agrees_with_the_environment(env_id: str, made: dict[str, str]) -> None:
    (entry,) = [entry for entry in docs.entries() if entry.base.id == env_id]
    page, env, spec = made[entry.file], gym.make(env_id), gym.spec(env_id)
    width = env.unwrapped.observation_space.shape
    assert width is None or f"{width}" in page
    assert f"| horizon | {spec.max_episode_steps} steps |" in page
    assert f"| reward threshold | {spec.reward_threshold:g} |" in page or spec.reward_threshold is None
    world = getattr(env.unwrapped.core, "world", None)
    if world is not None:
        assert world.hash in page
        assert f"{len(world.catalog):,} in {len(world.catalog.topics)} themes" in page
    rules = getattr(env.unwrapped.core.simulator, "rules", None)
    for field in dataclasses.fields(Rules) if isinstance(rules, Rules) else ():
        value = getattr(rules, field.name)
        row = f"| `{field.name}` | `{json.dumps(value)}` |"
        assert (row in page) == (value != getattr(Rules(), field.name)), field.name


def test_all_parameters_are_explained() -> None:
    for kind in (Rules, TaskVariant):
        assert list(docs.attributes(kind)) == [field.name for field in dataclasses.fields(kind)]
        assert all(docs.attributes(kind).values())


def spec_of(name: str, **changes: Any) -> EnvSpec:
    return dataclasses.replace(gym.spec("recsim_llm/News-v0"), id=f"recsim_llm/{name}-v0", **changes)


def test_presets_stand_in_the_page_of_their_base() -> None:
    base = gym.spec("recsim_llm/News-v0")
    cold = spec_of("NewsCold", kwargs={"cold_users": True, "note": "a|b"}, max_episode_steps=50)
    gains = {base.id: {"gain": 1.234, "ci95": [1, 1.5], "policy": "two | steps"}, cold.id: 0.5}
    page = docs.page(docs.Entry(base, [cold]), gains)
    section = page.split("### recsim_llm/NewsCold-v0")[1]
    assert "| `cold_users` | `true` | default |" in section
    assert r"`\"a\|b\"`".replace(r"\"", '"') in section
    assert "Horizon 50 steps" in section
    assert "gains +0.50 return" in section
    told = page.split("## Myopia")[1].split("## Variants")[0]
    assert r"(two \| steps) gains +1.23 [+1.00, +1.50] return per episode" in told
    assert "has not been measured" in docs.page(docs.Entry(base, []), {})


def test_ids_are_grouped_by_what_they_make(monkeypatch: pytest.MonkeyPatch) -> None:
    """The base is the id without preset arguments, wherever it stands."""
    table = {
        spec.id: spec
        for spec in (spec_of("NewsCold", kwargs={"cold_users": True}), spec_of("News"), gym.spec("recsim_llm/Music-v0"))
    }
    monkeypatch.setattr(docs.gym, "spec", table.__getitem__)
    found = docs.entries(list(table))
    assert [(entry.base.id, [spec.id for spec in entry.variants]) for entry in found] == [
        ("recsim_llm/News-v0", ["recsim_llm/NewsCold-v0"]),
        ("recsim_llm/Music-v0", []),
    ]
    index = docs._index(found)
    assert "`cold_users=true`" in index
    assert "(news-v0.md#recsim_llmnewscold-v0)" in index


class Headless(NewsEnv):
    """Says nothing."""


def test_other_headings_are_refused() -> None:
    with pytest.raises(ConfigError, match="Version History"):
        docs.documentation(spec_of("Headless", entry_point=Headless))
    assert Headless.scenario is NEWS


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"recsim_llm/News-v0": "much"}', '{"recsim_llm/News-v0": {"ci95": [0, 1]}}']
)
def test_bad_gains_are_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "myopia.json").write_text(content)
    with pytest.raises(DataError):
        docs.pages(tmp_path / "myopia.json")


def test_command(made: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["recsim-llm", "docs", "--out", str(tmp_path / "d"), *arguments])
        try:
            cli.main()
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    assert run("--check") == 1
    assert not (tmp_path / "d").exists()
    assert run() == 0
    folder = tmp_path / "d" / docs.FOLDER
    assert {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()} == made
    assert (tmp_path / "d" / "agents.md").read_text(encoding="utf-8") == agent_docs.page()
    assert run("--check") == 0
    (folder / "gone-v0.md").write_text(docs.NOTE)
    (folder / "mine.md").write_text("written by hand")
    assert run("--check") == 1
    assert run() == 0
    assert not (folder / "gone-v0.md").exists()
    assert (folder / "mine.md").exists()
