"""Shared rules of the classic environments: user state, candidate documents, slates, and choice by mass."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsim_llm.simulator.jit import jit
from recsim_llm.simulator.maths import ZERO
from recsim_llm.simulator.streams import bits, chain

LANE = np.dtype(
    [
        ("seed", np.uint64),
        ("stream", np.uint64),  # hash of seed, user and episode
        ("user", np.int32),  # number of the user: her features are a hash of it
        ("episode", np.int32),  # -1 before the first
        ("step", np.int32),
        ("clicks", np.int32),  # of this step
        ("wasted", np.int32),  # slots of this step
        ("total_clicks", np.int32),  # of this episode
        ("total_shown", np.int32),
        ("budget", np.float32),  # [min] or [step] left
        ("exposure", np.float32),  # net positive exposure, long-term satisfaction only
        ("satisfaction", np.float32),  # long-term satisfaction only
        ("ended", np.bool_),  # the episode is over, the next step resets
    ],
    align=True,
)

DOCUMENT = np.dtype([("topic", np.int32), ("value", np.float32)], align=True)
"""A candidate: its topic (-1 before the first was drawn), and its quality or clickbait."""


class LaneArrays(NamedTuple):
    """Arrays of B lanes as the compiled rules read and write them."""

    lane: NDArray[np.void]  # [B] of LANE
    traits: NDArray[np.float32]  # [B, N]
    slate: NDArray[np.int64]  # [B, K]
    shown: NDArray[np.int32]  # [B, K] topics
    signals: NDArray[np.float32]  # [S, B, K]


# Channels of draws, each under the key that is named.
CHOICE = 1  # key of the step
INFLUENCE = 2  # key of the step: which way interest moves, or the innovation of exposure
ENGAGEMENT = 3  # key of the step
TRAITS = 1 << 8  # key of the user, one for each feature
DOCUMENTS = 1 << 16  # key of the step (or of the list), two for each candidate

USER_CHANNEL = 0
PEOPLE = 1
SHIFT_32 = np.uint64(32)
SHIFT_33 = np.uint64(33)
USERS = 2**31
"""Users are numbered 0..USERS-1 and drawn evenly."""
DRAWN = {"all": -1, "train": -2, "test": -3}
"""Wishes for a user who is drawn: any, or one with an even or an odd number."""
ODD = np.int64(1)


@jit
def begin_episode(lane, wish):
    """Starts a lane's next episode with user ``wish``, or one of :data:`DRAWN`. Returns the key of her features."""
    lane["episode"] += 1
    key = chain(chain(lane["seed"], 0), lane["episode"])
    user = np.int64(bits(key, USER_CHANNEL) >> SHIFT_33) if wish < 0 else np.int64(wish)
    if wish == -2:
        user -= user & ODD
    elif wish == -3:
        user |= ODD
    lane["user"] = user
    lane["stream"] = chain(key, user + 1)
    lane["step"] = 0
    lane["clicks"] = 0
    lane["wasted"] = 0
    lane["total_clicks"] = 0
    lane["total_shown"] = 0
    lane["exposure"] = ZERO
    lane["satisfaction"] = ZERO
    lane["ended"] = False
    return chain(np.uint64(PEOPLE), user)


@jit
def seat(lane, action, slate):
    """Copies the slate, -1 for a document that stands in an earlier slot already."""
    wasted = 0
    for k in range(action.shape[0]):
        index = action[k]
        twice = False
        for j in range(k):
            twice |= slate[j] == index
        slate[k] = -1 if twice else index
        wasted += twice
    lane["wasted"] = wasted
    lane["total_shown"] += action.shape[0] - wasted


@jit
def choose(point, mass):
    """The slot in whose part of the line [0, sum of all mass) a point lies; -1 beyond the last: no click."""
    end = ZERO
    for k in range(mass.shape[0]):
        end += mass[k]
        if point < end:
            return k
    return -1


@jit
def note_click(lane, chosen):
    """Counts a click; ``chosen`` is -1 for none."""
    clicked = 1 if chosen >= 0 else 0
    lane["clicks"] = clicked
    lane["total_clicks"] += clicked


@jit
def even(key, channel, size):
    """One of 0..size-1, each as likely as any other."""
    return np.int32(((bits(key, channel) >> SHIFT_32) * np.uint64(size)) >> SHIFT_32)


@jit
def categorical(u, cumulative):
    """The class of u in (0, 1) under cumulative probabilities."""
    last = cumulative.shape[0] - 1
    for n in range(last):
        if u < cumulative[n]:
            return n
    return last


@jit
def clear(out):
    """Zeros."""
    for n in range(out.shape[0]):
        out[n] = ZERO
