"""Task variants: settings that make any scenario harder, such as cold users, drift, noise and privacy."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from recsim_llm.errors import ConfigError, unknown

DRIFTS = ("none", "abrupt", "gradual", "recurring")


@dataclass(frozen=True)
class TaskVariant:
    """What makes a task harder than its scenario alone. The defaults change nothing.

    Attributes:
        cold_users: The recommender does not get the users' persona texts: their profile is zeros.
        warm_start: Items that each user has engaged with, and the recommender has seen, before the episode; they are
            the ones she likes best out of ``WARM_CHOICES`` random ones. 0 is no history.
        cold_items: Share of the catalogue that is released during the episode.
        cold_days: Time in which they are released, evenly [day].
        drift: Shift of tastes at known change points: "none"; "abrupt", to those of another user every
            ``drift_period`` steps; "gradual", on the way there all the time; "recurring", there and back.
        drift_period: Steps between change points.
        drift_size: Share of taste that is replaced, from 0 to 1.
        drift_common: Whether all users shift to the taste of the same other user, as with a fashion, instead of one
            each. Then what is liked on average shifts too.
        satiation: Factor on the attraction that a satiated topic loses.
        retention: Days after which an episode is truncated, whatever the number of steps; 0 is no such horizon.
        opt_out: Share of users who opted out: no profile, no id, and no history is kept of them.
        noise: Probability that the click of a shown slot is reported wrongly.
        missing: Probability that nothing is reported of a shown slot.
        delay: Steps by which feedback (and the reward that rests on it) comes late.
        epsilon: Local differential privacy of each shown slot: her click is reported by randomised response, right
            with probability e^epsilon / (1 + e^epsilon), and nothing else is reported (Warner 1965; Kairouz et al.
            2014). Two slates that differ in one click differ in at most two slots: 2 epsilon. The time of day is not
            told either, as it moves by what she reads. What any platform sees without a report is not covered: that she
            comes, leaves or stays away, the day, and what is on the shelf. 0 is no privacy.
    """

    cold_users: bool = False
    warm_start: int = 0
    cold_items: float = 0.0
    cold_days: float = 14.0
    drift: str = "none"
    drift_period: int = 50
    drift_size: float = 1.0
    drift_common: bool = False
    satiation: float = 1.0
    retention: float = 0.0
    opt_out: float = 0.0
    noise: float = 0.0
    missing: float = 0.0
    delay: int = 0
    epsilon: float = 0.0

    def __post_init__(self) -> None:
        if self.drift not in DRIFTS:
            raise unknown("drift", self.drift, DRIFTS)
        for name in ("cold_users", "drift_common"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} must be true or false, got {getattr(self, name)!r}")
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            whole = name in _WHOLE
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
                raise ConfigError(f"{name} must be a {'whole ' if whole else ''}number, got {value!r}")
            if not low <= value <= high:
                raise ConfigError(f"{name} must lie in [{low:g}, {high:g}], got {value}")
        if self.cold_days <= 0:
            raise ConfigError(f"cold_days must be above 0, got {self.cold_days}")
        if self.epsilon > 0 and self.noise > 0:
            raise ConfigError(
                f"noise={self.noise} and epsilon={self.epsilon} both flip reported clicks; set one of them: "
                "randomised response with epsilon is noise of probability 1 / (1 + e^epsilon)"
            )

    @property
    def reports(self) -> bool:
        """Whether the recommender sees other feedback than what users did."""
        return self.noise > 0 or self.missing > 0 or self.delay > 0 or self.epsilon > 0

    def changes(self) -> dict[str, Any]:
        """The fields that differ from the defaults, as plain data."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        }

    def packed(self) -> dict[str, float]:
        """Numbers as the compiled rules read them."""
        flip = 1.0 / (1.0 + math.exp(self.epsilon)) if self.epsilon > 0 else self.noise
        return {
            "cold_users": self.cold_users,
            "warm_start": self.warm_start,
            "shift": DRIFTS.index(self.drift),
            "shift_period": self.drift_period,
            "shift_size": self.drift_size,
            "shift_common": self.drift_common,
            "opt_out": self.opt_out,
            "reports": self.reports,
            "flip": flip,
            "missing": self.missing,
            "bit_only": self.epsilon > 0,
        }

    def change_points(self, steps: int) -> list[int]:
        """Steps before which tastes have shifted, up to ``steps``; for gradual drift, where the direction changes."""
        return [] if self.drift == "none" else list(range(self.drift_period, steps, self.drift_period))


_RANGES: dict[str, tuple[float, float]] = {
    "warm_start": (0, 1000), "cold_items": (0, 0.95), "cold_days": (0, 10_000), "drift_period": (1, 1_000_000),
    "drift_size": (0, 1), "satiation": (0, 100), "retention": (0, 10_000), "opt_out": (0, 1), "noise": (0, 1),
    "missing": (0, 1), "delay": (0, 1000), "epsilon": (0, 50),
}  # fmt: skip
_WHOLE = ("warm_start", "drift_period", "delay")

VARIANT_NUMBERS = tuple(TaskVariant().packed())
"""Fields of the compiled parameters that come from the task variant."""

SHARES_OF_VARIANT = ("shift_size", "opt_out", "flip", "missing")
"""Those of them that are no whole numbers."""
