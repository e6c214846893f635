"""What is remembered of an episode, and its last step as plain text.

:mod:`recsim_llm.envs.rendering.figure` draws the record, :mod:`recsim_llm.envs.rendering.timeline` makes a page of it.
"""

from __future__ import annotations

import textwrap
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.envs.rendering.phrases import deeds, status
from recsim_llm.simulator import SIGNALS

LONGEST_RECORD = 1000
"""Steps that are remembered at most; the oldest are forgotten first."""

MOST_NUMBERS = 4_000_000
"""Numbers that are remembered at most (16 MB): with very many themes or slots the record is shorter."""

SHORTEST_RECORD = 50
SHOWN_THEMES = 5
NO_THEME = "(no category)"


@dataclass(frozen=True, eq=False)
class Moment:
    """One step as it is remembered.

    Attributes:
        step: Number of the step; 0 is the beginning, before the first slate.
        session: Session in which the slate was shown, from 0.
        day: When it was shown [day].
        session_after: Session after the step.
        day_after: When the next slate is shown [day].
        items: [K] positions in the catalogue, -1 for a wasted slot; empty at the beginning.
        signals: [K, S] what she did, in the order of the recorder's signals.
        topics: [K] themes of the items where there is no catalogue; else empty.
        reward: Reward of the step.
        gap: Time until she came back [day]; None where the session goes on.
        left: She left for good.
        mood: Mood after the step; NaN where users have none.
        satiation: [T] satiation of each theme after the step; empty where there is none.
        leaning: [T] utility of an average item of each theme for her present taste [logit]; empty where unknown.
    """

    step: int
    session: int
    day: float
    session_after: int
    day_after: float
    items: NDArray[np.int64]
    signals: NDArray[np.float32]
    topics: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    reward: float = 0.0
    gap: float | None = None
    left: bool = False
    mood: float = float("nan")
    satiation: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    leaning: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))


@dataclass(frozen=True)
class Item:
    """What a slot shows; empty texts and None where the catalogue does not say."""

    title: str
    category: str = ""
    provider: str = ""
    price: float | None = None


@dataclass(frozen=True)
class Person:
    """Who is recommended to; empty where the world does not say."""

    name: str
    groups: tuple[str, ...] = ()
    persona: str = ""
    statements: tuple[tuple[str, float], ...] = ()


class Recorder:
    """Remembers the steps of a scalar environment.

    It shows what happened, also where a task variant reports it late or wrongly, so it reads the core and falls back on
    the infos (``user_id, session, day, slate`` and the signals). What there is none of is left out. Of the core it
    knows ``scenario.name``, ``catalog``, ``world.population``, and in ``simulator.state`` ``lane`` (fields ``user,
    episode, step, mood, satisfaction, away``), ``slate``, ``feedback`` [B, K, S], ``satiation``, ``taste``. RecSim's
    classics, which have no catalogue, have ``traits`` [B, T] instead of taste, ``shown`` [B, K] (themes of the slate)
    and ``signals`` [S, B, K], named by ``simulator.model.signals``.

    Memory: at most LONGEST_RECORD steps and MOST_NUMBERS numbers (a step takes 2 T + 9 K of them).

    Args:
        core: What the environment runs on.
        name: The environment's name, used where the core has no scenario.

    Attributes:
        moments: The steps, oldest first; the first is the beginning unless it was forgotten.
        themes: [T] names of the catalogue's themes.
        signals: [S] names of the signals.
        taste_name: What a moment's ``leaning`` is.
        mood_name: What a moment's ``mood`` is: "satisfaction" where the core has no mood.
    """

    def __init__(self, core: Any, name: str = "episode") -> None:
        self._core = core
        self.name = str(getattr(getattr(core, "scenario", None), "name", name))
        self.catalog: Any = getattr(core, "catalog", None)
        self.themes: list[str] = [str(theme).strip() or NO_THEME for theme in getattr(self.catalog, "topics", [])]
        if self.catalog is None and (traits := self._state("traits")) is not None:
            self.themes = [f"topic {number}" for number in range(traits.shape[1])]
        model = getattr(getattr(core, "simulator", None), "model", None)
        self.signals: tuple[str, ...] = tuple(getattr(model, "signals", SIGNALS))
        self._centres = _centres(self.catalog)
        self.taste_name = "interest in topics" if self.catalog is None else "utility of themes [logit]"
        self.mood_name = "mood" if self._field("mood") is not None else "satisfaction"
        self.moments: deque[Moment] = deque()
        self._episode: tuple[int, int] = (-1, -1)

    def begin(self, info: Mapping[str, Any]) -> None:
        """Forgets the episode before and notes how this one starts."""
        self.moments.clear()
        self._episode = self._now(info)
        day, session = float(info.get("day", np.nan)), int(info.get("session", 0))
        nothing = np.zeros((0, len(self.signals)), np.float32)
        self._add(Moment(0, session, day, session, day, np.zeros(0, np.int64), nothing, **self._latent()))

    def note(self, info: Mapping[str, Any], reward: float, terminated: bool) -> None:
        """Remembers a step. After ``set_state`` the steps that were taken back are forgotten."""
        if self._now(info) != self._episode:
            self.moments.clear()
            self._episode = self._now(info)
        step = self._field("step")
        number = (self.moments[-1].step + 1 if self.moments else 1) if step is None else int(step)
        while self.moments and self.moments[-1].step >= number:
            self.moments.pop()
        session_after, day_after = int(info.get("session", 0)), float(info.get("day", np.nan))
        last = self.moments[-1] if self.moments else None
        session, day = (last.session_after, last.day_after) if last else (session_after, day_after)
        gap = None
        if session_after != session:
            away = self._field("away")
            gap = day_after - day if away is None else float(away)
        items, signals, topics = self._shown(info)
        self._add(
            Moment(
                number, session, day, session_after, day_after, items, signals, topics, float(reward), gap,
                bool(terminated), **self._latent(),
            )
        )  # fmt: skip

    @property
    def person(self) -> Person:
        """The user of the episode."""
        index = self._episode[1]
        people = getattr(getattr(self._core, "world", None), "population", None)
        if people is None or not 0 <= index < len(people):
            return Person(str(index) if index >= 0 else "")
        groups = (people.gender[index], people.age_band[index], people.region[index])
        statements = tuple((str(text), float(valence)) for text, valence in people.statements[index])
        return Person(people.user_id[index], tuple(g for g in groups if g), people.persona[index], statements)

    @property
    def ending(self) -> str:
        """What it means that an episode was terminated."""
        return "She left for good." if self.mood_name == "mood" else "The episode was over."

    @property
    def world(self) -> Any:
        """The world that the environment runs on, or None."""
        return getattr(self._core, "world", None)

    def item(self, moment: Moment, place: int) -> Item:
        """What is known about the item of a slot."""
        index = int(moment.items[place])
        if index < 0:
            return Item("(wasted slot)")
        if self.catalog is None:
            topic = int(moment.topics[place]) if len(moment.topics) and self.themes else -1
            return Item(f"document {index}", f"topic {topic}" if topic >= 0 else "")
        price = float(self.catalog.price[index])
        return Item(
            self.catalog.title[index] or self.catalog.item_id[index],
            self.catalog.category[index], self.catalog.provider[index], price if price > 0 else None,
        )  # fmt: skip

    def deeds(self, moment: Moment, place: int) -> list[str]:
        """What she did with the item of a slot, in words; nothing can be done with a wasted one."""
        return deeds(moment.signals[place], self.signals) if moment.items[place] >= 0 else []

    def has(self, moment: Moment, signal: str) -> NDArray[np.bool_]:
        """Which slots have a signal, [K]."""
        if signal not in self.signals:
            return np.zeros(len(moment.items), np.bool_)
        found: NDArray[np.bool_] = moment.signals[:, self.signals.index(signal)] > 0
        return found

    def render(self, mode: str) -> Any:
        """The record as text ("ansi"), picture ("rgb_array", uint8 [H, W, 3]) or page ("html")."""
        return {"ansi": self.text, "rgb_array": self.picture, "html": self.page}[mode]()

    def text(self) -> str:
        """The last step as plain text."""
        if not self.moments:
            return f"{self.name}: nothing to show before reset()\n"
        last, person = self.moments[-1], self.person
        lines = [
            f"{self.name}: user {person.name}" + (f" ({', '.join(person.groups)})" if person.groups else ""),
            *textwrap.wrap(person.persona, 100, initial_indent="  ", subsequent_indent="  "),
            status(last, self.mood_name),
        ]
        for place in range(len(last.items)):
            item = self.item(last, place)
            about = f" [{item.category}]" if item.category else ""
            lines.append(f"  {place + 1:2d}. {item.title}{about}  {', '.join(self.deeds(last, place))}")
        if len(last.leaning):
            order = np.argsort(-last.leaning, kind="stable")[:SHOWN_THEMES]
            lines.append("  leans to: " + ", ".join(f"{self.themes[t]} {last.leaning[t]:+.1f}" for t in order))
        return "\n".join([*lines, ""])

    def picture(self) -> NDArray[np.uint8]:
        """The record as an image, uint8 [H, W, 3].

        Raises:
            MissingExtraError: If matplotlib is not installed.
        """
        from recsim_llm.envs.rendering.figure import draw

        return draw(self)

    def page(self) -> str:
        """The record as one HTML page.

        Raises:
            MissingExtraError: If Jinja2 is not installed.
        """
        from recsim_llm.envs.rendering.timeline import page

        return page(self)

    def _add(self, moment: Moment) -> None:
        self.moments.append(moment)
        numbers = 2 * len(self.themes) + 9 * len(moment.items) + 1
        longest = min(max(MOST_NUMBERS // numbers, SHORTEST_RECORD), LONGEST_RECORD)
        while len(self.moments) > longest + 1:  # the beginning is no step
            self.moments.popleft()

    def _now(self, info: Mapping[str, Any]) -> tuple[int, int]:
        """Which episode this is: its number, where users are counted, and its user."""
        episode, user = self._field("episode"), self._field("user")
        user = info.get("user_id") if user is None else user
        return (0 if episode is None else int(episode), -1 if user is None else int(user))

    def _state(self, name: str) -> Any:
        return getattr(getattr(getattr(self._core, "simulator", None), "state", None), name, None)

    def _field(self, name: str) -> Any:
        """A field of lane 0, or None."""
        lanes = self._state("lane")
        return lanes[name][0] if lanes is not None and name in (lanes.dtype.names or ()) else None

    def _shown(self, info: Mapping[str, Any]) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
        """Items of the last slate [K], what she did with them [K, S], and their themes [K] or []."""
        slate, feedback, shown = self._state("slate"), self._state("feedback"), self._state("shown")
        items = np.atleast_1d(np.array(info.get("slate", ()) if slate is None else slate[0], np.int64))
        topics = np.zeros(0, np.int64) if shown is None else shown[0].astype(np.int64)
        shape = (len(items), len(self.signals))
        if feedback is None and self._state("signals") is not None:
            feedback = self._state("signals").transpose(1, 2, 0)
        if feedback is not None and feedback.shape[1:] == shape:
            return items, feedback[0].astype(np.float32), topics
        signals = np.zeros(shape, np.float32)
        for place, signal in enumerate(self.signals):
            if signal in info:
                signals[:, place] = info[signal]
        return items, signals, topics

    def _latent(self) -> dict[str, Any]:
        """Mood, satiation and leaning as they are now, those that there are."""
        found: dict[str, Any] = {}
        mood, satiation, taste = self._field(self.mood_name), self._state("satiation"), self._state("taste")
        if mood is not None and (self.mood_name == "mood" or mood != 0):  # a constant 0: there is no satisfaction
            found["mood"] = float(mood)
        if satiation is not None and satiation.shape[1] == len(self.themes):
            found["satiation"] = satiation[0].astype(np.float32)
        if self.catalog is None and len(self.themes):
            found["leaning"] = self._state("traits")[0].astype(np.float32)
        elif taste is not None and self._centres is not None and taste.shape[1] >= self._centres.shape[1]:
            units = self._core.simulator.tables.units
            unit = units["utility_unit"] / max(units["encoding_unit"], 1e-12)
            leaning = self._centres @ (taste[0, : self._centres.shape[1]].astype(np.float64) * unit)
            found["leaning"] = leaning.astype(np.float32)
        return found


def _centres(catalog: Any) -> NDArray[np.float64] | None:
    """Mean encoding of the items of each theme, [T, D]."""
    if getattr(catalog, "embedding", None) is None:
        return None
    sums = np.zeros((len(catalog.topics), catalog.embedding.shape[1]), np.float64)
    np.add.at(sums, catalog.topic, catalog.embedding)
    centres: NDArray[np.float64] = sums / np.bincount(catalog.topic, minlength=len(catalog.topics))[:, None]
    return centres
