"""Commands play and train, in one environment."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from recsim_llm.commands.common import AsJson, Settings, console, environment_id, parsed_settings, print_json

Env = Annotated[str, typer.Option("--env", "-e", help="Environment: id or short name, such as music.")]
WorldName = Annotated[str | None, typer.Option("--world", help="Built-in world or folder of another.")]


def play(
    env: Env = "news",
    agent: Annotated[str, typer.Option("--agent", "-a", help="Agent's name, or the file of a trained one.")] = "random",
    steps: Annotated[int, typer.Option("--steps", "-n", help="Steps to show.", min=1)] = 5,
    seed: Annotated[int, typer.Option(help="Seed of the user.", min=0)] = 0,
    user: Annotated[str | None, typer.Option(help="A user's id; one is drawn if left out.")] = None,
    world: WorldName = None,
    picture: Annotated[Path | None, typer.Option(help="Also write the episode as a PNG file.")] = None,
) -> None:
    """Play a session as text: the persona, each slate, and what she does with it."""
    from recsim_llm.commands.timeline import play_episode

    played = play_episode(
        env, agent, mode="ansi", steps=steps, seed=seed, user=user, world=world,
        watch=lambda session: console.print(session.render(), highlight=False),
    )  # fmt: skip
    console.print(f"Return {played.total:.2f} in {played.steps} steps.", highlight=False)
    if played.terminated or played.truncated:
        console.print("She has left for good." if played.terminated else "The horizon is reached.")
    if picture is not None:
        _write_picture(played.session, picture)


def _write_picture(session: Any, path: Path) -> None:
    from recsim_llm.errors import require

    image = require("matplotlib.image", "benchmarks")
    pixels = session.unwrapped._recorder.picture()
    image.imsave(path, pixels)
    console.print(f"picture: {path}")


def train(
    agent: Annotated[str, typer.Option("--agent", "-a", help="Agent's name.")],
    env: Env = "music",
    timesteps: Annotated[
        int, typer.Option("--timesteps", "-n", help="Steps of learning, over all lanes.", min=1)
    ] = 20_000,
    seed: Annotated[int, typer.Option(help="Seed of the agent and its users.", min=0)] = 0,
    lanes: Annotated[int, typer.Option(help="Users simulated side by side.", min=1)] = 32,
    world: WorldName = None,
    settings: Settings = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File of the trained agent (.zip).")] = None,
    episodes: Annotated[int, typer.Option(help="Held-out users of the evaluation.", min=1)] = 200,
    json: AsJson = False,
) -> None:
    """Train an agent, evaluate it on held-out users, and save it."""
    import gymnasium as gym
    import numpy as np

    from recsim_llm import agents
    from recsim_llm.benchmarks import evaluate

    name = environment_id(env)
    kind = agents.get(agent)
    extra: dict[str, Any] = {"world": world} if world else {}
    if kind.needs_truth:
        extra["truth"] = True
    training = gym.make_vec(name, num_envs=lanes, users="train", **extra)
    learner = agents.make(agent, training, seed=seed, **parsed_settings(settings))
    started = time.perf_counter()
    if kind.learns:
        learner.learn(timesteps)
    took = time.perf_counter() - started
    held_out = gym.make_vec(name, num_envs=episodes, users="test", autoreset_mode="Disabled", **extra)
    found = evaluate(learner, held_out, seed=seed + 1_000_003)
    returns = np.asarray(found.returns)
    half = 1.96 * returns.std(ddof=1) / np.sqrt(len(returns)) if len(returns) > 1 else float("nan")
    summary: dict[str, Any] = {
        "agent": agent,
        "env": name,
        "timesteps": learner.num_timesteps,
        "train_s": round(took, 2),
        "mean_return": float(returns.mean()),
        "ci95": [float(returns.mean() - half), float(returns.mean() + half)],
        "episodes": len(returns),
        **{key: value for key, value in found.metrics.items() if key != "return"},
    }
    if out is not None:
        learner.save(out)
        summary["saved"] = str(out)
    if json:
        print_json(summary)
        return
    low, high = summary["ci95"]
    console.print(
        f"{agent} on {name}: mean return {returns.mean():.2f}, 95% CI [{low:.2f}, {high:.2f}], n={len(returns)} "
        f"held-out users, after {learner.num_timesteps} steps in {took:.1f} s",
        highlight=False,
    )
    if out is not None:
        console.print(f"saved: {out}", highlight=False)
