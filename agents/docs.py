"""The page of all agents, from their docstrings and settings: ``recsim-llm docs`` writes it to docs/agents.md."""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any

import gymnasium as gym

from recsim_llm import agents
from recsim_llm.agents.core.env_runner import EnvironmentSpec

NOTE = "<!-- Made by recsim-llm docs from the docstrings of the agents. -->\n"
FAMILIES = {
    "reference": "References",
    "bandit": "Bandits",
    "contextual bandit": "Contextual bandits",
    "temporal difference": "Temporal difference",
    "policy gradient": "Policy gradient",
    "supervised": "Trained on logs",
    "language model": "Readers of texts",
    "wrapper": "Around any agent",
}
INTRODUCTION = """
One file per algorithm, one protocol. `agents.make("linucb", env, alpha=0.1)` makes one; `predict`, `learn`, `save` and
`load` are those of Stable-Baselines3. `recsim-llm agents` lists them; `recsim_llm.testing.check_agent` holds them, or
yours, to the contract.
"""
TRIED_IN = "recsim_llm/News-v0"
"""Where it is asked what an agent can take."""
_HEADINGS = re.compile(r"^(Equation|Paper|Policy|Exploration|Origin of the defaults|Deviations?):", re.MULTILINE)
_ROLE = re.compile(r":(?:class|meth|func|attr|data|mod):`~?(?:[\w.]*\.)?(\w+)`")


def page() -> str:
    """The whole page as Markdown."""
    parts = [NOTE, "# Agents\n", INTRODUCTION.strip() + "\n", abilities() + "\n"]
    for family, names in agents.families().items():
        if family not in FAMILIES:  # somebody's own
            continue
        parts += [f"## {FAMILIES[family]}\n", _overview(names)]
        parts += [_entry(name) for name in names]
    return "\n".join(parts)


def built_in() -> list[str]:
    """Names of the agents that come with the package."""
    return [name for family, names in agents.families().items() if family in FAMILIES for name in names]


def abilities() -> str:
    """What all agents can, and which of them cannot, in sentences."""
    names = built_in()
    kinds = {name: agents.get(name) for name in names}
    slates, listed = (EnvironmentSpec.of(gym.make(TRIED_IN, num_candidates=count)) for count in (None, 20))

    def refusing(env_spec: EnvironmentSpec) -> list[str]:
        return [name for name, kind in kinds.items() if kind.refusal(env_spec, kind.Config()) is not None]

    drawn = [name for name, kind in kinds.items() if not kind.knows_propensity]
    unlogged = [name for name, kind in kinds.items() if not kind.logs_propensity]
    return (
        f"There are {len(names)} agents, and all take the mask of the shelf and serve many users at once. What one "
        f"cannot take it refuses when it is made: slates are taken by {_all_but(refusing(slates))}, lists of "
        f"candidates by {_all_but(refusing(listed))}. The probability of what was chosen (`agent.propensity`) is known "
        f"of {_all_but(drawn)}, whose draws have no closed form: there it is NaN, or estimated from "
        f"`propensity_samples` draws. Transitions of learning hold it too, of {_all_but(unlogged)}, which "
        "Stable-Baselines3 trains by loops of its own."
    )


def _all_but(names: list[str]) -> str:
    return f"all but {', '.join(names)}" if names else "all"


def summary(kind: type) -> str:
    """The first line of an agent's docstring, without the full stop."""
    return _plain((inspect.getdoc(kind) or "").split("\n")[0].rstrip("."))


def settings(kind: Any) -> list[tuple[str, Any, str]]:
    """Name, default and documentation of each setting."""
    documented: dict[str, str] = {}
    for part in reversed(kind.Config.__mro__):
        if dataclasses.is_dataclass(part):
            documented |= _attributes(inspect.cleandoc(part.__doc__ or ""))
    return [(name, value, documented.get(name, "")) for name, value in kind.Config().to_dict().items()]


def _overview(names: list[str]) -> str:
    rows = ["| agent | what it does |", "|:--|:--|"]
    rows += [f"| [{name}](#{name}) | {summary(agents.get(name))} |" for name in names]
    return "\n".join(rows) + "\n"


def _entry(name: str) -> str:
    kind = agents.get(name)
    lines = [f"### {name}\n", _HEADINGS.sub(r"**\1:**", _plain(inspect.getdoc(kind) or "")) + "\n"]
    rows = settings(kind)
    if rows:
        lines += ["| setting | default | what it is |", "|:--|--:|:--|"]
        lines += [f"| `{env_spec}` | {_cell(value)} | {_plain(text)} |" for env_spec, value, text in rows]
        lines.append("")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    return f"`{value!r}`".replace("|", "\\|")


def _plain(text: str) -> str:
    """Markdown from the markup of docstrings."""
    return _ROLE.sub(r"`\1`", text).replace("``", "`")


def _attributes(text: str) -> dict[str, str]:
    """The entries under "Attributes:" of a docstring."""
    _, _, listed = text.partition("Attributes:\n")
    found: dict[str, str] = {}
    name = ""
    for line in listed.splitlines():
        entry = re.match(r"    (\w+): (.*)", line)
        if entry:
            name = entry[1]
            found[name] = entry[2]
        elif line.startswith("        ") and name:
            found[name] += " " + line.strip()
        elif line.strip():
            break
    return found
