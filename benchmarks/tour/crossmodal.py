"""Recommenders on text and images at small size: both, text, images and ids on products that were withheld."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from recsim_llm.benchmarks.studies.crossmodal import AGENTS, Plan, run
from recsim_llm.benchmarks.studies.crossmodal_report import MODALITIES
from recsim_llm.errors import require

Say = Callable[[str], None]
PLAN = Plan(steps=3_840, judged=960, served=16)


def small(say: Say) -> dict[str, Any]:
    """Trains the three agents with each choice of modalities on one short log of the Ecommerce world.

    Args:
        say: Is told what is being done.

    Returns:
        By agent and modalities: AUC, recall, return and clicks on cold products.
    """
    require("torch", "agents")
    found: dict[str, Any] = {}
    for name in AGENTS:
        for modalities in MODALITIES:
            row = run(PLAN, name, modalities, 0)
            found[f"{name} by {modalities}"] = {key: value for key, value in row.items() if key.startswith("cold")}
        numbers = ", ".join(f"{kind} {found[f'{name} by {kind}']['cold auc']:.3f}" for kind in MODALITIES)
        say(f"{name}, AUC on withheld products: {numbers}")
    return found
