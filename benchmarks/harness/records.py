"""Reading a results store: rows, headers, and everything that is wrong with the file. Nothing here ever writes.

The file holds one JSON line per record, a header first. Every line carries a checksum, every row the SHA-256 of its
cell and of its experiment. A store that was continued by a larger experiment holds a further header, which names those
that it extends; the last header counts. A line that is cut, altered, or belongs to another experiment is never used; it
is named in :attr:`Contents.problems`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from recsim_llm.benchmarks.harness import codec
from recsim_llm.benchmarks.harness.experiment import Cell, Experiment
from recsim_llm.errors import RecsimError, StoreError

FILE = "results.jsonl"
ROW_SCHEMA = 1
"""Format of rows, and of the header of a store that was never extended."""
SCHEMA = 2
"""Newest format that is read; that of a header that extends another, which older readers cannot make sense of."""
DONE, FAILED, TIMEOUT, KILLED, REFUSED = "done", "failed", "timeout", "killed", "refused"
STATES = (DONE, FAILED, TIMEOUT, KILLED, REFUSED)
MEASURED_TIMES = ("wall_", "cpu_")
"""Prefixes of the result keys that hold wall-clock and processor times; these differ from run to run."""


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
            "schema": ROW_SCHEMA,
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
        result = {k: v for k, v in self.result.items() if not k.startswith(MEASURED_TIMES) and k not in varying}
        return codec.dumps({"cell": self.cell.canonical(), "state": self.state, "result": result})


@dataclass(frozen=True)
class Damage:
    """Bytes of the file that are not a valid record."""

    line: int
    start: int
    end: int
    reason: str


class _StoredRow(NamedTuple):
    """A row, the digest of the experiment that it names, and where it stands."""

    row: Row
    experiment: str
    line: int
    start: int
    end: int


@dataclass
class Contents:
    """What a store holds.

    Attributes:
        header: The last header record; None if there is none.
        headers: All header records, in the order of the file.
        rows: The last valid row of every cell, by key, in the order of the file.
        damages: Places that hold no valid record, in the order of the file.
        spans: Start and end of every valid line [bytes], in the order of the file.
        end: Where the last valid line ends [bytes].
        size: Length of the file [bytes].
        problems: Sentences for people about all that was not as it should be.
        digests: Digests of experiments that valid rows name.
    """

    headers: list[dict[str, Any]] = field(default_factory=list)
    rows: dict[str, Row] = field(default_factory=dict)
    damages: list[Damage] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)
    end: int = 0
    size: int = 0
    problems: list[str] = field(default_factory=list)
    digests: set[str] = field(default_factory=set)

    @property
    def header(self) -> dict[str, Any] | None:
        """The header that counts."""
        return self.headers[-1] if self.headers else None

    @property
    def torn_tail_only(self) -> bool:
        """Whether all damage lies after the last valid line."""
        return all(damage.start >= self.end for damage in self.damages)

    def canonical_rows(self) -> list[str]:
        """All rows without wall-clock values, sorted; equal for equal experiments, however they were run."""
        return sorted(row.canonical() for row in self.rows.values())


def scan(path: Path, known: Collection[str] = ()) -> Contents:
    """Reads a store from end to end, keeping what is valid.

    Args:
        path: The file.
        known: Digests of experiments whose rows are valid even if no header names them.

    Raises:
        StoreError: If the file cannot be read, or was written by a newer version of this package.
    """
    contents, rows = Contents(), list[_StoredRow]()
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                start, contents.size = contents.size, contents.size + len(line)
                try:
                    _take(contents, rows, line, number, path)
                except ValueError as error:
                    contents.damages.append(Damage(number, start, contents.size, str(error)))
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error
    _keep_rows(contents, rows, known, path)
    contents.spans.sort()
    contents.damages.sort(key=lambda damage: damage.start)
    contents.end = contents.spans[-1][1] if contents.spans else 0
    for damage in contents.damages:
        place = "the end" if damage.start >= contents.end else "the middle"
        contents.problems.append(f"{path}, line {damage.line} (at {place} of the file) is not used: {damage.reason}")
    return contents


def _take(contents: Contents, rows: list[_StoredRow], line: bytes, number: int, path: Path) -> None:
    """Adds one line, a header to the contents or a row to the rows; a ValueError says why it is neither."""
    record = codec.unseal(line)
    span = (contents.size - len(line), contents.size)
    schema = record.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise StoreError(
            f"{path}, line {number} has format {schema}, and this version of recsim_llm reads up to {SCHEMA}. "
            "Update recsim_llm, or choose another folder"
        )
    if record.get("kind") == "row":
        row, experiment = _row(record)
        rows.append(_StoredRow(row, experiment, number, *span))
        return
    if record.get("kind") != "header" or not isinstance(record.get("experiment"), dict):
        raise ValueError(f"its kind, {record.get('kind')!r:.40}, is not known")
    if record.get("digest") != codec.digest(record["experiment"]):
        raise ValueError("its digest is not that of its experiment")
    if contents.header is not None and contents.header["digest"] not in extended_by(record):
        raise ValueError("it is a second header, and does not extend the one before it")
    contents.headers.append(record)
    contents.spans.append(span)


def _row(record: Mapping[str, Any]) -> tuple[Row, str]:
    """The row in a record and the digest of its experiment."""
    try:
        row = Row(Cell.from_mapping(record["cell"]), record["state"], record["result"])
        key, experiment = row.key, record["experiment"]
    except (KeyError, TypeError, ValueError, RecsimError) as error:
        raise ValueError(f"it is not a complete row ({type(error).__name__}: {error})") from error
    if key != record.get("key"):
        raise ValueError("its key is not that of its cell")
    if row.state not in STATES or not isinstance(row.result, dict) or not isinstance(experiment, str):
        raise ValueError(f"its state, {row.state!r:.40}, or its result is not valid")
    return row, experiment


def _keep_rows(contents: Contents, rows: list[_StoredRow], known: Collection[str], path: Path) -> None:
    """Keeps the rows of the experiment in the last header and of those that it extends; all, if there is no header."""
    valid = {*known, *(digest for header in contents.headers for digest in (header["digest"], *extended_by(header)))}
    for stored in rows:
        if contents.headers and stored.experiment not in valid:
            reason = "it belongs to another experiment"
            contents.damages.append(Damage(stored.line, stored.start, stored.end, reason))
            continue
        before = contents.rows.pop(stored.row.key, None)
        if before is not None and before.state == DONE:
            label = stored.row.cell.label
            contents.problems.append(f"{path}, line {stored.line} repeats the row of {label}; the last one counts")
        contents.rows[stored.row.key] = stored.row
        contents.digests.add(stored.experiment)
        contents.spans.append((stored.start, stored.end))


def extended_by(header: Mapping[str, Any]) -> list[str]:
    """Digests of the experiments that the one in a header extends."""
    found = header.get("extends")
    return [digest for digest in found if isinstance(digest, str)] if isinstance(found, list) else []


def stored_cells(header: Mapping[str, Any]) -> set[str] | None:
    """Keys of all cells of the experiment in a header; None if this version of the package cannot tell."""
    worlds = header["experiment"].get("worlds", {})
    try:
        experiment = Experiment.from_json(codec.dumps(header["definition"]))
        if codec.digest(experiment.canonical(worlds)) != header["digest"]:
            return None
        return {cell.key for cell in experiment.cells(worlds)}
    except (KeyError, TypeError, ValueError, AttributeError, StoreError):
        return None


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
