"""The network of DQN: items are valued by their encodings. Needs PyTorch and Stable-Baselines3."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3 import DQN
from stable_baselines3.dqn.policies import DQNPolicy
from torch import Tensor, nn

from recsim_llm.agents.ppo_policy import ItemHead


class ItemQNetwork(nn.Module):
    """Q(o, i) = V(o) + (W h(o) + p * a + z * c) . x_i + b_i.

    Args:
        width: P, width of the observation.
        embedding: [I, D] encodings of the items.
        hidden: Width of h.
    """

    def __init__(self, width: int, embedding: NDArray[np.float32], hidden: int) -> None:
        super().__init__()
        self.encodings = 2 * embedding.shape[1]
        self.latent = nn.Sequential(nn.Linear(width, hidden), nn.Tanh())
        self.value = nn.Linear(hidden, 1)
        self.head = ItemHead(embedding, hidden)

    def forward(self, rows: Tensor) -> Tensor:
        """Values [B, I]."""
        hidden = self.latent(rows)
        values: Tensor = self.head(torch.cat([hidden, rows[:, : self.encodings]], 1)) + self.value(hidden)
        return values

    def set_training_mode(self, mode: bool) -> None:
        """As Stable-Baselines3 calls it."""
        self.train(mode)


class ItemQPolicy(DQNPolicy):
    """Stable-Baselines3's policy of DQN with :class:`ItemQNetwork`.

    Args:
        embedding: [I, D] encodings of the items.
        hidden: Width of the hidden layer.
        *args: As for Stable-Baselines3.
        **kwargs: As for Stable-Baselines3.
    """

    def __init__(self, *args: Any, embedding: NDArray[np.float32], hidden: int, **kwargs: Any) -> None:
        self._parts = (embedding, hidden)
        super().__init__(*args, **kwargs)

    def make_q_net(self) -> Any:
        """The network."""
        shape: Any = self.observation_space.shape
        return ItemQNetwork(int(shape[0]), *self._parts).to(self.device)

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
