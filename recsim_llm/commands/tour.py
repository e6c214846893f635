"""Command tour: all uses of language and image models at small size."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from recsim_llm.commands.common import AsJson, console, notes, print_json


def tour(
    part: Annotated[list[str] | None, typer.Option("--part", "-p", help="Only this part; may be repeated.")] = None,
    json: AsJson = False,
) -> None:
    """Run every part that uses language or image models, at small size, offline, in some minutes."""
    from recsim_llm.benchmarks.tour.tour import DONE, FAILED
    from recsim_llm.benchmarks.tour.tour import tour as travel
    from recsim_llm.commands.listing import table_of

    place = notes if json else console
    stops = travel(part or (), lambda text: place.print(text, highlight=False))
    if json:
        print_json([dataclasses.asdict(stop) for stop in stops])
    else:
        rows = [
            {"part": stop.part, "state": stop.state, "seconds": f"{stop.seconds:.0f}", "why": stop.why}
            for stop in stops
        ]
        total = sum(stop.seconds for stop in stops)
        console.print(
            table_of(f"{sum(stop.state == DONE for stop in stops)} of {len(stops)} parts, {total:.0f} s", rows)
        )
    if any(stop.state == FAILED for stop in stops):
        raise typer.Exit(1)
