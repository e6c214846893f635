"""SAC by Stable-Baselines3 on proto-items, behind the protocol of all agents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.core.env_runner import Flags, Floats, Slates
from recsim_llm.agents.policy_gradient.proto_actor import ProtoAgent, ProtoConfig
from recsim_llm.agents.sb3.base import Arrays
from recsim_llm.errors import DataError

TEMPERATURE = "temperature/log"


@dataclass(frozen=True)
class SACConfig(ProtoConfig):
    """Settings of :class:`SACAgent`.

    Attributes:
        temperature: Weight of the entropy at first; it is learnt.
        target_entropy: What it is learnt to keep, per number of the vectors [nats].
    """

    temperature: float = 1e-3
    target_entropy: float = -1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(1e-12, 1e3, "temperature")
        self._within(-20.0, 1.0, "target_entropy")


class SACAgent(ProtoAgent):
    """Soft actor-critic on proto-items.

    Equation: fit Q_1 and Q_2 to r_t + gamma (min_j Q'_j(o_t+1, a') - alpha log pi(a' | o_t+1)), a' ~ pi, and maximise
    E[min_j Q_j(o_t, a) - alpha log pi(a | o_t)] over pi, a squashed normal distribution on R^(K x D); slot k shows
    argmax_i a_k . x_i / |x_i|.

    Paper: Haarnoja et al. (2018), "Soft actor-critic algorithms and applications"; the implementation is
    Stable-Baselines3's. Proto-items: Dulac-Arnold et al. (2015), "Deep reinforcement learning in large discrete action
    spaces".

    Networks: those of :class:`TD3Agent`; a deviation for each number of the vectors.

    Origin of the defaults: chosen at budgets of 20,000 steps on training users; the target entropy is the paper's.
    Deviations: as for TD3. The probability with which an item is the nearest to a vector that was drawn has no closed
    form.
    """

    name: ClassVar[str] = "sac"
    knows_propensity: ClassVar[bool] = False
    Config: ClassVar[type[SACConfig]] = SACConfig
    config: SACConfig

    def build(self) -> Any:
        """Stable-Baselines3's SAC, with a buffer of slates."""
        from recsim_llm.agents.policy_gradient.proto_policy import ProtoSAC, ProtoSACPolicy

        config, space = self.config, self.space()
        return ProtoSAC(
            ProtoSACPolicy, self.vec_env(space), agent=self, tau=config.tau,
            ent_coef=f"auto_{config.temperature}", target_entropy=config.target_entropy * space.shape[0],
            policy_kwargs={"shape": self.shape()}, **self.arguments(coded=self.coded),
        )  # fmt: skip

    def optimizers(self) -> Mapping[str, Any]:
        """Of actor, critics and temperature."""
        model = self.model
        return {
            "actor": model.actor.optimizer, "critic": model.critic.optimizer, "temperature": model.ent_coef_optimizer,
        }  # fmt: skip

    def act(
        self,
        obs: Floats,
        state: Any,
        episode_start: Flags,
        deterministic: bool,
        action_mask: Flags,
        rng: np.random.Generator,
    ) -> tuple[Slates, Any]:
        """The items nearest to the mean of the actor's vectors, or to vectors that it draws."""
        if deterministic:
            return self.served(obs, state, episode_start, action_mask, None)
        self.propensity = np.full((len(obs), self.env_spec.slate_size), np.nan)
        return self.served(obs, state, episode_start, action_mask, self.noise(len(obs), rng))

    def arrays(self) -> Arrays:
        """Those of all agents with a buffer, and the logarithm of the temperature."""
        return super().arrays() | {TEMPERATURE: self.model.log_ent_coef.detach().cpu().numpy().copy()}

    def restore(self, arrays: Arrays, extra: dict[str, Any], source: object) -> None:
        """Takes them over, every name and shape checked."""
        rest = dict(arrays)
        given: NDArray[Any] = rest.pop(TEMPERATURE, np.zeros(0))
        if given.shape != (1,) or given.dtype != np.float32:
            raise DataError(f"{source}: array {TEMPERATURE} is missing or not float32 (1,)")
        super().restore(rest, extra, source)
        self.model.log_ent_coef.data.copy_(self._torch.as_tensor(given))
