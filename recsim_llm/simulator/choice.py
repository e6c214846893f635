"""Examination and choice: which slots of the slate a user looks at, and which she clicks.

Each model is a function of one user: ``(key, attraction [K], attention [K], p, examined [K], clicked [K])``. Attraction
is the utility of each slot's item [logit], minus infinity for a wasted slot, and may be overwritten; attention is the
logarithm of the share of it that each slot gets; p are the parameters; the last two arrays are written.
"""

from __future__ import annotations

import numpy as np

from recsim_llm.simulator.jit import jit, kernel
from recsim_llm.simulator.maths import ZERO, exp, log, sigmoid
from recsim_llm.simulator.streams import CHOICE, CLICK, EXAMINE, slot_channel, uniform

WASTED = np.float32(-np.inf)
MULTINOMIAL, CASCADE, POSITION = 0, 1, 2


@kernel
def write_attention(p1, attention):
    """Logarithm of the attention that each slot gets, [K]: -position_bias * ln(1 + slot)."""
    for k in range(attention.shape[0]):
        attention[k] = -p1[0]["position_bias"] * log(np.float32(k + 1))


@jit
def multinomial(key, attraction, attention, p, examined, clicked):
    """Multinomial logit with a no-click option (McFadden 1974).

    P(click k) = a_k / (exp(no_click) + sum_j a_j) with a_k = exp(attraction_k) (1 + k) ** -position_bias. Every slot is
    looked at; at most one is clicked.
    """
    weigh(attraction, attention, attraction.shape[0])
    pick(key, attraction, exp(p["no_click"]), examined, clicked)


@jit
def weigh(attraction, attention, count):
    """Turns the first attractions into weights a_k; 0 for wasted slots, and for no others, as exp is above 1e-38."""
    for k in range(count):
        attraction[k] = exp(attraction[k] + attention[k]) if attraction[k] > WASTED else ZERO


@jit
def pick(key, weight, nothing, examined, clicked):
    """Clicks one slot with a probability in proportion to its weight [K], or none with that of ``nothing``."""
    total = nothing
    for k in range(weight.shape[0]):
        examined[k] = weight[k] > ZERO
        clicked[k] = False
        total += weight[k]
    threshold = uniform(key, CHOICE) * total
    running, below = ZERO, 0
    for k in range(weight.shape[0]):  # no branch: where it stops cannot be foreseen
        running += weight[k]
        below += threshold >= running
    if below < weight.shape[0]:
        clicked[below] = True


@jit
def cascade(key, attraction, attention, p, examined, clicked):
    """Cascade model (Craswell et al. 2008) with abandonment.

    Slots are looked at from the top. Slot k is clicked with probability sigma(attraction_k - no_click), which ends the
    cascade; after no click the next slot is looked at with probability cascade_continue.
    """
    slate_size = attraction.shape[0]
    for k in range(slate_size):
        examined[k] = False
        clicked[k] = False
    for k in range(slate_size):
        if attraction[k] == WASTED:
            continue
        examined[k] = True
        if uniform(key, slot_channel(CLICK, k)) < sigmoid(attraction[k] - p["no_click"]):
            clicked[k] = True
            return
        if uniform(key, slot_channel(EXAMINE, k)) >= p["cascade_continue"]:
            return


@jit
def position(key, attraction, attention, p, examined, clicked):
    """Position-based model (Richardson et al. 2007): independent clicks.

    Slot k is looked at with probability (1 + k) ** -position_bias, and if so clicked with probability
    sigma(attraction_k - no_click).
    """
    for k in range(attraction.shape[0]):
        examined[k] = False
        clicked[k] = False
        if attraction[k] == WASTED:
            continue
        examined[k] = uniform(key, slot_channel(EXAMINE, k)) < exp(attention[k])
        if examined[k]:
            clicked[k] = uniform(key, slot_channel(CLICK, k)) < sigmoid(attraction[k] - p["no_click"])


@jit
def prepare(p, attraction, attention, count):
    """What the built-in model computes for many slots at once, before :func:`choose`. Returns a constant for it."""
    if p["choice"] == MULTINOMIAL:
        weigh(attraction, attention, count)
    return exp(p["no_click"])


@jit
def choose(key, attraction, attention, p, nothing, examined, clicked):
    """The built-in model that the parameters name, after :func:`prepare`."""
    if p["choice"] == MULTINOMIAL:
        pick(key, attraction, nothing, examined, clicked)
    elif p["choice"] == CASCADE:
        cascade(key, attraction, attention, p, examined, clicked)
    else:
        position(key, attraction, attention, p, examined, clicked)
