"""What an agent remembers of each lane's episode; handed on as ``predict``'s state, never changed in place.

A table of all items for each lane would be copied at every step, and most of it would be zeros: kept are the items
looked at, H at most.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.slates import looked_at
from recsim_llm.agents.core.env_runner import EnvironmentSpec, Flags, Floats, Slates
from recsim_llm.simulator.jit import kernel, loaded

Indices = NDArray[np.int32]
Tables = tuple[Indices, Floats, Floats, Floats]

CLICK, SKIP = 0, 7
"""Columns of the feedback part."""

LEFT = np.float32(0.99)
"""Share of a look or click on an item that is remembered after one step."""

WEAR_LEFT = np.float32(0.95)
"""The same for the consumption of a topic within a session; after a break nothing is left."""

PLACES, PLACES_PER_SLOT = 64, 32
"""Items remembered of each lane: so many, and so many for each slot of a slate.

When all places are taken, the item goes of which least is left (clicks count beside looks). With the rests of the
built-in agents, 100 steps after a click and 20 after a look, items need theirs no more by then.
"""


@dataclass(frozen=True)
class Memory:
    """Memory of B lanes.

    Attributes:
        item: [B, H] items looked at in this episode, -1 for an empty place; those in front are filled first.
        looks: [B, H] decayed count of looks at each.
        takes: [B, H] decayed count of clicks on each.
        wear: [B, T] decayed count of clicks on each topic.
        last: [B, K] the last slate, -1 for none.
    """

    item: Indices
    looks: Floats
    takes: Floats
    wear: Floats
    last: Slates

    @classmethod
    def empty(cls, lanes: int, env_spec: EnvironmentSpec) -> Memory:
        """Nothing remembered."""
        places = min(PLACES + PLACES_PER_SLOT * env_spec.slate_size, env_spec.items)
        nothing = np.zeros((lanes, places), np.float32)
        topics = np.zeros((lanes, len(env_spec.catalog.topics)), np.float32)
        nowhere = np.full((lanes, places), -1, np.int32)
        return cls(nowhere, nothing, nothing, topics, np.full((lanes, env_spec.slate_size), -1, np.int64))

    def fits(self, lanes: int, env_spec: EnvironmentSpec) -> bool:
        """Whether it is of so many lanes of this setting: compiled code trusts shapes."""
        likes = Memory.empty(0, env_spec)
        names = "item", "looks", "takes", "wear", "last"
        pairs = [(getattr(self, name), getattr(likes, name)) for name in names]
        return all(own.shape == (lanes, *like.shape[1:]) and own.dtype == like.dtype for own, like in pairs)

    def renewed(self, obs: Floats, episode_start: Flags, env_spec: EnvironmentSpec) -> Memory:
        """With the feedback to the last slate taken in.

        Args:
            obs: [B, P] observations after it.
            episode_start: [B] lanes that begin an episode: nothing is left of the one before.
            env_spec: The setting that the observations come from.
        """
        feedback = env_spec.feedback(obs)
        clicks, skips = feedback[:, :, CLICK], feedback[:, :, SKIP]
        looked = looked_at(clicks, skips) & (self.last >= 0) & ~episode_start[:, None]
        away = env_spec.context("session_step", obs) == 0.0
        tables = np.empty_like(self.item), np.empty_like(self.looks), np.empty_like(self.takes)
        wear = np.empty_like(self.wear)
        loaded(
            _renew, (self.item, self.looks, self.takes, self.wear), self.last, looked, clicks > 0.0,
            np.ascontiguousarray(episode_start), away, env_spec.catalog.topic, (*tables, wear),
        )  # fmt: skip
        last = np.where(episode_start[:, None], -1, self.last) if episode_start.any() else self.last
        return Memory(*tables, wear, last)

    def noting(self, slates: Slates) -> Memory:
        """With a new slate [B, K] shown."""
        return replace(self, last=slates)

    def rested(self, action_mask: Flags, after_click: int, after_look: int) -> Flags:
        """Allowed items that were not clicked, nor looked at, in the last steps.

        A second look makes an item rest longer than the first. In lanes where fewer than K items would be left, all
        allowed ones are.

        Args:
            action_mask: [B, I].
            after_click: Steps for which a clicked item rests.
            after_look: Steps for which an item rests that was looked at once and not clicked.
        """
        if after_click <= 0 and after_look <= 0:
            return action_mask
        # between the powers, so that rounding does not decide
        takes, looks = (
            np.float32(float(LEFT) ** (steps + 0.5) if steps > 0 else np.inf) for steps in (after_click, after_look)
        )
        rest = np.array(action_mask, np.bool_, order="C")
        loaded(_rest, self.item, self.looks, self.takes, looks, takes, self.last.shape[1], rest)
        return rest

    def of(self, items: Slates) -> tuple[Floats, Floats]:
        """Decayed counts of looks and clicks of items [B, N], each [B, N]."""
        looks, takes = np.zeros(items.shape, np.float32), np.zeros(items.shape, np.float32)
        loaded(_look_up, self.item, self.looks, self.takes, np.ascontiguousarray(items), looks, takes)
        return looks, takes


@kernel
def _renew(
    tables: Tables,
    last: Slates,
    looked: Flags,
    clicked: Flags,
    episode_start: Flags,
    away: Flags,
    topic: Indices,
    out: Tables,
) -> None:
    """Writes what is left of a memory after a step, and what was looked at in it.

    Args:
        tables: item, looks, takes [B, H] and wear [B, T] before.
        last: [B, K] what was shown.
        looked: [B, K] which of it was looked at.
        clicked: [B, K] which of it was clicked.
        episode_start: [B] whether an episode begins.
        away: [B] whether the user was away.
        topic: [I] topic of each item.
        out: The same four arrays afterwards, written.
    """
    item, looks, takes, wear = tables
    new_item, new_looks, new_takes, new_wear = out
    places = item.shape[1]
    for b in range(item.shape[0]):
        kept = np.float32(0.0) if episode_start[b] else LEFT
        for h in range(places):
            new_item[b, h] = -1 if episode_start[b] else item[b, h]
            new_looks[b, h] = looks[b, h] * kept
            new_takes[b, h] = takes[b, h] * kept
        kept = np.float32(0.0) if episode_start[b] or away[b] else WEAR_LEFT
        for t in range(wear.shape[1]):
            new_wear[b, t] = wear[b, t] * kept
        for k in range(last.shape[1]):
            shown = last[b, k]
            if not looked[b, k] or shown < 0 or shown >= topic.shape[0]:
                continue
            place = 0
            while place < places and new_item[b, place] != shown and new_item[b, place] >= 0:
                place += 1
            if place == places:  # none is free: the one of which least is left
                place = 0
                for h in range(1, places):
                    if new_looks[b, h] + new_takes[b, h] < new_looks[b, place] + new_takes[b, place]:
                        place = h
                new_looks[b, place] = new_takes[b, place] = np.float32(0.0)
            new_item[b, place] = shown
            new_looks[b, place] += np.float32(1.0)
            if clicked[b, k]:
                new_takes[b, place] += np.float32(1.0)
                if not away[b]:
                    new_wear[b, topic[shown]] += np.float32(1.0)


@kernel
def _rest(
    item: Indices, looks: Floats, takes: Floats, most_looks: np.float32, most_takes: np.float32, slate_size: int,
    action_mask: Flags,
) -> None:  # fmt: skip
    """Takes items off ``action_mask`` [B, I] of which more is remembered than that, where K others are left."""
    items = action_mask.shape[1]
    for b in range(item.shape[0]):
        left = 0
        for i in range(items):
            left += action_mask[b, i]
        taken = 0
        for h in range(item.shape[1]):
            i = item[b, h]
            if 0 <= i < items and (looks[b, h] > most_looks or takes[b, h] > most_takes):
                taken += action_mask[b, i]
        if left - taken < slate_size:
            continue
        for h in range(item.shape[1]):
            i = item[b, h]
            if 0 <= i < items and (looks[b, h] > most_looks or takes[b, h] > most_takes):
                action_mask[b, i] = False


@kernel
def _look_up(item: Indices, looks: Floats, takes: Floats, items: Slates, out_looks: Floats, out_takes: Floats) -> None:
    """Writes what is remembered of ``items`` [B, N] where it is not nothing."""
    for b in range(items.shape[0]):
        for h in range(item.shape[1]):
            if item[b, h] < 0:
                break
            for n in range(items.shape[1]):
                if item[b, h] == items[b, n]:
                    out_looks[b, n] = looks[b, h]
                    out_takes[b, n] = takes[b, h]
