"""TD3 by Stable-Baselines3 on proto-items, behind the protocol of all agents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from recsim_llm.agents.core.env_runner import Flags, Floats, Slates
from recsim_llm.agents.policy_gradient.proto_actor import ProtoAgent, ProtoConfig


@dataclass(frozen=True)
class TD3Config(ProtoConfig):
    """Settings of :class:`TD3Agent`.

    Attributes:
        noise: Deviation of the exploration, as a share of a vector's length.
        target_noise: Deviation of the noise on the next vectors in the target, of length 1.
        delay: Updates of the critics for each of the actor.
    """

    noise: float = 0.5
    target_noise: float = 0.2
    delay: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(0.0, 10.0, "noise", "target_noise")
        self._within(1, 1_000, "delay")


class TD3Agent(ProtoAgent):
    """Twin delayed deterministic policy gradient on proto-items.

    Equation: fit Q_1 and Q_2 to r_t + gamma min_j Q'_j(o_t+1, mu'(o_t+1) + noise), and maximise Q_1(o_t, mu(o_t)) over
    the actor mu(o) in R^(K x D); slot k shows argmax_i mu_k(o) . x_i / |x_i|.

    Paper: Fujimoto, van Hoof and Meger (2018), "Addressing function approximation error in actor-critic methods"; the
    implementation is Stable-Baselines3's. Proto-items: Dulac-Arnold et al. (2015), "Deep reinforcement learning in
    large discrete action spaces".

    Networks: mu_k = tanh(W_k h(o) + a * p + c * z), Q(o, a) = V(o) + sum_k u(o) . a_k / |a_k|, u of the same form.

    Origin of the defaults: chosen at budgets of 20,000 steps on training users. Deviations: the critics learn from the
    encodings of the items that were shown, not from the vectors that asked for them (Dulac-Arnold et al. do so too);
    the warm-up shows uniform items; in rollouts as in serving only items on the shelf that need no rest are shown;
    rewards are divided by their root mean square so far.
    """

    name: ClassVar[str] = "td3"
    Config: ClassVar[type[TD3Config]] = TD3Config
    config: TD3Config

    def build(self) -> Any:
        """Stable-Baselines3's TD3, with a buffer of slates."""
        from recsim_llm.agents.policy_gradient.proto_policy import ProtoTD3, ProtoTD3Policy

        config, root = self.config, self.codes.shape[1] ** 0.5
        return ProtoTD3(
            ProtoTD3Policy, self.vec_env(self.space()), agent=self, tau=config.tau, policy_delay=config.delay,
            target_policy_noise=config.target_noise / root, target_noise_clip=2.5 * config.target_noise / root,
            policy_kwargs={"shape": self.shape(), "noise": config.noise}, **self.arguments(coded=self.coded),
        )  # fmt: skip

    def optimizers(self) -> dict[str, Any]:
        """Of actor and critics."""
        return {"actor": self.model.actor.optimizer, "critic": self.model.critic.optimizer}

    def act(
        self,
        obs: Floats,
        state: Any,
        episode_start: Flags,
        deterministic: bool,
        action_mask: Flags,
        rng: np.random.Generator,
    ) -> tuple[Slates, Any]:
        """The items nearest to the actor's vectors; its policy is deterministic."""
        return self.served(obs, state, episode_start, action_mask, None)
