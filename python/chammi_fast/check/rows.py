"""Compare a data set's table with the published one: columns, splits, labels, groups, widths, keys."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from chammi_fast.chammi import LABEL_COLUMN, LABEL_COLUMNS, SPLIT_COLUMN, TRAIN, TRUE_TEXTS, DataSet, Task
from chammi_fast.check.report import Finding, compared, listed
from chammi_fast.manifest import PATH_COLUMN, WIDTH_COLUMN

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class _Table:
    """A data set's rows, columns by name as text."""

    data_set: DataSet
    rows: pa.Table

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    def has(self, name: str) -> bool:
        return name in self.rows.column_names

    def text(self, name: str) -> npt.NDArray[np.str_]:
        """(N,) text of a column; "" where a cell is empty or cannot be written as text."""
        column = self.rows[name]
        if pa.types.is_dictionary(column.type):
            column = pc.cast(column, column.type.value_type)
        try:
            return np.array(pc.fill_null(pc.cast(column, pa.string()), "").to_pylist(), dtype=np.str_)
        except pa.ArrowException:
            return np.full(len(self), "", dtype=np.str_)

    @property
    def label_column(self) -> str | None:
        """`Label` as published, or `label` as in the merged table."""
        return next((name for name in LABEL_COLUMNS if self.has(name)), None)

    def split(self, name: str) -> npt.NDArray[np.bool_]:
        """(N,) rows of the training set or of a task: by the task's own column, or else by the split's text."""
        if name != TRAIN and self.has(name):
            return np.isin(np.char.lower(self.text(name)), TRUE_TEXTS)
        if not self.has(SPLIT_COLUMN):
            return np.zeros(len(self), dtype=np.bool_)
        return np.asarray(np.char.lower(self.text(SPLIT_COLUMN)) == name.lower())


def check_rows(data_set: DataSet, rows: pa.Table) -> list[Finding]:
    """Compare the rows of one data set with the published numbers, names and values."""
    table = _Table(data_set, rows)
    findings = [compared("in all", len(table), data_set.images)]
    for part in (_columns, _splits, _groups, _widths, _keys):
        findings += part(table)
    return findings


def _columns(table: _Table) -> Iterator[Finding]:
    data_set = table.data_set
    for name in (PATH_COLUMN, WIDTH_COLUMN):
        if not table.has(name):
            yield Finding("problem", f"the column '{name}' is missing: nothing can be embedded.")
    if table.label_column is None:
        yield Finding("problem", f"the column '{LABEL_COLUMN}' is missing: nothing can be scored.")
    if not table.has(SPLIT_COLUMN):
        yield Finding("problem", f"the column '{SPLIT_COLUMN}' is missing: nothing can be scored.")
    tasks = [task.name for task in data_set.tasks if not table.has(task.name)]
    if tasks and table.has(SPLIT_COLUMN):
        columns = ", ".join(f"'{name}'" for name in tasks)
        yield Finding("note", f"no column {columns}: the rows of a task are those that '{SPLIT_COLUMN}' names.")
    needed = {task.leave_out for task in data_set.tasks}
    for name in (data_set.id_column, *data_set.group_columns):
        if not table.has(name) and name not in needed:
            yield Finding("note", f"the published column '{name}' is missing; neither embedding nor scoring needs it.")


def _splits(table: _Table) -> Iterator[Finding]:
    data_set = table.data_set
    if not table.has(SPLIT_COLUMN):
        return
    training = table.split(TRAIN)
    used = training.copy()
    yield from _split(table, training, Task(TRAIN, data_set.train_rows))
    for task in data_set.tasks:
        chosen = table.split(task.name)
        used |= chosen
        yield from _split(table, chosen, task)
        both = int(np.count_nonzero(chosen & training))
        if both:
            yield Finding("problem", f"{task.name}: {both:,} of its rows are training rows as well.")
    if not used.all():
        yield Finding("note", f"{np.count_nonzero(~used):,} rows belong to no split; they are embedded, not scored.")


def _split(table: _Table, chosen: npt.NDArray[np.bool_], task: Task) -> Iterator[Finding]:
    """Compare number and labels of the rows of the training set or of a task."""
    count = int(np.count_nonzero(chosen))
    if not count:
        effect = "no task can be scored" if task.name == TRAIN else "the task cannot be scored, CPS cannot be computed"
        yield Finding("problem", f"{task.name}: no rows; {effect}.")
        return
    yield compared(task.name, count, task.rows)
    if table.label_column is None:
        return
    expected = task.novel_labels or table.data_set.train_labels
    found = Counter(table.text(table.label_column)[chosen].tolist())
    empty = found.pop("", 0)
    if empty:
        yield Finding("problem", f"{task.name}: {empty:,} rows have no label in column '{table.label_column}'.")
    missing = [f"'{label}'" for label in expected if label not in found]
    if missing:
        yield Finding("problem", f"{task.name}: no row has the label {listed(missing)}.")
    unknown = {f"'{label}'": rows for label, rows in sorted(found.items()) if label not in expected}
    if unknown:
        rows, names = sum(unknown.values()), listed(list(unknown))
        yield Finding("problem", f"{task.name}: {rows:,} rows have a label that the published task lacks: {names}.")


def _groups(table: _Table) -> Iterator[Finding]:
    """Check that leaving one group out leaves others."""
    for task in table.data_set.tasks:
        if task.leave_out is None:
            continue
        if not table.has(task.leave_out):
            yield Finding("problem", f"{task.name}: the column '{task.leave_out}' of its groups is missing.")
            continue
        groups = Counter(table.text(task.leave_out)[table.split(task.name)].tolist())
        empty = groups.pop("", 0)
        if empty:
            yield Finding("problem", f"{task.name}: {empty:,} rows have no group in column '{task.leave_out}'.")
        if len(groups) == 1:
            only = next(iter(groups))
            yield Finding("problem", f"{task.name}: all rows are of {task.leave_out} '{only}': none can be left out.")
        elif groups:
            yield Finding("ok", f"{task.name}: {len(groups)} groups of '{task.leave_out}' to leave out in turn.")


def _widths(table: _Table) -> Iterator[Finding]:
    if not table.has(WIDTH_COLUMN):
        return
    wanted = str(table.data_set.channel_width)
    other = Counter(width for width in table.text(WIDTH_COLUMN).tolist() if width not in {wanted, f"{wanted}.0"})
    if other:
        values = listed([f"'{width}'" if width else "empty" for width, _ in other.most_common()])
        count = sum(other.values())
        yield Finding(
            "problem", f"column '{WIDTH_COLUMN}': {count:,} rows are not {wanted}, as published, but {values}."
        )
    elif len(table):
        yield Finding("ok", f"column '{WIDTH_COLUMN}': {wanted} in all rows, as published.")


def _keys(table: _Table) -> Iterator[Finding]:
    if not table.has(PATH_COLUMN):
        return
    keys = Counter(table.text(PATH_COLUMN).tolist())
    empty = keys.pop("", 0)
    if empty:
        yield Finding("problem", f"column '{PATH_COLUMN}': empty in {empty:,} rows.")
    repeated = [key for key, count in keys.items() if count > 1]
    if repeated:
        yield Finding(
            "problem", f"column '{PATH_COLUMN}': {len(repeated):,} files are listed more than once: {listed(repeated)}."
        )
