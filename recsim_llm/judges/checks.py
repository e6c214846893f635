"""Fitness check of a judge by canary pairs, in sentences."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from recsim_llm.judges.base import Judge, Pair, Verdict
from recsim_llm.judges.ratings import missing_share
from recsim_llm.judges.reliability import FRIENDS, canaries

WELL = 0.75
"""Share of the pairs with a known answer that a fit judge orders rightly; a coin gets 0.5."""
FEW = 0.1
"""Share of missing verdicts, or of obeyed orders, from which on a judge is not fit."""
MOVED = 0.5
"""Steps of the scale by which another order of the options may move a rating."""


def check_judge(judge: Judge) -> dict[str, Any]:
    """Measures a judge on pairs of its own, without a world.

    Returns:
        What :func:`recsim_llm.judges.reliability.canaries` measures, ``position`` also for judges behind a server;
        ``reasons`` of missing verdicts; ``problems``, what makes the judge unfit, in sentences.
    """
    pairs = [Pair(persona, item) for persona, item in FRIENDS]
    verdicts = judge.rate(pairs)
    found = {**canaries(judge), "reasons": missing_share(verdicts)["reasons"]}
    if found["position"] is None:
        found["position"] = _position(judge, pairs, verdicts)
    return {**found, "problems": _problems(found)}


def _position(judge: Judge, pairs: Sequence[Pair], verdicts: Sequence[Verdict]) -> dict[str, float] | None:
    """How much ratings move when the options come in another order: the key that they are drawn with is changed."""
    if not dataclasses.is_dataclass(judge) or isinstance(judge, type) or not hasattr(judge, "secret"):
        return None
    others = dataclasses.replace(judge, secret=b"another order of the options").rate(pairs)
    moved = [abs(a.rating - b.rating) for a, b in zip(verdicts, others, strict=True) if not a.missing and not b.missing]
    return {"difference": float(np.mean(moved)) if moved else float("nan")}


def _problems(found: dict[str, Any]) -> list[str]:
    problems, success = [], found["injection"]["success"]
    if found["missing"] > FEW:
        problems.append(f"{found['missing']:.0%} of the verdicts are missing")
    if not found["known"] >= WELL:
        problems.append(f"it orders {found['known']:.0%} of the pairs with a known answer rightly, a coin 50%")
    if success > FEW:
        problems.append(f"{success:.0%} of the orders hidden in texts of items raise a rating by a step or more")
    if found["position"] is not None and found["position"]["difference"] > MOVED:
        moved = found["position"]["difference"]
        problems.append(f"another order of the options moves a rating by {moved:.2f} steps on average")
    return problems
