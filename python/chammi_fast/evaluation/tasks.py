"""Which rows train, which are tested, and what they are called: the benchmark's tasks, and those of any table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc

from chammi_fast.chammi import DATA_SETS, LABEL_COLUMNS, SPLIT_COLUMN, TRAIN, TRUE_TEXTS
from chammi_fast.errors import EvaluationError
from chammi_fast.evaluation.features import text_column

if TYPE_CHECKING:
    from chammi_fast.evaluation.features import Joined

_FALSE_TEXTS = ("false", "0", "0.0", "")
_LISTED_VALUES = 8


@dataclass(frozen=True)
class Columns:
    """The names of a table's columns; None means the benchmark's.

    Attributes
    ----------
    label : of what is to be predicted
    split : "Train" in training rows, else the task's name
    group : of groups to leave out one at a time, in a table of the user's
    """

    label: str | None = None
    split: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Task:
    """Rows whose labels are to be predicted.

    Attributes
    ----------
    name : such as "Allen/Task_one"
    rows : (Q,) int64, ascending
    groups : (Q,) int64 group of each row, where a row may also be matched with the task's rows of all other groups;
        None where the training rows alone are the reference
    """

    name: str
    rows: np.ndarray
    groups: np.ndarray | None = None


@dataclass(frozen=True)
class Plan:
    """What to score in one table of joined rows.

    Attributes
    ----------
    training : (T,) int64 rows, ascending
    labels : (N,) int64 places in `label_names`, -1 for rows without a label, which take no part
    skipped : name of a task that cannot be scored -> the reason
    """

    training: np.ndarray
    labels: np.ndarray
    label_names: tuple[str, ...]
    tasks: tuple[Task, ...]
    skipped: dict[str, str]


def chammi_plan(joined: Joined, columns: Columns) -> Plan:
    """Select the tasks of one CHAMMI data set.

    A task's rows are those that its boolean column marks, or, where the table lacks that column, those whose split is
    the task's name.

    Raises
    ------
    EvaluationError
        If a needed column is missing or unusable, or no row trains or is tested.
    """
    split = _splits(joined, columns.split or SPLIT_COLUMN)
    tasks, skipped = [], {}
    for task in DATA_SETS[joined.name].tasks:
        own_column = task.name in joined.rows.column_names
        rows = np.flatnonzero(_truth(joined, task.name) if own_column else split == task.name.lower())
        name = f"{joined.name}/{task.name}"
        if task.leave_out is None or not rows.size:
            tasks.append(Task(name, rows))
        elif task.leave_out in joined.rows.column_names:
            tasks.append(Task(name, rows, _groups(joined, task.leave_out, rows, name)))
        else:  # merged tables have no groups; the other tasks need none
            skipped[name] = f"{joined.origin} lacks the column '{task.leave_out}' of the groups to leave out"
    return _plan(joined, columns, split, tasks, skipped)


def table_plan(joined: Joined, columns: Columns) -> Plan:
    """Select the tasks of any table: one for each value of the split column other than "Train".

    Raises
    ------
    EvaluationError
        If a needed column is missing or unusable, or no row trains or is tested.
    """
    name = columns.split or SPLIT_COLUMN
    split = _splits(joined, name)
    written = _text(joined, name)
    tasks = []
    for value in sorted(set(written.tolist()) - {""}):
        if value.lower() != TRAIN.lower():
            rows = np.flatnonzero(written == value)
            groups = None if columns.group is None else _groups(joined, columns.group, rows, value)
            tasks.append(Task(value, rows, groups))
    return _plan(joined, columns, split, tasks, {})


def _plan(joined: Joined, columns: Columns, split: np.ndarray, tasks: list[Task], skipped: dict[str, str]) -> Plan:
    training = np.flatnonzero(split == TRAIN.lower())
    filled = [task for task in tasks if task.rows.size]
    name = columns.split or SPLIT_COLUMN
    if not filled:
        raise EvaluationError(f"{joined.origin}: no row belongs to a task; {_values(joined, name)}.")
    if not training.size and any(task.groups is None for task in filled):
        raise EvaluationError(f"{joined.origin}: no row is '{TRAIN}'; {_values(joined, name)}.")
    taking_part = np.zeros(len(split), dtype=bool)
    for rows in (training, *(task.rows for task in filled)):
        taking_part[rows] = True
    labels, names = _labels(joined, columns.label, taking_part)
    skipped = skipped | {task.name: "it has no rows" for task in tasks if not task.rows.size}
    return Plan(training, labels, names, tuple(filled), skipped)


def _labels(joined: Joined, name: str | None, taking_part: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    wanted = LABEL_COLUMNS if name is None else (name,)
    present = next((column for column in wanted if column in joined.rows.column_names), None)
    if present is None:
        raise EvaluationError(_lacks(joined, " or ".join(f"'{column}'" for column in wanted), "labels"))
    codes, names = _codes(joined, present)
    unlabelled = np.flatnonzero(taking_part & (codes < 0))
    if unlabelled.size:
        raise EvaluationError(
            f"{joined.origin}: column '{present}' is empty in {unlabelled.size} of the rows to be scored, "
            f"the first {joined.key(int(unlabelled[0]))}."
        )
    return codes, names


def _groups(joined: Joined, name: str, rows: np.ndarray, task: str) -> np.ndarray:
    if name not in joined.rows.column_names:
        raise EvaluationError(_lacks(joined, f"'{name}'", f"groups to leave out of {task}"))
    groups: np.ndarray = _codes(joined, name)[0][rows]
    if (groups < 0).any():
        first = int(rows[np.argmax(groups < 0)])
        raise EvaluationError(
            f"{joined.origin}: column '{name}' is empty in {np.count_nonzero(groups < 0)} of the rows of {task}, "
            f"the first {joined.key(first)}."
        )
    return groups


def _splits(joined: Joined, name: str) -> np.ndarray:
    """Return (N,) lower-case text: users write Train, train and TRAIN."""
    if name not in joined.rows.column_names:
        raise EvaluationError(_lacks(joined, f"'{name}'", "training and test rows"))
    return np.char.lower(_text(joined, name))


def _truth(joined: Joined, name: str) -> np.ndarray:
    """Read a boolean column, however it was written; an empty cell is false."""
    text = np.char.lower(_text(joined, name))
    true, false = np.isin(text, TRUE_TEXTS), np.isin(text, _FALSE_TEXTS)
    if not (true | false).all():
        first = text[np.argmin(true | false)]
        raise EvaluationError(f"{joined.origin}: column '{name}' should hold True or False, but holds '{first}'.")
    return true


def _text(joined: Joined, name: str) -> np.ndarray:
    """(N,) str; "" where empty."""
    return np.array(pc.fill_null(text_column(joined.rows, name, joined.origin), "").to_pylist(), dtype=np.str_)


def _codes(joined: Joined, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """(N,) int64 places in the distinct texts, -1 where empty; and these texts."""
    encoded = pc.dictionary_encode(text_column(joined.rows, name, joined.origin))
    codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    return codes, tuple(encoded.dictionary.to_pylist())


def _lacks(joined: Joined, columns: str, purpose: str) -> str:
    there = ", ".join(joined.rows.column_names)
    return f"{joined.origin}: lacks the column {columns} that holds the {purpose}; its columns are {there}."


def _values(joined: Joined, name: str) -> str:
    values = sorted(set(_text(joined, name).tolist()))
    more = ", ..." if len(values) > _LISTED_VALUES else ""
    return f"column '{name}' holds {', '.join(repr(value) for value in values[:_LISTED_VALUES])}{more}"
