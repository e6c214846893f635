"""Speed and scale: memory grows in proportion to the world, and the shortcuts of the compiled step change nothing."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from recsim_llm.benchmarks.speed.agents import SLATES, measure_agents
from recsim_llm.benchmarks.speed.scale import large_world, run
from recsim_llm.benchmarks.speed.steps import random_world
from recsim_llm.simulator import Rules
from recsim_llm.simulator.intrinsics import CHUNK, dot_of_codes
from recsim_llm.simulator.jit import jit
from recsim_llm.simulator.simulator import Simulator
from recsim_llm.simulator.slates import MARKS
from recsim_llm.simulator.state import ROWS_AT_ONCE, STEPS, Tables, tables
from recsim_llm.worlds.catalog import checked_array
from recsim_llm.worlds.world import World

MEGABYTE = 10**6
SLACK = 40 * MEGABYTE
"""For the blocks that are turned into integers, whatever the size of the world."""


@jit
def products(left, right, out):  # type: ignore[no-untyped-def]
    for n in range(out.shape[0]):
        out[n] = dot_of_codes(left[n], right[n])


def held(table: Tables) -> int:
    """Bytes of everything that grows with the world."""
    return sum(part.nbytes for part in vars(table).values() if isinstance(part, np.ndarray))


def peak_of_tables(world: World) -> tuple[int, int]:
    """Peak of memory while the tables are made, and what they hold."""
    tracemalloc.start()
    try:
        made = tables(world)
        return tracemalloc.get_traced_memory()[1], held(made)
    finally:
        tracemalloc.stop()


def test_memory_of_tables_is_linear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsim_llm.simulator.state.LARGE_PAGE", 1 << 62)  # memory from the system is not traced
    smaller, larger = (peak_of_tables(large_world(n, n)) for n in (20_000, 40_000))
    assert larger[1] == pytest.approx(2 * smaller[1], rel=0.01)
    for peak, size in (smaller, larger):
        assert size <= peak < size + SLACK
    assert larger[0] - smaller[0] < 1.2 * (larger[1] - smaller[1])


def test_memory_of_a_large_world_is_linear() -> None:
    peaks = []
    for size in (20_000, 40_000):
        tracemalloc.start()
        try:
            large_world(size, size)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    arrays = 20_000 * 4 * (3 * 64 + 2 * 16 + 8)
    assert peaks[1] - peaks[0] < 1.6 * arrays


def test_blocks_give_the_same_integers() -> None:
    world = large_world(ROWS_AT_ONCE + 5, 3, width=8)
    made = tables(world)
    steps = np.rint(world.catalog.embedding.astype(np.float64) / made.units["encoding_unit"])
    np.testing.assert_array_equal(made.item_code[:, :8], np.clip(steps, -STEPS, STEPS))
    np.testing.assert_array_equal(made.item_code[:, 8 + 16 :], 0)
    assert made.item_code.ctypes.data % 64 == made.item.ctypes.data % 64 == 0
    squares = np.square(made.user_code[:, :8].astype(np.int64)).mean()
    assert made.units["taste_spread"] == pytest.approx(np.sqrt(squares), rel=1e-12)


def test_read_only_arrays_are_shared_and_others_copied() -> None:
    mine = np.ones(3, np.float32)
    copied = checked_array("x", mine, (3,))
    mine[0] = 7.0
    np.testing.assert_array_equal(copied, 1.0)
    mine.flags.writeable = False
    assert checked_array("x", mine, (3,)) is mine
    assert checked_array("x", mine[:2], (2,)).base is None


def test_random_world_has_the_sizes_asked_for() -> None:
    world = random_world(60, users=30, width=12, seed=1)
    assert (len(world.catalog), len(world.population), world.catalog.width) == (60, 30, 12)
    assert world.hash == random_world(60, users=30, width=12, seed=1).hash != random_world(60, 30, 12, seed=2).hash


def test_topics_are_the_sorted_categories() -> None:
    catalog = random_world(50, users=3, width=4).catalog
    labels, index = np.unique(np.array(catalog.category), return_inverse=True)
    assert catalog.topics == labels.tolist()
    np.testing.assert_array_equal(catalog.topic, index)


def test_dot_products_are_exact_at_the_limits() -> None:
    rng = np.random.Generator(np.random.PCG64(0))
    for width in (CHUNK, 3 * CHUNK, 272 // CHUNK * CHUNK + CHUNK):
        left, right = rng.integers(-STEPS, STEPS + 1, (2, 50, width)).astype(np.int16)
        left[0], right[0], left[1], right[1] = STEPS, -STEPS, STEPS, STEPS
        left[:2, 256:] = 0
        out = np.zeros(50, np.int32)
        products(left, right, out)
        np.testing.assert_array_equal(out, (left.astype(np.int64) * right).sum(1))


def test_only_equal_items_count_as_the_same() -> None:
    """Items whose numbers agree in their last bits are different ones."""
    world = random_world(2 * MARKS + 40, users=5, width=4)
    simulator = Simulator(world, Rules(start_day=100.0), lanes=3, slate_size=4, threads=1)
    simulator.seed(np.arange(3, dtype=np.uint64))
    simulator.reset(np.ones(3, np.bool_))
    slates = np.array([[1, 1 + MARKS, 1 + 2 * MARKS, 2], [1, 1 + MARKS, 1, 1], [5, 5, 5, 5]])
    for _ in range(2):
        simulator.step(slates)
        assert simulator.state.lane["wasted"].tolist() == [0, 2, 3]
        assert simulator.slate.tolist() == [slates[0].tolist(), [1, 1 + MARKS, -1, -1], [5, -1, -1, -1]]
    topics = world.catalog.topic[slates[0]]
    pairs = [topics[j] != topics[k] for k in range(4) for j in range(k)]
    assert simulator.state.lane["diversity"][0] == pytest.approx(np.mean(pairs))


def test_a_run_reports_its_memory_and_times() -> None:
    row = run(300, 200, lanes=16, steps=20)
    assert (row["items"], row["users"]) == (300, 200)
    assert row["peak [MB]"] > row["tables [MB]"] > 0
    assert row["step, median [ns]"] >= row["step, best [ns]"] > 0


def test_agents_are_timed_in_acting_and_learning() -> None:
    found = measure_agents(["random", "thompson"], lanes=8, items=60)
    rows = {row["agent"]: row for row in found["tables"]["agents"]}
    assert set(rows) == {"random", "thompson"}
    assert all(row[f"slate {slate_size}"] > 0 for row in rows.values() for slate_size in SLATES)
    assert "8 lanes, 60 items, one thread" in found["note"]
