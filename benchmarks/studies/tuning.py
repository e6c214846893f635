"""Fine-tuning a text encoder: gain and cost of LoRA, AdaLoRA, all weights and none, by three losses.

    python -m recsim_llm.benchmarks.studies.tuning --data FOLDER --out benchmarks/stored/tuning --seeds 10

FOLDER holds movies.csv, ratings.csv and tags.csv as MovieLens-small has them; without it training users of a built-in
world are logged. A seed draws the cold items, the held-out rows and the adapters; all methods see the same ones, so
that differences to the frozen encoder are paired. Each row is on disk when it is done, and the same command goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from recsim_llm._version import __version__
from recsim_llm.benchmarks.studies.tuning_data import Data, Split, from_folder, from_world, ranking_quality, references
from recsim_llm.benchmarks.studies.tuning_report import means_of_references, results, to_markdown
from recsim_llm.encoders import encode_cached, load_text_encoder
from recsim_llm.encoders.finetune.training import RATES, tune
from recsim_llm.errors import DataError
from recsim_llm.files import write_file

Say = Callable[[str], None]
ROWS = "rows.jsonl"
WORLD = "recsim_llm/Ecommerce-v0"
SETTINGS: dict[str, Any] = {"steps": 30, "block": 64, "epochs": 100, "length": 24, "rank": 8}
LAYERS = {"lora": 2, "adalora": 2, "full": 0}
LOSSES = ("cross_entropy", "bpr", "squared")
FEWER_SEEDS = 3


@dataclass(frozen=True)
class Cell:
    """One tuning.

    Attributes:
        method: "frozen", "lora", "adalora" or "full".
        loss: Of the tuning; "" for "frozen".
        tasks: Columns that are learnt.
        seed: Of the split and the tuning.
    """

    method: str
    loss: str
    tasks: tuple[str, ...]
    seed: int

    @property
    def label(self) -> str:
        """What it is called in the report."""
        return " ".join(part for part in (self.method, self.loss, "+".join(self.tasks)) if part)


def cells(seeds: int, ratings: bool) -> list[Cell]:
    """All tunings, those of the main claim first: LoRA on all seeds, the others on three."""
    click, fewer = ("click",), min(seeds, FEWER_SEEDS)
    found = [Cell("frozen", "", (), seed) for seed in range(seeds)]
    found += [Cell("lora", "cross_entropy", click, seed) for seed in range(seeds)]
    for method in ("adalora", "full"):
        found += [Cell(method, "cross_entropy", click, seed) for seed in range(fewer)]
    for loss in LOSSES[1:]:
        found += [Cell("lora", loss, click, seed) for seed in range(seeds)]
    if ratings:
        found += [Cell("lora", "squared", ("click", "rating"), seed) for seed in range(fewer)]
    for loss in LOSSES[1:]:
        found += [Cell(method, loss, click, seed) for method in ("adalora", "full") for seed in range(fewer)]
    return found


def run(cell: Cell, data: Data, encoder: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """One row: costs and quality."""
    split = Split.of(data, cell.seed)
    if cell.method == "frozen":
        found = ranking_quality(encode_cached(encoder, data.texts), split)
        return {"label": cell.label, "seed": cell.seed, **found, "share": 0.0, "parameters_trained": 0}
    began = time.process_time()
    tuned = tune(
        encoder, data.texts, data.data[split.train], method=cell.method, loss=cell.loss, tasks=cell.tasks,
        layers=LAYERS[cell.method], seed=cell.seed, **settings,
    )  # fmt: skip
    spent = time.process_time() - began
    report = {name: value for name, value in tuned.report.items() if name != "ranks"}
    quality = ranking_quality(tuned.encode(data.texts), split)
    return {"label": cell.label, "seed": cell.seed, **quality, **report, "cpu_seconds": spent}


def study(data: Data, out: Path, seeds: int, settings: dict[str, Any], say: Say) -> dict[str, Any]:
    """All rows that are not in ``out`` yet, and the report after each.

    Raises:
        DataError: If ``out`` holds rows of other data or settings.
    """
    encoder = load_text_encoder()
    key = key_of(data, encoder, settings)
    out.mkdir(parents=True, exist_ok=True)
    rows = _read(out / ROWS, key)
    done = {(row["label"], row["seed"]) for row in rows}
    planned = cells(seeds, "rating" in data.data.values)
    for number, cell in enumerate(planned, 1):
        if (cell.label, cell.seed) in done:
            continue
        row = run(cell, data, encoder, settings)
        _append(out / ROWS, {"key": key, **row})
        rows.append(row)
        say(f"{number}/{len(planned)} {cell.label} seed {cell.seed}: recall {row['recall']:.3f}, "
            f"cold {row['recall_cold']:.3f}, {row.get('cpu_seconds', 0.0):.0f} s")  # fmt: skip
        _report(data, encoder, settings, rows, out)
    return _report(data, encoder, settings, rows, out)


def _report(
    data: Data, encoder: Any, settings: dict[str, Any], rows: list[dict[str, Any]], out: Path
) -> dict[str, Any]:
    """Writes the numbers and the report of the rows so far."""
    about = {
        "data": {"name": data.name, "items": len(data.texts), "users": data.users, "meetings": len(data.data)},
        "settings": {**settings, "layers": LAYERS, "rates": RATES, "encoder": encoder.name,
                     "encoder_digest": encoder.digest},
        "machine": machine(),
    }  # fmt: skip
    seeds = sorted({int(row["seed"]) for row in rows})
    about["references"] = means_of_references([references(Split.of(data, seed)) for seed in seeds])
    found = results(rows, about)
    write_file(out / "results.json", json.dumps(found, indent=1, sort_keys=True).encode() + b"\n")
    write_file(out / "report.md", to_markdown(found).encode())
    return found


def key_of(data: Data, encoder: Any, settings: dict[str, Any]) -> str:
    """SHA-256 of what rows of one study have in common."""
    described = json.dumps([data.digest, encoder.digest, settings, LAYERS, RATES], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()


def machine() -> dict[str, str]:
    """What it ran on."""
    names = ("numpy", "torch", "transformers", "peft")
    system = {"python": platform.python_version(), "processor": platform.machine(), "system": platform.system()}
    return {**system, "recsim_llm": __version__, **{name: metadata.version(name) for name in names}}


def _read(path: Path, key: str) -> list[dict[str, Any]]:
    """Rows that are done; a line that was cut off is passed over and runs again."""
    rows = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if row.pop("key", None) != key:
            raise DataError(f"{path} holds rows of other data or settings; name another folder or remove it")
        rows.append(row)
    return rows


def _append(path: Path, row: dict[str, Any]) -> None:
    whole = not path.is_file() or path.read_bytes()[-1:] in (b"", b"\n")
    with path.open("ab") as stream:
        stream.write((b"" if whole else b"\n") + json.dumps(row, sort_keys=True).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--data", type=Path, help="folder of ratings; a built-in world if left out")
    parser.add_argument("--env", default=WORLD, help="environment whose world is used without --data")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/stored/tuning"))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--users", type=int, default=300)
    parser.add_argument("--small", action="store_true", help="one seed, few items and steps")
    given = parser.parse_args(arguments)

    def say(text: str) -> None:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    items, users, seeds = (150, 150, 1) if given.small else (given.items, given.users, given.seeds)
    settings = {**SETTINGS, "steps": 6, "block": 32} if given.small else SETTINGS
    if given.data is None:
        data = from_world(given.env, items, users, 4_000 if given.small else 20_000)
    else:
        data = from_folder(given.data, items, users)
    found = study(data, given.out, seeds, settings, say)
    sys.stdout.write(to_markdown(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
