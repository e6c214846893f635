"""How users change, against the formulas: taste, mood, sessions, churn, gaps, ageing items; and rules from outside."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray
from scipy.special import expit

from recsim_llm.errors import ConfigError
from recsim_llm.simulator import Rules, register_choice, register_dynamics
from recsim_llm.simulator.observation import CONTEXT
from recsim_llm.simulator.simulator import Simulator
from recsim_llm.simulator.state import STEPS
from recsim_llm.simulator.streams import CUSTOM, uniform
from recsim_llm.testing import actions, difference, trajectory_digest
from recsim_llm.worlds.world import World

ALPHA = 1e-4
"""A correct program fails a comparison with this probability; seeds are fixed."""

LANES = 30_000
CLICK, DWELL, SKIP = 0, 1, 7
NEVER, ALWAYS = -60.0, 60.0
STAY = {"leave": NEVER, "churn": NEVER, "session_time": 1e9}
CLICKED = {"no_click": -87.0, "position_bias": 0.0}


def begin(
    world: World, *, lanes: int = LANES, slate_size: int = 1, seed: int = 0, user: int = 0, **rules: Any
) -> Simulator:
    """Lanes at the start of an episode, all with the same user."""
    simulator = Simulator(world, Rules(**{**STAY, **rules}), lanes=lanes, slate_size=slate_size, threads=1)
    simulator.seed(np.arange(lanes, dtype=np.uint64) + np.uint64(seed * 10**6))
    simulator.reset(np.ones(lanes, bool), np.full(lanes, user, np.int32))
    return simulator


def show(simulator: Simulator, slate: list[int]) -> None:
    simulator.step(np.tile(np.array(slate, np.int64), (simulator.lanes, 1)))


def fits(counts: Any, probabilities: Any) -> bool:
    counts, p = np.asarray(counts), np.asarray(probabilities, np.float64)
    assert p.sum() == pytest.approx(1.0)
    return bool(scipy.stats.chisquare(counts, p * counts.sum()).pvalue > ALPHA)


def normal(sample: NDArray[Any]) -> bool:
    return bool(scipy.stats.kstest(sample.astype(np.float64), "norm").pvalue > ALPHA)


@pytest.fixture(scope="module")
def even(make_world: Any) -> World:
    """Six items that everybody likes equally (utility 1), without noise."""
    return make_world(items=6, users=2, plain=True, noise=0.0, item_arrays={"appeal": [1.0] * 6})


class TestTaste:
    @pytest.mark.parametrize("appeal", [-3.0, -0.5, 0.5, 3.0])
    def test_drift(self, make_world: Any, appeal: float) -> None:
        """In utility units: w <- w + drift g (target - w), or w + drift g target for a disappointment."""
        taste = np.random.Generator(np.random.PCG64(1)).normal(size=(4, 8))
        world = make_world(
            items=30,
            users=4,
            plain=True,
            noise=0.0,
            item_arrays={"appeal": [appeal] * 30},
            user_arrays={"taste": taste},
        )
        embedding = world.catalog.embedding.astype(float)
        simulator = begin(world, lanes=1, user=2, drift=0.2, drift_target=2.5, **CLICKED)
        units = simulator.tables.units
        unit = units["utility_unit"] / units["encoding_unit"]
        before = simulator.state.taste[0] * unit
        np.testing.assert_allclose(before, taste[2], atol=1.01 * unit)
        item = 7
        old = float(world.utility(np.array([2]), np.array([item]))[0, 0])
        show(simulator, [item])
        y = float(simulator.state.lane["satisfaction"][0])
        assert y == pytest.approx(old, abs=0.02)
        g = 2 * expit(y) - 1
        target = 2.5 * embedding[item] / (embedding**2).sum(1).mean()
        expected = before + 0.2 * g * (target - before if g > 0 else target)
        after = simulator.state.taste[0] * unit
        np.testing.assert_allclose(after, expected, atol=2e-3 * np.abs(target).max())
        toward = (after - before) @ embedding[item]
        assert np.sign(toward) == np.sign(g * (2.5 - before @ embedding[item]) if g > 0 else g)
        np.testing.assert_array_equal(simulator.state.code[0, :8], np.rint(simulator.state.taste[0]))

    def test_no_drift_without_a_click(self, world: World) -> None:
        simulator = begin(world, lanes=200, no_click=80.0, drift=0.9)
        before = simulator.state.taste.copy()
        show(simulator, [3])
        np.testing.assert_array_equal(simulator.state.taste, before)

    def test_drift_brings_taste_to_what_is_consumed(self, make_world: Any) -> None:
        """Shown nothing else for long, a user comes to value the item at about drift_target (times its size)."""
        taste = np.random.Generator(np.random.PCG64(2)).normal(size=(4, 8))
        arrays = {"item_arrays": {"appeal": [2.0] * 60}, "user_arrays": {"taste": taste}}
        world = make_world(users=4, plain=True, noise=0.0, **arrays)
        simulator = begin(world, lanes=1, drift=0.1, drift_target=3.0, satiation=0.0, repeat=0.0, **CLICKED)
        item = 5
        for _ in range(200):
            show(simulator, [item])
        unit = simulator.tables.units["utility_unit"] / simulator.tables.units["encoding_unit"]
        embedding = world.catalog.embedding.astype(float)
        size = (embedding[item] ** 2).sum() / (embedding**2).sum(1).mean()
        assert simulator.state.taste[0] * unit @ embedding[item] == pytest.approx(3.0 * size, rel=0.05)

    def test_taste_stays_within_the_integers(self, world: World) -> None:
        simulator = begin(world, lanes=50, drift=1.0, drift_target=500.0, diffusion=5.0, leave=0.0, **CLICKED)
        for item in range(30):
            show(simulator, [item])
            assert np.abs(simulator.state.taste).max() <= STEPS
            assert np.abs(simulator.state.code[:, :8]).max() <= STEPS

    def test_diffusion_between_sessions(self, world: World) -> None:
        simulator = begin(world, lanes=4000, leave=ALWAYS, drift=0.0, diffusion=0.05, gap=30.0)
        before = simulator.state.taste.copy()
        show(simulator, [2])
        assert (simulator.state.lane["session"] == 1).all()
        days = simulator.state.lane["away"].astype(float)[:, None]
        change = (simulator.state.taste - before).astype(float)
        spread = 0.05 * simulator.tables.units["taste_spread"]
        z = change / (spread * np.sqrt(days))
        assert not (np.abs(simulator.state.taste) == STEPS).any()
        shape = scipy.stats.triang(0.5, loc=-np.sqrt(6), scale=2 * np.sqrt(6))  # mean 0, variance 1
        assert scipy.stats.kstest(z.ravel()[::4], shape.cdf).pvalue > ALPHA
        np.testing.assert_array_equal(simulator.state.code[:, :8], np.rint(simulator.state.taste))
        still = begin(world, lanes=50, leave=ALWAYS, drift=0.0, diffusion=0.0)
        show(still, [2])
        np.testing.assert_array_equal(still.state.taste, np.tile(still.state.taste[0], (50, 1)))


class TestMood:
    def test_update(self, make_world: Any) -> None:
        """m <- m + alpha (y - m), for each click of the page in turn, or once with mood_skip."""
        world = make_world(items=6, users=2, plain=True, noise=0.0, item_arrays={"appeal": [2.0, -1.0, 0.5, 0, 0, 0]})
        rules = {"choice": "position", "no_click": 0.0, "position_bias": 0.0, "mood_rate": 0.3, "mood_skip": -0.7}
        simulator = begin(world, lanes=500, slate_size=3, **rules)
        mood = np.full(500, 0.0)
        for _ in range(4):
            show(simulator, [0, 1, 2])
            clicked = simulator.state.feedback[:, :, CLICK] > 0
            for k, y in enumerate((2.0, -1.0, 0.5)):
                mood = np.where(clicked[:, k], mood + 0.3 * (y - mood), mood)
            mood = np.where(clicked.any(1), mood, mood + 0.3 * (-0.7 - mood))
            np.testing.assert_allclose(simulator.state.lane["mood"], mood, atol=1e-5)
        assert len(np.unique(np.round(mood, 4))) > 50

    def test_limit(self, make_world: Any) -> None:
        world = make_world(items=6, users=2, plain=True, noise=0.0, item_arrays={"appeal": [50.0] * 6})
        simulator = begin(world, lanes=1, mood_rate=0.5, **CLICKED)
        for _ in range(5):
            show(simulator, [0])
        assert simulator.state.lane["mood"][0] == 8.0


class TestSessions:
    @pytest.mark.parametrize("mood", [-1.5, 0.0, 2.0])
    def test_leaving_and_churn(self, even: World, mood: float) -> None:
        rules = {"leave": -0.6, "leave_mood": 0.8, "churn": -0.3, "churn_mood": 0.9, "mood_rate": 0.0}
        simulator = begin(even, **rules)
        simulator.state.lane["mood"] = mood
        show(simulator, [0])
        back, gone = simulator.state.lane["session"] == 1, simulator.outcome.terminated
        assert not (back & gone).any()
        counts = [(~back & ~gone).sum(), back.sum(), gone.sum()]
        leave, churn = expit(-0.6 - 0.8 * mood), expit(-0.3 - 0.9 * mood)
        assert fits(counts, [1 - leave, leave * (1 - churn), leave * churn])
        wrong = expit(-0.6 - 0.7 * mood) if mood else expit(-0.5)
        assert not fits(counts, [1 - wrong, wrong * (1 - churn), wrong * churn])

    @pytest.mark.parametrize("mood", [-1.0, 1.5])
    def test_gap(self, even: World, mood: float) -> None:
        """Exponential with mean gap exp(-gap_mood mood), at least ten minutes, at most sixty days."""
        simulator = begin(even, leave=ALWAYS, gap=30.0, gap_mood=0.5, mood_rate=0.0, mood_life=1.7, satiation_life=9.0)
        simulator.state.lane["mood"] = mood
        simulator.state.satiation[:] = 0.5
        clock = simulator.state.lane["clock"].astype(float)
        show(simulator, [0])
        lane = simulator.state.lane
        days = lane["away"].astype(float)
        mean = 30.0 / 24 * np.exp(-0.5 * mood)
        edges = scipy.stats.expon(scale=mean).ppf(np.linspace(0, 1, 21))
        assert edges[1] > 600 / 86400
        counts = np.histogram(days, np.minimum(edges, 1e6))[0]
        assert fits(counts, np.full(20, 0.05))
        assert days.min() == pytest.approx(600 / 86400)
        np.testing.assert_allclose(lane["mood"], mood * np.exp(-days / 1.7), rtol=1e-4, atol=1e-6)
        passed = lane["clock"] - clock
        assert (passed > days * 86400 - 1).all()
        topic = even.catalog.topic[1]
        np.testing.assert_allclose(
            simulator.state.satiation[:, topic], 0.5 * np.exp(-passed / (9 * 3600)), rtol=1e-3, atol=1e-6
        )

    def test_longest_gap(self, even: World) -> None:
        simulator = begin(even, lanes=2000, leave=ALWAYS, gap=24.0 * 60)
        show(simulator, [0])
        away = simulator.state.lane["away"]
        assert away.max() == 60.0
        full = int((away == 60.0).sum())
        assert fits([full, 2000 - full], [np.exp(-1), 1 - np.exp(-1)])

    def test_budget(self, even: World) -> None:
        simulator = begin(even, session_time=500.0, session_spread=0.6, leave=ALWAYS)
        assert normal(np.log(simulator.state.lane["budget"].astype(float) / 500.0) / 0.6)
        show(simulator, [0])
        assert normal(np.log(simulator.state.lane["budget"].astype(float) / 500.0) / 0.6)  # of the next session

    def test_session_ends_when_the_time_is_spent(self, even: World) -> None:
        rules = {"session_time": 100.0, "session_spread": 0.0, "look_time": 15.0, "no_click": 80.0}
        simulator = begin(even, lanes=100, slate_size=2, **rules)
        sessions, steps = [], []
        for _ in range(5):
            show(simulator, [0, 1])
            sessions.append(int(simulator.state.lane["session"][0]))
            steps.append(int(simulator.state.lane["session_step"][0]))
        assert sessions == [0, 0, 0, 1, 1]  # 30, 60, 90, 120 seconds
        assert steps == [1, 2, 3, 0, 1]
        reading = begin(
            even, lanes=500, session_time=1000.0, session_spread=0.0, look_time=10.0, dwell_time=300.0, **CLICKED
        )
        left = np.full(500, 1000.0)
        for _ in range(6):
            session = reading.state.lane["session"].copy()
            show(reading, [0])
            left -= reading.state.feedback[:, 0, DWELL] + 10
            np.testing.assert_array_equal(reading.state.lane["session"] > session, left <= 0)
            left[left <= 0] = 1000.0
        assert reading.state.lane["session"].max() >= 1

    def test_nothing_looked_at_still_takes_time(self, make_world: Any) -> None:
        world = make_world(items=6, plain=True, item_arrays={"released_at": [9.0] * 6})
        simulator = begin(world, lanes=10, slate_size=2, look_time=7.0)
        clock = simulator.state.lane["clock"].copy()
        show(simulator, [0, 1])
        np.testing.assert_array_equal(simulator.state.lane["clock"] - clock, 7)

    def test_episodes_end_only_by_churn(self, even: World) -> None:
        simulator = begin(even, lanes=2000, leave=0.0, churn=NEVER)
        for _ in range(20):
            show(simulator, [0])
            assert not simulator.outcome.terminated.any()
        assert simulator.state.lane["session"].min() >= 1

    def test_lanes_that_ended_stand_still(self, even: World) -> None:
        simulator = begin(even, lanes=6)
        simulator.state.lane["ended"][::2] = True
        before = simulator.get_state()
        show(simulator, [0])
        after = simulator.get_state()
        for name, array in before.items():
            for field in array.dtype.names or [None]:
                old, new = (a[field] if field else a for a in (array, after[name]))
                np.testing.assert_array_equal(old[::2], new[::2])
        assert (after["lane"]["step"][1::2] == 1).all()
        assert not simulator.outcome.reward[::2].any()


class TestItems:
    def test_release_and_withdrawal(self, make_world: Any) -> None:
        released = [-4.0, -1.0, 0.0, 0.5, 1.0, 8.0]
        world = make_world(items=6, users=2, plain=True, item_arrays={"released_at": released})
        for start in (0.0, 3.0):
            simulator = begin(world, lanes=9, shelf_life=2.5, start_day=start)
            days = np.array([0.0, 0.25, 0.49, 0.51, 1.01, 1.49, 1.51, 4.0, 9.0])
            simulator.state.lane["clock"] = np.rint(days * 86400)
            age = start + days[:, None] - np.array(released)
            np.testing.assert_array_equal(simulator.available(), (age >= 0) & (age <= 2.5))
            np.testing.assert_allclose(simulator.days(), start + days, atol=1e-4)
        for_ever = begin(world, lanes=1, shelf_life=0.0, start_day=100.0)
        assert for_ever.available().all()

    def test_only_what_is_on_the_shelf_is_shown(self, make_vec: Any) -> None:
        envs = make_vec("recsim_llm/News-v0", num_envs=20, action_mask=True)
        envs.reset(seed=0)
        news = set()
        for action, _ in zip(actions(envs.action_space, 0), range(60), strict=False):
            out, masks = envs.available(), envs.action_masks()
            assert masks.shape == (20, 5 * len(envs.catalog))
            np.testing.assert_array_equal(masks.reshape(20, 5, -1), np.repeat(out[:, None], 5, axis=1))
            infos = envs.step(action)[4]
            shown = infos["slate"]
            wanted = np.take_along_axis(out, action, axis=1)
            first = np.array([[a not in row[:k] for k, a in enumerate(row)] for row in action.tolist()])
            ended = ~infos["_slate"] | (envs.core.simulator.state.lane["step"] == 0)
            np.testing.assert_array_equal((shown >= 0)[~ended], (wanted & first)[~ended])
            np.testing.assert_array_equal(infos["wasted"][~ended], (~(wanted & first)).sum(1)[~ended])
            news.add(int(out.sum()))
        assert len(news) > 10  # the shelf changes

    def test_strict(self, make: Any, make_vec: Any) -> None:
        env = make("recsim_llm/News-v0", strict=True)
        env.reset(seed=0)
        out = np.flatnonzero(env.unwrapped.available())
        with pytest.raises(ConfigError, match="wastes 1 slots: an item is in it twice or not on the shelf"):
            env.step(np.array([out[0], *out[:4]]))
        gone = np.flatnonzero(~env.unwrapped.available())[0]
        vector = make_vec("recsim_llm/News-v0", num_envs=2, strict=True)
        vector.reset(seed=0)
        with pytest.raises(ConfigError, match="wastes"):
            vector.step(np.array([out[:5], [*out[:4], gone]]))

    def test_diversity(self, make_world: Any) -> None:
        world = make_world(items=12, users=2, topics=3, plain=True)
        for slate, share in (
            ([0, 1, 2], 1.0),
            ([0, 3, 6], 0.0),
            ([0, 3, 1], 2 / 3),
            ([0, 0, 1], 1.0),
            ([0, 0, 0], 0.0),
        ):
            simulator = begin(world, lanes=1, slate_size=3)
            show(simulator, slate)
            assert simulator.state.lane["diversity"][0] == pytest.approx(share)


class TestObservation:
    def test_parts(self, world: World) -> None:
        """Public parts by an independent calculation over thirty steps."""
        lanes, slate_size = 8, 3
        rules = {"choice": "position", "leave": -1.0, "interest_rate": 0.25, "dwell_time": 400.0, "rating_rate": 0.5}
        simulator = Simulator(world, Rules(**{**STAY, **rules}), lanes=lanes, slate_size=slate_size, threads=1)
        simulator.seed(np.arange(lanes, dtype=np.uint64))
        simulator.reset(np.ones(lanes, bool))
        layout, users = simulator.layout, simulator.state.lane["user"]
        catalog = world.catalog
        unit = simulator.tables.units["encoding_unit"]
        interest, last = np.zeros((lanes, 8)), np.full(lanes, -1)
        public = {
            "total": np.zeros(lanes),
            "engagement": np.zeros(lanes),
            "idle": np.zeros(lanes),
            "sameness": np.zeros(lanes),
        }
        rng = np.random.Generator(np.random.PCG64(0))
        for step in range(31):
            seen = simulator.outcome.observation
            lane = simulator.state.lane
            assert np.abs(seen).max() <= 1
            np.testing.assert_allclose(seen[:, layout["profile"]], world.population.profile[users], atol=1e-3)
            np.testing.assert_allclose(seen[:, layout["interest"]], interest, atol=2e-3)
            context = dict(zip(CONTEXT, seen[:, layout["context"]].T, strict=True))
            hour = lane["clock"] % 86400 / 3600
            np.testing.assert_allclose(context["night"], np.abs(hour - 12) / 6 - 1, atol=1e-5)
            np.testing.assert_allclose(context["morning"], 1 - np.abs((hour + 6) % 24 - 12) / 6, atol=1e-5)
            np.testing.assert_allclose(context["session"], lane["session"] / (lane["session"] + 10), rtol=1e-6)
            steps = lane["session_step"]
            np.testing.assert_allclose(context["session_step"], steps / (steps + 10), rtol=1e-6)
            np.testing.assert_allclose(context["step"], step / (step + 100), rtol=1e-6)
            np.testing.assert_allclose(context["away"], lane["away"] / (lane["away"] + 1), rtol=1e-6)
            np.testing.assert_allclose(context["engagement"], public["engagement"], atol=1e-5)
            idle = np.where(lane["session_step"] == 0, 0, public["idle"])
            np.testing.assert_allclose(context["idle"], idle / (idle + 5), rtol=1e-6)
            np.testing.assert_allclose(context["sameness"], public["sameness"], atol=1e-5)
            assert (context["start"] == (step == 0)).all()
            scaled = simulator.state.feedback.astype(float).copy()
            scaled[:, :, DWELL] = np.minimum(scaled[:, :, DWELL] / 600, 1)
            scaled[:, :, 6] /= 5
            np.testing.assert_allclose(seen[:, layout["feedback"]], scaled.reshape(lanes, -1), rtol=1e-6)
            public["idle"] = idle
            simulator.step(rng.integers(0, len(catalog), (lanes, slate_size)))
            for b in range(lanes):
                for k in range(slate_size):
                    if simulator.state.feedback[b, k, CLICK]:
                        item = int(simulator.state.slate[b, k])
                        code = np.rint(catalog.embedding[item].astype(float) / unit) * unit
                        interest[b] += 0.25 * (code - interest[b])
                        topic = int(catalog.topic[item])
                        if last[b] >= 0:
                            public["sameness"][b] += 0.2 * ((topic == last[b]) - public["sameness"][b])
                        last[b] = topic
            hit = simulator.state.feedback[:, :, CLICK].any(1)
            public["engagement"] += 0.2 * (hit - public["engagement"])
            public["idle"] = np.where(hit, 0, public["idle"] + 1)

    def test_truth_is_not_observed(self, make: Any) -> None:
        """Observations and rewards are the same with and without the truth in the infos."""
        for env_id in ("recsim_llm/Music-v0", "recsim_llm/News-v0"):
            assert trajectory_digest(make(env_id, truth=True), 3, 60) == trajectory_digest(make(env_id), 3, 60)
            assert not [name for name in make(env_id).reset(seed=0)[1] if name.startswith("truth")]

    def test_catalogue_is_public(self, make: Any) -> None:
        catalog = make("recsim_llm/News-v0").unwrapped.catalog
        assert not np.concatenate([catalog.appeal, catalog.quality, catalog.clickbait, catalog.factors.ravel()]).any()
        assert np.abs(catalog.embedding).max() == pytest.approx(1.0, abs=1e-3)


def first_or_coin(key, attraction, attention, p, examined, clicked):
    """A choice model from outside: the second slot by a fair coin, else the first."""
    for k in range(attraction.shape[0]):
        examined[k] = k < 2 and attraction[k] > -np.inf
        clicked[k] = False
    if examined[1] and uniform(key, CUSTOM) < 0.5:
        clicked[1] = True
    elif examined[0]:
        clicked[0] = True


def boredom(p, key, lane, taste, item_code, satisfaction):
    """Dynamics from outside: consuming halves the taste and cheers up."""
    for d in range(taste.shape[0]):
        taste[d] = np.float32(0.5) * taste[d]
    lane["mood"] += np.float32(0.25)


def broken(key, attraction, attention, p, examined, clicked):
    """No number, array or function that the compiler knows."""
    examined[0] = open(key)


class TestPluggable:
    @pytest.fixture(scope="class", autouse=True)
    @staticmethod
    def _registered() -> None:
        register_choice("first or coin", first_or_coin)
        register_dynamics("boredom", boredom)

    def test_choice(self, make: Any, make_vec: Any) -> None:
        env_id = "recsim_llm/News-v0"
        base = trajectory_digest(make(env_id), 0, 40)
        envs = make_vec(env_id, num_envs=2000, choice="first or coin")
        envs.reset(seed=0)
        out = np.array([np.flatnonzero(row)[:5] for row in envs.available()])
        infos = envs.step(out)[4]
        np.testing.assert_array_equal(infos["click"].sum(1), 1)
        second = int(infos["click"][:, 1].sum())
        assert fits([second, 2000 - second], [0.5, 0.5])
        assert not infos["skip"][:, 2:].any()
        env = make(env_id, choice="first or coin").unwrapped
        env.reset(seed=5)
        _, _, _, _, info = env.step(out[5])
        assert info["click"].tolist() == infos["click"][5].tolist()
        twin = copy.deepcopy(env)
        for _ in range(20):
            assert difference(env.step(out[5]), twin.step(out[5])) is None
        assert trajectory_digest(make(env_id), 0, 40) == base, "the built-in model changed"

    def test_dynamics(self, world: World) -> None:
        rules = Rules(**{**STAY, **CLICKED}, mood_rate=0.0, drift=0.5)
        results = []
        for dynamics in (None, "boredom", "drift"):
            simulator = Simulator(world, rules, lanes=3, slate_size=1, threads=1, dynamics=dynamics)
            simulator.seed(np.arange(3, dtype=np.uint64))
            simulator.reset(np.ones(3, bool))
            before = simulator.state.taste.copy()
            simulator.step(np.full((3, 1), 3, np.int64))
            results.append(simulator.state.taste.copy())
            if dynamics == "boredom":
                np.testing.assert_array_equal(simulator.state.taste, before / 2)
                np.testing.assert_array_equal(simulator.state.lane["mood"], 0.25)
        np.testing.assert_array_equal(results[0], results[2])
        assert (results[0] != results[1]).any()

    def test_names(self, make: Any, world: World) -> None:
        for register, name in ((register_choice, "cascade"), (register_dynamics, "drift")):
            with pytest.raises(ConfigError, match="built in; register yours under another name"):
                register(name, boredom)
        with pytest.raises(ConfigError, match=r"no choice model 'first or coins'\. Did you mean 'first or coin'"):
            make("recsim_llm/News-v0", choice="first or coins")
        with pytest.raises(ConfigError, match=r"no dynamics 'bordom'\. Did you mean 'boredom'"):
            make("recsim_llm/News-v0", dynamics="bordom")
        register_choice("broken", broken)
        with pytest.raises(ConfigError, match="does not compile"):
            Simulator(world, Rules(choice="broken"), lanes=1, slate_size=1)


class TestParameters:
    def test_every_number_is_used(self, make_world: Any) -> None:
        """Each parameter changes what users do: none is forgotten by the compiled rules."""
        money = {
            "price": np.linspace(0, 5, 60), "bid": np.linspace(0.5, 1.5, 60), "bid_event": np.arange(60) % 2,
            "provider_budget": np.full(7, 4.0),
        }  # fmt: skip
        world = make_world(noise=0.5, item_arrays=money, user_arrays={"wallet": np.full(40, 8.0)})
        common = {
            "freshness": 3.0, "shelf_life": 4.0, "price_weight": 0.3, "leave": -1.0, "churn": -2.0, "cart": 0.0,
            "rating_rate": 0.5, "drift": 0.1, "diffusion": 0.1, "share": 1.0,
            "owned": 1.0, "bids": 1.0, "blindness": 0.3, "audience_life": 3.0, "buzz": 0.5, "wallet": 1.0, "like": 1.0,
        }  # fmt: skip
        weights = {"click": 1.0, "rating": 0.1}

        def run(rules: Rules) -> list[NDArray[Any]]:
            simulator = Simulator(world, rules, lanes=60, slate_size=3, threads=1, weights=weights)
            simulator.seed(np.arange(60, dtype=np.uint64))
            simulator.reset(np.ones(60, bool))
            rng = np.random.Generator(np.random.PCG64(0))
            total = np.zeros((60, 3, 8))
            for _ in range(60):
                simulator.step(rng.integers(0, 60, (60, 3)))
                total += simulator.state.feedback
            state = simulator.get_state()
            return [
                total,
                *(a[f] for a in state.values() for f in a.dtype.names or ()),
                state["taste"],
                state["interest"],
            ]

        unused = []
        for choice in ("multinomial", "cascade"):
            base = Rules(**common, choice=choice)
            reference = run(base)
            for name, value in vars(base).items():
                if name == "choice" or (name == "cascade_continue") != (choice == "cascade"):
                    continue
                changed = run(base.replace(**{name: value * 0.6 + 0.3001}))
                if all(np.array_equal(a, b) for a, b in zip(reference, changed, strict=True)):
                    unused.append(name)
        assert unused == []

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"drift": 1.5}, r"drift must lie in \[0, 1\], got 1.5"),
            ({"gap": 0.0}, "gap must be above 0, got 0"),
            ({"leave": float("nan")}, "leave must be a finite number, got nan"),
            ({"like": "much"}, "like must be a finite number, got 'much'"),
            ({"mood_rate": True}, "mood_rate must be a finite number, got True"),
            ({"satiaton": 1.0}, r"no rule parameter 'satiaton'\. Did you mean 'satiation'"),
        ],
    )
    def test_bad_values(self, change: dict[str, Any], words: str) -> None:
        with pytest.raises(ConfigError, match=words):
            Rules().replace(**change)
