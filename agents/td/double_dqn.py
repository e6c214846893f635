"""Double DQN: values of items from their encodings."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.deep_value import ValueAgent, ValueConfig
from recsim_llm.agents.common.top_k import top_k
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Flags, Floats, Slates

LOWEST = -1e9


class DoubleDQNAgent(ValueAgent):
    """Learns the value of showing an item, the next one chosen by one network and judged by another.

    Equation: for the item i_k of each slot that was looked at, with the slot's reward r_tk and the mean reward of slots
    r_t,

        y = r_tk + gamma r_{t+1} + ... + gamma^(n-1) r_{t+n-1} + gamma^n Q'(s_{t+n}, argmax_j Q(s_{t+n}, j))
        minimise  sum (Q(s_t, i_k) - y)^2  (Huber's loss),   Q(s, i) = V(s) + a(s, i)

    Q' follows Q slowly; the sum ends where the user left for good (terminated). A slate holds the K largest Q.

    Paper: van Hasselt, Guez and Silver (2016), "Deep reinforcement learning with double Q-learning"; V + a: Wang et
    al. (2016), "Dueling network architectures".

    Origin of the defaults: chosen on training users of Video-retention-v0 at 20,000 steps. Deviations: each slot is an
    action of its own, as in the tabular agents; items are scored by encodings, so that an unseen one has a value;
    returns over n steps, without correction for exploration in them; a soft update in place of copies now and then.
    """

    name: ClassVar[str] = "double_dqn"
    Config: ClassVar[type[Config]] = ValueConfig
    config: ValueConfig

    def ranked(self, states: Floats, action_mask: Flags) -> Slates:
        """The items of highest value."""
        return top_k(self.values(states), action_mask, self.env_spec.slate_size)

    def values(self, states: Floats) -> NDArray[np.float64]:
        """Q of all items beside V, [B, I]."""
        net = self.learner.net
        with self.torch.no_grad():
            _, direction = net(self.learner.tensor(states))
            values: NDArray[np.float64] = net.of_all(direction, 0).cpu().numpy().astype(np.float64) + self.ties
        return values

    def targets(self, ages: NDArray[np.int64], lanes: NDArray[np.int64]) -> Any:
        """Y of steps in the buffer, [N, K], in the network's unit."""
        torch, learner, kept, config = self.torch, self.learner, self.experience, self.config
        slate_size = self.env_spec.slate_size
        total, weight, last, _ = kept.returns(ages, lanes, config.steps, config.gamma)
        later = (total - kept.get("reward", ages, lanes)) / slate_size
        rewards = (kept.get("slot_reward", ages, lanes) + later[:, None]) / self.scale[0]
        after = learner.tensor(kept.get("after", last, lanes))
        usable = learner.tensor(self.usable(last, lanes))
        with torch.no_grad():
            _, direction = learner.net(after)
            chosen = learner.net.of_all(direction, 0).masked_fill(~usable, LOWEST).argmax(1, keepdim=True)
            base, direction = learner.target(after)
            future = base + learner.target.of(direction, 0, chosen)
        return learner.tensor(rewards.astype(np.float32)) + learner.tensor(weight.astype(np.float32))[:, None] * future

    def loss(self, ages: NDArray[np.int64], lanes: NDArray[np.int64]) -> Any:
        """Error of the values of what was looked at."""
        torch, learner, kept = self.torch, self.learner, self.experience
        seen = learner.tensor(kept.get("seen", ages, lanes).astype(np.float32))
        base, direction = learner.net(learner.tensor(kept.get("state", ages, lanes)))
        values = base + learner.net.of(direction, 0, learner.tensor(kept.get("shown", ages, lanes)))
        error = torch.nn.functional.smooth_l1_loss(values, self.targets(ages, lanes), reduction="none")
        return (error * seen).sum() / seen.sum().clamp(min=1.0)
