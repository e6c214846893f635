"""Features of a user and an item, linear in the item's encoding, for value functions."""

from __future__ import annotations

import numpy as np

from recsim_llm.agents.common.item_feedback import COLUMNS, ItemSigns
from recsim_llm.agents.core.env_runner import EnvironmentSpec, Floats, Slates


class Pairs:
    """Vectors psi(u, i) = [1, x, p * x, z * x, p.x, z.x, m].

    x is the item's encoding, p the profile's and z recent interest's, m what users did with the item on average.

    * is elementwise over the leading principal components, the dot products are over all. Linear in x for a given user,
    so that B x I products theta . psi are one product of matrices.

    Args:
        env_spec: The public catalogue.
        width: Principal components in the elementwise products.
        signs: Where m is from; None for none.
    """

    def __init__(self, env_spec: EnvironmentSpec, width: int, signs: ItemSigns | None = None) -> None:
        self.env_spec, self.signs = env_spec, signs
        embedding = env_spec.catalog.embedding
        self.width = min(width, embedding.shape[1])
        self.scale = np.float32(1.0 / (float(np.sqrt(np.square(embedding).sum(1).mean())) or 1.0))
        self.items: Floats = embedding * self.scale
        self.text = 1 + 3 * self.width + 2
        self.count = self.text + (0 if signs is None else COLUMNS)

    def people(self, obs: Floats) -> tuple[Floats, Floats]:
        """Encodings of profile and interest [B, D], scaled as the items'."""
        env_spec = self.env_spec
        return env_spec.part("profile", obs) * self.scale, env_spec.part("interest", obs) * self.scale

    def of(self, obs: Floats, items: Slates) -> Floats:
        """Vectors of users [B, P] and their items [B, N], as [B, N, d]."""
        p, z = self.people(obs)
        x, w = self.items[items], self.width
        lead = x[:, :, :w]
        parts = [np.ones((*items.shape, 1), np.float32), lead, lead * p[:, None, :w], lead * z[:, None, :w]]
        parts += [np.einsum("bnd,bd->bn", x, one)[:, :, None] for one in (p, z)]
        if self.signs is not None:
            parts.append(self.signs.table[items])
        psi: Floats = np.concatenate(parts, 2)
        return psi

    def scores(self, obs: Floats, theta: Floats) -> Floats:
        """The product theta . psi of every user and item, [B, I]."""
        p, z = self.people(obs)
        w = self.width
        plain, with_profile, with_interest = (theta[1 + n * w : 1 + (n + 1) * w] for n in range(3))
        direction = theta[self.text - 2] * p + theta[self.text - 1] * z
        direction[:, :w] += plain + with_profile * p[:, :w] + with_interest * z[:, :w]
        scores: Floats = direction @ self.items.T + theta[0]
        if self.signs is not None:
            scores += self.signs.table @ theta[self.text :]
        return scores
