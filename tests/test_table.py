"""Embedding tables: what is written is what is read, or nothing is written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from chammi_fast import table as table_module
from chammi_fast.errors import ManifestError, OutputError, TableError
from chammi_fast.images import ImageStatus
from chammi_fast.table import TableWriter, embedding_matrix, has_table, read_embeddings, read_errors

GOOD = ImageStatus(path="x", code="ok", byte_offset=None, cause="")
BAD = ImageStatus(path="x", code="truncated", byte_offset=7, cause="ends early")


def manifest(n: int) -> tuple[pa.Table, list[str]]:
    keys = [f"k{i}" for i in range(n)]
    return pa.table({"file_path": keys, "Label": [f"l{i % 3}" for i in range(n)]}), keys


def test_rows_keep_order_columns_and_bits_over_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_module, "ROWS_PER_PART", 4)
    rows, keys = manifest(11)
    vectors = np.random.default_rng(0).standard_normal((11, 3), dtype=np.float32)
    status = tuple(BAD if i in {2, 8} else GOOD for i in range(11))
    with TableWriter(tmp_path, rows, keys, 3, npy_name="net") as writer:
        for start in range(0, 11, 3):
            writer.add(vectors[start : start + 3], status[start : start + 3])
        writer.finish({"model": "net"})

    kept = [i for i in range(11) if i not in {2, 8}]
    read = read_embeddings(tmp_path)
    assert len(list(tmp_path.glob("part-*.parquet"))) > 1
    assert read["key"].to_pylist() == [keys[i] for i in kept]
    assert read.column_names == ["key", "file_path", "Label", "embedding"]
    assert read.schema.field("embedding").type == pa.list_(pa.float32(), 3)
    assert read["Label"].to_pylist() == rows["Label"].take(kept).to_pylist()
    np.testing.assert_array_equal(embedding_matrix(read), vectors[kept])
    errors = read_errors(tmp_path).to_pylist()
    assert errors == [{"key": k, "code": "truncated", "byte_offset": 7, "cause": "ends early"} for k in ("k2", "k8")]
    npy = np.load(tmp_path / "net.npy")
    np.testing.assert_array_equal(npy[kept], vectors[kept])
    assert np.isnan(npy[[2, 8]]).all()
    assert json.loads((tmp_path / "run.json").read_text()) == {"model": "net"}
    assert not list(tmp_path.glob(".*"))


def test_a_run_that_stops_leaves_an_older_table_as_it_was(tmp_path: Path) -> None:
    rows, keys = manifest(2)
    with TableWriter(tmp_path, rows, keys, 1) as writer:
        writer.add(np.ones((2, 1), np.float32), (GOOD, GOOD))
        writer.finish({"run": 1})
    with pytest.raises(RuntimeError), TableWriter(tmp_path, rows, keys, 1, npy_name="n") as writer:
        writer.add(np.zeros((2, 1), np.float32), (GOOD, GOOD))
        raise RuntimeError
    assert embedding_matrix(read_embeddings(tmp_path)).tolist() == [[1.0], [1.0]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["errors.parquet", "part-00000.parquet", "run.json"]


def test_parts_of_another_origin_are_not_replaced(tmp_path: Path) -> None:
    rows, keys = manifest(1)
    parquet.write_table(pa.table({"file_path": ["mine"]}), tmp_path / "part-0.parquet")
    with pytest.raises(OutputError, match="another origin"):
        TableWriter(tmp_path, rows, keys, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["part-0.parquet"]


def test_an_embedding_with_holes_is_refused(tmp_path: Path) -> None:
    vectors = pa.array([[1.0, None]], type=pa.list_(pa.float32(), 2))
    with pytest.raises(TableError, match="lacks 1 of its numbers"):
        embedding_matrix(pa.table({"key": ["a"], "embedding": vectors}))


def test_a_new_run_replaces_an_older_and_longer_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_module, "ROWS_PER_PART", 1)
    for n in (3, 1):
        rows, keys = manifest(n)
        with TableWriter(tmp_path, rows, keys, 1) as writer:
            for _ in range(n):
                writer.add(np.full((1, 1), n, np.float32), (GOOD,))
            writer.finish({})
    assert embedding_matrix(read_embeddings(tmp_path)).tolist() == [[1.0]]


def test_reserved_columns_are_refused(tmp_path: Path) -> None:
    rows = pa.table({"file_path": ["a"], "embedding": [1]})
    with pytest.raises(ManifestError, match="'embedding'"):
        TableWriter(tmp_path, rows, ["a"], 1)


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    rows, keys = manifest(1)
    with pytest.raises(OutputError, match="file"):
        TableWriter(tmp_path / "file" / "out", rows, keys, 1)


def test_faulty_tables_are_named(tmp_path: Path) -> None:
    assert not has_table(tmp_path)
    with pytest.raises(TableError, match="holds no part"):
        read_embeddings(tmp_path)
    parquet.write_table(pa.table({"key": ["a"]}), tmp_path / "part-0.parquet")
    with pytest.raises(TableError, match="lacks the column 'embedding'"):
        read_embeddings(tmp_path)
    (tmp_path / "part-0.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(TableError, match="cannot be read"):
        read_embeddings(tmp_path)
