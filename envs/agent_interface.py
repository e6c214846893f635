"""What agents may ask of an environment: catalogue, layout of the observation, slate size, release of items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.simulator.live_judge import LiveSimulator
from recsim_llm.simulator.observation import CONTEXT
from recsim_llm.worlds.catalog import Catalog


class AgentInterface:
    """What agents and people may ask of an environment beside its spaces, scalar or vector."""

    core: Any

    def _check_reward(self) -> None:
        """Says when an environment is made that its reward, or a part of it, can never be anything but 0."""
        self.core.check_reward(self.core.rewarded)

    @property
    def catalog(self) -> Catalog:
        """The public catalogue: texts, categories, prices, encodings."""
        catalog: Catalog = self.core.catalog
        return catalog

    @property
    def layout(self) -> dict[str, slice]:
        """Where each part of a flat observation stands."""
        layout: dict[str, slice] = self.core.layout
        return layout

    @property
    def slate_size(self) -> int:
        """K, items shown at each step."""
        return int(self.core.slate_size)

    def release(self, items: Sequence[int] | NDArray[np.integer], day: float | None = None) -> None:
        """Puts items that wait (release day ``UNRELEASED`` in the world) on the shelf of the running environment.

        Release days are on the catalogue's clock, on which every episode begins at the same day; they stay as they are
        set when episodes end, and snapshots hold them.

        Args:
            items: Positions in the catalogue.
            day: From when on; None is the present of the user whose clock is furthest behind, so that all users find
                the items at once.

        Raises:
            ConfigError: If an item does not wait, or the day is no possible one.
        """
        if day is None:
            lane = self.core.simulator.state.lane
            running = lane["clock"][(lane["episode"] >= 0) & ~lane["ended"]]
            start = self.core.simulator.rules.start_day
            day = start if not running.size else float(np.float32(start + np.float32(running.min()) / 86400.0))
        self.core.release(np.asarray(items, np.int64).reshape(-1), day)

    @property
    def judging(self) -> dict[str, Any] | None:
        """With judge="live": the judge, the line from ratings to utilities, how much was asked; else None."""
        simulator = self.core.simulator
        return simulator.judge_utilities.facts() if isinstance(simulator, LiveSimulator) else None

    @property
    def context_names(self) -> tuple[str, ...]:
        """Names of the numbers of the context part."""
        return CONTEXT
