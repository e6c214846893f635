"""Temporal-difference control: tabular, linear and deep."""
