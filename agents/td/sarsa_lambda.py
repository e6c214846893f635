"""SARSA(lambda): linear values of what users click, with eligibility traces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Flags, Slates, Transition
from recsim_llm.agents.td.linear_value import LinearValueAgent, LinearValueConfig, Values

GROWTH = 0.05
"""Share by which the data must have grown before the gain is computed again."""


@dataclass(frozen=True)
class SarsaLambdaConfig(LinearValueConfig):
    """Settings of :class:`SarsaLambdaAgent`.

    Attributes:
        trace_items: lambda of what belongs to the items clicked.
    """

    gamma: float = 0.9
    trace_items: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(0.0, 1.0, "trace_items")


class SarsaLambdaAgent(LinearValueAgent):
    """Learns what each item does to the rest of the episode, by linear values and eligibility traces.

    Equation: after a slate, the user clicked c_t, a set of its items, mostly one or none. With w = (u, v, b) and
    phi_t = phi(s_t, c_t), Q(s, c) = w . phi(s, c) as in :class:`~recsim_llm.agents.td.linear_value.LinearValueAgent`,

        delta_t = r_t + gamma Q(s_tp1, c_tp1) - Q(s_t, c_t)
        e_t     = gamma lambda e_tm1 + (1 - gamma lambda e_tm1 . phi_t) a_t,  a_t = P phi_t
        w      <- w + (delta_t + Q_t - Q_old) e_t - (Q_t - Q_old) a_t

    which is true online SARSA(lambda) with the gain P = (ridge I + sum phi phi^T)^-1 in place of a step size. Nothing
    follows where the user has left for good (terminated), and u . f(s) and the mean effect of what is clicked where
    only the clock ended the episode (truncated).

    Paper: van Seijen, Mahmood, Pilarski, Machado and Sutton (2016), "True online temporal-difference learning"; that
    values belong to what is clicked in a slate: Ie et al. (2019), "SlateQ".

    Origin of the defaults: chosen on training users of Video-retention-v0 and, for gamma, Music-v0 at 20,000 steps:
    more foresight costs more noise than it is worth where nothing lasts. Deviations: (1) the gain is a matrix, block by
    block: that of the dense features, and 1 / (strength + clicks) for each b_i; it forgets at the rate 1 /
    ``window``, and is held back until as many steps were seen as lanes times the length of a trace; (2) the traces
    of u are longer than those of v and b (``trace_items``), whose effect f(s_tp1) already tells: the noise of what
    else happened is left out; (3) B users share the weights, and their updates at the same time are summed.
    """

    name: ClassVar[str] = "sarsa_lambda"
    Config: ClassVar[type[Config]] = SarsaLambdaConfig
    config: SarsaLambdaConfig

    def setup(self, rng: np.random.Generator) -> None:
        """Weights of zero."""
        super().setup(rng)
        config, items = self.config, self.env_spec.items
        self.states = self.state_count
        self.dense = self.states + self.features.count
        self.weights: Values = np.zeros(self.dense + items)
        self.decay: Values = np.full(len(self.weights), config.gamma * config.trace_items)
        self.decay[: self.states] = config.gamma * config.trace
        self.gains = Gains(self.dense, items, config.ridge, config.strength, config.window)
        self._prepare(self.runner.count)

    def _prepare(self, lanes: int) -> None:
        self.traces = Traces.empty(lanes, len(self.weights))
        self._dense, self._items = (
            np.zeros((lanes, self.dense)),
            np.full((lanes, self.env_spec.slate_size), -1, np.int64),
        )
        self._reward, self._waits = np.zeros(lanes), np.zeros(lanes, np.bool_)

    def effects(self) -> tuple[Values, Values]:
        """What items share, and their own."""
        return self.weights[self.states : self.dense], self.weights[self.dense :]

    def update(self, transition: Transition) -> None:
        """One step of the equation for the step before, and at the end of an episode for this one."""
        event, valid = self.event(transition), transition.valid
        if len(valid) != len(self._waits):  # transitions of other lanes than its own, which nothing waits for
            self._prepare(len(valid))
        dense = np.concatenate([event.state, event.psi], 1)
        self.gains.add(dense, event.items, valid)
        goes_on = self._waits & valid & ~event.begins
        values = event.state @ self.weights[: self.states] + self.worth(event)
        self._learn(self._dense, self._items, self._reward, goes_on, values)
        self._restart(~goes_on)
        done = valid & (transition.terminated | transition.truncated)
        after = event.after @ self.weights[: self.states] + self.mean_effect()
        self._learn(dense, event.items, transition.reward, done, np.where(transition.terminated, 0.0, after))
        self._restart(done)
        self._dense[...], self._items[...], self._reward[...] = dense, event.items, transition.reward
        self._waits[...] = valid & ~done
        self.note_worth(event, valid)

    def _learn(self, dense: Values, items: Slates, rewards: Values, counted: Flags, after: Values) -> None:
        """Moves the weights for the lanes that count; ``after`` [B] is the value of what follows."""
        if not counted.any():
            return
        lanes = np.flatnonzero(counted)
        phi = np.zeros((len(lanes), len(self.weights)))
        phi[:, : self.dense] = dense[lanes]
        row, slot = np.nonzero(items[lanes] >= 0)
        np.add.at(phi, (row, self.dense + items[lanes][row, slot]), 1.0)
        gain = self.gains.of(phi, len(counted) / (1.0 - min(float(self.decay.max()), 0.99)))
        targets = rewards[lanes] + self.config.gamma * after[lanes]
        self.weights += self.traces.step(lanes, phi, gain, phi @ self.weights, targets, after[lanes], self.decay)

    def _restart(self, lanes: Flags) -> None:
        self.traces.trace[lanes] = 0.0
        self.traces.before[lanes] = 0.0

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Weights and gains."""
        return {**super().arrays(), "weights": self.weights, **self.gains.arrays()}

    def of_lanes(self) -> dict[str, NDArray[Any]]:
        """Traces, and the steps that wait for what is clicked next."""
        return {
            "trace": self.traces.trace, "before": self.traces.before, "dense": self._dense, "items": self._items,
            "reward": self._reward, "waits": self._waits,
        }  # fmt: skip


@dataclass(frozen=True)
class Traces:
    """Dutch traces of B lanes, as in true online TD(lambda).

    Attributes:
        trace: [B, d].
        before: [B] value of the coming state and action, as it was before the last update.
    """

    trace: Values
    before: Values

    @classmethod
    def empty(cls, lanes: int, width: int) -> Traces:
        """Nothing traced."""
        return cls(np.zeros((lanes, width)), np.zeros(lanes))

    def step(
        self,
        lanes: NDArray[np.int64],
        phi: Values,
        gain: Values,
        values: Values,
        targets: Values,
        after: Values,
        decay: Values | float,
    ) -> Values:
        """Moves the traces of some lanes on, and returns the change of the weights [d], summed over them.

            e <- decay e + a - decay (e . phi) a
            dw = (target - Q_old) e - (Q - Q_old) a

        Args:
            lanes: [n] which lanes.
            phi: [n, d] features.
            gain: [n, d] the gain a: step size times phi, or a matrix times phi.
            values: [n] Q = w . phi.
            targets: [n] r + gamma Q'.
            after: [n] Q', kept for the next step.
            decay: gamma lambda, one for all weights or [d].
        """
        old = np.where(self.trace[lanes].any(1), self.before[lanes], values)
        trace = self.trace[lanes] * decay
        trace += (1.0 - np.einsum("bd,bd->b", trace, phi))[:, None] * gain
        self.trace[lanes], self.before[lanes] = trace, after
        change: Values = (targets - old) @ trace - (values - old) @ gain
        return change


class Gains:
    """Gain matrix that takes the place of a step size: a = P phi.

    P is (ridge I + sum phi phi^T)^-1 for dense features, 1 / (strength + count) for items.

    Sums forget: after ``window`` steps of users a share 1 / e is left.

    Args:
        dense: Number of dense features.
        items: I; each has a feature of its own.
        ridge: Precision of the prior of dense weights.
        strength: The same for those of items.
        window: Steps in which what was counted falls by the factor e.
    """

    def __init__(self, dense: int, items: int, ridge: float, strength: float, window: float) -> None:
        self.ridge, self.strength, self.window = ridge, strength, window
        self.gram: Values = np.zeros((dense, dense))
        self.inverse: Values = np.eye(dense) / ridge
        self.times: Values = np.zeros(items)
        self.samples: Values = np.zeros(2)  # counted; counted when the inverse was computed

    def add(self, phi: Values, items: Slates, counted: Flags) -> None:
        """Counts features [B, d] and clicked items [B, K], -1 for none."""
        dense, clicked = phi[counted], items[counted]
        kept = float(np.exp(-len(dense) / self.window))
        self.gram *= kept
        self.gram += dense.T @ dense
        self.times *= kept
        self.times += np.bincount(clicked[clicked >= 0], minlength=len(self.times))
        self.samples[0] += len(dense)
        grown = self.samples[0] - self.samples[1]
        if grown > GROWTH * min(self.samples[1], self.window):
            self.inverse[...] = np.linalg.inv(self.gram + self.ridge * np.eye(len(self.gram)))
            self.samples[1] = self.samples[0]

    def of(self, phi: Values, least: float = 0.0) -> Values:
        """The gain [n, d + I] of features [n, d + I].

        Args:
            phi: Features.
            least: Samples for as many of which the first ones count together: several users who learn at once with
                long traces would otherwise overshoot while little has been counted.
        """
        width = len(self.inverse)
        early = min(1.0, self.samples[0] / max(least, 1.0))
        dense = early * (phi[:, :width] @ self.inverse)
        gain: Values = np.concatenate([dense, phi[:, width:] * (early / (self.strength + self.times))], 1)
        return gain

    def arrays(self) -> dict[str, Values]:
        """Sums and the inverse."""
        return {"gram": self.gram, "inverse": self.inverse, "times": self.times, "samples": self.samples}
