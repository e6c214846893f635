"""Interest exploration: popular topics hide what a user would like better; whoever never tries never learns it.

The MDP of RecSim's ``interest_exploration.create_environment``: users of a few types with fixed affinities to topics,
documents of one topic each, a slate gets at most one click by a multinomial logit. Users never leave.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recsim_llm.errors import ConfigError
from recsim_llm.simulator.classics.model import ChoiceModel, Floats64, Model
from recsim_llm.simulator.classics.parameters import check_numbers, cumulative, packed, table
from recsim_llm.simulator.classics.prefetch import AHEAD, expect
from recsim_llm.simulator.classics.user_step import (
    CHOICE,
    DOCUMENTS,
    TRAITS,
    begin_episode,
    categorical,
    choose,
    clear,
    note_click,
    seat,
)
from recsim_llm.simulator.jit import jit, kernel
from recsim_llm.simulator.maths import ONE, ZERO, exp
from recsim_llm.simulator.streams import chain, normal, uniform

TERMS = ("click",)
RESPONSE = 2  # click, quality; then the topic, one-hot
REACH = 5.5
"""No normal draw is further from 0: 23 random bits give at most 5.3."""
TYPE = 1 << 15
"""Channel of a user's type, beyond those of her affinities."""


@dataclass(frozen=True)
class InterestExploration:
    """Constants of the MDP, with RecSim's names and values. M topics, N types of users.

    Attributes:
        no_click_mass: Score of clicking nothing [logit].
        user_type_distribution: Probability of each type [N].
        user_document_mean_affinity_matrix: Mean of the logarithm of affinity [N, M].
        user_document_stddev_affinity_matrix: Its standard deviation [N, M].
        topic_distribution: Probability of each topic [M].
        topic_quality_mean: Mean of the logarithm of quality [M].
        topic_quality_stddev: Its standard deviation [M].
    """

    no_click_mass: float = 5.0
    user_type_distribution: Sequence[float] = (0.3, 0.7)
    user_document_mean_affinity_matrix: Sequence[Sequence[float]] = ((0.1, 0.7), (0.7, 0.1))
    user_document_stddev_affinity_matrix: Sequence[Sequence[float]] = ((0.1, 0.1), (0.1, 0.1))
    topic_distribution: Sequence[float] = (0.2, 0.8)
    topic_quality_mean: Sequence[float] = (0.8, 0.2)
    topic_quality_stddev: Sequence[float] = (0.1, 0.1)

    def __post_init__(self) -> None:
        check_numbers(self)
        for name in ("user_document_stddev_affinity_matrix", "topic_quality_stddev"):
            if np.min(np.asarray(getattr(self, name), np.float64), initial=0.0) < 0:
                raise ConfigError(f"{name} must not be negative, got {getattr(self, name)!r}")

    def choice_model(self) -> ChoiceModel:
        """A multinomial logit."""
        return ChoiceModel("multinomial", float(self.no_click_mass))

    def truth(self, state: Any, weights: Mapping[str, float]) -> tuple[Floats64, Floats64]:
        """Affinity plus quality, and what a click is worth; users do not change."""
        topic = np.broadcast_to(state.documents["topic"], (len(state.traits), state.documents.shape[1]))
        affinity = np.take_along_axis(state.traits, topic.astype(np.int64), 1).astype(np.float64)
        return affinity + state.documents["value"], np.full(topic.shape, weights.get("click", 0.0))

    def model(self, resample: bool) -> Model:
        """The MDP as the simulator runs it."""
        types = cumulative("user_type_distribution", self.user_type_distribution)
        topics = cumulative("topic_distribution", self.topic_distribution)
        n, m = len(types), len(topics)
        tables = (
            types,
            table("user_document_mean_affinity_matrix", self.user_document_mean_affinity_matrix, (n, m)),
            table("user_document_stddev_affinity_matrix", self.user_document_stddev_affinity_matrix, (n, m)),
            topics,
            table("topic_quality_mean", self.topic_quality_mean, (m,)),
            table("topic_quality_stddev", self.topic_quality_stddev, (m,)),
        )
        furthest = max(
            mean + REACH * spread for mean, spread in zip(tables[4].tolist(), tables[5].tolist(), strict=True)
        )
        if furthest > 80:
            raise ConfigError(f"topic_quality_mean and topic_quality_stddev allow a quality of exp({furthest:g})")
        return Model(
            parameters=packed(self, resample=resample, quality_limit=float(np.exp(furthest))),
            tables=tables,
            traits=m,
            terms=TERMS,
            signals=("click", "quality"),
            parts=(("user", 0, 0.0), ("response", RESPONSE + m, 0.0), ("doc", 1 + m, 0.0)),
            draw=draw_list,
            reset=reset_lanes,
            step=step_lanes,
        )


@jit
def draw_documents(p, tables, key, documents, out):
    """Draws the candidates [C]; ``out`` gets quality and topic, one-hot, of each [C * (1 + M)]."""
    topics, means, spreads = tables[3], tables[4], tables[5]
    width = 1 + topics.shape[0]
    for c in range(documents.shape[0]):
        document = documents[c]
        topic = categorical(uniform(key, DOCUMENTS + 2 * c), topics)
        quality = exp(means[topic] + spreads[topic] * normal(key, DOCUMENTS + 2 * c + 1))
        before = document["topic"]
        if before >= 0:
            out[c * width + 1 + before] = ZERO
        out[c * width + 1 + topic] = ONE
        out[c * width] = quality / p["quality_limit"]
        document["topic"] = topic
        document["value"] = quality


@kernel
def draw_list(p1, tables, keys, documents, out):
    """Draws one list of candidates under keys[0]."""
    draw_documents(p1[0], tables, keys[0], documents, out)


@jit
def write_masses(p, affinities, documents, slate, mass):
    """Choice by logit: mass[k] = exp(affinity + quality), 0 for a wasted slot; returns the total with no click.

    All are divided by the largest, so that nothing overflows.
    """
    top = p["no_click_mass"]
    for k in range(slate.shape[0]):
        mass[k] = ZERO
        if slate[k] >= 0:
            document = documents[slate[k]]
            mass[k] = affinities[document["topic"]] + document["value"]
            top = max(top, mass[k])
    total = ZERO
    for k in range(slate.shape[0]):
        if slate[k] >= 0:
            mass[k] = exp(mass[k] - top)
            total += mass[k]
    return total + exp(p["no_click_mass"] - top)


@jit
def write_response(p, documents, slate, shown, chosen, signals, b, topics, out):
    """The responses of all slots, [K * (2 + M)]."""
    width = RESPONSE + topics
    for k in range(slate.shape[0]):
        at = k * width
        if shown[k] >= 0:
            out[at + RESPONSE + shown[k]] = ZERO
        click, quality, topic = ZERO, ZERO, np.int32(-1)
        if slate[k] >= 0:
            document = documents[slate[k]]
            topic, quality = document["topic"], document["value"]
            out[at + RESPONSE + topic] = ONE
            click = ONE if k == chosen else ZERO
        shown[k] = topic
        signals[0, b, k] = click
        signals[1, b, k] = quality
        out[at] = click
        out[at + 1] = quality / p["quality_limit"]


@kernel
def step_lanes(low, high, p1, weights, tables, documents, state, mass, actions, observation, rewards, terminated):
    """Steps the lanes low..high-1 in place. Lanes whose episode is over are left alone.

    ``documents`` is [B, C], or [1, C] where the candidates are the same for all; ``mass`` [K] is scratch.
    """
    lanes, slates, shown, signals = state.lane, state.slate, state.shown, state.signals
    traits = state.traits
    p = p1[0]
    resample = p["resample"] != 0
    topics = traits.shape[1]
    start = slates.shape[1] * (RESPONSE + topics)
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
        total = write_masses(p, traits[b], candidates, slates[b], mass)
        chosen = choose(uniform(key, CHOICE) * total, mass)
        note_click(lane, chosen)
        if chosen >= 0:
            rewards[b] = np.float64(weights[0])
        write_response(p, candidates, slates[b], shown[b], chosen, signals, b, topics, row)
        if resample:
            draw_documents(p, tables, key, candidates, row[start:])


@kernel
def reset_lanes(p1, tables, documents, state, mask, wishes, observation):
    """Begins an episode in every lane of the mask [B]; ``wishes`` [B] names users, or -1 to draw them."""
    lanes, slates, shown, signals = state.lane, state.slate, state.shown, state.signals
    traits = state.traits
    types, means, spreads = tables[0], tables[1], tables[2]
    p = p1[0]
    topics = traits.shape[1]
    start = slates.shape[1] * (RESPONSE + topics)
    for b in range(mask.shape[0]):
        if not mask[b]:
            continue
        lane = lanes[b]
        row = observation[b]
        person = begin_episode(lane, wishes[b])
        kind = categorical(uniform(person, TYPE), types)
        for m in range(topics):
            traits[b, m] = exp(means[kind, m] + spreads[kind, m] * normal(person, TRAITS + m))
        for k in range(slates.shape[1]):
            slates[b, k] = -1
            shown[b, k] = -1
            for s in range(RESPONSE):
                signals[s, b, k] = ZERO
        clear(row[:start])
        if p["resample"] != 0:
            draw_documents(p, tables, chain(lane["stream"], 0), documents[b], row[start:])
