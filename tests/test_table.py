"""Embedding tables: what is written is what is read, or nothing is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from chammi_fast.errors import ManifestError, TableError
from chammi_fast.table import check_columns, embedding_matrix, has_table, make_part, read_embeddings


def test_an_embedding_with_holes_is_refused(tmp_path: Path) -> None:
    vectors = pa.array([[1.0, None]], type=pa.list_(pa.float32(), 2))
    with pytest.raises(TableError, match="lacks 1 of its numbers"):
        embedding_matrix(pa.table({"key": ["a"], "embedding": vectors}))


def test_reserved_columns_are_refused() -> None:
    with pytest.raises(ManifestError, match="'embedding'"):
        check_columns(["file_path", "embedding"])


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_part_holds_keys_columns_and_vectors(dtype: type) -> None:
    rows = pa.table({"file_path": ["a", "b"], "Label": ["x", None]})
    vectors: np.ndarray = np.array([[1, 2, 3], [4, 5, 6.5]], dtype)
    part = make_part(["a", "b"], rows, vectors)
    assert part.column_names == ["key", "file_path", "Label", "embedding"]
    assert part["embedding"].to_pylist() == vectors.tolist()
    found = embedding_matrix(part)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, vectors)


def test_an_unfinished_run_is_not_read(tmp_path: Path) -> None:
    (tmp_path / ".run").mkdir()
    with pytest.raises(TableError, match="its run is not finished"):
        read_embeddings(tmp_path)


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
