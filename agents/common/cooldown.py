"""Cooldown: items that a user just met are not shown again for some steps, as long as others are there.

An item consumed a moment ago is not wanted again, and nothing in an observation tells which it was. So agents remember
the items of each lane's episode, as every recommender in service does; the memory is handed on as ``predict``'s state
and
never changed in place.

A table of all items for each lane would be copied at every step, and most of it would be zeros: kept are the items
looked at, H at most.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import EnvironmentSpec, Flags, Floats, Slates
from recsim_llm.errors import ConfigError
from recsim_llm.simulator.jit import kernel, loaded

Indices = NDArray[np.int32]


class MemoryTables(NamedTuple):
    """The tables of :class:`RecentItems` that compiled code reads: item, looks, takes [B, H], wear [B, T]."""

    item: Indices
    looks: Floats
    takes: Floats
    wear: Floats


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
class RecentItems:
    """Items that B lanes were shown lately, and what came of it.

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
    def empty(cls, lanes: int, env_spec: EnvironmentSpec) -> RecentItems:
        """Nothing remembered."""
        places = min(PLACES + PLACES_PER_SLOT * env_spec.slate_size, env_spec.items)
        nothing = np.zeros((lanes, places), np.float32)
        topics = np.zeros((lanes, len(env_spec.catalog.topics)), np.float32)
        nowhere = np.full((lanes, places), -1, np.int32)
        return cls(nowhere, nothing, nothing, topics, np.full((lanes, env_spec.slate_size), -1, np.int64))

    @property
    def tables(self) -> MemoryTables:
        """What is remembered, as compiled code takes it."""
        return MemoryTables(self.item, self.looks, self.takes, self.wear)

    def fits(self, lanes: int, env_spec: EnvironmentSpec) -> bool:
        """Whether it is of so many lanes of this setting: compiled code trusts shapes."""
        likes = RecentItems.empty(0, env_spec)
        names = "item", "looks", "takes", "wear", "last"
        pairs = [(getattr(self, name), getattr(likes, name)) for name in names]
        return all(own.shape == (lanes, *like.shape[1:]) and own.dtype == like.dtype for own, like in pairs)

    def renewed(self, obs: Floats, episode_start: Flags, env_spec: EnvironmentSpec) -> RecentItems:
        """With the feedback to the last slate taken in.

        Args:
            obs: [B, P] observations after it.
            episode_start: [B] lanes that begin an episode: nothing is left of the one before.
            env_spec: The setting that the observations come from.
        """
        feedback = env_spec.feedback(obs)
        clicks, skips = feedback[:, :, CLICK], feedback[:, :, SKIP]
        looked = ((clicks > 0.0) | (skips > 0.0)) & (self.last >= 0) & ~episode_start[:, None]
        away = env_spec.context("session_step", obs) == 0.0
        empty = np.empty_like
        after = MemoryTables(empty(self.item), empty(self.looks), empty(self.takes), empty(self.wear))
        loaded(
            _renew, self.tables, self.last, looked, clicks > 0.0,
            np.ascontiguousarray(episode_start), away, env_spec.catalog.topic, after,
        )  # fmt: skip
        last = np.where(episode_start[:, None], -1, self.last) if episode_start.any() else self.last
        return RecentItems(after.item, after.looks, after.takes, after.wear, last)

    def noting(self, slates: Slates) -> RecentItems:
        """With a new slate [B, K] shown."""
        return replace(self, last=slates)

    def eligible(self, action_mask: Flags, after_click: int, after_look: int) -> Flags:
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


@dataclass(frozen=True)
class CooldownConfig(Config):
    """Settings of agents with a cooldown; it is the same for all of them, so that comparisons are of learning.

    Measured on training users, normalised score (random 0, oracle 1): mean over the six scenarios of thompson, linucb
    and ease (seed 100; 8,192 steps of learning in Ads, Music and News, 4,096 in Ecommerce, Social and Video):

        after_click / after_look    100/20   20/5    0/0    100/0
        all three                     .18     .19    .09    -.05
        thompson                      .13     .13    .02    -.22
        linucb                        .31     .34    .45     .35
        ease                          .11     .09   -.21    -.28

    Agents that know items by their number alone depend on a rest after a look: nothing else tells them that a user has
    just seen an item. Agents on features see it and would do with less. Of the two
    that are equal on average, the longer serves policy gradients better (ppo in Music .26, with 20/5 .20).

    Attributes:
        after_click: Steps for which a clicked item is not shown again in the same episode; 0 is never [steps].
        after_look: The same for an item that was looked at and left [steps].
    """

    after_click: int = 100
    after_look: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(0, 1_000, "after_click", "after_look")


class Cooldown:
    """The memory of recent items and the cooldown of an agent.

    Args:
        env_spec: The environment's specification.
        config: How long items rest.
    """

    def __init__(self, env_spec: EnvironmentSpec, config: CooldownConfig) -> None:
        self.env_spec, self.config = env_spec, config

    def recall(self, obs: Floats, state: Any, episode_start: Flags) -> RecentItems:
        """The memory of B lanes with the feedback in their observations [B, P] taken in.

        Raises:
            ConfigError: If the state is not of these lanes.
        """
        lanes = len(obs)
        memory = RecentItems.empty(lanes, self.env_spec) if state is None else state
        if not isinstance(memory, RecentItems) or not memory.fits(lanes, self.env_spec):
            raise ConfigError(f"state must be what predict() returned for the same {lanes} lanes, got {type(state)}")
        return memory.renewed(obs, episode_start, self.env_spec)

    def eligible(self, memory: RecentItems, action_mask: Flags) -> Flags:
        """Items on the shelf that need no rest, [B, I]."""
        if self.env_spec.kinds:
            return action_mask
        return memory.eligible(action_mask, self.config.after_click, self.config.after_look)


@kernel
def _renew(
    tables: MemoryTables,
    last: Slates,
    looked: Flags,
    clicked: Flags,
    episode_start: Flags,
    away: Flags,
    topic: Indices,
    out: MemoryTables,
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
