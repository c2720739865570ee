"""One or several plates of a screen: fields of view, their files, and the cells in them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from itertools import groupby
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa

from chammi_fast.errors import ChannelError, ManifestError
from chammi_fast.plates.cells import is_table
from chammi_fast.plates.folder import read_folder
from chammi_fast.plates.illumination import illumination_files
from chammi_fast.plates.load_data import read_load_data
from chammi_fast.plates.locations import open_locations
from chammi_fast.plates.names import Place, place
from chammi_fast.plates.patterns import is_pattern
from chammi_fast.plates.plate_map import merge, read_plate_map
from chammi_fast.plates.rows import ILLUMINATION, IMAGES, KEY, PLATE, REJECTED, SITE, WELL, Reading
from chammi_fast.urls import as_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from chammi_fast.plates.cells import Cells
    from chammi_fast.plates.locations import Locations
    from chammi_fast.plates.masks import Masks
    from chammi_fast.plates.plate_map import PlateMap

AS_LISTED = "auto"
NO_ILLUMINATION = "none"


@dataclass(frozen=True)
class PlateField:
    """One field of view.

    Attributes
    ----------
    index : its row in `Plate.fields`
    key : its name, such as ``BR00117010/A01/1``
    images : path or URL of each channel's file, in the order of `Plate.channels`; None where the table names none
    illumination : path or URL of each channel's illumination function (.npy), or None
    metadata : every Metadata_ column
    """

    index: int
    key: str
    images: tuple[str | None, ...]
    illumination: tuple[str | None, ...]
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Unit:
    """Fields that are worked on as one, and whose results are one file.

    Attributes
    ----------
    fields : rows of `Plate.fields`
    """

    fields: range


@dataclass(frozen=True)
class Plate:
    """The fields of one or several plates, sorted by plate, well and site.

    Attributes
    ----------
    origin : the table or folder it was read from
    channels : the user's names for the channels, in the order of every field's `images`
    fields : one row per field of view: ``key`` (unique), ``Metadata_Plate``, ``Metadata_Well``, ``Metadata_Site``,
        every other Metadata_ column, ``images`` and ``illumination`` (one path, URL or null per channel)
    locations : where the cells are, or None; `cells` reads them
    rejected : rows of the table that could not be used: source, row (from 1), key, cause
    remarks : sentences about what else was noticed while reading
    plate_map : annotations of wells, or None; they are columns of `fields` already
    """

    origin: str
    channels: tuple[str, ...]
    fields: pa.Table
    locations: Locations | None = None
    rejected: pa.Table = dataclass_field(default_factory=REJECTED.empty_table)
    remarks: tuple[str, ...] = ()
    plate_map: PlateMap | None = None

    @classmethod
    def from_load_data(
        cls,
        table: str | Path | Sequence[str | Path],
        *,
        locations: str | Path | Masks | None = None,
        illumination: str | Path = AS_LISTED,
        plate_map: str | Path | None = None,
        images: str | Path | None = None,
    ) -> Plate:
        """Read LoadData tables, with one row per field of view.

        Parameters
        ----------
        table : CSV (also .gz) or Parquet with ``FileName_Orig<channel>`` and ``PathName_Orig<channel>``, or
            ``URL_Orig<channel>``, ``Metadata_Plate``, ``Metadata_Well``, ``Metadata_Site``; or several of them
        locations : the cells: a folder of DeepProfiler's ``<plate>/<well>-<site>-Nuclei.csv`` or CellProfiler's
            ``<plate>-<well>-<site>/Nuclei.csv``; one table of all cells; a folder or pattern of label images, masks or
            outline drawings; or `Masks`, which says how to read those
        illumination : "auto" for the table's own columns, "none", or a folder or a path with ``{plate}`` and
            ``{channel}``
        plate_map : what is in each well (`chammi_fast.plates.plate_map.read_plate_map`)
        images : where the files lie now, if not where the table says

        Raises
        ------
        ManifestError
            If something cannot be read or joined; the message names file, column or row.
        """
        tables = list(table) if isinstance(table, (list, tuple)) else [cast("str | Path", table)]
        reading = read_load_data([as_path(each) for each in tables], None if images is None else as_path(images))
        return _finish(reading, locations, illumination, plate_map)

    @classmethod
    def from_folder(
        cls,
        where: str | Path,
        *,
        pattern: str | None = None,
        plate: str | None = None,
        locations: str | Path | Masks | None = None,
        illumination: str | Path = NO_ILLUMINATION,
        plate_map: str | Path | None = None,
    ) -> Plate:
        """Read a folder of images by their names.

        Parameters
        ----------
        where : a folder; or a pattern such as ``images/{plate}/{well}_{site}_{channel}.tif``, in which names in
            braces, ``{}`` and ``*`` stand for parts of file names, or a regular expression with named groups. ``row``
            and ``column`` together are a well; any other name becomes a Metadata_ column.
        pattern : "opera-phenix", "imagexpress", or a pattern relative to the folder; by default the microscope is
            told by the files' names
        plate : the plate's name, where file names do not have it; by default the folder's
        locations, illumination, plate_map : as for `from_load_data`

        Raises
        ------
        ManifestError
            If no file fits, two files are the same channel of a field, or something cannot be read or joined.
        """
        return _finish(read_folder(where, pattern, plate), locations, illumination, plate_map)

    def __len__(self) -> int:
        return int(self.fields.num_rows)

    def __repr__(self) -> str:
        return f"Plate({self.origin!r}, {len(self):,} fields, channels={','.join(self.channels)})"

    @property
    def names(self) -> list[str]:
        """Names of the plates."""
        return list(dict.fromkeys(self.fields[PLATE].to_pylist()))

    def field(self, index: int) -> PlateField:
        """Return one field of view."""
        row = self.fields.slice(index, 1).to_pylist()[0]
        return PlateField(
            index=index,
            key=row.pop(KEY),
            images=tuple(row.pop(IMAGES)),
            illumination=tuple(row.pop(ILLUMINATION)),
            metadata=row,
        )

    def cells(self, index: int) -> Cells:
        """Read the cells of one field.

        Raises
        ------
        ManifestError, DecodeError
            If there is no file for them, it cannot be read, or two cells have one number.
        """
        if self.locations is None:
            raise ManifestError(f"{self.origin}: no cell locations were given.")
        cells = self.locations.cells(index)
        numbers, counts = np.unique(cells.object_numbers, return_counts=True)
        if len(numbers) < len(cells):
            repeated, key = int(numbers[counts.argmax()]), self.fields[KEY][index].as_py()
            raise ManifestError(f"{self.locations.origin}: the field {key} has the object number {repeated} twice.")
        return cells

    def select(self, channels: Sequence[str]) -> Plate:
        """Return the plate with some of its channels, in the given order.

        Raises
        ------
        ChannelError
            If the plate has no such channel.
        """
        unknown = [name for name in channels if name not in self.channels]
        if unknown:
            raise ChannelError(f"{self.origin}: has no channel '{unknown[0]}'; its channels are {_and(self.channels)}.")
        places = [self.channels.index(name) for name in channels]
        fields = self.fields
        for name in (IMAGES, ILLUMINATION):
            chosen = [[files[each] for each in places] for files in fields[name].to_pylist()]
            column = fields.column_names.index(name)
            fields = fields.set_column(column, name, pa.array(chosen, pa.list_(pa.string())))
        return replace(self, channels=tuple(channels), fields=fields)

    def units(self) -> Iterator[Unit]:
        """Divide the fields into units of work, one per well, in the plate's order."""
        plates, wells = self.fields[PLATE].to_pylist(), self.fields[WELL].to_pylist()
        owner = list(zip(plates, wells, strict=True))
        for _, group in groupby(range(len(self)), key=lambda index: owner[index]):
            indices = list(group)
            yield Unit(range(indices[0], indices[-1] + 1))

    def places(self) -> list[Place]:
        """Return plate, well and site of each field in the one way of writing that tables are joined by."""
        return _places(self.fields)


def open_plate(
    source: str | Path,
    *,
    locations: str | Path | Masks | None = None,
    illumination: str | Path = AS_LISTED,
    plate_map: str | Path | None = None,
    images: str | Path | None = None,
) -> Plate:
    """Read a LoadData table if `source` is a file, else a folder or a pattern; as the command line does.

    Raises
    ------
    ManifestError
        As `Plate.from_load_data` and `Plate.from_folder`.
    """
    if as_path(source).is_file() or (is_table(as_path(source)) and not is_pattern(str(source))):
        return Plate.from_load_data(
            source, locations=locations, illumination=illumination, plate_map=plate_map, images=images
        )
    if images is not None:
        raise ManifestError(
            f"{source}: images= says where the files of a LoadData table lie: here they are the source."
        )
    chosen = NO_ILLUMINATION if illumination == AS_LISTED else illumination
    return Plate.from_folder(source, locations=locations, illumination=chosen, plate_map=plate_map)


def _finish(
    reading: Reading, locations: str | Path | Masks | None, illumination: str | Path, plate_map: str | Path | None
) -> Plate:
    known = None if plate_map is None else read_plate_map(plate_map)
    if known is not None:
        _annotate(reading, known)
    if illumination != AS_LISTED:
        _illuminate(reading, illumination)
    fields = reading.fields()
    keys = fields[KEY].to_pylist()
    return Plate(
        origin=reading.origin,
        channels=tuple(reading.channels),
        fields=fields,
        locations=None if locations is None else open_locations(locations, keys, _places(fields)),
        rejected=pa.Table.from_pylist(reading.rejected, schema=REJECTED),
        remarks=tuple(reading.remarks),
        plate_map=known,
    )


def _annotate(reading: Reading, plate_map: PlateMap) -> None:
    own = {PLATE, WELL, SITE}
    if not own.isdisjoint(plate_map.columns):
        names = ", ".join(name for name in plate_map.columns if name in own)
        reading.remarks.append(f"{plate_map.origin}: {names} of it is left out: the fields themselves say that.")
    rows = reading.rows
    _, columns = plate_map.join([row.plate for row in rows], [row.well for row in rows])
    for name in (name for name in columns if name not in own):
        merged, odd = merge([row.metadata.get(name) for row in rows], columns[name])
        if odd is not None:
            row = rows[odd]
            raise ManifestError(
                f"{plate_map.origin}: says {name} of {row.key} is '{columns[name][odd]}', but {row.source} says "
                f"'{row.metadata[name]}'."
            )
        for row, value in zip(rows, merged, strict=True):
            row.metadata[name] = value


def _illuminate(reading: Reading, where: str | Path) -> None:
    by_plate: dict[str, dict[str, str]] = {}
    for row in reading.rows:
        row.illumination.clear()
        if str(where) == NO_ILLUMINATION:
            continue
        if row.plate not in by_plate:
            files = illumination_files(where, row.plate, reading.channels)
            by_plate[row.plate] = dict(zip(reading.channels, files, strict=True))
        row.illumination.update(by_plate[row.plate])


def _places(fields: pa.Table) -> list[Place]:
    columns = (fields[name].to_pylist() for name in (PLATE, WELL, SITE))
    return [place(plate, well, str(site)) for plate, well, site in zip(*columns, strict=True)]


def _and(names: Sequence[str]) -> str:
    return ", ".join(names)
