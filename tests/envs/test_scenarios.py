"""Each scenario is hard in its own way, shown with numbers: policies that know all but overlook one thing lose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray

import recsim_llm  # noqa: F401  (registers the environments)
from recsim_llm import agents
from recsim_llm.metrics.filter_bubbles import effective_shown

SEED = 4000
SIGMAS = 3.0
"""Differences must be that many standard errors of the paired difference: a chance of .0013 each, one-sided."""
Policy = Callable[[Any, dict[str, Any], int], NDArray[np.integer]]


@dataclass
class Played:
    """What a policy earned with each user; all policies meet the same users with the same luck."""

    rewards: NDArray[np.float64]  # [steps, B], 0 after the episode
    clicks: NDArray[np.int64]  # [steps, B]
    infos: list[dict[str, Any]]
    core: Any

    @property
    def returns(self) -> NDArray[np.float64]:
        return self.rewards.sum(0)


def play(env_id: str, policy: Policy, lanes: int, steps: int, **arguments: Any) -> Played:
    envs = gym.make_vec(
        env_id, num_envs=lanes, truth=True, autoreset_mode="Disabled", max_episode_steps=steps, **arguments
    )
    core = envs.unwrapped.core  # type: ignore[attr-defined]
    _, infos = envs.reset(seed=SEED)
    running, rewards, clicks, told = np.ones(lanes, bool), [], [], [infos]
    for step in range(steps):
        shown = np.asarray(policy(core, infos, step)).reshape(lanes, core.slate_size)
        _, reward, terminated, truncated, infos = envs.step(shown if core.slate_size > 1 else shown[:, 0])
        rewards.append(np.where(running, reward, 0.0))
        clicks.append(np.where(running, infos["clicks"], 0))
        told.append(infos)
        running &= ~(terminated | truncated)
        if not running.any():
            break
    return Played(np.array(rewards), np.array(clicks), told, core)


def top(score: NDArray[Any], slate_size: int) -> NDArray[np.int64]:
    return np.argsort(-score, axis=1, kind="stable")[:, :slate_size]


def better(high: NDArray[Any], low: NDArray[Any]) -> bool:
    """Whether the first of two paired samples is higher by SIGMAS standard errors."""
    difference = np.asarray(high, np.float64) - low
    return bool(difference.mean() > SIGMAS * difference.std(ddof=1) / len(difference) ** 0.5)


def click_greedy(core: Any, infos: dict[str, Any], step: int) -> NDArray[np.integer]:
    return top(infos["truth_appeal"], core.slate_size)


def value_of(core: Any, appeal: NDArray[Any], value: NDArray[Any]) -> NDArray[np.float64]:
    """Probability of a click on each item if it stood alone, times what it is worth; -inf off the shelf."""
    odds = np.exp(np.clip(appeal.astype(np.float64) - core.simulator.rules.no_click, -50, 50))
    return np.where(np.isfinite(appeal), odds / (1 + odds) * value, -np.inf)


def greedy(core: Any, infos: dict[str, Any], step: int) -> NDArray[np.integer]:
    return top(value_of(core, infos["truth_appeal"], infos["truth_value"]), core.slate_size)


def utilities(core: Any) -> NDArray[np.float64]:
    """Utility of every item for each lane's present taste, [B, I], from the integers of the rules."""
    tables, state = core.simulator.tables, core.simulator.state
    codes = state.code.astype(np.int64) @ tables.item_code.astype(np.int64).T
    return tables.units["utility_unit"] * codes + tables.item["appeal"].astype(np.float64)


class TestAds:
    def test_budgets_run_out_and_looking_away_from_that_costs(self) -> None:
        """The same oracle, once without the mask: it goes on showing ads whose advertisers have spent their budget."""
        seen: dict[str, NDArray[Any]] = {}

        def blind(core: Any, infos: dict[str, Any], step: int) -> NDArray[np.integer]:
            if step == 0:
                seen["appeal"], seen["value"] = infos["truth_appeal"].copy(), infos["truth_value"].copy()
            known = np.isfinite(infos["truth_appeal"])
            for name in ("appeal", "value"):
                seen[name] = np.where(known, infos[f"truth_{name}"], seen[name])
            return top(value_of(core, seen["appeal"], seen["value"]), core.slate_size)

        looking, blindly = (play("recsim_llm/Ads-v0", policy, 64, 120) for policy in (greedy, blind))
        assert better(looking.returns, blindly.returns)
        assert blindly.returns.mean() < 0.85 * looking.returns.mean()
        wasted = np.mean([info["wasted"] for info in blindly.infos[1:]])
        assert wasted > 0.05
        assert all(not info["wasted"].any() for info in looking.infos[1:])

    def test_what_is_clicked_is_not_what_earns(self) -> None:
        earning, clicked = (play("recsim_llm/Ads-v0", policy, 64, 60) for policy in (greedy, click_greedy))
        assert better(earning.returns, clicked.returns)
        assert better(clicked.clicks.sum(0), earning.clicks.sum(0))


class TestVideo:
    def test_who_wins_the_session_loses_the_month(self) -> None:
        """Click-greedy against a policy that adds what the viewer gets: at first the clicks, then the return."""

        def quality(core: Any, infos: dict[str, Any], step: int) -> NDArray[np.integer]:
            catalog, rules = core.world.catalog, core.simulator.rules
            gained = rules.quality_gain * catalog.quality - rules.clickbait_regret * catalog.clickbait
            wanted = infos["truth_appeal"] + utilities(core) + gained
            return top(np.where(np.isfinite(infos["truth_appeal"]), wanted, -np.inf), core.slate_size)

        month = [play("recsim_llm/Video-retention-v0", policy, 40, 300) for policy in (click_greedy, quality)]
        assert better(month[0].clicks[:4].sum(0), month[1].clicks[:4].sum(0))
        assert better(month[1].returns, month[0].returns)
        assert month[1].returns.mean() > 2 * month[0].returns.mean()


class TestEcommerce:
    def test_revenue_greedy_and_click_greedy_differ(self) -> None:
        revenue, clicks = (play("recsim_llm/Ecommerce-v0", policy, 128, 60) for policy in (greedy, click_greedy))
        assert better(revenue.returns, clicks.returns)
        assert better(clicks.clicks.sum(0), revenue.clicks.sum(0))
        slates = [played.infos[1]["slate"] for played in (revenue, clicks)]
        shared = [len(set(a) & set(b)) / 10 for a, b in zip(*slates, strict=True)]
        assert np.mean(shared) < 0.5, "the first pages of the two have most products in common"

    def test_a_bought_category_is_closed_for_weeks(self) -> None:
        played = play("recsim_llm/Ecommerce-v0", greedy, 64, 60)
        core = played.core
        owned, clock = core.simulator.state.owned, core.simulator.state.lane["clock"]
        lane, topic = np.nonzero(owned >= 0)
        assert len(lane) > 30
        twin = gym.make_vec("recsim_llm/Ecommerce-v0", num_envs=64, rules={"owned": 1e-6}).unwrapped.core  # type: ignore[attr-defined]
        twin.set_state(core.get_state())
        appeal, without = core.truth()[0], twin.truth()[0]
        on_shelf = np.isfinite(appeal)
        lost = np.subtract(without, appeal, where=on_shelf, out=np.full_like(appeal, np.nan))
        rules, topics = core.simulator.rules, core.world.catalog.topic
        for b, t in zip(lane[:30], topic[:30], strict=True):
            expected = rules.owned * np.exp(-(clock[b] - owned[b, t]) / 86400 / rules.owned_life)
            np.testing.assert_allclose(lost[b][(topics == t) & on_shelf[b]], expected, atol=1e-4)
        never = np.array([[owned[b, t] < 0 for t in topics] for b in range(64)])
        assert np.nanmax(np.abs(lost[never])) < 1e-4
        half = np.log(2) * rules.owned_life
        assert 10 < half < 30, "days until half of the wish is back"


class TestNews:
    def test_clicks_on_an_article_fall_with_its_age(self) -> None:
        """One random article a page: the share of clicks in its first half day, to two days, and after."""
        rng = np.random.Generator(np.random.PCG64(0))

        def one(core: Any, infos: dict[str, Any], step: int) -> NDArray[np.integer]:
            return top(np.where(np.isfinite(infos["truth_appeal"]), rng.random(infos["truth_appeal"].shape), -1), 1)

        played = play("recsim_llm/News-v0", one, 512, 60, slate_size=1)
        released = played.core.catalog.released_at
        ages, clicked = [], []
        for before, after, clicks in zip(played.infos[:-1], played.infos[1:], played.clicks, strict=False):
            shown = after["slate"][:, 0]
            ages.append(np.where(shown >= 0, before["day"] - released[shown], np.nan))
            clicked.append(clicks)
        age, click = np.concatenate(ages), np.concatenate(clicked)
        groups = [click[(age >= low) & (age < high)] for low, high in ((0.0, 0.5), (0.5, 2.0), (2.0, 7.0))]
        rates = [group.mean() for group in groups]
        errors = [(rate * (1 - rate) / len(group)) ** 0.5 for rate, group in zip(rates, groups, strict=True)]
        assert rates[0] - rates[1] > SIGMAS * np.hypot(errors[0], errors[1])
        assert rates[1] - rates[2] > SIGMAS * np.hypot(errors[1], errors[2])
        assert rates[0] > 1.3 * rates[2]


class TestSocial:
    def test_concentrated_exposure_loses_creators(self) -> None:
        rng = np.random.Generator(np.random.PCG64(0))

        def spread(core: Any, infos: dict[str, Any], step: int) -> NDArray[np.integer]:
            appeal = infos["truth_appeal"]
            return top(np.where(np.isfinite(appeal), rng.random(appeal.shape), -1), core.slate_size)

        def few(core: Any, infos: dict[str, Any], step: int) -> NDArray[np.integer]:
            appeal = infos["truth_appeal"]
            loved = core.world.catalog.provider_index % 12 == 0  # 8 of 96 creators
            return top(np.where(np.isfinite(appeal), rng.random(appeal.shape) + loved, -1), core.slate_size)

        wide, narrow = (play("recsim_llm/Social-v0", policy, 48, 150) for policy in (spread, few))
        creators = len(wide.core.world.catalog.providers)
        assert (wide.infos[0]["living_providers"] == creators).all()
        # At the same time, as creators also stop with time: those who are still there at each day, of all.
        days = [np.stack([info["day"] for info in played.infos]) for played in (wide, narrow)]
        living = [np.stack([info["living_providers"] for info in played.infos]) for played in (wide, narrow)]
        alike = [np.array([row[(day <= 4.0)].min() for row, day in zip(alive.T, when.T, strict=True)])
                 for alive, when in zip(living, days, strict=True)]  # fmt: skip
        assert better(alike[0], alike[1])
        assert alike[1].mean() < 0.8 * alike[0].mean()
        providers = wide.core.world.catalog.provider_index
        spreads = []
        for played in (wide, narrow):
            shown = np.concatenate([info["slate"].ravel() for info in played.infos[1:40]])
            spreads.append(float(effective_shown(np.bincount(providers[shown[shown >= 0]], minlength=creators))))
        assert spreads[0] > 2 * spreads[1]


class TestSatiation:
    @pytest.mark.parametrize("env_id", ["recsim_llm/News-v0", "recsim_llm/Music-v0"])
    def test_a_mixed_slate_beats_a_single_topic(self, env_id: str) -> None:
        """The best items of the favourite theme against the best of each of the five favourite themes, in turn."""

        def of_topics(count: int) -> Policy:
            def policy(core: Any, infos: dict[str, Any], step: int) -> NDArray[np.integer]:
                if step == 0:
                    of_topics.favourites = np.argsort(-infos["truth_leaning"], axis=1)  # type: ignore[attr-defined]
                topics, base = core.world.catalog.topic, utilities(core)
                base = np.where(np.isfinite(infos["truth_appeal"]), base, -np.inf)
                rows = []
                for b, favourite in enumerate(of_topics.favourites):  # type: ignore[attr-defined]
                    row: list[int] = []
                    for k in range(core.slate_size):
                        wanted = favourite[(step * core.slate_size + k) % count]
                        order = np.flatnonzero(topics == wanted)
                        order = order[np.argsort(-base[b, order], kind="stable")]
                        turn = step // count if core.slate_size == 1 else step
                        row.append(next((int(i) for i in np.roll(order, -turn) if i not in row), int(order[0])))
                    rows.append(row)
                return np.array(rows)

            return policy

        mixed, single = (play(env_id, of_topics(count), 64, 40) for count in (5, 1))
        assert better(mixed.clicks.sum(0), single.clicks.sum(0))
        without = [play(env_id, of_topics(count), 64, 40, satiation=0.0) for count in (5, 1)]
        gain = mixed.clicks.sum() / single.clicks.sum()
        assert gain > 1.1 * without[0].clicks.sum() / without[1].clicks.sum(), "satiation is what makes the difference"


class TestDrift:
    def test_a_frozen_oracle_loses_after_the_change_and_a_current_one_does_not(self) -> None:
        def best_of(current: bool) -> Policy:
            kept: dict[str, NDArray[Any]] = {}

            def policy(core: Any, infos: dict[str, Any], step: int) -> NDArray[np.integer]:
                if current or step == 0:
                    kept["utility"] = utilities(core)
                score = np.where(np.isfinite(infos["truth_appeal"]), kept["utility"], -np.inf)
                return top(score, 60)[:, step % 60]  # one after another, so that nobody tires of a track

            return policy

        arguments = {"drift": "abrupt", "drift_period": 40, "rules": {"churn": -60.0}}
        current, frozen = (play("recsim_llm/Music-v0", best_of(c), 128, 80, **arguments) for c in (True, False))
        assert current.infos[41]["truth_regime"].tolist() == [1] * 128
        before, after = slice(0, 40), slice(41, 80)
        share = [played.clicks[part].mean() for played in (current, frozen) for part in (before, after)]
        assert better(current.clicks[after].sum(0), frozen.clicks[after].sum(0))
        assert share[3] < 0.75 * share[2], f"clicks before and after: current {share[:2]}, frozen {share[2:]}"
        assert share[1] > 0.9 * share[0]

    def test_agents_are_no_oracles(self) -> None:
        """What these tests are given is the truth; the registered oracle agrees with it."""
        envs = gym.make_vec("recsim_llm/Music-v0", num_envs=4, truth=True)
        observation, infos = envs.reset(seed=SEED)
        agent = agents.make("oracle", envs, seed=0)
        agent.observe(infos)
        action, _ = agent.predict(observation, deterministic=True)
        core = envs.unwrapped.core  # type: ignore[attr-defined]
        assert np.array_equal(action, greedy(core, infos, 0)[:, 0])
