"""Where means by tag are written: the formats and file names of Stable-Baselines3's logger.

Opening a folder that has files of an earlier part of the same run goes on in them.
"""

from __future__ import annotations

import csv
import io
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np

from recsim_llm.errors import require, unknown
from recsim_llm.files import write_file

Values = Mapping[str, Any]
WIDEST = 36
"""Longest name or value in tables for people."""


class Format(Protocol):
    """One kind of output."""

    name: str

    def write(self, values: Values, step: int) -> None:
        """Writes the values of one row; ``step`` is what they are drawn over."""

    def close(self) -> None:
        """Closes what is open."""


class Tables:
    """Tables for people: on standard output, or in log.txt."""

    def __init__(self, stream: TextIO, name: str) -> None:
        self.stream, self.name = stream, name

    def write(self, values: Values, step: int) -> None:
        """One table, tags as headings."""
        rows: list[tuple[str, str]] = []
        heading = ""
        for key, value in sorted(values.items()):
            tag, slash, rest = key.rpartition("/")
            if slash and tag != heading:
                heading = tag
                rows.append((_short(f"{tag}/"), ""))
            shown = f"{value:<8.3g}" if isinstance(value, float) else str(value)
            rows.append((_short(f"   {rest}" if slash else key), _short(shown)))
        if not rows:
            return
        left, right = (max(len(row[side]) for row in rows) for side in (0, 1))
        line = "-" * (left + right + 7)
        lines = [line, *(f"| {key:<{left}} | {value:<{right}} |" for key, value in rows), line]
        self.stream.write("\n".join(lines) + "\n")
        self.stream.flush()

    def close(self) -> None:
        """Closes the file; standard output stays open."""
        if self.stream is not sys.stdout:
            self.stream.close()


class JsonLines:
    """progress.json: one object in each line."""

    name = "json"

    def __init__(self, path: Path) -> None:
        self.stream = path.open("a", encoding="utf-8")

    def write(self, values: Values, step: int) -> None:
        """One line."""
        self.stream.write(json.dumps({key: _plain(value) for key, value in sorted(values.items())}) + "\n")
        self.stream.flush()

    def close(self) -> None:
        """Closes the file."""
        self.stream.close()


class Csv:
    """progress.csv: columns sorted by tag; written anew when a tag comes that was not there."""

    name = "csv"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns: list[str] = []
        self.rows: list[dict[str, str]] = []
        if path.exists():
            with path.open(encoding="utf-8", newline="") as stream:
                reader = csv.DictReader(stream)
                self.columns, self.rows = list(reader.fieldnames or []), list(reader)

    def write(self, values: Values, step: int) -> None:
        """One row."""
        row = {key: str(_plain(value)) for key, value in values.items()}
        self.rows.append(row)
        if set(row) <= set(self.columns):
            with self.path.open("a", encoding="utf-8", newline="") as stream:
                csv.DictWriter(stream, self.columns, lineterminator="\n").writerow(row)
            return
        self.columns = sorted({*self.columns, *row})
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_file(self.path, text.getvalue().encode())

    def close(self) -> None:
        """Nothing is open."""


class Events:
    """Events for TensorBoard; its own package writes them, PyTorch is not needed."""

    name = "tensorboard"

    def __init__(self, folder: Path) -> None:
        module = require("tensorboard.summary.writer.event_file_writer", "agents")
        self._events = require("tensorboard.compat.proto.event_pb2", "agents")
        self._summaries = require("tensorboard.compat.proto.summary_pb2", "agents")
        self.writer = module.EventFileWriter(str(folder))

    def write(self, values: Values, step: int) -> None:
        """One scalar for each number."""
        numbers = {key: value for key, value in values.items() if isinstance(value, int | float | np.number)}
        parts = [self._summaries.Summary.Value(tag=key, simple_value=float(numbers[key])) for key in sorted(numbers)]
        self._add(self._summaries.Summary(value=parts), step)

    def settings(self, values: Values) -> None:
        """Settings as a table in the tab for texts, and in the one for hyperparameters."""
        types, tensors = (require(f"tensorboard.compat.proto.{part}_pb2", "agents") for part in ("types", "tensor"))
        hparams = require("tensorboard.plugins.hparams.summary_v2", "agents")
        table = "|param|value|\n|-|-|\n" + "\n".join(f"|{key}|{value}|" for key, value in values.items())
        content = tensors.TensorProto(dtype=types.DT_STRING, string_val=[table.encode()])
        plugin = self._summaries.SummaryMetadata.PluginData(plugin_name="text")
        about = self._summaries.SummaryMetadata(plugin_data=plugin)
        text = self._summaries.Summary.Value(tag="hparams/text_summary", metadata=about, tensor=content)
        self._add(self._summaries.Summary(value=[text]), 0)
        flat = {
            key: value if isinstance(value, bool | int | float | str) else str(value) for key, value in values.items()
        }
        self._add(hparams.hparams_pb(flat), 0)

    def _add(self, summary: Any, step: int) -> None:
        self.writer.add_event(self._events.Event(wall_time=time.time(), step=step, summary=summary))
        self.writer.flush()

    def close(self) -> None:
        """Closes the file."""
        self.writer.close()


_OPENED: dict[str, Callable[[Path], Format]] = {
    "stdout": lambda folder: Tables(sys.stdout, "stdout"),
    "log": lambda folder: Tables((folder / "log.txt").open("a", encoding="utf-8"), "log"),
    "json": lambda folder: JsonLines(folder / "progress.json"),
    "csv": lambda folder: Csv(folder / "progress.csv"),
    "tensorboard": Events,
}
FORMATS = tuple(_OPENED)


def opened(name: str, folder: Path) -> Format:
    """A format, writing to a folder.

    Raises:
        ConfigError: If there is no format of that name.
        MissingExtraError: If it needs a package that is not installed.
    """
    if name not in _OPENED:
        raise unknown("log format", name, FORMATS)
    return _OPENED[name](folder)


def _short(text: str) -> str:
    return text if len(text) <= WIDEST else text[: WIDEST - 3] + "..."


def _plain(value: Any) -> Any:
    """Numbers of NumPy as Python's, arrays as lists."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
