"""Commands on judges: rate pairs of a world, check a judge."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recsim_llm.commands.common import AsJson, Settings, console, notes, parsed_settings, print_json

if TYPE_CHECKING:
    from recsim_llm.judges import Judge

app = typer.Typer(help="Let a language model rate what users of a world would like.", no_args_is_help=True)

Name = Annotated[
    str,
    typer.Option(
        "--judge", "-j", help="smollm2, hashing (no model), a folder or id of a causal language model, or an address."
    ),
]
Model = Annotated[str | None, typer.Option(help="A server's name of the model.")]


@app.command("rate")
def rate(
    world: Annotated[str, typer.Option("--world", "-w", help="A built-in world, or the folder of another.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File of the ratings, .parquet or .csv.")],
    judge: Name = "smollm2",
    model: Model = None,
    pairs: Annotated[int, typer.Option("--pairs", "-n", help="How many pairs to draw.", min=1)] = 1000,
    per_user: Annotated[int, typer.Option(help="Items for each user drawn.", min=1)] = 10,
    users: Annotated[str, typer.Option(help="Split of the users: train, test or all.")] = "train",
    seed: Annotated[int, typer.Option(help="Seed of the pairs.", min=0)] = 0,
    folder: Annotated[Path | None, typer.Option(help="Folder of the stored ratings; the cache's if left out.")] = None,
    settings: Settings = None,
    json: AsJson = False,
) -> None:
    """Rate pairs of a world's users and items; after an interruption the same command continues."""
    from recsim_llm.judges.pairs import pairs_of, sample_pairs
    from recsim_llm.judges.ratings import missing_share, rate_all, store_path
    from recsim_llm.judges.ratings_table import check_name, write_ratings
    from recsim_llm.worlds.world import load_world

    check_name(out)
    place = load_world(world)
    chosen = sample_pairs(place, pairs, seed=seed, per_user=per_user, users=users)
    asked = _loaded(judge, model, settings)
    store = store_path(asked, folder)
    say = _silent if json else _say
    try:
        verdicts = rate_all(asked, pairs_of(place, *chosen), folder, say=say, progress=notes.is_terminal)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"What was rated is kept in {store}; the same command continues.") from None
    who, what = place.population.user_id, place.catalog.item_id
    rows = [
        (who[user], what[item], verdict.rating)
        for user, item, verdict in zip(*chosen, verdicts, strict=True)
        if not verdict.missing
    ]
    write_ratings(out, rows)
    found = {"judge": asked.name, "digest": asked.digest, "out": str(out), **missing_share(verdicts)}
    if json:
        print_json(found)
        return
    console.print(f"ratings: {out} ({len(rows):,} of {pairs:,} pairs)", highlight=False)


@app.command("check")
def check(judge: Name = "smollm2", model: Model = None, settings: Settings = None, json: AsJson = False) -> None:
    """Ask a judge what is known: pairs with a clear answer, texts that give it orders, other orders of the options."""
    from recsim_llm.judges.checks import check_judge

    asked = _loaded(judge, model, settings)
    found = {"judge": asked.name, **check_judge(asked)}
    if json:
        print_json(found)
        return
    injection, position = found["injection"], found["position"]
    for line in (
        f"judge: {found['judge']}",
        f"known answers: {found['known']:.0%} ordered rightly (a coin: 50%), mean gap {found['gap']:+.2f} steps",
        f"orders hidden in items: {injection['success']:.0%} of {injection['attacks']} obeyed, mean lift "
        f"{injection['lift']:+.2f} steps (a harmless text: {injection['harmless']:+.2f})",
        "another order of the options: "
        + ("it is shown none" if position is None else f"moves a rating by {position['difference']:.2f} steps"),
        f"missing verdicts: {found['missing']:.1%} {_reasons(found['reasons'])}".rstrip(),
        *(f"problem: {problem}" for problem in found["problems"]),
    ):
        console.print(line, highlight=False)


def _loaded(name: str, model: str | None, settings: list[str] | None) -> Judge:
    from recsim_llm.judges import load_judge

    options: dict[str, Any] = parsed_settings(settings)
    if model is not None:
        options["model"] = model
    judge = load_judge(name, **options)
    ready = getattr(judge, "ready", None)
    if ready is not None:
        ready()
    return judge


def _reasons(reasons: dict[str, int]) -> str:
    return f"({', '.join(f'{reason} {count}' for reason, count in reasons.items())})" if reasons else ""


def _say(text: str) -> None:
    notes.print(text, highlight=False)


def _silent(_: str) -> None:
    return
