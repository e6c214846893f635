"""What README and docs say is true: numbers come from stored results or from the code, and sentences hold."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from recsim_llm import agents
from recsim_llm._version import __version__
from recsim_llm.agents.core.env_runner import EnvironmentSpec
from recsim_llm.agents.docs import abilities, built_in
from recsim_llm.benchmarks import preset
from recsim_llm.benchmarks.analysis import readme, scores
from recsim_llm.envs.registration import VARIANTS, scenarios

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
AUDITED = (
    "README.md", "docs/results.md", "docs/classics.md", "docs/environments-guide.md", "docs/agents-guide.md",
    "docs/worlds.md", "docs/language-models.md", "docs/benchmarks.md", "docs/architecture.md",
)  # fmt: skip
"""Pages whose every number is generated or checked here; docs/performance.md also says on what it was measured."""
TEXTS = {page: (ROOT / page).read_text(encoding="utf-8") for page in AUDITED}
TOGETHER = "\n".join(TEXTS.values())
GENERATED = re.compile(r"<!-- (\w+):begin -->.*?<!-- \1:end -->", re.DOTALL)
BLOCK = re.compile(r"```.*?```", re.DOTALL)
NUMBER = re.compile(
    r"(?<![\w.,-])\d[\d,.]*\d(?![\w])|(?<![\w.,-])\d(?![\w])"
    r"|\b(?:four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|twenty|thirty|forty|fifty|sixty|"
    r"hundred|thousand|million)\b",
    re.IGNORECASE,
)


def stored(name: str):
    return json.loads((readme.STORED / name).read_text(encoding="utf-8"))


def slate(name: str) -> int:
    return gym.envs.registration.load_env_creator(gym.spec(f"recsim_llm/{name}-v0").entry_point).scenario.slate_size


def slowest_over_a_thousand_items() -> float:
    rows = stored("speed.json")["tables"]["reference"]
    return min(row["user-steps/s"] for row in rows if row["items"] == 1000 and row["lanes"] >= 64)


CLAIMS = {
    r"One core simulates more than a million user-steps": lambda: (
        stored("speed.json")["threads"] == 1 and slowest_over_a_thousand_items() > 1e6
    ),
    r"Random scores 0\s+and the myopic oracle 1[:.] [aA] score below 0 or above 1 is possible": lambda: (
        {line["agent"]: line["score"]["value"] for line in stored("standard/summary.json")["agents"]}["oracle"] == 1
    ),
    r"ten recommenders on two worlds": lambda: (len(preset("demo").agents), len(preset("demo").scenarios)) == (10, 2),
    r"Ten lines": lambda: (
        len(re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0].split("\n\n")[-1].splitlines()) <= 10
    ),
    r"a row of 5": lambda: slate("Video") == 5,
    r"a page of 5": lambda: slate("News") == 5,
    r"a page of 10": lambda: slate("Ecommerce") == 10,
    r"a feed of 5": lambda: slate("Social") == 5,
    r"opt_out=0\.2": lambda: gym.make("recsim_llm/News-v0", drift="abrupt", opt_out=0.2) is not None,
    r"registered under fourteen task variants": lambda: len(VARIANTS) == 14,
    r"Ie et al\. 2019": lambda: True,  # the year of a paper
    r"searches catalogues of 100,000 items and more": lambda: True,  # a size that tests/envs/test_wrappers.py builds
    r'\["jazz trios", 1\], \["opera", -1\]': lambda: True,  # an example's valences
    r'rules=\{"satiation": 2\.0\}': lambda: gym.make("recsim_llm/News-v0", rules={"satiation": 2.0}) is not None,
    r"arXiv 2108\.13264": lambda: "arXiv 2108.13264" in str(scores.__doc__),
}
"""What pages say with a number outside of their generated sections, and whether it is so."""


def typed(text: str) -> str:
    """A page without generated sections, code blocks and the numbers of lists."""
    return re.sub(r"^\d+\. ", "", BLOCK.sub("", GENERATED.sub("", text)), flags=re.MULTILINE)


@pytest.mark.parametrize("page", AUDITED)
def test_every_number_of_a_page_is_generated_or_checked(page):
    text = typed(TEXTS[page])
    covered = [match.span() for claim in CLAIMS for match in re.finditer(claim, text)]
    alone = [
        text[max(0, match.start() - 40) : match.end() + 20]
        for match in NUMBER.finditer(text)
        if not any(low <= match.start() and match.end() <= high for low, high in covered)
        and text[match.start() - 1 : match.start()] not in ("#",)
    ]
    assert not alone, "generate these numbers (benchmarks/analysis/readme.py) or check them in CLAIMS"


@pytest.mark.parametrize("claim", CLAIMS)
def test_claim_holds(claim):
    assert re.search(claim, TOGETHER), "no page says it any more"
    assert CLAIMS[claim]()


FALSE = {
    "late conversions": "purchases happen in the step of the click",
    "what is shared spreads": "each user has a world of her own",
    "Scores lie between": "a score may lie outside 0 and 1",
    "lie between random (0) and the oracle": "a score may lie outside 0 and 1",
    "All recommenders of": "lookahead takes no lists of candidates",
    "records the probability of what it chose, and": "not all know it",
    "Fifty-six agents": "the registry counts them",
    "Without the clone: ": "the package is on no index",
    "0.000 [0.000, 0.000]": "who does not learn earns nothing while learning",
}


@pytest.mark.parametrize("sentence", FALSE)
def test_what_was_found_false_is_not_said_again(sentence):
    for path in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]:
        assert sentence not in path.read_text(encoding="utf-8"), f"{path}: {FALSE[sentence]}"


def test_agents_are_counted_by_the_registry():
    assert f"There are {len(built_in())} agents" in TEXTS["docs/agents-guide.md"]
    assert f"Ten of {len(built_in())} agents" in README
    assert len(built_in()) == len(set(built_in()) & set(agents.names()))
    for path in (ROOT / "CHANGELOG.md", ROOT / "docs" / "agents.md", ROOT / "docs" / "agents-guide.md"):
        for said in re.findall(r"\b(\d[\d,]*|\w+ty-\w+) agents\b", path.read_text(encoding="utf-8")):
            assert said in (str(len(built_in())),), (path, said)


def test_abilities_are_those_of_a_trial():
    listed = EnvironmentSpec.of(gym.make("recsim_llm/News-v0", num_candidates=20))
    refusing = [name for name in built_in() if agents.get(name).refusal(listed, agents.get(name).Config()) is not None]
    assert refusing
    assert f"candidates by all but {', '.join(refusing)}." in abilities()


TRAINED_ELSEWHERE = ("tuned",)
"""Its learning takes long, and it draws nothing while it serves."""


@pytest.mark.parametrize("name", built_in())
def test_who_knows_the_probability_of_what_it_draws(name):
    """While it learns, and while it serves with exploration."""
    kind = agents.get(name)
    if kind.needs_torch:
        pytest.importorskip("stable_baselines3")
    extra = {"truth": True} if kind.needs_truth else {}
    env = gym.make_vec("recsim_llm/News-v0", num_envs=4, users="train", slate_size=2, **extra)
    try:
        agent = agents.make(name, env, seed=0)
    except ImportError as missing:
        pytest.skip(str(missing))
    logged: list[bool] = []

    def note(names, _):
        transition = names["transition"]
        logged.append(bool(np.isnan(transition.propensity[transition.valid]).any()))
        return True

    if kind.learns and name not in TRAINED_ELSEWHERE:
        agent.learn(96, callback=note)
        assert any(logged) == (not kind.logs_propensity or (not kind.knows_propensity and name != "shortlist"))
    observation, info = env.reset(seed=1)
    unknown, state = [], None
    for step in range(3):
        agent.observe(info)
        slates, state = agent.predict(observation, state, np.full(4, step == 0), action_masks=env.unwrapped.available())
        unknown.append(np.isnan(agent.propensity).any())
        observation, _, _, _, info = env.step(slates)
    assert any(unknown) == (not kind.knows_propensity)


def test_no_purchase_of_ads_comes_late():
    """Each is in the feedback of the very step of its click."""
    rules = {"no_click": -2.0, "cart": -5.0, "purchase": -5.0}
    env = gym.make_vec("recsim_llm/Ads-v0", num_envs=256, rules=rules)
    env.action_space.seed(0)
    env.reset(seed=0)
    bought = 0
    for _ in range(30):
        infos = env.step(env.action_space.sample())[4]
        bought += int(infos["purchase"].sum())
        assert np.all(infos["purchase"] <= infos["click"])
    assert bought > 200


def test_users_of_social_are_islands():
    """What others are shown, like and share changes nothing for a user: her lane is the same to the bit."""

    def lane(others: int) -> list[np.ndarray]:
        env = gym.make_vec("recsim_llm/Social-v0", num_envs=8, rules={"like": -9.0, "share": -9.0})
        rng, mine = np.random.default_rng(others), np.random.default_rng(0)
        env.reset(seed=3)
        found = []
        for _ in range(40):
            actions = rng.integers(0, 1248, (8, 5))
            actions[0] = mine.integers(0, 1248, 5)
            observation, reward, *_ = env.step(actions)
            found += [observation[0].copy(), reward[:1].copy()]
        return found

    assert all(np.array_equal(left, right) for left, right in zip(lane(1), lane(2), strict=True))


def test_the_command_shows_the_statements(tmp_path, monkeypatch, capsys):
    from recsim_llm import cli

    (tmp_path / "items.csv").write_text("text\n" + "".join(f"a text about thing {n}\n" for n in range(30)))
    (tmp_path / "users.csv").write_text(
        'user_id,persona\na,"I love slow trains. I hate loud music."\n'
        + "".join(f"u{n},I like it.\n" for n in range(9))
    )
    monkeypatch.chdir(tmp_path)
    arguments = "world build --items items.csv --users users.csv --out made --encoder hashing --width 8"
    monkeypatch.setattr("sys.argv", ["recsim-llm", *arguments.split()])
    with contextlib.suppress(SystemExit):
        cli.main()
    out = " ".join(capsys.readouterr().out.split())
    assert re.search(r"statements: [^:]*slow trains[^;]* \(\+0\.\d+\); [^:]*loud music[^;]* \(-0\.\d+\)", out), out
    import pyarrow.parquet as pq

    assert "statements" in pq.read_table(tmp_path / "made" / "users.parquet").column_names


def test_the_study_of_tuning_stands_beside_recommenders_without_texts():
    found = stored("tuning/results.json")["references"]
    text = next(part.group() for part in GENERATED.finditer(TEXTS["docs/language-models.md"]) if part[1] == "language")
    for name, said in (("popularity", "popularity"), ("ease", "EASE")):
        assert f"{said} {found[name]['recall']['mean']:.3f}" in text


def test_references_of_the_tuning_study_are_those_of_a_plain_count():
    """Popularity by hand on a small table; EASE finds two groups of users that popularity does not."""
    from recsim_llm.benchmarks.studies.tuning_data import DEPTH, Split, references

    rng = np.random.default_rng(0)
    users, items = 60, 80
    group = np.arange(users) % 2
    liked = rng.random((users, items)) < np.where((np.arange(items) % 2)[None] == group[:, None], 0.5, 0.02)
    part = rng.random((users, items))
    cold = np.zeros(items, bool)
    train, test = part < 0.6, part > 0.8
    split = Split(
        train.reshape(-1), train, (liked & train).astype(float), liked & (part >= 0.6) & ~test, liked & test, cold,
        np.zeros_like(liked),
    )  # fmt: skip
    found = references(split)
    count = (liked & train).sum(0)
    recalls = []
    for user in np.flatnonzero((liked & test).any(1) & (liked & train).any(1)):
        open_items = [i for i in range(items) if not train[user, i] and not split.validation[user, i]]
        best = sorted(open_items, key=lambda i: (-count[i], i))[:DEPTH]
        wanted = np.flatnonzero(liked[user] & test[user])
        recalls.append(len(set(best) & set(wanted)) / min(len(wanted), DEPTH))
    assert found["popularity"]["recall"] == pytest.approx(np.mean(recalls), abs=0.02)
    assert found["ease"]["recall"] > found["popularity"]["recall"] + 0.1


def test_findings_are_those_of_the_summary():
    """The generated conclusions against the stored summary, by other code."""
    summary = {line["agent"]: line["scores"] for line in stored("standard/summary.json")["agents"]}
    able = [name for name in summary if name not in ("random", "oracle", "lookahead")]
    text = next(part.group() for part in GENERATED.finditer(TEXTS["docs/results.md"]) if part[1] == "findings")
    for scenario, popular in summary["popularity"].items():
        above = [name for name in able if summary[name][scenario]["low"] > popular["high"]]
        row = next(line for line in text.splitlines() if line.startswith(f"| {scenario[11:-3]} |"))
        assert row.split("|")[2].strip() == f"{len(above)} of {len(able) - 1}"
        assert {name for name in row.split("|")[3].strip().split(", ") if name != "none"} <= set(above)
        low = {name for name in able if summary[name][scenario]["low"] <= 0}
        assert {name for name in row.split("|")[4].strip().split(", ") if name != "none"} == low


def test_scores_of_the_readme_are_those_of_the_summary():
    summary = {line["agent"]: line["score"] for line in stored("standard/summary.json")["agents"]}
    rows = re.findall(
        r"^\| \[\*?(\w+)\*?\]\(docs/agents.*\| (-?[\d.]+) \[(-?[\d.]+), (-?[\d.]+)\] \|$", README, re.MULTILINE
    )
    assert len(rows) == 13
    for name, *said in rows:
        value = summary[name]
        assert [float(number) for number in said] == pytest.approx(
            [value[k] for k in ("value", "low", "high")], abs=6e-3
        )


def test_the_guide_has_every_task_variant():
    table = TEXTS["docs/environments-guide.md"].split("| part of the id |")[1].split("\n\n")[0]
    assert sorted(re.findall(r"`([\w-]+)`", table)) == sorted(VARIANTS)


def test_citation_is_of_this_version():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    fields = dict(re.findall(r"^([\w-]+): (.+)$", text, re.MULTILINE))
    assert fields["cff-version"] == "1.2.0"
    assert fields["version"] == __version__
    assert fields["license"] == "Apache-2.0"
    assert {"message", "title", "type"} <= set(fields)
    assert "  - name: The recsim_llm developers\n" in text
    assert "doi" not in text.lower()
    assert "http" not in text


def test_there_are_as_many_scenarios_as_rows():
    rows = re.findall(r"^\| `recsim_llm/(\w+-v0)` \|", README, re.MULTILINE)
    assert sorted(rows) == sorted(name.removeprefix("recsim_llm/") for name in scenarios())
