"""Recency: what came out last."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.remembering import RememberingAgent
from recsim_llm.agents.common.slates import best
from recsim_llm.agents.core.env_runner import Flags, Floats, Setting, Slates


class RecencyAgent(RememberingAgent):
    """Shows the newest items on the shelf, letting what was just shown rest.

    Equation: score_i = the day on which item i was released; items of the same day come in the order of the catalogue.
    Nothing is learnt.

    Paper: none; news sites' "latest" page, and the baseline of evaluations of news recommenders.

    Origin of the defaults: rests are those of :class:`PopularityAgent`. Deviations: none.
    """

    name: ClassVar[str] = "recency"
    learns: ClassVar[bool] = False

    @classmethod
    def refusal(cls, setting: Setting, config: Any) -> str | None:
        """Kinds of documents have no day of release."""
        if setting.kinds:
            return "recency shows what came out last, and here documents have no day of release; use popularity"
        return None

    def act(
        self,
        rows: Floats,
        state: Any,
        starts: Flags,
        deterministic: bool,
        allowed: Flags,
        rng: np.random.Generator,
    ) -> tuple[Slates, Any]:
        """The newest first."""
        memory = self.recall(rows, state, starts)
        slates = best(self.setting.catalog.released_at, self.rested(memory, allowed), self.setting.slots)
        return slates, memory.noting(slates)

    def relevance(self, rows: Floats, state: Any, starts: Flags, allowed: Flags) -> NDArray[np.floating]:
        """The day of release [day]."""
        return np.broadcast_to(self.setting.catalog.released_at, allowed.shape)
