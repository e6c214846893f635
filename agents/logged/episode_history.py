"""Episode history: clicked items of B users, handed on from step to step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.cooldown import RecentItems
from recsim_llm.agents.core.env_runner import EnvironmentSpec, Flags, Floats, Slates
from recsim_llm.simulator.jit import jit


@dataclass(frozen=True)
class EpisodeHistory:
    """State between two calls of ``predict``: what B users did in this episode.

    Attributes:
        memory: Looks and clicks of late.
        history: [B, H] items clicked in this episode, the newest last, -1 in front where there are fewer.
    """

    memory: RecentItems
    history: Slates

    @classmethod
    def empty(cls, lanes: int, env_spec: EnvironmentSpec, width: int) -> EpisodeHistory:
        """Nothing done yet."""
        return cls(RecentItems.empty(lanes, env_spec), np.full((lanes, width), -1, np.int64))

    def clicks(self) -> NDArray[np.int64]:
        """[B] clicks that are remembered."""
        count: NDArray[np.int64] = np.count_nonzero(self.history >= 0, axis=1)
        return count

    def taste(self, items: int) -> Floats:
        """[B, I] how often each item is in the history."""
        lane, place = np.nonzero(self.history >= 0)
        flat = lane * items + self.history[lane, place]
        counts = np.bincount(flat, minlength=len(self.history) * items).astype(np.float32)
        return counts.reshape(len(self.history), items)

    def noting(self, slates: Slates) -> Self:
        """With a new slate [B, K] shown."""
        return replace(self, memory=self.memory.noting(slates))


@dataclass(frozen=True)
class EpisodeHistoryWithSkips(EpisodeHistory):
    """A session that keeps too what was looked at in vain.

    Attributes:
        left: [B, H] items looked at and not clicked in this episode, the newest last, -1 in front where there are
            fewer.
    """

    left: Slates


@jit
def remember(history: Slates, last: Slates, clicked: Flags, episode_start: Flags, out: Slates) -> None:
    """Writes histories [B, H] with items of the last slates [B, K] added at the end; -1 where one starts."""
    width = history.shape[1]
    for b in range(history.shape[0]):
        new = 0
        for k in range(last.shape[1]):
            new += clicked[b, k]
        if episode_start[b]:
            out[b, :] = -1
            continue
        for h in range(width):
            out[b, h] = history[b, h + new] if h + new < width else -1
        at = max(width - new, 0)
        skipped = max(new - width, 0)
        for k in range(last.shape[1]):
            if clicked[b, k]:
                if skipped > 0:
                    skipped -= 1
                else:
                    out[b, at] = last[b, k]
                    at += 1
