"""Batch effects: how well plate, source or cell line can be told, and what is left without rows of the same plate."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from chammi_fast.errors import EvaluationError
from chammi_fast.evaluation.classifiers import Neighbours
from chammi_fast.evaluation.metrics import score_predictions
from chammi_fast.evaluation.neighbours import NONE
from chammi_fast.evaluation.tasks import Plan, Task, column_codes, kinds_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chammi_fast.evaluation.classifiers import Answer, LinearClassifier
    from chammi_fast.evaluation.features import Joined, Listing
    from chammi_fast.evaluation.space import Space
    from chammi_fast.evaluation.stored import StoredSpace

Found = TypeVar("Found")


@dataclass(frozen=True)
class Predictability:
    """How well the values of a column are predicted in a task's rows, each by the nearest of the others.

    Attributes
    ----------
    n : rows that have a value
    values : number of different values
    accuracy, f1_macro : as of a task
    majority : share of the most frequent value, which is the accuracy of always naming it
    """

    n: int
    values: int
    accuracy: float
    f1_macro: float
    majority: float


@dataclass(frozen=True)
class Excluding:
    """Scores of a task in which no row is compared with rows that share its values of some columns.

    Attributes
    ----------
    n : rows that were scored
    without_reference : rows left out because nothing remained that they could be compared with
    """

    n: int
    accuracy: float
    f1_macro: float
    without_reference: int


@dataclass(frozen=True)
class Diagnostics:
    """Batch-effect diagnostics.

    Attributes
    ----------
    predicting : column -> task -> how well it is predicted
    excluding_same : columns, joined by commas -> task -> its scores
    skipped : "data set: column" or "task: columns" -> why there are none
    """

    predicting: dict[str, dict[str, Predictability]] = field(default_factory=dict)
    excluding_same: dict[str, dict[str, Excluding]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def joined_with(self, other: Diagnostics) -> Diagnostics:
        """Return both under one roof."""
        return Diagnostics(
            _joined(self.predicting, other.predicting),
            _joined(self.excluding_same, other.excluding_same),
            self.skipped | other.skipped,
        )


@dataclass(frozen=True)
class Questions:
    """What to look into.

    Attributes
    ----------
    diagnose : columns to predict
    exclude_same : columns, joined by commas: score every task without rows that share the values of all of them, in
        place of those that the task itself excludes
    """

    diagnose: tuple[str, ...] = ()
    exclude_same: tuple[str, ...] = ()

    def lacking(self, there: list[str]) -> dict[str, list[str]]:
        """Question -> the columns that it needs and that are not among those there, if any."""
        questions = (*self.diagnose, *self.exclude_same)
        missing = {question: [name for name in _columns(question) if name not in there] for question in questions}
        return {question: columns for question, columns in missing.items() if columns}

    def check(self, listings: Sequence[Listing]) -> None:
        """Refuse a question that none of the data sets can answer.

        Raises
        ------
        EvaluationError
            If there is one.
        """
        lacking = [self.lacking(listing.table.column_names) for listing in listings]
        for question in lacking[0]:
            if all(question in one for one in lacking):
                best = min(range(len(listings)), key=lambda place: len(lacking[place][question]))
                there = ", ".join(listings[best].table.column_names)
                column = lacking[best][question][0]
                raise EvaluationError(f"{listings[best].origin}: lacks the column '{column}'; its columns are {there}.")


def diagnose(
    joined: Joined,
    plan: Plan,
    questions: Questions,
    space: Space | StoredSpace,
    classifier: Neighbours | LinearClassifier,
) -> Diagnostics:
    """Answer the questions that a data set's columns can answer."""
    lacking = questions.lacking(joined.rows.column_names)
    reasons = {
        f"{joined.name}: {question}": f"{joined.origin} lacks the column '{columns[0]}'"
        for question, columns in lacking.items()
    }
    result = Diagnostics(skipped=reasons)
    for column in questions.diagnose:
        if column not in lacking:
            result.predicting[column] = _predictability(joined, plan, column, space)
    for columns in questions.exclude_same:
        if columns not in lacking:
            found, skipped = _excluding(joined, plan, columns, classifier)
            result.excluding_same[columns] = found
            result.skipped.update(skipped)
    return result


def _predictability(joined: Joined, plan: Plan, column: str, space: Space | StoredSpace) -> dict[str, Predictability]:
    values, names = column_codes(joined, column)
    found = {}
    for task in plan.tasks:
        rows = task.rows[values[task.rows] >= 0]
        if len(rows) < 2:
            continue
        each_alone = Task(task.name, rows, groups=np.arange(len(rows)))
        answer = Neighbours(space, np.empty(0, dtype=np.int64)).predict(each_alone, values)
        scores = score_predictions(values[rows], answer.labels, names)
        counts = [one.n for one in scores.per_class.values()]
        found[task.name] = Predictability(
            scores.n, len(counts), scores.accuracy, scores.f1_macro, max(counts) / scores.n
        )
    return found


def _excluding(
    joined: Joined, plan: Plan, columns: str, classifier: Neighbours | LinearClassifier
) -> tuple[dict[str, Excluding], dict[str, str]]:
    found, skipped = {}, {}
    for task in plan.tasks:
        part = np.union1d(plan.training, task.rows)
        kinds = kinds_of(joined, _columns(columns), part, f"rows to exclude in {task.name}")
        answer: Answer = classifier.predict(replace(task, kinds=kinds), plan.labels)
        known = answer.labels != NONE
        if not known.any():
            skipped[f"{task.name}: {columns}"] = "all rows share it with all that they could be compared with"
            continue
        scores = score_predictions(plan.labels[task.rows[known]], answer.labels[known], plan.label_names)
        found[task.name] = Excluding(scores.n, scores.accuracy, scores.f1_macro, int(np.count_nonzero(~known)))
    return found, skipped


def _columns(question: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in question.split(","))


def _joined(first: dict[str, dict[str, Found]], second: dict[str, dict[str, Found]]) -> dict[str, dict[str, Found]]:
    return {name: first.get(name, {}) | second.get(name, {}) for name in first | second}
