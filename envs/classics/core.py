"""RecSim's three environments in this project's shells: options, spaces, observations, infos."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from recsim_llm.envs.classics.topic_view import TopicView
from recsim_llm.envs.core import Core
from recsim_llm.envs.infos import Infos
from recsim_llm.envs.options import OBSERVATIONS, Reward, keywords, reward_of
from recsim_llm.envs.scalar_env import RecEnv
from recsim_llm.envs.vector_env import RecVectorEnv
from recsim_llm.errors import ConfigError, unexpected, unknown
from recsim_llm.simulator.classics.simulator import ClassicSimulator
from recsim_llm.simulator.classics.user_step import DRAWN, USERS

MOST_CANDIDATES = 1_000_000


@dataclass(frozen=True)
class ClassicOptions:
    """Keyword arguments that every classic takes beside the constants of its MDP; all but callables are JSON.

    Attributes:
        users: "all", "train" or "test": no user of one of the last two is one of the other.
        slate_size: K; None is the scenario's.
        num_candidates: C, documents to choose from at each step; None is the scenario's.
        resample_documents: Draw new candidates for every user and step; else one list for all users and all time.
        documents_seed: Seed of that list.
        observation: "flat" (one Box) or "dict" (the same parts by name).
        reward: Weights of the reward terms, the name of a registered reward, or a function of the infos [B]; None is
            the scenario's.
        truth: Put the latent truth into the infos.
        action_mask: Put the action mask into the infos.
        strict: Raise on wasted slots instead of leaving them empty.
        horizon: Steps after which an episode is truncated; None leaves it to the spec (``max_episode_steps``).
        threads: Threads for many lanes; results do not depend on it.
    """

    users: str = "all"
    slate_size: int | None = None
    num_candidates: int | None = None
    resample_documents: bool = True
    documents_seed: int = 0
    observation: str = "flat"
    reward: Reward = None
    truth: bool = False
    action_mask: bool = False
    strict: bool = False
    horizon: int | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.users not in DRAWN:
            raise unknown("split", self.users, DRAWN)
        if self.observation not in OBSERVATIONS:
            raise unknown("observation form", self.observation, OBSERVATIONS)
        if self.horizon is not None and self.horizon < 1:
            raise ConfigError(f"horizon must be at least 1 step, got {self.horizon}")
        if self.num_candidates is not None and not 1 <= self.num_candidates <= MOST_CANDIDATES:
            raise ConfigError(f"num_candidates must lie in 1..{MOST_CANDIDATES}, got {self.num_candidates}")


@dataclass(frozen=True)
class Classic:
    """One of the three.

    Attributes:
        name: Name in the environment's id.
        slate_size: K.
        num_candidates: C.
        parameters: Dataclass of the MDP's constants; its fields are keyword arguments.
        reward: Weights of the reward terms.
        horizon: Steps after which an episode is truncated.
        truth: Names of the latent truth, and how it is read off a simulator as [B, ...].
    """

    name: str
    slate_size: int
    num_candidates: int
    parameters: type[Any]
    reward: Mapping[str, float]
    horizon: int
    truth: Mapping[str, Callable[[ClassicSimulator], NDArray[Any]]]
    world: None = None
    """There is none: documents and users are drawn from distributions."""

    @property
    def id(self) -> str:
        """The registered id."""
        return f"recsim_llm/{self.name}-v0"


def user_infos(
    simulator: ClassicSimulator, user: Any, clicks: Any, total_clicks: Any, total_shown: Any, wasted: Any
) -> Infos:
    """Counts of the step and the episode, from fields of the users' records: arrays [B] or plain numbers."""
    ctr = total_clicks / (total_shown + (total_shown == 0))
    return {"user_id": user, "clicks": clicks, "ctr": ctr, "wasted": wasted}


def add_slot_infos(infos: Infos, simulator: ClassicSimulator, lanes: slice | int) -> None:
    """Adds slate, topics and signals of each slot: [B, K] for all lanes, [K] for one."""
    state = simulator.state
    infos["slate"], infos["cluster_id"] = state.slate[lanes].copy(), state.shown[lanes].copy()
    infos.update(zip(simulator.model.signals, state.signals[:, lanes].copy(), strict=True))


class ClassicCore(Core):
    """B users of a classic, with spaces and infos as Gymnasium wants them.

    Args:
        scenario: Which one.
        settings: Fields of :class:`ClassicOptions` and of the MDP's constants.
        lanes: B.

    Raises:
        TypeError: If a setting is not known; the message has the closest one.
        ConfigError: If a value is not valid.
    """

    chosen_from = "list"
    user_fields = ("user", "clicks", "total_clicks", "total_shown", "wasted")
    user_infos = staticmethod(user_infos)
    add_slot_infos = staticmethod(add_slot_infos)

    def __init__(self, scenario: Classic, settings: Mapping[str, Any], lanes: int) -> None:
        general, own = ({field.name for field in fields(kind)} for kind in (ClassicOptions, scenario.parameters))
        for name in settings:
            if name not in general | own:
                raise unexpected(name, general | own)
        options = ClassicOptions(**{name: value for name, value in settings.items() if name in general})
        parameters = scenario.parameters(**{name: value for name, value in settings.items() if name in own})
        reward_function, weights = reward_of(options.reward, scenario.reward)
        simulator = ClassicSimulator(
            parameters, lanes=lanes,
            slate_size=scenario.slate_size if options.slate_size is None else options.slate_size,
            candidates=scenario.num_candidates if options.num_candidates is None else options.num_candidates,
            resample=options.resample_documents, documents_seed=options.documents_seed,
            apart=options.observation == "dict", weights=weights, threads=options.threads, users=options.users,
        )  # fmt: skip
        super().__init__(scenario, options, simulator, reward_function, weights)
        self._limits = self._bounds()
        self._views: dict[str, NDArray[np.float32]] | None = None

    @property
    def catalog(self) -> Any:
        """There is none.

        Raises:
            AttributeError: Always.
        """
        raise AttributeError(
            f"{self.scenario.name} has no catalogue: its documents are drawn anew and stand in the observation "
            '(layout["doc"]); agent_view.catalog has the kinds of documents, which agents learn about'
        )

    @functools.cached_property
    def agent_view(self) -> TopicView:
        """The environment as agents see it that know a catalogue."""
        simulator = self.simulator
        return TopicView(
            self.scenario.name, self.layout, slate_size=self.slate_size, candidates=simulator.candidates,
            topics=simulator.model.traits, signals=simulator.model.signals, weights=self.reward_weights,
        )  # fmt: skip

    def truth(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Attraction [logit] and expected reward of a click of each candidate, [B, C] each."""
        appeal, value = self.simulator.truth()
        return appeal.astype(np.float32), value.astype(np.float32)

    @property
    def items(self) -> int:
        """C, the number of candidates."""
        return int(self.simulator.candidates)

    def observation_space(self) -> spaces.Space[Any]:
        """One Box, or a Dict of the same parts."""
        low, high = self._limits
        if self.options.observation == "flat":
            return spaces.Box(low, high, dtype=np.float32)
        return spaces.Dict(
            {name: spaces.Box(low[part], high[part], dtype=np.float32) for name, part in self.layout.items()}
        )

    def _bounds(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        width = max(part.stop for part in self.layout.values())
        low, high = np.zeros(width, np.float32), np.ones(width, np.float32)
        for name, _, least in self.simulator.model.parts:
            if name in self.layout:
                low[self.layout[name]] = least
        return low, high

    def observed(self, rows: NDArray[np.float32]) -> Any:
        """Copies rows [B, P] or [P] into the form of the observation space."""
        seen = self.viewed(rows)
        return {name: part.copy() for name, part in seen.items()} if isinstance(seen, dict) else seen.copy()

    def viewed(self, rows: NDArray[np.float32]) -> Any:
        """The same without copies; a list of candidates that never changes is one read-only array for all lanes."""
        if self.options.observation == "flat":
            return rows
        if rows is self.simulator.outcome.observation:
            if self._views is None:
                self._views = self._parts(rows)
            return dict(self._views)
        return self._parts(rows)

    def _parts(self, rows: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        parts = {name: rows[..., part] for name, part in self.layout.items()}
        if not self.simulator.resample:
            listed = self.simulator.listed
            parts["doc"] = np.broadcast_to(listed, (*rows.shape[:-1], len(listed)))
        return parts

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_views": None}  # a copy has rows of its own

    def further_infos(self) -> Infos:
        """Mask and truth, where they were asked for."""
        infos = super().further_infos()
        if self.options.truth:
            infos["truth_appeal"], infos["truth_value"] = self.truth()
            infos |= {name: read(self.simulator) for name, read in self.scenario.truth.items()}
        return infos

    def find_user(self, user: Any) -> int:
        """The number of a user.

        Raises:
            ConfigError: If there is no such user.
        """
        if isinstance(user, bool) or not isinstance(user, int | np.integer) or not 0 <= user < USERS:
            raise ConfigError(f"no user {user!r}; users are numbered 0..{USERS - 1}")
        return int(user)


class _ClassicShell:
    """What the classics do otherwise than environments with a world."""

    scenario: ClassVar[Any]
    core: Any

    def __init_subclass__(cls, **arguments: Any) -> None:
        """Names the keyword arguments of a class that names its scenario."""
        super().__init_subclass__(**arguments)
        if "scenario" in vars(cls):
            scalar = issubclass(cls, RecEnv)
            shell: Any = cls.__init__

            @keywords(ClassicOptions, cls.scenario.parameters, without=("threads",) if scalar else ())
            @functools.wraps(shell)
            def constructor(self: Any, *args: Any, **settings: Any) -> None:
                shell(self, *args, **settings)

            setattr(cls, "__init__", constructor)  # noqa: B010  (mypy takes an assignment for a mistake)

    @classmethod
    def _make_core(cls, settings: Mapping[str, Any], lanes: int) -> Core:
        return ClassicCore(cls.scenario, settings, lanes)

    def _check_reward(self) -> None:
        """Nothing to check: every term of a classic's reward can occur."""

    @property
    def agent_view(self) -> TopicView:
        """The environment as agents see it that know a catalogue: kinds of documents are its items."""
        view: TopicView = self.core.agent_view
        return view

    @property
    def context_names(self) -> tuple[str, ...]:
        """Observations of the classics have no context part."""
        return ()


class ClassicEnv(_ClassicShell, RecEnv):
    """One user of a classic. Subclasses name it and document it."""

    def __init__(self, *, render_mode: str | None = None, **settings: Any) -> None:
        super().__init__(render_mode=render_mode, **settings)


class ClassicVectorEnv(_ClassicShell, RecVectorEnv):
    """B users of a classic. Subclasses name it."""

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
        super().__init__(
            num_envs, max_episode_steps=max_episode_steps, autoreset_mode=autoreset_mode, copy=copy,
            render_mode=render_mode, **settings,
        )  # fmt: skip

    def _observed(self) -> Any:
        core: Any = self.core
        rows = core.simulator.outcome.observation
        return core.observed(rows) if self.copy else core.viewed(rows)
