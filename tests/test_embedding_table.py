"""`EmbeddingTable`: every view of a folder is the same rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

import chammi_fast
from chammi_fast.embedding_table import EmbeddingTable, vectors
from chammi_fast.errors import ManifestError, TableError
from chammi_fast.table import make_part, part_name

if TYPE_CHECKING:
    from pathlib import Path

ROWS, SIZE = 57, 6


def write(folder: Path, dtype: type = np.float32, parts: int = 3) -> np.ndarray:
    matrix: np.ndarray = np.random.default_rng(3).standard_normal((ROWS, SIZE)).astype(dtype)
    rows = pa.table({"Metadata_Well": [f"A{row % 4:02d}" for row in range(ROWS)], "Metadata_Site": list(range(ROWS))})
    for number, places in enumerate(np.array_split(np.arange(ROWS), parts)):
        part = make_part([f"cell {place}" for place in places], rows.take(places), matrix[places])
        parquet.write_table(part, folder / part_name(number), row_group_size=10)
    return matrix


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_views_hold_the_same_rows(tmp_path: Path, dtype: type) -> None:
    matrix = write(tmp_path, dtype)
    table = chammi_fast.EmbeddingTable(tmp_path)
    assert len(table) == ROWS
    assert table.columns == ["key", "Metadata_Well", "Metadata_Site"]
    assert table.dtype == np.dtype(dtype)
    assert table.embedding_size == SIZE
    assert table.matrix().dtype == dtype
    np.testing.assert_array_equal(table.matrix(), matrix)
    assert table.to_arrow()["key"].to_pylist() == [f"cell {row}" for row in range(ROWS)]
    assert table.metadata.column_names == table.columns
    np.testing.assert_array_equal(np.concatenate([vectors(batch) for batch in table.batches(rows=7)]), matrix)


def test_rows_are_selected(tmp_path: Path) -> None:
    matrix = write(tmp_path)
    table = EmbeddingTable(tmp_path, 'Metadata_Well == "A01"')
    places = [row for row in range(ROWS) if row % 4 == 1]
    assert len(table) == len(places)
    np.testing.assert_array_equal(table.matrix(), matrix[places])
    again = table.where("Metadata_Site >= 20")
    assert again.metadata["Metadata_Site"].to_pylist() == [row for row in places if row >= 20]
    assert "A01" in repr(again)
    nothing = table.where('Metadata_Well == "P24"')
    assert len(nothing) == 0
    assert nothing.matrix().shape == (0, SIZE)
    assert nothing.to_arrow().num_rows == 0
    with pytest.raises(ManifestError, match="there is no column 'Well'"):
        table.where("Well == 1")


def test_one_batch_is_not_copied(tmp_path: Path) -> None:
    write(tmp_path, parts=1)
    (batch,) = EmbeddingTable(tmp_path).batches()
    assert not vectors(batch).flags.owndata


def test_pandas(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    matrix = write(tmp_path)
    frame = EmbeddingTable(tmp_path).to_pandas()
    assert frame.columns.tolist() == [
        "key",
        "Metadata_Well",
        "Metadata_Site",
        *(f"e000{place}" for place in range(SIZE)),
    ]
    np.testing.assert_array_equal(frame.filter(regex="^e0").to_numpy(), matrix)


def test_polars(tmp_path: Path) -> None:
    pytest.importorskip("polars")
    matrix = write(tmp_path)
    frame = EmbeddingTable(tmp_path).to_polars()
    np.testing.assert_array_equal(frame["embedding"].to_numpy(), matrix)


def test_anndata(tmp_path: Path) -> None:
    pytest.importorskip("anndata")
    matrix = write(tmp_path)
    data = EmbeddingTable(tmp_path).to_anndata()
    np.testing.assert_array_equal(data.X, matrix)
    assert data.obs_names[3] == "cell 3"
    assert data.obs["Metadata_Well"].tolist()[:3] == ["A00", "A01", "A02"]


def test_what_is_no_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="holds no part"):
        EmbeddingTable(tmp_path)
    write(tmp_path)
    other = parquet.read_table(tmp_path / part_name(1)).drop_columns(["Metadata_Site"])
    parquet.write_table(other, tmp_path / part_name(1))
    with pytest.raises(TableError, match=r"part-00001.parquet: has other columns than part-00000.parquet"):
        EmbeddingTable(tmp_path).matrix()
    (tmp_path / part_name(0)).write_bytes(b"PAR1")
    with pytest.raises(TableError, match=r"part-00000.parquet: cannot be read"):
        EmbeddingTable(tmp_path)
    parquet.write_table(other.drop_columns(["embedding"]), tmp_path / part_name(0))
    with pytest.raises(TableError, match="lacks the column 'embedding'"):
        EmbeddingTable(tmp_path)


def test_an_empty_place_is_named(tmp_path: Path) -> None:
    write(tmp_path, parts=1)
    table = parquet.read_table(tmp_path / part_name(0))
    column = pa.array([None, *table["embedding"].to_pylist()[1:]], table["embedding"].type)
    parquet.write_table(table.set_column(3, "embedding", column), tmp_path / part_name(0))
    with pytest.raises(TableError, match="empty places"):
        EmbeddingTable(tmp_path).matrix()


def test_times_are_texts_in_anndata(tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata")
    times = pa.array([0, None, 86_400_000_000], pa.timestamp("us"))
    rows = pa.table({"taken": times, "zoned": times.cast(pa.timestamp("us", "UTC")), "exposed": times.cast(pa.int64())
                     .cast(pa.duration("us")), "day": times.cast(pa.date32())})  # fmt: skip
    parquet.write_table(make_part(list("abc"), rows, np.eye(3, dtype=np.float32)), tmp_path / part_name(0))
    EmbeddingTable(tmp_path).to_anndata().write_h5ad(tmp_path / "cells.h5ad")
    told = anndata.read_h5ad(tmp_path / "cells.h5ad").obs
    assert told["taken"].tolist() == ["1970-01-01 00:00:00", "", "1970-01-02 00:00:00"]
    assert told["zoned"].tolist() == ["1970-01-01 00:00:00+00:00", "", "1970-01-02 00:00:00+00:00"]
    assert told["exposed"].tolist() == ["0 days 00:00:00", "", "1 days 00:00:00"]
    assert told["day"].tolist() == ["1970-01-01", "", "1970-01-02"]


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    table = EmbeddingTable(tmp_path)
    with pytest.raises(TableError, match="has no column 'zzz'; it has key, Metadata_Well, Metadata_Site, embedding"):
        table.to_arrow(["zzz"])
    with pytest.raises(TableError, match="has no column 'zzz'"):
        next(table.batches(["zzz"]))


def test_embeddings_of_some_rows_come_in_their_order(tmp_path: Path) -> None:
    matrix = write(tmp_path, np.float16)
    places = np.array([40, 3, 56, 0])
    found = EmbeddingTable(tmp_path).rows_of(places)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, matrix[places].astype(np.float32))
