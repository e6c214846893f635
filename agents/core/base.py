"""The protocol of all recommenders.

``predict``, ``learn``, ``save``, ``load`` and ``num_timesteps`` are those of Stable-Baselines3, so that its
``evaluate_policy`` and people's scripts work on a bandit as on PPO. Actions come batch first: one policy serves B
users.
"""

from __future__ import annotations

import abc
import functools
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.cooldown import Cooldown, CooldownConfig
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import EnvironmentSpec, EnvRunner, Flags, Floats, Slates, Transition, make_env
from recsim_llm.errors import ConfigError, DataError, RefusedError

if TYPE_CHECKING:
    from recsim_llm.agents.core.run_logger import RunLogger, RunLogs
    from recsim_llm.agents.core.serving_session import ServingSession
    from recsim_llm.serving import Served

__all__ = ["Agent", "Config", "Transition"]

Settings = Config
EPISODES_IN_MEAN = 100


class Agent(abc.ABC):
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
        State: Class of what :meth:`act` hands on from step to step, a frozen dataclass of arrays; None for nothing. One
            that remembers what was shown has a method ``noting(slates)``; see :meth:`note_shown`.
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
        env_spec: What it knows of it: the public catalogue and the form of observations.
        num_timesteps: Steps of users that it has learnt from, summed over lanes.
        propensity: [B, K] probability of each item that was chosen last, given the slots before it; NaN where it is
            not known.
        shown: Infos of those whom it serves next; None where nobody showed them.
        where: While it chooses, the environments of those whom it serves; None where they are not known.
        propensity_samples: Choices drawn to estimate probabilities without a closed form; 0 leaves them NaN.
        state: What :meth:`act` handed on for the lanes that it learns in.
        episodes: Returns and lengths of the last episodes there.
        episode_sums: [2, B] return and length so far of the episodes under way.
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
        self.env_spec = EnvironmentSpec.of(self.env)
        refused = self.refusal(self.env_spec, self.config)
        if refused:
            raise RefusedError(refused)
        self.seed = int(seed)
        streams = np.random.SeedSequence(self.seed).spawn(3)
        self.rng, self.serving_rng, setup = (np.random.Generator(np.random.PCG64(stream)) for stream in streams)
        self.runner = EnvRunner(self.env, self.env_spec)
        if isinstance(self.config, CooldownConfig):
            self.cooldown = Cooldown(self.env_spec, self.config)
        self.num_timesteps = 0
        self.logs: RunLogs | None = None
        self.state: Any = None
        self.episodes: deque[tuple[float, int]] = deque(maxlen=EPISODES_IN_MEAN)
        self.episode_sums = np.zeros((2, self.runner.count))
        self.propensity = np.ones((0, self.env_spec.slate_size))
        self.propensity_samples = 0
        self.shown: dict[str, Any] | None = None
        self.where: Served | None = None
        self.setup(setup)

    @functools.cached_property
    def logger(self) -> RunLogger:
        """The last means by tag, as Stable-Baselines3 names them."""
        from recsim_llm.agents.core.run_logger import RunLogger

        return RunLogger()

    @functools.cached_property
    def service(self) -> ServingSession:
        """What it remembers of those whom it serves."""
        from recsim_llm.agents.core.serving_session import ServingSession

        return ServingSession(self.name, self.env_spec)

    @classmethod
    def refusal(cls, env_spec: EnvironmentSpec, config: Any) -> str | None:
        """Why this agent cannot work in a setting, one sentence that names another that can; None where it can."""
        return None

    def setup(self, rng: np.random.Generator) -> None:  # noqa: B027
        """Makes the agent's arrays; ``rng`` is for their initial values."""

    @abc.abstractmethod
    def act(
        self,
        obs: Floats,
        state: Any,
        episode_start: Flags,
        deterministic: bool,
        action_mask: Flags,
        rng: np.random.Generator,
    ) -> tuple[Slates, Any]:
        """Chooses slates, and sets :attr:`propensity` if it does so by chance; changes nothing else.

        Args:
            obs: Observations [B, P].
            state: What it returned for these lanes at the step before; None at first.
            episode_start: [B] whether an episode begins.
            deterministic: Whether to leave exploration out.
            action_mask: [B, I] items on the shelf.
            rng: Where to draw from.

        Returns:
            Slates [B, K] and the state for the next step.
        """

    def note_shown(self, state: Any, slates: Slates) -> Any:
        """What :meth:`act` handed on, once slates [B, K] are shown in place of those that it chose."""
        noting = getattr(state, "noting", None)
        return state if noting is None else noting(slates)

    def relevance(
        self, obs: Floats, state: Any, episode_start: Flags, action_mask: Flags
    ) -> NDArray[np.floating] | None:
        """Scores [B, I] by which it ranks items, for re-rankers; None if it has none. Arguments as for :meth:`act`."""
        return None

    def choose(
        self,
        obs: Floats,
        state: Any,
        episode_start: Flags,
        deterministic: bool,
        action_mask: Flags,
        rng: np.random.Generator,
    ) -> tuple[Slates, Any]:
        """:meth:`act`, with the probability of each choice noted in :attr:`propensity`."""
        self.propensity = np.ones((len(obs), self.env_spec.slate_size))
        slates, after = self.act(obs, state, episode_start, deterministic, action_mask, rng)
        if self.propensity_samples > 0 and np.isnan(self.propensity).any():
            from recsim_llm.agents.common.propensity import estimated

            draw = functools.partial(self.act, obs, state, episode_start, deterministic, action_mask)
            rng = np.random.Generator(np.random.PCG64([self.seed, self.num_timesteps, len(obs)]))
            self.propensity = estimated(slates, lambda: draw(rng)[0], self.propensity_samples)
        return slates, after

    def observe(self, info: dict[str, Any]) -> None:
        """Shows the agent the infos of the last reset or step; where it is asked without, it reads what it needs."""
        self.shown = info

    def serve(self, env: Any) -> None:
        """Tells the agent which environment it serves, where it cannot see that: wrappers altered the observations.

        Args:
            env: Environment of this package and process, in wrappers or among several in a vector, also SB3's.
        """
        self.service.name(env)

    def update(self, transition: Transition) -> None:  # noqa: B027
        """Learns from what just happened to B users."""

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
        action_masks: Any = None,
    ) -> tuple[NDArray[np.int64], Any]:
        """Chooses what to show, in the environment that the observations come from.

        That is the one of this process whose present observations they are. Where there is none (it runs in another
        process, or a wrapper altered them) the agent says so once; see :meth:`serve`.

        Args:
            observation: [P] or [B, P], or a dict of the parts.
            state: What the last call for the same lanes returned: what the agent remembers of their episodes. None
                leaves it to the agent to remember; asked again at the same moment it does not count anything twice.
            episode_start: [B] whether an episode begins; None sees it in the environment or the observation.
            deterministic: Leave exploration out.
            action_masks: [B, I] or [B, K * I] items on the shelf, C in place of I where there are candidates. None is
                the shelf of the environment, and every item where that is not known.

        Returns:
            Actions [B] (K = 1) or [B, K], without the B where the observation had none, and the state.
        """
        from recsim_llm.agents.core.serving_session import predict

        return predict(self, observation, state, episode_start, deterministic, action_masks)

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
        from recsim_llm.agents.core.training import train

        train(self, total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)
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
        from recsim_llm.agents.core.run_logger import RunLogs

        self.logs = RunLogs(folder, formats, info_keywords)
        return self

    def interact(self) -> Transition:
        """One step of every lane: predict and step."""
        lanes = self.runner
        self.observe(lanes.info)
        self.where = lanes.served
        slates, self.state = self.choose(
            lanes.observation, self.state, lanes.fresh, False, lanes.available(), self.rng
        )  # fmt: skip
        return lanes.step(slates, self.state, self.propensity)

    def finish(self) -> None:  # noqa: B027
        """Called at the end of :meth:`learn`: prepares serving, and changes nothing that later learning depends on."""

    def candidates(self, obs: Floats) -> Slates | None:
        """Items [B, C] of the candidate lists in observations [B, P]; None where there are none."""
        if not self.env_spec.candidates:
            return None
        if self.where is None or self.env_spec.kinds:
            return self.env_spec.listed(obs)
        return self.where.candidates().copy()

    def get_env(self) -> Any:
        """The environment, as Stable-Baselines3's callbacks ask for it."""
        return self.env

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything learnt, by name; the arrays themselves, so that they can be filled when a file is loaded."""
        return {}

    def of_lanes(self) -> dict[str, NDArray[Any]]:
        """Arrays [B, ...] of what it keeps of each lane from one update to the next, traces for instance, by name."""
        return {}

    def extra(self) -> dict[str, Any]:
        """Numbers beside the arrays that belong to what was learnt; must be JSON."""
        return {}

    def restore(self, arrays: dict[str, NDArray[Any]], extra: dict[str, Any], source: object) -> None:
        """Takes over what :meth:`arrays` and :meth:`extra` gave when it was saved."""
        from recsim_llm.agents.core.agent_file import fill

        if extra:
            raise DataError(f"{source}: unexpected values {sorted(extra)}")
        fill(self.arrays(), arrays, source)

    def snapshot(self) -> dict[str, Any]:
        """Where its lanes stand in the middle of episodes; {} before the first step. Arrays, JSON, nested mappings."""
        from recsim_llm.agents.core.checkpoint import snapshot

        return snapshot(self)

    def resume(self, arrays: dict[str, NDArray[Any]], rest: dict[str, Any]) -> None:
        """Goes on from :meth:`snapshot`, taken apart by :func:`recsim_llm.agents.core.packing.pack`."""
        from recsim_llm.agents.core.checkpoint import resume

        resume(self, arrays, rest)

    def save(self, path: str | Path) -> Path:
        """Writes the agent as a zip of JSON and safetensors; ".zip" is added where the path has no suffix."""
        from recsim_llm.agents.core.checkpoint import save

        return save(self, path)

    @classmethod
    def load(cls, path: str | Path, env: Any = None, **config: Any) -> Self:
        """Reads an agent that was saved.

        In an environment like the one it learnt in (the same id, arguments and lanes) it goes on in the middle of the
        users' episodes, as if it had never been away; in another it begins new ones.

        A file from others is data: nothing that it names outside of the installed packages is opened or asked.

        Args:
            path: The file.
            env: Environment to go on in; None makes the one that the file names, if it is one of this package in a
                built-in world with arguments that are plain values.
            **config: Settings in place of the file's; those that name a folder, a hub's id or an address must be given.

        Raises:
            ConfigError: If it is another agent's file, the environment has another catalogue, or something that the
                file names must be given here.
            DataError: If the file is damaged or not an agent's.
        """
        from recsim_llm.agents.core.checkpoint import load

        return load(cls, path, env, **config)
