"""Candidate lists: a few items of the shelf, drawn for one user and step, whatever the size of the catalogue."""

from __future__ import annotations

import numpy as np

from recsim_llm.simulator.availability import on_shelf
from recsim_llm.simulator.jit import jit, kernel
from recsim_llm.simulator.scoring import day_of
from recsim_llm.simulator.streams import bits, chain, mix

CANDIDATES = 1 << 26
"""Key of the draws of one step's list."""

TRIALS = 64
"""Draws for each place of the list; with fewer items than one in this many on the shelf a scan does the rest."""

SHIFT_32 = np.uint64(32)
HIGH_BITS = np.uint64(33)


@jit
def spread(word, count):
    """A number below ``count`` (itself below 2^32) from 64 random bits."""
    return np.int64(((word >> SHIFT_32) * np.uint64(count)) >> SHIFT_32)


@jit
def note(seen, index):
    """Puts an item into a set (open addressing, a power of two cells, -1 is free); whether it was not in it."""
    last = seen.shape[0] - 1
    cell = np.int64(mix(np.uint64(index)) >> HIGH_BITS) & last
    while seen[cell] >= 0:
        if seen[cell] == index:
            return False
        cell = (cell + 1) & last
    seen[cell] = index
    return True


@jit
def draw_candidates(p, table, lane, provider, day, seen, out):
    """Draws different items on the shelf, uniformly without replacement, out [C]; -1 where there are no more.

    Items are drawn from the whole catalogue and kept if they are on the shelf and new. After ``TRIALS`` draws for each
    place the rest is filled up by a scan from a random item on, so that an almost empty shelf takes one look at the
    catalogue and no more. ``seen`` is scratch, a power of two of at least 2 C cells.
    """
    items, _, trades, budgets = table[:4]
    count, wanted = items.shape[0], out.shape[0]
    key = chain(chain(lane["stream"], lane["step"]), CANDIDATES)
    for cell in range(seen.shape[0]):
        seen[cell] = -1
    filled, trial = 0, 0
    while filled < wanted and trial < TRIALS * wanted:
        index = spread(bits(key, trial), count)
        trial += 1
        if on_shelf(p, items[index], trades[index], budgets, provider, lane, day) and note(seen, index):
            out[filled] = index
            filled += 1
    start, looked = spread(bits(key, trial), count), 0
    while filled < wanted and looked < count:
        index = (start + looked) % count
        looked += 1
        if on_shelf(p, items[index], trades[index], budgets, provider, lane, day) and note(seen, index):
            out[filled] = index
            filled += 1
    for place in range(filled, wanted):
        out[place] = -1


@kernel
def write_on_shelf(p1, table, lanes, providers, listed, out):
    """Which of some items [B, N] are on the shelf of each lane, out [B, N]; -1 is no item."""
    items, _, trades, budgets = table[:4]
    p = p1[0]
    for b in range(listed.shape[0]):
        day = day_of(p, lanes[b])
        for n in range(listed.shape[1]):
            i = listed[b, n]
            out[b, n] = i >= 0 and on_shelf(p, items[i], trades[i], budgets, providers[b], lanes[b], day)
