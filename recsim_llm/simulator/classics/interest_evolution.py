"""Interest evolution: what is watched changes what is liked; trash attracts as well as quality, and tires sooner.

The MDP of RecSim's ``interest_evolution.create_environment`` with its utility model: documents are videos of one topic
each, interest in a topic lies in [-1, 1], a slate gets at most one click by a proportional choice.
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
    CHOICE,
    DOCUMENTS,
    INFLUENCE,
    TRAITS,
    begin_episode,
    choose,
    clear,
    even,
    note_click,
    seat,
)
from recsim_llm.simulator.jit import jit, kernel
from recsim_llm.simulator.maths import HALF, ONE, ZERO
from recsim_llm.simulator.streams import chain, normal, uniform

TERMS = ("click", "watch_time")
TWO = np.float32(2.0)
RESPONSE = 3  # click, watch time, quality; then the topic, one-hot
TRASHY = 0.7
"""Share of the topics whose quality lies below 0."""
LEAST_MASS = 1e-26
"""Scores of which the logarithm is taken are at least that: exp(-60)."""
REACH = 5.5
"""No normal draw is further from 0: 23 random bits give at most 5.3."""


@dataclass(frozen=True)
class InterestEvolution:
    """Constants of the MDP, with RecSim's names and values.

    Attributes:
        num_topics: N, topics of videos.
        time_budget: Time of a session [min].
        video_length: Length of every video [min].
        step_penalty: Time that a slate without a click takes [min].
        no_click_mass: Score of clicking nothing.
        min_normalizer: Taken from every score, so that it is positive; at most -1.
        min_utility: Mean quality of the worst topic.
        max_utility: Mean quality of the best topic.
        quality_stddev: Standard deviation of quality within a topic.
        user_quality_factor: Weight of the score in the received utility.
        document_quality_factor: Weight of quality in the received utility.
        user_update_alpha: Share of the watched time that is given back per unit of received utility.
        alpha_x_intercept: Interest |x| at which it stops moving.
        alpha_y_intercept: Share of the way that interest of 0 moves at a click.
    """

    num_topics: int = 20
    time_budget: float = 200.0
    video_length: float = 4.0
    step_penalty: float = 0.5
    no_click_mass: float = 1.0
    min_normalizer: float = -1.0
    min_utility: float = -3.0
    max_utility: float = 3.0
    quality_stddev: float = 0.1
    user_quality_factor: float = 0.0
    document_quality_factor: float = 1.0
    user_update_alpha: float = 0.9 / 3.4
    alpha_x_intercept: float = 1.0
    alpha_y_intercept: float = 0.3

    def __post_init__(self) -> None:
        check_numbers(
            self, positive=("time_budget", "video_length", "alpha_x_intercept"),
            not_negative=("step_penalty", "quality_stddev"),
        )  # fmt: skip
        if not isinstance(self.num_topics, int) or not 2 <= self.num_topics <= 10_000:
            raise ConfigError(f"num_topics must be a whole number in 2..10000, got {self.num_topics!r}")
        if self.min_normalizer > -1 or self.no_click_mass < self.min_normalizer:
            raise ConfigError(
                "min_normalizer must be at most -1, the lowest interest, and at most no_click_mass, so that every "
                f"mass is positive; got {self.min_normalizer} with no_click_mass {self.no_click_mass}"
            )

    def topic_means(self) -> np.ndarray:
        """Mean quality of each topic [N]: from min_utility up to 0, then from 0 up to max_utility."""
        trashy = int(self.num_topics * TRASHY)
        below = np.linspace(self.min_utility, 0.0, trashy)
        return np.concatenate([below, np.linspace(0.0, self.max_utility, self.num_topics - trashy)])

    def choice_model(self) -> ChoiceModel:
        """Proportional choice: attraction is the logarithm of a score."""
        return ChoiceModel("multinomial", float(np.log(max(self.no_click_mass - self.min_normalizer, LEAST_MASS))))

    def truth(self, state: Any, weights: Mapping[str, float]) -> tuple[Floats64, Floats64]:
        """log(interest - min_normalizer), and what is watched; for the future, the time that a click gives back."""
        topic = np.broadcast_to(state.documents["topic"], (len(state.traits), state.documents.shape[1]))
        interest = np.take_along_axis(state.traits, topic.astype(np.int64), 1).astype(np.float64)
        score = interest - self.min_normalizer
        watched = np.minimum(state.lane["budget"], self.video_length).astype(np.float64)[:, None]
        received = self.user_quality_factor * score + self.document_quality_factor * state.documents["value"]
        value = weights.get("click", 0.0) + weights.get("watch_time", 0.0) * watched
        later = weights.get("satisfaction", 0.0) * self.user_update_alpha * watched * received
        return np.log(np.maximum(score, LEAST_MASS)), value + later

    def model(self, resample: bool) -> Model:
        """The MDP as the simulator runs it."""
        means = self.topic_means().astype(np.float32)
        limit = float(np.abs(means).max()) + REACH * self.quality_stddev
        n = self.num_topics
        return Model(
            parameters=packed(self, resample=resample, quality_limit=max(limit, 1e-6)),
            tables=(means,),
            traits=n,
            terms=TERMS,
            signals=("click", "watch_time", "quality"),
            parts=(("user", n, -1.0), ("response", RESPONSE + n, -1.0), ("doc", n, 0.0)),
            draw=draw_list,
            reset=reset_lanes,
            step=step_lanes,
        )


@jit
def draw_documents(p, means, key, documents, out):
    """Draws the candidates [C]; ``out`` gets their topics, one-hot [C * N]."""
    topics = means.shape[0]
    for c in range(documents.shape[0]):
        document = documents[c]
        topic = even(key, DOCUMENTS + 2 * c, topics)
        before = document["topic"]
        if before >= 0:
            out[c * topics + before] = ZERO
        out[c * topics + topic] = ONE
        document["topic"] = topic
        document["value"] = means[topic] + p["quality_stddev"] * normal(key, DOCUMENTS + 2 * c + 1)


@kernel
def draw_list(p1, tables, keys, documents, out):
    """Draws one list of candidates under keys[0]."""
    draw_documents(p1[0], tables[0], keys[0], documents, out)


@jit
def move(p, x, luck):
    """Interest x after a click: towards 1 with probability (x + 1) / 2, else away; clipped to [-1, 1]."""
    rate = p["alpha_y_intercept"] - p["alpha_y_intercept"] / p["alpha_x_intercept"] * abs(x)
    step = rate * (ONE - x)
    moved = x + step if luck < (x + ONE) * HALF else x - step
    return min(max(moved, -ONE), ONE)


@jit
def consume(p, key, lane, interests, document, out):
    """The user watches a video. Returns for how long [min]."""
    topic = document["topic"]
    x = interests[topic]
    watched = min(lane["budget"], p["video_length"])
    received = p["user_quality_factor"] * (x - p["min_normalizer"]) + p["document_quality_factor"] * document["value"]
    lane["budget"] = lane["budget"] - watched + p["user_update_alpha"] * watched * received
    x = move(p, x, uniform(key, INFLUENCE))
    interests[topic] = x
    out[topic] = x
    return watched


@jit
def write_slot(p, signals, b, k, clicked, watched, document, before, out):
    """The response of slot k; its topic takes the place of the one shown before. Returns the topic."""
    if before >= 0:
        out[RESPONSE + before] = ZERO
    topic = document["topic"]
    quality = document["value"]
    signals[0, b, k] = clicked
    signals[1, b, k] = watched
    signals[2, b, k] = quality
    out[0] = clicked
    out[1] = watched / p["video_length"]
    out[2] = quality / p["quality_limit"]
    out[RESPONSE + topic] = ONE
    return topic


@jit
def empty_slot(signals, b, k, before, out):
    """The response of a wasted slot."""
    if before >= 0:
        out[RESPONSE + before] = ZERO
    for s in range(RESPONSE):
        signals[s, b, k] = ZERO
        out[s] = ZERO


@jit
def step_lane(p, weights, key, lane, interests, documents, slate, shown, signals, b, mass, out):
    """One slate for one user. Returns the reward."""
    width = RESPONSE + interests.shape[0]
    total = p["no_click_mass"] - p["min_normalizer"]
    for k in range(slate.shape[0]):
        mass[k] = ZERO
        if slate[k] >= 0:
            mass[k] = interests[documents[slate[k]]["topic"]] - p["min_normalizer"]
        total += mass[k]
    chosen = choose(uniform(key, CHOICE) * total, mass)
    note_click(lane, chosen)
    watched, reward = ZERO, ZERO
    if chosen >= 0:
        watched = consume(p, key, lane, interests, documents[slate[chosen]], out)
        reward = weights[0] + weights[1] * watched
    else:
        lane["budget"] -= p["step_penalty"]
    at = interests.shape[0]
    for k in range(slate.shape[0]):
        part = out[at : at + width]
        if slate[k] < 0:
            empty_slot(signals, b, k, shown[k], part)
            shown[k] = -1
        elif k == chosen:
            shown[k] = write_slot(p, signals, b, k, ONE, watched, documents[slate[k]], shown[k], part)
        else:
            shown[k] = write_slot(p, signals, b, k, ZERO, ZERO, documents[slate[k]], shown[k], part)
        at += width
    return reward


@kernel
def step_lanes(low, high, p1, weights, tables, documents, state, mass, actions, observation, rewards, terminated):
    """Steps the lanes low..high-1 in place. Lanes whose episode is over are left alone.

    ``documents`` is [B, C], or [1, C] where the candidates are the same for all; ``mass`` [K] is scratch.
    """
    lanes, slates, shown, signals = state.lane, state.slate, state.shown, state.signals
    traits = state.traits
    p = p1[0]
    resample = p["resample"] != 0
    start = traits.shape[1] + slates.shape[1] * (RESPONSE + traits.shape[1])
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
        reward = step_lane(p, weights, key, lane, traits[b], candidates, slates[b], shown[b], signals, b, mass, row)
        rewards[b] = np.float64(reward)
        terminated[b] = lane["budget"] <= ZERO
        if resample:
            draw_documents(p, tables[0], key, candidates, row[start:])


@kernel
def reset_lanes(p1, tables, documents, state, mask, wishes, observation):
    """Begins an episode in every lane of the mask [B]; ``wishes`` [B] names users, or -1 to draw them."""
    lanes, slates, shown, signals = state.lane, state.slate, state.shown, state.signals
    traits = state.traits
    p = p1[0]
    topics = traits.shape[1]
    start = topics + slates.shape[1] * (RESPONSE + topics)
    for b in range(mask.shape[0]):
        if not mask[b]:
            continue
        lane = lanes[b]
        row = observation[b]
        person = begin_episode(lane, wishes[b])
        lane["budget"] = p["time_budget"]
        for n in range(topics):
            traits[b, n] = TWO * uniform(person, TRAITS + n) - ONE
            row[n] = traits[b, n]
        for k in range(slates.shape[1]):
            slates[b, k] = -1
            shown[b, k] = -1
            for s in range(RESPONSE):
                signals[s, b, k] = ZERO
        clear(row[topics:start])
        if p["resample"] != 0:
            draw_documents(p, tables[0], chain(lane["stream"], 0), documents[b], row[start:])
