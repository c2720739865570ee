"""Nearest neighbours against brute-force definitions, ties and all."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from chammi_fast.errors import EvaluationError
from chammi_fast.evaluation import duplicates, exact_search, neighbours, space
from chammi_fast.evaluation.duplicates import representatives
from chammi_fast.evaluation.neighbours import NONE, Found, Grouped, References, nearest, nearest_in_other_groups
from chammi_fast.evaluation.space import Space
from chammi_fast.images import cpus

if TYPE_CHECKING:
    from collections.abc import Iterator

faiss = pytest.importorskip("faiss")
METRICS: tuple[space.Metric, ...] = ("cosine", "l2")
# Faiss's threads wait by spinning, and small problems on a busy machine then take ten times as long.
pytestmark = pytest.mark.usefixtures("one_thread")
DENOMINATOR = math.lcm(*range(1, 37))  # of |r|^2: four coordinates of at most 3
NEIGHBOURS = st.sampled_from([1, 1, 2, 5, 50])


def brute_force(
    metric: str, features: np.ndarray, queries: np.ndarray, references: np.ndarray, k: int = 1
) -> np.ndarray:
    """The definition: highest cosine, or least distance, in float64; of equals the lowest row first. (Q, k) rows."""
    references = np.sort(references)
    if not references.size:
        return np.full((len(queries), k), NONE)
    x = features.astype(np.float64)
    if metric == "cosine":
        x /= np.sqrt((x**2).sum(axis=1, keepdims=True))
        nearness = np.stack([(x[references] * x[query]).sum(axis=1) for query in queries])
    else:
        nearness = np.stack([-((x[references] - x[query]) ** 2).sum(axis=1) for query in queries])
    winners: np.ndarray = references[np.argsort(-nearness, axis=1, kind="stable")[:, :k]]
    return winners


def exact(metric: str, features: np.ndarray, query: int, references: np.ndarray, k: int = 1) -> list[int]:
    """The same for small whole numbers, without any rounding: where rows tie, they truly tie."""
    references = np.sort(references)
    x = features.astype(np.int64)
    q, r = x[query], x[references]
    if metric == "cosine":  # its signed square, times |q|^2, as a whole number of parts of the common denominator
        product = r @ q
        nearness = product * np.abs(product) * (DENOMINATOR // (r * r).sum(axis=1))
    else:
        nearness = -((r - q) ** 2).sum(axis=1)
    ordered: list[int] = references[np.argsort(-nearness, kind="stable")[:k]].tolist()
    return ordered + [NONE] * (k - len(ordered))


@st.composite
def whole_numbers(draw: st.DrawFn) -> np.ndarray:
    """(N, D) small whole numbers without zero rows: duplicates, proportional rows and ties abound."""
    shape = draw(st.tuples(st.integers(2, 40), st.integers(1, 4)))
    features = draw(hnp.arrays(np.float32, shape, elements=st.integers(-3, 3).map(float), fill=st.just(1.0)))
    features[~features.any(axis=1), 0] = 1
    return features


def small_limits(proposals: int, group_rows: int) -> ExitStack:
    """Make every path run on small problems: growing proposals, several searches, groups alone and together."""
    stack = ExitStack()
    stack.enter_context(mock.patch.object(neighbours, "PROPOSALS", proposals))
    stack.enter_context(mock.patch.object(neighbours, "_ROWS_PER_GROUP_BLOCK", group_rows))
    stack.enter_context(mock.patch.object(neighbours, "_QUERIES_PER_SEARCH", 7))
    stack.enter_context(mock.patch.object(space, "_BLOCK_VALUES", 20))
    stack.enter_context(mock.patch.object(duplicates, "_BLOCK_ROWS", 5))
    return stack


@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=300, deadline=None)
@given(data=st.data(), features=whole_numbers(), proposals=st.sampled_from([1, 2, 8]), k=NEIGHBOURS)
def test_nearest_is_exact_on_whole_numbers(
    metric: space.Metric, data: st.DataObject, features: np.ndarray, proposals: int, k: int
) -> None:
    train = np.array(data.draw(st.lists(st.booleans(), min_size=len(features), max_size=len(features))))
    queries, references = np.flatnonzero(~train), np.flatnonzero(train)
    with small_limits(proposals, 512):
        world = Space(features, metric)
        found = nearest(world, queries, References.of(world, references, k), k)
    assert found.rows.tolist() == [exact(metric, features, query, references, k) for query in queries.tolist()]


@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=300, deadline=None)
@given(
    data=st.data(),
    features=whole_numbers(),
    proposals=st.sampled_from([1, 8]),
    group_rows=st.sampled_from([1, 6, 512]),
    k=NEIGHBOURS,
)
def test_leaving_groups_out_is_exact_on_whole_numbers(
    metric: space.Metric, data: st.DataObject, features: np.ndarray, proposals: int, group_rows: int, k: int
) -> None:
    # -1 marks a training row; few groups, so that some have one member, and often there is one group only.
    groups = np.array(data.draw(st.lists(st.integers(-1, 5), min_size=len(features), max_size=len(features))))
    rows, train = np.flatnonzero(groups >= 0), np.flatnonzero(groups < 0)
    expected = [
        exact(metric, features, row, np.concatenate([train, rows[groups[rows] != groups[row]]]), k)
        for row in rows.tolist()
    ]
    with small_limits(proposals, group_rows):
        world = Space(features, metric)
        own = Grouped(rows, groups[rows])
        found = nearest(world, rows, References.of(world, train, k), k)
        found = found.merged(nearest_in_other_groups(world, own, own, k))
    assert found.rows.tolist() == expected


@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=300, deadline=None)
@given(data=st.data(), features=whole_numbers(), group_rows=st.sampled_from([1, 6, 512]), k=NEIGHBOURS)
def test_rows_of_the_same_group_are_excluded_from_any_references(
    metric: space.Metric, data: st.DataObject, features: np.ndarray, group_rows: int, k: int
) -> None:
    groups = np.array(data.draw(st.lists(st.integers(0, 5), min_size=len(features), max_size=len(features))))
    train = np.array(data.draw(st.lists(st.booleans(), min_size=len(features), max_size=len(features))))
    queries, references = np.flatnonzero(~train), np.flatnonzero(train)
    expected = [
        exact(metric, features, row, references[groups[references] != groups[row]], k) for row in queries.tolist()
    ]
    with small_limits(2, group_rows):
        world = Space(features, metric)
        found = nearest_in_other_groups(
            world, Grouped(queries, groups[queries]), Grouped(references, groups[references]), k
        )
    assert found.rows.tolist() == expected


@settings(max_examples=300, deadline=None)
@given(
    base=st.lists(st.integers(-3, 3), min_size=1, max_size=5).filter(any),
    factors=st.lists(st.integers(1, 7), min_size=3, max_size=12),
    proposals=st.sampled_from([1, 8]),
)
def test_rows_of_one_direction_tie_though_centring_leaves_nothing_of_them(
    base: list[int], factors: list[int], proposals: int
) -> None:
    """The centre is any of them, up to rounding; what is left then must not decide."""
    features = np.outer(factors, base).astype(np.float32)
    with small_limits(proposals, 512):
        world = Space(features, "cosine")
        others = np.arange(len(features) - 1)
        assert nearest(world, np.array([len(features) - 1]), References.of(world, others)).rows.tolist() == [[0]]
        groups = np.arange(len(features)) % 3
        own = Grouped(np.arange(len(features)), groups)
        found = nearest_in_other_groups(world, own, own).rows[:, 0]
        assert found.tolist() == [1 if group == 0 else 0 for group in groups.tolist()]


def shaped(kind: str, rows: int = 1200, dimensions: int = 96) -> np.ndarray:
    rng = np.random.default_rng(5)
    x = rng.standard_normal((rows, dimensions)).astype(np.float32)
    match kind:
        case "collapsed":  # what an untrained network gives: one large common part, differences of a millionth
            x = (rng.standard_normal(dimensions) + 3e-6 * x.astype(np.float64)).astype(np.float32)
        case "near copies":  # rows that float32 distances cannot tell apart
            x = x[rng.integers(0, 30, rows)] * (1 + 1e-5 * rng.standard_normal((rows, 1))).astype(np.float32)
            x += (1e-5 * rng.standard_normal(x.shape)).astype(np.float32)
        case "outliers":
            x[::100] *= 1e6
        case "huge":
            x *= np.float32(1e37)
        case "tiny":
            x *= np.float32(1e-30)
        case "offset":
            x += 1e4
        case "sparse":
            x = np.maximum(x - 1.5, 0)
            x[~x.any(axis=1), 0] = 1
    return x


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("k", [1, 7])
@pytest.mark.parametrize("kind", ["normal", "collapsed", "near copies", "outliers", "huge", "tiny", "offset", "sparse"])
def test_equals_the_float64_definition_on_real_numbers(kind: str, metric: space.Metric, k: int) -> None:
    features = shaped(kind)
    queries, references = np.arange(0, len(features), 2), np.arange(1, len(features), 2)
    world = Space(features, metric)
    found = nearest(world, queries, References.of(world, references, k), k)
    expected = brute_force(metric, features, queries, references, k)
    np.testing.assert_array_equal(found.rows[:, 0], expected[:, 0])
    # Beyond the first, float64 itself cannot always tell two cosines of collapsed features.
    assert np.mean(found.rows == expected) > (0.998 if kind == "collapsed" else 0.999999)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("sizes", [(1,) * 400, (200, 1, 1, 198), (600, 3, 597), (1200,)], ids=str)
def test_groups_of_any_size(sizes: tuple[int, ...], metric: space.Metric) -> None:
    rng = np.random.default_rng(7)
    groups = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    features = shaped("normal", len(groups), 12)
    features[rng.integers(0, len(groups), len(groups) // 3)] = features[0]
    rows = np.arange(len(groups))
    expected = np.full(len(groups), NONE)
    for group in range(len(sizes)):
        own = groups == group
        expected[own] = brute_force(metric, features, rows[own], rows[~own])[:, 0]
    own_groups = Grouped(rows, groups)
    found = nearest_in_other_groups(Space(features, metric), own_groups, own_groups)
    np.testing.assert_array_equal(found.rows[:, 0], expected)


@pytest.mark.parametrize("metric", METRICS)
def test_ten_thousand_duplicates_give_the_lowest_row(metric: space.Metric) -> None:
    rng = np.random.default_rng(3)
    features = np.tile(rng.standard_normal(24).astype(np.float32), (10_400, 1))
    features[:100] = rng.standard_normal((100, 24))
    features[300:350] *= np.float32(1 + 2e-7)  # no copy, yet within Faiss's rounding of one
    queries, references = np.arange(10_350, 10_400), np.arange(10_350)
    world = Space(features, metric)
    for k in (1, 5):
        expected = brute_force(metric, features, queries[:1], references, k)[0]
        assert 100 <= expected[0] < 350
        found = nearest(world, queries, References.of(world, references, k), k).rows
        np.testing.assert_array_equal(found, np.tile(expected, (len(queries), 1)))
        groups = np.arange(len(features)) % 3
        everything = Grouped(np.arange(len(features)), groups)
        found = nearest_in_other_groups(world, everything, everything, k).rows
        copies = everything.rows[(features == features[100]).all(axis=1)]
        lowest = {group: copies[groups[copies] != group][:k] for group in range(3)}
        np.testing.assert_array_equal(found[copies], [lowest[group] for group in groups[copies].tolist()])


@contextmanager
def recorded_searches() -> Iterator[list[tuple[int, int]]]:
    """Collect what Faiss is asked: numbers of queries, and of proposals for each."""
    asked: list[tuple[int, int]] = []

    def recorded(vectors: np.ndarray, references: np.ndarray, k: int) -> Any:
        asked.append((len(vectors), k))
        return exact_search.search(vectors, references, k)

    with mock.patch.object(neighbours, "search", recorded):
        yield asked


def test_ties_of_rows_that_are_no_copies_make_the_proposals_grow() -> None:
    # 3,000 different rows at the same distance of the query: a permutation of its coordinates' signs and places.
    rng = np.random.default_rng(11)
    features = np.zeros((3001, 64), dtype=np.float32)
    for row in features[1:]:
        row[rng.choice(64, 8, replace=False)] = rng.choice([-1, 1], 8)
    world = Space(features, "l2")
    with recorded_searches() as asked:
        found = nearest(world, np.array([0]), References.of(world, np.arange(3000, 0, -1)))
    assert found.rows.tolist() == [[1]]
    assert asked == [(1, 8), (1, 64), (1, 512), (1, 3000)]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", ["normal", "collapsed", "outliers", "offset", "huge"])
def test_ordinary_features_are_settled_by_one_search(kind: str, metric: space.Metric) -> None:
    features = shaped(kind)
    world = Space(features, metric)
    with recorded_searches() as asked:
        nearest(world, np.arange(600), References.of(world, np.arange(600, 1200)))
    # An outlier is as far from all other rows as float32 can tell; it alone needs a second look.
    assert asked[0] == (600, 8)
    assert all(queries <= 6 for queries, _ in asked[1:])
    assert kind == "outliers" or len(asked) == 1


@pytest.mark.parametrize("seed", range(40))
def test_queries_at_the_centre_tie_as_others_do(seed: int) -> None:
    # Rows that all but coincide: near the centre, scores are equal that float32 tells apart.
    features = (np.random.default_rng(seed).integers(-2, 3, size=(90, 2)) * 1e-3 + 5).astype(np.float32)
    world, references = Space(features, "cosine"), np.arange(20, 90)
    found = nearest(world, np.arange(20), References.of(world, references, 8), 8)
    for query in range(20):
        order = np.lexsort((references, -world.score(np.full(70, query), references)))[:8]
        assert found.rows[query].tolist() == references[order].tolist()


@pytest.fixture
def threads() -> Iterator[Any]:
    before = faiss.omp_get_max_threads()
    yield faiss.omp_set_num_threads
    faiss.omp_set_num_threads(before)


def test_no_more_threads_than_a_containers_share_of_processors(threads: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    threads(4)
    monkeypatch.setattr(cpus, "cpu_quota", lambda *_: 1)
    with exact_search.threads(None):
        assert faiss.omp_get_max_threads() == 1
    with exact_search.threads(3):
        assert faiss.omp_get_max_threads() == 3
    assert faiss.omp_get_max_threads() == 4
    pools: list[int] = []

    def pool(count: int) -> ThreadPoolExecutor:
        pools.append(count)
        return ThreadPoolExecutor(count)

    monkeypatch.setattr(space, "_BLOCK_VALUES", 4)
    monkeypatch.setattr(space, "ThreadPoolExecutor", pool)
    features = np.ones((64, 4), np.float32)
    Space(features, "cosine")
    assert not pools, "a single thread needs no pool"
    Space(features, "cosine", 2)
    assert set(pools) == {2}


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("kind", ["near copies", "collapsed"])
def test_threads_and_batches_do_not_change_the_answer(kind: str, metric: space.Metric, k: int, threads: Any) -> None:
    features = shaped(kind)
    queries, references = np.arange(600), np.arange(600, 1200)
    groups = np.random.default_rng(0).integers(0, 9, 600)
    world = Space(features, metric)
    answers = []
    for count in (1, 2):
        threads(count)
        answers.append(nearest(world, queries, References.of(world, references, k), k).rows)
        own = Grouped(queries, groups)
        answers.append(nearest_in_other_groups(world, own, own, k).rows)
    np.testing.assert_array_equal(answers[0], answers[2])
    np.testing.assert_array_equal(answers[1], answers[3])
    reversed_references = References.of(world, references[::-1].copy(), k)
    singly = [nearest(world, queries[i : i + 1], reversed_references, k).rows[0] for i in range(0, 600, 7)]
    np.testing.assert_array_equal(singly, answers[0][::7])


def test_a_score_depends_on_its_pair_alone() -> None:
    for dimensions in (1, 3, 8, 9, 127, 128, 129, 768, 1000):
        world = Space(shaped("normal", 40, dimensions), "cosine")
        queries, references = np.repeat(np.arange(20), 20), np.tile(np.arange(20, 40), 20)
        together = world.score(queries, references)
        alone = [world.score(queries[i : i + 1], references[i : i + 1])[0] for i in range(400)]
        np.testing.assert_array_equal(together, alone)


@given(whole_numbers(), st.data())
def test_representatives_are_the_copies_that_can_win(features: np.ndarray, data: st.DataObject) -> None:
    groups = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(features), max_size=len(features))))
    rows = np.arange(len(features))
    for k in (1, 2, 3):
        kept = representatives(features, rows, groups, k)
        for row in rows:
            same = (features == features[row]).all(axis=1)
            for left_out in range(4):
                assert np.isin(rows[same & (groups != left_out)][:k], kept).all()
            assert np.count_nonzero(same[kept]) <= 2 * k
    first = {features[row].tobytes(): row for row in rows[::-1]}
    assert representatives(features, rows).tolist() == sorted(first.values())


def test_different_rows_with_the_same_hash_are_all_kept() -> None:
    features = shaped("normal", 50, 4)
    features[30:] = features[:20]
    with mock.patch.object(np.random, "default_rng") as rng:
        # Weights of 1 give the same hash to every order of the same numbers.
        rng.return_value.integers.return_value = np.ones(4, dtype=np.uint64)
        features[10:20] = features[:10, ::-1]
        kept = representatives(features, np.arange(50))
    assert kept.tolist() == [*range(30), *range(40, 50)]


def test_no_references_and_unknown_metric() -> None:
    world = Space(shaped("normal", 10, 3), "l2")
    nothing = np.empty(0, dtype=np.int64)
    assert nearest(world, np.arange(10), References.of(world, nothing)).rows.tolist() == [[NONE]] * 10
    assert nearest(world, nothing, References.of(world, np.arange(10))).rows.size == 0
    assert nearest_in_other_groups(world, Grouped(nothing, nothing), Grouped(nothing, nothing)).rows.size == 0
    assert Found.nothing(3, 2).merged(Found.nothing(3, 2)).rows.tolist() == [[NONE, NONE]] * 3
    with pytest.raises(EvaluationError, match="'manhattan' is unknown; there are cosine, l2"):
        Space(world.features, "manhattan")  # type: ignore[arg-type]


@pytest.mark.parametrize(("queries", "references", "k"), [(3, 5, 5), (70, 20000, 9), (300, 9000, 1), (1, 12289, 3000)])
def test_slices_give_what_one_search_gives(queries: int, references: int, k: int, threads: Any) -> None:
    rng = np.random.default_rng(queries)
    asked, rows = (rng.normal(size=(count, 24)).astype(np.float32) for count in (queries, references))
    both = np.concatenate([asked, rows]).astype(np.float64)
    squares = (both**2).sum(axis=1)
    expected = squares[:queries, None] + squares[queries:] - 2 * both[:queries] @ both[queries:].T
    for count in (1, 3):
        threads(count)
        distances, places = exact_search.search(asked, rows, k)
        np.testing.assert_allclose(distances, np.sort(expected, axis=1)[:, :k], rtol=1e-4)
        np.testing.assert_allclose(np.take_along_axis(expected, places, axis=1), distances, rtol=1e-4)
        assert all(len(set(found)) == k for found in places.tolist())
