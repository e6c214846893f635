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

START = 0.3
"""Length of the actor's vectors at first, about; items have length 1."""

LOG_STD = -2.5
"""Logarithm of the deviation of each number of SAC's vectors at first."""


class Directions(nn.Module):
    """K vectors W h(o) + a * p + c * z, p and z the encodings of profile and interest.

    Args:
        width: P, width of the observation.
        encoding: D.
        slots: K.
        hidden: Width of h.
        scale: What encodings are multiplied with, so that most have a length of about 1.
    """

    def __init__(self, width: int, encoding: int, slots: int, hidden: int, scale: float) -> None:
        super().__init__()
        self.encoding, self.scale = encoding, scale
        self.latent = nn.Sequential(nn.Linear(width, hidden), nn.Tanh())
        self.query = nn.Linear(hidden, slots * encoding)
        self.profile = nn.Parameter(torch.zeros(encoding))
        self.interest = nn.Parameter(torch.zeros(encoding))
        nn.init.orthogonal_(self.query.weight, START / hidden**0.5)
        nn.init.zeros_(self.query.bias)

    def forward(self, rows: Tensor) -> Tensor:
        """[B, K * D]."""
        profile, interest = (self.scale * part for part in rows[:, : 2 * self.encoding].split(self.encoding, 1))
        both = profile * self.profile + interest * self.interest
        query = self.query(self.latent(rows))
        wanted: Tensor = query + both.repeat(1, query.shape[1] // self.encoding)
        return wanted


class SlotValue(nn.Module):
    """Q(o, a) = V(o) + sum_k (W h(o) + a * p + c * z + b) . a_k: every slot teaches of all items.

    Vectors count by their direction, with length 1 where they are longer than that.

    Args:
        width: P, width of the observation.
        encoding: D.
        hidden: Width of h.
        scale: As for :class:`Directions`.
    """

    def __init__(self, width: int, encoding: int, hidden: int, scale: float) -> None:
        super().__init__()
        self.encoding = encoding
        self.value = nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, 1))
        self.taste = Directions(width, encoding, 1, hidden, scale)

    def forward(self, rows: Tensor, actions: Tensor) -> Tensor:
        """Values [B, 1] of actions [B, K * D]."""
        vectors = actions.reshape(len(rows), -1, self.encoding)
        lengths = vectors.norm(dim=2, keepdim=True).clamp(min=1e-6)
        values: Tensor = self.value(rows) + ((vectors / lengths).sum(1) * self.taste(rows)).sum(1, keepdim=True)
        return values


class SlotCritic(ContinuousCritic):
    """Stable-Baselines3's pair of critics, of :class:`SlotValue`.

    Args:
        parts: D, K, width of the hidden layer, scale of encodings.
        *args: As for Stable-Baselines3.
        **kwargs: As for Stable-Baselines3.
    """

    def __init__(self, *args: Any, parts: tuple[int, int, int, float], **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "net_arch": []})
        encoding, _, hidden, scale = parts
        self.q_networks = [
            SlotValue(int(kwargs["features_dim"]), encoding, hidden, scale) for _ in range(self.n_critics)
        ]
        for number, network in enumerate(self.q_networks):
            setattr(self, f"qf{number}", network)

    def forward(self, obs: Tensor, actions: Tensor) -> tuple[Tensor, ...]:
        """Values [B, 1] of each critic."""
        return tuple(network(obs, actions) for network in self.q_networks)

    def q1_forward(self, obs: Tensor, actions: Tensor) -> Tensor:
        """Those of the first."""
        values: Tensor = self.q_networks[0](obs, actions)
        return values


class _Parts:
    """Makes critics of :class:`SlotCritic` for a policy of Stable-Baselines3."""

    def __init__(self, *args: Any, parts: tuple[int, int, int, float], **kwargs: Any) -> None:
        self._parts = parts
        super().__init__(*args, **kwargs)

    def make_critic(self, features_extractor: Any = None) -> Any:
        """A pair of critics."""
        policy: Any = self
        arguments = policy._update_features_extractor(policy.critic_kwargs, features_extractor)
        return SlotCritic(parts=self._parts, **arguments).to(policy.device)


class ProtoTD3Policy(_Parts, TD3Policy):
    """Stable-Baselines3's policy of TD3 with :class:`Directions` as actor.

    Args:
        parts: D, K, width of the hidden layer, scale of encodings.
        noise: Deviation of the exploration of a vector of length 1.
        *args: As for Stable-Baselines3.
        **kwargs: As for Stable-Baselines3.
    """

    def __init__(self, *args: Any, noise: float, **kwargs: Any) -> None:
        self.noise = noise
        super().__init__(*args, **kwargs)

    def make_actor(self, features_extractor: Any = None) -> TD3Actor:
        """An actor."""
        encoding, slots, hidden, scale = self._parts
        arguments = self._update_features_extractor(self.actor_kwargs, features_extractor)
        actor = TD3Actor(**{**arguments, "net_arch": []})
        actor.mu = nn.Sequential(Directions(actor.features_dim, encoding, slots, hidden, scale), nn.Tanh())
        return actor.to(self.device)

    def vectors(self, rows: NDArray[np.float32], noise: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """Vectors [B, K * D] for observations [B, P], with noise in proportion to their lengths."""
        encoding = self._parts[0]
        with torch.no_grad():
            wanted = self.actor(torch.as_tensor(rows, device=self.device)).cpu().numpy()
        if noise is not None:
            lengths = np.linalg.norm(wanted.reshape(len(rows), -1, encoding), axis=2, keepdims=True)
            size = self.noise * lengths / np.float32(np.sqrt(encoding))
            wanted = wanted + (size * noise.reshape(len(rows), -1, encoding)).reshape(len(rows), -1)
        vectors: NDArray[np.float32] = wanted.astype(np.float32)
        return vectors


class ProtoSACPolicy(_Parts, SACPolicy):
    """Stable-Baselines3's policy of SAC with :class:`Directions` as the mean of its actor."""

    def make_actor(self, features_extractor: Any = None) -> SACActor:
        """An actor."""
        encoding, slots, hidden, scale = self._parts
        arguments = self._update_features_extractor(self.actor_kwargs, features_extractor)
        actor = SACActor(**{**arguments, "net_arch": []})
        actor.mu = Directions(actor.features_dim, encoding, slots, hidden, scale)
        deviation = nn.Linear(actor.features_dim, slots * encoding)
        nn.init.zeros_(deviation.weight)
        nn.init.constant_(deviation.bias, LOG_STD)
        actor.log_std = deviation
        return actor.to(self.device)

    def vectors(self, rows: NDArray[np.float32], noise: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """Vectors [B, K * D] for observations [B, P], drawn if there is noise."""
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
