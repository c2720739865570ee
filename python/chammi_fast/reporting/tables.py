"""The tables of the page: what stands in each cell, and what it is sorted by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from chammi_fast.evaluation.benchmark import CPS
from chammi_fast.reporting import words
from chammi_fast.reporting.published import read_published

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chammi_fast.evaluation import Comparison, Interval
    from chammi_fast.reporting.results import Result

MOST_ROWS = 3000

T = TypeVar("T")


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes
    ----------
    text : what stands in it
    value : what its column is sorted by; None stands last, whichever way
    note : small print beneath
    """

    text: str
    value: float | str | None
    note: str = ""


@dataclass(frozen=True)
class Row:
    """One row; `kind` is "own", or the name of the published table that it is from."""

    cells: tuple[Cell, ...]
    kind: str = "own"


@dataclass(frozen=True)
class Table:
    """A sortable table.

    Attributes
    ----------
    name : its id on the page
    columns : headings; the first `words` of them are words, the others numbers
    left_out : rows that are not shown because there are too many
    file : where all rows are
    """

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    words: int = 1
    left_out: int = 0
    file: str = "scores.json"

    @property
    def kinds(self) -> list[str]:
        """The published tables that rows are from."""
        return [kind for kind in dict.fromkeys(row.kind for row in self.rows) if kind != "own"]


def overview(results: Sequence[Result], *, published: bool) -> Table:
    """Macro F1 of each task and average, one row per model, and the published models beneath."""
    averages = list(dict.fromkeys(name for one in results for name in one.scores.averages))
    averages.sort(key=lambda name: name != "CPS")
    tasks = list(dict.fromkeys(task for one in results for task in one.scores.tasks))
    origin = [_word("this report")] if published else []
    rows = [_own(one, origin, averages, tasks) for one in results]
    if published:
        for row in read_published():
            scores = [_number(row.scores.get(name)) for name in (*averages, *tasks)]
            rows.append(Row((_word(row.name), _word(row.table), *scores), row.table))
    headings = [f"{name} mean" if name != "CPS" else name for name in averages]
    columns = ("model", *(["from"] if published else []), *headings, *(words.task_title(task) for task in tasks))
    caption = "Macro F1 of every task, with the interval of those measured here"
    return Table("overview", caption, columns, tuple(rows), words=1 + len(origin))


def headline(averages: Mapping[str, T]) -> dict[str, T]:
    """Return the averages worth a row: CPS alone where it is defined, for the others are parts of it."""
    return {CPS: averages[CPS]} if CPS in averages else dict(averages)


def by_task(results: Sequence[Result]) -> Table:
    """Accuracy and macro F1 of each model in each task."""
    rows = [
        Row(
            (
                _word(one.name),
                _word(words.task_title(name)),
                Cell(f"{task.n:,}", task.n),
                _number(task.accuracy, task.intervals.get("accuracy")),
                _number(task.f1_macro, task.intervals.get("f1_macro")),
            )
        )
        for one in results
        for name, task in one.scores.tasks.items()
    ]
    columns = ("model", "task", "test cells", "accuracy", "macro F1")
    return Table("by-task", "Every task, with intervals", columns, tuple(rows), words=2)


def by_class(results: Sequence[Result]) -> Table:
    """Precision, recall and F1 of each class."""
    rows = [
        Row(
            (
                _word(one.name),
                _word(words.task_title(name)),
                _word(label),
                Cell(f"{found.n:,}", found.n),
                _number(found.precision),
                _number(found.recall),
                _number(found.f1),
            )
        )
        for one in results
        for name, task in one.scores.tasks.items()
        for label, found in task.per_class.items()
    ]
    columns = ("model", "task", "label", "test cells", "precision", "recall", "F1")
    left_out = max(0, len(rows) - MOST_ROWS)
    return Table("by-class", "Every class of every task", columns, tuple(rows[:MOST_ROWS]), 3, left_out)


def compared(comparisons: Sequence[Comparison]) -> Table | None:
    """Differences of macro F1 with intervals and p-values; None where nothing was compared."""
    rows = [
        Row(
            (
                _word(f"{one.first} and {one.second}"),
                _word(words.task_title(name)),
                _number(found.first),
                _number(found.second),
                Cell(f"{found.difference:+.3f}", found.difference, words.between(found.interval, signed=True)),
                Cell(words.p_value(found.p_value), found.p_value),
            )
        )
        for one in comparisons
        for name, found in (headline(one.averages) | one.f1_macro).items()
    ]
    columns = ("models", "task", "macro F1 of the first", "of the second", "difference", "p")
    return Table("compared", "Paired comparison of models", columns, tuple(rows), 2) if rows else None


def predicting(results: Sequence[Result]) -> Table | None:
    """How well batches are predicted; None where nobody asked."""
    rows = [
        Row(
            (
                _word(one.name),
                _word(column),
                _word(words.task_title(task)),
                Cell(f"{found.n:,}", found.n),
                Cell(f"{found.values:,}", found.values),
                _number(found.majority),
                _number(found.accuracy),
            )
        )
        for one in results
        for column, tasks in one.scores.diagnostics.predicting.items()
        for task, found in tasks.items()
        if found.values > 1
    ]
    columns = ("model", "what is predicted", "task", "cells", "values", "accuracy by chance", "accuracy")
    return Table("predicting", "How well batches can be told apart", columns, tuple(rows), 3) if rows else None


def excluding(results: Sequence[Result]) -> Table | None:
    """Scores without rows of the same batch, beside the plain ones; None where nobody asked."""
    rows = [
        Row(
            (
                _word(one.name),
                _word(f"the same {columns.replace(',', ', ')}"),
                _word(words.task_title(task)),
                Cell(
                    f"{found.n:,}", found.n, f"{found.without_reference:,} left out" if found.without_reference else ""
                ),
                _number(one.scores.tasks[task].f1_macro if task in one.scores.tasks else None),
                _number(found.f1_macro),
                _number(found.accuracy),
            )
        )
        for one in results
        for columns, tasks in one.scores.diagnostics.excluding_same.items()
        for task, found in tasks.items()
    ]
    columns = (
        "model",
        "never compared within",
        "task",
        "cells",
        "macro F1 as scored",
        "macro F1 without",
        "accuracy without",
    )
    return Table("excluding", "What is left without cells of the same batch", columns, tuple(rows), 3) if rows else None


def _own(result: Result, origin: list[Cell], averages: Sequence[str], tasks: Sequence[str]) -> Row:
    cells = [_word(result.name), *origin]
    for name in averages:
        mean = result.scores.averages.get(name)
        cells.append(_number(mean.f1_macro, mean.interval) if mean else _number(None))
    for name in tasks:
        task = result.scores.tasks.get(name)
        cells.append(_number(task.f1_macro, task.intervals.get("f1_macro")) if task else _number(None))
    return Row(tuple(cells))


def _word(text: str) -> Cell:
    return Cell(text, text.lower())


def _number(value: float | None, interval: Interval | None = None) -> Cell:
    return Cell(words.score(value) or "-", value, words.between(interval))
