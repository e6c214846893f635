"""How users change: taste, satiation, memory, mood, sessions."""

from __future__ import annotations

import numpy as np

from recsim_llm.simulator.jit import jit
from recsim_llm.simulator.maths import HALF, ONE, ZERO, exp, log, sigmoid
from recsim_llm.simulator.scoring import SECONDS_PER_DAY, SECONDS_PER_HOUR, clip
from recsim_llm.simulator.state import STEPS
from recsim_llm.simulator.streams import BUDGET, CHURN, DIFFUSE, GAP, LEAVE, SHIFT, bits, normal, triangular, uniform

TWO = np.float32(2.0)
LIMIT = np.float32(STEPS)
LONGEST_GAP = np.float32(60.0)  # [day]
SHORTEST_GAP = np.float32(600.0)  # [s]
ENGAGEMENT_RATE = np.float32(0.2)
MOOD_LIMIT = np.float32(8.0)
SAMENESS_RATE = np.float32(0.2)
ABRUPT, GRADUAL, RECURRING = 1, 2, 3
HIGH_BITS = np.uint64(33)


@jit
def drift_taste(p, taste, item_code, satisfaction):
    """Taste moves towards what satisfied and away from what did not.

    With g = 2 sigma(y) - 1: w <- w + drift g (target - w) for g > 0, and w <- w + drift g target otherwise, where
    target is the taste that this item alone would form.
    """
    g = TWO * sigmoid(satisfaction) - ONE
    rate = p["drift"] * g
    gain = p["drift_gain"] * p["drift_target"]
    for d in range(taste.shape[0]):
        target = gain * np.float32(item_code[d])
        change = target - taste[d] if g > ZERO else target
        taste[d] = clip(taste[d] + rate * change, -LIMIT, LIMIT)


@jit
def evolve(p, key, lane, taste, item_code, satisfaction):
    """What consuming an item does to a user beyond satiation, memory and mood. Replaced by a registered dynamics."""
    if p["drift"] > ZERO:
        drift_taste(p, taste, item_code, satisfaction)


@jit
def encode_taste(taste, code):
    """Rounds taste to the integers that utilities are computed from."""
    for d in range(taste.shape[0]):
        code[d] = np.int16(np.rint(taste[d]))


@jit
def note_interest(p, interest, item_code):
    """Public mean of engaged encodings: z <- z + interest_rate (x - z)."""
    for d in range(interest.shape[0]):
        interest[d] += p["interest_rate"] * (np.float32(item_code[d]) - interest[d])


@jit
def note_sameness(lane, topic):
    """Public: whether the consumed item has the topic of the one before."""
    if lane["last_topic"] >= 0:
        same = ONE if topic == lane["last_topic"] else ZERO
        lane["sameness"] += SAMENESS_RATE * (same - lane["sameness"])
    lane["last_topic"] = topic


@jit
def pass_time(p, lane, satiation, seconds):
    """Moves the clock on; satiation wears off."""
    lane["clock"] += np.int32(seconds)
    left = exp(-seconds / (p["satiation_life"] * SECONDS_PER_HOUR))
    for t in range(satiation.shape[0]):
        satiation[t] *= left
    if p["blindness"] != ZERO:
        lane["blindness"] *= exp(-seconds / (p["blindness_life"] * SECONDS_PER_HOUR))


@jit
def update_mood(p, lane, satisfaction):
    """The constant-step rule m <- m + alpha (y - m)."""
    mood = lane["mood"] + p["mood_rate"] * (satisfaction - lane["mood"])
    lane["mood"] = clip(mood, -MOOD_LIMIT, MOOD_LIMIT)


@jit
def update_public_counts(lane, clicks, examined):
    """Counters that the platform itself can keep."""
    lane["clicks"] = clicks
    lane["examined"] = examined
    lane["total_clicks"] += clicks
    lane["total_examined"] += examined
    lane["idle"] = 0 if clicks > 0 else lane["idle"] + 1
    share = ONE if clicks > 0 else ZERO
    lane["engagement"] += ENGAGEMENT_RATE * (share - lane["engagement"])


@jit
def new_budget(p, key):
    """Time that a user has for a session [s], lognormal."""
    return p["session_time"] * exp(p["session_spread"] * normal(key, BUDGET))


@jit
def leaves(p, key, lane):
    """Whether the session ends: the budget is spent, or by chance, rather when the mood is bad."""
    if lane["budget"] <= ZERO:
        return True
    return uniform(key, LEAVE) < sigmoid(p["leave"] - p["leave_mood"] * lane["mood"])


@jit
def churns(p, key, lane):
    """Whether a user who ended a session never comes back."""
    return uniform(key, CHURN) < sigmoid(p["churn"] - p["churn_mood"] * lane["mood"])


@jit
def come_back(p, key, lane, taste, code, satiation):
    """Between two sessions: an exponential gap, shorter for satisfied users; interests diffuse, moods calm down."""
    mean = p["gap"] * SECONDS_PER_HOUR * exp(-p["gap_mood"] * lane["mood"])
    seconds = np.float32(np.rint(clip(-log(uniform(key, GAP)) * mean, SHORTEST_GAP, LONGEST_GAP * SECONDS_PER_DAY)))
    pass_time(p, lane, satiation, seconds)
    days = seconds / SECONDS_PER_DAY
    lane["away"] = days
    lane["mood"] *= exp(-days / p["mood_life"])
    lane["session"] += 1
    lane["session_step"] = 0
    lane["budget"] = new_budget(p, key)
    lane["idle"] = 0
    if p["diffusion"] > ZERO:
        size = p["diffusion"] * p["taste_spread"] * exp(HALF * log(days))
        for d in range(taste.shape[0]):
            taste[d] = clip(taste[d] + size * triangular(key, DIFFUSE + d), -LIMIT, LIMIT)
        encode_taste(taste, code)


FASHION = 1 << 26
"""Key of the draws that decide whose taste everybody shifts to: the same for every user and seed."""


@jit
def whose_taste(p, lane, users, regime):
    """The user whose taste is aimed at after a number of shifts: her own at first, and at every other one if recurring.

    ``users`` is U.
    """
    if p["shift"] == RECURRING:
        regime = regime % 2
    if regime == 0:
        return np.int64(lane["user"])
    stream = np.uint64(FASHION) if p["shift_common"] else lane["stream"]
    return np.int64(bits(stream, SHIFT + regime) >> HIGH_BITS) % users


@jit
def shift_taste(p, lane, user_codes, taste, code):
    """Moves taste at (abrupt, recurring) or towards (gradual) the change points of the task variant.

    With w_j = (1 - s) w_u + s w_{v_j}, where u is the user, v_j the user of the j-th shift and s is drift_size: abrupt
    drift adds w_j - w_{j-1} at the j-th change point, gradual drift a part 1 / drift_period of it at every step.
    """
    done = lane["step"] - 1
    regime = done // p["shift_period"]
    lane["regime"] = regime
    if p["shift"] == GRADUAL:
        before, after = regime, regime + 1
        share = ONE / np.float32(p["shift_period"])
        part = np.float32(done % p["shift_period"] + 1) * share
    else:
        if regime == 0 or done % p["shift_period"] != 0:
            return
        before, after, share, part = regime - 1, regime, ONE, ONE
    own = user_codes[lane["user"]]
    old = user_codes[whose_taste(p, lane, user_codes.shape[0], before)]
    new = user_codes[whose_taste(p, lane, user_codes.shape[0], after)]
    size = p["shift_size"]
    for d in range(taste.shape[0]):
        taste[d] = clip(taste[d] + share * size * (np.float32(new[d]) - np.float32(old[d])), -LIMIT, LIMIT)
    encode_taste(taste, code)
    for d in range(taste.shape[0], code.shape[0]):
        aim = np.float32(old[d]) + part * (np.float32(new[d]) - np.float32(old[d]))
        code[d] = np.int16(np.rint(np.float32(own[d]) + size * (aim - np.float32(own[d]))))
