"""Settings of agents: one frozen dataclass each, checked when it is built."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self, get_type_hints

from recsim_llm.errors import ConfigError, unknown


@dataclass(frozen=True)
class Config:
    """Base of all settings. Subclasses give each field a default and check its range in ``__post_init__``.

    Attributes:
        packaged: Settings that may name a folder, an id of a hub or an address, and those of their values that come
            with packages: no other one is taken from an agent's file.
    """

    packaged: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for field in dataclasses.fields(self):
            self._check_type(field.name, hints[field.name])

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Builds the settings from names and values.

        Raises:
            ConfigError: If a name is not a setting (the message has the closest one) or a value not valid.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in names:
                raise unknown("setting", name, names)
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return dataclasses.asdict(self)

    def outside(self) -> dict[str, str]:
        """What the settings name outside of the installed packages, by setting."""
        named = {name: getattr(self, name) for name in self.packaged}
        return {name: value for name, value in named.items() if value not in self.packaged[name]}

    def _check_type(self, name: str, kind: Any) -> None:
        value = getattr(self, name)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            object.__setattr__(self, name, float(value))
        elif not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ConfigError(f"setting {name} must be a {kind.__name__}, got {value!r}")
        if kind is float and not math.isfinite(getattr(self, name)):
            raise ConfigError(f"setting {name} must be finite, got {value!r}")

    def _within(self, low: float, high: float, *names: str) -> None:
        """Checks that the named numbers lie in [low, high]."""
        for name in names:
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"setting {name} must lie in [{low:g}, {high:g}], got {value!r}")
