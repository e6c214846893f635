"""Rewards as vectors, in MO-Gymnasium's form."""
