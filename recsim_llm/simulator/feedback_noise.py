"""What the recommender is told: feedback that is noisy, missing, late or private (local differential privacy)."""

from __future__ import annotations

import numpy as np

from recsim_llm.simulator.feedback import CLICKED, DWELLED, PURCHASED, SATISFACTION, SKIPPED, slot_reward
from recsim_llm.simulator.jit import jit
from recsim_llm.simulator.maths import ONE, ZERO
from recsim_llm.simulator.streams import REPORT, uniform
from recsim_llm.simulator.user_dynamics import note_interest, note_sameness, update_public_counts

FLIP, LOSE, DRAWS = 0, 1, 4
REVENUE_AT, SATISFACTION_AT = -2, -1


@jit
def report_bit(p, clicked, revenue, out):
    """All signals as they follow from the reported click alone, for everybody the same: nothing else leaks."""
    for s in range(out.shape[0]):
        out[s] = ZERO
    if clicked:
        out[CLICKED] = ONE
        out[DWELLED] = p["dwell_time"]
        out[REVENUE_AT] = revenue
    else:
        out[SKIPPED] = ONE


@jit
def distort(p, key, k, index, signals, revenue, satisfaction, per_click, out):
    """Writes what is reported of slot k, out [S + 2] with revenue and satisfaction last, from the true signals [S].

    Randomised response for noise and for privacy: the click is reported wrongly with probability flip. A click that is
    reported rightly comes with everything else that was observed, unless only the bit may leave the device.
    ``per_click`` is the revenue of a click as such.
    """
    for s in range(out.shape[0]):
        out[s] = ZERO
    if index < 0:
        return
    if p["missing"] > ZERO and uniform(key, REPORT + DRAWS * k + LOSE) < p["missing"]:
        return
    wrong = p["flip"] > ZERO and uniform(key, REPORT + DRAWS * k + FLIP) < p["flip"]
    clicked = (signals[CLICKED] > ZERO) != wrong
    if wrong or p["bit_only"] == 1:
        report_bit(p, clicked, per_click, out)
    else:
        for s in range(signals.shape[0]):
            out[s] = signals[s]
        out[REVENUE_AT] = revenue
        out[SATISFACTION_AT] = satisfaction


@jit
def deliver(p, lane, weights, items, item_codes, interest, ring, ring_slate, reported, reported_slate, rewards):
    """Hands over what is due from the ring [L, K, S + 2]: signals, slate, history of the user. Returns the reward."""
    length = ring.shape[0]
    due = lane["step"] - (length - 1)
    clicks, seen, total, satisfied = 0, 0, ZERO, ZERO
    for k in range(reported.shape[0]):
        cell = ring[due % length, k]
        index = ring_slate[due % length, k] if due > 0 else -1
        reported_slate[k] = index
        rewards[k] = ZERO
        for s in range(reported.shape[1]):
            reported[k, s] = cell[s] if index >= 0 else ZERO
        if index < 0:
            continue
        rewards[k] = slot_reward(weights, reported[k], cell[REVENUE_AT])
        total += rewards[k]
        satisfied += cell[SATISFACTION_AT]
        seen += reported[k, CLICKED] > ZERO or reported[k, SKIPPED] > ZERO
        lane["purchases"] += np.int32(reported[k, PURCHASED])
        lane["revenue"] += cell[REVENUE_AT]
        if reported[k, CLICKED] > ZERO:
            clicks += 1
            if not lane["opted_out"]:
                note_interest(p, interest, item_codes[index])
            note_sameness(lane, items[index]["topic"])
    update_public_counts(lane, clicks, seen)
    return total + weights[SATISFACTION] * satisfied
