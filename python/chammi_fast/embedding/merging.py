"""Join the parts of a run that was shared by processes or machines."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from chammi_fast.errors import OutputError
from chammi_fast.ledger import finished, recorded, unfinished
from chammi_fast.runfolder import MOVERS, RunFolder
from chammi_fast.table import PUBLISHING, RUN_FILE, RUN_FOLDER, part_name, read_errors
from chammi_fast.urls import as_path

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from chammi_fast.ledger import Entry


@dataclass(frozen=True)
class MergeReport:
    """What was joined: name of the table ("" for one without), its folder, and its shards, rows and failures."""

    name: str
    folder: Path
    shards: int
    images: int
    failed: int


def merge(folders: Sequence[str | Path], out: str | Path, *, overwrite: bool = False) -> list[MergeReport]:
    """Join the folders of a run's parts into whole embedding tables.

    Parameters
    ----------
    folders : outputs of ``embed --shard``; those of a CHAMMI folder hold a table per data set
    out : folder for the joined tables; shards that a part has embedded anew since they were joined are taken again
    overwrite : replace what another run left in `out`, in place of refusing it

    Raises
    ------
    OutputError
        If parts are missing, damaged, or of different runs; nothing is written then.
    """
    tables = {folder: _tables(folder) for folder in map(as_path, folders)}
    names = sorted({name for found in tables.values() for name in found})
    if not names:
        raise OutputError(f"{', '.join(map(str, folders))}: no finished part of a run is there.")
    sources = {
        name: [folder / name if name else folder for folder, found in tables.items() if name in found] for name in names
    }
    checked = {name: _check(found) for name, found in sources.items()}
    if names != [""]:
        begun = {table for record, _ in checked.values() for table in record.get("tables", ())}
        absent = sorted(begun.difference(names))
        if absent:
            raise OutputError(f"{', '.join(map(str, folders))}: no part holds {', '.join(absent)}: start them again.")
    return [_join(name, *checked[name], as_path(out) / name, overwrite=overwrite) for name in names]


def _tables(folder: Path) -> list[str]:
    """Name the tables that a part holds, or has begun; "" is one without a name."""
    if _begun(folder):
        return [""]
    if not folder.is_dir():
        raise OutputError(f"{folder}: no such folder.")
    return [one.name for one in folder.iterdir() if one.name != RUN_FOLDER and _begun(one)]


def _begun(folder: Path) -> bool:
    return (folder / RUN_FILE).is_file() or (folder / RUN_FOLDER / RUN_FILE).is_file()


def _check(folders: list[Path]) -> tuple[dict[str, Any], dict[int, tuple[Path, Entry]]]:
    """Return what the parts' records have in common, and where each shard is."""
    records = [recorded(folder) or {} for folder in folders]
    for folder, record in zip(folders, records, strict=True):
        # Not the hidden folder alone: one whose lock is open cannot be removed on every file system.
        if unfinished(folder) is not None or (folder / RUN_FOLDER / PUBLISHING).exists():
            raise OutputError(f"{folder}: its run is not finished: start it again to finish it.")
        if record.get("identity") != records[0].get("identity"):
            different = [
                key for key in records[0]["identity"] if record["identity"].get(key) != records[0]["identity"][key]
            ]
            raise OutputError(f"{folder}: is of another run than {folders[0]}: they differ in {', '.join(different)}.")
    where: dict[int, tuple[Path, Entry]] = {}
    for folder in folders:
        for shard, entry in finished(folder).items():
            if shard in where and where[shard][1] != entry:
                raise OutputError(f"{folder}: its {part_name(shard)} differs from that in {where[shard][0]}.")
            where[shard] = (folder, entry)
    total = records[0]["identity"]["settings"]["shards"]
    missing = [shard for shard in range(total) if shard not in where]
    if missing:
        few = ", ".join(part_name(shard) for shard in missing[:5])
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise OutputError(f"{len(missing)} of {total} shards are missing: {few}{more}.")
    return records[0], where


def _join(
    name: str, record: dict[str, Any], where: dict[int, tuple[Path, Entry]], out: Path, *, overwrite: bool
) -> MergeReport:
    record = record | {"shard": None, "settings": record["settings"] | {"shard": ""}}
    errors = {folder: read_errors(folder) for folder in {folder for folder, _ in where.values()}}

    def adopt(shard: int) -> None:
        folder, entry = where[shard]
        run.adopt(shard, entry, folder, errors[folder].filter(pc.equal(errors[folder]["shard"], shard)))

    with RunFolder(out, record, range(len(where)), overwrite) as run:
        run.reopen([shard for shard, (_, entry) in where.items() if run.done.get(shard, entry) != entry])
        with ThreadPoolExecutor(MOVERS, thread_name_prefix="chammi-fast-merge") as movers:
            for shard, _ in zip(todo := run.todo, movers.map(adopt, todo), strict=True):
                run.enter(shard, where[shard][1])
        failed = sum(entry.failed for entry in run.done.values())
        run.record |= {"images": run.rows, "failed": failed}
        run.finish()
        return MergeReport(name, out, len(run.done), run.rows, failed)
