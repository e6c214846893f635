"""Item-based k-nearest neighbours (collaborative filtering)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.interaction_log import Log, Numbers
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Floats, Slates
from recsim_llm.agents.logged.popularity_blend import HeldOutBlendAgent, HeldOutBlendConfig, Scores
from recsim_llm.simulator.jit import jit

Floats64 = NDArray[np.float64]


@dataclass(frozen=True)
class ItemKNNConfig(HeldOutBlendConfig):
    """Settings of :class:`ItemKNNAgent`.

    Attributes:
        neighbours: N, items that are kept of those most similar to each.
        shrink: h, draws similarities that rest on few users towards 0.
    """

    neighbours: int = 200
    shrink: float = 30.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(1, 10_000, "neighbours")
        self._within(0.0, 1e9, "shrink")


class ItemKNNAgent(HeldOutBlendAgent):
    """Recommends the neighbours of what was clicked, neighbours being items clicked by the same users.

    Equation: s_ij = x_i . x_j / (|x_i| |x_j| + h v), x_i the column of item i in the matrix of users and items: the
    cosine, shrunk; the personal score of item i is the sum of x_uj s_ij over the items j that the user of the episode
    saw and of whose N most similar ones i is one. Entries are what is left of clicks after the means of the item and
    the user are taken off, 0 for what was not looked at (the adjusted cosine of Sarwar et al.); or, without ``looks``,
    1 for a click. v is the mean square of the entries.

    Paper: Sarwar, Karypis, Konstan and Riedl (2001), "Item-based collaborative filtering recommendation algorithms";
    Deshpande and Karypis (2004), "Item-based top-N recommendation algorithms".

    An item that nobody looked at has no neighbours: it is shown for its popularity, if at all.

    Origin of the defaults: Deshpande and Karypis saw little change beyond 10 to 50 neighbours; with short logs more
    help: neighbours and shrinkage were found by the clicks of held-out training users of the six scenarios. Deviations:
    (1) the shrinkage, and the items' means taken off too; (2) the score is blended with popularity, so that a session's
    first slates are sensible; (3) the log is gathered under uniform random slates; (4) what was just shown rests.
    """

    name: ClassVar[str] = "item_knn"
    Config: ClassVar[type[Config]] = ItemKNNConfig
    config: ItemKNNConfig

    def blank_model(self, users: int) -> None:
        """No neighbours."""
        count = min(self.config.neighbours, self.env_spec.items)
        self.neighbour: Numbers = np.full((self.env_spec.items, count), -1, np.int64)
        self.similarity: Floats = np.zeros((self.env_spec.items, count), np.float32)

    def fit_model(self, log: Log) -> None:
        """Counts who clicked both of two items, and keeps the most similar."""
        self.blank_model(0)
        user_item = self.user_item(log)
        by_item, user, value = user_item.transposed()
        squares = np.bincount(user_item.item, np.square(user_item.value), self.env_spec.items)
        _most_similar(
            user_item.start, user_item.item, user_item.value, by_item, user, value, squares,
            self.config.shrink * user_item.size, np.zeros(self.env_spec.items), self.neighbour, self.similarity,
        )  # fmt: skip

    def personal(self, rows: Floats, session: Any) -> Scores:
        """Sums of similarities to the clicks of the episode."""
        scores = np.zeros((len(rows), self.env_spec.items), np.float32)
        items, values = self.opinions(session)
        _add_neighbours(items, values, self.neighbour, self.similarity, scores)
        return scores

    def model_arrays(self) -> dict[str, NDArray[Any]]:
        """The neighbours of each item and how similar they are."""
        return {"neighbour": self.neighbour, "similarity": self.similarity}

    def sound(self) -> bool:
        """Whether the neighbours are items."""
        return bool((self.neighbour >= -1).all() and (self.neighbour < self.env_spec.items).all())


@jit
def _most_similar(
    start: Numbers, item: Numbers, value: Floats64, by_item: Numbers, user: Numbers, other: Floats64,
    squares: Floats64, shrink: float, both: Floats64, neighbour: Numbers, similarity: Floats,
) -> None:  # fmt: skip
    """Writes the most similar items of each, best first, of equals the lower number first; ``both`` [I] is zero."""
    items, most = neighbour.shape
    for i in range(items):
        for at in range(by_item[i], by_item[i + 1]):
            u = user[at]
            for cell in range(start[u], start[u + 1]):
                both[item[cell]] += other[at] * value[cell]
        filled = 0
        for j in range(items):
            if j == i or both[j] <= 0.0:
                continue
            alike = np.float32(both[j] / (np.sqrt(squares[i] * squares[j]) + shrink))
            if filled == most and alike <= similarity[i, most - 1]:
                continue
            place = min(filled, most - 1)
            while place > 0 and similarity[i, place - 1] < alike:
                similarity[i, place] = similarity[i, place - 1]
                neighbour[i, place] = neighbour[i, place - 1]
                place -= 1
            similarity[i, place], neighbour[i, place] = alike, j
            filled = min(filled + 1, most)
        both[:] = 0.0


@jit
def _add_neighbours(
    given: Slates, values: Floats, neighbour: Numbers, similarity: Floats, out: Floats
) -> None:  # fmt: skip
    """Adds to scores [B, I] the similarities of the neighbours of each of the items [B, N], times ``values`` [B, N]."""
    for b in range(given.shape[0]):
        for h in range(given.shape[1]):
            j = given[b, h]
            if j >= 0:
                for n in range(neighbour.shape[1]):
                    if neighbour[j, n] < 0:
                        break
                    out[b, neighbour[j, n]] += values[b, h] * similarity[j, n]
