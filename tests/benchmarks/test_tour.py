"""The tour: parts by name, what is missing or fails does not stop it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from recsim_llm.benchmarks.tour.tour import DONE, FAILED, PARTS, SKIPPED, small_of, tour
from recsim_llm.cli import app
from recsim_llm.errors import ConfigError, require


@pytest.mark.parametrize("name", PARTS)
def test_every_part_is_there(name: str) -> None:
    assert callable(small_of(PARTS[name][0]))


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(say: Any) -> dict[str, Any]:
        require("no_such_module", "llm")
        return {}

    def broken(say: Any) -> dict[str, Any]:
        raise ValueError("out of order")

    def fine(say: Any) -> dict[str, Any]:
        say("at work")
        return {"n": 1}

    small = {PARTS[name][0]: part for name, part in (("judges", missing), ("tuning", broken), ("swap", fine))}
    monkeypatch.setattr("recsim_llm.benchmarks.tour.tour.small_of", small.__getitem__)


@pytest.mark.usefixtures("parts")
class TestGoingOn:
    WANTED = ("judges", "tuning", "swap")

    def test_what_is_missing_or_fails_is_told(self) -> None:
        said: list[str] = []
        stops = tour(self.WANTED, said.append)
        assert [stop.state for stop in stops] == [SKIPPED, FAILED, DONE]
        assert '".[llm]" in the clone' in stops[0].why
        assert stops[1].why == "ValueError: out of order"
        assert dict(stops[2].found) == {"n": 1}
        assert said[-1] == "  at work"

    def test_the_command_says_so_and_fails(self) -> None:
        arguments = [word for name in self.WANTED for word in ("--part", name)]
        answer = CliRunner().invoke(app, ["tour", *arguments, "--json"])
        assert answer.exit_code == 1
        assert [row["state"] for row in json.loads(answer.stdout)] == [SKIPPED, FAILED, DONE]
        answer = CliRunner().invoke(app, ["tour", "--part", "swap"])
        assert answer.exit_code == 0
        assert "1 of 1 parts" in answer.stdout


def test_unknown_parts_are_refused_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'judges'"):
        tour(["judge"])
