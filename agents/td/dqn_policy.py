"""Network and policy of DQN. Needs PyTorch and Stable-Baselines3."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3 import DQN
from stable_baselines3.dqn.policies import DQNPolicy
from torch import Tensor, nn

from recsim_llm.agents.sb3.item_policy import ItemHead, Shape


class ItemQNetwork(nn.Module):
    """Q(o, i) = V(o) + score_i(o), the scores those of :class:`~recsim_llm.agents.sb3.item_policy.ItemHead`.

    Args:
        shape: What it is made for.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.width = shape.width + len(shape.catalog.topics)
        self.latent = nn.Sequential(nn.Linear(self.width, shape.hidden), nn.Tanh())
        self.value = nn.Linear(shape.hidden, 1)
        self.head = ItemHead(shape)

    def forward(self, rows: Tensor) -> Tensor:
        """Values [B, I]."""
        hidden = self.latent(rows[:, : self.width])
        values: Tensor = self.head(torch.cat([hidden, rows], 1)) + self.value(hidden)
        return values

    def set_training_mode(self, mode: bool) -> None:
        """As Stable-Baselines3 calls it."""
        self.train(mode)


class ItemQPolicy(DQNPolicy):
    """Stable-Baselines3's policy of DQN with :class:`ItemQNetwork`.

    Args:
        shape: What it is made for.
        *args: As for Stable-Baselines3.
        **kwargs: As for Stable-Baselines3.
    """

    def __init__(self, *args: Any, shape: Shape, **kwargs: Any) -> None:
        self._shape = shape
        super().__init__(*args, **kwargs)

    def make_q_net(self) -> Any:
        """The network."""
        return ItemQNetwork(self._shape).to(self.device)

    def learn_rates(self, rate: NDArray[np.float64]) -> None:
        """Takes over what items earned on average, [I]."""
        given = torch.as_tensor(rate, dtype=torch.float32)
        for network in (self.q_net, self.q_net_target):
            head: Any = network.head
            head.rate.copy_(given)

    def values(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Values [B, I] of items."""
        with torch.no_grad():
            values: Tensor = self.q_net(torch.as_tensor(rows, device=self.device))
        return values.cpu().numpy().astype(np.float64)


class SlateDQN(DQN):
    """Stable-Baselines3's DQN; what it shows is chosen by the agent: K actions at once, each with its own reward.

    Args:
        *args: As for Stable-Baselines3.
        agent: The agent.
        **kwargs: As for Stable-Baselines3.
    """

    def __init__(self, *args: Any, agent: Any, **kwargs: Any) -> None:
        self.agent = agent
        super().__init__(*args, **kwargs)
        self.exploration_schedule = lambda _: float(agent.epsilon)

    def _sample_action(self, *args: Any, **kwargs: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        slates = self.agent.explored()
        return slates, slates
