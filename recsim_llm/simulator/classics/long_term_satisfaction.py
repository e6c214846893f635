"""Long-term satisfaction: clickbait ("choc") is watched longer today, and plain fare ("kale") tomorrow.

The MDP of RecSim's ``long_term_satisfaction.create_environment``. The user always clicks the first slot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from recsim_llm.errors import ConfigError
from recsim_llm.simulator.classics.model import ChoiceModel, Floats64, Model
from recsim_llm.simulator.classics.parameters import check_numbers, packed
from recsim_llm.simulator.classics.prefetch import AHEAD, expect
from recsim_llm.simulator.classics.user_step import (
    DOCUMENTS,
    ENGAGEMENT,
    INFLUENCE,
    TRAITS,
    begin_episode,
    clear,
    note_click,
    seat,
)
from recsim_llm.simulator.jit import jit, kernel
from recsim_llm.simulator.maths import HALF, ONE, ZERO, exp, sigmoid
from recsim_llm.simulator.streams import chain, normal, uniform

TERMS = ("click", "engagement")
RESPONSE = 2  # click, engagement
SURE = -60.0
"""Utility of clicking nothing where a click is certain [logit]."""
TWO = np.float32(2.0)
MOST_ENGAGEMENT = np.float32(100.0)
"""Observations show no more than this; rewards are not cut."""


@dataclass(frozen=True)
class LongTermSatisfaction:
    """Constants of the MDP, with RecSim's names and values.

    Attributes:
        memory_discount: Share of net positive exposure that is left after a step, in [0, 1).
        sensitivity: Slope of satisfaction in net positive exposure.
        innovation_stddev: Standard deviation of the noise of exposure.
        choc_mean: Mean of the logarithm of engagement with pure clickbait, at satisfaction 1.
        choc_stddev: Its standard deviation.
        kale_mean: The same for a document without clickbait.
        kale_stddev: Its standard deviation.
        time_budget: Length of a session [step].
    """

    memory_discount: float = 0.7
    sensitivity: float = 0.01
    innovation_stddev: float = 0.05
    choc_mean: float = 5.0
    choc_stddev: float = 1.0
    kale_mean: float = 4.0
    kale_stddev: float = 1.0
    time_budget: float = 60.0

    def __post_init__(self) -> None:
        check_numbers(
            self, positive=("time_budget",),
            not_negative=("memory_discount", "innovation_stddev", "choc_stddev", "kale_stddev"),
        )  # fmt: skip
        if self.memory_discount >= 1:
            raise ConfigError(f"memory_discount must lie in [0, 1), got {self.memory_discount}")

    def choice_model(self) -> ChoiceModel:
        """The first slot is always clicked, so that the order alone matters."""
        return ChoiceModel("position", SURE)

    def truth(self, state: Any, weights: Mapping[str, float]) -> tuple[Floats64, Floats64]:
        """0, and the mean of a log-normal; for the future, by how much a click raises net positive exposure."""
        choc = state.documents["value"].astype(np.float64)
        satisfaction = state.lane["satisfaction"].astype(np.float64)[:, None]
        location = (choc * self.choc_mean + (1.0 - choc) * self.kale_mean) * satisfaction
        spread = choc * self.choc_stddev + (1.0 - choc) * self.kale_stddev
        value = weights.get("click", 0.0) + weights.get("engagement", 0.0) * np.exp(location + 0.5 * spread**2)
        later = -2.0 * weights.get("satisfaction", 0.0) * (choc - 0.5)
        return np.zeros_like(value), value + later

    def model(self, resample: bool) -> Model:
        """The MDP as the simulator runs it."""
        return Model(
            parameters=packed(self, resample=resample, exposure_range=1.0 / (1.0 - self.memory_discount)),
            tables=(np.zeros(1, np.float32),),
            traits=0,
            terms=TERMS,
            signals=("click", "engagement"),
            parts=(("user", 0, 0.0), ("response", RESPONSE, 0.0), ("doc", 1, 0.0)),
            draw=draw_list,
            reset=reset_lanes,
            step=step_lanes,
        )


@jit
def draw_documents(key, documents, out):
    """Draws the candidates [C]; ``out`` [C] gets their clickbait, uniform in (0, 1)."""
    for c in range(documents.shape[0]):
        document = documents[c]
        document["topic"] = 0
        document["value"] = uniform(key, DOCUMENTS + 2 * c)
        out[c] = document["value"]


@kernel
def draw_list(p1, tables, keys, documents, out):
    """Draws one list of candidates under keys[0]."""
    draw_documents(keys[0], documents, out)


@jit
def next_exposure(p, exposure, clickbait, innovation):
    """Net positive exposure after a document: d x - 2 (c - 1/2) + noise. Clickbait lowers it.

    The sign is that of RecSim's code; its docstring has the other one.
    """
    return p["memory_discount"] * exposure - TWO * (clickbait - HALF) + p["innovation_stddev"] * innovation


@jit
def engagement(p, satisfaction, clickbait, noise):
    """Time spent on a document: log-normal, its location scaled by satisfaction."""
    plain = ONE - clickbait
    location = (clickbait * p["choc_mean"] + plain * p["kale_mean"]) * satisfaction
    return exp(location + (clickbait * p["choc_stddev"] + plain * p["kale_stddev"]) * noise)


@jit
def step_lane(p, weights, key, lane, clickbait):
    """The user consumes the document of the first slot. Returns (engagement, reward)."""
    note_click(lane, 0)
    time = engagement(p, lane["satisfaction"], clickbait, normal(key, ENGAGEMENT))
    lane["exposure"] = next_exposure(p, lane["exposure"], clickbait, normal(key, INFLUENCE))
    lane["satisfaction"] = sigmoid(p["sensitivity"] * lane["exposure"])
    lane["budget"] -= ONE
    return time, weights[0] + weights[1] * time


@kernel
def step_lanes(low, high, p1, weights, tables, documents, state, mass, actions, observation, rewards, terminated):
    """Steps the lanes low..high-1 in place. Lanes whose episode is over are left alone.

    ``documents`` is [B, C], or [1, C] where the candidates are the same for all; ``tables`` and ``mass`` are not used.
    """
    lanes, slates, shown, signals = state.lane, state.slate, state.shown, state.signals
    p = p1[0]
    resample = p["resample"] != 0
    start = slates.shape[1] * RESPONSE
    for b in range(low, high):
        if b + AHEAD < high:
            expect(observation[b + AHEAD], start)
        lane = lanes[b]
        rewards[b] = 0.0
        terminated[b] = False
        if lane["ended"]:
            continue
        lane["step"] += 1
        key = chain(lane["stream"], lane["step"])
        candidates = documents[b if resample else 0]
        row = observation[b]
        seat(lane, actions[b], slates[b])
        time, reward = step_lane(p, weights, key, lane, candidates[slates[b, 0]]["value"])
        for k in range(slates.shape[1]):
            shown[b, k] = 0 if slates[b, k] >= 0 else -1
        signals[0, b, 0] = ONE
        signals[1, b, 0] = time
        row[0] = ONE
        row[1] = min(time, MOST_ENGAGEMENT) / MOST_ENGAGEMENT
        rewards[b] = np.float64(reward)
        terminated[b] = lane["budget"] <= ZERO
        if resample:
            draw_documents(key, candidates, row[start:])


@kernel
def reset_lanes(p1, tables, documents, state, mask, wishes, observation):
    """Begins an episode in every lane of the mask [B]; ``wishes`` [B] names users, or -1 to draw them."""
    lanes, slates, shown, signals = state.lane, state.slate, state.shown, state.signals
    p = p1[0]
    start = slates.shape[1] * RESPONSE
    for b in range(mask.shape[0]):
        if not mask[b]:
            continue
        lane = lanes[b]
        row = observation[b]
        person = begin_episode(lane, wishes[b])
        lane["budget"] = p["time_budget"]
        lane["exposure"] = (uniform(person, TRAITS) - HALF) * p["exposure_range"]
        lane["satisfaction"] = sigmoid(p["sensitivity"] * lane["exposure"])
        for k in range(slates.shape[1]):
            slates[b, k] = -1
            shown[b, k] = -1
            for s in range(RESPONSE):
                signals[s, b, k] = ZERO
        clear(row[:start])
        if p["resample"] != 0:
            draw_documents(chain(lane["stream"], 0), documents[b], row[start:])
