"""Training sequences of a log: windows of consumed items, and the next click."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.interaction_log import Log, Numbers


@dataclass(frozen=True)
class Sequences:
    """S windows of episodes and N clicks to be told from what was consumed before them.

    A window has L items at most. Where an episode has more, windows overlap by a half, and a click stands in the first
    in which everything of the last L / 2 items before it is.

    Attributes:
        trail: [S, L] twice the item, and one more for a click; -1 behind where there are fewer.
        row: [N] the click, a row of the log.
        window: [N] ascending.
        position: [N] items of the window that were consumed at steps before the click.
    """

    trail: Numbers
    row: Numbers
    window: Numbers
    position: Numbers

    @classmethod
    def of(cls, log: Log, length: int, looks: bool) -> Sequences:
        """Cuts a log into windows.

        Args:
            log: The log.
            length: L.
            looks: Whether items count that were looked at and left.
        """
        kept = np.flatnonzero((log.click > 0) | looks)
        session = log.sessions()
        kept = kept[np.lexsort((kept, log.step[kept], session[kept]))]
        who, step, clicked = session[kept], log.step[kept], log.click[kept] > 0
        code = 2 * log.item[kept] + clicked
        first = np.flatnonzero(_new(who))  # where an episode begins
        begin = np.repeat(first, np.diff(np.append(first, len(kept))))
        slate = np.flatnonzero(_new(who) | _new(step))  # where a slate begins
        before = np.repeat(slate, np.diff(np.append(slate, len(kept)))) - begin  # [n] consumed at earlier steps
        half = max(length // 2, 1)
        shift = np.where(before > length, -(-(before - length) // half) * half, 0)
        targets = np.flatnonzero(clicked)
        episode_start, window = np.unique((begin + shift)[targets], return_inverse=True)
        end = np.append(first, len(kept))[np.searchsorted(first, episode_start, side="right")]
        place = episode_start[:, None] + np.arange(length)
        inside = place < end[:, None]
        trail = np.where(inside, code[np.minimum(place, max(len(kept) - 1, 0))] if len(kept) else -1, -1)
        return cls(trail.astype(np.int64), kept[targets], window.reshape(-1), (before - shift)[targets])


def _new(values: NDArray[np.int64]) -> NDArray[np.bool_]:
    """[n] where a value differs from the one before; the first always does."""
    new = np.ones(len(values), np.bool_)
    new[1:] = values[1:] != values[:-1]
    return new
