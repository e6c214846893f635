"""Arrays of the simulator: constant tables of a world, and the state of each lane.

Encodings, factors and taste are int16 with 12 bits used, so that a dot product is a sum of integers in int32: exact
whatever the order, hence the same on every CPU. The error is below 0.4 % of the utilities' spread and is part of the
world's definition.
"""

from __future__ import annotations

import contextlib
import math
import mmap
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.simulator.memory import shape_of
from recsim_llm.simulator.params import Rules
from recsim_llm.simulator.task_variant import TaskVariant
from recsim_llm.worlds.world import World

STEPS = 2047
"""Largest integer of the tables: 12 bits with sign. 256 products of them stay below 2^31."""

HEADROOM = 1.5
"""Room for taste to drift beyond the largest initial component."""

LINE = 32
"""Rows of codes are padded to a multiple of this: one line of memory, and what one vector instruction multiplies."""

LINE_OF_MEMORY = 64
LARGE_PAGE = 1 << 21
"""[byte]"""

ROWS_AT_ONCE = 1 << 14
"""Rows that are turned into integers at once: some megabytes, whatever the size of the world."""

ITEM = np.dtype(
    [
        ("appeal", np.float32),
        ("quality", np.float32),
        ("clickbait", np.float32),
        ("price", np.float32),
        ("released_at", np.float32),
        ("topic", np.int32),
        ("spare", np.int64),  # two records to a line of memory, none across two
    ],
    align=True,
)

TRADE = np.dtype([("bid", np.float32), ("on_purchase", np.int32), ("provider", np.int32)], align=True)
"""What matters of an item only where providers pay or publish; kept apart, so that others need not load it."""

USER = np.dtype([("bias", np.float32), ("price_sensitivity", np.float32), ("wallet", np.float32)], align=True)

LANE = np.dtype(
    [
        ("seed", np.uint64),
        ("stream", np.uint64),  # hash of seed, user and episode
        ("user", np.int32),
        ("episode", np.int32),  # -1 before the first
        ("step", np.int32),
        ("session", np.int32),
        ("session_step", np.int32),
        ("clock", np.int32),  # [s] since start_day
        ("began", np.int32),  # the clock when the episode began [s]
        ("clicks", np.int32),  # of this step
        ("examined", np.int32),  # of this step
        ("wasted", np.int32),  # slots of this step
        ("total_clicks", np.int32),  # of this episode
        ("total_examined", np.int32),
        ("idle", np.int32),  # steps since the last click
        ("away", np.float32),  # [day] length of the last gap
        ("mood", np.float32),
        ("budget", np.float32),  # [s] left in this session
        ("engagement", np.float32),  # decayed mean of clicks, public
        ("sameness", np.float32),  # decayed share of consumed items of the topic before, public
        ("satisfaction", np.float32),  # mean over this step's clicks
        ("diversity", np.float32),  # share of pairs of the slate with different topics
        ("blindness", np.float32),
        ("revenue", np.float32),  # of this step
        ("reported", np.float32),  # reward of this step as the recommender sees it
        ("spent", np.float32),  # by the user in this month
        ("month", np.int32),  # 30 days each since the episode began
        ("purchases", np.int32),  # of this episode, as reported
        ("regime", np.int32),  # shifts of taste so far
        ("last_topic", np.int32),
        ("opted_out", np.bool_),
        ("ended", np.bool_),  # the episode is over, the next step resets
        ("older", np.bool_),  # whether the second table of the memory is in use
        ("remembered", np.int32),  # items in the first, where there are two
    ],
    align=True,
)

PROVIDER_CELL = np.dtype(
    [
        ("episode", np.int32),  # that the cell is of; in another one it counts as untouched
        ("at", np.int32),  # [s] clock of the last change
        ("day", np.int32),  # that ``spent`` is of
        ("spent", np.float32),  # on this day
        ("audience", np.float32),
        ("buzz", np.float32),
    ],
    align=True,
)


@dataclass(frozen=True, eq=False)
class Tables:
    """A world as the compiled rules read it; shared by all lanes, never written."""

    item: NDArray[np.void]  # [I] of ITEM
    item_code: NDArray[np.int16]  # [I, W], W >= D + 16
    trade: NDArray[np.void]  # [I] of TRADE
    provider_budget: NDArray[np.float32]  # [G] [currency / day], 0 is no limit
    user: NDArray[np.void]  # [U] of USER
    user_code: NDArray[np.int16]  # [U, W]
    profile_code: NDArray[np.int16]  # [U, D]
    topics: int
    units: dict[str, float]


def tables(world: World) -> Tables:
    """Quantises a world."""
    catalog, people = world.catalog, world.population
    item, user, trade = aligned((len(catalog),), ITEM), np.zeros(len(people), USER), np.zeros(len(catalog), TRADE)
    for name in ("appeal", "quality", "clickbait", "price", "released_at", "topic"):
        item[name] = getattr(catalog, name)
    trade["bid"], trade["on_purchase"], trade["provider"] = catalog.bid, catalog.bid_event, catalog.provider_index
    for name in ("bias", "price_sensitivity", "wallet"):
        user[name] = getattr(people, name)
    things, likes = catalog.factors, people.factors
    encoding_unit = _largest(catalog.embedding) / STEPS
    profile_unit = _largest(people.profile) / STEPS
    # One unit for both products, the larger need of the two, so that one dot product gives their sum.
    utility_unit = max(
        encoding_unit * _largest(people.taste) * HEADROOM / STEPS, _largest(things) * _largest(likes) / STEPS**2
    )
    taste_step = utility_unit / encoding_unit if encoding_unit else 0.0
    balance = np.sqrt(_largest(things) / _largest(likes)) if _largest(likes) and _largest(things) else 1.0
    factor_step = np.sqrt(utility_unit)
    item_code = _rows((catalog.embedding, encoding_unit), (things, factor_step * balance))
    user_code = _rows((people.taste, taste_step), (likes, factor_step / balance))
    encoding, taste = item_code[:, : catalog.width], user_code[:, : catalog.width]
    units = {
        "utility_unit": utility_unit,
        "encoding_unit": encoding_unit,
        "profile_unit": profile_unit,
        "taste_spread": _root_mean_square(taste),
        # target = drift_target * x / |x|^2 for an average item, in steps of taste per step of encoding
        "drift_gain": 1.0 / max(_root_mean_square(encoding) ** 2 * encoding.shape[1] * utility_unit, 1e-9),
    }
    return Tables(
        item=item,
        item_code=item_code,
        trade=trade,
        provider_budget=catalog.provider_budget,
        user=user,
        user_code=user_code,
        profile_code=_rows((people.profile, profile_unit), multiple=1),
        topics=len(catalog.topics),
        units=units,
    )


def aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Zeros that begin with a line of memory, so that each row of codes covers as few lines as it can.

    Large arrays begin with a large page and ask the system for such pages: rows are read at random, and finding out
    where a page is takes as long as reading from it.
    """
    size = math.prod(shape) * dtype.itemsize
    advice = getattr(mmap, "MADV_HUGEPAGE", None)  # Linux alone
    if size < LARGE_PAGE // 2 or advice is None:
        room, step = np.zeros(size + LINE_OF_MEMORY, np.uint8), LINE_OF_MEMORY
    else:
        pages, step = mmap.mmap(-1, size + 2 * LARGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), LARGE_PAGE
        with contextlib.suppress(OSError):  # a system without them
            pages.madvise(advice)
        room = np.frombuffer(pages, np.uint8)
    start = -room.ctypes.data % step
    return room[start : start + size].view(dtype).reshape(shape)


def _largest(array: NDArray[np.float32]) -> float:
    return max(float(array.max(initial=0.0)), -float(array.min(initial=0.0)))


def _rows(*parts: tuple[NDArray[np.float32], float], multiple: int = LINE) -> NDArray[np.int16]:
    """Arrays [N, width] side by side in integer steps within [-2047, 2047], zeros up to a multiple of a width.

    ``parts`` are arrays with the size of a step. Block by block, so that no whole array is held in float64.
    """
    count, width = len(parts[0][0]), sum(array.shape[1] for array, _ in parts)
    rows = aligned((count, -(-width // multiple) * multiple), np.dtype(np.int16))
    at = 0
    for array, step in parts:
        where = slice(at, at + array.shape[1])
        for first in range(0, count if step else 0, ROWS_AT_ONCE):
            some = slice(first, first + ROWS_AT_ONCE)
            rows[some, where] = np.clip(np.rint(array[some].astype(np.float64) / step), -STEPS, STEPS)
        at = where.stop
    return rows


def _root_mean_square(codes: NDArray[np.int16]) -> float:
    """Computed from an exact integer sum, so that it is the same on every machine."""
    blocks = (codes[first : first + ROWS_AT_ONCE].astype(np.int64) for first in range(0, len(codes), ROWS_AT_ONCE))
    total = sum(int(np.square(block).sum()) for block in blocks)
    return float(np.sqrt(total / max(codes.size, 1)))


@dataclass(eq=False)
class State:
    """Everything that changes, for B lanes."""

    lane: NDArray[np.void]  # [B] of LANE
    taste: NDArray[np.float32]  # [B, D] in steps of the table
    code: NDArray[np.int16]  # [B, W] taste rounded, and factors
    interest: NDArray[np.float32]  # [B, D] in steps of the encodings
    satiation: NDArray[np.float32]  # [B, T]
    memory: NDArray[np.uint32]  # [B, words] or [B, 2, words], see simulator/memory.py
    feedback: NDArray[np.float32]  # [B, K, S] of the last step
    slate: NDArray[np.int64]  # [B, K] items shown in the last step, -1 for a wasted slot
    provider: NDArray[np.void]  # [B, G] of PROVIDER_CELL; G = 0 where providers do not matter
    owned: NDArray[np.int32]  # [B, T] clock of the last purchase, -1 for none; T = 0 where it does not matter
    late: NDArray[np.float32]  # [B, L, K, S + 2] feedback, revenue, satisfaction on their way; L = 0: all is seen
    late_slate: NDArray[np.int64]  # [B, L, K]
    reported: NDArray[np.float32]  # [B, K, S] feedback as the recommender sees it; one row where that is ``feedback``
    reported_slate: NDArray[np.int64]  # [B, K]

    def copy(self) -> State:
        """An independent copy."""
        return State(**{name: array.copy() for name, array in vars(self).items()})


def new_state(lanes: int, slate_size: int, signals: int, table: Tables, rules: Rules, variant: TaskVariant) -> State:
    """State of lanes that were never reset."""
    ring = variant.delay + 1 if variant.reports else 0
    shown = lanes if variant.reports else 1
    width = table.profile_code.shape[1]
    state = State(
        lane=aligned((lanes,), LANE),
        taste=aligned((lanes, width), np.dtype(np.float32)),
        code=aligned((lanes, table.user_code.shape[1]), np.dtype(np.int16)),
        interest=aligned((lanes, width), np.dtype(np.float32)),
        satiation=aligned((lanes, table.topics), np.dtype(np.float32)),
        memory=aligned((lanes, *shape_of(len(table.item), slate_size)), np.dtype(np.uint32)),
        feedback=aligned((lanes, slate_size, signals), np.dtype(np.float32)),
        slate=np.full((lanes, slate_size), -1, np.int64),
        provider=np.zeros((lanes, len(table.provider_budget) if rules.providers_matter else 0), PROVIDER_CELL),
        owned=np.full((lanes, table.topics if rules.owned != 0 else 0), -1, np.int32),
        late=np.zeros((lanes, ring, slate_size, signals + 2), np.float32),
        late_slate=np.full((lanes, ring, slate_size), -1, np.int64),
        reported=np.zeros((shown, slate_size, signals), np.float32),
        reported_slate=np.full((shown, slate_size), -1, np.int64),
    )
    state.lane["episode"] = -1
    state.provider["episode"] = -1
    return state
