"""The policy network of PPO and its kin: items are scored by their encodings. Needs PyTorch, Stable-Baselines3."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.distributions import MultiCategoricalDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import RolloutBufferSamples
from torch import Tensor, nn

from recsim_llm.worlds.catalog import Catalog

LOWEST = -1e9
"""Logit of what cannot be chosen."""

LIFE = 2.0
"""Age at which half of an item's freshness is gone [day]."""

MOST_GONE = 1.0 - 1e-6
"""Probability that the earlier slots of a slate can have taken: beyond it, float32 knows nothing of the rest."""


@dataclass(frozen=True)
class Shape:
    """What the networks are made for.

    Attributes:
        catalog: The public catalogue.
        slate_size: K.
        width: P, numbers of an observation; behind them stand the wear of T topics, the newest release [day], and what
            is remembered: items, and decayed counts of looks and of clicks [H] each.
        hidden: Width of the hidden layers.
        candidates: Where the encodings of candidates stand in the observation; None where items are chosen from all.
        bonus: Whether the entropy of slates is wanted.
        remembered: H, items that are remembered.
    """

    catalog: Catalog
    slate_size: int
    width: int
    hidden: int
    candidates: slice | None = None
    bonus: bool = True
    remembered: int = 0

    @property
    def scale(self) -> float:
        """What encodings are multiplied with, so that most have a length of about 1."""
        return 1.0 / (float(np.sqrt(np.square(self.catalog.embedding).sum(1).mean())) or 1.0)


class SideBySide(nn.Module):
    """Hidden layers for actor and critic; the actor's also hands on what it has seen.

    Args:
        shape: What they are made for.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.width = shape.width + len(shape.catalog.topics)
        hidden = shape.hidden
        self.actor = nn.Sequential(nn.Linear(self.width, hidden), nn.Tanh())
        self.critic = nn.Sequential(nn.Linear(self.width, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh())
        self.latent_dim_pi = hidden + self.width + 1 + 3 * shape.remembered
        self.latent_dim_vf = hidden

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Both latents."""
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features: Tensor) -> Tensor:
        """[B, hidden + P + T + 1 + 3 H]."""
        return torch.cat([self.actor(features[:, : self.width]), features], 1)

    def forward_critic(self, features: Tensor) -> Tensor:
        """[B, hidden]."""
        latent: Tensor = self.critic(features[:, : self.width])
        return latent


class ItemHead(nn.Module):
    """Scores of all items, the same for every slot.

        score_i = (W h + p * a + z * c) . x_i + w wear_topic(i)
                  + (V h + v) . (price_i, rate_i, freshness_i, looks_i, clicks_i) + b_i

    x_i is the item's encoding, p and z those of profile and interest, wear how often its topic was consumed lately,
    rate what the item earned on average so far, looks and clicks how often the user met the item itself lately.

    Args:
        shape: What it is made for.
    """

    items: Tensor
    released: Tensor
    rate: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        catalog = shape.catalog
        self.encoding, self.hidden, self.scale = catalog.width, shape.hidden, shape.scale
        self.topics, self.behind = len(catalog.topics), shape.width
        price = np.log1p(np.maximum(catalog.price, 0.0))
        price = (price - price.mean()) / (float(price.std()) or 1.0)
        table = [catalog.embedding * self.scale, np.eye(self.topics)[catalog.topic], price[:, None]]
        self.register_buffer("items", _tensor(np.concatenate(table, 1)), persistent=False)
        self.register_buffer("released", _tensor(catalog.released_at), persistent=False)
        self.register_buffer("rate", torch.zeros(len(catalog)))
        self.query = nn.Linear(shape.hidden, self.encoding)
        self.facts = nn.Linear(shape.hidden, 5 if shape.remembered else 3)
        self.profile = nn.Parameter(torch.zeros(self.encoding))
        self.interest = nn.Parameter(torch.zeros(self.encoding))
        self.wear = nn.Parameter(torch.zeros(1))
        self.bias = nn.Parameter(torch.zeros(len(catalog)))
        for layer in (self.query, self.facts):
            nn.init.orthogonal_(layer.weight, 0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, latent: Tensor) -> Tensor:
        """Scores [B, I]."""
        hidden, rows = latent[:, : self.hidden], latent[:, self.hidden :]
        profile, interest = rows[:, : self.encoding], rows[:, self.encoding : 2 * self.encoding]
        wear, newest, known = rows[:, self.behind :].tensor_split((self.topics, self.topics + 1), 1)
        query = self.query(hidden) + (profile * self.profile + interest * self.interest) * self.scale
        facts = self.facts(hidden)
        user = torch.cat([query, wear * self.wear, facts[:, :1]], 1)
        scores = torch.addmm(self.bias, user, self.items.T)
        fresh = LIFE / (LIFE + (newest - self.released).clamp_(min=0.0))
        scores = torch.addcmul(scores, facts[:, 1:2], self.rate)
        scores = torch.addcmul(scores, facts[:, 2:3], fresh)
        if not known.shape[1]:
            return scores
        items, looks, takes = known.chunk(3, 1)
        # empty places, whose counts are 0, may add to any item
        return scores.scatter_add(1, items.long().clamp_(min=0), facts[:, 3:4] * looks + facts[:, 4:5] * takes)


class CandidateHead(nn.Module):
    """logits_c = (W h + p * a + z * c) . x_c for the candidates whose encodings x_c are in the observation.

    Args:
        shape: What it is made for.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.width, self.hidden, self.scale = shape.catalog.width, shape.hidden, shape.scale
        self.place = shape.candidates
        self.query = nn.Linear(self.hidden, self.width)
        self.profile = nn.Parameter(torch.zeros(self.width))
        self.interest = nn.Parameter(torch.zeros(self.width))
        nn.init.orthogonal_(self.query.weight, 0.01)
        nn.init.zeros_(self.query.bias)

    def forward(self, latent: Tensor) -> Tensor:
        """Logits [B, C]; an empty place has an encoding of zeros and gets the lowest."""
        hidden, rows = latent[:, : self.hidden], latent[:, self.hidden :]
        profile, interest = rows[:, : self.width], rows[:, self.width : 2 * self.width]
        listed = rows[:, self.place].reshape(len(rows), -1, self.width)
        query = self.query(hidden) + (profile * self.profile + interest * self.interest) * self.scale
        logits: Tensor = (listed @ query[:, :, None])[:, :, 0] * self.scale
        return logits.masked_fill((listed == 0.0).all(2), LOWEST)


class SlateDistribution(MultiCategoricalDistribution):
    """Slates of K items drawn one after another from one distribution, none twice (Plackett-Luce).

    log P(i_1 .. i_K) = sum_k log(p_{i_k} / (1 - sum_{j<k} p_{i_j})), p = softmax(logits): one pass over the items for
    the whole slate.

    Args:
        sizes: I for each of K slots.
        bonus: Whether the entropy is wanted, which takes as long as all the rest.
    """

    def __init__(self, sizes: list[int], bonus: bool = True) -> None:
        super().__init__(sizes)
        self.bonus = bonus

    def proba_distribution(self, action_logits: Tensor) -> SlateDistribution:
        """The distribution for logits [B, I]."""
        self.logits = action_logits
        self._logs: Tensor | None = None
        return self

    def apply_masking(self, masks: Any) -> None:
        """Leaves out items; masks are [B, I]."""
        if masks is not None:
            action_mask = torch.as_tensor(masks, dtype=torch.bool, device=self.logits.device)
            self.logits, self._logs = self.logits.masked_fill(~action_mask, LOWEST), None

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

    def entropy(self) -> Tensor | None:  # type: ignore[override]
        """K times the entropy of the first slot, [B]: that of the slate, but for what the slots before have taken."""
        if not self.bonus:
            return None
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
        shape: What it is made for.
        *args: As for the library's policy.
        **kwargs: As for the library's policy.
    """

    mlp_extractor: Any
    action_net: Any
    action_dist: Any

    def __init__(self, *args: Any, shape: Shape, **kwargs: Any) -> None:
        self._shape = shape
        super().__init__(*args, **kwargs)

    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor = SideBySide(self._shape)

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)  # type: ignore[misc]
        shape = self._shape
        self.action_net = ItemHead(shape) if shape.candidates is None else CandidateHead(shape)
        self.action_dist = SlateDistribution([len(shape.catalog)] * shape.slate_size, shape.bonus)
        policy: Any = self
        policy.optimizer = policy.optimizer_class(policy.parameters(), lr=lr_schedule(1), **policy.optimizer_kwargs)

    def learn_rates(self, rate: NDArray[np.float64]) -> None:
        """Takes over what items earned on average, [I]."""
        if isinstance(self.action_net, ItemHead):
            self.action_net.rate.copy_(_tensor(rate))

    def logits(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Logits [B, I] of one slot, or [B, C] of candidates, for rows [B, P + T + 1 + 3 H]."""
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
        begun: Called before each rollout.
        *args: As for Stable-Baselines3.
        **kwargs: As for Stable-Baselines3.
    """

    def __init__(self, *args: Any, rng: np.random.Generator, begun: Callable[[], None], **kwargs: Any) -> None:
        self.rng, self.begun = rng, begun
        super().__init__(*args, **kwargs)

    def reset(self) -> None:
        """Empties it."""
        self.begun()
        super().reset()

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


def _tensor(values: NDArray[Any]) -> Tensor:
    return torch.tensor(np.asarray(values), dtype=torch.float32)
