"""Judges: language models that rate pairs of a persona and an item."""

from __future__ import annotations

from recsim_llm.judges.base import HIGHEST, LOWEST, Judge, Pair, Verdict
from recsim_llm.judges.by_name import load_judge
from recsim_llm.judges.hashing import HashingJudge

__all__ = ["HIGHEST", "LOWEST", "HashingJudge", "Judge", "Pair", "Verdict", "load_judge"]
