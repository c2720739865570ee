"""What is in each well: plate maps, joined by well, and by plate where there are several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chammi_fast.errors import ManifestError
from chammi_fast.manifest import read_table
from chammi_fast.plates.names import PLATE_COLUMNS, WELL_COLUMNS, first_of, well_name
from chammi_fast.plates.rows import records
from chammi_fast.urls import as_path

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

BARCODES = "barcode_platemap.csv"
MAP_COLUMNS = ("Plate_Map_Name", "plate_map_name", "Metadata_Plate_Map_Name", "Metadata_plate_map_name")
_FOLDER = "platemap"
_PREFIX = "Metadata_"


@dataclass(frozen=True)
class PlateMap:
    """Annotations of wells.

    Attributes
    ----------
    origin : the file or folder
    columns : names of the annotations, with the prefix Metadata_
    wells : plate, or "" for every plate, and well -> values in the order of `columns`
    """

    origin: str
    columns: tuple[str, ...]
    wells: dict[tuple[str, str], tuple[Any, ...]]

    def of(self, plate: str, well: str) -> tuple[Any, ...] | None:
        """Return the annotations of a well, or None where the map does not have it."""
        name = well_name(well)
        return self.wells.get((plate, name), self.wells.get(("", name)))

    def join(self, plates: Sequence[str], wells: Sequence[str]) -> tuple[list[bool], dict[str, list[Any]]]:
        """Return which of (N,) wells the map has, and each of its columns for them: N values, or None."""
        found = [self.of(plate, well) for plate, well in zip(plates, wells, strict=True)]
        columns = {
            name: [None if values is None else values[place] for values in found]
            for place, name in enumerate(self.columns)
        }
        return [values is not None for values in found], columns

    def names(self, plate: str) -> list[str]:
        """Return the wells that the map has for a plate."""
        return sorted({well for owner, well in self.wells if owner in {"", plate}})


def merge(known: Sequence[Any], values: Sequence[Any]) -> tuple[list[Any], int | None]:
    """Fill what is not known of N things by a map's values; tell the first place, if any, where the two disagree."""
    pairs = list(zip(known, values, strict=True))
    odd = (place for place, (one, other) in enumerate(pairs) if one is not None and other not in (None, one))
    return [other if one is None else one for one, other in pairs], next(odd, None)


def read_plate_map(where: str | Path) -> PlateMap:
    """Read one plate map, or a folder with ``barcode_platemap.csv`` and a map for each plate's layout.

    Parameters
    ----------
    where : a table (CSV, TSV, .txt with tabs, Parquet) with a well column, and a plate column where wells of several
        plates differ; or the folder, or the ``barcode_platemap.csv`` in it, of the Cell Painting Gallery, whose maps
        lie in ``platemap/``

    Raises
    ------
    ManifestError
        If a file is missing or not such a table, or has a well twice.
    """
    path = as_path(where)
    if path.is_dir():
        path /= BARCODES
        if not path.is_file():
            raise ManifestError(f"{where}: holds no {BARCODES}; name one plate map, or a folder that has it.")
    columns = read_table(path).column_names
    if first_of(WELL_COLUMNS, columns) is None and first_of(MAP_COLUMNS, columns) is not None:
        return _read_barcodes(path)
    return _read_one(path, None)


def _read_barcodes(path: Path) -> PlateMap:
    table = read_table(path)
    plate, layout = first_of(PLATE_COLUMNS, table.column_names), first_of(MAP_COLUMNS, table.column_names)
    if plate is None or layout is None:
        raise ManifestError(f"{path}: needs a column with plates ({', '.join(PLATE_COLUMNS[:4])}) and one with maps.")
    maps: dict[str, PlateMap] = {}
    owners: dict[str, str] = {}
    for row in records(table.select([plate, layout])):
        if row[plate] is None or row[layout] is None:
            continue
        owner, name = str(row[plate]), str(row[layout])
        if owners.setdefault(owner, name) != name:
            raise ManifestError(f"{path}: the plate '{owner}' has two plate maps, {owners[owner]} and {name}.")
        if name not in maps:
            maps[name] = _read_one(_map_file(path, name), "")
    columns = tuple(dict.fromkeys(column for each in maps.values() for column in each.columns))
    wells = {}
    for owner, name in owners.items():
        each = maps[name]
        for (_, well), values in each.wells.items():
            known = dict(zip(each.columns, values, strict=True))
            wells[owner, well] = tuple(known.get(column) for column in columns)
    return PlateMap(str(path), columns, wells)


def _map_file(barcodes: Path, name: str) -> Path:
    folders = (barcodes.parent / _FOLDER, barcodes.parent)
    candidates = [folder / f"{name}{suffix}" for folder in folders for suffix in (".txt", ".csv", ".tsv")]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise ManifestError(f"{barcodes}: the plate map '{name}' is not at {candidates[0]}.")
    return found


def _read_one(path: Path, only: str | None) -> PlateMap:
    """Read one map; `only` is the plate of all its wells, if that is known."""
    table = read_table(path)
    well = first_of(WELL_COLUMNS, table.column_names)
    if well is None:
        raise ManifestError(f"{path}: has no column of wells ({', '.join(WELL_COLUMNS)}).")
    plate = first_of(PLATE_COLUMNS, table.column_names) if only is None else None
    names = [name for name in table.column_names if name not in {well, plate}]
    columns = tuple(name if name.startswith(_PREFIX) else _PREFIX + name for name in names)
    if len(set(columns)) < len(columns):
        repeated = next(name for name in columns if columns.count(name) > 1)
        raise ManifestError(f"{path}: has the column '{repeated}' with and without the prefix {_PREFIX}.")
    wells: dict[tuple[str, str], tuple[Any, ...]] = {}
    for row in records(table):
        if row[well] is None or (plate is not None and row[plate] is None):
            continue
        key = ("" if plate is None else str(row[plate]), well_name(str(row[well])))
        values = tuple(row[name] for name in names)
        if wells.setdefault(key, values) != values:
            of = f" of plate '{key[0]}'" if key[0] else ""
            raise ManifestError(f"{path}: has the well {key[1]}{of} twice, with different contents.")
    return PlateMap(str(path), columns, wells)
