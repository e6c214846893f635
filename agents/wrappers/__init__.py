"""Wrappers around any agent: re-ranking, exploration, scalarisation."""
