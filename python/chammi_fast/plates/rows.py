"""Fields of view as they are read from a table or a folder, before they become a plate."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from chammi_fast.errors import ManifestError
from chammi_fast.plates.names import Place, place, reading_order

if TYPE_CHECKING:
    from collections.abc import Sequence

PLATE, WELL, SITE = "Metadata_Plate", "Metadata_Well", "Metadata_Site"
KEY, IMAGES, ILLUMINATION = "key", "images", "illumination"
REJECTED = pa.schema([("source", pa.string()), ("row", pa.int64()), ("key", pa.string()), ("cause", pa.string())])


@dataclass(frozen=True)
class Row:
    """One field of view.

    Attributes
    ----------
    source, number : the table and the row in it, counted from 1; or the folder and 0
    plate, well, site : as they are written
    images, illumination : channel -> path or URL; a channel that is not there has no file
    metadata : further columns, with the prefix Metadata_
    """

    source: str
    number: int
    plate: str
    well: str
    site: Any
    images: dict[str, str]
    illumination: dict[str, str]
    metadata: dict[str, Any]

    @property
    def key(self) -> str:
        """Name of the field, such as ``BR00117010/A01/1``."""
        return f"{self.plate}/{self.well}/{self.site}"

    @property
    def place(self) -> Place:
        """What the field is joined by."""
        return place(self.plate, self.well, str(self.site))


@dataclass
class Reading:
    """What was found, good and bad.

    Attributes
    ----------
    origin : table or folder
    channels : the user's names, in the table's order
    rows : of all fields
    rejected : source, row, key and cause of each row that is left out
    remarks : sentences about what else was noticed
    """

    origin: str
    channels: list[str]
    rows: list[Row] = field(default_factory=list)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def reject(self, row: Row, cause: str) -> None:
        """Leave a row out."""
        self.rejected.append({"source": row.source, "row": row.number or None, "key": row.key, "cause": cause})

    def without_repetitions(self) -> None:
        """Keep one of rows that say the same, and none of those that name different files for one field.

        Sorts the rows by plate, well and site, and writes each well as in its first row.
        """
        by_place: dict[Place, list[Row]] = defaultdict(list)
        for row in self.rows:
            by_place[row.place].append(row)
        kept = []
        for rows in by_place.values():
            first = rows[0]
            if all(_says(row) == _says(first) for row in rows[1:]):
                kept.append(first)
                for row in rows[1:]:
                    self.reject(row, f"repeats row {first.number}")
                continue
            numbers = ", ".join(str(row.number) for row in rows)
            for row in rows:
                self.reject(row, f"rows {numbers} are the same plate, well and site with different contents")
        kept.sort(key=lambda row: reading_order(*row.place))
        spelt: dict[tuple[str, str], str] = {}
        self.rows = [replace(row, well=spelt.setdefault(row.place[:2], row.well)) for row in kept]

    def fields(self) -> pa.Table:
        """Return the table of fields (`chammi_fast.plates.Plate.fields`).

        Raises
        ------
        ManifestError
            If there are none.
        """
        if not self.rows:
            first = f"; the first row left out: {self.rejected[0]['cause']}" if self.rejected else ""
            raise ManifestError(f"{self.origin}: has no field of view that can be used{first}.")
        own = {PLATE, WELL, SITE}
        names = dict.fromkeys(name for row in self.rows for name in row.metadata if name not in own)
        columns: dict[str, Any] = {
            KEY: pa.array([row.key for row in self.rows], pa.string()),
            PLATE: pa.array([row.plate for row in self.rows], pa.string()),
            WELL: pa.array([row.well for row in self.rows], pa.string()),
            SITE: as_column([row.site for row in self.rows]),
        }
        columns |= {name: as_column([row.metadata.get(name) for row in self.rows]) for name in names}
        files = pa.list_(pa.string())
        columns[IMAGES] = pa.array([_in_order(row.images, self.channels) for row in self.rows], files)
        columns[ILLUMINATION] = pa.array([_in_order(row.illumination, self.channels) for row in self.rows], files)
        return pa.table(columns)


def _says(row: Row) -> tuple[Any, ...]:
    return row.images, row.illumination, row.metadata


def _in_order(files: dict[str, str], channels: Sequence[str]) -> list[str | None]:
    return [files.get(channel) for channel in channels]


def records(table: pa.Table) -> list[dict[str, Any]]:
    """Return a table's rows; NaN is no value, and None like every other cell without one: NaN does not equal NaN."""
    rows: list[dict[str, Any]] = table.to_pylist()
    return [{name: None if value != value else value for name, value in row.items()} for row in rows]  # noqa: PLR0124


def as_column(values: list[Any]) -> pa.Array:
    """Return values as one Arrow type: their own, or text where tables disagree."""
    try:
        return pa.array(values)
    except pa.ArrowException:
        return pa.array([None if value is None else str(value) for value in values], pa.string())
