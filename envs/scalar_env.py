"""The scalar environment: one user, Gymnasium's ``Env``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from numpy.typing import NDArray

from recsim_llm.envs.agent_interface import AgentInterface
from recsim_llm.envs.core import RESET_NEEDED, Core
from recsim_llm.envs.options import Options, keywords, registered_limit, warn_if_cut
from recsim_llm.envs.rendering.recorder import Recorder
from recsim_llm.envs.scenario import Scenario
from recsim_llm.envs.world_core import WorldCore
from recsim_llm.errors import unknown
from recsim_llm.serving import enter
from recsim_llm.simulator.task_variant import TaskVariant

RENDER_MODES = ("ansi", "rgb_array", "html")


class RecEnv(AgentInterface, gym.Env[Any, Any]):
    """One user of a scenario. Subclasses name the scenario and document it."""

    scenario: ClassVar[Scenario]
    core: Core
    metadata: ClassVar[dict[str, Any]] = {"render_modes": list(RENDER_MODES), "render_fps": 2}  # type: ignore[misc]

    @keywords(Options, TaskVariant, without=("variant", "threads"))
    def __init__(self, *, render_mode: str | None = None, **settings: Any) -> None:
        if render_mode is not None and render_mode not in RENDER_MODES:
            raise unknown("render mode", render_mode, RENDER_MODES)
        if "threads" in settings:
            raise TypeError(
                "got an unexpected keyword argument 'threads': one user needs one thread; threads is an argument of "
                "gym.make_vec"
            )
        self.core = self._make_core({**settings, "threads": 1}, lanes=1)
        self._check_reward()
        self.render_mode = render_mode
        self.action_space = self.core.action_space()
        self.observation_space = self.core.observation_space()
        self._recorder = Recorder(self.core) if render_mode is not None else None
        self._seeded = self._warned = False

    @classmethod
    def _make_core(cls, settings: Mapping[str, Any], lanes: int) -> Core:
        """What the shell is around."""
        return WorldCore(cls.scenario, Options.of(settings), lanes)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode. Episode k after a seed depends on (seed, k) only.

        Args:
            seed: Restarts the count of episodes; None goes on with the next one.
            options: "user" names the user (id or position).
        """
        super().reset(seed=seed)
        wishes = self.core.wishes(options)
        simulator = self.core.simulator
        if seed is not None or not self._seeded:
            start = seed if seed is not None else int(self.np_random.integers(2**63))
            simulator.seed(np.array([start % 2**64], np.uint64))
            self._seeded = True
        self._warn_if_cut()
        self.core.reset(self.core.everyone, wishes)
        enter(self)
        info = self.core.info()
        if self._recorder is not None:
            self._recorder.begin(info)
        return self.core.observed(simulator.outcome.observation[0]), info

    def _warn_if_cut(self) -> None:
        """Says once that a horizon beyond the id's limit has no effect: an episode ended at the limit.

        The wrapper that ended it cannot be seen from here, and ``gym.make`` may have been given another limit.
        """
        lane, horizon = self.core.simulator.state.lane, self.core.options.horizon
        if horizon is None or self._warned or lane["ended"][0]:
            return
        if lane["step"][0] == registered_limit(self.spec):
            self._warned = warn_if_cut(horizon, int(lane["step"][0]))

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Shows a slate (an item for K = 1) to the user.

        Returns:
            Observation; reward; terminated (she has left for good); truncated (the horizon, where this environment was
            given one itself); info.
        """
        core = self.core
        lane = core.simulator.state.lane
        ended = lane["ended"]
        if ended[0]:
            raise ResetNeeded(RESET_NEEDED)
        outcome = core.step(action)
        terminated = bool(outcome.terminated[0])
        ended[0] = terminated
        info = core.info()
        if core.reward_function is None:
            reward = float(lane["reported"][0] if core.variant.reports else outcome.reward[0])
        else:
            batched = {name: np.asarray(value)[None] for name, value in info.items()}
            reward = float(core.rewards(batched)[0])
            if "slot_reward" in batched:
                info["slot_reward"] = batched["slot_reward"][0]
        steps = int(lane["step"][0])
        # As TimeLimit tells it: also where she left at that very step.
        truncated = core.options.horizon is not None and steps >= core.options.horizon
        if core.variant.retention > 0:
            truncated = truncated or bool(core.past_retention()[0])
        info["is_success"] = (truncated or steps >= core.success_step) and not terminated
        if self._recorder is not None:
            self._recorder.note(info, reward, terminated)
        return core.observed(outcome.observation[0]), reward, terminated, truncated, info

    def action_masks(self) -> NDArray[np.bool_]:
        """Which items are on the shelf, [K * I] (candidates: [K * C]), as sb3-contrib's masked policies ask for it."""
        return self.core.masks().reshape(-1)

    def available(self) -> NDArray[np.bool_]:
        """Which items are on the shelf, [I], or which candidates there are, [C]."""
        return self.core.available().reshape(-1)

    def get_state(self) -> dict[str, Any]:
        """A snapshot for counterfactual replay; restore it with :meth:`set_state`."""
        return {**self.core.get_state(), "np_random": self.np_random.bit_generator.state}

    def set_state(self, snapshot: Mapping[str, Any]) -> None:
        """Goes back to a snapshot: the same actions then give the same users' reactions."""
        self.core.set_state(snapshot)
        self.np_random.bit_generator.state = snapshot["np_random"]
        self._seeded = True

    def render(self) -> Any:
        """The last step as text ("ansi"), the episode as picture ("rgb_array", uint8 [H, W, 3]) or page ("html").

        None without a render mode.
        """
        return None if self._recorder is None else self._recorder.render(str(self.render_mode))
