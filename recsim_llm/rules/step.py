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
    new_budget,
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
from recsim_llm.rules.observe import observe, write_profile
from recsim_llm.rules.providers import charge, gain_audience
from recsim_llm.rules.report import deliver, distort
from recsim_llm.rules.rng import NOISE, OPT_OUT, START, WARM, bits, chain, normal, slot_channel, uniform
from recsim_llm.rules.shelf import money_left, on_shelf, pay, pull
from recsim_llm.rules.utility import available, day_of, expected_satisfaction, repetition, utility

DAY = np.float32(86400.0)
HIGH_BITS = np.uint64(33)
USER_CHANNEL = 0
WARM_CHOICES = 5
"""Items out of which a user engages with one, in the history before the episode."""


@jit
def opts_out(p, user):
    """Whether a user has opted out: the same users in every episode and with every seed."""
    return p["opt_out"] > ZERO and uniform(chain(np.uint64(OPT_OUT), user), OPT_OUT) < p["opt_out"]


@jit
def begin_lane(p, lane, cohort, wish):
    """Starts the next episode of a lane: a user of the cohort (or ``wish`` >= 0), at a random time of day."""
    lane["episode"] += 1
    key = chain(chain(lane["seed"], 0), lane["episode"])
    user = cohort[np.int64(bits(key, USER_CHANNEL) >> HIGH_BITS) % cohort.shape[0]] if wish < 0 else wish
    lane["user"] = user
    lane["stream"] = chain(key, np.int64(user) + 1)
    lane["step"] = 0
    lane["session"] = 0
    lane["session_step"] = 0
    lane["clicks"] = 0
    lane["examined"] = 0
    lane["wasted"] = 0
    lane["total_clicks"] = 0
    lane["total_examined"] = 0
    lane["purchases"] = 0
    lane["idle"] = 0
    lane["month"] = 0
    lane["regime"] = 0
    lane["last_topic"] = -1
    lane["away"] = ZERO
    lane["mood"] = ZERO
    lane["engagement"] = ZERO
    lane["sameness"] = ZERO
    lane["satisfaction"] = ZERO
    lane["diversity"] = ZERO
    lane["blindness"] = ZERO
    lane["revenue"] = ZERO
    lane["reported"] = ZERO
    lane["spent"] = ZERO
    lane["ended"] = False
    lane["opted_out"] = opts_out(p, user)
    lane["clock"] = np.int32(uniform(lane["stream"], START) * DAY)
    lane["began"] = lane["clock"]
    lane["budget"] = new_budget(p, lane["stream"])


@jit
def begin_user(p, lane, user_code, mine):
    """Rested, with the taste of the population's table and nothing remembered."""
    taste, code, interest, satiation, memory, _, owned = mine
    for d in range(code.shape[0]):
        code[d] = user_code[d]
    for d in range(taste.shape[0]):
        taste[d] = np.float32(code[d])
        interest[d] = ZERO
    for t in range(satiation.shape[0]):
        satiation[t] = ZERO
    for t in range(owned.shape[0]):
        owned[t] = -1
    for m in range(memory.shape[0]):
        memory[m]["item"] = -1


@jit
def warm_up(p, lane, items, item_codes, user, code, interest):
    """History before the episode: the recommender has seen what she liked best among a few random items, n times."""
    day = day_of(p, lane)
    for n in range(p["warm_start"]):
        best, highest = -1, WASTED
        for j in range(WARM_CHOICES):
            word = bits(lane["stream"], WARM + n * WARM_CHOICES + j)
            index = np.int64(word >> HIGH_BITS) % items.shape[0]
            if available(p, items[index], day):
                value = utility(p, items[index], item_codes[index], user, code)
                if value > highest:
                    best, highest = index, value
        if best >= 0:
            note_interest(p, interest, item_codes[best])


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
    examined [K], clicked [K], topics [K]); ``out`` is (signals [K, S], reward [K], revenue [K]).
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
def tell(p, key, weights, table, lane, interest, slate, out, late):
    """Reports the feedback of this step as the protocol has it. Returns the slots' reward as the recommender sees it.

    ``late`` is (ring [L, K, S + 1], its slates [L, K], reported [K, S], reported slate [K]).
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
        distort(p, key, k, index, signals[k], revenues[k], per_click, ring[place, k])
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
    shown, other = react(p, key, weights, table, user, lane, mine, slate, scratch, out)
    left = False
    if leaves(p, key, lane):
        left = churns(p, key, lane)
        if left:
            other += weights[CHURNED]
        else:
            come_back(p, key, lane, taste, code, satiation)
            other += weights[RETURNED]
    lane["reported"] = shown + other
    if p["reports"] == 1:
        lane["reported"] = other + tell(p, key, weights, table, lane, interest, slate, out, late)
    return shown + other, left


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


@kernel
def reset_lanes(p1, table, state, cohort, mask, wishes, observation, slot_rewards):
    """Begins an episode in every lane of the mask [B]; ``wishes`` [B] names users, or -1 to draw them."""
    items, item_codes, _, _, users, user_codes, profile_codes = table
    (
        lanes, tastes, codes, interests, satiations, memories, feedbacks, slates, providers, owneds, _, _, reported,
        reported_slate,
    ) = state  # fmt: skip
    p = p1[0]
    for b in range(mask.shape[0]):
        if not mask[b]:
            continue
        lane = lanes[b]
        begin_lane(p, lane, cohort, wishes[b])
        mine = (tastes[b], codes[b], interests[b], satiations[b], memories[b], providers[b], owneds[b])
        begin_user(p, lane, user_codes[lane["user"]], mine)
        if p["warm_start"] > 0 and not lane["opted_out"]:
            warm_up(p, lane, items, item_codes, users[lane["user"]], codes[b], interests[b])
        for k in range(slates.shape[1]):
            slates[b, k] = -1
            slot_rewards[b, k] = ZERO
            for s in range(feedbacks.shape[2]):
                feedbacks[b, k, s] = ZERO
        if p["reports"] == 1:
            for k in range(slates.shape[1]):
                reported_slate[b, k] = -1
                for s in range(reported.shape[2]):
                    reported[b, k, s] = ZERO
        write_profile(p, lane, profile_codes[lane["user"]], observation[b])
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
