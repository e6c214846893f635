"""REINFORCE with a top-K off-policy correction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.deep_value import TorchAgent, TorchConfig
from recsim_llm.agents.common.feedback_features import UserState
from recsim_llm.agents.common.top_k import top_k
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Flags, Floats, Slates

LOWEST = -1e9


@dataclass(frozen=True)
class ReinforceConfig(TorchConfig):
    """Settings of :class:`ReinforceAgent`.

    Attributes:
        steps: Steps of reward before the value of the state reached.
        largest_weight: Cap of the importance weights.
        value_weight: Weight of the baseline's loss.
        entropy: Weight of the entropy bonus.
    """

    steps: int = 10
    largest_weight: float = 10.0
    value_weight: float = 1.0
    entropy: float = 0.003

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(1, 1_000, "steps")
        self._within(1e-6, 1e6, "largest_weight")
        self._within(0.0, 1e3, "value_weight", "entropy")


@dataclass(frozen=True)
class Draw(UserState):
    """State between two calls of ``predict``.

    Attributes:
        shelf: [B, ceil(I / 8)] items that could be shown, as bits.
    """

    shelf: NDArray[np.uint8]


class ReinforceAgent(TorchAgent):
    """Raises the probability of items in proportion to what followed, corrected for who showed them and for K slots.

    Equation: pi(i | s) = softmax over the items on the shelf of (W h(s) + a * p + c * z) . x_i + ...; for the item i
    of each slot that was looked at, shown with probability beta,

        gradient = min(pi(i | s) / beta, cap) lambda_K (G - V(s)) grad log pi(i | s)
        lambda_K = K (1 - pi(i | s)) ** (K - 1)
        G        = r_k + gamma r_{t+1} + ... + gamma^(n-1) r_{t+n-1} + gamma^n V(s_{t+n})

    r_k is the slot's reward, r_t the mean of slots; the sum ends where the user left for good (terminated). lambda_K is
    the derivative of the chance that i is among K draws, 1 - (1 - pi) ** K, by pi. K items are drawn without
    replacement, and the K most probable ones if deterministic.

    Paper: Chen, Beutel, Covington, Jain, Belletti and Chi (2019), "Top-K off-policy correction for a REINFORCE
    recommender system".

    Origin of the defaults: capped weights are the paper's; the rest was chosen on training users of Video-retention-v0
    at 20,000 steps. Deviations: (1) beta is what was recorded when the slate was drawn, exact and not a model of the
    log; steps from the buffer are learnt from as their policy grows old; (2) a baseline V, and its value after n
    steps; (3) the paper draws with replacement and keeps distinct items; (4) a network of one hidden layer in place of
    a recurrent one.
    """

    name: ClassVar[str] = "reinforce"
    Config: ClassVar[type[Config]] = ReinforceConfig
    State: ClassVar[type | None] = Draw
    lags: ClassVar[bool] = False
    config: ReinforceConfig

    def fields(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Also which items could be shown."""
        return {**super().fields(), "shelf": ((-(-self.env_spec.items // 8),), np.uint8)}

    def kept(self, user_state: UserState) -> dict[str, NDArray[Any]]:
        """Also which items could be shown."""
        if isinstance(user_state, Draw):
            return {"shelf": user_state.shelf}
        return {"shelf": np.full((len(user_state.feedback), -(-self.env_spec.items // 8)), 255, np.uint8)}

    def act(
        self,
        obs: Floats,
        state: Any,
        episode_start: Flags,
        deterministic: bool,
        action_mask: Flags,
        rng: np.random.Generator,
    ) -> tuple[Slates, Any]:
        """K items drawn without replacement, or the most probable ones."""
        user_state, states, rested = self.looked(obs, state, episode_start, action_mask)
        logits = self.logits(states)
        if deterministic:
            slates = top_k(logits, rested, self.env_spec.slate_size)
        else:
            slates = top_k(logits + rng.gumbel(size=logits.shape), rested, self.env_spec.slate_size)
            self.propensity = drawn_without_replacement(logits, rested, slates)
        shelf = np.packbits(rested, axis=1)
        return slates, Draw(user_state.memory.noting(slates), user_state.feedback, user_state.features, shelf)

    def relevance(
        self, obs: Floats, state: Any, episode_start: Flags, action_mask: Flags
    ) -> NDArray[np.floating] | None:
        """Logits [B, I]."""
        return self.logits(self.looked(obs, state, episode_start, action_mask)[1])

    def logits(self, states: Floats) -> NDArray[np.float64]:
        """Logits of all items, [B, I]."""
        net = self.learner.net
        with self.torch.no_grad():
            logits: NDArray[np.float64] = net.of_all(net(self.learner.tensor(states))[1], 0).cpu().numpy()
        return logits.astype(np.float64) + self.ties

    def loss(self, ages: NDArray[np.int64], lanes: NDArray[np.int64]) -> Any:
        """What has the gradient above, the baseline's error, and the entropy bonus."""
        torch, learner, kept, config = self.torch, self.learner, self.experience, self.config
        total, weight, last, _ = kept.returns(ages, lanes, config.steps, config.gamma)
        later = (total - kept.get("reward", ages, lanes)) / self.env_spec.slate_size
        rewards = (kept.get("slot_reward", ages, lanes) + later[:, None]) / self.scale[0]
        base, direction = learner.net(learner.tensor(kept.get("state", ages, lanes)))
        with torch.no_grad():
            future = learner.net(learner.tensor(kept.get("after", last, lanes)))[0]
        gains = learner.tensor(rewards.astype(np.float32))
        gains = gains + learner.tensor(weight.astype(np.float32))[:, None] * future  # [N, K]
        shelf = np.unpackbits(kept.get("shelf", ages, lanes), axis=1, count=self.env_spec.items).astype(np.bool_)
        logits = learner.net.of_all(direction, 0).masked_fill(~learner.tensor(shelf), LOWEST)
        log_pi = torch.log_softmax(logits, 1)
        seen = learner.tensor(kept.get("seen", ages, lanes).astype(np.float32))
        number = seen.sum().clamp(min=1.0)
        objective = top_k_objective(
            torch, log_pi.gather(1, learner.tensor(kept.get("shown", ages, lanes))),
            learner.tensor(kept.get("chance", ages, lanes)), (gains - base).detach(), config.largest_weight,
        )  # fmt: skip
        error = torch.nn.functional.smooth_l1_loss(base.expand_as(gains), gains, reduction="none")
        entropy = -(log_pi.exp() * log_pi.clamp(min=LOWEST)).sum(1).mean()
        policy = -(objective * seen).sum() / number
        return policy + config.value_weight * (error * seen).sum() / number - config.entropy * entropy


def top_k_objective(torch: Any, log_pi: Any, chance: Any, advantage: Any, largest: float) -> Any:
    """What has the gradient min(pi / beta, largest) lambda_K A grad log pi, [N, K].

    Args:
        torch: PyTorch.
        log_pi: [N, K] logarithms of the policy's probabilities of what was shown.
        chance: [N, K] probabilities beta with which it was shown; where unknown (NaN), the policy's own.
        advantage: [N, K] A.
        largest: Cap of the weight.
    """
    pi = log_pi.detach().exp()
    weight = (pi / torch.where(torch.isnan(chance), pi, chance).clamp(min=1e-12)).clamp(max=largest)
    slate_size = log_pi.shape[1]
    return weight * slate_size * (1.0 - pi) ** (slate_size - 1) * advantage * log_pi


def drawn_without_replacement(
    logits: NDArray[np.float64], action_mask: Flags, slates: Slates
) -> NDArray[np.float64]:  # fmt: skip
    """Probability of each slot's item given the slots before it, [B, K], for the softmax of logits [B, I]."""
    highest = np.where(action_mask, logits, LOWEST).max(1, keepdims=True)
    weight = np.where(action_mask, np.exp(np.minimum(logits - highest, 0.0)), 0.0)
    drawn = np.take_along_axis(weight, slates, 1)
    total = weight.sum(1, keepdims=True)
    left = total - np.concatenate([np.zeros_like(total), np.cumsum(drawn, 1)[:, :-1]], 1)
    filled = ~np.take_along_axis(action_mask, slates, 1)  # too few were on the shelf: there was no choice
    chance: NDArray[np.float64] = np.where(filled, 1.0, drawn / np.maximum(left, 1e-300))
    return np.clip(chance, 1e-300, 1.0)
