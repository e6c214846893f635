"""Base of agents that fit a neural network to a log."""

from __future__ import annotations

import abc
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.cooldown import CLICK, SKIP
from recsim_llm.agents.common.interaction_log import Log, Numbers
from recsim_llm.agents.common.item_stats import looked_at
from recsim_llm.agents.common.top_k import top_k
from recsim_llm.agents.core.env_runner import Flags, Floats, Slates, Transition
from recsim_llm.agents.logged.base import EpisodeHistory, LoggedAgent, LoggedConfig, sometimes_uniform
from recsim_llm.agents.logged.observation_log import EpisodeReplay, ObservationLog, worth
from recsim_llm.errors import ConfigError, DataError, require, unknown

VIEW = "view/"
DEVICES = ("cpu", "cuda", "auto")
ONLINE_RATE = 0.3
"""Step size when learning on, over that of a fit."""


@dataclass(frozen=True)
class NeuralConfig(LoggedConfig):
    """Settings of agents with a network.

    Attributes:
        epochs: Passes over the log in a fit.
        epochs_online: Passes over new rows, and as many old ones, in an update when online.
        batch: Most examples of a step.
        learning_rate: Step size of Adam; it falls to a tenth in a fit.
        decay: Weight decay.
        shrink: The same for the vector and bias that each item has of its own beside its text.
        dropout: Share of inputs that are left out in training.
        hidden: Width of the hidden layers.
        device: Where it is trained: "cpu", "cuda", or "auto" for CUDA where there is a device; results are repeatable
            bit by bit on "cpu".
    """

    epochs: int = 5
    epochs_online: int = 2
    batch: int = 256
    learning_rate: float = 1e-3
    decay: float = 0.1
    shrink: float = 10.0
    dropout: float = 0.2
    hidden: int = 32
    device: str = "cpu"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(0, 10_000, "epochs", "epochs_online")
        self._within(1, 4_096, "hidden")
        self._within(2, 1_000_000, "batch")
        self._within(1e-9, 1.0, "learning_rate")
        self._within(0.0, 100.0, "decay", "shrink")
        self._within(0.0, 0.95, "dropout")
        if self.device not in DEVICES:
            raise unknown("device", self.device, DEVICES)


@dataclass(frozen=True)
class EpisodeSequence(EpisodeHistory):
    """State between two calls of ``predict``.

    Attributes:
        trail: [B, L] the last items that were consumed (or looked at), the newest last: twice the item, and one more
            for a click; -1 in front where there are fewer.
        newest: [B] [day] release of the newest item on the shelf.
    """

    trail: Slates
    newest: Floats


class NeuralAgent(LoggedAgent):
    """Base: rows of observations beside the log, a network, its training, and its arrays.

    Subclasses write :meth:`build`, :meth:`examples`, :meth:`prepare` and :meth:`scores`.

    Attributes:
        observation_log: What was observed before each slate of the log.
        trainer: The network and its optimiser.
    """

    needs_torch: ClassVar[bool] = True
    Config: ClassVar[type[LoggedConfig]] = NeuralConfig
    State: ClassVar[type | None] = EpisodeSequence
    config: NeuralConfig

    def setup(self, rng: np.random.Generator) -> None:
        """No log; a network that was not trained."""
        torch = require("torch", "agents")
        if self.config.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError('PyTorch finds no CUDA device; use device="cpu", or "auto" to take one where there is')
        catalog = self.env_spec.catalog
        self.scale = np.float32(1.0 / (float(np.sqrt(np.square(catalog.embedding).sum(1).mean())) or 1.0))
        self.encodings: Floats = catalog.embedding * self.scale
        spread = float(catalog.price.std()) or 1.0
        self.price: Floats = (catalog.price - catalog.price.mean()) / np.float32(spread)
        self.observation_log = ObservationLog(self.env_spec)
        self._newest: Floats | None = None
        super().setup(rng)

    @abc.abstractmethod
    def build(self, generator: Any) -> Any:
        """A network with weights from a generator of PyTorch."""

    @abc.abstractmethod
    def examples(self, log: Log, start: int, rng: np.random.Generator) -> tuple[int, Any]:
        """Examples for the rows from ``start`` on, and for as many old ones.

        Returns:
            Their number, and a function that takes numbers of examples and gives the arrays of a batch.
        """

    @abc.abstractmethod
    def prepare(self) -> None:
        """Computes from the network what serving needs."""

    @property
    def trail(self) -> int:
        """L, items that are kept in the order in which they were seen."""
        return 0

    @property
    def trails_looks(self) -> bool:
        """Whether a trail has what was only looked at, too."""
        return False

    def blank(self, users: int) -> None:
        """An untrained network."""
        import torch

        from recsim_llm.agents.common.neural_layers import Trainer

        generator = torch.Generator().manual_seed(self.fit_seed)
        config = self.config
        self.trainer = Trainer(self.build(generator), config.decay, config.shrink, generator, config.device)
        self.value: NDArray[np.float64] = np.ones(self.env_spec.items)
        self.prepare()

    def fit(self, log: Log) -> None:
        """Trains a new network."""
        self.blank(0)
        self._train(log, 0, self.config.epochs, 1.0)

    def absorb(self, log: Log, start: int) -> None:
        """Trains the network on."""
        self.trainer.generator.manual_seed(int(self.fit_rng(start).integers(2**62)))
        self._train(log, start, self.config.epochs_online, ONLINE_RATE)

    def _train(self, log: Log, start: int, epochs: int, share: float) -> None:
        from recsim_llm.agents.common.neural_layers import RATE_LEFT, Course

        rng = self.fit_rng(start, 1)
        count, batch = self.examples(log, start, rng)
        config = self.config
        course = Course(epochs, config.batch, config.learning_rate * share, RATE_LEFT if share == 1.0 else 1.0)
        self.logger["train/loss"] = self.trainer.train(count, batch, course, rng)
        catalog = self.env_spec.catalog
        self.value[...] = worth(log, catalog.price, catalog.bid, config.strength)
        self.prepare()

    def replayed(self, log: Log) -> EpisodeReplay:
        """What users had done before each slate."""
        catalog = self.env_spec.catalog
        at = self.observation_log.context.start + self.env_spec.context_names.index("session_step")
        fresh = self.observation_log.rows[self.observation_log.index[: len(log)], at] == 0.0
        return EpisodeReplay.of(log, fresh, self.encodings, catalog.topic, len(catalog.topics))

    def chosen(self, rows: Numbers, start: int, rng: np.random.Generator) -> Numbers:
        """Those of the rows of a log that are not before ``start``, and as many of those before, drawn."""
        new, old = rows[rows >= start], rows[rows < start]
        return np.concatenate([new, rng.choice(old, min(len(new), len(old)), replace=False)])

    def act(
        self,
        obs: Floats,
        state: Any,
        episode_start: Flags,
        deterministic: bool,
        action_mask: Flags,
        rng: np.random.Generator,
    ) -> tuple[Slates, Any]:
        """The best scores; when online, with some uniform slates among them."""
        visit = replace(self.session(obs, state, episode_start), newest=self.observation_log.newest(action_mask))
        rested = self.cooldown.eligible(visit.memory, action_mask)
        slates = top_k(self.served(obs, visit) + self.ties, rested, self.env_spec.slate_size)
        if self.config.online and not deterministic:
            slates, self.propensity = sometimes_uniform(slates, rested, self._share(), rng)
        return slates, visit.noting(slates)

    def relevance(
        self, obs: Floats, state: Any, episode_start: Flags, action_mask: Flags
    ) -> NDArray[np.floating] | None:
        """The scores."""
        visit = replace(self.session(obs, state, episode_start), newest=self.observation_log.newest(action_mask))
        return self.served(obs, visit)

    def session(self, obs: Floats, state: Any, episode_start: Flags) -> EpisodeSequence:
        """The state with the feedback in observations [B, P] taken in."""
        session = super().session(obs, state, episode_start)
        if not isinstance(state, EpisodeSequence):
            return self._visit(session, np.full((len(obs), self.trail), -1, np.int64))
        if state.trail.shape != (len(obs), self.trail) or state.trail.dtype != np.int64:
            raise ConfigError(f"state must be what predict() returned for the same {len(obs)} lanes")
        return self._visit(session, self._trailed(obs, state, episode_start))

    def session_of(self, history: Slates) -> EpisodeSequence:
        """The state of lanes whose users clicked ``history`` [N, H] and looked at nothing else."""
        session = super().session_of(history)
        kept = session.history[:, max(session.history.shape[1] - self.trail, 0) :] if self.trail else history[:, :0]
        trail = np.full((len(history), self.trail), -1, np.int64)
        trail[:, self.trail - kept.shape[1] :] = np.where(kept >= 0, 2 * kept + 1, -1)
        return self._visit(session, trail)

    def _visit(self, session: EpisodeHistory, trail: Slates) -> EpisodeSequence:
        newest = np.full(len(trail), self.env_spec.catalog.released_at.max(), np.float32)
        return EpisodeSequence(session.memory, session.history, trail, newest)

    def _trailed(self, obs: Floats, state: EpisodeSequence, episode_start: Flags) -> Slates:
        """Trails with the items of the last slates added."""
        if not self.trail:
            return state.trail
        feedback, last = self.env_spec.feedback(obs), state.memory.last
        clicks, skips = feedback[:, :, CLICK], feedback[:, :, SKIP]
        seen = (looked_at(clicks, skips) if self.trails_looks else clicks > 0) & (last >= 0)
        added = np.concatenate([state.trail, np.where(seen, 2 * last + (clicks > 0), -1)], 1)
        # those that are kept move to the end, in their order
        order = np.argsort(added >= 0, axis=1, kind="stable")[:, -self.trail :]
        return np.where(episode_start[:, None], -1, np.take_along_axis(added, order, 1))

    def interact(self) -> Transition:
        """One step of every lane; notes what is new on the shelf before it."""
        self._newest = self.observation_log.newest(self.runner.available())
        return super().interact()

    def update(self, transition: Transition) -> None:
        """Adds the slots that were looked at to the log, and what was observed before."""
        self.observation_log.add(transition, self._newest)
        self._newest = None
        super().update(transition)

    def fit_log(self, log: Log) -> Self:
        """Forgets the log so far and fits the model to another, of which no observations are known."""
        self.observation_log.forget(len(log))
        return super().fit_log(log)

    def learnt(self) -> dict[str, NDArray[Any]]:
        """Weights, moments of the optimiser, and the worth of a click on each item."""
        return {**self.trainer.arrays(), "value": self.value}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Those of the log and the model, and what was observed."""
        return super().arrays() | {VIEW + name: array for name, array in self.observation_log.arrays().items()}

    def restore(self, arrays: dict[str, NDArray[Any]], extra: dict[str, Any], source: object) -> None:
        """Takes over the log, what was observed, and the network."""
        views = {name.removeprefix(VIEW): array for name, array in arrays.items() if name.startswith(VIEW)}
        self.observation_log.restore(views, source)
        if self.observation_log.index.shape != arrays.get("log/item", np.zeros((0, 0))).shape:
            raise DataError(f"{source}: what was observed does not belong to the slots of the log")
        super().restore(arrays, extra, source)
        self.prepare()
