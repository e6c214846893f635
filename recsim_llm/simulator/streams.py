"""Counter-based randomness: every draw is a hash of (seed, user, episode, step, channel).

A draw depends on nothing that other lanes, threads or earlier draws did, so that two policies can be shown the same
users with the same luck, and one lane of thousands equals a single environment. The hash chains the finaliser of
SplitMix64 (Steele, Lea and Flood 2014, variant 13 of Stafford's mixers), which passes PractRand on counters.
"""

from __future__ import annotations

import numpy as np

from recsim_llm.simulator.jit import jit
from recsim_llm.simulator.maths import ONE, normal_quantile

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
MIX_2 = np.uint64(0x94D049BB133111EB)
SHIFT_30 = np.uint64(30)
SHIFT_27 = np.uint64(27)
SHIFT_31 = np.uint64(31)
SHIFT_41 = np.uint64(41)
SHIFT_18 = np.uint64(18)
LOW_23 = np.uint64(2**23 - 1)
ROOT_SIX = np.float32(2.449489742783178)
UNIT = np.float32(2.0**-23)
HALF_UNIT = np.float32(2.0**-24)

# Channels: what a draw is for. Draws that belong to a slot add SLOT * (slot + 1).
CHOICE = 1
START = 2
BUDGET = 3
LEAVE = 4
CHURN = 5
GAP = 6
NOISE = 7
DWELL = 8
LIKE = 9
SHARE = 10
CART = 11
PURCHASE = 12
RATING = 13
EXAMINE = 14
CLICK = 15
CUSTOM = 16  # and up to 31: free for rules added from outside
SLOT = 32
DIFFUSE = 1 << 20  # one for each dimension of taste
REPORT = 1 << 21  # four for each slot
WARM = 1 << 22  # one for each item of the choices before the episode
SHIFT = 1 << 23  # one for each shift of taste
OPT_OUT = 1 << 24


@jit
def mix(z):
    """One round of SplitMix64's finaliser over uint64."""
    z = (z ^ (z >> SHIFT_30)) * MIX_1
    z = (z ^ (z >> SHIFT_27)) * MIX_2
    return z ^ (z >> SHIFT_31)


@jit
def chain(key, counter):
    """A new key from a key and a counter."""
    return mix((key ^ mix(np.uint64(counter) * GOLDEN + GOLDEN)) + GOLDEN)


@jit
def bits(key, channel):
    """64 random bits of a channel."""
    return mix(key + np.uint64(channel) * GOLDEN)


@jit
def uniform(key, channel):
    """A float32 in the open interval (0, 1), 23 random bits."""
    return np.float32(bits(key, channel) >> SHIFT_41) * UNIT + HALF_UNIT


@jit
def normal(key, channel):
    """A standard normal float32."""
    return normal_quantile(uniform(key, channel))


@jit
def triangular(key, channel):
    """A float32 of mean 0 and variance 1 from two uniforms: cheap, for noise that adds up over draws."""
    word = bits(key, channel)
    total = np.int64(word >> SHIFT_41) + np.int64((word >> SHIFT_18) & LOW_23)
    return (np.float32(total) * UNIT - ONE) * ROOT_SIX


@jit
def slot_channel(channel, slot):
    """The channel of a draw that belongs to one slot of the slate."""
    return channel + SLOT * (slot + 1)
