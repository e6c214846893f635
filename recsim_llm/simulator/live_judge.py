"""The simulator with a judge in the place of the preference model: asked at every step about what is shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from recsim_llm.simulator.params import Rules
from recsim_llm.simulator.simulator import Outcome, Simulator
from recsim_llm.worlds.world import World

OF_THE_HEAD = 7
"""Parts of the tables without a judge."""


class Asked(Protocol):
    """What the simulator asks of a judge; see :class:`recsim_llm.judges.judge_utilities.JudgeUtilities`."""

    utility: NDArray[np.float32]  # [U, I] [logit]

    def ask(self, users: NDArray[np.integer], items: NDArray[np.integer]) -> int:
        """Makes the utilities of pairs [N] known."""

    def new(self, users: NDArray[np.integer], items: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Which pairs of users [B] and items [B, K] are not known yet."""

    def fell_back(self, users: NDArray[np.integer], items: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Which pairs of users [B] and items [B, K] have no rating."""

    def facts(self) -> dict[str, Any]:
        """Plain data about the judge."""


class LiveSimulator(Simulator):
    """B users whose utilities come from a judge.

    The judge's utility of (user, item) stands for mu + b_u + b_i + w_u . x_i + l_u . m_i at the taste that the user
    comes with; what taste has drifted by since is added, and all other rules are as they are. So is every draw: with
    the same seeds a user meets the same luck with and without a judge. History before an episode (``warm_start``) is
    the head's, as it was before anybody could be asked.

    Args:
        world: Items and users.
        rules: How users behave.
        judge_utilities: The judge's utilities.
        **settings: As for :class:`Simulator`.
    """

    def __init__(self, world: World, rules: Rules, *, judge_utilities: Asked, **settings: Any) -> None:
        self.judge_utilities = judge_utilities
        super().__init__(world, rules, **settings)

    def _load(self) -> None:
        self._table = (*self._table[:OF_THE_HEAD], self.judge_utilities.utility)
        super()._load()

    def step(self, actions: NDArray[np.int64]) -> Outcome:
        """Asks about the slates [B, K], of all lanes at once, and shows them."""
        lane = self.state.lane
        shown = (actions >= 0) & ~lane["ended"][:, None]
        if self.judge_utilities.new(lane["user"], actions)[shown].any():  # of what is off the shelf she makes nothing
            shown &= np.take_along_axis(self.available(), np.maximum(actions, 0), 1)
            self._ask(shown, actions)
        return super().step(actions)

    def truth(
        self, weights: Mapping[str, float] | None = None, listed: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """As the simulator's; asks about every item for every lane, or all that are listed."""
        if listed is None:
            listed = np.broadcast_to(np.arange(len(self.world.catalog)), (self.lanes, len(self.world.catalog)))
            self._ask(np.ones(listed.shape, np.bool_), listed)
            return super().truth(weights)
        self._ask(listed >= 0, listed)
        return super().truth(weights, listed)

    @property
    def missing(self) -> NDArray[np.int64]:
        """Slots of the last slate [B] for which the judge had no rating."""
        return np.asarray(self.judge_utilities.fell_back(self.state.lane["user"], self.state.slate).sum(1), np.int64)

    def _ask(self, wanted: NDArray[np.bool_], items: NDArray[np.int64]) -> None:
        users = np.broadcast_to(self.state.lane["user"][:, None], items.shape)
        self.judge_utilities.ask(users[wanted], items[wanted])

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_table": self._table[:OF_THE_HEAD]}

    def __setstate__(self, parts: dict[str, Any]) -> None:
        super().__setstate__(parts)
        self._table = (*self._table[:OF_THE_HEAD], self.judge_utilities.utility)
