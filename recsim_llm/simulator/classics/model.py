"""One MDP in the form that the simulator of the classics runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


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


class Parameters(Protocol):
    """Constants of an MDP, which know how to run it."""

    def model(self, resample: bool) -> Model:
        """The MDP as the simulator runs it; ``resample`` draws new candidates for every user and step."""
