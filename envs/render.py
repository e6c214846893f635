"""Pictures and texts of a session: the slate, what the user did, her mood and interests over time."""

from __future__ import annotations

import itertools
import textwrap
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.errors import require
from recsim_llm.rules import SIGNALS

if TYPE_CHECKING:
    from recsim_llm.envs.core import Core

REMEMBERED = 200
"""Steps that a picture looks back."""

SHOWN_TOPICS = 5
INK, MUTED, ACCENT, GOOD, BAD = "#222222", "#777777", "#0072b2", "#009e73", "#d55e00"


class Recorder:
    """Remembers the last steps of lane 0 and draws them."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._moods: deque[float] = deque(maxlen=REMEMBERED)
        self._leanings: deque[NDArray[np.float32]] = deque(maxlen=REMEMBERED)
        catalog = core.world.catalog
        sums = np.zeros((len(catalog.topics), catalog.width), np.float64)
        np.add.at(sums, catalog.topic, catalog.embedding)
        self._centres = sums / np.bincount(catalog.topic, minlength=len(catalog.topics))[:, None]

    def begin(self) -> None:
        """Forgets the episode before."""
        self._moods.clear()
        self._leanings.clear()
        self.note()

    def note(self) -> None:
        """Remembers the state after a step."""
        state = self._core.simulator.state
        self._moods.append(float(state.lane["mood"][0]))
        width = self._core.world.catalog.width
        unit = self._core.simulator.tables.units["utility_unit"] / max(
            self._core.simulator.tables.units["encoding_unit"], 1e-12
        )
        self._leanings.append((self._centres @ (state.taste[0, :width] * unit)).astype(np.float32))

    def text(self) -> str:
        """The last step as plain text."""
        core = self._core
        lane = core.simulator.state.lane[0]
        people = core.world.population
        user = int(lane["user"])
        about = ", ".join(part for part in (people.gender[user], people.age_band[user], people.region[user]) if part)
        day = core.simulator.rules.start_day + lane["clock"] / 86400.0
        lines = [
            f"{core.scenario.name}: user {people.user_id[user]}" + (f" ({about})" if about else ""),
            *textwrap.wrap(people.persona[user], 100, initial_indent="  ", subsequent_indent="  "),
            f"step {lane['step']}, session {lane['session'] + 1}, day {int(day)} at {_time_of_day(day)}, "
            f"mood {lane['mood']:+.2f}",
        ]
        lines += [f"  {number + 1:2d}. {row}" for number, row in enumerate(self._slots())]
        leaning = ", ".join(f"{name} {value:+.1f}" for name, value in self._top_topics())
        return "\n".join([*lines, f"  leans to: {leaning}", ""])

    def picture(self) -> NDArray[np.uint8]:
        """The last step as an image, uint8 [480, 960, 3]."""
        require("matplotlib", "benchmarks")
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9.6, 4.8), dpi=100, facecolor="white")
        canvas: Any = FigureCanvasAgg(figure)
        grid = figure.add_gridspec(
            2, 2, width_ratios=(1.35, 1), left=0.02, right=0.86, top=0.92, bottom=0.1, hspace=0.5
        )
        self._draw_slate(figure.add_subplot(grid[:, 0]))
        self._draw_mood(figure.add_subplot(grid[0, 1]))
        self._draw_interests(figure.add_subplot(grid[1, 1]))
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()

    def _slots(self) -> list[str]:
        """One line for each slot: the item and what was done with it."""
        core = self._core
        state = core.simulator.state
        catalog = core.world.catalog
        if int(state.lane["step"][0]) == 0:
            return []
        rows = []
        for item, signals in zip(state.slate[0], state.feedback[0], strict=True):
            title = f"{catalog.title[item]} [{catalog.category[item]}]" if item >= 0 else "(wasted slot)"
            rows.append(f"{title}  {_deeds(signals)}")
        return rows

    def _top_topics(self) -> list[tuple[str, float]]:
        names = self._core.world.catalog.topics
        order = np.argsort(-self._leanings[-1], kind="stable")[:SHOWN_TOPICS]
        return [(names[topic], float(self._leanings[-1][topic])) for topic in order]

    def _draw_slate(self, axes: Any) -> None:
        core = self._core
        lane = core.simulator.state.lane[0]
        people = core.world.population
        user = int(lane["user"])
        axes.axis("off")
        axes.set(xlim=(0, 1), ylim=(0, 1))
        day = core.simulator.rules.start_day + lane["clock"] / 86400.0
        axes.text(
            0,
            1.0,
            f"{core.scenario.name}   user {people.user_id[user]}",
            fontsize=11,
            weight="bold",
            color=INK,
            va="top",
        )
        axes.text(
            0, 0.945, f"step {lane['step']}  session {lane['session'] + 1}  day {int(day)}, {_time_of_day(day)}",
            fontsize=8.5, color=MUTED, va="top",
        )  # fmt: skip
        persona = textwrap.wrap(_plain(people.persona[user]), 78)[:5]
        axes.text(0, 0.89, "\n".join(persona), fontsize=8, color=INK, va="top", linespacing=1.3)
        rows = self._slots()
        top, height = 0.64, min(0.62 / max(len(rows), 1), 0.1)
        for number, row in enumerate(rows):
            title, deeds = row.rsplit("  ", 1)
            colour = GOOD if "click" in deeds else (BAD if "wasted" in title else INK)
            y = top - number * height
            axes.text(
                0,
                y,
                textwrap.shorten(f"{number + 1}. {_plain(title)}", 62, placeholder="…"),
                fontsize=8,
                color=colour,
                va="top",
            )
            axes.text(0.995, y, _plain(deeds), fontsize=7.5, color=colour, va="top", ha="right")

    def _draw_mood(self, axes: Any) -> None:
        axes.axhline(0, color="#cccccc", linewidth=0.8)
        axes.plot(list(self._moods), color=ACCENT, linewidth=1.4)
        axes.set_title("mood", fontsize=9, loc="left", color=INK)
        _plain_axes(axes, len(self._moods))

    def _draw_interests(self, axes: Any) -> None:
        history = np.stack(list(self._leanings))
        colours = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")
        ends: list[list[Any]] = []
        for (name, value), colour in zip(self._top_topics(), colours, strict=False):
            topic = self._core.world.catalog.topics.index(name)
            axes.plot(history[:, topic], color=colour, linewidth=1.4)
            ends.append([value, name, colour])
        axes.set_title("utility of themes [logit]", fontsize=9, loc="left", color=INK)
        _plain_axes(axes, len(history))
        low, high = axes.get_ylim()
        space = (high - low) * 0.17
        ends.sort(key=lambda end: float(end[0]))
        for before, after in itertools.pairwise(ends):
            after[0] = max(after[0], before[0] + space)
        for height, name, colour in ends:
            axes.annotate(
                textwrap.shorten(_plain(name), 18, placeholder="…"), (1.02, height), xycoords=("axes fraction", "data"),
                fontsize=7.5, color=colour, va="center", annotation_clip=False,
            )  # fmt: skip


def _plain_axes(axes: Any, steps: int) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=7.5, colors=MUTED)
    axes.set_xlim(0, max(steps - 1, 1))
    axes.set_xlabel("last steps", fontsize=7.5, color=MUTED)


def _plain(text: str) -> str:
    """Text that matplotlib draws as it stands: no mathematics between dollar signs."""
    return text.replace("$", r"\$")


def _time_of_day(day: float) -> str:
    minutes = int(day % 1 * 1440)
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def _deeds(signals: NDArray[np.float32]) -> str:
    """What the user did with an item, in words."""
    words = []
    for name, value in zip(SIGNALS, signals, strict=True):
        if value <= 0:
            continue
        words.append(f"{value:.0f} s" if name == "dwell" else f"{value:.0f} stars" if name == "rating" else name)
    return ", ".join(words) if words else "not looked at"
