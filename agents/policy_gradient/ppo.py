"""PPO by Stable-Baselines3, behind the protocol of all agents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from recsim_llm.agents.sb3.on_policy import OnPolicyAgent, OnPolicyConfig, divisor
from recsim_llm.errors import require


@dataclass(frozen=True)
class PPOConfig(OnPolicyConfig):
    """Settings of :class:`PPOAgent`.

    Attributes:
        batch: Largest size of a minibatch.
        epochs: Passes over a rollout in each update.
        clip: Clipping range of the probability ratio.
    """

    batch: int = 256
    epochs: int = 2
    clip: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(2, 10_000_000, "batch")
        self._within(1, 10_000, "epochs")
        self._within(0.0, 1.0, "clip")


class PPOAgent(OnPolicyAgent):
    """Proximal policy optimisation on a policy that scores items by their encodings.

    Equation: maximise E[min(rho_t A_t, clip(rho_t, 1 - clip, 1 + clip) A_t)] + entropy H, rho_t the ratio of new to old
    probability of what was shown, A_t the generalised advantage estimate.

    Paper: Schulman et al. (2017), "Proximal policy optimization algorithms"; the implementation is Stable-Baselines3's.

    Policy: logits_i = (W h(o) + a * p + c * z) . x_i + w wear_topic(i) + (V h(o) + v) . f_i + b_i, x_i the item's
    encoding, p and z those of profile and interest, wear how often the item's topic was consumed lately, f_i its price,
    freshness and mean reward so far; the K items of a slate are drawn one after another without replacement. An
    ordinary head with one weight vector for each of a thousand items sees each of them a few times within a demo's
    budget and learns nothing; here every step teaches something of all items, and one that was never shown has a score.

    Origin of the defaults: clip is the paper's; fewer epochs, a larger step size and shorter rollouts than
    Stable-Baselines3's, and no entropy bonus, found at budgets of 20,000 steps on training users; gamma and lambda low,
    as what a slate does to later steps is small beside the noise of clicks (not where users come back or stay away:
    there set gamma high). Deviations: rewards are divided by their root mean square so far. Its rollouts know no masks:
    an item off the shelf is a wasted slot, from which it learns (``masked_ppo`` does not waste them). In ``predict``
    items off the shelf are left out and what was just shown rests. With candidates only encodings are scored.
    """

    name: ClassVar[str] = "ppo"
    Config: ClassVar[type[PPOConfig]] = PPOConfig
    config: PPOConfig

    def algorithm(self, env: Any, steps: int, policy: dict[str, Any]) -> Any:
        """Stable-Baselines3's PPO."""
        from recsim_llm.agents.sb3.item_policy import ItemPolicy, OwnOrderBuffer

        config = self.config
        return require("stable_baselines3", "agents").PPO(
            ItemPolicy, env, n_steps=steps, batch_size=divisor(steps * self.runner.count, config.batch),
            n_epochs=config.epochs, learning_rate=config.learning_rate, gamma=config.gamma,
            gae_lambda=config.gae_lambda, clip_range=config.clip, ent_coef=config.entropy, device=self.device,
            rollout_buffer_class=OwnOrderBuffer,
            rollout_buffer_kwargs={"rng": self.rng, "begun": self.begun}, policy_kwargs=policy,
        )  # fmt: skip
