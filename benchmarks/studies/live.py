"""A judge asked at every step against the world distilled from it: agreement, speed, cost.

    python -m recsim_llm.benchmarks.studies.live --out benchmarks/stored/live

Both run on the same pairs of user and item, a small cut of a built-in world: the judge must rate every one of them. The
head is distilled from a part; what it says of the others was never seen. The same slates are then shown to the same
users with the same luck (common random numbers) with judge="live" and in the distilled world. Ratings are kept in the
folder as they come; a run that is interrupted goes on.

Speed of the live judge is measured while no pair was asked yet. Rates are of processor time, so that other programs on
the machine slow neither; those of the clock stand beside them. Clicks are compared apart on slates of pairs that the
head was fitted to and of pairs that it never saw. Shared luck alone makes clicks agree: the floor is the distilled
world with its users' tastes dealt out anew.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

import recsim_llm
from recsim_llm.benchmarks.studies.live_measure import Clicks, Step, agreement, correlations, cost, tokens_of
from recsim_llm.benchmarks.studies.live_report import report
from recsim_llm.errors import RecsimError
from recsim_llm.files import write_file
from recsim_llm.fitting.distillation import distill, distilled_world
from recsim_llm.judges import Judge
from recsim_llm.judges.judge_utilities import forget, judge_of
from recsim_llm.judges.pairs import pairs_of, sample_pairs
from recsim_llm.judges.ratings import rate_all
from recsim_llm.worlds.world import World, load_world

Say = Callable[[str], None]
Slates = NDArray[np.int64]

ENV = "recsim_llm/Music-v0"
COLD = "cold.json"
PACKAGES = ("numpy", "numba", "gymnasium", "torch", "transformers")


@dataclass(frozen=True)
class Study:
    """What is run.

    Attributes:
        judge: Name, folder or address of the judge.
        world: Built-in world that is cut.
        users: Users of the cut, of the training split.
        items: Items of the cut.
        share: Share of the pairs that the head is distilled from.
        slots: K.
        lanes: Lanes of the comparison.
        steps: Its steps.
        cold: Numbers of lanes with which the live judge is timed.
        fast: Lanes with which the distilled world is timed.
        price: Price of a million tokens of a server, in whatever currency.
        seed: Seed of cut, slates and users.
    """

    judge: str = "smollm2"
    world: str = "music"
    users: int = 32
    items: int = 64
    share: float = 0.5
    slots: int = 4
    lanes: int = 256
    steps: int = 40
    cold: tuple[int, ...] = (1, 8)
    fast: int = 1024
    price: float = 0.0
    seed: int = 0


def small_world(world: World, users: int, items: int, seed: int) -> World:
    """Some training users and some items of a world; all items are on the shelf from the start."""
    rng = np.random.Generator(np.random.PCG64(seed))
    people = np.sort(rng.choice(world.population.split("train"), users, replace=False))
    things = np.sort(rng.choice(len(world.catalog), items, replace=False))
    catalog = _rows(world.catalog, things, released_at=np.full(items, -1.0, np.float32), provider_budget=np.zeros(0))
    return dataclasses.replace(
        world, name=f"{world.name}-{users}x{items}", catalog=catalog, population=_rows(world.population, people),
        metrics={}, item_images=None,
    )  # fmt: skip


def _rows(table: Any, rows: NDArray[np.integer], **changed: Any) -> Any:
    """Some rows of a catalogue or population."""
    parts: dict[str, Any] = {}
    for field in dataclasses.fields(table):
        column = getattr(table, field.name)
        if not field.init or field.name in changed or not isinstance(column, list | np.ndarray):
            continue
        parts[field.name] = column[rows] if isinstance(column, np.ndarray) else [column[row] for row in rows]
    return dataclasses.replace(table, **{**parts, **changed})


def study(plan: Study, out: Path, say: Say = print) -> dict[str, Any]:
    """Runs everything and writes results.json and report.md."""
    out.mkdir(parents=True, exist_ok=True)
    judge = judge_of(plan.judge, {})
    world = small_world(load_world(plan.world), plan.users, plan.items, plan.seed)
    store = str(out / "ratings")
    with tempfile.TemporaryDirectory() as folder:
        place = str(world.save(Path(folder) / "cut"))
        live = _cold(plan, judge, world, place, out / COLD, say)
        made, inside = _distilled(plan, judge, world, store, say)
        ratings = _all_ratings(judge, world, store, say)
        home = str(made.save(Path(folder) / "distilled"))
        dealt = str(_dealt(made, plan.seed).save(Path(folder) / "dealt"))
        say("the same slates, live and distilled")
        clicks, facts = compare(plan, judge, home, store, {"distilled": home, "tastes dealt anew": dealt}, inside)
        fast = steps_per_second(home, plan.fast, plan.slots)
    best = {clock: max(row[clock] for row in live.values()) for clock in fast}
    ratio = {clock: fast[clock] / best[clock] for clock in fast}
    found = {
        "settings": dataclasses.asdict(plan),
        "machine": _machine(),
        "judge": {"name": judge.name, "digest": judge.digest},
        "live": facts,
        "clicks": clicks,
        "utilities": correlations(made, ratings, inside),
        "distillation": {key: value for key, value in made.metrics["distilled"].items() if key != "from_hash"},
        "speed": {"live_cold": live, "live_best": best, "distilled": fast, "ratio": ratio},
        "cost": cost(
            best["processor"], fast["processor"], plan.slots, int(inside.sum()), tokens_of(judge, world), plan.price
        ),
    }
    say(f"a distilled world steps {ratio['processor']:,.0f} times as fast")
    write_file(out / "results.json", json.dumps(found, indent=1, sort_keys=True).encode() + b"\n")
    write_file(out / "report.md", report(found).encode())
    return found


def _live(place: str, lanes: int, slots: int, judge: Judge, **options: Any) -> Any:
    return gym.make_vec(
        ENV, num_envs=lanes, world=place, slate_size=slots, judge="live", judge_model=judge, judge_options=options,
        threads=1, autoreset_mode=AutoresetMode.DISABLED,
    )  # fmt: skip


def _cold(plan: Study, judge: Judge, world: World, place: str, kept: Path, say: Say) -> dict[str, dict[str, float]]:
    """User-steps per second of the live judge by lanes, of which no pair was ever asked; kept, as that is so once."""
    if kept.is_file():
        stored: dict[str, dict[str, float]] = json.loads(kept.read_text())
        return stored
    judge.rate(pairs_of(world, [0], [0])[:1])  # what all prompts begin with, and code that loads on use
    rates: dict[str, dict[str, float]] = {}
    forget()
    for number, lanes in enumerate(plan.cold):
        first = number * plan.slots
        env = _live(place, lanes, plan.slots, judge, line=[0.0, 1.0])
        env.reset(seed=plan.seed, options={"user": [1 + lane for lane in range(lanes)]})
        before = env.unwrapped.judging["asked"]
        started = _now()
        env.step(_shaped(np.tile(np.arange(first, first + plan.slots), (lanes, 1))))
        rates[str(lanes)] = {clock: lanes / (now - started[clock]) for clock, now in _now().items()}
        asked = env.unwrapped.judging["asked"] - before
        say(f"live, {lanes} lanes, {asked} new pairs: {rates[str(lanes)]['processor']:.3g} user-steps/s of processor")
        env.close()
    write_file(kept, json.dumps(rates).encode())
    return rates


def _now() -> dict[str, float]:
    """What the clocks show [s]."""
    return {"processor": time.process_time(), "clock": time.perf_counter()}


def _shaped(slates: Slates) -> Slates:
    return slates[:, 0] if slates.shape[1] == 1 else slates


def _distilled(plan: Study, judge: Judge, world: World, store: str, say: Say) -> tuple[World, NDArray[np.bool_]]:
    """The distilled world, and which pairs [U, I] it was made from."""
    each = round(plan.share * plan.items)
    count = each * plan.users
    made = distill(world, judge, count, seed=plan.seed, per_user=each, sizes=(count // 2,), folder=store, say=say)
    users, items = sample_pairs(world, count, seed=plan.seed, per_user=each)
    inside = np.zeros((plan.users, plan.items), np.bool_)
    inside[users, items] = True
    return distilled_world(world, made), inside


def _all_ratings(judge: Judge, world: World, store: str, say: Say) -> NDArray[np.float64]:
    """What the judge says of every pair, [U, I]; NaN where it is missing."""
    shape = (len(world.population), len(world.catalog))
    users, items = (part.ravel() for part in np.indices(shape))
    verdicts = rate_all(judge, pairs_of(world, users, items), store, say)
    return np.array([verdict.rating for verdict in verdicts], np.float64).reshape(shape)


def _dealt(world: World, seed: int) -> World:
    """The same world with every user's taste and bias given to another: as much to like, but by the wrong people."""
    people = world.population
    circle = np.random.Generator(np.random.PCG64(seed)).permutation(len(people))
    of = np.empty_like(circle)
    of[circle] = np.roll(circle, 1)  # in a circle, so that nobody keeps her own
    changed = dataclasses.replace(people, taste=people.taste[of], bias=people.bias[of])
    return dataclasses.replace(world, name=f"{world.name}-dealt", population=changed)


def compare(
    plan: Study, judge: Judge, home: str, store: str, others: dict[str, str], inside: NDArray[np.bool_]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Shows the same slates to the same users with the same luck; whose clicks agree with the live judge's?

    Half of the lanes see pairs that the head was fitted to (``inside`` [U, I]), the others pairs that it never saw.
    Each world runs on its own, and the distilled one also from the live one's state at every step.
    """
    live = _live(home, plan.lanes, plan.slots, judge, store=store)
    settings: dict[str, Any] = {"slate_size": plan.slots, "threads": 1, "autoreset_mode": AutoresetMode.DISABLED}
    named = {**{f"{name}, on its own": place for name, place in others.items()}, "distilled, same state": home}
    worlds = {name: gym.make_vec(ENV, num_envs=plan.lanes, world=place, **settings) for name, place in named.items()}
    rng = np.random.Generator(np.random.PCG64(plan.seed))
    users, fitted = np.arange(plan.lanes) // 2 % plan.users, np.arange(plan.lanes) % 2 == 0
    for env in (live, *worlds.values()):
        env.reset(seed=plan.seed, options={"user": users.tolist()})
    others_last = inside[users] != fitted[:, None]  # [B, I]
    seen: dict[str, list[Step]] = {name: [] for name in worlds}
    for _ in range(plan.steps):
        slates = _shaped(np.argsort(rng.random(others_last.shape) + others_last, 1)[:, : plan.slots])
        before = live.get_state()
        theirs = _clicks(live, slates)
        for name, env in worlds.items():
            if name.endswith("state"):
                env.set_state(before)  # type: ignore[attr-defined]
            seen[name].append(Step(theirs, _clicks(env, slates)))
    facts: dict[str, Any] = live.unwrapped.judging
    which = {"fitted": fitted, "held_out": ~fitted}
    measured = {
        name: {part: agreement(steps, plan.slots, users, lanes) for part, lanes in which.items()}
        for name, steps in seen.items()
    }
    return measured, facts


def _clicks(env: Any, slates: Slates) -> Clicks:
    """The slot clicked by each lane, K for none, and whether it was in an episode."""
    there = ~env.unwrapped.core.simulator.state.lane["ended"]
    clicks = env.step(slates)[4]["click"] > 0
    return Clicks(np.where(clicks.any(1), clicks.argmax(1), clicks.shape[1]), there)


def steps_per_second(place: str, lanes: int, slots: int, seconds: float = 2.0) -> dict[str, float]:
    """User-steps per second of a world on one thread, over all turns."""
    env = gym.make_vec(ENV, num_envs=lanes, world=place, slate_size=slots, threads=1, copy=False)
    items = env.unwrapped.core.items  # type: ignore[attr-defined]
    slates = np.argsort(np.random.Generator(np.random.PCG64(0)).random((lanes, items)), 1)[:, :slots]
    env.reset(seed=0)
    env.step(_shaped(slates))
    steps, started = 0, _now()
    while (now := _now())["processor"] - started["processor"] < seconds:
        env.step(_shaped(slates))
        steps += lanes
    env.close()
    return {clock: steps / (now[clock] - started[clock]) for clock in started}


def _machine() -> dict[str, Any]:
    versions = {"recsim_llm": recsim_llm.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"processor": platform.machine(), "cores": os.cpu_count(), "versions": versions}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m recsim_llm.benchmarks.studies.live", description=str(__doc__).split("\n")[0]
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the results; a run in it is continued")
    parser.add_argument("--judge", default="smollm2", help="name, folder or address of the judge")
    parser.add_argument("--users", type=int, default=Study.users, help="users of the cut")
    parser.add_argument("--items", type=int, default=Study.items, help="items of the cut")
    parser.add_argument("--price", type=float, default=0.0, help="price of a million tokens, for a priced server")
    parser.add_argument("--small", action="store_true", help="a small run, kept nowhere")
    options = parser.parse_args(arguments)
    try:
        if options.small:
            from recsim_llm.benchmarks.tour.live import small

            small(print)
        else:
            study(Study(options.judge, users=options.users, items=options.items, price=options.price), options.out)
    except RecsimError as error:
        parser.exit(2, f"error: {error}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
