"""What makes an environment harder than its scenario: each axis of the variant against formulas or brute force."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import scipy.stats
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

from recsim_llm import agents
from recsim_llm.benchmarks.harness.cell import evaluate
from recsim_llm.envs import variants
from recsim_llm.envs.registration import VARIANTS, mo_ids, scenarios
from recsim_llm.errors import ConfigError
from recsim_llm.simulator import SIGNALS, Rules
from recsim_llm.simulator.episode_start import WARM_CHOICES
from recsim_llm.simulator.simulator import Simulator
from recsim_llm.simulator.streams import SHIFT, WARM, bits
from recsim_llm.simulator.task_variant import TaskVariant
from recsim_llm.testing import actions, difference
from recsim_llm.worlds.world import World

ALPHA = 1e-4
"""A correct program fails a comparison with this probability; about 30 are made, with fixed seeds."""

CLICK, DWELL, SKIP = 0, 1, 7
STAY = {"leave": -60.0, "churn": -60.0, "session_time": 1e9}
STILL = {**STAY, "drift": 0.0, "diffusion": 0.0}
EACH: dict[str, dict[str, Any]] = {**VARIANTS, "short": {"delay": 3, "noise": 0.3, "missing": 0.2, "opt_out": 0.5}}
Weights = dict[str, float]


def simulator(
    world: World, variant: TaskVariant, *, lanes: int = 8, slate_size: int = 2, seed: int = 0,
    weights: Weights | None = None,
    user: int | None = None, **rules: Any,
) -> Simulator:  # fmt: skip
    made = Simulator(
        world, Rules(**rules), lanes=lanes, slate_size=slate_size, weights=weights, variant=variant, threads=1
    )
    made.seed(np.arange(lanes, dtype=np.uint64) + np.uint64(seed))
    made.reset(np.ones(lanes, bool), None if user is None else np.full(lanes, user, np.int32))
    return made


def slates(lanes: int, slate_size: int, items: int, seed: int = 0) -> Any:
    rng = np.random.Generator(np.random.PCG64(seed))
    while True:
        yield rng.integers(0, items, (lanes, slate_size))


def same_users(left: Simulator, right: Simulator, steps: int = 60) -> None:
    """The users of two simulators do the same, whatever is told of them."""
    for shown, _ in zip(slates(left.lanes, left.slate_size, 60), range(steps), strict=False):
        left.step(shown)
        right.step(shown)
        np.testing.assert_array_equal(left.state.feedback, right.state.feedback)
        np.testing.assert_array_equal(left.outcome.reward, right.outcome.reward)
        np.testing.assert_array_equal(left.state.taste, right.state.taste)
        for name in ("clock", "mood", "budget", "session"):
            np.testing.assert_array_equal(left.state.lane[name], right.state.lane[name])


# Every id


class TestIds:
    def test_count(self) -> None:
        assert len(variants()) == len(set(variants())) == len(scenarios()) * len(VARIANTS) == 84
        assert "recsim_llm/Music-cold-text-v0" in variants()

    @pytest.mark.parametrize("env_id", variants())
    def test_checkers_spec_and_vector(self, env_id: str) -> None:
        """Both checkers without a warning, JSON round trip, and scalar = vector bitwise with autoresets."""
        from gymnasium.utils.env_checker import check_env
        from stable_baselines3.common.env_checker import check_env as check_sb3

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            env = gym.make(env_id)
            check_env(env.unwrapped, skip_render_check=True)
            check_sb3(env, warn=True, skip_render_check=True)
        assert env.spec is not None
        again = EnvSpec.from_json(env.spec.to_json())
        assert again.kwargs == env.spec.kwargs == json.loads(env.spec.to_json())["kwargs"]
        expected = dict(next(axes for name, axes in VARIANTS.items() if env_id.endswith(f"-{name}-v0")))
        assert again.make().unwrapped.core.variant == TaskVariant(**expected)  # type: ignore[attr-defined]
        self.compare(env_id, 14)

    @pytest.mark.filterwarnings("ignore:.*is 0 at every step")  # a term among others that cannot occur here
    @pytest.mark.parametrize("env_id", mo_ids())
    def test_vector_rewards(self, env_id: str) -> None:
        self.compare(env_id, 14, objectives=["click", "dwell", "revenue"], delay=2, noise=0.2)

    @pytest.mark.parametrize("name", EACH)
    def test_vector_in_lively_worlds(self, world_folder: str, name: str) -> None:
        """Users who leave all the time, by the horizon too; a few dozen steps, the truth in the infos."""
        lively = {"leave": -0.5, "churn": -1.0, "interest_rate": 0.3}
        self.compare(
            "recsim_llm/News-v0", 40, world=world_folder, truth=True, rules=lively, **{"drift_period": 4, **EACH[name]}
        )

    @staticmethod
    def compare(env_id: str, steps: int, **arguments: Any) -> None:

        arguments["max_episode_steps"] = 6
        native = gym.make_vec(env_id, num_envs=2, vectorization_mode="vector_entry_point", **arguments)
        scalar = SyncVectorEnv([lambda: gym.make(env_id, **arguments)] * 2, autoreset_mode=AutoresetMode.NEXT_STEP)
        if "mo-" in env_id:
            import mo_gymnasium.wrappers.vector as mo

            scalar = mo.MOSyncVectorEnv([lambda: gym.make(env_id, **arguments)] * 2)  # type: ignore[assignment]
        assert difference(scalar.reset(seed=3), native.reset(seed=3)) is None
        ended = 0
        for action, _ in zip(actions(native.action_space, 3), range(steps), strict=False):
            left, right = scalar.step(action), native.step(action)
            assert difference(left, right) is None
            ended += int((right[2] | right[3]).any())
        assert ended

    def test_terminated_and_truncated(self, world_folder: str) -> None:
        """The one only for users who left, the other only for the horizon: steps or days."""
        arguments = {"world": world_folder, "rules": {"leave": -1.0, "churn": -1.5, "gap": 10.0}}
        for axes in ({}, {"retention": 2.0}, {"delay": 3}):
            horizon = 12
            envs = gym.make_vec(
                "recsim_llm/News-v0", num_envs=200, autoreset_mode="Disabled", horizon=horizon,
                **arguments, **axes,
            )  # fmt: skip
            core = envs.unwrapped.core  # type: ignore[attr-defined]
            envs.reset(seed=0)
            began = core.simulator.state.lane["clock"].copy()
            running, kinds = np.ones(200, bool), np.zeros((200, 2), bool)
            for step in range(1, horizon + 1):
                action = np.tile(np.arange(core.slate_size), (200, 1))
                _, _, terminated, truncated, infos = envs.step(action)
                days = (core.simulator.state.lane["clock"] - began) / 86400
                due = np.full(200, step >= horizon) | (days >= axes.get("retention", np.inf))
                np.testing.assert_array_equal(truncated[running], due[running])
                np.testing.assert_array_equal(infos["is_success"][running], (due & ~terminated)[running])
                kinds[running, 0] |= terminated[running]
                kinds[running, 1] |= truncated[running]
                running &= ~(terminated | truncated)
            assert not running.any()
            assert kinds.any(0).all()
            if "retention" in axes:
                assert (days[kinds[:, 1]] >= 2).any()


# Who and what is new


class TestCold:
    def test_cold_users(self, world: World) -> None:
        known, unknown = (simulator(world, TaskVariant(cold_users=cold)) for cold in (False, True))
        part = known.layout["profile"]
        assert known.outcome.observation[:, part].any(1).all()
        assert not unknown.outcome.observation[:, part].any()
        same_users(known, unknown)
        assert not unknown.outcome.observation[:, part].any()
        rest = slice(part.stop, None)
        np.testing.assert_array_equal(known.outcome.observation[:, rest], unknown.outcome.observation[:, rest])

    @pytest.mark.parametrize("count", [1, 4, 20])
    def test_warm_start(self, world: World, count: int) -> None:
        warm = simulator(world, TaskVariant(warm_start=count), lanes=12, interest_rate=0.25)
        tables, lane = warm.tables, warm.state.lane
        items = tables.item_code.astype(np.int64)
        unit = tables.units["encoding_unit"]
        width = warm.world.catalog.width
        chosen = set()
        for b in range(12):
            scores = tables.units["utility_unit"] * (items @ tables.user_code[lane["user"][b]].astype(np.int64))
            scores = scores + tables.item["appeal"].astype(float)
            scores[tables.item["released_at"] > lane["clock"][b] / 86400] = -np.inf
            interest = np.zeros(width)
            with np.errstate(over="ignore"):
                for n in range(count):
                    channels = WARM + n * WARM_CHOICES + np.arange(WARM_CHOICES)
                    drawn = [int(bits(lane["stream"][b], c) >> np.uint64(33)) % len(items) for c in channels]
                    best = max(drawn, key=lambda i: scores[i])
                    if np.isfinite(scores[best]):
                        interest += 0.25 * (items[best, :width] - interest)
                        chosen.add(best)
            np.testing.assert_allclose(warm.state.interest[b], interest, rtol=1e-4, atol=0.05)
            seen = warm.outcome.observation[b, warm.layout["interest"]]
            np.testing.assert_allclose(seen, np.clip(interest * unit, -1, 1), atol=1e-4)
        assert len(chosen) > 1
        same_users(warm, simulator(world, TaskVariant(), lanes=12, interest_rate=0.25), 30)

    def test_cold_items(self, make_world: Any) -> None:
        items, share, days = 6000, 0.3, 10.0
        world = make_world(items=items, users=4, plain=True)
        variant = TaskVariant(cold_items=share, cold_days=days)
        made = Simulator(world, Rules(start_day=2.0), lanes=1, slate_size=1, variant=variant)
        released = made.tables.item["released_at"]
        held = released != world.catalog.released_at
        assert scipy.stats.binomtest(int(held.sum()), items, share).pvalue > ALPHA
        assert scipy.stats.kstest(released[held], "uniform", (2.0, days)).pvalue > ALPHA
        assert scipy.stats.kstest(released[held], "uniform", (2.0, 1.1 * days)).pvalue < ALPHA
        other = Simulator(world, Rules(start_day=2.0), lanes=1, slate_size=2, variant=variant)
        np.testing.assert_array_equal(other.tables.item["released_at"], released)

    def test_catalogue_tells_what_the_mask_says(self, world_folder: str) -> None:
        env = gym.make(
            "recsim_llm/Music-v0",
            world=world_folder,
            cold_items=0.5,
            rules={"leave": 60.0, "churn": -60.0, "gap": 40.0},
        )
        catalog = env.unwrapped.catalog  # type: ignore[attr-defined]
        assert not catalog.appeal.any()
        _, info = env.reset(seed=1)
        counts = []
        for _ in range(25):
            mask = env.unwrapped.available()  # type: ignore[attr-defined]
            np.testing.assert_array_equal(mask, catalog.released_at <= info["day"])
            counts.append(int(mask.sum()))
            info = env.step(0)[4]
        assert counts[0] < 50 <= counts[-1]


# Drift


def goals(made: Simulator, b: int, regime: int, kind: str) -> NDArray[np.int64]:
    """Codes of the user whose taste lane b aims at."""
    lane, codes = made.state.lane[b], made.tables.user_code.astype(np.int64)
    if kind == "recurring":
        regime %= 2
    if regime == 0:
        return codes[lane["user"]]
    with np.errstate(over="ignore"):
        return codes[int(bits(lane["stream"], SHIFT + regime) >> np.uint64(33)) % len(codes)]


class TestDrift:
    @pytest.mark.parametrize("size", [1.0, 0.4])
    @pytest.mark.parametrize("kind", ["abrupt", "gradual", "recurring"])
    def test_tastes(self, world: World, kind: str, size: float) -> None:
        period, width = 5, world.catalog.width
        variant = TaskVariant(drift=kind, drift_period=period, drift_size=size)
        made = simulator(world, variant, lanes=6, **STILL)
        moved = False
        for step, shown in zip(range(24), slates(6, 2, 60), strict=False):
            made.step(shown)
            regime = step // period
            assert (made.state.lane["regime"] == regime).all()
            part = (step % period + 1) / period if kind == "gradual" else 0.0
            for b in range(6):
                own, now, then = (goals(made, b, r, kind) for r in (0, regime, regime + 1))
                aim = now + part * (then - now)
                expected = own + size * (aim - own)
                np.testing.assert_allclose(made.state.taste[b], expected[:width], atol=0.02)
                assert np.abs(made.state.code[b] - expected).max() <= 0.52
                moved |= bool((made.state.code[b] != own).any() and (made.state.code[b, width:] != own[width:]).any())
        assert moved
        points = variant.change_points(24)
        assert points == [5, 10, 15, 20]
        if kind == "recurring":
            for _ in range(7):
                made.step(next(slates(6, 2, 60)))
            codes = made.tables.user_code[made.state.lane["user"]]
            assert (made.state.lane["regime"] == 6).all()
            np.testing.assert_array_equal(made.state.code, codes)  # an even one: her own taste again, factors too

    def test_common_drift_is_towards_one_taste(self, world: World) -> None:
        """A fashion: everybody shifts to the taste of the same user, whatever the seed, and recurs if it recurs."""
        variant = TaskVariant(drift="abrupt", drift_period=4, drift_common=True)
        codes = []
        for seed in (0, 50):
            made = simulator(world, variant, lanes=6, seed=seed, **STILL)
            for _, shown in zip(range(9), slates(6, 2, 60), strict=False):
                made.step(shown)
            assert (made.state.lane["regime"] == 2).all()
            codes.append(made.state.code.copy())
        assert (np.abs(np.diff(np.concatenate(codes), axis=0)) <= 1).all()  # up to the rounding of one sum
        apart = simulator(world, TaskVariant(drift="abrupt", drift_period=4), lanes=6, **STILL)
        for _, shown in zip(range(9), slates(6, 2, 60), strict=False):
            apart.step(shown)
        assert (np.abs(np.diff(apart.state.code, axis=0)) > 1).any(1).sum() >= 3

    def test_size_zero_and_drift_of_the_rules(self, world: World) -> None:
        for kind in ("abrupt", "gradual", "recurring"):
            none, zero = (
                simulator(world, variant, drift=0.2)
                for variant in (TaskVariant(), TaskVariant(drift=kind, drift_size=0.0, drift_period=3))
            )
            same_users(none, zero, 30)

    def test_truth_tells_the_regime(self, world_folder: str) -> None:
        env = gym.make(
            "recsim_llm/Music-v0", world=world_folder, truth=True, drift="abrupt", drift_period=4, rules=STAY
        )
        told = [env.reset(seed=0)[1]["truth_regime"]]
        told += [env.step(0)[4]["truth_regime"] for _ in range(12)]
        changes = [step - 1 for step in range(1, 13) if told[step] != told[step - 1]]
        assert changes == env.unwrapped.core.variant.change_points(12) == [4, 8]  # type: ignore[attr-defined]
        assert TaskVariant().change_points(100) == []


class TestSatiation:
    def test_factor(self, world: World) -> None:
        base = {"satiation": 0.7, **STILL}
        once, thrice = (simulator(world, TaskVariant(satiation=f), **base) for f in (1.0, 3.0))
        direct = simulator(world, TaskVariant(), **{**base, "satiation": 2.1})
        for made in (once, thrice, direct):
            made.state.satiation[...] = np.linspace(0, 1, made.state.satiation.shape[1])
        appeal = [made.truth()[0] for made in (once, thrice, direct)]
        shelf = np.isfinite(appeal[0])
        np.testing.assert_allclose(appeal[1][shelf], appeal[2][shelf], rtol=1e-5, atol=1e-5)
        lost = np.where(shelf, appeal[0], 0) - np.where(shelf, appeal[1], 0)
        topic = np.linspace(0, 1, once.tables.topics)[world.catalog.topic]
        np.testing.assert_allclose(lost, np.where(shelf, 1.4 * topic, 0), atol=1e-5)


class TestRetention:
    @pytest.mark.parametrize("steps", [1000, 9])
    def test_first_step_past_the_horizon(self, world_folder: str, steps: int) -> None:
        rules = {"leave": 60.0, "churn": -60.0, "gap": 8.0}
        env = gym.make("recsim_llm/Music-v0", world=world_folder, retention=5.0, rules=rules, max_episode_steps=steps)
        early = False
        for episode in range(5):
            _, info = env.reset(seed=episode)
            start = info["day"]
            for step in range(1, steps + 1):
                _, _, terminated, truncated, info = env.step(step % 60)
                assert not terminated
                past = info["day"] - start >= 5.0
                assert truncated == (past or step == steps)
                assert info["is_success"] == (past or step >= 100)  # 100 is the scenario's horizon
                if truncated:
                    early |= not past
                    break
        assert early == (steps == 9)


# Who opted out


class TestOptOut:
    def test_share_and_the_same_users(self, make_world: Any) -> None:
        world = make_world(items=6, users=4000, plain=True)
        found = []
        for seed in (0, 77):
            made = Simulator(world, Rules(), lanes=4000, slate_size=1, variant=TaskVariant(opt_out=0.3), threads=1)
            made.seed(np.arange(4000, dtype=np.uint64) + np.uint64(seed))
            for _ in range(2):
                made.reset(np.ones(4000, bool), np.arange(4000, dtype=np.int32))
                found.append(made.state.lane["opted_out"].copy())
        for out in found[1:]:
            np.testing.assert_array_equal(out, found[0])
        low, high = scipy.stats.binomtest(int(found[0].sum()), 4000).proportion_ci(1 - ALPHA)
        assert low <= 0.3 <= high
        everybody = simulator(world, TaskVariant(opt_out=1.0), lanes=500)
        assert everybody.state.lane["opted_out"].all()

    def test_nothing_is_kept(self, world_folder: str) -> None:
        axes = {"opt_out": 0.5, "warm_start": 5}
        arguments: dict[str, Any] = {
            "num_envs": 60, "world": world_folder, "rules": {"no_click": -3.0}, "history": 4, "group": True,
            "autoreset_mode": "Disabled", "max_episode_steps": 500,
        }  # fmt: skip
        plain, envs = (gym.make_vec("recsim_llm/News-v0", **arguments, **more) for more in ({"warm_start": 5}, axes))
        plain.reset(seed=0)
        observation, infos = envs.reset(seed=0)
        layout = envs.unwrapped.layout  # type: ignore[attr-defined]
        names = envs.unwrapped.context_names  # type: ignore[attr-defined]
        out = infos["opted_out"]
        assert 10 < out.sum() < 50
        for action, step in zip(actions(envs.action_space, 0), range(30), strict=False):
            for part in ("profile", "interest", "history", "group"):
                assert not observation[out][:, layout[part]].any(), part
                assert observation[~out][:, layout[part]].any() or (part == "history" and step == 0)
            context = dict(zip(names, observation[:, layout["context"]].T, strict=True))
            for name in ("session", "step", "away", "engagement", "idle", "sameness"):
                assert not context[name][out].any(), name
            assert (infos["user_id"][out] == -1).all()
            assert (infos["user_id"][~out] >= 0).all()
            left, right = plain.step(action), envs.step(action)
            for name in ("click", "dwell", "slate", "clicks", "day"):
                np.testing.assert_array_equal(left[4][name], right[4][name])
            for a, b in zip(left[1:4], right[1:4], strict=True):
                np.testing.assert_array_equal(a, b)
            observation, infos = right[0], right[4]
        assert (infos["history"][out] == -1).all()
        assert (infos["history"][~out] >= 0).any()


# What is reported


def reported(made: Simulator) -> NDArray[np.float32]:
    return made.state.reported.copy()


class TestReports:
    def test_reports_that_distort_nothing_change_nothing(self, world: World) -> None:
        """All that follows from reports follows from true feedback in the same way: idle steps, sameness, means."""
        rules = {"leave": -1.0, "churn": -60.0, "no_click": 2.0}
        weights = {"click": 1.0, "satisfaction": 0.5, "return": 0.25, "dwell": 0.125}
        plain, told = (
            simulator(world, variant, lanes=50, slate_size=3, weights=weights, **rules)
            for variant in (TaskVariant(), TaskVariant(missing=1e-9))
        )
        assert told.variant.reports
        idle = 0
        for shown, _ in zip(slates(50, 3, 60), range(50), strict=False):
            plain.step(shown)
            told.step(shown)
            np.testing.assert_array_equal(plain.outcome.observation, told.outcome.observation)
            np.testing.assert_array_equal(plain.outcome.slot_reward, told.outcome.slot_reward)
            np.testing.assert_array_equal(plain.outcome.reward, told.outcome.reward)
            np.testing.assert_allclose(told.state.lane["reported"], told.outcome.reward, rtol=1e-5, atol=1e-5)
            for name in (
                "clicks",
                "examined",
                "total_clicks",
                "total_examined",
                "idle",
                "sameness",
                "purchases",
                "revenue",
            ):
                np.testing.assert_array_equal(plain.state.lane[name], told.state.lane[name], err_msg=name)
            idle += int((told.state.lane["session_step"] == 0).sum())
        assert idle > 100

    def test_noise(self, world: World) -> None:
        rate = 0.2
        weights = {"click": 1.0, "like": 1.0, "satisfaction": 1.0}
        made = simulator(
            world, TaskVariant(noise=rate), lanes=3000, slate_size=2, weights=weights, choice="position", **STILL
        )
        twin = simulator(world, TaskVariant(), lanes=3000, slate_size=2, weights=weights, choice="position", **STILL)
        flips = {True: [0, 0], False: [0, 0]}
        for shown, _ in zip(slates(3000, 2, 60), range(6), strict=False):
            made.step(shown)
            twin.step(shown)
            np.testing.assert_array_equal(made.state.feedback, twin.state.feedback)
            np.testing.assert_array_equal(made.outcome.reward, twin.outcome.reward)
            true, told = made.state.feedback, reported(made)
            on = made.state.slate >= 0
            for clicked in (True, False):
                cells = on & ((true[..., CLICK] > 0) == clicked)
                wrong = cells & ((told[..., CLICK] > 0) != clicked)
                flips[clicked][0] += int(wrong.sum())
                flips[clicked][1] += int(cells.sum())
                np.testing.assert_array_equal(told[cells & ~wrong], true[cells & ~wrong])  # told rightly: all of it
                lie = np.zeros(len(SIGNALS), np.float32)
                lie[[SKIP] if clicked else [CLICK, DWELL]] = [1.0] if clicked else [1.0, made.rules.dwell_time]
                assert (told[wrong] == lie).all()
            assert not told[~on].any()
            assert (made.state.lane["clicks"] == (told[..., CLICK] > 0).sum(1)).all()
        for wrong, count in flips.values():
            assert count > 1000
            assert scipy.stats.binomtest(wrong, count, rate).pvalue > ALPHA
            assert scipy.stats.binomtest(wrong, count, 1.25 * rate).pvalue < ALPHA

    def test_missing(self, world: World) -> None:
        made = simulator(world, TaskVariant(missing=0.3), lanes=4000, slate_size=2, **STILL)
        made.step(next(slates(4000, 2, 60)))
        true, told = made.state.feedback, reported(made)
        on = made.state.slate >= 0
        lost = on & ~told.any(2)
        assert scipy.stats.binomtest(int(lost.sum()), int(on.sum()), 0.3).pvalue > ALPHA
        np.testing.assert_array_equal(told[on & ~lost], true[on & ~lost])
        clicked = on & (true[..., CLICK] > 0)
        assert scipy.stats.binomtest(int((lost & clicked).sum()), int(clicked.sum()), 0.3).pvalue > ALPHA

    @pytest.mark.parametrize("delay", [1, 4])
    def test_delay(self, world: World, delay: int) -> None:
        """Everything d steps late, with its slate; what is in flight at the end is lost."""
        weights = {"click": 1.0, "dwell": 0.5, "satisfaction": 1.0}
        money = {"price_weight": 0.1, "cart": -3.0, "purchase": -3.0}
        late = TaskVariant(delay=delay)
        made = simulator(world, late, lanes=20, weights={**weights, "revenue": 1.0}, **STILL, **money)
        for episode in range(2):
            if episode:
                made.reset(np.ones(20, bool))
                assert not made.state.reported.any()
                assert (made.state.reported_slate == -1).all()
            past: list[tuple[Any, ...]] = []
            for step, shown in zip(range(11), slates(20, 2, 60, episode), strict=False):
                made.step(shown)
                past.append((made.state.feedback.copy(), made.state.slate.copy(), made.outcome.reward.copy()))
                if step < delay:
                    assert not made.feedback.any()
                    assert (made.slate == -1).all()
                    assert not made.state.lane["reported"].any()
                    assert not made.outcome.slot_reward.any()
                else:
                    feedback, slate, reward = past[step - delay]
                    np.testing.assert_array_equal(made.feedback, feedback)
                    np.testing.assert_array_equal(made.slate, slate)
                    np.testing.assert_allclose(made.state.lane["reported"], reward, rtol=1e-5, atol=1e-5)
                told = made.outcome.observation[:, made.layout["feedback"]].reshape(20, 2, -1)[..., CLICK]
                np.testing.assert_array_equal(told, made.feedback[..., CLICK])
            clicks = np.sum([feedback[..., CLICK].sum(1) for feedback, _, _ in past[: len(past) - delay]], 0)
            np.testing.assert_array_equal(made.state.lane["total_clicks"], clicks)
            assert clicks.sum() > 0

    def test_rewards_reported_and_true(self, world_folder: str) -> None:
        """The reward is what was reported, truth_reward what happened; coming back and leaving are seen by anybody."""
        rules = {"leave": 0.0, "churn": -1.5}
        weights = {"click": 1.0, "like": 2.0, "return": 0.5, "churn": -3.0}
        arguments: dict[str, Any] = {
            "num_envs": 100, "world": world_folder, "truth": True, "reward": weights, "rules": rules,
            "autoreset_mode": "Disabled",
        }  # fmt: skip
        envs, plain = (gym.make_vec("recsim_llm/News-v0", **arguments, **more) for more in ({"noise": 0.3}, {}))
        first = envs.reset(seed=0)[1]
        assert not first["truth_reward"].any()
        plain.reset(seed=0)
        running, differ, returned = np.ones(100, bool), 0, 0
        for action, _ in zip(actions(envs.action_space, 0), range(20), strict=False):
            _, reward, terminated, truncated, infos = envs.step(action)
            _, true, *_ = plain.step(action)
            np.testing.assert_array_equal(infos["truth_reward"], true)
            session = (envs.unwrapped.core.simulator.state.lane["session_step"] == 0) & ~terminated  # type: ignore[attr-defined]
            expected = (infos["click"] + 2 * infos["like"]).sum(1) + 0.5 * session - 3.0 * terminated
            np.testing.assert_allclose(reward[running], expected[running])
            np.testing.assert_allclose(infos["slot_reward"][running], (infos["click"] + 2 * infos["like"])[running])
            differ += int((reward != true).sum())
            returned += int(session[running].sum())
            running &= ~(terminated | truncated)
        assert differ > 50
        assert returned > 50

    def test_stable_baselines_sees_what_was_reported(self, world_folder: str) -> None:
        arguments: dict[str, Any] = {"world": world_folder, "noise": 0.4, "rules": STAY}
        native = gym.make_vec("recsim_llm/Music-v0", num_envs=50, **arguments)
        adapted = gym.make_vec("recsim_llm/Music-v0", num_envs=50, **arguments).unwrapped.sb3()  # type: ignore[attr-defined]
        adapted.seed(0)
        adapted.reset()
        native.reset(seed=0)
        for action, _ in zip(actions(native.action_space, 0), range(10), strict=False):
            observation, reward, *_ = native.step(action)
            other = adapted.step(action)
            np.testing.assert_array_equal(other[0], observation)
            np.testing.assert_array_equal(other[1], reward.astype(np.float32))

    def test_agents_learn_from_reports_and_are_worth_what_happened(self, world_folder: str) -> None:
        """With every click reported wrongly, `update` sees the opposite of what `evaluate` counts."""
        arguments: dict[str, Any] = {"num_envs": 20, "world": world_folder, "noise": 1.0, "max_episode_steps": 15}
        envs = gym.make_vec("recsim_llm/Music-v0", rules=STAY, **arguments)
        core = envs.unwrapped.core  # type: ignore[attr-defined]
        agent = agents.make("random", envs, seed=0)
        seen: list[Any] = []

        def note(transition: Any) -> None:
            seen.append(
                (transition, core.simulator.state.feedback[..., CLICK].copy(), core.simulator.state.slate.copy())
            )

        agent.update = note  # type: ignore[method-assign]
        agent.learn(200)
        assert len(seen) >= 10
        for transition, true, slate in seen:
            valid, on = transition.valid[:, None], slate >= 0
            told = transition.info["click"]
            np.testing.assert_array_equal(told[valid & on], 1 - true[valid & on])
            np.testing.assert_array_equal(transition.reward[transition.valid], told.sum(1)[transition.valid])
            part = transition.next_observation[:, core.layout["feedback"]].reshape(20, 1, -1)[..., CLICK]
            np.testing.assert_array_equal(part[transition.valid], told[transition.valid])
        pair = []
        for more in (arguments, {**arguments, "noise": 0.0}):
            test = gym.make_vec("recsim_llm/Music-v0", rules=STAY, autoreset_mode="Disabled", **more)
            pair.append(evaluate(agents.make("random", test, seed=3), test, 11))
        np.testing.assert_array_equal(pair[0].returns, pair[1].returns)
        assert pair[0].metrics == pair[1].metrics


class TestPrivacy:
    def pair(self, world: World, epsilon: float, seed: int, **rules: Any) -> Simulator:
        return simulator(world, TaskVariant(epsilon=epsilon), lanes=20000, slate_size=1, seed=seed, **STILL, **rules)

    @pytest.mark.parametrize("epsilon", [0.5, 1.0, 2.5])
    def test_likelihood_ratio(self, world: World, epsilon: float) -> None:
        """Reports of those who clicked and of those who did not: a ratio of at most e^epsilon, and as large as that."""
        free = world.catalog.released_at <= 0
        item = int(np.flatnonzero(free)[0])
        counts = []
        for no_click in (-60.0, 60.0):
            made = self.pair(world, epsilon, 10**6, no_click=no_click)
            made.step(np.full((20000, 1), item, np.int64))
            true, told = made.state.feedback[..., CLICK], made.feedback[..., CLICK]
            assert (true == (no_click < 0)).all()
            counts.append(int(told.sum()))
        clicked, passed = counts
        right = 1 / (1 + math.exp(-epsilon))
        for hits, truth in ((clicked, right), (passed, 1 - right)):
            low, high = scipy.stats.binomtest(hits, 20000).proportion_ci(1 - ALPHA)
            assert low <= truth <= high
        interval = scipy.stats.binomtest(clicked, 20000).proportion_ci(1 - ALPHA)
        other = scipy.stats.binomtest(passed, 20000).proportion_ci(1 - ALPHA)
        assert interval.low / other.high <= math.exp(epsilon) <= interval.high / other.low  # P(1 | click) / P(1 | none)
        low = (1 - other.high) / (1 - interval.low)
        high = (1 - other.low) / (1 - interval.high)
        assert low <= math.exp(epsilon) <= high  # P(0 | none) / P(0 | click)

    def test_every_signal_is_a_function_of_the_bit(self, world: World) -> None:
        made = simulator(
            world,
            TaskVariant(epsilon=1.0),
            lanes=2000,
            slate_size=3,
            choice="cascade",
            like=-3.0,
            rating_rate=1.0,
            **STILL,
        )
        for shown, _ in zip(slates(2000, 3, 60), range(4), strict=False):
            made.step(shown)
            on = made.slate >= 0
            bit = made.feedback[..., CLICK] > 0
            expected = np.zeros_like(made.feedback)
            expected[bit, CLICK], expected[bit, DWELL] = 1.0, made.rules.dwell_time
            expected[on & ~bit, SKIP] = 1.0
            np.testing.assert_array_equal(made.feedback, expected)
        assert made.state.feedback[..., 2].any()
        assert (made.state.feedback[..., [CLICK, SKIP]].sum(2)[made.state.slate >= 0] == 0).any(), "all were looked at"

    @pytest.mark.filterwarnings("ignore:.*is 0 at every step")  # a term among others that cannot occur here
    @pytest.mark.parametrize("env_id", scenarios())
    def test_the_same_bits_give_the_same_observations(self, env_id: str) -> None:
        """Users who click all, some or nothing; where the reported bits happen to be alike, so is all that is told."""
        steps, lanes, told = 2, 400, {}
        differ = 0
        for no_click in (-4.0, 1.0, 6.0):
            rules = {**STAY, "no_click": no_click, "audience_life": 0.0}
            envs = gym.make_vec(
                env_id, num_envs=lanes, slate_size=1, epsilon=0.5, rules=rules, truth=True,
                reward={"click": 1.0, "dwell": 1.0, "like": 1.0, "purchase": 1.0, "revenue": 1.0, "satisfaction": 1.0},
            )  # fmt: skip
            infos = envs.reset(seed=0, options={"user": 0})[1]
            everything: list[list[bytes]] = [[] for _ in range(lanes)]
            true: list[list[float]] = [[] for _ in range(lanes)]
            item = np.flatnonzero(envs.unwrapped.available().all(0))[:steps]  # type: ignore[attr-defined]
            told_so_far = [infos["day"]]
            for step in range(steps):
                observation, reward, _, _, infos = envs.step(np.full(lanes, item[step]))
                public = {n: v for n, v in infos.items() if not n.startswith(("_", "truth"))}
                for b in range(lanes):
                    parts = [observation[b].tobytes(), reward[b].tobytes()]
                    everything[b] += parts + [np.asarray(public[name][b]).tobytes() for name in sorted(public)]
                    true[b].append(float(infos["truth_reward"][b]))
                told_so_far += [infos["click"][:, 0], infos["day"]]
            for b in range(lanes):
                key = tuple(float(part[b]) for part in told_so_far)
                record, happened = told.setdefault(key, (everything[b], true[b]))
                assert record == everything[b]
                differ += happened != true[b]
        assert differ > 300
        assert len({(key[1], key[3]) for key in told}) == 4

    def test_noise_of_the_same_rate(self) -> None:
        packed = [TaskVariant(epsilon=2.0).packed(), TaskVariant(noise=1 / (1 + math.exp(2.0))).packed()]
        assert packed[0]["flip"] == pytest.approx(packed[1]["flip"])
        assert packed[0]["bit_only"] > packed[1]["bit_only"]


class TestCopies:
    @pytest.mark.parametrize("name", EACH)
    def test_state_pickle_and_copy(self, world_folder: str, name: str) -> None:
        axes = {"drift_period": 4, **EACH[name]}
        rules = {"leave": 0.0, "churn": -3.0, "audience_life": 2.0, "buzz": 0.5, "owned": 1.0}
        env = gym.make("recsim_llm/News-v0", world=world_folder, truth=True, rules=rules, **axes).unwrapped
        stream = actions(env.action_space, 5)
        env.reset(seed=5)
        for _ in range(7):
            if any(env.step(next(stream))[2:4]):
                env.reset()
        kept = env.get_state()  # type: ignore[attr-defined]
        others = [copy.deepcopy(env), pickle.loads(pickle.dumps(env))]
        fresh = gym.make("recsim_llm/News-v0", world=world_folder, truth=True, rules=rules, **axes).unwrapped
        fresh.set_state(kept)  # type: ignore[attr-defined]
        given = [next(stream) for _ in range(15)]

        def go_on(one: Any) -> list[Any]:
            record = []
            for action in given:
                record.append(copy.deepcopy(one.step(action)))
                if record[-1][2] or record[-1][3]:
                    record.append(copy.deepcopy(one.reset()))
            return record

        expected = go_on(env)
        for other in (*others, fresh):
            assert difference(expected, go_on(other)) is None
        env.set_state(kept)  # type: ignore[attr-defined]
        assert difference(expected, go_on(env)) is None


class TestValidation:
    @pytest.mark.parametrize(
        ("axes", "words"),
        [
            ({"cold_users": 1}, "cold_users must be true or false, got 1"),
            ({"drift_common": 0}, "drift_common must be true or false, got 0"),
            ({"warm_start": 2.5}, "warm_start must be a whole number, got 2.5"),
            ({"warm_start": True}, "warm_start must be a whole number, got True"),
            ({"warm_start": -1}, r"warm_start must lie in \[0, 1000\], got -1"),
            ({"cold_items": 1.0}, r"cold_items must lie in \[0, 0.95\], got 1.0"),
            ({"cold_days": 0.0}, "cold_days must be above 0, got 0.0"),
            ({"drift": "abrubt"}, r"no drift 'abrubt'\. Did you mean 'abrupt'\?"),
            ({"drift": None}, "no drift 'None'.* Known: abrupt, gradual, none, recurring"),
            ({"drift_period": 0}, r"drift_period must lie in \[1, "),
            ({"drift_period": 3.0}, "drift_period must be a whole number, got 3.0"),
            ({"drift_size": 1.1}, r"drift_size must lie in \[0, 1\], got 1.1"),
            ({"satiation": -1.0}, r"satiation must lie in \[0, 100\], got -1.0"),
            ({"satiation": "2"}, "satiation must be a number, got '2'"),
            ({"retention": float("nan")}, r"retention must lie in \[0, 10000\], got nan"),
            ({"opt_out": 2}, r"opt_out must lie in \[0, 1\], got 2"),
            ({"noise": -0.1}, r"noise must lie in \[0, 1\], got -0.1"),
            ({"missing": 1.5}, r"missing must lie in \[0, 1\], got 1.5"),
            ({"delay": 0.5}, "delay must be a whole number, got 0.5"),
            ({"epsilon": float("inf")}, r"epsilon must lie in \[0, 50\], got inf"),
            ({"noise": 0.1, "epsilon": 1.0}, "noise=0.1 and epsilon=1.0 both flip reported clicks; set one of them"),
        ],
    )  # fmt: skip
    def test_bad_values(self, world_folder: str, axes: dict[str, Any], words: str) -> None:
        for make in (gym.make, gym.make_vec):
            with pytest.raises(ConfigError, match=words) as error:
                make("recsim_llm/Music-v0", world=world_folder, **axes)
            assert "\n" not in str(error.value)

    def test_changes_and_defaults(self) -> None:
        assert TaskVariant().changes() == {}
        assert not TaskVariant().reports
        assert TaskVariant(noise=0.1, drift="gradual").changes() == {"noise": 0.1, "drift": "gradual"}
        for field in dataclasses.fields(TaskVariant):
            assert f"{field.name}:" in str(TaskVariant.__doc__), field.name
        with pytest.raises(TypeError, match="Did you mean 'opt_out'"):
            gym.make("recsim_llm/Music-v0", opt_ut=0.5)


def test_logs_of_agents_hold_nothing_of_users_who_opted_out(world_folder: str) -> None:
    envs = gym.make_vec("recsim_llm/News-v0", num_envs=16, world=world_folder, slate_size=2, opt_out=0.5)
    agent = agents.make("mf", envs, seed=0, epochs=1).learn(320)
    logged = set(agent.arrays()["log/user"].tolist())
    assert logged
    assert min(logged) >= 0
