"""Cells of one field, and the tables that hold them: which columns are centres, numbers and bounding boxes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet

from chammi_fast.errors import ManifestError
from chammi_fast.files import source_of
from chammi_fast.plates.names import first_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

Centres: TypeAlias = "npt.NDArray[np.float64]"
Boxes: TypeAlias = "npt.NDArray[np.int32]"
Numbers: TypeAlias = "npt.NDArray[np.int64]"
Labels: TypeAlias = "npt.NDArray[np.int32]"

# A nucleus before what is around it; whoever measures both crops around the nucleus.
_CENTRES = (
    "Nuclei_Location_Center_{}", "Location_Center_{}", "Metadata_Nuclei_Location_Center_{}",
    "Nuclei_AreaShape_Center_{}", "AreaShape_Center_{}", "Cells_Location_Center_{}", "centre_{}_px", "center_{}_px",
    "centre_{}", "center_{}", "{}",
)  # fmt: skip
_CENTROID = ("centroid-1", "centroid-0")
_BOXES = ("Nuclei_AreaShape_BoundingBox{}", "AreaShape_BoundingBox{}", "Metadata_Nuclei_AreaShape_BoundingBox{}")
_CORNERS = ("Minimum_X", "Minimum_Y", "Maximum_X", "Maximum_Y")
_NUMBERS = (
    "Nuclei_Number_Object_Number", "Number_Object_Number", "Metadata_Nuclei_Number_Object_Number",
    "Nuclei_ObjectNumber", "Metadata_ObjectNumber", "ObjectNumber", "object_number",
)  # fmt: skip
NO_BOX = -1
TABLE_SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".txt.gz", ".parquet", ".pq")


@dataclass(frozen=True)
class Cells:
    """Cells of one field, in the order of their table.

    Attributes
    ----------
    object_numbers : (N,) int64, as the table or the label image numbers them; 1, 2, ... where neither does
    centres_px : (N, 2) float64, x to the right and y down; the centre of the image's first pixel is (0, 0). NaN where
        the table has no number
    boxes_px : (N, 4) int32, x and y of the first pixel and of the one behind the last, or None where they are unknown
    labels : (H, W) int32, the object number at each pixel and 0 elsewhere, where the cells come from images
    """

    object_numbers: Numbers
    centres_px: Centres
    boxes_px: Boxes | None = None
    labels: Labels | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.object_numbers)


@dataclass(frozen=True)
class CellColumns:
    """Names of the columns of a table that hold its cells; None for what it lacks."""

    x: str
    y: str
    number: str | None
    boxes: tuple[str, ...] | None

    @property
    def all(self) -> list[str]:
        """Every column to read."""
        return [self.x, self.y, *([self.number] if self.number else []), *(self.boxes or ())]


def cell_columns(names: Sequence[str], origin: Path) -> CellColumns:
    """Find the columns of DeepProfiler, CellProfiler, scikit-image and plain tables.

    Raises
    ------
    ManifestError
        If no pair of columns holds centres.
    """
    pairs = [(each.format(x), each.format(y)) for each in _CENTRES for x, y in (("X", "Y"), ("x", "y"))]
    pair = next((pair for pair in [*pairs, _CENTROID] if set(pair) <= set(names)), None)
    if pair is None:
        raise ManifestError(
            f"{origin}: no columns hold the cells' centres; looked for Nuclei_Location_Center_X and _Y, "
            f"Location_Center_X and _Y, AreaShape_Center_X and _Y, center_x and center_y, x and y, centroid-1 and -0."
        )
    # Elsewhere `label` may be anything, such as a class.
    numbers = (*_NUMBERS, "label") if pair == _CENTROID else _NUMBERS
    boxes = [tuple(each.format(corner) for corner in _CORNERS) for each in _BOXES]
    boxes.append(("bbox-1", "bbox-0", "bbox-3", "bbox-2"))
    return CellColumns(
        x=pair[0],
        y=pair[1],
        number=first_of(numbers, names),
        boxes=next((four for four in boxes if set(four) <= set(names)), None),
    )


def is_table(path: Path) -> bool:
    """Whether a file's name is that of a table."""
    return path.name.lower().endswith(TABLE_SUFFIXES)


def column_names(path: Path) -> list[str]:
    """Read the names of a table's columns, and little more.

    Raises
    ------
    ManifestError
        If the file is missing or not a table.
    """
    with _named_errors(path):
        if _is_parquet(path):
            return list(parquet.read_schema(source_of(path)).names)
        with csv.open_csv(source_of(path), parse_options=_parsing(path)) as reader:
            return list(reader.schema.names)


def stream_columns(path: Path, numbers: Sequence[str], texts: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
    """Yield some columns of a table bit by bit: `numbers` as float64, `texts` as strings, an empty cell as null.

    Raises
    ------
    ManifestError
        If the file is missing, not a table, or holds something other than numbers there.
    """
    types = {**dict.fromkeys(numbers, pa.float64()), **dict.fromkeys(texts, pa.string())}
    schema = pa.schema(list(types.items()))
    with _named_errors(path):
        if _is_parquet(path):
            with parquet.ParquetFile(source_of(path)) as file:
                for batch in file.iter_batches(columns=list(types)):
                    columns = [pc.cast(batch.column(name), kind) for name, kind in types.items()]
                    yield pa.RecordBatch.from_arrays(columns, schema=schema)
            return
        options = csv.ConvertOptions(column_types=types, include_columns=list(types), strings_can_be_null=True)
        with csv.open_csv(source_of(path), parse_options=_parsing(path), convert_options=options) as reader:
            yield from reader


def read_cells(path: Path) -> Cells:
    """Read a table that holds the cells of one field.

    Raises
    ------
    ManifestError
        If the file is missing, not a table, or has no centres.
    """
    columns = cell_columns(column_names(path), path)
    batches = list(stream_columns(path, columns.all))
    parts = [np.stack([batch.column(name).to_numpy(zero_copy_only=False) for name in columns.all]) for batch in batches]
    values = np.concatenate(parts, axis=1) if parts else np.empty((len(columns.all), 0))
    return cells_from(columns, dict(zip(columns.all, values, strict=True)), path)


def cells_from(columns: CellColumns, values: dict[str, Any], origin: Path, *, before: int = 0) -> Cells:
    """Make cells of columns of float64 with NaN for empty cells; `before` rows of the table came earlier."""
    centres = np.stack([values[columns.x], values[columns.y]], axis=1).astype(np.float64)
    if columns.number is None:
        numbers = np.arange(1, len(centres) + 1, dtype=np.int64)
    else:
        numbers = whole(values[columns.number], origin, columns.number, before=before)
    boxes = None
    if columns.boxes is not None:
        corners = np.stack([values[name] for name in columns.boxes], axis=1)
        boxes = np.where(np.isfinite(corners), corners, NO_BOX).astype(np.int32)
    return Cells(numbers, centres, boxes)


def whole(values: npt.NDArray[np.float64], origin: Path, column: str, *, before: int = 0) -> Numbers:
    """Return numbers as int64; `before` rows of the table came earlier.

    Raises
    ------
    ManifestError
        If one is empty or no whole number.
    """
    wrong = ~np.isfinite(values) | (values != np.floor(values))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ManifestError(
            f"{origin}: column '{column}': row {before + row + 1} holds no whole number but {values[row]}."
        )
    return values.astype(np.int64)


class _named_errors:  # noqa: N801 - a context manager is used like a function
    """Say which file pyarrow complains about."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, FileNotFoundError):
            raise ManifestError(f"{self._path}: no such file.") from None
        if isinstance(error, (OSError, pa.ArrowException, KeyError)):
            raise ManifestError(f"{self._path}: not a readable table: {str(error).splitlines()[0]}.") from None


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() in {".parquet", ".pq"}


def _parsing(path: Path) -> csv.ParseOptions:
    tabs = path.name.lower().removesuffix(".gz").endswith((".tsv", ".txt"))
    return csv.ParseOptions(delimiter="\t" if tabs else ",")
