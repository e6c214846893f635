"""What PPO, A2C and masked PPO have in common: a distribution over slates, improved on fresh rollouts."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.cooldown import RecentItems
from recsim_llm.agents.common.top_k import top_k
from recsim_llm.agents.core.env_runner import Flags, Floats, Slates, Transition
from recsim_llm.agents.sb3.base import Sb3Agent, Sb3Config

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class OnPolicyConfig(Sb3Config):
    """Settings of agents that learn from fresh rollouts.

    Attributes:
        rollout: Steps of users between two updates, summed over lanes [steps].
        gae_lambda: Trace of the advantage estimate.
        entropy: Weight of the entropy bonus; with 0 each update takes half the time.
    """

    rollout: int = 512
    gae_lambda: float = 0.9
    entropy: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(2, 10_000_000, "rollout")
        self._within(0.0, 1.0, "gae_lambda")
        self._within(0.0, 1e3, "entropy")


class OnPolicyAgent(Sb3Agent):
    """Base of agents whose policy is a softmax over items, drawn without replacement."""

    Config: ClassVar[type[OnPolicyConfig]] = OnPolicyConfig
    config: OnPolicyConfig
    recency: ClassVar[bool] = True
    lists: ClassVar[bool] = True
    """Whether candidates are scored by the encodings in their list, and not as the items that they are."""

    def build(self) -> Any:
        """The algorithm on slates of items, or of positions in the lists of candidates."""
        from gymnasium import spaces

        env_spec = self.env_spec
        listed = self.lists and env_spec.candidates > 0
        choices = env_spec.candidates if listed else env_spec.items
        steps = max(self.config.rollout // self.runner.count, 2)
        shape = self.shape(env_spec.layout["candidates"] if listed else None, bonus=self.config.entropy > 0)
        return self.algorithm(
            self.vec_env(spaces.MultiDiscrete([choices] * env_spec.slate_size)), steps, {"shape": shape}
        )

    def begun(self) -> None:
        """What items earned on average is a feature: it stands still while a rollout is gathered and learnt from."""
        if hasattr(self, "model"):
            self.model.policy.learn_rates(self.rates())

    @abc.abstractmethod
    def algorithm(self, env: Any, steps: int, policy: dict[str, Any]) -> Any:
        """The library's algorithm.

        Args:
            env: The lanes.
            steps: Steps of each lane between two updates.
            policy: Arguments of the policy.
        """

    def played(self, actions: NDArray[Any]) -> Transition:
        """Shows what was drawn."""
        if self.lists and self.env_spec.candidates:
            actions = np.take_along_axis(np.asarray(self.runner.info["candidates"], np.int64), actions, 1)
        return self.show(actions)

    def scores(self, obs: Floats, memory: RecentItems, action_mask: Flags) -> Scores:
        """Logits of items, [B, I]."""
        scores: Scores = self.model.policy.logits(self.inputs(obs, memory, action_mask))
        if not (self.lists and self.env_spec.candidates):
            return scores
        everywhere = np.zeros((len(scores), self.env_spec.items + 1))
        np.put_along_axis(everywhere, self.env_spec.listed(obs), scores, 1)  # an empty place, -1, is the last column
        return everywhere[:, :-1]

    def act(
        self,
        obs: Floats,
        state: Any,
        episode_start: Flags,
        deterministic: bool,
        action_mask: Flags,
        rng: np.random.Generator,
    ) -> tuple[Slates, Any]:
        """The most probable items, or K drawn without replacement (by adding Gumbel noise to the logits)."""
        memory = self.cooldown.recall(obs, state, episode_start)
        scores, rested = self.scores(obs, memory, action_mask), self.cooldown.eligible(memory, action_mask)
        if deterministic:
            slates = top_k(scores, rested, self.env_spec.slate_size)
        else:
            slates = top_k(scores + rng.gumbel(size=scores.shape), rested, self.env_spec.slate_size)
            self.propensity = plackett_luce(scores, rested, slates)
        return slates, memory.noting(slates)


def plackett_luce(scores: Scores, action_mask: Flags, slates: Slates) -> NDArray[np.float64]:
    """Probability of each slot given those before it, where items are drawn by exp(score) and not put back, [B, K].

    Args:
        scores: [B, I].
        action_mask: [B, I].
        slates: [B, K]; a slot that had to be filled up, as nothing allowed was left, had no choice: probability 1.
    """
    lanes = np.arange(len(slates))
    highest = np.where(action_mask, scores, -np.inf).max(1, keepdims=True)
    weights = np.where(action_mask, np.exp(scores - np.where(np.isfinite(highest), highest, 0.0)), 0.0)
    chances = np.ones(slates.shape)
    for slot in range(slates.shape[1]):
        left = weights.sum(1)
        chosen = weights[lanes, slates[:, slot]]
        np.divide(chosen, left, out=chances[:, slot], where=left > 0)
        weights[lanes, slates[:, slot]] = 0.0
    return chances


def divisor(total: int, most: int) -> int:
    """The largest divisor of ``total`` that is not above ``most``."""
    return next(size for size in range(min(most, total), 0, -1) if total % size == 0)
