"""Commands that compare agents: demo, bench, results, report."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from recsim_llm.commands.common import AsJson, Settings, console, environment_id, notes, parsed_settings, print_json

Out = Annotated[Path, typer.Option("--out", "-o", help="Folder of the results; the same command continues it.")]
Jobs = Annotated[
    int | None, typer.Option("--jobs", "-j", help="Worker processes; one for each core if left out.", min=0)
]


def demo(
    out: Out = Path("demo"),
    jobs: Jobs = None,
    json: AsJson = False,
) -> None:
    """Run a small benchmark and draw reward curves: recommenders learn on users with language-model tastes."""
    from recsim_llm.benchmarks import preset
    from recsim_llm.benchmarks.harness.cell import unavailable
    from recsim_llm.errors import install

    experiment = preset("demo")
    left_out = unavailable(experiment.agents)
    if left_out:
        kept = tuple(name for name in experiment.agents if name not in left_out)
        experiment = experiment.replace(agents=kept)
        notes.print(
            f"torch is not installed: the demo leaves out {', '.join(left_out)} ({install('agents')})",
            highlight=False,
        )
    _run_and_report(experiment, out, jobs, json, command="demo")


def bench(
    scenarios: Annotated[list[str] | None, typer.Option("--env", "-e", help="Environments; may be repeated.")] = None,
    agents: Annotated[list[str] | None, typer.Option("--agent", "-a", help="Agents; may be repeated.")] = None,
    seeds: Annotated[int, typer.Option("--seeds", "-s", help="Number of seeds.", min=1)] = 5,
    budget: Annotated[int, typer.Option("--budget", "-n", help="Steps of learning for each run.", min=0)] = 100_000,
    episodes: Annotated[int, typer.Option(help="Held-out users of each evaluation.", min=1)] = 200,
    lanes: Annotated[int, typer.Option(help="Users simulated side by side in learning.", min=1)] = 32,
    preset: Annotated[
        str | None, typer.Option(help="A named experiment, demo or standard; --agent adds agents to it.")
    ] = None,
    world: Annotated[str | None, typer.Option("--world", help="World for all scenarios: name or folder.")] = None,
    settings: Settings = None,
    out: Out = Path("runs/bench"),
    jobs: Jobs = None,
    backend: Annotated[str, typer.Option(help="local or ray.")] = "local",
    timeout: Annotated[float | None, typer.Option(help="Time limit of one run [s].")] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run failed cells again.")] = False,
    modules: Annotated[
        list[str] | None,
        typer.Option("--import", help="Module that registers agents or rules of your own; may be repeated."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Compare agents over scenarios and seeds; killed at any moment, the same command continues.

    With more agents, environments or seeds the command runs only what is new. Settings of agents are given as --set
    AGENT.NAME=VALUE, of environments as --set env.NAME=VALUE. Exit code 1 if runs failed; --retry-failed runs those
    again.
    """
    from recsim_llm.benchmarks import Experiment
    from recsim_llm.benchmarks import preset as stored
    from recsim_llm.benchmarks.harness.worker import import_modules
    from recsim_llm.benchmarks.presets import DEMO_AGENTS, MUSIC, NEWS

    if modules and os.getcwd() not in sys.path:  # also what lies here, after all that is installed
        sys.path.append(os.getcwd())
    import_modules(modules or ())
    env_kwargs, agent_configs = _split(parsed_settings(settings))
    if preset is not None:
        experiment = stored(preset)
        experiment = experiment.replace(
            agents=tuple(dict.fromkeys((*experiment.agents, *(agents or ())))),
            agent_configs={**experiment.agent_configs, **agent_configs},
        )
    else:
        experiment = Experiment(
            name=out.name,
            scenarios=tuple(environment_id(name) for name in scenarios or (MUSIC, NEWS)),
            agents=tuple(agents or DEMO_AGENTS),
            seeds=tuple(range(seeds)),
            budget=budget,
            lanes=lanes,
            episodes=episodes,
            world=world,
            env_kwargs={"*": env_kwargs} if env_kwargs else {},
            agent_configs=agent_configs,
        )
    _run_and_report(
        experiment, out, jobs, json, backend=backend, timeout=timeout, retry_failed=retry_failed, modules=modules or ()
    )


def _split(settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    from recsim_llm.errors import ConfigError

    env: dict[str, Any] = {}
    agents: dict[str, Any] = {}
    for name, value in settings.items():
        owner, dot, field = name.partition(".")
        if not dot:
            raise ConfigError(f"--set takes AGENT.NAME=VALUE or env.NAME=VALUE, got {name}={value}")
        if owner == "env":
            env[field] = value
        else:
            agents.setdefault(owner, {})[field] = value
    return env, agents


def _run_and_report(
    experiment: Any, out: Path, jobs: int | None, json: bool, *, command: str = "bench", **options: Any
) -> None:
    from recsim_llm import benchmarks

    started = time.perf_counter()
    found = benchmarks.run(experiment, out, jobs=jobs, console=notes, **options)
    _print_report(found, out, json)
    if not json:
        console.print(f"{len(experiment.agents)} agents, {time.perf_counter() - started:.0f} s", highlight=False)
    if found.failed:
        for row in found.failed:
            why = row.result.get("error") or "no reason is known"
            notes.print(f"{row.state}: {row.cell.label}: {why}", highlight=False, soft_wrap=True)
        again = "the same command with --retry-failed" if command == "bench" else f"recsim-llm {command} in a new --out"
        notes.print(f"{len(found.failed)} runs failed and are left out above; {again} runs them again", highlight=False)
        raise typer.Exit(1)


def _print_report(found: Any, out: Path, json: bool) -> None:
    from recsim_llm.benchmarks.analysis import report as reports
    from recsim_llm.errors import MissingExtraError

    board = reports.leaderboard(found)
    if not json:
        console.print(reports.to_rich(board))
    try:
        files = reports.write_report(found, out)
    except MissingExtraError as error:  # the numbers are there; only pictures and pages are not
        files = []
        notes.print(f"no figures and pages: {error}", highlight=False)
    if json:
        print_json({"summary": reports.summary(found, board), "files": [str(file) for file in files]})
        return
    for file in files:
        console.print(f"written: {file}", highlight=False, soft_wrap=True)


def results(
    folder: Annotated[Path, typer.Argument(help="Folder of results.")],
    json: AsJson = False,
) -> None:
    """Print all rows as CSV, sorted, without wall-clock columns: the same bytes for the same experiment."""
    from recsim_llm import benchmarks

    if json:
        found = benchmarks.load(folder)
        print_json(found.records())
        return
    typer.echo(benchmarks.results_csv(folder), nl=False)


def report(
    folder: Annotated[Path, typer.Argument(help="Folder of results.")],
    format: Annotated[str, typer.Option(help="table, md, csv or json.")] = "table",
) -> None:
    """Print the leaderboard of stored results and draw the figures again."""
    from recsim_llm import benchmarks
    from recsim_llm.benchmarks.analysis import report as reports
    from recsim_llm.errors import unknown

    writers = {"md": reports.to_markdown, "csv": reports.to_csv}
    if format not in ("table", "json", *writers):
        raise unknown("format", format, ["table", "json", *writers])
    found = benchmarks.load(folder)
    if format in writers:
        typer.echo(writers[format](reports.leaderboard(found)), nl=False)
        return
    _print_report(found, folder, json=format == "json")
