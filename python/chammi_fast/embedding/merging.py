"""Join the parts of a run that was shared by processes or machines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from chammi_fast.errors import OutputError
from chammi_fast.ledger import finished, recorded
from chammi_fast.runfolder import RunFolder
from chammi_fast.table import RUN_FILE, RUN_FOLDER, part_name, read_errors
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


def merge(folders: Sequence[str | Path], out: str | Path) -> list[MergeReport]:
    """Join the folders of a run's parts into whole embedding tables.

    Parameters
    ----------
    folders : outputs of ``embed --shard``; those of a CHAMMI folder hold a table per data set
    out : folder for the joined tables

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
    return [_join(name, *checked[name], as_path(out) / name if name else as_path(out)) for name in names]


def _tables(folder: Path) -> list[str]:
    if (folder / RUN_FILE).is_file():
        return [""]
    if not folder.is_dir():
        raise OutputError(f"{folder}: no such folder.")
    return [one.name for one in folder.iterdir() if (one / RUN_FILE).is_file()]


def _check(folders: list[Path]) -> tuple[dict[str, Any], dict[int, tuple[Path, Entry]]]:
    """Return what the parts' records have in common, and where each shard is."""
    records = [recorded(folder) or {} for folder in folders]
    for folder, record in zip(folders, records, strict=True):
        if (folder / RUN_FOLDER).exists():
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


def _join(name: str, record: dict[str, Any], where: dict[int, tuple[Path, Entry]], out: Path) -> MergeReport:
    rows, failed = (sum(getattr(entry, what) for _, entry in where.values()) for what in ("rows", "failed"))
    record = record | {"shard": None, "settings": record["settings"] | {"shard": ""}}
    with RunFolder(out, record, range(len(where))) as run:
        for shard in run.todo:
            folder, entry = where[shard]
            errors = read_errors(folder)
            run.adopt(shard, entry, folder, errors.filter(pc.equal(errors["shard"], shard)))
        run.record |= {"images": rows + failed, "failed": failed}
        run.finish()
    return MergeReport(name, out, len(where), rows + failed, failed)
