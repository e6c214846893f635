"""Benchmarks: experiments as data, runner, store, statistics, figures and report."""
