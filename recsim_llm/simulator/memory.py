"""What a user remembers of the items that she has seen: exact, and nothing is lost because two items share a place.

A memory is one word of 32 bits: when she saw the item last, how strong the memory was then, and the most that she ever
did with it. The rounding to whole minutes and to 255ths is part of the definition, the same on every machine.

How the memories of one lane are kept is told by the number of dimensions, known when the rules are compiled:

* An array [words], where the catalogue has at most ``PLACES`` items: the place of an item is its own number.
* Two tables [2, words] over larger catalogues. A cell is a word and the number of its item, found by linear probing.
  What she sees goes into the first table. Once another slate might fill more than half of it, its cells move to the
  second, and what
  was there, the items seen longest ago, is forgotten. So the last ``KEPT`` - K different items are always remembered,
  and everything in an episode that shows at most 2 (``KEPT`` - K).
"""

from __future__ import annotations

import numpy as np

from recsim_llm.simulator.intrinsics import fetch_row
from recsim_llm.simulator.jit import jit
from recsim_llm.simulator.maths import HALF, ONE, exp

PLACES = 1 << 12
"""Size of the largest catalogue of which every item has a place of its own."""

KEPT = 1 << 9
"""Items in one of the two tables for larger catalogues; more for slates of more than half as many items."""

UNKNOWN, LOOKED, CONSUMED, BOUGHT = 0, 1, 2, 3
"""The most that she ever did with an item: two bits."""

KIND_BITS, LEVEL_BITS = 2, 8
KIND_MASK, LEVEL_MASK = (1 << KIND_BITS) - 1, (1 << LEVEL_BITS) - 1
TIME_SHIFT = KIND_BITS + LEVEL_BITS
LATEST = np.int64((1 << (32 - TIME_SHIFT)) - 1)
"""[min] Time stands still for memories after this, eight years into an episode."""

MINUTE = np.int64(60)
FULL = np.float32(LEVEL_MASK)
PART = np.float32(1.0 / LEVEL_MASK)
MULTIPLIER = np.int64(0x9E3779B1)
"""2^32 / golden ratio: neighbours in the catalogue are spread over the table (Knuth 1998, section 6.4)."""

WORDS_OF_LINE = 16


def shape_of(items: int, slate_size: int) -> tuple[int, ...]:
    """The words of one lane: [words], or [2, words] where there are two tables."""
    if items <= PLACES:
        return (-(-items // WORDS_OF_LINE) * WORDS_OF_LINE,)
    kept = max(KEPT, 1 << (2 * slate_size - 1).bit_length())
    return 2, 4 * kept  # half of the cells stay free, so that searches are short, and a cell has two words


@jit
def minutes_of(clock):
    """The time of a memory [min] from a lane's clock [s]."""
    return min(np.int64(clock) // MINUTE, LATEST)


@jit
def word_of(now, level, kind):
    """A memory of a level in [0, 1]."""
    return np.uint32((np.int64(now) << TIME_SHIFT) | (np.int64(np.int32(level * FULL + HALF)) << KIND_BITS) | kind)


@jit
def kind_of(word):
    """The most that she did with the item, UNKNOWN where the word is 0."""
    return np.int32(word & np.uint32(KIND_MASK))


@jit
def left_of(p, word, now):
    """What is left of a memory, in [0, 1]; 0 of none.

    What was consumed fades by e each repeat_life, what was only looked at each look_life; a life of 0 is for ever.
    """
    level = np.float32(np.int32((word >> np.uint32(KIND_BITS)) & np.uint32(LEVEL_MASK))) * PART
    age = np.float32(np.int32(now) - np.int32(word >> np.uint32(TIME_SHIFT)))
    rate = p["look_rate"] if kind_of(word) == LOOKED else p["repeat_rate"]
    return level * exp(-(age * rate))


@jit
def looked_again(p, word, left, now):
    """The memory of an item that she has looked at and left once more; ``left`` is what was left of the one before."""
    return word_of(now, min(left + p["repeat_look"], ONE), max(kind_of(word), LOOKED))


@jit
def home_of(memory, item):
    """The word of the first table at which the search for an item begins, or which is the item's own."""
    if memory.ndim == 1:
        return np.int64(item)
    return (np.int64(item) * MULTIPLIER >> 20) & (memory.shape[1] - 2)


@jit
def search(memory, table, at, item):
    """The word of an item in one of two tables, from the word ``at`` on; the first free one if it is not there."""
    # Both at once: whether a cell is taken is a toss for the processor, whether the search goes on is not.
    while (memory[table, at] != 0) & (memory[table, at + 1] != item):
        at = (at + 2) & (memory.shape[1] - 2)
    return at


@jit
def recall(lane, memory, item):
    """Where the memory of an item stands or would stand in the first table, and the memory itself: 0 for none."""
    at = home_of(memory, item)
    if memory.ndim == 1:
        return np.int64(item), memory[item]
    at = search(memory, 0, at, item)
    word = memory[0, at]
    if word == 0 and lane["older"]:
        word = memory[1, search(memory, 1, home_of(memory, item), item)]
    return at, word


@jit
def remember(lane, memory, at, item, word):
    """Notes a memory. ``at`` is where :func:`recall` found it or its place, before others were noted in this step."""
    if memory.ndim == 1:
        memory[item] = word
    else:
        at = search(memory, 0, at, item)
        lane["remembered"] += memory[0, at] == 0
        memory[0, at + 1] = np.uint32(item)
        memory[0, at] = word


@jit
def make_room(lane, memory, slate_size):
    """Forgets the items seen longest ago where one more slate might not find its places."""
    if memory.ndim > 1:
        if 4 * (lane["remembered"] + slate_size) > memory.shape[1]:
            for at in range(memory.shape[1]):
                memory[1, at] = memory[0, at]
                memory[0, at] = 0
            lane["remembered"] = 0
            lane["older"] = True


@jit
def clear(words):
    """Empties a table."""
    for at in range(words.shape[0]):
        words[at] = 0


@jit
def fetch_memory(lane, memory, item):
    """Asks for the lines in which the search for the memory of an item begins."""
    if memory.ndim == 1:
        fetch_row(memory, item)
    else:
        fetch_row(memory[0], home_of(memory, item))
        if lane["older"]:
            fetch_row(memory[1], home_of(memory, item))


@jit
def forget(lane, memory):
    """Forgets everything. The second table is not read before the first has moved there."""
    if memory.ndim == 1:
        clear(memory)
    else:
        clear(memory[0])
    lane["remembered"] = 0
    lane["older"] = False
