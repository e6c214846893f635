"""Logs of learning under the names that Stable-Baselines3's have, so that its tools read them.

    <folder>/<tb_log_name>_<k>/progress.csv, progress.json, log.txt, events.out.tfevents...   means by tag
    <folder>/<tb_log_name>_<k>/0.monitor.csv                                                  one row for each episode

Tags are ``rollout/ep_rew_mean``, ``rollout/ep_len_mean`` and ``rollout/success_rate`` (means of the last 100 episodes),
``rollout/exploration_rate``, ``time/...``, what an agent records itself as ``train/...``, and of the steps since the
row before ``recsys/ctr`` (clicks by slots looked at), ``recsys/coverage`` (share of the catalogue that was shown) and
``recsys/diversity`` (share of pairs of a slate with different topics).
"""

from __future__ import annotations

import csv
import json
import logging
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from recsim_llm.agents.common.item_stats import seen_slots
from recsim_llm.agents.core.env_runner import Transition
from recsim_llm.agents.core.log_formats import FORMATS, Events, Format, opened
from recsim_llm.errors import require, unknown

if TYPE_CHECKING:
    from recsim_llm.agents.core.base import Agent

LAST = 100
"""Episodes in a mean, and between two rows if nothing else is said."""

Excluded = tuple[str, ...]


class RunLogger(dict[str, float]):
    """The last value of each tag; what was recorded since the last row goes to the outputs with :meth:`dump`.

    It has what Stable-Baselines3 and its callbacks use of their logger.

    Attributes:
        name_to_value: What was recorded since the last row.
        name_to_excluded: Formats that leave a tag out.
        output_formats: Where rows go.
        dir: The run's folder, if there is one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.name_to_value: dict[str, Any] = {}
        self.name_to_count: dict[str, int] = {}
        self.name_to_excluded: dict[str, Excluded] = {}
        self.output_formats: list[Format] = []
        self.dir: str | None = None

    def __setitem__(self, key: str, value: Any) -> None:
        self.record(key, value)

    def record(self, key: str, value: Any, exclude: str | Sequence[str] | None = None) -> None:
        """Notes a value for the next row; the last one of a tag counts.

        Args:
            key: Tag, such as "train/loss".
            value: A number; texts and arrays go where a format takes them.
            exclude: Formats that leave it out.
        """
        super().__setitem__(key, value)
        self.name_to_value[key] = value
        self.name_to_excluded[key] = (exclude,) if isinstance(exclude, str) else tuple(exclude or ())

    def record_mean(self, key: str, value: float | None, exclude: str | Sequence[str] | None = None) -> None:
        """Notes a value of which the next row has the mean; None is left out."""
        if value is None:
            return
        count = self.name_to_count.get(key, 0)
        mean = float(self.name_to_value.get(key, 0.0)) if count else 0.0
        self.record(key, (mean * count + value) / (count + 1), exclude)
        self.name_to_count[key] = count + 1

    def dump(self, step: int = 0) -> None:
        """Writes a row to every output and begins the next."""
        for output in self.output_formats:
            kept = {
                key: value for key, value in self.name_to_value.items() if output.name not in self.name_to_excluded[key]
            }
            output.write(kept, step)
        self.name_to_value, self.name_to_count, self.name_to_excluded = {}, {}, {}

    def log(self, *args: object, level: int = logging.INFO) -> None:
        """Passes a message on to Python's logging."""
        logging.getLogger(__name__).log(level, "%s", " ".join(map(str, args)))

    debug = info = warn = error = log

    def get_dir(self) -> str | None:
        """The run's folder, if there is one."""
        return self.dir

    def close(self) -> None:
        """Closes the outputs."""
        for output in self.output_formats:
            output.close()
        self.output_formats = []


class Monitor:
    """A file of episodes as Stable-Baselines3's ``Monitor`` writes it and its ``load_results`` reads it.

    Args:
        path: Such as "0.monitor.csv"; if it exists, rows are added.
        env_id: Id of the environment.
        info_keywords: Keys of the last info of an episode that become columns.
    """

    def __init__(self, path: Path, env_id: str | None, info_keywords: Sequence[str] = ()) -> None:
        self.keywords = tuple(info_keywords)
        self.t_start = time.time()
        if path.exists():
            with path.open(encoding="utf-8") as before:
                self.t_start = float(json.loads(before.readline()[1:])["t_start"])
            self.stream: TextIO = path.open("a", encoding="utf-8", newline="")
        else:
            self.stream = path.open("x", encoding="utf-8", newline="")
            self.stream.write("#" + json.dumps({"t_start": self.t_start, "env_id": str(env_id)}) + "\n")
            self.stream.write(",".join(("r", "l", "t", *self.keywords)) + "\n")
        self.writer = csv.DictWriter(self.stream, ("r", "l", "t", *self.keywords), lineterminator="\n")

    def write(self, total: float, length: int, info: dict[str, Any]) -> None:
        """One episode: its return, its length [steps], and its last info."""
        row = {"r": round(total, 6), "l": length, "t": round(time.time() - self.t_start, 6)}
        self.writer.writerow(row | {key: info[key] for key in self.keywords})

    def close(self) -> None:
        """Closes the file."""
        self.stream.close()


class RunLogs:
    """Writes the logs of an agent's learning.

    Args:
        folder: Where runs are written.
        formats: Among "stdout", "log", "json", "csv", "tensorboard".
        info_keywords: Columns of the monitor's file beside return, length and time.
    """

    def __init__(
        self, folder: str | Path, formats: Sequence[str] = ("csv", "tensorboard"), info_keywords: Sequence[str] = ()
    ) -> None:
        for name in formats:
            if name not in FORMATS:
                raise unknown("log format", name, FORMATS)
        self.folder, self.formats, self.keywords = Path(folder), tuple(formats), tuple(info_keywords)
        self.path: Path | None = None
        self.episodes = 0
        self._successes: deque[bool] = deque(maxlen=LAST)

    def begin(self, agent: Agent, run: str = "run", log_interval: int | None = None, fresh: bool = False) -> None:
        """Opens the files: of a new run at first and where ``fresh``, else of the run before.

        Args:
            agent: Whose logs.
            run: Name of the run, the folder's without its number.
            log_interval: Episodes between two rows; None is 100.
            fresh: Whether to begin a new run.
        """
        begins = self.path is None or fresh
        if self.path is None or fresh:
            self.path, self.episodes = numbered(self.folder, run), 0
        agent.logger.output_formats = [opened(name, self.path) for name in self.formats]
        agent.logger.dir = str(self.path)
        spec = getattr(agent.env, "spec", None)
        self.monitor = Monitor(self.path / "0.monitor.csv", spec.id if spec else None, self.keywords)
        for output in agent.logger.output_formats:
            if begins and isinstance(output, Events):
                output.settings({"agent": agent.name, "seed": agent.seed, **agent.config.to_dict()})
        self._interval, self._since = LAST if log_interval is None else log_interval, 0
        self._running = agent.episode_sums.copy()
        self._started, self._first = time.perf_counter(), agent.num_timesteps
        self._clear(agent)

    def after_step(self, agent: Agent, transition: Transition) -> None:
        """Takes a step of every lane in; call it when :attr:`Agent.num_timesteps` counts it."""
        self._running[0] += np.where(transition.valid, transition.reward, 0.0)
        self._running[1] += transition.valid
        for lane in np.flatnonzero(transition.terminated | transition.truncated).tolist():
            info = {name: value[lane] for name, value in transition.info.items() if np.ndim(value)}
            self._ended(float(self._running[0, lane]), int(self._running[1, lane]), info)
            self._running[:, lane] = 0.0
        self._look(transition)
        if self._since >= self._interval:
            self.write(agent)

    def _ended(self, total: float, length: int, info: dict[str, Any]) -> None:
        self.monitor.write(total, length, info)
        self.episodes += 1
        self._since += 1
        if "is_success" in info:
            self._successes.append(bool(info["is_success"]))

    def _look(self, transition: Transition) -> None:
        """Counts what the row's recsys/ tags speak of."""
        info, valid = transition.info, transition.valid
        if not {"slate", "click", "skip"} <= set(info):
            return
        shown, seen = seen_slots(transition)
        self._clicks += float((np.asarray(info["click"]) * seen).sum())
        self._looks += int(seen.sum())
        self._shown[shown[(shown >= 0) & valid[:, None]]] = True
        if "diversity" in info:
            self._diversity += float(np.asarray(info["diversity"])[valid].sum())
            self._slates += int(valid.sum())

    def _clear(self, agent: Agent) -> None:
        self._clicks, self._looks, self._diversity, self._slates = 0.0, 0, 0.0, 0
        self._shown = np.zeros(agent.env_spec.items, np.bool_)

    def write(self, agent: Agent) -> None:
        """Records the tags and writes a row."""
        logger, elapsed = agent.logger, max(time.perf_counter() - self._started, 1e-9)
        if agent.episodes:
            returns, lengths = np.mean(agent.episodes, axis=0).tolist()
            logger.record("rollout/ep_rew_mean", returns)
            logger.record("rollout/ep_len_mean", lengths)
        if self._successes:
            logger.record("rollout/success_rate", float(np.mean(self._successes)))
        if isinstance(rate := getattr(agent, "epsilon", None), float):
            logger.record("rollout/exploration_rate", rate)
        if self._looks:
            logger.record("recsys/ctr", self._clicks / self._looks)
        if self._shown.any():
            logger.record("recsys/coverage", float(self._shown.mean()))
        if self._slates and agent.env_spec.slate_size > 1:
            logger.record("recsys/diversity", self._diversity / self._slates)
        logger.record("time/fps", int((agent.num_timesteps - self._first) / elapsed))
        logger.record("time/episodes", self.episodes, exclude="tensorboard")
        logger.record("time/time_elapsed", int(elapsed), exclude="tensorboard")
        logger.record("time/total_timesteps", agent.num_timesteps, exclude="tensorboard")
        logger.dump(agent.num_timesteps)
        self._since = 0
        self._clear(agent)

    def end(self, agent: Agent) -> None:
        """Writes what is left since the last row and closes the files."""
        if self._since or self._looks:
            self.write(agent)
        agent.logger.close()
        self.monitor.close()

    def bridge(self) -> Any:
        """A callback of Stable-Baselines3 that writes episodes, for agents whose loop is its own."""
        base = require("stable_baselines3.common.callbacks", "agents").BaseCallback
        ended = self._ended

        class Episodes(base):  # type: ignore[misc, valid-type]
            """Hands finished episodes on."""

            def _on_step(self) -> bool:
                for info in self.locals["infos"]:
                    if "episode" in info:
                        ended(float(info["episode"]["r"]), int(info["episode"]["l"]), info)
                return True

        return Episodes()


def numbered(folder: Path, run: str) -> Path:
    """Makes ``folder/run_k``, k one more than the highest there; also where others do the same at the same time."""
    folder.mkdir(parents=True, exist_ok=True)
    taken = [path.name.removeprefix(f"{run}_") for path in folder.glob(f"{_literal(run)}_*")]
    number = max((int(text) for text in taken if text.isdecimal()), default=0)
    while True:
        number += 1
        try:
            (folder / f"{run}_{number}").mkdir()
        except FileExistsError:
            continue
        return folder / f"{run}_{number}"


def _literal(text: str) -> str:
    """A text in which no letter means something to ``glob``."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in text)
