"""Recommenders fitted to logs: regression, nearest neighbours, matrix factorisation."""
