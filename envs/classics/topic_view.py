"""How recommenders see RecSim's classics: a catalogue of kinds of documents, by topic and public grade."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.errors import ConfigError
from recsim_llm.simulator import SIGNALS
from recsim_llm.worlds.catalog import FACTORS, Catalog, occurrences

Floats = NDArray[np.float32]
Numbers = NDArray[np.int64]

GRADES = 20
"""Parts into which a public number of a document (its quality or clickbait, scaled to [0, 1]) is cut."""

MOST_ITEMS = 100_000
MOST_TOPICS = 255

CONTEXT = ("idle", "sameness", "session_step", "start")
"""Numbers of the context part, as far as the last response tells them."""

DWELL = ("watch_time", "engagement")
"""Signals of the classics that say for how long a document was consumed."""


class TopicView:
    """A classic as agents see it that know a fixed catalogue and lists of candidates.

    The documents of a classic are drawn anew at each step, so that none can be learnt about. What comes again are
    kinds of documents: an item is a topic, and where documents show a number (quality or clickbait) one of
    :data:`GRADES` parts of its range; without topics the parts are the topics. To show an item is to show a candidate
    of that kind. A list may have several candidates of a kind and a slate show them, so there are C items of each kind,
    alike in everything: the n-th candidate of a kind in the list is its n-th item. Where that would be more than
    :data:`MOST_ITEMS` there are fewer, at least K, and candidates beyond them are left out.

    Args:
        name: Name of the environment.
        layout: Where the parts "user", "response" and "doc" stand in its observations.
        slate_size: K.
        candidates: C.
        topics: M, width of the one-hot topic in the response and the documents; 0 where there is none.
        signals: Names of the numbers of a slot's response, in front of its topic.
        weights: Weights of the reward terms, which are signals.

    Raises:
        ConfigError: If there are more than :data:`MOST_TOPICS` topics.

    Attributes:
        catalog: Public catalogue of the kinds; encodings [I, D] are topics, one-hot, then the middle of the grade.
        layout: Where the parts of :meth:`rows` stand: profile [D], interest [D], context, feedback [K, S],
            candidates [C, D].
        slate_size: K.
        context_names: Names of the context's numbers.
    """

    context_names = CONTEXT

    def __init__(
        self,
        name: str,
        layout: Mapping[str, slice],
        *,
        slate_size: int,
        candidates: int,
        topics: int,
        signals: tuple[str, ...],
        weights: Mapping[str, float],
    ) -> None:
        self.name, self.raw, self.slate_size = name, dict(layout), slate_size
        self.topics, self.signals, self.weights = topics, signals, dict(weights)
        self.listed = candidates
        doc = layout["doc"]
        self.graded = (doc.stop - doc.start) // candidates > topics
        if topics > MOST_TOPICS:
            raise ConfigError(
                f"agents tell at most {MOST_TOPICS} topics apart and {name} has {topics}; make it with fewer"
            )
        self.codes = self._codes()
        self.copies = min(candidates, max(MOST_ITEMS // len(self.codes), slate_size))
        width = self.codes.shape[1]
        self.layout: dict[str, slice] = {}
        at = 0
        for part, size in (
            ("profile", width), ("interest", width), ("context", len(CONTEXT)), ("feedback", slate_size * len(SIGNALS)),
            ("candidates", candidates * width),
        ):  # fmt: skip
            self.layout[part] = slice(at, at + size)
            at += size

    def _codes(self) -> Floats:
        """Encodings of the kinds, [Q, D]."""
        topics, grades = self.topics or GRADES, GRADES if self.graded else 1
        if not self.topics:
            grades = 1
        codes = np.repeat(np.eye(topics, dtype=np.float32), grades, 0)
        if not self.graded:
            return codes
        middles = (np.arange(GRADES, dtype=np.float32) + np.float32(0.5)) / np.float32(GRADES)
        return np.concatenate([codes, np.resize(middles, len(codes))[:, None]], 1)

    @functools.cached_property
    def catalog(self) -> Catalog:
        """The public catalogue."""
        titles, categories = [], []
        for code in self.codes:
            topic = int(code[: len(code) - self.graded].argmax())
            grade = f"grade {code[-1]:.3f}"
            categories.append(f"topic {topic}" if self.topics else grade)
            titles.append(f"topic {topic}, {grade}" if self.topics and self.graded else categories[-1])
        copies = self.copies
        count = len(titles) * copies
        zeros = np.zeros(count, np.float32)
        return Catalog(
            item_id=[f"{title} ({copy + 1})" for title in titles for copy in range(copies)],
            title=[title for title in titles for _ in range(copies)],
            text=[""] * count,
            category=[category for category in categories for _ in range(copies)],
            provider=[self.name] * count,
            embedding=np.repeat(self.codes, copies, 0),
            price=zeros, released_at=zeros, appeal=zeros, factors=np.zeros((count, FACTORS), np.float32),
            quality=zeros, clickbait=zeros, blocks={"topic": (0, self.codes.shape[1])},
        )  # fmt: skip

    def rows(self, observation: Any) -> Floats:
        """Flat observations [P'] or [B, P'] in the form of :attr:`layout`, from the environment's own in either form.

        They depend on the observation alone. Profile and interest are the user's public interest in topics; where
        nothing about her is public, the profile is zeros and the interest the encoding of what she clicked last. The
        context tells what the last response does: "start" and "sameness" as everywhere, "session_step" 1 after the
        first step, "idle" 1/6 after a slate without a click.
        """
        if isinstance(observation, Mapping):
            raw = np.concatenate([observation[name] for name in self.raw], axis=-1, dtype=np.float32)
        else:
            raw = np.asarray(observation, np.float32)
        width = max(part.stop for part in self.raw.values())
        if raw.ndim not in (1, 2) or raw.shape[-1] != width:
            raise ConfigError(f"observation has shape {raw.shape}, expected (B, {width}) or ({width},)")
        rows = self._rows(np.atleast_2d(raw))
        return rows.reshape(*raw.shape[:-1], rows.shape[1])

    def _rows(self, raw: Floats) -> Floats:
        lanes, slate_size, layout = len(raw), self.slate_size, self.layout
        out = np.zeros((lanes, layout["candidates"].stop), np.float32)
        response = raw[:, self.raw["response"]].reshape(lanes, slate_size, -1)
        told = len(self.signals)
        click = response[:, :, 0]
        topic = response[:, :, told:]  # [B, K, M]
        begun = (response != 0.0).any((1, 2))
        if "user" in self.raw:
            width = self.raw["user"].stop - self.raw["user"].start
            for part in ("profile", "interest"):
                out[:, layout[part]][:, :width] = raw[:, self.raw["user"]]
        elif self.topics:
            number = response[:, :, self.signals.index("quality"), None] if self.graded else topic[:, :, :0]
            out[:, layout["interest"]] = (click[:, :, None] * np.concatenate([topic, number], 2)).sum(1)
        clicked = (click > 0.0).any(1)
        context = out[:, layout["context"]]
        context[:, 0] = begun & ~clicked
        context[:, 0] /= 6.0
        shown = np.where(topic.any(2), topic.argmax(2), -1) if self.topics else np.full(click.shape, -1)
        context[:, 1] = 1.0 - diversity(shown) if slate_size > 1 else 0.0
        context[:, 1] *= begun
        context[:, 2], context[:, 3] = begun, ~begun
        feedback = out[:, layout["feedback"]].reshape(lanes, slate_size, len(SIGNALS))
        feedback[:, :, SIGNALS.index("click")] = click
        feedback[:, :, SIGNALS.index("skip")] = topic.any(2) & (click == 0.0)
        for column, name in enumerate(self.signals):
            if name in DWELL:
                feedback[:, :, SIGNALS.index("dwell")] = response[:, :, column]
        out[:, layout["feedback"]] = feedback.reshape(lanes, -1)
        out[:, layout["candidates"]] = self._candidates(raw[:, self.raw["doc"]]).reshape(lanes, -1)
        return out

    def _candidates(self, docs: Floats) -> Floats:
        """Encodings of the candidates [B, C, D], zeros where no item of the kind is left."""
        docs = docs.reshape(len(docs), self.listed, -1)
        kind = np.zeros(docs.shape[:2], np.int64)
        if self.topics:
            kind = docs[:, :, docs.shape[2] - self.topics :].argmax(2)
        if self.graded:
            kind = kind * GRADES + np.clip((docs[:, :, 0] * GRADES).astype(np.int64), 0, GRADES - 1)
        codes: Floats = self.codes[kind]
        codes[occurrences(kind) >= self.copies] = 0.0
        return codes

    def infos(self, infos: Mapping[str, Any], listed: Numbers | None) -> dict[str, Any]:
        """Infos [B, ...] with items in place of positions, and with every signal that agents learn from.

        Args:
            infos: Infos of a step.
            listed: Items of the candidates [B, C] that the slates were chosen from; None at a reset.
        """
        place = np.asarray(infos["slate"], np.int64)
        slate = np.full(place.shape, -1, np.int64)
        if listed is not None:
            slate = np.where(place >= 0, np.take_along_axis(listed, np.maximum(place, 0), 1), -1)
        told = dict(infos) | {name: np.zeros(place.shape, np.float32) for name in SIGNALS}
        told["click"] = np.asarray(infos["click"], np.float32)
        for name in self.signals:
            if name in DWELL:
                told["dwell"] = np.asarray(infos[name], np.float32)
        considered = (place >= 0) & bool(self.topics)  # without topics only the first slot is looked at, and consumed
        told["skip"] = (considered & (told["click"] == 0.0)).astype(np.float32)
        told["slate"] = slate
        reward = np.zeros(place.shape, np.float32)
        for term, weight in self.weights.items():
            reward += np.float32(weight) * np.asarray(infos[term], np.float32)
        told["slot_reward"] = reward
        told["diversity"] = diversity(np.asarray(infos["cluster_id"]))
        return told


def diversity(topic: NDArray[np.integer]) -> NDArray[np.float64]:
    """Share of the pairs of slots [B, K] with different topics, of those that show something (not -1), [B]."""
    left, right = np.triu_indices(topic.shape[1], 1)
    one, other = topic[:, left], topic[:, right]
    pairs = (one >= 0) & (other >= 0)
    share: NDArray[np.float64] = (pairs & (one != other)).sum(1) / np.maximum(pairs.sum(1), 1)
    return share
