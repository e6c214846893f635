"""A user's steps in words: times, lengths of time, what she did with an item."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recsim_llm.simulator import SIGNALS

if TYPE_CHECKING:
    from recsim_llm.envs.rendering.recorder import Moment


def status(moment: Moment, mood_name: str = "mood") -> str:
    """Where the user is after a step, in one line."""
    parts = [f"step {moment.step}", f"session {moment.session_after + 1}"]
    if np.isfinite(moment.day_after):
        parts.append(when(moment.day_after))
    if np.isfinite(moment.mood):
        parts.append(f"{mood_name} {moment.mood:+.2f}")
    return ", ".join(parts)


def when(day: float) -> str:
    """A time on the catalogue's clock in words."""
    minutes = int(day % 1 * 1440)
    return f"day {int(np.floor(day))} at {minutes // 60:02d}:{minutes % 60:02d}"


def span(days: float) -> str:
    """A length of time in words, from minutes to days."""
    hours = days * 24
    if hours < 1:
        return f"{hours * 60:.0f} min"
    return f"{hours:.0f} h" if hours < 48 else f"{days:.1f} days"


def lasted(seconds: float) -> str:
    """A short time in words."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 2:
        return f"{round(seconds)} s"
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"


def deeds(signals: Sequence[float] | NDArray[np.float32], names: Sequence[str] = SIGNALS) -> list[str]:
    """What the user did with an item, in words.

    Args:
        signals: [S] values of the signals.
        names: [S] their names.
    """
    told = []
    for name, value in zip(names, signals, strict=True):
        if value == 0 or (value < 0 and name in SIGNALS):
            continue
        if name == "dwell":
            told.append(lasted(float(value)))
        elif name in SIGNALS:
            told.append(f"rated {value:.0f} of 5" if name == "rating" else name)
        else:
            told.append(f"{name.replace('_', ' ')} {value:.3g}")
    return told or ["not looked at" if "skip" in names else "no click"]
