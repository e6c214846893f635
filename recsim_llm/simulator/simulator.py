"""The simulator: a world, rules and B lanes, stepped in place by compiled code."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.errors import ConfigError
from recsim_llm.simulator.availability import (
    hold_back,
    write_available,
    write_leaning,
    write_living,
    write_spending,
    write_truth,
)
from recsim_llm.simulator.choice import write_attention
from recsim_llm.simulator.episode_start import reset_lanes
from recsim_llm.simulator.jit import COMPILED, loaded
from recsim_llm.simulator.kernel import build_step
from recsim_llm.simulator.observation import CONTEXT
from recsim_llm.simulator.params import SIGNALS, Rules, reward_weights
from recsim_llm.simulator.registry import choice_of, dynamics_of
from recsim_llm.simulator.slates import Scratch, new_scratch
from recsim_llm.simulator.state import State, Tables, aligned, new_state, tables
from recsim_llm.simulator.task_variant import TaskVariant
from recsim_llm.worlds.catalog import UNRELEASED
from recsim_llm.worlds.world import World

LANES_PER_THREAD = 256
"""Fewer lanes than this are not worth waking a thread for."""

HEAD_START = 64
"""Lanes that the calling thread has stepped before another one is awake."""


@functools.lru_cache(maxsize=8)
def _tables(world: World, share: float = 0.0, first: float = 0.0, days: float = 0.0) -> Tables:
    """The world's tables; with a share of the items released evenly over some days from the first."""
    if share <= 0:
        return tables(world)
    whole = _tables(world)
    item = whole.item.copy()
    with quiet():
        loaded(hold_back, item, np.float32(share), np.float32(first), np.float32(days))
    return dataclasses.replace(whole, item=item)


@functools.lru_cache(maxsize=16)
def _built(choice: Callable[..., Any] | None, dynamics: Callable[..., Any] | None) -> Any:
    return build_step(choice, dynamics)


@dataclass(eq=False)
class Outcome:
    """What the last step gave; arrays are written in place by the next one."""

    observation: NDArray[np.float32]  # [B, P]
    reward: NDArray[np.float64]  # [B]
    terminated: NDArray[np.bool_]  # [B]
    slot_reward: NDArray[np.float32]  # [B, K]


class Simulator:
    """B users side by side.

    Args:
        world: Items and users.
        rules: How users behave.
        lanes: B.
        slate_size: K, size of a slate.
        users: Split of the population to draw from: "all", "train" or "test".
        weights: Weights of the reward terms.
        dynamics: Name of a registered dynamics, or None for the built-in drift.
        variant: What makes the task harder than world and rules alone.
        threads: Threads for many lanes; None is the environment variable RECSIM_LLM_THREADS, else the machine's
            cores. The result does not depend on it.

    Raises:
        ConfigError: If a name or size is not valid.
    """

    def __init__(
        self,
        world: World,
        rules: Rules,
        *,
        lanes: int,
        slate_size: int,
        users: str = "all",
        weights: Mapping[str, float] | None = None,
        dynamics: str | None = None,
        variant: TaskVariant | None = None,
        threads: int | None = None,
    ) -> None:
        if lanes < 1:
            raise ConfigError(f"number of lanes must be at least 1, got {lanes}")
        if not 1 <= slate_size <= len(world.catalog):
            raise ConfigError(
                f"slate_size must lie in 1..{len(world.catalog)} (the catalogue's size), got {slate_size}"
            )
        self.world = world
        self.rules = rules
        self.variant = TaskVariant() if variant is None else variant
        self.lanes = lanes
        self.slate_size = slate_size
        self.threads = threads_of(threads)
        self.cohort = world.population.split(users)
        self.tables = _tables(world, self.variant.cold_items, rules.start_day, self.variant.cold_days)
        self.waiting = world.catalog.released_at >= UNRELEASED
        if self.waiting.any():  # release days change while it runs: not those of the world, which others share
            self.tables = dataclasses.replace(self.tables, item=self.tables.item.copy())
            self.tables.item["released_at"][self.waiting] = UNRELEASED
        number, choice = choice_of(rules.choice)
        self._dynamics = dynamics
        self._step = _built(choice, dynamics_of(dynamics))
        model = world.preference_model
        self._parameters = rules.packed(
            choice=number, mu=model.mu, noise=model.noise, units=self.tables.units, variant=self.variant
        )
        self._weights = reward_weights(dict(weights or {"click": 1.0}))
        self.state = new_state(lanes, slate_size, len(SIGNALS), self.tables, rules, self.variant)
        self.outcome = Outcome(
            aligned((lanes, self.observation_width), np.dtype(np.float32)),
            np.zeros(lanes, np.float64),
            np.zeros(lanes, np.bool_),
            np.zeros((lanes, slate_size), np.float32),
        )
        t = self.tables
        self._table: tuple[NDArray[Any], ...] = (
            t.item, t.item_code, t.trade, t.provider_budget, t.user, t.user_code, t.profile_code,
        )  # fmt: skip
        self._scratch = [self._new_scratch() for _ in range(self.threads)]
        self._nobody = np.full(lanes, -1, np.int32)
        self._pool: tuple[int, ThreadPoolExecutor] | None = None
        self._load()

    def _load(self) -> None:
        """Loads or compiles what every environment needs, by calls that touch no lane."""
        out = self.outcome
        actions = np.zeros((self.lanes, self.slate_size), np.int64)
        nothing = np.zeros(self.lanes, np.bool_)
        loaded(
            self._step, 0, 0, self._parameters, self._weights, self._table, self._arrays(), self._scratch[0], actions,
            out.observation, out.slot_reward, out.reward, out.terminated,
        )  # fmt: skip
        loaded(
            reset_lanes, self._parameters, self._table, self._arrays(), self.cohort, nothing, self._nobody,
            out.observation, out.slot_reward,
        )  # fmt: skip

    @property
    def observation_width(self) -> int:
        """P, the width of a flat observation."""
        return sum(part.stop - part.start for part in self.layout.values())

    @functools.cached_property
    def layout(self) -> dict[str, slice]:
        """Where each part of a flat observation stands."""
        sizes = {
            "profile": self.world.catalog.width,
            "interest": self.world.catalog.width,
            "context": len(CONTEXT),
            "feedback": self.slate_size * len(SIGNALS),
        }
        ends = np.cumsum(list(sizes.values())).tolist()
        return {name: slice(end - size, end) for (name, size), end in zip(sizes.items(), ends, strict=True)}

    def seed(self, seeds: NDArray[np.uint64], mask: NDArray[np.bool_] | None = None) -> None:
        """Gives lanes [B] a seed each; their episodes count from 0 again."""
        chosen = slice(None) if mask is None else mask
        self.state.lane["seed"][chosen] = seeds[chosen]
        self.state.lane["episode"][chosen] = -1
        self.state.provider["episode"][chosen] = -1  # or a cell of the last episode 0 would count as one of the next

    def reset(self, mask: NDArray[np.bool_], users: NDArray[np.int32] | None = None) -> Outcome:
        """Begins an episode in every lane of the mask [B]; ``users`` [B] names users, -1 draws one."""
        wishes = self._nobody if users is None else users
        with quiet():
            reset_lanes(
                self._parameters, self._table, self._arrays(), self.cohort, mask, wishes, self.outcome.observation,
                self.outcome.slot_reward,
            )  # fmt: skip
        return self.outcome

    def step(self, actions: NDArray[np.int64]) -> Outcome:
        """Shows slates [B, K] to all users; lanes that have ended are left alone."""
        out = self.outcome
        fixed = (self._parameters, self._weights, self._table, self._arrays())
        written = (actions, out.observation, out.slot_reward, out.reward, out.terminated)
        parts = min(self.threads, self.lanes // LANES_PER_THREAD) if COMPILED else 1
        with quiet():
            if parts < 2:
                self._step(0, self.lanes, *fixed, self._scratch[0], *written)
                return out
        head = min(HEAD_START, self.lanes // (4 * parts))
        edges = [0, *np.linspace(head, self.lanes, parts + 1).astype(int).tolist()[1:]]
        pool: Any = self._workers(parts - 1)
        waiting = [
            pool.submit(self._step, low, high, *fixed, scratch, *written)
            for low, high, scratch in zip(edges[1:-1], edges[2:], self._scratch[1:parts], strict=True)
        ]
        self._step(edges[0], edges[1], *fixed, self._scratch[0], *written)
        for future in waiting:
            future.result()
        return out

    def available(self) -> NDArray[np.bool_]:
        """Which items are on the shelf for each lane, [B, I]."""
        out = np.empty((self.lanes, len(self.world.catalog)), np.bool_)
        with quiet():
            loaded(
                write_available,
                self._parameters,
                self._table,
                self._released,
                self.state.lane,
                self.state.provider,
                out,
            )
        return out

    def truth(
        self, weights: Mapping[str, float] | None = None, listed: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Attraction of items (-inf off the shelf) and expected reward of a click on them, [B, I] or [B, N] each.

        Args:
            weights: Reward terms to expect instead of the environment's.
            listed: Items [B, N]; all of them if None.
        """
        terms = self._weights if weights is None else reward_weights(dict(weights))
        shape = (self.lanes, len(self.world.catalog)) if listed is None else listed.shape
        appeal, value = np.empty(shape, np.float32), np.empty(shape, np.float32)
        which = np.empty((0, 0), np.int64) if listed is None else listed
        with quiet():
            loaded(write_truth, self._parameters, terms, self._table, self._arrays(), which, appeal, value)
        return appeal, value

    def leaning(self) -> NDArray[np.float32]:
        """Utility of the middle of each theme for each lane's present taste, [B, T] [logit]."""
        out = np.empty((self.lanes, self.tables.topics), np.float32)
        unit = self.tables.units["utility_unit"] / max(self.tables.units["encoding_unit"], 1e-12)
        with quiet():
            loaded(write_leaning, self.state.taste, self._centres, np.float32(unit), out)
        return out

    @functools.cached_property
    def _released(self) -> NDArray[np.float32]:
        """Release day of each item, side by side."""
        return self.released_at

    @functools.cached_property
    def _centres(self) -> NDArray[np.float32]:
        """Mean encoding of each theme, [T, D]."""
        catalog = self.world.catalog
        sums = np.zeros((self.tables.topics, catalog.width), np.float64)
        np.add.at(sums, catalog.topic, catalog.embedding)
        counts = np.bincount(catalog.topic, minlength=self.tables.topics)
        return np.asarray(sums / counts[:, None], np.float32)

    def living(self) -> NDArray[np.int64]:
        """How many providers still publish, [B]; all of them where they do not care."""
        if self.rules.audience_life <= 0:
            return np.full(self.lanes, len(self.tables.provider_budget), np.int64)
        out = np.empty(self.lanes, np.int64)
        with quiet():
            loaded(write_living, self._parameters, self.state.lane, self.state.provider, out)
        return out

    def spending(self) -> NDArray[np.float64]:
        """What providers with a budget have spent today and may spend in a day, [B, 2] [currency]."""
        out = np.zeros((self.lanes, 2))
        if self.rules.bids > 0:
            state, budgets = self.state, self.tables.provider_budget
            with quiet():
                loaded(write_spending, self._parameters, state.lane, state.provider, budgets, out)
        return out

    def release(self, items: NDArray[np.integer], day: float) -> None:
        """Puts items that wait on the shelf from a day of the catalogue's clock on.

        Raises:
            ConfigError: If one of them does not wait in this world, or the day is not a finite number before
                ``UNRELEASED``.
        """
        items = np.asarray(items)
        if items.size and (items.min() < 0 or items.max() >= len(self.waiting) or not self.waiting[items].all()):
            raise ConfigError(
                f"items {items.tolist()} cannot be released: items of this world that wait for it are "
                f"{np.flatnonzero(self.waiting).tolist()}"
            )
        if not -UNRELEASED < day < UNRELEASED:
            raise ConfigError(f"day={day}: the day of a release is a finite number below {UNRELEASED:g}")
        self.tables.item["released_at"][items] = day
        self.__dict__.pop("_released", None)

    @property
    def released_at(self) -> NDArray[np.float32]:
        """[I] [day] when each item goes on the shelf in this simulator, as it stands now."""
        return np.ascontiguousarray(self.tables.item["released_at"])

    @property
    def feedback(self) -> NDArray[np.float32]:
        """Signals [B, K, S] of the last step as the recommender sees them."""
        return self.state.reported if self.variant.reports else self.state.feedback

    @property
    def slate(self) -> NDArray[np.int64]:
        """Items [B, K] that they belong to, -1 for a wasted slot."""
        return self.state.reported_slate if self.variant.reports else self.state.slate

    def past_retention(self) -> NDArray[np.bool_]:
        """Lanes whose episode has come to the variant's horizon in days, [B]."""
        lane = self.state.lane
        return np.asarray(lane["clock"] - lane["began"] >= self.variant.retention * 86400.0)

    def days(self) -> NDArray[np.float64]:
        """Each lane's clock [day]; with privacy the day alone, as the time tells how long she has read."""
        days = self.rules.start_day + self.state.lane["clock"] / 86400.0
        return np.floor(days) if self.variant.epsilon > 0 else days

    def get_state(self) -> dict[str, NDArray[Any]]:
        """A snapshot: every array that changes, copied."""
        return {name: array.copy() for name, array in self._changing().items()}

    def _changing(self) -> dict[str, NDArray[Any]]:
        """Every array that changes; release days only in worlds with items that wait for it."""
        own = {"observation": self.outcome.observation, "slot_reward": self.outcome.slot_reward}
        days = {"released_at": self.tables.item["released_at"]} if self.waiting.any() else {}
        return vars(self.state) | own | days

    def set_state(self, snapshot: Mapping[str, NDArray[Any]]) -> None:
        """Restores a snapshot of the same simulator (or one of the same sizes).

        Raises:
            ConfigError: If a part is missing or of another shape.
        """
        targets = self._changing()
        for name, target in targets.items():
            if name not in snapshot or snapshot[name].shape != target.shape or snapshot[name].dtype != target.dtype:
                raise ConfigError(
                    f"snapshot does not fit: part {name!r} must be {target.dtype} of shape {target.shape}"
                )
        for name, target in targets.items():
            target[...] = snapshot[name]
        self.__dict__.pop("_released", None)

    def _arrays(self) -> tuple[NDArray[Any], ...]:
        s: State = self.state
        return (
            s.lane, s.taste, s.code, s.interest, s.satiation, s.memory, s.feedback, s.slate, s.provider, s.owned,
            s.late, s.late_slate, s.reported, s.reported_slate,
        )  # fmt: skip

    def _new_scratch(self) -> Scratch:
        """Working arrays of one thread."""
        attention = np.zeros(self.slate_size, np.float32)
        with quiet():
            loaded(write_attention, self._parameters, attention)
        return new_scratch(self.slate_size, self.tables.topics, len(SIGNALS), attention)

    def _workers(self, count: int) -> ThreadPoolExecutor:
        if self._pool is None or self._pool[0] != os.getpid():  # threads do not survive a fork
            self._pool = (os.getpid(), ThreadPoolExecutor(count, thread_name_prefix="recsim-llm"))
        return self._pool[1]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_pool", "_step", "_scratch")}

    def __setstate__(self, parts: dict[str, Any]) -> None:
        vars(self).update(parts, _pool=None)
        self._step = _built(choice_of(self.rules.choice)[1], dynamics_of(self._dynamics))
        self._scratch = [self._new_scratch() for _ in range(self.threads)]  # arrays that share memory: not to be copied


def threads_of(wanted: int | None) -> int:
    """Threads that are wanted, else those of RECSIM_LLM_THREADS, else the cores that this process may use."""
    if wanted is None:
        named = os.environ.get("RECSIM_LLM_THREADS", "")
        wanted = (
            int(named) if named.isdigit() else len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        )
    if wanted < 1:
        raise ConfigError(f"threads must be at least 1, got {wanted}")
    return wanted


def quiet() -> Any:
    """Run as plain Python, integer hashes overflow on purpose and NumPy would warn."""
    return nullcontext() if COMPILED else np.errstate(all="ignore")
