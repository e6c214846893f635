"""Rating store on disk: each rating is kept as it comes, none is asked for twice.

One SQLite file for each judge, named by its digest. A batch of verdicts is one transaction, on disk when :meth:`add`
returns, so a run that is killed anywhere continues where it was; any number of processes may fill one file. A pair is
found again by the SHA-256 of the judge's digest and its two texts: whoever changes the model, the prompt or a text asks
anew. Missing verdicts are kept with their reason and asked for again by the next run; a rating is never replaced.
"""

from __future__ import annotations

import hashlib
import logging
import math
import re
import sqlite3
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recsim_llm.encoders.progress import advance
from recsim_llm.errors import ConfigError, StoreError
from recsim_llm.judges.base import HIGHEST, LOWEST, Judge, Pair, Verdict
from recsim_llm.judges.ratings_file import closed, opened
from recsim_llm.paths import home

BATCH = 64
"""Pairs that a judge is asked, and that are written, at a time; a judge may have its own number, ``pairs_at_once``."""
_ROWS = 1_000  # rows of a file that become one transaction
_QUERY = "SELECT key, rating, spread, reason, seal FROM ratings WHERE key = ?"
_DIGEST = re.compile(r"[0-9a-f]{64}")

logger = logging.getLogger(__name__)


class RatingStore:
    """The ratings of one judge, open for reading and writing beside other processes.

    Args:
        path: The file; made if it is not there. A damaged one is set aside under another name, and a new one begun.
        digest: Digest of the judge.

    Attributes:
        path: The file.
        alone: Whether no other process had it open when it was opened.

    Raises:
        StoreError: If the file is another program's, damaged while another process uses it, or cannot be opened.
    """

    def __init__(self, path: Path | str, digest: str) -> None:
        self.path = Path(path)
        self.digest = digest
        self._connection, self._lock, self.alone = opened(self.path)

    def known(self, pairs: Sequence[Pair]) -> dict[bytes, Verdict]:
        """Stored verdicts of pairs, missing ones too, by the pairs' keys (see :func:`key_of`).

        A row whose checksum or scale is wrong counts as not there, and is taken out.
        """
        keys = list(dict.fromkeys(key_of(self.digest, pair) for pair in pairs))
        found: dict[bytes, Verdict] = {}
        wrong: list[tuple[bytes]] = []
        with self._explained():
            for key in keys:
                row = self._connection.execute(_QUERY, (key,)).fetchone()
                verdict = _read(*row) if row else None
                if verdict is not None:
                    found[key] = verdict
                elif row:
                    wrong.append((key,))
            if wrong:
                logger.warning("%s: %d rows are damaged; they are taken out and asked for again", self.path, len(wrong))
                with self._connection:
                    self._connection.executemany("DELETE FROM ratings WHERE key = ?", wrong)
        return found

    def add(self, pairs: Sequence[Pair], verdicts: Sequence[Verdict]) -> None:
        """Writes verdicts; when this returns they survive a crash. Of several ratings of a pair the first stays.

        Raises:
            StoreError: If the file system refuses; all that was added before is safe.
        """
        rows = []
        for pair, verdict in zip(pairs, verdicts, strict=True):
            rating = None if verdict.missing else float(verdict.rating)
            key, reason, spread = key_of(self.digest, pair), str(verdict.reason), float(verdict.spread)
            seal = _seal(key, rating, spread, reason)
            rows.append((key, _text_digest(pair.persona), _text_digest(pair.item), rating, spread, reason, seal))
        with self._explained(), self._connection:
            self._connection.executemany(
                "INSERT INTO ratings (key, persona, item, rating, spread, reason, seal) VALUES (?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (key) DO UPDATE SET rating = excluded.rating, spread = excluded.spread, "
                "reason = excluded.reason, seal = excluded.seal WHERE ratings.rating IS NULL",
                rows,
            )

    def count(self) -> tuple[int, int]:
        """How many pairs have a rating, and how many a missing one."""
        with self._explained():
            stored, rated = self._connection.execute("SELECT count(*), count(rating) FROM ratings").fetchone()
        return int(rated), int(stored) - int(rated)

    def export(self, path: Path | str, personas: Mapping[str, str], items: Mapping[str, str]) -> int:
        """Writes all ratings of some users and items as a CSV or Parquet file of user_id, item_id, rating.

        Args:
            path: The file; its name ends in ``.csv`` or ``.parquet``.
            personas: Text of each user's persona by her id.
            items: Text of each item by its id.

        Returns:
            The number of ratings. Missing ones are left out.
        """
        from recsim_llm.judges.ratings_table import write_ratings

        users_of, items_of = _by_text(personas), _by_text(items)
        rows: list[tuple[str, str, float]] = []
        with self._explained():
            for row in self._connection.execute("SELECT persona, item, key, rating, spread, reason, seal FROM ratings"):
                verdict = _read(*row[2:])
                if verdict is None or verdict.missing:
                    continue
                for user in users_of.get(row[0], ()):
                    rows += [(user, item, verdict.rating) for item in items_of.get(row[1], ())]
        write_ratings(path, sorted(rows))
        return len(rows)

    def take_in(self, path: Path | str, personas: Mapping[str, str], items: Mapping[str, str]) -> int:
        """Adds the ratings of a file, as :meth:`export` writes it, as if this judge had given them.

        Returns:
            The number of ratings in the file. Pairs that have a rating already keep it.

        Raises:
            DataError: If the file is not of that form, names others than these users and items, or leaves the scale.
        """
        from recsim_llm.judges.ratings_table import read_ratings

        rows = read_ratings(path, list(personas), list(items))
        for start in range(0, len(rows), _ROWS):
            part = rows[start : start + _ROWS]
            self.add([Pair(personas[u], items[i]) for u, i, _ in part], [Verdict(rating) for _, _, rating in part])
        return len(rows)

    def close(self) -> None:
        """Closes the file; harmless when repeated."""
        closed(self.path, self._connection, self._lock)
        self._lock = -1

    def __enter__(self) -> RatingStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns an error of the database into one sentence."""
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(
                f"{self.path}: {error}; what was stored before is safe, and the same command continues once this is "
                "mended"
            ) from error


def rate_all(
    judge: Judge,
    pairs: Sequence[Pair],
    folder: Path | str | None = None,
    say: Callable[[str], None] | None = None,
    progress: bool = False,
) -> list[Verdict]:
    """Rates pairs, each different one once, and keeps the verdicts on disk as they come.

    Args:
        judge: Who is asked for what is not stored yet, or was missing.
        pairs: Any number of pairs, repetitions allowed.
        folder: Where the stores of all judges are; ``ratings`` in the package's cache folder if left out.
        say: Hears in a sentence what was found and what was done.
        progress: Whether to show a progress bar.

    Returns:
        One verdict for each pair, in their order.

    Raises:
        StoreError: If the store cannot be used.
        ConfigError: If the judge's digest is not one, or its answers are not one for each pair.
    """
    with RatingStore(store_path(judge, folder), judge.digest) as store:
        return _filled(store, judge, pairs, say or _silent, progress)


def store_path(judge: Judge, folder: Path | str | None = None) -> Path:
    """Where the ratings of a judge are kept.

    Raises:
        ConfigError: If the judge's digest is not a SHA-256.
    """
    digest = judge.digest
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise ConfigError(f"the digest of judge {judge.name!r} is {digest!r}; it must be a SHA-256 of 64 digits")
    return (home() / "ratings" if folder is None else Path(folder)) / f"{digest}.sqlite"


def key_of(digest: str, pair: Pair) -> bytes:
    """SHA-256 of a judge's digest and the two texts of a pair."""
    state = hashlib.sha256()
    for text in (digest, pair.persona, pair.item):
        data = text.encode("utf-8", "surrogatepass")
        state.update(len(data).to_bytes(8, "little") + data)
    return state.digest()


def missing_share(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """How many verdicts are missing, and why.

    Returns:
        ``pairs``, ``missing``, ``share``, and ``reasons`` with their numbers, the most frequent first.
    """
    reasons = Counter(verdict.reason or "unknown" for verdict in verdicts if verdict.missing)
    missing = sum(reasons.values())
    share = missing / len(verdicts) if verdicts else 0.0
    return {"pairs": len(verdicts), "missing": missing, "share": share, "reasons": dict(reasons.most_common())}


def _filled(
    store: RatingStore, judge: Judge, pairs: Sequence[Pair], say: Callable[[str], None], progress: bool
) -> list[Verdict]:
    keys = [key_of(store.digest, pair) for pair in pairs]
    pair_of = dict(zip(keys, pairs, strict=True))
    found = store.known(list(pair_of.values()))
    stored = sum(not verdict.missing for verdict in found.values())
    say(f"{len(pair_of):,} pairs for judge {judge.name}: {stored:,} are stored, {len(pair_of) - stored:,} to ask for")
    with advance(f"rating with {judge.name}", len(pair_of) - stored, progress) as step:
        for batch in _batches(list(pair_of.values()), int(getattr(judge, "pairs_at_once", BATCH)), store.alone):
            before = {key: found.get(key) for key in (key_of(store.digest, pair) for pair in batch)}
            if all(verdict is not None and not verdict.missing for verdict in before.values()):
                continue
            now = store.known(batch)  # another process may have been here
            asked = [pair for pair in batch if _open(now.get(key_of(store.digest, pair)))]
            if asked:
                store.add(asked, _answers(judge, asked))
                now = store.known(batch)
            found.update(now)
            step(sum(_open(verdict) for verdict in before.values()))
    verdicts = [found[key] for key in keys]
    say(_summary(list(found.values())))
    return verdicts


def _batches(pairs: list[Pair], size: int, alone: bool) -> list[list[Pair]]:
    """Pairs by persona, in batches that do not depend on what is stored, since ratings may depend on the batch.

    Whoever finds another process at work begins in the middle, so that they meet late.
    """
    by_persona: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_persona.setdefault(pair.persona, []).append(pair)
    ordered = [pair for group in by_persona.values() for pair in group]
    batches = [ordered[start : start + max(size, 1)] for start in range(0, len(ordered), max(size, 1))]
    middle = 0 if alone else len(batches) // 2
    return batches[middle:] + batches[:middle]


def _answers(judge: Judge, pairs: list[Pair]) -> list[Verdict]:
    """What the judge says; a number beyond the scale is missing, whoever gives it."""
    answers = list(judge.rate(pairs))
    if len(answers) != len(pairs):
        raise ConfigError(
            f"judge {judge.name!r} gave {len(answers)} verdicts on {len(pairs)} pairs; it must give one each"
        )
    checked = []
    for verdict in answers:
        if verdict.missing:
            checked.append(Verdict(math.nan, verdict.reason or "unknown"))
        elif LOWEST <= verdict.rating <= HIGHEST and math.isfinite(verdict.spread):
            checked.append(Verdict(float(verdict.rating), "", float(verdict.spread)))
        else:
            checked.append(Verdict(math.nan, "out of scale"))
    return checked


def _open(verdict: Verdict | None) -> bool:
    return verdict is None or verdict.missing


def _summary(verdicts: list[Verdict]) -> str:
    found = missing_share(verdicts)
    text = f"{found['pairs'] - found['missing']:,} of {found['pairs']:,} pairs have a rating"
    if not found["missing"]:
        return text
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in found["reasons"].items())
    return f"{text}; {found['share']:.1%} are missing ({reasons}) and are asked for again by the next run"


def _silent(_: str) -> None:
    return


def _text_digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]


def _by_text(texts: Mapping[str, str]) -> dict[bytes, list[str]]:
    found: dict[bytes, list[str]] = {}
    for name, text in texts.items():
        found.setdefault(_text_digest(text), []).append(name)
    return found


def _seal(key: bytes, rating: float | None, spread: float, reason: str) -> int:
    """Checksum of a row."""
    return zlib.crc32(repr((key, rating, spread, reason)).encode("utf-8", "surrogatepass"))


def _read(key: object, rating: object, spread: object, reason: object, seal: object) -> Verdict | None:
    """A row as a verdict, or None where it is not what was written."""
    if not isinstance(key, bytes) or not isinstance(spread, float) or not isinstance(reason, str):
        return None
    if rating is None:
        return Verdict(math.nan, reason or "unknown") if seal == _seal(key, None, spread, reason) else None
    if not isinstance(rating, float) or not LOWEST <= rating <= HIGHEST:
        return None
    return Verdict(rating, reason, spread) if seal == _seal(key, rating, spread, reason) else None
