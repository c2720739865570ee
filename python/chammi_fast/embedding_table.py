"""Look at an embedding table: lazily, row by row or as a whole, in the form that another library wants."""

from __future__ import annotations

import ast
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from chammi_fast.errors import TableError
from chammi_fast.extras import require
from chammi_fast.files import source_of
from chammi_fast.manifest import select_rows
from chammi_fast.table import EMBEDDING_COLUMN, KEY_COLUMN, part_paths
from chammi_fast.urls import as_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    import anndata
    import pandas as pd
    import polars as pl

BATCH_ROWS = 8192
# Parquet is read in pieces of this size, so that a part's compressed column is never in memory as a whole.
_READ_BYTES = 4 << 20

Item = TypeVar("Item")


def feature_names(size: int) -> list[str]:
    """Return the names of so many embedding numbers as columns: ``e0000``, ``e0001``, ..."""
    return [f"e{index:04d}" for index in range(size)]


class EmbeddingTable:
    """An embedding table's folder, of which nothing is read before it is asked for.

    Parameters
    ----------
    folder : with ``part-*.parquet``, as `chammi_fast.embed` leaves it
    where : keep only the rows for which this expression holds (`chammi_fast.manifest.select_rows`)

    Raises
    ------
    TableError
        If there are no parts, the run is not finished, or a part cannot be read or is of another table.
    ManifestError
        If the expression cannot be understood or names a column that the table lacks.

    Examples
    --------
    >>> table = EmbeddingTable("embeddings/").where('Metadata_Well == "A01"')  # doctest: +SKIP
    >>> len(table), table.matrix().shape  # doctest: +SKIP
    (1712, (1712, 768))
    """

    def __init__(self, folder: str | Path, where: str | None = None) -> None:
        self.folder = as_path(folder)
        self.paths = part_paths(self.folder)
        self.schema = _schema(self.paths[0])
        self._where: tuple[str, ...] = ()
        if where is not None:
            self._where = (where,)
            select_rows(self.schema.empty_table(), where)

    def where(self, expression: str) -> EmbeddingTable:
        """Return the rows of this table for which an expression such as ``Metadata_Well == "A01"`` holds."""
        chosen = EmbeddingTable(self.folder, expression)
        chosen._where = (*self._where, expression)
        return chosen

    @property
    def columns(self) -> list[str]:
        """Names of all columns but the embedding."""
        return [name for name in self.schema.names if name != EMBEDDING_COLUMN]

    @property
    def embedding_size(self) -> int:
        """How many numbers an embedding has."""
        return int(self.schema.field(EMBEDDING_COLUMN).type.list_size)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the embedding's numbers as they are stored: float32 or float16."""
        kind: np.dtype[Any] = np.dtype(self.schema.field(EMBEDDING_COLUMN).type.value_type.to_pandas_dtype())
        return kind

    def __len__(self) -> int:
        return self._rows

    @cached_property
    def _rows(self) -> int:
        if not self._where:
            return sum(self.part_sizes())
        return sum(batch.num_rows for batch in self.batches([]))

    def part_sizes(self) -> list[int]:
        """Return how many rows each part has, whether they are chosen or not."""
        return [parquet.read_metadata(source_of(path)).num_rows for path in self.paths]

    def __repr__(self) -> str:
        chosen = "".join(f", where {expression}" for expression in self._where)
        return f"<EmbeddingTable {self.folder}: {self.embedding_size} numbers a row{chosen}>"

    def batches(self, columns: Sequence[str] | None = None, rows: int = BATCH_ROWS) -> Iterator[pa.Table]:
        """Yield the table in order, at most so many rows at a time, of `columns` alone where they are given.

        Memory does not grow with the table.
        """
        for part in range(len(self.paths)):
            yield from self.part_batches(part, columns, rows)

    def part_batches(
        self, part: int, columns: Sequence[str] | None = None, rows: int = BATCH_ROWS
    ) -> Iterator[pa.Table]:
        """Yield one part of the table, by its place in `paths`, as `batches` does all."""
        wanted = self._wanted(columns)
        read = list(dict.fromkeys([*wanted, *self._asked]))
        path = self.paths[part]
        if not _schema(path).equals(self.schema):
            raise TableError(f"{path}: has other columns than {self.paths[0].name}: they are from different runs.")
        try:
            yield from (self._chosen(batch).select(wanted) for batch in _read(path, read, rows))
        except (OSError, pa.ArrowException) as error:
            raise TableError(f"{path}: cannot be read: {str(error).splitlines()[0]}.") from None

    def _wanted(self, columns: Sequence[str] | None) -> list[str]:
        wanted = self.schema.names if columns is None else list(columns)
        missing = next((name for name in wanted if name not in self.schema.names), None)
        if missing is not None:
            raise TableError(f"{self.folder}: has no column '{missing}'; it has {', '.join(self.schema.names)}.")
        return wanted

    @property
    def _asked(self) -> list[str]:
        """Columns that the expressions name; one at least, because rows without columns have no number."""
        trees = [ast.parse(expression, mode="eval") for expression in self._where]
        named = [node.id for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Name)]
        return named or [KEY_COLUMN]

    def _chosen(self, table: pa.Table) -> pa.Table:
        for expression in self._where:
            table = select_rows(table, expression)
        return table

    @property
    def metadata(self) -> pa.Table:
        """All columns but the embedding."""
        return self.to_arrow(self.columns)

    def to_arrow(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows as an Arrow table, of `columns` alone where they are given."""
        wanted = self._wanted(columns)
        schema = pa.schema([self.schema.field(name) for name in wanted])
        return pa.Table.from_batches(
            [batch for table in self.batches(wanted) for batch in table.to_batches()], schema=schema
        )

    def matrix(self) -> np.ndarray:
        """Return the embeddings as an (N, D) array of the stored type (`dtype`), filled as the parts are read.

        Raises
        ------
        TableError
            If an embedding, or a number of one, is absent.
        """
        matrix = np.empty((len(self), self.embedding_size), dtype=self.dtype)
        start = 0
        for table in self.batches([EMBEDDING_COLUMN]):
            matrix[start : start + table.num_rows] = vectors(table)
            start += table.num_rows
        return matrix

    def rows_of(self, places: np.ndarray) -> np.ndarray:
        """Return the embeddings of some rows, (n,) int64 places, in this order, as (n, D) float32.

        Never more than a batch is in memory beside the result.

        Raises
        ------
        TableError
            If an embedding, or a number of one, is absent.
        """
        matrix = np.empty((len(places), self.embedding_size), dtype=np.float32)
        wanted = np.full(len(self), -1)
        wanted[places] = np.arange(len(places))
        start = 0
        for batch in self.batches([EMBEDDING_COLUMN]):
            rows = wanted[start : start + batch.num_rows]
            matrix[rows[rows >= 0]] = vectors(batch)[rows >= 0]
            start += batch.num_rows
        return matrix

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per embedding: every column, then one per number (``e0000``, ...), as pycytominer wants."""
        pandas = require("pandas", purpose="a pandas table")
        numbers = pandas.DataFrame(self.matrix(), columns=feature_names(self.embedding_size), copy=False)
        frame: pd.DataFrame = pandas.concat([self.metadata.to_pandas(), numbers], axis="columns")
        return frame

    def to_polars(self) -> pl.DataFrame:
        """Return the rows as a polars table, which shares the memory of the Arrow table; `embedding` is an Array."""
        frame: pl.DataFrame = require("polars", purpose="a polars table").from_arrow(self.to_arrow())
        return frame

    def to_anndata(self) -> anndata.AnnData:
        """Return an AnnData object: the embeddings in X, every other column in obs, which `key` names."""
        library = require("anndata", purpose="an AnnData object")
        return make_anndata(library, self.matrix(), self.metadata, feature_names(self.embedding_size), KEY_COLUMN)


def make_anndata(
    library: Any, matrix: np.ndarray, metadata: pa.Table, features: Sequence[str], key: str | None = None
) -> anndata.AnnData:
    """Return an AnnData object of a matrix whose rows `metadata` describes; the column `key` names them if given."""
    pandas = require("pandas", purpose="an AnnData object")
    names = metadata[key].to_pylist() if key else [str(row) for row in range(len(matrix))]
    obs = metadata.drop_columns([key] if key else []).to_pandas()
    obs.index = pandas.Index(names, dtype=object)
    for column in obs.columns:
        # HDF5 has no place for columns of all kinds of objects, nor for times; a missing text is an empty one.
        if obs[column].dtype == object or obs[column].dtype.kind in "mM":
            texts = ["" if value is None or value is pandas.NaT else str(value) for value in obs[column]]
            obs[column] = pandas.Series(texts, index=obs.index, dtype=object)
    made: anndata.AnnData = library.AnnData(
        X=matrix, obs=obs, var=pandas.DataFrame(index=pandas.Index(list(features), dtype=object))
    )
    return made


def vectors(table: pa.Table) -> np.ndarray:
    """Return a table's embeddings as (N, D) of the stored type; without a copy where they are in one piece.

    Raises
    ------
    TableError
        If an embedding, or a number of one, is absent.
    """
    column = table[EMBEDDING_COLUMN]
    size = column.type.list_size
    pieces = [chunk.flatten() for chunk in column.chunks]
    if column.null_count or any(piece.null_count for piece in pieces):
        raise TableError(f"column '{EMBEDDING_COLUMN}' has empty places.")
    arrays = [piece.to_numpy(zero_copy_only=True).reshape(-1, size) for piece in pieces]
    if not arrays:
        return np.empty((0, size), dtype=column.type.value_type.to_pandas_dtype())
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _schema(path: Path) -> pa.Schema:
    try:
        schema = parquet.read_schema(source_of(path)).remove_metadata()
    except (OSError, pa.ArrowException) as error:
        raise TableError(f"{path}: cannot be read: {str(error).splitlines()[0]}.") from None
    for column in (KEY_COLUMN, EMBEDDING_COLUMN):
        if column not in schema.names:
            raise TableError(f"{path}: lacks the column '{column}'.")
    kind = schema.field(EMBEDDING_COLUMN).type
    if not pa.types.is_fixed_size_list(kind) or not pa.types.is_floating(kind.value_type):
        raise TableError(f"{path}: column '{EMBEDDING_COLUMN}' is {kind}, not a fixed_size_list of floats.")
    return schema


def _read(path: Path, columns: list[str], rows: int) -> Iterator[pa.Table]:
    with parquet.ParquetFile(source_of(path), buffer_size=_READ_BYTES, pre_buffer=False) as file:
        # One thread: a batch's columns are few, and the embedding is one of them.
        for batch in file.iter_batches(rows, columns=columns, use_threads=False):
            yield pa.Table.from_batches([batch])


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """Yield items, such as batches of a table, while a thread already reads the next."""
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1, thread_name_prefix="chammi-fast-read") as pool:
        coming = pool.submit(next, iterator, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, iterator, end)
            yield item  # type: ignore[misc]
