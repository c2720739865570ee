"""The folder of an embedding run: shards that are done stay done, and a reader meets a whole table or none.

While a run goes on, its finished shards lie in the hidden folder ``.run`` with a ledger of their hashes. When all are
there they take their place in the folder, beside ``run.json``, ``ledger.json`` and ``errors.parquet``. A run that was
stopped, at whatever moment, goes on from its ledger; its files are then the same as those of a run that was not.

The folder may lie in a store of objects. Nothing is renamed there, but copied whole and deleted; nothing can be locked;
and finished shards are told by their sizes, as each of them was put there whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from chammi_fast.errors import OutputError, TableError
from chammi_fast.files import (
    cause_of,
    copy,
    is_local,
    listed,
    make_folder,
    move,
    remove_empty,
    remove_folder,
    replacing,
    source_of,
    write_text,
)
from chammi_fast.table import (
    ERRORS_FILE,
    ERRORS_SCHEMA,
    LEDGER_FILE,
    PART_PATTERN,
    PUBLISHING,
    RUN_FILE,
    RUN_FOLDER,
    part_name,
    read_errors,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import IO

LOCK = "lock"
_SAVING = 0.1  # of a run's time at most: a ledger is written whole, and may have many shards
MOVERS = 8
"""Files that are published at the same time: in a store each of them takes several requests."""
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
    """A finished shard: rows embedded, rows failed, and its part's SHA-256 and bytes (None: it was not noted)."""

    rows: int
    failed: int
    sha256: str
    bytes: int | None = field(default=None, compare=False)


@dataclass
class RunFolder:
    """An embedding run's folder; if it is local, locked for this process.

    Attributes
    ----------
    folder : of the table
    record : what becomes ``run.json``; its "identity" has the keys of `IDENTITY`
    shards : numbers of the shards that this process does; others of the same run that are in the folder stay there
    overwrite : drop what another run left, in place of refusing it
    keep_empty : publish even where no row was embedded, as a part of a run must
    done : number of a finished shard -> what is known of it
    """

    folder: Path
    record: dict[str, Any]
    shards: Sequence[int]
    overwrite: bool = False
    keep_empty: bool = False
    done: dict[int, Entry] = field(default_factory=dict)
    _fresh: dict[int, Entry] = field(default_factory=dict)
    _again: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.record = json.loads(json.dumps(self.record))  # as it is read back: tuples are lists
        self._unsaved, self._save_from = False, 0.0
        self._made = is_local(self.folder) and not self.folder.exists()
        make_folder(self.folder)
        self._hidden = self.folder / RUN_FOLDER
        self._lock = self._take_lock()
        try:
            self._open()
        except BaseException:
            self._unlock()
            if not set(listed(self._hidden)) - {LOCK}:
                self._discard()
            raise

    @property
    def todo(self) -> list[int]:
        """Shards that are not done, or opened once more, ascending."""
        return [shard for shard in self.shards if shard not in self.done or shard in self._again]

    @property
    def rows(self) -> int:
        """Rows of the finished shards, failed ones included."""
        return sum(entry.rows + entry.failed for shard, entry in self.done.items() if shard not in self._again)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if not self._fresh and not (self._hidden / PUBLISHING).exists():
                self._discard()
            elif self._unsaved:
                self._save_fresh()
        finally:
            self._unlock()

    def write(self, shard: int, part: pa.Table, errors: pa.Table) -> None:
        """Keep a finished shard: its embedded rows and its failed ones.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        self.enter(shard, write_shard(self.folder, shard, part, errors))

    def adopt(self, shard: int, entry: Entry, folder: Path, errors: pa.Table) -> None:
        """Keep a shard that was finished in another folder, as it is there."""
        copy(folder / part_name(shard), self._hidden / part_name(shard))
        _write_errors(self._hidden, shard, errors)
        self.enter(shard, entry)

    def enter(self, shard: int, entry: Entry) -> None:
        """Enter a shard into the ledger, whose files another process may have written (`write_shard`).

        The ledger's file is written at once if that did not take too much of the run's time lately; what it lacks when
        the process is killed is done again.
        """
        self._fresh[shard] = self.done[shard] = entry
        self._again.discard(shard)
        self._unsaved = True
        if time.monotonic() >= self._save_from:
            self._save_fresh()

    def reopen(self, shards: Iterable[int]) -> None:
        """Have finished shards done once more; until one is, it stays as it was."""
        self._again.update(shards)

    def part(self, shard: int) -> Path:
        """Return the file of a finished shard."""
        hidden = self._hidden / part_name(shard)
        # One that the ledger lacks is of a run that was stopped between the two.
        return hidden if shard in self._fresh and hidden.exists() else self.folder / part_name(shard)

    def finish(self) -> None:
        """Publish the table, if something of it is new; drop it where no row could be embedded, unless `keep_empty`.

        Raises
        ------
        OutputError
            If a file cannot be written; what is done stays done.
        """
        if not self.keep_empty and not any(entry.rows for entry in self.done.values()):
            self._fresh = {}
        there = (self.folder / RUN_FILE).exists() and not (self._hidden / PUBLISHING).exists()
        if not self._fresh and (there or not self.keep_empty):
            return
        try:
            self._publish()
        except OSError as error:
            raise OutputError(f"{self.folder}: cannot be written: {error.strerror or error}.") from None

    def failed(self) -> dict[int, set[str]]:
        """Return shard -> keys of its failed rows, of the finished ones among `shards`."""
        errors, ours = self._errors(), set(self.shards)
        found: dict[int, set[str]] = {}
        for shard, key in zip(errors["shard"].to_pylist(), errors["key"].to_pylist(), strict=True):
            if shard in ours:
                found.setdefault(shard, set()).add(key)
        return found

    def _publish(self) -> None:
        self._save_fresh()
        write_text(self._hidden / PUBLISHING, "")
        errors = self._errors()
        names = {part_name(shard) for shard in self.done}
        for path in self.folder.glob(PART_PATTERN):
            if path.name not in names:
                path.unlink()
        there = listed(self._hidden)  # a run that was stopped in its publication may have moved some
        with ThreadPoolExecutor(MOVERS, thread_name_prefix="chammi-fast-move") as movers:
            list(movers.map(self._move, [name for name in map(part_name, self._fresh) if name in there]))
        with replacing(self.folder / ERRORS_FILE) as temporary:
            parquet.write_table(errors, temporary)
        self._save(self.folder / LEDGER_FILE, self.done)
        write_text(self.folder / RUN_FILE, self._text())
        self._discard()
        self._fresh = {}

    def _move(self, name: str) -> None:
        move(self._hidden / name, self.folder / name)

    def _errors(self) -> pa.Table:
        """Join the failures of all shards in their order, those of new shards in place of older ones."""
        parts = [ERRORS_SCHEMA.empty_table()]
        failing = [self._hidden / _errors_name(shard) for shard, entry in self._fresh.items() if entry.failed]
        with ThreadPoolExecutor(MOVERS, thread_name_prefix="chammi-fast-errors") as readers:
            parts += readers.map(lambda path: parquet.read_table(source_of(path)), failing)
        if len(self._fresh) < len(self.done):
            old = read_errors(self.folder)
            kept = [shard for shard in self.done if shard not in self._fresh]
            parts.append(old.filter(pc.is_in(old["shard"], pa.array(kept, pa.int64()))))
        joined = pa.concat_tables(parts)
        order = pc.sort_indices(joined["shard"])  # stable
        return joined.take(order)

    def _open(self) -> None:
        unfinished, published = _read(self._hidden / RUN_FILE), _read(self.folder / RUN_FILE)
        if published is None and unfinished is None and any(self.folder.glob(PART_PATTERN)):
            raise OutputError(f"{self.folder}: holds {PART_PATTERN} of another origin: name another folder.")
        if unfinished is not None and self._is_same(unfinished, "unfinished run"):
            self._fresh = _entries(self._hidden / LEDGER_FILE)
            self._fresh = self._good(self._fresh)
        else:
            self._clear()
        # A table that is being replaced is no longer asked about.
        replaced = (self._hidden / PUBLISHING).exists()
        if published is not None and self._is_same(published, "table", may_differ=replaced):
            self.done = self._good(_entries(self.folder / LEDGER_FILE))
        self.done |= self._fresh
        write_text(self._hidden / RUN_FILE, self._text())

    def _text(self) -> str:
        return json.dumps(self.record, indent=2) + "\n"

    def _is_same(self, other: dict[str, Any], what: str, *, may_differ: bool = False) -> bool:
        """Tell whether a record is of the same run, or may be dropped; refuse it otherwise."""
        theirs, ours = other.get("identity", {}), self.record["identity"]
        different = [name for key, name in IDENTITY.items() if theirs.get(key) != ours[key]]
        if not different:
            return True
        if not (self.overwrite or may_differ):
            raise OutputError(
                f"{self.folder}: holds {'an' if what[0] == 'u' else 'a'} {what} of another {' and '.join(different)}: "
                f"name another folder, or replace it with --overwrite."
            )
        return False

    def _good(self, entries: dict[int, Entry]) -> dict[int, Entry]:
        """Keep the shards whose files are as they were written."""
        if is_local(self.folder):
            there = {shard: self.part(shard) for shard in sorted(entries)}
            return {
                shard: entries[shard] for shard, path in there.items() if path.exists() and _is(path, entries[shard])
            }
        published, hidden = listed(self.folder), listed(self._hidden)
        good = {}
        for shard, entry in sorted(entries.items()):
            name = part_name(shard)
            size = hidden.get(name, published.get(name)) if shard in self._fresh else published.get(name)
            if size is not None and (size == entry.bytes or (entry.bytes is None and _is(self.part(shard), entry))):
                good[shard] = entry
        return good

    def _save_fresh(self) -> None:
        begun = time.monotonic()
        self._save(self._hidden / LEDGER_FILE, self._fresh)
        self._unsaved, now = False, time.monotonic()
        self._save_from = now + (now - begun) * (1 / _SAVING - 1)

    def _save(self, path: Path, entries: dict[int, Entry]) -> None:
        shards = {f"{shard:05d}": vars(entry) for shard, entry in sorted(entries.items())}
        write_text(path, json.dumps({"format_version": 1, "shards": shards}, indent=1) + "\n")

    def _take_lock(self) -> IO[str] | None:
        if not is_local(self.folder):
            return None
        try:
            self._hidden.mkdir(exist_ok=True)
            lock = (self._hidden / LOCK).open("w")
        except OSError as error:
            raise OutputError(f"{self.folder}: cannot be written to: {error.strerror or error}.") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise OutputError(f"{self.folder}: another run is writing into it.") from None
        return lock

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()

    def _clear(self) -> None:
        for name in sorted(set(listed(self._hidden)) - {LOCK}):
            (self._hidden / name).unlink()

    def _discard(self) -> None:
        # First: what is left when this is stopped is then of no run, and is cleared by the next.
        with contextlib.suppress(OSError):
            (self._hidden / RUN_FILE).unlink()
        remove_folder(self._hidden)
        if self._made:
            remove_empty(self.folder)  # unless the table is there


def write_shard(folder: Path, shard: int, part: pa.Table, errors: pa.Table) -> Entry:
    """Write a finished shard's embedded rows and its failed ones into an unfinished run's folder.

    It belongs to the run when its entry is in the ledger (`RunFolder.enter`). Whoever writes a shard again, writes the
    same bytes.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    hidden = folder / RUN_FOLDER
    with replacing(hidden / part_name(shard)) as temporary:
        # Embeddings do not repeat and hardly compress: dictionaries and strong codecs only cost time.
        names = [name for name in part.column_names if not pa.types.is_fixed_size_list(part[name].type)]
        parquet.write_table(part, temporary, compression="zstd", use_dictionary=names)
        entry = Entry(len(part), len(errors), _sha256(temporary), temporary.stat().st_size)
    _write_errors(hidden, shard, errors.append_column("shard", pa.array([shard] * len(errors), pa.int64())))
    return entry


def unfinished(folder: Path) -> dict[str, Any] | None:
    """Return what ``run.json`` says of an unfinished run in a folder, or None."""
    return _read(folder / RUN_FOLDER / RUN_FILE)


def recorded(folder: Path) -> dict[str, Any] | None:
    """Return what ``run.json`` says of an unfinished run in a folder, or of the table there, or None."""
    return unfinished(folder) or _read(folder / RUN_FILE)


def finished(folder: Path) -> dict[int, Entry]:
    """Return the shards of a published table; in a store, parts are known by their sizes.

    Raises
    ------
    OutputError
        If a file is not as it was written.
    """
    entries, there = _entries(folder / LEDGER_FILE), listed(folder)
    for shard, entry in entries.items():
        path, size = folder / part_name(shard), there.get(part_name(shard))
        known = not is_local(folder) and entry.bytes is not None
        if size is None or not (size == entry.bytes if known else _is(path, entry)):
            raise OutputError(f"{path}: is missing or damaged: start the run again to mend it.")
    return entries


def sha256_of(value: Any) -> str:
    """Hash what JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def table_sha256(table: pa.Table) -> str:
    """Hash a table's columns and rows."""
    hashed = _Hashed()
    with pa.PythonFile(hashed, "w") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return hashed.sha256.hexdigest()


class _Hashed(io.RawIOBase):
    """A file of which only the hash is kept."""

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        self.sha256.update(content)
        return len(content)


def _write_errors(hidden: Path, shard: int, errors: pa.Table) -> None:
    if not len(errors):
        return  # the ledger says that there are none
    with replacing(hidden / _errors_name(shard)) as temporary:
        parquet.write_table(errors.cast(ERRORS_SCHEMA), temporary)


def _errors_name(shard: int) -> str:
    return f"errors-{shard:05d}.parquet"


def _is(path: Path, entry: Entry) -> bool:
    """Whether a part is as it was written."""
    return _sha256(path) == entry.sha256


def _entries(path: Path) -> dict[int, Entry]:
    found = _read(path) or {}
    try:
        return {int(shard): Entry(**entry) for shard, entry in found.get("shards", {}).items()}
    except (TypeError, ValueError):
        raise TableError(f"{path}: is damaged: remove the folder and start again.") from None


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and not is_local(path):
            raise OutputError(f"{path}: cannot be read: {cause_of(error)}.") from None
        raise TableError(f"{path}: cannot be read: remove the folder and start again.") from None
    return found if isinstance(found, dict) else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
