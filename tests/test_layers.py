"""Which module may import which, what no module may call, and how light importing is (DESIGN 2, RELIABILITY T25)."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from recsim_llm.envs import ids

ROOT = Path(__file__).resolve().parent.parent
TOP = ("envs", "agents", "benchmarks")
LIGHT = {"numpy", "numba", "gymnasium", "pyarrow", "safetensors", "typer", "rich", "platformdirs"}
"""What the core may import when it is imported."""

HEAVY = ("torch", "transformers", "pandas", "matplotlib", "sklearn", "scipy", "stable_baselines3", "sb3_contrib", "ray")
NETWORKS = "recsim_llm/encoders/finetune/"
"""Modules of the core that are networks: torch stands at their top, and they are imported on use alone."""
MAY_LOOK_UP = ("recsim_llm/cli.py", "recsim_llm/commands/")
REGISTERS = "recsim_llm/__init__.py"
LONGEST_MODULE, LONGEST_FUNCTION = 500, 80


@dataclass(frozen=True)
class Import:
    """One import: by whom, of what, and whether it happens when the module is imported."""

    file: str
    line: int
    module: str
    at_top: bool
    typing_only: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


@cache
def sources() -> dict[str, ast.Module]:
    """Every module of the package, by its path in the repository; the three linked folders once."""
    files = [path for path in (ROOT / "recsim_llm").rglob("*.py") if not any(p.is_symlink() for p in path.parents)]
    files += [path for folder in TOP for path in (ROOT / folder).rglob("*.py")]
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(files)}


def name_of(file: str) -> str:
    """Dotted name under which a file is imported."""
    parts = Path(file).with_suffix("").parts
    parts = parts if parts[0] == "recsim_llm" else ("recsim_llm", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer(file: str) -> str:
    first = Path(file).parts[0]
    return first if first in TOP else "core"


def _walk(node: ast.AST, at_top: bool = True, typing_only: bool = False) -> Iterator[tuple[ast.AST, bool, bool]]:
    for child in ast.iter_child_nodes(node):
        inside = at_top and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        only = typing_only or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test))
        yield child, inside, only
        yield from _walk(child, inside, only)


@cache
def imports() -> list[Import]:
    found = []
    for file, tree in sources().items():
        package = name_of(file) if file.endswith("__init__.py") else name_of(file).rpartition(".")[0]
        for node, at_top, only in _walk(tree):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    base = ".".join([*package.split(".")[: len(package.split(".")) - node.level + 1], base]).rstrip(".")
                names = [f"{base}.{alias.name}" for alias in node.names]
            found += [Import(file, node.lineno, name, at_top, only) for name in names]  # type: ignore[attr-defined]
    return found


def target(module: str) -> str | None:
    """Layer of an imported module of this package."""
    parts = module.split(".")
    if parts[0] != "recsim_llm":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in TOP else "core"


def report(problems: list[Any]) -> None:
    assert not problems, "\n".join(str(problem) for problem in problems)


class TestDirections:
    def test_the_reader_sees_imports(self) -> None:
        seen = {(i.file, i.module) for i in imports()}
        assert ("envs/world_core.py", "recsim_llm.worlds.world.World") in seen
        assert len(sources()) > 50
        assert {layer(file) for file in sources()} == {"core", *TOP}

    def test_core_imports_nothing_above_it(self) -> None:
        upward = [i for i in imports() if layer(i.file) == "core" and target(i.module) in TOP]
        allowed = [
            i for i in upward
            if (i.file.startswith(MAY_LOOK_UP) and (not i.at_top or i.typing_only))
            or (i.file == REGISTERS and i.module.startswith("recsim_llm.envs.registration."))
        ]  # fmt: skip
        report([i for i in upward if i not in allowed])

    def test_agents_and_environments_do_not_know_each_other(self) -> None:
        forbidden = {"envs": {"agents", "benchmarks"}, "agents": {"envs", "benchmarks"}}
        report([i for i in imports() if target(i.module) in forbidden.get(layer(i.file), set())])

    def test_folders_are_never_imported_bare(self) -> None:
        report([i for i in imports() if i.module.split(".")[0] in TOP])

    def test_core_imports_light_packages_only(self) -> None:
        free = LIGHT | set(sys.stdlib_module_names) | {"recsim_llm", "__future__"}
        report(
            [
                i for i in imports()
                if layer(i.file) == "core" and i.at_top and not i.typing_only and i.module.split(".")[0] not in free
                and not (i.file.startswith(NETWORKS) and i.module.split(".")[0] == "torch")
            ]
        )  # fmt: skip

    def test_heavy_packages_are_imported_on_use(self) -> None:
        """At the top of a module only where no light module imports that module at its top."""
        heavy = {i.file: i for i in imports() if i.at_top and not i.typing_only and i.module.split(".")[0] in HEAVY}
        known = {name_of(file): file for file in sources()}
        reached = set()
        for i in imports():
            if i.at_top and not i.typing_only and i.file not in heavy:
                reached |= {known.get(i.module), known.get(i.module.rpartition(".")[0])} - {None, i.file}
        report([i for file, i in heavy.items() if file in reached])
        assert "envs/sb3_vec_env.py" in heavy  # the test has something to look at


class TestNames:
    def test_no_module_is_called_like_one_of_the_standard_library(self) -> None:
        parts = {part for file in sources() for part in Path(file).with_suffix("").parts}
        report(sorted(parts & set(sys.stdlib_module_names)))

    def test_links_point_to_the_folders(self) -> None:
        for name in TOP:
            link = ROOT / "recsim_llm" / name
            assert link.is_symlink()
            assert str(link.readlink()) == f"../{name}"


class TestSize:
    def test_modules(self) -> None:
        lengths = {file: len((ROOT / file).read_text(encoding="utf-8").splitlines()) for file in sources()}
        report([f"{file}: {length} lines" for file, length in lengths.items() if length > LONGEST_MODULE])

    def test_functions(self) -> None:
        """Without the docstring, which may say as much as it needs to."""
        found = []
        for file, tree in sources().items():
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    text = node.body[0] if ast.get_docstring(node) else None
                    told = (text.end_lineno or 0) - text.lineno + 1 if text else 0
                    length = (node.end_lineno or 0) - node.lineno + 1 - told
                    found += [f"{file}:{node.lineno} {node.name}: {length} lines"] if length > LONGEST_FUNCTION else []
        report(found)


BANNED_MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve", "joblib", "yaml", "telnetlib"}
BANNED_CALLS = {
    "eval", "exec", "compile", "__import__", "torch.load", "os.system", "os.popen", "os.fork", "tempfile.mktemp",
    "multiprocessing.Pool", "multiprocessing.set_start_method", "pandas.read_pickle", "torch.manual_seed", "input",
}  # fmt: skip
BANNED_ARGUMENTS = {
    ("shell", True), ("trust_remote_code", True), ("verify", False), ("allow_pickle", True), ("weights_only", False),
}  # fmt: skip
BANNED_METHODS = {"extractall"}
GLOBAL_RANDOM = {"default_rng", "Generator", "PCG64", "Philox", "SeedSequence", "BitGenerator", "RandomState"}
"""Names of numpy.random that hold no global state."""

REVIEWED: dict[str, set[str]] = {
    "benchmarks/harness/pool.py": {"cloudpickle", "pickle"},  # between own processes, over pipes
    "recsim_llm/encoders/finetune/adapters.py": {
        "torch.manual_seed"
    },  # peft draws from torch's stream, which is put back
}
"""At most three modules that may, each for the reason given."""


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def offences(file: str, tree: ast.Module) -> Iterator[str]:
    """What RELIABILITY T25 forbids, with its place."""
    allowed = REVIEWED.get(file, set())
    for node in ast.walk(tree):
        where = f"{file}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (f"{where} imports {n}" for n in names if n.split(".")[0] in BANNED_MODULES - allowed)
            if isinstance(node, ast.ImportFrom) and node.module == "random":
                yield f"{where} imports from random"
        if not isinstance(node, ast.Call):
            continue
        called = (
            dotted(node.func).replace("np.", "numpy.", 1) if dotted(node.func).startswith("np.") else dotted(node.func)
        )
        if called in BANNED_CALLS - allowed:
            yield f"{where} calls {called}"
        if isinstance(node.func, ast.Attribute) and node.func.attr in BANNED_METHODS:
            yield f"{where} calls .{node.func.attr}"
        if called.startswith("numpy.random.") and called.split(".")[2] not in GLOBAL_RANDOM:
            yield f"{where} uses the global generator: {called}"
        if called == "numpy.random.RandomState" or (
            called.endswith("default_rng") and not node.args and not node.keywords
        ):
            yield f"{where} makes an unseeded or legacy generator"
        if called.startswith("random.") and called != "random.Random":
            yield f"{where} uses the global generator: {called}"
        for keyword in node.keywords:
            value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
            if (keyword.arg, value) in BANNED_ARGUMENTS:
                yield f"{where} passes {keyword.arg}={value}"


def prints_on_purpose(file: str, tree: ast.Module) -> bool:
    """The command line, modules that are commands themselves, and the fault of a worker that prints without end."""
    command = any(isinstance(node, ast.If) and "__main__" in ast.unparse(node.test) for node in tree.body)
    return command or file.startswith(MAY_LOOK_UP) or file == "benchmarks/harness/testing_cells.py"


class TestSafety:
    def test_nothing_forbidden_is_called(self) -> None:
        report([offence for file, tree in sources().items() for offence in offences(file, tree)])
        assert len(REVIEWED) <= 3

    @pytest.mark.parametrize(
        "code",
        [
            "import pickle", "from cloudpickle import loads", "import yaml", "eval('1')", "torch.load(p)", "exec(c)",
            "np.random.seed(0)", "numpy.random.rand()", "np.random.default_rng()", "random.random()", "z.extractall()",
            "from random import choice", "subprocess.run(c, shell=True)", "f(trust_remote_code=True)", "os.fork()",
            "np.load(p, allow_pickle=True)", "tempfile.mktemp()", "np.random.RandomState(0)", "torch.manual_seed(0)",
        ],
    )  # fmt: skip
    def test_the_guard_sees(self, code: str) -> None:
        assert list(offences("x.py", ast.parse(code)))

    def test_the_guard_lets_pass(self) -> None:
        code = "np.random.Generator(np.random.PCG64(3)); np.random.default_rng(3); random.Random(3); re.compile('a')"
        assert not list(offences("x.py", ast.parse(code)))

    def test_only_the_command_line_prints(self) -> None:
        prints = [
            f"{file}:{node.lineno}"
            for file, tree in sources().items()
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and dotted(node.func) == "print" and not prints_on_purpose(file, tree)
        ]
        report(prints)

    def test_logging_is_never_configured(self) -> None:
        calls = {"logging.basicConfig", "logging.disable", "logging.captureWarnings", "warnings.simplefilter"}
        report(
            [
                f"{file}:{node.lineno} {dotted(node.func)}"
                for file, tree in sources().items()
                for node in ast.walk(tree)
                if isinstance(node, ast.Call) and dotted(node.func) in calls
                and not file.startswith((*MAY_LOOK_UP, "recsim_llm/testing/environments.py"))
            ]
        )  # fmt: skip


def run(code: str, *arguments: str) -> dict[str, Any]:
    """Runs code in a fresh interpreter; it prints one line of JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT.parent, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


IMPORT = """
import json, sys, time
wall, cpu = time.perf_counter(), time.process_time()
import recsim_llm
seconds = min(time.perf_counter() - wall, time.process_time() - cpu)
print(json.dumps({"seconds": seconds, "modules": sorted({name.split(".")[0] for name in sys.modules})}))
"""

MAKE = """
import json, sys, time
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        raise AssertionError("the network was asked for: " + event)
sys.addaudithook(refuse)
import gymnasium, recsim_llm
wall, cpu = time.perf_counter(), time.process_time()
env = gymnasium.make(sys.argv[1])
seconds = min(time.perf_counter() - wall, time.process_time() - cpu)
env.reset(seed=0)
env.step(env.action_space.sample())
print(json.dumps({"seconds": seconds, "modules": sorted({name.split(".")[0] for name in sys.modules})}))
"""


class TestLightness:
    """Times are processor times where the machine is busy: the time that others take is not ours."""

    def test_import(self) -> None:
        runs = [run(IMPORT) for _ in range(2)]
        assert min(r["seconds"] for r in runs) < 1.0
        unwanted = {*HEAVY, "jinja2", "tensorboard", "PIL", "pyarrow", "typer", "rich"}
        assert not unwanted & set(runs[0]["modules"])

    @pytest.mark.parametrize("env_id", ids())
    def test_make(self, env_id: str) -> None:
        run(MAKE, env_id)  # compiles, where nothing is compiled yet
        runs = [run(MAKE, env_id) for _ in range(2)]
        assert min(r["seconds"] for r in runs) < 1.0
        assert not {"torch", "transformers", "pandas", "matplotlib", "sklearn"} & set(runs[0]["modules"])
