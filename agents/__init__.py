"""Recommenders: one algorithm per file, one protocol."""
