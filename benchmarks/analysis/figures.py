"""Figures of a benchmark: reward curves and score intervals, as PNG and SVG, the same bytes for the same results.

The object interface of Matplotlib is used, never pyplot: there is no global figure, no display, no style left behind.
Every figure prints n; colours suit colour-blind readers and belong to an agent, not to a place in a list.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents import families
from recsim_llm.benchmarks.analysis import scores
from recsim_llm.benchmarks.analysis.leaderboard import REFERENCES
from recsim_llm.benchmarks.harness.results import ORACLE, RANDOM, Results
from recsim_llm.errors import ConfigError, require
from recsim_llm.files import write_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
COLOURS: Mapping[str, str] = MappingProxyType(
    {
        RANDOM: "#767676",
        ORACLE: "#000000",
        "lookahead": "#444444",
        "popularity": "#E69F00",
        "epsilon_greedy": "#56B4E9",
        "thompson": "#009E73",
        "linucb": "#0072B2",
        "q_learning": "#CC79A7",
        "sarsa": "#882255",
        "mf": "#999933",
        "ppo": "#D55E00",
    }
)
"""Colour by agent, from the palettes of Okabe and Ito (2008) and of P. Tol (2021)."""
_SPARE = ("#332288", "#44AA99", "#8C564B", "#AA4499", "#117733", "#DDAA33", "#661100", "#6699CC")
MOST_CURVES = 12
"""More lines than this in one panel cannot be told apart."""
_MARKERS = "osD^vP*X<>hp"
_CHARACTERS_PER_INCH = 15
_LABEL_GAP = 11.0  # between the middles of two labels [pt]
_RC = {
    "svg.hashsalt": "recsim_llm",
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#444444",
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "text.parse_math": False,
}


def colours(agents: Sequence[str]) -> dict[str, str]:
    """A colour for every agent; those without one of their own share the spare ones by name."""
    others = sorted(set(agents) - set(COLOURS))
    return {**COLOURS, **{name: _SPARE[k % len(_SPARE)] for k, name in enumerate(others)}}


def write_figures(results: Results, folder: Path, seed: int = 0) -> list[Path]:
    """Writes all figures of an experiment.

    Args:
        results: The results.
        folder: Where to; made if it is not there.
        seed: Seed of the bootstrap.

    Returns:
        The files: ``reward_curves.png`` and ``.svg``, and ``scores.png`` and ``.svg`` if there are scores.

    Raises:
        MissingExtraError: If Matplotlib is not installed.
    """
    matplotlib = require("matplotlib", "benchmarks")
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    with matplotlib.rc_context(_RC):
        written += _save(reward_curves(results, seed), folder / "reward_curves")
        if results.has_scores and np.isfinite(results.scores(ORACLE)).any():
            written += _save(score_intervals(results, seed), folder / "scores")
    return written


def _save(figure: Figure, stem: Path) -> list[Path]:
    png, svg = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    written = [stem.with_suffix(".png"), stem.with_suffix(".svg")]
    for path, content in zip(written, (png, svg), strict=True):
        write_file(path, content.getvalue())
    return written


def reward_curves(results: Results, seed: int = 0) -> Figure:
    """Return over interactions: a panel per scenario, a line per agent, with 95 % bands over seeds.

    Random and oracle are dashed lines at their final values. Labels stand at the ends of their lines and never overlap.
    """
    from matplotlib.figure import Figure

    results = results.main
    experiment = results.experiment
    columns = min(len(experiment.scenarios), 2)
    rows = -(-len(experiment.scenarios) // columns)
    figure = Figure(figsize=(6.2 * columns, 4.3 * rows + 0.55), dpi=130)
    grid = figure.subplots(rows, columns, squeeze=False)
    figure.subplots_adjust(
        left=0.62 / (6.2 * columns),
        right=1 - 1.5 / (6.2 * columns),
        top=1 - 0.42 / (4.3 * rows + 0.55),
        bottom=0.85 / (4.3 * rows + 0.55),
        wspace=2.2 / 4.3,
        hspace=0.35,
    )
    for axes in grid.flat[len(experiment.scenarios) :]:
        axes.set_visible(False)
    cut = False
    for n, scenario in enumerate(experiment.scenarios):
        cut |= _curve_panel(grid.flat[n], results, n, seed)
        grid.flat[n].set_title(scenario, loc="left", fontsize=10, fontweight="bold")
    caption = textwrap.fill(_curve_caption(results, cut), round(6.2 * columns * _CHARACTERS_PER_INCH))
    figure.text(0.008, 0.012, caption, fontsize=8, color="#444444", va="bottom")
    return figure


def _curve_caption(results: Results, cut: bool) -> str:
    size = results.experiment
    caption = (
        f"n = {len(size.seeds)} seeds, {size.episodes} held-out users each. Lines: interquartile mean; bands: 95 % "
        "bootstrap interval over seeds."
    )
    if len(size.agents) > MOST_CURVES:
        caption += (
            f" Of {len(size.agents)} agents {MOST_CURVES} are drawn: the best of each family, then the best of all."
        )
    if cut:
        caption += " What lies far below all others before learning is cut off."
    if results.failed or results.missing:
        caption += f" {len(results.failed)} runs failed, {results.missing} are missing."
    return caption


def _curve_panel(axes: Axes, results: Results, n: int, seed: int) -> bool:
    """Draws one scenario; returns whether a part of a line lies below the panel."""
    experiment = results.experiment
    shown = drawn(results)
    palette = colours(shown)
    x = np.asarray(experiment.checkpoints, dtype=np.float64)
    bands = {agent: scores.curve_interval(results.curves(agent)[:, n], seed) for agent in shown}
    bands = {agent: band for agent, band in bands.items() if np.isfinite(band[0]).any()}
    bottom, top = _limits(list(bands.values()))
    for agent, (value, low, high) in bands.items():
        colour = palette[agent]
        if agent in REFERENCES:
            axes.axhline(value[-1], color=colour, linestyle=(0, (5, 3)), linewidth=1.2, zorder=2)
            continue
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0, zorder=1)
        axes.plot(x, value, color=colour, linewidth=1.6, zorder=3)
        marker, inside = _MARKERS[list(palette).index(agent) % len(_MARKERS)], value >= bottom
        axes.plot(x[inside], value[inside], marker, color=colour, markersize=3.6, zorder=3, clip_on=False)
    axes.set_xlim(0, max(x[-1], 1))
    axes.set_ylim(bottom, top)
    axes.xaxis.set_major_formatter(lambda v, _: f"{v / 1000:g}k" if v >= 1000 else f"{v:g}")
    axes.set_xlabel("interactions [environment steps]")
    axes.set_ylabel("return per episode")
    _end_labels(axes, [(float(band[0][-1]), agent) for agent, band in bands.items()], palette)
    return any(bool(np.any(value < bottom)) for value, _, _ in bands.values())


def drawn(results: Results) -> list[str]:
    """Agents whose curves are drawn: all, or of many the best of each family, then the best of the rest."""
    names = list(results.experiment.agents)
    if len(names) <= MOST_CURVES:
        return names
    score = {name: float(np.nan_to_num(scores.pooled_iqm(results.scores(name)), nan=-np.inf)) for name in names}
    ranked = sorted(names, key=lambda name: (-score[name], name))
    family = {name: kind for kind, members in families().items() for name in members}
    firsts = [
        next(name for name in ranked if family.get(name) == kind) for kind in dict.fromkeys(map(family.get, ranked))
    ]
    kept = list(dict.fromkeys([RANDOM, ORACLE, "popularity", *firsts, *ranked]))
    return sorted((name for name in kept[:MOST_CURVES] if name in names), key=names.index)


def _limits(bands: Sequence[tuple[Floats, Floats, Floats]]) -> tuple[float, float]:
    """Range of the vertical axis; an agent that begins far below all others does not squeeze the rest."""
    if not bands:
        return 0.0, 1.0
    lows = np.array([low for _, low, _ in bands])  # [agents, points]
    top = float(np.nanmax([high for _, _, high in bands]))
    lowest = sorted(np.nanmin(lows, axis=1).tolist())
    while len(lowest) > 1 and lowest[1] - lowest[0] > 0.5 * (top - lowest[1]):
        lowest.pop(0)
    learnt = float(np.nanmin(lows[:, -(lows.shape[1] // 2 + 1) :]))
    bottom = min(lowest[0], learnt)
    margin = 0.06 * (top - bottom) or 1.0
    return bottom - margin, top + margin


def _end_labels(axes: Axes, ends: list[tuple[float, str]], palette: Mapping[str, str]) -> None:
    """Writes each name beside the end of its line, moved apart as little as possible."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    height = axes.get_position().height * figure.get_figheight() * 72  # [pt]
    low, high = axes.get_ylim()
    ends = sorted(ends)
    wanted = np.array([(value - low) / (high - low) * height for value, _ in ends])
    for (value, name), place in zip(ends, spread(wanted, _LABEL_GAP), strict=True):
        axes.annotate(
            name,
            xy=(1.0, (value - low) / (high - low)),
            xytext=(1.05, place / height),
            xycoords="axes fraction",
            textcoords="axes fraction",
            color=palette[name],
            fontsize=8.5,
            fontweight="bold",
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": palette[name],
                "linewidth": 0.7,
                "shrinkA": 1,
                "shrinkB": 0,
                "relpos": (0, 0.5),
            },
        )


def spread(wanted: Floats, gap: float) -> Floats:
    """Moves ascending positions apart to at least `gap`, with the least sum of squared moves.

    Subtracting ``k * gap`` turns this into fitting an ascending sequence, which pooling adjacent violators solves
    (Ayer et al., 1955).

    Args:
        wanted: Positions in ascending order [n].
        gap: Least distance of neighbours.
    """
    steps = gap * np.arange(len(wanted))
    blocks: list[tuple[float, int]] = []
    for target in wanted - steps:
        mean, size = float(target), 1
        while blocks and blocks[-1][0] > mean:
            other, count = blocks.pop()
            mean, size = (mean * size + other * count) / (size + count), size + count
        blocks.append((mean, size))
    return np.asarray(np.concatenate([np.full(size, mean) for mean, size in blocks]) + steps if blocks else wanted)


def score_intervals(results: Results, seed: int = 0) -> Figure:
    """Normalised score of every agent over all scenarios: interquartile mean, 95 % interval, a dot for each run."""
    from matplotlib.figure import Figure

    results = results.main
    if not results.has_scores:
        raise ConfigError("scores need the agents random and oracle in the experiment")
    palette = colours(results.experiment.agents)
    estimates = [(scores.interval(results.scores(agent), seed), agent) for agent in results.experiment.agents]
    estimates = sorted((one for one in estimates if one[0].n), key=lambda one: one[0].value)
    tall = 0.34 * len(estimates) + 1.25
    figure = Figure(figsize=(7.2, tall), dpi=130)
    left = min(max(0.18, 0.012 * max((len(agent) for _, agent in estimates), default=0)), 0.5)
    axes: Any = figure.add_axes((left, 0.8 / tall, 0.79 - left, (tall - 1.1) / tall))
    for place, (estimate, agent) in enumerate(estimates):
        runs = results.scores(agent).reshape(-1)
        axes.plot(runs, np.full(runs.shape, place - 0.22), "|", color=palette[agent], markersize=5, alpha=0.6)
        axes.plot([estimate.low, estimate.high], [place, place], color=palette[agent], linewidth=5, alpha=0.35)
        axes.plot(estimate.value, place, "o", color=palette[agent], markersize=5.5)
        axes.annotate(
            estimate.text(), xy=(1.02, place), xycoords=("axes fraction", "data"), va="center", annotation_clip=False
        )
    axes.set_yticks(range(len(estimates)), [agent for _, agent in estimates])
    axes.set_ylim(-0.6, len(estimates) - 0.4)
    for reference in (0.0, 1.0):
        axes.axvline(reference, color="#444444", linestyle=(0, (5, 3)), linewidth=0.9, zorder=0)
    axes.set_xlabel("score (random = 0, oracle = 1)")
    size = results.experiment
    figure.text(
        0.008,
        0.012,
        f"n = {len(size.seeds)} seeds x {len(size.scenarios)} scenarios. Dots: interquartile mean; bars: 95 % "
        "stratified bootstrap interval; ticks: single runs.",
        fontsize=7,
        color="#444444",
        va="bottom",
    )
    return figure
