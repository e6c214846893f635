"""What providers do: pay for events out of daily budgets, publish while they have an audience, get talked about.

Every user's world has providers of its own: what one user does changes nothing for another, so that a trajectory
depends on its seed and actions alone. A cell holds what is remembered of one provider in one episode; a cell of another
episode counts as untouched, so that an episode begins as fast with ten thousand providers as with ten.
"""

from __future__ import annotations

import numpy as np

from recsim_llm.simulator.jit import jit
from recsim_llm.simulator.maths import ONE, ZERO, exp, log
from recsim_llm.simulator.scoring import SECONDS_PER_DAY, day_of

ENOUGH = np.float32(3.0e38)
ENDLESS = np.float32(3.0e38)


@jit
def days_since(lane, cell):
    """Time since a cell was touched [day]."""
    return np.float32(lane["clock"] - cell["at"]) / SECONDS_PER_DAY


@jit
def left_to_spend(p, budget, cell, lane, day):
    """Money that a provider has left today; budget 0 is no limit."""
    if budget <= ZERO:
        return ENOUGH
    if cell["episode"] != lane["episode"] or cell["day"] != np.int32(np.floor(day)):
        return budget
    return max(budget - cell["spent"], ZERO)


@jit
def stops_at(p, cell, lane):
    """Day on which a provider publishes its last item, if nobody looks at it any more.

    Without a look its audience falls by e each audience_life; it stops when that passes audience_needed.
    """
    audience, at = p["audience_start"], lane["began"]
    if cell["episode"] == lane["episode"]:
        audience, at = cell["audience"], cell["at"]
    day = p["start_day"] + np.float32(at) / SECONDS_PER_DAY
    if audience <= p["audience_needed"]:
        return day
    return day + p["audience_life"] * log(audience / p["audience_needed"])


@jit
def buzz_of(p, cell, lane):
    """How much a provider is talked about, 0 to 1."""
    if cell["episode"] != lane["episode"] or cell["buzz"] == ZERO:
        return ZERO
    return cell["buzz"] * exp(-days_since(lane, cell) / p["buzz_life"])


@jit
def enter(p, cell, lane):
    """Makes a cell one of the present episode."""
    if cell["episode"] != lane["episode"]:
        cell["episode"] = lane["episode"]
        cell["at"] = lane["began"]
        cell["day"] = -1
        cell["spent"] = ZERO
        cell["audience"] = p["audience_start"]
        cell["buzz"] = ZERO


@jit
def touch(p, cell, lane):
    """Brings audience and buzz up to the present before they are changed."""
    enter(p, cell, lane)
    passed = days_since(lane, cell)
    if p["audience_life"] > ZERO:
        cell["audience"] *= exp(-passed / p["audience_life"])
    if p["buzz"] != ZERO:
        cell["buzz"] *= exp(-passed / p["buzz_life"])
    cell["at"] = lane["clock"]


@jit
def charge(p, trade, budget, cell, lane, clicked, bought):
    """What a provider pays for what happened to its item, out of what it has left today."""
    if trade["on_purchase"] == 1:
        happened = bought > ZERO
    else:
        happened = clicked > ZERO
    if not happened:
        return ZERO
    day = day_of(p, lane)
    left = left_to_spend(p, budget, cell, lane, day)
    paid = min(trade["bid"], left)
    enter(p, cell, lane)  # no more: the day on which a provider stopped publishing must stay what it was
    today = np.int32(np.floor(day))
    if cell["day"] != today:
        cell["day"] = today
        cell["spent"] = ZERO
    cell["spent"] = budget if paid == left else cell["spent"] + paid  # all of it: no rest from rounding
    return p["bids"] * paid


@jit
def gain_audience(p, cell, lane, looked, liked, shared):
    """A look at an item (``looked`` is audience_look, more if it was consumed), and what was said about it."""
    if p["audience_life"] > ZERO and stops_at(p, cell, lane) < day_of(p, lane):
        return  # gone, whoever looks at what is left of it
    touch(p, cell, lane)
    cell["audience"] += looked
    cell["buzz"] = min(cell["buzz"] + p["buzz_like"] * liked + p["buzz_share"] * shared, ONE)
