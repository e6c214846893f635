"""Experiments as data: scenarios x agents x seeds, divided into independent cells.

An :class:`Experiment` is scenarios x agents x seeds. Each :class:`Cell` holds everything its result depends on, so a
cell gives the same row wherever, whenever and in whatever order it runs, and the SHA-256 of its content is its name
in the results store.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

from recsim_llm._version import __version__
from recsim_llm.benchmarks.harness import codec
from recsim_llm.errors import ConfigError, StoreError, unknown

Json = Mapping[str, Any]
ALL_SCENARIOS = "*"
EVALUATION_SEED = 1_000_000
SAMPLED = " (sampled)"
"""Ends the name of a row whose agent is evaluated as it explores: a policy that is a distribution is sampled from."""
COMPATIBLE = ".".join(__version__.split(".")[: 2 if __version__.startswith("0.") else 1])
"""The part of the package's version within which results may be continued."""


@dataclass(frozen=True)
class Cell:
    """One agent with one seed in one scenario.

    Attributes:
        scenario: Environment id.
        agent: Name of the row: an agent's, with " (sampled)" where it is not evaluated at its mode.
        seed: Seed of the agent and of its training users.
        budget: Interactions for learning, counted over all lanes [environment steps].
        checkpoints: Interaction counts at which the agent is evaluated, ascending, the first 0, the last `budget`.
        lanes: Training users simulated side by side.
        episodes: Evaluation episodes at every checkpoint, one held-out user each.
        evaluation_seed: Seed of the first evaluation user; the same for every agent with the same `seed`.
        world: Name or folder of the world; None for the scenario's own.
        world_hash: Content hash of that world; "" where the cell function needs none.
        env_kwargs: Arguments of the environment.
        agent_config: Settings of the agent.
        deterministic: Whether it is evaluated without exploration: a policy that is a distribution at its mode.
        package: Version within which results may be continued.
    """

    scenario: str
    agent: str
    seed: int
    budget: int
    checkpoints: tuple[int, ...]
    lanes: int
    episodes: int
    evaluation_seed: int
    world: str | None = None
    world_hash: str = ""
    env_kwargs: Json = field(default_factory=dict)
    agent_config: Json = field(default_factory=dict)
    deterministic: bool = True
    package: str = COMPATIBLE

    def canonical(self) -> dict[str, Any]:
        """Everything that decides the result: the world counts by its content, not by where it lies."""
        content = _jsonable(self)
        if self.world_hash:
            content.pop("world")
        if self.deterministic:  # a cell that is evaluated so is the one it was before there was a choice
            content.pop("deterministic")
        return content

    @cached_property
    def key(self) -> str:
        """SHA-256 of the canonical content, in hexadecimal."""
        return codec.digest(self.canonical())

    @property
    def label(self) -> str:
        """A short name for people."""
        return f"{self.scenario} / {self.agent} / seed {self.seed}"

    def to_json(self) -> str:
        """The cell as one line of JSON."""
        return codec.dumps(_jsonable(self))

    @classmethod
    def from_json(cls, text: str) -> Cell:
        """Reads :meth:`to_json` back."""
        return cls.from_mapping(codec.loads(text))

    @classmethod
    def from_mapping(cls, content: Json) -> Cell:
        """Builds a cell from its content as JSON holds it."""
        return cls(**_known_fields(cls, content))

    def __post_init__(self) -> None:
        _freeze(self, tuples=("checkpoints",), mappings=("env_kwargs", "agent_config"))


@dataclass(frozen=True)
class Experiment:
    """Scenarios x agents x seeds, with a budget for learning and held-out users for evaluation.

    Attributes:
        scenarios: Environment ids.
        agents: Agent names; scores need "random" and "oracle" among them. "NAME (sampled)" evaluates the agent NAME
            with exploration, where NAME alone evaluates it without: for policies that are distributions these differ.
        seeds: Seeds, one independent run of every agent in every scenario for each.
        budget: Interactions for learning, over all lanes [environment steps].
        checkpoints: Interaction counts at which agents are evaluated; () gives nine, evenly spaced from 0 to `budget`.
        lanes: Training users simulated side by side.
        episodes: Evaluation episodes at every checkpoint, one held-out user each.
        world: Name or folder of a world for all scenarios; None for each scenario's own.
        env_kwargs: Arguments of the environments, by scenario; those under "*" go to all.
        agent_configs: Settings by agent; a row "NAME (sampled)" has those of NAME where it has none of its own.
        only: Agents by scenario, for scenarios that ask a question of their own: they run there alone, and the
            scenario is not part of the score.
        fewer_seeds: Number of seeds by agent, for agents that get only the first of them.
        name: A name for people; not part of the identity.

    Raises:
        ConfigError: At construction, if a value is not valid.
    """

    scenarios: tuple[str, ...]
    agents: tuple[str, ...]
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    budget: int = 100_000
    checkpoints: tuple[int, ...] = ()
    lanes: int = 32
    episodes: int = 200
    world: str | None = None
    env_kwargs: Mapping[str, Json] = field(default_factory=dict)
    agent_configs: Mapping[str, Json] = field(default_factory=dict)
    only: Mapping[str, Sequence[str]] = field(default_factory=dict)
    fewer_seeds: Mapping[str, int] = field(default_factory=dict)
    name: str = "experiment"

    def __post_init__(self) -> None:
        for name in ("scenarios", "agents", "seeds", "checkpoints"):
            if isinstance(getattr(self, name), str) or not isinstance(getattr(self, name), Sequence):
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be a list")
        _freeze(
            self,
            tuples=("scenarios", "agents", "seeds", "checkpoints"),
            mappings=("env_kwargs", "agent_configs", "only", "fewer_seeds"),
        )
        for name in ("budget", "lanes", "episodes"):
            _check_integer(name, getattr(self, name), at_least=0 if name == "budget" else 1)
        if not self.checkpoints:
            object.__setattr__(self, "checkpoints", even_grid(self.budget))
        self._check()

    def _check(self) -> None:
        for name in ("scenarios", "agents", "seeds"):
            values = getattr(self, name)
            if not values:
                raise ConfigError(f"{name} is empty; name at least one")
            doubled = sorted({str(value) for value in values if values.count(value) > 1})
            if doubled:
                raise ConfigError(f"{name} holds {', '.join(doubled)} more than once; results would count twice")
        for name in (*self.scenarios, *self.agents):
            if not isinstance(name, str) or not name:
                raise ConfigError(f"{name!r} is not a name")
        for number in (*self.seeds, *self.checkpoints):
            _check_integer("a seed or checkpoint", number, at_least=0)
        points = list(self.checkpoints)
        if points != sorted(set(points)) or points[0] != 0 or points[-1] != self.budget:
            raise ConfigError(
                f"checkpoints are {self.checkpoints}; they must ascend from 0 to the budget, {self.budget}"
            )
        for name in self.env_kwargs:
            if name != ALL_SCENARIOS and name not in self.scenarios:
                raise unknown("scenario of this experiment", name, (*self.scenarios, ALL_SCENARIOS))
        for name in (*self.agent_configs, *self.fewer_seeds, *(one for some in self.only.values() for one in some)):
            if name not in self.agents:
                raise unknown("agent of this experiment", name, self.agents)
        for name in self.only:
            if name not in self.scenarios:
                raise unknown("scenario of this experiment", name, self.scenarios)
        for count in self.fewer_seeds.values():
            _check_integer("a number of seeds", count, at_least=1)

    def canonical(self, worlds: Mapping[str, str] | None = None) -> dict[str, Any]:
        """What decides the results, in an order of its own, so that reordering an experiment changes nothing.

        Args:
            worlds: Content hash of each scenario's world, as far as known.
        """
        content = _jsonable(self)
        content.pop("name")
        for name in ("scenarios", "agents", *(() if self.fewer_seeds else ("seeds",))):
            content[name] = sorted(content[name])  # which seeds are the first matters where agents get only those
        content["only"] = {scenario: sorted(some) for scenario, some in content["only"].items()}
        for name in ("only", "fewer_seeds"):  # an experiment without them is the one it was before there were any
            if not content[name]:
                content.pop(name)
        if worlds:
            content.pop("world")
            content["worlds"] = dict(worlds)
        content["package"] = COMPATIBLE
        return content

    def has(self, seed: int, scenario: str, agent: str) -> bool:
        """Whether an agent runs in a scenario with a seed."""
        first = self.seeds[: self.fewer_seeds.get(agent, len(self.seeds))]
        return agent in self.only.get(scenario, self.agents) and seed in first

    @property
    def size(self) -> int:
        """Number of cells."""
        every = itertools.product(self.seeds, self.scenarios, self.agents)
        return sum(self.has(seed, scenario, agent) for seed, scenario, agent in every)

    def part(self, scenarios: Sequence[str]) -> Experiment:
        """The experiment as if it had only some of its scenarios, all of them with the agents of the first."""
        agents = tuple(agent for agent in self.agents if agent in self.only.get(scenarios[0], self.agents))
        kept = {name: some for name, some in self.env_kwargs.items() if name in (*scenarios, ALL_SCENARIOS)}
        return replace(
            self, scenarios=tuple(scenarios), agents=agents, only={}, env_kwargs=kept,
            agent_configs={name: some for name, some in self.agent_configs.items() if name in agents},
            fewer_seeds={name: count for name, count in self.fewer_seeds.items() if name in agents},
        )  # fmt: skip

    def cells(self, worlds: Mapping[str, str] | None = None) -> Iterator[Cell]:
        """The independent units of work, seeds outermost, so that an early stop leaves whole comparisons."""
        for seed, scenario, agent in itertools.product(self.seeds, self.scenarios, self.agents):
            if not self.has(seed, scenario, agent):
                continue
            yield Cell(
                scenario=scenario,
                agent=agent,
                seed=seed,
                budget=self.budget,
                checkpoints=self.checkpoints,
                lanes=self.lanes,
                episodes=self.episodes,
                evaluation_seed=EVALUATION_SEED + seed * 100_000,
                world=self.world,
                world_hash=(worlds or {}).get(scenario, ""),
                env_kwargs={**self.env_kwargs.get(ALL_SCENARIOS, {}), **self.env_kwargs.get(scenario, {})},
                agent_config=self.agent_configs.get(agent, self.agent_configs.get(agent_of(agent), {})),
                deterministic=agent == agent_of(agent),
            )

    def replace(self, **changes: Any) -> Experiment:
        """A copy with some values changed; a new budget gets a new grid of checkpoints unless one is given."""
        if "budget" in changes:
            changes.setdefault("checkpoints", ())
        return replace(self, **_known_fields(type(self), changes))

    def to_json(self) -> str:
        """The experiment as one line of JSON."""
        return codec.dumps(_jsonable(self))

    @classmethod
    def from_json(cls, text: str) -> Experiment:
        """Reads :meth:`to_json` back.

        Raises:
            ConfigError: If the text is not JSON, or a name in it is not known.
        """
        try:
            content = codec.loads(text)
        except ValueError as error:
            raise ConfigError(f"this is not an experiment in JSON: {error}") from error
        if not isinstance(content, dict):
            raise ConfigError(f"an experiment is a JSON object, not {content!r:.60}")
        try:
            return cls(**_known_fields(cls, content))
        except TypeError as error:
            raise ConfigError(f"the experiment is not complete: {error}") from error


def agent_of(row: str) -> str:
    """The agent of a row "NAME" or "NAME (sampled)"."""
    return row.removesuffix(SAMPLED)


def even_grid(budget: int, points: int = 9) -> tuple[int, ...]:
    """About `points` evenly spaced interaction counts from 0 to `budget`, both included."""
    return tuple(sorted({round(budget * k / (points - 1)) for k in range(points)}))


def _check_integer(name: str, value: Any, at_least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise ConfigError(f"{name} is {value!r}; it must be a whole number of at least {at_least}")


def _freeze(instance: Any, tuples: Sequence[str], mappings: Sequence[str]) -> None:
    """Copies containers into immutable ones, by way of JSON, so that nothing outside can change them later."""
    for name in tuples:
        object.__setattr__(instance, name, tuple(getattr(instance, name)))
    for name in mappings:
        try:
            content = codec.loads(codec.dumps(getattr(instance, name))) if getattr(instance, name) != {} else {}
        except StoreError as error:
            raise ConfigError(f"{name}: {error}") from error
        if not isinstance(content, dict):
            raise ConfigError(f"{name} is {content!r:.60}; it must be a mapping")
        object.__setattr__(instance, name, MappingProxyType(content))


def _jsonable(instance: Any) -> dict[str, Any]:
    content = {item.name: getattr(instance, item.name) for item in fields(instance)}
    return {name: dict(value) if isinstance(value, Mapping) else value for name, value in content.items()}


def _known_fields(cls: type[Any], content: Mapping[str, Any]) -> dict[str, Any]:
    names = {item.name for item in fields(cls)}
    for name in content:
        if name not in names:
            raise unknown(f"setting of {cls.__name__}", name, names)
    return dict(content)
