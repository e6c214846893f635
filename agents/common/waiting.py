"""Agents that keep something of each lane from one step to the next beside ``predict``'s state: steps and traces."""

from __future__ import annotations

import abc
from typing import Any

from numpy.typing import NDArray

from recsim_llm.agents.common.remembering import RememberingAgent
from recsim_llm.agents.core.env_runner import like

OWN = "own"


class WaitingAgent(RememberingAgent):
    """Base of agents whose update needs what happened in the same lane before.

    What belongs to lanes is saved with where these stand, and so left behind when learning goes on elsewhere.
    """

    @abc.abstractmethod
    def of_lanes(self) -> dict[str, NDArray[Any]]:
        """Arrays [B, ...] by name; the arrays themselves, so that they can be filled."""

    def snapshot(self) -> dict[str, Any]:
        """Where its lanes stand, and what waits in them."""
        lanes = super().snapshot()
        return {**lanes, OWN: self.of_lanes()} if lanes else {}

    def resume(self, arrays: dict[str, NDArray[Any]], rest: dict[str, Any]) -> None:
        """Goes on from a snapshot."""
        super().resume(arrays, rest)
        for name, array in self.of_lanes().items():
            array[...] = like(array, arrays[f"{OWN}/{name}"], name)
