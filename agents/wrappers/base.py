"""Wrappers: agents around another agent.

The inner agent does not know. It notes in its state what was shown in the end, it learns from the same transitions, and
it is saved inside the wrapper's file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from recsim_llm import agents
from recsim_llm.agents.common.cooldown import CooldownConfig, RecentItems
from recsim_llm.agents.core.base import Agent
from recsim_llm.agents.core.config import Config
from recsim_llm.agents.core.env_runner import EnvironmentSpec, Flags, Floats, Slates, Transition
from recsim_llm.errors import ConfigError, DataError

Arrays = dict[str, NDArray[Any]]

MEMBERS = "members"
"""Where the parts of inner agents stand in a snapshot."""

OWN = (MEMBERS, "state", "running", "returns")
"""Parts of a snapshot that are an agent's own."""


@dataclass(frozen=True)
class WrapperConfig(Config):
    """Settings of :class:`Wrapper`.

    Attributes:
        agent: Name of the inner agent.
        agent_config: Its settings, by name; those left out are its defaults.
    """

    agent: str = "linucb"
    agent_config: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.inner()

    def inner(self) -> Config:
        """The settings of the inner agent.

        Raises:
            ConfigError: If there is no such agent or setting.
        """
        return agents.get(self.agent).Config.from_dict(self.agent_config)

    def outside(self) -> dict[str, str]:
        """What the settings of the inner agent name outside of the installed packages."""
        inner = [f"{name}={value!r}" for name, value in self.inner().outside().items()]
        return super().outside() | ({"agent_config": ", ".join(inner)} if inner else {})

    def _check_type(self, name: str, kind: Any) -> None:
        value = getattr(self, name)
        if kind != Mapping[str, Any]:
            super()._check_type(name, kind)
        elif not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise ConfigError(f"setting {name} must be a mapping of names to values, got {value!r}")
        else:
            object.__setattr__(self, name, dict(value))


class Wrapper(Agent):
    """An agent around another agent.

    Subclasses write :meth:`act` from :meth:`ask`, or leave it and change what is learnt from.

    Attributes:
        inner: The agent inside. What it needs, and whether it learns, becomes so of this agent too.
    """

    Config: ClassVar[type[Config]] = WrapperConfig
    config: WrapperConfig

    @classmethod
    def refusal(cls, env_spec: EnvironmentSpec, config: Any) -> str | None:
        """What the inner agent refuses."""
        return agents.get(config.agent).refusal(env_spec, config.inner())

    def setup(self, rng: np.random.Generator) -> None:
        """Makes the inner agent, in the same lanes."""
        self.inner = self._made(rng)
        vars(self).update(  # they are the class's in other agents; here they depend on the settings
            State=self.inner.State, needs_truth=self.inner.needs_truth, needs_torch=self.inner.needs_torch,
            libraries=self.inner.libraries, learns=self.inner.learns,
            elementwise=self.elementwise and self.inner.elementwise,
        )  # fmt: skip

    def _made(self, rng: np.random.Generator) -> Agent:
        kind, seed = agents.get(self.config.agent), int(rng.integers(2**31))
        inner = kind(self.env, self.config.inner(), seed=seed)
        self._share(inner)
        return inner

    def _share(self, inner: Agent) -> None:
        """Puts an agent, and those inside it, into this one's lanes."""
        inner.runner, inner.logger = self.runner, self.logger
        inner.episodes, inner.episode_sums = self.episodes, self.episode_sums
        for one in inner.members().values() if isinstance(inner, Wrapper) else ():
            self._share(one)

    def members(self) -> dict[str, Agent]:
        """The inner agents by the name under which they are saved."""
        return {"inner": self.inner}

    def act(
        self,
        obs: Floats,
        state: Any,
        episode_start: Flags,
        deterministic: bool,
        action_mask: Flags,
        rng: np.random.Generator,
    ) -> tuple[Slates, Any]:
        """What the inner agent chooses."""
        slates, after, self.propensity = self.ask(obs, state, episode_start, deterministic, action_mask, rng)
        return slates, after

    def ask(
        self,
        obs: Floats,
        state: Any,
        episode_start: Flags,
        deterministic: bool,
        action_mask: Flags,
        rng: np.random.Generator,
    ) -> tuple[Slates, Any, NDArray[np.float64]]:
        """The inner agent's slates, its state afterwards, and the probability of each slot, [B, K]."""
        inner = self._informed(self.inner)
        inner.propensity = np.ones((len(obs), self.env_spec.slate_size))
        slates, after = inner.act(obs, state, episode_start, deterministic, action_mask, rng)
        return slates, after, inner.propensity

    def scores(self, obs: Floats, state: Any, episode_start: Flags, action_mask: Flags) -> NDArray[np.floating] | None:
        """The inner agent's relevance, [B, I], or None."""
        return self._informed(self.inner).relevance(obs, state, episode_start, action_mask)

    def _informed(self, inner: Agent) -> Agent:
        """An inner agent that knows how many steps there were, and what this agent was shown."""
        inner.num_timesteps = self.num_timesteps
        inner.shown, inner.where = None, self.where
        if self.shown is not None:
            inner.observe(self.shown)
        return inner

    def usable(self, state: Any, action_mask: Flags) -> Flags:
        """Allowed items [B, I] that the inner agent does not let rest; ``state`` is its state after it was asked."""
        inner = self.inner
        if isinstance(inner, Wrapper):
            return inner.usable(inner.inner_state(state), action_mask)
        memory = getattr(state, "memory", state)
        if isinstance(inner.config, CooldownConfig) and isinstance(memory, RecentItems):
            return inner.cooldown.eligible(memory, action_mask)
        return action_mask

    def inner_state(self, state: Any) -> Any:
        """The inner agent's state in this agent's."""
        return state

    def note_shown(self, state: Any, slates: Slates) -> Any:
        """The inner agent notes what is shown."""
        return self.inner.note_shown(state, slates)

    def interact(self) -> Transition:
        """One step of every lane; an inner agent that gathers its data in a way of its own does so here too."""
        return self._informed(self.inner).interact() if self._own("interact") else super().interact()

    def update(self, transition: Transition) -> None:
        """The inner agent learns from what happened."""
        self._informed(self.inner).update(dataclasses.replace(transition, state=self.inner_state(transition.state)))

    def learn(
        self,
        total_timesteps: int,
        callback: Any = None,
        log_interval: int | None = None,
        tb_log_name: str = "run",
        reset_num_timesteps: bool = False,
        progress_bar: bool = False,
    ) -> Self:
        """As for other agents; an inner agent with a loop of its own learns in it, with its own slates."""
        given = (total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)
        if not self._own("learn"):
            return super().learn(*given)
        self.inner.logs = self.logs
        self._informed(self.inner).learn(*given)
        self.num_timesteps = self.inner.num_timesteps
        return self

    def _own(self, method: str) -> bool:
        """Whether the innermost agent has a method of its own in place of :class:`Agent`'s."""
        inner = self.inner
        if isinstance(inner, Wrapper):
            return inner._own(method)
        return getattr(type(inner), method) is not getattr(Agent, method)

    def finish(self) -> None:
        """The inner agents prepare serving."""
        for inner in self.members().values():
            self._informed(inner).finish()

    def snapshot(self) -> dict[str, Any]:
        """Where the lanes stand, and each inner agent in them."""
        if self._own("learn"):
            return self.inner.snapshot()
        whole, lanes = super().snapshot(), self.runner.snapshot()
        if not whole:
            return {}
        parts = {part: inner.snapshot() for part, inner in self.members().items()}
        own = {part: {key: value for key, value in one.items() if key not in lanes} for part, one in parts.items()}
        return {**whole, MEMBERS: own}

    def resume(self, arrays: Arrays, rest: dict[str, Any]) -> None:
        """Goes on from a snapshot."""
        if self._own("learn"):
            self.inner.resume(arrays, rest)
            return
        from recsim_llm.agents.core.packing import inside

        for part, inner in self.members().items():
            place = f"{MEMBERS}/{part}"
            inner.resume(_shared(arrays) | inside(arrays, place), _shared(rest) | inside(rest, place))
        self.episodes.clear()  # it is shared, and each of them filled it
        super().resume(arrays, rest)

    def arrays(self) -> Arrays:
        """What the inner agents learnt."""
        return {f"{part}/{name}": array for part, one in self.members().items() for name, array in one.arrays().items()}

    def extra(self) -> dict[str, Any]:
        """Numbers of the inner agents, and where their random streams stand."""
        return {
            part: {
                "extra": inner.extra(),
                "streams": [rng.bit_generator.state for rng in (inner.rng, inner.serving_rng)],
            }
            for part, inner in self.members().items()
        }

    def restore(self, arrays: Arrays, extra: dict[str, Any], source: object) -> None:
        """Takes the inner agents' parts over."""
        from recsim_llm.agents.core.packing import inside

        members = self.members()
        strange = [name for name in arrays if name.partition("/")[0] not in members]
        if set(extra) != set(members) or strange:
            raise DataError(f"{source}: expected parts {sorted(members)}, got {sorted({*extra, *strange})}")
        for part, inner in members.items():
            try:
                for rng, state in zip((inner.rng, inner.serving_rng), extra[part]["streams"], strict=True):
                    rng.bit_generator.state = state
                numbers = dict(extra[part]["extra"])
            except (TypeError, ValueError, KeyError) as error:
                raise DataError(f"{source}: what it holds of the agent {part!r} is not valid: {error}") from error
            self._informed(inner).restore(inside(arrays, part), numbers, source)


def _shared(parts: dict[str, Any]) -> dict[str, Any]:
    """The parts of a snapshot that are the lanes'."""
    return {name: part for name, part in parts.items() if name.partition("/")[0] not in OWN}
