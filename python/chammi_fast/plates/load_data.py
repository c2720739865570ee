"""Read LoadData tables: one row per field of view, columns that name each channel's file.

Older tables have ``FileName_OrigDNA`` and ``PathName_OrigDNA``, newer ones ``URL_OrigDNA``; illumination functions
stand in ``FileName_IllumDNA`` and so on. A table such as DeepProfiler's ``index.csv`` has a column of paths for each
channel.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from chammi_fast.errors import ManifestError
from chammi_fast.manifest import read_table
from chammi_fast.plates.cells import TABLE_SUFFIXES
from chammi_fast.plates.names import PLATE_COLUMNS, SITE_COLUMNS, WELL_COLUMNS, first_of
from chammi_fast.plates.rows import PLATE, SITE, WELL, Reading, Row, records
from chammi_fast.urls import below

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_FILE_COLUMN = re.compile(r"(?P<kind>URL|FileName|PathName)_(?P<use>Orig|Illum)?(?P<channel>.+)")
_OF_CELLPROFILER = re.compile(r"(?:Series|Frame|Height|Width|MD5Digest|Scaling|Group|ImageSet|Channel)_.*")
_PAGES = re.compile(r"(?:Series|Frame)_(?:Orig)?.+")
_IMAGE_NAME = re.compile(r".*\.(?:tiff?|png)", re.IGNORECASE)
_PREFIX = "Metadata_"


@dataclass(frozen=True)
class _Columns:
    """What a table's columns hold.

    Attributes
    ----------
    images, illumination : channel -> names of its columns by kind (URL, FileName, PathName)
    metadata : column -> name with the prefix Metadata_
    """

    plate: str | None
    well: str
    site: str | None
    images: dict[str, dict[str, str]]
    illumination: dict[str, dict[str, str]]
    metadata: dict[str, str]


class Relocated:
    """Find the folders of a table made on another machine below one's own folder."""

    def __init__(self, table: Path, root: Path | None) -> None:
        self._table = table
        self._root = root
        self._known: dict[str, str] = {}

    def file(self, folder: str, name: str) -> str:
        """Return the path or URL of a file."""
        if folder not in self._known:
            self._known[folder] = self._folder(folder).rstrip("/")
        own = self._known[folder]
        return f"{own}/{name}"

    def _folder(self, folder: str) -> str:
        """Return the folder below the root that ends like `folder`, as long an ending as is there."""
        if folder.startswith("file:"):
            folder = unquote(urlsplit(folder).path)
        if self._root is None:
            return below(self._table.parent, folder)
        parts = [part for part in re.split(r"[/\\]", folder) if part and part != ".."]
        endings = (self._root.joinpath(*parts[first:]) for first in range(len(parts)))
        return str(next((path for path in endings if path.is_dir()), self._root))


def read_load_data(tables: Sequence[Path], images: Path | None) -> Reading:
    """Read one or several LoadData tables as one.

    Parameters
    ----------
    images : where the files lie now, if not where the tables say

    Raises
    ------
    ManifestError
        If a table cannot be read, or lacks wells or channels.
    """
    readings = [_read_one(path, images) for path in tables]
    whole = Reading(", ".join(each.origin for each in readings), [])
    whole.channels = list(dict.fromkeys(channel for each in readings for channel in each.channels))
    for each in readings:
        whole.rows += each.rows
        whole.rejected += each.rejected
        whole.remarks += each.remarks
    whole.without_repetitions()
    return whole


def _read_one(path: Path, images: Path | None) -> Reading:
    table = read_table(path)
    columns = _columns(table, path)
    reading = Reading(str(path), list(columns.images))
    if columns.plate is None:
        reading.remarks.append(f"{path}: has no column Metadata_Plate; the plate is called '{_stem(path)}'.")
    reading.remarks += [
        f"{path}: the column '{old}' is left out, as {new} is taken from another."
        for old, new in columns.metadata.items()
        if new in {PLATE, WELL, SITE}
    ]
    relocated = Relocated(path, images)
    for number, values in enumerate(records(table), start=1):
        plate = _stem(path) if columns.plate is None else values[columns.plate]
        row = Row(
            source=str(path),
            number=number,
            plate=_text(plate),
            well=_text(values[columns.well]),
            site=1 if columns.site is None else values[columns.site],
            images=_files(values, columns.images, relocated),
            illumination=_files(values, columns.illumination, relocated),
            metadata={new: values[old] for old, new in columns.metadata.items()},
        )
        empty = [
            name
            for name, value in ((columns.plate, row.plate), (columns.well, row.well), (columns.site, _text(row.site)))
            if not value
        ]
        if empty:
            reading.reject(row, f"column '{empty[0]}' is empty")
        else:
            reading.rows.append(row)
    return reading


def _columns(table: pa.Table, path: Path) -> _Columns:
    names = table.column_names
    well = first_of(WELL_COLUMNS, names)
    if well is None:
        raise ManifestError(f"{path}: has no column Metadata_Well; its columns are {', '.join(names)}.")
    _check_pages(table, path)
    images, illumination = _file_columns(names)
    if not images:
        images = {name: {"URL": name} for name in names if _holds_images(table[name])}
    if not images:
        raise ManifestError(
            f"{path}: has no columns of images, such as FileName_OrigDNA and PathName_OrigDNA, or URL_OrigDNA."
        )
    lost = next((kinds for kinds in images.values() if "URL" not in kinds and "FileName" not in kinds), None)
    if lost is not None:
        raise ManifestError(f"{path}: has the column '{lost['PathName']}', but not the FileName column beside it.")
    plate, site = first_of(PLATE_COLUMNS, names), first_of(SITE_COLUMNS, names)
    files = {name for group in images.values() for name in group.values()}
    rest = [
        name
        for name in names
        if name not in {plate, well, site, *files} and not _FILE_COLUMN.fullmatch(name) and not _is_internal(name)
    ]
    metadata = {name: name if name.startswith(_PREFIX) else _PREFIX + name for name in rest}
    taken = {name for name in names if name.startswith(_PREFIX)}
    return _Columns(
        plate=plate,
        well=well,
        site=site,
        images=images,
        illumination=illumination,
        metadata={old: new for old, new in metadata.items() if old == new or new not in taken},
    )


def _file_columns(names: Sequence[str]) -> tuple[dict[str, dict[str, str]], dict[str, dict[str, str]]]:
    """Columns of images and of illumination functions by channel; where there are Orig columns, they are the images."""
    by_use: dict[str, dict[str, dict[str, str]]] = {"Orig": {}, "Illum": {}, "": {}}
    for name in names:
        match = _FILE_COLUMN.fullmatch(name)
        if match:
            by_use[match["use"] or ""].setdefault(match["channel"], {})[match["kind"]] = name
    return by_use["Orig"] or by_use[""], by_use["Illum"]


def _files(values: dict[str, Any], columns: dict[str, dict[str, str]], relocated: Relocated) -> dict[str, str]:
    """Channel -> path or URL, for the channels that the row has a file of."""
    found = {}
    for channel, kinds in columns.items():
        url = _text(values.get(kinds.get("URL", "")))
        name = _text(values.get(kinds.get("FileName", "")))
        if url:
            folder, _, name = url.rpartition("/")
            found[channel] = relocated.file(folder, unquote(name) if url.startswith("file:") else name)
        elif name:
            found[channel] = relocated.file(_text(values.get(kinds.get("PathName", ""))), name)
    return found


def _check_pages(table: pa.Table, path: Path) -> None:
    for name in filter(_PAGES.fullmatch, table.column_names):
        if any(row[name] not in {None, 0, "0", ""} for row in records(table.select([name]))):
            raise ManifestError(f"{path}: column '{name}' names pages behind a file's first, which are not read.")


def _holds_images(column: pa.ChunkedArray) -> bool:
    if column.type != pa.string() or column.null_count == len(column):
        return False
    return all(value is None or _IMAGE_NAME.fullmatch(value) for value in column.to_pylist())


def _is_internal(name: str) -> bool:
    return _OF_CELLPROFILER.fullmatch(name) is not None


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _stem(path: Path) -> str:
    suffix = next((each for each in TABLE_SUFFIXES if path.name.lower().endswith(each)), path.suffix)
    return path.name[: len(path.name) - len(suffix)] if suffix else path.name
