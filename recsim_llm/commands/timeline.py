"""Command timeline: one user's episode as a page; its loop serves ``play`` too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from recsim_llm.commands.common import console, environment_id


@dataclass(frozen=True)
class Played:
    """An episode that was played: its environment as it stands, steps, sum of rewards, and how it ended, if it did."""

    session: Any
    steps: int
    total: float
    terminated: bool
    truncated: bool


def play_episode(
    env: str,
    agent: str,
    *,
    mode: str,
    steps: int,
    seed: int,
    user: str | None,
    world: str | None,
    watch: Callable[[Any], None] | None = None,
) -> Played:
    """Plays one episode, the agent without exploration.

    Args:
        env: Environment's id or short name.
        agent: Agent's name, or the file of a trained one.
        mode: Render mode.
        steps: Steps at most.
        seed: Seed of the user and the agent.
        user: A user's id, or None.
        world: Built-in world or folder of another; None is the scenario's.
        watch: Is given the environment after each step.
    """
    import gymnasium as gym
    import numpy as np

    from recsim_llm import agents

    name, saved = environment_id(env), Path(agent).is_file()
    extra: dict[str, Any] = {"world": world} if world else {}
    if not saved and agents.get(agent).needs_truth:
        extra["truth"] = True
    session = gym.make(name, render_mode=mode, **extra)
    player: Any = agents.load(agent, session) if saved else agents.make(agent, session, seed=seed)
    observation, _ = session.reset(seed=seed, options=None if user is None else {"user": user})
    played, total, terminated, truncated = 0, 0.0, False, False
    while played < steps and not (terminated or truncated):
        action, _ = player.predict(observation, deterministic=True)
        observation, reward, terminated, truncated, _ = session.step(action)
        played, total = played + 1, total + float(np.sum(np.asarray(reward)))
        if watch is not None:
            watch(session)
    return Played(session, played, total, terminated, truncated)


def timeline(
    env: Annotated[str, typer.Argument(help="Environment: id or short name, such as music.")],
    agent: Annotated[str, typer.Option("--agent", "-a", help="Agent's name, or the file of a trained one.")] = "random",
    steps: Annotated[int, typer.Option("--steps", "-n", help="Steps at most.", min=1, max=1000)] = 60,
    seed: Annotated[int, typer.Option(help="Seed of the user.", min=0)] = 0,
    user: Annotated[str | None, typer.Option(help="A user's id; one is drawn if left out.")] = None,
    world: Annotated[str | None, typer.Option("--world", help="Built-in world or folder of another.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The page; .png makes a picture instead.")] = Path(
        "timeline.html"
    ),
) -> None:
    """Make one page of a user's episode: what she was shown, what she did, mood, satiation, taste."""
    from recsim_llm.errors import ConfigError, require
    from recsim_llm.files import write_file

    suffix = out.suffix.lower()
    if suffix not in (".html", ".htm", ".png"):
        raise ConfigError(f"--out {str(out)!r} must end in .html (a page) or .png (a picture)")
    mode = "rgb_array" if suffix == ".png" else "html"
    require("matplotlib" if mode == "rgb_array" else "jinja2", "benchmarks")
    played = play_episode(env, agent, mode=mode, steps=steps, seed=seed, user=user, world=world)
    out.parent.mkdir(parents=True, exist_ok=True)
    if mode == "html":
        write_file(out, played.session.render().encode())
    else:
        require("matplotlib.image", "benchmarks").imsave(out, played.session.render())
    left = ", to the end of the episode" if played.terminated else ""
    console.print(f"timeline of {played.steps} steps{left}: {out}", highlight=False)
