"""LSPI: least-squares policy iteration on linear values of what users click."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Transition
from recsim_llm.agents.td.linear_value import Event, LinearValueAgent, LinearValueConfig, Values

SWEEPS = 4
"""Rounds between the weights that items share and their own."""


@dataclass(frozen=True)
class LSPIConfig(LinearValueConfig):
    """Settings of :class:`LSPIAgent`.

    Attributes:
        growth: Share by which the data must have grown before the weights are solved for again.
    """

    growth: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(0.0, 1e6, "growth")


class LSPIAgent(LinearValueAgent):
    """Solves for the value of states and for what each item adds, where others approach them step by step.

    Equation: with traces e_t = gamma lambda e_tm1 + f(s_t), the value of states V(s) = u . f(s) is LSTD(lambda)'s,

        (ridge I + sum e_t (f(s_t) - gamma f(s_tp1))^T) u = sum e_t r_t

    without f(s_tp1) where the user has left for good (terminated), and the effects of what was clicked, c_t, are the
    ridge regression of the advantage r_t + gamma V(s_tp1) - V(s_t) on psi(s_t, i) and the items themselves:

        min over v, b of  sum (r_t + gamma V(s_tp1) - V(s_t) - v_0 - sum over i in c_t of (v . psi(s_t, i) + b_i))^2
                          + ridge |v|^2 + strength |b|^2

    V is that of the policy which shows the items of best effect, so that solving again while it acts is policy
    iteration. The rest is in :class:`~recsim_llm.agents.td.linear_value.LinearValueAgent`.

    Paper: Lagoudakis and Parr (2003), "Least-squares policy iteration"; Boyan (1999), "Least-squares temporal
    difference learning"; that values belong to what is clicked in a slate: Ie et al. (2019), "SlateQ".

    Origin of the defaults: chosen on training users of Video-retention-v0 at 20,000 steps. Deviations: (1) sums forget,
    at the rate 1 / ``window``, as the policy that they are about changes; (2) values of states and effects are
    two regressions, so that the second has none of the first one's long traces and their noise; (3) v and b take turns.
    """

    name: ClassVar[str] = "lspi"
    Config: ClassVar[type[Config]] = LSPIConfig
    config: LSPIConfig

    def setup(self, rng: np.random.Generator) -> None:
        """Sums of zero."""
        super().setup(rng)
        n, m, items = self.state_count, 1 + self.features.count, self.env_spec.items
        self.u, self.v, self.b = np.zeros(n), np.zeros(m), np.zeros(items)
        self.traces: Values = np.zeros((self.runner.count, n))
        self.samples = np.zeros(2)  # seen; seen when the weights were solved for
        self.sums: dict[str, Values] = {
            "state_gram": np.zeros((n, n)), "state_moment": np.zeros(n), "gram": np.zeros((m, m)),
            "moment": np.zeros(m), "moment_next": np.zeros((m, n)), "own_times": np.zeros(items),
            "own_moment": np.zeros(items), "own_next": np.zeros((items, n)), "cross": np.zeros((items, m)),
        }  # fmt: skip

    def effects(self) -> tuple[Values, Values]:
        """What items share, and their own."""
        return self.v[1:], self.b

    def update(self, transition: Transition) -> None:
        """Adds a step to the sums; now and then solves again."""
        event = self.event(transition)
        self._add(event, transition)
        self.note_worth(event, transition.valid)
        self.samples[0] += np.count_nonzero(transition.valid)
        if self.samples[0] > self.samples[1] * (1.0 + self.config.growth):
            self.solve()

    def _add(self, event: Event, transition: Transition) -> None:
        gamma, valid = self.config.gamma, transition.valid
        if len(self.traces) != len(valid):  # transitions of other lanes than its own
            self.traces = np.zeros((len(valid), len(self.u)))
        self.traces[event.begins | ~valid] = 0.0
        self.traces *= gamma * self.config.trace
        self.traces += np.where(valid[:, None], event.state, 0.0)
        e, reward = self.traces[valid], transition.reward[valid]
        change = (gamma * event.after - event.state)[valid]
        g = np.concatenate([np.ones((len(reward), 1)), event.psi[valid]], 1)
        lane, slot = np.nonzero(event.items[valid] >= 0)
        items = event.items[valid][lane, slot]
        kept = float(np.exp(-len(reward) / self.config.window))
        for array in self.sums.values():
            array *= kept
        sums = self.sums
        sums["state_gram"] -= e.T @ change
        sums["state_moment"] += e.T @ reward
        sums["gram"] += g.T @ g
        sums["moment"] += g.T @ reward
        sums["moment_next"] += g.T @ change
        np.add.at(sums["own_times"], items, 1.0)
        np.add.at(sums["own_moment"], items, reward[lane])
        np.add.at(sums["own_next"], items, change[lane])
        np.add.at(sums["cross"], items, g[lane])

    def solve(self) -> None:
        """Solves for u, v and b."""
        config, sums = self.config, self.sums
        n, m = len(self.u), len(self.v)
        self.u[...] = np.linalg.solve(sums["state_gram"] + config.ridge * np.eye(n), sums["state_moment"])
        inverse = np.linalg.inv(sums["gram"] + config.ridge * np.eye(m))
        moment = sums["moment"] + sums["moment_next"] @ self.u
        own = sums["own_moment"] + sums["own_next"] @ self.u
        for _ in range(SWEEPS):
            self.v[...] = inverse @ (moment - self.b @ sums["cross"])
            self.b[...] = (own - sums["cross"] @ self.v) / (config.strength + sums["own_times"])
        self.samples[1] = self.samples[0]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Weights and sums."""
        return {**super().arrays(), **self.sums, "u": self.u, "v": self.v, "b": self.b, "samples": self.samples}

    def of_lanes(self) -> dict[str, NDArray[Any]]:
        """Traces."""
        return {"traces": self.traces}
