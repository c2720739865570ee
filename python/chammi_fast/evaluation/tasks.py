"""From a benchmark's rules and a table's rows to numbers: which rows train, which are tested, and their labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chammi_fast.chammi import TRUE_TEXTS
from chammi_fast.errors import EvaluationError
from chammi_fast.evaluation.benchmark import TaskRule
from chammi_fast.evaluation.features import ROW_COLUMN, text_column
from chammi_fast.manifest import select_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chammi_fast.evaluation.benchmark import Benchmark
    from chammi_fast.evaluation.features import Joined

_FALSE_TEXTS = ("false", "0", "0.0", "")
_LISTED_VALUES = 8


@dataclass(frozen=True)
class Task:
    """Rows whose labels are to be predicted.

    Attributes
    ----------
    name : such as "Allen/Task_one"
    rows : (Q,) int64, ascending
    groups : (Q,) int64 group of each row, where a row may also be matched with the task's rows of all other groups;
        None where the training rows alone are the reference
    kinds : (N,) int64 of all rows of the table, where a row may not be matched with rows of its own kind
    """

    name: str
    rows: np.ndarray
    groups: np.ndarray | None = None
    kinds: np.ndarray | None = None


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

    @property
    def taking_part(self) -> np.ndarray:
        """Rows that train or are tested: (n,) int64, ascending."""
        return np.unique(np.concatenate([self.training, *(task.rows for task in self.tasks)]))


def plan(joined: Joined, benchmark: Benchmark, group: str | None = None) -> Plan:
    """Apply a benchmark's rules to the rows of one data set.

    Parameters
    ----------
    benchmark : without tasks, each value of the split column that is no training value is a task
    group : column of groups to leave out of these

    Raises
    ------
    EvaluationError
        If a needed column is missing or unusable, or no row trains or is tested.
    """
    rules = [rule for rule in benchmark.tasks if rule.data_set == joined.name]
    if not benchmark.tasks:
        rules = _rules_of_split(joined, benchmark, group)
    training = _select(joined, benchmark.split, benchmark.train, benchmark.train_where)
    tasks, skipped = [], {}
    for rule in rules:
        rows = _rows(joined, benchmark, rule)
        missing = next((name for name in _columns(rule) if name not in joined.rows.column_names), None)
        if not rows.size:
            skipped[rule.name] = "it has no rows"
        elif missing is not None and joined.name:  # merged tables have no groups; the other tasks need none
            skipped[rule.name] = f"{joined.origin} lacks the column '{missing}' of the groups to leave out"
        else:
            _check_apart(joined, rule, rows, training)
            groups = None
            if rule.leave_out is not None:
                groups = _groups(joined, rule.leave_out, rows, f"groups to leave out of {rule.name}")
            kinds = kinds_of(joined, rule.exclude_same, np.union1d(rows, training), f"rows to exclude in {rule.name}")
            tasks.append(Task(rule.name, rows, groups, kinds))
    _check_plan(joined, benchmark, training, tasks, skipped)
    labels, names = _labels(joined, benchmark.label, [training, *(task.rows for task in tasks)])
    return Plan(training, labels, names, tuple(tasks), skipped)


def kinds_of(joined: Joined, columns: tuple[str, ...], rows: np.ndarray, purpose: str) -> np.ndarray | None:
    """Return (N,) int64 numbers of the combinations of some columns' values in some rows; None without columns.

    Raises
    ------
    EvaluationError
        If a column is missing, or empty in one of the rows.
    """
    if not columns:
        return None
    codes = np.zeros((len(columns), joined.rows.num_rows), dtype=np.int64)
    for place, column in enumerate(columns):
        codes[place, rows] = _groups(joined, column, rows, purpose)
    kinds: np.ndarray = np.unique(codes, axis=1, return_inverse=True)[1].reshape(-1).astype(np.int64)
    return kinds


def _rules_of_split(joined: Joined, benchmark: Benchmark, group: str | None) -> list[TaskRule]:
    _check_column(joined, benchmark.split, "training and test rows")
    written = {value.lower(): value for value in sorted(_texts(joined, benchmark.split), reverse=True)}
    for value in ("", *(value.lower() for value in benchmark.train)):
        written.pop(value, None)
    return [TaskRule(name=value, leave_out=group) for value in sorted(written.values())]


def _rows(joined: Joined, benchmark: Benchmark, rule: TaskRule) -> np.ndarray:
    if rule.column is not None and rule.column in joined.rows.column_names:
        rows = np.flatnonzero(_truth(joined, rule.column))
        return rows if rule.where is None else np.intersect1d(rows, _where(joined, rule.where))
    if rule.column is not None and not rule.split_values:
        _check_column(joined, rule.column, f"rows of {rule.name}")
    return _select(joined, benchmark.split, rule.split_values, rule.where)


def _select(joined: Joined, column: str, values: tuple[str, ...], where: str | None) -> np.ndarray:
    """Return the rows with one of the values, if any, in a column, for which the expression, if any, holds."""
    chosen = np.full(joined.rows.num_rows, bool(values) or where is not None)
    if values:
        _check_column(joined, column, "training and test rows")
        # Users write Train, train and TRAIN.
        chosen &= _reads(joined, column, [value.lower() for value in values])
    rows = np.flatnonzero(chosen)
    return rows if where is None else np.intersect1d(rows, _where(joined, where))


def _where(joined: Joined, expression: str) -> np.ndarray:
    numbered = joined.rows.append_column(ROW_COLUMN, pa.array(np.arange(joined.rows.num_rows)))
    rows: np.ndarray = select_rows(numbered, expression)[ROW_COLUMN].to_numpy()
    return rows


def _columns(rule: TaskRule) -> tuple[str, ...]:
    return (*rule.exclude_same, *(() if rule.leave_out is None else (rule.leave_out,)))


def _check_apart(joined: Joined, rule: TaskRule, rows: np.ndarray, training: np.ndarray) -> None:
    both = np.intersect1d(rows, training)
    if both.size:
        raise EvaluationError(
            f"{joined.origin}: {both.size} of the rows of {rule.name} are training rows, too, "
            f"the first {joined.key(int(both[0]))}: a row must not be compared with itself."
        )


def _check_plan(
    joined: Joined, benchmark: Benchmark, training: np.ndarray, tasks: list[Task], skipped: dict[str, str]
) -> None:
    held = f"; {_values(joined, benchmark.split)}" if benchmark.split in joined.rows.column_names else ""
    if not tasks and set(skipped.values()) <= {"it has no rows"}:
        raise EvaluationError(f"{joined.origin}: no row belongs to a task{held}.")
    if not training.size and any(task.groups is None for task in tasks):
        named = [f"'{value}'" for value in benchmark.train]
        if benchmark.train_where is not None:
            named.append(f"one where {benchmark.train_where}")
        wanted = f"no row is {' and '.join(named)}{held}" if named else "the task file names no training rows"
        raise EvaluationError(f"{joined.origin}: {wanted}.")


def _labels(joined: Joined, wanted: tuple[str, ...], parts: list[np.ndarray]) -> tuple[np.ndarray, tuple[str, ...]]:
    present = next((column for column in wanted if column in joined.rows.column_names), None)
    if present is None:
        raise EvaluationError(_lacks(joined, " or ".join(f"'{column}'" for column in wanted), "labels"))
    codes, names = column_codes(joined, present)
    taking_part = np.zeros(len(codes), dtype=bool)
    for rows in parts:
        taking_part[rows] = True
    unlabelled = np.flatnonzero(taking_part & (codes < 0))
    if unlabelled.size:
        raise EvaluationError(
            f"{joined.origin}: column '{present}' is empty in {unlabelled.size} of the rows to be scored, "
            f"the first {joined.key(int(unlabelled[0]))}."
        )
    return codes, names


def _groups(joined: Joined, name: str, rows: np.ndarray, purpose: str) -> np.ndarray:
    _check_column(joined, name, purpose)
    groups: np.ndarray = column_codes(joined, name)[0][rows]
    if (groups < 0).any():
        first = int(rows[np.argmax(groups < 0)])
        raise EvaluationError(
            f"{joined.origin}: column '{name}' is empty in {np.count_nonzero(groups < 0)} of the rows, the first "
            f"{joined.key(first)}, but holds the {purpose}."
        )
    return groups


def _truth(joined: Joined, name: str) -> np.ndarray:
    """Read a boolean column, however it was written; an empty cell is false."""
    neither = [value for value in _texts(joined, name) if value.lower() not in (*TRUE_TEXTS, *_FALSE_TEXTS)]
    if neither:
        raise EvaluationError(f"{joined.origin}: column '{name}' should hold True or False, but holds '{neither[0]}'.")
    return _reads(joined, name, TRUE_TEXTS)


def _reads(joined: Joined, name: str, wanted: Sequence[str]) -> np.ndarray:
    """(N,) bool, in which rows a column has one of the wanted texts, which are lower case; an empty cell is ""."""
    codes, texts = column_codes(joined, name)
    chosen: np.ndarray = np.array([text.lower() in wanted for text in (*texts, "")])[codes]
    return chosen


def _texts(joined: Joined, name: str) -> list[str]:
    """Return a column's distinct texts in the order of their first rows; "" for empty cells, if there are any."""
    codes, texts = column_codes(joined, name)
    return [*texts, *([""] if (codes < 0).any() else [])]


def column_codes(joined: Joined, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return (N,) int64 places in a column's distinct texts, -1 where empty; and these texts."""
    encoded = pc.dictionary_encode(text_column(joined.rows, name, joined.origin))
    codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    return codes, tuple(encoded.dictionary.to_pylist())


def _check_column(joined: Joined, name: str, purpose: str) -> None:
    if name not in joined.rows.column_names:
        raise EvaluationError(_lacks(joined, f"'{name}'", purpose))


def _lacks(joined: Joined, columns: str, purpose: str) -> str:
    there = ", ".join(joined.rows.column_names)
    return f"{joined.origin}: lacks the column {columns} that holds the {purpose}; its columns are {there}."


def _values(joined: Joined, name: str) -> str:
    values = sorted(set(_texts(joined, name)))
    more = ", ..." if len(values) > _LISTED_VALUES else ""
    return f"column '{name}' holds {', '.join(repr(value) for value in values[:_LISTED_VALUES])}{more}"
