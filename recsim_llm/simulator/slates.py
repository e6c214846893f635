"""The slates of a few lanes at once: what is on the shelf, utilities, attractions.

A step is done for a block of lanes in two stages. The first has no branch that depends on a draw, so that the loads of
all slates are under way at the same time and the exponentials become vector instructions; the second, what each user
does, is in :mod:`recsim_llm.simulator.kernel`. Every number is computed by the same operations as for one lane alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsim_llm.simulator.availability import on_shelf, scenario_pull
from recsim_llm.simulator.choice import WASTED
from recsim_llm.simulator.intrinsics import fetch_row
from recsim_llm.simulator.jit import jit
from recsim_llm.simulator.maths import ONE, ZERO, exp
from recsim_llm.simulator.memory import fetch_memory, left_of, looked_again, minutes_of, recall
from recsim_llm.simulator.scoring import (
    bought_before,
    known_pull,
    price_pain,
    staleness,
    utility_for,
)

BLOCK = 8
"""Lanes of a block: what is fetched for the slates of ten of the next one fills half of the first cache."""

NEAR = 1 << 18
"""Codes of items [int16] that the second cache holds; of larger catalogues they are fetched ahead."""

MANY = 1 << 12
"""Lanes whose tastes the second cache does not hold; of more of them these are fetched ahead too."""

MARKS = 512
"""Items of a slate are compared only if they agree in their last bits."""


class Scratch(NamedTuple):
    """Working arrays of one thread, overwritten by each block; N = BLOCK * K."""

    attraction: NDArray[np.float32]  # [BLOCK, K], then weights
    flat: NDArray[np.float32]  # [N], the same memory
    base: NDArray[np.float32]  # [BLOCK, K] utility
    novelty: NDArray[np.float32]  # [N] exponent of freshness
    pain: NDArray[np.float32]  # [N]
    left: NDArray[np.float32]  # [N] what is left of the memory of each item
    word: NDArray[np.uint32]  # [N] that memory, 0 for none
    looked: NDArray[np.uint32]  # [N] what it becomes if she looks at the item and leaves it
    now: NDArray[np.int32]  # [N] time of memories [min]
    place: NDArray[np.int64]  # [N] where the memory stands or is to stand
    attention: NDArray[np.float32]  # [N] logarithm of each slot's attention, K numbers BLOCK times
    examined: NDArray[np.bool_]  # [K]
    clicked: NDArray[np.bool_]  # [K]
    revenue: NDArray[np.float32]  # [K]
    marks: NDArray[np.int64]  # [MARKS] the last slate that had an item with these last bits
    counts: NDArray[np.int64]  # [T] number of the last slate that had the topic, plus how many items of it
    number: NDArray[np.int64]  # [1] number of the last slate; they go up by K + 1
    skipped: NDArray[np.float32]  # [S] signals of an item that was looked at and left
    who: NDArray[np.int64]  # [BLOCK] lanes of the block that are in an episode
    keys: NDArray[np.uint64]  # [BLOCK] of their draws in this step


def new_scratch(slate_size: int, topics: int, signals: int, attention: NDArray[np.float32]) -> Scratch:
    """Scratch for slates of K slots; ``attention`` is [K]."""
    flat = np.zeros(BLOCK * slate_size, np.float32)
    numbers = np.zeros((3, BLOCK * slate_size), np.float32)
    return Scratch(
        attraction=flat.reshape(BLOCK, slate_size),
        flat=flat,
        base=np.zeros((BLOCK, slate_size), np.float32),
        novelty=numbers[0],
        pain=numbers[1],
        left=numbers[2],
        word=np.zeros(BLOCK * slate_size, np.uint32),
        looked=np.zeros(BLOCK * slate_size, np.uint32),
        now=np.zeros(BLOCK * slate_size, np.int32),
        place=np.zeros(BLOCK * slate_size, np.int64),
        attention=np.tile(attention, BLOCK),
        examined=np.zeros(slate_size, np.bool_),
        clicked=np.zeros(slate_size, np.bool_),
        revenue=np.zeros(slate_size, np.float32),
        marks=np.zeros(MARKS, np.int64),
        counts=np.zeros(topics, np.int64),
        number=np.zeros(1, np.int64),
        skipped=np.zeros(signals, np.float32),
        who=np.zeros(BLOCK, np.int64),
        keys=np.zeros(BLOCK, np.uint64),
    )


@jit
def is_repeat(action, k):
    """Whether the item of slot k is in an earlier slot too."""
    found = False
    for j in range(k):
        found |= action[j] == action[k]
    return found


@jit
def sort_out(p, table, lane, action, slate, scratch, provider, day):
    """Marks wasted slots, -1: an item for the second time, or one off the shelf. Notes how different the topics are."""
    items, _, trades, budgets = table[:4]
    marks, counts = scratch.marks, scratch.counts
    number = scratch.number[0] + action.shape[0] + 1
    scratch.number[0] = number
    same, shown = 0, 0
    for k in range(action.shape[0]):
        index = action[k]
        slate[k] = -1
        if index < 0:  # an empty place of a candidate list
            continue
        place = index & (MARKS - 1)
        marked = marks[place] == number
        marks[place] = number
        if not on_shelf(p, items[index], trades[index], budgets, provider, lane, day):
            continue
        if marked and is_repeat(action, k):
            continue
        topic = items[index]["topic"]
        slate[k] = index
        alike = max(counts[topic] - number, 0)
        counts[topic] = number + alike + 1
        same += alike
        shown += 1
    pairs = shown * (shown - 1) // 2
    lane["wasted"] = action.shape[0] - shown
    lane["diversity"] = ONE - np.float32(same) / np.float32(pairs) if pairs > 0 else ZERO


@jit
def look(p, n, table, user, lane, mine, slate, scratch, day):
    """Gathers what attracts one user, the n-th lane of the block, to each slot of her slate."""
    items = table[0]
    _, code, _, satiation, memory = mine[:5]
    now = np.int32(minutes_of(lane["clock"]))
    slate_size, seen = slate.shape[0], 0
    first = n * slate_size
    constant = p["mu"] + user["bias"]
    for k in range(slate_size):
        at = first + k
        index = slate[k]
        scratch.now[at] = now
        if index < 0:
            scratch.flat[at] = WASTED
            scratch.novelty[at] = ZERO
            scratch.pain[at] = ZERO
            scratch.word[at] = 0
            continue
        item = items[index]
        base = utility_for(p, constant, table, lane["user"], index, code)
        scratch.base[n, k] = base
        scratch.flat[at] = known_pull(p, item, base, satiation)
        scratch.novelty[at] = staleness(p, item, day)
        scratch.pain[at] = price_pain(p, item, user)
        scratch.place[at], scratch.word[at] = recall(lane, memory, index)
        seen += scratch.word[at] != 0
    return seen


@jit
def attract(p, count, seen, scratch):
    """Adds up the attraction of the first ``count`` slots of the block, all but what providers and purchases add.

    ``seen`` is how many of their items are remembered.
    """
    flat, novelty, pain, left = scratch.flat, scratch.novelty, scratch.pain, scratch.left
    word, now, looked = scratch.word, scratch.now, scratch.looked
    if seen > 0:
        for at in range(count):
            left[at] = left_of(p, word[at], now[at])
    else:
        for at in range(count):
            left[at] = ZERO
    for at in range(count):
        looked[at] = looked_again(p, word[at], left[at], now[at])
    freshness, repeat = p["freshness"], p["repeat"]
    if freshness != ZERO:
        for at in range(count):
            flat[at] += freshness * exp(novelty[at])
    for at in range(count):
        flat[at] = flat[at] - pain[at] - repeat * left[at] - bought_before(p, word[at])


@jit
def attract_further(p, table, lane, mine, slate, attraction):
    """What blindness, buzz and purchases add to the attraction of one lane's slots [K], where the scenario has them."""
    items, _, trades = table[:3]
    provider, owned = mine[5], mine[6]
    for k in range(slate.shape[0]):
        index = slate[k]
        if index >= 0:
            attraction[k] = scenario_pull(p, attraction[k], items[index], trades[index], lane, provider, owned)


@jit
def fetch(table, action):
    """Asks for the memory that a slate will need: items and their codes."""
    items, item_codes = table[:2]
    for k in range(action.shape[0]):
        index = max(action[k], 0)
        fetch_row(items, index)
        fetch_row(item_codes, index)


@jit
def fetch_lane(state, tails, action, b):
    """Asks for what a step of lane b reads or writes whatever happens; ``tails`` [B, C + K * S] are observations.

    Of what she remembers that is the places of the items shown, ``action`` [K].
    """
    lanes, _, codes, _, satiations, memories, feedbacks, slates = state[:8]
    fetch_row(lanes, b)
    fetch_row(codes, b)
    fetch_row(satiations, b)
    for k in range(action.shape[0]):
        fetch_memory(lanes[b], memories[b], max(action[k], 0))
    fetch_row(feedbacks, b)
    fetch_row(slates, b)
    fetch_row(tails, b)


@jit
def fetch_taste(state, seen, b):
    """Asks for what changes when lane b consumes something; ``seen`` [B, D] is the interest part of observations."""
    fetch_row(state[1], b)
    fetch_row(state[3], b)
    fetch_row(seen, b)
