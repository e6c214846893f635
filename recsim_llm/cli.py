"""The command line, ``recsim-llm``.

Only this module and :mod:`recsim_llm.commands` may import upward (environments, agents, benchmarks), and only inside
functions, so that ``recsim-llm --help`` answers at once.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from recsim_llm._version import __version__
from recsim_llm.commands import agents, bench, judge, run, synth, timeline, tour, tune, world
from recsim_llm.commands import docs as pages
from recsim_llm.commands import listing as look

app = typer.Typer(
    name="recsim-llm",
    help="Recommender-system simulator: users whose tastes come from language-model encodings.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(bench.demo)
app.command("bench")(bench.bench)
app.command("results")(bench.results)
app.command("report")(bench.report)
app.command("list")(look.list_all)
app.command("show")(look.show)
app.command("agents")(agents.agents)
app.command("check")(look.check)
app.command("doctor")(look.doctor)
app.command("speed")(look.speed)
app.command("play")(run.play)
app.command("timeline")(timeline.timeline)
app.command("train")(run.train)
app.command("docs")(pages.docs)
app.command("tour")(tour.tour)
world.app.command("tune")(tune.tune)
app.add_typer(world.app, name="world")
app.add_typer(judge.app, name="judge")
app.add_typer(synth.app, name="synth")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"recsim-llm {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", "-v", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks (before the command's name).")] = False,
) -> None:
    """Options of every command."""


def command() -> Any:
    """The tree of commands, its help texts shown as they are written.

    Typer reads help texts as rich's markup, in which ``[s]`` is a style and vanishes.
    """
    top = typer.main.get_command(app)
    _escape(top)
    return top


def _escape(part: Any) -> None:
    """Escapes the help texts of a command, its parameters and the commands below it."""
    for place in (part, *part.params):
        text = getattr(place, "help", None)
        if text:
            place.help = escape(text)
    for below in getattr(part, "commands", {}).values():
        _escape(below)


def main() -> None:
    """Runs the command line: one sentence for what a user can mend, a traceback only with ``--debug``.

    Exit codes: 0 done; 1 an error; 2 wrong usage or unusable input files; 130 interrupted.
    """
    try:
        command()()
    except KeyboardInterrupt as interrupt:
        Console(stderr=True, markup=False, emoji=False).print(f"Interrupted. {interrupt}".strip())
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        _explain(error)


def _explain(error: Exception) -> None:
    from recsim_llm.errors import DataError, RecsimError

    said = str(error)
    if not isinstance(error, RecsimError | OSError):
        said = f"{type(error).__name__}: {said} (recsim-llm --debug ... shows where)"
    Console(stderr=True, soft_wrap=True).print(Text.assemble(("Error:", "red"), f" {said}"))
    sys.exit(2 if isinstance(error, DataError) else 1)


if __name__ == "__main__":
    main()
