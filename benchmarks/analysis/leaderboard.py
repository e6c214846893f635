"""The leaderboard of an experiment: agents by score with intervals, and warnings about the comparison."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from recsim_llm.benchmarks.analysis import scores
from recsim_llm.benchmarks.analysis.scores import Estimate
from recsim_llm.benchmarks.harness.results import ORACLE, RANDOM, Results

FEW_SEEDS = 5
REFERENCES = (RANDOM, ORACLE, "lookahead")
"""They know nothing, or the truth, and are no recommenders."""


@dataclass(frozen=True)
class Line:
    """One agent in the leaderboard.

    Attributes:
        agent: Its name.
        score: Normalised score over all scenarios.
        scores: Normalised score by scenario.
        returns: Return per episode, by scenario.
        online: Reward of a step in the last part of learning, by scenario.
        ctr: Clicks per item shown, mean over runs.
        coverage: Share of the catalogue shown, mean over runs.
        train_s: Processor time for learning, mean over runs [s]; wall-clock time for all if a row is older than that.
        runs: Runs that are done.
        also: Agents that did exactly the same in every scenario, and have no line of their own.
        same: By scenario, the agent of an earlier line that did exactly the same there; "" if there is none.
    """

    agent: str
    score: Estimate
    scores: tuple[Estimate, ...]
    returns: tuple[Estimate, ...]
    online: tuple[Estimate, ...]
    ctr: float
    coverage: float
    train_s: float
    runs: int
    also: tuple[str, ...] = ()
    same: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Its name, with those who did the same."""
        return f"{self.agent} (= {', '.join(self.also)})" if self.also else self.agent


@dataclass(frozen=True)
class Rival:
    """The best agent against another.

    Attributes:
        agent: The other agent.
        chance: Probability that a run of the best beats one of the other.
        differences: Return of the best less that of the other, by scenario, paired by episode: the same users, the same
            random numbers.
    """

    agent: str
    chance: Estimate
    differences: tuple[Estimate, ...]


@dataclass(frozen=True)
class Leaderboard:
    """A comparison, best agent first.

    Attributes:
        scenarios: Names of the columns of returns.
        lines: One for each agent, or for those that did exactly the same everywhere.
        warnings: Sentences about what weakens the comparison.
        headline: What it says, in one sentence.
        best: The best agent besides random and oracle; "" if there is none.
        rivals: How the best agent compares with each of the others.
    """

    scenarios: tuple[str, ...]
    lines: tuple[Line, ...]
    warnings: tuple[str, ...]
    headline: str
    best: str
    rivals: tuple[Rival, ...]


def leaderboard(results: Results, seed: int = 0) -> Leaderboard:
    """Computes the leaderboard of an experiment's main scenarios; `seed` is that of the bootstrap."""
    everything, results = results, results.main
    twins = duplicates(results)
    names = [agent for agent in results.experiment.agents if not _merged(twins[agent])]
    lines = [_line(results, agent, seed) for agent in names]
    lines = [
        replace(
            line,
            also=tuple(other for other, same in twins.items() if _merged(same) and line.agent in same),
            same=twins[line.agent],
        )
        for line in lines
    ]
    lines.sort(key=lambda line: (-np.nan_to_num(line.score.value, nan=-np.inf), -_mean_return(line), line.agent))
    able = [line for line in lines if line.agent not in REFERENCES and line.runs]
    best = able[0].agent if able else ""
    others = [line.agent for line in lines if line.agent not in (best, ORACLE) and line.runs]
    rivals = tuple(_rival(results, best, other, seed) for other in others) if best else ()
    return Leaderboard(
        scenarios=results.experiment.scenarios,
        lines=tuple(lines),
        warnings=(*warnings(results), *_extra_warnings(everything)),
        headline=_headline(results, able, rivals),
        best=best,
        rivals=rivals,
    )


def duplicates(results: Results) -> dict[str, tuple[str, ...]]:
    """For each agent and scenario, the first agent before it with exactly the same results there; "" if none has.

    A re-ranker of slates, for example, has nothing to do where a slate has one item. Results are the same where every
    evaluation episode of all seeds that both have returned the same, and what was clicked and shown was the same too.
    An agent that is the same as another everywhere names that one in all places. The references stand for themselves.
    """
    scenarios = results.experiment.scenarios
    outcomes = {agent: _outcomes(results, agent) for agent in results.experiment.agents}
    found: dict[str, tuple[str, ...]] = {}
    for agent in results.experiment.agents:
        earlier = [other for other in found if agent not in REFERENCES and other not in REFERENCES]
        alike = {
            other: [_alike(*both) for both in zip(outcomes[agent], outcomes[other], strict=True)] for other in earlier
        }
        whole = next((other for other in earlier if all(alike[other]) and not _merged(found[other])), None)
        if whole is not None:
            found[agent] = (whole,) * len(scenarios)
        else:
            found[agent] = tuple(
                next((o for o in earlier if alike[o][n] and not found[o][n]), "") for n in range(len(scenarios))
            )
    return found


def _merged(same: tuple[str, ...]) -> bool:
    """Whether an agent did exactly as one other everywhere."""
    return len(set(same)) == 1 and "" not in same


def _outcomes(results: Results, agent: str) -> list[dict[int, bytes]]:
    """By scenario: what tells whether two agents did the same, by the number of the seed; runs that are done only."""
    finals = [results.final(agent, name) for name in ("ctr", "coverage")]
    found = []
    for n, scenario in enumerate(results.experiment.scenarios):
        rows = np.column_stack([results.episodes(agent, scenario), *(final[:, n] for final in finals)])
        found.append({seed: row.tobytes() for seed, row in enumerate(rows) if not np.isnan(row[:-2]).any()})
    return found


def _alike(one: dict[int, bytes], other: dict[int, bytes]) -> bool:
    both = one.keys() & other.keys()
    return bool(both) and all(one[seed] == other[seed] for seed in both)


def _rival(results: Results, best: str, other: str, seed: int) -> Rival:
    return Rival(
        agent=other,
        chance=scores.improvement_interval(results.scores(best), results.scores(other), seed),
        differences=tuple(
            scores.paired_difference(results.episodes(best, scenario), results.episodes(other, scenario), seed)
            for scenario in results.experiment.scenarios
        ),
    )


def _line(results: Results, agent: str, seed: int) -> Line:
    return Line(
        agent=agent,
        score=scores.interval(results.scores(agent), seed),
        scores=tuple(scores.interval(one[:, None], seed) for one in results.scenario_scores(agent).T),
        returns=tuple(
            scores.mean_of_episodes(results.episodes(agent, scenario), seed)
            for scenario in results.experiment.scenarios
        ),
        online=tuple(scores.interval(one[:, None], seed) for one in results.final(agent, "online").T),
        ctr=_mean(results.final(agent, "ctr")),
        coverage=_mean(results.final(agent, "coverage")),
        train_s=results.train_seconds(agent),
        runs=int(np.sum(~np.isnan(results.final(agent)))),
    )


def _mean(values: Any) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def _mean_return(line: Line) -> float:
    return float(np.nan_to_num(_mean(np.array([one.value for one in line.returns])), nan=-np.inf))


def warnings(results: Results) -> list[str]:
    """What a reader has to know before believing the numbers."""
    found = []
    seeds = len(results.experiment.seeds)
    if fewer := results.experiment.fewer_seeds:
        counts = sorted(set(fewer.values()))
        found += [f"{n} seeds: {', '.join(name for name in fewer if fewer[name] == n)}." for n in counts]
    for agent in sorted({agent for _, agent in results.refused}):
        where = [short(scenario) for scenario, refused in results.refused if refused == agent]
        found.append(f"Not in {', '.join(where)}: {next(v for k, v in results.refused.items() if k[1] == agent)}")
    if seeds < FEW_SEEDS:
        found.append(f"Only {seeds} seed{'s' * (seeds != 1)}: intervals from fewer than {FEW_SEEDS} are rough.")
    if results.failed:
        names = sorted({f"{row.cell.agent} ({row.state})" for row in results.failed})
        found.append(f"{len(results.failed)} runs failed: {', '.join(names)}. They are left out.")
    if results.missing:
        found.append(f"{results.missing} runs are missing; the same command continues.")
    if not results.has_scores:
        found.append("No scores: they need the agents random and oracle.")
    elif bad := _not_above(results):
        found.append(f"The oracle is not above random in {bad}; these runs have no score.")
    return [*found, *results.problems]


def _extra_warnings(results: Results) -> list[str]:
    """The same of the scenarios that ask a question of their own: the oracle's return there promises nothing."""
    bad = [found for extra in results.extras if (found := _not_above(extra))]
    return [f"The oracle is not above random in {', '.join(bad)}."] if bad else []


def _not_above(results: Results) -> str:
    """Scenarios with runs whose oracle earns no more than random, as ``2 of 5 runs of Music``; empty if there are none.

    Then the reward does not depend on what is shown, or not as the oracle sees it: no agent can be judged by it.
    """
    if not {ORACLE, RANDOM} <= set(results.experiment.agents):
        return ""
    low = results.final(ORACLE) <= results.final(RANDOM)  # [S, N]
    measured = ~np.isnan(results.final(ORACLE) - results.final(RANDOM))
    return ", ".join(
        f"{low[:, n].sum()} of {measured[:, n].sum()} runs of {short(scenario)}"
        for n, scenario in enumerate(results.experiment.scenarios)
        if low[:, n].any()
    )


def short(scenario: str) -> str:
    """A scenario's name for people."""
    return scenario.removeprefix("recsim_llm/").removesuffix("-v0")


def _headline(results: Results, able: list[Line], rivals: tuple[Rival, ...]) -> str:
    if not able:
        return "No agents to compare besides random and oracle."
    n, best = len(results.experiment.seeds), able[0]
    if len(able) == 1 or not results.has_scores:
        return f"{best.agent}: score {best.score.text()}, n = {n} seeds."
    chance = next(rival.chance for rival in rivals if rival.agent == able[1].agent)
    return (
        f"{best.agent} is best with a score of {best.score.text()}; a run of it beats one of {able[1].agent} with "
        f"P = {chance.text()}, n = {n} seeds x {len(results.experiment.scenarios)} scenarios."
    )
