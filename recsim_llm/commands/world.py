"""Commands on worlds: build one from files, rebuild a built-in one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from recsim_llm.commands.common import console, environment_id, notes, print_json

app = typer.Typer(help="Build worlds from your own files.", no_args_is_help=True)


@app.command("build")
def build(
    items: Annotated[Path, typer.Option(help="CSV or Parquet file of items; a text for each is needed.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the new world.")],
    users: Annotated[Path | None, typer.Option(help="File of users with their personas.")] = None,
    interactions: Annotated[
        Path | None, typer.Option(help="File of ratings or clicks: user, item, rating or click.")
    ] = None,
    tags: Annotated[Path | None, typer.Option(help="File of notes on items (item, tag), added to their texts.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the world; the folder's if left out.")] = None,
    text_columns: Annotated[str | None, typer.Option(help="Columns joined to the text, as title,genres.")] = None,
    encoder: Annotated[
        str, typer.Option(help="Text encoder: all-MiniLM-L6-v2, hashing, or any id.")
    ] = "all-MiniLM-L6-v2",
    images: Annotated[Path | None, typer.Option(help="Folder of pictures named by item_id, beside the items.")] = None,
    image_encoder: Annotated[
        str | None, typer.Option(help="Image encoder: efficientnet-lite0, colours, or any id; pictures become taste.")
    ] = None,
    width: Annotated[int, typer.Option(help="Width of the encodings in the world.", min=2, max=256)] = 64,
    positive: Annotated[float | None, typer.Option(help="Ratings from here on are positive.")] = None,
    use: Annotated[str, typer.Option(help="Fit to the 'train' part of the interactions or to 'all'.")] = "train",
    n_users: Annotated[int, typer.Option(help="Users to draw where there is no file of them.", min=1)] = 2000,
    drop_unknown: Annotated[bool, typer.Option(help="Leave out interactions with unknown items or users.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the split and of what is drawn.", min=0)] = 0,
    overwrite: Annotated[bool, typer.Option(help="Replace a world that is there.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the measured numbers as JSON.")] = False,
) -> None:
    """Build a world from your own files; then use it as gym.make(..., world="FOLDER")."""
    from recsim_llm.worlds.build import build_world

    world = build_world(
        items, users, interactions, out=out, name=name, encoder=encoder, width=width,
        text_columns=text_columns.split(",") if text_columns else None, tags=tags, images=images,
        image_encoder=image_encoder, drop_unknown=drop_unknown,
        positive=positive, use=use, n_users=n_users, seed=seed, overwrite=overwrite, progress=notes.is_terminal,
        say=None if json else lambda text: notes.print(text, highlight=False),
    )  # fmt: skip
    if json:
        print_json({"world": str(out), "hash": world.hash, "metrics": dict(world.metrics)})
        return
    from recsim_llm.commands.listing import show_world

    show_world(world, json=False)
    console.print(f'\nworld: {out}   gym.make("recsim_llm/News-v0", world="{out}")', highlight=False)


@app.command("distill")
def distill(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the new world.")],
    world: Annotated[
        str, typer.Option("--world", "-w", help="Built-in world or folder whose users and items are rated.")
    ],
    judge: Annotated[
        str | None, typer.Option(help="Judge: smollm2, hashing, a folder or id of a causal model, or http(s)://...")
    ] = None,
    pairs: Annotated[int, typer.Option(help="Pairs of a user and an item that the judge rates.", min=1)] = 4000,
    ratings: Annotated[
        Path | None, typer.Option(help="File of ratings that are there already: user_id, item_id, rating.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Option of the judge as name=value.", metavar="NAME=VALUE")
    ] = None,
    per_user: Annotated[int, typer.Option(help="Items for each user in the sample.", min=1)] = 10,
    unseen: Annotated[float, typer.Option(help="Share of the rated users held out whole while measuring.")] = 0.25,
    name: Annotated[
        str | None, typer.Option(help="Name of the world; the old one's and -distilled if left out.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the sample, the division and the draws.", min=0)] = 0,
    overwrite: Annotated[bool, typer.Option(help="Replace a world that is there.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the measured numbers as JSON.")] = False,
) -> None:
    """Learn a judge's preferences from a sample of its ratings; the new world runs without it, at full speed."""
    from recsim_llm.commands.common import parsed_settings
    from recsim_llm.datasets import read_interactions
    from recsim_llm.errors import ConfigError
    from recsim_llm.fitting.distillation import distill as learnt
    from recsim_llm.fitting.distillation import distilled_world
    from recsim_llm.worlds.world import load_world, writable_folder

    if (judge is None) == (ratings is None):
        raise ConfigError("give either --judge (who is asked) or --ratings (a file of ratings that are there already)")
    target, base = writable_folder(out, overwrite), load_world(world)
    if ratings is not None:
        source: Any = read_interactions(ratings, base.catalog.item_id, base.population.user_id)[0]
    else:
        from recsim_llm.judges import load_judge

        source = load_judge(str(judge), **parsed_settings(set_))
    found = learnt(
        base, source, pairs, seed, unseen, per_user=per_user, progress=notes.is_terminal,
        say=None if json else lambda text: notes.print(text, highlight=False),
    )  # fmt: skip
    made = distilled_world(base, found, name)
    made.save(target, overwrite=overwrite)
    if json:
        print_json({"world": str(out), "hash": made.hash, "metrics": found.metrics})
        return
    from recsim_llm.commands.listing import table_of
    from recsim_llm.fitting.distillation_curve import curve_table

    console.print(
        table_of("held-out agreement with the judge (Spearman over pairs)", curve_table(found.metrics["curve"]))
    )
    console.print(f'\nworld: {out}   gym.make("recsim_llm/News-v0", world="{out}")', highlight=False)


@app.command("compare")
def compare(
    folder: Annotated[Path, typer.Argument(help="Folder of a world that was built with these interactions.")],
    interactions: Annotated[Path, typer.Option(help="The file of ratings or clicks.")],
    env: Annotated[str, typer.Option("--env", "-e", help="Scenario whose rules are used.")] = "music",
    episodes: Annotated[int, typer.Option(help="Users served in the world.", min=2)] = 400,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Does the world order popularity, matrix factorisation and random as the held-out ratings do?"""
    import dataclasses

    from recsim_llm.benchmarks.studies.transfer import compare as judged_twice

    found = [
        dataclasses.asdict(v) for v in judged_twice(folder, interactions, env=environment_id(env), episodes=episodes)
    ]
    if json:
        print_json(found)
        return
    from recsim_llm.commands.listing import flat, table_of

    console.print(table_of("best in the world first", [flat(row) for row in found]))
    by_log = sorted(found, key=lambda row: -row["auc"])
    same = [row["name"] for row in found] == [row["name"] for row in by_log]
    console.print(
        f"order by held-out ratings: {' > '.join(row['name'] for row in by_log)} ({'the same' if same else 'another'})"
    )


@app.command("rebuild")
def rebuild(
    name: Annotated[str, typer.Argument(help="a built-in world or all.")] = "all",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Parent folder; the package's own if left out.")
    ] = None,
) -> None:
    """Write and encode the built-in worlds again, with the real text encoder."""
    from recsim_llm.synthesis.build import rebuild_worlds as build_again
    from recsim_llm.worlds.world import BUILT_IN

    build_again([name], lambda line: console.print(line, highlight=False), out or BUILT_IN)
