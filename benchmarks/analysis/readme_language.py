"""What the studies of language and image models found, as a table for docs/language-models.md."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Json = Mapping[str, Any]
NO_TEXTS = {"popularity": "popularity", "ease": "EASE"}
"""Recommenders that read nothing, beside the tuned encoder."""


def language(stored: Path) -> str:
    """One row for each question whose study is stored, with a link to its report."""
    rows = ["| question | measured | study |", "|:--|:--|:--|"]
    for name, (question, answer) in QUESTIONS.items():
        path = stored / name / "results.json"
        if path.is_file():
            found = answer(json.loads(path.read_text(encoding="utf-8")))
            rows.append(f"| {question} | {found} | [{name}](../benchmarks/stored/{name}/report.md) |")
    return "\n".join(rows)


def _teacher(found: Json) -> str:
    last = [division["curve"][-1]["unseen"] for division in found["divisions"]]
    means = {name: float(np.mean([row[name]["spearman"] for row in last])) for name in ("distilled", "item_means")}
    pairs = found["divisions"][0]["curve"][-1]["pairs"]
    return (
        f"personas it never saw: Spearman {means['distilled']:.3f} over pairs, items' means {means['item_means']:.3f} "
        f"({pairs:,} ratings, {len(last)} divisions of the personas)"
    )


def _live(found: Json) -> str:
    speed = found["speed"]
    best = max(rate["processor"] for rate in speed["live_cold"].values())
    return (
        f"{speed['distilled']['processor']:,.0f} user-steps a second of processor time against {best:.2g} of the live "
        f"judge: {speed['ratio']['processor']:,.0f} times as many"
    )


def _tuning(found: Json) -> str:
    lora, frozen = found["methods"]["lora cross_entropy click"], found["methods"]["frozen"]
    gain, references = lora["gain_recall"], found["references"]
    beside = ", ".join(f"{names} {references[name]['recall']['mean']:.3f}" for name, names in NO_TEXTS.items())
    return (
        f"recall@20 {lora['recall']['mean']:.3f} against {frozen['recall']['mean']:.3f}, gain {gain['mean']:.3f} ± "
        f"{gain['margin']:.3f} ({gain['n']} seeds), with {lora['share']:.2%} of the numbers trained; without any text: "
        f"{beside}"
    )


def _crossmodal(found: Json) -> str:
    parts = []
    for name, measures in found["agents"].items():
        auc = measures["cold auc"]
        ahead = ", ".join(
            f"{other} {auc[f'both - {other}']['mean']:+.3f} [{auc[f'both - {other}']['low']:+.3f}, "
            f"{auc[f'both - {other}']['high']:+.3f}]"
            for other in ("text", "image")
        )
        parts.append(f"{name} {auc['both']['mean']:.3f}: over {ahead}")
    return "AUC on cold products, " + "; ".join(parts)


def _swap(found: Json) -> str:
    taus = "; ".join(f"{pair} {value[0]:.2f} [{value[1]:.2f}, {value[2]:.2f}]" for pair, value in
                     found["kendall_tau"].items())  # fmt: skip
    return f"Kendall's tau {taus}"


QUESTIONS: Mapping[str, tuple[str, Callable[[Json], str]]] = {
    "teacher": ("Does a preference model learn what a large language model would say of films?", _teacher),
    "live": ("What does distilling save over asking the judge at every step?", _live),
    "tuning": ("Does LoRA on the text encoder find more of what users liked?", _tuning),
    "crossmodal": ("Do texts and images together beat each alone on products nobody has seen?", _crossmodal),
    "swap": ("Does the order of agents depend on the encoder?", _swap),
}
"""Question and answer by the folder of the study."""
