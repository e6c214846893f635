"""The command line: every verb works, every mistake gets one sentence and an exit code, nothing heavy at start."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from recsim_llm import cli

ITEMS = "item_id,text,category\n" + "".join(
    f"a{n},A quiet piece number {n} for {('harp', 'drums', 'choir')[n % 3]} at night,{('x', 'y', 'z')[n % 3]}\n"
    for n in range(40)
)
USERS = "user_id,persona\n" + "".join(f"u{n},I love {('harp', 'drums')[n % 2]} but I hate choir.\n" for n in range(12))


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command line in this process: (exit code, standard output, standard error)."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["recsim-llm", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else int(bool(exit_.code))
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "items.csv").write_text(ITEMS)
    (tmp_path / "users.csv").write_text(USERS)
    return tmp_path


def test_help_answers_at_once_and_loads_nothing_heavy():
    code = (
        "import sys\nfrom recsim_llm import cli\n"
        "heavy = {'torch', 'numba', 'pandas', 'matplotlib', 'transformers', 'pyarrow', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\nsys.argv = ['recsim-llm', '--help']\ncli.main()"
    )
    best = 99.0
    for _ in range(5):
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        best = min(best, time.perf_counter() - started)
        assert done.returncode == 0, done.stderr
        assert "world" in done.stdout
    assert best < 2.0  # 0.4 s on an idle machine; the suite may share its cores


@pytest.mark.parametrize("kind", ["envs", "agents", "worlds", "encoders"])
def test_list(run, kind):
    code, out, _ = run("list", kind, "--json")
    assert code == 0
    assert len(json.loads(out)) >= 2
    assert run("list", kind)[0] == 0


def test_show_environment_agent_world(run):
    code, out, _ = run("show", "News", "--json")
    page = json.loads(out)
    assert code == 0
    assert page["id"] == "recsim_llm/News-v0"
    assert "Episode End" in page["text"]
    assert "LinUCB" in run("show", "linucb")[1] or "Upper" in run("show", "linucb")[1]
    world = json.loads(run("show", "music", "--json")[1])
    assert world["users"] >= 2000
    assert run("show", "recsim_llm/Music-v0")[0] == 0


def test_play_shows_persona_and_slate(run):
    code, out, _ = run("play", "-e", "news", "-a", "oracle", "-n", "3")
    assert code == 0
    assert "step 3" in out
    assert "[" in out
    same = run("play", "-e", "news", "-a", "oracle", "-n", "3")[1]
    assert out == same


def test_train_saves_an_agent_that_plays(run, files):
    code, out, err = run(
        "train", "-a", "popularity", "-e", "music", "-n", "640", "--episodes", "20", "-o", "p.zip", "--json"
    )
    assert code == 0, err
    summary = json.loads(out)
    assert summary["timesteps"] >= 640
    assert summary["ci95"][0] <= summary["mean_return"] <= summary["ci95"][1]
    code, out, err = run("play", "-e", "music", "-a", "p.zip", "-n", "2")
    assert code == 0, err


def test_bench_results_report(run, files):
    arguments = [
        "bench",
        "-e",
        "music",
        "-a",
        "random",
        "-a",
        "oracle",
        "-a",
        "popularity",
        "--seeds",
        "2",
        "-n",
        "400",
    ]
    arguments += ["--episodes", "10", "--lanes", "4", "--out", "out", "--jobs", "0"]
    code, _, err = run(*arguments)
    assert code == 0, err
    code, rows, _ = run("results", "out")
    assert code == 0
    assert rows.count("\n") >= 7
    assert "wall" not in rows.splitlines()[0]
    assert run(*arguments)[0] == 0  # continues: nothing left to do
    assert run("results", "out")[1] == rows
    code, out, _ = run("report", "out", "--format", "md")
    assert code == 0
    assert "oracle" in out
    code, _, err = run(*[*arguments, "--set", "popularity.epsilon=0.3"])
    assert code == 1
    assert "epsilon" in err


def test_world_build_then_use(run, files):
    code, out, err = run(
        "world",
        "build",
        "--items",
        "items.csv",
        "--users",
        "users.csv",
        "--out",
        "mine",
        "--encoder",
        "hashing",
        "--width",
        "8",
    )
    assert code == 0, err
    code, out, err = run("play", "-e", "news", "--world", "mine", "-n", "2")
    assert code == 0, err
    assert "quiet piece" in out


WRONG = [
    (["lst"], 2, "list"),
    (["list", "agnets"], 1, "agents"),
    (["show", "Nwes"], 1, "ews"),
    (["check", "recsim_llm/Musik-v0"], 1, "Music"),
    (["play", "-e", "musc"], 1, "music"),
    (["play", "-e", "music", "-a", "linuc"], 1, "linucb"),
    (["play", "-e", "music", "--user", "nobody-of-that-name"], 1, "nobody-of-that-name"),
    (["play", "-e", "music", "--world", "nowhere"], 1, "nowhere"),
    (["play", "-n", "0"], 2, "greater"),
    (["train", "-a", "linucb", "--set", "alhpa=1"], 1, "alpha"),
    (["train", "-a", "linucb", "--set", "alpha"], 1, "NAME=VALUE"),
    (["train"], 2, "--agent"),
    (["bench", "-a", "randm"], 1, "random"),
    (["bench", "-e", "new"], 1, "news"),
    (["bench", "--preset", "standrad"], 1, "standard"),
    (["bench", "--set", "slate_size=3"], 1, "env.NAME"),
    (["bench", "-a", "random", "--set", "env.slate_siz=3", "-e", "news"], 1, "slate_siz"),
    (["bench", "--backend", "slurm", "-a", "random"], 1, "local"),
    (["results", "no-such-folder"], 1, "no-such-folder"),
    (["report", "no-such-folder"], 1, "no-such-folder"),
    (["report", ".", "--format", "pdf"], 1, "pdf"),
    (["world", "build", "--items", "absent.csv", "--out", "w"], 2, "absent.csv"),
    (["world", "rebuild", "musik"], 1, "music"),
]


@pytest.mark.parametrize(("arguments", "code", "word"), WRONG, ids=[" ".join(row[0]) for row in WRONG])
def test_wrong_commands_say_what_to_do(run, files, arguments, code, word):
    seen, out, err = run(*arguments)
    assert seen == code, (out, err)
    assert word in out + err
    assert "Traceback" not in out + err
    assert not list(files.glob("w*"))


BAD_FILES = {
    "missing column": ("item_id,words\na,b\n", "text"),
    "empty text": ("item_id,text\na,hello there\nb,\n", "row 3"),
    "duplicate ids": ("item_id,text\na,hello\na,again\n", "row 3"),
    "not a number": ("item_id,text,price\na,hello,NaN\n", "price"),
    "wrong encoding": (b"item_id,text\na,caf\xe9\n", "UTF-8"),
    "image outside": ("item_id,text,image\na,hello,../secret.png\n", "image"),
}


@pytest.mark.parametrize("what", BAD_FILES)
def test_bad_files_exit_2_and_leave_nothing(run, files, what):
    content, word = BAD_FILES[what]
    (files / "bad.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    before = sorted(files.iterdir())
    code, out, err = run(
        "world", "build", "--items", "bad.csv", "--users", "users.csv", "--out", "w", "--encoder", "hashing"
    )
    assert code == 2, (out, err)
    assert word.lower() in err.lower()
    assert err.count("Error:") == 1
    assert "Traceback" not in err
    assert sorted(files.iterdir()) == before


def test_debug_shows_where(run, files):
    with pytest.raises(Exception, match="nowhere"):
        run("--debug", "play", "-e", "music", "--world", "nowhere")


def test_doctor_and_version(run):
    code, out, _ = run("doctor", "--json")
    found = json.loads(out)
    assert code == 0
    assert set(found) == {"versions", "extras", "machine", "problems"}
    assert run("--version")[1].startswith("recsim-llm 0.")


def test_speed_measures_ratios(run):
    code, out, _ = run("speed", "--lanes", "4", "--seconds", "0.05", "--json")
    assert code == 0
    tables = json.loads(out)["tables"]
    assert {row["items"] for row in tables["reference"]} == {1000, 100000}
    assert all(0 < row["ratio to bare"] < 1 for row in tables["reference"])
    assert all(row["steps/s"] > 0 for row in tables["scalar"])


def test_without_matplotlib_the_leaderboard_is_printed_all_the_same(run, files, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in [name for name in sys.modules if name.startswith("matplotlib.")]:
        monkeypatch.setitem(sys.modules, name, None)
    arguments = ["bench", "-e", "music", "-a", "random", "-a", "oracle", "--seeds", "1", "-n", "0", "--episodes", "5"]
    code, out, err = run(*arguments, "--out", "out", "--jobs", "0")
    assert code == 0, err
    assert "oracle" in out
    assert ".[benchmarks]" in err
