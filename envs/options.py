"""Keyword arguments of the environments: their names, defaults, checks, and rewards by name."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec

from recsim_llm.errors import ConfigError, unexpected, unknown
from recsim_llm.simulator.task_variant import TaskVariant

Function = TypeVar("Function", bound=Callable[..., None])

Reward = str | Mapping[str, float] | Callable[[dict[str, Any]], Any] | None
OBSERVATIONS = ("flat", "dict")
MOST_REMEMBERED = 10_000
JUDGING = (None, "live")
JUDGE = "smollm2"
"""The judge that is asked where none is named."""
_rewards: dict[str, Callable[[dict[str, Any]], Any]] = {}


def register_reward(name: str, function: Callable[[dict[str, Any]], Any]) -> None:
    """Adds a reward by name, so that environments that use it can be written down as JSON.

    Args:
        name: Used as ``gym.make(..., reward=name)``.
        function: Takes the infos of B users (arrays [B] and [B, K], see the environment's documentation) and returns
            rewards [B]. It is called once more for each slot, with infos from which the slot is taken out: what it
            contributed to the reward stands in ``info["slot_reward"]``.
    """
    _rewards[name] = function


@dataclass(frozen=True)
class Options:
    """Keyword arguments that every environment takes; all but callables can be written as JSON.

    Attributes:
        world: Name of a built-in world or folder of another; None is the scenario's.
        slate_size: K; None is the scenario's.
        users: Split of the population: "all", "train" or "test".
        observation: "flat" (one Box) or "dict" (the same parts by name).
        reward: Weights of the reward terms, the name of a registered reward, or a function of the infos [B]; None is
            the scenario's. With a function, ``info["slot_reward"]`` is the difference that each slot makes to it.
        rules: Rule parameters to change.
        choice: Name of the choice model; None is the scenario's.
        dynamics: Name of a registered dynamics; None is the built-in drift.
        truth: Put the latent truth into the infos.
        action_mask: Put the action mask into the infos.
        strict: Raise on wasted slots instead of leaving them empty.
        horizon: Steps after which an episode is truncated; None leaves it to the spec (``max_episode_steps``).
        num_candidates: C; actions are positions in a list of C items drawn for each user and step, which the
            observation shows. None: positions in the catalogue.
        history: H, items shown last that the observation shows with their signals.
        group: Show the user's gender, age band and region in the observation.
        threads: Threads for many lanes; results do not depend on it.
        judge: "live" asks a judge about what is shown at every step, and its ratings take the place of the world's
            preference head; None is the head.
        judge_model: The judge: a name, folder or address as for :func:`recsim_llm.judges.load_judge`, or an object
            with ``name``, ``digest`` and ``rate``. Used with judge="live".
        judge_options: Settings of the judge, and "sample", "line" and "store" of
            :class:`JudgeUtilities`: how ratings become utilities, and whether they are kept on
            disk.
        variant: What makes the task harder than the scenario; its fields are keyword arguments of their own.
    """

    world: str | None = None
    slate_size: int | None = None
    users: str = "all"
    observation: str = "flat"
    reward: Reward = None
    rules: Mapping[str, Any] | None = None
    choice: str | None = None
    dynamics: str | None = None
    truth: bool = False
    action_mask: bool = False
    strict: bool = False
    horizon: int | None = None
    num_candidates: int | None = None
    history: int = 0
    group: bool = False
    threads: int | None = None
    judge: str | None = None
    judge_model: Any = JUDGE
    judge_options: Mapping[str, Any] | None = None
    variant: TaskVariant = dataclasses.field(default_factory=TaskVariant)

    def __post_init__(self) -> None:
        if self.observation not in OBSERVATIONS:
            raise unknown("observation form", self.observation, OBSERVATIONS)
        if isinstance(self.reward, str) and self.reward not in _rewards:
            raise unknown("reward", self.reward, _rewards)
        if self.judge not in JUDGING:
            raise unknown("judge", self.judge, ["live"])
        if self.judge is None and (self.judge_model != JUDGE or self.judge_options):
            raise ConfigError(
                f"judge_model={self.judge_model!r} and judge_options={self.judge_options!r} have no use here; "
                'add judge="live" or leave them out'
            )
        if self.horizon is not None and self.horizon < 1:
            raise ConfigError(f"horizon must be at least 1 step, got {self.horizon}")
        if self.num_candidates is not None and self.num_candidates < 1:
            raise ConfigError(
                f"num_candidates must be at least 1 (None is the whole catalogue), got {self.num_candidates}"
            )
        if not 0 <= self.history <= MOST_REMEMBERED:
            raise ConfigError(f"history must lie in 0..{MOST_REMEMBERED} items, got {self.history}")

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Options:
        """Options from keyword arguments, those of the variant among them.

        Raises:
            TypeError: If a name is not known; the message has the closest one.
            ConfigError: If a value is not valid.
        """
        axes, own = ({field.name for field in dataclasses.fields(kind)} for kind in (TaskVariant, cls))
        for name in settings:
            if name not in axes | own - {"variant"}:
                raise unexpected(name, axes | own - {"variant"})
        variant = TaskVariant(**{name: value for name, value in settings.items() if name in axes})
        return cls(**{name: value for name, value in settings.items() if name not in axes}, variant=variant)


def keywords(*kinds: type, without: Iterable[str] = ()) -> Callable[[Function], Function]:
    """Makes the signature of a constructor name the fields of dataclasses where it has ``**settings``."""

    def named(function: Function) -> Function:
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        taken = {parameter.name for parameter in own} | set(without)
        more = [
            inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type)
            for kind in kinds
            for field in dataclasses.fields(kind)
            if field.name not in taken
        ]
        function.__signature__ = signature.replace(parameters=[*own, *more])  # type: ignore[attr-defined]
        return function

    return named


def reward_of(
    wanted: Reward, default: Mapping[str, float]
) -> tuple[Callable[[dict[str, Any]], Any] | None, Mapping[str, float]]:
    """A reward as (function or None, weights of the terms)."""
    if wanted is None:
        return None, default
    if isinstance(wanted, str):
        if wanted not in _rewards:
            raise unknown("reward", wanted, _rewards)
        return _rewards[wanted], default
    if isinstance(wanted, Mapping):
        return None, wanted
    return wanted, default


def registered_limit(spec: EnvSpec | None) -> int | None:
    """Steps after which episodes of an id end, if ``gym.make`` is not told otherwise."""
    known = gym.registry.get(spec.id) if spec is not None else None
    return None if known is None else known.max_episode_steps


def warn_if_cut(horizon: int | None, limit: int | None) -> bool:
    """Says that episodes end before the horizon that was asked for; whether it was said."""
    cut = horizon is not None and limit is not None and horizon > limit
    if cut:
        gym.logger.warn(
            f"horizon={horizon} has no effect, episodes end at max_episode_steps={limit}; "
            f"pass max_episode_steps={horizon} to gym.make or gym.make_vec too"
        )
    return cut
