"""The results store: exact, append-only, one writer, mended after a crash (RELIABILITY T2, T5, T32)."""

from __future__ import annotations

import base64
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsim_llm.benchmarks.harness import codec
from recsim_llm.benchmarks.harness.experiment import Experiment
from recsim_llm.benchmarks.harness.records import DONE, FILE, KILLED, Row, read, scan
from recsim_llm.benchmarks.harness.results import load
from recsim_llm.benchmarks.harness.store import LOCK, QUARANTINE, Store
from recsim_llm.benchmarks.harness.testing_cells import fake_experiment, fake_row, fill_store
from recsim_llm.errors import ConfigError, StoreError

EXPERIMENT = fake_experiment()
CELLS = list(EXPERIMENT.cells())


def same_floats(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same_floats, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same_floats(a[name], b[name]) for name in a)
    return type(a) is type(b) and bool(a == b)


class TestCodec:
    values = st.recursive(
        st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(st.characters()),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.text(max_size=5) | st.sampled_from(["$float", "$$", "$x"]), inner, max_size=4)
        ),
        max_leaves=20,
    )

    @settings(max_examples=500, deadline=None)
    @given(values)
    def test_round_trip_is_exact(self, value: Any) -> None:
        text = codec.dumps(value)
        assert "\n" not in text
        assert text.isascii()
        json.loads(text, parse_constant=pytest.fail)  # strict: no bare NaN
        assert same_floats(codec.loads(text), value)

    @pytest.mark.parametrize(
        "value",
        [math.nan, math.inf, -math.inf, -0.0, 5e-324, 0.1 + 0.2, 2**63, "\ud800", "a\nb\u2028", {"$float": "nan"}],
    )
    def test_special_values(self, value: Any) -> None:
        assert same_floats(codec.loads(codec.dumps([value])), [value])

    def test_deep_and_long_values(self) -> None:
        deep: Any = "leaf"
        for _ in range(50):
            deep = [deep]
        assert codec.loads(codec.dumps(deep)) == deep
        long = "é" * 1_000_000
        assert codec.unseal(codec.seal({"text": long}))["text"] == long

    def test_numpy_values_become_plain(self) -> None:
        value = {"a": np.float32(0.1), "b": np.arange(3), "c": (1, 2), "d": np.array([np.nan]), "e": np.bool_(True)}
        back = codec.loads(codec.dumps(value))
        assert back["a"] == float(np.float32(0.1))
        assert back["b"] == [0, 1, 2]
        assert back["c"] == [1, 2]
        assert math.isnan(back["d"][0])
        assert back["e"] is True

    @pytest.mark.parametrize("value", [{1, 2}, object(), {1: 2}, b"bytes", [lambda: None]])
    def test_other_types_are_refused(self, value: Any) -> None:
        with pytest.raises(StoreError, match="cannot be stored"):
            codec.dumps(value)

    @pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"a":1,"a":2}', "[" * 100_000, "{"])
    def test_text_that_is_not_strict_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"."):
            codec.loads(text)

    def test_every_flipped_bit_is_noticed(self) -> None:
        line = codec.seal(fake_row(CELLS[0]).record("x"))
        for place in range(len(line)):
            altered = bytearray(line)
            altered[place] ^= 1 << (place % 8)
            with pytest.raises(ValueError, match=r"."):
                codec.unseal(bytes(altered))


class TestOpening:
    def test_rows_come_back_and_order_of_settings_does_not_matter(self, tmp_path: Path) -> None:
        fill_store(EXPERIMENT, tmp_path, 4)
        reordered = EXPERIMENT.replace(
            agents=EXPERIMENT.agents[::-1], seeds=EXPERIMENT.seeds[::-1], scenarios=EXPERIMENT.scenarios[::-1], name="x"
        )
        with Store(tmp_path, reordered) as opened:
            assert opened.done() == {cell.key for cell in CELLS[:4]}
            assert opened.problems == []
        assert read(tmp_path).canonical_rows() == sorted(fake_row(cell).canonical() for cell in CELLS[:4])

    def test_cut_at_every_byte_of_the_last_two_records(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("os.fsync", lambda descriptor: None)  # thousands of files; what they hold is the question
        whole = fill_store(EXPERIMENT, tmp_path / "whole", 3).read_bytes()
        lines = whole.splitlines(keepends=True)
        start = len(whole) - len(lines[-1]) - len(lines[-2])
        tails = [whole[:end] for end in range(start, len(whole) + 1)]
        tails += [whole[:end] + bytes(len(whole) - end) for end in range(start, len(whole), 3)]  # blocks never written
        tails += [whole + b"\0" * 256, whole + b"\n\n", whole + b"\xc3", whole[:-1] + b"\0" * 300]
        for number, content in enumerate(tails):
            folder = tmp_path / "cut"
            folder.mkdir(exist_ok=True)
            (folder / FILE).write_bytes(content)
            complete = sum(content.startswith(b"".join(lines[: k + 1])) for k in (1, 2, 3))
            before = scan(folder / FILE)
            assert len(before.rows) == complete, number
            with Store(folder, EXPERIMENT) as opened:
                assert opened.done() == {cell.key for cell in CELLS[:complete]}
                assert bool(opened.problems) == (not content.endswith(b"}\n")), number
                for cell in CELLS[complete:3]:
                    opened.append(fake_row(cell))
            assert (folder / FILE).read_bytes() == whole
        assert len(tails) > 2_500

    @pytest.mark.parametrize("place", range(0, 1_000, 7))
    def test_a_torn_header_is_as_no_file(self, tmp_path: Path, place: int) -> None:
        path = fill_store(EXPERIMENT, tmp_path, 0)
        content = path.read_bytes()
        path.write_bytes(content[: min(place, len(content) - 1)])
        with Store(tmp_path, EXPERIMENT) as opened:
            opened.append(fake_row(CELLS[0]))
        contents = read(tmp_path)
        assert list(contents.rows) == [CELLS[0].key]
        assert contents.problems == []

    @pytest.mark.parametrize("line", [1, 2, 3])
    def test_a_damaged_line_in_the_middle_is_quarantined(self, tmp_path: Path, line: int) -> None:
        path = fill_store(EXPERIMENT, tmp_path, 4)
        lines = path.read_bytes().splitlines(keepends=True)
        damaged = lines[line][:50] + b"#" + lines[line][51:]
        path.write_bytes(b"".join([*lines[:line], damaged, *lines[line + 1 :]]))
        assert f"line {line + 1}" in read(tmp_path).problems[0]
        assert path.read_bytes().splitlines(keepends=True)[line] == damaged  # readers never repair
        with Store(tmp_path, EXPERIMENT) as opened:
            assert f"line {line + 1}" in opened.problems[0]
            assert opened.done() == {cell.key for k, cell in enumerate(CELLS[:4]) if k != line - 1}
            opened.append(fake_row(CELLS[line - 1]))
        assert read(tmp_path).problems == []
        assert read(tmp_path).canonical_rows() == sorted(fake_row(cell).canonical() for cell in CELLS[:4])
        kept = codec.unseal((tmp_path / QUARANTINE).read_bytes())
        assert base64.b64decode(kept["base64"]) == damaged

    def test_a_damaged_header_is_made_anew_for_the_same_experiment_only(self, tmp_path: Path) -> None:
        path = fill_store(EXPERIMENT, tmp_path, 2)
        content = path.read_bytes()
        path.write_bytes(b"#" + content[1:])
        with pytest.raises(StoreError, match="no valid header"):
            read(tmp_path)
        with pytest.raises(StoreError, match="lost its header"):
            Store(tmp_path, EXPERIMENT.replace(seeds=(7,)))
        with Store(tmp_path, EXPERIMENT) as opened:
            assert len(opened.done()) == 2
        assert len(read(tmp_path).rows) == 2

    def test_a_foreign_row_is_reported_and_not_used(self, tmp_path: Path) -> None:
        path = fill_store(EXPERIMENT, tmp_path, 2)
        forged = codec.loads(path.read_bytes().splitlines()[1])
        forged.pop("crc")
        forged["result"]["return"] = [9.0, 9.0, 9.0]
        forged["cell"]["seed"] = 99
        with path.open("ab") as file:
            file.write(codec.seal(forged))
            file.write(codec.seal(fake_row(CELLS[4]).record("another experiment")))
        contents = read(tmp_path)
        assert len(contents.rows) == 2
        assert "its key is not that of its cell" in contents.problems[0]
        assert "another experiment" in contents.problems[1]

    def test_a_repeated_row_counts_once_and_is_reported(self, tmp_path: Path) -> None:
        with Store(tmp_path, EXPERIMENT) as opened:
            opened.append(Row(CELLS[0], KILLED, {"error": "x"}))
            opened.append(fake_row(CELLS[0]))
            assert read(tmp_path).problems == []  # a failure made good is no repetition
            opened.append(Row(CELLS[0], DONE, {**fake_row(CELLS[0]).result, "note": "last"}))
        contents = read(tmp_path)
        assert contents.rows[CELLS[0].key].result["note"] == "last"
        assert "repeats the row" in contents.problems[0]

    def test_a_newer_format_is_refused(self, tmp_path: Path) -> None:
        path = fill_store(EXPERIMENT, tmp_path, 1)
        with path.open("ab") as file:
            file.write(codec.seal({"schema": 3, "kind": "row"}))
        with pytest.raises(StoreError, match="format 3"):
            read(tmp_path)

    def test_leftovers_of_a_killed_rewrite_are_swept(self, tmp_path: Path) -> None:
        fill_store(EXPERIMENT, tmp_path, 1)
        (tmp_path / f"{FILE}.abc.tmp").write_bytes(b"half")
        Store(tmp_path, EXPERIMENT).close()
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([FILE, LOCK])


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"seeds": (0, 1, 3)}, "seeds: [0,1,2] (stored), [0,1,3] (asked for)"),
    ({"seeds": (0, 1)}, "seeds"),
    ({"budget": 2_000}, "budget: 1000 (stored), 2000 (asked for)"),
    ({"checkpoints": (0, 1_000)}, "checkpoints"),
    ({"episodes": 9}, "episodes"),
    ({"lanes": 5}, "lanes"),
    ({"world": "other"}, 'world: null (stored), "other" (asked for)'),
    ({"agents": ("random", "oracle")}, "agents"),
    ({"agent_configs": {"linucb": {"alpha": 0.5}}}, 'agent_configs.linucb: not given (stored), {"alpha":0.5}'),
    ({"env_kwargs": {"*": {"slate_size": 3}}}, "env_kwargs.*: not given (stored)"),
]


class TestIdentity:
    @pytest.mark.parametrize(("change", "says"), CHANGES)
    def test_a_changed_setting_is_refused_with_a_difference(
        self, tmp_path: Path, change: dict[str, Any], says: str
    ) -> None:
        path = fill_store(EXPERIMENT, tmp_path, 1)
        before = path.read_bytes()
        with pytest.raises(StoreError) as caught:
            Store(tmp_path, EXPERIMENT.replace(**change))
        assert says in str(caught.value)
        assert path.read_bytes() == before

    def test_a_changed_agent_setting_or_world_is_refused(self, tmp_path: Path) -> None:
        first = EXPERIMENT.replace(agent_configs={"linucb": {"alpha": 1.0, "ridge": 2.0}})
        Store(tmp_path, first, {"Fake/A-v0": "abc"}).close()
        with pytest.raises(StoreError, match=r"agent_configs.linucb.alpha: 1.0 \(stored\), 1.5"):
            Store(tmp_path, first.replace(agent_configs={"linucb": {"ridge": 2.0, "alpha": 1.5}}), {"Fake/A-v0": "abc"})
        with pytest.raises(StoreError, match=r"worlds\.Fake/A-v0"):
            Store(tmp_path, first, {"Fake/A-v0": "abd"})
        same = first.replace(agent_configs={"linucb": {"ridge": 2.0, "alpha": 1.0}})
        Store(tmp_path, same, {"Fake/A-v0": "abc"}).close()

    def test_a_world_counts_by_content_not_by_place(self) -> None:
        here, there = (next(EXPERIMENT.replace(world=w).cells({"Fake/A-v0": "hash"})) for w in ("a", "b"))
        assert here.key == there.key
        assert here.world != there.world

    def test_keys_are_distinct(self) -> None:
        cells = [cell for change, _ in CHANGES for cell in EXPERIMENT.replace(**change).cells()]
        keys = {cell.key for cell in cells}
        assert len(keys) == len({codec.dumps(cell.canonical()) for cell in cells})
        many = EXPERIMENT.replace(seeds=tuple(range(500)))
        assert len({cell.key for cell in many.cells()}) == 500 * 6

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"seeds": ()}, "seeds is empty"),
            ({"seeds": (1, 1)}, "more than once"),
            ({"seeds": (-1,)}, "at least 0"),
            ({"seeds": (True,)}, "whole number"),
            ({"agents": "random"}, "must be a list"),
            ({"budget": -5}, "budget is -5"),
            ({"budget": 1.5}, "whole number"),
            ({"checkpoints": (0, 700)}, "from 0 to the budget"),
            ({"checkpoints": (0, 700, 600, 1000)}, "ascend"),
            ({"episodes": 0}, "at least 1"),
            ({"agent_configs": {"linucbb": {}}}, "Did you mean 'linucb'"),
            ({"agent_configs": {"linucb": {"a": object()}}}, "cannot be stored"),
            ({"env_kwargs": {"Fake/A-v1": {}}}, "Did you mean 'Fake/A-v0'"),
            ({"sedes": (1,)}, "Did you mean 'seeds'"),
        ],
    )
    def test_bad_experiments_are_refused_when_built(self, change: dict[str, Any], says: str) -> None:
        with pytest.raises(ConfigError) as caught:
            EXPERIMENT.replace(**change)
        assert says in str(caught.value)

    def test_an_experiment_survives_json_and_cannot_be_changed_from_outside(self) -> None:
        inner = {"alpha": 1.0}
        experiment = EXPERIMENT.replace(agent_configs={"linucb": inner})
        inner["alpha"] = 2.0
        assert experiment.agent_configs["linucb"]["alpha"] == 1.0
        assert Experiment.from_json(experiment.to_json()) == experiment
        with pytest.raises(ConfigError, match="Did you mean 'budget'"):
            Experiment.from_json(experiment.to_json().replace("budget", "budgets"))
        with pytest.raises(ConfigError, match="not complete"):
            Experiment.from_json("{}")


LARGER = EXPERIMENT.replace(
    agents=("mine", *EXPERIMENT.agents), seeds=(3, 0, 1, 2), scenarios=(*EXPERIMENT.scenarios, "Fake/C-v0")
)
"""Has all cells of the experiment, and 30 more."""
STANDARD = Path(__file__).parents[2] / "benchmarks" / "stored" / "standard"


class TestExtending:
    """A larger experiment continues a store; no stored row is lost, changed or run again."""

    @pytest.mark.parametrize(
        "change",
        [
            {"agents": (*EXPERIMENT.agents, "mine")},
            {"scenarios": ("Fake/C-v0", *EXPERIMENT.scenarios)},
            {"seeds": (5, 4, 3, 2, 1, 0)},
            {"agents": (*EXPERIMENT.agents, "mine"), "agent_configs": {"mine": {"alpha": 2.0}}},
            {"agents": (*EXPERIMENT.agents, "mine"), "fewer_seeds": {"mine": 1}},
            {"scenarios": (*EXPERIMENT.scenarios, "Fake/C-v0"), "only": {"Fake/C-v0": ["random"]}},
        ],
    )
    def test_more_of_anything_continues(self, tmp_path: Path, change: dict[str, Any]) -> None:
        path = fill_store(EXPERIMENT, tmp_path, 18)
        before = path.read_bytes()
        larger = EXPERIMENT.replace(**change)
        with Store(tmp_path, larger) as opened:
            assert opened.done() == {cell.key for cell in CELLS}
            assert opened.problems == []
            for cell in larger.cells():
                if cell.key not in opened.done():
                    opened.append(fake_row(cell))
        assert path.read_bytes().startswith(before)  # append-only
        found = load(tmp_path)
        assert found.experiment == larger
        assert found.problems == ()
        assert found.missing == 0
        assert read(tmp_path).canonical_rows() == sorted(fake_row(cell).canonical() for cell in larger.cells())
        after = path.read_bytes()
        Store(tmp_path, larger).close()
        assert path.read_bytes() == after

    def test_what_lacks_a_stored_cell_is_refused_and_changes_nothing(self, tmp_path: Path) -> None:
        path = fill_store(LARGER, tmp_path, 2)
        before = path.read_bytes()
        more = {"agents": (*LARGER.agents, "yours")}
        refused: list[tuple[dict[str, Any], str]] = [
            ({"agents": LARGER.agents[1:]}, "agents: "),
            ({"seeds": (0, 1, 2)}, "seeds: "),
            ({"scenarios": EXPERIMENT.scenarios}, "scenarios: "),
            ({**more, "budget": 2_000, "checkpoints": (0, 2_000)}, "budget: 1000 (stored), 2000"),
            ({**more, "agent_configs": {"linucb": {"alpha": 0.5}}}, "agent_configs.linucb: not given"),
            ({**more, "env_kwargs": {"*": {"slate_size": 3}}}, "env_kwargs.*: not given"),
            ({**more, "only": {"Fake/C-v0": ["random"]}}, "only: not given"),
            ({**more, "fewer_seeds": {"linucb": 2}}, "fewer_seeds: not given"),
        ]
        for change, says in refused:
            with pytest.raises(StoreError) as caught:
                Store(tmp_path, LARGER.replace(**change))
            assert says in str(caught.value)
            assert path.read_bytes() == before
        Store(tmp_path, LARGER.replace(**more)).close()

    def test_another_world_is_refused_in_a_larger_experiment(self, tmp_path: Path) -> None:
        worlds = {"Fake/A-v0": "abc", "Fake/B-v0": "def"}
        Store(tmp_path, EXPERIMENT, worlds).close()
        with pytest.raises(StoreError, match=r"worlds\.Fake/A-v0: \"abc\" \(stored\), \"abd\""):
            Store(tmp_path, LARGER, {**worlds, "Fake/A-v0": "abd", "Fake/C-v0": "ghi"})
        Store(tmp_path, LARGER, {**worlds, "Fake/C-v0": "ghi"}).close()

    def test_the_first_seeds_are_those_of_the_stored_order(self, tmp_path: Path) -> None:
        few = EXPERIMENT.replace(fewer_seeds={"linucb": 1})
        Store(tmp_path, few).close()
        with pytest.raises(StoreError, match=r"seeds: \[0,1,2\] \(stored\), \[2,1,0\]"):
            Store(tmp_path, few.replace(seeds=(2, 1, 0)))
        Store(tmp_path, few.replace(seeds=(0, 2, 1))).close()  # the same first seed

    def test_cut_at_every_byte_of_the_further_header_and_the_rows_beside_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("os.fsync", lambda descriptor: None)  # thousands of files; what they hold is the question
        path = fill_store(EXPERIMENT, tmp_path / "whole", 2)
        start = path.stat().st_size - 40
        new = [cell for cell in LARGER.cells() if cell not in CELLS][:1]
        with Store(tmp_path / "whole", LARGER) as opened:
            opened.append(fake_row(new[0]))
        whole = path.read_bytes()
        lines = whole.splitlines(keepends=True)
        assert [codec.unseal(line)["kind"] for line in lines] == ["header", "row", "row", "header", "row"]
        folder = tmp_path / "cut"
        folder.mkdir()
        tails = [whole[:end] for end in range(start, len(whole) + 1)]
        tails += [whole[:end] + bytes(len(whole) - end) for end in range(start, len(whole), 31)]
        for content in tails:
            (folder / FILE).write_bytes(content)
            complete = sum(content.startswith(b"".join(lines[: k + 1])) for k in range(5))
            assert len(read(folder).rows) == [0, 0, 1, 2, 2, 3][complete]
            with Store(folder, LARGER) as opened:
                done = opened.done()
                assert len(done) == [0, 0, 1, 2, 2, 3][complete]
                for cell in (*CELLS[:2], *new):
                    if cell.key not in done:
                        opened.append(fake_row(cell))
            contents = read(folder)
            assert contents.problems == []
            assert contents.header is not None
            assert contents.header["digest"] == codec.digest(LARGER.canonical())
            assert contents.canonical_rows() == scan(path).canonical_rows()
        assert len(tails) > 1_000

    def test_killed_before_the_further_header_the_smaller_experiment_still_continues(self, tmp_path: Path) -> None:
        path = fill_store(EXPERIMENT, tmp_path, 2)
        before = path.read_bytes()
        Store(tmp_path, LARGER).close()
        with pytest.raises(StoreError, match="another experiment"):
            Store(tmp_path, EXPERIMENT)
        path.write_bytes(path.read_bytes()[:-1])
        Store(tmp_path, EXPERIMENT).close()
        assert path.read_bytes() == before

    @pytest.mark.parametrize("lost", [{0}, {3}, {0, 3}, {1}, {3, 4}])
    def test_no_row_is_lost_with_a_damaged_header(self, tmp_path: Path, lost: set[int]) -> None:
        path = fill_store(EXPERIMENT, tmp_path, 2)
        new = [cell for cell in LARGER.cells() if cell not in CELLS][:2]
        with Store(tmp_path, LARGER) as opened:
            for cell in new:
                opened.append(fake_row(cell))
        lines = path.read_bytes().splitlines(keepends=True)
        kept = {row.key for k, row in enumerate(scan(path).rows.values()) if (1, 2, 4, 5)[k] not in lost}
        path.write_bytes(b"".join(b"#" + line[1:] if k in lost else line for k, line in enumerate(lines)))
        with Store(tmp_path, LARGER) as opened:
            assert opened.done() == kept
        contents = read(tmp_path)
        assert contents.rows.keys() == kept
        assert contents.problems == []
        assert load(tmp_path).experiment == LARGER
        with pytest.raises(StoreError, match="another experiment"):
            Store(tmp_path, EXPERIMENT)

    def test_grows_again_and_again(self, tmp_path: Path) -> None:
        for count in range(1, 5):
            experiment = EXPERIMENT.replace(seeds=tuple(range(count)))
            with Store(tmp_path, experiment) as opened:
                opened.append(fake_row(list(experiment.cells())[-1]))
        contents = read(tmp_path)
        assert len(contents.rows) == 4
        assert len(contents.headers) == 4
        assert contents.problems == []

    def test_two_stores_put_together_are_not_a_larger_one(self, tmp_path: Path) -> None:
        path = fill_store(EXPERIMENT, tmp_path / "a", 2)
        other = fill_store(LARGER, tmp_path / "b", 3)
        path.write_bytes(path.read_bytes() + other.read_bytes())
        contents = read(tmp_path / "a")
        assert len(contents.rows) == 2
        assert "does not extend" in contents.problems[0]
        assert len(contents.problems) == 4

    def test_a_row_repeated_under_both_experiments_counts_once(self, tmp_path: Path) -> None:
        fill_store(EXPERIMENT, tmp_path, 2)
        with Store(tmp_path, LARGER) as opened:
            opened.append(Row(CELLS[0], DONE, {**fake_row(CELLS[0]).result, "note": "last"}))
        contents = read(tmp_path)
        assert len(contents.rows) == 2
        assert contents.rows[CELLS[0].key].result["note"] == "last"
        assert len(contents.problems) == 1
        assert "repeats the row" in contents.problems[0]

    def test_an_older_reader_refuses_a_further_header_and_reads_a_store_without_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fill_store(EXPERIMENT, tmp_path, 2)
        monkeypatch.setattr("recsim_llm.benchmarks.harness.records.SCHEMA", 1)  # as it was before stores could grow
        assert len(read(tmp_path).rows) == 2
        Store(tmp_path, LARGER).close()
        with pytest.raises(StoreError, match=r"line 4 has format 2, .* Update recsim_llm"):
            read(tmp_path)

    def test_modules_are_recorded_and_decide_nothing(self, tmp_path: Path) -> None:
        Store(tmp_path, EXPERIMENT, modules=["no_such_module"]).close()
        header = read(tmp_path).header
        assert header is not None
        assert header["modules"] == ["no_such_module"]
        with Store(tmp_path, EXPERIMENT) as opened:
            assert opened.problems == []

    @pytest.mark.skipif(not STANDARD.is_dir(), reason="stored results are not part of the installed package")
    def test_the_stored_study_takes_one_more_agent(self, tmp_path: Path) -> None:
        shutil.copy(STANDARD / FILE, tmp_path)
        stored = load(tmp_path)
        header = read(tmp_path).header
        assert header is not None
        worlds = header["experiment"]["worlds"]
        larger = stored.experiment.replace(agents=(*stored.experiment.agents, "mine"))
        with Store(tmp_path, stored.experiment, worlds) as opened:
            assert len(opened.done()) + sum(row.state == "refused" for row in opened.contents.rows.values()) == 3_460
        with Store(tmp_path, larger, worlds) as opened:
            wanted = [cell for cell in larger.cells(worlds) if cell.key not in opened.contents.rows]
        assert {cell.agent for cell in wanted} == {"mine"}
        assert len(wanted) == 10 * 6  # seeds x scenarios of the score
        assert read(tmp_path).problems == []


def test_canonical_rows_leave_out_wall_clock_values() -> None:
    one: Callable[[float], Row] = lambda wall: Row(CELLS[0], DONE, {"return": [1.0], "wall_train_s": wall})  # noqa: E731
    assert one(1.0).canonical() == one(2.0).canonical()
    assert "return" in one(1.0).canonical()
