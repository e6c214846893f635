"""An episode so far as a picture, drawn with matplotlib's Agg: no display is needed."""

from __future__ import annotations

import textwrap
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.envs.rendering import charts
from recsim_llm.envs.rendering.phrases import status
from recsim_llm.envs.rendering.recorder import Moment, Recorder
from recsim_llm.errors import require

INCHES, DPI = (12.8, 7.2), 100
INK, MUTED, GRID, ACCENT, HEAT = "#1c1c1e", "#66666e", "#cfcfcf", "#0072b2", "Oranges"
COLOURS = ("#0072b2", "#b8430a", "#00795a", "#a8437f", "#806000", "#5148b8", "#55555c")
MOST_SLOTS, PERSONA_LINES, PERSONA_WIDTH, TITLE, THEME = 8, 7, 76, 62, 22
TOP, LOWEST, SLOT, ROW = 0.645, 0.05, 0.068, 0.032
"""Heights in the left half: of the first slot, of the lowest row, of a slot and of a row below the slate."""

SPACE = 0.085
"""Distance of names beside lines, as a share of the axis' height."""


def draw(recorder: Recorder) -> NDArray[np.uint8]:
    """The record as an image: persona and last slate; mood, taste and satiation over the whole episode so far.

    Args:
        recorder: The record of an environment with a render mode.

    Returns:
        uint8 [720, 1280, 3].

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    require("matplotlib", "benchmarks")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=INCHES, dpi=DPI, facecolor="white")
    canvas: Any = FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        3, 2, width_ratios=(1.25, 1), height_ratios=(0.8, 1.5, 1.1), left=0.02, right=0.87, top=0.95, bottom=0.06,
        hspace=0.5, wspace=0.2,
    )  # fmt: skip
    _draw_words(figure.add_subplot(grid[:, 0]), recorder)
    places = [figure.add_subplot(grid[row, 1]) for row in range(3)]
    for axes, drawer in zip(places, (_draw_mood, _draw_taste, _draw_satiation), strict=True):
        if not (recorder.moments and drawer(axes, recorder)):
            axes.axis("off")
    with warnings.catch_warnings():  # a script that the font lacks is drawn as boxes, and no reason to stop
        warnings.filterwarnings("ignore", message="(?s).*[Gg]lyph.*")
        warnings.filterwarnings("ignore", message="(?s).*font.*")
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()


def _draw_words(axes: Any, recorder: Recorder) -> None:
    """Who she is, and the last slate with what she did."""
    axes.axis("off")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    person = recorder.person
    _write(axes, 0, 1.0, cut(f"{recorder.name}: user {person.name}", 46), size=14, weight="bold")
    if not recorder.moments:
        return
    last = recorder.moments[-1]
    _write(
        axes, 0, 0.945, cut("; ".join((status(last, recorder.mood_name), *person.groups)), 84), size=9.5, color=MUTED
    )
    lines = textwrap.wrap(person.persona, PERSONA_WIDTH)
    lines = [*lines[: PERSONA_LINES - 1], cut(" ".join(lines[PERSONA_LINES - 1 :]), PERSONA_WIDTH)]
    _write(axes, 0, 0.895, "\n".join(line for line in lines if line), size=10, linespacing=1.35)
    shown = last.items[:MOST_SLOTS]
    for place in range(len(shown)):
        _draw_slot(axes, TOP - place * SLOT, recorder, last, place)
    y = TOP - len(shown) * SLOT
    if len(last.items) > len(shown):
        _write(axes, 0, y, f"and {len(last.items) - len(shown)} more slots", size=9, color=MUTED)
        y -= ROW
    _draw_before(axes, y, recorder)
    if last.left:
        _write(axes, 0, 0.0, recorder.ending, size=11, weight="bold", color=COLOURS[1], va="bottom")


def _draw_before(axes: Any, y: float, recorder: Recorder) -> None:
    """Earlier steps, the latest first, as far as there is room: what was clicked, or that nothing was."""
    earlier = [moment for moment in recorder.moments if len(moment.items)][:-1]
    y -= ROW / 2
    rows = int((y - LOWEST) / ROW)
    if not earlier or rows < 1:
        return
    _write(axes, 0, y, "before", size=9, color=MUTED, va="baseline")
    for row, moment in enumerate(reversed(earlier[-rows:]), start=1):
        clicked = np.flatnonzero(recorder.has(moment, "click")).tolist()
        told = "nothing clicked"
        if clicked:
            told = ", ".join(recorder.item(moment, place).title for place in clicked)
        elif len(moment.items) == 1:
            told = recorder.item(moment, 0).title
        done = recorder.deeds(moment, clicked[0]) if clicked else []
        colour = ACCENT if clicked else MUTED
        _write(axes, 0.045, y - row * ROW, f"{moment.step}", size=9, color=MUTED, ha="right", va="baseline")
        _write(axes, 0.06, y - row * ROW, cut(told, 46), size=9, color=colour, va="baseline")
        _write(axes, 1, y - row * ROW, cut(", ".join(done), 36), size=9, color=MUTED, ha="right", va="baseline")


def _draw_slot(axes: Any, y: float, recorder: Recorder, last: Moment, place: int) -> None:
    item, clicked = recorder.item(last, place), bool(recorder.has(last, "click")[place])
    colour = ACCENT if clicked else MUTED if last.items[place] < 0 else INK
    title = cut(f"{place + 1}. {item.title}", TITLE)
    _write(axes, 0, y, title, size=10, color=colour, weight="bold" if clicked else "normal")
    about = [item.category, item.provider, "" if item.price is None else f"price {item.price:.2f}"]
    _write(
        axes, 0.03, y - 0.03, cut(" · ".join(part for part in dict.fromkeys(about) if part), 50), size=9, color=MUTED
    )
    done = cut(", ".join(recorder.deeds(last, place)), 44)
    _write(axes, 1, y - 0.03, done, size=9, color=colour if clicked else MUTED, ha="right")


def _draw_mood(axes: Any, recorder: Recorder) -> bool:
    moods = charts.moods(recorder.moments)
    if moods is None:
        return False
    axes.plot(_steps(recorder), moods, color=ACCENT, linewidth=1.6)
    low, high = float(moods.min()), float(moods.max()) + 1e-6
    if recorder.mood_name == "mood":
        axes.axhline(0, color=GRID, linewidth=0.8)
        low, high = min(low, -0.2), max(high, 0.2)
    axes.set_ylim(low - 0.1 * (high - low), high + 0.1 * (high - low))
    _finish(axes, recorder, f"{recorder.mood_name} (dotted: between sessions)")
    return True


def _draw_taste(axes: Any, recorder: Recorder) -> bool:
    if not len(recorder.moments[-1].leaning):
        return False
    history, steps = np.stack([moment.leaning for moment in recorder.moments]), _steps(recorder)
    shown = charts.chosen_themes(history)
    others = [theme for theme in range(history.shape[1]) if theme not in shown]
    spread = np.unique(np.linspace(0, len(others) - 1, min(len(others), charts.BACKGROUND)).round().astype(int))
    for n in spread:
        axes.plot(steps, history[:, others[n]], color=GRID, linewidth=0.7)
    axes.axhline(0, color=MUTED, linewidth=0.6)
    for theme, colour in zip(shown, COLOURS, strict=False):
        axes.plot(steps, history[:, theme], color=colour, linewidth=1.6)
    _finish(axes, recorder, f"taste: {recorder.taste_name}")
    _name_lines(axes, [(recorder.themes[theme], float(history[-1, theme])) for theme in shown])
    return True


def _name_lines(axes: Any, ends: list[tuple[str, float]]) -> None:
    """Names beside the ends of lines, moved apart; ``ends`` runs from the highest to the lowest."""
    low, high = axes.get_ylim()
    heights = [(value - low) / (high - low) for _, value in ends]
    for n in range(1, len(heights)):
        heights[n] = min(heights[n], heights[n - 1] - SPACE)
    heights = [height + max(0.0, -heights[-1]) for height in heights]  # not below the axis
    for (name, value), height, colour in zip(ends, heights, COLOURS, strict=False):
        axes.text(
            1.02, height, f"{value:+.1f}  {cut(name, THEME)}", transform=axes.transAxes, fontsize=9, color=colour,
            va="center", parse_math=False, clip_on=False,
        )  # fmt: skip


def _draw_satiation(axes: Any, recorder: Recorder) -> bool:
    if not len(recorder.moments[-1].satiation):
        return False
    history = np.stack([moment.satiation for moment in recorder.moments])  # [N, T]
    peaks = history.max(axis=0)
    shown = [t for t in np.argsort(-peaks, kind="stable").tolist()[: charts.STRIPS] if peaks[t] >= charts.FAINT]
    if shown:
        first, last = recorder.moments[0].step, recorder.moments[-1].step
        seen = np.where(history >= charts.FAINT, history, np.nan)[:, shown].T
        extent = (first - 0.5, last + 0.5, len(shown) - 0.5, -0.5)
        axes.imshow(seen, aspect="auto", cmap=HEAT, vmin=-0.1, vmax=1, interpolation="nearest", extent=extent)
    _finish(axes, recorder, "satiation by theme, 0 to 1")
    axes.set_yticks([])
    for row, theme in enumerate(shown):
        axes.text(
            1.02, 1 - (row + 0.5) / len(shown), f"{peaks[theme]:.2f}  {cut(recorder.themes[theme], THEME)}",
            transform=axes.transAxes, fontsize=9, color=INK, va="center", parse_math=False, clip_on=False,
        )  # fmt: skip
    return True


def _finish(axes: Any, recorder: Recorder, title: str) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=9, colors=MUTED)
    first, last = recorder.moments[0].step, recorder.moments[-1].step
    axes.set_xlim(first, max(last, first + 1))
    axes.set_title(title, fontsize=10.5, loc="left", color=INK)
    for moment in recorder.moments:
        if moment.gap is not None:
            axes.axvline(moment.step, color=MUTED, linewidth=0.7, linestyle=":")


def _steps(recorder: Recorder) -> list[int]:
    return [moment.step for moment in recorder.moments]


def _write(axes: Any, x: float, y: float, text: str, *, size: float, **style: Any) -> None:
    axes.text(x, y, text, fontsize=size, parse_math=False, **{"va": "top", "color": INK, **style})


def cut(text: str, longest: int) -> str:
    """A text in one line of at most ``longest`` characters."""
    text = " ".join(text.split())
    return text if len(text) <= longest else text[: longest - 1] + "…"
