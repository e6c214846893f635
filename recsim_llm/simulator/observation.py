"""What a recommender sees of one user, written into one row of a contiguous array: public information only."""

from __future__ import annotations

import numpy as np

from recsim_llm.simulator.feedback import DWELLED, RATED
from recsim_llm.simulator.jit import jit
from recsim_llm.simulator.maths import ONE, ZERO
from recsim_llm.simulator.scoring import clip, fraction

CONTEXT = (
    "morning",  # time of day as two triangle waves: 1 at six, -1 at eighteen
    "night",  # 1 at midnight, -1 at noon
    "session",  # n / (n + 10)
    "session_step",  # n / (n + 10)
    "step",  # n / (n + 100)
    "away",  # days / (days + 1) before this session
    "engagement",  # decayed mean of steps with a click
    "idle",  # steps since the last click, n / (n + 5)
    "sameness",  # decayed share of consumed items with the topic of the one before
    "start",  # 1 before the first step of an episode
)

CONTEXT_WIDTH = len(CONTEXT)
SECONDS_PER_DAY = 86400
QUARTER_DAY = 21600
QUARTER = np.float32(QUARTER_DAY)
TEN = np.float32(10.0)
HUNDRED = np.float32(100.0)
FIVE = np.float32(5.0)
LONG_DWELL = np.float32(600.0)  # [s]


@jit
def wave(seconds):
    """A triangle wave of one day, 0 at midnight, 1 at six, -1 at eighteen: no trigonometry, the same everywhere."""
    phase = seconds % SECONDS_PER_DAY
    if phase < QUARTER_DAY:
        return np.float32(phase) / QUARTER
    if phase < 3 * QUARTER_DAY:
        return np.float32(2 * QUARTER_DAY - phase) / QUARTER
    return np.float32(phase - 4 * QUARTER_DAY) / QUARTER


@jit
def write_context(lane, out):
    """The context part, in the order of CONTEXT."""
    out[0] = wave(lane["clock"])
    out[1] = wave(lane["clock"] + QUARTER_DAY)
    out[9] = ONE if lane["step"] == 0 else ZERO
    if lane["opted_out"]:  # nothing that needs a history, but for the visit that is going on
        for c in range(2, 9):
            out[c] = ZERO
        out[3] = fraction(lane["session_step"], TEN)
        return
    out[2] = fraction(lane["session"], TEN)
    out[3] = fraction(lane["session_step"], TEN)
    out[4] = fraction(lane["step"], HUNDRED)
    out[5] = lane["away"] / (lane["away"] + ONE)
    out[6] = lane["engagement"]
    out[7] = fraction(lane["idle"], FIVE)
    out[8] = lane["sameness"]


@jit
def write_profile(p, lane, profile_code, out):
    """The profile part; it does not change within an episode. Zeros where it is not known."""
    unit = ZERO if p["cold_users"] == 1 or lane["opted_out"] else p["profile_unit"]
    for d in range(profile_code.shape[0]):
        out[d] = unit * np.float32(profile_code[d])


@jit
def write_interest(p, interest, out):
    """The interest part; it changes with clicks only."""
    width = interest.shape[0]
    part = out[width : 2 * width]
    for d in range(width):
        part[d] = clip(p["encoding_unit"] * interest[d], -ONE, ONE)


@jit
def write_feedback(feedback, clicks, out):
    """Signals of the last step [K, S], each brought into [0, 1]. Without ``clicks`` there is no dwell and no rating."""
    signals = feedback.shape[1]
    flat = feedback.reshape(feedback.size)
    for at in range(flat.shape[0]):
        out[at] = flat[at]
    if clicks == 0:
        return
    for k in range(feedback.shape[0]):
        if feedback[k, DWELLED] != ZERO or feedback[k, RATED] != ZERO:
            out[k * signals + DWELLED] = min(feedback[k, DWELLED] / LONG_DWELL, ONE)
            out[k * signals + RATED] = feedback[k, RATED] / FIVE


@jit
def observe(p, lane, interest, feedback, out):
    """Brings profile [D], interest [D], context [C] and feedback [K, S] up to date, every value in [-1, 1].

    The row is written in place step by step, so only what changed is written: the profile at the start of an episode,
    the interest after a click.
    """
    at = 2 * interest.shape[0]
    if lane["clicks"] > 0 or lane["step"] == 0:
        write_interest(p, interest, out)
    write_context(lane, out[at : at + CONTEXT_WIDTH])
    if p["bit_only"] == 1:  # the clock moves by what she reads: the time of day would tell the click
        out[at] = ZERO
        out[at + 1] = ZERO
    write_feedback(feedback, lane["clicks"], out[at + CONTEXT_WIDTH :])
