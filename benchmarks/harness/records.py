"""Reading a results store: rows, header, and everything that is wrong with the file. Nothing here ever writes.

The file holds one JSON line per record, a header first. Every line carries a checksum, every row the SHA-256 of its
cell and of its experiment. A line that is cut, altered, or belongs to another experiment is never used; it is named
in :attr:`Contents.problems`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recsim_llm.benchmarks.harness import codec
from recsim_llm.benchmarks.harness.experiment import Cell
from recsim_llm.errors import RecsimError, StoreError

FILE = "results.jsonl"
SCHEMA = 1
DONE, FAILED, TIMEOUT, KILLED, REFUSED = "done", "failed", "timeout", "killed", "refused"
STATES = (DONE, FAILED, TIMEOUT, KILLED, REFUSED)
WALL = "wall_"
"""Prefix of the result keys that hold wall-clock measurements; these differ from run to run."""


@dataclass(frozen=True)
class Row:
    """What came out of one cell.

    Attributes:
        cell: The cell.
        state: "done", "failed" (an exception), "timeout", "killed" (its process died) or "refused" (the agent cannot
            work in the scenario, and says so).
        result: What the cell function returned, or ``error_type``, ``error`` and ``last_lines`` of a failure.
    """

    cell: Cell
    state: str
    result: Mapping[str, Any]

    @property
    def key(self) -> str:
        """The key of the cell."""
        return self.cell.key

    def record(self, experiment: str) -> dict[str, Any]:
        """The row as it is stored, `experiment` being the digest of the experiment."""
        return {
            "schema": SCHEMA,
            "kind": "row",
            "key": self.key,
            "experiment": experiment,
            "state": self.state,
            "cell": codec.loads(self.cell.to_json()),
            "result": self.result,
        }

    def canonical(self) -> str:
        """The row as one line without what differs from run to run."""
        varying = ("last_lines",)
        result = {k: v for k, v in self.result.items() if not k.startswith(WALL) and k not in varying}
        return codec.dumps({"cell": self.cell.canonical(), "state": self.state, "result": result})


@dataclass(frozen=True)
class Damage:
    """Bytes of the file that are not a valid record."""

    line: int
    start: int
    end: int
    reason: str


@dataclass
class Contents:
    """What a store holds.

    Attributes:
        header: The header record; None if there is none.
        rows: The last valid row of every cell, by key, in the order of the file.
        damages: Places that hold no valid record.
        spans: Start and end of every valid line [bytes], the header's left out.
        end: Where the last valid line ends [bytes].
        size: Length of the file [bytes].
        problems: Sentences for people about all that was not as it should be.
        digests: Digests of experiments that valid rows name.
    """

    header: dict[str, Any] | None = None
    rows: dict[str, Row] = field(default_factory=dict)
    damages: list[Damage] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)
    end: int = 0
    size: int = 0
    problems: list[str] = field(default_factory=list)
    digests: set[str] = field(default_factory=set)

    @property
    def torn_tail_only(self) -> bool:
        """Whether all damage lies after the last valid line."""
        return all(damage.start >= self.end for damage in self.damages)

    def canonical_rows(self) -> list[str]:
        """All rows without wall-clock values, sorted; equal for equal experiments, however they were run."""
        return sorted(row.canonical() for row in self.rows.values())


def scan(path: Path) -> Contents:
    """Reads a store from end to end, keeping what is valid.

    Raises:
        StoreError: If the file cannot be read, or was written by a newer version of this package.
    """
    contents = Contents()
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                start, contents.size = contents.size, contents.size + len(line)
                headless = contents.header is None
                reason = _take(contents, line, number, path)
                if reason:
                    contents.damages.append(Damage(number, start, contents.size, reason))
                    continue
                contents.end = contents.size
                if not headless or contents.header is None:
                    contents.spans.append((start, contents.size))
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error
    for damage in contents.damages:
        place = "the end" if damage.start >= contents.end else "the middle"
        contents.problems.append(f"{path}, line {damage.line} (at {place} of the file) is not used: {damage.reason}")
    return contents


def _take(contents: Contents, line: bytes, number: int, path: Path) -> str:
    """Adds one line to the contents; returns why it is not valid, or nothing."""
    try:
        record = codec.unseal(line)
    except ValueError as error:
        return str(error)
    schema = record.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise StoreError(
            f"{path}, line {number} has format {schema}, and this version of recsim_llm reads up to {SCHEMA}. "
            "Update recsim_llm, or choose another folder"
        )
    if record.get("kind") == "header" and isinstance(record.get("experiment"), dict):
        if contents.header is not None:
            return "it is a second header"
        if record.get("digest") != codec.digest(record["experiment"]):
            return "its digest is not that of its experiment"
        contents.header = record
        return ""
    if record.get("kind") != "row":
        return f"its kind, {record.get('kind')!r:.40}, is not known"
    return _take_row(contents, record, number, path)


def _take_row(contents: Contents, record: dict[str, Any], number: int, path: Path) -> str:
    try:
        row = Row(Cell.from_mapping(record["cell"]), record["state"], record["result"])
        key, experiment = row.key, record["experiment"]
    except (KeyError, TypeError, ValueError, RecsimError) as error:
        return f"it is not a complete row ({type(error).__name__}: {error})"
    if key != record.get("key"):
        return "its key is not that of its cell"
    if row.state not in STATES or not isinstance(row.result, dict) or not isinstance(experiment, str):
        return f"its state, {row.state!r:.40}, or its result is not valid"
    if contents.header is not None and experiment != contents.header["digest"]:
        return "it belongs to another experiment"
    before = contents.rows.pop(key, None)
    if before is not None and before.state == DONE:
        contents.problems.append(f"{path}, line {number} repeats the row of {row.cell.label}; the last one counts")
    contents.rows[key] = row
    contents.digests.add(experiment)
    return ""


def read(folder: Path | str) -> Contents:
    """Reads the store in a folder, repairing nothing.

    Raises:
        StoreError: If there is none, or its header is missing.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        raise StoreError(
            f"{folder} holds no results ({FILE} is not there). `recsim-llm bench --out {folder}` makes some"
        )
    contents = scan(path)
    if contents.header is None:
        raise StoreError(f"{path} has no valid header. The command that made it, given again, mends that")
    return contents


def difference(stored: Any, asked: Any, place: str = "") -> list[str]:
    """What differs between two configurations, one line per place."""
    if isinstance(stored, dict) and isinstance(asked, dict):
        lines: list[str] = []
        for name in sorted({*stored, *asked}):
            inner = f"{place}.{name}" if place else name
            if name not in asked:
                lines.append(f"  {inner}: {_short(stored[name])} (stored), not given (asked for)")
            elif name not in stored:
                lines.append(f"  {inner}: not given (stored), {_short(asked[name])} (asked for)")
            else:
                lines += difference(stored[name], asked[name], inner)
        return lines
    if codec.dumps(stored) == codec.dumps(asked):
        return []
    return [f"  {place}: {_short(stored)} (stored), {_short(asked)} (asked for)"]


def _short(value: Any) -> str:
    text = codec.dumps(value)
    return text if len(text) <= 200 else f"{text[:197]}..."
