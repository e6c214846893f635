"""What packages export can be imported, is imported on first use, and nothing else answers."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from types import ModuleType

import pytest

PACKAGES = ("recsim_llm", *(f"recsim_llm.{name}" for name in ("datasets", "fitting", "metrics", "synthesis", "worlds")))


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_there_and_no_other(package: str) -> None:
    module = importlib.import_module(package)
    for name in module.__all__:
        assert not isinstance(getattr(module, name), ModuleType), name
    with pytest.raises(AttributeError, match="no attribute 'wolrd'"):
        _ = module.wolrd


def test_worlds_are_built_by_modules_that_loading_one_does_not_import() -> None:
    code = (
        "import json, sys, recsim_llm; recsim_llm.load_world('music'); "
        "print(json.dumps([name for name in sys.modules if name.startswith('recsim_llm')]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    loaded = set(json.loads(done.stdout))
    assert "recsim_llm.worlds.world" in loaded
    assert not {"recsim_llm.worlds.build", "recsim_llm.datasets", "recsim_llm.encoders"} & loaded
