"""What DQN, SAC and TD3 have in common: they learn from a replay buffer of slates."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, ClassVar

from numpy.typing import NDArray

from recsim_llm.agents.common.sampling import uniform_slates
from recsim_llm.agents.core.env_runner import Slates, Transition
from recsim_llm.agents.sb3.base import Arrays, Sb3Agent, Sb3Config
from recsim_llm.errors import DataError

REPLAY = "replay/"


@dataclass(frozen=True)
class OffPolicyConfig(Sb3Config):
    """Settings of agents that learn from a replay buffer.

    Attributes:
        buffer: Steps of users that are kept, summed over lanes [steps].
        warmup: Steps of users for which items are shown at random, before the first update [steps].
        period: Steps of users between two updates, summed over lanes; where there are more lanes, as many updates
            follow at once as belong to a step of all of them [steps].
        updates: Steps of the optimiser in each update.
        batch: Steps of users in each of them.
    """

    buffer: int = 50_000
    warmup: int = 1_000
    period: int = 64
    updates: int = 1
    batch: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(1, 100_000_000, "buffer", "period", "batch")
        self._within(0, 100_000_000, "warmup")
        self._within(1, 10_000, "updates")


class OffPolicyAgent(Sb3Agent):
    """Base of agents with a replay buffer; in rollouts as in serving they show only what is on the shelf and rested."""

    Config: ClassVar[type[OffPolicyConfig]] = OffPolicyConfig
    config: OffPolicyConfig
    size: ClassVar[float] = 1.0
    """Root mean square of rewards as the algorithm is told of them."""

    def arguments(self, **replay: Any) -> dict[str, Any]:
        """Arguments that all of the library's algorithms take; ``replay`` are those of the buffer."""
        from recsim_llm.agents.sb3.replay import SlateReplay

        config, lanes = self.config, self.runner.count
        return {
            "learning_rate": config.learning_rate, "gamma": config.gamma, "device": self.device,
            "buffer_size": max(config.buffer, lanes), "learning_starts": config.warmup, "batch_size": config.batch,
            "train_freq": max(config.period // lanes, 1),
            "gradient_steps": config.updates * max(lanes // config.period, 1),
            "replay_buffer_class": SlateReplay,
            "replay_buffer_kwargs": {
                "rng": self.rng, "slate_size": self.env_spec.slate_size,
                "scale": lambda: self.reward_scale * self.size, **replay,
            },
        }  # fmt: skip

    @property
    def told_scale(self) -> float:
        """The buffer keeps rewards as they are, and scales them when it is drawn from."""
        return 1.0

    def explored(self) -> Slates:
        """What to show to the lanes next while learning, [B, K]."""
        if self.num_timesteps < self.config.warmup:
            return uniform_slates(self.open(), self.env_spec.slate_size, self.rng)
        return self.tried()

    @abc.abstractmethod
    def tried(self) -> Slates:
        """The same after the warm-up."""

    def played(self, actions: NDArray[Any]) -> Transition:
        """Shows what :meth:`explored` chose."""
        return self.show(actions)

    def arrays(self) -> Arrays:
        """Those of all agents of the library, and the replay buffer."""
        kept = {REPLAY + name: array for name, array in self.model.replay_buffer.arrays().items()}
        return super().arrays() | kept

    def extra(self) -> dict[str, Any]:
        """Counters of the algorithm, and where the buffer goes on."""
        return super().extra() | {"position": int(self.model.replay_buffer.pos)}

    def restore(self, arrays: Arrays, extra: dict[str, Any], source: object) -> None:
        """Takes them over, every name and shape checked."""
        kept = {name.removeprefix(REPLAY): array for name, array in arrays.items() if name.startswith(REPLAY)}
        rest = {name: array for name, array in arrays.items() if not name.startswith(REPLAY)}
        counters = dict(extra)
        position = counters.pop("position", None)
        if type(position) is not int:
            raise DataError(f"{source}: the position of the replay buffer must be a whole number, got {position!r}")
        super().restore(rest, counters, source)
        lanes = kept["dones"].shape[1] if "dones" in kept and kept["dones"].ndim == 2 else self.runner.count
        if lanes != self.runner.count:  # another environment: what other lanes did is not continued
            return
        self.model.replay_buffer.restore(kept, position, self.env_spec.items, source)
