"""Tabular temporal-difference control: states, actions, the table, and how slates come from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.cooldown import CooldownConfig, RecentItems
from recsim_llm.agents.common.item_stats import ItemCounts, credited, seen_slots
from recsim_llm.agents.common.sampling import epsilon_at, epsilon_greedy
from recsim_llm.agents.common.top_k import top_k
from recsim_llm.agents.core.base import Agent
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Flags, Floats, Slates, Transition, normalised

Values = NDArray[np.float64]
Indices = NDArray[np.int64]

FATIGUE_LEVELS = 3
KMEANS_ROUNDS = 50
BORED = 0.25  # idle = n / (n + 5): two steps or more without a click
SAME = 0.5  # more than half of what was consumed lately had the topic of the item before


@dataclass(frozen=True)
class TabularConfig(CooldownConfig):
    """Settings of :class:`TabularAgent`.

    Attributes:
        states: Clusters of interests.
        actions: Clusters of items.
        gamma: Discount of the future, per step.
        epsilon: Probability that a slot explores, in the long run.
        epsilon_start: The same at the first step.
        decay: Steps of users in which what lies between the two falls by the factor e [steps].
        power: Step size (1 + n) ** -power at the n-th visit of a state and action.
        smallest_step: Smallest step size.
        strength: Looks by which an item's mean reward is drawn towards that of its cluster.
    """

    states: int = 12
    actions: int = 24
    gamma: float = 0.8
    epsilon: float = 0.1
    epsilon_start: float = 1.0
    decay: float = 8_000.0
    power: float = 0.77
    smallest_step: float = 0.005
    strength: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(1, 100_000, "states", "actions")
        self._within(0.0, 1.0, "gamma", "epsilon", "epsilon_start", "smallest_step")
        self._within(0.5, 1.0, "power")
        self._within(1e-6, 1e12, "decay", "strength")


class TabularAgent(Agent):
    """Tabular values Q[state, cluster of items].

    The state is the cluster of the recent-interest encoding (before anything was consumed, of the profile) and a level
    of fatigue: how many of "two steps or more without a click" and "the same topic again and again" hold. An action is
    a cluster of items and stands for the best known item in it. With Q the table and d_i how much better an item is
    known to be than its cluster, by smoothed mean rewards, a slate is the K largest

        Q[s, cluster of i] + d_i

    so that a cluster whose best items have just been shown gives way to another. A slot explores with probability
    epsilon: any item. Each slot decides for itself from the same table and is credited with its own reward.
    """

    State: ClassVar[type | None] = RecentItems
    Config: ClassVar[type[Config]] = TabularConfig
    config: TabularConfig

    def setup(self, rng: np.random.Generator) -> None:
        """Clusters of the public encodings; a table of zeros."""
        config, items = self.config, self.env_spec.items
        embedding = self.env_spec.catalog.embedding
        self.interests = Clusters(embedding, min(config.states, items), rng)
        self.groups = Clusters(embedding, min(config.actions, items), rng)
        rows = (len(self.interests) + 1) * FATIGUE_LEVELS  # one more for users of whom nothing is known
        self.table: Values = np.zeros((rows, len(self.groups)))
        self.visits: Values = np.zeros_like(self.table)
        self.share: Values = np.bincount(self.groups.labels, minlength=len(self.groups)) / items
        self.counts = ItemCounts(items)
        self.ties = rng.random(items) * 1e-9

    @property
    def epsilon(self) -> float:
        """Probability that a slot explores now."""
        config = self.config
        return epsilon_at(self.num_timesteps, config.epsilon_start, config.epsilon, config.decay)

    def states(self, obs: Floats) -> Indices:
        """Row of the table for each observation, [B]."""
        env_spec = self.env_spec
        interest, profile = env_spec.part("interest", obs), env_spec.part("profile", obs)
        direction = np.where(np.any(interest != 0.0, axis=1)[:, None], interest, profile)
        cluster = np.where(np.any(direction != 0.0, axis=1), self.interests.nearest(direction), len(self.interests))
        bored = env_spec.context("idle", obs) > BORED
        same = env_spec.context("sameness", obs) > SAME
        return cluster * FATIGUE_LEVELS + bored.astype(np.int64) + same

    def act(
        self,
        obs: Floats,
        state: Any,
        episode_start: Flags,
        deterministic: bool,
        action_mask: Flags,
        rng: np.random.Generator,
    ) -> tuple[Slates, Any]:
        """The best known items of the best clusters, each slot exploring with probability epsilon."""
        memory = self.cooldown.recall(obs, state, episode_start)
        rested = self.cooldown.eligible(memory, action_mask)
        scores = self.table[self.states(obs)][:, self.groups.labels] + self.advantage()
        slates = top_k(scores, rested, self.env_spec.slate_size)
        if not deterministic:
            slates, self.propensity = epsilon_greedy(slates, rested, self.epsilon, rng)
        return slates, memory.noting(slates)

    def advantage(self) -> Values:
        """How much better than its cluster each item is known to be, [I]."""
        counts, labels, strength = self.counts, self.groups.labels, self.config.strength
        looks = np.bincount(labels, weights=counts.looks)
        mean = (np.bincount(labels, weights=counts.gains) / np.maximum(looks, 1.0))[labels]
        advantage: Values = (counts.gains - mean * counts.looks) / (counts.looks + strength) + self.ties
        return advantage

    def expected(self, states: Indices) -> Values:
        """Mean of Q over what a slot shows, [B]: the best cluster, or with probability epsilon that of any item."""
        values = self.table[states]
        mean: Values = (1.0 - self.epsilon) * values.max(1) + self.epsilon * (values @ self.share)
        return mean

    def clusters(self, transition: Transition) -> Indices:
        """Cluster of each slot that was asked for, [B, K]."""
        return self.groups.labels[transition.action]

    def learn_towards(self, states: Indices, clusters: Indices, targets: Values, counted: Flags) -> None:
        """Q <- Q + step (target - Q) for the slots [B, K] that count.

        Several slots of one step that fall into the same cell move it as if they came one after the other.
        """
        cells = (states[:, None] * len(self.groups) + clusters)[counted]
        size = self.table.size
        times = np.bincount(cells, minlength=size)
        sums = np.bincount(cells, weights=targets[counted], minlength=size)
        hit = np.flatnonzero(times)
        table, visits = self.table.reshape(-1), self.visits.reshape(-1)
        step = np.maximum((1.0 + visits[hit]) ** -self.config.power, self.config.smallest_step)
        moved = 1.0 - (1.0 - step) ** times[hit]
        table[hit] += moved * (sums[hit] / times[hit] - table[hit])
        visits[hit] += times[hit]

    def gains(self, transition: Transition) -> tuple[Values, Flags]:
        """Reward of each slot [B, K] and which slots count; also notes the items' mean rewards."""
        rewards = credited(transition)
        _, seen = seen_slots(transition)
        self.counts.add(transition, rewards)
        return rewards, seen

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The table, visits, counts and the clusters they speak of."""
        return {
            "table": self.table, "visits": self.visits, "ties": self.ties, **self.counts.arrays(),
            "interest_centres": self.interests.centres, "group_centres": self.groups.centres,
            "group_labels": self.groups.labels,
        }  # fmt: skip


class Clusters:
    """k-means on the unit sphere (Dhillon and Modha 2001), seeded as k-means++ does.

    Args:
        points: [N, D] encodings to be grouped.
        count: Number of clusters; at most one for each distinct direction.
        rng: Where the seeds are drawn from.

    Attributes:
        centres: [n, D] unit vectors.
        labels: [N] cluster of each point.
    """

    def __init__(self, points: Floats, count: int, rng: np.random.Generator) -> None:
        units = normalised(points.astype(np.float64))
        self.centres = _seeds(units, count, rng)
        self.labels = self.nearest(units)
        for _ in range(KMEANS_ROUNDS):
            sums = np.zeros_like(self.centres)
            np.add.at(sums, self.labels, units)
            empty = ~sums.any(1)
            sums[empty] = self.centres[empty]
            self.centres = normalised(sums)
            labels = self.nearest(units)
            if (labels == self.labels).all():
                break
            self.labels = labels

    def __len__(self) -> int:
        return len(self.centres)

    def nearest(self, points: NDArray[np.floating]) -> NDArray[np.int64]:
        """Cluster of the smallest angle to each point [N, D]."""
        nearest: NDArray[np.int64] = (points @ self.centres.T).argmax(1)
        return nearest


def _seeds(units: NDArray[np.float64], count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Points drawn one by one with probability as the squared distance to those before."""
    chosen = [int(rng.integers(len(units)))]
    distance = np.full(len(units), np.inf)
    while len(chosen) < count:
        distance = np.minimum(distance, np.square(units - units[chosen[-1]]).sum(1))
        distance[distance < 1e-12] = 0.0
        total = distance.sum()
        if total == 0.0:
            break
        chosen.append(int(np.searchsorted(np.cumsum(distance), rng.random() * total, side="right")))
    return units[chosen]
