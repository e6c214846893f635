"""Reads tables from outside: CSV and Parquet files of items, users and interactions."""
