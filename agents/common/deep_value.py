"""What agents with networks that learn from rewards share: states, the learner, experience, saving."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.cooldown import CooldownConfig, RecentItems
from recsim_llm.agents.common.experience_buffer import Experience
from recsim_llm.agents.common.feedback_features import COLUMNS, ItemFeedback, UserState, UserStateFeatures
from recsim_llm.agents.common.item_stats import credited, seen_slots
from recsim_llm.agents.common.sampling import epsilon_greedy
from recsim_llm.agents.core import agent_file as saving
from recsim_llm.agents.core.base import Agent
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Flags, Floats, Slates, Transition
from recsim_llm.errors import ConfigError, DataError, require, unknown
from recsim_llm.threads import one_thread

Arrays = dict[str, NDArray[Any]]
DEVICES = ("cpu", "cuda", "auto")
KEPT = "experience/"


@dataclass(frozen=True)
class TorchConfig(CooldownConfig):
    """Settings of agents with networks that learn from rewards.

    Attributes:
        gamma: Discount of the future, per step.
        learning_rate: Step size of AdamW.
        rate_items: The same for items' own numbers, which few examples speak of.
        decay_weights: Weight decay.
        shrink: The same for items' own numbers: how strongly they are drawn to what the text says.
        hidden: Width of the hidden layer.
        strength_signs: Times an item must have been taken for half of what users did with it to be believed.
        batch: Steps of users in a minibatch.
        buffer: Steps of users kept for learning.
        warmup: Steps of users before learning begins.
        updates: Steps of the optimiser for each step of all lanes.
        device: Where the networks are: "cpu", "cuda", or "auto" for CUDA where there is a device; results are
            repeatable bit by bit on "cpu".
    """

    gamma: float = 0.99
    learning_rate: float = 2e-3
    rate_items: float = 3e-3
    decay_weights: float = 0.01
    shrink: float = 0.1
    hidden: int = 64
    strength_signs: float = 4.0
    batch: int = 128
    buffer: int = 30_000
    warmup: int = 640
    updates: int = 2
    device: str = "cpu"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(0.0, 1.0, "gamma")
        self._within(1e-9, 1.0, "learning_rate", "rate_items")
        self._within(0.0, 100.0, "decay_weights", "shrink")
        self._within(1, 4_096, "hidden")
        self._within(1, 10_000_000, "batch", "buffer", "warmup")
        self._within(0, 1_000, "updates")
        self._within(1e-6, 1e12, "strength_signs")
        if self.device not in DEVICES:
            raise unknown("device", self.device, DEVICES)


@dataclass(frozen=True)
class ValueConfig(TorchConfig):
    """Settings of agents that learn values and explore beside them.

    Attributes:
        epsilon: Probability that a slot explores, in the long run.
        epsilon_start: The same at the first step.
        decay: Steps of users in which what lies between the two falls by the factor e [steps].
        steps: Steps of reward before the value of the state reached.
        follow: Share by which the network of the targets follows after each step of the optimiser.
    """

    learning_rate: float = 7e-4
    rate_items: float = 5e-4
    epsilon: float = 0.02
    epsilon_start: float = 0.5
    decay: float = 3_000.0
    steps: int = 5
    follow: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(0.0, 1.0, "epsilon", "epsilon_start")
        self._within(1e-6, 1e12, "decay")
        self._within(1, 1_000, "steps")
        self._within(1e-6, 1.0, "follow")


class TorchAgent(Agent):
    """Base of agents in PyTorch alone.

    A state is [features of context and feedback, profile, interest]; items are scored by their encodings and a number
    of their own. Subclasses say how many heads the network has, how slates come from it, and what the loss of a
    minibatch is. Rewards are brought to a scale near 1 by the root of their mean square times 1 / (1 - gamma) ** 0.5,
    measured during the warm-up.

    Weights are drawn from a generator of their own, minibatches from the agent's stream; PyTorch's global generator
    is not touched.
    """

    Config: ClassVar[type[Config]] = TorchConfig
    State: ClassVar[type | None] = UserState
    needs_torch: ClassVar[bool] = True
    heads: ClassVar[int] = 1
    lags: ClassVar[bool] = True
    config: TorchConfig

    def setup(self, rng: np.random.Generator) -> None:
        """Builds the network and an empty buffer."""
        self.torch = require("torch", "agents")
        from recsim_llm.agents.common.value_net import Learner, UserItemNet

        config, env_spec = self.config, self.env_spec
        self.user_features = UserStateFeatures(env_spec)
        seed = int(rng.integers(2**62))
        embedding = env_spec.catalog.embedding
        nets = [
            UserItemNet(
                embedding,
                self.user_features.count,
                config.hidden,
                self.heads,
                COLUMNS,
                self.torch.Generator().manual_seed(seed),
            )
            for _ in range(1 + self.lags)
        ]
        self.learner: Any = Learner(
            nets[0], nets[1] if self.lags else None, config.learning_rate, config.rate_items, config.decay_weights,
            config.shrink, config.device,
        )  # fmt: skip
        self.item_feedback = ItemFeedback(env_spec.items, config.strength_signs)
        self.ties = rng.random(env_spec.items) * 1e-9
        self.scale = np.ones(1)  # unit of values, in rewards
        self.trained = np.zeros(1, np.int64)
        self.experience = self._empty()

    def _empty(self) -> Experience:
        lanes = self.runner.count
        return Experience(max(self.config.buffer // lanes, 2), lanes, self.fields())

    def fields(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        """What the buffer keeps of each step beside reward and flags."""
        width = self.user_features.count + 2 * self.env_spec.catalog.width
        slate_size = self.env_spec.slate_size
        return {
            "state": ((width,), np.float32), "after": ((width,), np.float32), "shown": ((slate_size,), np.int64),
            "slot_reward": ((slate_size,), np.float32), "clicked": ((slate_size,), np.bool_),
            "seen": ((slate_size,), np.bool_),
            "chance": ((slate_size,), np.float32), "action_mask": ((-(-self.env_spec.items // 8),), np.uint8),
        }  # fmt: skip

    def states(self, obs: Floats, features: Floats) -> Floats:
        """What the network reads, [B, N + 2 D]."""
        people = self.env_spec.part("profile", obs), self.env_spec.part("interest", obs)
        states: Floats = np.concatenate([features, *people], 1)
        return states

    @abc.abstractmethod
    def loss(self, ages: NDArray[np.int64], lanes: NDArray[np.int64]) -> Any:
        """Loss of a minibatch of steps in the buffer."""

    def looked(
        self, obs: Floats, state: Any, episode_start: Flags, action_mask: Flags
    ) -> tuple[UserState, Floats, Flags]:
        """What is known of B users, what the network reads, and items that need no rest."""
        before = state if isinstance(state, UserState) else None
        memory = self.cooldown.recall(obs, before.memory if before else state, episode_start)
        decayed = self.user_features.decayed(obs, before.feedback if before else None, episode_start)
        features = self.user_features.of(obs, decayed)
        return (
            UserState(memory, decayed, features),
            self.states(obs, features),
            self.cooldown.eligible(memory, action_mask),
        )

    def update(self, transition: Transition) -> None:
        """Keeps the step, and learns from some of those kept."""
        self._keep(transition)
        self._know()
        config, steps = self.config, len(self.experience) * self.experience.lanes
        if steps < config.warmup:
            return
        if not self.trained[0]:
            reward = self.experience.get("reward", *self._all())
            mean = float(np.sqrt(np.square(reward, dtype=np.float64).mean()))
            self.scale[...] = max(mean, 1e-6) / np.sqrt(max(1.0 - config.gamma, 1e-3))
        with one_thread():
            for _ in range(config.updates):
                ages, lanes = self.experience.sample(config.batch, self.rng)
                if not len(ages):
                    return
                self.logger["train/loss"] = self.learner.step(self.loss(ages, lanes))
                self.after_step()
                self.trained += 1
        self.logger["train/n_updates"] = int(self.trained[0])

    def _know(self) -> None:
        table = self.learner.tensor(self.item_feedback.table)
        for net in (self.learner.net, self.learner.target):
            if net is not None:
                net.know(table)

    def after_step(self) -> None:
        """Called after each step of the optimiser."""

    def _keep(self, transition: Transition) -> None:
        obs, after = transition.observation, transition.next_observation
        never = np.zeros(len(obs), np.bool_)
        if len(obs) != self.experience.lanes:
            raise ConfigError(
                f"agent {self.name} learns from its {self.experience.lanes} lanes at once, got {len(obs)} transitions"
            )
        user_state = transition.state
        if not isinstance(user_state, UserState):
            feedback = self.user_features.decayed(obs, None, never)
            memory = RecentItems.empty(len(obs), self.env_spec).noting(transition.action)
            user_state = UserState(memory, feedback, self.user_features.of(obs, feedback))
        shown, seen = seen_slots(transition)
        clicked = (np.asarray(transition.info["click"]) > 0.0) & seen
        self.item_feedback.add(transition, np.where(clicked, shown, -1))
        shelf = self.runner.available() if self.runner.started else np.ones((len(obs), self.env_spec.items), np.bool_)
        action_mask = self.cooldown.eligible(user_state.memory.renewed(after, never, self.env_spec), shelf)
        feedback = self.user_features.decayed(after, user_state.feedback, never)
        reached = self.states(after, self.user_features.of(after, feedback))
        self.experience.add(
            state=self.states(obs, user_state.features), after=reached,
            shown=np.maximum(shown, 0), slot_reward=credited(transition),
            clicked=clicked, seen=seen, chance=transition.propensity,
            action_mask=np.packbits(action_mask, axis=1), reward=transition.reward, valid=transition.valid,
            terminated=transition.terminated, truncated=transition.truncated, **self.kept(user_state),
        )  # fmt: skip

    def kept(self, user_state: UserState) -> dict[str, NDArray[Any]]:
        """What the buffer keeps beside, from the state that was acted in."""
        return {}

    def _all(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Every step in the buffer that counts."""
        ages, lanes = np.divmod(np.arange(len(self.experience) * self.experience.lanes), self.experience.lanes)
        counted = self.experience.get("valid", ages, lanes)
        return ages[counted], lanes[counted]

    def usable(self, ages: NDArray[np.int64], lanes: NDArray[np.int64]) -> Flags:
        """Items that could be shown after steps in the buffer, [N, I]."""
        packed = self.experience.get("action_mask", ages, lanes)
        return np.unpackbits(packed, axis=1, count=self.env_spec.items).astype(np.bool_)

    def arrays(self) -> Arrays:
        """Weights, moments, the buffer and what else learning goes on from."""
        return {**self._own(), **self.experience.arrays()}

    def _own(self) -> Arrays:
        rest = {"ties": self.ties, "scale": self.scale, "trained": self.trained}
        return {**self.learner.arrays(), **self.item_feedback.arrays(), **rest}

    def restore(self, arrays: Arrays, extra: dict[str, Any], source: object) -> None:
        """Takes over what was saved, names and shapes checked; the buffer only where there are as many lanes."""
        if extra:
            raise DataError(f"{source}: unexpected values {sorted(extra)}")
        own = self._own()
        saving.fill(own, {name: array for name, array in arrays.items() if not name.startswith(KEPT)}, source)
        self.learner.take(own)
        self._know()
        self.experience.restore(arrays, source)


class ValueAgent(TorchAgent):
    """Base of those that learn values, with a second network that follows the first, and explore beside them."""

    Config: ClassVar[type[Config]] = ValueConfig
    config: ValueConfig

    @property
    def epsilon(self) -> float:
        """Probability that a slot explores now."""
        config = self.config
        left = float(np.exp(-self.num_timesteps / config.decay))
        return config.epsilon + (config.epsilon_start - config.epsilon) * left

    @abc.abstractmethod
    def ranked(self, states: Floats, action_mask: Flags) -> Slates:
        """The best slates [B, K] in states, as far as is known."""

    def act(
        self,
        obs: Floats,
        state: Any,
        episode_start: Flags,
        deterministic: bool,
        action_mask: Flags,
        rng: np.random.Generator,
    ) -> tuple[Slates, Any]:
        """The best slates, each slot exploring with probability epsilon."""
        user_state, states, rested = self.looked(obs, state, episode_start, action_mask)
        slates = self.ranked(states, rested)
        if not deterministic:
            slates, self.propensity = epsilon_greedy(slates, rested, self.epsilon, rng)
        return slates, user_state.noting(slates)

    def after_step(self) -> None:
        """The network of the targets follows."""
        self.learner.follow(self.config.follow)
