"""Scores, leaderboards, figures and reports from stored results."""
