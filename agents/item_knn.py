"""Item-based nearest neighbours: items that were clicked by the same users."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.baskets import Baskets
from recsim_llm.agents.blending import Scores, TunedAgent, TunedConfig
from recsim_llm.agents.config import Config
from recsim_llm.agents.lanes import Floats, Slates
from recsim_llm.agents.log import Log, Numbers
from recsim_llm.rules.jit import jit


@dataclass(frozen=True)
class ItemKNNConfig(TunedConfig):
    """Settings of :class:`ItemKNNAgent`.

    Attributes:
        neighbours: N, items that are kept of those most similar to each.
        shrink: h, draws similarities that rest on few users towards 0.
    """

    neighbours: int = 50
    shrink: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(1, 10_000, "neighbours")
        self._within(0.0, 1e9, "shrink")


class ItemKNNAgent(TunedAgent):
    """Recommends the neighbours of what was clicked, neighbours being items clicked by the same users.

    Equation: s_ij = c_ij / (sqrt(c_i c_j) + h), c_ij the users who clicked both items and c_i those who clicked i: the
    cosine of two columns of the matrix of users and items, shrunk. The personal score of item i is the sum of s_ji over
    the clicks j of the episode whose N most similar items i is one of.

    Paper: Sarwar, Karypis, Konstan and Riedl (2001), "Item-based collaborative filtering recommendation algorithms";
    Deshpande and Karypis (2004), "Item-based top-N recommendation algorithms".

    An item that nobody clicked has no neighbours: it is shown for its popularity, if at all.

    Origin of the defaults: Deshpande and Karypis saw little change beyond 10 to 50 neighbours. Deviations: (1) the
    shrinkage h; (2) the score is blended with popularity, so that a session's first slates are sensible; (3) the
    log is gathered under uniform random slates; (4) what was just shown rests.
    """

    name: ClassVar[str] = "item_knn"
    Config: ClassVar[type[Config]] = ItemKNNConfig
    config: ItemKNNConfig

    def blank_model(self, users: int) -> None:
        """No neighbours."""
        count = min(self.config.neighbours, self.setting.items)
        self.neighbour: Numbers = np.full((self.setting.items, count), -1, np.int64)
        self.similarity: Floats = np.zeros((self.setting.items, count), np.float32)

    def fit_model(self, log: Log) -> None:
        """Counts who clicked both of two items, and keeps the most similar."""
        self.blank_model(0)
        baskets = Baskets.of(log, self.setting.items)
        by_item, user = baskets.transposed()
        _most_similar(
            baskets.start, baskets.item, by_item, user, self.config.shrink, np.zeros(self.setting.items),
            self.neighbour, self.similarity,
        )  # fmt: skip

    def personal(self, rows: Floats, session: Any) -> Scores:
        """Sums of similarities to the clicks of the episode."""
        scores = np.zeros((len(rows), self.setting.items), np.float32)
        _add_neighbours(session.history, self.neighbour, self.similarity, scores)
        return scores

    def model_arrays(self) -> dict[str, NDArray[Any]]:
        """The neighbours of each item and how similar they are."""
        return {"neighbour": self.neighbour, "similarity": self.similarity}

    def sound(self) -> bool:
        """Whether the neighbours are items."""
        return bool((self.neighbour >= -1).all() and (self.neighbour < self.setting.items).all())


@jit
def _most_similar(
    start: Numbers, item: Numbers, by_item: Numbers, user: Numbers, shrink: float, both: NDArray[np.float64],
    neighbour: Numbers, similarity: Floats,
) -> None:  # fmt: skip
    """Writes the most similar items of each, best first, of equals the lower number first; ``both`` [I] is zero."""
    items, most = neighbour.shape
    for i in range(items):
        for at in range(by_item[i], by_item[i + 1]):
            u = user[at]
            for cell in range(start[u], start[u + 1]):
                both[item[cell]] += 1.0
        own = float(by_item[i + 1] - by_item[i])
        filled = 0
        for j in range(items):
            if j == i or both[j] == 0.0:
                continue
            other = float(by_item[j + 1] - by_item[j])
            value = np.float32(both[j] / (np.sqrt(own * other) + shrink))
            if filled == most and value <= similarity[i, most - 1]:
                continue
            place = min(filled, most - 1)
            while place > 0 and similarity[i, place - 1] < value:
                similarity[i, place] = similarity[i, place - 1]
                neighbour[i, place] = neighbour[i, place - 1]
                place -= 1
            similarity[i, place], neighbour[i, place] = value, j
            filled = min(filled + 1, most)
        both[:] = 0.0


@jit
def _add_neighbours(history: Slates, neighbour: Numbers, similarity: Floats, out: Floats) -> None:
    """Adds to scores [B, I] the similarities of the neighbours of each item in histories [B, H]."""
    for b in range(history.shape[0]):
        for h in range(history.shape[1]):
            j = history[b, h]
            if j >= 0:
                for n in range(neighbour.shape[1]):
                    if neighbour[j, n] < 0:
                        break
                    out[b, neighbour[j, n]] += similarity[j, n]
