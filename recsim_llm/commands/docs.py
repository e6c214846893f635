"""Command docs: writes the documentation pages that are made from code."""

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
    """Write a page for every environment, one for the agents and one for the public API, from docstrings and worlds."""
    from recsim_llm.envs import docs as documentation
    from recsim_llm.files import write_file

    folder = out / documentation.FOLDER
    made = _pages(out)
    listed = set(folder.glob("*.md")) if folder.is_dir() else set()
    old = {path: path.read_bytes() for path in made.keys() | listed if path.is_file()}
    stale = sorted(path for path in made.keys() | old.keys() if made.get(path) != old.get(path))
    if check:
        for path in stale:
            console.print(f"stale: {path}", highlight=False)
        if stale:
            raise typer.Exit(1)
        return
    folder.mkdir(parents=True, exist_ok=True)
    for path in stale:
        if path in made:
            write_file(path, made[path])
        elif old[path].startswith(documentation.NOTE.encode()):  # made by this command for an id that is gone
            path.unlink()
    console.print(f"{len(made)} pages in {out}, {len(stale)} changed", highlight=False)


def _pages(out: Path) -> dict[Path, bytes]:
    """All pages by path."""
    from recsim_llm.agents import docs as shelf
    from recsim_llm.commands import api_page
    from recsim_llm.envs import docs as documentation

    pages = {out / documentation.FOLDER / name: text for name, text in documentation.pages().items()}
    pages |= {out / "agents.md": shelf.page(), out / "api.md": api_page.page()}
    return {path: text.encode() for path, text in pages.items()}
