"""Summary and report of the study of fine-tuned encoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

QUALITIES = ("recall", "ndcg", "recall_popular", "ndcg_popular", "recall_cold", "ndcg_cold")
COSTS = ("share", "parameters_trained", "cpu_seconds", "seconds", "peak_mib", "first_loss", "last_loss")
FROZEN = "frozen"
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""Student's t for 95 % by number of seeds; 1.96 for more than these."""


def mean_and_margin(values: Sequence[float]) -> dict[str, float]:
    """Mean of n values and half of its 95 % interval (Student's t); NaN for one value."""
    array = np.asarray(values, np.float64)
    if len(array) < 2:
        return {"mean": float(array.mean()), "margin": float("nan"), "n": len(array)}
    margin = T_95.get(len(array), 1.96) * array.std(ddof=1) / np.sqrt(len(array))
    return {"mean": float(array.mean()), "margin": float(margin), "n": len(array)}


def results(rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> dict[str, Any]:
    """Means over seeds, and differences to the frozen encoder paired by seed.

    Args:
        rows: One for each tuning.
        about: Data, settings and machine.
    """
    by_label: dict[str, dict[int, Mapping[str, Any]]] = {}
    for row in rows:
        by_label.setdefault(str(row["label"]), {})[int(row["seed"])] = row
    frozen = by_label.get(FROZEN, {})
    found: dict[str, Any] = {}
    for label, seeds in by_label.items():
        numbers: dict[str, Any] = {
            name: mean_and_margin([float(row[name]) for row in seeds.values()]) for name in QUALITIES
        }
        for name in QUALITIES if label != FROZEN else ():
            gains = [float(row[name]) - float(frozen[seed][name]) for seed, row in seeds.items() if seed in frozen]
            numbers[f"gain_{name}"] = mean_and_margin(gains)
        for name in COSTS:
            costs = [float(row[name]) for row in seeds.values() if name in row]
            if costs:
                numbers[name] = float(np.mean(costs))
        found[label] = numbers
    return {**about, "methods": found, "rows": [dict(row) for row in rows]}


def means_of_references(found: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, dict[str, float]]]:
    """Mean and margin of each quality of recommenders without texts, from one mapping for each seed."""
    return {
        name: {quality: mean_and_margin([one[name][quality] for one in found]) for quality in ("recall", "ndcg")}
        for name in (found[0] if found else ())
    }


def to_markdown(found: Mapping[str, Any]) -> str:
    """The report in Markdown."""
    data, settings, methods = found["data"], found["settings"], found["methods"]
    lines = [
        "# Tuned text encoders",
        "",
        f"{data['name']}: {data['items']:,} items, {data['users']:,} users, {data['meetings']:,} meetings. The encoder "
        f"is {settings['encoder']}; {settings['steps']} steps of {settings['block']} texts of at most "
        f"{settings['length']} tokens, rank {settings['rank']}, adapters in the last {settings['layers']['lora']} "
        f"layers; full tuning trains every weight. Step sizes: {_rates(settings)}; they "
        "were chosen on seeds 100 and 101 of ml-latest-small, other splits of the same films and users. One core, one "
        "thread.",
        "",
        "A user is the mean of the encodings of what she liked; items are ranked by similarity to it. *Recall* and "
        "*NDCG* are at 20, on held-out items of hers that others are known to have met; *cold*: among the "
        "15 % of items of which nothing was tuned on; *with popularity*: log(1 + times liked) added with a weight "
        "chosen on a validation part. Means over seeds; ± is half of the 95 % interval (Student's t).",
        "",
        _verdict(methods),
        "",
        "## Quality",
        "",
        "| method, loss, tasks | seeds | recall | NDCG | recall with popularity | recall, cold | NDCG, cold |",
        "|:--|--:|--:|--:|--:|--:|--:|",
    ]
    names = ("recall", "ndcg", "recall_popular", "recall_cold", "ndcg_cold")
    for label, numbers in methods.items():
        cells = [_shown(numbers[name]) for name in names]
        lines.append(f"| {label} | {numbers['recall']['n']} | " + " | ".join(cells) + " |")
    for label, numbers in found.get("references", {}).items():
        cells = [_shown(numbers[name]) for name in ("recall", "ndcg")]
        lines.append(f"| {label}, no texts | {numbers['recall']['n']} | " + " | ".join([*cells, "–", "–", "–"]) + " |")
    lines += [
        "", "## Gain over the frozen encoder, paired by seed", "",
        "| method, loss, tasks | seeds | recall | NDCG | recall with popularity | recall, cold | NDCG, cold |",
        "|:--|--:|--:|--:|--:|--:|--:|",
    ]  # fmt: skip
    for label, numbers in methods.items():
        if label != FROZEN:
            cells = [_shown(numbers[f"gain_{name}"], signed=True) for name in names]
            lines.append(f"| {label} | {numbers['gain_recall']['n']} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, *_costs(methods), *_machine(found["machine"])]) + "\n"


def _rates(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{rate:g} {method}" for method, rate in settings.get("rates", {}).items())


def _verdict(methods: Mapping[str, Any]) -> str:
    """One sentence on LoRA against the frozen encoder."""
    lora = methods.get("lora cross_entropy click")
    if lora is None or "gain_recall" not in lora:
        return "LoRA was not run with cross-entropy."
    gain = lora["gain_recall"]
    sure = bool(gain["mean"] - gain["margin"] > 0)
    return (
        f"LoRA with cross-entropy changes held-out recall over the frozen encoder by {_shown(gain, signed=True)} "
        f"({gain['n']} seeds; the interval is {'above' if sure else 'not wholly above'} 0) and trains "
        f"{100 * lora['share']:.2f} % of the encoder's numbers. With popularity beside both, which says much of what "
        f"is liked here, the gain is {_shown(lora['gain_recall_popular'], signed=True)}; on cold items it is "
        f"{_shown(lora['gain_recall_cold'], signed=True)}."
    )


def _costs(methods: Mapping[str, Any]) -> list[str]:
    lines = [
        "", "## Cost", "",
        "| method, loss, tasks | numbers trained | share of all | processor time [s] | peak memory [MiB] | "
        "loss: first and last tenth |", "|:--|--:|--:|--:|--:|--:|",
    ]  # fmt: skip
    for label, n in methods.items():
        if label != FROZEN:
            lines.append(
                f"| {label} | {n['parameters_trained']:,.0f} | {100 * n['share']:.2f} % | {n['cpu_seconds']:.1f} | "
                f"{n['peak_mib']:.0f} | {n['first_loss']:.3f}, {n['last_loss']:.3f} |"
            )
    return [
        *lines, "",
        "Memory is the highest resident memory of the process while tuning, above what was resident before (the "
        "kernel's high-water mark, reset for each tuning). Lower layers that are not trained are computed once for "
        "each text and shared by tunings that follow one another; the time holds that only where it was done.",
    ]  # fmt: skip


def _machine(machine: Mapping[str, str]) -> list[str]:
    return ["", "Versions: " + ", ".join(f"{name} {value}" for name, value in machine.items()) + "."]


def _shown(number: Mapping[str, float], signed: bool = False) -> str:
    sign = "+" if signed else ""
    margin = "" if np.isnan(number["margin"]) else f" ± {number['margin']:.3f}"
    return f"{number['mean']:{sign}.3f}{margin}"
