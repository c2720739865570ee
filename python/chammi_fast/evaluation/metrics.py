"""From predicted labels to scores, and from the tasks' scores to averages such as CPS."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from chammi_fast.evaluation.confidence import Interval  # noqa: TC001 - msgspec reads the annotations

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Value = TypeVar("Value", float, np.ndarray)


@dataclass(frozen=True)
class ClassScores:
    """One label of a task's ground truth; `n` counts its test rows. An undefined ratio is 0."""

    f1: float
    precision: float
    recall: float
    n: int


@dataclass(frozen=True)
class TaskScores:
    """Scores of one task.

    Attributes
    ----------
    accuracy : share of test rows with the right label
    f1_macro : mean F1 of the labels that occur in the task's ground truth; a prediction of any other label is an
        error, but adds no term (Chen et al. 2023)
    per_class : label -> its scores, labels of the ground truth in alphabetical order
    n : test rows
    intervals : "accuracy" and "f1_macro" -> their confidence intervals; empty where none were asked for
    """

    accuracy: float
    f1_macro: float
    per_class: dict[str, ClassScores]
    n: int
    intervals: dict[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True)
class Average:
    """The mean macro F1 of some tasks, or of other averages.

    Attributes
    ----------
    members : names of tasks or averages
    interval : its confidence interval, or None where none was asked for
    """

    f1_macro: float
    members: tuple[str, ...]
    interval: Interval | None = None


def score_predictions(truth: np.ndarray, predicted: np.ndarray, labels: Sequence[str]) -> TaskScores:
    """Compare predicted labels with the truth.

    Parameters
    ----------
    truth, predicted : (Q,) int64, Q >= 1, places in `labels`
    labels : names; not all need occur
    """
    size = len(labels)
    right = np.bincount(truth[truth == predicted], minlength=size)
    true, claimed = np.bincount(truth, minlength=size), np.bincount(predicted, minlength=size)
    per_class = {}
    for label, place in sorted((labels[place], place) for place in np.flatnonzero(true).tolist()):
        hits, rows, claims = int(right[place]), int(true[place]), int(claimed[place])
        per_class[label] = ClassScores(
            f1=2 * hits / (rows + claims),
            precision=hits / claims if claims else 0.0,
            recall=hits / rows,
            n=rows,
        )
    return TaskScores(
        accuracy=int(right.sum()) / len(truth),
        f1_macro=sum(scores.f1 for scores in per_class.values()) / len(per_class),
        per_class=per_class,
        n=len(truth),
    )


def averages(f1_macro: Mapping[str, Value], definition: Mapping[str, tuple[str, ...]]) -> dict[str, Value]:
    """Return the averages whose members are all there.

    Parameters
    ----------
    f1_macro : task name to macro F1: numbers, or arrays of one shape
    definition : an average's name to its members, which are tasks or averages defined before it
    """
    values = dict(f1_macro)
    for name, members in definition.items():
        if all(member in values for member in members):
            total = values[members[0]]
            for member in members[1:]:
                total = total + values[member]
            values[name] = total / len(members)
    return {name: values[name] for name in definition if name in values}


def tasks_of(name: str, definition: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Names of all tasks that an average is made of, directly or through other averages."""
    if name not in definition:
        return [name]
    return [task for member in definition[name] for task in tasks_of(member, definition)]
