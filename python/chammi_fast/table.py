"""Embedding tables: what an embedding run leaves, and how to read it back.

A folder holds ``part-*.parquet`` (one row per embedded image: `key`, every manifest column, `embedding`),
``errors.parquet`` (one row per failed image) and ``run.json`` (provenance). docs/formats.md describes the columns.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from chammi_fast.errors import ManifestError, OutputError, TableError
from chammi_fast.files import make_folder

if TYPE_CHECKING:
    from types import TracebackType

    from chammi_fast.images import ImageStatus

KEY_COLUMN = "key"
EMBEDDING_COLUMN = "embedding"
PART_PATTERN = "part-*.parquet"
ERRORS_FILE = "errors.parquet"
RUN_FILE = "run.json"
ROWS_PER_PART = 16_384

_ERRORS_SCHEMA = pa.schema(
    [(KEY_COLUMN, pa.string()), ("code", pa.string()), ("byte_offset", pa.int64()), ("cause", pa.string())]
)


def has_table(folder: Path) -> bool:
    """Tell whether `folder` holds an embedding table."""
    return any(folder.glob(PART_PATTERN))


def read_embeddings(folder: Path, columns: list[str] | None = None) -> pa.Table:
    """Read all parts of an embedding table, in the order they were written; of `columns` alone where they are given.

    Raises
    ------
    TableError
        If there are no parts, or a part is unreadable or lacks `key` or `embedding`.
    """
    paths = sorted(folder.glob(PART_PATTERN))
    if not paths:
        raise TableError(f"{folder}: holds no {PART_PATTERN}.")
    parts = []
    for path in paths:
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
        matrix[start : start + len(chunk)] = chunk.flatten().to_numpy().reshape(len(chunk), -1)
        start += len(chunk)
    return matrix


def read_errors(folder: Path) -> pa.Table:
    """Read the failed images of a run: `key`, `code`, `byte_offset`, `cause`; no rows where none is recorded."""
    path = folder / ERRORS_FILE
    return _read_parquet(path) if path.is_file() else _ERRORS_SCHEMA.empty_table()


def _read_parquet(path: Path, columns: list[str] | None = None) -> pa.Table:
    try:
        return parquet.read_table(path, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise TableError(f"{path}: cannot be read: {str(error).splitlines()[0]}.") from None


@dataclass
class TableWriter:
    """Write one embedding table; nothing appears in `folder` unless `finish` is reached.

    Rows arrive in manifest order, batch by batch. Parts are staged in a hidden folder beside their destination.

    Attributes
    ----------
    folder : where the table goes; an older table there is replaced, other files stay
    rows : (N,) the manifest's columns
    keys : one per row
    embedding_size : D
    npy_name : also write ``<npy_name>.npy``, (N, D) float32 in row order, NaN for failed images
    store : type of the vectors' numbers in the table
    """

    folder: Path
    rows: pa.Table
    keys: list[str]
    embedding_size: int
    npy_name: str | None = None
    store: Literal["float32", "float16"] = "float32"
    failed: int = 0
    _cursor: int = 0
    _part: int = 0
    _kept: list[int] = field(default_factory=list)
    _vectors: list[np.ndarray] = field(default_factory=list)
    _errors: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        reserved = {KEY_COLUMN, EMBEDDING_COLUMN} & set(self.rows.column_names)
        if reserved:
            raise ManifestError(
                f"column '{min(reserved)}' of the manifest has a name that the embedding table needs: rename it."
            )
        made = not self.folder.exists()
        make_folder(self.folder)
        if has_table(self.folder) and not (self.folder / RUN_FILE).is_file():
            raise OutputError(f"{self.folder}: holds {PART_PATTERN} of another origin: name another folder.")
        self._made_folder = made
        self._staging = Path(tempfile.mkdtemp(prefix=".staging-", dir=self.folder))
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="chammi-fast-write")
        self._writing: Future[None] | None = None
        self._npy: np.memmap[Any, np.dtype[np.float32]] | None = None
        if self.npy_name is not None:
            try:
                self._npy = self._open_npy(self._staging / f"{self.npy_name}.npy")
            except OSError as error:
                self.__exit__(None, None, None)
                raise OutputError(f"{self.folder}: cannot be written: {error.strerror or error}.") from None

    def _open_npy(self, path: Path) -> np.memmap[Any, np.dtype[np.float32]]:
        shape = (len(self.keys), self.embedding_size)
        npy = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        # Claim the disk space now: running out of it later would end the process at a write to memory.
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        return npy

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.shutdown(cancel_futures=True)
        shutil.rmtree(self._staging, ignore_errors=True)
        if self._made_folder:
            with contextlib.suppress(OSError):  # it is not empty: the table is there
                self.folder.rmdir()

    @property
    def first_cause(self) -> str:
        """The first failed image and what is wrong with it."""
        return f"{self._errors[0]['key']}: {self._errors[0]['cause']}" if self._errors else ""

    def add(self, vectors: np.ndarray, status: tuple[ImageStatus, ...]) -> None:
        """Take the next rows: (n, D) float32 and one status per row; a failed row's vector is ignored."""
        for image in status:
            row = self._cursor
            self._cursor += 1
            if image.ok:
                self._kept.append(row)
            else:
                self.failed += 1
                self._errors.append(
                    {"key": self.keys[row], "code": image.code, "byte_offset": image.byte_offset, "cause": image.cause}
                )
        good = np.fromiter((image.ok for image in status), dtype=bool, count=len(status))
        self._vectors.append(vectors[good])
        if self._npy is not None:
            start = self._cursor - len(status)
            self._npy[start : self._cursor] = np.where(good[:, None], vectors, np.float32(np.nan))
        if len(self._kept) >= ROWS_PER_PART:
            self._write_part()

    def finish(self, run: dict[str, Any]) -> None:
        """Publish the table with `run` as its ``run.json``.

        Raises
        ------
        OutputError
            If a file cannot be written.
        """
        if self._kept:
            self._write_part()
        self._wait()
        try:
            errors = pa.Table.from_pylist(self._errors, schema=_ERRORS_SCHEMA)
            parquet.write_table(errors, self._staging / ERRORS_FILE)
            if self._npy is not None:
                self._npy.flush()
            self._publish(run)
        except OSError as error:
            raise OutputError(f"{self.folder}: cannot be written: {error.strerror or error}.") from None

    def _publish(self, run: dict[str, Any]) -> None:
        staged = sorted(self._staging.iterdir())
        # run.json comes first, because it is what marks the folder's parts as ours to replace.
        (self._staging / RUN_FILE).write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
        (self._staging / RUN_FILE).replace(self.folder / RUN_FILE)
        for old in self.folder.glob(PART_PATTERN):
            old.unlink()
        for path in staged:
            path.replace(self.folder / path.name)

    def _write_part(self) -> None:
        """Let the writing thread write what has been kept, once it is done with the part before."""
        self._wait()
        path = self._staging / f"part-{self._part:05d}.parquet"
        self._writing = self._writer.submit(self._write, path, self._kept, self._vectors)
        self._part += 1
        self._kept, self._vectors = [], []

    def _wait(self) -> None:
        if self._writing is None:
            return
        try:
            self._writing.result()
        except OSError as error:
            raise OutputError(f"{self.folder}: cannot be written: {error.strerror or error}.") from None
        finally:
            self._writing = None

    def _write(self, path: Path, kept: list[int], vectors: list[np.ndarray]) -> None:
        rows = self.rows.take(pa.array(kept, type=pa.int64()))
        keys = pa.array([self.keys[row] for row in kept], type=pa.string())
        flat = pa.array(np.concatenate(vectors).astype(self.store, copy=False).ravel())
        table = rows.add_column(0, KEY_COLUMN, keys).append_column(
            EMBEDDING_COLUMN, pa.FixedSizeListArray.from_arrays(flat, self.embedding_size)
        )
        # Embeddings do not repeat and hardly compress: dictionaries and strong codecs only cost time.
        parquet.write_table(table, path, compression="zstd", use_dictionary=self.rows.column_names)
