"""Neural-linear: Thompson sampling with Bayesian linear regression on features that a network learns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.features import SCALARS, Features, Situation
from recsim_llm.agents.common.item_stats import credited
from recsim_llm.agents.contextual.base import ContextualAgent, ContextualConfig, ContextualState, RidgeRegression, Seen
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import EnvironmentSpec, Flags, Floats, Slates, Transition
from recsim_llm.errors import ConfigError, DataError, require

Floats64 = NDArray[np.float64]

KNOWN = SCALARS - 2
"""Features that no network learns, besides context and slot: wear, freshness, mean reward, price, looks, clicks."""
DEVICES = ("cpu", "cuda", "auto")


@dataclass(frozen=True)
class NeuralLinearConfig(ContextualConfig):
    """Settings of :class:`NeuralLinearAgent`.

    Attributes:
        growth: Share by which the data must have grown before theta is computed again; 0 is at every step.
        rank: R, numbers in the learnt vector of an item.
        hidden: Width of the hidden layers.
        period: Steps of users between two trainings of the network [steps].
        epochs: Passes over the buffer in each training.
        batch: Largest size of a minibatch.
        rate: Step size of Adam at the beginning of a training.
        decay: Weight decay of AdamW.
        buffer: Slots looked at that are kept for training, the last ones.
        scale: Factor of the posterior's standard deviation in draws.
        shape: a_0 of the prior of the noise's variance, Gamma^-1(a_0, b_0).
        spread: b_0 / a_0, about the variance expected.
        device: Where the network is trained: "cpu", "cuda", or "auto" for the second where there is one.
    """

    growth: float = 0.05
    rank: int = 16
    hidden: int = 64
    period: int = 4_000
    epochs: int = 1
    batch: int = 256
    rate: float = 1e-3
    decay: float = 1e-2
    buffer: int = 50_000
    scale: float = 0.5
    shape: float = 6.0
    spread: float = 0.2
    device: str = "cpu"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(0.0, 1e6, "growth")
        self._within(1, 4_096, "rank", "hidden")
        self._within(1, 1_000_000_000, "period", "buffer", "batch")
        self._within(1, 10_000, "epochs")
        self._within(1e-9, 1.0, "rate")
        self._within(0.0, 1e3, "decay", "scale")
        self._within(1e-9, 1e9, "shape", "spread")
        if self.device not in DEVICES:
            raise ConfigError(f"setting device must be one of {', '.join(DEVICES)}, got {self.device!r}")


class TowerFeatures(Features):
    """Features of learnt vectors before the encodings: of items, and of users twice, for profile and for interest."""

    def __init__(self, env_spec: EnvironmentSpec, rank: int) -> None:
        super().__init__(env_spec, rank)
        self.width, self.scale = rank, np.float32(1.0)
        self.items = np.concatenate([np.zeros((env_spec.items, rank), np.float32), self.items], 1)
        self.count = self.fixed + 3 * rank + SCALARS


class NeuralLinearAgent(ContextualAgent):
    """Learns features of users and items with a network, and explores with a Bayesian regression on them.

    Equation: networks give vectors h, h' of a user (from persona p, interest z and context) and g of an item (from its
    encoding x), trained to predict rewards by a linear head on phi = [1, context, slot, g, h * g, h' * g, h.g + p.x,
    h'.g + z.x, wear, freshness, mean reward, price, looks, clicks]. In the place of the head, for exploration,

        sigma^2 ~ Gamma^-1(a, b),  theta ~ N(mu, scale^2 sigma^2 L^-1)
        L = ridge I + sum phi phi^T,  mu = L^-1 sum r phi,  a = a_0 + n / 2,  b = b_0 + (sum r^2 - mu^T L mu) / 2

    for every user and step, and the slate is the K highest theta . phi. With ``deterministic`` theta is mu.

    Paper: Riquelme, Tucker and Snoek (2018), "Deep Bayesian bandits showdown", section on neural linear.

    Origin of the defaults: a_0 is that of the paper's code; widths, period and step size were chosen on training users,
    for budgets of 20,000 steps. Deviations: (1) one regression for all items on features of user and item, as items are
    too many for one each; (2) the network's features meet in products, so that all items are scored by one product of
    matrices; (3) numbers that need no learning are given to the regression directly; (4) each of B users served at a
    time has a draw of her own, and her slate comes from one draw; (5) the regression is done again over the buffer
    after each training, and only what it holds counts from then on; (6) the probability of a slate is left open.
    """

    name: ClassVar[str] = "neural_linear"
    knows_propensity: ClassVar[bool] = False
    needs_torch: ClassVar[bool] = True
    Config: ClassVar[type[Config]] = NeuralLinearConfig
    config: NeuralLinearConfig
    model: RidgeRegression

    def setup(self, rng: np.random.Generator) -> None:
        """Networks with random weights, an empty buffer, the regression's prior."""
        torch = require("torch", "agents")
        from recsim_llm.agents.common.neural_layers import Course, Trainer
        from recsim_llm.agents.contextual.neural_towers import Towers

        super().setup(rng)
        config, env_spec = self.config, self.env_spec
        self.encodings, self.scale = self.features.items, self.features.scale
        self.features: TowerFeatures = TowerFeatures(env_spec, config.rank)
        self.model = self.prior()
        self.squares = np.zeros(1)  # sum of r^2
        context = env_spec.layout["context"]
        inputs = 2 * env_spec.catalog.width + int(context.stop - context.start)
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        others = self.features.fixed + KNOWN
        net = Towers(self.encodings, inputs, config.rank, config.hidden, others, generator)
        self.trainer = Trainer(net, config.decay, config.decay, generator, config.device)
        self.course = Course(config.epochs, config.batch, config.rate)
        self.buffer = Buffer.empty(inputs, others)
        self._new: list[Buffer] = []
        self.waited = np.zeros(1, np.int64)  # steps since the last training
        self._represent()

    def _represent(self) -> None:
        """Computes the items' vectors and takes the users' network over."""
        parts = {name: weights.detach().numpy() for name, weights in self.trainer.net.named_parameters()}
        self._layers = [(parts[f"user_{at}.weight"].T.copy(), parts[f"user_{at}.bias"].copy()) for at in ("in", "out")]
        hidden = np.maximum(self.encodings @ parts["item_in.weight"].T + parts["item_in.bias"], 0.0)
        self.features.items[:, : self.config.rank] = hidden @ parts["item_out.weight"].T + parts["item_out.bias"]

    def inputs(self, obs: Floats) -> Floats:
        """What the users' network sees of observations [B, P]."""
        profile, interest, context = (self.env_spec.part(name, obs) for name in ("profile", "interest", "context"))
        return np.concatenate([self.scale * profile, self.scale * interest, context], 1)

    def vectors(self, inputs: Floats) -> Floats:
        """Both vectors of users, [B, 2 R]."""
        (first, bias), (second, shift) = self._layers
        found: Floats = np.maximum(inputs @ first + bias, 0.0) @ second + shift
        return found

    def situation(self, obs: Floats, recall: ContextualState) -> Situation:
        """With the users' vectors before profile and interest."""
        inputs, rank, width = self.inputs(obs), self.config.rank, self.env_spec.catalog.width
        vectors = self.vectors(inputs)
        profile = np.concatenate([vectors[:, :rank], inputs[:, :width]], 1)
        interest = np.concatenate([vectors[:, rank:], inputs[:, width : 2 * width]], 1)
        return replace(super().situation(obs, recall), profile=profile, interest=interest)

    def prior(self) -> RidgeRegression:
        """The regression on no data."""
        return RidgeRegression(self.features.count, self.config.ridge, self.config.growth)

    def act(
        self,
        obs: Floats,
        state: Any,
        episode_start: Flags,
        deterministic: bool,
        action_mask: Flags,
        rng: np.random.Generator,
    ) -> tuple[Slates, Any]:
        """The best under a draw for each user, or under the mean."""
        situation, rested = self.situate(obs, state, episode_start, action_mask)
        theta = self.model.theta
        if not deterministic and self.config.scale > 0.0:
            shape, rate = self.noise()
            deviation = np.sqrt(rate / rng.standard_gamma(shape, len(obs)))
            theta = self.model.draws(len(obs), self.config.scale * deviation, rng)
            self.propensity = np.full((len(obs), self.env_spec.slate_size), np.nan)
        slates, _ = self.features.top(situation, theta, rested, self.env_spec.slate_size)
        return slates, self.after(situation, slates)

    def noise(self) -> tuple[float, float]:
        """A and b of the posterior of the noise's variance."""
        config, theta = self.config, self.model.theta.astype(np.float64)
        left = float(self.squares[0] - 2.0 * theta @ self.model.moment + theta @ self.model.gram @ theta)
        shape = config.shape + 0.5 * float(self.model.samples[0])
        return shape, config.shape * config.spread + 0.5 * max(left, 0.0)

    def update(self, transition: Transition) -> None:
        """Adds the slots that were looked at; now and then trains the network, and does the regression again."""
        seen = self.seen(transition)
        self._add(seen.phi, seen.reward)
        self.counts.add(transition, credited(transition))
        self._new.append(self._noted(transition.observation, seen))
        self.waited += int(transition.valid.sum())
        if self.waited[0] >= self.config.period:
            self.waited[0] = 0
            self._train()

    def _noted(self, rows: Floats, seen: Seen) -> Buffer:
        others = np.concatenate([seen.phi[:, : self.features.fixed], seen.phi[:, -KNOWN:]], 1)
        return Buffer(self.inputs(rows)[seen.lane], seen.item, others, seen.reward)

    def _gathered(self) -> Buffer:
        """The buffer with what is new; joined now and then, as it is long."""
        self.buffer, self._new = self.buffer.extended(self._new, self.config.buffer), []
        return self.buffer

    def _train(self) -> None:
        buffer = self._gathered()
        self.trainer.train(len(buffer.item), buffer.batch, self.course, self.rng)
        self._represent()
        self.model.reset(self.config.ridge)
        self.squares[...] = 0.0
        learnt, fixed = self.learnt(buffer), self.features.fixed
        phi = np.concatenate([buffer.others[:, :fixed], learnt, buffer.others[:, fixed:]], 1)
        self._add(phi, buffer.reward)

    def learnt(self, buffer: Buffer) -> Floats:
        """The features of slots that the network learns, [N, 3 R + 2]."""
        rank, width = self.config.rank, self.env_spec.catalog.width
        h, items = self.vectors(buffer.user), self.features.items[buffer.item]
        g, x = items[:, :rank], items[:, rank:]
        first, second = g * h[:, :rank], g * h[:, rank:]
        near = x * buffer.user[:, :width], x * buffer.user[:, width : 2 * width]
        sums = [products.sum(1) + close.sum(1) for products, close in zip((first, second), near, strict=True)]
        return np.concatenate([g, first, second, np.stack(sums, 1)], 1)

    def _add(self, phi: Floats, reward: Floats) -> None:
        self.squares += float(np.square(reward, dtype=np.float64).sum())
        self.model.add(phi, reward)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Networks with their optimiser, the buffer, the regression and counts."""
        own = {"squares": self.squares, "waited": self.waited}
        return {**self.trainer.arrays(), **self._gathered().arrays(), **own, **super().arrays()}

    def restore(self, arrays: dict[str, NDArray[Any]], extra: dict[str, Any], source: object) -> None:
        """Takes over what was learnt; the buffer is as long as it was."""
        item = arrays.get("buffer/item", np.zeros(0))
        if item.dtype != np.int64 or item.ndim != 1 or not len(item) <= self.config.buffer:
            raise DataError(f"{source}: the buffer's items are {item.dtype} {item.shape}, expected int64")
        if len(item) and not 0 <= item.min() <= item.max() < self.env_spec.items:
            raise DataError(f"{source}: the buffer names items that the catalogue does not have")
        self.buffer, self._new = self.buffer.sized(len(item)), []
        super().restore(arrays, extra, source)
        self._represent()


class Buffer(NamedTuple):
    """N slots looked at, the oldest first.

    Attributes:
        user: [N, .] inputs of the users' network.
        item: [N].
        others: [N, .] features that are not learnt.
        reward: [N].
    """

    user: Floats
    item: Slates
    others: Floats
    reward: Floats

    @classmethod
    def empty(cls, inputs: int, others: int) -> Buffer:
        """Nothing in it."""
        single = np.float32
        return cls(
            np.zeros((0, inputs), single), np.zeros(0, np.int64), np.zeros((0, others), single), np.zeros(0, single)
        )

    def sized(self, count: int) -> Buffer:
        """Zeros of the same widths."""
        return Buffer(*(np.zeros((count, *part.shape[1:]), part.dtype) for part in self))

    def extended(self, more: list[Buffer], most: int) -> Buffer:
        """With more slots at the end, the last ``most`` of all."""
        columns = zip(self, *more, strict=True)
        return Buffer(*(np.concatenate(column)[-most:] for column in columns))

    def batch(self, rows: Slates) -> dict[str, Any]:
        """Some of the slots."""
        return {name: part[rows] for name, part in self._asdict().items()}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """By name."""
        return {f"buffer/{name}": part for name, part in self._asdict().items()}
