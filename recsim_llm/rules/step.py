"""One step of one user, and the fused loop that applies it to all lanes in place."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import numpy as np

from recsim_llm.rules.choice import WASTED, choose
from recsim_llm.rules.dynamics import (
    churns,
    come_back,
    encode_taste,
    evolve,
    leaves,
    note_interest,
    note_sameness,
    pass_time,
    remember,
    shift_taste,
    update_mood,
    update_public_counts,
)
from recsim_llm.rules.feedback import (
    CHURNED,
    CLICKED,
    DWELLED,
    LIKED,
    PURCHASED,
    RETURNED,
    SATISFACTION,
    SHARED,
    SKIPPED,
    consume,
    slot_reward,
)
from recsim_llm.rules.jit import jit, kernel
from recsim_llm.rules.maths import ONE, ZERO
from recsim_llm.rules.observe import observe
from recsim_llm.rules.providers import charge, gain_audience
from recsim_llm.rules.report import deliver, distort
from recsim_llm.rules.rng import NOISE, chain, normal, slot_channel
from recsim_llm.rules.shelf import money_left, on_shelf, pay, pull
from recsim_llm.rules.utility import day_of, expected_satisfaction, repetition, utility


@jit
def sort_out(p, table, lane, action, slate, topics, provider, day):
    """Marks wasted slots, -1: an item for the second time, or one off the shelf. Notes how different the topics are.

    ``topics`` [K] is scratch.
    """
    items, _, trades, budgets = table[:4]
    same, shown = 0, 0
    for k in range(action.shape[0]):
        index = action[k]
        slate[k], topics[k] = -1, -1
        if index < 0:  # an empty place of a candidate list
            continue
        item = items[index]
        topic = item["topic"]
        twice, alike = False, 0
        for j in range(k):
            twice |= slate[j] == index
            alike += topics[j] == topic
        if not twice and on_shelf(p, item, trades[index], budgets, provider, lane, day):
            slate[k], topics[k] = index, topic
            same += alike
            shown += 1
    pairs = shown * (shown - 1) // 2
    lane["wasted"] = action.shape[0] - shown
    lane["diversity"] = ONE - np.float32(same) / np.float32(pairs) if pairs > 0 else ZERO


@jit
def take_item(p, key, k, index, table, base, user, lane, mine, signals):
    """The user consumes the item of slot k. Returns her satisfaction and what it earns."""
    items, item_codes, trades, budgets = table[:4]
    taste, _, interest, satiation, memory, provider, owned = mine
    item, item_code = items[index], item_codes[index]
    satisfaction = expected_satisfaction(p, item, base)
    if p["noise"] > ZERO:
        satisfaction += p["noise"] * normal(key, slot_channel(NOISE, k))
    consume(p, key, k, item, user, satisfaction, money_left(p, user, lane), signals)
    topic = item["topic"]
    revenue = signals[PURCHASED] * item["price"]
    if signals[PURCHASED] > ZERO:
        pay(p, item, lane, topic, owned)
    if p["bids"] > ZERO:
        g = trades[index]["provider"]
        revenue = charge(p, trades[index], budgets[g], provider[g], lane, signals[CLICKED], signals[PURCHASED])
    lane["budget"] -= signals[DWELLED]
    satiation[topic] = min(satiation[topic] + p["satiation_click"], ONE)
    remember(p, memory, index, lane["clock"], ONE, ZERO)
    if p["reports"] == 0:
        if not lane["opted_out"]:
            note_interest(p, interest, item_code)
        note_sameness(lane, topic)
    evolve(p, key, lane, taste, item_code, satisfaction)
    return satisfaction, revenue


@jit
def pass_over(p, index, item, lane, satiation, memory, signals):
    """The user looks at an item and leaves it."""
    signals[SKIPPED] = ONE
    topic = item["topic"]
    satiation[topic] = min(satiation[topic] + p["satiation_look"], ONE)
    left = repetition(p, memory, index, lane["clock"])
    remember(p, memory, index, lane["clock"], p["repeat_look"], left)
    lane["blindness"] += p["blindness_look"] * (ONE - lane["blindness"])


@jit
def react(p, key, weights, table, user, lane, mine, slate, scratch, out):
    """Choice and feedback for a slate, with what they do to taste, satiation and memory. Returns the reward.

    ``table`` is (items, item codes, trades, budgets, users, user codes, profile codes), ``mine`` one lane's (taste,
    code, interest, satiation, memory, providers, owned); ``scratch`` is (attraction [K], utility [K], attention [K],
    examined [K], clicked [K], topics [K]), and utility holds the satisfaction of clicked slots afterwards; ``out`` is
    (signals [K, S], reward [K], revenue [K]).
    """
    items, item_codes, trades = table[:3]
    taste, code, _, satiation, memory, provider, _ = mine
    attractions, bases, attention, examined, clicked, _ = scratch
    signals, rewards, revenues = out
    day = day_of(p, lane)
    slots = slate.shape[0]
    for k in range(slots):
        attractions[k] = WASTED
        index = slate[k]
        if index >= 0:
            bases[k] = utility(p, items[index], item_codes[index], user, code)
            attractions[k] = pull(p, items[index], trades[index], index, bases[k], user, lane, mine, day)
    choose(key, attractions, attention, p, examined, clicked)
    total, satisfied, clicks, looks, dwell, earned = ZERO, ZERO, 0, 0, ZERO, ZERO
    for k in range(slots):
        for s in range(signals.shape[1]):
            signals[k, s] = ZERO
        rewards[k] = ZERO
        revenues[k] = ZERO
        if not examined[k]:
            continue
        index = slate[k]
        looks += 1
        if clicked[k]:
            y, revenues[k] = take_item(p, key, k, index, table, bases[k], user, lane, mine, signals[k])
            bases[k] = y
            clicks += 1
            satisfied += y
            dwell += signals[k, DWELLED]
            earned += revenues[k]
            lane["purchases"] += np.int32(signals[k, PURCHASED]) if p["reports"] == 0 else 0
            update_mood(p, lane, y)
        else:
            pass_over(p, index, items[index], lane, satiation, memory, signals[k])
        if p["audience_life"] > ZERO or p["buzz"] != ZERO:
            gain = p["audience_look"] + p["audience_click"] * signals[k, CLICKED]
            cell = provider[trades[index]["provider"]]
            gain_audience(p, cell, lane, gain, signals[k, LIKED], signals[k, SHARED])
        rewards[k] = slot_reward(weights, signals[k], revenues[k])
        total += rewards[k]
    if clicks > 0:
        encode_taste(taste, code)
        lane["satisfaction"] = satisfied / np.float32(clicks)
    else:
        lane["satisfaction"] = ZERO
        update_mood(p, lane, p["mood_skip"])
    lane["revenue"] = earned
    if p["reports"] == 0:
        update_public_counts(lane, clicks, looks)
    seconds = np.float32(np.rint(p["look_time"] * np.float32(max(looks, 1))))
    lane["budget"] -= seconds
    pass_time(p, lane, satiation, seconds + dwell)
    return total, weights[SATISFACTION] * satisfied


@jit
def tell(p, key, weights, table, lane, interest, slate, satisfactions, out, late):
    """Reports the feedback of this step as the protocol has it. Returns the slots' reward as the recommender sees it.

    ``satisfactions`` [K] are of the clicked slots; ``late`` is (ring [L, K, S + 2], its slates [L, K], reported [K, S],
    reported slate [K]).
    """
    items, item_codes, trades = table[:3]
    signals, rewards, revenues = out
    ring, ring_slate, reported, reported_slate = late
    place = lane["step"] % ring.shape[0]
    for k in range(slate.shape[0]):
        index = slate[k]
        per_click = ZERO
        if index >= 0 and p["bids"] > ZERO and trades[index]["on_purchase"] == 0:
            per_click = p["bids"] * trades[index]["bid"]
        felt = satisfactions[k] if signals[k, CLICKED] > ZERO else ZERO
        distort(p, key, k, index, signals[k], revenues[k], felt, per_click, ring[place, k])
        ring_slate[place, k] = index
    lane["revenue"] = ZERO
    return deliver(p, lane, weights, items, item_codes, interest, ring, ring_slate, reported, reported_slate, rewards)


@jit
def step_lane(p, weights, table, lane, mine, action, slate, scratch, out, late):
    """One step of one user. Returns (reward, whether she left for good)."""
    users, user_codes = table[4], table[5]
    taste, code, interest, satiation, _, provider, _ = mine
    lane["step"] += 1
    lane["session_step"] += 1
    key = chain(lane["stream"], lane["step"])
    user = users[lane["user"]]
    if p["shift"] > 0:
        shift_taste(p, lane, user_codes, taste, code)
    sort_out(p, table, lane, action, slate, scratch[5], provider, day_of(p, lane))
    shown, felt = react(p, key, weights, table, user, lane, mine, slate, scratch, out)
    told, other, left = shown + felt, ZERO, False
    if p["reports"] == 1:  # before she leaves: what she comes back to has no idle step yet
        told = tell(p, key, weights, table, lane, interest, slate, scratch[1], out, late)
    if leaves(p, key, lane):
        left = churns(p, key, lane)
        if left:
            other += weights[CHURNED]
        else:
            come_back(p, key, lane, taste, code, satiation)
            other += weights[RETURNED]
    reward = shown + (felt + other)
    lane["reported"] = told + other if p["reports"] == 1 else reward
    return reward, left


@kernel
def step_lanes(low, high, p1, weights, table, state, scratch, actions, observation, slot_rewards, rewards, terminated):
    """Steps the lanes low..high-1 in place. Lanes whose episode is over are left alone.

    ``table`` and ``scratch`` are as in :func:`react`, ``scratch`` for this call alone and with the revenue of each slot
    as its last array; ``state`` has the arrays of State in the simulator's order.
    """
    (
        lanes, tastes, codes, interests, satiations, memories, feedbacks, slates, providers, owneds, late, late_slate,
        reported, reported_slate,
    ) = state  # fmt: skip
    p = p1[0]
    reports = p["reports"] == 1
    for b in range(low, high):
        lane = lanes[b]
        rewards[b] = 0.0
        terminated[b] = False
        if lane["ended"]:
            continue
        mine = (tastes[b], codes[b], interests[b], satiations[b], memories[b], providers[b], owneds[b])
        seen = b if reports else 0
        told = (late[b], late_slate[b], reported[seen], reported_slate[seen])
        out = (feedbacks[b], slot_rewards[b], scratch[6])
        reward, left = step_lane(p, weights, table, lane, mine, actions[b], slates[b], scratch[:6], out, told)
        rewards[b] = np.float64(reward)
        terminated[b] = left
        if reports:
            observe(p, lane, interests[b], reported[b], observation[b])
        else:
            observe(p, lane, interests[b], feedbacks[b], observation[b])


def build_step(choice: Callable[..., Any] | None = None, dynamics: Callable[..., Any] | None = None) -> Any:
    """The fused step with other rules for choice or for what consuming does to taste.

    Args:
        choice: Plain Python function ``(key, attraction [K], attention [K], p, examined [K], clicked [K])``.
        dynamics: Plain Python function ``(p, key, lane, taste [D], item_code [W], satisfaction)``.

    Returns:
        A compiled function with the signature of :func:`step_lanes`, not kept between processes.
    """
    if choice is None and dynamics is None:
        return step_lanes
    scope = dict(globals())
    if choice is not None:
        scope["choose"] = _compiled(choice)
    if dynamics is not None:
        scope["evolve"] = _compiled(dynamics)
    for name in ("take_item", "react", "step_lane", "step_lanes"):
        scope[name] = jit(_with_globals(_plain(scope[name]), scope))
    return scope["step_lanes"]


def _compiled(function: Callable[..., Any]) -> Any:
    return function if hasattr(function, "py_func") else jit(function)


def _plain(function: Any) -> types.FunctionType:
    plain: types.FunctionType = getattr(function, "py_func", function)
    return plain


def _with_globals(function: types.FunctionType, scope: dict[str, Any]) -> types.FunctionType:
    return types.FunctionType(function.__code__, scope, function.__name__, function.__defaults__, function.__closure__)
