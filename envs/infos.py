"""Infos: what an environment reports beside observation and reward, for all users at once or for the first one alone.

A formula over the users' records stands here once: it is written so that it takes arrays [B] as well as plain numbers.
The scalar environment uses it on plain numbers, which is ten times as fast as arrays of one element.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.simulator import SIGNALS
from recsim_llm.simulator.live_judge import LiveSimulator
from recsim_llm.simulator.simulator import Simulator

Infos = dict[str, Any]
ALL = slice(None)
FIRST = 0
_WIDEST = {"i": np.int64, "u": np.int64, "f": np.float64, "b": np.bool_}


class RecordFields:
    """Reads some fields of the users' records, of all users as arrays [B] or of the first one as plain numbers.

    Args:
        record: The structured dtype of a user's record.
        names: The fields, in the order in which they are read.
    """

    def __init__(self, record: np.dtype[np.void], names: Sequence[str]) -> None:
        self._widest = [(name, _WIDEST[record[name].kind]) for name in names]
        self._picked = operator.itemgetter(*((record.names or ()).index(name) for name in names))

    def of_all(self, records: NDArray[np.void]) -> list[NDArray[Any]]:
        """Arrays [B]: int64, float64 or bool."""
        return [records[name].astype(kind) for name, kind in self._widest]

    def of_first(self, records: NDArray[np.void]) -> Sequence[Any]:
        """Python's numbers; the whole record is read at once, as field by field takes four times as long."""
        numbers: Sequence[Any] = self._picked(records.item(0))
        return numbers


def row(infos: Infos, lane: int = FIRST) -> Infos:
    """The info of one user: Python's numbers, and arrays without the first axis. Gymnasium's masks are left out."""
    return {
        name: array[lane].item() if array.ndim == 1 else array[lane]
        for name, array in infos.items()
        if not name.startswith("_")
    }


def user_infos(
    simulator: Simulator, opted_out: Any, user: Any, clicks: Any, total_clicks: Any, total_examined: Any, wasted: Any,
    session: Any, clock: Any, diversity: Any,
) -> Infos:  # fmt: skip
    """Counts of the step and the episode, from fields of the users' records: arrays [B] or plain numbers."""
    day = simulator.rules.start_day + clock / 86400.0
    return {
        "user_id": user - opted_out * (user + 1),  # -1 for those who opted out
        "clicks": clicks,
        "ctr": total_clicks / (total_examined + (total_examined == 0)),
        "wasted": wasted,
        "session": session,
        # With privacy the day alone: the time of day tells how long she has read.
        "day": day // 1.0 if simulator.variant.epsilon > 0 else day,
        "diversity": diversity,
    }


USER_FIELDS = (
    "opted_out", "user", "clicks", "total_clicks", "total_examined", "wasted", "session", "clock", "diversity",
)  # fmt: skip
"""Fields of a user's record that :func:`user_infos` takes, in its order."""


def add_slot_infos(infos: Infos, simulator: Simulator, lanes: slice | int) -> None:
    """Adds what was shown and done in each slot of the slate: [B, K] for all lanes, [K] for one."""
    infos["slate"] = simulator.slate[lanes].copy()
    infos["slot_reward"] = simulator.outcome.slot_reward[lanes].copy()
    feedback = simulator.feedback[lanes].copy()
    infos.update(zip(SIGNALS, feedback.T if feedback.ndim == 2 else feedback.transpose(2, 0, 1), strict=True))


def scenario_infos(simulator: Simulator) -> Infos:
    """Infos that only some scenarios and task variants have, [B] each: money, living providers, opting out.

    An environment has the same keys at every step.

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
    """Latent truth about users, beside that about items.

    truth_mood [B]; truth_satisfaction [B]: mean over the clicks of this step; truth_leaning [B, T]: utility of the
    middle of each theme [logit]; truth_regime [B]: shifts of taste so far; truth_reward [B]: reward whatever was
    reported of it.
    """
    lane, variant = simulator.state.lane, simulator.variant
    infos: Infos = {
        "truth_mood": lane["mood"].astype(np.float64),
        "truth_satisfaction": lane["satisfaction"].astype(np.float64),
        "truth_leaning": simulator.leaning(),
    }
    if variant.drift != "none":
        infos["truth_regime"] = lane["regime"].astype(np.int64)
    if variant.reports:
        infos["truth_reward"] = np.where(lane["step"] > 0, simulator.outcome.reward, 0.0)
    return infos
