"""One step of one user, and the fused loop that applies it to all lanes in place."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import numpy as np

from recsim_llm.simulator.availability import money_left, pay
from recsim_llm.simulator.choice import choose, prepare
from recsim_llm.simulator.feedback import (
    CHURNED,
    CLICKED,
    DWELLED,
    LIKED,
    PURCHASED,
    RETURNED,
    SATISFACTION,
    SHARED,
    SIGNAL_COUNT,
    SKIPPED,
    consume,
    slot_reward,
)
from recsim_llm.simulator.feedback_noise import deliver, distort
from recsim_llm.simulator.jit import jit, kernel
from recsim_llm.simulator.maths import ONE, ZERO
from recsim_llm.simulator.memory import BOUGHT, CONSUMED, kind_of, make_room, minutes_of, remember, word_of
from recsim_llm.simulator.observation import observe
from recsim_llm.simulator.providers import charge, gain_audience
from recsim_llm.simulator.scoring import day_of, expected_satisfaction
from recsim_llm.simulator.slates import (
    BLOCK,
    MANY,
    NEAR,
    attract,
    attract_further,
    fetch,
    fetch_lane,
    fetch_taste,
    look,
    sort_out,
)
from recsim_llm.simulator.streams import NOISE, chain, normal, slot_channel
from recsim_llm.simulator.user_dynamics import (
    churns,
    come_back,
    encode_taste,
    evolve,
    leaves,
    note_interest,
    note_sameness,
    pass_time,
    shift_taste,
    update_mood,
    update_public_counts,
)


@jit
def take_item(p, key, k, index, table, base, user, lane, mine, signals):
    """The user consumes the item of slot k. Returns her satisfaction and what it earns."""
    items, item_codes, trades, budgets = table[:4]
    taste, _, interest, satiation, _, provider, owned = mine
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
    if p["reports"] == 0:
        if not lane["opted_out"]:
            note_interest(p, interest, item_code)
        note_sameness(lane, topic)
    evolve(p, key, lane, taste, item_code, satisfaction)
    return satisfaction, revenue


@jit
def pass_over(p, index, topic, lane, satiation, memory, place, word):
    """The user looks at an item and leaves it; ``word`` is her memory of that."""
    satiation[topic] = min(satiation[topic] + p["satiation_look"], ONE)
    remember(lane, memory, place, index, word)


@jit
def react(p, key, weights, table, user, lane, mine, slate, bases, n, scratch, out):
    """Feedback of a slate after the choice, with what it does to taste, satiation and memory. Returns the reward.

    ``table`` is (items, item codes, trades, budgets, users, user codes, profile codes), ``mine`` one lane's (taste,
    code, interest, satiation, memory, providers, owned); ``out`` is (signals [K, S], reward [K], revenue [K]).
    ``bases`` [K] are utilities, and hold the satisfaction of clicked slots afterwards; n is the lane's place in the
    block.
    """
    items, trades = table[0], table[2]
    taste, code, _, satiation, memory, provider, _ = mine
    examined, clicked, skipped = scratch.examined, scratch.clicked, scratch.skipped
    signals, rewards, revenues = out
    cheap = slot_reward(weights, skipped, ZERO)
    blindness = lane["blindness"]
    total, satisfied, clicks, looks, dwell, earned = ZERO, ZERO, 0, 0, ZERO, ZERO
    first, now = n * slate.shape[0], minutes_of(lane["clock"])
    for k in range(slate.shape[0]):
        for s in range(SIGNAL_COUNT):
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
            kind = BOUGHT if signals[k, PURCHASED] > ZERO else max(kind_of(scratch.word[first + k]), CONSUMED)
            remember(lane, memory, scratch.place[first + k], index, word_of(now, ONE, kind))
            clicks += 1
            satisfied += y
            dwell += signals[k, DWELLED]
            earned += revenues[k]
            lane["purchases"] += np.int32(signals[k, PURCHASED]) if p["reports"] == 0 else 0
            update_mood(p, lane, y)
            rewards[k] = slot_reward(weights, signals[k], revenues[k])
        else:
            signals[k, SKIPPED] = ONE
            topic, place, word = items[index]["topic"], scratch.place[first + k], scratch.looked[first + k]
            pass_over(p, index, topic, lane, satiation, memory, place, word)
            blindness += p["blindness_look"] * (ONE - blindness)
            rewards[k] = cheap
        if p["audience_life"] > ZERO or p["buzz"] != ZERO:
            gain = p["audience_look"] + p["audience_click"] * signals[k, CLICKED]
            cell = provider[trades[index]["provider"]]
            gain_audience(p, cell, lane, gain, signals[k, LIKED], signals[k, SHARED])
        total += rewards[k]
    make_room(lane, memory, slate.shape[0])
    lane["blindness"] = blindness
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
    """Reports this step's feedback as the task variant has it. Returns the slots' reward as the recommender sees it.

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
def open_lane(p, n, table, lane, mine, action, slate, scratch):
    """First stage of a step of the n-th lane of a block: its slate, and what attracts her in it."""
    users, user_codes = table[4], table[5]
    taste, code = mine[0], mine[1]
    lane["step"] += 1
    lane["session_step"] += 1
    scratch.keys[n] = chain(lane["stream"], lane["step"])
    if p["shift"] > 0:
        shift_taste(p, lane, user_codes, taste, code)
    day = day_of(p, lane)
    sort_out(p, table, lane, action, slate, scratch, mine[5], day)
    return look(p, n, table, users[lane["user"]], lane, mine, slate, scratch, day)


@jit
def close_lane(p, n, weights, table, lane, mine, slate, nothing, scratch, out, late):
    """Second stage: choice, feedback, and whether she goes on. Returns (reward, whether she left for good)."""
    taste, code, interest, satiation = mine[:4]
    key, user = scratch.keys[n], table[4][lane["user"]]
    attraction = scratch.attraction[n]
    attention = scratch.attention[: slate.shape[0]]
    choose(key, attraction, attention, p, nothing, scratch.examined, scratch.clicked)
    bases = scratch.base[n]
    shown, felt = react(p, key, weights, table, user, lane, mine, slate, bases, n, scratch, out)
    told, other, left = shown + felt, ZERO, False
    if p["reports"] == 1:  # before she leaves: what she comes back to has no idle step yet
        told = tell(p, key, weights, table, lane, interest, slate, bases, out, late)
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


@jit
def open_block(first, last, p, table, state, scratch, actions, rewards, terminated):
    """First stage of the lanes first..last-1 that are in an episode. Returns how many, and a constant for choices."""
    lanes, tastes, codes, interests, satiations, memories, _, slates, providers, owneds = state[:10]
    slate_size, count, seen = actions.shape[1], 0, 0
    for b in range(first, last):
        rewards[b] = 0.0
        terminated[b] = False
        if not lanes[b]["ended"]:
            scratch.who[count] = b
            count += 1
    for n in range(count):
        b = scratch.who[n]
        mine = (tastes[b], codes[b], interests[b], satiations[b], memories[b], providers[b], owneds[b])
        seen += open_lane(p, n, table, lanes[b], mine, actions[b], slates[b], scratch)
    attract(p, count * slate_size, seen, scratch)
    if p["blindness"] != ZERO or p["buzz"] != ZERO or p["owned"] != ZERO:
        for n in range(count):
            b = scratch.who[n]
            mine = (tastes[b], codes[b], interests[b], satiations[b], memories[b], providers[b], owneds[b])
            attract_further(p, table, lanes[b], mine, slates[b], scratch.attraction[n])
    return count, prepare(p, scratch.flat, scratch.attention, count * slate_size)


@kernel
def step_lanes(low, high, p1, weights, table, state, scratch, actions, observation, slot_rewards, rewards, terminated):
    """Steps the lanes low..high-1 in place. Lanes whose episode is over are left alone.

    ``table`` is as in :func:`react`, ``scratch`` for this call alone; ``state`` has the arrays of State in the
    simulator's order.
    """
    (
        lanes, tastes, codes, interests, satiations, memories, feedbacks, slates, providers, owneds, late, late_slate,
        reported, reported_slate,
    ) = state  # fmt: skip
    p = p1[0]
    reports = p["reports"] == 1
    scratch.skipped[SKIPPED] = ONE
    far = table[1].size > NEAR
    many = lanes.shape[0] > MANY
    width = interests.shape[1]
    interest_parts, tails = observation[:, width : 2 * width], observation[:, 2 * width :]
    if far:
        for b in range(low, min(low + BLOCK, high)):
            fetch(table, actions[b])
    for first in range(low, high, BLOCK):
        last = min(first + BLOCK, high)
        count, nothing = open_block(first, last, p, table, state, scratch, actions, rewards, terminated)
        for n in range(count):
            b = scratch.who[n]
            if b + BLOCK < high:  # of the next block, which is some microseconds away
                fetch_lane(state, tails, actions[b + BLOCK], b + BLOCK)
                if many:
                    fetch_taste(state, interest_parts, b + BLOCK)
                if far:
                    fetch(table, actions[b + BLOCK])
            lane = lanes[b]
            mine = (tastes[b], codes[b], interests[b], satiations[b], memories[b], providers[b], owneds[b])
            seen = b if reports else 0
            told = (late[b], late_slate[b], reported[seen], reported_slate[seen])
            out = (feedbacks[b], slot_rewards[b], scratch.revenue)
            reward, left = close_lane(p, n, weights, table, lane, mine, slates[b], nothing, scratch, out, told)
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
        scope["prepare"], scope["choose"] = jit(_nothing), jit(_called(_compiled(choice)))
    if dynamics is not None:
        scope["evolve"] = _compiled(dynamics)
    for name in ("take_item", "react", "open_block", "close_lane", "step_lanes"):
        scope[name] = jit(_with_globals(_plain(scope[name]), scope))
    return scope["step_lanes"]


def _nothing(p: Any, attraction: Any, attention: Any, count: int) -> np.float32:
    """In the place of :func:`prepare` for models that compute each slate on its own."""
    return ZERO


def _called(choice: Any) -> Callable[..., Any]:
    """A registered model in the form of :func:`choose`."""

    def choose(key: Any, attraction: Any, attention: Any, p: Any, nothing: Any, examined: Any, clicked: Any) -> None:
        choice(key, attraction, attention, p, examined, clicked)

    return choose


def _compiled(function: Callable[..., Any]) -> Any:
    return function if hasattr(function, "py_func") else jit(function)


def _plain(function: Any) -> types.FunctionType:
    plain: types.FunctionType = getattr(function, "py_func", function)
    return plain


def _with_globals(function: types.FunctionType, scope: dict[str, Any]) -> types.FunctionType:
    return types.FunctionType(function.__code__, scope, function.__name__, function.__defaults__, function.__closure__)
