"""Look-ahead oracle: planning by rollouts on the true rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.slate_optimisation import LARGEST_UTILITY
from recsim_llm.agents.common.top_k import top_k
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import EnvironmentSpec, Flags, Floats, Slates
from recsim_llm.agents.reference.oracle import OracleAgent
from recsim_llm.errors import ConfigError
from recsim_llm.serving import Served, leave

Floats64 = NDArray[np.float64]
DAY = 86_400  # [s]
OTHER_LUCK = 0x9E3779B97F4A7C15
"""Added to the streams of draws: what the plan sees is not what will happen, only how likely it is."""


@dataclass(frozen=True)
class LookaheadConfig(Config):
    """Settings of :class:`LookaheadAgent`.

    Attributes:
        weights: The weights on satisfaction of the policies that are tried, numbers with commas between them
            [rewards of an average click per logit].
        depth: Steps that are played out [steps].
        replan: Steps for which a choice is kept [steps].
        rollouts: Times that each is played out, every time with other luck.
        shortlist: Items of highest expected reward at the moment of planning, by each of the policies, to which what is
            played out is restricted.
        tail: Whether what comes after is estimated from how users leave and what a step brings.
    """

    weights: str = "0,0.3,3"
    depth: int = 20
    replan: int = 20
    rollouts: int = 2
    shortlist: int = 150
    tail: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(1, 100_000, "depth", "replan", "rollouts", "shortlist")
        try:
            numbers = self.numbers
        except ValueError:
            numbers = ()
        if not numbers or not all(0.0 <= number < 1e6 for number in numbers):
            raise ConfigError(f'setting weights must be numbers with commas between them, got "{self.weights}"')

    @property
    def numbers(self) -> tuple[float, ...]:
        """The weights."""
        return tuple(float(number) for number in self.weights.split(","))


@dataclass(frozen=True)
class Plan:
    """What each lane has decided on.

    Attributes:
        policy: [B] the policy that it follows.
        usual: [B] the policy that promised most on average, for users who come before the next plan.
        left: [B] steps until then, the same for all.
    """

    policy: NDArray[np.int64]
    usual: NDArray[np.int64]
    left: NDArray[np.int64]


class LookaheadAgent(OracleAgent):
    """Plans by rollouts: plays several policies on from where each user stands, and follows the best for a while.

    Rollouts follow the true rules.

    The policies show the slate of the highest expected reward plus w times satisfaction, one for each weight w, which
    is found as by :class:`OracleAgent` (w = 0). From a snapshot of all lanes each is played
    for ``depth`` steps, all with the same luck (common random numbers), which is not the luck that the users will
    have. With ``tail``, lanes that are still there after that are worth what a step brings times the steps that are
    left, as long as users stay on average and until the horizon at most.

    Equation: policy(s) = argmax_w mean over rollouts of sum_{t < depth} r_t + 1[still there] V_w

    A few rollouts are noisy, and the best of noisy estimates is too good to be true. So a lane's gain of a policy over
    the first is drawn towards the mean over all lanes, as far as rollouts of the same lane differ (the estimator of
    James and Stein).

    Paper: Chang, Givan and Chong (2004), "Parallel rollout for online solution of partially observable Markov decision
    processes": the policy that switches between base policies by rollouts is at least as good as each of them, up to
    the error of the estimate; Ng and Jordan (2000), "PEGASUS", for the common random numbers.

    What it gains over the myopic oracle is a lower bound of what looking ahead can gain. Deviations: plans are made for
    all lanes at once and kept for ``replan`` steps; users who come in between get the policy that was best on average.
    It reads the state of the environment that it serves.
    """

    name: ClassVar[str] = "lookahead"
    Config: ClassVar[type[Config]] = LookaheadConfig
    State: ClassVar[type | None] = Plan
    elementwise: ClassVar[bool] = False
    config: LookaheadConfig

    @classmethod
    def refusal(cls, env_spec: EnvironmentSpec, config: Any) -> str | None:
        """Lists of candidates out of a catalogue are drawn outside of the rules that it plays out."""
        if env_spec.candidates and not env_spec.kinds:
            return (
                "lookahead plans over the whole catalogue; make the environment without num_candidates, or use oracle"
            )
        return None

    def setup(self, rng: np.random.Generator) -> None:
        """No simulator to plan in yet."""
        super().setup(rng)
        self._planner: tuple[Any, Any, dict[str, tuple[int, ...]]] | None = None

    def act(
        self,
        obs: Floats,
        state: Any,
        episode_start: Flags,
        deterministic: bool,
        action_mask: Flags,
        rng: np.random.Generator,
    ) -> tuple[Slates, Any]:
        """The slate of the policy that each lane follows, chosen anew where it is time."""
        count = len(obs)
        if self.where is None or self.where.count != count:
            raise ConfigError(
                f"lookahead reads the state of the environment, and none in this process has these {count} rows "
                "of observations now; name the one it serves: agent.serve(env)"
            )
        if not isinstance(state, Plan):
            state = Plan(*(np.zeros(count, np.int64) for _ in range(3)))
        if episode_start.all() or (state.left <= 0).any():
            state = self._planned(self.where)
        policy = np.where(episode_start, state.usual, state.policy) if not episode_start.all() else state.policy
        weights = np.asarray(self.config.numbers)[policy]
        listed, usable = None, action_mask
        if self.env_spec.kinds:  # what is to be chosen from are the documents that are there now
            listed = self.env_spec.listed(obs)
            usable = (listed >= 0) & np.take_along_axis(action_mask, np.maximum(listed, 0), 1)
        slates = np.empty((count, self.env_spec.slate_size), np.int64)
        for part in self.where.parts:
            core = part.env.core
            wanted, there = np.zeros(core.lanes), np.ones((core.lanes, usable.shape[1]), np.bool_)
            wanted[part.lanes], there[part.lanes] = weights[part.rows], usable[part.rows]
            slates[part.rows] = self._slates(core, wanted, there)[part.lanes]
        if listed is not None:
            slates = np.take_along_axis(listed, slates, 1)
        return slates, Plan(policy, state.usual, state.left - 1)

    def _planned(self, served: Served) -> Plan:
        """Which of the policies promises most to each user."""
        plan = Plan(*(np.zeros(served.count, np.int64) for _ in range(3)))
        for part in served.parts:
            found = self._planned_in(part.env)
            for own, all_lanes in zip(vars(plan).values(), vars(found).values(), strict=True):
                own[part.rows] = all_lanes[part.lanes]
        return plan

    def _planned_in(self, env: Any) -> Plan:
        """Which of the policies promises most to each lane of an environment."""
        core = env.core
        weights, lanes = np.asarray(self.config.numbers), core.lanes
        snapshot = core.simulator.get_state()
        returns = np.stack(
            [
                self._played_out(env, snapshot, np.repeat(weights, lanes), luck).reshape(len(weights), lanes)
                for luck in range(self.config.rollouts)
            ]
        )
        gains = shrunk(returns - returns[:, :1])
        usual = np.full(lanes, int(gains.mean(1).argmax()))
        return Plan(gains.argmax(0), usual, np.full(lanes, self.config.replan))  # the first of those that are equal

    def _played_out(self, env: Any, snapshot: Mapping[str, NDArray[Any]], weights: Floats64, luck: int) -> Floats64:
        """Return of each lane of the planner [W B] over ``depth`` steps, with what is left after them."""
        planner, shapes = self._copies(env, len(weights))
        planner.simulator.set_state({name: _tiled(part, shapes[name]) for name, part in snapshot.items()})
        lane = planner.simulator.state.lane
        lane["stream"] += np.uint64(OTHER_LUCK * (luck + 1) % 2**64)
        alive, begun = ~lane["ended"], lane["step"].copy()
        rewards, steps = np.zeros(len(weights)), np.zeros(len(weights))
        listed = None if self.env_spec.kinds else self._listed(planner, weights)  # other documents at each step
        for _ in range(self.config.depth):
            outcome = planner.simulator.step(self._slates(planner, weights, listed=listed))
            reward = planner.true_rewards() if planner.variant.reports else outcome.reward
            rewards += np.where(alive, reward, 0.0)
            steps += alive
            alive &= ~outcome.terminated & (self._steps_left(env, planner) > 0)
            lane["ended"] = ~alive
            if not alive.any():
                break
        if self.config.tail:
            rewards += alive * self._tail(env, planner, weights, rewards, lane["step"] - begun, alive)
        return rewards

    def _tail(self, env: Any, planner: Any, weights: Floats64, rewards: Floats64, steps: Any, alive: Flags) -> Floats64:
        """What a lane that is still there is worth, by its policy's mean reward and rate of leaving, [W B]."""
        _, policy = np.unique(weights, return_inverse=True)
        pooled = [np.bincount(policy, weights=values) for values in (rewards, steps, ~alive)]
        left = self._steps_left(env, planner)
        stay = (pooled[1] / np.maximum(pooled[2], 0.5))[policy]  # steps until users leave, on average
        return (pooled[0] / np.maximum(pooled[1], 1.0))[policy] * np.minimum(stay, left)

    def _steps_left(self, env: Any, planner: Any) -> Floats64:
        """Steps to the horizon; where that is a day of the month, at the pace so far."""
        lane, left = planner.simulator.state.lane, np.full(planner.lanes, np.inf)
        horizon = planner.options.horizon or (env.spec.max_episode_steps if env.spec else None)
        if horizon:
            left = horizon - lane["step"].astype(np.float64)
        if planner.variant.retention > 0:
            spent = np.maximum(lane["clock"] - lane["began"], 1).astype(np.float64)
            pace = np.maximum(lane["step"], 1) / spent
            left = np.minimum(left, (planner.variant.retention * DAY - spent) * pace)
        return left

    def _slates(
        self, core: Any, weights: Floats64, action_mask: Flags | None = None, listed: Slates | None = None
    ) -> Slates:
        """The best slates [B, K] for a weight on satisfaction for each lane [B].

        ``action_mask`` [B, I] leaves items out; ``listed`` [B, N] names those to choose from.
        """
        appeal, value = self._worth(core, weights, listed)
        usable = np.isfinite(appeal) if action_mask is None else np.isfinite(appeal) & action_mask
        slates = self.slates(appeal, value, usable)
        return slates if listed is None else np.take_along_axis(listed, slates, 1)

    def _worth(self, core: Any, weights: Floats64, listed: Slates | None) -> tuple[Floats64, Floats64]:
        """Attraction, and expected reward of a click with the weighted satisfaction, [B, I] or [B, N]."""
        appeal, value = (part.astype(np.float64) for part in core.simulator.truth(None, listed))
        if weights.any():
            unit = float(np.abs(value[np.isfinite(appeal)]).mean())
            value += (weights * unit)[:, None] * core.simulator.truth({"satisfaction": 1.0}, listed)[1]
        return appeal, value

    def _listed(self, core: Any, weights: Floats64) -> Slates:
        """The items [B, N] that promise most to each lane now."""
        appeal, value = self._worth(core, weights, None)
        promise = np.exp(np.clip(appeal - self.no_click, -LARGEST_UTILITY, 0.0)) * value
        return top_k(promise, np.isfinite(appeal), min(self.config.shortlist, value.shape[1]))

    def _copies(self, served: Any, lanes: int) -> tuple[Any, dict[str, tuple[int, ...]]]:
        """A copy of an environment served, with lanes to plan in, and the shapes of its state."""
        spec = served.spec
        made_for = (None if spec is None else (spec.id, spec.kwargs), lanes)
        if self._planner is None or self._planner[0] != made_for:
            if spec is None:
                raise ConfigError(
                    "lookahead makes a copy of the environment, which must come from gym.make or make_vec"
                )
            kwargs = {name: value for name, value in spec.kwargs.items() if name not in ("num_envs", "autoreset_mode")}
            kwargs |= {"truth": False, "render_mode": None}
            env = gym.make_vec(spec.id, num_envs=lanes, **kwargs)
            env.reset(seed=0)
            leave(env.unwrapped)  # nobody is served in it
            core: Any = env.unwrapped.core  # type: ignore[attr-defined]
            shapes = {name: part.shape for name, part in core.simulator.get_state().items()}
            self._planner = made_for, core, shapes
        return self._planner[1:]


def shrunk(gains: Floats64) -> Floats64:
    """Mean gains [W, B] of rollouts [R, W, B], drawn towards the mean over lanes as far as they are noise."""
    rollouts, _, lanes = gains.shape
    mean: Floats64 = gains.mean(0)
    if rollouts < 2 or lanes < 2:
        return mean
    noise = gains.var(0, ddof=1).mean(1, keepdims=True) / rollouts
    spread = mean.var(1, ddof=1, keepdims=True)
    kept = np.clip(1.0 - noise / np.maximum(spread, 1e-300), 0.0, 1.0)
    centre = mean.mean(1, keepdims=True)
    drawn: Floats64 = centre + kept * (mean - centre)
    return drawn


def _tiled(part: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """What B lanes have, once for every policy; what all lanes share is left as it is."""
    return np.tile(part, [wanted // max(own, 1) for wanted, own in zip(shape, part.shape, strict=True)])
