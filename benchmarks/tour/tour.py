"""Tour of all uses of language and image models at small size, with the real models: minutes, no network.

    recsim-llm tour

Each part is what a study of its own does at full size, or what a command does on a whole world. A part whose packages
are not installed is passed over, and says what would install them.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from recsim_llm.errors import MissingExtraError, unknown

Say = Callable[[str], None]
DONE, SKIPPED, FAILED = "done", "skipped", "failed"

PARTS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "encoders": ("tour.encoders", "text and image encoders, int8, fusion, the cache"),
        "judges": ("tour.judges", "a causal language model rates personas and items"),
        "server": ("tour.server", "a judge behind an OpenAI-compatible server; ratings that survive interruption"),
        "distillation": ("tour.distillation", "a judge's ratings become a preference model"),
        "live": ("tour.live", "the judge asked at every step, against the distilled world"),
        "tuning": ("tour.tuning", "LoRA on the text encoder, from interactions"),
        "crossmodal": ("tour.crossmodal", "recommenders on texts and images"),
        "writers": ("tour.writers", "a language model writes items and personas; they enter a running environment"),
        "swap": ("studies.swap", "the order of agents under another encoder"),
    }
)
"""Module of :mod:`recsim_llm.benchmarks` and one line, by part; each module has a function ``small(say)``."""


@dataclass(frozen=True)
class Stop:
    """One part of the tour.

    Attributes:
        part: Its name.
        state: "done", "skipped" or "failed".
        seconds: Time it took [s].
        found: What it measured.
        why: Why it was skipped or failed.
    """

    part: str
    state: str
    seconds: float
    found: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""


def tour(parts: Sequence[str] = (), say: Say = print) -> list[Stop]:
    """Runs parts, one after another; one that fails does not keep the others from running.

    Args:
        parts: Names of parts; all of them where these are none.
        say: Is told what is being done.

    Raises:
        ConfigError: If a name is none of :data:`PARTS`.
    """
    for name in parts:
        if name not in PARTS:
            raise unknown("part of the tour", name, PARTS)
    return [_stop(name, say) for name in parts or PARTS]


def _stop(name: str, say: Say) -> Stop:
    module, line = PARTS[name]
    say(f"{name}: {line}")
    start = time.perf_counter()
    try:
        found = small_of(module)(lambda text: say(f"  {text}"))
    except MissingExtraError as error:
        return Stop(name, SKIPPED, time.perf_counter() - start, why=str(error))
    except Exception as error:  # a tour goes on; the exit status tells
        return Stop(name, FAILED, time.perf_counter() - start, why=f"{type(error).__name__}: {error}")
    return Stop(name, DONE, time.perf_counter() - start, found)


def small_of(module: str) -> Callable[[Say], Mapping[str, Any]]:
    """The function that runs a part at small size."""
    found: Callable[[Say], Mapping[str, Any]] = importlib.import_module(f"recsim_llm.benchmarks.{module}").small
    return found
