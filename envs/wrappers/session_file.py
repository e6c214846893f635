"""The file that recorded sessions are written to: rows under a temporary name, whole under its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.envs.world_core import WorldCore
from recsim_llm.errors import ConfigError
from recsim_llm.files import sync_folder, temporary_sibling
from recsim_llm.simulator import SIGNALS

STARS = "stars_given"
"""Column of ratings: under a name that no loader takes for a rating of every row, as most rows have none."""

SUFFIXES = (".parquet", ".csv")
SECONDS_PER_DAY = 86400.0
WHOLE = ("episode", "session", "step", "slot")


class Rows:
    """Collects what is shown and writes it in groups.

    Args:
        core: Whose users and items.
        path: Where the file will be.
        propensities: Whether there is a column for them.
        row_group: Rows that are written at once.
        overwrite: Replace a file that is there.

    Raises:
        ConfigError: If the path has another suffix or is taken, or rewards are vectors.
    """

    def __init__(
        self, core: WorldCore, path: str | Path, *, propensities: bool, row_group: int, overwrite: bool
    ) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() not in SUFFIXES:
            raise ConfigError(f"sessions are recorded to {' or '.join(SUFFIXES)}, got {self.path.name!r}")
        if self.path.exists() and not overwrite:
            raise ConfigError(f"{self.path} is there already; name another file, or pass overwrite=True")
        if not self.path.parent.is_dir():
            raise ConfigError(f"there is no folder {self.path.parent} to record sessions in; make it first")
        if core.variant.delay > 0:
            raise ConfigError(
                f"feedback comes {core.variant.delay} steps late here, so that a row would pair what was done with "
                "another step's slate; record an environment without delay"
            )
        if row_group < 1:
            raise ConfigError(f"row_group must be at least 1 row, got {row_group}")
        self._core, self._with_propensities, self._row_group = core, propensities, row_group
        self._writer: _Writer | None = _Writer(self.path, self._schema())
        self._users = np.array(core.world.population.user_id, dtype=object)
        self._items = np.array(core.world.catalog.item_id, dtype=object)
        self._held: list[dict[str, NDArray[Any]]] = []
        self._count = 0
        self._before = {
            "user_id": np.zeros(core.lanes, np.int64), "session": np.zeros(core.lanes, np.int64),
            "day": np.zeros(core.lanes),
        }  # fmt: skip
        self._episode, self._step = np.zeros((2, core.lanes), np.int64)
        self._proposed: NDArray[np.float64] | None = None

    def _schema(self) -> Any:
        import pyarrow as pa

        fields = [("user_id", pa.string()), ("episode", pa.int32()), ("session", pa.int32()), ("step", pa.int32())]
        fields += [("day", pa.float64()), ("timestamp", pa.int64()), ("slot", pa.int32()), ("item_id", pa.string())]
        fields += [(_column(name), pa.float32() if name == "dwell" else pa.int8()) for name in SIGNALS]
        fields += [("reward", pa.float32()), ("step_reward", pa.float64())]
        return pa.schema(fields + [("propensity", pa.float64())] * self._with_propensities)

    def begin(self, infos: dict[str, Any], mask: NDArray[np.bool_] | None = None) -> None:
        """Notes who is where [B] before the next step, in the lanes of the mask."""
        lanes = slice(None) if mask is None else mask
        for name, kept in self._before.items():
            kept[lanes] = infos[name][lanes]

    def propose(self, propensities: NDArray[np.float64]) -> None:
        """Propensities [B, K] of the next slates.

        Raises:
            ConfigError: If there is no column for them, or they are not in (0, 1] or of another shape.
        """
        expected = (self._core.lanes, self._core.slate_size)
        if not self._with_propensities:
            raise ConfigError("there is no column of propensities; make the wrapper with propensities=True")
        if propensities.shape != expected or not ((propensities > 0) & (propensities <= 1)).all():
            raise ConfigError(f"propensities must lie in (0, 1] and have shape {expected}, got {propensities.shape}")
        self._proposed = propensities

    def look(self) -> None:
        """Notes episode and step [B] that the slate is shown in."""
        lane = self._core.simulator.state.lane
        self._episode, self._step = lane["episode"].astype(np.int64), lane["step"] + 1

    def add(self, valid: NDArray[np.bool_], rewards: NDArray[Any], infos: dict[str, Any]) -> None:
        """Rows of a step: rewards [B] and infos [B, ...], for lanes that took it and users who did not opt out."""
        if rewards.ndim > 1:
            raise ConfigError("sessions are recorded with one number as reward; put VectorReward outside")
        slates = infos["slate"]
        lane, slot = np.nonzero((slates >= 0) & (valid & (self._before["user_id"] >= 0))[:, None])
        day = self._before["day"][lane]
        columns: dict[str, NDArray[Any]] = {
            "user_id": self._users[self._before["user_id"][lane]], "episode": self._episode[lane],
            "session": self._before["session"][lane], "step": self._step[lane], "day": day,
            "timestamp": np.rint(day * SECONDS_PER_DAY).astype(np.int64), "slot": slot,
            "item_id": self._items[slates[lane, slot]],
            **{_column(name): infos[name][lane, slot] for name in SIGNALS},
            "reward": infos["slot_reward"][lane, slot], "step_reward": rewards[lane],
        }  # fmt: skip
        if self._with_propensities:
            told = self._proposed if self._proposed is not None else np.full(slates.shape, np.nan)
            columns["propensity"] = told[lane, slot]
        self._proposed = None
        self._held.append(columns)
        self._count += len(lane)
        if self._count >= self._row_group:
            self._flush()

    def _flush(self) -> None:
        if self._writer is not None and self._held:
            joined = {name: np.concatenate([part[name] for part in self._held]) for name in self._held[0]}
            self._writer.write(joined)
        self._held, self._count = [], 0

    def close(self) -> None:
        """Writes what is left and gives the file its name; a second time nothing."""
        if self._writer is not None:
            self._flush()
            self._writer.close()
            self._writer = None


class _Writer:
    """A Parquet or CSV file under a temporary name."""

    def __init__(self, path: Path, schema: Any) -> None:
        import pyarrow.csv
        import pyarrow.parquet

        self._path, self._schema = path, schema
        self._temporary = temporary_sibling(path)
        if path.suffix.lower() == ".csv":
            self._file: Any = pyarrow.csv.CSVWriter(self._temporary, schema)
        else:
            self._file = pyarrow.parquet.ParquetWriter(self._temporary, schema)

    def write(self, columns: dict[str, NDArray[Any]]) -> None:
        """One row group."""
        import pyarrow as pa

        arrays = [
            pa.array(columns[field.name], from_pandas=True).cast(field.type) for field in self._schema
        ]  # NaN is missing
        self._file.write_table(pa.Table.from_arrays(arrays, schema=self._schema))

    def close(self) -> None:
        """The whole file under its name."""
        self._file.close()
        descriptor = os.open(self._temporary, os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(self._temporary, self._path)
        sync_folder(self._path.parent)


def _column(signal: str) -> str:
    return STARS if signal == "rating" else signal
