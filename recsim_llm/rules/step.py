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
    pass_time,
    remember,
    update_mood,
    update_public_counts,
)
from recsim_llm.rules.feedback import (
    CHURNED,
    DWELLED,
    RETURNED,
    SATISFACTION,
    SKIPPED,
    consume,
    expected_reward,
    slot_reward,
)
from recsim_llm.rules.jit import jit, kernel
from recsim_llm.rules.maths import ONE, ZERO
from recsim_llm.rules.observe import observe, write_profile
from recsim_llm.rules.rng import NOISE, START, bits, chain, normal, slot_channel, uniform
from recsim_llm.rules.utility import (
    attraction,
    available,
    day_of,
    expected_satisfaction,
    repetition,
    utility,
)

DAY = np.float32(86400.0)
SAMENESS_RATE = np.float32(0.2)
SHIFT = np.uint64(33)
USER_CHANNEL = 0


@jit
def begin_episode(p, lane, cohort, wish, user_code, profile_width, taste, code, interest, satiation, memory):
    """Starts the next episode of a lane: a user of the cohort (or ``wish`` >= 0), at a random time of day."""
    lane["episode"] += 1
    key = chain(chain(lane["seed"], 0), lane["episode"])
    user = cohort[np.int64(bits(key, USER_CHANNEL) >> SHIFT) % cohort.shape[0]] if wish < 0 else wish
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
    lane["idle"] = 0
    lane["last_topic"] = -1
    lane["away"] = ZERO
    lane["mood"] = ZERO
    lane["engagement"] = ZERO
    lane["sameness"] = ZERO
    lane["satisfaction"] = ZERO
    lane["diversity"] = ZERO
    lane["ended"] = False
    lane["clock"] = np.int32(uniform(lane["stream"], START) * DAY)
    lane["budget"] = new_budget(p, lane["stream"])
    for d in range(code.shape[0]):
        code[d] = user_code[user, d]
    for d in range(profile_width):
        taste[d] = np.float32(code[d])
        interest[d] = ZERO
    for t in range(satiation.shape[0]):
        satiation[t] = ZERO
    for m in range(memory.shape[0]):
        memory[m]["item"] = -1


@jit
def sort_out(items, lane, action, slate, topics, day, p):
    """Marks wasted slots, -1: an item for the second time, or one off the shelf. Notes how different the topics are.

    ``topics`` [K] is scratch.
    """
    same, shown = 0, 0
    for k in range(action.shape[0]):
        index = action[k]
        item = items[index]
        topic = item["topic"]
        twice, alike = False, 0
        for j in range(k):
            twice |= slate[j] == index
            alike += topics[j] == topic
        if twice or not available(p, item, day):
            slate[k], topics[k] = -1, -1
        else:
            slate[k], topics[k] = index, topic
            same += alike
            shown += 1
    pairs = shown * (shown - 1) // 2
    lane["wasted"] = action.shape[0] - shown
    lane["diversity"] = ONE - np.float32(same) / np.float32(pairs) if pairs > 0 else ZERO


@jit
def take_item(p, key, k, index, item, item_code, base, user, lane, taste, interest, satiation, memory, signals):
    """The user consumes the item of slot k. Returns her satisfaction."""
    satisfaction = expected_satisfaction(p, item, base)
    if p["noise"] > ZERO:
        satisfaction += p["noise"] * normal(key, slot_channel(NOISE, k))
    consume(p, key, k, item, user, satisfaction, signals)
    lane["budget"] -= signals[DWELLED]
    topic = item["topic"]
    satiation[topic] = min(satiation[topic] + p["satiation_click"], ONE)
    remember(p, memory, index, lane["clock"], ONE, ZERO)
    note_interest(p, interest, item_code)
    if lane["last_topic"] >= 0:
        same = ONE if topic == lane["last_topic"] else ZERO
        lane["sameness"] += SAMENESS_RATE * (same - lane["sameness"])
    lane["last_topic"] = topic
    evolve(p, key, lane, taste, item_code, satisfaction)
    return satisfaction


@jit
def pass_over(p, index, item, lane, satiation, memory, signals):
    """The user looks at an item and leaves it."""
    signals[SKIPPED] = ONE
    topic = item["topic"]
    satiation[topic] = min(satiation[topic] + p["satiation_look"], ONE)
    left = repetition(p, memory, index, lane["clock"])
    remember(p, memory, index, lane["clock"], p["repeat_look"], left)


@jit
def react(
    p, key, weights, items, item_codes, user, lane, taste, code, interest, satiation, memory, slate, scratch, out
):
    """Choice and feedback for a slate, with what they do to taste, satiation and memory. Returns the reward.

    ``scratch`` is (attraction [K], utility [K], attention [K], examined [K], clicked [K], topics [K]); ``out`` is
    (signals [K, S], reward [K]).
    """
    attractions, bases, attention, examined, clicked, _ = scratch
    signals, rewards = out
    day = day_of(p, lane)
    slots = slate.shape[0]
    for k in range(slots):
        attractions[k] = WASTED
        if slate[k] >= 0:
            item = items[slate[k]]
            bases[k] = utility(p, item, item_codes[slate[k]], user, code)
            attractions[k] = attraction(p, item, slate[k], bases[k], user, lane, satiation, memory, day)
    choose(key, attractions, attention, p, examined, clicked)
    total, satisfied, clicks, looks, dwell = ZERO, ZERO, 0, 0, ZERO
    for k in range(slots):
        for s in range(signals.shape[1]):
            signals[k, s] = ZERO
        rewards[k] = ZERO
        if not examined[k]:
            continue
        index = slate[k]
        item = items[index]
        looks += 1
        if clicked[k]:
            code_of_item = item_codes[index]
            y = take_item(
                p,
                key,
                k,
                index,
                item,
                code_of_item,
                bases[k],
                user,
                lane,
                taste,
                interest,
                satiation,
                memory,
                signals[k],
            )
            clicks += 1
            satisfied += y
            dwell += signals[k, DWELLED]
            update_mood(p, lane, y)
        else:
            pass_over(p, index, item, lane, satiation, memory, signals[k])
        rewards[k] = slot_reward(weights, signals[k], item)
        total += rewards[k]
    if clicks > 0:
        encode_taste(taste, code)
        lane["satisfaction"] = satisfied / np.float32(clicks)
    else:
        lane["satisfaction"] = ZERO
        update_mood(p, lane, p["mood_skip"])
    update_public_counts(lane, clicks, looks)
    seconds = np.float32(np.rint(p["look_time"] * np.float32(max(looks, 1))))
    lane["budget"] -= seconds
    pass_time(p, lane, satiation, seconds + dwell)
    return total + weights[SATISFACTION] * satisfied


@jit
def step_lane(
    p, weights, items, item_codes, users, lane, taste, code, interest, satiation, memory, action, slate, scratch, out
):
    """One step of one user. Returns (reward, whether she left for good)."""
    lane["step"] += 1
    lane["session_step"] += 1
    key = chain(lane["stream"], lane["step"])
    user = users[lane["user"]]
    sort_out(items, lane, action, slate, scratch[5], day_of(p, lane), p)
    reward = react(
        p, key, weights, items, item_codes, user, lane, taste, code, interest, satiation, memory, slate, scratch, out
    )
    if leaves(p, key, lane):
        if churns(p, key, lane):
            return reward + weights[CHURNED], True
        come_back(p, key, lane, taste, code, satiation)
        reward += weights[RETURNED]
    return reward, False


@kernel
def step_lanes(low, high, p1, weights, table, state, scratch, actions, observation, slot_rewards, rewards, terminated):
    """Steps the lanes low..high-1 in place. Lanes whose episode is over are left alone.

    ``scratch`` is as in :func:`react`, for this call alone; ``table`` is (items, item codes, users, profile codes);
    ``state`` the arrays of State in order.
    """
    items, item_codes, users, _ = table
    lanes, tastes, codes, interests, satiations, memories, feedbacks, slates = state
    p = p1[0]
    for b in range(low, high):
        lane = lanes[b]
        rewards[b] = 0.0
        terminated[b] = False
        if lane["ended"]:
            continue
        reward, left = step_lane(
            p, weights, items, item_codes, users, lane, tastes[b], codes[b], interests[b], satiations[b], memories[b],
            actions[b], slates[b], scratch, (feedbacks[b], slot_rewards[b]),
        )  # fmt: skip
        rewards[b] = np.float64(reward)
        terminated[b] = left
        observe(p, lane, interests[b], feedbacks[b], observation[b])


@kernel
def reset_lanes(p1, table, user_codes, state, cohort, mask, wishes, observation, slot_rewards):
    """Begins an episode in every lane of the mask [B]; ``wishes`` [B] names users, or -1 to draw them."""
    profile_codes = table[3]
    lanes, tastes, codes, interests, satiations, memories, feedbacks, slates = state
    p = p1[0]
    for b in range(mask.shape[0]):
        if not mask[b]:
            continue
        lane = lanes[b]
        begin_episode(
            p, lane, cohort, wishes[b], user_codes, tastes.shape[1], tastes[b], codes[b], interests[b], satiations[b],
            memories[b],
        )  # fmt: skip
        for k in range(slates.shape[1]):
            slates[b, k] = -1
            slot_rewards[b, k] = ZERO
            for s in range(feedbacks.shape[2]):
                feedbacks[b, k, s] = ZERO
        write_profile(p, profile_codes[lane["user"]], observation[b])
        observe(p, lane, interests[b], feedbacks[b], observation[b])


@kernel
def write_available(p1, items, lanes, out):
    """Which items are on the shelf for each lane, out [B, I]."""
    p = p1[0]
    for b in range(out.shape[0]):
        day = day_of(p, lanes[b])
        for i in range(out.shape[1]):
            out[b, i] = available(p, items[i], day)


@kernel
def write_truth(p1, weights, table, state, appeal, value):
    """The latent truth for each lane: attraction of every item [B, I] and expected reward of a click on it [B, I]."""
    items, item_codes, users, _ = table
    lanes, codes, satiations, memories = state[0], state[2], state[4], state[5]
    p = p1[0]
    for b in range(appeal.shape[0]):
        lane = lanes[b]
        day = day_of(p, lane)
        user = users[lane["user"]]
        for i in range(appeal.shape[1]):
            base = utility(p, items[i], item_codes[i], user, codes[b])
            appeal[b, i] = attraction(p, items[i], i, base, user, lane, satiations[b], memories[b], day)
            value[b, i] = expected_reward(p, weights, items[i], user, expected_satisfaction(p, items[i], base))


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
