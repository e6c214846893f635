"""Timelines: what is on the page is what happened, and nothing that a world says can do anything there."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from recsim_llm import cli
from recsim_llm.envs.rendering import charts
from recsim_llm.envs.rendering import recorder as render
from recsim_llm.envs.rendering.phrases import lasted, span, when
from recsim_llm.envs.rendering.recorder import Moment, Recorder
from recsim_llm.simulator import SIGNALS
from recsim_llm.worlds.world import World

pytest.importorskip("jinja2", reason="pages need the extra [benchmarks]")

HOSTILE = (
    "<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "' onmouseover='alert(1)",
    "</style><script>x()</script>", "javascript:alert(1)", "</title><svg onload=alert(1)>", "{{ 7 * 7 }}{% raw %}",
    "&lt;b&gt; & co", "]]><!-- -->",
)  # fmt: skip
NO_BUDGET = np.zeros(0, np.float32)
KNOWN = set(
    "html head meta title style body header footer main section article details summary h1 h2 h3 p div span small b "
    "bdi ul ol li dl dt dd svg line polyline rect".split()
)


class Page(HTMLParser):
    """The elements of a page, and the text inside those of a class."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.data: list[str] = []
        self.within: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[tuple[str, str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.elements.append((tag, found))
        if tag not in ("meta", "line", "polyline", "rect"):
            self._open.append((tag, found.get("class", "")))
            self.texts.setdefault(found.get("class", "") or tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1][0] == tag:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        self.data.append(data)
        for tag, kind in {(kind or tag): (tag, kind) for tag, kind in self._open}.values():
            self.texts[kind or tag][-1] += data

    def count(self, tag: str, kind: str | None = None) -> int:
        return sum(
            name == tag and (kind is None or kind in found.get("class", "").split()) for name, found in self.elements
        )


def hostile(world: World) -> World:
    """The world with hostile texts wherever a world has texts."""
    count, people = len(world.catalog), len(world.population)
    texts = [f"{HOSTILE[n % len(HOSTILE)]} {n}" for n in range(max(count, people))]
    catalog = dataclasses.replace(
        world.catalog, item_id=texts[:count], title=texts[:count], text=texts[:count], provider=texts[:count],
        category=[HOSTILE[n % len(HOSTILE)] for n in range(count)], provider_budget=NO_BUDGET,
    )  # fmt: skip
    population = dataclasses.replace(
        world.population, user_id=texts[:people], persona=texts[:people], gender=texts[:people],
        age_band=texts[:people], region=texts[:people],
        statements=[[(text, 1.0), (text, -0.5)] for text in texts[:people]],
    )  # fmt: skip
    return dataclasses.replace(world, name=HOSTILE[0], catalog=catalog, population=population)


def played(env_id: str, mode: str, steps: int, *, seed: int = 0, **arguments: Any) -> tuple[Any, list[dict[str, Any]]]:
    """An environment after ``steps`` steps of a fixed policy, and the infos, that of the reset first."""
    env = gym.make(env_id, render_mode=mode, **arguments)
    rng = np.random.Generator(np.random.PCG64(seed))
    _, info = env.reset(seed=seed)
    infos = [info]
    for _ in range(steps):
        shelf = np.flatnonzero(env.unwrapped.available())
        slate = rng.choice(shelf, env.unwrapped.slate_size, replace=False)
        *_, terminated, truncated, info = env.step(slate if len(slate) > 1 else slate[0])
        infos.append(info)
        if terminated or truncated:
            break
    return env, infos


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    def save(world: World) -> str:
        return str(world.save(tmp_path / "world"))

    return save


def test_hostile_texts_stay_texts(world: World, folder: Any) -> None:
    env, infos = played("recsim_llm/News-v0", "html", 12, world=folder(hostile(world)))
    text = env.render()
    page = Page(text)
    assert {tag for tag, _ in page.elements} <= KNOWN  # no script, image, link, frame, form or object
    attributes = {name for _, found in page.elements for name in found}
    assert not [
        name for name in attributes if name.startswith("on") or name in ("href", "src", "style", "action", "data")
    ]
    assert page.count("style") == page.count("title") == 1
    told = "".join(page.data)
    for item in infos[-1]["slate"]:
        if item >= 0:
            title = env.unwrapped.catalog.title[item]
            assert title in told
            assert html.escape(title, quote=False) in text.replace("&#34;", '"').replace("&#39;", "'")
    assert text.count("<script") == 0
    assert "49" not in page.texts["title"]


def test_policy_allows_the_style_and_nothing_else(world_folder: str) -> None:
    env, _ = played("recsim_llm/News-v0", "html", 5, world=world_folder)
    page = Page(env.render())
    policies = [found["content"] for _, found in page.elements if found.get("http-equiv") == "Content-Security-Policy"]
    (style,) = page.texts["style"]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policies == [f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"]
    assert "url(" not in style
    assert "@import" not in style
    assert not [value for _, found in page.elements for value in found.values() if "://" in value or "//" in value]
    assert "prefers-color-scheme: dark" in style
    assert "@media print" in style
    assert any(found.get("name") == "viewport" for _, found in page.elements)


@pytest.mark.parametrize("env_id", ["recsim_llm/Music-v0", "recsim_llm/News-v0"])
def test_page_says_what_happened(env_id: str, world_folder: str) -> None:
    env, infos = played(env_id, "html", 40, world=world_folder, truth=True, rules={"leave": -2.0, "churn": -60.0})
    page = Page(env.render())
    steps, slate_size = infos[1:], env.unwrapped.slate_size
    assert page.count("article", "step") == len(steps) == 40
    assert page.count("li", "slot") == 40 * slate_size
    clicks = sum(info["clicks"] for info in steps)
    assert clicks > 0
    assert page.count("li", "clicked") == clicks
    assert page.count("li", "wasted") == sum(info["wasted"] for info in steps)
    moods = [text for kind, texts in page.texts.items() if kind.startswith("mood") for text in texts]
    assert sorted(moods) == sorted(f"{info['truth_mood']:+.2f}" for info in steps)
    sessions = [info["session"] for info in infos[:-1]]
    assert page.count("details", "session") == len(set(sessions)) > 1
    titles = [env.unwrapped.catalog.title[item] for info in steps for item in info["slate"] if item >= 0]
    assert [text for text in page.texts["title"][1:] if text != "(wasted slot)"] == titles
    told = "".join(page.data)
    assert told.count("She came back after") == infos[-1]["session"]
    person = env.unwrapped.core.world.population
    assert person.persona[infos[0]["user_id"]] in told
    for signal, word in (("like", "like"), ("share", "share"), ("purchase", "purchase"), ("skip", "passed over")):
        assert page.texts["deed"].count(word) == sum(int((info[signal] > 0).sum()) for info in steps), signal


def test_the_same_episode_gives_the_same_bytes(world_folder: str) -> None:
    pages = [played("recsim_llm/News-v0", "html", 15, world=world_folder, seed=seed)[0].render() for seed in (3, 3, 4)]
    assert pages[0] == pages[1]
    assert pages[0] != pages[2]


def test_leaving_for_good_is_told(world_folder: str) -> None:
    rules = {"leave": 60.0, "churn": 60.0}
    env, infos = played("recsim_llm/Music-v0", "html", 5, world=world_folder, rules=rules)
    assert len(infos) == 2
    page = Page(env.render())
    assert page.texts["after left"] == ["She left for good."]
    assert "She left for good" in page.texts["dd"]


def test_before_the_first_step(world_folder: str) -> None:
    page = Page(played("recsim_llm/News-v0", "html", 0, world=world_folder)[0].render())
    assert "No step yet." in "".join(page.data)
    assert page.count("svg") == 0


def odd(world: World, kind: str) -> World:
    catalog, people = world.catalog, world.population
    count = len(catalog)
    if kind == "no words":
        nothing, nobody = [""] * count, [""] * len(people)
        catalog = dataclasses.replace(
            catalog, title=nothing, category=nothing, provider=nothing, provider_budget=NO_BUDGET
        )  # fmt: skip
        people = dataclasses.replace(people, persona=nobody, statements=[[] for _ in nobody], gender=nobody)
        return dataclasses.replace(world, catalog=catalog, population=people)
    titles = {
        "long": ["endless" * 700 + f"{n}" for n in range(count)],
        "right to left": [f"\u202eשלום עולם مرحبا {n}\x00\x1b[31m" for n in range(count)],
        "other scripts": [f"日本語の題名 $x^2$ \\frac{{{n}}} 🎵" for n in range(count)],
    }[kind]
    catalog = dataclasses.replace(
        catalog, title=titles, category=[f"{title} {n % 5}" for n, title in enumerate(titles)]
    )
    return dataclasses.replace(
        world, catalog=catalog, population=dataclasses.replace(people, persona=titles[: len(people)])
    )


@pytest.mark.parametrize("kind", ["no words", "long", "right to left", "other scripts"])
def test_odd_worlds(kind: str, world: World, folder: Any) -> None:
    place = folder(odd(world, kind))
    env, infos = played("recsim_llm/News-v0", "html", 8, world=place)
    text = env.render()
    assert len(text) < 150_000
    assert not [sign for sign in text if sign < " " and sign not in "\n\t"]
    first = env.unwrapped.catalog.title[infos[-1]["slate"][0]].strip()[:20]
    assert first.split("\x00")[0] in "".join(Page(text).data)
    assert played("recsim_llm/News-v0", "ansi", 8, world=place)[0].render().count("\n") > 6
    pytest.importorskip("matplotlib")
    assert played("recsim_llm/News-v0", "rgb_array", 8, world=place)[0].render().std() > 1


def test_five_hundred_themes(make_world: Any, folder: Any) -> None:
    place = folder(make_world(items=600, topics=500))
    text = played("recsim_llm/News-v0", "html", 30, world=place)[0].render()
    page = Page(text)
    assert len(text) < 400_000
    assert page.count("polyline", "other") == charts.BACKGROUND
    assert page.count("rect", "back") == charts.STRIPS
    pytest.importorskip("matplotlib")
    assert played("recsim_llm/News-v0", "rgb_array", 30, world=place)[0].render().std() > 1


def test_cores_that_have_little() -> None:
    info = {"user_id": 7, "slate": np.array([2, -1]), "click": np.array([1.0, 0.0])}
    bare = Recorder(SimpleNamespace(), "Bare")
    lane = np.zeros(1, [("user", "i4"), ("episode", "i4"), ("step", "i4"), ("satisfaction", "f4")])
    state = SimpleNamespace(
        lane=lane, traits=np.array([[0.5, -1.0, 2.0]], np.float32), shown=np.array([[1, -1]]),
        signals=np.array([[[1.0, 0.0]], [[4.25, 0.0]]], np.float32),
    )  # fmt: skip
    model = SimpleNamespace(signals=("click", "watch_time"))
    some = Recorder(SimpleNamespace(simulator=SimpleNamespace(state=state, model=model)), "Some")
    for recorder in (bare, some):
        recorder.begin(info)
        for step in range(1, 4):
            lane["step"], lane["satisfaction"] = step, 0.1 * step
            recorder.note(info, 1.0, step == 3)
        page = Page(recorder.page())
        assert page.count("article", "step") == page.count("li", "clicked") == page.count("li", "wasted") == 3
        assert "document 2" in page.texts["title"]
        assert "click" in recorder.text()
    assert Page(bare.page()).count("svg") == 0
    told = "".join(Page(some.page()).data)
    assert "Satisfaction" in told
    assert "watch time 4.25" in told
    assert "The episode was over." in told
    assert "document 2 [topic 1]  click, watch time 4.25" in some.text()
    assert "topic 2 +2.0 to +2.0" in " ".join(told.split())
    pytest.importorskip("matplotlib")
    assert bare.picture().shape == some.picture().shape


def test_what_happened_is_shown_not_what_was_reported() -> None:
    truth = np.zeros((1, 1, len(SIGNALS)), np.float32)
    truth[0, 0, SIGNALS.index("skip")] = 1.0
    state = SimpleNamespace(slate=np.array([[5]]), feedback=truth)
    recorder = Recorder(SimpleNamespace(simulator=SimpleNamespace(state=state)))
    info = {"user_id": -1, "slate": np.array([5]), "click": np.array([1.0])}
    recorder.begin(info)
    recorder.note(info, 1.0, False)
    page = Page(recorder.page())
    assert page.count("li", "passed") == 1
    assert page.count("li", "clicked") == 0


def test_memory_is_bounded(world_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "LONGEST_RECORD", 10)
    env, _ = played("recsim_llm/Music-v0", "html", 35, world=world_folder, rules={"churn": -60.0})
    assert len(env.unwrapped._recorder.moments) == 11
    page = Page(env.render())
    assert "The first 24 steps are no longer remembered." in page.data
    assert page.count("article", "step") == 11
    monkeypatch.setattr(render, "MOST_NUMBERS", 1)
    monkeypatch.setattr(render, "SHORTEST_RECORD", 4)
    env, _ = played("recsim_llm/Music-v0", "html", 35, world=world_folder, rules={"churn": -60.0})
    assert len(env.unwrapped._recorder.moments) == 5


def test_going_back_forgets_the_steps_taken_back(world_folder: str) -> None:
    env, _ = played("recsim_llm/Music-v0", "html", 6, world=world_folder)
    snapshot = env.unwrapped.get_state()
    for item in (1, 2, 3):
        env.step(item)
    env.unwrapped.set_state(snapshot)
    env.step(9)
    straight, _ = played("recsim_llm/Music-v0", "html", 6, world=world_folder)
    straight.step(9)
    assert env.render() == straight.render()


def test_a_new_episode_is_a_new_page(world_folder: str) -> None:
    env, _ = played("recsim_llm/Music-v0", "html", 6, world=world_folder)
    env.reset()
    env.step(4)
    assert Page(env.render()).count("article", "step") == 1


def test_picture_shows_the_whole_episode(world_folder: str) -> None:
    pytest.importorskip("matplotlib")
    rules = {"churn": -60.0}
    early, late, again = (
        played("recsim_llm/News-v0", "rgb_array", n, world=world_folder, rules=rules)[0].render() for n in (4, 30, 30)
    )
    assert early.shape == late.shape == (720, 1280, 3)
    assert early.dtype == np.uint8
    assert np.array_equal(late, again)
    right = slice(680, None)
    assert (early[:, right] != late[:, right]).any(axis=2).mean() > 0.01  # the charts have moved on
    assert (late[:200, :680] < 128).any()  # who she is
    shortest = played("recsim_llm/News-v0", "rgb_array", 0, world=world_folder)[0].render()
    assert shortest.shape == early.shape


def moments(satiation: list[list[float]]) -> list[Moment]:
    nothing = np.zeros((0, len(SIGNALS)), np.float32)
    return [
        Moment(n, 0, 0.0, 0, 0.0, np.zeros(0, np.int64), nothing, satiation=np.array(row, np.float32))
        for n, row in enumerate(satiation)
    ]


def test_strips_are_the_satiation() -> None:
    found = charts.strips(moments([[0.0, 0.0, 0.01], [0.5, 0.2, 0.0], [0.5, 0.0, 0.0], [1.0, 0.0, 0.02]]), "abc")
    assert [(strip.name, round(strip.peak, 3)) for strip in found] == [("a", 1.0), ("b", 0.2)]
    assert found[0].runs == [(250.0, 500.0, 0.5), (750.0, 250.0, 1.0)]
    assert found[1].runs == [(250.0, 250.0, 0.2)]
    many = charts.strips(moments([[0.1 * (n == 777)] for n in range(1000)]), "a")
    assert many[0].runs == [(775.0, 5.0, 0.1)]  # a peak within a column is not lost


def test_lines_are_the_values() -> None:
    values = np.array([[2.0, -2.0], [1.0, 0.0], [0.0, -1.0]], np.float32)
    found = charts.chart(moments([[]] * 3), values, ["a", "b"], [0])
    assert (found.low, found.high, found.zero) == (-2.0, 2.0, 50.0)
    assert found.lines == [charts.Line("a", "0.0,0.0 500.0,25.0 1000.0,50.0", 2.0, 0.0)]
    assert charts.chart(moments([[]] * 3), values + 9, ["a", "b"], [0], with_zero=False).zero is None
    assert found.others == ["0.0,100.0 500.0,50.0 1000.0,75.0"]
    long = charts.chart(moments([[]] * 1001), np.zeros((1001, 1), np.float32), ["a"], [0])
    assert len(long.lines[0].points.split()) == charts.MOST_POINTS


def test_themes_with_a_line_are_liked_moved_or_disliked() -> None:
    leaning = np.zeros((5, 20), np.float32)
    leaning[:] = np.linspace(3, -3, 20)
    leaning[0, 9] += 5.0
    chosen = charts.chosen_themes(leaning)
    assert {0, 1, 2, 9, 18, 19} <= set(chosen)
    assert chosen == sorted(chosen)  # by last value
    assert len(chosen) == charts.LIKED + charts.MOVED + charts.DISLIKED
    assert charts.chosen_themes(leaning[:, :2]) == [0, 1]


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (when(0.0), "day 0 at 00:00"), (when(3.75), "day 3 at 18:00"), (span(0.5 / 24), "30 min"), (span(1.5), "36 h"),
        (span(2.5), "2.5 days"), (lasted(45.2), "45 s"), (lasted(119.6), "2 min"), (lasted(150), "2 min 30 s"),
    ],
)  # fmt: skip
def test_times_in_words(told: str, expected: str) -> None:
    assert told == expected


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["recsim-llm", *arguments])
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_command(world_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    out = tmp_path / "new" / "page.html"
    common = ["timeline", "news", "--agent", "oracle", "--seed", "2", "--steps", "9", "--world", world_folder]
    assert run(monkeypatch, *common, "--out", str(out)) == 0
    assert "9 steps" in capsys.readouterr().out
    assert Page(out.read_text(encoding="utf-8")).count("article", "step") == 9
    first = out.read_bytes()
    assert run(monkeypatch, *common, "--out", str(out)) == 0
    assert out.read_bytes() == first
    for wrong, word in (
        (["--out", "page.pdf"], ".html"),
        (["--agent", "orcle"], "oracle"),
        (["--world", "nwes"], "nwes"),
    ):
        assert run(monkeypatch, *common, "--out", str(tmp_path / "x.html"), *wrong) == 1
        assert word in capsys.readouterr().err
    assert not (tmp_path / "x.html").exists()
    pytest.importorskip("matplotlib")
    assert run(monkeypatch, *common, "--out", str(tmp_path / "page.png")) == 0
    assert (tmp_path / "page.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("name", ["InterestEvolution", "InterestExploration", "LongTermSatisfaction"])
def test_command_for_what_has_no_catalogue(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    if f"recsim_llm/{name}-v0" not in gym.registry:
        pytest.skip("not registered")
    out = tmp_path / "page.html"
    assert run(monkeypatch, "timeline", name, "--steps", "7", "--out", str(out)) == 0, capsys.readouterr().err
    page = Page(out.read_text(encoding="utf-8"))
    assert page.count("article", "step") == 7
    assert sum(page.count("li", look) for look in ("clicked", "unseen", "wasted")) == page.count("li", "slot")
