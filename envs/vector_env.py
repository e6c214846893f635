"""The native vector environment: B users in one compiled simulator, Gymnasium's ``VectorEnv``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from recsim_llm.envs.agent_interface import AgentInterface
from recsim_llm.envs.core import Core
from recsim_llm.envs.infos import Infos
from recsim_llm.envs.options import Options, keywords, registered_limit, warn_if_cut
from recsim_llm.envs.scenario import Scenario
from recsim_llm.envs.world_core import WorldCore
from recsim_llm.errors import ConfigError, require, unknown
from recsim_llm.serving import enter
from recsim_llm.simulator.task_variant import TaskVariant

Flags = NDArray[np.bool_]


class RecVectorEnv(AgentInterface, VectorEnv[Any, Any, Any]):
    """B users of a scenario, lane i seeded with seed + i, bit for bit equal to B scalar environments.

    Lanes whose episode is over are reset by the next step (``autoreset_mode="NextStep"``, the default), within the
    same step ("SameStep"), or not at all ("Disabled"): then a finished lane stands still with reward 0 until it is
    reset with ``options={"reset_mask": ...}``.
    """

    scenario: ClassVar[Scenario]
    core: Core

    @keywords(Options, TaskVariant, without=("variant",))
    def __init__(
        self,
        num_envs: int = 1,
        *,
        max_episode_steps: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        copy: bool = True,
        render_mode: str | None = None,
        **settings: Any,
    ) -> None:
        if render_mode is not None:
            raise ConfigError(f"the vector environment does not render (render_mode={render_mode!r}); use gym.make")
        self.core = self._make_core(settings, lanes=num_envs)
        self._check_reward()
        self._limit = max_episode_steps
        limits = [limit for limit in (self.core.options.horizon, max_episode_steps) if limit is not None]
        self._horizon = min(limits) if limits else None
        self.num_envs = num_envs
        self.autoreset_mode = _mode(autoreset_mode)
        self.metadata = {"render_modes": [], "autoreset_mode": self.autoreset_mode}
        self.render_mode = None
        self.single_observation_space = self.core.observation_space()
        self.single_action_space = self.core.action_space()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.copy = copy
        self._seeded = False

    @classmethod
    def _make_core(cls, settings: Mapping[str, Any], lanes: int) -> Core:
        """What the shell is around."""
        return WorldCore(cls.scenario, Options.of(settings), lanes)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, Infos]:
        """Begins an episode in every lane, or in those of ``options["reset_mask"]``.

        Args:
            seed: Lane i gets seed + i, or the i-th of a list; None goes on with each lane's next episode.
            options: "reset_mask" bool [B]; "user" names one user for all lanes or one for each.
        """
        super().reset(seed=seed if isinstance(seed, int) else None)
        if not self._seeded and self._limit == registered_limit(self.spec):  # another one was chosen on purpose
            warn_if_cut(self.core.options.horizon, self._limit)
        rest = dict(options or {})
        mask = self.core.everyone
        if "reset_mask" in rest:
            mask = _checked_mask(rest.pop("reset_mask"), self.num_envs)
        wishes = self.core.wishes(rest)
        self._seed(seed, mask)
        self.core.reset(mask, wishes)
        enter(self)
        infos = self.core.infos()
        if not mask.all():
            infos = {name: _masked(value, mask) for name, value in infos.items()}
        return self._observed(), _with_masks(infos, mask)

    def step(self, actions: Any) -> tuple[Any, NDArray[np.floating], Flags, Flags, Infos]:
        """Shows slates [B] or [B, K] to all users at once."""
        core = self.core
        lane = core.simulator.state.lane
        over = lane["ended"].copy()
        outcome = core.step(actions)
        terminated = outcome.terminated.copy()
        truncated = self.at_horizon() & ~over
        if self.autoreset_mode is AutoresetMode.NEXT_STEP and over.any():
            core.reset(over)
        done = terminated | truncated
        lane["ended"] = done if self.autoreset_mode is AutoresetMode.NEXT_STEP else done | over
        infos = core.infos()
        infos["is_success"] = ((lane["step"] >= core.success_step) | core.past_retention()) & ~terminated
        rewards = core.rewards(infos)
        rewards[over] = 0.0
        if self.autoreset_mode is AutoresetMode.SAME_STEP and done.any():
            return self._same_step(rewards, terminated, truncated, infos)
        return self._observed(), rewards, terminated, truncated, _with_masks(infos, core.everyone)

    def _same_step(
        self, rewards: NDArray[np.floating], terminated: Flags, truncated: Flags, infos: Infos
    ) -> tuple[Any, NDArray[np.floating], Flags, Flags, Infos]:
        """Resets finished lanes at once and reports what they ended with, as Gymnasium's own vector environments do."""
        done = terminated | truncated
        rows = self.core.simulator.outcome.observation
        final = np.full(self.num_envs, None, dtype=object)
        for index in np.flatnonzero(done):
            final[index] = self.core.observed(rows[index])
        last = _with_masks({name: _masked(value, done) for name, value in infos.items()}, done)
        self.core.reset(done)
        credited = infos.get("slot_reward")
        infos = _with_masks(self.core.infos(), self.core.everyone)
        if credited is not None:  # where the reward is a function, other than what the simulator says
            infos["slot_reward"] = np.where(done[:, None], infos["slot_reward"], credited)
        infos |= {"final_obs": final, "_final_obs": done.copy(), "final_info": last, "_final_info": done.copy()}
        return self._observed(), rewards, terminated, truncated, infos

    def at_horizon(self) -> Flags:
        """Lanes at the horizon [B], as TimeLimit tells it: also where the user left at that very step."""
        reached: Flags = self.core.past_retention()
        if self._horizon is not None:
            reached |= self.core.simulator.state.lane["step"] >= self._horizon
        return reached

    def action_masks(self) -> Flags:
        """Which items are on the shelf for each lane and slot, [B, K * I], or which candidates, [B, K * C]."""
        return self.core.masks()

    def available(self) -> Flags:
        """Which items are on the shelf for each lane, [B, I], or which candidates there are, [B, C]."""
        return self.core.available()

    def get_state(self) -> dict[str, Any]:
        """A snapshot of all lanes for counterfactual replay."""
        return self.core.get_state()

    def set_state(self, snapshot: Mapping[str, Any]) -> None:
        """Goes back to a snapshot."""
        self.core.set_state(snapshot)
        self._seeded = True

    def sb3(self, *, full_infos: bool = False) -> Any:
        """This environment as Stable-Baselines3's ``VecEnv``, inside a ``VecMonitor``; use it only so from then on.

        Args:
            full_infos: Give every lane its whole info at every step, not only at the end of an episode.
        """
        require("stable_baselines3", "agents")
        from recsim_llm.envs.sb3_vec_env import monitored

        return monitored(self, full_infos=full_infos)

    def _seed(self, seed: int | Sequence[int | None] | None, mask: Flags) -> None:
        simulator = self.core.simulator
        if seed is None and self._seeded:
            return
        if seed is None or isinstance(seed, int | np.integer):
            first = int(seed) if seed is not None else int(self.np_random.integers(2**62))
            numbers: list[int | None] = [first + lane for lane in range(self.num_envs)]
        else:
            numbers = list(seed)
            if len(numbers) != self.num_envs:
                raise ConfigError(
                    f"a list of seeds must have one for each of {self.num_envs} lanes, got {len(numbers)}"
                )
        named = np.array([number is not None for number in numbers])
        seeds = np.array([(number or 0) % 2**64 for number in numbers], np.uint64)
        if not self._seeded and not named.all():
            fresh = self.np_random.integers(2**62, size=self.num_envs).astype(np.uint64)
            seeds, named = np.where(named, seeds, fresh), np.ones_like(named)
        simulator.seed(seeds, mask & named)
        self._seeded = True

    def _observed(self) -> Any:
        rows = self.core.simulator.outcome.observation
        if not self.copy and self.core.options.observation == "flat":
            return rows
        return self.core.observed(rows)


def _mode(mode: AutoresetMode | str) -> AutoresetMode:
    if isinstance(mode, AutoresetMode):
        return mode
    try:
        return AutoresetMode(mode)
    except ValueError:
        raise unknown("autoreset mode", mode, [known.value for known in AutoresetMode]) from None


def _checked_mask(mask: Any, lanes: int) -> Flags:
    """The same four complaints as Gymnasium's SyncVectorEnv."""
    if not isinstance(mask, np.ndarray):
        raise TypeError(f"`options['reset_mask']` must be a numpy array, got {type(mask)}")
    if mask.shape != (lanes,):
        raise ValueError(f"`options['reset_mask']` must have shape `({lanes},)`, got {mask.shape}")
    if mask.dtype != np.bool_:
        raise TypeError(f"`options['reset_mask']` must have `dtype=np.bool_`, got {mask.dtype}")
    if not mask.any():
        raise ValueError(f"`options['reset_mask']` must contain at least one True value, got {mask}")
    return mask


def _masked(values: NDArray[Any], mask: Flags) -> NDArray[Any]:
    """The array with zeros in rows outside the mask."""
    kept = np.zeros_like(values)
    kept[mask] = values[mask]
    return kept


def _with_masks(infos: Infos, mask: Flags) -> Infos:
    return infos | {f"_{name}": mask.copy() for name in infos}
