"""Recommenders trained on logs: against other libraries, closed forms, finite differences, and in planted worlds."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from recsim_llm import agents
from recsim_llm.agents.common.interaction_log import SIGNALS, Log, LogBook
from recsim_llm.agents.core.base import Agent
from recsim_llm.agents.core.env_runner import normalised
from recsim_llm.agents.logged.base import sometimes_uniform
from recsim_llm.agents.logged.bpr import ascend
from recsim_llm.agents.logged.ease import weights
from recsim_llm.agents.logged.popularity_blend import ratio, standardised
from recsim_llm.agents.logged.sgd_factorisation import Factors, descend
from recsim_llm.agents.logged.user_item_matrix import UserItemMatrix
from recsim_llm.errors import ConfigError, DataError
from recsim_llm.metrics import ranking
from tests.tiny import tiny_env, tiny_world

ALPHA = 1e-4
NAMES = ["mf", "item_knn", "als", "bpr", "ease", "kmeans", "nearest"]
BY_CLICKS = ["item_knn", "als", "bpr", "ease"]
ITEMS, TOPICS, USERS = 40, 4, 60
FITTED = {"epochs": 60, "rate": 0.05, "shrink": 0.03, "factors": 4}
Build = Callable[..., Any]


def usable(name: str) -> str:
    """Skips where a library is missing."""
    for library in agents.get(name).libraries:
        pytest.importorskip(library)
    return name


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Makes an agent in a world whose users each like one of four topics, as their personas tell."""
    rng = np.random.Generator(np.random.PCG64(0))
    topic = np.arange(ITEMS) % TOPICS
    embedding = np.eye(TOPICS)[topic] + 0.02 * rng.normal(size=(ITEMS, TOPICS))
    taste = 5.0 * np.eye(TOPICS)[np.arange(USERS) % TOPICS]
    appeal = rng.normal(-2.5, 1.0, ITEMS)
    world = tiny_world(embedding, appeal, taste=taste, profile=taste / 10.0)
    folder = tmp_path_factory.mktemp("planted")

    def made(name: str, *, lanes: int = 16, seed: int = 0, slate_size: int = 3, **config: Any) -> Any:
        env = tiny_env(world, folder, lanes=lanes, slate_size=slate_size, horizon=12, choice="position")
        return agents.make(usable(name), env, seed=seed, **config)

    return made


def planted(rows: int = 4_000, seed: int = 0, left: bool = True) -> Log:
    """A log of 80 users who click items of one of four topics with .7 and others with .1; 8 items more often."""
    rng = np.random.Generator(np.random.PCG64(seed))
    user, item = rng.integers(80, size=rows), rng.integers(ITEMS, size=rows)
    click = rng.random(rows) < np.where(user % TOPICS == item % TOPICS, 0.7, 0.1) + 0.2 * (item < 8)
    chosen = np.ones(rows, bool) if left else click
    return Log.of(user[chosen], item[chosen], click=click[chosen])


def dense(log: Log, items: int = ITEMS) -> NDArray[np.float64]:
    """The binary matrix of users and clicked items."""
    users, row = np.unique(log.user, return_inverse=True)
    matrix = np.zeros((len(users), items))
    matrix[row[log.click > 0], log.item[log.click > 0]] = 1.0
    return matrix


class TestRanking:
    """Measures at k against their definitions, item by item."""

    def test_against_brute_force(self) -> None:
        rng = np.random.Generator(np.random.PCG64(0))
        scores = rng.integers(0, 6, (50, 9)).astype(float)  # with equals
        relevant = rng.random((50, 9)) < 0.4
        relevant[np.arange(50), rng.integers(9, size=50)] = True
        found = ranking.ranking_metrics(scores, relevant, (1, 3, 9))
        for k in (1, 3, 9):
            sums = dict.fromkeys(("recall", "precision", "hit", "mrr", "ndcg"), 0.0)
            for row, wanted in zip(scores, relevant, strict=True):
                listed = sorted(range(9), key=lambda i, row=row: (-row[i], i))[:k]
                places = [place for place, item in enumerate(listed, 1) if wanted[item]]
                ideal = sum(1 / np.log2(1 + place) for place in range(1, min(k, wanted.sum()) + 1))
                sums["recall"] += len(places) / wanted.sum()
                sums["precision"] += len(places) / k
                sums["hit"] += bool(places)
                sums["mrr"] += 1 / places[0] if places else 0
                sums["ndcg"] += sum(1 / np.log2(1 + place) for place in places) / ideal
            for name, total in sums.items():
                assert found[f"{name}@{k}"] == pytest.approx(total / 50), (name, k)

    def test_one_relevant_item_each(self) -> None:
        scores = np.array([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
        one, flags = np.array([1, 1]), np.array([[0, 1, 0], [0, 1, 0]], bool)
        assert ranking.ranking_metrics(scores, one, (1, 2)) == ranking.ranking_metrics(scores, flags, (1, 2))
        assert ranking.recall_at(scores, one, 1) == 0.0
        assert ranking.recall_at(scores, one, 2) == 1.0
        assert ranking.recall_at(scores, one, 1, allowed=~np.array([[1, 0, 0], [0, 0, 1]], bool)) == 1.0

    def test_bad_arguments(self) -> None:
        with pytest.raises(ConfigError, match=r"k must lie in \[1, 3\]"):
            ranking.top_k(np.zeros((2, 3)), 4)
        with pytest.raises(ConfigError, match="something relevant"):
            ranking.recall(np.zeros((2, 1), int), np.zeros((2, 3), bool))
        with pytest.raises(ConfigError, match="allowed has shape"):
            ranking.top_k(np.zeros((2, 3)), 1, np.ones((2, 2), bool))


class TestLog:
    """Logs hold what was looked at, in the order of time."""

    def test_rows_are_the_slots_looked_at(self, build: Build) -> None:
        agent = build("ease")
        kept: list[Any] = []
        agent.learn(600, callback=lambda names, _: kept.append(names["transition"]))
        rows = []
        for t in kept:
            info = t.info
            for lane, slot in np.argwhere((info["click"] > 0) | (info["skip"] > 0)).tolist():
                if t.valid[lane] and info["slate"][lane, slot] >= 0:
                    signals = [info[{"reward": "slot_reward"}.get(name, name)][lane, slot] for name in SIGNALS]
                    rows.append([info["user_id"][lane], info["slate"][lane, slot], slot, lane, *signals])
        log = agent.book.log
        given = np.stack([log.user, log.item, log.position, log.lane, *(getattr(log, s) for s in SIGNALS)], 1)
        np.testing.assert_allclose(given, np.array(rows), rtol=1e-6)
        assert (np.sort(np.bincount(log.item, minlength=ITEMS)) == np.sort(agent.counts.looks)).all()

    def test_sessions_are_episodes(self, build: Build) -> None:
        agent = build("ease", lanes=4).learn(4 * 12 * 6)
        log = agent.book.log
        number = log.sessions()
        for session in np.unique(number):
            rows = number == session
            assert len(set(log.user[rows].tolist())) == 1
            assert len(set(log.lane[rows].tolist())) == 1
            assert (np.diff(log.step[rows]) >= 0).all()
            assert log.step[rows].max() < 12
        assert number.max() + 1 == 4 * 6

    def test_it_grows_as_one_piece(self) -> None:
        whole, book = planted(3_000), LogBook()
        for start in range(0, 3_000, 7):
            book.extend(whole[start : start + 7])
        for name, column in whole.arrays().items():
            assert (book.log.arrays()[name] == column).all(), name

    def test_last_clicks(self) -> None:
        log = Log.of([5, 5, 7, 5, 7, 9], [1, 2, 3, 4, 6, 8], click=[1, 0, 1, 1, 1, 1])
        history, target = log.last_clicks(3)
        assert history.tolist() == [[-1, -1, 1], [-1, -1, 3]]
        assert target.tolist() == [4, 6]

    def test_before(self) -> None:
        log = Log.of(
            [5, 5, 7, 5, 5], [1, 2, 3, 4, 6], click=[1, 0, 1, 1, 1], lane=[0, 0, 1, 0, 0], step=[0, 1, 0, 2, 2]
        )
        assert log.before(log.click > 0, 2).tolist() == [[-1, -1], [-1, 1], [-1, -1], [-1, 1], [-1, 1]]
        assert log.before(log.click <= 0, 1).tolist() == [[-1], [-1], [-1], [2], [2]]

    def test_bad_logs(self, build: Build) -> None:
        with pytest.raises(DataError, match=r"no columns \['clicks'\]"):
            Log.of([1], [2], clicks=[1])
        with pytest.raises(DataError, match="differ in length"):
            Log.of([1, 2], [2, 3], click=[1])
        with pytest.raises(DataError, match="negative"):
            Log.of([1], [-2])
        with pytest.raises(DataError, match="finite numbers"):
            Log.of([1], [2], dwell=[np.nan])
        with pytest.raises(DataError, match="names item 40, the catalogue has 40"):
            build("ease").fit_log(Log.of([1], [ITEMS]))


class TestPropensity:
    """Probabilities of the mixture of uniform and given slates."""

    @pytest.mark.parametrize("free", [5, 3, 2])
    def test_frequencies(self, free: int) -> None:
        stats = pytest.importorskip("scipy.stats")
        rng = np.random.Generator(np.random.PCG64(free))
        count = 30_000
        action_mask = np.zeros((count, 6), bool)
        action_mask[:, :free] = True
        given = np.tile([1, 0, 5] if free == 2 else [2, 0, 1], (count, 1))
        given[:, 2] = 2 if free == 2 else given[:, 2]  # what fills up when only two are allowed
        slates, chances = sometimes_uniform(given, action_mask, 0.4, rng)
        table: dict[tuple[int, ...], list[float]] = {}
        for slate, chance in zip(slates.tolist(), chances.prod(1).tolist(), strict=True):
            table.setdefault(tuple(slate), []).append(chance)
        assert all(max(seen) - min(seen) < 1e-12 for seen in table.values())
        expected = {slate: seen[0] for slate, seen in table.items()}
        assert sum(expected.values()) == pytest.approx(1.0)
        observed = np.array([len(seen) for seen in table.values()])
        assert stats.chisquare(observed, count * np.array(list(expected.values()))).pvalue > ALPHA

    def test_agents_record_it(self, build: Build) -> None:
        seen: list[Any] = []
        note = lambda names, _: seen.append(names["transition"].propensity)  # noqa: E731
        build("ease").learn(64, note)
        assert np.concatenate(seen) == pytest.approx(np.tile(1.0 / (ITEMS - np.arange(3)), (64, 1)))
        seen.clear()
        build("ease", explore=0.5).learn(640, note)
        chances = np.concatenate(seen)
        assert (chances[:, 0] > 0.5).mean() == pytest.approx(0.5, abs=0.1)
        seen.clear()
        build("ease", online=True, refit=160, explore_online=0.2, after_click=0, after_look=0).learn(640, note)
        assert np.concatenate(seen)[:160] == pytest.approx(np.tile(1.0 / (ITEMS - np.arange(3)), (160, 1)))
        assert (np.concatenate(seen)[200:, 0] > 0.7).mean() == pytest.approx(0.8, abs=0.1)


class TestItemKNN:
    """Similarities are cosines."""

    def test_against_sklearn(self, build: Build) -> None:
        pairwise = pytest.importorskip("sklearn.metrics.pairwise")
        log = planted()
        agent = build("item_knn", looks=False, shrink=0.0, neighbours=ITEMS, tuned=False).fit_log(log)
        cosine = pairwise.cosine_similarity(dense(log).T)
        np.fill_diagonal(cosine, 0.0)
        np.testing.assert_allclose(_full(agent), cosine, atol=1e-6)

    def test_adjusted_cosine(self, build: Build) -> None:
        log = planted(800)
        agent = build("item_knn", shrink=0.0, neighbours=ITEMS, tuned=False).fit_log(log)
        x = np.zeros((80, ITEMS))
        rest = log.click - agent.rate[log.item]
        mean = np.array([rest[log.user == u].sum() / ((log.user == u).sum() + 10.0) for u in range(80)])
        np.add.at(x, (log.user, log.item), rest - mean[log.user])
        cosine = x.T @ x / np.linalg.norm(x, axis=0)[:, None] / np.linalg.norm(x, axis=0)
        np.fill_diagonal(cosine, 0.0)
        np.testing.assert_allclose(_full(agent), np.maximum(cosine, 0.0), atol=1e-6)

    def test_the_nearest_are_kept(self, build: Build) -> None:
        log = planted()
        full = _full(build("item_knn", looks=False, neighbours=ITEMS, tuned=False).fit_log(log))
        few = build("item_knn", looks=False, neighbours=5, tuned=False).fit_log(log)
        for i in range(ITEMS):
            assert few.similarity[i] == pytest.approx(np.sort(full[i])[::-1][:5])
        history = np.array([[-1, 3, 8]])
        wanted = _full(few)[3] + _full(few)[8]
        assert few.personal(np.zeros((1, few.env_spec.width), np.float32), few.session_of(history))[0] == (
            pytest.approx(wanted, abs=1e-6)
        )

    def test_shrinkage(self, build: Build) -> None:
        log = planted()
        plain, shrunk = (
            _full(build("item_knn", looks=False, neighbours=ITEMS, tuned=False, shrink=h).fit_log(log))
            for h in (0.0, 7.0)
        )
        length = np.sqrt(dense(log).sum(0))
        length = np.outer(length, length)
        np.testing.assert_allclose(shrunk, plain * length / (length + 7.0), atol=1e-6)


def _full(agent: Any) -> NDArray[np.float64]:
    """Similarities [I, I] of an item-kNN agent."""
    full = np.zeros((ITEMS, ITEMS))
    for i, j in itertools.product(range(ITEMS), range(agent.neighbour.shape[1])):
        if agent.neighbour[i, j] >= 0:
            full[i, agent.neighbour[i, j]] = agent.similarity[i, j]
    return full


class TestEASE:
    """The closed form, and what it is the solution of."""

    def test_closed_form(self, build: Build) -> None:
        log = planted()
        agent = build("ease", looks=False, ridge=7.0, tuned=False).fit_log(log)
        x = dense(log)
        inverse = np.linalg.inv(x.T @ x + 7.0 * np.eye(ITEMS))
        expected = inverse / -np.diag(inverse)
        np.fill_diagonal(expected, 0.0)
        np.testing.assert_allclose(agent.weights, expected, atol=1e-6)
        session = agent.session_of(np.array([[4, -1, 9]]))
        scores = agent.personal(np.zeros((1, agent.env_spec.width), np.float32), session)[0]
        np.testing.assert_allclose(scores, expected[4] + expected[9], atol=1e-6)

    def test_least_squares_with_a_zero_diagonal(self) -> None:
        rng = np.random.Generator(np.random.PCG64(0))
        x = (rng.random((30, 8)) < 0.4).astype(float)
        found = weights(x.T @ x, 3.0)
        for j in range(8):
            others = np.delete(np.arange(8), j)
            design = np.vstack([x[:, others], np.sqrt(3.0) * np.eye(7)])
            solution = np.linalg.lstsq(design, np.concatenate([x[:, j], np.zeros(7)]), rcond=None)[0]
            np.testing.assert_allclose(found[others, j], solution, atol=1e-9)
            assert found[j, j] == 0.0

    def test_items_without_clicks_have_no_weights(self) -> None:
        x = np.array([[1.0, 1, 0, 1], [1, 0, 0, 1], [0, 1, 0, 1]])
        found = weights(x.T @ x, 0.5)
        assert not found[2].any()
        assert not found[:, 2].any()
        inner = weights(x[:, [0, 1, 3]].T @ x[:, [0, 1, 3]], 0.5)
        np.testing.assert_allclose(found[np.ix_([0, 1, 3], [0, 1, 3])], inner)

    def test_large_catalogues_are_refused(self, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("recsim_llm.agents.logged.ease.MOST_ITEMS", 39)
        with pytest.raises(ConfigError, match="use item_knn"):
            build("ease")


class TestALS:
    """Factors and folding in against the library ``implicit`` and the closed form."""

    def test_factors_are_the_librarys(self, build: Build) -> None:
        als, sparse = pytest.importorskip("implicit.cpu.als"), pytest.importorskip("scipy.sparse")
        log = planted()
        agent = build("als", looks=False, tuned=False, factors=5, iterations=4, alpha=8.0, shrink=0.5).fit_log(log)
        model = als.AlternatingLeastSquares(
            factors=5, regularization=0.5, alpha=8.0, iterations=4, use_cg=False, num_threads=1
        )
        rng, matrix = agent.fit_rng(), _counts(log)
        model.user_factors = 0.1 * rng.random((80, 5), np.float32)
        model.item_factors = 0.1 * rng.random((ITEMS, 5), np.float32)
        model.fit(sparse.csr_matrix(matrix), show_progress=False)
        np.testing.assert_allclose(agent.items, model.item_factors, rtol=1e-3, atol=1e-4)
        history = np.array([[-1, 2, 7, 2], [-1, -1, -1, 5]])
        rows = np.zeros((2, ITEMS))
        rows[0, [2, 7]], rows[1, 5] = [2.0, 1.0], 1.0
        folded = agent.folded(history)
        expected = model.recalculate_user(np.arange(2), sparse.csr_matrix(rows))
        np.testing.assert_allclose(folded, expected, rtol=2e-3, atol=1e-4)

    def test_rounds_are_exact(self, build: Build) -> None:
        log = planted(1_500)
        agent = build("als", tuned=False, factors=3, iterations=3, alpha=8.0, left=4.0, shrink=0.5).fit_log(log)
        clicks, looks = _counts(log), np.zeros((80, ITEMS))
        np.add.at(looks, (log.user, log.item), 1.0)
        confidence = np.where(clicks > 0, 8.0 * clicks, np.where(looks > 0, 4.0 * (looks - clicks), 1.0))
        rng = agent.fit_rng()
        users, items = 0.1 * rng.random((80, 3), np.float32), 0.1 * rng.random((ITEMS, 3), np.float32)
        for _ in range(3):
            users = _solved(confidence, clicks > 0, items, 0.5)
            items = _solved(confidence.T, (clicks > 0).T, users, 0.5)
        np.testing.assert_allclose(agent.items, items, rtol=1e-3, atol=1e-4)

    def test_folding_in_knows_what_was_left(self, build: Build) -> None:
        agent = build("als", tuned=False, factors=3, alpha=8.0, left=4.0, shrink=0.5).fit_log(planted())
        history, left = np.array([[-1, 2, 2, 7]]), np.array([[3, 3, 2, 1]])
        confidence = np.ones((1, ITEMS))
        confidence[0, [2, 7, 3, 1]] = [16.0, 8.0, 8.0, 4.0]
        wanted = np.isin(np.arange(ITEMS), [2, 7])[None]
        expected = _solved(confidence, wanted, agent.items.astype(float), 0.5)
        np.testing.assert_allclose(agent.folded(history, left), expected, rtol=1e-6)


def _counts(log: Log) -> NDArray[np.float32]:
    counts = np.zeros((80, ITEMS), np.float32)
    np.add.at(counts, (log.user, log.item), log.click)
    return counts


def _solved(confidence: Any, wanted: Any, other: Any, shrink: float) -> NDArray[np.float64]:
    """Half a round of alternating least squares, from its definition."""
    solved = []
    for c, p in zip(confidence, wanted, strict=True):
        gram = (other * c[:, None]).T @ other + shrink * np.eye(other.shape[1])
        solved.append(np.linalg.solve(gram, other.T @ (c * p)))
    return np.array(solved)


class TestBPR:
    """The step is the gradient of the criterion."""

    def test_gradient(self) -> None:
        rng = np.random.Generator(np.random.PCG64(0))
        start = [rng.normal(size=(3, 4)), rng.normal(size=(5, 4)), rng.normal(size=5)]
        user, item, against, shrink = 1, 2, 4, 0.3

        def criterion(users: Any, items: Any, bias: Any) -> float:
            margin = bias[item] - bias[against] + users[user] @ (items[item] - items[against])
            size = (users[user] ** 2).sum() + sum((items[i] ** 2).sum() + bias[i] ** 2 for i in (item, against))
            return float(-np.log1p(np.exp(-margin)) - 0.5 * shrink * size)

        after = [array.copy() for array in start]
        ascend(np.array([user]), np.array([item]), np.array([against]), *after, 1e-3, shrink)
        for which, array in enumerate(start):
            for place in np.ndindex(array.shape):
                ends = []
                for step in (1e-6, -1e-6):
                    moved = [part.copy() for part in start]
                    moved[which][place] += step
                    ends.append(criterion(*moved))
                slope = (ends[0] - ends[1]) / 2e-6
                assert (after[which][place] - array[place]) / 1e-3 == pytest.approx(slope, abs=1e-6)

    def test_nothing_is_learnt_from_items_that_were_clicked(self) -> None:
        arrays = [np.ones((1, 2)), np.ones((2, 2)), np.ones(2)]
        ascend(np.array([0]), np.array([0]), np.array([-1]), *arrays, 0.1, 0.1)
        assert all((array == 1.0).all() for array in arrays)

    def test_a_planted_structure(self, build: Build) -> None:
        log = planted()
        agent = build("bpr", tuned=False).fit_log(log)
        same = np.arange(80)[:, None] % TOPICS == np.arange(ITEMS) % TOPICS
        scores = agent.bias + agent.users @ agent.items.T
        assert np.mean([scores[u][same[u]].mean() > scores[u][~same[u]].mean() for u in range(80)]) == 1.0


class TestMF:
    """One pass of gradient descent moves against the gradient of the squared error."""

    def test_gradient(self) -> None:
        rng = np.random.Generator(np.random.PCG64(0))
        model = Factors.start(3, 4, 2, rng)
        model.weights[...] = [1.3, 0.7]
        before = [model.users.copy(), model.items.copy()]

        def loss(users: Any, items: Any) -> float:
            error = 1.0 - (model.weights * users[1] * items[2]).sum()
            return float(0.5 * error**2 + 0.05 * ((users[1] ** 2).sum() + (items[2] ** 2).sum()))

        slopes = [np.zeros_like(part) for part in before]
        for which, part in enumerate(before):
            for place in np.ndindex(part.shape):
                ends = []
                for step in (1e-6, -1e-6):
                    moved = [other.copy() for other in before]
                    moved[which][place] += step
                    ends.append(loss(*moved))
                slopes[which][place] = (ends[0] - ends[1]) / 2e-6
        descend(
            np.zeros(1, np.int64), np.array([1]), np.array([2]), np.ones(1), model.mu, model.user_bias,
            model.item_bias, model.users, model.items, model.weights, 1e-3, 0.1, 0.1,
        )  # fmt: skip
        for after, part, slope in zip((model.users, model.items), before, slopes, strict=True):
            np.testing.assert_allclose((part - after) / 1e-3, slope, atol=1e-6)

    def test_new_users_keep_the_old_ones_rows(self, build: Build) -> None:
        agent = build("mf", epochs=3, online=True, refit=160).learn(160)
        known, users = agent._known.copy(), agent.model.users.copy()
        agent.absorb(agent.book.log, len(agent.book))  # no new rows: everybody stays as she is
        assert (agent._known == known).all()
        np.testing.assert_array_equal(agent.model.users, users)


class TestContent:
    """Retrieval by encodings against scikit-learn and brute force."""

    def test_kmeans_is_sklearns(self, build: Build) -> None:
        cluster = pytest.importorskip("sklearn.cluster")
        agent = build("kmeans", clusters=TOPICS)
        points = normalised(agent.env_spec.catalog.embedding.astype(np.float64))
        found = cluster.KMeans(TOPICS, n_init=4, random_state=agent.fit_seed % 2**32).fit(points)
        np.testing.assert_allclose(agent.centres, found.cluster_centers_)
        assert (agent.labels == found.labels_).all()
        assert (agent.nearest(points) == found.predict(points)).all()
        assert len({(a % TOPICS, label) for a, label in enumerate(agent.labels.tolist())}) == TOPICS

    def test_kmeans_shares(self, build: Build) -> None:
        agent = build("kmeans", clusters=TOPICS, persona=2.0)
        rows = np.zeros((2, agent.env_spec.width), np.float32)
        rows[0, agent.env_spec.layout["profile"]] = agent.env_spec.catalog.embedding[3]
        shares = agent.shares(rows, agent.session_of(np.array([[0, 4, 1], [-1, -1, -1]])))
        expected = np.zeros(TOPICS)
        for item, weight in ((0, 1.0), (4, 1.0), (1, 1.0), (3, 2.0)):
            expected[agent.labels[item]] += weight / 5.0
        np.testing.assert_allclose(shares, [expected, np.zeros(TOPICS)])

    @pytest.mark.parametrize("metric", ["cosine", "euclidean"])
    def test_nearest_is_brute_force(self, metric: str, build: Build) -> None:
        agent = build("nearest", metric=metric, profile=0.0)
        rng = np.random.Generator(np.random.PCG64(0))
        rows = np.zeros((6, agent.env_spec.width), np.float32)
        rows[:, agent.env_spec.layout["interest"]] = rng.normal(size=(6, TOPICS))
        found = np.argsort(-agent.personal(rows, None), axis=1, kind="stable")[:, :5]
        items = agent.env_spec.catalog.embedding.astype(np.float64)
        length = np.linalg.norm(items, axis=1).mean()
        for row, listed in zip(rows[:, agent.env_spec.layout["interest"]].astype(float), found, strict=True):
            unit = row / np.linalg.norm(row)
            if metric == "cosine":
                distance = [1 - unit @ x / np.linalg.norm(x) for x in items]
            else:
                distance = [np.linalg.norm(length * unit - x) for x in items]
            assert listed.tolist() == np.argsort(distance, kind="stable")[:5].tolist()

    def test_queries(self, build: Build) -> None:
        agent = build("nearest", profile=0.25)
        rows = np.zeros((4, agent.env_spec.width), np.float32)
        interest, profile = agent.env_spec.layout["interest"], agent.env_spec.layout["profile"]
        rows[1:3, interest.start] = 0.5
        rows[2:, profile.start + 1] = 0.2
        mixed = np.array([0.75, 0.25]) / np.hypot(0.75, 0.25)
        expected = [[0.0, 0.0], [1.0, 0.0], mixed, [0.0, 1.0]]
        np.testing.assert_allclose(agent.query(rows)[:, :2], expected, atol=1e-6)
        assert not agent.personal(rows, None)[0].any()

    def test_bad_metric(self, build: Build) -> None:
        with pytest.raises(ConfigError, match="metric must be one of cosine, euclidean, got 'manhattan'"):
            build("nearest", metric="manhattan")


class TestBlend:
    """How far the personal part is trusted."""

    def test_standard_scores(self) -> None:
        rng = np.random.Generator(np.random.PCG64(0))
        scores = rng.normal(3.0, 2.0, (4, 30))
        scores[2] = 1.0
        weight = np.array([1.0, 0.5, 1.0, 0.0])
        expected = (scores - scores.mean(1, keepdims=True)) / np.maximum(scores.std(1, keepdims=True), 1e-30)
        expected[2] = 0.0
        np.testing.assert_allclose(standardised(scores, weight), expected * weight[:, None], atol=1e-12)

    def test_ratio(self) -> None:
        rng = np.random.Generator(np.random.PCG64(0))
        popular, personal = rng.normal(size=(2, 40_000))
        chance = 0.4 + 0.1 * popular
        assert ratio(popular, personal, (rng.random(40_000) < chance + 0.05 * personal).astype(float)) == (
            pytest.approx(0.5, abs=0.08)
        )
        assert ratio(popular, personal, (rng.random(40_000) < chance).astype(float)) < 0.03
        assert ratio(popular, personal, (rng.random(40_000) < chance - 0.05 * personal).astype(float)) == 0.0
        assert ratio(popular, popular, (rng.random(40_000) < chance).astype(float)) == 0.0

    @pytest.mark.parametrize("name", BY_CLICKS)
    def test_noise_is_not_trusted_and_structure_is(self, name: str, build: Build) -> None:
        log = planted()
        rng = np.random.Generator(np.random.PCG64(0))
        noise = Log.of(rng.permutation(log.user), log.item, click=log.click)
        assert build(name).fit_log(log).weight[0] > 0.5
        assert build(name).fit_log(noise).weight[0] < 0.5

    @pytest.mark.parametrize("name", BY_CLICKS)
    def test_logs_of_clicks_alone(self, name: str, build: Build) -> None:
        agent = build(name, tuned=False).fit_log(planted(left=False))
        assert not agent.looked[0]
        scores = agent.score_histories(np.array([[0, 4, 8]]))[0]
        others = np.arange(12, ITEMS)
        assert scores[others[others % TOPICS == 0]].min() > np.median(scores[others[others % TOPICS != 0]])


class TestHeldOut:
    """Clicks that were held out are ranked higher than by popularity."""

    @pytest.mark.parametrize("name", ["mf", *BY_CLICKS])
    def test_recall(self, name: str, build: Build) -> None:
        config = FITTED if name == "mf" else {}
        agent = build(name, **config).fit_log(planted())
        history, target = planted(1_500, seed=1).last_clicks(20)
        scores = agent.score_histories(history)
        popular = np.broadcast_to(agent.popularity(), scores.shape)
        assert ranking.recall_at(scores, target, 10) > 1.5 * ranking.recall_at(popular, target, 10)


def mean_reward(agent: Agent, steps: int = 80) -> float:
    """Reward of a step when serving users it is given anew."""
    env: Any = agent.env
    observation, info = env.reset(seed=123)
    state: Any = None
    fresh, over, total = np.ones(env.num_envs, bool), np.zeros(env.num_envs, bool), 0.0
    for _ in range(steps):
        agent.observe(info)
        action, state = agent.predict(observation, state, fresh, deterministic=True)
        observation, reward, terminated, truncated, info = env.step(action)
        fresh, over, total = over, terminated | truncated, total + float(reward.mean())  # resets at the step after
    return total / steps


@pytest.fixture(scope="module")
def reference(build: Build) -> tuple[float, float]:
    """What chance and popularity earn in the planted world."""
    rest = {"after_click": 0, "after_look": 0}
    return mean_reward(build("random")), mean_reward(build("popularity", **rest).learn(6_400))


class TestPlantedWorld:
    """In a world of four tastes the personal ones beat popularity, and that beats chance."""

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("online", [False, True])
    def test_they_beat_popularity(self, name: str, online: bool, build: Build, reference: tuple[float, float]) -> None:
        chance, popular = reference
        config = {"after_click": 0, "after_look": 0, "online": online, "refit": 1_600}
        if name in ("kmeans", "nearest"):
            config |= {"personal": 3.0, **({"clusters": TOPICS} if name == "kmeans" else {})}
        agent = build(name, **config).learn(6_400)
        assert popular > 1.1 * chance
        assert mean_reward(agent) > 1.05 * popular


class TestOnline:
    """Updates on the way, and exact continuation."""

    @pytest.mark.parametrize("name", NAMES)
    def test_going_on_from_a_file(self, name: str, build: Build, tmp_path: Path) -> None:
        config = {"online": True, "refit": 160, "explore_online": 0.3}
        whole, part = build(name, **config).learn(960), build(name, **config).learn(480)
        part.save(tmp_path / "agent.zip")
        again = type(part).load(tmp_path / "agent.zip", env=build("random").env)
        again.learn(480)
        for key, array in whole.arrays().items():
            np.testing.assert_array_equal(array, again.arrays()[key], err_msg=key)
        assert whole.fitted == again.fitted == len(whole.book)

    def test_ease_online_is_ease_in_batch(self, build: Build) -> None:
        agent = build("ease", online=True, refit=160, tuned=False).learn(960)
        batch = build("ease", tuned=False).fit_log(agent.book.log)
        np.testing.assert_array_equal(agent.weights, batch.weights)

    def test_als_goes_on_from_where_it_stood(self, build: Build) -> None:
        agent = build("als", tuned=False, iterations=60).fit_log(planted())
        before = agent.items @ agent.items.T
        agent.absorb(agent.book.log, len(agent.book))
        after = agent.items @ agent.items.T
        np.testing.assert_allclose(after, before, atol=0.05 * np.abs(before).max())

    @pytest.mark.parametrize("name", ["item_knn", "bpr"])
    def test_files_that_name_no_items_are_refused(self, name: str, build: Build) -> None:
        agent = build(name).learn(320)
        arrays = {key: array.copy() for key, array in agent.arrays().items()}
        arrays["log/item"][0] = ITEMS
        with pytest.raises(DataError, match="names item 40"):
            build(name).restore(arrays, agent.extra(), "a file")

    def test_neighbours_that_are_no_items_are_refused(self, build: Build) -> None:
        agent = build("item_knn").learn(320)
        arrays = {key: array.copy() for key, array in agent.arrays().items()}
        arrays["model/neighbour"][0, 0] = ITEMS
        with pytest.raises(DataError, match="names items or users"):
            build("item_knn").restore(arrays, agent.extra(), "a file")

    def test_baskets(self) -> None:
        log = Log.of([7, 7, 5, 7], [2, 1, 0, 2], click=[1, 0, 1, 1])
        clicks = UserItemMatrix.of(log, np.zeros(4), looks=False)
        assert clicks.users.tolist() == [5, 7]
        assert clicks.start.tolist() == [0, 1, 2]
        assert clicks.item.tolist() == [0, 2]
        assert clicks.clicks.tolist() == [1, 2]
        both = UserItemMatrix.of(log, np.zeros(4), looks=True)
        assert both.item.tolist() == [0, 1, 2]
        assert both.lefts.tolist() == [0, 1, 0]
        mean = np.array([1 / 11, 2 / 13])
        assert both.value == pytest.approx([1 - mean[0], -mean[1], 2 - 2 * mean[1]])
