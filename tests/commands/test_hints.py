"""What the command line says is shown as it is written, and what it tells to install can be installed."""

from __future__ import annotations

import ast
import configparser
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from rich.console import Console
from rich.table import Table

from recsim_llm import cli
from recsim_llm.commands import common
from recsim_llm.commands import doctor as health
from recsim_llm.commands import listing as look
from recsim_llm.errors import MissingExtraError, install, require

CORE = {"numpy", "numba", "gymnasium", "pyarrow", "safetensors", "typer", "rich", "platformdirs"}
WIDE = {"COLUMNS": "200", "TERMINAL_WIDTH": "200", "NO_COLOR": "1", "TERM": "dumb"}


def plain_tree(command, path=()):
    """Every command with its path, as Typer makes it of the functions: texts are not escaped."""
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from plain_tree(below, (*path, name))


TREE = dict(plain_tree(typer.main.get_command(cli.app)))


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command line in this process at width 200: (exit code, standard output, standard error)."""
    for name, value in WIDE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 200)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["recsim-llm", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else int(bool(exit_.code))
        out, err = capsys.readouterr()
        return code, out, err

    return call


def words(text: str) -> str:
    """Words with one space between them; the frames of tables are no words."""
    return " ".join(re.sub(r"[─-╿]", " ", text).split())


@pytest.mark.parametrize("path", TREE, ids=lambda path: " ".join(path) or "top")
def test_help_shows_every_text_as_it_is_written(run, path):
    command = TREE[path]
    code, out, err = run(*path, "--help")
    assert code == 0, err
    texts = [part.help for part in command.params if getattr(part, "help", None)]
    texts += [paragraph for paragraph in (command.help or "").split("\n\n") if paragraph]
    assert path == () or texts
    shown = words(out)
    for text in texts:
        assert words(text) in shown


def test_some_help_has_brackets():
    """Or the test above would show nothing."""
    texts = [part.help or "" for command in TREE.values() for part in command.params if hasattr(part, "help")]
    assert sum("[s]" in text for text in texts) >= 2


BRACKETS = 'in [s] and [bold]: pip install -e ".[llm]" :smile: [/]'


def test_consoles_tables_and_errors_show_brackets(monkeypatch, capsys):
    for place in (common.console, common.notes):
        assert place.render_str(BRACKETS).plain == BRACKETS
    table: Table = look.table_of(BRACKETS, [{BRACKETS: BRACKETS}])
    wide = Console(width=200)
    with wide.capture() as captured:
        wide.print(table)
    assert captured.get().count(BRACKETS) == 3
    for error in (MissingExtraError(BRACKETS), ValueError(BRACKETS), KeyboardInterrupt(BRACKETS)):
        monkeypatch.setattr(cli, "command", lambda error=error: lambda: (_ for _ in ()).throw(error))
        with pytest.raises(SystemExit):
            cli.main()
        assert BRACKETS in capsys.readouterr().err


def test_doctor_shows_its_problems(run, monkeypatch):
    monkeypatch.setitem(health.EXTRAS, "ann", ("no-such-package-anywhere",))
    code, out, _ = run("doctor")
    assert code == 0
    assert "extra [ann] is not complete" in out
    assert '".[ann]"' in out


def sources() -> list[Path]:
    root = Path(__file__).parents[2]
    folders = [root / name for name in ("recsim_llm", "agents", "envs", "benchmarks", "tests")]
    return [path for folder in folders for path in folder.rglob("*.py") if not path.is_symlink()]


def named_extras() -> set[tuple[str, str]]:
    """(module or "", extra) of every call of ``require`` and ``install`` in the sources."""
    found = set()
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
                name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
                texts = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
                if name == "require" and len(node.args) == 2 and len(texts) == 2:
                    found.add((texts[0], texts[1]))
                elif name == "install":
                    found |= {("", text) for text in texts}
    return found


def extras(root: Path) -> dict[str, set[str]]:
    """Names of packages by extra, from setup.cfg."""
    config = configparser.ConfigParser()
    config.read(root / "setup.cfg")
    section = config["options.extras_require"]
    lines = {name: section[name].split("\n") for name in section}
    return {
        name: {re.split(r"[<>=\[]", line)[0] for line in rows if line.strip()} for name, rows in lines.items()
    }  # fmt: skip


def required(name: str) -> set[str]:
    """Packages that a package installs with itself."""
    try:
        lines = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return set()
    return {re.split(r"[^A-Za-z0-9_.-]", line)[0].lower() for line in lines if "extra ==" not in line}


def test_every_extra_that_is_named_exists_and_brings_the_module(root):
    known, packages = extras(root), importlib.metadata.packages_distributions()
    named = named_extras()
    assert {extra for _, extra in named} >= {"llm", "images", "agents", "benchmarks", "ann"}
    for module, extra in named:
        assert extra in known, (module, extra)
        brought = known[extra] | CORE
        brought |= {needed for name in brought for needed in required(name)}
        distributions = {name.lower().replace("_", "-") for name in packages.get(module.split(".")[0], [])}
        assert not module or not distributions or distributions & brought, (module, extra)


def test_doctor_knows_all_extras(root):
    known = extras(root)
    assert {name: set(packages) for name, packages in health.EXTRAS.items()} == {
        name: packages for name, packages in known.items() if name not in ("dev", "all")
    }


def test_no_hint_names_an_index_that_does_not_have_the_package(root):
    """recsim_llm is on no index: a clone is what can be installed."""
    wrong = "recsim-llm" + "["
    for path in [*sources(), *(root / name for name in ("README.md", "CONTRIBUTING.md", "docs/agents.md"))]:
        assert wrong not in path.read_text(encoding="utf-8"), path
    assert install("llm", "ann") == 'pip install -c constraints.txt -e ".[llm,ann]" in the clone of recsim_llm'
    assert (root / "constraints.txt").is_file()
    with pytest.raises(
        MissingExtraError, match=r"no_such_module is not .*: pip install -c constraints.txt -e \"\.\[ann"
    ):
        require("no_such_module", "ann")


def test_the_package_is_a_command():
    done = subprocess.run([sys.executable, "-m", "recsim_llm", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()[0]) == (0, "recsim-llm"), done.stderr


def test_bench_says_what_failed_and_exits_1(run, tmp_path, monkeypatch):
    from recsim_llm.benchmarks.harness import cell

    real = cell.agents.make

    def make(name, *args, **settings):
        if name == "popularity":
            raise ValueError("no luck today [s]")
        return real(name, *args, **settings)

    monkeypatch.setattr(cell.agents, "make", make)
    monkeypatch.chdir(tmp_path)
    arguments = ["bench", "-e", "music", "-s", "1", "-n", "0", "--episodes", "4", "--jobs", "0", "--out", "out"]
    arguments += [part for name in ("random", "oracle", "popularity") for part in ("-a", name)]
    code, _, err = run(*arguments)
    assert code == 1
    assert "popularity" in err
    assert "no luck today [s]" in err
    assert "--retry-failed" in err
    assert run(*arguments)[0] == 1  # still
    monkeypatch.setattr(cell.agents, "make", real)
    code, _, err = run(*arguments, "--retry-failed")
    assert code == 0, err


def test_check_says_whether_the_oracle_is_above_random(run, monkeypatch):
    """An environment whose reward is the same whatever is shown passes all checks but this one."""
    from gymnasium.envs.registration import register, registry

    from recsim_llm.envs.music import MusicEnv, MusicVectorEnv

    class Indifferent(MusicEnv):
        def __init__(self, **settings):
            super().__init__(**{"reward": lambda info: info["wasted"] * 0.0, **settings})

    class IndifferentMany(MusicVectorEnv):
        def __init__(self, **settings):
            super().__init__(**{"reward": lambda info: info["wasted"] * 0.0, **settings})

    name = "recsim_llm/Indifferent-v0"
    register(name, entry_point=Indifferent, vector_entry_point=IndifferentMany, max_episode_steps=20)
    monkeypatch.setattr("recsim_llm.testing.check_env", lambda *_, **__: [])
    try:
        code, out, _ = run("check", name)
        assert code == 1
        assert "✗ the oracle earns more than random" in out
    finally:
        del registry[name]
    code, out, _ = run("check", "music")
    assert code == 0
    assert "✓ the oracle earns more than random" in out


def test_shares_of_variance_at_or_below_zero_are_said(run, tmp_path):
    from recsim_llm.worlds.build import build_world

    (tmp_path / "items.csv").write_text("text\n" + "".join(f"a text about thing {n}\n" for n in range(30)))
    (tmp_path / "users.csv").write_text("user_id,persona\n" + "".join(f"u{n},\n" for n in range(9)))
    (tmp_path / "said.csv").write_text(
        "user_id,persona\n" + "".join(f"u{n},I love {'thing text'.split()[n % 2]}.\n" for n in range(9))
    )
    silent, said = tmp_path / "silent", tmp_path / "said"
    for users, out in (("users.csv", silent), ("said.csv", said)):
        build_world(tmp_path / "items.csv", tmp_path / users, out=out, encoder="hashing", width=8)
    code, out, _ = run("show", str(silent))
    assert code == 0
    assert "note: share of variance at or below 0: text (0)" in out
    assert "note:" not in run("show", str(said))[1]
    arguments = ("world", "build", "--items", str(tmp_path / "items.csv"), "--users", str(tmp_path / "users.csv"))
    code, out, err = run(*arguments, "--out", str(tmp_path / "again"), "--encoder", "hashing", "--width", "8")
    assert code == 0, err
    assert "share of variance at or below 0: text (0)" in out
