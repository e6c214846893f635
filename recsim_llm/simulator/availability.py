"""What can be shown and what attracts, everything taken together: items, their providers, what the user bought."""

from __future__ import annotations

import numpy as np

from recsim_llm.simulator.choice import WASTED
from recsim_llm.simulator.feedback import expected_reward
from recsim_llm.simulator.jit import jit, kernel
from recsim_llm.simulator.maths import ZERO, exp
from recsim_llm.simulator.providers import ENOUGH, buzz_of, left_to_spend, stops_at
from recsim_llm.simulator.scoring import (
    SECONDS_PER_DAY,
    attraction,
    available,
    day_of,
    expected_satisfaction,
    utility_for,
)
from recsim_llm.simulator.streams import chain, uniform

SECONDS_PER_MONTH = 30 * 86400
HELD_BACK = 1 << 25
"""Key of the draws that decide which items are released during the episode: the same for every user and seed."""


@jit
def on_shelf(p, item, trade, budgets, provider, lane, day):
    """Whether an item can be shown: released, not withdrawn, by a provider who still publishes and can pay."""
    if not available(p, item, day):
        return False
    if p["audience_life"] > ZERO and item["released_at"] > stops_at(p, provider[trade["provider"]], lane):
        return False
    if p["bids"] > ZERO:
        g = trade["provider"]
        return left_to_spend(p, budgets[g], provider[g], lane, day) > ZERO
    return True


@jit
def pull(p, item, trade, index, base, user, lane, mine, day):
    """Attraction of an item on the shelf with everything that the scenario adds [logit]."""
    _, _, _, satiation, memory, provider, owned = mine
    value = attraction(p, item, index, base, user, lane, satiation, memory, day)
    return scenario_pull(p, value, item, trade, lane, provider, owned)


@jit
def scenario_pull(p, value, item, trade, lane, provider, owned):
    """Attraction with what blindness, the provider's buzz and earlier purchases add to ``value`` [logit]."""
    if p["blindness"] != ZERO:
        value -= p["blindness"] * lane["blindness"]
    if p["buzz"] != ZERO:
        value += p["buzz"] * buzz_of(p, provider[trade["provider"]], lane)
    if p["owned"] != ZERO:
        bought = owned[item["topic"]]
        if bought >= 0:
            days = np.float32(lane["clock"] - bought) / SECONDS_PER_DAY
            value -= p["owned"] * exp(-days / p["owned_life"])
    return value


@jit
def money_left(p, user, lane):
    """What a user can still spend in this month."""
    if p["wallet"] <= ZERO or user["wallet"] <= ZERO:
        return ENOUGH
    month = (lane["clock"] - lane["began"]) // SECONDS_PER_MONTH
    spent = lane["spent"] if month == lane["month"] else ZERO
    return p["wallet"] * user["wallet"] - spent


@jit
def pay(p, item, lane, topic, owned):
    """A user buys an item: her money goes down, and she needs no other of this kind for a while."""
    if p["wallet"] > ZERO:
        month = (lane["clock"] - lane["began"]) // SECONDS_PER_MONTH
        if month != lane["month"]:
            lane["month"] = month
            lane["spent"] = ZERO
        lane["spent"] += item["price"]
    if p["owned"] != ZERO:
        owned[topic] = lane["clock"]


@kernel
def write_available(p1, table, released, lanes, providers, out):
    """Which items are on the shelf for each lane, out [B, I].

    ``released`` [I] are the items' release days side by side, so that many are compared at a time.
    """
    items, _, trades, budgets = table[:4]
    p = p1[0]
    longest = p["shelf_life"] if p["shelf_life"] > ZERO else np.float32(np.inf)
    for b in range(out.shape[0]):
        day = day_of(p, lanes[b])
        if p["audience_life"] > ZERO or p["bids"] > ZERO:
            for i in range(out.shape[1]):
                out[b, i] = on_shelf(p, items[i], trades[i], budgets, providers[b], lanes[b], day)
        else:
            for i in range(out.shape[1]):
                age = day - released[i]
                out[b, i] = (age >= ZERO) & (age <= longest)


@jit
def truth_of(p, weights, i, table, lane, user, mine, day, money):
    """Attraction of an item and expected reward of a click on it, for one user at one moment."""
    items, _, trades, budgets = table[:4]
    item, trade, provider = items[i], trades[i], mine[5]
    base = utility_for(p, p["mu"] + user["bias"], table, lane["user"], i, mine[1])
    appeal = np.float32(WASTED)
    if on_shelf(p, item, trade, budgets, provider, lane, day):
        appeal = np.float32(pull(p, item, trade, i, base, user, lane, mine, day))
    per_click, per_purchase = ZERO, item["price"]
    if p["bids"] > ZERO:
        g = trade["provider"]
        paid = p["bids"] * min(trade["bid"], left_to_spend(p, budgets[g], provider[g], lane, day))
        per_click = ZERO if trade["on_purchase"] == 1 else paid
        per_purchase = paid if trade["on_purchase"] == 1 else ZERO
    satisfaction = expected_satisfaction(p, item, base)
    return appeal, expected_reward(p, weights, item, user, satisfaction, money, per_click, per_purchase)


@kernel
def write_truth(p1, weights, table, state, listed, appeal, value):
    """The latent truth for each lane: attraction of items and expected reward of a click on them, [B, N] each.

    ``listed`` [B, N] says which items; without columns they are all items in their order.
    """
    users = table[4]
    lanes, tastes, codes, interests, satiations, memories, _, _, providers, owneds = state[:10]
    p = p1[0]
    for b in range(appeal.shape[0]):
        lane = lanes[b]
        day = day_of(p, lane)
        user = users[lane["user"]]
        mine = (tastes[b], codes[b], interests[b], satiations[b], memories[b], providers[b], owneds[b])
        money = money_left(p, user, lane)
        for n in range(appeal.shape[1]):
            i = n if listed.shape[1] == 0 else listed[b, n]
            appeal[b, n], value[b, n] = truth_of(p, weights, i, table, lane, user, mine, day, money)


@kernel
def write_living(p1, lanes, providers, out):
    """How many providers still publish in each lane, out [B]."""
    p = p1[0]
    for b in range(out.shape[0]):
        day = day_of(p, lanes[b])
        out[b] = 0
        for g in range(providers.shape[1]):
            out[b] += stops_at(p, providers[b, g], lanes[b]) >= day


@kernel
def write_spending(p1, lanes, providers, budgets, out):
    """Spent today and budget of one day, over all providers with a budget, out [B, 2]."""
    p = p1[0]
    for b in range(out.shape[0]):
        day = day_of(p, lanes[b])
        out[b, 0] = 0.0
        out[b, 1] = 0.0
        for g in range(providers.shape[1]):
            if budgets[g] > ZERO:
                left = left_to_spend(p, budgets[g], providers[b, g], lanes[b], day)
                out[b, 0] += np.float64(budgets[g] - left)
                out[b, 1] += np.float64(budgets[g])


@kernel
def write_leaning(tastes, centres, unit, out):
    """Utility of the middle of each theme [T, D] for the taste of each lane, out [B, T] [logit]."""
    for b in range(out.shape[0]):
        for t in range(out.shape[1]):
            total = ZERO
            for d in range(centres.shape[1]):
                total += centres[t, d] * tastes[b, d]
            out[b, t] = unit * total


@kernel
def hold_back(items, share, first, days):
    """Moves the release of a share of the items into the episode: evenly over ``days`` from day ``first``."""
    for i in range(items.shape[0]):
        key = chain(np.uint64(HELD_BACK), i)
        if uniform(key, 0) < share:
            items[i]["released_at"] = first + days * uniform(key, 1)
