"""Judges by name."""

from __future__ import annotations

from typing import Any

from recsim_llm.errors import ConfigError

from .base import Judge
from .hashing import HashingJudge


def load_judge(name: str = "smollm2", **options: Any) -> Judge:
    """Loads a judge.

    Args:
        name: ``"hashing"``.
        **options: Settings of the judge.

    Raises:
        ConfigError: If there is no such judge.
    """
    if name == "hashing":
        return HashingJudge(**options)
    raise ConfigError(f"no judge {name!r}")
