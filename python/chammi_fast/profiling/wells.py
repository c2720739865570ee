"""Profiles: one row of numbers per group of cells, and what is known of each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chammi_fast.errors import ManifestError, ProfileError
from chammi_fast.manifest import read_table, select_rows
from chammi_fast.plates.plate_map import merge, read_plate_map
from chammi_fast.plates.rows import as_column, records
from chammi_fast.urls import as_path, is_local

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PREFIX = "Metadata_"
_NAMED = 5
_ROW = "chammi_fast_row"


@dataclass(frozen=True)
class Profiles:
    """Profiles.

    Attributes
    ----------
    metadata : a table of N rows
    matrix : (N, D) float32; float64 while it is corrected
    features : D names
    """

    metadata: pa.Table
    matrix: np.ndarray
    features: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.matrix)

    def column(self, name: str, purpose: str) -> list[Any]:
        """Return a column of the metadata, which is needed for a purpose; NaN and the empty text are None, too.

        Raises
        ------
        ProfileError
            If there is none of that name.
        """
        if name not in self.metadata.column_names:
            columns = ", ".join(self.metadata.column_names)
            raise ProfileError(f"{purpose}: the profiles have no column '{name}'; they have {columns}.")
        values = [row[name] for row in records(self.metadata.select([name]))]
        return [None if isinstance(value, str) and not value else value for value in values]

    def named(self, name: str, purpose: str) -> np.ndarray:
        """Return which profiles have a value in a column, (N,) bool."""
        return np.array([value is not None for value in self.column(name, purpose)])

    def filled(self, name: str, purpose: str, rows: np.ndarray | None = None) -> list[Any]:
        """Return a column of which a purpose needs every value; or those of some rows, (N,) bool.

        Raises
        ------
        ProfileError
            If there is none of that name, or it is empty in such a row.
        """
        values = self.column(name, purpose)
        empty = sum(value is None and (rows is None or bool(rows[place])) for place, value in enumerate(values))
        if empty:
            raise ProfileError(f"{purpose}: column '{name}' is empty in {empty} of the profiles.")
        return values

    def rows(self, expression: str, purpose: str) -> np.ndarray:
        """Return for which rows an expression holds, (N,) bool.

        Raises
        ------
        ProfileError
            If the expression cannot be understood, names a column that is not there, or holds for no row.
        """
        numbered = self.metadata.append_column(_ROW, pa.array(np.arange(len(self))))
        try:
            chosen = select_rows(numbered, expression)[_ROW].to_numpy()
        except ManifestError as error:
            raise ProfileError(f"{purpose}: {str(error).removeprefix('where: ')}") from None
        if not len(chosen):
            raise ProfileError(f"{purpose}: '{expression}' holds for none of the {len(self)} profiles.")
        mask = np.zeros(len(self), bool)
        mask[chosen] = True
        return mask

    def keeping(self, mask: np.ndarray) -> Profiles:
        """Return the profiles with those features alone, (D,) bool, for which the mask holds."""
        kept = tuple(name for name, wanted in zip(self.features, mask, strict=True) if wanted)
        return replace(self, matrix=self.matrix[:, mask], features=kept)

    def to_table(self) -> pa.Table:
        """Return one column per feature after the metadata."""
        table = self.metadata
        for place, name in enumerate(self.features):
            table = table.append_column(name, pa.array(np.ascontiguousarray(self.matrix[:, place])))
        return table


def some(names: Sequence[str]) -> str:
    """Return the first few names, and how many more there are."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def read_profiles(paths: Sequence[str | Path], features: Sequence[str] = ("*",)) -> tuple[Profiles, list[str]]:
    """Read profiles that other programs made: tables with ``Metadata_...`` columns and one column per feature.

    Parameters
    ----------
    paths : CSV (also .gz) or Parquet tables, one below the other
    features : which of the columns without that prefix are features, as patterns such as ``Cells_*``

    Returns
    -------
    tuple
        the profiles, and a sentence for each thing that was left out

    Raises
    ------
    ProfileError
        If a path is named twice, no column is a feature, a feature is not a number, or nothing is left.
    ManifestError
        If a file cannot be read.
    """
    known = [path.resolve() if is_local(path) else path for path in map(as_path, paths)]
    for place, path in enumerate(known):
        if path in known[:place]:  # a profile would be its own replicate
            raise ProfileError(f"{path}: is named twice among the profiles.")
    tables = [read_table(path) for path in paths]
    try:
        table = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise ProfileError(f"{paths[0]} and the other tables do not fit: {str(error).splitlines()[0]}.") from None
    described = [name for name in table.column_names if name.startswith(PREFIX)]
    names = [
        name
        for name in table.column_names
        if name not in described and any(fnmatchcase(name, pattern) for pattern in features)
    ]
    if not names or not table.num_rows:
        raise ProfileError(
            f"{paths[0]}: holds no column {' or '.join(features)} without the prefix {PREFIX}, or no row."
        )
    matrix = np.stack([_numbers(table[name], name) for name in names], axis=1)
    finite = np.isfinite(matrix).all(axis=0)
    dropped = [name for name, whole in zip(names, finite, strict=True) if not whole]
    profiles = Profiles(table.select(described), matrix, tuple(names)).keeping(finite)
    if not profiles.features:
        raise ProfileError(f"{paths[0]}: every feature is empty or not finite in some row.")
    notes = [f"{len(dropped)} features are empty or not finite in some row and are left out: {some(dropped)}."]
    return profiles, notes if dropped else []


def _numbers(column: pa.ChunkedArray, name: str) -> np.ndarray:
    try:
        return np.asarray(pc.cast(column, pa.float64()).to_numpy(), np.float32)
    except pa.ArrowException:
        raise ProfileError(
            f"feature '{name}' is not a number in every row: say by features which columns are, such as 'Cells_*'."
        ) from None


def annotate(profiles: Profiles, where: str | Path, plate: str, well: str) -> tuple[Profiles, list[str]]:
    """Add the columns of a plate map (`chammi_fast.plates.plate_map.read_plate_map`), joined by plate and well.

    Returns
    -------
    tuple
        the profiles, and a sentence if the map lacks some of their wells

    Raises
    ------
    ProfileError
        If the profiles lack the column of wells, a column of the map contradicts one that is there already, or the map
        has none of the wells.
    ManifestError
        If the map cannot be read.
    """
    plate_map = read_plate_map(where)
    wells = _texts(profiles, well)
    plates = _texts(profiles, plate) if plate in profiles.metadata.column_names else [""] * len(wells)
    found, columns = plate_map.join(plates, wells)
    absent = [f"{one} {name}".strip() for one, name, there in zip(plates, wells, found, strict=True) if not there]
    if len(absent) == len(wells):
        raise ProfileError(f"{where}: has none of the wells of the profiles, such as {absent[0]}.")
    own = [name for name in columns if name in {plate, well}]
    notes = [f"{len(absent)} wells are not in the plate map: {some(absent)}."] if absent else []
    notes += [f"{where}: {', '.join(own)} of it is left out: the profiles themselves say that."] if own else []
    table = profiles.metadata
    for name in (name for name in columns if name not in own):
        table = _with_column(profiles, table, name, columns[name], where)
    return replace(profiles, metadata=table), notes


def _texts(profiles: Profiles, name: str) -> list[str]:
    return ["" if value is None else str(value) for value in profiles.column(name, "the plate map")]


def _with_column(profiles: Profiles, table: pa.Table, name: str, values: list[Any], where: str | Path) -> pa.Table:
    """Add a column of a plate map, or fill the one that is there."""
    if name not in table.column_names:
        return table.append_column(name, as_column(values))
    known = profiles.column(name, "the plate map")
    merged, odd = merge(known, values)
    if odd is not None:
        raise ProfileError(
            f"{where}: column '{name}' is in the profiles already, with other contents: '{known[odd]}' and "
            f"'{values[odd]}'."
        )
    # What nothing is filled in keeps its type.
    place = table.column_names.index(name)
    return table if merged == known else table.set_column(place, name, as_column(merged))
