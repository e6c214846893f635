"""Choice models and dynamics by name: the built-in ones and those that users register.

Names in files and in keyword arguments are looked up here; nothing is ever imported because a file names it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from recsim_llm.errors import ConfigError, unknown
from recsim_llm.simulator.params import CHOICES

_choices: dict[str, Callable[..., Any]] = {}
_dynamics: dict[str, Callable[..., Any]] = {}


def register_choice(name: str, function: Callable[..., Any]) -> None:
    """Adds a choice model, used with ``gym.make(..., choice=name)``.

    Args:
        name: A name of your own.
        function: ``(key, attraction [K], attention [K], p, examined [K], clicked [K])``; writes the last two. It is
            compiled by numba: numbers, arrays and the functions of :mod:`recsim_llm.simulator` only; the models of
            :mod:`recsim_llm.simulator.choice` are examples.

    Raises:
        ConfigError: If the name is that of a built-in model.
    """
    if name in CHOICES:
        raise ConfigError(f"choice model {name!r} is built in; register yours under another name")
    _choices[name] = function


def register_dynamics(name: str, function: Callable[..., Any]) -> None:
    """Adds a rule for what consuming an item does to a user, used with ``gym.make(..., dynamics=name)``.

    Args:
        name: A name of your own.
        function: ``(p, key, lane, taste [D], item_code [W], satisfaction)``; changes lane and taste in place.
            Replaces :func:`recsim_llm.simulator.user_dynamics.evolve`.

    Raises:
        ConfigError: If the name is "drift", the built-in one.
    """
    if name == "drift":
        raise ConfigError('dynamics "drift" is built in; register yours under another name')
    _dynamics[name] = function


def choice_of(name: str) -> tuple[int, Callable[..., Any] | None]:
    """Number of a built-in choice model, or a registered function.

    Raises:
        ConfigError: If there is no such model.
    """
    if name in CHOICES:
        return CHOICES.index(name), None
    if name not in _choices:
        raise unknown("choice model", name, [*CHOICES, *_choices])
    return 0, _choices[name]


def dynamics_of(name: str | None) -> Callable[..., Any] | None:
    """A registered function, or None for the built-in drift.

    Raises:
        ConfigError: If there is no such dynamics.
    """
    if name is None or name == "drift":
        return None
    if name not in _dynamics:
        raise unknown("dynamics", name, ["drift", *_dynamics])
    return _dynamics[name]
