"""Releases generated items into a running environment and measures how users receive them.

    env = gym.make_vec("recsim_llm/News-v0", num_envs=64, world="FOLDER")    # a world with items that wait
    before = measure_reception(env, steps=50, seed=0)
    release_items(env, before.generated)                                             # on the shelf from now on
    after = measure_reception(env, steps=50)
    print(after)

The catalogue, the action space and all arrays have the size of the whole world from the start, so agents need not be
made anew: what waits is masked until it is released. Snapshots hold release days.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.errors import ConfigError, unknown
from recsim_llm.worlds.catalog import UNRELEASED

RESAMPLES = 1_000
"""Bootstrap resamples of users for intervals."""
LEVEL = 0.95
FEWEST = 5
"""Looks that an item needs to be ranked."""

Choose = Callable[[Any, Any, NDArray[np.bool_]], tuple[NDArray[np.integer], Any]]


def unreleased_items(env: Any) -> list[int]:
    """Positions of the items that were not released when the environment's world was saved."""
    days = env.unwrapped.core.world.catalog.released_at
    return [int(item) for item in np.flatnonzero(days >= UNRELEASED)]


def release_items(env: Any, items: Sequence[int | str] | None = None, when: str | float = "now") -> list[int]:
    """Releases items into a running environment, so that they can be recommended from then on.

    Args:
        env: Scalar or vector environment on a world with items that wait.
        items: Positions or ids; None for all that wait.
        when: "now" (the present of the user whose clock is furthest behind, so that all find them at once), "start"
            (in every episode from its beginning) or a day of the catalogue's clock, which each user comes to in time.

    Returns:
        Positions of the items.

    Raises:
        ConfigError: If an item does not wait or is not known, or ``when`` is none of these.
    """
    bare = env.unwrapped
    names = bare.catalog.item_id
    chosen = unreleased_items(env) if items is None else [_position(item, names) for item in items]
    if not chosen:
        raise ConfigError("no item waits in this environment's world; write some with: recsim-llm synth items")
    if isinstance(when, str):
        if when not in ("now", "start"):
            raise unknown("time of release", when, ("now", "start"))
        day = None if when == "now" else float(bare.core.simulator.rules.start_day)
    else:
        day = float(when)
    bare.release(chosen, day)
    return chosen


def _position(item: int | str, names: Sequence[str]) -> int:
    if not isinstance(item, str):
        return int(item)
    if item not in names:
        raise unknown("item", item, names)
    return list(names).index(item)


@dataclass(frozen=True)
class GroupReception:
    """Click-through rate and reward of a group of items, with 95 % intervals over users.

    Attributes:
        items: How many of them were looked at.
        looks: First looks at them.
        clicks: Clicks on them.
        ctr: Clicks for each look.
        ctr_interval: Its interval.
        reward: Reward for each look.
        reward_interval: Its interval.
    """

    items: int
    looks: int
    clicks: int
    ctr: float
    ctr_interval: tuple[float, float]
    reward: float
    reward_interval: tuple[float, float]


@dataclass(frozen=True)
class ItemReception:
    """Click-through rate, reward and rank of one generated item.

    Attributes:
        item: Its position.
        title: Its title.
        category: Its category.
        looks: First looks at it.
        clicks: Clicks on it.
        ctr: Clicks for each look; NaN without looks.
        reward: Reward for each look; NaN without looks.
        rank: Its place by reward for each look among all items with enough looks, 1 the best; 0 without enough.
    """

    item: int
    title: str
    category: str
    looks: int
    clicks: int
    ctr: float
    reward: float
    rank: int


@dataclass(frozen=True)
class Reception:
    """How users received the generated items compared with the others.

    Attributes:
        generated: Positions of the generated items.
        groups: Measures of "generated", of "others", and of the others of the same categories ("peers").
        rows: One for each generated item.
        ranked: Items with enough looks to be ranked.
        steps: Steps of users.
    """

    generated: tuple[int, ...]
    groups: dict[str, GroupReception]
    rows: tuple[ItemReception, ...]
    ranked: int
    steps: int

    def __str__(self) -> str:
        lines = [f"{self.steps} user-steps; items with at least {FEWEST} looks: {self.ranked}"]
        for name, m in self.groups.items():
            lines.append(
                f"{name:>9}: {m.items} items, {m.looks} looks, {m.clicks} clicks, CTR {m.ctr:.3f} "
                f"[{m.ctr_interval[0]:.3f}, {m.ctr_interval[1]:.3f}], reward per look {m.reward:.3f} "
                f"[{m.reward_interval[0]:.3f}, {m.reward_interval[1]:.3f}]"
            )
        for row in self.rows:
            place = f"rank {row.rank} of {self.ranked}" if row.rank else "too few looks for a rank"
            lines.append(
                f"{row.title!r} ({row.category}): {row.looks} looks, {row.clicks} clicks, CTR {row.ctr:.3f}, {place}"
            )
        return "\n".join(lines)


def measure_reception(
    env: Any,
    agent: Any = None,
    *,
    generated: Sequence[int] | None = None,
    steps: int = 100,
    seed: int = 0,
) -> Reception:
    """Serves users and measures how they receive the generated items compared with the others.

    Only the first look of a user at an item in an episode counts, of all items: users are tired of what they saw, and
    a few generated items would be seen again and again. Without an agent one slot of each slate, drawn anew at every
    step, holds a generated item that this user has not seen, as long as there is one, and the others hold other items,
    all uniform among what is on the shelf: every slot position is shared alike, so that rates compare. With an agent it
    is as the agent shows them.

    Args:
        env: A vector environment; it is reset with the seed unless it runs already and ``seed`` is -1.
        agent: Anything with ``predict``, or None.
        generated: Positions of the generated items; None for those that waited when the world was saved.
        steps: Steps of each lane.
        seed: Seed of the environment, of what is shown and of the bootstrap; -1 goes on where the environment stands
            and serves by the seed 0.

    Raises:
        ConfigError: If the environment is not a vector one, or has candidates, or there is no generated item.
    """
    bare = env.unwrapped
    if not hasattr(bare, "num_envs"):
        raise ConfigError("reception needs a vector environment: gym.make_vec(..., num_envs=...)")
    if bare.core.candidates is not None:
        raise ConfigError("reception is measured over the catalogue; leave num_candidates out")
    chosen = np.array(unreleased_items(env) if generated is None else list(generated), np.int64)
    if not chosen.size:
        raise ConfigError("there is no generated item in this environment's world")
    rng = np.random.Generator(np.random.PCG64([max(seed, 0), 41]))
    observation = bare.core.observed(bare.core.simulator.outcome.observation)
    started = bool((bare.core.simulator.state.lane["episode"] >= 0).all())
    if seed >= 0 or not started:
        observation, _ = env.reset(seed=max(seed, 0))
    tally = np.zeros((3, bare.num_envs, len(bare.catalog)))  # looks, clicks, reward
    state, starts = None, np.ones(bare.num_envs, np.bool_)
    seen = np.zeros((bare.num_envs, len(bare.catalog)), np.bool_)
    for _ in range(steps):
        if agent is None:
            actions = _spread(bare.available() & ~seen, chosen, bare.slate_size, rng)
        else:
            masks = bare.available()
            actions, state = agent.predict(observation, state, starts, True, action_masks=masks)
        observation, _, terminated, truncated, info = env.step(actions)
        starts = terminated | truncated
        _count(tally, info, seen)
        seen[starts] = False
    return _measured(bare.catalog, chosen, tally, steps * bare.num_envs, rng)


def _spread(
    shelf: NDArray[np.bool_], generated: NDArray[np.int64], slate_size: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Slates [B, K], or [B] for K = 1, with one generated item in a slot drawn anew.

    For K = 1 every second user on average is shown one.
    """
    lanes, items = shelf.shape
    among = np.zeros(items, np.bool_)
    among[generated] = True
    order = np.argsort(np.where(shelf & ~among, rng.random((lanes, items)), 2.0), axis=1, kind="stable")[:, :slate_size]
    draws = np.where(shelf & among, rng.random((lanes, items)), 2.0)
    one = np.asarray(draws.argmin(1), np.int64)
    there = np.asarray((shelf & among).any(1), np.bool_)
    place = np.asarray(rng.integers(slate_size, size=lanes), np.int64)
    if slate_size == 1:
        there &= rng.random(lanes) < 0.5
    slates = order.astype(np.int64)
    slates[there, place[there]] = one[there]
    return slates[:, 0] if slate_size == 1 else slates


def _count(tally: NDArray[np.float64], info: dict[str, Any], seen: NDArray[np.bool_]) -> None:
    """Adds first looks to the tally [3, B, I] and notes them in ``seen`` [B, I]."""
    slate, click, skip = (np.asarray(info[name]) for name in ("slate", "click", "skip"))
    looked = (slate >= 0) & ((click > 0) | (skip > 0))
    looked &= ~np.take_along_axis(seen, np.maximum(slate, 0), 1)
    lanes, slate_size = np.nonzero(looked)
    where = lanes, slate[lanes, slate_size]
    seen[where] = True
    for number, values in enumerate((np.ones(slate.shape), click > 0, np.asarray(info["slot_reward"]))):
        np.add.at(tally[number], where, values[lanes, slate_size])


def _measured(
    catalog: Any, generated: NDArray[np.int64], tally: NDArray[np.float64], steps: int, rng: np.random.Generator
) -> Reception:
    own = np.zeros(len(catalog), np.bool_)
    own[generated] = True
    peers = ~own & np.isin(catalog.topic, np.unique(catalog.topic[generated]))
    weights = rng.multinomial(tally.shape[1], np.full(tally.shape[1], 1.0 / tally.shape[1]), size=RESAMPLES)
    groups = {
        name: _measure(tally[:, :, among], weights)
        for name, among in (("generated", own), ("peers", peers), ("others", ~own))
    }
    looks, clicks, reward = tally.sum(1)
    enough = looks >= FEWEST
    rate = np.divide(reward, looks, out=np.full(len(looks), np.nan), where=looks > 0)
    ctr = np.divide(clicks, looks, out=np.full(len(looks), np.nan), where=looks > 0)
    rows = tuple(
        ItemReception(
            int(item), catalog.title[item], catalog.category[item], int(looks[item]), int(clicks[item]),
            float(ctr[item]), float(rate[item]), int(1 + (rate[enough] > rate[item]).sum()) if enough[item] else 0,
        )
        for item in generated
    )  # fmt: skip
    return Reception(tuple(int(item) for item in generated), groups, rows, int(enough.sum()), steps)


def _measure(tally: NDArray[np.float64], weights: NDArray[np.int64]) -> GroupReception:
    """Ratios with intervals of a bootstrap over users: looks of one user are not independent."""
    looks, clicks, reward = tally.sum(2)  # [B] each
    total = max(float(looks.sum()), 1.0)
    intervals = []
    for gain in (clicks, reward):
        drawn_looks = weights @ looks
        drawn = np.divide(weights @ gain, drawn_looks, out=np.zeros(len(weights)), where=drawn_looks > 0)
        low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        intervals.append((float(low), float(high)))
    return GroupReception(
        int((tally[0].sum(0) > 0).sum()), int(looks.sum()), int(clicks.sum()), float(clicks.sum() / total),
        intervals[0], float(reward.sum() / total), intervals[1],
    )  # fmt: skip
