"""Utility, attraction and satisfaction of one item for one user."""

from __future__ import annotations

import numpy as np

from recsim_llm.simulator.intrinsics import dot_of_codes
from recsim_llm.simulator.jit import jit
from recsim_llm.simulator.maths import ONE, ZERO, exp
from recsim_llm.simulator.memory import BOUGHT, kind_of, left_of, minutes_of, recall

SECONDS_PER_DAY = np.float32(86400.0)
SECONDS_PER_HOUR = np.float32(3600.0)


@jit
def dot(a, b):
    """Integer dot product, exact in int32; compiled to vector multiply-adds."""
    total = np.int32(0)
    for k in range(a.shape[0]):
        total = np.int32(total + np.int32(np.int32(a[k]) * np.int32(b[k])))
    return total


@jit
def utility_of(p, constant, item, product):
    """Utility from the sum mu + b_u and the integer dot product."""
    return constant + item["appeal"] + p["utility_unit"] * np.float32(product)


@jit
def utility(p, item, item_code, user, user_code):
    """Mu + b_u + b_i + w_u . x_i + l_u . m_i [logit]; one dot product, as both products have the same unit."""
    return utility_of(p, p["mu"] + user["bias"], item, dot_of_codes(user_code, item_code))


@jit
def utility_for(p, constant, table, user, index, code):
    """Utility of an item for a user whose present taste and factors are ``code`` [logit].

    A table with an eighth part, [U, I], has the utilities of a judge: they are of the taste that a user comes with, and
    what has drifted since is added. ``constant`` is mu + b_u, which a judge's utility holds already. Which of the two
    it is stands in the type of the table, so that nothing is decided while the rules run.
    """
    product = dot_of_codes(code, table[1][index])
    if len(table) > 7:
        drifted = np.int32(product - dot_of_codes(table[5][user], table[1][index]))
        return table[7][user, index] + p["utility_unit"] * np.float32(drifted)
    return utility_of(p, constant, table[0][index], product)


@jit
def day_of(p, lane):
    """The catalogue's clock [day]."""
    return p["start_day"] + np.float32(lane["clock"]) / SECONDS_PER_DAY


@jit
def available(p, item, day):
    """Whether an item is on the shelf: released, and not yet withdrawn."""
    age = day - item["released_at"]
    return age >= ZERO and (p["shelf_life"] <= ZERO or age <= p["shelf_life"])


@jit
def price_pain(p, item, user):
    """Utility lost by paying the item's price [logit]."""
    if p["price_weight"] == ZERO:
        return ZERO
    return p["price_weight"] * user["price_sensitivity"] * item["price"]


@jit
def known_pull(p, item, base, satiation):
    """Utility (``base``) and clickbait, less satiation [logit]."""
    return base + p["clickbait_pull"] * item["clickbait"] - p["satiation"] * satiation[item["topic"]]


@jit
def bought_before(p, word):
    """Attraction lost for good by an item that she has bought; ``word`` is her memory of it [logit]."""
    return p["repeat_bought"] if kind_of(word) == BOUGHT else ZERO


@jit
def staleness(p, item, day):
    """Logarithm of an item's freshness: 0 on release, falling by 1 each freshness_life."""
    return (item["released_at"] - day) / p["freshness_life"]


@jit
def attraction(p, item, item_index, base, user, lane, satiation, memory, day):
    """What makes a user click an item on the shelf [logit].

    Utility (``base``), clickbait and freshness, less price, satiation and repetition: what is left of the memory of it,
    and what is lost for good because she has bought it.
    """
    value = known_pull(p, item, base, satiation)
    if p["freshness"] != ZERO:
        value += p["freshness"] * exp(staleness(p, item, day))
    _, word = recall(lane, memory, item_index)
    value -= price_pain(p, item, user)
    return value - p["repeat"] * left_of(p, word, minutes_of(lane["clock"])) - bought_before(p, word)


@jit
def expected_satisfaction(p, item, base):
    """What a user gets from a consumed item on average [logit]; not what attracted her."""
    return base + p["quality_gain"] * item["quality"] - p["clickbait_regret"] * item["clickbait"]


@jit
def clip(x, low, high):
    """Limits x to [low, high]."""
    return min(max(x, low), high)


@jit
def fraction(count, half):
    """Count / (count + half): a count squeezed into [0, 1)."""
    return np.float32(count) / (np.float32(count) + half) if count > 0 else ZERO * ONE
