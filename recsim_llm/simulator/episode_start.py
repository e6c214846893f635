"""Beginning of an episode: who comes, with what history."""

from __future__ import annotations

import numpy as np

from recsim_llm.simulator.choice import WASTED
from recsim_llm.simulator.jit import jit, kernel
from recsim_llm.simulator.maths import ZERO
from recsim_llm.simulator.memory import forget
from recsim_llm.simulator.observation import observe, write_profile
from recsim_llm.simulator.scoring import available, day_of, utility
from recsim_llm.simulator.streams import OPT_OUT, START, WARM, bits, chain, uniform
from recsim_llm.simulator.user_dynamics import new_budget, note_interest

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
    forget(lane, memory)


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


@kernel
def reset_lanes(p1, table, state, cohort, mask, wishes, observation, slot_rewards):
    """Begins an episode in every lane of the mask [B]; ``wishes`` [B] names users, or -1 to draw them."""
    items, item_codes, _, _, users, user_codes, profile_codes = table[:7]
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
