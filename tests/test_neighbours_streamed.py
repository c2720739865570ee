"""Neighbours in tables that are read block by block: those of one search among all rows, by the plainest definition."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from typer.testing import CliRunner

import chammi_fast
from chammi_fast import EmbeddingTable, find_neighbours
from chammi_fast.cli import app
from chammi_fast.errors import ChammiFastError, EvaluationError, TableError
from chammi_fast.evaluation import finding, streaming
from chammi_fast.evaluation.finding import stream_neighbours
from chammi_fast.evaluation.neighbours import References, nearest
from chammi_fast.evaluation.space import Metric, Space
from chammi_fast.evaluation.streaming import Room
from chammi_fast.table import make_part, part_name

if TYPE_CHECKING:
    from collections.abc import Sequence

pytest.importorskip("faiss")
pytestmark = pytest.mark.usefixtures("one_thread")
METRICS: tuple[Metric, ...] = ("cosine", "l2")


def write(
    folder: Path, features: np.ndarray, parts: Sequence[int], name: str = "r", **columns: Sequence[Any]
) -> EmbeddingTable:
    """Write a table of (N, D) features in parts of these sizes."""
    folder.mkdir(parents=True)
    keys = [f"{name}{row}" for row in range(len(features))]
    rows = pa.table({column: pa.array(list(values)) for column, values in columns.items()} or {"row": list(keys)})
    start = 0
    for number, size in enumerate(parts):
        stop = start + size
        part = make_part(keys[start:stop], rows.slice(start, size), features[start:stop])
        parquet.write_table(part, folder / part_name(number), row_group_size=7)
        start = stop
    assert start == len(features)
    return EmbeddingTable(folder)


def problem(seed: int, rows: int, dimensions: int) -> np.ndarray:
    """(rows, dimensions) float32 small whole numbers without zero rows: copies, proportional rows and ties abound."""
    features = np.random.default_rng(seed).integers(-2, 3, size=(rows, dimensions)).astype(np.float32)
    features[~features.any(axis=1), 0] = 1
    return features


def brute_force(
    metric: str, queries: np.ndarray, references: np.ndarray, allowed: np.ndarray, k: int
) -> list[list[int]]:
    """The definition on whole numbers, where nothing is rounded but the last division. (Q, up to k) rows."""
    q, r = queries.astype(np.float64), references.astype(np.float64)
    product = q @ r.T
    nearness = product * np.abs(product) / (r**2).sum(axis=1)
    if metric == "l2":
        nearness = -((q[:, None, :] - r[None, :, :]) ** 2).sum(axis=2)
    nearness[~allowed] = -np.inf
    order = np.argsort(-nearness, axis=1, kind="stable")[:, :k]
    return [[int(row) for row in found if allowed[query, row]] for query, found in enumerate(order)]


def found_rows(table: pa.Table, queries: int, name: str = "q") -> list[list[int]]:
    """What a table of neighbours says; its order and ranks are checked."""
    rows: list[list[int]] = [[] for _ in range(queries)]
    numbers = [int(key.removeprefix(name)) for key in table["query"].to_pylist()]
    assert numbers == sorted(numbers)
    for query, rank, neighbour in zip(numbers, table["rank"].to_pylist(), table["neighbour"].to_pylist(), strict=True):
        rows[query].append(int(neighbour.removeprefix("r")))
        assert rank == len(rows[query])
    return rows


@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    sizes=st.tuples(st.integers(1, 20), st.lists(st.integers(0, 25), min_size=1, max_size=5)),
    dimensions=st.integers(1, 4),
    k=st.sampled_from([1, 2, 5, 60]),
    memory=st.integers(1, 6000),
    groups=st.sampled_from([0, 1, 2, 5]),
)
def test_blocks_give_the_neighbours_of_the_definition(
    metric: Metric,
    seed: int,
    sizes: tuple[int, list[int]],
    dimensions: int,
    k: int,
    memory: int,
    groups: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder: Path = tmp_path_factory.mktemp("tables")
    asked, parts = sizes
    rng = np.random.default_rng(seed)
    queries, references = problem(seed, asked, dimensions), problem(seed + 1, sum(parts), dimensions)
    plates, theirs = (rng.integers(0, max(groups, 1), size=n) for n in (asked, sum(parts)))
    wells, their_wells = (rng.integers(0, 2, size=n).astype(str) for n in (asked, sum(parts)))
    one = write(folder / "queries", queries, [asked], "q", plate=plates.tolist(), well=wells.tolist())
    many = write(folder / "references", references, parts, plate=theirs.tolist(), well=their_wells.tolist())
    same = (plates[:, None] == theirs[None, :]) & (wells[:, None] == their_wells[None, :]) & (groups > 0)
    columns = ["plate", "well"] if groups else []
    found = find_neighbours(one, many, k=k, metric=metric, exclude_same=columns, memory=memory)
    assert found.schema == finding.SCHEMA
    assert found_rows(found, asked) == brute_force(metric, queries, references, ~same, k)


@pytest.mark.parametrize("metric", METRICS)
def test_the_same_table_in_memory_gives_the_same(metric: Metric, tmp_path: Path) -> None:
    features = np.random.default_rng(4).normal(size=(400, 24)).astype(np.float16)
    features[100:140] = features[:40]  # copies, on both sides of blocks
    features[300:340] = features[:40]
    queries = features[90:150]
    one = write(tmp_path / "queries", queries, [20, 40], "q")
    many = write(tmp_path / "references", features, [150, 0, 9, 241])
    space = Space(np.concatenate([queries, features]), metric)
    own, others = np.arange(len(queries)), np.arange(len(queries), len(space))
    expected = nearest(space, own, References.of(space, others, 7), 7)
    for memory in (12_000, 60_000, 1 << 30):
        found = find_neighbours(one, many, k=7, metric=metric, exclude_same=(), memory=memory)
        assert found_rows(found, len(queries)) == (expected.rows - len(queries)).tolist()
        similarity = space.similarity(np.repeat(own, 7), expected.scores.ravel())
        np.testing.assert_array_equal(found["similarity"].to_numpy(), similarity)
    x, y = queries.astype(np.float64), features.astype(np.float64)[expected.rows - len(queries)]
    distances = np.sqrt(((x[:, None] - y) ** 2).sum(axis=2))
    cosines = (x[:, None] * y).sum(axis=2) / np.sqrt((x**2).sum(axis=1)[:, None] * (y**2).sum(axis=2))
    # Roots of scores: of a distance that is all but 0, half of the digits are left.
    np.testing.assert_allclose(similarity.reshape(-1, 7), cosines if metric == "cosine" else distances, atol=1e-7)


def test_a_row_is_not_its_own_neighbour(tmp_path: Path) -> None:
    features = problem(7, 60, 3)
    table = write(tmp_path / "table", features, [20, 20, 20], plate=[row // 20 for row in range(60)])
    for columns, allowed in (
        (("key",), ~np.eye(60, dtype=bool)),
        (("plate",), np.arange(60)[:, None] // 20 != np.arange(60)[None, :] // 20),  # whole parts are left out
        ((), np.ones((60, 60), dtype=bool)),
    ):
        found = find_neighbours(table, k=4, exclude_same=columns, memory=2000)
        assert found_rows(found, 60, "r") == brute_force("cosine", features, features, allowed, 4)
    twice = find_neighbours(table, k=4, exclude_same=["plate", "plate"])
    assert twice.equals(find_neighbours(table, k=4, exclude_same=["plate"]))
    assert find_neighbours(tmp_path / "table", k=4).equals(find_neighbours(table, table, k=4, memory=999))


def test_where_chooses_among_both(tmp_path: Path) -> None:
    features = problem(8, 80, 3)
    write(tmp_path / "table", features, [30, 1, 49], plate=[row % 4 for row in range(80)])
    one, many = EmbeddingTable(tmp_path / "table", "plate == 1"), EmbeddingTable(tmp_path / "table", "plate != 2")
    found = find_neighbours(one, many, k=3, exclude_same=["plate"], memory=1500)
    plates = np.arange(80) % 4
    allowed = (plates[:, None] != plates[None, :]) & (plates != 2)[None, :]
    expected = brute_force("cosine", features, features, allowed, 3)
    assert [rows for rows in found_rows(found, 80, "r") if rows] == [
        expected[row] for row in np.flatnonzero(plates == 1)
    ]
    nobody = find_neighbours(one, EmbeddingTable(tmp_path / "table", "plate == 1"), exclude_same=["plate"])
    assert nobody.schema == finding.SCHEMA
    assert not nobody.num_rows


def test_values_are_compared_as_texts_and_need_not_be_in_both(tmp_path: Path) -> None:
    one = write(tmp_path / "a", problem(1, 4, 2), [4], "q", plate=["1", "2", "9", "1"], well=["x", "x", "y", "y"])
    many = write(tmp_path / "b", problem(2, 4, 2), [2, 2], plate=[1, 2, 3, 1], well=["x", "y", "x", "z"])
    found = found_rows(find_neighbours(one, many, k=9, exclude_same=["plate", "well"]), 4)
    assert [sorted(rows) for rows in found] == [[1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3]]


def test_blocks_hold_no_more_than_there_is_room_for(tmp_path: Path) -> None:
    features = problem(3, 300, 4)
    one, many = write(tmp_path / "q", features[:40], [40], "q"), write(tmp_path / "r", features, [100, 200])
    memory = 8000
    room = Room.within(memory, 4, 2)
    assert room.queries < 40
    assert room.references < 100
    sizes: list[tuple[int, int]] = []

    def watched(block: np.ndarray, *rest: Any) -> Space:
        sizes.append(block.shape)
        return Space(block, *rest)

    with mock.patch.object(streaming, "Space", watched):
        find_neighbours(one, many, k=2, memory=memory)
    assert max(rows for rows, _ in sizes) <= room.queries + room.references
    assert len(sizes) >= 2 * 300 // room.references


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"k": 0}, "k must be at least 1"),
        ({"memory": 0}, "memory must be at least 1"),
        ({"metric": "cos"}, "metric 'cos' is unknown"),
        ({"exclude_same": ["plate"]}, "no column 'plate'"),
        ({"exclude_same": ["hole"]}, "column 'hole' is empty in some rows"),
        ({"exclude_same": ["blank"]}, "column 'blank' is empty in some rows"),
        ({"exclude_same": ["nan"]}, "column 'nan' is empty in some rows"),
    ],
)
def test_what_cannot_be_asked(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    blank, nan = [*"abcdefgh", ""], [*map(float, range(8)), float("nan")]
    table = write(tmp_path / "t", problem(1, 9, 2), [9], hole=[*range(8), None], blank=blank, nan=nan)
    with pytest.raises(ChammiFastError, match=words):
        find_neighbours(table, **options)


def test_rows_that_cannot_be_compared(tmp_path: Path) -> None:
    features = problem(1, 50, 2)
    good = write(tmp_path / "good", features, [50], "q")
    features[33] = 0
    zero = write(tmp_path / "zero", features, [20, 30])
    for queries, references in ((good, zero), (zero, good)):
        with pytest.raises(EvaluationError, match=r"zero: the embedding of 'r33' is all zero, without a cosine"):
            find_neighbours(queries, references, memory=1000)
        assert find_neighbours(queries, references, metric="l2", memory=1000).num_rows == 500
    features[33] = np.inf
    with pytest.raises(EvaluationError, match="holds embeddings that are NaN or infinite"):
        find_neighbours(good, write(tmp_path / "inf", features, [50]))
    with pytest.raises(EvaluationError, match="embeddings of 2 and 3 numbers cannot be compared"):
        find_neighbours(good, write(tmp_path / "wide", problem(1, 9, 3), [9]))
    with pytest.raises(TableError):
        find_neighbours(good, tmp_path / "nowhere")


def test_progress_is_counted_in_queries(tmp_path: Path) -> None:
    write(tmp_path / "cells", problem(5, 70, 3), [35, 35])
    seen: list[tuple[int, int]] = []
    tables = stream_neighbours(tmp_path / "cells", k=3, memory=4000, progress=lambda *now: seen.append(now))
    assert sum(table.num_rows for table in tables) == 210
    assert len(seen) > 4, "blocks of queries, each among blocks of references"
    assert seen == sorted(seen)
    assert seen[-1] == (70, 70)


def test_the_command(tmp_path: Path) -> None:
    features = problem(5, 70, 3)
    plates = [row % 3 for row in range(70)]
    write(tmp_path / "cells", features, [35, 35], plate=plates)
    out = tmp_path / "new" / "neighbours.parquet"
    command = ["neighbours", "--queries", str(tmp_path / "cells"), "--out", str(out), "--k", "3", "--memory", "4kB"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert parquet.read_table(out).equals(find_neighbours(tmp_path / "cells", k=3))
    more = ["--references", str(tmp_path / "cells"), "--exclude-same", "plate, row", "--metric", "l2"]
    chosen = ["--where", "plate == 1", "--references-where", "plate == 2"]
    refused = CliRunner().invoke(app, [*command, *more, *chosen])
    assert isinstance(refused.exception, TableError)
    done = CliRunner().invoke(app, [*command, *more[:2], "--exclude-same", "", "--metric", "l2", *chosen])
    assert done.exit_code == 0, done.output
    one, many = (EmbeddingTable(tmp_path / "cells", f"plate == {plate}") for plate in (1, 2))
    assert parquet.read_table(out).equals(find_neighbours(one, many, k=3, metric="l2", exclude_same=()))
    done = CliRunner().invoke(app, [*command, "--where", "plate == 1"])
    assert done.exit_code == 0, done.output
    assert parquet.read_table(out).equals(find_neighbours(one, k=3))
    assert parquet.read_table(out).equals(find_neighbours(one, one, k=3)), "among the queries alone"
    done = CliRunner().invoke(app, [*command, *chosen])
    assert parquet.read_table(out).equals(find_neighbours(one, many, k=3))
    refused = CliRunner().invoke(app, [*command, "--where", "plate == 7"])
    assert str(refused.exception) == f"{tmp_path / 'cells'}: no rows where plate == 7."
    refused = CliRunner().invoke(app, [*command, "--memory", "much"])
    assert refused.exit_code == 2
    assert "such as 500MB or 2GB" in refused.output


def test_the_function_is_public() -> None:
    assert chammi_fast.find_neighbours is find_neighbours
