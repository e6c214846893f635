"""The policy network of PPO and its kin: items are scored by their encodings. Needs PyTorch, Stable-Baselines3."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.distributions import MultiCategoricalDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import RolloutBufferSamples
from torch import Tensor, nn

LOWEST = -1e9
"""Logit of what cannot be chosen."""

MOST_GONE = 1.0 - 1e-6
"""Probability that the earlier slots of a slate can have taken: beyond it, float32 knows nothing of the rest."""


class SideBySide(nn.Module):
    """Hidden layers for actor and critic; the actor's also hands on the encodings in the observation.

    Args:
        width: P, width of the observation.
        encodings: Leading numbers of the observation that are encodings: profile and interest, 2 D.
        hidden: Width of the hidden layers.
        candidates: Where the encodings of C candidates stand in the observation, C D; None where there are none.
    """

    def __init__(self, width: int, encodings: int, hidden: int, candidates: slice | None = None) -> None:
        super().__init__()
        self.encodings = encodings
        self.candidates = candidates or slice(0, 0)
        self.actor = nn.Sequential(nn.Linear(width, hidden), nn.Tanh())
        self.critic = nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh())
        self.latent_dim_pi = hidden + encodings + self.candidates.stop - self.candidates.start
        self.latent_dim_vf = hidden

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Both latents."""
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features: Tensor) -> Tensor:
        """[B, hidden + 2 D + C D]."""
        kept = features[:, : self.encodings], features[:, self.candidates]
        return torch.cat([self.actor(features), *kept], 1)

    def forward_critic(self, features: Tensor) -> Tensor:
        """[B, hidden]."""
        latent: Tensor = self.critic(features)
        return latent


class ItemHead(nn.Module):
    """logits_i = (W h + p * a + z * c) . x_i + b_i, the same for every slot.

    Args:
        embedding: [I, D] encodings of the items.
        hidden: Width of h.
    """

    items: Tensor

    def __init__(self, embedding: NDArray[np.float32], hidden: int) -> None:
        super().__init__()
        scale = float(np.sqrt(np.square(embedding).sum(1).mean())) or 1.0
        self.width, self.scale = embedding.shape[1], 1.0 / scale
        self.register_buffer("items", torch.as_tensor(embedding / scale, dtype=torch.float32), persistent=False)
        self.query = nn.Linear(hidden, self.width)
        self.profile = nn.Parameter(torch.zeros(self.width))
        self.interest = nn.Parameter(torch.zeros(self.width))
        self.bias = nn.Parameter(torch.zeros(len(embedding)))
        nn.init.orthogonal_(self.query.weight, 0.01)
        nn.init.zeros_(self.query.bias)

    def forward(self, latent: Tensor) -> Tensor:
        """Logits [B, I]."""
        hidden, encodings = latent[:, : -2 * self.width], latent[:, -2 * self.width :] * self.scale
        profile, interest = encodings[:, : self.width], encodings[:, self.width :]
        query = self.query(hidden) + profile * self.profile + interest * self.interest
        logits: Tensor = query @ self.items.T + self.bias
        return logits


class CandidateHead(nn.Module):
    """logits_c = (W h + p * a + z * c) . x_c for the candidates whose encodings x_c are in the observation.

    Args:
        embedding: [I, D] encodings of the items.
        hidden: Width of h.
    """

    def __init__(self, embedding: NDArray[np.float32], hidden: int) -> None:
        super().__init__()
        self.width, self.hidden = embedding.shape[1], hidden
        self.scale = 1.0 / (float(np.sqrt(np.square(embedding).sum(1).mean())) or 1.0)
        self.query = nn.Linear(hidden, self.width)
        self.profile = nn.Parameter(torch.zeros(self.width))
        self.interest = nn.Parameter(torch.zeros(self.width))
        nn.init.orthogonal_(self.query.weight, 0.01)
        nn.init.zeros_(self.query.bias)

    def forward(self, latent: Tensor) -> Tensor:
        """Logits [B, C]; an empty place has an encoding of zeros and gets the lowest."""
        hidden, encodings = latent[:, : self.hidden], latent[:, self.hidden :].reshape(len(latent), -1, self.width)
        profile, interest, listed = encodings[:, 0], encodings[:, 1], encodings[:, 2:]
        query = self.query(hidden) + (profile * self.profile + interest * self.interest) * self.scale
        logits: Tensor = (listed @ query[:, :, None])[:, :, 0] * self.scale
        return logits.masked_fill((listed == 0.0).all(2), LOWEST)


class SlateDistribution(MultiCategoricalDistribution):
    """Slates of K items drawn one after another from one distribution, none twice (Plackett-Luce).

    log P(i_1 .. i_K) = sum_k log(p_{i_k} / (1 - sum_{j<k} p_{i_j})), p = softmax(logits): one pass over the items for
    the whole slate.
    """

    def proba_distribution(self, action_logits: Tensor) -> SlateDistribution:
        """The distribution for logits [B, I]."""
        self.logits = action_logits
        self._logs: Tensor | None = None
        return self

    def apply_masking(self, masks: Any) -> None:
        """Leaves out items; masks are [B, I]."""
        if masks is not None:
            allowed = torch.as_tensor(masks, dtype=torch.bool, device=self.logits.device)
            self.logits, self._logs = self.logits.masked_fill(~allowed, LOWEST), None

    @property
    def logs(self) -> Tensor:
        """Logarithms of the probabilities of the first slot, [B, I]."""
        if self._logs is None:
            self._logs = torch.log_softmax(self.logits, 1)
        return self._logs

    def log_prob(self, actions: Tensor) -> Tensor:
        """Logarithm of the probability of slates [B, K], [B]."""
        chosen = self.logs.gather(1, actions.long())
        if chosen.shape[1] == 1:
            return chosen[:, 0]
        gone = chosen.exp().cumsum(1)[:, :-1].clamp(max=MOST_GONE)
        return chosen.sum(1) - torch.log1p(-gone).sum(1)

    def entropy(self) -> Tensor:
        """K times the entropy of the first slot, [B]: that of the slate, but for what the slots before have taken."""
        logs = self.logs
        entropy: Tensor = -len(self.action_dims) * (logs.exp() * logs).sum(1)
        return entropy

    def sample(self) -> Tensor:
        """Slates [B, K]: the highest of the logits with Gumbel noise."""
        noise = torch.empty_like(self.logits).exponential_().log_()
        return (self.logits - noise).topk(len(self.action_dims), 1).indices

    def mode(self) -> Tensor:
        """The K most probable items, [B, K]."""
        return self.logits.topk(len(self.action_dims), 1).indices


class ItemScoring:
    """Makes an actor-critic policy of :class:`SideBySide` and :class:`ItemHead`.

    Args:
        embedding: [I, D] encodings of the items.
        slots: K.
        hidden: Width of the hidden layers.
        candidates: Where the encodings of candidates stand in the observation; None where items are chosen from all.
        *args: As for the library's policy.
        **kwargs: As for the library's policy.
    """

    def __init__(
        self,
        *args: Any,
        embedding: NDArray[np.float32],
        slots: int,
        hidden: int,
        candidates: slice | None = None,
        **kwargs: Any,
    ) -> None:
        self._parts = (embedding, slots, hidden, candidates)
        super().__init__(*args, **kwargs)

    def _build_mlp_extractor(self) -> None:
        embedding, _, hidden, candidates = self._parts
        width: int = self.features_dim  # type: ignore[attr-defined]
        self.mlp_extractor: Any = SideBySide(width, 2 * embedding.shape[1], hidden, candidates)

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)  # type: ignore[misc]
        embedding, slots, hidden, candidates = self._parts
        self.action_net = ItemHead(embedding, hidden) if candidates is None else CandidateHead(embedding, hidden)
        self.action_dist = SlateDistribution([len(embedding)] * slots)
        policy: Any = self
        policy.optimizer = policy.optimizer_class(policy.parameters(), lr=lr_schedule(1), **policy.optimizer_kwargs)

    def logits(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Logits [B, I] of one slot, or [B, C] of candidates."""
        device = next(self.action_net.parameters()).device
        with torch.no_grad():
            latent = self.mlp_extractor.forward_actor(torch.as_tensor(rows, device=device))
            logits: Tensor = self.action_net(latent)
        return logits.cpu().numpy().astype(np.float64)


class ItemPolicy(ItemScoring, ActorCriticPolicy):
    """Stable-Baselines3's actor-critic policy, scoring items."""


class OwnOrderBuffer(RolloutBuffer):
    """A rollout whose minibatches are drawn in an order from the agent's own stream.

    Args:
        rng: The stream.
        *args: As for Stable-Baselines3.
        **kwargs: As for Stable-Baselines3.
    """

    def __init__(self, *args: Any, rng: np.random.Generator, **kwargs: Any) -> None:
        self.rng = rng
        super().__init__(*args, **kwargs)

    def get(self, batch_size: int | None = None) -> Generator[RolloutBufferSamples, None, None]:
        """Every step of every lane once, in minibatches."""
        if not self.generator_ready:
            for name in ("observations", "actions", "values", "log_probs", "advantages", "returns"):
                setattr(self, name, self.swap_and_flatten(getattr(self, name)))
            self.generator_ready = True
        order = self.rng.permutation(self.buffer_size * self.n_envs)
        size = batch_size or len(order)
        for start in range(0, len(order), size):
            yield self._get_samples(order[start : start + size])
