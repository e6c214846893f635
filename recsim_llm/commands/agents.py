"""The command agents: what there is, and the settings of each."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from recsim_llm.commands.common import AsJson, console, print_json

TRIED_IN = "recsim_llm/News-v0"
"""Where it is asked what an agent can take."""


def agents(
    name: Annotated[str | None, typer.Argument(help="An agent, to see its settings; all agents if left out.")] = None,
    json: AsJson = False,
) -> None:
    """List the agents by family, or show one agent's settings with their defaults."""
    if name is None:
        _list(json)
    else:
        _show(name, json)


def agent_rows() -> list[dict[str, Any]]:
    """One row for each agent: family, name, first line of its documentation, what it needs and can take."""
    from recsim_llm import agents as shelf

    slates, candidates = _settings_tried()
    rows = []
    for family, names in shelf.families().items():
        for name in names:
            kind = shelf.get(name)
            config = kind.Config()
            rows.append(
                {
                    "family": family,
                    "agent": name,
                    "what it is": _first_line(kind),
                    "needs": ", ".join(_needs(kind)),
                    "slates": kind.refusal(slates, config) is None,
                    "candidates": kind.refusal(candidates, config) is None,
                }
            )
    return rows


def setting_rows(kind: Any) -> list[dict[str, Any]]:
    """One row for each setting of an agent: name, default, documentation."""
    documented = _documented(kind.Config)
    return [
        {"setting": name, "default": value, "what it is": documented.get(name, "")}
        for name, value in kind.Config().to_dict().items()
    ]


def _list(json: bool) -> None:
    from recsim_llm.commands.look import _table

    rows = agent_rows()
    if json:
        print_json(rows)
        return
    for family in dict.fromkeys(row["family"] for row in rows):
        shown = [{**row, "slates": _tick(row["slates"]), "candidates": _tick(row["candidates"])} for row in rows]
        part = [
            {key: value for key, value in row.items() if key != "family"} for row in shown if row["family"] == family
        ]
        console.print(_table(family, part))
    console.print("Settings of one: recsim-llm agents NAME", highlight=False)


def _show(name: str, json: bool) -> None:
    from recsim_llm import agents as shelf
    from recsim_llm.commands.look import _table

    kind = shelf.get(name)
    settings, text = setting_rows(kind), inspect.getdoc(kind) or ""
    if json:
        print_json({"agent": name, "needs": _needs(kind), "text": text, "settings": settings})
        return
    console.print(f"[bold]{name}[/bold]\n")
    console.print(text, markup=False, highlight=False)
    console.print()
    console.print(_table("settings", settings))


def _settings_tried() -> tuple[Any, Any]:
    """Settings with slates, and with candidates."""
    import gymnasium as gym

    from recsim_llm.agents.lanes import Setting

    return Setting.of(gym.make(TRIED_IN)), Setting.of(gym.make(TRIED_IN, num_candidates=20))


def _needs(kind: Any) -> list[str]:
    needs = ["torch"] if kind.needs_torch else []
    needs += [library for library in kind.libraries if library not in needs]
    return needs + (["truth"] if kind.needs_truth else [])


def _first_line(kind: Any) -> str:
    return (inspect.getdoc(kind) or "").split("\n")[0].rstrip(".")


def _tick(value: bool) -> str:
    return "yes" if value else "no"


def _documented(config: type) -> dict[str, str]:
    """What the docstrings of a class of settings say of each, those of its bases included."""
    found: dict[str, str] = {}
    for part in reversed(config.__mro__):
        if dataclasses.is_dataclass(part):
            found |= dict(_attributes(inspect.cleandoc(part.__doc__ or "")))
    return found


def _attributes(text: str) -> Iterator[tuple[str, str]]:
    """Names and descriptions under the heading "Attributes:"."""
    _, heading, rest = text.partition("Attributes:\n")
    section = re.split(r"\n(?=\S)", rest, maxsplit=1)[0] if heading else ""
    for entry in re.split(r"\n(?= {4}\S)", "\n" + section):
        name, colon, description = entry.strip().partition(": ")
        if colon and name.isidentifier():
            yield name, " ".join(description.split())
