"""Commands on writing: a language model adds items or personas to a world, and users receive them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recsim_llm.commands.common import AsJson, console, environment_id, notes, print_json

if TYPE_CHECKING:
    from recsim_llm.synthesis.authoring.writer import WrittenEntries

app = typer.Typer(help="Let a language model write items and personas into a world.", no_args_is_help=True)

World = Annotated[str, typer.Option("--world", "-w", help="A built-in world, or the folder of another.")]
Model = Annotated[
    str,
    typer.Option(help="smollm2, markov (no model), a folder or id of a causal language model, or a server's address."),
]
Count = Annotated[int, typer.Option("--count", "-n", help="How many are wanted.", min=1, max=100_000)]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder of the new world.")]
Seed = Annotated[int, typer.Option(help="Seed of examples, subjects and words.", min=0)]
Name = Annotated[str | None, typer.Option(help="A server's name of the model.")]
EncoderName = Annotated[
    str | None,
    typer.Option(
        "--encoder", help="The world's text encoder, needed where it is no package's and was not loaded before."
    ),
]
WAITING = "waiting"


@app.command("items")
def items(
    world: World,
    out: Out,
    model: Model = "smollm2",
    count: Count = 10,
    category: Annotated[list[str] | None, typer.Option(help="A category; may be repeated. All if left out.")] = None,
    release: Annotated[
        str, typer.Option(help="Day on which they go on the shelf; 'waiting' leaves it to the running environment.")
    ] = WAITING,
    served_model: Name = None,
    encoder: EncoderName = None,
    seed: Seed = 0,
    json: AsJson = False,
) -> None:
    """Write catalogue entries into a new world, with where each came from beside it."""
    from recsim_llm.errors import ConfigError
    from recsim_llm.worlds.catalog import UNRELEASED

    try:
        day = UNRELEASED if release == WAITING else float(release)
    except ValueError:
        raise ConfigError(f"--release takes a day or {WAITING!r}, got {release!r}") from None
    _write("items", world, model, served_model, count, seed, out, category or [], day, json, encoder)


@app.command("personas")
def personas(
    world: World,
    out: Out,
    model: Model = "smollm2",
    count: Count = 10,
    served_model: Name = None,
    encoder: EncoderName = None,
    seed: Seed = 0,
    json: AsJson = False,
) -> None:
    """Write personas into a new world: a text, its statements with valences, and tastes."""
    _write("personas", world, model, served_model, count, seed, out, [], 0.0, json, encoder)


@app.command("reception")
def received(
    world: Annotated[str, typer.Option("--world", "-w", help="Folder of a world with written items.")],
    env: Annotated[str, typer.Option("--env", "-e", help="Scenario whose users receive them.")] = "news",
    agent: Annotated[
        str | None, typer.Option(help="Who shows them; if left out, one slot of each slate goes to them.")
    ] = None,
    lanes: Annotated[int, typer.Option(help="Users at a time.", min=2)] = 64,
    steps: Annotated[int, typer.Option(help="Steps of each user before they are released, and after.", min=1)] = 50,
    seed: Seed = 0,
    json: AsJson = False,
) -> None:
    """Put the written items before users in the middle of their episodes, and compare them with all others."""
    import dataclasses

    import gymnasium as gym

    from recsim_llm import agents
    from recsim_llm.synthesis.authoring.files import written_items
    from recsim_llm.synthesis.authoring.item_release import measure_reception, release_items, unreleased_items
    from recsim_llm.worlds.world import built_in_worlds, load_world

    generated = [] if world in built_in_worlds() else written_items(load_world(world), world)
    users = gym.make_vec(environment_id(env), num_envs=lanes, world=world)
    shown = None if agent is None else agents.make(agent, users, seed=seed)
    late = unreleased_items(users)
    chosen = generated or late
    measure_reception(users, shown, generated=chosen, steps=steps, seed=seed)
    if late:
        release_items(users, late)
    found = measure_reception(users, shown, generated=chosen, steps=steps, seed=-1)
    if json:
        print_json(dataclasses.asdict(found))
    else:
        console.print(str(found), highlight=False)


def _write(
    kind: str,
    world: str,
    model: str,
    served_model: str | None,
    count: int,
    seed: int,
    out: Path,
    categories: list[str],
    day: float,
    json: bool,
    encoder: str | None,
) -> None:
    from recsim_llm.encoders import load_text_encoder
    from recsim_llm.errors import ConfigError
    from recsim_llm.synthesis.authoring.files import save_written
    from recsim_llm.synthesis.authoring.models import load_author
    from recsim_llm.synthesis.authoring.writer import Writer
    from recsim_llm.worlds.world import built_in_worlds, load_world

    if out.exists() or not out.parent.is_dir():  # before minutes of writing
        raise ConfigError(f"{out} exists already, or the folder around it does not; name a new folder in one that does")
    source = load_world(world)
    options: dict[str, Any] = {} if served_model is None else {"model": served_model}
    started = time.perf_counter()
    writer = Writer(
        source, load_author(model, **options), seed=seed, encoder=load_text_encoder(encoder) if encoder else None,
        say=None if json else lambda text: notes.print(text, highlight=False),
    )  # fmt: skip
    written = writer.items(count, categories) if kind == "items" else writer.personas(count)
    place = None if world in built_in_worlds() else Path(world)
    larger = save_written(source, written, out, source=place, released_at=day)
    seconds = time.perf_counter() - started
    if json:
        print_json({"world": str(out), "hash": larger.hash, **_facts(written), "seconds": round(seconds, 1)})
        return
    for row in written.rows:
        console.print(" | ".join(row.fields.values()), highlight=False)
    refused = ", ".join(f"{reason} {number}" for reason, number in written.rejected.items()) or "none"
    console.print(
        f"\n{len(written.rows)} of {count} {kind} in {seconds:.0f} s, {written.attempts} drafts, refused: {refused}\n"
        f"world: {out}   provenance: {out / 'written.parquet'}",
        highlight=False,
    )  # fmt: skip


def _facts(written: WrittenEntries) -> dict[str, Any]:
    return {
        "kind": written.kind, "accepted": len(written.rows), "attempts": written.attempts,
        "rejected": dict(written.rejected), "about": dict(written.about),
        "rows": [dict(row.fields) for row in written.rows],
    }  # fmt: skip
