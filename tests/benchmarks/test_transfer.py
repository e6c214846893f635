"""The world judges recommenders as the log does, and the comparison can tell when they are not alike."""

from __future__ import annotations

import numpy as np
import pytest

from recsim_llm.benchmarks.studies.transfer import compare, serve
from recsim_llm.errors import DataError
from recsim_llm.worlds.build import build_world


@pytest.fixture(scope="module")
def rated(tmp_path_factory):
    """A world calibrated on a planted log: four themes, each user loves one, and some items are better than others."""
    folder = tmp_path_factory.mktemp("rated")
    rng = np.random.Generator(np.random.PCG64(3))
    words = ("harbour storm sail", "violin cello sonata", "engine diesel piston", "orchid fern garden")
    (folder / "items.csv").write_text(
        "item_id,text\n" + "".join(f"i{n},{words[n % 4]} number {n}\n" for n in range(120)), encoding="utf-8"
    )
    quality, exposure = rng.normal(0, 0.5, 120), rng.permutation(120) < 40
    rows = ["user,item,rating"]
    for user in range(80):
        often = rng.choice(120, 40, replace=False, p=(1 + 4 * exposure) / (1 + 4 * exposure).sum())
        for item in often:
            value = 3 + 1.2 * (item % 4 == user % 4) + quality[item] + rng.normal(0, 0.5)
            rows.append(f"u{user},i{item},{float(np.clip(np.rint(2 * value) / 2, 0.5, 5))}")
    (folder / "ratings.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    build_world(folder / "items.csv", None, folder / "ratings.csv", out=folder / "w", encoder="hashing", width=16)
    return folder


def test_orders_agree_on_a_planted_log(rated):
    found = compare(rated / "w", rated / "ratings.csv", episodes=80)
    assert found[0].name == "mf"
    assert max(found, key=lambda verdict: verdict.auc).name == "mf"
    assert found[0].mean_return > found[-1].mean_return
    assert np.isnan(found[-1].ahead)
    assert found[0].margin > 0


def test_serving_the_worst_first_is_punished(rated):
    from recsim_llm.worlds.world import load_world

    world = load_world(rated / "w")
    users = np.arange(40)
    truth = world.utility(users, np.arange(len(world.catalog))).astype(np.float64)
    rules = "recsim_llm/Music-v0"
    # 100 steps show 100 of 120 items; the twenty best are missing in one order and the twenty worst in the other
    best, worst = (serve(rules, str(rated / "w"), users, sign * truth, 0) for sign in (1.0, -1.0))
    assert best.mean() > worst.mean()


def test_a_log_of_other_users_is_refused(rated, tmp_path):
    (tmp_path / "other.csv").write_text("user,item,rating\nstranger,i1,5\n")
    with pytest.raises(DataError, match="stranger"):
        compare(rated / "w", tmp_path / "other.csv")
