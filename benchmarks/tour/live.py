"""The live judge at small size: a few steps with the real model, against a world distilled from the same pairs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recsim_llm.benchmarks.studies.live import Study, study

SMALL = Study(users=4, items=8, share=0.75, slots=2, lanes=64, steps=10, cold=(1,), fast=1024)
"""32 pairs, 24 of them for the head: the model rates about one or two in a second."""


def small(say: Callable[[str], None]) -> dict[str, Any]:
    """Runs the study on a handful of pairs; of so few the agreement is a demonstration, the speeds are measured."""
    with tempfile.TemporaryDirectory() as folder:
        found = study(SMALL, Path(folder), say)
    same = found["clicks"]["distilled, same state"]["fitted"]
    say(f"on pairs it was distilled from: same click {same['same']:.2f}, kappa {same['kappa']:.2f}")
    return {name: found[name] for name in ("clicks", "utilities", "speed", "cost")}
