"""Infos that only some scenarios and protocols have: money, living providers, opting out, drift."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.simulator.live_judge import LiveSimulator
from recsim_llm.simulator.simulator import Simulator

Infos = dict[str, NDArray[Any]]


def extra_infos(simulator: Simulator) -> Infos:
    """Public facts of the last step, [B] each, the same keys at every step of an environment.

    revenue: where money is earned, of this step [currency]; cvr: purchases by click; budget_spent: share of today's
    budgets that providers have spent; pacing: that, by the share of the day that is over (1 is even spending), both 0
    with privacy; living_providers: providers who still publish; judge_missing: with a live judge, slots that it gave no
    rating for; opted_out: whether the user did.
    """
    lane, rules = simulator.state.lane, simulator.rules
    infos: Infos = {}
    if rules.bids > 0 or rules.price_weight != 0:
        infos["revenue"] = lane["revenue"].astype(np.float64)
        infos["cvr"] = lane["purchases"] / np.maximum(lane["total_clicks"], 1)
    if rules.bids > 0:
        spending = simulator.spending()
        if simulator.variant.epsilon > 0:  # what is billed would tell the click
            spending[:, 0] = 0.0
        infos["budget_spent"] = spending[:, 0] / np.maximum(spending[:, 1], 1e-9)
        now, began = (rules.start_day + lane[name] / 86400.0 for name in ("clock", "began"))
        today = np.where(np.floor(now) == np.floor(began), began % 1.0, 0.0)
        gone = (now % 1.0 - today) / (1.0 - today)
        infos["pacing"] = infos["budget_spent"] / np.maximum(gone, 1e-3)
    if rules.audience_life > 0:
        infos["living_providers"] = simulator.living()
    if isinstance(simulator, LiveSimulator):
        infos["judge_missing"] = simulator.missing
    if simulator.variant.opt_out > 0:
        infos["opted_out"] = lane["opted_out"].copy()
    return infos


def truth_infos(simulator: Simulator) -> Infos:
    """Latent facts beside the truth of the items.

    truth_leaning [B, T]: utility of the middle of each theme [logit]; truth_regime [B]: shifts of taste so far;
    truth_reward [B]: reward whatever was reported of it.
    """
    lane, variant = simulator.state.lane, simulator.variant
    infos: Infos = {"truth_leaning": simulator.leaning()}
    if variant.drift != "none":
        infos["truth_regime"] = lane["regime"].astype(np.int64)
    if variant.reports:
        infos["truth_reward"] = np.where(lane["step"] > 0, simulator.outcome.reward, 0.0)
    return infos
