"""Scalarisation of several objectives, around any agent."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm import agents
from recsim_llm.agents.common.sampling import epsilon_greedy
from recsim_llm.agents.common.top_k import top_k
from recsim_llm.agents.core.base import Agent
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import EnvironmentSpec, Flags, Floats, Slates, Transition
from recsim_llm.agents.wrappers.base import Wrapper, WrapperConfig
from recsim_llm.errors import ConfigError, unknown
from recsim_llm.simulator import SIGNALS

METHODS = ("linear", "chebyshev")
Values = NDArray[np.float64]


@dataclass(frozen=True)
class ScalarisedConfig(WrapperConfig):
    """Settings of :class:`ScalarisedAgent`.

    Attributes:
        weights: Weight of each signal of feedback that is an objective; signals are scaled to [0, 1].
        method: "linear" or "chebyshev".
        separate: Keep one inner agent for each objective and weigh their scores, not what one agent is rewarded with.
        epsilon: Probability that a slot explores where there are separate agents.
    """

    weights: Mapping[str, Any] = field(default_factory=lambda: {"click": 1.0, "dwell": 1.0, "like": 1.0}, hash=False)
    method: str = "linear"
    separate: bool = False
    epsilon: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(0.0, 1.0, "epsilon")
        if self.method not in METHODS:
            raise unknown("method", self.method, METHODS)
        for name, weight in self.weights.items():
            if name not in SIGNALS:
                raise unknown("signal", name, SIGNALS)
            number = isinstance(weight, int | float) and not isinstance(weight, bool) and np.isfinite(weight)
            if not number or (self.method == "chebyshev" and weight < 0):
                raise ConfigError(f"the weight of {name} must be a finite number, with chebyshev >= 0, got {weight!r}")
        if not any(self.weights.values()):
            raise ConfigError(f"weights must name a signal with a weight that is not 0, got {self.weights}")


class ScalarisedAgent(Wrapper):
    """Makes the inner agent pursue a weighted combination of the signals of feedback.

    Equation: with f_o in [0, 1] the signal o of a slot, w_o its weight and z_o = 1 the best that it can be, the inner
    agent learns from the reward

        linear     r = sum over o of w_o f_o
        chebyshev  r = max over o of w_o z_o - max over o of w_o |z_o - f_o|    (0 where nothing happened)

    of each slot, and their sum over the slate. With ``separate`` there is an inner agent for each objective, rewarded
    with f_o alone, and items are ranked by the same expression in s_o(i) in place of f_o: the score that agent o gives
    to item i, scaled to [0, 1] over the shelf, so that z_o is its best item.

    Paper: Roijers, Vamplew, Whiteson and Dazeley (2013), "A survey of multi-objective sequential decision-making",
    for both ways (the utility of a reward, and of values); Van Moffaert, Drugan and Nowe (2013), "Scalarized
    multi-objective reinforcement learning", for Chebyshev's norm, which reaches Pareto-optimal policies in
    concave parts of the front where no linear weights do.

    Origin of the defaults: clicks, time and likes count the same. Deviations: z is the end of each signal's scale, not
    the highest value met so far, so that rewards of early and late steps mean the same.

    A vector reward (ids with "mo-") is put aside: the weights speak of the signals.
    """

    name: ClassVar[str] = "scalarised"
    Config: ClassVar[type[Config]] = ScalarisedConfig
    config: ScalarisedConfig

    @classmethod
    def refusal(cls, env_spec: EnvironmentSpec, config: Any) -> str | None:
        """Feedback of another form, and agents without scores where scores are to be weighed."""
        part = env_spec.layout.get("feedback", slice(0, 0))
        if part.stop - part.start != env_spec.slate_size * len(SIGNALS):
            return "scalarised weighs the signals of feedback, which this environment does not have; try linucb"
        kind = agents.get(config.agent)
        if config.separate and kind.relevance is Agent.relevance:
            return f"{config.agent} gives no scores to weigh; use separate=False or the agent linucb"
        return super().refusal(env_spec, config)

    def setup(self, rng: np.random.Generator) -> None:
        """The inner agents, one or one for each objective."""
        self.objectives = [name for name, weight in self.config.weights.items() if weight]
        self.columns = [SIGNALS.index(name) for name in self.objectives]
        self.weights: Values = np.array([self.config.weights[name] for name in self.objectives], np.float64)
        super().setup(rng)
        if self.config.separate:
            others = self.objectives[1:]
            self.parts: dict[str, Agent] = {self.objectives[0]: self.inner} | {name: self._made(rng) for name in others}
            kind = NoneType if self.inner.State is None else self.inner.State | None
            state = dataclasses.make_dataclass("Several", [(name, kind) for name in self.parts], frozen=True)
            vars(self).update(State=state)

    def members(self) -> dict[str, Agent]:
        """The inner agents by objective, or the one."""
        return self.parts if self.config.separate else super().members()

    def inner_state(self, state: Any) -> Any:
        """The state of the first inner agent."""
        return getattr(state, self.objectives[0], state) if self.config.separate else state

    def note_shown(self, state: Any, slates: Slates) -> Any:
        """Every inner agent notes what is shown."""
        if not self.config.separate:
            return super().note_shown(state, slates)
        noted = {name: one.note_shown(getattr(state, name), slates) for name, one in self.parts.items()}
        return dataclasses.replace(state, **noted)

    def act(
        self,
        obs: Floats,
        state: Any,
        episode_start: Flags,
        deterministic: bool,
        action_mask: Flags,
        rng: np.random.Generator,
    ) -> tuple[Slates, Any]:
        """What the one inner agent chooses, or the best of the weighed scores."""
        if not self.config.separate:
            return super().act(obs, state, episode_start, deterministic, action_mask, rng)
        slate_size, scores, after = self.env_spec.slate_size, [], {}
        for name, one in self.parts.items():
            before = getattr(state, name, None)
            given = self._informed(one).relevance(obs, before, episode_start, action_mask)
            _, after[name] = self._informed(one).act(obs, before, episode_start, True, action_mask, rng)
            scores.append(np.zeros(action_mask.shape) if given is None else np.asarray(given, np.float64))
        usable = self.usable(after[self.objectives[0]], action_mask)
        value = self.utility(np.stack([scaled(one, usable) for one in scores], -1))
        slates = top_k(value, usable, slate_size)
        if not deterministic:
            slates, self.propensity = epsilon_greedy(slates, usable, self.config.epsilon, rng)
        return slates, self.note_shown(self.State(**after), slates)  # type: ignore[misc]

    def utility(self, values: Values) -> Values:
        """The scalarisation of values [..., O] in [0, 1], [...]."""
        if self.config.method == "linear":
            return values @ self.weights
        worst: Values = self.weights.max() - (self.weights * np.abs(1.0 - values)).max(-1)
        return worst

    def interact(self) -> Transition:
        """One step of every lane; a vector reward becomes the number that is learnt from."""
        transition = super().interact()
        if transition.reward.shape == transition.valid.shape:
            return transition
        reward = self.utility(self._signals(transition)).sum(1)
        return dataclasses.replace(transition, reward=np.where(transition.valid, reward, 0.0))

    def update(self, transition: Transition) -> None:
        """The inner agents learn from rewards of their own."""
        signals = self._signals(transition)
        if not self.config.separate:
            super().update(_rewarded(transition, self.utility(signals)))
            return
        for column, (name, one) in enumerate(self.parts.items()):
            own = _rewarded(transition, signals[:, :, column])
            self._informed(one).update(
                dataclasses.replace(own, state=getattr(transition.state, name, transition.state))
            )

    def _signals(self, transition: Transition) -> Values:
        """The objectives' signals, scaled, [B, K, O]."""
        return self.env_spec.feedback(transition.next_observation)[:, :, self.columns].astype(np.float64)

    def relevance(
        self, obs: Floats, state: Any, episode_start: Flags, action_mask: Flags
    ) -> NDArray[np.floating] | None:
        """That of the one inner agent."""
        return None if self.config.separate else self.scores(obs, state, episode_start, action_mask)


def scaled(scores: Values, usable: Flags) -> Values:
    """Scores [B, I] with the range of the usable ones made [0, 1]."""
    low = np.where(usable, scores, np.inf).min(1, keepdims=True)
    high = np.where(usable, scores, -np.inf).max(1, keepdims=True)
    span = np.where(high > low, high - low, 1.0)
    return np.where(usable, (scores - low) / span, 0.0)


def _rewarded(transition: Transition, slot_reward: Values) -> Transition:
    """A transition with other rewards of slots, [B, K]."""
    info = {**transition.info, "slot_reward": slot_reward.astype(np.float32)}
    return dataclasses.replace(transition, reward=slot_reward.sum(1), info=info, slot_weight=1.0)
