"""Embedding tables: what an embedding run leaves, and how to read it back.

A folder holds ``part-*.parquet`` (one row per embedded image: `key`, every manifest column, `embedding`),
``errors.parquet`` (one row per failed image), ``run.json`` (provenance) and ``ledger.json`` (hashes). docs/formats.md
describes the columns; `chammi_fast.runfolder` writes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from chammi_fast.errors import ManifestError, TableError
from chammi_fast.files import source_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from chammi_fast.images import ImageStatus

KEY_COLUMN = "key"
EMBEDDING_COLUMN = "embedding"
PART_PATTERN = "part-*.parquet"
ERRORS_FILE = "errors.parquet"
RUN_FILE = "run.json"
LEDGER_FILE = "ledger.json"

RUN_FOLDER = ".run"
PUBLISHING = "publishing"

ERRORS_SCHEMA = pa.schema(
    [
        (KEY_COLUMN, pa.string()),
        ("code", pa.string()),
        ("byte_offset", pa.int64()),
        ("cause", pa.string()),
        ("shard", pa.int64()),
    ]
)
# Made of no arrays: those of Python's objects have pyarrow import pandas wherever that is installed.
NO_ERRORS = pa.Table.from_batches([], ERRORS_SCHEMA)


def has_table(folder: Path) -> bool:
    """Tell whether `folder` holds an embedding table."""
    return any(folder.glob(PART_PATTERN))


def part_paths(folder: Path) -> list[Path]:
    """Return the parts of an embedding table, in the order they were written.

    Raises
    ------
    TableError
        If there are none, or the run that writes them is not finished.
    """
    paths = sorted(folder.glob(PART_PATTERN))
    hidden = folder / RUN_FOLDER
    unfinished = (hidden / PUBLISHING).exists() or (not paths and hidden.exists())
    # Of a publication that ended between the two, the list may hold a part.
    if unfinished or set(folder.glob(PART_PATTERN)) != set(paths):
        raise TableError(f"{folder}: its run is not finished: start the run again to finish it.")
    if not paths:
        raise TableError(f"{folder}: holds no {PART_PATTERN}.")
    return paths


def read_embeddings(folder: Path, columns: list[str] | None = None) -> pa.Table:
    """Read all parts of an embedding table, in the order they were written; of `columns` alone where they are given.

    Raises
    ------
    TableError
        If there are no parts, or a part is unreadable or lacks `key` or `embedding`.
    """
    parts = []
    for path in part_paths(folder):
        part = _read_parquet(path, columns)
        for column in (KEY_COLUMN, EMBEDDING_COLUMN):
            if column not in part.column_names:
                raise TableError(f"{path}: lacks the column '{column}'.")
        parts.append(part)
    try:
        return pa.concat_tables(parts)
    except pa.ArrowException:
        raise TableError(f"{folder}: its parts have different columns: they are from different runs.") from None


def embedding_matrix(table: pa.Table) -> np.ndarray:
    """Return the table's `embedding` column as an (N, D) float32 array."""
    column = table[EMBEDDING_COLUMN]
    if not pa.types.is_fixed_size_list(column.type):
        raise TableError(f"column '{EMBEDDING_COLUMN}' is {column.type}, not a fixed_size_list.")
    if column.null_count:
        raise TableError(f"column '{EMBEDDING_COLUMN}' is empty in {column.null_count} rows.")
    matrix = np.empty((len(column), column.type.list_size), dtype=np.float32)
    start = 0
    for chunk in column.chunks:
        holes = chunk.flatten().null_count
        if holes:
            raise TableError(f"column '{EMBEDDING_COLUMN}' lacks {holes} of its numbers.")
        matrix[start : start + len(chunk)] = chunk.flatten().to_numpy().reshape(-1, column.type.list_size)
        start += len(chunk)
    return matrix


def read_errors(folder: Path) -> pa.Table:
    """Read the failed images of a run: `key`, `code`, `byte_offset`, `cause`; no rows where none is recorded."""
    path = folder / ERRORS_FILE
    return _read_parquet(path) if path.is_file() else NO_ERRORS


def _read_parquet(path: Path, columns: list[str] | None = None) -> pa.Table:
    try:
        return parquet.read_table(source_of(path), columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise TableError(f"{path}: cannot be read: {str(error).splitlines()[0]}.") from None


def part_name(shard: int) -> str:
    """Return the file name of a shard's part."""
    return f"part-{shard:05d}.parquet"


def check_columns(names: Sequence[str]) -> None:
    """Refuse a manifest with a column that the embedding table needs.

    Raises
    ------
    ManifestError
        If there is one.
    """
    reserved = {KEY_COLUMN, EMBEDDING_COLUMN} & set(names)
    if reserved:
        raise ManifestError(
            f"column '{min(reserved)}' of the manifest has a name that the embedding table needs: rename it."
        )


def make_part(keys: Sequence[str], rows: pa.Table, vectors: np.ndarray) -> pa.Table:
    """Make the table of a part.

    Parameters
    ----------
    keys, rows : of the embedded images; N of each
    vectors : (N, D) float32 or float16
    """
    # Not by `pa.array`: see `NO_ERRORS`.
    numbers = np.ascontiguousarray(vectors)
    buffers = [None, pa.py_buffer(numbers)]
    flat = pa.Array.from_buffers(pa.from_numpy_dtype(numbers.dtype), numbers.size, buffers)
    column = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    return rows.add_column(0, KEY_COLUMN, _strings(keys)).append_column(EMBEDDING_COLUMN, column)


def _strings(texts: Sequence[str]) -> pa.StringArray:
    encoded = [text.encode() for text in texts]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    return pa.StringArray.from_buffers(len(encoded), pa.py_buffer(ends), pa.py_buffer(b"".join(encoded)))


def make_errors(shard: int, status: Sequence[tuple[str, ImageStatus]]) -> pa.Table:
    """Make the table of a shard's failed rows: a key and what is wrong, each."""
    if not status:
        return NO_ERRORS
    rows = [
        {"key": key, "code": one.code, "byte_offset": one.byte_offset, "cause": one.cause, "shard": shard}
        for key, one in status
    ]
    return pa.Table.from_pylist(rows, ERRORS_SCHEMA)
