"""Feedback: everything that a consumed item makes a user do, all at once."""

from __future__ import annotations

import numpy as np

from recsim_llm.simulator.jit import jit
from recsim_llm.simulator.maths import ONE, ZERO, exp, sigmoid
from recsim_llm.simulator.scoring import clip, price_pain
from recsim_llm.simulator.streams import CART, DWELL, LIKE, PURCHASE, RATING, SHARE, normal, slot_channel, uniform

# Columns of the feedback array, in the order of params.SIGNALS, and of the rewards, params.REWARD_TERMS.
CLICKED, DWELLED, LIKED, SHARED, CARTED, PURCHASED, RATED, SKIPPED = range(8)
SIGNAL_COUNT = 8
REVENUE, SATISFACTION, RETURNED, CHURNED = range(8, 12)

MINUTE = np.float32(60.0)
LONGEST_DWELL = np.float32(7200.0)  # [s]
HALF_SLOPE = np.float32(0.5)
MIDDLE_STAR = np.float32(3.0)
FIVE_STARS = np.float32(5.0)
LARGEST_EXPONENT = np.float32(20.0)

# Nodes and weights of the 5-point Gauss-Hermite rule for a standard normal.
NODES = np.array([-2.8569700138728056, -1.355626179974266, 0.0, 1.355626179974266, 2.8569700138728056], np.float32)
NODE_WEIGHTS = np.array(
    [0.011257411327720682, 0.22207592200561266, 0.5333333333333333, 0.22207592200561266, 0.011257411327720682],
    np.float32,
)


@jit
def stars(p, satisfaction):
    """Rating of an item, 1 to 5."""
    return clip(np.float32(np.rint(MIDDLE_STAR + p["rating_slope"] * satisfaction)), ONE, FIVE_STARS)


@jit
def dwell_seconds(p, satisfaction, z):
    """Time spent on an item [s], at least one second; z is a standard normal draw."""
    exponent = p["dwell_satisfaction"] * satisfaction + p["dwell_spread"] * z
    return clip(np.float32(np.rint(p["dwell_time"] * exp(min(exponent, LARGEST_EXPONENT)))), ONE, LONGEST_DWELL)


@jit
def consume(p, key, slot, item, user, satisfaction, money, out):
    """Writes the signals of a clicked item into ``out`` [S]. She buys nothing that costs more than ``money``."""
    out[CLICKED] = ONE
    out[DWELLED] = dwell_seconds(p, satisfaction, normal(key, slot_channel(DWELL, slot)))
    out[LIKED] = np.float32(uniform(key, slot_channel(LIKE, slot)) < sigmoid(satisfaction - p["like"]))
    out[SHARED] = np.float32(uniform(key, slot_channel(SHARE, slot)) < sigmoid(satisfaction - p["share"]))
    wish = satisfaction - price_pain(p, item, user)
    if uniform(key, slot_channel(CART, slot)) < sigmoid(wish - p["cart"]):
        out[CARTED] = ONE
        if item["price"] <= money:
            out[PURCHASED] = np.float32(uniform(key, slot_channel(PURCHASE, slot)) < sigmoid(wish - p["purchase"]))
    if uniform(key, slot_channel(RATING, slot)) < p["rating_rate"]:
        out[RATED] = stars(p, satisfaction)


@jit
def slot_reward(weights, signals, revenue):
    """The public part of the reward of one slot: weighted signals (dwell in minutes) and revenue."""
    value = weights[DWELLED] * signals[DWELLED] / MINUTE + weights[REVENUE] * revenue
    for s in range(SIGNAL_COUNT):
        if s != DWELLED:
            value += weights[s] * signals[s]
    return value


@jit
def expected_reward(p, weights, item, user, satisfaction, money, per_click, per_purchase):
    """Expected reward of a click less that of a skip, over the noise of satisfaction (5-point Gauss-Hermite).

    ``money`` is what she can spend; the last two are the revenue of a click and of a purchase.
    """
    value = weights[CLICKED] + weights[SATISFACTION] * satisfaction - weights[SKIPPED] + weights[REVENUE] * per_click
    others = abs(weights[REVENUE])
    for s in range(DWELLED, SKIPPED):
        others += abs(weights[s])
    if others == ZERO:  # most rewards: nothing depends on the noise
        return value
    pain = price_pain(p, item, user)
    spread_gain = exp(HALF_SLOPE * p["dwell_spread"] * p["dwell_spread"])
    for n in range(5):
        y = satisfaction + p["noise"] * NODES[n]
        dwell = min(p["dwell_time"] * spread_gain * exp(p["dwell_satisfaction"] * y), LONGEST_DWELL)
        carted = sigmoid(y - pain - p["cart"])
        bought = carted * sigmoid(y - pain - p["purchase"]) if item["price"] <= money else ZERO
        value += NODE_WEIGHTS[n] * (
            weights[DWELLED] * dwell / MINUTE
            + weights[LIKED] * sigmoid(y - p["like"])
            + weights[SHARED] * sigmoid(y - p["share"])
            + weights[CARTED] * carted
            + (weights[PURCHASED] + weights[REVENUE] * per_purchase) * bought
            + weights[RATED] * p["rating_rate"] * stars(p, y)
        )
    return value
