"""Cache folder: compiled code, encodings, converted models, ratings."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def home() -> Path:
    """The cache folder: the environment variable RECSIM_LLM_HOME, else the user's cache folder of the system."""
    named = os.environ.get("RECSIM_LLM_HOME")
    return Path(named).expanduser() if named else Path(platformdirs.user_cache_dir("recsim-llm"))
