"""The protocol of all recommenders, and the loop in which they learn.

``predict``, ``learn``, ``save``, ``load`` and ``num_timesteps`` are those of Stable-Baselines3, so that its
``evaluate_policy`` and people's scripts work on a bandit as on PPO. Actions come batch first: one policy serves B
users.
"""

from __future__ import annotations

import abc
import functools
import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.core.callbacks import hooked
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import Flags, Floats, Lanes, Setting, Slates, Transition, chosen_from, make_env, places
from recsim_llm.agents.core.checkpoint import Persistent
from recsim_llm.agents.core.progress import Progress
from recsim_llm.agents.common.propensity import estimated
from recsim_llm.agents.core.run_logger import RunLogger, RunLogs
from recsim_llm.errors import ConfigError, RefusedError

__all__ = ["Agent", "Config", "Transition"]

logger = logging.getLogger(__name__)

Settings = Config
EPISODES_IN_MEAN = 100


class Agent(Persistent, abc.ABC):
    """A recommender.

    Subclasses set ``name`` and ``Config`` and write :meth:`act`; those that learn also :meth:`update` and
    :meth:`arrays`.

    Args:
        env: Id of an environment (then 64 lanes of its training users are made), or a scalar or vector environment.
        config: Settings; the defaults if None.
        seed: Seed of the agent's own random streams.

    Class attributes:
        name: What it is called.
        Config: Class of its settings.
        State: Class of what :meth:`act` hands on from step to step, a frozen dataclass of arrays; None for nothing.
        needs_truth: Whether it reads the latent truth.
        needs_torch: Whether it needs PyTorch and Stable-Baselines3.
        libraries: Other modules that it needs.
        learns: Whether learning changes it.
        elementwise: Whether a user is served the same whoever is served at the same time.
        knows_propensity: Whether the probability of what it draws is known; else :attr:`propensity` is NaN, or an
            estimate from ``propensity_samples`` draws.
        logs_propensity: Whether transitions of learning hold that probability.

    Attributes:
        env: The environment that it learns in.
        setting: What it knows of it: the public catalogue and the form of observations.
        num_timesteps: Steps of users that it has learnt from, summed over lanes.
        logger: The last means by tag, as Stable-Baselines3 names them.
        propensity: [B, K] probability of each item that was chosen last, given the slots before it; NaN where it is
            not known.
        propensity_samples: Choices drawn to estimate probabilities without a closed form; 0 leaves them NaN.
    """

    name: ClassVar[str]
    Config: ClassVar[type[Config]] = Config
    needs_truth: ClassVar[bool] = False
    State: ClassVar[type | None] = None
    needs_torch: ClassVar[bool] = False
    libraries: ClassVar[tuple[str, ...]] = ()
    learns: ClassVar[bool] = True
    elementwise: ClassVar[bool] = True
    knows_propensity: ClassVar[bool] = True
    logs_propensity: ClassVar[bool] = True

    def __init__(self, env: Any, config: Settings | None = None, *, seed: int = 0) -> None:
        self.env = make_env(env)
        self.config = self.Config() if config is None else config
        if type(self.config) is not self.Config:
            raise ConfigError(f"agent {self.name} takes {self.Config.__qualname__}, got {type(config).__qualname__}")
        self.setting = Setting.of(self.env)
        refused = self.refusal(self.setting, self.config)
        if refused:
            raise RefusedError(refused)
        self.seed = int(seed)
        streams = np.random.SeedSequence(self.seed).spawn(3)
        self.rng, self._serving, setup = (np.random.Generator(np.random.PCG64(stream)) for stream in streams)
        self.lanes = Lanes(self.env, self.setting)
        self.num_timesteps = 0
        self.logger = RunLogger()
        self.logs: RunLogs | None = None
        self._state: Any = None
        self._returns: deque[tuple[float, int]] = deque(maxlen=EPISODES_IN_MEAN)
        self._running = np.zeros((2, self.lanes.count))
        self.propensity = np.ones((0, self.setting.slots))
        self.propensity_samples = 0
        self.setup(setup)

    @classmethod
    def refusal(cls, setting: Setting, config: Any) -> str | None:
        """Why this agent cannot work in a setting, one sentence that names another that can; None where it can."""
        return None

    def setup(self, rng: np.random.Generator) -> None:
        """Makes the agent's arrays; ``rng`` is for their initial values."""

    @abc.abstractmethod
    def act(
        self,
        rows: Floats,
        state: Any,
        starts: Flags,
        deterministic: bool,
        allowed: Flags,
        rng: np.random.Generator,
    ) -> tuple[Slates, Any]:
        """Chooses slates, and sets :attr:`propensity` if it does so by chance; changes nothing else.

        Args:
            rows: Observations [B, P].
            state: What it returned for these lanes at the step before; None at first.
            starts: [B] whether an episode begins.
            deterministic: Whether to leave exploration out.
            allowed: [B, I] items on the shelf.
            rng: Where to draw from.

        Returns:
            Slates [B, K] and the state for the next step.
        """

    def relevance(self, rows: Floats, state: Any, starts: Flags, allowed: Flags) -> NDArray[np.floating] | None:
        """Scores [B, I] by which it ranks items, for re-rankers; None if it has none. Arguments as for :meth:`act`."""
        return None

    def choose(
        self,
        rows: Floats,
        state: Any,
        starts: Flags,
        deterministic: bool,
        allowed: Flags,
        rng: np.random.Generator,
    ) -> tuple[Slates, Any]:
        """:meth:`act`, with the probability of each choice noted in :attr:`propensity`."""
        self.propensity = np.ones((len(rows), self.setting.slots))
        slates, after = self.act(rows, state, starts, deterministic, allowed, rng)
        if self.propensity_samples > 0 and np.isnan(self.propensity).any():
            draw = functools.partial(self.act, rows, state, starts, deterministic, allowed)
            rng = np.random.Generator(np.random.PCG64([self.seed, self.num_timesteps, len(rows)]))
            self.propensity = estimated(slates, lambda: draw(rng)[0], self.propensity_samples)
        return slates, after

    def observe(self, info: dict[str, Any]) -> None:
        """Shows the agent the infos of the last reset or step. Only oracles look at them."""

    def serve(self, env: Any) -> None:
        """Tells the agent which environment it serves next. Only oracles that read its state need to know."""

    def update(self, transition: Transition) -> None:
        """Learns from what just happened to B users."""

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
        action_masks: Any = None,
    ) -> tuple[NDArray[np.int64], Any]:
        """Chooses what to show.

        Args:
            observation: [P] or [B, P], or a dict of the parts.
            state: What the last call for the same lanes returned, None at first. Agents remember in it what they have
                shown in this episode; without it they forget.
            episode_start: [B] whether an episode begins.
            deterministic: Leave exploration out.
            action_masks: [B, I] or [B, K * I] items on the shelf, C in place of I where there are candidates. None asks
                the agent's own environment if it has as many lanes, and else allows every item; of candidates, all.

        Returns:
            Actions [B] (K = 1) or [B, K], without the B where the observation had none, and the state.
        """
        rows = self.setting.flat(observation)
        single, rows = rows.ndim == 1, np.atleast_2d(rows)
        starts = np.full(len(rows), state is None)
        if state is not None and episode_start is not None:
            starts = np.atleast_1d(np.asarray(episode_start, np.bool_))
        if starts.shape != (len(rows),):
            raise ConfigError(f"episode_start has shape {starts.shape}, expected ({len(rows)},)")
        listed = self.setting.listed(rows) if self.setting.candidates else None
        allowed = self._allowed(action_masks, len(rows), listed)
        slates, state = self.choose(rows, state, starts, deterministic, allowed, self._serving)
        numbers = slates if listed is None else places(listed, slates)
        actions = numbers[:, 0] if self.setting.slots == 1 else numbers
        return (actions[0] if single else actions), state

    def learn(
        self,
        total_timesteps: int,
        callback: Any = None,
        log_interval: int | None = None,
        tb_log_name: str = "run",
        reset_num_timesteps: bool = False,
        progress_bar: bool = False,
    ) -> Self:
        """Recommends to the users of its environment and learns from what they do.

        A second call goes on where the first stopped, with the same users in the middle of their episodes.

        Args:
            total_timesteps: Steps of users, summed over lanes (not vector steps); at most one step of each lane more.
            callback: A function called after every step with (locals, globals), False ends learning; or a callback of
                this package or of Stable-Baselines3, or a list of them.
            log_interval: Episodes between two rows of the logs (see :meth:`log_to`), 100 if None; without logs, between
                two messages to ``logging``, none if None.
            tb_log_name: Name of the run in logs.
            reset_num_timesteps: Count from 0 again. Unlike in Stable-Baselines3 false by default.
            progress_bar: Show one.
        """
        if total_timesteps < 0:
            raise ConfigError(f"total_timesteps must not be negative, got {total_timesteps}")
        if reset_num_timesteps:
            self.num_timesteps = 0
        target, ended = self.num_timesteps + total_timesteps, 0
        begun_at, started = self.num_timesteps, time.perf_counter()
        hook = hooked(callback, self)
        if not self.lanes.started:
            self.lanes.reset(seed=self.seed)
        with self._logging(tb_log_name, log_interval, reset_num_timesteps) as logs:
            hook.begin(locals(), globals())
            with Progress(total_timesteps, tb_log_name, progress_bar) as advance:
                while self.num_timesteps < target:
                    transition = self.interact()
                    self.update(transition)
                    steps = int(transition.valid.sum())
                    self.num_timesteps += steps
                    advance(steps)
                    ended += self._count(transition)
                    if logs is not None:
                        logs.after_step(self, transition)
                    elif log_interval is not None and ended >= log_interval:
                        ended = 0
                        self.logger["time/fps"] = int((self.num_timesteps - begun_at) / (time.perf_counter() - started))
                        logger.info("%s %s: %s", tb_log_name, self.name, self.logger)
                    if not hook.step(locals(), globals()):
                        break
        self.finish()
        hook.end()
        return self

    def log_to(
        self, folder: str | Path, formats: Sequence[str] = ("csv", "tensorboard"), info_keywords: Sequence[str] = ()
    ) -> Self:
        """Writes logs as Stable-Baselines3 does from now on, into ``folder/<tb_log_name>_<number>``.

        Args:
            folder: Where to; made if it is not there.
            formats: Some of "stdout", "csv", "json", "log" and "tensorboard".
            info_keywords: Infos of an episode's last step that become columns of ``0.monitor.csv``.
        """
        self.logs = RunLogs(folder, formats, info_keywords)
        return self

    @contextmanager
    def _logging(self, run: str, interval: int | None, anew: bool) -> Iterator[RunLogs | None]:
        """The logs while the agent learns; whatever happens, what is there is written."""
        if self.logs is None:
            yield None
            return
        self.logs.begin(self, run, interval, anew)
        try:
            yield self.logs
        finally:
            self.logs.end(self)

    def interact(self) -> Transition:
        """One step of every lane: predict and step."""
        lanes = self.lanes
        self.observe(lanes.info)
        slates, self._state = self.choose(
            lanes.observation, self._state, lanes.fresh, False, lanes.available(), self.rng
        )  # fmt: skip
        return lanes.step(slates, self._state, self.propensity)

    def finish(self) -> None:
        """Called at the end of :meth:`learn`: prepares serving, and changes nothing that later learning depends on."""

    def get_env(self) -> Any:
        """The environment, as Stable-Baselines3's callbacks ask for it."""
        return self.env

    def _allowed(self, masks: Any, lanes: int, listed: Slates | None) -> Flags:
        items = self.setting.items
        choices = items if listed is None else self.setting.candidates
        if masks is None:
            if listed is not None:
                return chosen_from(listed, items)
            if lanes == self.lanes.count:
                return self.lanes.available()
            return np.ones((lanes, items), np.bool_)
        given = np.asarray(masks, np.bool_)
        sizes = (choices, choices * self.setting.slots)
        if given.size not in (*sizes, *(lanes * size for size in sizes)):
            raise ConfigError(f"action_masks has shape {given.shape}, expected ({lanes}, {choices})")
        mask = np.broadcast_to(given.reshape(-1, given.shape[-1])[:, :choices], (lanes, choices))
        return mask if listed is None else chosen_from(np.where(mask, listed, -1), items)

    def _count(self, transition: Transition) -> int:
        """Keeps returns and lengths of episodes; the number that just ended."""
        self._running[0] += np.where(transition.valid, transition.reward, 0.0)
        self._running[1] += transition.valid
        ended = np.flatnonzero(transition.terminated | transition.truncated)
        for lane in ended.tolist():
            self._returns.append((float(self._running[0, lane]), int(self._running[1, lane])))
        self._running[:, ended] = 0.0
        if len(ended):
            returns, lengths = np.mean(self._returns, axis=0)
            self.logger["rollout/ep_rew_mean"], self.logger["rollout/ep_len_mean"] = float(returns), float(lengths)
        self.logger["time/total_timesteps"] = self.num_timesteps
        return len(ended)
