"""Reads files of users: personas, statements and groups, all optional."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from recsim_llm.datasets.readers import read_table
from recsim_llm.datasets.tables import ColumnFinder, Limits, statements, unique_identifiers
from recsim_llm.errors import DataError

ALIASES: dict[str, tuple[str, ...]] = {
    "user_id": ("user_id", "userId", "user", "customer_id", "reviewerID", "id"),
    "persona": ("persona", "text", "description", "about", "bio", "profile"),
    "statements": ("statements",),
    "gender": ("gender", "sex"),
    "age_band": ("age_band", "age_group", "age"),
    "region": ("region", "country", "location"),
}


@dataclass(frozen=True, eq=False)
class Users:
    """Users as read from a file, one row for each of U users.

    Attributes:
        user_id: Unique text.
        persona: What they say of themselves, or empty text.
        statements: Their (statement, valence in [-1, 1]) pairs where the file has them, else empty lists.
        gender: As written, or empty text.
        age_band: As written, or empty text.
        region: As written, or empty text.
    """

    user_id: list[str]
    persona: list[str]
    statements: list[list[tuple[str, float]]]
    gender: list[str]
    age_band: list[str]
    region: list[str]

    def __len__(self) -> int:
        return len(self.user_id)

    @classmethod
    def anonymous(cls, user_id: list[str]) -> Users:
        """Users of whom only the identifiers are known."""
        empty = [""] * len(user_id)
        return cls(user_id, empty, [[] for _ in user_id], empty, empty, empty)


def read_users(
    path: str | Path,
    *,
    columns: Mapping[str, str | None] | None = None,
    limits: Limits | None = None,
    separator: str | None = None,
) -> Users:
    """Reads a CSV or Parquet file of users.

    Args:
        path: The file.
        columns: Names of columns by role (the keys of :data:`ALIASES`), where they are not found by themselves.
        limits: Most rows, columns and bytes.
        separator: Separator of a CSV file; None finds it.

    Raises:
        DataError: With file, row and column, at the first thing that is wrong.
    """
    table = read_table(path, limits, separator)
    if not len(table):
        raise DataError(f"{table.path.name}: has a header and no rows; a world needs at least one user")
    found = ColumnFinder(table, ALIASES, columns or {})
    said = found.get("statements")
    return Users(
        user_id=unique_identifiers(table, found.get("user_id")),
        persona=[value.strip() for value in found.text("persona")],
        statements=statements(table, said) if said is not None else [[] for _ in range(len(table))],
        gender=[value.strip() for value in found.text("gender")],
        age_band=[value.strip() for value in found.text("age_band")],
        region=[value.strip() for value in found.text("region")],
    )
