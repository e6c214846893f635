"""Experiments as data, the runner, workers and the results store."""
