"""Fitting preference models to ratings, clicks and judges, and measuring the fit on held-out data."""
