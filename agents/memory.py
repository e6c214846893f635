"""What an agent remembers of each lane's episode; handed on as ``predict``'s state, never changed in place."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from recsim_llm.agents.lanes import Flags, Floats, Setting, Slates
from recsim_llm.agents.slates import looked_at

CLICK, SKIP = 0, 7
"""Columns of the feedback part."""

LEFT = np.float32(0.99)
"""Share of a look or click on an item that is remembered after one step."""

WEAR_LEFT = np.float32(0.95)
"""The same for the consumption of a topic within a session; after a break nothing is left."""


@dataclass(frozen=True)
class Memory:
    """Memory of B lanes.

    Attributes:
        looks: [B, I] decayed count of looks at each item.
        takes: [B, I] decayed count of clicks on each item.
        wear: [B, T] decayed count of clicks on each topic.
        last: [B, K] the last slate, -1 for none.
    """

    looks: Floats
    takes: Floats
    wear: Floats
    last: Slates

    @classmethod
    def empty(cls, lanes: int, setting: Setting) -> Memory:
        """Nothing remembered."""
        nothing = np.zeros((lanes, setting.items), np.float32)
        topics = np.zeros((lanes, len(setting.catalog.topics)), np.float32)
        return cls(nothing, nothing, topics, np.full((lanes, setting.slots), -1, np.int64))

    def renewed(self, rows: Floats, starts: Flags, setting: Setting) -> Memory:
        """With the feedback to the last slate taken in.

        Args:
            rows: [B, P] observations after it.
            starts: [B] lanes that begin an episode: nothing is left of the one before.
            setting: The setting that the observations come from.
        """
        feedback = setting.feedback(rows)
        clicks, skips = feedback[:, :, CLICK], feedback[:, :, SKIP]
        looks, takes, wear = self.looks * LEFT, self.takes * LEFT, self.wear * WEAR_LEFT
        lane, slot = np.nonzero(looked_at(clicks, skips) & (self.last >= 0))
        item, clicked = self.last[lane, slot], np.sign(clicks[lane, slot])
        np.add.at(looks, (lane, item), np.float32(1.0))
        np.add.at(takes, (lane, item), clicked)
        np.add.at(wear, (lane, setting.catalog.topic[item]), clicked)
        wear[setting.context("session_step", rows) == 0.0] = 0.0
        last = self.last
        if starts.any():
            last = np.where(starts[:, None], -1, last)
            for table in (looks, takes, wear):
                table[starts] = 0.0
        return Memory(looks, takes, wear, last)

    def noting(self, slates: Slates) -> Memory:
        """With a new slate [B, K] shown."""
        return replace(self, last=slates)

    def rested(self, allowed: Flags, after_click: int, after_look: int) -> Flags:
        """Allowed items that were not clicked, nor looked at, in the last steps.

        A second look makes an item rest longer than the first. In lanes where fewer than K items would be left, all
        allowed ones are.

        Args:
            allowed: [B, I].
            after_click: Steps for which a clicked item rests.
            after_look: Steps for which an item rests that was looked at once and not clicked.
        """
        rest = allowed
        if after_click > 0:
            rest = rest & (self.takes < LEFT**after_click)
        if after_look > 0:
            rest = rest & (self.looks < LEFT**after_look)
        short = np.count_nonzero(rest, axis=1) < self.last.shape[1]
        return np.where(short[:, None], allowed, rest) if short.any() else rest
