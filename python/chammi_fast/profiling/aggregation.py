"""Cells to profiles, as the table streams by: memory does not grow with the number of cells."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from chammi_fast.embedding_table import ahead, feature_names, vectors
from chammi_fast.errors import ProfileError
from chammi_fast.images.cpus import usable_cpus
from chammi_fast.profiling.grouping import Grouping, survey
from chammi_fast.profiling.shelves import Shelves
from chammi_fast.profiling.wells import Profiles
from chammi_fast.table import EMBEDDING_COLUMN, KEY_COLUMN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from chammi_fast.embedding_table import EmbeddingTable
    from chammi_fast.profiling.settings import Aggregate

# pycytominer's name for it.
COUNT_COLUMN = "Metadata_Object_Count"
ROBUST_LIMIT = 3.0
MAD_SCALE = 1.4826  # of a normal distribution: its standard deviation over its median absolute deviation
_BATCH_ROWS = 4096
_SURVEY_ROWS = 65536
_COLUMNS_AT_ONCE = 64  # so that a block of a well's cells stays in a cache while it is sorted


@dataclass(frozen=True)
class Aggregated:
    """Profiles of groups of cells.

    Attributes
    ----------
    profiles : one row per group, in the order of the columns that were grouped by
    cells : rows of the table
    left_out : of these, rows with numbers that are not finite
    first_left_out : the key of the first of them, or ""
    lost : groups that had no other rows
    spilled : whether cells had to wait on disk
    """

    profiles: Profiles
    cells: int
    left_out: int = 0
    first_left_out: str = ""
    lost: tuple[str, ...] = ()
    spilled: bool = False


def aggregate(
    table: EmbeddingTable, by: Sequence[str], how: Aggregate, *, memory: int, spill_folder: Path | None = None
) -> Aggregated:
    """Return one profile per group of rows with equal values in the columns `by`.

    Columns with one value in each group describe it; its number of cells is `Metadata_Object_Count`.

    Parameters
    ----------
    how : "mean", "median" or "robust" (`chammi_fast.profiling.settings.Processing`), each exact
    memory : bytes that cells may take while they wait for the rest of their group
    spill_folder : where they wait beyond; None for the system's folder of temporary files

    Raises
    ------
    ProfileError
        If a column is missing, named twice, the key or the count, or empty in a row, or no row is left.
    """
    missing = [name for name in by if name not in table.columns]
    if missing or not by:
        named = f"there is no column '{missing[0]}' to group by" if missing else "no column is named to group by"
        raise ProfileError(f"{table.folder}: {named}; there are {', '.join(table.columns)}.")
    for place, name in enumerate(by):
        if name in by[:place]:
            raise ProfileError(f"column '{name}' is named twice to group by.")
        if name in {KEY_COLUMN, COUNT_COLUMN}:
            raise ProfileError(f"column '{name}' tells nothing of where a cell is from: group by another.")
    grouping = Grouping(by)
    others = [name for name in table.columns if name not in {*by, KEY_COLUMN, COUNT_COLUMN}]
    schema = pa.schema([table.schema.field(name) for name in others])
    counts, described = survey(ahead(table.batches([*by, *others], _SURVEY_ROWS)), grouping, schema)
    if not counts.sum():
        raise ProfileError(f"{table.folder}: no rows to aggregate.")
    pass_ = _Pass(table, grouping, counts)
    if how == "mean":
        matrix, spilled = pass_.means(), False
    else:
        matrix, spilled = pass_.sorted_cells(_MEASURES[how], memory, spill_folder)
    columns = {name: pa.array(values) for name, values in zip(by, zip(*grouping.names, strict=True), strict=True)}
    found = pa.table(columns | described | {COUNT_COLUMN: pa.array(pass_.used)})
    full = np.flatnonzero(pass_.used)
    if not len(full):
        raise ProfileError(f"{table.folder}: no row has an embedding of finite numbers.")
    order = (
        found.select(list(by))
        .append_column("#", pa.array(np.arange(len(found))))
        .sort_by([(n, "ascending") for n in by])
    )
    places = np.array([place for place in order["#"].to_pylist() if pass_.used[place]])
    lost = [", ".join(map(str, grouping.names[place])) for place in np.flatnonzero(pass_.used == 0)]
    profiles = Profiles(
        found.take(places), matrix[places].astype(np.float32), tuple(feature_names(table.embedding_size))
    )
    return Aggregated(profiles, int(counts.sum()), pass_.left_out, pass_.first_left_out, tuple(lost), spilled)


class _Pass:
    """One pass through all embeddings."""

    def __init__(self, table: EmbeddingTable, grouping: Grouping, counts: np.ndarray) -> None:
        self._table = table
        self._grouping = grouping
        self._missing = counts.copy()
        self.used = np.zeros(len(counts), np.int64)
        self.left_out = 0
        self.first_left_out = ""

    def means(self) -> np.ndarray:
        """Return the mean of each group, (G, D) float64."""
        sums = np.zeros((len(self.used), self._table.embedding_size))
        for group, rows in self._runs():
            sums[group] += rows.sum(axis=0, dtype=np.float64)
        return np.asarray(sums / np.maximum(self.used, 1)[:, None])

    def sorted_cells(
        self, measure: Callable[[np.ndarray], np.ndarray], memory: int, folder: Path | None
    ) -> tuple[np.ndarray, bool]:
        """Return a measure of each group's sorted numbers, (G, D) float64, and whether cells had to wait on disk."""
        result = np.zeros((len(self.used), self._table.embedding_size))
        with Shelves(self._table.embedding_size, memory, folder) as shelves, ThreadPoolExecutor(usable_cpus()) as pool:
            for group, rows in self._runs():
                shelves.add(group, rows)
                if self._missing[group] == 0:
                    for columns, block in shelves.take(group):
                        result[group, columns] = _by_columns(block, measure, pool)
            for group in np.flatnonzero(self._missing).tolist():  # their last rows were left out
                if self.used[group]:
                    for columns, block in shelves.take(group):
                        result[group, columns] = _by_columns(block, measure, pool)
            return result, shelves.spilled

    def _runs(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield pieces of the table of one group each, (N, D) float32 of finite numbers."""
        for batch in ahead(self._table.batches([KEY_COLUMN, *self._grouping.by, EMBEDDING_COLUMN], _BATCH_ROWS)):
            groups, rows = self._finite(
                batch, self._grouping.number(batch), vectors(batch).astype(np.float32, copy=False)
            )
            if not len(groups):
                continue
            starts = _starts(groups)
            if len(starts) > len(np.unique(groups)):
                order = np.argsort(groups, kind="stable")
                groups, rows = groups[order], rows[order]
                starts = _starts(groups)
            for start, stop in zip(starts, [*starts[1:], len(groups)], strict=True):
                group = int(groups[start])
                self._missing[group] -= stop - start
                self.used[group] += stop - start
                yield group, rows[start:stop]

    def _finite(self, batch: pa.Table, groups: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if np.isfinite(rows).all():
            return groups, rows
        whole = np.isfinite(rows).all(axis=1)
        if not self.left_out:
            self.first_left_out = str(batch[KEY_COLUMN][int(np.argmin(whole))].as_py())
        self.left_out += int((~whole).sum())
        return groups[whole], rows[whole]


def _starts(groups: np.ndarray) -> list[int]:
    """Places where a run of equal numbers begins, of at least one."""
    return [0, *(np.flatnonzero(np.diff(groups)) + 1).tolist()]


def _by_columns(rows: np.ndarray, measure: Callable[[np.ndarray], np.ndarray], pool: ThreadPoolExecutor) -> np.ndarray:
    def some(start: int) -> np.ndarray:
        columns = np.ascontiguousarray(rows[:, start : start + _COLUMNS_AT_ONCE].T)
        columns.sort(axis=1)
        return measure(columns)

    return np.concatenate(list(pool.map(some, range(0, rows.shape[1], _COLUMNS_AT_ONCE))))


def _median(ordered: np.ndarray) -> np.ndarray:
    """Return the median of each row of sorted numbers, float64."""
    number = ordered.shape[1]
    return np.asarray((ordered[:, (number - 1) // 2].astype(np.float64) + ordered[:, number // 2]) / 2)


def _robust(ordered: np.ndarray) -> np.ndarray:
    """Return the mean of those numbers of each row that are within three scaled MADs of its median, float64."""
    away = np.abs(ordered - _median(ordered)[:, None])
    limit = ROBUST_LIMIT * MAD_SCALE * _median(np.sort(away, axis=1))
    near = away <= limit[:, None]
    # At least one number is near: half of them are no farther from the median than the MAD.
    return np.asarray(np.where(near, ordered, 0).sum(axis=1, dtype=np.float64) / near.sum(axis=1))


_MEASURES: dict[str, Callable[[np.ndarray], np.ndarray]] = {"median": _median, "robust": _robust}
