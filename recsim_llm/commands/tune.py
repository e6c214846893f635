"""Command tune: fine-tunes a text encoder on interactions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from recsim_llm.commands.common import console, notes, print_json


def tune(
    items: Annotated[Path, typer.Option(help="CSV or Parquet file of items; a text for each is needed.")],
    interactions: Annotated[Path, typer.Option(help="File of ratings or clicks: user, item, rating or click.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the tuned encoder.")],
    tags: Annotated[Path | None, typer.Option(help="File of notes on items (item, tag), added to their texts.")] = None,
    text_columns: Annotated[str | None, typer.Option(help="Columns joined to the text, as title,genres.")] = None,
    encoder: Annotated[str, typer.Option(help="Text encoder that is tuned.")] = "all-MiniLM-L6-v2",
    method: Annotated[str, typer.Option(help="lora, adalora or full.")] = "lora",
    loss: Annotated[str, typer.Option(help="cross_entropy, squared or bpr.")] = "cross_entropy",
    tasks: Annotated[str, typer.Option(help="What is learnt: click, rating or click,rating.")] = "click",
    rank: Annotated[int, typer.Option(help="Rank of the adapters.", min=1, max=256)] = 8,
    layers: Annotated[int, typer.Option(help="Upper layers that are tuned; 0 for all.", min=0)] = 2,
    steps: Annotated[int, typer.Option(help="Steps of training.", min=1)] = 60,
    positive: Annotated[float | None, typer.Option(help="Ratings from here on are liked.")] = None,
    use: Annotated[str, typer.Option(help="Tune on the 'train' part of the interactions or on 'all'.")] = "train",
    drop_unknown: Annotated[bool, typer.Option(help="Leave out interactions with unknown items.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the split and of the tuning.", min=0)] = 0,
    overwrite: Annotated[bool, typer.Option(help="Replace a tuned encoder that is there.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print costs and losses as JSON.")] = False,
) -> None:
    """Tune a text encoder on interactions; then build a world with --encoder FOLDER."""
    from recsim_llm.encoders import load_text_encoder
    from recsim_llm.encoders.finetune.training import tune as tuned_by

    texts, data = _read(items, interactions, tags, text_columns, drop_unknown, positive)
    found = tuned_by(
        load_text_encoder(encoder), texts, data[_part(data, use, seed)], method=method, loss=loss,
        tasks=tuple(tasks.split(",")), rank=rank, layers=layers, steps=steps, epochs=10_000, seed=seed,
        progress=notes.is_terminal,
    )  # fmt: skip
    found.save(out, overwrite=overwrite)
    if json:
        print_json({"encoder": str(out), "digest": found.digest, **found.report})
        return
    report = found.report
    console.print(
        f"{report['parameters_trained']:,} of {report['parameters']:,} numbers trained ({report['share']:.2%}) in "
        f"{report['steps']} steps, {report['seconds']:.0f} s, {report['peak_mib']:.0f} MiB; loss "
        f"{report['first_loss']:.3f} -> {report['last_loss']:.3f}\n\nrecsim-llm world build --items {items} "
        f"--interactions {interactions} --encoder {out} --out WORLD",
        highlight=False,
    )  # fmt: skip


def _read(
    items: Path, interactions: Path, tags: Path | None, text_columns: str | None, drop: bool, positive: float | None
) -> tuple[list[str], Any]:
    """Texts of the items, and who engaged with them."""
    from recsim_llm.datasets import read_interactions, read_items
    from recsim_llm.encoders.finetune.training import Engagements

    columns = text_columns.split(",") if text_columns else None
    things = read_items(items, text_columns=columns, tags=tags)
    log, _ = read_interactions(interactions, things.item_id, drop_unknown=drop)
    return things.text, Engagements.of(log, positive)


def _part(data: Any, use: str, seed: int) -> Any:
    """Rows that are tuned on: none of the part that ``world build`` with the same seed keeps for its test."""
    import numpy as np

    from recsim_llm.errors import unknown
    from recsim_llm.fitting.heldout import TEST, split_log

    if use not in ("train", "all"):
        raise unknown("part of the interactions", use, ("train", "all"))
    everything = np.ones(len(data), np.bool_)
    return everything if use == "all" else split_log(data.user, data.item, seed=seed) != TEST
