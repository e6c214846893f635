"""Saves worlds with generated entries, and the provenance of each entry beside them.

    written.parquet   one row for each entry: id, kind, model, digest, prompt scheme, seed, batch, attempt, SHA-256
    written.json      one record for each run: the same facts, drafts in all, refused by reason

Neither file belongs to the world's manifest or hash: what users do does not depend on it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from recsim_llm.errors import ConfigError, DataError
from recsim_llm.files import sync_folder, temporary_sibling, write_file
from recsim_llm.synthesis.authoring.writer import WrittenEntries
from recsim_llm.worlds.catalog import UNRELEASED
from recsim_llm.worlds.world import World

ROWS, RUNS = "written.parquet", "written.json"
COLUMNS = ("id", "kind", "model", "digest", "scheme", "seed", "world", "batch", "attempt", "sha256")
_NUMBERS = ("seed", "batch", "attempt")


def save_written(
    world: World,
    written: WrittenEntries,
    folder: str | Path,
    *,
    source: str | Path | None = None,
    released_at: float = UNRELEASED,
) -> World:
    """Saves a new world with the generated entries added, whole or not at all.

    Args:
        world: The world that they were written for.
        written: The entries.
        folder: Where the new world goes; must not exist.
        source: Folder of the world; the provenance that lies there is carried on.
        released_at: [day] when items go on the shelf; by default not before ``release`` of a running environment.

    Returns:
        The new world.

    Raises:
        ConfigError: If the folder exists or its parent does not, or nothing was written.
    """
    target = Path(folder)
    if not written.rows:
        raise ConfigError(
            f"none of {written.attempts} drafts was accepted ({dict(written.rejected)}); nothing is saved"
        )
    if target.exists() or target.is_symlink():
        raise ConfigError(f"{target} exists already; name another folder")
    if not target.parent.is_dir():
        raise ConfigError(f"{target.parent} is not a folder; make it first, the world will be saved in it")
    rows, runs = read_written(source) if source is not None else ([], [])
    larger = written.added_to(world, released_at)
    counts = {"accepted": len(written.rows), "attempts": written.attempts, "rejected": dict(written.rejected)}
    runs = [*runs, {"kind": written.kind, **written.about, **counts}]
    staging = temporary_sibling(target)
    try:
        larger.save(staging)
        write_file(staging / ROWS, _packed([*rows, *written.provenance()]))
        write_file(staging / RUNS, json.dumps(runs, indent=1, sort_keys=True).encode() + b"\n")
        staging.rename(target)
        sync_folder(target.parent)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return larger


def read_written(folder: str | Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Reads the provenance of a world's generated entries and of the runs; both empty where there are none.

    Raises:
        DataError: If a file is there and is not of this form.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    place = Path(folder)
    if not (place / ROWS).is_file():
        return [], []
    try:
        rows = pq.read_table(place / ROWS).to_pylist()
        runs = json.loads((place / RUNS).read_text(encoding="utf-8"))
        if any(set(row) != set(COLUMNS) for row in rows) or not isinstance(runs, list):
            raise ValueError("its columns are others")
    except (OSError, ValueError, pa.ArrowInvalid) as error:
        raise DataError(f"{place / ROWS} or {place / RUNS} cannot be read: {error}") from error
    return rows, runs


def written_items(world: World, folder: str | Path) -> list[int]:
    """Catalogue positions of the generated items of a world that was saved in a folder."""
    names = {str(row["id"]) for row in read_written(folder)[0] if row["kind"] == "items"}
    return [place for place, name in enumerate(world.catalog.item_id) if name in names]


def _packed(rows: list[dict[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {name: pa.int64() if name in _NUMBERS else pa.string() for name in COLUMNS}
    table = pa.table({name: pa.array([row[name] for row in rows], kind) for name, kind in kinds.items()})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())
