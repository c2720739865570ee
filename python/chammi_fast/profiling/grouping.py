"""Which profile a cell belongs to, and what all cells of a profile have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chammi_fast.errors import ProfileError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Grouping:
    """Groups of rows with the same values in the columns `by`, numbered as they are met; rows are not kept."""

    def __init__(self, by: Sequence[str]) -> None:
        self.by = tuple(by)
        self._numbers: dict[tuple[Any, ...], int] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def names(self) -> list[tuple[Any, ...]]:
        """Values of the columns `by`, group by group."""
        return list(self._numbers)

    def number(self, table: pa.Table) -> np.ndarray:
        """Return the group of each row, (N,) int64.

        Raises
        ------
        ProfileError
            If a row has no value in a column of `by`.
        """
        joint = np.zeros(table.num_rows, np.int64)
        for name in self.by:
            holes = pc.sum(pc.is_null(table[name], nan_is_null=True)).as_py()
            if holes:
                raise ProfileError(f"column '{name}' is empty in {holes} rows or more: leave them out by where.")
            codes, values = encode(table[name])
            joint = joint * len(values) + codes
        _, first, inverse = np.unique(joint, return_index=True, return_inverse=True)
        found = table.select(self.by).take(first)
        names = zip(*(found[name].to_pylist() for name in self.by), strict=True)
        numbers = [self._numbers.setdefault(name, len(self._numbers)) for name in names]
        return np.array(numbers, np.int64)[inverse]


class Common:
    """Columns whose value is the same in all rows of each group: they describe the group."""

    def __init__(self, schema: pa.Schema) -> None:
        self._fields = {field.name: field for field in schema if not pa.types.is_nested(field.type)}
        self._values: dict[str, dict[int, Any]] = {name: {} for name in self._fields}

    @property
    def names(self) -> list[str]:
        """Columns that have held so far."""
        return list(self._values)

    def look(self, table: pa.Table, groups: np.ndarray) -> None:
        """Take in more rows and their groups; columns that differ within a group fall out."""
        numbers, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
        for name in self.names:
            codes, values = encode(table[name])
            known = self._values[name]
            if (codes != codes[first][inverse]).any():
                del self._values[name]
                continue
            found = values.take(pa.array(codes[first])).to_pylist()
            for number, value in zip(numbers.tolist(), found, strict=True):
                before = known.setdefault(number, value)
                if before != value and not (before != before and value != value):  # noqa: PLR0124 - NaN equals NaN here
                    del self._values[name]
                    break

    def columns(self, groups: int) -> dict[str, pa.Array]:
        """Return the columns that held, one value per group."""
        return {
            name: pa.array([values[number] for number in range(groups)], self._fields[name].type)
            for name, values in self._values.items()
        }


def encode(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """Return each row's place, (N,) int64, in the list of the column's different values; empty is a value too."""
    encoded = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    if not pa.types.is_dictionary(encoded.type):
        encoded = encoded.dictionary_encode(null_encoding="encode")
    return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64), encoded.dictionary


def survey(
    batches: Iterable[pa.Table], grouping: Grouping, schema: pa.Schema
) -> tuple[np.ndarray, dict[str, pa.Array]]:
    """Go through all rows, without their embeddings.

    Parameters
    ----------
    batches : the columns of `schema`, and those of `grouping`
    schema : columns that may describe the groups

    Returns
    -------
    tuple
        rows of each group, (G,) int64, and the columns that describe the groups
    """
    common = Common(schema)
    counts = np.zeros(0, np.int64)
    for table in batches:
        if table.num_rows == 0:
            continue
        groups = grouping.number(table)
        counts = np.concatenate([counts, np.zeros(len(grouping) - len(counts), np.int64)])
        counts += np.bincount(groups, minlength=len(grouping))
        common.look(table, groups)
    return counts, common.columns(len(grouping))
