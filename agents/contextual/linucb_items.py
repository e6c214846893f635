"""Disjoint LinUCB: parameters of its own for each item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.cooldown import CooldownConfig, RecentItems
from recsim_llm.agents.common.item_stats import credited, seen_slots
from recsim_llm.agents.common.top_k import top_k
from recsim_llm.agents.core.base import Agent
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import EnvironmentSpec, Flags, Floats, Slates, Transition
from recsim_llm.simulator.jit import kernel, loaded

Floats64 = NDArray[np.float64]

MOST_NUMBERS = 2**27
"""Numbers in all inverses together: 1 GiB."""


@dataclass(frozen=True)
class LinUCBItemsConfig(CooldownConfig):
    """Settings of :class:`LinUCBItemsAgent`.

    Attributes:
        alpha: Weight of the confidence width.
        ridge: Precision of the prior of each theta_i.
        width: Principal components of the persona's encoding and of that of recent interest in the user's vector.
    """

    alpha: float = 0.5
    ridge: float = 1.0
    width: int = 6

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(0.0, 1e6, "alpha")
        self._within(1e-9, 1e9, "ridge")
        self._within(0, 256, "width")


class LinUCBItemsAgent(Agent):
    """Shows the items whose own linear model of the user has the highest upper confidence bound.

    Equation: for each item A_i = ridge I + sum x x^T and b_i = sum r x over the looks at it, x the user's vector,
        score(u, i) = theta_i . x + alpha sqrt(x^T A_i^-1 x),  theta_i = A_i^-1 b_i

    and the slate is the K highest. x = [1, p, z, context], p and z the leading principal components of the encodings of
    persona and recent interest. With ``deterministic`` alpha is 0.

    Paper: Li, Chu, Langford and Schapire (2010), "A contextual-bandit approach to personalized news article
    recommendation", algorithm 1 (disjoint linear models).

    An item learns nothing from looks at others: with a thousand items this takes a thousand times the data that the
    agent linucb needs, and new items begin at nothing.

    Origin of the defaults: ridge 1 is Li et al.'s; alpha and width were found on training users (their best alpha was
    0.2 to 0.4). Deviations: (1) the inverses are kept up by Sherman and Morrison's formula, look by look, instead of
    being computed; (2) users are served B at a time; (3) each slot is credited with its own reward; (4) ties are broken
    in an order drawn once; what was just shown rests.
    """

    State: ClassVar[type | None] = RecentItems
    name: ClassVar[str] = "linucb_items"
    Config: ClassVar[type[Config]] = LinUCBItemsConfig
    config: LinUCBItemsConfig

    @classmethod
    def refusal(cls, env_spec: EnvironmentSpec, config: LinUCBItemsConfig) -> str | None:
        """Too many items for a matrix each."""
        size = _size(env_spec, config)
        if env_spec.items * size * size <= MOST_NUMBERS:
            return None
        return (
            f"linucb_items keeps {size} x {size} numbers for each of {env_spec.items:,} items, more than "
            f"{MOST_NUMBERS:,} in all; take linucb, which shares one model, or a smaller width than {config.width}"
        )

    def setup(self, rng: np.random.Generator) -> None:
        """A_i = ridge I, b_i = 0."""
        items, size = self.env_spec.items, _size(self.env_spec, self.config)
        catalog = self.env_spec.catalog
        self.scale = np.float32(1.0 / (float(np.sqrt(np.square(catalog.embedding).sum(1).mean())) or 1.0))
        self.inverse: Floats64 = np.tile(np.eye(size) / self.config.ridge, (items, 1, 1))
        self.moment: Floats64 = np.zeros((items, size))
        self.theta: Floats64 = np.zeros((items, size))
        self.ties = rng.random(items) * 1e-9
        self._pairs = np.triu_indices(size)
        self._twice = np.where(self._pairs[0] == self._pairs[1], 1.0, 2.0).astype(np.float32)

    def users(self, rows: Floats) -> Floats:
        """The users' vectors x, [B, d]."""
        width = min(self.config.width, self.env_spec.catalog.width)
        profile, interest, context = (self.env_spec.part(name, rows) for name in ("profile", "interest", "context"))
        ones = np.ones((len(rows), 1), np.float32)
        return np.concatenate([ones, self.scale * profile[:, :width], self.scale * interest[:, :width], context], 1)

    def bounds(self, x: Floats, alpha: float) -> Floats:
        """Upper confidence bounds [B, I] for users' vectors [B, d].

        x^T A^-1 x is the product of the d (d + 1) / 2 different entries of x x^T and A^-1: one product of matrices for
        all users and items.
        """
        scores: Floats = x @ self.theta.T.astype(np.float32)
        if alpha > 0.0:
            first, second = self._pairs
            squares = (x[:, first] * x[:, second] * self._twice) @ self.inverse[:, first, second].T.astype(np.float32)
            scores += np.float32(alpha) * np.sqrt(np.maximum(squares, np.float32(0.0)))
        return scores

    def act(
        self,
        obs: Floats,
        state: Any,
        episode_start: Flags,
        deterministic: bool,
        action_mask: Flags,
        rng: np.random.Generator,
    ) -> tuple[Slates, Any]:
        """The best upper bounds, or the best estimates."""
        memory = self.cooldown.recall(obs, state, episode_start)
        scores = self.bounds(self.users(obs), 0.0 if deterministic else self.config.alpha) + self.ties
        slates = top_k(scores, self.cooldown.eligible(memory, action_mask), self.env_spec.slate_size)
        return slates, memory.noting(slates)

    def relevance(self, obs: Floats, state: Any, episode_start: Flags, action_mask: Flags) -> NDArray[np.floating]:
        """The estimates of reward."""
        return self.bounds(self.users(obs), 0.0) + self.ties

    def update(self, transition: Transition) -> None:
        """Adds the slots that were looked at, one after the other."""
        shown, seen = seen_slots(transition)
        lane, _ = np.nonzero(seen)
        x = self.users(transition.observation)[lane].astype(np.float64)
        reward = credited(transition)[seen]
        work = np.empty(x.shape[1])
        loaded(_add, shown[seen], x, reward, self.inverse, self.moment, self.theta, work)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Inverses, sums and parameters of the items, and the order of ties."""
        return {"inverse": self.inverse, "moment": self.moment, "theta": self.theta, "ties": self.ties}


def _size(env_spec: EnvironmentSpec, config: LinUCBItemsConfig) -> int:
    """D, the length of a user's vector."""
    context = env_spec.layout["context"]
    return 1 + 2 * min(config.width, env_spec.catalog.width) + int(context.stop - context.start)


@kernel
def _add(
    item: Slates, x: Floats64, reward: Floats64, inverse: Floats64, moment: Floats64, theta: Floats64, work: Floats64
) -> None:
    """Adds looks [N] at items by users x [N, d] one by one, after Sherman and Morrison.

    Args:
        item: [N].
        x: [N, d].
        reward: [N].
        inverse: A^-1 of each item [I, d, d], changed.
        moment: b of each item [I, d], changed.
        theta: A^-1 b of each item [I, d], changed.
        work: [d], working space.
    """
    size = x.shape[1]
    for n in range(item.shape[0]):
        a, b, t, u = inverse[item[n]], moment[item[n]], theta[item[n]], x[n]
        down = 1.0
        for i in range(size):
            work[i] = 0.0
            for j in range(size):
                work[i] += a[i, j] * u[j]
            down += u[i] * work[i]
        for i in range(size):
            b[i] += reward[n] * u[i]
            for j in range(size):
                a[i, j] -= work[i] * work[j] / down
        for i in range(size):
            t[i] = 0.0
            for j in range(size):
                t[i] += a[i, j] * b[j]
