"""Filter-bubble metrics: effective numbers of themes in tastes and in what was shown."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.errors import ConfigError

Floats = NDArray[np.float64]


def effective_themes(leaning: NDArray[Any]) -> Floats:
    """Effective number of themes of a taste: exp of the entropy of softmax(leaning).

    1 is a taste for one theme alone, T one for all alike (Hill number of order 1; Jost 2006).

    Args:
        leaning: Utility of each theme [..., T] [logit], as in ``info["truth_leaning"]``.
    """
    logits = np.asarray(leaning, np.float64)
    logits = logits - logits.max(axis=-1, keepdims=True)
    shares = np.exp(logits)
    return _hill(shares / shares.sum(axis=-1, keepdims=True))


def effective_shown(counts: NDArray[Any]) -> Floats:
    """Effective number of themes (or creators) shown, from the counts of each [..., T].

    Raises:
        ConfigError: If nothing was shown or a count is negative.
    """
    numbers = np.asarray(counts, np.float64)
    totals = numbers.sum(axis=-1, keepdims=True)
    if (numbers < 0).any() or (totals <= 0).any():
        raise ConfigError("counts must not be negative and must have something in each row; got a row without any")
    return _hill(numbers / totals)


def narrowing(before: NDArray[Any], after: NDArray[Any]) -> Floats:
    """Narrowing of a taste: 1 - effective themes after / before; negative where it widened.

    Args:
        before: ``truth_leaning`` [..., T] at the beginning.
        after: The same later on.
    """
    return 1.0 - effective_themes(after) / effective_themes(before)


def _hill(shares: Floats) -> Floats:
    logs = np.log(np.where(shares > 0, shares, 1.0))
    spread: Floats = np.exp(-(shares * logs).sum(axis=-1))
    return spread
