"""Report of the study of a larger model as teacher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def report(results: dict[str, Any]) -> str:
    """The results as Markdown; numbers of one division have intervals over its personas."""
    parts = [
        "# A larger model as teacher\n",
        "Spearman over held-out pairs of a persona and a film; means over divisions of the personas, and the range of",
        "the divisions. The bar to beat is the films' mean rating by the personas in the fit.\n",
    ]
    parts += _alignment(results) + _curve(results) + _choice(results) + _intervals(results) + _people(results)
    return "\n".join([*parts, *_judge(results)]) + "\n"


def _over(results: dict[str, Any], read: Callable[[dict[str, Any]], Any]) -> str:
    """Mean and range over divisions."""
    found = [read(one) for one in results["divisions"]]
    values = np.array([value for value in found if value is not None], np.float64)
    return f"{values.mean():.3f} ({values.min():.3f} to {values.max():.3f})" if len(values) else "-"


def _alignment(results: dict[str, Any]) -> list[str]:
    found = results.get("alignment")
    if not found:
        return []
    return [
        f"The ratings name {found['positions']:,} films by position; {found['left_out']} of {found['films']:,} films "
        "are missing, found by aligning genres with ratings. Two halves of the personas, which share no "
        f"rating, agree on {found['halves_agree']:.1%} of the positions; without real people's means, which help to "
        f"tell films apart, {found.get('without_real_means_agrees', float('nan')):.2%} are the same.\n"
    ]


def _curve(results: dict[str, Any]) -> list[str]:
    lines = ["## Held-out agreement by number of pairs\n"]
    for kind in ("unseen", "seen"):
        lines += [
            f"Personas {kind} in fitting:\n",
            "| pairs | distilled | its appeal alone | item means | distilled, per persona | item means, per persona | "
            "distilled AUC | item means AUC |",
            "|---:|---|---|---|---|---|---|---|",
        ]
        for row in range(len(results["divisions"][0]["curve"])):
            cells = [
                _over(results, lambda one, r=row, n=name, m=measure, k=kind: one["curve"][r][k][n][m])  # type: ignore[misc]
                for name, measure in (
                    ("distilled", "spearman"), ("appeal_alone", "spearman"), ("item_means", "spearman"),
                    ("distilled", "spearman_per_user"), ("item_means", "spearman_per_user"), ("distilled", "auc"),
                    ("item_means", "auc"),
                )
            ]  # fmt: skip
            size = results["divisions"][0]["curve"][row]["pairs"]
            lines.append(f"| {size:,} | " + " | ".join(cells) + " |")
        lines.append("")
    return lines


def _intervals(results: dict[str, Any]) -> list[str]:
    lines = ["All pairs, unseen personas; 95 % intervals by bootstrap over personas:\n"]
    lines += ["| division | encoding | distilled | item means | ahead |", "|---:|---|---|---|---|"]
    for one in results["divisions"]:
        last = one["curve"][-1]["unseen"]
        mine, bar = last["distilled"], last["item_means"]
        lines.append(
            f"| {one['seed']} | {one['choice']['best']} | {mine['spearman']} {mine['interval']} | "
            f"{bar['spearman']} {bar['interval']} | {mine['ahead']} {mine['ahead_interval']} |"
        )
    return [*lines, ""]


def _choice(results: dict[str, Any]) -> list[str]:
    lines = ["## How personas are encoded\n", "Spearman on personas for choices, who are not among the unseen:\n"]
    lines += ["| encoding | Spearman |", "|---|---|"]
    for name in results["divisions"][0]["choice"]["by_encoding"]:
        lines.append(f"| {name} | {_over(results, lambda one, n=name: one['choice']['by_encoding'][n])} |")  # type: ignore[misc]
    lines.append(f"| (item means) | {_over(results, lambda one: one['choice']['item_means'])} |")
    return [*lines, ""]


def _people(results: dict[str, Any]) -> list[str]:
    first = results["divisions"][0]["people"]
    lines = [
        "## Real people\n",
        f"Films with ten real ratings or more ({first['films']:,}) by their real mean; and the order of "
        f"{first['people']} people's own ratings (4 stars or more before fewer).\n",
        "| score of a film | Spearman with real means | AUC in people's own order |",
        "|---|---|---|",
    ]
    for name, label in (("distilled_appeal", "distilled appeal"), ("teacher_means", "teacher's means")):
        found = first[name]
        lines.append(
            f"| {label} | {found['films_spearman']} {found['interval']} | {found['auc']} {found['auc_interval']} |"
        )
    other = first["other_peoples_means"]
    return [*lines, f"| other people's means | 1 | {other['auc']} {other['auc_interval']} |", ""]


def _judge(results: dict[str, Any]) -> list[str]:
    found = results.get("judge")
    if not found:
        return []
    agree, missing = found["agreement"], found["missing"]
    lines = [
        f"## The small judge, {found['name']}\n",
        f"{agree['pairs']} pairs of {agree['users']} unseen personas, {missing['share']:.1%} missing; against the "
        "teacher's ratings:\n",
        "| score | Spearman | AUC |",
        "|---|---|---|",
    ]
    for name in ("judge", "item_means", "distilled"):
        own = agree[name]
        lines.append(f"| {name.replace('_', ' ')} | {own['spearman']} {own['interval']} | {own['auc']} |")
    real = found["people"]
    return [*lines, f"\nJudge against real people's means, {real['pairs']} pairs: {real['spearman']}."]
