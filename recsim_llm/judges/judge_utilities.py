"""Judge ratings as utilities of a world's users and items, asked for when a pair is first met.

A rating r on the scale of 1 to 5 becomes a utility on the line

    utility = intercept + slope r        slope = s / d        intercept = m - slope c

m and s are mean and standard deviation of the utilities of the world's head over many pairs, c and d those of the
judge's ratings of a sample of pairs. So a judge takes over the order of the pairs, and the world keeps how much users
click. The line is given instead where it must not be measured.
"""

from __future__ import annotations

import json
import logging
import math
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.errors import ConfigError
from recsim_llm.judges.base import HIGHEST, LOWEST, Judge, Pair, Verdict
from recsim_llm.judges.by_name import load_judge
from recsim_llm.judges.pairs import pairs_of, sample_pairs
from recsim_llm.simulator.state import Tables, tables
from recsim_llm.worlds.world import World

Index = NDArray[np.int64]

SAMPLE = 64
"""Pairs that a judge rates to find its line."""

ITEMS_EACH = 2
"""Items for each user of that sample."""

OF_THE_HEAD = 4096
"""Pairs of which the head's utilities are taken for the line."""

SEED = 0
MOST_PAIRS = 1 << 28
"""U x I: one number is kept for each, 1 GB."""

NOT_ASKED, RATED, MISSING = 0, 1, 2
LEAST_SPREAD = 1e-6
"""A judge whose ratings differ less than this has no opinion: all utilities are their mean."""

KEPT = 8
"""Worlds and judges that are remembered."""

DIGITS = 4
"""Decimals of a rating that count: what depends on the batch that a pair is computed in lies further behind."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Line:
    """From ratings to utilities.

    Attributes:
        intercept: Utility of a rating of 0 [logit].
        slope: Utility of one step of the scale [logit].
        mean: Mean utility of the head that it was fitted to [logit]; NaN where the line was given.
        spread: Their standard deviation [logit].
        judge_mean: Mean rating of the sample.
        judge_spread: Their standard deviation.
        pairs: Ratings in the sample.
    """

    intercept: float
    slope: float
    mean: float = math.nan
    spread: float = math.nan
    judge_mean: float = math.nan
    judge_spread: float = math.nan
    pairs: int = 0


class JudgeUtilities:
    """A judge's utilities of the pairs of a world.

    Args:
        world: Users and items.
        judge: Who is asked.
        sample: Pairs that are rated first to find the line; all of them in a world that has fewer.
        line: Intercept and slope; None measures them.
        store: Keep ratings on disk: False, True (in the user's cache) or a folder.
        source: What the judge was named by, to find it again in another process.

    Attributes:
        utility: [U, I] [logit]; defined where a pair was asked for.
        state: [U, I] NOT_ASKED, RATED or MISSING.
        line: From ratings to utilities.
        asked: Pairs that the judge was asked about so far, those of the sample included.
        missing: Of these, pairs without a rating. They have the mean utility of their item over all users.

    Raises:
        ConfigError: If a setting is not valid or the world has too many pairs.
    """

    def __init__(
        self,
        world: World,
        judge: Judge,
        *,
        sample: int = SAMPLE,
        line: Sequence[float] | None = None,
        store: bool | str = False,
        source: tuple[Any, Mapping[str, Any]] | None = None,
    ) -> None:
        users, items = len(world.population), len(world.catalog)
        if users * items > MOST_PAIRS:
            raise ConfigError(
                f"the world {world.name!r} has {users:,} x {items:,} pairs of user and item, and a live judge keeps a "
                f"number for each: at most {MOST_PAIRS:,}; take a smaller world, or distil the judge into this one"
            )
        self.world, self.judge = world, judge
        self.source = (judge, {}) if source is None else source
        self.settings = {"sample": sample, "line": line, "store": store}
        self.asked = self.missing = 0
        self.utility = np.zeros((users, items), np.float32)
        self.state = np.zeros((users, items), np.uint8)
        self._lock = threading.Lock()
        self._tables = tables(world)
        self._fallback = _mean_utility(world, self._tables)
        self.line = self._measured(sample) if line is None else _given(line)

    def ask(self, users: NDArray[np.integer], items: NDArray[np.integer]) -> int:
        """Asks about those pairs [N] that were not asked about before, all at once and each text once.

        Returns:
            The number of pairs that were new.
        """
        with self._lock:
            width = self.state.shape[1]
            keys = np.unique(users.astype(np.int64) * width + items)  # a user's pairs together: they share her prompt
            keys = keys[self.state.reshape(-1)[keys] == NOT_ASKED]
            if keys.size:
                self._note(keys, self._rate(pairs_of(self.world, keys // width, keys % width)))
            return int(keys.size)

    def new(self, users: NDArray[np.integer], items: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Which pairs of users [B] and items [B, K] were not asked about."""
        return np.asarray(self.state[users[:, None], items] == NOT_ASKED)

    def fell_back(self, users: NDArray[np.integer], items: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Which pairs of users [B] and items [B, K] the judge gave no rating of; False for items below 0."""
        return np.asarray((self.state[users[:, None], items] == MISSING) & (items >= 0))

    def facts(self) -> dict[str, Any]:
        """The judge, its line and how much it was asked, as plain data."""
        told = {"judge": self.judge.name, "digest": self.judge.digest}
        return {**told, **vars(self.line), "asked": self.asked, "missing": self.missing}

    def _note(self, keys: Index, ratings: NDArray[np.float64]) -> None:
        rated = np.isfinite(ratings)
        utility = (self.line.intercept + self.line.slope * ratings).astype(np.float32)
        self.utility.reshape(-1)[keys] = np.where(rated, utility, self._fallback[keys % self.state.shape[1]])
        self.state.reshape(-1)[keys] = np.where(rated, RATED, MISSING)

    def _rate(self, pairs: list[Pair]) -> NDArray[np.float64]:
        """Ratings [N], NaN where there is none: a number beyond the scale is no rating, whoever gives it."""
        distinct = list(dict.fromkeys(pairs))
        verdicts = self._verdicts(distinct)
        if len(verdicts) != len(distinct):
            raise ConfigError(
                f"the judge {self.judge.name!r} gave {len(verdicts)} verdicts on {len(distinct)} pairs; one each"
            )
        numbers = np.array([float(verdict.rating) for verdict in verdicts])
        numbers[~((numbers >= LOWEST) & (numbers <= HIGHEST))] = np.nan
        self.asked += len(distinct)
        self.missing += int(np.isnan(numbers).sum())
        of_pair = dict(zip(distinct, np.round(numbers, DIGITS).tolist(), strict=True))
        return np.array([of_pair[pair] for pair in pairs])

    def _verdicts(self, pairs: list[Pair]) -> list[Verdict]:
        store = self.settings["store"]
        if store is False:
            return self.judge.rate(pairs)
        from recsim_llm.judges.ratings import rate_all

        return rate_all(self.judge, pairs, folder=None if store is True else str(store))

    def _measured(self, sample: int) -> Line:
        """The line that brings the judge's ratings to mean and spread of the head's utilities."""
        if sample < 2:
            raise ConfigError(f"sample={sample} pairs give no spread for the judge's line; take at least 2")
        every = sample_pairs(self.world, min(OF_THE_HEAD, self.state.size), seed=SEED, users="all")
        mean, spread = _moments(_utility(self.world, self._tables, *every))
        users, items = sample_pairs(
            self.world, min(sample, self.state.size), seed=SEED, per_user=ITEMS_EACH, users="all"
        )
        ratings = self._rate(pairs_of(self.world, users, items))
        rated = ratings[np.isfinite(ratings)]
        if rated.size < 2:
            logger.warning("the judge %r rated %d of %d pairs: it has no line", self.judge.name, rated.size, sample)
            return Line(mean, 0.0, mean, spread, pairs=int(rated.size))
        centre, width = _moments(rated)
        slope = spread / width if width > LEAST_SPREAD else 0.0
        return Line(mean - slope * centre, slope, mean, spread, centre, width, int(rated.size))

    def __deepcopy__(self, memo: dict[int, Any]) -> JudgeUtilities:
        """Itself: what is known of a pair is the same for all copies of an environment."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        name, options = self.source
        return load_judge_utilities, (self.world, name, {**options, **self.settings})


_kept: OrderedDict[tuple[str, ...], JudgeUtilities] = OrderedDict()
_judges: OrderedDict[str, Judge] = OrderedDict()


def load_judge_utilities(world: World, model: str | Judge, options: Mapping[str, Any] | None = None) -> JudgeUtilities:
    """The utilities of a judge on a world, the same object for all environments of this process.

    Args:
        world: Users and items.
        model: Name, folder or address of a judge (see :func:`load_judge`), or a judge.
        options: "sample", "line" and "store" as in :class:`JudgeUtilities`; the others are those of the judge.

    Raises:
        ConfigError: If there is no such judge or an option is not valid.
        MissingExtraError: If a package that the judge needs is not installed.
    """
    rest = dict(options or {})
    defaults: dict[str, Any] = {"sample": SAMPLE, "line": None, "store": False}
    own = {name: rest.pop(name, default) for name, default in defaults.items()}
    judge = judge_of(model, rest)
    key = (world.hash, judge.digest, json.dumps(own, sort_keys=True, default=str))
    if key not in _kept:
        _kept[key] = JudgeUtilities(world, judge, source=(model, rest), **own)
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
    _kept.move_to_end(key)
    return _kept[key]


def judge_of(model: str | Judge, options: Mapping[str, Any]) -> Judge:
    """A judge by its name, loaded once, or the judge that is given.

    Raises:
        ConfigError: If it is neither, or options are given to a judge that is made already.
    """
    if not isinstance(model, str):
        if not all(hasattr(model, part) for part in ("name", "digest", "rate")):
            raise ConfigError(
                f"judge_model={model!r} is neither a name nor a judge (an object with name, digest and rate)"
            )
        if options:
            raise ConfigError(f"judge_options {sorted(options)} are for judges given by name; this one is made already")
        return model
    key = json.dumps([model, dict(options)], sort_keys=True, default=repr)
    if key not in _judges:
        _judges[key] = load_judge(model, **options)
        while len(_judges) > KEPT:
            _judges.popitem(last=False)
    return _judges[key]


def forget() -> None:
    """Empties the memory of this process: every pair is asked about again by environments made from now on."""
    _kept.clear()


def _given(line: Sequence[float]) -> Line:
    try:
        intercept, slope = (float(number) for number in line)
    except (TypeError, ValueError):
        raise ConfigError(f"line={line!r} must be two numbers: intercept and slope [logit]") from None
    if not math.isfinite(intercept) or not math.isfinite(slope):
        raise ConfigError(f"line={line!r} must be finite: intercept and slope [logit]")
    return Line(intercept, slope)


def _utility(world: World, table: Tables, users: Index, items: Index) -> NDArray[np.float64]:
    """The head's utilities of pairs [N] as the rules compute them, from exact integer products."""
    products = (table.user_code[users].astype(np.int64) * table.item_code[items]).sum(1)
    constant = world.preference_model.mu + table.user["bias"][users].astype(np.float64) + table.item["appeal"][items]
    return np.asarray(constant + table.units["utility_unit"] * products)


def _mean_utility(world: World, table: Tables) -> NDArray[np.float32]:
    """Mean utility of each item over all users, [I] [logit]."""
    users = len(table.user_code)
    total = table.user_code.sum(0, dtype=np.int64)
    products = (table.item_code.astype(np.int64) * total).sum(1) / users
    constant = world.preference_model.mu + math.fsum(table.user["bias"].tolist()) / users
    return np.asarray(constant + table.item["appeal"] + table.units["utility_unit"] * products, np.float32)


def _moments(values: NDArray[np.float64]) -> tuple[float, float]:
    """Mean and standard deviation, from sums that do not depend on the machine."""
    mean = math.fsum(values.tolist()) / values.size
    return mean, math.sqrt(math.fsum(((values - mean) ** 2).tolist()) / values.size)
