"""The command that writes the documentation pages of the environments."""

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
    """Write a Markdown page for every environment, from its docstring, its spec and its world."""
    from recsim_llm.envs import docs as documentation
    from recsim_llm.files import write_file

    folder = out / documentation.FOLDER
    made = {name: text.encode() for name, text in documentation.pages().items()}
    old = {path.name: path.read_bytes() for path in folder.glob("*.md")} if folder.is_dir() else {}
    stale = sorted(name for name in made.keys() | old.keys() if made.get(name) != old.get(name))
    if check:
        for name in stale:
            console.print(f"stale: {folder / name}", highlight=False, markup=False)
        if stale:
            raise typer.Exit(1)
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name in stale:
        if name in made:
            write_file(folder / name, made[name])
        elif old[name].startswith(documentation.NOTE.encode()):  # made by this command for an id that is gone
            (folder / name).unlink()
    console.print(f"{len(made)} pages in {folder}, {len(stale)} changed", highlight=False, markup=False)
