"""Readers of people's own CSV and Parquet files of items, users and interactions."""

from __future__ import annotations

from recsim_llm.datasets.interactions import Interactions, read_interactions
from recsim_llm.datasets.items import Items, read_items
from recsim_llm.datasets.readers import read_table
from recsim_llm.datasets.tables import ColumnNames, Limits, Table
from recsim_llm.datasets.users import Users, read_users

__all__ = [
    "ColumnNames",
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
