"""Command docs: writes the documentation pages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recsim_llm.commands.common import console


def docs(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder; the pages go into its folder environments.")] = Path(
        "docs"
    ),
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit code 1 if a page is stale.")] = False,
) -> None:
    """Write a Markdown page for every environment and one for the agents, from docstrings, specs and worlds."""
    from recsim_llm.agents.docs import page
    from recsim_llm.envs import docs as documentation
    from recsim_llm.files import write_file

    folder = out / documentation.FOLDER
    made = {name: text.encode() for name, text in documentation.pages().items()}
    old = {path.name: path.read_bytes() for path in folder.glob("*.md")} if folder.is_dir() else {}
    stale = sorted(name for name in made.keys() | old.keys() if made.get(name) != old.get(name))
    shelf, text = out / "agents.md", page().encode()
    shelf_is_stale = not shelf.is_file() or shelf.read_bytes() != text
    if check:
        for path in [*(folder / name for name in stale), *([shelf] if shelf_is_stale else [])]:
            console.print(f"stale: {path}", highlight=False)
        if stale or shelf_is_stale:
            raise typer.Exit(1)
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name in stale:
        if name in made:
            write_file(folder / name, made[name])
        elif old[name].startswith(documentation.NOTE.encode()):  # made by this command for an id that is gone
            (folder / name).unlink()
    if shelf_is_stale:
        write_file(shelf, text)
    console.print(f"{len(made)} pages in {folder}, {len(stale)} changed", highlight=False)
