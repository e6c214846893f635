"""Parts of the observation that are there by option: history, candidates, group. Public information only.

They stand in the same contiguous row as the others, behind them, and are written after the step: an environment without
them pays nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.errors import ConfigError
from recsim_llm.simulator.candidates import draw_candidates, write_on_shelf
from recsim_llm.simulator.jit import jit, kernel, loaded
from recsim_llm.simulator.maths import ZERO
from recsim_llm.simulator.params import SIGNALS
from recsim_llm.simulator.scoring import day_of
from recsim_llm.simulator.simulator import Simulator, quiet

GROUPS = ("gender", "age_band", "region")


@jit
def write_history(slate, items, width, feedback, shown, out):
    """Puts the items of a slate [K] before those of earlier steps: numbers ``shown`` [H], and ``out`` [H * width].

    ``feedback`` [K * (width - 1)] are their signals as they stand in the observation.
    """
    length, new = shown.shape[0], 0
    for k in range(slate.shape[0]):
        new += slate[k] >= 0
    new = min(new, length)
    if new == 0:
        return
    for h in range(length - 1, new - 1, -1):
        shown[h] = shown[h - new]
        for j in range(width):
            out[h * width + j] = out[(h - new) * width + j]
    h = 0
    for k in range(slate.shape[0]):
        if slate[k] >= 0 and h < new:
            shown[h] = slate[k]
            out[h * width] = np.float32(slate[k] + 1) / np.float32(items)
            for j in range(1, width):
                out[h * width + j] = feedback[k * (width - 1) + j - 1]
            h += 1


@jit
def write_candidates(p, table, lane, provider, encodings, seen, listed, out):
    """Draws a list of candidates [C] and writes their encodings, out [C * D]; zeros for an empty place."""
    if listed.shape[0] == 0:
        return
    draw_candidates(p, table, lane, provider, day_of(p, lane), seen, listed)
    width = encodings.shape[1]
    for c in range(listed.shape[0]):
        for d in range(width):
            out[c * width + d] = encodings[listed[c], d] if listed[c] >= 0 else ZERO


@kernel
def begin_parts(p1, table, lanes, providers, mask, starts, encodings, groups, seen, shown, listed, observation):
    """Parts at the start of an episode, for the lanes of the mask [B].

    ``starts`` [4] is where feedback, history, candidates and group stand in a row.
    """
    p = p1[0]
    for b in range(mask.shape[0]):
        if not mask[b]:
            continue
        row = observation[b]
        for h in range(shown.shape[1]):
            shown[b, h] = -1
        for n in range(starts[1], starts[2]):
            row[n] = ZERO
        write_candidates(p, table, lanes[b], providers[b], encodings, seen, listed[b], row[starts[2] : starts[3]])
        for g in range(groups.shape[1]):
            row[starts[3] + g] = ZERO if lanes[b]["opted_out"] else groups[lanes[b]["user"], g]


@kernel
def renew_parts(p1, table, lanes, providers, slates, starts, encodings, seen, shown, listed, observation):
    """Parts after a step, for all lanes that were in an episode. Of users who opted out there is no history."""
    p = p1[0]
    items, slate_size = table[0].shape[0], slates.shape[1]
    for b in range(lanes.shape[0]):
        if lanes[b]["ended"]:
            continue
        row = observation[b]
        if shown.shape[1] > 0 and not lanes[b]["opted_out"]:
            width = (starts[2] - starts[1]) // shown.shape[1]
            feedback = row[starts[0] : starts[0] + slate_size * (width - 1)]
            write_history(slates[b], items, width, feedback, shown[b], row[starts[1] : starts[2]])
        write_candidates(p, table, lanes[b], providers[b], encodings, seen, listed[b], row[starts[2] : starts[3]])


class Parts:
    """The parts that were asked for. Widens the rows of the simulator's observations to hold them.

    Args:
        simulator: Whose observations they extend.
        candidates: C, items to choose from at each step; 0 for all.
        history: H, items shown that are remembered; 0 for none.
        group: Whether the observation has the user's groups.

    Attributes:
        layout: Where each part stands in a row, the simulator's own among them.
        candidates: [B, C] int64 items of the present lists, -1 for an empty place.
        history: [B, H] int64 items shown, latest step first and in the order of their slates, -1 for none.

    Raises:
        ConfigError: If a size is not valid or the world knows no groups.
    """

    def __init__(self, simulator: Simulator, *, candidates: int, history: int, group: bool) -> None:
        world, lanes = simulator.world, simulator.lanes
        if candidates and not simulator.slate_size <= candidates <= len(world.catalog):
            raise ConfigError(
                f"num_candidates must lie in {simulator.slate_size}..{len(world.catalog)} (slate and catalogue), "
                f"got {candidates}"
            )
        self.simulator = simulator
        self.names, self._groups = _groups(world.population) if group else ((), np.zeros((1, 0), np.float32))
        sizes = {
            "history": history * (1 + len(SIGNALS)),
            "candidates": candidates * world.catalog.width,
            "group": len(self.names),
        }
        self.layout = dict(simulator.layout)
        at = simulator.observation_width
        starts = [self.layout["feedback"].start]
        for name, size in sizes.items():
            starts.append(at)
            if size:
                self.layout[name] = slice(at, at + size)
            at += size
        self._starts = np.array(starts, np.int64)
        self._encodings = np.clip(world.catalog.embedding, -1.0, 1.0) if candidates else np.zeros((1, 1), np.float32)
        self._seen = np.full(1 << max(2 * candidates - 1, 1).bit_length(), -1, np.int64)
        self.candidates = np.full((lanes, candidates), -1, np.int64)
        self.history = np.full((lanes, history), -1, np.int64)
        simulator.outcome.observation = np.zeros((lanes, at), np.float32)
        loaded(self.begin, np.zeros(lanes, np.bool_))

    def begin(self, mask: NDArray[np.bool_]) -> None:
        """Writes them at the start of an episode in the lanes of the mask [B]."""
        s = self.simulator
        with quiet():
            begin_parts(
                s._parameters, s._table, s.state.lane, s.state.provider, mask, self._starts, self._encodings,
                self._groups, self._seen, self.history, self.candidates, s.outcome.observation,
            )  # fmt: skip

    def renew(self) -> None:
        """Writes them after a step, in the lanes that took it."""
        s = self.simulator
        with quiet():
            renew_parts(
                s._parameters, s._table, s.state.lane, s.state.provider, s.slate, self._starts, self._encodings,
                self._seen, self.history, self.candidates, s.outcome.observation,
            )  # fmt: skip

    def infos(self) -> dict[str, NDArray[np.int64]]:
        """Numbers of the items in candidates [B, C] and history [B, H], -1 for none, those parts that there are."""
        arrays = {"candidates": self.candidates, "history": self.history}
        return {name: array.copy() for name, array in arrays.items() if array.shape[1]}

    def get_state(self) -> dict[str, NDArray[Any]]:
        """What changes beside the observation, copied."""
        return {"candidates": self.candidates.copy(), "history": self.history.copy()}

    def set_state(self, snapshot: Mapping[str, Any]) -> None:
        """Restores a snapshot.

        Raises:
            ConfigError: If a part is missing or of another shape.
        """
        targets = {"candidates": self.candidates, "history": self.history}
        for name, target in targets.items():
            if name not in snapshot or snapshot[name].shape != target.shape:
                raise ConfigError(f"snapshot does not fit: part {name!r} must be int64 of shape {target.shape}")
        for name, target in targets.items():
            target[...] = snapshot[name]


def _groups(population: Any) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    """Names of the groups and which of them each user is in, [U, G]; a user may be in none where it is not known."""
    names: list[str] = []
    columns: list[NDArray[np.bool_]] = []
    for kind in GROUPS:
        codes = np.array(getattr(population, kind))
        for code in sorted(set(codes.tolist()) - {""}):
            names.append(f"{kind}={code}")
            columns.append(codes == code)
    if not names:
        raise ConfigError(
            f"group=True, but the users of this world have no {', '.join(GROUPS[:-1])} or {GROUPS[-1]}; "
            "add such columns to the file of users"
        )
    return tuple(names), np.ascontiguousarray(np.stack(columns, 1), np.float32)


def on_shelf_of(simulator: Simulator, listed: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of some items [B, N] are on the shelf of each lane, [B, N]: without a look at the others."""
    out = np.empty(listed.shape, np.bool_)
    with quiet():
        loaded(
            write_on_shelf, simulator._parameters, simulator._table, simulator.state.lane, simulator.state.provider,
            listed, out,
        )  # fmt: skip
    return out
