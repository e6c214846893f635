"""Judges: language models that rate pairs of a persona and an item."""

from __future__ import annotations

from .base import HIGHEST, LOWEST, Judge, Pair, Verdict
from .hashing import HashingJudge
from .models import load_judge

__all__ = ["HIGHEST", "LOWEST", "HashingJudge", "Judge", "Pair", "Verdict", "load_judge"]
