"""The order of agents under other encoders: the correlation, its intervals, and a small study."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recsim_llm.benchmarks.presets import MUSIC
from recsim_llm.benchmarks.studies.swap import Study, agreement, report, self_agreement, study

RNG = np.random.default_rng(5)


class TestIntervals:
    CLEAR = np.arange(6.0)[:, None, None] + 0.01 * RNG.normal(size=(6, 8, 2))
    NOISE = RNG.normal(size=(6, 8, 2))

    def test_clear_orders_agree_for_certain(self) -> None:
        found = agreement(self.CLEAR, 10.0 * self.CLEAR)
        assert (found.value, found.low, found.high, found.n) == (1.0, 1.0, 1.0, 8)
        assert agreement(self.CLEAR, -self.CLEAR).high == -1.0

    def test_noise_is_uncertain(self) -> None:
        found = agreement(self.NOISE, RNG.normal(size=(6, 8, 2)))
        assert found.low < found.value < found.high
        assert found.high - found.low > 0.3

    def test_halves_tell_noise_from_order(self) -> None:
        assert self_agreement(self.CLEAR).value == 1.0
        assert self_agreement(self.NOISE).value < 0.6


def test_a_study_makes_worlds_and_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Study(
        encoders=("all-MiniLM-L6-v2", "hashing"), domains={"music": MUSIC},
        agents=("random", "recency", "popularity", "linucb", "oracle"), seeds=(0, 1), budget=640, lanes=16, episodes=16,
    )  # fmt: skip
    said: list[str] = []
    found = study(plan, tmp_path, jobs=0, say=said.append)
    assert set(found["kendall_tau"]) == {"all-MiniLM-L6-v2 / hashing"}
    assert -1.0 <= found["kendall_tau"]["all-MiniLM-L6-v2 / hashing"][0] <= 1.0
    hashed, real = (found["fidelity"][name]["music"]["auc_liked"] for name in ("hashing", "all-MiniLM-L6-v2"))
    assert real > hashed  # words alone hear less of a taste than a language model
    assert "encoding music with hashing" in said

    monkeypatch.setattr("recsim_llm.benchmarks.studies.swap.build_builtin_world", None)  # nothing is made again
    rows = (tmp_path / "music-hashing" / "results.jsonl").read_bytes()
    assert study(plan, tmp_path, jobs=0, say=said.append) == found
    assert (tmp_path / "music-hashing" / "results.jsonl").read_bytes() == rows
    text = (tmp_path / "report.md").read_text()
    assert text == report(found)
    assert "| recency |" in text
    assert "random" not in text.split("| agent |")[1].split("\n\n")[0]
