"""One table of all cells, such as CellProfiler's Nuclei table: read once, bit by bit, and kept on disk by field."""

from __future__ import annotations

import os
import tempfile
import threading
import weakref
from dataclasses import dataclass
from functools import cached_property
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chammi_fast.errors import ManifestError
from chammi_fast.plates.cells import (
    NO_BOX,
    CellColumns,
    Cells,
    cell_columns,
    cells_from,
    column_names,
    stream_columns,
)
from chammi_fast.plates.names import PLATE_COLUMNS, SITE_COLUMNS, WELL_COLUMNS, Lookup, Place, first_of, place

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

_RECORD = np.dtype([("field", "<i4"), ("number", "<i8"), ("centre", "<f8", 2), ("box", "<i4", 4)])
_RECORDS_AT_ONCE = 1 << 16
_IMAGE_KEYS = ("TableNumber", "ImageNumber")
_SEPARATOR = "\x1f"


@dataclass(frozen=True)
class _Keys:
    """Columns that say which field a cell is of, and what their values stand for.

    Attributes
    ----------
    columns : plate, well and site, as far as the table has them; or the numbers of an Image table
    fields : from the text of these columns to the field's number
    """

    columns: tuple[str, ...]
    fields: dict[str, int]
    lookup: Lookup | None

    def field(self, text: str) -> int:
        """Return the number of the field that a key's text stands for, or -1."""
        if self.lookup is None:
            return self.fields.get(text, -1)
        parts = iter(text.split(_SEPARATOR))
        plate = next(parts) if self.lookup.by_plate else ""
        well = next(parts)
        site = next(parts) if self.lookup.by_site else ""
        return self.fields.get(_SEPARATOR.join(self.lookup.reduce(place(plate, well, site))), -1)


class BigTable:
    """Cells of all fields in one table, in any order.

    The table is read when the first cells are asked for. What is needed of it is kept in a temporary file sorted by
    field, so that memory does not grow with the number of cells.
    """

    def __init__(self, path: Path, places: Sequence[Place]) -> None:
        self._path = path
        self._places = places
        names = column_names(path)
        self._columns = cell_columns(names, path)
        self._keys = _keys(path, names, places)
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what a process has for itself: another one reads the table again."""
        return {name: value for name, value in vars(self).items() if name not in {"_lock", "_on_disk"}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._lock = threading.Lock()

    @property
    def origin(self) -> str:
        """The table's path."""
        return str(self._path)

    def knows(self, field: int) -> bool:
        """Whether the field is known; a table without a row for it says that it has no cells."""
        return 0 <= field < len(self._places)

    def cells(self, field: int) -> Cells:
        """Return the cells of one field, in the table's order."""
        file, starts, _ = self._sorted()
        first, last = (int(place) * _RECORD.itemsize for place in starts[field : field + 2])
        some = np.frombuffer(os.pread(file.fileno(), last - first, first), dtype=_RECORD)
        boxes = some["box"].copy() if self._columns.boxes else None
        numbers = some["number"].copy() if self._columns.number else np.arange(1, len(some) + 1, dtype=np.int64)
        return Cells(numbers, some["centre"].copy(), boxes)

    def strays(self) -> int:
        """Count rows that belong to none of the fields."""
        return self._sorted()[2]

    def _sorted(self) -> tuple[IO[bytes], npt.NDArray[np.int64], int]:
        with self._lock:
            return self._on_disk

    @cached_property
    def _on_disk(self) -> tuple[IO[bytes], npt.NDArray[np.int64], int]:
        """File of records sorted by field, where each field's begin, and how many rows belong to none."""
        counts, strays = np.zeros(len(self._places), dtype=np.int64), 0
        with tempfile.TemporaryFile() as unsorted:
            for records in self._records():
                known = records[records["field"] >= 0]
                strays += len(records) - len(known)
                counts += np.bincount(known["field"], minlength=len(counts))
                unsorted.write(known.tobytes())
            starts = np.concatenate([[0], np.cumsum(counts)])
            file = _sort(unsorted, starts)
        weakref.finalize(self, file.close)
        return file, starts, strays

    def _records(self) -> Iterator[npt.NDArray[Any]]:
        before = 0
        for batch in stream_columns(self._path, self._columns.all, self._keys.columns):
            yield _records(batch, self._columns, self._keys, self._path, before)
            before += batch.num_rows


def _records(batch: pa.RecordBatch, columns: CellColumns, keys: _Keys, origin: Path, before: int) -> npt.NDArray[Any]:
    texts = [pc.fill_null(batch.column(name), "") for name in keys.columns]
    joined = pc.dictionary_encode(pc.binary_join_element_wise(*texts, _SEPARATOR))
    fields = np.array([keys.field(text) for text in joined.dictionary.to_pylist()], dtype=np.int32)
    records = np.zeros(batch.num_rows, dtype=_RECORD)
    if batch.num_rows:
        records["field"] = fields[joined.indices.to_numpy(zero_copy_only=False)]
    values = {name: batch.column(name).to_numpy(zero_copy_only=False) for name in columns.all}
    cells = cells_from(columns, values, origin, before=before)
    records["number"] = cells.object_numbers
    records["centre"] = cells.centres_px
    records["box"] = NO_BOX if cells.boxes_px is None else cells.boxes_px
    return records


def _sort(unsorted: IO[bytes], starts: npt.NDArray[np.int64]) -> IO[bytes]:
    """Move records to the places of their fields, keeping the order within a field; returns a temporary file."""
    target = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the table
    free = starts[:-1] * _RECORD.itemsize
    unsorted.seek(0)
    while block := unsorted.read(_RECORDS_AT_ONCE * _RECORD.itemsize):
        part = np.frombuffer(block, dtype=_RECORD)
        part = part[np.argsort(part["field"], kind="stable")]
        fields, begins = np.unique(part["field"], return_index=True)
        for field, group in zip(fields, np.split(part, begins[1:]), strict=True):
            os.pwrite(target.fileno(), group.tobytes(), int(free[field]))
            free[field] += group.nbytes
    return target


def _keys(path: Path, names: Sequence[str], places: Sequence[Place]) -> _Keys:
    well = first_of(WELL_COLUMNS, names)
    if well is None:
        return _keys_of_images(path, names, places)
    plate, site = first_of(PLATE_COLUMNS, names), first_of(SITE_COLUMNS, names)
    lookup = Lookup(by_plate=plate is not None, by_site=site is not None)
    lookup.check(places, str(path))
    fields = {_SEPARATOR.join(lookup.reduce(where)): number for number, where in enumerate(places)}
    return _Keys(tuple(name for name in (plate, well, site) if name), fields, lookup)


def _keys_of_images(path: Path, names: Sequence[str], places: Sequence[Place]) -> _Keys:
    """Look up which field an image's number stands for in CellProfiler's Image table beside the table."""
    image_table = next((each for each in _image_tables(path) if each.is_file()), None)
    if "ImageNumber" not in names or image_table is None:
        raise ManifestError(
            f"{path}: does not say which well its cells are of: it needs a column Metadata_Well, or ImageNumber and "
            f"the Image table beside it ({', '.join(each.name for each in _image_tables(path))})."
        )
    known = column_names(image_table)
    own = _keys(image_table, [name for name in known if name not in _IMAGE_KEYS], places)
    columns = tuple(name for name in _IMAGE_KEYS if name in names and name in known)
    if "ImageNumber" not in columns:
        raise ManifestError(f"{image_table}: lacks the column 'ImageNumber'.")
    fields: dict[str, int] = {}
    for batch in stream_columns(image_table, (), (*columns, *own.columns)):
        texts = [_SEPARATOR.join(value or "" for value in row.values()) for row in batch.to_pylist()]
        for text in texts:
            parts = text.split(_SEPARATOR)
            image, where = _SEPARATOR.join(parts[: len(columns)]), _SEPARATOR.join(parts[len(columns) :])
            if fields.setdefault(image, own.field(where)) != own.field(where):
                number = parts[len(columns) - 1]
                raise ManifestError(f"{image_table}: the ImageNumber {number} stands for more than one field.")
    return _Keys(columns, fields, None)


def _image_tables(path: Path) -> list[Path]:
    """Names that the Image table beside a Nuclei table may have."""
    own = path.name.replace("Nuclei", "Image")
    return [path.with_name(name) for name in dict.fromkeys([own, "Image.csv", "Image.parquet"]) if name != path.name]
