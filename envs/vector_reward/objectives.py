"""Reward as a vector: what each objective of the last step was worth, in MO-Gymnasium's form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from recsim_llm.errors import ConfigError, unknown
from recsim_llm.simulator import SIGNALS
from recsim_llm.simulator.feedback import LONGEST_DWELL
from recsim_llm.simulator.params import REWARD_TERMS

OBJECTIVES = (*REWARD_TERMS, "diversity")
"""What can be an objective: the terms of a reward, and the share of pairs of the slate with different topics."""

DEFAULT = ("click", "dwell", "diversity")
MINUTE = 60.0
Values = NDArray[np.float32]


def checked(names: Sequence[str]) -> tuple[str, ...]:
    """The names of objectives as a tuple.

    Raises:
        ConfigError: If there are none, one is not known or there twice.
    """
    if isinstance(names, str) or not len(names):
        raise ConfigError(f"objectives must be a list of names, such as {list(DEFAULT)}, got {names!r}")
    for name in names:
        if name not in OBJECTIVES:
            raise unknown("objective", name, OBJECTIVES)
    if len(set(names)) != len(names):
        raise ConfigError(f"objectives must differ, got {list(names)}")
    return tuple(names)


def reward_space(names: Sequence[str], slate_size: int) -> spaces.Box:
    """The box of reward vectors [m] for slates of K items."""
    most = {
        "dwell": slate_size * float(LONGEST_DWELL) / MINUTE,
        "rating": 5.0 * slate_size,
        "return": 1.0,
        "churn": 1.0,
    }
    most |= {"diversity": 1.0, "revenue": np.inf, "satisfaction": np.inf}
    low = [-np.inf if name == "satisfaction" else 0.0 for name in names]
    high = [most.get(name, float(slate_size)) for name in names]
    return spaces.Box(np.array(low, np.float32), np.array(high, np.float32), dtype=np.float32)


def vector_rewards(simulator: Any, names: Sequence[str]) -> Values:
    """Rewards [B, m] of the last step as the recommender sees them, each objective with weight 1.

    Units are those of a reward's weights: dwell in minutes. Only "satisfaction" is latent: what users felt, whatever
    was reported.
    """
    out = np.empty((simulator.lanes, len(names)), np.float32)
    for column, name in enumerate(names):
        if name in SIGNALS:
            out[:, column] = simulator.feedback[:, :, SIGNALS.index(name)].sum(1)
            if name == "dwell":
                out[:, column] /= np.float32(MINUTE)
        else:
            out[:, column] = _OTHERS[name](simulator)
    return out


def _satisfaction(simulator: Any) -> Any:
    clicks = simulator.state.feedback[:, :, SIGNALS.index("click")].sum(1)
    return simulator.state.lane["satisfaction"] * clicks


def _returned(simulator: Any) -> Any:
    lane = simulator.state.lane
    return (lane["step"] > 0) & (lane["session_step"] == 0) & ~simulator.outcome.terminated


_OTHERS: dict[str, Callable[[Any], Any]] = {
    "revenue": lambda simulator: simulator.state.lane["revenue"],
    "satisfaction": _satisfaction,
    "return": _returned,
    "churn": lambda simulator: simulator.outcome.terminated,
    "diversity": lambda simulator: simulator.state.lane["diversity"],
}
