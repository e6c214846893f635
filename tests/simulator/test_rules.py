"""What users do, against the formulas: frequencies by chi-square, states by an independent calculation in float64.

Frequencies are drawn through the compiled step: thousands of lanes show the same slate to the same user.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray
from scipy.special import expit

from recsim_llm.errors import ConfigError
from recsim_llm.simulator import SIGNALS, Rules
from recsim_llm.simulator.feedback import LONGEST_DWELL
from recsim_llm.simulator.params import REWARD_TERMS
from recsim_llm.simulator.scoring import dot
from recsim_llm.simulator.simulator import Simulator
from recsim_llm.simulator.state import STEPS, State, tables
from recsim_llm.worlds.world import World

ALPHA = 1e-4
"""A correct program fails a comparison with this probability; about 100 are made, with fixed seeds: 1 % in all."""

LANES = 40_000
CLICK, DWELL, LIKE, SHARE, CART, PURCHASE, RATING, SKIP = range(8)
NEVER, ALWAYS = -60.0, 60.0
STAY = {"leave": NEVER, "churn": NEVER, "session_time": 1e9}


def show(
    world: World,
    slate: list[int],
    *,
    lanes: int = LANES,
    user: int = 0,
    seed: int = 0,
    weights: dict[str, float] | None = None,
    prepare: Callable[[State], None] | None = None,
    **rules: Any,
) -> Simulator:
    """Shows one slate once to one user in many lanes."""
    simulator = Simulator(
        world, Rules(**{**STAY, **rules}), lanes=lanes, slate_size=len(slate), weights=weights, threads=1
    )
    simulator.seed(np.arange(lanes, dtype=np.uint64) + np.uint64(seed * 10**6))
    simulator.reset(np.ones(lanes, bool), np.full(lanes, user, np.int32))
    if prepare is not None:
        prepare(simulator.state)
    simulator.step(np.tile(np.array(slate, np.int64), (lanes, 1)))
    return simulator


def fits(counts: Any, probabilities: Any) -> bool:
    """Whether counts may come from these probabilities."""
    counts, p = np.asarray(counts), np.asarray(probabilities, np.float64)
    assert p.sum() == pytest.approx(1.0)
    return bool(scipy.stats.chisquare(counts, p * counts.sum()).pvalue > ALPHA)


def normal(sample: NDArray[Any], mean: float, deviation: float) -> bool:
    return bool(scipy.stats.kstest(sample.astype(np.float64), "norm", (mean, deviation)).pvalue > ALPHA)


ITEMS: dict[str, Any] = {"appeal": [-1.0, 0.0, 0.5, 1.25, -0.25, 2.0], "clickbait": [0.5, 0.0, 0.0, 1.0, 2.0, 0.0]}
SLATE = (2, 0, 3, 4)


@pytest.fixture(scope="module")
def shelf(make_world: Any) -> World:
    """Six items of six topics that differ in appeal and clickbait alone, two users without tastes."""
    return make_world(items=6, users=2, plain=True, noise=0.0, item_arrays=ITEMS)


class TestChoice:
    def attractions(self, pull: float) -> NDArray[np.float64]:
        return np.array([ITEMS["appeal"][i] + pull * ITEMS["clickbait"][i] for i in SLATE])

    def test_multinomial(self, shelf: World) -> None:
        state = show(shelf, [*SLATE], no_click=0.3, position_bias=0.7, clickbait_pull=0.4).state
        clicks = state.feedback[:, :, CLICK]
        assert clicks.sum(1).max() == 1
        np.testing.assert_array_equal(state.feedback[:, :, CLICK] + state.feedback[:, :, SKIP], 1)  # all looked at
        counts = [*clicks.sum(0), (clicks.sum(1) == 0).sum()]

        def formula(bias: float, pull: float, no_click: float) -> NDArray[np.float64]:
            a = np.exp(self.attractions(pull)) * (1 + np.arange(4)) ** -bias
            return np.array([*a, np.exp(no_click)]) / (a.sum() + np.exp(no_click))

        assert fits(counts, formula(0.7, 0.4, 0.3))
        for wrong in ((0.6, 0.4, 0.3), (0.7, 0.3, 0.3), (0.7, 0.4, 0.4)):
            assert not fits(counts, formula(*wrong)), "the test would not see a wrong formula"

    def test_cascade(self, shelf: World) -> None:
        rules = {"choice": "cascade", "no_click": 1.0, "cascade_continue": 0.8, "clickbait_pull": 0.4}
        state = show(shelf, [*SLATE], **rules).state
        clicked, looked = state.feedback[:, :, CLICK], state.feedback[:, :, CLICK] + state.feedback[:, :, SKIP]
        assert (np.diff(looked, axis=1) <= 0).all()  # from the top, without gaps
        last = looked.sum(1).astype(int) - 1
        kind = 2 * last + clicked.sum(1).astype(int)  # where she stopped, and whether with a click

        def formula(go_on: float, no_click: float) -> NDArray[np.float64]:
            p, reach = [], 1.0
            for k, c in enumerate(expit(self.attractions(0.4) - no_click)):
                stop = 1.0 if k == 3 else 1 - go_on
                p += [reach * (1 - c) * stop, reach * c]
                reach *= (1 - c) * go_on
            return np.array(p)

        counts = np.bincount(kind, minlength=8)
        assert fits(counts, formula(0.8, 1.0))
        assert not fits(counts, formula(0.82, 1.0))
        assert not fits(counts, formula(0.8, 1.1))

    def test_position(self, shelf: World) -> None:
        rules = {"choice": "position", "no_click": 0.5, "position_bias": 0.9, "clickbait_pull": 0.4}
        feedback = show(shelf, [*SLATE[:3]], **rules).state.feedback
        each = (feedback[:, :, SKIP] + 2 * feedback[:, :, CLICK]).astype(int)  # not looked at, skipped, clicked
        counts = np.bincount(each @ [9, 3, 1], minlength=27)

        def formula(bias: float, no_click: float) -> NDArray[np.float64]:
            examined = (1.0 + np.arange(3)) ** -bias
            c = expit(self.attractions(0.4)[:3] - no_click)
            slate_size = np.stack([1 - examined, examined * (1 - c), examined * c], axis=1)
            return np.einsum("a,b,c->abc", *slate_size).ravel()  # slots are independent

        sure = formula(0.9, 0.5) > 0  # the first slot is always looked at
        assert counts[~sure].sum() == 0
        assert fits(counts[sure], formula(0.9, 0.5)[sure])
        assert not fits(counts[sure], formula(0.8, 0.5)[sure])
        assert not fits(counts[sure], formula(0.9, 0.4)[sure])

    @pytest.mark.parametrize("choice", ["multinomial", "cascade", "position"])
    def test_wasted_slots(self, make_world: Any, choice: str) -> None:
        """An item for the second time and one that is not out: nobody sees the slot, the others keep their places."""
        released = [-1.0, -1.0, -1.0, 500.0, -1.0, -1.0]
        arrays = {"appeal": ITEMS["appeal"], "released_at": released}
        world = make_world(items=6, users=2, plain=True, noise=0.0, item_arrays=arrays)
        rules = {"choice": choice, "no_click": 0.0, "position_bias": 0.5, "cascade_continue": 0.9}
        simulator = show(world, [1, 1, 3, 5], **rules)
        state = simulator.state
        assert (state.slate == [1, -1, -1, 5]).all()
        assert (state.lane["wasted"] == 2).all()
        assert not state.feedback[:, 1:3].any()
        assert not simulator.outcome.slot_reward[:, 1:3].any()
        first, last = 0.0, 2.0
        c = expit([first, last])
        if choice == "multinomial":
            a = np.exp([first, last]) * np.array([1, 4]) ** -0.5
            p = np.array([*a, 1]) / (a.sum() + 1)
        elif choice == "cascade":
            hit = [c[0], (1 - c[0]) * 0.9 * c[1]]
            p = np.array([*hit, 1 - sum(hit)])
        else:
            p_last = 4**-0.5 * c[1]
            p = np.array([c[0] * (1 - p_last), (1 - c[0]) * p_last, (1 - c[0]) * (1 - p_last), c[0] * p_last])
        clicks = state.feedback[:, [0, 3], CLICK].astype(int)
        kinds = {(1, 0): 0, (0, 1): 1, (0, 0): 2, (1, 1): 3}
        counts = np.zeros(4)
        for pair, kind in kinds.items():
            counts[kind] = (clicks == pair).all(1).sum()
        assert fits(counts[: len(p)], p)
        assert counts[len(p) :].sum() == 0

    def test_all_slots_wasted(self, make_world: Any) -> None:
        world = make_world(items=6, plain=True, item_arrays={"released_at": [-1.0, *[500.0] * 5]})
        for choice in ("multinomial", "cascade", "position"):
            state = show(world, [3, 4], lanes=50, choice=choice).state
            assert not state.feedback.any()
            assert (state.lane["diversity"] == 0).all()
            assert (state.lane["clicks"] == 0).all()


@pytest.fixture(scope="module", params=[-0.8, 1.1, 2.9])
def case(request: pytest.FixtureRequest, make_world: Any) -> tuple[float, Rules, State]:
    """One item is shown and always clicked; its satisfaction, the rules, and what happened."""
    world = make_world(
        items=6, users=2, plain=True, noise=0.0, user_arrays={"price_sensitivity": [0.3, 0.3]},
        item_arrays={"appeal": [request.param] * 6, "quality": [0.4] * 6, "clickbait": [0.3] * 6, "price": [2.0] * 6},
    )  # fmt: skip
    rules = {
        "no_click": -87.0, "quality_gain": 0.5, "clickbait_regret": 1.0, "price_weight": 1.5, "like": 1.0, "share": 1.8,
        "cart": 0.6, "purchase": 0.2, "rating_rate": 0.3, "rating_slope": 0.6, "dwell_time": 400.0,
        "dwell_spread": 0.4, "dwell_satisfaction": 0.3,
    }  # fmt: skip
    state = show(world, [0], **rules).state
    assert state.feedback[:, 0, CLICK].all()
    return request.param + 0.5 * 0.4 - 1.0 * 0.3, Rules(**rules), state


class TestFeedback:
    """One item is shown and always clicked; its satisfaction is known."""

    def test_satisfaction(self, case: Any) -> None:
        y, _, state = case
        np.testing.assert_allclose(state.lane["satisfaction"], y, rtol=1e-5)

    @pytest.mark.parametrize(("signal", "name"), [(LIKE, "like"), (SHARE, "share")])
    def test_like_and_share(self, case: Any, signal: int, name: str) -> None:
        y, rules, state = case
        yes = state.feedback[:, 0, signal].sum()
        p = expit(y - getattr(rules, name))
        assert fits([yes, LANES - yes], [p, 1 - p])
        wrong = expit(y - getattr(rules, name) + 0.15)
        assert not fits([yes, LANES - yes], [wrong, 1 - wrong])

    def test_cart_and_purchase(self, case: Any) -> None:
        y, rules, state = case
        cart, bought = state.feedback[:, 0, CART], state.feedback[:, 0, PURCHASE]
        assert (bought <= cart).all()
        wish = y - rules.price_weight * 0.3 * 2.0
        p_cart, p_buy = expit(wish - rules.cart), expit(wish - rules.purchase)
        counts = [(cart == 0).sum(), (cart > bought).sum(), bought.sum()]
        assert fits(counts, [1 - p_cart, p_cart * (1 - p_buy), p_cart * p_buy])
        assert not fits(counts, [1 - p_cart, p_cart * (1 - p_cart), p_cart * p_cart])

    def test_rating(self, case: Any) -> None:
        y, rules, state = case
        rating = state.feedback[:, 0, RATING]
        rated = int((rating > 0).sum())
        assert fits([rated, LANES - rated], [rules.rating_rate, 1 - rules.rating_rate])
        assert set(rating[rating > 0]) == {np.clip(np.rint(3 + rules.rating_slope * y), 1, 5)}

    def test_dwell_is_lognormal(self, case: Any) -> None:
        y, rules, state = case
        seconds = state.feedback[:, 0, DWELL]
        np.testing.assert_array_equal(seconds, np.rint(seconds))
        assert normal(np.log(seconds / rules.dwell_time), rules.dwell_satisfaction * y, rules.dwell_spread)
        assert not normal(np.log(seconds / rules.dwell_time), rules.dwell_satisfaction * y + 0.02, rules.dwell_spread)

    def test_signals_are_independent_given_satisfaction(self, case: Any) -> None:
        feedback = case[2].feedback[:, 0]
        for a, b in ((LIKE, SHARE), (LIKE, CART), (SHARE, CART)):
            table = np.histogram2d(feedback[:, a], feedback[:, b], bins=2)[0]
            assert scipy.stats.chi2_contingency(table).pvalue > ALPHA

    def test_noise(self, make_world: Any) -> None:
        world = make_world(items=6, users=2, plain=True, noise=0.8, item_arrays={"appeal": [0.5] * 6})
        seen = show(world, [0], no_click=-87.0).state.lane["satisfaction"]
        assert normal(seen, 0.5, 0.8)
        assert not normal(seen, 0.5, 0.85)

    def test_stars_are_five_and_dwell_has_limits(self, make_world: Any) -> None:
        for appeal, star, seconds in ((-40.0, 1, 1.0), (40.0, 5, float(LONGEST_DWELL))):
            world = make_world(items=6, users=2, plain=True, noise=0.0, item_arrays={"appeal": [appeal] * 6})
            feedback = show(world, [0], lanes=200, no_click=-87.0, rating_rate=1.0, position_bias=0.0).state.feedback[
                :, 0
            ]
            clicked = feedback[feedback[:, CLICK] > 0]
            assert len(clicked) == 200
            assert (clicked[:, RATING] == star).all()
            assert (clicked[:, DWELL] == seconds).all()


class TestUtility:
    @pytest.mark.parametrize("name", ["synthetic", "music", "news"])
    def test_integers_against_floats(self, name: str, world: World) -> None:
        chosen = world if name == "synthetic" else World.load(name)
        table = tables(chosen)
        users, items = np.arange(min(len(chosen.population), 400)), np.arange(len(chosen.catalog))
        codes = table.user_code[users].astype(np.int64) @ table.item_code.astype(np.int64).T
        assert np.abs(codes).max() < 2**31
        seen = chosen.preference_model.mu + table.user["bias"][users][:, None] + table.item["appeal"][None]
        seen = seen + table.units["utility_unit"] * codes
        exact = chosen.utility(users, items).astype(np.float64)
        error, spread = seen - exact, exact.std()
        assert np.sqrt((error**2).mean()) < 0.005 * spread
        assert np.abs(error).max() < 0.03 * spread
        assert np.abs(table.item_code).max() <= STEPS
        for u, i in ((0, 0), (3, 5), (len(users) - 1, len(items) - 1)):
            assert dot(table.user_code[u], table.item_code[i]) == codes[u, i]

    def test_the_rules_use_it(self, world: World) -> None:
        rules = Rules(clickbait_pull=0.0)
        simulator = Simulator(world, rules, lanes=len(world.population), slate_size=1, threads=1)
        everyone = np.arange(len(world.population), dtype=np.int32)
        simulator.seed(everyone.astype(np.uint64))
        simulator.reset(np.ones(len(everyone), bool), everyone)
        appeal, _ = simulator.truth()
        out = simulator.available()
        exact = world.utility(everyone, np.arange(len(world.catalog)))
        np.testing.assert_allclose(appeal[out], exact[out], atol=0.03 * exact.std())
        assert (appeal[~out] == -np.inf).all()


RULES: dict[str, Any] = {
    "clickbait_pull": 0.6, "freshness": 1.3, "freshness_life": 2.0, "shelf_life": 5.0, "satiation": 1.4,
    "satiation_click": 0.3, "satiation_look": 0.05, "satiation_life": 0.5, "repeat": 2.5, "repeat_look": 0.2,
    "repeat_life": 6.0, "look_life": 9.0, "repeat_bought": 1.7, "price_weight": 0.7, "drift": 0.0,
    "diffusion": 0.0, "look_time": 7.0, "no_click": 1.0, "cart": 0.5, "leave": -2.5,
    "churn": NEVER, "gap": 5.0, "dwell_time": 300.0,
}  # fmt: skip


class TestTruth:
    """The oracle's arrays by an independent calculation from what could be seen of each step."""

    @pytest.mark.parametrize("choice", ["multinomial", "cascade", "position"])
    def test_attraction(self, make_world: Any, choice: str) -> None:
        prices = np.linspace(0, 5, 40)
        world = make_world(items=40, users=12, item_arrays={"price": prices})
        rules = Rules(**RULES, choice=choice)
        lanes, slate_size = 12, 4
        simulator = Simulator(world, rules, lanes=lanes, slate_size=slate_size, threads=1)
        simulator.seed(np.arange(lanes, dtype=np.uint64))
        simulator.reset(np.ones(lanes, bool), np.arange(lanes, dtype=np.int32))
        catalog, people = world.catalog, world.population
        table = tables(world)
        codes = table.user_code.astype(np.int64) @ table.item_code.astype(np.int64).T
        base = (
            world.preference_model.mu
            + people.bias[:, None]
            + catalog.appeal[None]
            + table.units["utility_unit"] * codes
        )
        satiation = np.zeros((lanes, len(catalog.topics)))
        remembered: list[dict[int, tuple[float, float, int]]] = [{} for _ in range(lanes)]
        lives = np.array([np.inf, rules.look_life, rules.repeat_life, rules.repeat_life]) * 60.0
        rng = np.random.Generator(np.random.PCG64(1))
        sessions = 0
        for _ in range(60):
            clock = simulator.state.lane["clock"].astype(float)
            simulator.step(rng.integers(0, 40, (lanes, slate_size)))
            state = simulator.state
            after = state.lane["clock"].astype(float)
            for b in range(lanes):
                looks = dwell = 0.0
                for k in range(slate_size):
                    item = int(state.slate[b, k])
                    click, skip = state.feedback[b, k, CLICK], state.feedback[b, k, SKIP]
                    if not click + skip:
                        continue
                    looks += 1
                    dwell += state.feedback[b, k, DWELL]
                    topic = catalog.topic[item]
                    level, at, kind = remembered[b].get(item, (0.0, 0.0, 0))
                    level = min(1.0, level * np.exp(-(clock[b] // 60 - at) / lives[kind]) + rules.repeat_look)
                    level = 1.0 if click else np.floor(255 * level + 0.5) / 255
                    kind = max(kind, 3 if state.feedback[b, k, PURCHASE] else 2 if click else 1)
                    remembered[b][item] = (level, clock[b] // 60, kind)
                    add = rules.satiation_click if click else rules.satiation_look
                    satiation[b, topic] = min(1.0, satiation[b, topic] + add)
                spent = np.rint(rules.look_time * max(looks, 1)) + dwell
                if state.lane["session_step"][b] > 0:
                    assert after[b] - clock[b] == spent
                else:
                    sessions += 1
                    assert after[b] - clock[b] - spent == np.rint(state.lane["away"][b] * 86400)
                satiation[b] *= np.exp(-(after[b] - clock[b]) / (rules.satiation_life * 3600))
            np.testing.assert_allclose(state.satiation, satiation, atol=1e-4)
            day = after[:, None] / 86400
            age = day - catalog.released_at[None].astype(float)
            out = (age >= 0) & (age <= rules.shelf_life)
            near = (np.abs(age) < 1e-4) | (np.abs(age - rules.shelf_life) < 1e-4)  # rounding of the day decides
            expected = (
                base + rules.clickbait_pull * catalog.clickbait + rules.freshness * np.exp(-age / rules.freshness_life)
            )
            expected = expected - rules.price_weight * people.price_sensitivity[:, None] * catalog.price
            expected = expected - rules.satiation * satiation[:, catalog.topic]
            for b in range(lanes):
                for item, (level, at, kind) in remembered[b].items():
                    expected[b, item] -= rules.repeat * level * np.exp(-(after[b] // 60 - at) / lives[kind])
                    expected[b, item] -= rules.repeat_bought * (kind == 3)
            appeal, _ = simulator.truth()
            np.testing.assert_array_equal(simulator.available() | near, out | near)
            np.testing.assert_array_equal((appeal > -np.inf) | near, out | near)
            np.testing.assert_allclose(appeal[out & ~near], expected[out & ~near], atol=2e-3)
        assert sessions > 10
        assert {kind for own in remembered for _, _, kind in own.values()} == {1, 2, 3}
        assert (~out).sum() > 10

    @pytest.mark.parametrize(
        ("weights", "tolerance"),
        [
            ({"click": 1.0}, 0.0),
            ({"click": 1.0, "satisfaction": 0.5, "skip": -0.4}, 1e-4),
            ({"like": 1.0, "share": 2.0}, 2e-3),
            ({"dwell": 0.2}, 5e-3),
            ({"cart": 1.0, "purchase": 2.0, "revenue": 0.5}, 5e-3),
            ({"rating": 1.0}, 5e-2),
        ],
    )
    def test_value_of_a_click_by_simulation(self, make_world: Any, weights: dict[str, float], tolerance: float) -> None:
        world = make_world(noise=0.7, item_arrays={"price": np.linspace(0, 6, 60), "released_at": np.full(60, -1.0)})
        rules = {"no_click": -87.0, "price_weight": 0.8, "rating_rate": 0.5, "like": 1.0, "share": 1.5, "cart": 0.5}
        for user, item in ((0, 3), (5, 40), (9, 59)):
            simulator = show(world, [item], user=user, weights=weights, position_bias=0.0, **rules)
            gained = simulator.outcome.reward[simulator.state.feedback[:, 0, CLICK] > 0] - weights.get("skip", 0.0)
            assert len(gained) > 0.99 * LANES
            fresh = Simulator(world, Rules(**{**STAY, **rules}), lanes=1, slate_size=1, weights=weights, threads=1)
            fresh.seed(np.zeros(1, np.uint64))
            fresh.reset(np.ones(1, bool), np.array([user], np.int32))
            value = float(fresh.truth()[1][0, item])
            error = scipy.stats.norm.isf(ALPHA / 2) * gained.std() / np.sqrt(len(gained))
            assert value == pytest.approx(gained.mean(), abs=error + tolerance * max(abs(value), 0.2) + 1e-6)


WEIGHTS: dict[str, float] = {
    "click": 1.0, "dwell": 0.3, "like": 0.5, "share": 2.0, "cart": 0.7, "purchase": 3.0, "rating": 0.1,
    "skip": -0.2, "revenue": 0.4, "satisfaction": 0.25, "return": 1.5, "churn": -4.0,
}  # fmt: skip


class TestReward:
    def test_weights(self, make_world: Any) -> None:
        assert set(WEIGHTS) == set(REWARD_TERMS)
        world = make_world(noise=0.3, item_arrays={"price": np.linspace(0, 6, 60), "released_at": np.full(60, -1.0)})
        simulator = show(
            world, [1, 20, 33], lanes=3000, weights=WEIGHTS, choice="position", no_click=-0.5, price_weight=0.1,
            cart=0.0, share=1.0, like=0.5, rating_rate=0.5, leave=0.0, leave_mood=0.0, churn=0.0,
            churn_mood=0.0, purchase=0.0,
        )  # fmt: skip
        state, outcome = simulator.state, simulator.outcome
        scaled = state.feedback.astype(float).copy()
        scaled[:, :, DWELL] /= 60
        by_slot = scaled @ [WEIGHTS[name] for name in SIGNALS]
        by_slot += WEIGHTS["revenue"] * scaled[:, :, PURCHASE] * world.catalog.price[[1, 20, 33]]
        np.testing.assert_allclose(outcome.slot_reward, by_slot, rtol=1e-5, atol=1e-5)
        rest = outcome.reward - by_slot.sum(1)
        satisfied = WEIGHTS["satisfaction"] * state.lane["satisfaction"] * state.lane["clicks"]
        ended = np.where(state.lane["session"] == 1, WEIGHTS["return"], 0.0)
        ended = np.where(outcome.terminated, WEIGHTS["churn"], ended)
        np.testing.assert_allclose(rest, satisfied + ended, atol=1e-3)
        assert set(np.unique(ended)) == {-4.0, 0.0, 1.5}

    def test_callable_and_registered(self, make: Any, make_vec: Any) -> None:
        from recsim_llm.envs.options import register_reward

        def per_minute(infos: dict[str, Any]) -> Any:
            return infos["dwell"].sum(1) / 60 - 0.1 * infos["skip"].sum(1) + 10 * infos["reward"]

        register_reward("per minute", per_minute)
        for reward in (per_minute, "per minute"):
            env, envs = (
                make("recsim_llm/News-v0", reward=reward),
                make_vec("recsim_llm/News-v0", num_envs=3, reward=reward),
            )
            env.reset(seed=1)
            envs.reset(seed=1)
            for step in range(20):
                slates = (np.arange(15).reshape(3, 5) + 15 * step) % len(env.unwrapped.catalog)
                _, gained, terminated, _, info = env.step(slates[0])
                _, rewards, _, _, infos = envs.step(slates)
                expected = infos["dwell"] / 60 - 0.1 * infos["skip"] + 10 * infos["click"]  # [B, K]
                np.testing.assert_allclose(rewards, expected.sum(1), atol=1e-4)
                np.testing.assert_allclose(infos["slot_reward"], expected, atol=1e-4)
                np.testing.assert_array_equal(info["slot_reward"], infos["slot_reward"][0])
                assert gained == rewards[0]
                assert info["clicks"] == infos["clicks"][0]
                if terminated:
                    break
        with pytest.raises(ConfigError, match=r"no reward 'per minuet'\. Did you mean 'per minute'"):
            make("recsim_llm/News-v0", reward="per minuet")
        bad = make_vec("recsim_llm/News-v0", num_envs=3, reward=lambda infos: np.zeros(2))
        bad.reset(seed=0)
        with pytest.raises(ConfigError, match=r"reward function returned shape \(2,\), expected \(3,\)"):
            bad.step(np.zeros((3, 5), int))

    def test_scenario_rewards_are_their_slots(self, make_vec: Any) -> None:
        for env_id in ("recsim_llm/Music-v0", "recsim_llm/News-v0"):
            envs = make_vec(env_id, num_envs=50)
            envs.reset(seed=0)
            for _ in range(10):
                _, rewards, _, _, infos = envs.step(envs.action_space.sample())
                np.testing.assert_allclose(rewards, infos["slot_reward"].sum(1), rtol=1e-6)
                np.testing.assert_array_equal(infos["clicks"], infos["click"].sum(1))
