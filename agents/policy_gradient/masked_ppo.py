"""PPO with action masks by sb3-contrib, behind the protocol of all agents."""

from __future__ import annotations

from typing import Any, ClassVar

from recsim_llm.agents.policy_gradient.ppo import PPOConfig
from recsim_llm.agents.sb3.on_policy import OnPolicyAgent, divisor
from recsim_llm.errors import require


class MaskedPPOAgent(OnPolicyAgent):
    """Proximal policy optimisation that only ever draws what can be shown.

    Equation: that of PPO, with pi(i | o) = 0 for items off the shelf and for those that rest as they were shown a
    moment ago: it learns with the very distribution that it serves with, and no slot is wasted.

    Paper: Huang and Ontanon (2022), "A closer look at invalid action masking in policy gradient algorithms"; the
    implementation is sb3-contrib's MaskablePPO. The policy is that of :class:`PPOAgent`.

    Origin of the defaults: those of PPO here. Deviations: one mask of the items serves all slots of a slate, as the K
    items are drawn from one distribution without replacement; rewards are divided by their root mean square so far.
    """

    name: ClassVar[str] = "masked_ppo"
    libraries: ClassVar[tuple[str, ...]] = ("sb3_contrib",)
    lists: ClassVar[bool] = False
    Config: ClassVar[type[PPOConfig]] = PPOConfig
    config: PPOConfig

    def algorithm(self, env: Any, steps: int, policy: dict[str, Any]) -> Any:
        """sb3-contrib's MaskablePPO."""
        contrib = require("sb3_contrib", "agents")
        from recsim_llm.agents.policy_gradient.masked_policy import MaskedItemPolicy, MaskedOwnOrderBuffer

        config = self.config
        return contrib.MaskablePPO(
            MaskedItemPolicy, env, n_steps=steps, batch_size=divisor(steps * self.runner.count, config.batch),
            n_epochs=config.epochs, learning_rate=config.learning_rate, gamma=config.gamma,
            gae_lambda=config.gae_lambda, clip_range=config.clip, ent_coef=config.entropy, device=self.device,
            rollout_buffer_class=MaskedOwnOrderBuffer,
            rollout_buffer_kwargs={"rng": self.rng, "begun": self.begun}, policy_kwargs=policy,
        )  # fmt: skip
