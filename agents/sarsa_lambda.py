"""SARSA(lambda) with linear function approximation on what users took."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.clicks import ClickModel
from recsim_llm.agents.config import Config
from recsim_llm.agents.counts import seen_slots
from recsim_llm.agents.habits import Habits, Trail
from recsim_llm.agents.lanes import Flags, Floats, Slates, Transition
from recsim_llm.agents.pairs import Pairs
from recsim_llm.agents.remembering import RememberingAgent, RememberingConfig
from recsim_llm.agents.slates import best, mixed
from recsim_llm.agents.traces import Gains, Traces, Values

WAITING = ("waiting_dense", "waiting_items", "waiting_reward", "waits")
RESTARTED = (*WAITING, "trace", "before")


@dataclass(frozen=True)
class SarsaLambdaConfig(RememberingConfig):
    """Settings of :class:`SarsaLambdaAgent`.

    Attributes:
        gamma: Discount of the future, per step.
        trace: lambda of the state's weights: share of a trace that is left after a step beside the discount.
        trace_items: lambda of what belongs to the items taken.
        width: Principal components of the encodings in the features of user and item.
        ridge: Precision of the prior of the weights.
        window: Steps of users over which the weights forget [steps].
        strength: Times an item must have been taken for half of its own effect to be believed.
        epsilon: Probability that a slot explores, in the long run.
        epsilon_start: The same at the first step.
        decay: Steps of users in which what lies between the two falls by the factor e [steps].
    """

    gamma: float = 0.99
    trace: float = 0.9
    trace_items: float = 0.0
    width: int = 32
    ridge: float = 20.0
    window: float = 20_000.0
    strength: float = 4.0
    epsilon: float = 0.02
    epsilon_start: float = 0.5
    decay: float = 4_000.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(0.0, 1.0, "gamma", "trace", "trace_items", "epsilon", "epsilon_start")
        self._within(1, 256, "width")
        self._within(1e-9, 1e12, "ridge", "strength", "window", "decay")


class SarsaLambdaAgent(RememberingAgent):
    """Learns what each item does to the rest of the episode, by linear values and eligibility traces.

    Equation: after a slate, the user took c_t, a set of its items, mostly one or none. With phi_t = phi(s_t, c_t),

        Q(s, c) = w . phi(s, c) = u . f(s) + sum over i in c of (v . psi(s, i) + b_i)
        delta_t = r_t + gamma Q(s_tp1, c_tp1) - Q(s_t, c_t)
        e_t     = gamma lambda e_tm1 + a_t - gamma lambda (e_tm1 . phi_t) a_t,  a_t = P phi_t
        w      <- w + (delta_t + Q_t - Q_old) e_t - (Q_t - Q_old) a_t

    which is true online SARSA(lambda) with the gain P = (ridge I + sum phi phi^T)^-1 in place of a step size; nothing
    follows where the user has left for good (terminated), and f(s) and the mean effect of what is taken where only the
    clock ended the episode (truncated). f(s) holds the context and the signals of the last steps, so that a like or
    a bad rating tells at once what an item has done to what is to come; psi(s, i) products of the encodings of profile,
    recent interest and item; b_i is the item's own effect. A slate holds the K items of largest

        P(click i | s) (v . psi(s, i) + b_i)

    with a ridge regression of clicks for P; a slot explores with probability epsilon.

    Paper: van Seijen, Mahmood, Pilarski, Machado and Sutton (2016), "True online temporal-difference learning"; that
    values belong to what is taken from a slate: Ie et al. (2019), "SlateQ".

    Origin of the defaults: gamma 0.99 as sessions of tens of steps follow each other; the others were chosen on training
    users of Video-retention-v0 at 20,000 steps. Deviations: (1) a matrix gain, block by block: dense weights, and 1 /
    (strength + times taken) for each b_i; it forgets at the rate 1 / ``window``; (2) B users share the weights, and
    their updates at the same time are summed.
    """

    name: ClassVar[str] = "sarsa_lambda"
    Config: ClassVar[type[Config]] = SarsaLambdaConfig
    State: ClassVar[type | None] = Trail
    config: SarsaLambdaConfig

    def setup(self, rng: np.random.Generator) -> None:
        """Weights of zero."""
        config, items, lanes, slots = self.config, self.setting.items, self.lanes.count, self.setting.slots
        self.habits, self.pairs = Habits(self.setting), Pairs(self.setting, config.width)
        self.clicks = ClickModel(self.pairs, items)
        self.dense = self.habits.count + self.pairs.count
        self.weights: Values = np.zeros(self.dense + items)
        self.decay = np.full(len(self.weights), config.gamma * config.trace_items)
        self.decay[: self.habits.count] = config.gamma * config.trace
        self.gains = Gains(self.dense, items, config.ridge, config.strength, config.window)
        self.taken = np.zeros(3)  # decayed sums of effects of what was taken and of steps; whether two were at once
        self.ties = rng.random(items) * 1e-9
        self._clear(lanes, slots)

    def _clear(self, lanes: int, slots: int) -> None:
        self.traces = Traces.empty(lanes, self.dense + self.setting.items)
        self._dense, self._items = np.zeros((lanes, self.dense)), np.full((lanes, slots), -1, np.int64)
        self._reward, self._waits = np.zeros(lanes), np.zeros(lanes, np.bool_)

    @property
    def epsilon(self) -> float:
        """Probability that a slot explores now."""
        config = self.config
        left = float(np.exp(-self.num_timesteps / config.decay))
        return config.epsilon + (config.epsilon_start - config.epsilon) * left

    def act(
        self,
        rows: Floats,
        state: Any,
        starts: Flags,
        deterministic: bool,
        allowed: Flags,
        rng: np.random.Generator,
    ) -> tuple[Slates, Any]:
        """The items with the best expected effect on all that is to come, each slot exploring with probability epsilon."""
        before = state if isinstance(state, Trail) else None
        memory = self.recall(rows, before.memory if before else state, starts)
        decayed = self.habits.decayed(rows, before.signs if before else None, starts)
        rested = self.rested(memory, allowed)
        slates = best(self._scores(rows), rested, self.setting.slots)
        if not deterministic:
            slates, self.propensity = mixed(slates, rested, self.epsilon, rng)
        return slates, Trail(memory.noting(slates), decayed, self.habits.of(rows, decayed))

    def relevance(self, rows: Floats, state: Any, starts: Flags, allowed: Flags) -> NDArray[np.floating] | None:
        """Expected effect of showing each item, [B, I]."""
        return self._scores(rows)

    def _scores(self, rows: Floats) -> NDArray[np.floating]:
        effects = self.pairs.scores(rows, self.weights[self.habits.count : self.dense].astype(np.float32))
        effects = effects + (self.weights[self.dense :] - self.level())
        return self.clicks.scores(rows) * effects + self.ties

    def level(self) -> float:
        """Mean effect of a step, which an item has to surpass where a user takes at most one; 0 where she takes more."""
        return 0.0 if self.taken[2] else self._mean()

    def _mean(self) -> float:
        return float(self.taken[0] / max(self.taken[1], 1.0))

    def update(self, transition: Transition) -> None:
        """One step of the equation for the step before, and at the end of an episode for this one."""
        shown, seen = seen_slots(transition)
        clicked = (np.asarray(transition.info["click"]) > 0.0) & seen
        self.clicks.add(transition.observation, shown, clicked, seen)
        states = self._states(transition)
        items = np.where(clicked, shown, -1)
        dense = self._features(transition.observation, states, items)
        if len(dense) != len(self._waits):  # transitions of other lanes than its own, which nothing waits for
            self._clear(len(dense), items.shape[1])
        begins = self.setting.context("start", transition.observation) > 0.0
        self.gains.add(dense, items, transition.valid)
        goes_on = self._waits & transition.valid & ~begins
        self._learn(self._dense, self._items, self._reward, goes_on, self._values(dense, items))
        self._restart(~goes_on)
        done = transition.valid & (transition.terminated | transition.truncated)
        if done.any():
            decayed = self.habits.decayed(transition.next_observation, self._signs(transition), ~transition.valid)
            after = self.habits.of(transition.next_observation, decayed) @ self.weights[: self.habits.count]
            after = np.where(transition.terminated, 0.0, after + self._mean())
            self._learn(dense, items, transition.reward, done, after)
            self._restart(done)
        self._dense, self._items, self._reward = dense, items, transition.reward.copy()
        self._waits = transition.valid & ~done
        effects = self._values(dense, items)[transition.valid] - (
            dense[transition.valid, : self.habits.count] @ self.weights[: self.habits.count]
        )
        kept = np.exp(-len(effects) / self.config.window)
        self.taken[:2] = kept * self.taken[:2] + (effects.sum(), len(effects))
        self.taken[2] = max(self.taken[2], float((items >= 0).sum(1).max() > 1))

    def _signs(self, transition: Transition) -> Floats | None:
        return transition.state.signs if isinstance(transition.state, Trail) else None

    def _states(self, transition: Transition) -> Floats:
        """Features of the states that were acted in, [B, N]."""
        if isinstance(transition.state, Trail):
            return transition.state.features
        rows = transition.observation
        return self.habits.of(rows, self.habits.decayed(rows, None, np.zeros(len(rows), np.bool_)))

    def _features(self, rows: Floats, states: Floats, items: Slates) -> Values:
        """The dense part of phi, [B, d]: the state's, and the sum over taken items [B, K], -1 for none."""
        psi = self.pairs.of(rows, np.maximum(items, 0)) * (items >= 0)[:, :, None]
        return np.concatenate([states, psi.sum(1)], 1).astype(np.float64)

    def _values(self, dense: Values, items: Slates) -> Values:
        """Q of features and taken items, [B]."""
        own = np.where(items >= 0, self.weights[self.dense + np.maximum(items, 0)], 0.0).sum(1)
        values: Values = dense @ self.weights[: self.dense] + own
        return values

    def _learn(self, dense: Values, items: Slates, rewards: Values, counted: Flags, after: Values) -> None:
        if not counted.any():
            return
        lanes = np.flatnonzero(counted)
        phi = np.zeros((len(lanes), len(self.weights)))
        phi[:, : self.dense] = dense[lanes]
        row, slot = np.nonzero(items[lanes] >= 0)
        np.add.at(phi, (row, self.dense + items[lanes][row, slot]), 1.0)
        gain = self.gains.of(phi, len(self._waits) / (1.0 - min(float(self.decay.max()), 0.99)))
        targets = rewards[lanes] + self.config.gamma * after[lanes]
        self.weights += self.traces.step(
            lanes, phi, gain, phi @ self.weights, targets, after[lanes], self.decay
        )

    def _restart(self, lanes: Flags) -> None:
        self.traces.trace[lanes] = 0.0
        self.traces.before[lanes] = 0.0

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Weights, gains, the click model, traces, and the steps that wait for what is taken next."""
        return {
            "weights": self.weights, "ties": self.ties, "taken": self.taken, **self.gains.arrays(),
            **self.clicks.arrays(), "trace": self.traces.trace, "before": self.traces.before,
            "waiting_dense": self._dense, "waiting_items": self._items, "waiting_reward": self._reward,
            "waits": self._waits,
        }  # fmt: skip

    def restore(self, arrays: dict[str, NDArray[Any]], extra: dict[str, Any], source: object) -> None:
        """Takes over what was saved; traces and waiting steps of another number of lanes are dropped."""
        own, given = self.arrays(), dict(arrays)
        if "waits" in given and given["waits"].shape != own["waits"].shape:
            given |= {name: own[name] for name in RESTARTED}
        super().restore(given, extra, source)
