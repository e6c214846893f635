"""Actors and critics on proto-items, for SAC and TD3. Needs PyTorch and Stable-Baselines3."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3 import SAC, TD3
from stable_baselines3.common.policies import ContinuousCritic
from stable_baselines3.sac.policies import Actor as SACActor
from stable_baselines3.sac.policies import SACPolicy
from stable_baselines3.td3.policies import Actor as TD3Actor
from stable_baselines3.td3.policies import TD3Policy
from torch import Tensor, nn

from recsim_llm.agents.sb3.item_policy import Shape

START = 0.3
"""Length of the actor's vectors at first, about; items have length 1."""

LOG_STD = -2.5
"""Logarithm of the deviation of each number of SAC's vectors at first."""


class Directions(nn.Module):
    """Vectors W_k h(o) + a * p + c * z, p and z the encodings of profile and interest.

    Args:
        shape: What it is made for.
        slate_size: Vectors, K or 1.
    """

    def __init__(self, shape: Shape, slate_size: int) -> None:
        super().__init__()
        self.encoding, self.scale = shape.catalog.width, shape.scale
        self.latent = nn.Sequential(nn.Linear(shape.width + len(shape.catalog.topics), shape.hidden), nn.Tanh())
        self.query = nn.Linear(shape.hidden, slate_size * self.encoding)
        self.profile = nn.Parameter(torch.zeros(self.encoding))
        self.interest = nn.Parameter(torch.zeros(self.encoding))
        nn.init.orthogonal_(self.query.weight, START / shape.hidden**0.5)
        nn.init.zeros_(self.query.bias)

    def forward(self, rows: Tensor) -> Tensor:
        """[B, slots * D] for rows [B, P + T + 1]."""
        profile = self.scale * rows[:, : self.encoding]
        interest = self.scale * rows[:, self.encoding : 2 * self.encoding]
        both = profile * self.profile + interest * self.interest
        query = self.query(self.latent(rows[:, :-1]))
        wanted: Tensor = query + both.repeat(1, query.shape[1] // self.encoding)
        return wanted


class Deviation(nn.Module):
    """Logarithm of the deviation of each number of K vectors, the same for all users.

    Args:
        shape: What it is made for.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.full((shape.slate_size * shape.catalog.width,), LOG_STD))

    def forward(self, rows: Tensor) -> Tensor:
        """[B, K * D]."""
        return self.log.expand(len(rows), -1)


class SlotValue(nn.Module):
    """Q(o, a) = V(o) + sum_k u(o) . a_k / |a_k|, u of the form of :class:`Directions`: every slot teaches of all items.

    Args:
        shape: What it is made for.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.encoding = shape.catalog.width
        width = shape.width + len(shape.catalog.topics)
        self.value = nn.Sequential(nn.Linear(width, shape.hidden), nn.Tanh(), nn.Linear(shape.hidden, 1))
        self.taste = Directions(shape, 1)

    def forward(self, rows: Tensor, actions: Tensor) -> Tensor:
        """Values [B, 1] of actions [B, K * D]."""
        vectors = actions.reshape(len(rows), -1, self.encoding)
        wanted = nn.functional.normalize(vectors, dim=2).sum(1)
        values: Tensor = self.value(rows[:, :-1]) + (wanted * self.taste(rows)).sum(1, keepdim=True)
        return values


class SlotCritic(ContinuousCritic):
    """Stable-Baselines3's pair of critics, of :class:`SlotValue`.

    Args:
        shape: What it is made for.
        *args: As for Stable-Baselines3.
        **kwargs: As for Stable-Baselines3.
    """

    def __init__(self, *args: Any, shape: Shape, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "net_arch": []})
        self.q_networks = [SlotValue(shape) for _ in range(self.n_critics)]
        for number, network in enumerate(self.q_networks):
            setattr(self, f"qf{number}", network)

    def forward(self, obs: Tensor, actions: Tensor) -> tuple[Tensor, ...]:
        """Values [B, 1] of each critic."""
        return tuple(network(obs, actions) for network in self.q_networks)

    def q1_forward(self, obs: Tensor, actions: Tensor) -> Tensor:
        """Those of the first."""
        values: Tensor = self.q_networks[0](obs, actions)
        return values


class Shaped:
    """Makes critics of :class:`SlotCritic` for a policy of Stable-Baselines3.

    Args:
        shape: What they are made for.
        *args: As for Stable-Baselines3.
        **kwargs: As for Stable-Baselines3.
    """

    def __init__(self, *args: Any, shape: Shape, **kwargs: Any) -> None:
        self._shape = shape
        super().__init__(*args, **kwargs)

    def make_critic(self, features_extractor: Any = None) -> Any:
        """A pair of critics."""
        policy: Any = self
        arguments = policy._update_features_extractor(policy.critic_kwargs, features_extractor)
        return SlotCritic(shape=self._shape, **arguments).to(policy.device)


class ProtoTD3Policy(Shaped, TD3Policy):
    """Stable-Baselines3's policy of TD3 with :class:`Directions` as actor.

    Args:
        noise: Deviation of the exploration of a vector of length 1.
        *args: As for Stable-Baselines3.
        **kwargs: As for Stable-Baselines3.
    """

    def __init__(self, *args: Any, noise: float, **kwargs: Any) -> None:
        self.noise = noise
        super().__init__(*args, **kwargs)

    def make_actor(self, features_extractor: Any = None) -> TD3Actor:
        """An actor."""
        arguments = self._update_features_extractor(self.actor_kwargs, features_extractor)
        actor = TD3Actor(**{**arguments, "net_arch": []})
        actor.mu = nn.Sequential(Directions(self._shape, self._shape.slate_size), nn.Tanh())
        return actor.to(self.device)

    def vectors(self, rows: NDArray[np.float32], noise: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """Vectors [B, K * D] for rows [B, P + T + 1], with noise in proportion to their lengths."""
        lanes, encoding = len(rows), self._shape.catalog.width
        with torch.no_grad():
            vectors: NDArray[np.float32] = self.actor(torch.as_tensor(rows, device=self.device)).cpu().numpy()
        if noise is None:
            return vectors
        wanted = vectors.reshape(lanes, -1, encoding)
        size = np.float32(self.noise / encoding**0.5) * np.linalg.norm(wanted, axis=2, keepdims=True)
        noisy: NDArray[np.float32] = (wanted + size * noise.reshape(wanted.shape)).reshape(lanes, -1)
        return noisy


class ProtoSACPolicy(Shaped, SACPolicy):
    """Stable-Baselines3's policy of SAC with :class:`Directions` as the mean of its actor."""

    def make_actor(self, features_extractor: Any = None) -> SACActor:
        """An actor."""
        shape = self._shape
        arguments = self._update_features_extractor(self.actor_kwargs, features_extractor)
        actor: Any = SACActor(**{**arguments, "net_arch": []})
        actor.mu, actor.log_std = Directions(shape, shape.slate_size), Deviation(shape)
        made: SACActor = actor.to(self.device)
        return made

    def vectors(self, rows: NDArray[np.float32], noise: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """Vectors [B, K * D] for rows [B, P + T + 1], drawn if there is noise."""
        with torch.no_grad():
            wanted, deviation, _ = self.actor.get_action_dist_params(torch.as_tensor(rows, device=self.device))
            if noise is not None:
                wanted = wanted + deviation.exp() * torch.as_tensor(noise, device=self.device)
            vectors: NDArray[np.float32] = torch.tanh(wanted).cpu().numpy()
        return vectors


class ProtoTD3(TD3):
    """Stable-Baselines3's TD3; what it shows is chosen by the agent.

    Args:
        *args: As for Stable-Baselines3.
        agent: The agent.
        **kwargs: As for Stable-Baselines3.
    """

    def __init__(self, *args: Any, agent: Any, **kwargs: Any) -> None:
        self.agent = agent
        super().__init__(*args, **kwargs)

    def _sample_action(self, *args: Any, **kwargs: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        slates = self.agent.explored()
        return slates, slates


class ProtoSAC(SAC):
    """Stable-Baselines3's SAC; what it shows is chosen by the agent.

    Args:
        *args: As for Stable-Baselines3.
        agent: The agent.
        **kwargs: As for Stable-Baselines3.
    """

    def __init__(self, *args: Any, agent: Any, **kwargs: Any) -> None:
        self.agent = agent
        super().__init__(*args, **kwargs)

    def _sample_action(self, *args: Any, **kwargs: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        slates = self.agent.explored()
        return slates, slates
