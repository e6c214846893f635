"""What users remember, against a Python dictionary; and what the oracle can no longer earn from forgetting."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from recsim_llm.simulator import SIGNALS, Rules, memory
from recsim_llm.simulator.simulator import Simulator, quiet

CLICK, PURCHASE, SKIP = SIGNALS.index("click"), SIGNALS.index("purchase"), SIGNALS.index("skip")
RULES = Rules(
    choice="position", no_click=0.5, cart=0.0, purchase=0.0, leave=-2.0, churn=-60.0,
    repeat_look=0.13, repeat_life=90.0, look_life=20.0, repeat=2.5, repeat_bought=1.5,
)  # fmt: skip
Known = OrderedDict[int, tuple[int, int, int]]


def started(world: Any, lanes: int, slate_size: int, rules: Rules = RULES) -> Simulator:
    simulator = Simulator(world, rules, lanes=lanes, slate_size=slate_size, threads=1)
    simulator.seed(np.arange(lanes, dtype=np.uint64))
    simulator.reset(np.ones(lanes, bool))
    return simulator


def parts_of(word: int) -> tuple[int, int, int]:
    """Minute, level in 255ths and kind of a memory."""
    return word >> 10, word >> 2 & 255, word & 3


def found(simulator: Simulator, b: int, item: int) -> tuple[int, int, int]:
    with quiet():
        _, word = memory.recall(simulator.state.lane[b], simulator.state.memory[b], item)
    return parts_of(int(word))


def note(known: Known, simulator: Simulator, b: int, clock: int) -> None:
    """Takes one step into the dictionary, whose order is that of the last sight."""
    state, rules = simulator.state, simulator.rules
    lives = (np.inf, rules.look_life * 60, rules.repeat_life * 60, rules.repeat_life * 60)
    for k, item in enumerate(state.slate[b].tolist()):
        click, bought, left = (state.feedback[b, k, s] > 0 for s in (CLICK, PURCHASE, SKIP))
        if item < 0 or not (click or left):
            continue
        minute, level, kind = known.pop(item, (0, 0, 0))
        now = level / 255 * np.exp(-(clock // 60 - minute) / lives[kind])
        level = 255 if click else int(255 * min(1.0, now + rules.repeat_look) + 0.5)
        known[item] = clock // 60, level, max(kind, 3 if bought else 2 if click else 1)


class TestAgainstDictionary:
    @pytest.mark.parametrize(
        ("items", "places", "kept", "slate_size"),
        [(60, 4096, 512, 5), (60, 32, 16, 5), (300, 32, 16, 20), (300, 32, 8, 3)],
        ids=["place each", "evicting", "long slates", "small tables"],
    )
    def test_random_slates(
        self, make_world: Any, monkeypatch: pytest.MonkeyPatch, items: int, places: int, kept: int, slate_size: int
    ) -> None:
        monkeypatch.setattr(memory, "PLACES", places)
        monkeypatch.setattr(memory, "KEPT", kept)
        lanes, rng = 6, np.random.default_rng(items + kept)
        simulator = started(make_world(items=items, users=12), lanes, slate_size)
        tables, words = simulator.state.memory.ndim - 1, simulator.state.memory.shape[-1]
        known: list[Known] = [OrderedDict() for _ in range(lanes)]
        kinds, evicted = set(), 0
        for step in range(120):
            if step == 80:  # a new episode, a new memory
                again = np.arange(lanes) % 2 == 0
                simulator.reset(again)
                for b in np.flatnonzero(again):
                    known[b].clear()
            clock = simulator.state.lane["clock"].copy()
            slates = np.stack([rng.permutation(items)[:slate_size] for _ in range(lanes)])
            slates[:, -1] = slates[:, 0] if step % 7 == 0 else slates[:, -1]
            simulator.step(slates)
            for b in range(lanes):
                note(known[b], simulator, b, int(clock[b]))
                newest = len(known[b]) - (items if tables == 1 else words // 4 - slate_size)
                for place, (item, expected) in enumerate(known[b].items()):
                    here = found(simulator, b, item)
                    if here[2] == 0 and place < newest:  # the oldest may be forgotten, all at once
                        evicted += 1
                        continue
                    assert here[0] == expected[0]
                    assert here[2] == expected[2]
                    assert abs(here[1] - expected[1]) <= 1  # float32 against float64 at a half
                    known[b][item] = here
                    kinds.add(here[2])
                for item in [item for item in known[b] if not found(simulator, b, item)[2]]:
                    del known[b][item]
                for item in set(range(items)) - set(known[b]):
                    assert found(simulator, b, item) == (0, 0, 0)
        assert kinds == {1, 2, 3}
        assert (evicted > 0) == (tables == 2)

    def test_an_episode_that_fits_is_remembered_whole(self, make_world: Any) -> None:
        """Over 5,000 items, twice as many as one table holds are all known; one slate more and the oldest are not."""
        world = make_world(items=5000, users=4, item_arrays={"released_at": np.full(5000, -1.0)})
        simulator = started(world, 1, 8, RULES.replace(position_bias=0.0))
        half = memory.KEPT - 8
        order = np.random.default_rng(0).permutation(5000)[: 2 * memory.KEPT].reshape(-1, 8)
        shown: list[int] = []
        for slate in order[: 2 * (half // 8)]:
            simulator.step(slate[None])
            assert (simulator.state.feedback[0, :, CLICK] + simulator.state.feedback[0, :, SKIP] > 0).all()
            shown += slate.tolist()
        assert len(shown) == 2 * half
        assert all(found(simulator, 0, item)[2] for item in shown)
        for slate in order[2 * (half // 8) :]:
            simulator.step(slate[None])
        assert [bool(found(simulator, 0, item)[2]) for item in shown] == [False] * memory.KEPT + [True] * (half - 8)


class TestNumbers:
    def test_words(self) -> None:
        p = Rules(repeat_life=0.0, look_life=2.0).packed(choice=0, mu=0.0, noise=0.0, units={})[0]
        with quiet():
            for now, level, kind in ((0, 0.0, 1), (77, 0.5, 2), (int(memory.LATEST), 1.0, 3)):
                word = memory.word_of(now, np.float32(level), kind)
                assert parts_of(int(word)) == (now, int(255 * level + 0.5), kind)
            consumed = memory.word_of(10, np.float32(1), memory.CONSUMED)
            assert memory.left_of(p, consumed, 10) == memory.left_of(p, consumed, 4_000_000) == 1
            looked = memory.word_of(10, np.float32(1), memory.LOOKED)
            assert memory.left_of(p, looked, 10 + 240) == pytest.approx(np.exp(-2.0))
            assert memory.left_of(p, np.uint32(0), 500) == 0
            assert memory.minutes_of(np.int32(2**31 - 1)) == memory.LATEST

    def test_a_snapshot_holds_it(self, make_world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(memory, "PLACES", 32)
        monkeypatch.setattr(memory, "KEPT", 16)
        simulator, rng = started(make_world(items=200, users=4), 3, 4), np.random.default_rng(0)
        slates = rng.integers(0, 200, (40, 3, 4))
        for slate in slates[:20]:
            simulator.step(slate)
        snapshot, appeals = simulator.get_state(), []
        for _ in range(2):
            simulator.set_state(snapshot)
            for slate in slates[20:]:
                simulator.step(slate)
            appeals.append(simulator.truth()[0])
        np.testing.assert_array_equal(*appeals)


def oracle_clicks(env_id: str, steps: int = 60, lanes: int = 48) -> tuple[float, float]:
    """Of the myopic oracle: share of clicks that are on items consumed before in the episode, and clicks a step."""
    envs: Any = gym.make_vec(env_id, num_envs=lanes, truth=True)
    _, infos = envs.reset(seed=1)
    consumed: list[set[int]] = [set() for _ in range(lanes)]
    clicks = again = 0
    slate_size = envs.unwrapped.core.simulator.slate_size
    for _ in range(steps):
        gain = infos["truth_appeal"]
        best = np.argsort(-gain, axis=1, kind="stable")[:, :slate_size]
        _, _, terminated, truncated, infos = envs.step(best if slate_size > 1 else best[:, 0])
        for b in range(lanes):
            for item, click in zip(infos["slate"][b].tolist(), infos["click"][b].tolist(), strict=True):
                if click:
                    clicks += 1
                    again += item in consumed[b]
                    consumed[b].add(item)
            if terminated[b] or truncated[b]:
                consumed[b].clear()
    return again / clicks, clicks / steps / lanes
