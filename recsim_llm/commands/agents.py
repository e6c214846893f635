"""Command agents: lists agents and their settings."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import typer

from recsim_llm.commands.common import AsJson, console, print_json


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
    from recsim_llm.agents.docs import summary

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
                    "what it is": summary(kind),
                    "needs": ", ".join(_needs(kind)),
                    "slates": kind.refusal(slates, config) is None,
                    "candidates": kind.refusal(candidates, config) is None,
                }
            )
    return rows


def setting_rows(kind: Any) -> list[dict[str, Any]]:
    """One row for each setting of an agent: name, default, documentation."""
    from recsim_llm.agents.docs import settings

    return [{"setting": name, "default": value, "what it is": text} for name, value, text in settings(kind)]


def _list(json: bool) -> None:
    from recsim_llm.commands.listing import table_of

    rows = agent_rows()
    if json:
        print_json(rows)
        return
    for family in dict.fromkeys(row["family"] for row in rows):
        shown = [{**row, "slates": _tick(row["slates"]), "candidates": _tick(row["candidates"])} for row in rows]
        part = [
            {key: value for key, value in row.items() if key != "family"} for row in shown if row["family"] == family
        ]
        console.print(table_of(family, part))
    console.print("Settings of one: recsim-llm agents NAME", highlight=False)


def _show(name: str, json: bool) -> None:
    from recsim_llm import agents as shelf
    from recsim_llm.commands.listing import table_of

    kind = shelf.get(name)
    settings, text = setting_rows(kind), inspect.getdoc(kind) or ""
    if json:
        print_json({"agent": name, "needs": _needs(kind), "text": text, "settings": settings})
        return
    console.print(f"{name}\n", style="bold", highlight=False)
    console.print(text, highlight=False)
    console.print()
    console.print(table_of("settings", settings))


def _settings_tried() -> tuple[Any, Any]:
    """Settings with slates, and with candidates."""
    import gymnasium as gym

    from recsim_llm.agents.core.env_runner import EnvironmentSpec
    from recsim_llm.agents.docs import TRIED_IN

    return EnvironmentSpec.of(gym.make(TRIED_IN)), EnvironmentSpec.of(gym.make(TRIED_IN, num_candidates=20))


def _needs(kind: Any) -> list[str]:
    needs = ["torch"] if kind.needs_torch else []
    needs += [library for library in kind.libraries if library not in needs]
    return needs + (["truth"] if kind.needs_truth else [])


def _tick(value: bool) -> str:
    return "yes" if value else "no"
