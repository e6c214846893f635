"""Documentation pages: one for every environment, made from its docstring, its spec and its world.

A page is about an entry point. Ids that are the same environment with other keyword arguments stand in its page: one
environment is made for each page, however many ids there are.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec, load_env_creator

from recsim_llm.envs.registration import ids, mo_ids, variants
from recsim_llm.envs.vector_reward.objectives import DEFAULT
from recsim_llm.errors import ConfigError, DataError
from recsim_llm.simulator import Rules
from recsim_llm.simulator.task_variant import TaskVariant

HEADINGS = (
    "Description", "Action Space", "Observation Space", "Rewards", "Starting State", "Episode End", "Arguments",
    "Information", "Vectorized environment", "References", "Version History",
)  # fmt: skip
"""Headings of an environment's docstring, in order."""

FOLDER = "environments"
MYOPIA = Path(__file__).resolve().parent.parent / "benchmarks" / "stored" / "myopia.json"
VECTOR = "/mo-"
VECTOR_NOTE = (
    "The same environment in MO-Gymnasium's form: `mo_gymnasium.make`, rewards are float32 vectors of the `objectives` "
    "({default} unless others are named), `reward_space` and `reward_dim` describe them."
)
STOCK = (
    "In the default form the mode of a stock PPO of Stable-Baselines3 shows one track again and again and earns less "
    "than chance. Actions are positions in the whole catalogue, a repeated track loses its attraction, and the "
    "observation does not name it. The keyword that helps is `num_candidates=10`: a position in a list drawn anew at "
    "each step is another track each time. Training also needs `horizon=1`, which keeps the luck of later steps out of "
    "the advantages. Served whole episodes of held-out users, its mode then earns 32 after 20,480 steps, where chance "
    "earns 29 (the myopic oracle 64, `linucb` 55): clearly above chance, and far from what can be had. Without "
    "`horizon=1` it was 0.9 ± 0.3 above chance after 102,400 steps, with it 4.7 ± 0.3."
)
"""What a stock policy gradient learns in Music, measured; test_stock_ppo.py repeats the first two numbers."""

NOTE = "<!-- Made by `recsim-llm docs`; the words are those of the docstring. -->"


@dataclasses.dataclass(frozen=True)
class Entry:
    """One page: the id that it is about, and the ids that are the same with other keyword arguments."""

    base: EnvSpec
    variants: list[EnvSpec]

    @property
    def file(self) -> str:
        """Name of the page's file."""
        return f"{self.base.name.lower()}-v{self.base.version}.md"


def pages(myopia: Path = MYOPIA) -> dict[str, str]:
    """All pages by file name, the index among them.

    Args:
        myopia: File of the measured gains of looking ahead, JSON: id -> {"gain": mean gain in return per episode over
            the myopic oracle, "ci95": [low, high], "policy": what looked ahead}. It may be missing.

    Raises:
        ConfigError: If a docstring has not the fixed headings.
        DataError: If the stored gains cannot be read.
    """
    gains = _gains(myopia)
    listed = entries()
    made = {entry.file: page(entry, gains) for entry in listed}
    return {"index.md": _index(listed), **made}


def entries(names: Sequence[str] | None = None) -> list[Entry]:
    """Registered ids by entry point, in the order of the table; an id without preset arguments is the base."""
    groups: dict[Any, list[EnvSpec]] = {}
    for name in [*ids(), *variants(), *mo_ids()] if names is None else names:
        spec = gym.spec(name)
        base = gym.spec(name.replace(VECTOR, "/"))  # one with a vector reward stands with its scenario
        groups.setdefault((base.entry_point, base.version), []).append(spec)
    found = []
    for specs in groups.values():
        base = next((spec for spec in specs if not spec.kwargs and VECTOR not in spec.id), specs[0])
        found.append(Entry(base, [spec for spec in specs if spec is not base]))
    return found


def page(entry: Entry, gains: Mapping[str, Any]) -> str:
    """One page.

    Raises:
        ConfigError: If the docstring has not the fixed headings.
    """
    spec = entry.base
    env = gym.make(spec.id)
    told = documentation(spec)
    summary, _, body = told.partition("\n")
    core = getattr(env.unwrapped, "core", None)
    parts = [
        NOTE, f"# {spec.id}", summary, _table(("what", "value"), _facts(spec, env)), body.strip(),
        *_parameters(core), *_world(getattr(core, "world", None)), *_stock(spec), "## Myopia", _myopia(spec.id, gains),
        *_variants(entry, gains),
    ]  # fmt: skip
    env.close()
    return "\n\n".join(part for part in parts if part) + "\n"


def documentation(spec: EnvSpec) -> str:
    """An environment's docstring.

    Raises:
        ConfigError: If it has not the fixed headings in their order.
    """
    told = inspect.getdoc(_creator(spec)) or ""
    headings = tuple(re.findall(r"^## (.+)$", told, re.MULTILINE))
    if headings != HEADINGS:
        raise ConfigError(
            f"the docstring of {spec.id} has the headings {list(headings)}; a page needs in order: {list(HEADINGS)}"
        )
    return told


def attributes(kind: type) -> dict[str, str]:
    """What a class's docstring says about its attributes, one line each."""
    told = inspect.getdoc(kind) or ""
    section = told.partition("Attributes:\n")[2]
    found: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        if line and not line.startswith(" "):
            break  # the next section
        start = re.match(r" {4}(\w+): (.*)", line)
        if start:
            name = start[1]
            found[name] = start[2]
        elif name and line.strip():
            found[name] += f" {line.strip()}"
    return found


def _creator(spec: EnvSpec) -> Any:
    entry = spec.entry_point
    return load_env_creator(entry) if isinstance(entry, str) else entry


def _facts(spec: EnvSpec, env: gym.Env[Any, Any]) -> list[tuple[str, ...]]:
    return [
        ("make", f'`gym.make("{spec.id}")`'),
        ("action space", f"`{_space(env.action_space)}`"),
        ("observation space", f"`{_space(env.observation_space)}`"),
        ("reward", _reward(spec)),
        ("horizon", _horizon(spec)),
        ("reward threshold", _threshold(spec)),
    ]


def _space(space: Any) -> str:
    """A space in one line; a slate's sizes are the same and stand once."""
    if isinstance(space, gym.spaces.MultiDiscrete) and space.nvec.ndim == 1 and len(set(space.nvec.tolist())) == 1:
        return f"MultiDiscrete([{space.nvec[0]}] * {len(space.nvec)})"
    if isinstance(space, gym.spaces.Box):
        bounds = (_range(space.low), _range(space.high))
        return f"Box({bounds[0]}, {bounds[1]}, {space.shape}, {space.dtype})"
    return " ".join(str(space).split())


def _range(bounds: Any) -> str:
    """One number, or the smallest and the largest of several."""
    low, high = float(bounds.min()), float(bounds.max())
    return f"{low:g}" if low == high else f"{low:g}..{high:g}"


def _reward(spec: EnvSpec) -> str:
    weights = spec.kwargs.get("reward", getattr(getattr(_creator(spec), "scenario", None), "reward", None))
    if isinstance(weights, Mapping):
        return " + ".join(f"{weight:g} {term}" for term, weight in weights.items())
    return _code(weights) if weights is not None else "see Rewards"


def _horizon(spec: EnvSpec) -> str:
    return "none" if spec.max_episode_steps is None else f"{spec.max_episode_steps} steps"


def _threshold(spec: EnvSpec) -> str:
    return "none" if spec.reward_threshold is None else f"{spec.reward_threshold:g}"


def _parameters(core: Any) -> list[str]:
    """The rule parameters that differ from the defaults, with what they are."""
    rules = getattr(getattr(core, "simulator", None), "rules", None)
    if not isinstance(rules, Rules):
        return []
    meaning, plain = attributes(Rules), Rules()
    rows = [
        (f"`{field.name}`", _code(getattr(rules, field.name)), _code(getattr(plain, field.name)), meaning[field.name])
        for field in dataclasses.fields(Rules)
        if getattr(rules, field.name) != getattr(plain, field.name)
    ]
    told = "Rule parameters that differ from the defaults of `recsim_llm.simulator.Rules`; `rules={...}` changes them."
    return ["## Parameters", told, _table(("parameter", "value", "default", "meaning"), rows)]


def _world(world: Any) -> list[str]:
    if world is None:
        return []
    encoder = world.encoder
    rows = [
        ("name", f"`{world.name}`"),
        ("items", f"{len(world.catalog):,} in {len(world.catalog.topics)} themes"),
        ("users", f"{len(world.population):,}"),
        ("encoder", f"{encoder.get('id', encoder.get('name', 'none'))}, {world.catalog.width} components are kept"),
        ("hash", f"`{world.hash}`"),
    ]
    return ["## World", _table(("what", "value"), rows)]


def _stock(spec: EnvSpec) -> list[str]:
    """Which keyword a stock PPO needs; only Music was measured."""
    return ["## Stock PPO", STOCK] if spec.id == "recsim_llm/Music-v0" else []


def _gains(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is no JSON file: {error}") from error
    if not isinstance(stored, dict):
        raise DataError(f"{path} must hold one JSON object, id -> gain, got a {type(stored).__name__}")
    return stored


def _myopia(name: str, gains: Mapping[str, Any]) -> str:
    """How much looking ahead is worth."""
    if name not in gains:
        return "How much a policy that looks ahead gains over the myopic oracle has not been measured for this id."
    row = gains[name] if isinstance(gains[name], Mapping) else {"gain": gains[name]}
    try:
        gain = f"{float(row['gain']):+.2f}"
        interval = " [{:+.2f}, {:+.2f}]".format(*map(float, row["ci95"])) if "ci95" in row else ""
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DataError(
            f'the stored gain of {name} is {row!r}; it must be {{"gain": number, "ci95": [low, high]}}'
        ) from error
    policy = f" ({_cell(str(row['policy']))})" if row.get("policy") else ""
    low, high = map(float, row.get("ci95", (row["gain"], row["gain"])))
    unsure = ": it cannot be told from nothing" if low <= 0 <= high else ""
    return (
        f"A policy that looks ahead{policy} gains {gain}{interval} return per episode over the myopic oracle{unsure}."
    )


def _variants(entry: Entry, gains: Mapping[str, Any]) -> list[str]:
    """A short section for each id that is this environment with preset arguments."""
    if not entry.variants:
        return []
    parts = ["## Variants", "The same environment with some keyword arguments preset."]
    for spec in entry.variants:
        if VECTOR in spec.id:
            parts += [f"### {spec.id}", VECTOR_NOTE.format(default=", ".join(DEFAULT))]
            continue
        rows = [
            (f"`{name}`", _code(value), _code(entry.base.kwargs[name]) if name in entry.base.kwargs else "default")
            for name, value in _differing(entry, spec)
        ]
        parts += [f"### {spec.id}", _table(("argument", "here", f"in {entry.base.id}"), rows)]
        parts.append(f"Horizon {_horizon(spec)}; reward threshold {_threshold(spec)}.")
        if spec.id in gains:
            parts.append(_myopia(spec.id, gains))
    return parts


def _differing(entry: Entry, spec: EnvSpec) -> list[tuple[str, Any]]:
    names = dict.fromkeys([*spec.kwargs, *entry.base.kwargs])
    pairs = [(name, spec.kwargs.get(name)) for name in names]
    return [(name, value) for name, value in pairs if value != entry.base.kwargs.get(name)]


def _index(listed: Sequence[Entry]) -> str:
    rows = []
    for entry in listed:
        for spec in (entry.base, *entry.variants):
            place = "" if spec is entry.base else f"#{_anchor(spec.id)}"
            link = f"[{spec.id}]({entry.file}{place})"
            told = (inspect.getdoc(_creator(spec)) or "").partition("\n")[0].rstrip(".")
            if spec is not entry.base:
                preset = ", ".join(
                    f"{name}={json.dumps(value, default=str)}" for name, value in _differing(entry, spec)
                )
                told = f"`{preset}`" if preset else "the same with a vector reward"
            rows.append((link, told, _horizon(spec), _reward(spec), _threshold(spec)))
    axes = attributes(TaskVariant)
    plain = TaskVariant()
    axis_rows = [(f"`{name}`", _code(getattr(plain, name)), text) for name, text in axes.items()]
    return "\n\n".join(
        [
            NOTE, "# Environments",
            "`gym.make(id)` makes an environment, `gym.make_vec(id, num_envs=B)` one compiled simulator of B users.",
            _table(("id", "what it is", "horizon", "reward", "reward threshold"), rows),
            "## Axes of a task variant",
            "Keyword arguments that make any scenario harder; the defaults change nothing.",
            _table(("argument", "default", "meaning"), axis_rows),
        ]
    ) + "\n"  # fmt: skip


def _anchor(heading: str) -> str:
    """The name that GitHub gives to a heading's place."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _code(value: Any) -> str:
    return f"`{json.dumps(value, default=str)}`"


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(headers)} |", "|:--" * len(headers) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(map(_cell, row))} |" for row in rows)])


def _cell(text: str) -> str:
    """A text inside a table: one line, its bars escaped."""
    return " ".join(text.replace("|", r"\|").split())
