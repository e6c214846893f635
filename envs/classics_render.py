"""Texts and pictures of the classics: the slate and what the user did with it, her traits, rewards so far."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.errors import require

if TYPE_CHECKING:
    from recsim_llm.envs.classics import ClassicCore

RENDER_MODES = ("ansi", "rgb_array")
REMEMBERED = 200
"""Steps that a picture looks back."""


class ClassicRecorder:
    """Remembers the rewards of lane 0 and draws its last step."""

    def __init__(self, core: ClassicCore) -> None:
        self._core = core
        self._rewards: deque[float] = deque(maxlen=REMEMBERED)

    def begin(self, info: dict[str, Any]) -> None:
        """Forgets the episode before."""
        del info
        self._rewards.clear()

    def note(self, info: dict[str, Any], reward: float, terminated: bool) -> None:
        """Remembers the reward of a step."""
        del info, terminated
        self._rewards.append(reward)

    def render(self, mode: str) -> Any:
        """The last step as text ("ansi") or picture ("rgb_array")."""
        return self.text() if mode == "ansi" else self.picture()

    def text(self) -> str:
        """The last step as plain text."""
        simulator = self._core.simulator
        lane = simulator.state.lane[0]
        lines = [
            f"{self._core.scenario.name}: user {lane['user']}, step {lane['step']}, time left {lane['budget']:.1f}, "
            f"reward {sum(self._rewards):.1f} so far"
        ]
        return "\n".join([*lines, *(f"  {row}" for row in self._slots()), ""])

    def picture(self) -> NDArray[np.uint8]:
        """The last step as an image, uint8 [480, 960, 3]."""
        require("matplotlib", "benchmarks")
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9.6, 4.8), dpi=100, facecolor="white")
        canvas: Any = FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2)
        left.axis("off")
        left.text(0, 1, self.text(), fontsize=8.5, va="top", family="monospace", wrap=True)
        right.plot(np.cumsum(self._rewards), color="#0072b2", linewidth=1.4)
        right.set_title(f"reward, last {REMEMBERED} steps", fontsize=9, loc="left")
        right.set_xlabel("step", fontsize=8)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()

    def _slots(self) -> list[str]:
        """One line for each slot of the slate."""
        simulator = self._core.simulator
        state = simulator.state
        if int(state.lane["step"][0]) == 0:
            return []
        rows = []
        for k, index in enumerate(state.slate[0].tolist()):
            if index < 0:
                rows.append(f"{k + 1}. (wasted slot)")
                continue
            values = zip(simulator.model.signals, state.signals[:, 0, k], strict=True)
            told = ", ".join(f"{name} {value:.2f}" for name, value in values)
            rows.append(f"{k + 1}. document {index}, topic {state.shown[0, k]}: {told}")
        return rows
