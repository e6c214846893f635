"""Agents that remember what they showed in an episode, as every recommender in service does.

An item consumed a moment ago is not wanted again, and nothing in an observation tells which it was. So these agents
keep what each lane looked at and clicked in ``predict``'s state, and let such items rest as long as others are there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from recsim_llm.agents.common.cooldown import Memory
from recsim_llm.agents.core.base import Agent
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Flags, Floats
from recsim_llm.errors import ConfigError


@dataclass(frozen=True)
class RememberingConfig(Config):
    """Settings of agents that remember. The rests are the same for all of them, so that comparisons are of learning.

    Measured on training users, normalised score (random 0, oracle 1): mean over the six scenarios of thompson, linucb
    and ease (seed 100; 8,192 steps of learning in Ads, Music and News, 4,096 in Ecommerce, Social and Video):

        after_click / after_look    100/20   20/5    0/0    100/0
        all three                     .18     .19    .09    -.05
        thompson                      .13     .13    .02    -.22
        linucb                        .31     .34    .45     .35
        ease                          .11     .09   -.21    -.28

    Agents that know items by their number alone depend on a rest after a look: nothing else tells them that a user has
    just seen an item. Agents on features see it and would do with less. Of the two
    that are equal on average, the longer serves policy gradients better (ppo in Music .26, with 20/5 .20).

    Attributes:
        after_click: Steps for which a clicked item is not shown again in the same episode; 0 is never [steps].
        after_look: The same for an item that was looked at and left [steps].
    """

    after_click: int = 100
    after_look: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(0, 1_000, "after_click", "after_look")


class RememberingAgent(Agent):
    """Base of agents whose state is a :class:`~recsim_llm.agents.common.cooldown.Memory`."""

    Config: ClassVar[type[Config]] = RememberingConfig
    State: ClassVar[type | None] = Memory
    config: RememberingConfig

    def recall(self, obs: Floats, state: Any, episode_start: Flags) -> Memory:
        """The memory of B lanes with the feedback in their observations [B, P] taken in."""
        lanes = len(obs)
        memory = Memory.empty(lanes, self.env_spec) if state is None else state
        if not isinstance(memory, Memory) or not memory.fits(lanes, self.env_spec):
            raise ConfigError(f"state must be what predict() returned for the same {lanes} lanes, got {type(state)}")
        return memory.renewed(obs, episode_start, self.env_spec)

    def rested(self, memory: Memory, action_mask: Flags) -> Flags:
        """Items on the shelf that need no rest, [B, I]."""
        if self.env_spec.kinds:
            return action_mask
        return memory.rested(action_mask, self.config.after_click, self.config.after_look)
