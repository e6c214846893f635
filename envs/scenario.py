"""A scenario: a world, the rules its users live by, and what the recommender is paid for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from recsim_llm.simulator import Rules


@dataclass(frozen=True)
class Scenario:
    """Parameters of one environment.

    Attributes:
        name: Name in the environment's id.
        world: Built-in world that it uses unless another is named.
        slate_size: K, items shown at each step.
        rules: How users behave.
        reward: Weights of the reward terms.
        horizon: Steps after which an episode is truncated.
    """

    name: str
    world: str
    slate_size: int
    rules: Rules = field(default_factory=Rules)
    reward: Mapping[str, float] = field(default_factory=lambda: {"click": 1.0})
    horizon: int = 100

    @property
    def id(self) -> str:
        """The registered id."""
        return f"recsim_llm/{self.name}-v0"

    def to_dict(self) -> dict[str, object]:
        """As plain data."""
        return {**dataclasses.asdict(self), "reward": dict(self.reward), "id": self.id}
