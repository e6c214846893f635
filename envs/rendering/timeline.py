"""An episode as one HTML page: no script, nothing requested from anywhere, every text escaped.

The page depends on the record alone, so that the same episode gives the same bytes.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.resources
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recsim_llm.envs.rendering import charts
from recsim_llm.envs.rendering.phrases import span, when
from recsim_llm.envs.rendering.recorder import Moment, Recorder
from recsim_llm.errors import require

LONGEST_TITLE, LONGEST_NAME, LONGEST_PERSONA, MOST_STATEMENTS = 300, 80, 3000, 60
OPEN_SLOTS = 60
"""Sessions are open until this many slots have been shown; later ones open at a click. The last one is open too."""

LONG_SLATE = 12
"""Slots of a slate that stand on the page; the others open at a click."""

_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class Slot:
    """One slot of a slate: its texts, what she did, and how it looks ("clicked", "passed", "unseen", "wasted")."""

    title: str
    about: tuple[str, ...]
    price: str
    deeds: list[str]
    look: str


@dataclass(frozen=True)
class Step:
    """One step: number, time of day, mood, reward, slots."""

    number: int
    time: str
    mood: str
    good: bool
    reward: str
    slots: list[Slot]


@dataclass(frozen=True)
class Session:
    """One session: number, when it began, its steps, clicks and looks, and what came after it."""

    number: int
    began: str
    steps: list[Step]
    clicks: int
    after: str
    left: bool
    open: bool


def page(recorder: Recorder) -> str:
    """The record of an episode as HTML.

    Args:
        recorder: The record of an environment with a render mode, after reset().

    Raises:
        MissingExtraError: If Jinja2 is not installed.
    """
    template, style, policy = _template()
    moments = list(recorder.moments)
    person = recorder.person
    text: str = template.render(
        style=style,
        policy=policy,
        name=clean(recorder.name, LONGEST_NAME),
        user=clean(person.name, LONGEST_NAME),
        groups=[clean(group, LONGEST_NAME) for group in person.groups],
        persona=clean(person.persona, LONGEST_PERSONA),
        likes=_statements(person.statements, 1),
        dislikes=_statements(person.statements, -1),
        facts=_facts(recorder, moments),
        forgotten=max(moments[0].step - 1, 0) if moments and len(moments[0].items) else 0,
        mood_name=recorder.mood_name,
        taste_name=recorder.taste_name,
        charts=_charts(recorder, moments),
        sessions=_sessions(recorder, moments),
        single=all(len(moment.items) <= 1 for moment in moments),
        long_slate=LONG_SLATE,
    )
    return text


@functools.cache
def _template() -> tuple[Any, Any, str]:
    """The template, the style, and the policy that allows this one style and nothing else."""
    jinja2 = require("jinja2", "benchmarks")
    folder = importlib.resources.files("recsim_llm.envs.rendering") / "templates"
    style = (folder / "timeline.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string((folder / "timeline.html").read_text(encoding="utf-8"))
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return template, jinja2.utils.markupsafe.Markup(style), policy  # our own file, the only text that is not escaped


def clean(text: str, longest: int) -> str:
    """A text from a world without control characters, cut to a length."""
    text = _HIDDEN.sub(" ", text).strip()
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"


def _statements(statements: Sequence[tuple[str, float]], sign: int) -> list[tuple[str, str]]:
    """Statements that like (sign 1) or dislike (-1), strongest first, with their valence."""
    chosen = sorted((s for s in statements if s[1] * sign > 0), key=lambda s: -abs(s[1]))[:MOST_STATEMENTS]
    return [(clean(text, LONGEST_TITLE), f"{valence:+.2g}") for text, valence in chosen]


def _facts(recorder: Recorder, moments: Sequence[Moment]) -> list[tuple[str, str]]:
    steps = [moment for moment in moments if len(moment.items)]
    clicks = sum(int(recorder.has(moment, "click").sum()) for moment in steps)
    passed = sum(int(recorder.has(moment, "skip").sum()) for moment in steps)
    facts = [
        ("steps", str(len(steps))),
        ("sessions", str(len({moment.session for moment in steps}))),
        ("clicks", f"{clicks} of {clicks + passed} items looked at" if "skip" in recorder.signals else str(clicks)),
        ("reward", f"{sum(moment.reward for moment in steps):.4g}"),
    ]
    if steps and np.isfinite(steps[-1].day_after):
        facts.append(("began", when(steps[0].day)))
        facts.append(("lasted", span(steps[-1].day_after - steps[0].day)))
    facts.append(("at the end", recorder.ending.rstrip(".") if steps and steps[-1].left else "still there"))
    if recorder.world is not None:
        facts.append(("world", f"{clean(recorder.world.name, LONGEST_NAME)}, {recorder.world.hash[:12]}"))
    return facts


def _charts(recorder: Recorder, moments: Sequence[Moment]) -> dict[str, Any]:
    """What there is to draw: "mood" and "taste" as Charts, "satiation" as Strips, and the steps at both ends."""
    drawn: dict[str, Any] = {"mood": None, "taste": None, "satiation": None}
    if len(moments) < 2:
        return drawn
    drawn["ends"] = (moments[0].step, moments[-1].step)
    drawn["breaks"] = charts.breaks(moments)
    moods = charts.moods(moments)
    if moods is not None:
        drawn["mood"] = charts.chart(
            moments, moods[:, None], [recorder.mood_name], [0], with_zero=recorder.mood_name == "mood"
        )
    themes = [clean(theme, LONGEST_NAME) for theme in recorder.themes]
    if len(moments[-1].leaning):
        leaning = np.stack([moment.leaning for moment in moments])
        drawn["taste"] = charts.chart(moments, leaning, themes, charts.chosen_themes(leaning))
    if len(moments[-1].satiation):
        drawn["satiation"] = charts.strips(moments, themes)
    return drawn


def _sessions(recorder: Recorder, moments: Sequence[Moment]) -> list[Session]:
    steps = [moment for moment in moments if len(moment.items)]
    numbers = sorted({moment.session for moment in steps})
    found, shown = [], 0
    for number in numbers:
        part = [moment for moment in steps if moment.session == number]
        found.append(
            Session(
                number + 1,
                when(part[0].day) if np.isfinite(part[0].day) else "",
                [_step(recorder, moment) for moment in part],
                sum(int(recorder.has(moment, "click").sum()) for moment in part),
                recorder.ending if part[-1].left else _after(part[-1]),
                part[-1].left,
                open=shown < OPEN_SLOTS or number == numbers[-1],
            )
        )
        shown += sum(len(moment.items) for moment in part)
    return found


def _after(last: Moment) -> str:
    """What came after a session that another one follows."""
    return "" if last.gap is None else f"She came back after {span(last.gap)}."


def _step(recorder: Recorder, moment: Moment) -> Step:
    slots = [_slot(recorder, moment, place) for place in range(len(moment.items))]
    time = when(moment.day).rpartition(" ")[2] if np.isfinite(moment.day) else ""
    mood = f"{moment.mood:+.2f}" if np.isfinite(moment.mood) else ""
    return Step(moment.step, time, mood, not moment.mood < 0, f"{moment.reward:.4g}", slots)


def _slot(recorder: Recorder, moment: Moment, place: int) -> Slot:
    item = recorder.item(moment, place)
    about = tuple(clean(text, LONGEST_NAME) for text in dict.fromkeys((item.category, item.provider)) if text.strip())
    look = "unseen"
    for chosen, name in ((recorder.has(moment, "skip"), "passed"), (recorder.has(moment, "click"), "clicked")):
        look = name if chosen[place] else look
    told = ["passed over" if word == "skip" else word for word in recorder.deeds(moment, place)]
    price = "" if item.price is None else f"{item.price:.2f}"
    title = clean(item.title, LONGEST_TITLE)
    return Slot(title, about, price, told, "wasted" if moment.items[place] < 0 else look)
