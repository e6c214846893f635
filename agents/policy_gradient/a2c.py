"""A2C by Stable-Baselines3, behind the protocol of all agents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from recsim_llm.agents.sb3.on_policy import OnPolicyAgent, OnPolicyConfig
from recsim_llm.errors import require


@dataclass(frozen=True)
class A2CConfig(OnPolicyConfig):
    """Settings of :class:`A2CAgent`; each rollout makes one step of the optimiser."""

    rollout: int = 256
    gae_lambda: float = 0.9


class A2CAgent(OnPolicyAgent):
    """Advantage actor-critic on a policy that scores items by their encodings.

    Equation: maximise E[log pi(a_t | o_t) A_t] + entropy H, A_t the advantage of what was shown over the critic's
    estimate of the observation's value, the latter fitted to returns.

    Paper: Mnih et al. (2016), "Asynchronous methods for deep reinforcement learning", in its synchronous form; the
    implementation is Stable-Baselines3's. The policy is that of :class:`PPOAgent`.

    Origin of the defaults: chosen at budgets of 20,000 steps on training users, beside those of PPO. Deviations: Adam
    in place of RMSprop; rewards are divided by their root mean square so far. Its rollouts know no masks: an item off
    the shelf is a wasted slot, from which it learns. In ``predict`` items off the shelf are left out and what was just
    shown rests.
    """

    name: ClassVar[str] = "a2c"
    Config: ClassVar[type[A2CConfig]] = A2CConfig
    config: A2CConfig

    def algorithm(self, env: Any, steps: int, policy: dict[str, Any]) -> Any:
        """Stable-Baselines3's A2C."""
        from recsim_llm.agents.sb3.item_policy import ItemPolicy, OwnOrderBuffer

        config = self.config
        return require("stable_baselines3", "agents").A2C(
            ItemPolicy, env, n_steps=steps, learning_rate=config.learning_rate, gamma=config.gamma,
            gae_lambda=config.gae_lambda, ent_coef=config.entropy, use_rms_prop=False, normalize_advantage=True,
            device=self.device, rollout_buffer_class=OwnOrderBuffer,
            rollout_buffer_kwargs={"rng": self.rng, "begun": self.begun}, policy_kwargs=policy,
        )  # fmt: skip
