"""A reward that can never be anything but 0 is refused when an environment is made, and a part of one is said."""

from __future__ import annotations

import dataclasses

import gymnasium as gym
import numpy as np
import pytest

import recsim_llm  # noqa: F401
from recsim_llm.envs.registration import scenarios, variants
from recsim_llm.envs.reward_terms import impossible_terms
from recsim_llm.errors import ConfigError
from recsim_llm.simulator import REWARD_TERMS, SIGNALS, Rules
from recsim_llm.simulator.task_variant import TaskVariant
from recsim_llm.worlds.build import build_world
from recsim_llm.worlds.world import World, load_world

ADS, SHOP, MUSIC = "recsim_llm/Ads-v0", "recsim_llm/Ecommerce-v0", "recsim_llm/Music-v0"


def built(folder, column: str = "") -> str:
    """A world of 30 items and 9 users from files, with or without a column of prices."""
    price = ",7.5" if column else ""
    rows = "".join(f"a text about thing {n}{price}\n" for n in range(30))
    (folder / "items.csv").write_text(f"text{column}\n{rows}")
    (folder / "users.csv").write_text("user_id,persona\n" + "".join(f"u{n},I like things.\n" for n in range(9)))
    out = folder / "world"
    build_world(folder / "items.csv", folder / "users.csv", out=out, encoder="hashing", width=8)
    return str(out)


@pytest.fixture(scope="module")
def unpriced(tmp_path_factory):
    return built(tmp_path_factory.mktemp("unpriced"))


@pytest.fixture(scope="module")
def priced(tmp_path_factory):
    return built(tmp_path_factory.mktemp("priced"), ",price")


def made(vector: bool, name: str, **options):
    env = gym.make_vec(name, num_envs=2, **options) if vector else gym.make(name, **options)
    env.close()
    return env


@pytest.mark.parametrize("vector", [False, True])
def test_a_world_without_prices_is_refused_where_prices_are_what_is_earned(unpriced, vector):
    with pytest.raises(ConfigError, match=r"reward of recsim_llm/Ecommerce-v0 .* needs a column price.*\{.click.: 1\}"):
        made(vector, SHOP, world=unpriced)
    with pytest.raises(ConfigError, match=r"reward of recsim_llm/Ads-v0 .* what providers bid.*recsim_llm/Music-v0"):
        made(vector, ADS, world=unpriced)
    for name in (ADS, SHOP):
        made(vector, name, world=unpriced, reward={"click": 1})
    made(vector, MUSIC, world=unpriced)


def test_what_is_recommended_instead_earns_something(unpriced, priced):
    for name, world, options in (
        (SHOP, unpriced, {"reward": {"click": 1}}), (ADS, unpriced, {"reward": {"click": 1}}), (SHOP, priced, {}),
    ):  # fmt: skip
        env = gym.make_vec(
            name, num_envs=64, world=world, rules={"no_click": 0.0, "purchase": -2, "cart": -2}, **options
        )
        env.action_space.seed(0)
        env.reset(seed=0)
        assert sum(env.step(env.action_space.sample())[1].sum() for _ in range(20)) > 0


def test_a_reward_of_which_a_part_cannot_occur_is_said(unpriced):
    with pytest.warns(UserWarning, match=r"reward term revenue is 0 at every step of .*Ecommerce-v0.*column price"):
        made(False, SHOP, world=unpriced, reward={"click": 1, "revenue": 1})
    with pytest.raises(ConfigError, match="its only term rating cannot occur: rule rating_rate=0"):
        made(False, MUSIC, reward={"rating": 1}, rules={"rating_rate": 0.0})
    with pytest.raises(ConfigError, match="only what is in the cart is bought"):
        made(False, MUSIC, reward={"purchase": 1, "cart": 2}, rules={"cart": 50.0})


def test_a_reward_that_privacy_hides_is_refused():
    with pytest.raises(ConfigError, match="epsilon=1 lets only the click"):
        made(False, SHOP, epsilon=1.0)
    with pytest.raises(ConfigError, match="epsilon=1 lets only the click"):
        made(True, "recsim_llm/Social-v0", epsilon=1.0, reward={"like": 1, "share": 1})
    with pytest.warns(UserWarning, match="reward term like is 0 at every step of recsim_llm/Social-v0"):
        made(True, "recsim_llm/Social-v0", epsilon=1.0, reward={"like": 1, "click": 1})
    made(True, "recsim_llm/Social-private-v0")  # its own reward, of which the page says what is reported
    made(False, "recsim_llm/mo-News-v0", epsilon=1.0, objectives=["satisfaction"])


def test_objectives_are_looked_at_in_place_of_the_scenarios_reward(unpriced):
    made(True, "recsim_llm/mo-Ecommerce-v0", world=unpriced)
    with pytest.raises(ConfigError, match=r"revenue cannot occur.*objectives="):
        made(False, "recsim_llm/mo-Ecommerce-v0", world=unpriced, objectives=["revenue"])


@pytest.mark.parametrize("name", [*scenarios(), *variants()])
def test_every_registered_reward_can_occur(name):
    """Of everything that is registered, nothing has a reward that is 0 whatever is shown."""
    spec = gym.spec(name)
    scenario = gym.envs.registration.load_env_creator(spec.entry_point).scenario
    weights = spec.kwargs.get("reward", scenario.reward)
    axes = {field.name for field in dataclasses.fields(TaskVariant)}
    variant = TaskVariant(**{key: value for key, value in spec.kwargs.items() if key in axes})
    world = load_world(scenario.world)
    rules = scenario.rules.replace(**world.parameters)
    cannot = impossible_terms(world, rules, variant)
    assert set(weights) - set(cannot), cannot
    if "Ecommerce-private" not in name and variant.epsilon == 0:
        assert not set(weights) & set(cannot)


RARE = {"like": 50.0, "share": 50.0, "cart": 50.0, "rating_rate": 0.0}
CASES = {
    "as it is": ({}, {}),
    "nothing but clicks": (RARE, {}),
    "no purchase": ({"purchase": 60.0}, {}),
    "private": ({}, {"epsilon": 1.0}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", [ADS, SHOP, MUSIC])
def test_terms_are_impossible_exactly_where_they_never_occur(name, case):
    """Against the simulator: with thresholds that all pass, what is called impossible stays 0 and all else happens."""
    hard, axes = CASES[case]
    easy = {"like": -9.0, "share": -9.0, "cart": -9.0, "purchase": -9.0, "rating_rate": 1.0, "no_click": -3.0}
    rules = {**easy, "wallet": 0.0, "price_weight": 0.0, **hard}
    reward = {"click": 1.0}
    env = gym.make_vec(name, num_envs=256, reward=reward, rules=rules, **axes).unwrapped
    seen = dict.fromkeys(REWARD_TERMS, False)
    env.action_space.seed(1)
    env.reset(seed=1)
    for _ in range(15):
        _, _, _, _, infos = env.step(env.action_space.sample())
        for term in SIGNALS:
            seen[term] |= bool(np.any(infos[term] > 0))
        seen["revenue"] |= bool(np.any(env.core.simulator.state.lane["revenue"] > 0))
    cannot = impossible_terms(env.core.world, env.core.simulator.rules, TaskVariant(**axes))
    for term in (*SIGNALS, "revenue"):
        assert seen[term] == (term not in cannot), (term, cannot.get(term))


def test_bids_for_purchases_alone_need_purchases():
    world: World = load_world("ads")
    bid_event = np.ones_like(world.catalog.bid_event)
    commissions = dataclasses.replace(world, catalog=dataclasses.replace(world.catalog, bid_event=bid_event))
    assert "revenue" not in impossible_terms(commissions, Rules(bids=1.0), TaskVariant())
    assert "revenue" in impossible_terms(commissions, Rules(bids=1.0, purchase=60.0), TaskVariant())
    assert "revenue" not in impossible_terms(world, Rules(bids=1.0, purchase=60.0), TaskVariant())


@pytest.mark.parametrize("vector", [False, True])
@pytest.mark.parametrize(
    ("name", "near"),
    [(MUSIC, "slate_size"), ("recsim_llm/InterestEvolution-v0", "slate_size"), ("recsim_llm/mo-News-v0", "slate_size")],
)
def test_unknown_keywords_are_told_in_pythons_words(name, near, vector):
    """TorchRL looks for these words; the closest name is said all the same."""
    words = r"got an unexpected keyword argument 'slate_siz'.*Did you mean 'slate_size'"
    with pytest.raises(TypeError, match=words):
        made(vector, name, **{near.removesuffix("e"): 3})


def test_threads_of_one_user_are_refused_in_the_same_words():
    with pytest.raises(TypeError, match="got an unexpected keyword argument 'threads'"):
        made(False, MUSIC, threads=2)
