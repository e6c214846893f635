"""DQN of Stable-Baselines3: values of items from their encodings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.cooldown import RecentItems
from recsim_llm.agents.common.sampling import epsilon_greedy
from recsim_llm.agents.common.top_k import top_k
from recsim_llm.agents.core.env_runner import Flags, Floats, Slates, Transition
from recsim_llm.agents.sb3.off_policy import OffPolicyAgent, OffPolicyConfig


@dataclass(frozen=True)
class DQNConfig(OffPolicyConfig):
    """Settings of :class:`DQNAgent`.

    Attributes:
        epsilon_start: Probability that a slot explores at first.
        epsilon_end: The same from ``epsilon_steps`` on; in between it falls in a line.
        epsilon_steps: Steps of users until then, summed over lanes [steps].
        target: Steps of users between two copies to the target network, summed over lanes [steps].
    """

    learning_rate: float = 3e-3
    updates: int = 4
    batch: int = 64
    epsilon_start: float = 1.0
    epsilon_end: float = 0.05
    epsilon_steps: int = 5_000
    target: int = 640

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(0.0, 1.0, "epsilon_start", "epsilon_end")
        self._within(1, 1_000_000_000, "epsilon_steps", "target")


class DQNAgent(OffPolicyAgent):
    """Deep Q-learning on a network that scores items by their encodings.

    Equation: minimise the Huber loss of Q(o_t, i) - (r_t(i) + gamma max_j Q'(o_t+1, j)), Q' the target network, r_t(i)
    what the slot that showed item i earned.

    Paper: Mnih et al. (2015), "Human-level control through deep reinforcement learning"; the implementation is
    Stable-Baselines3's.

    Network: Q(o, i) = V(o) + score_i(o), the scores of :class:`PPOAgent`: an item that was
    never shown has a value.

    Origin of the defaults: chosen at budgets of 20,000 steps on training users. Deviations: a slate is K actions at
    once, each with the reward of its slot (what no slot earned is shared by all), only slots that were looked at teach,
    and what is served are the K items of
    highest value; the interplay of slots is for ``slateq``. The next observation's best item is sought among all
    items, on the shelf or not. Exploration depends on the steps so far and not on those of one call of ``learn``, each
    slot of each user explores on its own, and only items on the shelf that need no rest are shown, in rollouts as in
    serving. Rewards are divided by five times their root mean square so far.
    """

    name: ClassVar[str] = "dqn"
    Config: ClassVar[type[DQNConfig]] = DQNConfig
    config: DQNConfig
    size: ClassVar[float] = 0.2  # so small that the Huber loss is a square: values are means, not nearly medians

    def build(self) -> Any:
        """Stable-Baselines3's DQN, with a buffer of slates."""
        from gymnasium import spaces

        from recsim_llm.agents.td.dqn_policy import ItemQPolicy, SlateDQN

        config, env_spec = self.config, self.env_spec
        return SlateDQN(
            ItemQPolicy, self.vec_env(spaces.Discrete(env_spec.items)), agent=self,
            target_update_interval=max(config.target, self.runner.count),
            policy_kwargs={"shape": self.shape()},
            **self.arguments(by_slot=True),
        )  # fmt: skip

    @property
    def epsilon(self) -> float:
        """Probability that a slot explores now."""
        config = self.config
        left = max(1.0 - self.num_timesteps / config.epsilon_steps, 0.0)
        return config.epsilon_end + left * (config.epsilon_start - config.epsilon_end)

    def tried(self) -> Slates:
        """The K items of highest value, each slot explored with probability epsilon."""
        inputs, memory, action_mask = self.now()
        rested = self.cooldown.eligible(memory, action_mask)
        greedy = top_k(self.model.policy.values(inputs), rested, self.env_spec.slate_size)
        return epsilon_greedy(greedy, rested, self.epsilon, self.rng)[0]

    def played(self, actions: NDArray[Any]) -> Transition:
        """Shows what :meth:`explored` chose; what items earned on average is a feature."""
        transition = super().played(actions)
        self.model.policy.learn_rates(self.rates())
        return transition

    def scores(self, obs: Floats, memory: RecentItems, action_mask: Flags) -> NDArray[np.float64]:
        """Values of items, [B, I]."""
        values: NDArray[np.float64] = self.model.policy.values(self.inputs(obs, memory, action_mask))
        return values

    def act(
        self,
        obs: Floats,
        state: Any,
        episode_start: Flags,
        deterministic: bool,
        action_mask: Flags,
        rng: np.random.Generator,
    ) -> tuple[Slates, Any]:
        """The K items of highest value; unless deterministic, each slot explores with probability epsilon."""
        memory = self.cooldown.recall(obs, state, episode_start)
        rested = self.cooldown.eligible(memory, action_mask)
        slates = top_k(self.scores(obs, memory, action_mask), rested, self.env_spec.slate_size)
        if not deterministic:
            slates, self.propensity = epsilon_greedy(slates, rested, self.epsilon, rng)
        return slates, memory.noting(slates)

    def counters(self) -> tuple[str, ...]:
        """Updates, and steps that tell when the target network is renewed."""
        return ("_n_updates", "_n_calls")
