"""The files of an embedding run: its shards, the ledger of their hashes, and the record of what the run is."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from chammi_fast.errors import OutputError, TableError
from chammi_fast.files import listed, replacing
from chammi_fast.hashing import file_sha256
from chammi_fast.table import ERRORS_FILE, ERRORS_SCHEMA, LEDGER_FILE, RUN_FILE, RUN_FOLDER, part_name
from chammi_fast.urls import cause_of, is_local

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# What a run is known by, and how a difference in it is called.
IDENTITY = {
    "model_sha256": "model file",
    "spec_sha256": "model description",
    "channels": "list of channels",
    "compiled_form": "backend, precision or instruction set",
    "inputs_sha256": "table of images",
    "settings": "settings",
}


@dataclass(frozen=True)
class Entry:
    """A finished shard.

    Attributes
    ----------
    rows, failed : how many were embedded, and how many were not
    sha256, bytes : of its part; bytes are None where they were not noted
    attempt : what the names of its files begin with until they are published: of several who do a shard, some may be
        taken for lost, and be late
    """

    rows: int
    failed: int
    sha256: str
    bytes: int | None = field(default=None, compare=False)
    attempt: str = field(default="", compare=False)

    def part(self, shard: int) -> str:
        """Return the name of its part in the folder of an unfinished run."""
        return self.attempt + part_name(shard)

    def errors(self, shard: int) -> str:
        """Return the name of its file of failed rows there; there is none where none failed."""
        return f"{self.attempt}errors-{shard:05d}.parquet"


def write_shard(folder: Path, shard: int, part: pa.Table, errors: pa.Table, attempt: str = "") -> Entry:
    """Write a finished shard's embedded rows and its failed ones into an unfinished run's folder.

    It belongs to the run when its entry is in the ledger (`RunFolder.enter`).

    Parameters
    ----------
    attempt : see `Entry`

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    hidden, entry = folder / RUN_FOLDER, Entry(len(part), len(errors), "", 0, attempt)
    with replacing(hidden / entry.part(shard)) as temporary:
        # Embeddings do not repeat and hardly compress: dictionaries and strong codecs only cost time. Chunks, which are
        # batches, would decide where pages and dictionaries end.
        names = [name for name in part.column_names if not pa.types.is_fixed_size_list(part[name].type)]
        parquet.write_table(part.combine_chunks(), temporary, compression="zstd", use_dictionary=names)
        entry = replace(entry, sha256=file_sha256(temporary), bytes=temporary.stat().st_size)
    write_errors(hidden, shard, entry, errors)
    return entry


def unfinished(folder: Path) -> dict[str, Any] | None:
    """Return what ``run.json`` says of an unfinished run in a folder, or None."""
    return read_record(folder / RUN_FOLDER / RUN_FILE)


def recorded(folder: Path, *, overwrite: bool = False) -> dict[str, Any] | None:
    """Return what ``run.json`` says of an unfinished run in a folder, or of the table there, or None.

    A table that is to be overwritten is not asked; a run that began to overwrite it is gone on with.
    """
    return unfinished(folder) or (None if overwrite else read_record(folder / RUN_FILE))


def finished(folder: Path) -> dict[int, Entry]:
    """Return the shards of a published table; in a store, parts are known by their sizes.

    Raises
    ------
    OutputError
        If a file is not as it was written.
    """
    entries, there, failed = read_entries(folder / LEDGER_FILE), listed(folder), failed_rows(folder)
    for shard, entry in entries.items():
        path = folder / part_name(shard)
        if not is_whole(path, entry, there.get(path.name)):
            raise OutputError(f"{path}: is missing or damaged: start the run again to mend it.")
        if failed.get(shard, 0) != entry.failed:
            raise OutputError(f"{folder / ERRORS_FILE}: is missing or damaged: start the run again to mend it.")
    return entries


def failed_rows(folder: Path) -> dict[int, int]:
    """Count the failed rows of a published table: shard -> rows; none where their file is damaged.

    Raises
    ------
    OutputError
        If it cannot be read for now.
    """
    path = folder / ERRORS_FILE
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}
    except Exception as error:  # stores raise anything
        raise OutputError(f"{path}: cannot be read: {cause_of(error)}.") from None
    try:
        listed_rows = parquet.ParquetFile(pa.BufferReader(content)).read(["shard"])
        counted = pc.value_counts(listed_rows["shard"]).to_pylist()
    except (OSError, pa.ArrowException, KeyError):
        return {}
    return {one["values"]: one["counts"] for one in counted}


def lists_failed(hidden: Path, shard: int, entry: Entry, there: Mapping[str, int]) -> bool:
    """Whether a shard's failed rows are all in the hidden folder of an unfinished run; `there` are its files.

    In a store a file is whole or not there.
    """
    path = hidden / entry.errors(shard)
    if not entry.failed:
        return True
    if not is_local(path):
        return path.name in there
    try:
        rows: int = parquet.read_metadata(path).num_rows
    except (OSError, pa.ArrowException):
        return False
    return rows == entry.failed


def write_errors(hidden: Path, shard: int, entry: Entry, errors: pa.Table) -> None:
    """Write a shard's failed rows into the hidden folder of an unfinished run."""
    if not len(errors):
        return  # the ledger says that there are none
    with replacing(hidden / entry.errors(shard)) as temporary:
        parquet.write_table(errors.cast(ERRORS_SCHEMA), temporary)


def is_whole(path: Path, entry: Entry, size: int | None) -> bool:
    """Whether a part of so many bytes (None: there is none) is as it was written; in a store its size tells."""
    if size is None:
        return False
    told_by_size = not is_local(path) and entry.bytes is not None
    return size == entry.bytes if told_by_size else file_sha256(path) == entry.sha256


def read_entries(path: Path) -> dict[int, Entry]:
    """Read a ledger: number of a shard -> its entry; empty where there is none.

    Raises
    ------
    TableError
        If it is damaged.
    """
    found = read_record(path) or {}
    try:
        return {int(shard): Entry(**entry) for shard, entry in found.get("shards", {}).items()}
    except (TypeError, ValueError):
        raise TableError(f"{path}: is damaged: remove the folder and start again.") from None


def read_record(path: Path) -> dict[str, Any] | None:
    """Read a file of JSON; None where there is none.

    Raises
    ------
    OutputError
        If it cannot be read.
    TableError
        If it is damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OutputError(f"{path}: cannot be read: {cause_of(error)}.") from None
    except ValueError:
        raise TableError(f"{path}: is damaged: remove the folder and start again.") from None
    return found if isinstance(found, dict) else None
