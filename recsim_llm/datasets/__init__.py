"""Real data in: people's own CSV and Parquet files of items, users and interactions."""

from __future__ import annotations

from .interactions import Interactions, read_interactions
from .items import Items, read_items
from .table import Limits, Table
from .tables import read_table
from .users import Users, read_users

__all__ = [
    "Interactions",
    "Items",
    "Limits",
    "Table",
    "Users",
    "read_interactions",
    "read_items",
    "read_table",
    "read_users",
]
