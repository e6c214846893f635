"""Summary and report of the study of recommenders on text and images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

MODALITIES = ("both", "text", "image", "ids")
MEASURES = ("auc", "recall", "return", "clicks")
PARTS = ("cold", "warm")
RESAMPLES = 10_000


def interval(values: Sequence[float]) -> dict[str, float]:
    """Mean of some values with its 95 % percentile-bootstrap interval; the mean alone for one value."""
    array = np.asarray(values, np.float64)
    rng = np.random.Generator(np.random.PCG64(0))
    means = array[rng.integers(0, len(array), (RESAMPLES, len(array)))].mean(1)
    low, high = np.percentile(means, (2.5, 97.5))
    return {"mean": float(array.mean()), "low": float(low), "high": float(high), "n": len(array)}


def results(rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> dict[str, Any]:
    """Means over seeds, and how much text and images together gain over each other choice, paired by seed.

    Args:
        rows: One for each agent, choice of modalities and seed.
        about: Plan, world and machine.
    """
    table = {(str(row["agent"]), str(row["modalities"]), int(row["seed"])): row for row in rows}
    seeds = sorted({seed for _, _, seed in table})
    found: dict[str, Any] = {}
    for agent in dict.fromkeys(name for name, _, _ in table):
        for part in PARTS:
            for measure in MEASURES:
                name = f"{part} {measure}"
                values = {
                    kind: {seed: table[agent, kind, seed][name] for seed in seeds if (agent, kind, seed) in table}
                    for kind in MODALITIES
                }
                numbers: dict[str, Any] = {k: interval(list(v.values())) for k, v in values.items() if v}
                for kind in MODALITIES[1:]:
                    both = [
                        values["both"][seed] - values[kind][seed] for seed in values[kind] if seed in values["both"]
                    ]
                    if both:
                        numbers[f"both - {kind}"] = interval(both)
                found.setdefault(agent, {})[name] = numbers
    return {**about, "agents": found, "rows": [dict(row) for row in rows]}


def to_markdown(found: Mapping[str, Any]) -> str:
    """The report in Markdown."""
    plan = found["plan"]
    lines = [
        "# Recommenders on text and images",
        "",
        f"{plan['env_id']}: {plan['steps']:,} steps of training users under uniform random slates, "
        f"{plan['cold']:.0%} of the products withheld, others for each seed; then judged by held-out users on these "
        "products (cold) and on the others (warm). *AUC*: how often what was clicked scores above what was looked at "
        "and left on the same page. *Recall*: how often it is among the 20 best of the shelf. *Return* (revenue) and "
        "*clicks*: of an episode of users who are served from that part of the shelf alone. Means over seeds with 95 % "
        "bootstrap intervals; differences are paired by seed. One architecture each: ids are always there, "
        "``modalities`` says which contents are beside them.",
        "",
        verdict(found["agents"]),
    ]
    for part in PARTS:
        for measure in MEASURES:
            lines += ["", f"## {measure.upper() if measure == 'auc' else measure.capitalize()}, {part} products", ""]
            heads = [*MODALITIES, *(f"both - {kind}" for kind in MODALITIES[1:])]
            lines += ["| agent | " + " | ".join(heads) + " |", "|:--|" + "--:|" * len(heads)]
            for agent, numbers in found["agents"].items():
                cells = [_shown(numbers[f"{part} {measure}"].get(head), measure, "-" in head) for head in heads]
                lines.append(f"| {agent} | " + " | ".join(cells) + " |")
    seconds = [row["learn_s"] + row["judge_s"] for row in found["rows"]]
    lines += ["", f"{len(seconds)} rows took {sum(seconds) / 60:.0f} minutes on one core.", ""]
    return "\n".join(lines)


def verdict(agents: Mapping[str, Any]) -> str:
    """For which agents text and image together beat each alone, and for which they are worse than one of them."""
    sentences = []
    for part in PARTS:
        for measure in ("auc", "recall", "return"):
            gains = {
                agent: [numbers[f"{part} {measure}"].get(f"both - {kind}") for kind in ("text", "image")]
                for agent, numbers in agents.items()
            }
            won = [agent for agent, cells in gains.items() if all(cell and cell["low"] > 0.0 for cell in cells)]
            lost = [agent for agent, cells in gains.items() if any(cell and cell["high"] < 0.0 for cell in cells)]
            name = measure.upper() if measure == "auc" else measure
            text = f"By {name} on {part} products, text and images together beat each alone, the intervals above zero, "
            text += f"for: {', '.join(won) if won else 'no agent'} (of {len(agents)})"
            sentences.append(text + (f"; they are worse than one alone for: {', '.join(lost)}." if lost else "."))
    return " ".join(sentences)


def _shown(cell: Mapping[str, float] | None, measure: str, signed: bool) -> str:
    if cell is None:
        return "-"
    sign, digits = "+" if signed else "", 3 if measure in ("auc", "recall") else 1
    mean, low, high = (format(cell[name], f"{sign}.{digits}f") for name in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"
