"""Measures of what recommenders do besides reward."""
