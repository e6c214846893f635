"""Features of a user and an item, linear in the item's encoding, for value functions."""

from __future__ import annotations

import numpy as np

from recsim_llm.agents.common.item_feedback import COLUMNS, ItemSigns
from recsim_llm.agents.core.env_runner import Floats, Setting, Slates


class Pairs:
    """Vectors psi(u, i) = [1, x, p * x, z * x, p.x, z.x, m].

    x is the item's encoding, p the profile's and z recent interest's, m what users did with the item on average.

    * is elementwise over the leading principal components, the dot products are over all. Linear in x for a given user,
    so that B x I products theta . psi are one product of matrices.

    Args:
        setting: The public catalogue.
        width: Principal components in the elementwise products.
        signs: Where m is from; None for none.
    """

    def __init__(self, setting: Setting, width: int, signs: ItemSigns | None = None) -> None:
        self.setting, self.signs = setting, signs
        embedding = setting.catalog.embedding
        self.width = min(width, embedding.shape[1])
        self.scale = np.float32(1.0 / (float(np.sqrt(np.square(embedding).sum(1).mean())) or 1.0))
        self.items: Floats = embedding * self.scale
        self.text = 1 + 3 * self.width + 2
        self.count = self.text + (0 if signs is None else COLUMNS)

    def people(self, rows: Floats) -> tuple[Floats, Floats]:
        """Encodings of profile and interest [B, D], scaled as the items'."""
        setting = self.setting
        return setting.part("profile", rows) * self.scale, setting.part("interest", rows) * self.scale

    def of(self, rows: Floats, items: Slates) -> Floats:
        """Vectors of users [B, P] and their items [B, N], as [B, N, d]."""
        p, z = self.people(rows)
        x, w = self.items[items], self.width
        lead = x[:, :, :w]
        parts = [np.ones((*items.shape, 1), np.float32), lead, lead * p[:, None, :w], lead * z[:, None, :w]]
        parts += [np.einsum("bnd,bd->bn", x, one)[:, :, None] for one in (p, z)]
        if self.signs is not None:
            parts.append(self.signs.table[items])
        psi: Floats = np.concatenate(parts, 2)
        return psi

    def scores(self, rows: Floats, theta: Floats) -> Floats:
        """The product theta . psi of every user and item, [B, I]."""
        p, z = self.people(rows)
        w = self.width
        plain, with_profile, with_interest = (theta[1 + n * w : 1 + (n + 1) * w] for n in range(3))
        direction = theta[self.text - 2] * p + theta[self.text - 1] * z
        direction[:, :w] += plain + with_profile * p[:, :w] + with_interest * z[:, :w]
        scores: Floats = direction @ self.items.T + theta[0]
        if self.signs is not None:
            scores += self.signs.table @ theta[self.text :]
        return scores
