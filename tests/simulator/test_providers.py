"""Money and attention: budgets, audiences, buzz, blindness, wallets, what is owned; replayed from what happened.

The replay knows the events (what was looked at, clicked, bought, liked, shared, and when) and computes in float64 what
is remembered of providers and users, what is on the shelf and what it costs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray

from recsim_llm.envs import scenarios
from recsim_llm.simulator import Rules
from recsim_llm.simulator.simulator import Simulator
from recsim_llm.testing import actions, difference
from recsim_llm.worlds.world import World

ALPHA = 1e-4
"""A correct program fails a comparison with this probability; about 10 are made, with fixed seeds."""

DAY, MONTH = 86400, 30 * 86400
CLICK, LIKE, SHARE, PURCHASE, SKIP = 0, 2, 3, 5, 7
STAY = {"leave": -60.0, "churn": -60.0, "session_time": 1e9, "drift": 0.0, "diffusion": 0.0}
GOING = {"leave": 0.0, "churn": -60.0, "session_time": 1e9, "drift": 0.0, "diffusion": 0.0}
"""Sessions of two steps on average, so that days go by."""
ALL_CLICKED = {"choice": "position", "position_bias": 0.0, "no_click": -60.0}
G = 7

WEIGHTS: dict[str, dict[str, float]] = {
    "money": {"revenue": 1.0},
    "mixed": {"revenue": 0.7, "click": 0.3, "dwell": 0.2, "like": 0.5, "share": 1.0, "cart": 0.4, "purchase": -0.3,
              "satisfaction": 0.25},
}  # fmt: skip

EVERYTHING: dict[str, Any] = {
    **GOING, "choice": "position", "bids": 1.0, "audience_life": 1.0, "audience_start": 3.0, "buzz": 0.7,
    "buzz_life": 2.0, "wallet": 1.0, "owned": 2.0, "blindness": 1.0, "like": 0.0, "cart": 0.0, "purchase": 0.0,
    "churn": -4.0,
}  # fmt: skip


def trading(make_world: Any, **more: Any) -> World:
    """60 items of 7 providers with random bids, every second one for a purchase."""
    rng = np.random.Generator(np.random.PCG64(1))
    arrays = {
        "bid": rng.uniform(0.2, 0.9, 60), "bid_event": np.arange(60) % 2, "price": rng.uniform(1, 6, 60),
        "provider_budget": np.array([1.7, 0.0, 0.7, 2.9, 0.4, 1.1, 0.05]), **more.pop("item_arrays", {}),
    }  # fmt: skip
    return make_world(plain=True, noise=0.0, item_arrays=arrays, **more)  # type: ignore[no-any-return]


def started(
    world: World, *, lanes: int, slate_size: int, seed: int = 0, weights: Any = None, **rules: Any
) -> Simulator:
    made = Simulator(world, Rules(**rules), lanes=lanes, slate_size=slate_size, weights=weights, threads=1)
    made.seed(np.arange(lanes, dtype=np.uint64) + np.uint64(seed))
    made.reset(np.ones(lanes, bool))
    return made


def slates(lanes: int, slate_size: int, items: int = 60, seed: int = 0) -> Any:
    rng = np.random.Generator(np.random.PCG64(seed))
    while True:
        yield rng.integers(0, items, (lanes, slate_size))


class TestBudgets:
    @pytest.mark.parametrize("start_day", [0.0, 3.0])
    def test_replay(self, make_world: Any, tmp_path: Path, start_day: float) -> None:
        world = trading(make_world)
        lanes, slate_size, steps = 30, 3, 60
        rules = {**GOING, **ALL_CLICKED, "bids": 1.0, "cart": -1.0, "purchase": 0.0, "gap": 6.0, "start_day": start_day}
        rules |= {"blindness": 0.0, "price_weight": 0.0}
        envs = gym.make_vec(
            "recsim_llm/Ads-v0", num_envs=lanes, world=str(world.save(tmp_path / "world")), slate_size=slate_size,
            rules=rules, truth=True, autoreset_mode="Disabled",
        )  # fmt: skip
        made = envs.unwrapped.core.simulator  # type: ignore[attr-defined]
        bid, on_purchase = world.catalog.bid.astype(float), np.arange(60) % 2 == 1
        budget, owner = world.catalog.provider_budget.astype(float), world.catalog.provider_index
        _, infos = envs.reset(seed=0)
        began = made.state.lane["clock"].copy()
        spent, day, bought, clicked = np.zeros((lanes, G)), np.zeros(lanes, int), np.zeros(lanes), np.zeros(lanes)
        exhausted, resets, commissions, total = 0, 0, 0, 0.0
        for shown, _ in zip(slates(lanes, slate_size), range(steps), strict=False):
            clock = made.state.lane["clock"].copy()
            new_day = clock // DAY
            resets += int(((new_day > day) & (spent[:, budget > 0] > 0).any(1)).sum())
            spent[new_day > day] = 0.0
            day = new_day
            can_pay = (budget == 0) | (spent < budget)
            mask = can_pay[:, owner]
            np.testing.assert_array_equal(made.available(), mask)
            np.testing.assert_array_equal(np.isneginf(infos["truth_appeal"]), ~mask)
            exhausted += int((~can_pay).sum())
            _, reward, _, _, infos = envs.step(shown)
            feedback, earned = made.state.feedback, np.zeros(lanes)
            for b in range(lanes):
                for k, i in enumerate(shown[b]):
                    good = mask[b, i] and i not in shown[b, :k]
                    assert infos["slate"][b, k] == (i if good else -1)
                    if not good:
                        assert not feedback[b, k].any()
                        continue
                    g = owner[i]
                    happened = feedback[b, k, PURCHASE if on_purchase[i] else CLICK] > 0
                    paid = 0.0
                    if happened:
                        left = budget[g] - spent[b, g] if budget[g] > 0 else np.inf
                        paid = min(bid[i], left)
                        spent[b, g] = budget[g] if bid[i] >= left else spent[b, g] + paid
                        commissions += bool(on_purchase[i])
                    assert infos["slot_reward"][b, k] == pytest.approx(paid, abs=1e-5)
                    earned[b] += paid
            assert (spent[:, budget > 0] <= budget[budget > 0]).all()
            np.testing.assert_allclose(reward, earned, atol=1e-5)
            np.testing.assert_allclose(infos["revenue"], earned, atol=1e-5)
            total += earned.sum()
            bought += feedback[..., PURCHASE].sum(1)
            clicked += feedback[..., CLICK].sum(1)
            np.testing.assert_allclose(infos["cvr"], bought / np.maximum(clicked, 1))
            after = made.state.lane["clock"]
            today = np.where((after // DAY == day)[:, None], spent, 0.0)[:, budget > 0].sum(1) / budget.sum()
            np.testing.assert_allclose(infos["budget_spent"], today, atol=1e-5)
            first = np.where(after // DAY == began // DAY, began % DAY, 0)
            gone = np.maximum((after % DAY - first) / (DAY - first), 1e-3)
            np.testing.assert_allclose(infos["pacing"], today / gone, rtol=1e-3, atol=1e-3)
        assert exhausted > 200
        assert resets > 30
        assert commissions > 50
        assert total > 100

    def test_the_last_money_leaves_nothing(self, make_world: Any) -> None:
        """Whatever the rounding: after a bid above what was left there is no rest that would keep the ad running."""
        world = trading(
            make_world, item_arrays={"bid": np.full(60, 0.1), "provider_budget": np.linspace(0.25, 0.85, G)}
        )
        made = started(world, lanes=400, slate_size=1, bids=1.0, **STAY, **ALL_CLICKED, repeat=0.0)
        owner = world.catalog.provider_index
        item = int(np.flatnonzero((owner == 3) & (np.arange(60) % 2 == 0))[0])
        made.state.lane["clock"][...] = 0
        shown = 0
        while made.available()[:, item].all():
            made.step(np.full((400, 1), item, np.int64))
            shown += 1
        assert shown == int(np.ceil(world.catalog.provider_budget[3] / 0.1 - 1e-6))
        assert not made.available()[:, item].any()
        np.testing.assert_array_equal(made.state.provider["spent"][:, 3], world.catalog.provider_budget[3])

    def test_where_nobody_bids_nothing_is_remembered(self, world: World) -> None:
        made = started(world, lanes=2, slate_size=1)
        assert made.state.provider.shape == (2, 0)
        assert not made.spending().any()
        assert (made.living() == G).all()


class TestBlindness:
    def test_growth_and_decay(self, make_world: Any) -> None:
        world = make_world(plain=True, noise=0.0)
        rules = {**GOING, "no_click": 2.0, "blindness": 1.5, "blindness_look": 0.07, "blindness_life": 5.0, "gap": 1.0}
        made = started(world, lanes=50, slate_size=3, **rules)
        level, most = np.zeros(50), 0.0
        for shown, _ in zip(slates(50, 3), range(40), strict=False):
            before = made.state.lane["clock"].copy()
            made.step(shown)
            for skips in made.state.feedback[..., SKIP].T:
                level += 0.07 * skips * (1 - level)
            level *= np.exp(-(made.state.lane["clock"] - before) / (5.0 * 3600))
            np.testing.assert_allclose(made.state.lane["blindness"], level, atol=1e-4)
            most = max(most, float(level.max()))
        assert most > 0.3
        appeal = made.truth()[0]
        made.state.lane["blindness"][...] = 0.0
        np.testing.assert_allclose(made.truth()[0] - appeal, np.repeat(1.5 * level[:, None], 60, 1), atol=1e-3)

    def test_clicks_do_not_blind(self, make_world: Any) -> None:
        made = started(make_world(plain=True), lanes=5, slate_size=2, blindness=1.0, **STAY, **ALL_CLICKED)
        made.step(np.tile([0, 1], (5, 1)))
        assert (made.state.feedback[..., CLICK] == 1).all()
        assert not made.state.lane["blindness"].any()


class TestAudience:
    @pytest.mark.parametrize("bids", [0.0, 1.0])
    def test_replay(self, make_world: Any, bids: float) -> None:
        """Audience, the day of stopping, the shelf, living providers and buzz; the same where clicks are paid for."""
        released = np.random.Generator(np.random.PCG64(2)).uniform(-3, 9, 60)
        arrays = {"released_at": released, "provider_budget": np.zeros(G), "bid_event": np.zeros(60)}
        world = trading(make_world, item_arrays=arrays)
        released = world.catalog.released_at.astype(float)
        rules = {
            **GOING, "choice": "position", "no_click": 0.3, "bids": bids, "gap": 4.0, "audience_life": 0.8,
            "audience_start": 3.0, "audience_needed": 1.2, "audience_look": 0.4, "audience_click": 1.1, "buzz": 0.7,
            "buzz_like": 0.2, "buzz_share": 0.45, "buzz_life": 1.5, "like": 0.0, "share": 0.5, "start_day": 1.0,
        }  # fmt: skip
        lanes, owner = 25, world.catalog.provider_index
        made = started(world, lanes=lanes, slate_size=3, **rules)
        began = made.state.lane["clock"] / DAY
        audience, at, buzz = np.full((lanes, G), 3.0), np.repeat(began[:, None], G, 1), np.zeros((lanes, G))
        stopped_on = np.full((lanes, G), np.nan)
        hidden, kept, capped, looks_at_gone = 0, 0, 0, 0
        for shown, _ in zip(slates(lanes, 3), range(70), strict=False):
            now = made.state.lane["clock"] / DAY
            stop = 1.0 + at + 0.8 * np.log(audience / 1.2)
            gone = stop < 1.0 + now[:, None]
            close = np.abs(stop - (1.0 + now[:, None])) < 1e-4
            np.testing.assert_allclose(stop[~np.isnan(stopped_on)], stopped_on[~np.isnan(stopped_on)])
            stopped_on = np.where(gone, stop, np.nan)
            out = released[None] <= (1.0 + now[:, None])
            mask = out & (released[None] <= stop[:, owner])
            sure = (np.abs(released[None] - stop[:, owner]) > 1e-3) & (np.abs(released - 1.0 - now[:, None]) > 1e-4)
            np.testing.assert_array_equal(made.available()[sure], mask[sure])
            hidden += int((out & ~mask).sum())
            kept += int((mask & gone[:, owner]).sum())
            living = made.living()
            assert (living >= (~gone & ~close).sum(1)).all()
            assert (living <= (~gone | close).sum(1)).all()
            cells = made.state.provider
            appeal, saved = made.truth()[0], cells["buzz"].copy()
            cells["buzz"][...] = 0.0
            without = made.truth()[0]
            cells["buzz"][...] = saved
            effect = 0.7 * (buzz * np.exp(-(now[:, None] - at) / 1.5))[:, owner]
            on = np.isfinite(appeal)
            np.testing.assert_array_equal(on, np.isfinite(without))
            np.testing.assert_allclose((np.where(on, appeal, 0) - np.where(on, without, 0))[on], effect[on], atol=2e-3)
            made.step(shown)
            for b in range(lanes):
                for k, i in enumerate(made.state.slate[b]):
                    signals = made.state.feedback[b, k]
                    if i < 0 or not signals[[CLICK, SKIP]].any():
                        continue
                    g = owner[i]
                    if gone[b, g]:
                        looks_at_gone += 1
                        continue
                    passed = now[b] - at[b, g]
                    audience[b, g] = audience[b, g] * np.exp(-passed / 0.8) + 0.4 + 1.1 * signals[CLICK]
                    grown = buzz[b, g] * np.exp(-passed / 1.5) + 0.2 * signals[LIKE] + 0.45 * signals[SHARE]
                    capped += grown > 1
                    buzz[b, g], at[b, g] = min(grown, 1.0), now[b]
        assert hidden > 500
        assert kept > 500
        assert capped > 3
        assert looks_at_gone > 100

    def test_nobody_looks(self, make_world: Any) -> None:
        """Alone it is a closed form: every provider stops life * ln(start / needed) days after the beginning."""
        world = make_world(plain=True, item_arrays={"released_at": np.linspace(-1, 8, 60)})
        made = started(world, lanes=40, slate_size=1, audience_life=2.0, audience_start=6.0, audience_needed=1.5)
        last = made.state.lane["began"] / DAY + 2.0 * np.log(4.0)
        assert (made.living() == G).all()
        made.state.lane["clock"][...] = 7 * DAY
        assert (made.living() == 0).all()
        np.testing.assert_array_equal(made.available(), world.catalog.released_at[None] <= last[:, None])
        assert 0 < made.available().mean() < 0.8


class TestWallets:
    def test_replay(self, make_world: Any) -> None:
        """Clicks on everything by people who want to buy everything: what stops them is the month's money alone."""
        world = trading(
            make_world, user_arrays={"wallet": np.where(np.arange(40) % 4 == 0, 0.0, 6.0 + np.arange(40) / 4)}
        )
        price, wallet = world.catalog.price.astype(float), world.population.wallet.astype(float)
        rules = {**GOING, **ALL_CLICKED, "wallet": 1.5, "cart": -60.0, "purchase": -60.0, "gap": 60.0}
        made = started(world, lanes=60, slate_size=2, weights={"purchase": 1.0}, **rules)
        lane = made.state.lane
        limit = np.where(wallet[lane["user"]] > 0, 1.5 * wallet[lane["user"]], np.inf)
        began = lane["clock"].copy()
        spent, month, refused, renewed = np.zeros(60), np.zeros(60, int), 0, 0
        for shown, _ in zip(slates(60, 2), range(80), strict=False):
            now = (lane["clock"] - began) // MONTH
            renewed += int(((now > month) & (spent > 0)).sum())
            spent[now > month], month = 0.0, now
            value = made.truth()[1]
            close = np.abs(price[None] - (limit - spent)[:, None]) < 1e-3
            affordable = price[None] <= (limit - spent)[:, None]
            np.testing.assert_array_equal((value > 0.5)[~close], affordable[~close])
            made.step(shown)
            for b in range(60):
                for k, i in enumerate(made.state.slate[b]):
                    if i < 0:
                        continue
                    left = limit[b] - spent[b]
                    if abs(price[i] - left) > 1e-3:
                        assert (made.state.feedback[b, k, PURCHASE] > 0) == (price[i] <= left)
                    if made.state.feedback[b, k, PURCHASE]:
                        spent[b] += price[i]
                    else:
                        refused += 1
            assert (spent <= limit + 1e-3).all()
            np.testing.assert_allclose(np.where(lane["month"] == now, lane["spent"], 0), spent, atol=1e-2)
        assert refused > 1000
        assert renewed > 100

    def test_owned(self, make_world: Any) -> None:
        world = trading(make_world)
        rules = {**GOING, "owned": 3.0, "owned_life": 4.0, "cart": 0.0, "purchase": 0.0, "gap": 20.0}
        made = started(world, lanes=30, slate_size=3, **rules)
        topic, topics = world.catalog.topic, len(world.catalog.topics)
        bought = np.full((30, topics), -np.inf)
        for shown, _ in zip(slates(30, 3), range(30), strict=False):
            now = made.state.lane["clock"].astype(float)
            made.step(shown)
            for b, k in zip(*np.nonzero(made.state.feedback[..., PURCHASE]), strict=True):
                bought[b, topic[made.state.slate[b, k]]] = now[b]
            appeal, kept = made.truth()[0], made.state.owned.copy()
            made.state.owned[...] = -1
            without = made.truth()[0]
            made.state.owned[...] = kept
            later = made.state.lane["clock"].astype(float)
            lost = 3.0 * np.exp(-(later[:, None] - bought) / DAY / 4.0)
            np.testing.assert_allclose(without - appeal, lost[:, topic], atol=1e-3)
        assert np.isfinite(bought).mean() > 0.2
        assert not np.isfinite(bought).all()


class TestExpectedValue:
    LANES = 60_000

    @pytest.mark.parametrize("weights", WEIGHTS)
    @pytest.mark.parametrize("case", ["price", "too dear", "bid", "last money", "commission", "last commission"])
    def test_against_monte_carlo(self, make_world: Any, case: str, weights: str) -> None:
        arrays = {
            "price": np.full(6, 2.5), "bid": np.full(6, 0.8), "bid_event": np.full(6, int("commission" in case)),
            "provider_budget": np.full(6, 5.0), "appeal": np.full(6, 0.6),
        }  # fmt: skip
        world = make_world(
            items=6, users=2, plain=True, noise=0.7, item_arrays=arrays,
            user_arrays={"wallet": np.full(2, 4.0), "price_sensitivity": np.full(2, 0.3)},
        )  # fmt: skip
        rules = {**STAY, **ALL_CLICKED, "wallet": 1.0, "price_weight": 0.5, "cart": 0.2, "purchase": -0.3, "like": 0.5}
        rules |= {"bids": 0.0 if case in ("price", "too dear") else 0.5, "repeat": 0.0, "share": 1.0}
        made = started(world, lanes=self.LANES, slate_size=1, weights=WEIGHTS[weights], **rules)
        if case == "too dear":
            made.state.lane["spent"][...] = 2.0
        if "last" in case:
            cells = made.state.provider
            cells["episode"][...], cells["spent"][...] = 0, 4.75
            cells["day"][...] = (made.state.lane["clock"] // DAY)[:, None]
        expected = float(made.truth()[1][0, 0])
        reward = made.step(np.zeros((self.LANES, 1), np.int64)).reward.copy()
        assert (made.state.feedback[..., CLICK] == 1).all()
        p = float(scipy.stats.ttest_1samp(reward, expected).pvalue) if reward.std() > 1e-9 else 1.0
        assert reward.std() > 1e-9 or reward.mean() == pytest.approx(expected, abs=1e-6)
        assert p > ALPHA, f"expected {expected:.4f}, mean {reward.mean():.4f} of {self.LANES}"
        if reward.std() > 1e-9:
            assert scipy.stats.ttest_1samp(reward, 1.05 * expected + 0.01).pvalue < ALPHA
        bought = made.state.feedback[..., PURCHASE].any()
        assert bought == (case != "too dear")


class TestSeparation:
    @pytest.fixture(scope="class")
    @staticmethod
    def folder(make_world: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
        arrays = {"released_at": np.linspace(-2, 6, 60)}
        world = trading(make_world, item_arrays=arrays, user_arrays={"wallet": np.full(40, 9.0)})
        return str(world.save(tmp_path_factory.mktemp("trading") / "world"))

    def make(self, folder: str, lanes: int) -> Any:
        return gym.make_vec(
            "recsim_llm/Social-v0", num_envs=lanes, world=folder, rules=EVERYTHING, truth=True,
            autoreset_mode="Disabled", reward={"revenue": 1.0, "click": 0.5},
        )  # fmt: skip

    def play(self, envs: Any, steps: int = 25, seed: int = 0) -> list[Any]:
        stream = actions(envs.action_space, seed)
        return [envs.step(next(stream)) for _ in range(steps)]

    def test_the_next_episode_starts_anew(self, folder: str) -> None:
        used, fresh = self.make(folder, 6), self.make(folder, 6)
        used.reset(seed=0)
        self.play(used)
        cells = used.unwrapped.core.simulator.state.provider
        assert (cells["spent"] > 0).any()
        assert (cells["buzz"] > 0).any()
        fresh.reset(seed=0)
        assert difference(used.reset(), fresh.reset()) is None
        assert difference(self.play(used, seed=1), self.play(fresh, seed=1)) is None

    def test_seeding_again_starts_anew(self, folder: str) -> None:
        envs = self.make(folder, 6)
        first = envs.reset(seed=0)
        record = self.play(envs)
        for episodes in (0, 2):
            for _ in range(episodes):
                envs.reset()
                self.play(envs, seed=3)
            assert difference(envs.reset(seed=0), first) is None
            assert difference(self.play(envs), record) is None

    @pytest.mark.parametrize("seed", [None, 50])
    def test_reset_of_some_lanes(self, folder: str, seed: int | None) -> None:
        """Those of the mask begin anew, the others go on as if nothing had happened."""
        mask = np.array([True, False, True, False, False, True])
        parts, whole, through = (self.make(folder, 6) for _ in range(3))
        for envs in (parts, whole, through):
            envs.reset(seed=0)
            self.play(envs)
        parts.reset(seed=seed, options={"reset_mask": mask})
        if seed is not None:
            whole = self.make(folder, 6)
        whole.reset(seed=seed)
        told, new, old = (self.play(envs, seed=2) for envs in (parts, whole, through))
        for left, restarted, continued in zip(told, new, old, strict=True):
            for place in range(4):
                np.testing.assert_array_equal(left[place][mask], restarted[place][mask])
                np.testing.assert_array_equal(left[place][~mask], continued[place][~mask])
            for name in ("budget_spent", "living_providers", "truth_appeal", "revenue"):
                np.testing.assert_array_equal(left[4][name][mask], restarted[4][name][mask])
                np.testing.assert_array_equal(left[4][name][~mask], continued[4][name][~mask])

    def test_lanes_do_not_influence_each_other(self, folder: str) -> None:
        alone, among = self.make(folder, 1), self.make(folder, 7)
        alone.reset(seed=4)
        among.reset(seed=0)
        rng = np.random.Generator(np.random.PCG64(0))
        for _ in range(30):
            shown: NDArray[np.int64] = rng.integers(0, 60, (7, 5))
            left, right = alone.step(shown[4:5]), among.step(shown)
            for place in range(4):
                np.testing.assert_array_equal(left[place][0], right[place][4])
            for name, values in left[4].items():
                np.testing.assert_array_equal(values[0], right[4][name][4], err_msg=name)

    @pytest.mark.parametrize("env_id", scenarios())
    def test_infos_of_each_scenario(self, env_id: str) -> None:
        keys = set(gym.make(env_id).reset(seed=0)[1])
        money = {"revenue", "cvr"}
        expected = {"Ads": money | {"budget_spent", "pacing"}, "Ecommerce": money, "Social": {"living_providers"}}
        wanted: set[str] = expected.get(env_id.split("/")[1].split("-")[0], set())
        assert keys & (money | {"budget_spent", "pacing", "living_providers"}) == wanted
