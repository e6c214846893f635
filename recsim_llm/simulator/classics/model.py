"""One MDP in the form that the simulator of the classics runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Model:
    """Compiled rules and their constants.

    Attributes:
        parameters: One record of numbers, [1].
        tables: Constant arrays.
        traits: Width of a user's hidden or public vector.
        terms: What a reward may weigh.
        signals: What slots report, in the order of the array of signals.
        parts: (name, width, lower bound) of the parts of an observation: of the user, of one slot's response and of one
            candidate. The upper bound is 1.
        draw: Draws one list of candidates.
        reset: Begins episodes.
        step: Steps lanes.
    """

    parameters: NDArray[np.void]
    tables: tuple[NDArray[Any], ...]
    traits: int
    terms: tuple[str, ...]
    signals: tuple[str, ...]
    parts: tuple[tuple[str, int, float], ...]
    draw: Any
    reset: Any
    step: Any


@dataclass(frozen=True)
class ChoiceModel:
    """How users choose from a slate, in the terms of :class:`recsim_llm.simulator.Rules`.

    Attributes:
        choice: "multinomial" or "position".
        no_click: Utility of clicking nothing [logit].
        position_bias: Exponent of the attention of slots, 0 for none.
    """

    choice: str
    no_click: float
    position_bias: float = 0.0


class Parameters(Protocol):
    """Constants of an MDP, which know how to run it."""

    def choice_model(self) -> ChoiceModel:
        """How users choose."""

    def truth(self, state: Any, weights: Mapping[str, float]) -> tuple[Floats64, Floats64]:
        """Attraction [logit] and expected reward of a click of each candidate, [B, C] each.

        Args:
            state: The simulator's state.
            weights: Weights of reward terms, and of "satisfaction": what a click does for the future.
        """

    def model(self, resample: bool) -> Model:
        """The MDP as the simulator runs it; ``resample`` draws new candidates for every user and step."""
