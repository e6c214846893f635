"""Agents that remember what they showed in an episode, as every recommender in service does.

An item seen a moment ago is not wanted again, and nothing in an observation tells which it was. So these agents keep
the last ``memory`` slates of each lane in ``predict``'s state and leave their items out, as long as others are there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from recsim_llm.agents.base import Agent
from recsim_llm.agents.config import Config
from recsim_llm.agents.lanes import Flags, Floats
from recsim_llm.agents.slates import CLICK, Memory
from recsim_llm.errors import ConfigError

WEAR_LEFT = 0.95
"""Share of the wear of a topic that is left after one step within a session; after a break nothing is."""


@dataclass(frozen=True)
class RememberingConfig(Config):
    """Settings of agents that remember.

    Attributes:
        memory: Steps for which a shown item is not shown again in the same episode [steps]; 0 shows the best always.
    """

    memory: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(0, 100_000, "memory")


class RememberingAgent(Agent):
    """Base of agents whose state is a :class:`~recsim_llm.agents.slates.Memory`."""

    Config: ClassVar[type[Config]] = RememberingConfig
    config: RememberingConfig

    def recall(self, rows: Floats, state: Any, starts: Flags) -> Memory:
        """The memory of B lanes with the feedback in their observations [B, P] taken in."""
        lanes, setting = len(rows), self.setting
        memory = Memory.empty(lanes, self.config.memory, setting) if state is None else state
        if not isinstance(memory, Memory) or len(memory.last) != lanes:
            raise ConfigError(f"state must be what predict() returned before for the same {lanes} lanes, got {state!r:.60}")
        return memory.renewed(
            starts,
            setting.context("session_step", rows) == 0.0,
            setting.feedback(rows)[:, :, CLICK],
            setting.catalog.topic,
            WEAR_LEFT,
        )
