"""Fitting preference models to ratings, clicks and judges, and measuring the fit on held-out data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recsim_llm.lazy import lazy_exports

if TYPE_CHECKING:
    from recsim_llm.fitting.calibration import Calibration, fit_preferences
    from recsim_llm.fitting.distillation import Distilled, distill, distilled_world
    from recsim_llm.fitting.heldout import split_log

__all__ = ["Calibration", "Distilled", "distill", "distilled_world", "fit_preferences", "split_log"]

__getattr__ = lazy_exports(
    __name__,
    {
        "calibration": ("Calibration", "fit_preferences"),
        "distillation": ("Distilled", "distill", "distilled_world"),
        "heldout": ("split_log",),
    },
)
