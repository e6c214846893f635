"""The page of the public API, from ``__all__`` of the public packages: ``recsim-llm docs`` writes it to docs/api.md."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import itertools
import re
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGES = (
    "recsim_llm", "recsim_llm.envs", "recsim_llm.envs.wrappers", "recsim_llm.agents", "recsim_llm.benchmarks",
    "recsim_llm.worlds", "recsim_llm.simulator", "recsim_llm.testing",
)  # fmt: skip
NOTE = "<!-- Made by recsim-llm docs from what the packages export. -->\n"
INTRODUCTION = """
What is listed here is public. The rest is private, and may change without notice. Names are imported from the package
that they stand under, `from recsim_llm.worlds import build_world`. `help()` of each has shapes, units and errors.
"""
_ROLE = re.compile(r":(?:class|meth|func|attr|data|mod):`~?(?:[\w.]*\.)?(\w+)`")


def page() -> str:
    """The whole page as Markdown."""
    parts = [NOTE, "# Public API\n", INTRODUCTION.strip() + "\n"]
    for name in PACKAGES:
        package = importlib.import_module(name)
        parts += [f"## {name}\n", _first_line(inspect.getdoc(package)) + "\n", "| name | what it is |", "|:--|:--|"]
        parts += [f"| `{_call(package, member)}` | {_meaning(package, member)} |" for member in sorted(package.__all__)]
        parts.append("")
    return "\n".join(parts)


def _call(package: ModuleType, name: str) -> str:
    """The name; of a function with its parameters, dots for those that may be left out."""
    found = getattr(package, name)
    if not inspect.isfunction(found):
        return name
    parameters = inspect.signature(found).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    return f"{name}({', '.join(needed + ['...'] * (len(needed) < len(parameters)))})"


def _meaning(package: ModuleType, name: str) -> str:
    found: Any = getattr(package, name)
    if inspect.isclass(found) or inspect.isfunction(found) or inspect.ismodule(found):
        return _first_line(inspect.getdoc(found))
    return _first_line(_constants(_origin(package, name)).get(name))


def _first_line(text: str | None) -> str:
    """The first paragraph's first line, as Markdown in a table."""
    line = (text or "").split("\n\n")[0].replace("\n", " ")
    return _ROLE.sub(r"`\1`", line).replace("``", "`").replace("|", "\\|")


def _origin(package: ModuleType, name: str) -> ModuleType:
    """The module that a package imports a name from; the package itself where it defines it."""
    for node in _tree(package).body:
        if isinstance(node, ast.ImportFrom) and node.module and any(alias.name == name for alias in node.names):
            return importlib.import_module(node.module)
    return package


def _constants(module: ModuleType) -> dict[str, str]:
    """The strings that stand below assignments in a module, by name."""
    body = _tree(module).body
    told: dict[str, str] = {}
    for node, below in itertools.pairwise(body):
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        text = below.value if isinstance(below, ast.Expr) else None
        if isinstance(target, ast.Name) and isinstance(text, ast.Constant) and isinstance(text.value, str):
            told[target.id] = inspect.cleandoc(text.value)
    return told


@functools.cache
def _tree(module: ModuleType) -> ast.Module:
    return ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
