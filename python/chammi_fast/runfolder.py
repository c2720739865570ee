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
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from chammi_fast.errors import OutputError
from chammi_fast.files import (
    UNFINISHED,
    copy,
    listed,
    make_folder,
    move,
    refused,
    remove_empty,
    remove_folder,
    replacing,
    source_of,
    write_text,
)
from chammi_fast.ledger import (
    IDENTITY,
    Entry,
    failed_rows,
    is_whole,
    lists_failed,
    read_entries,
    read_record,
    write_errors,
    write_shard,
)
from chammi_fast.table import (
    ERRORS_FILE,
    LEDGER_FILE,
    NO_ERRORS,
    PART_PATTERN,
    PUBLISHING,
    RUN_FILE,
    RUN_FOLDER,
    part_name,
    read_errors,
)
from chammi_fast.urls import is_local

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import IO

LOCK = "lock"
_HALF = re.compile(
    rf"\.(part-\d+\.parquet|errors\.parquet|ledger\.json|run\.json|.+\.npy)\.[0-9a-f]{{32}}{re.escape(UNFINISHED)}"
)
_SAVING = 0.1  # of a run's time at most: a ledger is written whole, and may have many shards
MOVERS = 8
"""Files that are published at the same time: in a store each of them takes several requests."""


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
            try:
                if not set(listed(self._hidden)) - {LOCK}:
                    self._discard()
            finally:
                self._unlock()
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
        """Copy a shard that was finished in another folder, as it is there; to be entered (`enter`) after that."""
        copy(folder / part_name(shard), self._hidden / entry.part(shard))
        write_errors(self._hidden, shard, entry, errors)

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
        # One that the ledger lacks is of a run that was stopped between the two.
        hidden = None if shard not in self._fresh else self._hidden / self._fresh[shard].part(shard)
        return hidden if hidden is not None and hidden.exists() else self.folder / part_name(shard)

    def finish(self) -> None:
        """Publish the table, if something of it is new; drop it where no row could be embedded, unless `keep_empty`.

        Raises
        ------
        OutputError
            If a file cannot be written; what is done stays done.
        """
        if not self.keep_empty and not any(entry.rows for entry in self.done.values()):
            self._fresh = {}
            return
        begun = (self._hidden / PUBLISHING).exists()
        if not self._fresh and not begun and (self.folder / RUN_FILE).exists():
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
            list(movers.map(self._move, [shard for shard, one in self._fresh.items() if one.part(shard) in there]))
        with replacing(self.folder / ERRORS_FILE) as temporary:
            parquet.write_table(errors, temporary)
        self._save(self.folder / LEDGER_FILE, {shard: replace(one, attempt="") for shard, one in self.done.items()})
        write_text(self.folder / RUN_FILE, self._text())
        with refused(self.folder):  # readers would wait for ever
            (self._hidden / PUBLISHING).unlink()
        self._discard()
        self._fresh = {}

    def _move(self, shard: int) -> None:
        move(self._hidden / self._fresh[shard].part(shard), self.folder / part_name(shard))

    def _errors(self) -> pa.Table:
        """Join the failures of all shards in their order, those of new shards in place of older ones."""
        parts = [NO_ERRORS]
        failing = [self._hidden / entry.errors(shard) for shard, entry in self._fresh.items() if entry.failed]
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
        unfinished, published = read_record(self._hidden / RUN_FILE), read_record(self.folder / RUN_FILE)
        if published is None and unfinished is None and any(self.folder.glob(PART_PATTERN)):
            raise OutputError(f"{self.folder}: holds {PART_PATTERN} of another origin: name another folder.")
        if unfinished is not None and self._is_same(unfinished, "unfinished run"):
            self._fresh = read_entries(self._hidden / LEDGER_FILE)
            self._fresh = self._good(self._fresh)
        else:
            # What a run that is dropped had begun to publish is no table, until this one is published in its place.
            self._clear({LOCK} if unfinished is None else {LOCK, PUBLISHING})
        # A table that is being replaced is no longer asked about.
        replaced = (self._hidden / PUBLISHING).exists()
        if published is not None and self._is_same(published, "table", may_differ=replaced):
            self.done = self._good(read_entries(self.folder / LEDGER_FILE))
        self.done |= self._fresh
        write_text(self._hidden / RUN_FILE, self._text())
        self._sweep()

    def _sweep(self) -> None:
        """Remove what a killed process was writing beside the table; nobody else does, as this one has the lock."""
        for name in listed(self.folder) if is_local(self.folder) else ():
            if _HALF.fullmatch(name):
                (self.folder / name).unlink(missing_ok=True)

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
        published, hidden = listed(self.folder), listed(self._hidden)
        failed = failed_rows(self.folder) if entries.keys() - self._fresh.keys() else {}  # fresh ones have their own
        good = {}
        for shard, entry in sorted(entries.items()):
            path, size = self.folder / part_name(shard), published.get(part_name(shard))
            if shard in self._fresh and entry.part(shard) in hidden:
                path, size = self._hidden / entry.part(shard), hidden[entry.part(shard)]
            lists = (
                lists_failed(self._hidden, shard, entry, hidden)
                if shard in self._fresh
                else failed.get(shard, 0) == entry.failed
            )
            if lists and is_whole(path, entry, size):
                good[shard] = entry
        return good

    def _save_fresh(self) -> None:
        begun = time.monotonic()
        self._save(self._hidden / LEDGER_FILE, self._fresh)
        self._unsaved, now = False, time.monotonic()
        self._save_from = now + (now - begun) * (1 / _SAVING - 1)

    def _save(self, path: Path, entries: dict[int, Entry]) -> None:
        shards = {
            f"{shard:05d}": {name: value for name, value in vars(entry).items() if value != ""}
            for shard, entry in sorted(entries.items())
        }
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
            remove_empty(self._hidden)  # network file systems keep the names of open files

    def _clear(self, kept: set[str]) -> None:
        for name in sorted(set(listed(self._hidden)) - kept):
            (self._hidden / name).unlink()

    def _discard(self) -> None:
        # First: what is left when this is stopped is then of no run, and is cleared by the next.
        with contextlib.suppress(OSError):
            (self._hidden / RUN_FILE).unlink()
        remove_folder(self._hidden)
        if self._made:
            remove_empty(self.folder)  # unless the table is there
