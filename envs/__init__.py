"""Environments: thin shells over the rules."""
