"""Base of sequential recommenders: the next click from the order of what was consumed."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.interaction_log import Log, Numbers
from recsim_llm.agents.core.env_runner import Floats
from recsim_llm.agents.logged.base import LoggedConfig
from recsim_llm.agents.logged.observation_log import add_timely
from recsim_llm.agents.neural.base import NeuralAgent, NeuralConfig
from recsim_llm.agents.neural.sequence_data import Sequences


@dataclass(frozen=True)
class SequenceConfig(NeuralConfig):
    """Settings of agents that read sequences.

    Attributes:
        epochs: Passes over the log in a fit.
        batch: Most windows of episodes in a step.
        length: L, most items that are read.
        looks: Whether items that were looked at and left are read, too.
        sharpness: Factor of the similarity of profile and item before training.
        negatives: Items in each softmax; where the catalogue has more, so many are drawn for each step.
        value: Power of the mean reward of a click on an item by which its probability is weighted; 0 serves clicks.
    """

    epochs: int = 6
    batch: int = 32
    length: int = 20
    looks: bool = False
    sharpness: float = 3.0
    negatives: int = 500
    value: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(1, 1_000, "length")
        self._within(0.0, 100.0, "sharpness", "value")
        self._within(1, 10**9, "negatives")


class SequenceAgent(NeuralAgent):
    """Base: windows of episodes, next-click targets, and serving after the last items."""

    Config: ClassVar[type[LoggedConfig]] = SequenceConfig
    config: SequenceConfig

    @abc.abstractmethod
    def network(self, **parts: Any) -> Any:
        """The network; ``parts`` are the arguments of :class:`~recsim_llm.agents.neural.sequence_net.SequenceNet`."""

    @property
    def trail(self) -> int:
        """L."""
        return self.config.length

    @property
    def trails_looks(self) -> bool:
        """By setting."""
        return self.config.looks

    def build(self, generator: Any) -> Any:
        """The network of this catalogue."""
        config = self.config
        return self.network(
            encodings=self.encodings, released=self.env_spec.catalog.released_at, hidden=config.hidden,
            length=config.length, drop=config.dropout, sharpness=config.sharpness, negatives=config.negatives,
            generator=generator,
        )  # fmt: skip

    def examples(self, log: Log, start: int, rng: np.random.Generator) -> tuple[int, Any]:
        """Windows with the clicks in them."""
        sequences, index = Sequences.of(log, self.config.length, self.config.looks), self.observation_log.index
        wanted = np.isin(sequences.row, self.chosen(np.sort(sequences.row), start, rng))
        row, window, position = sequences.row[wanted], sequences.window[wanted], sequences.position[wanted]
        used = np.unique(window)
        bounds = np.searchsorted(window, np.append(used, len(sequences.trail)))
        counts = np.diff(bounds)
        profile = self.observation_log.rows[index[row[bounds[:-1]]], : self.env_spec.catalog.width] * self.scale

        def batch(chosen: Numbers) -> dict[str, NDArray[Any]]:
            sequence = np.repeat(np.arange(len(chosen)), counts[chosen])
            offset = np.arange(len(sequence)) - np.repeat(np.cumsum(counts[chosen]) - counts[chosen], counts[chosen])
            clicks = bounds[chosen][sequence] + offset
            return {
                "trail": sequences.trail[used[chosen]], "profile": profile[chosen], "sequence": sequence,
                "position": position[clicks], "target": log.item[row[clicks]],
                "newest": self.observation_log.rows[index[row[clicks]], -1],
            }  # fmt: skip

        return len(used), batch

    def prepare(self) -> None:
        """Vectors of all items."""
        import torch

        net = self.trainer.net
        with torch.no_grad():
            vectors, biases = net.catalogue()
        self._vectors = vectors.numpy().T.copy()
        self._alike = (biases.numpy() + self.config.value * np.log(self.value)).astype(np.float32)
        self._timely = np.concatenate([np.zeros(1, np.float32), net.fresh.detach().numpy()])

    def scores(self, obs: Floats, session: Any) -> NDArray[np.floating]:
        """Logits after the last items, and worth."""
        import torch

        count = np.count_nonzero(session.trail >= 0, axis=1)
        # the newest is last in a trail; networks read from the first place on
        shift = (np.arange(self.trail) + self.trail - count[:, None]) % self.trail
        trail = np.take_along_axis(session.trail, shift, 1)
        longest = max(int(count.max(initial=0)), 1)
        profile = self.env_spec.part("profile", obs) * self.scale
        with torch.no_grad():
            found = self.trainer.net.queries(torch.from_numpy(trail[:, :longest]), torch.from_numpy(profile))
        scores: Floats = found.numpy()[np.arange(len(obs)), count] @ self._vectors + self._alike
        catalog = self.env_spec.catalog
        add_timely(
            scores, session.memory.wear, catalog.topic, catalog.released_at, session.newest, self._timely
        )  # fmt: skip
        return scores
