"""Ablation of the time of a step: what a user-step costs when one part of it is left out.

    python -m recsim_llm.benchmarks.speed.ablation

prints the table of docs/performance.md. A variant is the compiled step with a part replaced by one that does nothing;
all variants and the whole step are timed in turns inside one run, and the best of the turns counts, as other programs
only slow. What is left when the parts are taken out one by one does not add up to the whole: the processor does several
things at once.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from recsim_llm.benchmarks.speed.steps import ALL_RULES, SLATE, random_world
from recsim_llm.files import write_file
from recsim_llm.simulator import kernel as step
from recsim_llm.simulator.jit import jit

PARTS: dict[str, tuple[str, ...]] = {
    "writing observations": ("observe",),
    "drift of taste": ("evolve",),
    "public interest": ("note_interest",),
    "signals of consumed items": ("consume",),
    "satiation and memory of items passed over": ("pass_over",),
    "wearing off of satiation, clock": ("pass_time",),
    "freshness, price and memory in attraction": ("attract",),
    "sessions: leaving and coming back": ("leaves",),
    "fetching the next slates and lanes ahead": ("fetch", "fetch_lane"),
}
LANES, TURNS, REPEATS = 1024, 15, 6
FUNCTIONS = ("take_item", "pass_over", "react", "open_lane", "open_block", "close_lane", "step_lanes")


def without(names: tuple[str, ...]) -> Any:
    """The compiled step in which some functions do nothing."""
    scope = dict(vars(step))
    for name in names:
        scope[name] = jit(_idle(step.__dict__[name]))
    for name in FUNCTIONS:
        if name not in names:
            plain = getattr(scope[name], "py_func", scope[name])
            scope[name] = jit(types.FunctionType(plain.__code__, scope, name, plain.__defaults__, plain.__closure__))
    return scope["step_lanes"]


def _idle(function: Any) -> Callable[..., Any]:
    """A function of as many arguments that does nothing; false for a question."""
    count = getattr(function, "py_func", function).__code__.co_argcount
    bodies: Mapping[int, Callable[..., Any]] = {
        2: lambda a, b: None,
        3: lambda a, b, c: False,
        4: lambda a, b, c, d: None,
        5: lambda a, b, c, d, e: None,
        6: lambda a, b, c, d, e, f: None,
        7: lambda a, b, c, d, e, f, g: None,
        8: lambda a, b, c, d, e, f, g, h: None,
    }
    return bodies[count]


def measure(items: int) -> dict[str, float]:
    """Time of a user-step [ns] of the whole step ("all") and without each part, over ``items`` items."""
    with tempfile.TemporaryDirectory() as folder:
        world = str(random_world(items).save(Path(folder) / "world"))
        arguments: dict[str, Any] = {"world": world, "slate_size": SLATE, "rules": ALL_RULES, "threads": 1}
        steps = {"all": step.step_lanes, **{part: without(names) for part, names in PARTS.items()}}
        running = {}
        rng = np.random.Generator(np.random.PCG64(0))
        actions = [rng.integers(0, items, (LANES, SLATE)) for _ in range(8)]
        for part, compiled in steps.items():
            env = gym.make_vec("recsim_llm/News-v0", num_envs=LANES, **arguments)
            env.reset(seed=0)
            simulator = env.unwrapped.core.simulator  # type: ignore[attr-defined]
            simulator._step = compiled
            simulator.step(actions[0])
            running[part] = simulator
        best = dict.fromkeys(running, np.inf)
        for _ in range(TURNS):
            for part, simulator in running.items():
                started = time.perf_counter()
                for _ in range(REPEATS):
                    for action in actions:
                        simulator.step(action)
                passed = (time.perf_counter() - started) / (REPEATS * len(actions) * LANES)
                best[part] = min(best[part], passed * 1e9)
    return {part: round(value, 1) for part, value in best.items()}


def to_markdown(found: Mapping[int, Mapping[str, float]]) -> str:
    """The table of :func:`measure` [ns] by number of items."""
    sizes = tuple(found)
    lines = ["| left out | " + " | ".join(f"{items:,} items [ns]" for items in sizes) + " |", "|:--|--:|--:|"]
    for part in found[sizes[0]]:
        name = "nothing: the whole step" if part == "all" else part
        cells = [f"{found[n][part]:.0f}" + ("" if part == "all" else f" ({found[n][part] - found[n]['all']:+.0f})")
                 for n in sizes]  # fmt: skip
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    """Prints the table, and with ``--out FILE`` writes the numbers as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--out", type=Path, help="file of the numbers, for the page on performance")
    given = parser.parse_args()
    found = {items: measure(items) for items in (1_000, 100_000)}
    if given.out is not None:
        write_file(given.out, (json.dumps(found, indent=1) + "\n").encode())
    sys.stdout.write(to_markdown(found) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
