"""Visual Bayesian personalised ranking: factors of items that nobody has clicked come from what they look like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.interaction_log import Log, Numbers
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import EnvironmentSpec, Floats, Slates
from recsim_llm.agents.logged.bpr import Wanted
from recsim_llm.agents.logged.popularity_blend import HeldOutBlendAgent, HeldOutBlendConfig, Scores, newest
from recsim_llm.agents.logged.user_item_matrix import CALM, UserItemMatrix
from recsim_llm.agents.logged.vbpr_steps import Floats64, VisualFactors, ascend_visual
from recsim_llm.agents.neural.cross_modal import checked_modalities, columns_of, without_images

SPREAD = 0.1


@dataclass(frozen=True)
class VBPRConfig(HeldOutBlendConfig):
    """Settings of :class:`VBPRAgent`.

    Attributes:
        modalities: Which encodings are the visual features: "both", "text", "image", or "ids" for none.
        factors: F, width of the factors that items have of their own.
        visual: V, width of the factors that come from features.
        epochs: Draws of pairs in each fit, in multiples of the clicks in the log.
        rate: Step size.
        shrink: L2 penalty of factors and biases.
        shrink_visual: L2 penalty of the projection and of the bias of features.
    """

    modalities: str = "both"
    factors: int = 8
    visual: int = 16
    epochs: int = 30
    rate: float = 0.05
    shrink: float = 0.01
    shrink_visual: float = 0.001

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within(1, 256, "factors", "visual")
        self._within(1, 10_000, "epochs")
        self._within(1e-9, 1.0, "rate")
        self._within(0.0, 1e6, "shrink", "shrink_visual")
        checked_modalities(self.modalities)


class VBPRAgent(HeldOutBlendAgent):
    """Learns factors of items, and of what they look like, by which clicked items rank before those not clicked.

    Equation: maximise the sum of ln sigma(x_ui - x_uj) - shrink |theta|^2 / 2 over users u, items i that they clicked
    and items j drawn as in BPR; x_ui = beta_i + gamma_u . gamma_i + theta_u . (E f_i) + beta' . f_i with features f_i;
    by stochastic gradient ascent.

    Paper: He and McAuley (2016), "VBPR: visual Bayesian personalized ranking from implicit feedback".

    The features are the encodings of text and image, or those that ``modalities`` says; where the catalogue has no
    images, "both" is the text alone and "image" is refused. A user of an episode is folded in by her clicks i: her
    vectors are the sums of gamma_i and of E f_i less as many times the means of what she left (drawn towards those of
    all items), the direction of the first step of ascent from vectors of zero. An item that nobody has clicked has
    E f_i and beta' . f_i; its gamma_i, drawn to zero by nothing but the penalty, is set to zero.

    Origin of the defaults: those of BPR. Deviations: (1) the score is blended with click rates in place of beta_i; the
    rate of an item is drawn, as by ``strength`` looks, towards what beta' . f_i foretells and not towards the mean of
    all; (2) new users are folded in without gradient steps; (3) the log is gathered under uniform random slates; (4)
    what was just shown rests; (5) the constant and the users' biases, which cancel in pairs, are left out.

    Attributes:
        model: Factors and biases.
        contents: [I, C] features f.
    """

    name: ClassVar[str] = "vbpr"
    Config: ClassVar[type[Config]] = VBPRConfig
    config: VBPRConfig

    @classmethod
    def refusal(cls, env_spec: EnvironmentSpec, config: Any) -> str | None:
        """Needs images where nothing else is to be read."""
        return without_images(cls.name, env_spec.catalog, config.modalities)

    def setup(self, rng: np.random.Generator) -> None:
        """No log; an unfitted model."""
        catalog = self.env_spec.catalog
        columns, _ = columns_of(catalog, self.config.modalities)
        scale = 1.0 / (float(np.sqrt(np.square(catalog.embedding).sum(1).mean())) or 1.0)
        self.contents: Floats64 = catalog.embedding[:, columns].astype(np.float64) * scale
        super().setup(rng)

    def blank_model(self, users: int) -> None:
        """Factors of zero."""
        config, items = self.config, self.env_spec.items
        self.model = VisualFactors.blank(users, items, config.factors, config.visual, self.contents.shape[1])
        self.foretold: Floats64 = np.zeros(items)
        self._known: Numbers = np.zeros(users, np.int64)

    def fit_model(self, log: Log) -> None:
        """From small random factors."""
        rng, user_item = self.fit_rng(), self.user_item(log)
        self.blank_model(len(user_item.users))
        self._known = user_item.users
        self.model.begin(rng, SPREAD)
        unseen = np.ones(self.env_spec.items, np.bool_)
        unseen[log.item] = False
        self.model.items[unseen] = 0.0
        self._ascend(user_item, np.flatnonzero(user_item.clicks > 0), self.config.epochs, rng)
        self._foretell(log)

    def absorb_model(self, log: Log, start: int) -> None:
        """Steps for the new clicks; users that are new start as vectors of zero."""
        user_item, rng, model = self.user_item(log), self.fit_rng(start), self.model
        rows = np.searchsorted(user_item.users, self._known)
        for name in ("users", "tastes"):
            table = np.zeros((len(user_item.users), getattr(model, name).shape[1]))
            table[rows] = getattr(model, name)
            setattr(model, name, table)
        self._known = user_item.users
        clicked = start + np.flatnonzero(log.click[start:] > 0)
        row = np.searchsorted(user_item.users, log.user[clicked])
        cells = user_item.rows() * self.env_spec.items + user_item.item
        self._ascend(user_item, np.searchsorted(cells, row * self.env_spec.items + log.item[clicked]), 1, rng)
        self._foretell(log)

    def _ascend(self, user_item: UserItemMatrix, cells: Numbers, epochs: int, rng: np.random.Generator) -> None:
        """``epochs`` passes over clicks, cells of the baskets, each against an item drawn at random."""
        user, wanted, model, config = user_item.rows(), Wanted.of(user_item), self.model, self.config
        room = np.zeros(self.contents.shape[1]), np.zeros(config.visual)
        for _ in range(epochs):
            order = cells[rng.permutation(len(cells))]
            against = wanted.against(user[order], rng)
            ascend_visual(
                user[order], user_item.item[order], against, self.contents, model.users, model.items, model.bias,
                model.tastes, model.projection, model.visual_bias, *room, config.rate, config.shrink,
                config.shrink_visual,
            )  # fmt: skip

    def _foretell(self, log: Log) -> None:
        """Click rates of items by the bias of their features: least squares over the looks of a log."""
        looked, feature = np.bincount(log.item, minlength=self.env_spec.items), self.contents @ self.model.visual_bias
        clicked = np.bincount(log.item, weights=log.click, minlength=self.env_spec.items)
        total = max(looked.sum(), 1)
        mean, centre = clicked.sum() / total, (looked @ feature) / total
        spread = looked @ np.square(feature - centre)
        slope = max(float((clicked - mean * looked) @ (feature - centre)) / spread, 0.0) if spread > 0 else 0.0
        self.foretold = np.clip(mean + slope * (feature - centre), 0.0, 1.0)

    def popularity(self) -> NDArray[np.float64]:
        """[I] click rates, drawn towards what the features foretell."""
        counts, strength = self.counts, self.config.strength
        if not self.fitted:
            return super().popularity()
        rates: Floats64 = (counts.gains + strength * self.foretold) / (counts.looks + strength)
        return rates

    def personal(self, rows: Floats, session: Any) -> Scores:
        """Products of the users folded in and the items."""
        return self.folded(session) @ self.vectors().T

    def vectors(self) -> Floats64:
        """[I, F + V] factors of items: gamma_i and E f_i."""
        return np.concatenate([self.model.items, self.contents @ self.model.projection.T], 1)

    def folded(self, session: Any) -> Floats64:
        """[B, F + V] vectors of users by what they clicked and left in their sessions."""
        vectors = self.vectors()
        padded = np.vstack([vectors, np.zeros((1, vectors.shape[1]))])  # an empty place, -1, is the last row

        def total(items: Slates) -> Floats64:
            summed: Floats64 = np.stack([padded[column] for column in items.T]).sum(0)
            return summed

        against = vectors.mean(0)[None]
        if self.looked[0]:
            left = newest(session.left)
            count = (left >= 0).sum(1, keepdims=True)
            against = (total(left) + CALM * against) / (count + CALM)
        found: Floats64 = total(newest(session.history)) - session.clicks()[:, None] * against
        return found

    def model_arrays(self) -> dict[str, NDArray[Any]]:
        """Factors and biases."""
        return {**vars(self.model), "foretold": self.foretold, "known": self._known}
