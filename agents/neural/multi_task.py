"""One network with heads for click, conversion, dwell and rating, served by any weighting of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.interaction_log import Log, Numbers
from recsim_llm.agents.core.env_runner import Floats
from recsim_llm.agents.logged.base import LoggedConfig
from recsim_llm.agents.logged.observation_log import add_timely
from recsim_llm.agents.neural.base import NeuralAgent, NeuralConfig
from recsim_llm.agents.neural.two_tower import pooled_of
from recsim_llm.errors import unknown

WEIGHTS = ("click", "like", "share", "conversion", "revenue", "dwell", "rating")
"""What can be weighted; revenue is the price of what is bought, dwell is in minutes."""

BIDS = ("click_bid", "conversion_bid")
"""What else a reward may consist of: what providers pay for a click or a purchase."""

MINUTE = 60.0
LEAST_WEIGHT = 1e-4
DWELL = 4
"""Place of dwell among the heads."""

SAMPLE = 2_000
"""Slates on which the error of dwell is measured."""
Floats64 = NDArray[np.float64]


@dataclass(frozen=True)
class MultiTaskConfig(NeuralConfig):
    """Settings of :class:`MultiTaskAgent`.

    Attributes:
        epochs: Passes over the log in a fit.
        batch: Most slates in a step.
        experts: Experts that all heads share; one is a shared bottom.
        sharpness: Factor of the similarity of profile and item in the head of clicks before training.
        uncertainty: Whether heads are weighted in training by what they leave unexplained; else all alike.
        entire_space: Whether heads of what follows a click learn from all rows, by P(click) P(it | click).
        click_weight: What a click is worth when serving. When all seven are 0, they are the reward's own, found by
            least squares of what slots earned on what users did.
        like_weight: The same for a like.
        share_weight: The same for a share.
        conversion_weight: The same for a purchase.
        revenue_weight: The same for one unit of the world's currency spent on a purchase.
        dwell_weight: The same for a minute.
        rating_weight: The same for a star.
    """

    epochs: int = 3
    experts: int = 4
    sharpness: float = 6.0
    uncertainty: bool = True
    entire_space: bool = False
    click_weight: float = 0.0
    like_weight: float = 0.0
    share_weight: float = 0.0
    conversion_weight: float = 0.0
    revenue_weight: float = 0.0
    dwell_weight: float = 0.0
    rating_weight: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(1, 64, "experts")
        self._within(0.0, 100.0, "sharpness")
        self._within(-1e6, 1e6, *(f"{name}_weight" for name in WEIGHTS))


class MultiTaskAgent(NeuralAgent):
    """Multi-gate mixture of experts for what users do, served by a weighting of its heads.

    Equation: z_t(u, i) = (m_t * u + sum_e g_te(u) E_e(u)) . v_i + b_ti + w_t . (wear, fresh); P(click) = sigma(z),
    P(like, share, purchase | click) = sigma(z), log(1 + dwell) = z + noise, rating = z + noise. Losses are binary
    cross-entropy, on clicked slots for what follows a click (or, entire_space, of P(click) P(it | click) on all), and
    half the squared error; sum_t e^-s_t L_t + s_t with s learnt. Served is

        P(click) (w_click + sum_t w_t E[t | click])

    for the weights w of the settings, or of the reward.

    Paper: Ma et al. (2018), "Modeling task relationships in multi-task learning with multi-gate mixture-of-experts";
    Kendall, Gal and Cipolla (2018), "Multi-task learning using uncertainty to weigh losses"; Ma et al. (2018), "Entire
    space multi-task model".

    Heads whose signal does not occur in the log are left out. After training :meth:`reweigh` serves another weighting.

    Origin of the defaults: four experts as fits the number of tasks; width and decay as for the two towers; passes and
    sharpness by returns on training users (seed 100) of News and Music after random logs of 20,000 steps.
    Deviations: experts and gates see the user, and their mixture is multiplied with the vector of the item, so that a
    thousand items are scored by one product; heads are linear in it. The mean of dwell is that of a log-normal.
    """

    name: ClassVar[str] = "multi_task"
    Config: ClassVar[type[LoggedConfig]] = MultiTaskConfig
    foretells_reward: ClassVar[bool] = True
    config: MultiTaskConfig

    def build(self, generator: Any) -> Any:
        """The network."""
        from recsim_llm.agents.neural.multi_task_net import MultiTaskNet

        catalog, config = self.env_spec.catalog, self.config
        columns = np.concatenate([np.eye(len(catalog.topics))[catalog.topic], self.price[:, None]], 1)
        width = self.observation_log.width - 1 + catalog.width + len(catalog.topics)
        return MultiTaskNet(
            self.encodings, columns.astype(np.float32), catalog.released_at, catalog.topic, width,
            self.env_spec.slate_size,
            config.experts, config.hidden, config.dropout, config.sharpness, config.uncertainty, config.entire_space,
            generator,
        )  # fmt: skip

    def blank(self, users: int) -> None:
        """An untrained network, which serves clicks."""
        from recsim_llm.agents.neural.multi_task_net import HEADS

        self._present = np.zeros(len(HEADS))
        self._present[0] = 1.0
        self._noise, self._rated = np.zeros(1), np.ones(1)
        self._weights = np.zeros(len(WEIGHTS) + len(BIDS))
        self._weights[0] = 1.0
        super().blank(users)

    def reweigh(self, weights: Mapping[str, float]) -> None:
        """Serves another weighting from now on, until the next fit.

        Args:
            weights: Some of click, like, share, conversion, revenue, dwell (a minute), rating (a star); others are 0.

        Raises:
            ConfigError: If a name is none of them.
        """
        for name in weights:
            if name not in WEIGHTS:
                raise unknown("weight", name, WEIGHTS)
        self._weights[:] = [*(float(weights.get(name, 0.0)) for name in WEIGHTS), *(0.0 for _ in BIDS)]

    @property
    def weights(self) -> dict[str, float]:
        """What is served now."""
        return dict(zip((*WEIGHTS, *BIDS), self._weights.tolist(), strict=True))

    @property
    def heads(self) -> list[str]:
        """Heads that were learnt."""
        from recsim_llm.agents.neural.multi_task_net import HEADS

        return [name for name, present in zip(HEADS, self._present, strict=True) if present]

    def fit(self, log: Log) -> None:
        """Trains a new network."""
        super().fit(log)
        given = {name: float(getattr(self.config, f"{name}_weight")) for name in WEIGHTS}
        if any(given.values()):
            self.reweigh(given)
        else:
            self._weights[:] = weights_of(log, self.env_spec.catalog)

    def _train(self, log: Log, start: int, epochs: int, share: float) -> None:
        """Trains, and sees how far dwell is from what is expected."""
        import torch

        if not start:
            with torch.no_grad():
                self.trainer.net.bias.bias.copy_(torch.as_tensor(base_rates(log), dtype=torch.float32))
        super()._train(log, start, epochs, share)

        rng = self.fit_rng(start, 2)
        count, batch = self.examples(log, start, rng)
        arrays = batch(rng.permutation(count)[:SAMPLE])
        clicked, dwell = arrays["target"][:, 0] > 0, np.log1p(arrays["target"][:, DWELL])
        if clicked.any():
            with torch.no_grad():
                given = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
                expected = self.trainer.net.logits(given)[:, DWELL].numpy()
            self._noise[...] = np.square(dwell - expected)[clicked].mean(dtype=np.float64)

    def examples(self, log: Log, start: int, rng: np.random.Generator) -> tuple[int, Any]:
        """Slates with the situation before them, and what was done with each of their slots."""
        replay, index, target = self.replayed(log), self.observation_log.index, targets(log)
        self._present[...] = (target > 0).any(0)
        order = np.argsort(replay.moment, kind="stable")
        bounds = np.flatnonzero(np.diff(replay.moment[order], prepend=-1, append=-1))
        counts = np.diff(bounds)
        last = np.maximum.reduceat(order, bounds[:-1]) if len(order) else order
        slates = np.concatenate([np.flatnonzero(last >= start), np.flatnonzero(last < start)])
        new = int((last >= start).sum())
        slates = np.concatenate([slates[:new], rng.choice(slates[new:], min(new, len(slates) - new), replace=False)])

        def batch(chosen: Numbers) -> dict[str, NDArray[Any]]:
            picked = slates[chosen]
            size = counts[picked]
            user = np.repeat(np.arange(len(picked)), size)
            rows = order[bounds[picked][user] + np.arange(len(user)) - np.repeat(np.cumsum(size) - size, size)]
            first = order[bounds[picked]]
            views, moment = self.observation_log.rows[index[first]], replay.moment[first]
            return {
                "features": self.features(views, replay.pooled[moment], replay.wear[moment]), "user": user,
                "wear": replay.wear[moment], "newest": views[:, -1], "item": log.item[rows],
                "position": np.minimum(log.position[rows], self.env_spec.slate_size - 1), "target": target[rows],
                "present": self._present,
            }  # fmt: skip

        self._rated[...] = (log.rating > 0).sum() / max(int((log.click > 0).sum()), 1)
        return len(slates), batch

    def features(self, views: Floats, pooled: Floats, wear: Floats) -> Floats:
        """[B, F] of users: profile, interest and what was consumed, scaled like encodings, context, wear."""
        width = self.env_spec.catalog.width
        return np.concatenate([views[:, : 2 * width] * self.scale, pooled, views[:, 2 * width : -1], wear], 1)

    def prepare(self) -> None:
        """Vectors of all items."""
        import torch

        net = self.trainer.net
        with torch.no_grad():
            vectors, biases = net.catalogue()
            self._vectors, self._biases = vectors.numpy().T.copy(), (biases + net.slot[0]).numpy()
        self._timely = net.timely.detach().numpy().copy()

    def predictions(self, obs: Floats, session: Any, wanted: list[str]) -> dict[str, Floats]:
        """What is expected of every item in the first slot, each [B, I].

        Args:
            obs: [B, P] observations.
            session: The state of the lanes.
            wanted: Heads: "click" is a probability, the others are given a click: probabilities, seconds, stars.
        """
        import torch

        from recsim_llm.agents.neural.multi_task_net import BINARY, HEADS

        catalog, memory = self.env_spec.catalog, session.memory
        pooled = pooled_of(session.history, self.encodings)
        with torch.no_grad():
            features = self.features(self.observation_log.of(obs, session.newest), pooled, memory.wear)
            users = self.trainer.net.users(torch.from_numpy(features)).numpy()
        found = {}
        for name in wanted:
            head = HEADS.index(name)
            logits: Floats = users[:, head] @ self._vectors + self._biases[:, head]
            add_timely(
                logits, memory.wear, catalog.topic, catalog.released_at, session.newest, self._timely[head]
            )  # fmt: skip
            if head < BINARY:
                found[name] = np.float32(1.0) / (np.float32(1.0) + np.exp(-logits))
            elif name == "dwell":
                found[name] = np.expm1(np.clip(logits + np.float32(0.5 * self._noise[0]), np.float32(0.0), LONGEST))
            else:
                found[name] = logits
        return found

    def scores(self, obs: Floats, session: Any) -> NDArray[np.floating]:
        """The weighted sum of what is expected."""
        catalog, w = self.env_spec.catalog, self.weights
        on_click, on_sale = (catalog.bid * (catalog.bid_event == event) for event in (0.0, 1.0))
        worths: dict[str, Any] = {
            "like": w["like"], "share": w["share"], "dwell": w["dwell"] / MINUTE,
            "rating": w["rating"] * float(self._rated[0]),
            "conversion": w["conversion"] + w["revenue"] * catalog.price + w["conversion_bid"] * on_sale,
        }  # fmt: skip
        heads = [name for name in self.heads if name == "click" or np.any(worths[name])]
        found = self.predictions(obs, session, heads)
        total: NDArray[np.floating] = np.broadcast_to(w["click"] + w["click_bid"] * on_click, found["click"].shape)
        for name in heads[1:]:
            total = total + worths[name] * found[name]
        return found["click"] * total

    def learnt(self) -> dict[str, NDArray[Any]]:
        """Weights of the network and of serving."""
        return super().learnt() | {
            "weights": self._weights, "present": self._present, "noise": self._noise, "rated": self._rated
        }  # fmt: skip


LONGEST = np.float32(np.log1p(7200.0))
"""Most that is expected of log(1 + dwell)."""


def targets(log: Log) -> Floats:
    """[N, heads] what was done, in the order of the heads."""
    return np.stack([log.click, log.like, log.share, log.purchase, log.dwell, log.rating], 1)


def base_rates(log: Log) -> Floats64:
    """[heads] logits at which a fit begins: those of means, with one event and one other more, so that all are finite.

    Small steps would not get from even odds to one click in a hundred.
    """
    done, clicks = targets(log).astype(np.float64), float((log.click > 0).sum())
    looks = np.array([len(log), clicks, clicks, clicks])
    share = (done[:, :DWELL].sum(0) + 1.0) / (looks + 2.0)
    rated = done[:, DWELL + 1]
    dwell, stars = np.log1p(done[:, DWELL]).sum() / max(clicks, 1.0), rated.sum() / max((rated > 0).sum(), 1)
    return np.concatenate([np.log(share / (1.0 - share)), [dwell, stars]])


def weights_of(log: Log, catalog: Any) -> Floats64:
    """What a reward consists of: least squares of rewards of slots on what users did, [9]; a click where that fails.

    Rewards of clicked slots count from the mean of those that were left: it is what a click is instead of.

    Args:
        log: The log.
        catalog: The public catalogue.
    """
    fallback = np.zeros(len(WEIGHTS) + len(BIDS))
    fallback[0] = 1.0
    rows = log[log.click > 0]
    left = log.reward[log.click <= 0].astype(np.float64)
    reward = rows.reward.astype(np.float64) - (left.mean() if len(left) else 0.0)
    if not reward.any():
        return fallback
    price, bid, event = catalog.price[rows.item], catalog.bid[rows.item], catalog.bid_event[rows.item]
    x = np.stack(
        [
            rows.click, rows.like, rows.share, rows.purchase, rows.purchase * price, rows.dwell / MINUTE, rows.rating,
            bid * (event == 0.0), rows.purchase * bid * (event == 1.0),
        ], 1,
    ).astype(np.float64)  # fmt: skip
    size = np.maximum(np.abs(x).max(0), 1e-12)
    solution = np.linalg.lstsq(x / size, reward, rcond=1e-8)[0]
    solution[np.abs(solution) < LEAST_WEIGHT * np.abs(solution).max()] = 0.0
    weights: Floats64 = solution / size
    return weights
