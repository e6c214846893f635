"""What the commands share: output, names, settings given as text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.console import Console

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="A setting as name=value; may be repeated.", metavar="NAME=VALUE")
]

console = Console(markup=False, emoji=False)
notes = Console(stderr=True, markup=False, emoji=False)
"""Where commands print. Text is shown as it is: brackets are no markup, or ``[s]`` and ``.[llm]`` would vanish."""


def print_json(value: object) -> None:
    """Prints a value as JSON, one document."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def parsed_settings(given: Sequence[str] | None) -> dict[str, Any]:
    """Settings ``name=value``; a value is read as JSON where it is JSON, else as text.

    Raises:
        ConfigError: If one has no equals sign.
    """
    from recsim_llm.errors import ConfigError

    settings: dict[str, Any] = {}
    for text in given or []:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise ConfigError(f"--set takes NAME=VALUE, got {text!r}")
        try:
            settings[name.strip().replace("-", "_")] = json.loads(value)
        except json.JSONDecodeError:
            settings[name.strip().replace("-", "_")] = value
    return settings


def environment_id(name: str) -> str:
    """A registered id from an id, with or without the module before a colon, or a scenario's short name.

    Raises:
        ConfigError: If there is none; the message has the closest one.
    """
    from recsim_llm.benchmarks.harness.cell import scenario_id

    return scenario_id(name.rsplit(":", 1)[-1])
