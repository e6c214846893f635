"""Cells over real environments and agents: common random numbers, held-out users, the same rows in any process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from recsim_llm import agents
from recsim_llm.benchmarks import results_csv, run
from recsim_llm.benchmarks.analysis.leaderboard import leaderboard
from recsim_llm.benchmarks.harness import cell as cells
from recsim_llm.benchmarks.harness.experiment import Cell, Experiment
from recsim_llm.benchmarks.harness.records import DONE, read
from recsim_llm.benchmarks.harness.results import METRICS
from recsim_llm.benchmarks.presets import MUSIC, NEWS
from recsim_llm.errors import ConfigError
from recsim_llm.worlds.catalog import Catalog
from recsim_llm.worlds.population import Population
from recsim_llm.worlds.world import World

ITEMS, USERS, WIDTH, TOPICS = 40, 60, 8, 5


def small_world() -> World:
    rng = np.random.default_rng(1)
    topic = np.arange(ITEMS) % TOPICS
    centres = np.eye(TOPICS, WIDTH, dtype=np.float32)
    embedding = centres[topic] * 0.8 + rng.normal(0, 0.05, (ITEMS, WIDTH)).astype(np.float32)
    taste = 3.0 * centres[rng.integers(TOPICS, size=USERS)]
    names = [str(k) for k in range(ITEMS)]
    zero = np.zeros(ITEMS, np.float32)
    catalog = Catalog(
        item_id=names,
        title=names,
        text=names,
        category=[f"topic {t}" for t in topic],
        provider=[f"provider {t}" for t in topic],
        embedding=embedding,
        price=zero,
        released_at=zero - 1.0,
        appeal=rng.normal(0, 0.5, ITEMS).astype(np.float32),
        factors=np.zeros((ITEMS, 16), np.float32),
        quality=zero,
        clickbait=zero,
    )
    population = Population(
        user_id=[f"user {k}" for k in range(USERS)],
        persona=[""] * USERS,
        profile=taste / 3.0,
        taste=taste,
        factors=np.zeros((USERS, 16), np.float32),
        bias=np.zeros(USERS, np.float32),
        price_sensitivity=np.zeros(USERS, np.float32),
    )
    return World(name="small", catalog=catalog, population=population)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    folder = small_world().save(tmp_path_factory.mktemp("worlds") / "small")
    return Experiment(
        scenarios=(MUSIC, NEWS),
        agents=("random", "popularity", "linucb", "oracle"),
        seeds=(0, 1),
        budget=1_200,
        checkpoints=(0, 600, 1_200),
        lanes=8,
        episodes=12,
        world=str(folder),
        env_kwargs={"*": {"horizon": 30}, NEWS: {"slate_size": 3}},
    )


def cell_of(experiment: Experiment, agent: str, scenario: str = MUSIC, **changes: Any) -> Cell:
    found = experiment.replace(agents=(agent,), scenarios=(scenario,), env_kwargs={"*": {"horizon": 30}}, **changes)
    return next(found.cells())


def test_rows_are_the_same_in_one_and_two_processes(experiment: Experiment, tmp_path: Path) -> None:
    results = run(experiment, tmp_path / "two", jobs=2)
    run(experiment, tmp_path / "one", jobs=1, order=lambda found: found[::-1])
    assert [row.state for row in results.rows] == [DONE] * 16
    assert read(tmp_path / "two").canonical_rows() == read(tmp_path / "one").canonical_rows()
    assert results_csv(tmp_path / "two") == results_csv(tmp_path / "one")
    board = leaderboard(results)
    by_agent = {line.agent: line.score for line in board.lines}
    assert by_agent["oracle"].text() == "1.00 [1.00, 1.00]"
    assert by_agent["random"].text() == "0.00 [0.00, 0.00]"
    assert np.isfinite(by_agent["linucb"].value)
    assert results.header["experiment"]["worlds"] == {MUSIC: small_world().hash, NEWS: small_world().hash}  # type: ignore[index]


def test_a_row_has_every_measure_at_every_checkpoint(experiment: Experiment) -> None:
    row = cells.run_cell(cell_of(experiment, "linucb"))
    for name in METRICS:
        values = np.asarray(row[name])
        assert values.shape == (3,)
        assert np.isfinite(values).all()
    assert row["return"][-1] == pytest.approx(np.mean(row["episode_returns"]))
    assert len(row["episode_returns"]) == 12
    assert row["trained_steps"][0] == 0
    assert 600 <= row["trained_steps"][1] < 700
    assert 1_200 <= row["trained_steps"][2] < 1_300
    assert 0 <= row["ctr"][-1] <= 1
    assert 0 < row["coverage"][-1] <= 1
    assert 1 <= row["episode_length"][-1] <= 30
    assert row["wall_train_s"] > 0
    assert row["cpu_train_s"] > 0


def test_learning_shows(experiment: Experiment) -> None:
    """On users with one favourite topic each, LinUCB earns clearly more after learning than before."""
    row = cells.run_cell(cell_of(experiment, "linucb", budget=6_000, checkpoints=(0, 6_000), episodes=40))
    assert row["return"][1] > 1.1 * row["return"][0]


def test_agents_that_do_not_learn_are_evaluated_once(experiment: Experiment) -> None:
    row = cells.run_cell(cell_of(experiment, "random"))
    assert len(set(row["return"])) == 1
    assert row["trained_steps"] == [0, 0, 0]


def test_evaluation_uses_common_random_numbers(experiment: Experiment) -> None:
    """Two rounds of an agent that draws nothing are equal; another agent meets the same users; no one learns."""
    cell = cell_of(experiment, "popularity")
    train = cells.make_env(cell, lanes=2, users="train", autoreset=AutoresetMode.NEXT_STEP, truth=False)
    test = cells.make_env(cell, lanes=12, users="test", autoreset=AutoresetMode.DISABLED, truth=False)
    agent = agents.make("popularity", train, seed=0)
    first = cells.evaluate(agent, test, 5)
    np.testing.assert_array_equal(cells.evaluate(agent, test, 5).returns, first.returns)
    assert agent.num_timesteps == 0
    met = []
    for _ in range(2):
        _, info = test.reset(seed=5)
        met.append(np.array(info["user_id"]))
    np.testing.assert_array_equal(met[0], met[1])
    held_out = set(small_world().population.split("test").tolist())
    assert set(met[0].tolist()) <= held_out
    _, info = train.reset(seed=5)
    assert not set(np.asarray(info["user_id"]).tolist()) & held_out
    assert (cells.evaluate(agent, test, 6).returns != first.returns).any()


def test_finished_lanes_do_not_count(experiment: Experiment) -> None:
    """The same episodes one at a time give the same returns as side by side."""
    cell = cell_of(experiment, "popularity")
    train = cells.make_env(cell, lanes=1, users="train", autoreset=AutoresetMode.NEXT_STEP, truth=False)
    agent = agents.make("popularity", train, seed=0)
    together = cells.make_env(cell, lanes=6, users="test", autoreset=AutoresetMode.DISABLED, truth=False)
    alone = cells.make_env(cell, lanes=1, users="test", autoreset=AutoresetMode.DISABLED, truth=False)
    expected = cells.evaluate(agent, together, 40)
    singles = [cells.evaluate(agent, alone, 40 + lane) for lane in range(6)]
    np.testing.assert_array_equal(np.concatenate([one.returns for one in singles]), expected.returns)
    lengths = [one.metrics["episode_length"] for one in singles]
    assert np.mean(lengths) == pytest.approx(expected.metrics["episode_length"])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"agents": ("random", "linubc")}, "Did you mean 'linucb'"),
        ({"scenarios": ("recsim_llm/Musik-v0",), "env_kwargs": {}}, "Did you mean 'recsim_llm/Music-v0'"),
        ({"agent_configs": {"linucb": {"alpah": 1.0}}}, "alpah"),
        ({"world": "no_such_world"}, "no_such_world"),
    ],
)
def test_bad_names_are_refused_before_anything_runs(
    experiment: Experiment, tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    with pytest.raises((ConfigError, ValueError)) as caught:
        run(experiment.replace(**change), tmp_path / "out", jobs=0)
    assert says in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_short_names_of_scenarios() -> None:
    assert cells.scenario_id("music") == MUSIC
    assert cells.scenario_id(NEWS) == NEWS
    with pytest.raises(ConfigError, match="Did you mean 'music'"):
        cells.scenario_id("musik")


def test_a_policy_is_evaluated_at_its_mode_and_sampled(experiment: Experiment) -> None:
    """The row says which; the agent has learnt the same."""
    pytest.importorskip("stable_baselines3")
    rows = experiment.replace(
        agents=("random", "a2c", "a2c (sampled)"), agent_configs={"a2c": {"hidden": 8}}, budget=256
    )
    mode, sampled = (next(c for c in rows.cells() if c.agent == name) for name in ("a2c", "a2c (sampled)"))
    assert (mode.deterministic, sampled.deterministic) == (True, False)
    assert mode.key != sampled.key
    assert sampled.agent_config == {"hidden": 8}
    cells.prepare(rows)
    at_mode, drawn = cells.run_cell(mode), cells.run_cell(sampled)
    np.testing.assert_array_equal(drawn["online"], at_mode["online"])
    assert drawn["episode_returns"].tolist() != at_mode["episode_returns"].tolist()


def test_the_standard_study_has_both() -> None:
    """Every policy gradient whose policy is a distribution has two rows with as many seeds."""
    from recsim_llm.benchmarks.presets import PRESETS, SLOW_AGENTS, STOCHASTIC_AGENTS

    standard = PRESETS["standard"]
    for name in STOCHASTIC_AGENTS:
        row = f"{name} (sampled)"
        assert {name, row} <= set(standard.agents)
        assert standard.fewer_seeds[row] == standard.fewer_seeds[name] == 5
        assert name in SLOW_AGENTS
    assert not any(cell.deterministic for cell in standard.cells() if cell.agent.endswith("(sampled)"))
